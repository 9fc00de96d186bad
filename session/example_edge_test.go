// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// Sessions belong to whoever a bearer token proves to call, so clients need no
// cookies. When the session is gone, its client is told so, and goes on after
// having set its options again.
func ExampleNewServerMiddleware() {
	store := session.NewSessionStore(layover.WithIdleTimeout(15*time.Minute), layover.WithLogger(nil))
	defer func() { _ = store.Shutdown(context.Background()) }()
	users := map[string]string{"Bearer b3j1": "ada"} // as the login has issued them
	who := func(ctx context.Context) (session.Principal, error) {
		bearer := strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), "")
		user, ok := users[bearer]
		if !ok {
			return session.Principal{}, status.Error(codes.Unauthenticated, "log in first")
		}
		return session.Principal{Name: user, Key: bearer}, nil
	}
	srv := flight.NewServerWithMiddleware([]flight.ServerMiddleware{
		session.NewServerMiddleware(
			session.NewStatefulServerSessionManager(session.WithStore(store)),
			session.WithCarriers(session.ByPrincipal(who))),
	})
	srv.RegisterFlightService(flightsql.NewFlightServer(&queryServer{}))
	if err := srv.Init("127.0.0.1:0"); err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve() }()
	defer func() { srv.Shutdown(); <-served }()

	client, err := flightsql.NewClient(srv.Addr().String(), nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = client.Close() }()
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer b3j1")
	schema, _ := flight.NewSessionOptionValue("sales")
	options := &flight.SetSessionOptionsRequest{SessionOptions: map[string]*flight.SessionOptionValue{"schema": &schema}}

	_, _ = client.Execute(ctx, "SELECT 1")
	fmt.Println("sessions:", store.Len())
	_, _ = client.SetSessionOptions(ctx, options)
	_, _ = client.Execute(ctx, "SELECT 2")

	for info := range store.All() {
		store.Kill(info.Fingerprint) // an operator does this
	}
	for range 2 {
		_, err = client.Execute(ctx, "DELETE")
		fmt.Println(status.Code(err), strings.HasPrefix(status.Convert(err).Message(), session.LostPrefix))
	}
	_, _ = client.SetSessionOptions(ctx, options)
	_, _ = client.Execute(ctx, "SELECT 3")

	// Output:
	// SELECT 1 in schema ""
	// sessions: 0
	// SELECT 2 in schema "sales"
	// NotFound true
	// NotFound true
	// SELECT 3 in schema "sales"
}
