// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// A Flight SQL server whose sessions end. The README shows this body.
func Example() {
	store := session.NewSessionStore(
		layover.WithIdleTimeout(15*time.Minute),
		layover.WithMaxSessions(10_000),
	)
	defer func() { _ = store.Shutdown(context.Background()) }()
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	server := flight.NewServerWithMiddleware([]flight.ServerMiddleware{
		session.NewServerMiddleware(manager),
	})
	server.RegisterFlightService(flightsql.NewFlightServer(&session.BaseServer{}))

	// Output:
}
