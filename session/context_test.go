// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// The context of a session ends with it, not with a call, also when it was renewed.
func TestTheContextOfASessionEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t, layover.WithIdleTimeout(time.Hour), layover.WithUnconfirmedTimeouts(time.Hour, time.Hour))
		var within context.Context
		srv := renewing()
		srv.statements["context"] = func(ctx context.Context, _ session.ServerSession) (err error) {
			within, err = session.Context(ctx)
			return err
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		if err := c.do(info("context")).err; err == nil || store.Len() != 0 {
			t.Errorf("a call without a session: %v, %d sessions", err, store.Len())
		}
		cookie := c.must(setOption("a", "b")).cookie(t)
		c.must(info("context"), cookie)
		cookie = c.must(info("RENEW"), cookie).cookie(t)
		wait(time.Hour - late)
		if within.Err() != nil {
			t.Error("it has ended before the session")
		}
		wait(2 * late)
		ended := (*layover.EndedError)(nil)
		if !errors.As(context.Cause(within), &ended) || ended.Reason != layover.ReasonIdle || ended.Fingerprint != store.Fingerprint(token(cookie)) {
			t.Errorf("the cause is %v", context.Cause(within))
		}
	})
}

// With WithCancelOnKill, calls under way end with their session if it is killed, and
// their client is told; without it they go on. Closing it cancels nothing.
func TestCallsAreCanceledByAKillIfWanted(t *testing.T) {
	for name, do := range map[string]call{"unary": info("long"), "stream": directScan("long")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { canceledByAKill(t, do) })
		})
	}
}

func canceledByAKill(t *testing.T, do call) {
	store := newStore(t)
	makes := false
	gate := make(chan struct{})
	srv := &sqlServer{statements: map[string]statement{"long": func(ctx context.Context, _ session.ServerSession) error {
		if makes {
			if _, err := session.Ensure(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gate:
			return nil
		}
	}}}
	start := func(c *client, cookies ...string) chan reply {
		done := make(chan reply, 1)
		go func() { done <- c.do(do, cookies...) }()
		synctest.Wait()
		return done
	}
	kill := func() (n int) {
		for info := range store.All() {
			store.Kill(info.Fingerprint)
			n++
		}
		synctest.Wait()
		return n
	}
	canceling := serveEdgeInBubble(t, edge(store, session.WithCancelOnKill()), srv).client()
	going := serveEdgeInBubble(t, edge(store), srv).client()

	cookie := canceling.must(setOption("a", "b")).cookie(t)
	done := start(canceling, cookie)
	other := start(going, cookie)
	kill()
	wantLost(t, store, cookie, <-done, "KILLED")
	gate <- struct{}{}
	if err := (<-other).err; err != nil {
		t.Errorf("without the option: %v", err)
	}

	makes = true
	done = start(canceling)
	if n := kill(); n != 1 {
		t.Fatalf("%d sessions", n)
	}
	err := (<-done).err
	if got, _ := reason(err); status.Code(err) != codes.NotFound || got != "SESSION_KILLED" {
		t.Errorf("of a session that the call has made: %v", err)
	}

	makes = false
	cookie = canceling.must(setOption("a", "b")).cookie(t)
	done = start(canceling, cookie)
	canceling.must(closeSession, cookie)
	wait(time.Minute)
	gate <- struct{}{}
	if err := (<-done).err; err != nil {
		t.Errorf("after CloseSession: %v", err)
	}
}

// A shutdown that runs out of time cancels calls, which are told to come back later.
func TestCallsAreCanceledByALateShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session.NewSessionStore(layover.WithLogger(nil))
		srv := &sqlServer{statements: map[string]statement{"long": func(ctx context.Context, _ session.ServerSession) error {
			<-ctx.Done()
			return ctx.Err()
		}}}
		c := serveEdgeInBubble(t, edge(store, session.WithCancelOnKill()), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		done := make(chan reply, 1)
		go func() { done <- c.do(info("long"), cookie) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := store.Shutdown(ctx); err == nil {
			t.Error("it was not late")
		}
		err := (<-done).err
		if got, _ := reason(err); status.Code(err) != codes.Unavailable || got != "SESSION_SHUTDOWN" {
			t.Errorf("got %v", err)
		}
		_ = store.Shutdown(t.Context())
	})
}

// ways are how a call comes to its session, which that one has then.
var ways = map[string]func(ctx context.Context) error{
	"cookie":    func(context.Context) error { return nil },
	"stream":    func(context.Context) error { return nil },
	"makes it":  func(ctx context.Context) error { _, err := session.Ensure(ctx); return err },
	"begins it": func(ctx context.Context) error { _, err := session.Begin(ctx); return err },
	"handle": func(ctx context.Context) error {
		_, err := session.ResolveHandle(ctx, "transaction", presented(ctx))
		return err
	},
	"renews it":        func(ctx context.Context) error { return session.Renew(ctx) },
	"renewed meantime": func(context.Context) error { return nil },
}

// Whatever way a call comes to its session, a kill of that cancels the call, and
// nothing else does: neither a close of it, nor the end of those that it had before.
func TestACallIsCanceledByAKillOfTheSessionThatItHasByThen(t *testing.T) {
	for way := range ways {
		for _, end := range []string{"killed", "closed", "others killed"} {
			t.Run(way+", "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { canceledByTheRightKill(t, way, end) })
			})
		}
	}
}

func canceledByTheRightKill(t *testing.T, way, end string) {
	store := newStore(t)
	inside, gate := make(chan string, 1), make(chan struct{})
	n := newCounter()
	n.statements["long"] = func(ctx context.Context, _ session.ServerSession) error {
		err := ways[way](ctx)
		s, lookup := session.Lookup(ctx)
		if err = errors.Join(err, lookup); err != nil {
			t.Error(err)
			inside <- ""
			return err
		}
		inside <- s.Token()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gate:
			return nil
		}
	}
	c := serveEdgeInBubble(t, edge(store, session.WithCancelOnKill()), n.sqlServer).client()
	handle, _ := n.begin(c)
	cookies := []string{c.must(setOption("a", "b")).cookie(t)}
	do := presenting(info("long"), handle)
	switch way {
	case "stream":
		do = directScan("long")
	case "makes it":
		cookies = nil
	}
	replied := c.start(do, cookies...)
	mine := <-inside
	if way == "renewed meantime" {
		mine = token(c.must(info("renew"), cookies...).cookie(t))
	}
	synctest.Wait()
	switch end {
	case "killed":
		store.Kill(store.Fingerprint(mine))
	case "closed":
		_ = store.Remove(mine)
	case "others killed":
		for i := range store.All() {
			if i.Fingerprint != store.Fingerprint(mine) {
				store.Kill(i.Fingerprint)
			}
		}
	}
	wait(time.Second)
	close(gate)
	err := (<-replied).err
	if got, _ := reason(err); end == "killed" && (status.Code(err) != codes.NotFound || got != "SESSION_KILLED") || end != "killed" && err != nil {
		t.Errorf("got %v", err)
	}
}

// The client of a call that fails for a kill is told of that, also if the handler has
// learned of it by its connection, which was closed under it.
func TestACallThatFailsByItsConnectionIsToldOfTheKill(t *testing.T) {
	store := newStore(t)
	connections := &session.Resource[chan struct{}]{Name: "connection",
		Open:  func(context.Context, string) (chan struct{}, error) { return make(chan struct{}), nil },
		Close: func(c chan struct{}) error { close(c); return nil }}
	inside := make(chan string, 1)
	srv := &sqlServer{statements: map[string]statement{"x": func(ctx context.Context, s session.ServerSession) error {
		c, err := connections.Get(ctx, "")
		if err != nil {
			return err
		}
		inside <- s.Token()
		<-c
		return status.Error(codes.Internal, "use of closed network connection")
	}}}
	c := serveEdge(t, edge(store, session.WithCancelOnKill()), srv).client()
	for range 300 {
		replied := c.start(info("x"))
		store.Kill(store.Fingerprint(<-inside))
		wantReason(t, "the client is told", (<-replied).err, "SESSION_KILLED")
	}
}

// Sessions of a type of the server's own cancel calls, too.
func TestCallsAreCanceledByAKillOfForeignSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		n := 0
		users := session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			n++
			return &userSession{id: fmt.Sprint("user-session-", n)}, nil
		}))
		srv := &sqlServer{statements: map[string]statement{"x": func(ctx context.Context, _ session.ServerSession) error { <-ctx.Done(); return ctx.Err() }}}
		m := session.NewStatefulServerSessionManager(session.WithStore(store), users)
		c := serveEdgeInBubble(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithCancelOnKill()), srv).client()
		for _, do := range []call{info("x"), directScan("x")} {
			replied := c.start(do)
			synctest.Wait()
			killAll(store)
			wantReason(t, "the client is told", (<-replied).err, "SESSION_KILLED")
		}
	})
}

func TestCancelOnKillNeedsContexts(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it is taken for a store without contexts")
		}
	}()
	session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(&fakeStore{})), session.WithCancelOnKill())
}
