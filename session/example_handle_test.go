// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// ledger is what the transaction of a session has done so far.
type ledger struct{ updates int }

var ledgers = &session.Resource[*ledger]{
	Name:  "ledger",
	Open:  func(context.Context, string) (*ledger, error) { return new(ledger), nil },
	Close: func(*ledger) error { return nil }, // roll back here
}

// ledgerServer has transactions.
type ledgerServer struct{ session.BaseServer }

// BeginTransaction returns a handle, by which the later calls find the session.
func (s *ledgerServer) BeginTransaction(ctx context.Context, _ flightsql.ActionBeginTransactionRequest) ([]byte, error) {
	if _, err := ledgers.Get(ctx, ""); err != nil {
		return nil, err
	}
	return session.NewHandle(ctx, "transaction", []byte("1"))
}

// DoPutCommandStatementUpdate runs a statement in the transaction that it names.
func (s *ledgerServer) DoPutCommandStatementUpdate(ctx context.Context, cmd flightsql.StatementUpdate) (int64, error) {
	if _, err := session.ResolveHandle(ctx, "transaction", cmd.GetTransactionId()); err != nil {
		return 0, err
	}
	l, err := ledgers.Get(ctx, "")
	if err != nil {
		return 0, err
	}
	l.updates++
	return int64(l.updates), nil
}

// A transaction of a client that keeps no cookies, as most do not by default: its
// calls have their session all the same.
func ExampleNewHandle() {
	store := session.NewSessionStore()
	defer func() { _ = store.Shutdown(context.Background()) }()
	srv := flight.NewServerWithMiddleware([]flight.ServerMiddleware{
		session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store))),
	})
	srv.RegisterFlightService(flightsql.NewFlightServer(&ledgerServer{}))
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
	transaction, err := client.BeginTransaction(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		n, err := transaction.ExecuteUpdate(ctx, "UPDATE")
		fmt.Println("updates so far:", n, err)
	}
	for info := range store.All() {
		store.Kill(info.Fingerprint)
	}
	_, err = transaction.ExecuteUpdate(ctx, "UPDATE")
	fmt.Println(status.Code(err))

	// Output:
	// updates so far: 1 <nil>
	// updates so far: 2 <nil>
	// updates so far: 3 <nil>
	// NotFound
}
