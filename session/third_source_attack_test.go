// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/c8e4ff29/layover/session"
)

// The resources of a session count for whose it is, also if that changes just as the
// first of them is asked for.
func TestAttackTheSourceOfBelongingsIsTheSessions(t *testing.T) {
	n := newCounter()
	stale := 0
	n.statements["both"] = func(ctx context.Context, _ session.ServerSession) error {
		var all sync.WaitGroup
		start := make(chan struct{})
		for i := range 4 {
			all.Go(func() {
				<-start
				time.Sleep(time.Duration(rand.IntN(40*(i+1))) * time.Microsecond)
				_, _ = session.NewHandle(ctx, "k", nil)
			})
		}
		close(start)
		err := session.Renew(ctx, session.Principal{Name: "alice"})
		all.Wait()
		if things, own := session.AttackSources(ctx); things != own {
			stale++
			if stale == 1 {
				t.Logf("things %q, session %q", things, own)
			}
		}
		return err
	}
	store := newStore(t)
	c := serveEdge(t, edge(store), n.sqlServer).client()
	for range 3000 {
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		c.must(info("both"), cookie)
		killAll(store)
	}
	if stale > 0 {
		t.Errorf("%d of 3000 sessions have resources that count for somebody else", stale)
	}
}

// A handle is 100 bytes longer than its object.
func TestAttackLengthOfHandles(t *testing.T) {
	for name, opts := range map[string][]session.MiddlewareOption{"cookie": nil, "bound": {session.WithPrincipal(who)}, "principal": {session.WithCarriers(session.ByPrincipal(who))}} {
		n := newCounter()
		c := serveEdge(t, edge(newStore(t), opts...), n.sqlServer).client()
		c.must(with(info("begin"), "x-user", "alice"))
		if d := len(n.handle) - len("object 1"); d != 100 {
			t.Errorf("%s: a handle is %d bytes longer, not 100", name, d)
		}
	}
}

// Somebody else's session that has ended is one that never was, also with IDs of the
// server's own.
func TestAttackTheEndOfASessionIsNobodyElsesBusiness(t *testing.T) {
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

// A call that has ended discards nothing, and holds nothing.
func TestAttackACallThatHasEndedDiscardsNothing(t *testing.T) {
	w := newWires()
	srv := w.server()
	ended := make(chan struct{})
	done := make(chan error, 2)
	srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		_, err := w.Get(ctx, "")
		go func() {
			<-ended
			done <- w.Hold(ctx, "", time.Hour)
			done <- w.Discard(ctx, "")
		}()
		return err
	}
	store := newStore(t)
	c := serveEdge(t, edge(store), srv).client()
	c.must(info("x"))
	close(ended)
	hold, discard := <-done, <-done
	if st := store.Resources(); hold == nil || discard == nil || st.Discarded > 0 {
		t.Errorf("Hold %v, Discard %v, %+v", hold, discard, st)
	}
}
