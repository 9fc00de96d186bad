// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// "In a handshake, which gets no session otherwise, [Begin] is the only way to one."
func TestAttackAHandshakeGetsASessionByGet(t *testing.T) {
	w := newWires()
	store := newStore(t)
	login := flight.ServerMiddleware{Stream: func(srv any, stream grpc.ServerStream, i *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if strings.HasSuffix(i.FullMethod, "/Handshake") {
			ctx := stream.Context()
			if _, err := session.Ensure(ctx); err == nil {
				t.Error("Ensure has made one")
			}
			_, get := w.Get(ctx, "")
			_, handle := session.NewHandle(ctx, "k", nil)
			if store.Len() > 0 {
				t.Errorf("Get has made one: %v, %v", get, handle)
			}
			return nil
		}
		return handler(srv, stream)
	}}
	c := serveEdge(t, chained(edge(store), login), nil).client()
	r := c.do(handshake)
	t.Logf("%q %v", r.header, r.err)
}

// "as long as they have it, neither the resource nor its session idles out": also if
// another goroutine of the call begins a session meanwhile.
func TestAttackAcquireLeasesAnotherSessionThanTheResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		var hook atomic.Pointer[func()]
		principal := func(context.Context) (session.Principal, error) {
			if f := hook.Swap(nil); f != nil {
				(*f)()
			}
			return session.Principal{}, nil
		}
		var lease *session.ResourceLease[*wire]
		srv := w.server()
		srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) (err error) {
			n := 0
			var count func()
			count = func() { // another goroutine, at this moment
				if n++; n == 2 {
					done := make(chan struct{})
					go func() { defer close(done); _, _ = session.Begin(ctx) }()
					<-done
					return
				}
				hook.Store(&count)
			}
			hook.Store(&count)
			lease, err = w.Acquire(ctx, "")
			hook.Store(nil)
			return err
		}
		c := serveEdgeInBubble(t, edge(store, session.WithPrincipal(principal)), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		err := c.do(info("x"), cookie).err
		synctest.Wait()
		if lease == nil {
			t.Log(err)
			return
		}
		if lease.Value().done {
			t.Error("it is closed, although it is leased, and nobody was killed")
		}
		lease.Release()
	})
}

// "a handle is 100 bytes longer"
func TestAttackHandlesOfPrincipals(t *testing.T) {
	n := newCounter()
	c := serveEdge(t, edge(newStore(t), session.WithCarriers(session.ByPrincipal(who))), n.sqlServer).client()
	c.must(with(info("begin"), "x-user", "alice"))
	if more := len(n.handle) - len("object 1"); more > 100 {
		t.Errorf("%d bytes longer", more)
	}
}

// A token that a Close quotes is in what the owner's own observers print.
func TestAttackATokenInAResourcesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tok, text := "", ""
		r := &session.Resource[int]{Name: "n", Open: func(ctx context.Context, _ string) (int, error) {
			s, _ := session.Lookup(ctx)
			tok = s.Token()
			return 1, nil
		}, Close: func(int) error { return fmt.Errorf("closing %s", tok) }}
		r.Closed = func(e session.ResourceEnd) { text += fmt.Sprintf("%+v %v", e, e.Err) }
		observed := ""
		store := newStore(t, layover.WithObserver(func(e layover.Event) { observed += fmt.Sprintf("%+v", e) }))
		srv := &sqlServer{statements: map[string]statement{"x": func(ctx context.Context, _ session.ServerSession) error { _, err := r.Get(ctx, "k"); return err }}}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		cookie := c.must(info("x")).cookie(t)
		c.must(closeSession, cookie)
		wait(time.Second)
		if strings.Contains(observed, tok) {
			t.Error("in the event: " + observed)
		}
		if strings.Contains(text, tok) {
			t.Error("in the end of the resource: " + text)
		}
		if strings.Contains(fmt.Sprintf("%+v %#v", r, r), tok) {
			t.Error("in the resource")
		}
	})
}
