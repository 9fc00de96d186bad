// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"os"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/c8e4ff29/layover/session"
)

// scratch is a folder that each session has for its temporary files.
var scratch = &session.Resource[string]{
	Name:  "scratch folder",
	Open:  func(context.Context, string) (string, error) { return os.MkdirTemp("", "scratch") },
	Close: os.RemoveAll,
}

// spillServer writes temporary files.
type spillServer struct{ session.BaseServer }

// GetFlightInfoStatement counts the files that the session has.
func (s *spillServer) GetFlightInfoStatement(ctx context.Context, q flightsql.StatementQuery, _ *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	folder, err := scratch.Get(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(folder+"/"+q.GetQuery(), nil, 0o600); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(folder)
	fmt.Println("files of this session:", len(files))
	return &flight.FlightInfo{}, err
}

// Each session has a folder of its own, which goes with it.
func ExampleResource() {
	store := session.NewSessionStore()
	srv := flight.NewServerWithMiddleware([]flight.ServerMiddleware{
		session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store))),
	})
	srv.RegisterFlightService(flightsql.NewFlightServer(&spillServer{}))
	if err := srv.Init("127.0.0.1:0"); err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve() }()

	for range 2 {
		client, err := flightsql.NewClient(srv.Addr().String(), nil, []flight.ClientMiddleware{flight.NewClientCookieMiddleware()},
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, query := range []string{"a", "b"} {
			_, _ = client.Execute(context.Background(), query)
		}
		_ = client.Close()
	}
	fmt.Println("folders:", store.Resources().Open)

	srv.Shutdown()
	<-served
	err := store.Shutdown(context.Background())
	fmt.Println("folders at the end:", store.Resources().Open, err)

	// Output:
	// files of this session: 1
	// files of this session: 2
	// files of this session: 1
	// files of this session: 2
	// folders: 2
	// folders at the end: 0 <nil>
}
