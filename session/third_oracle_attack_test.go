// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"

	"github.com/c8e4ff29/layover/session"
)

// To somebody else a session that has ended, but is in use, is one that never was, also
// with IDs of the server's own.
func TestAttackClosingIsNobodyElsesBusiness(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprint("own IDs ", own), func(t *testing.T) {
			store := newStore(t)
			var n atomic.Int64
			opts := []session.StatefulSessionManagerOption{session.WithStore(store)}
			if own {
				opts = append(opts, session.WithFactory(session.NewSessionFactory(func() string { return fmt.Sprintf("id-%d", n.Add(1)) })))
			}
			started, gate := make(chan struct{}), make(chan struct{})
			m := session.NewServerMiddleware(session.NewStatefulServerSessionManager(opts...), session.WithLogger(nil), session.WithPrincipal(who))
			c := serveEdge(t, m, &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
				"wait": func(context.Context, session.ServerSession) error { close(started); <-gate; return nil }}}).client()
			cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
			done := c.start(with(info("wait"), "x-user", "alice"), cookie)
			<-started
			var st gen.CloseSessionResult_Status
			c.must(with(closing(&st), "x-user", "bob"), cookie)
			before := st
			c.must(with(closing(&st), "x-user", "alice"), cookie)
			if st != flight.CloseSessionResultClosing {
				t.Errorf("alice: %v", st)
			}
			c.must(with(closing(&st), "x-user", "bob"), cookie)
			if st != before {
				t.Errorf("bob is told %v of alice's session that lives, and %v when she has closed it", before, st)
			}
			close(gate)
			<-done
		})
	}
}
