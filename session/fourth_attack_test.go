// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// "The client of a call that fails for that is told that its session is lost": also
// if the handler learns of the kill by its connection, which was closed under it.
func TestAttackAKilledCallThatFailsByItsConnectionIsTold(t *testing.T) {
	store := newStore(t)
	type conn struct{ done chan struct{} }
	r := &session.Resource[*conn]{Name: "c", Open: func(context.Context, string) (*conn, error) { return &conn{make(chan struct{})}, nil },
		Close: func(c *conn) error { close(c.done); return nil }}
	inside := make(chan string, 1)
	srv := &sqlServer{statements: map[string]statement{"x": func(ctx context.Context, s session.ServerSession) error {
		c, err := r.Get(ctx, "")
		if err != nil {
			return err
		}
		inside <- s.Token()
		<-c.done
		return status.Error(codes.Internal, "use of closed network connection")
	}}}
	c := serveEdge(t, edge(store, session.WithCancelOnKill()), srv).client()
	missed := 0
	for range 1500 {
		done := make(chan reply, 1)
		go func() { done <- c.do(info("x")) }()
		store.Kill(store.Fingerprint(<-inside))
		if got, _ := reason((<-done).err); got != "SESSION_KILLED" {
			missed++
		}
	}
	if missed > 0 {
		t.Errorf("%d of 1500 were not told", missed)
	}
}

// Sessions of a type of the server's own.
func TestAttackCancelOnKillOfForeignSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		var n atomic.Int32
		users := session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			return &userSession{id: fmt.Sprint("user-session-", n.Add(1))}, nil
		}))
		srv := &sqlServer{statements: map[string]statement{"x": func(ctx context.Context, _ session.ServerSession) error {
			if _, err := session.ResolveHandle(ctx, "k", []byte("x")); status.Code(err) != codes.NotFound {
				t.Error(err)
			}
			<-ctx.Done()
			return ctx.Err()
		}}}
		m := session.NewStatefulServerSessionManager(session.WithStore(store), users)
		c := serveEdgeInBubble(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithCancelOnKill()), srv).client()
		for _, f := range []call{info("x"), directScan("x")} {
			done := make(chan reply, 1)
			go func() { done <- c.do(f) }()
			synctest.Wait()
			for i := range store.All() {
				store.Kill(i.Fingerprint)
			}
			if got, _ := reason((<-done).err); got != "SESSION_KILLED" {
				t.Error(got)
			}
		}
	})
}

// The client has the cookie of the handle's session, and sends it behind that of another
// one: End must have it drop that one, or else it is told of a session that it has
// closed.
func TestAttackEndOfAHandlesSessionAndCookies(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	n.statements["end"] = func(ctx context.Context, s session.ServerSession) error {
		if err := n.statements["use"](ctx, s); err != nil {
			return err
		}
		return session.End(ctx)
	}
	c := serveEdge(t, edge(store), n.sqlServer).client()
	other := c.must(setOption("schema", "x")).cookie(t)
	handle, cookie := n.begin(c)
	pair, _, _ := strings.Cut(other, ";")
	mine, _, _ := strings.Cut(cookie, ";")
	r := c.must(presenting(info("end"), handle), pair+"; "+mine)
	if len(r.header)+len(r.trailer) > 0 {
		t.Logf("set: %q %q", r.header, r.trailer)
	}
	// The other one, whose cookie came first, lives on.
	if got := c.option("schema", other); got != "x" {
		t.Errorf("the other session has schema %q", got)
	}
	// By handle alone: the client that closed it is told that it is lost.
	handle, cookie = n.begin(c)
	c.must(presenting(info("end"), handle))
	if err := c.do(info(""), cookie).err; err != nil {
		t.Logf("after End by handle, the cookie: %v", err)
	}
}

// An End that comes while a handle is resolved.
func TestAttackEndWhileAHandleIsResolved(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	var hook atomic.Pointer[func()]
	principal := func(ctx context.Context) (session.Principal, error) {
		if f := hook.Swap(nil); f != nil {
			(*f)()
		}
		return session.Principal{}, nil
	}
	n.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		end := func() { _ = session.End(ctx) }
		calls := 0
		// Let the hook run at the last time that the principal is asked for.
		var count func()
		count = func() {
			if calls++; calls == 2 {
				end()
				return
			}
			hook.Store(&count)
		}
		hook.Store(&count)
		_, err := session.ResolveHandle(ctx, "transaction", []byte(strings.Join(metadata.ValueFromIncomingContext(ctx, handleHeader), "")))
		hook.Store(nil)
		s, lookup := session.Lookup(ctx)
		if err == nil && lookup == nil && s.Closed() && store.Len() == 1 {
			t.Errorf("after %d askings: ResolveHandle has succeeded, and the session is said to be closed, but lives", calls)
		} else {
			t.Log(calls, err, lookup)
		}
		return nil
	}
	c := serveEdge(t, edge(store, session.WithPrincipal(principal)), n.sqlServer).client()
	handle, _ := n.begin(c)
	c.must(presenting(info("x"), handle))
}

var _ = errors.New
var _ = layover.Tick
var _ = time.Second
