// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover/session"
)

// The options of the example's server.
var (
	schemaOption = &session.Option[string]{Name: "schema", Default: "public", Check: session.OneOf("public", "sales")}
	limitOption  = &session.Option[int64]{Name: "limit", Aliases: []string{"max_rows"}, Default: 1000, Check: session.Range[int64](1, 1_000_000)}
)

// salesServer has the three session actions from BaseServer.
type salesServer struct{ session.BaseServer }

func (*salesServer) GetFlightInfoStatement(ctx context.Context, q flightsql.StatementQuery, _ *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	schema, err := schemaOption.Get(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := limitOption.Get(ctx)
	if err != nil {
		return nil, err
	}
	fmt.Printf("%s in schema %s, at most %d rows\n", q.GetQuery(), schema, limit)
	return &flight.FlightInfo{}, nil
}

// A server that embeds BaseServer answers clients that set, list and unset options, and
// close their session.
func ExampleBaseServer() {
	server := &salesServer{session.BaseServer{Options: session.MustSchema(schemaOption, limitOption)}}
	srv := flight.NewServerWithMiddleware([]flight.ServerMiddleware{session.NewServerMiddleware(nil)})
	srv.RegisterFlightService(flightsql.NewFlightServer(server))
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
	ctx := context.Background()
	_, _ = client.Execute(ctx, "SELECT 1")

	values, _ := flight.NewSessionOptionValues(map[string]any{"schema": "sales", "limit": "many", "max_row": "5"})
	var header metadata.MD
	result, err := client.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: values}, grpc.Header(&header))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(result.GetErrors())) {
		fmt.Println(name, result.GetErrors()[name].GetValue())
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "cookie", header.Get("set-cookie")[0])
	values, _ = flight.NewSessionOptionValues(map[string]any{"max_rows": "20"}) // as a string
	_, _ = client.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: values})
	_, _ = client.Execute(ctx, "SELECT 2")

	closed, err := client.CloseSession(ctx, &flight.CloseSessionRequest{})
	fmt.Println(closed.GetStatus(), err)

	// Output:
	// SELECT 1 in schema public, at most 1000 rows
	// limit INVALID_VALUE
	// max_row INVALID_NAME
	// SELECT 2 in schema sales, at most 20 rows
	// CLOSED <nil>
}

// A schema can be shown to people, as on a page of the server.
func ExampleSchema_All() {
	schema := session.MustSchema(
		&session.Option[string]{Name: "schema", Default: "public", Description: "where tables are looked for"},
		&session.Option[string]{Name: "tenant", NoDefault: true, ReadOnly: true, Description: "set by the login"},
	)
	for o := range schema.All() {
		fmt.Println(o.Name, o.Type, o.Default, o.ReadOnly, o.Description)
	}

	// Output:
	// schema string public false where tables are looked for
	// tenant string <nil> true set by the login
}

// OnChange reacts to a new value, or refuses it.
func ExampleOption_onChange() {
	warehouse := &session.Option[string]{
		Name:    "warehouse",
		Default: "small",
		OnChange: func(_ context.Context, from, to string) error {
			if to == "huge" {
				return fmt.Errorf("not on your plan: %w", session.ErrInvalidOption)
			}
			fmt.Println("from", from, "to", to)
			return nil
		},
	}
	store := session.NewSessionStore()
	defer func() { _ = store.Shutdown(context.Background()) }()
	middleware := session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store)))
	_, _ = middleware.Unary(context.Background(), nil, getFlightInfo, func(ctx context.Context, _ any) (any, error) {
		fmt.Println(warehouse.Set(ctx, "large"))
		fmt.Println(warehouse.Set(ctx, "huge"))
		fmt.Println(warehouse.Get(ctx))
		return nil, nil
	})

	// Output:
	// from small to large
	// <nil>
	// not on your plan: session: an option cannot have this value
	// large <nil>
}
