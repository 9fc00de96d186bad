// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"

	"github.com/c8e4ff29/layover/session"
)

// To somebody else a session that has ended, but is in use, is one that never was, also
// with IDs of the server's own.
func TestThatASessionIsClosingIsNobodyElsesBusiness(t *testing.T) {
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

// Somebody else's session that has ended is one that never was, also with IDs of the
// server's own.
func TestTheEndOfASessionIsNobodyElsesBusiness(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprint("own IDs ", own), func(t *testing.T) {
			store := newStore(t)
			i := 0
			opts := []session.StatefulSessionManagerOption{session.WithStore(store)}
			if own {
				opts = append(opts, session.WithFactory(session.NewSessionFactory(func() string { i++; return fmt.Sprintf("id-%d", i) })))
			}
			m := session.NewServerMiddleware(session.NewStatefulServerSessionManager(opts...), session.WithLogger(nil), session.WithPrincipal(who))
			n := newCounter()
			c := serveEdge(t, m, n.sqlServer).client()
			handle, cookie := n.begin(c, "x-user", "alice")
			killAll(store)
			told, _ := reason(c.do(with(info(""), "x-user", "bob"), cookie).err)
			garbage, _ := reason(c.do(with(info(""), "x-user", "bob"), session.StatefulSessionCookieName+"=id-1000").err)
			if told != garbage {
				t.Errorf("bob is told %q of alice's cookie, and %q of any other", told, garbage)
			}
			wantUnknown(t, "bob with alice's handle", c.do(with(presenting(info("use"), handle), "x-user", "bob")).err)
			if err := c.do(with(presenting(info("use"), handle), "x-user", "alice")).err; err == nil || !strings.Contains(err.Error(), "lost") {
				t.Errorf("alice: %v", err)
			}
		})
	}
}
