// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// queryServer is a Flight SQL server that remembers each client's schema.
type queryServer struct{ flightsql.BaseServer }

func (*queryServer) SetSessionOptions(ctx context.Context, req *flight.SetSessionOptionsRequest) (*flight.SetSessionOptionsResult, error) {
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, err // it has a gRPC status, and no secrets
	}
	for name, value := range req.GetSessionOptions() {
		s.SetSessionOption(name, value)
	}
	return &flight.SetSessionOptionsResult{}, nil
}

func (*queryServer) GetFlightInfoStatement(ctx context.Context, q flightsql.StatementQuery, _ *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Printf("%s in schema %q\n", q.GetQuery(), s.GetSessionOption("schema").GetStringValue())
	return &flight.FlightInfo{}, nil
}

// A client without cookies has a new session in every call; one with cookies
// has one session.
func ExampleNewServerSessionMiddleware() {
	middleware := session.NewServerSessionMiddleware(nil) // sessions in memory, default limits

	srv := flight.NewServerWithMiddleware([]flight.ServerMiddleware{flight.CreateServerMiddleware(middleware)})
	srv.RegisterFlightService(flightsql.NewFlightServer(&queryServer{}))
	if err := srv.Init("127.0.0.1:0"); err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve()
	}()
	defer func() { srv.Shutdown(); <-served }()

	for _, cookies := range [][]flight.ClientMiddleware{nil, {flight.NewClientCookieMiddleware()}} {
		client, err := flightsql.NewClient(srv.Addr().String(), nil, cookies,
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			fmt.Println(err)
			return
		}
		ctx := context.Background()
		_, _ = client.Execute(ctx, "SELECT 1") // its reply brings the cookie
		schema, _ := flight.NewSessionOptionValue("sales")
		_, _ = client.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{
			SessionOptions: map[string]*flight.SessionOptionValue{"schema": &schema},
		})
		_, _ = client.Execute(ctx, "SELECT 2")
		_ = client.Close()
	}

	// Output:
	// SELECT 1 in schema ""
	// SELECT 2 in schema ""
	// SELECT 1 in schema ""
	// SELECT 2 in schema "sales"
}

// IDs from a generator of one's own, in a store of one's own making.
func ExampleNewStatefulServerSessionManager() {
	number := 0
	factory := session.NewSessionFactory(func() string {
		number++
		return fmt.Sprint("session-", number) // for the example: real IDs must not be guessed
	})
	store := session.NewSessionStore(layover.WithIdleTimeout(15 * time.Minute))
	defer func() { _ = store.Shutdown(context.Background()) }()
	manager := session.NewStatefulServerSessionManager(session.WithFactory(factory), session.WithStore(store))
	middleware := session.NewServerSessionMiddleware(manager)

	ctx := middleware.StartCall(context.Background()) // the server does this
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	cookie, _ := session.CreateCookieForSession(s)
	fmt.Println(cookie.String())
	middleware.CallCompleted(ctx, nil)

	// Output:
	// arrow_flight_session_id=session-1
}

// Sessions that travel whole in their cookies.
func ExampleNewStatelessServerSessionManager() {
	manager := session.NewStatelessServerSessionManager()
	middleware := session.NewServerSessionMiddleware(manager)

	ctx := middleware.StartCall(context.Background()) // the server does this
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	world, _ := flight.NewSessionOptionValue("world")
	s.SetSessionOption("hello", &world)
	cookie, _ := session.CreateCookieForSession(s)
	fmt.Println(cookie.String())
	middleware.CallCompleted(ctx, nil)

	// Output:
	// arrow_flight_session=ChAKBWhlbGxvEgcKBXdvcmxk
}

// A store with limits, and what its clients are told when it is full and when
// it shuts down.
func ExampleNewSessionStore() {
	store := session.NewSessionStore(
		layover.WithIdleTimeout(15*time.Minute),
		layover.WithLifetime(12*time.Hour),
		layover.WithMaxSessions(2),
		layover.WithLogger(nil),
	)
	middleware := session.NewServerSessionMiddleware(
		session.NewStatefulServerSessionManager(session.WithStore(store)), session.WithLogger(nil))

	// Two calls are being served, so that nobody may leave for the third.
	first := middleware.StartCall(context.Background())
	second := middleware.StartCall(context.Background())
	third := middleware.StartCall(context.Background())
	_, err := session.GetSessionFromContext(third)
	fmt.Println(status.Code(err), errors.Is(err, layover.ErrFull))
	for _, call := range []context.Context{first, second, third} {
		middleware.CallCompleted(call, nil)
	}

	// When the server has stopped taking calls:
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	fmt.Println("shutdown:", store.Shutdown(ctx))
	fmt.Println("ended:", store.Stats().Ended[layover.ReasonShutdown])

	_, err = session.GetSessionFromContext(middleware.StartCall(context.Background()))
	fmt.Println(status.Code(err))

	// Output:
	// ResourceExhausted true
	// shutdown: <nil>
	// ended: 2
	// Unavailable
}
