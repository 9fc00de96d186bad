// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// A handle is "good as long as the session", but where IDs are made from principals
// it is good for the next session of that principal, too.
func TestAttackAStaleHandleOpensTheNextSessionOfItsPrincipal(t *testing.T) {
	for _, end := range []string{"close", "kill", "begin"} {
		t.Run(end, func(t *testing.T) {
			store := newStore(t)
			n := newCounter()
			n.statements["login"] = func(ctx context.Context, _ session.ServerSession) error { _, err := session.Begin(ctx); return err }
			c := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), n.sqlServer).client()
			alice := func(f call) call { return with(f, "x-user", "alice") }
			c.must(alice(setOption("schema", "old")))
			c.must(alice(info("begin")))
			handle := string(n.handle)
			switch end {
			case "close":
				c.must(alice(closeSession))
			case "kill":
				for i := range store.All() {
					store.Kill(i.Fingerprint)
				}
				_ = c.do(alice(info(""))) // is told
				c.must(alice(closeSession))
			case "begin":
				c.must(alice(info("login")))
			}
			c.must(alice(setOption("schema", "prod")))
			if err := c.do(alice(presenting(info("use"), handle))).err; status.Code(err) != codes.NotFound {
				t.Errorf("the handle of a session that has ended: %v", err)
			}
		})
	}
}

// Get, once its session was killed, returns what is closed.
func TestAttackGetAfterAKillReturnsWhatIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		srv := w.server()
		srv.statements["x"] = func(ctx context.Context, s session.ServerSession) error {
			if _, err := w.Get(ctx, ""); err != nil {
				return err
			}
			store.Kill(store.Fingerprint(s.Token()))
			synctest.Wait()
			if c, err := w.Get(ctx, ""); err == nil {
				t.Errorf("Get: no error, closed: %t", c.done)
			}
			if c, open, err := w.Opened(ctx, ""); err == nil && open {
				t.Errorf("Opened: it is said to be open, closed: %t", c.done)
			}
			if _, err := session.NewHandle(ctx, "x", nil); err == nil {
				t.Error("NewHandle: no error")
			}
			return nil
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		_ = c.do(info("x"))
	})
}

// "the next Get opens another one"
func TestAttackADiscardedResourceIsReplacedInAFullStore(t *testing.T) {
	w := newWires()
	store := newStore(t)
	_ = store.SetMaxResources(1)
	srv := w.server()
	srv.statements["replace"] = func(ctx context.Context, _ session.ServerSession) error {
		if _, err := w.Get(ctx, ""); err != nil {
			return err
		}
		if err := w.Discard(ctx, ""); err != nil {
			return err
		}
		_, err := w.Get(ctx, "")
		return err
	}
	if err := serveEdge(t, edge(store), srv).client().do(info("replace")).err; err != nil {
		t.Error(err)
	}
}

// "This call does not use it from now on, and the next Get opens another one."
func TestAttackADiscardLeavesTheOtherUsesOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		w.opens = func(context.Context) error { <-time.After(time.Second); return nil }
		store := newStore(t)
		srv := w.server()
		srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
			if _, err := session.Ensure(ctx); err != nil {
				return err
			}
			var wg sync.WaitGroup
			var broken *wire
			for range 2 {
				wg.Go(func() { _, _ = w.Get(ctx, "") })
			}
			wg.Wait()
			broken, _ = w.Get(ctx, "")
			if err := w.Discard(ctx, ""); err != nil {
				return err
			}
			synctest.Wait()
			if !broken.done {
				t.Error("it is still open, though nobody uses it any more")
			}
			if next, err := w.Get(ctx, ""); err != nil || next == broken {
				t.Errorf("Get returns the discarded one, %v", err)
			}
			return nil
		}
		serveEdgeInBubble(t, edge(store), srv).client().must(info("x"))
	})
}

// Two calls find the same one broken; the second discard hits the first one's
// replacement, which is fine.
func TestAttackTheSecondDiscardHitsTheReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		srv := w.server()
		gate := make(chan struct{})
		srv.statements["late"] = func(ctx context.Context, _ session.ServerSession) error {
			one, err := w.Get(ctx, "")
			<-gate
			if err == nil {
				err = w.Discard(ctx, "")
			}
			two, err := w.Get(ctx, "")
			if two == one {
				t.Error("the same")
			}
			return err
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { c.must(info("late"), cookie) })
		}
		synctest.Wait()
		gate <- struct{}{}
		synctest.Wait()
		gate <- struct{}{}
		wg.Wait()
		if w.opened != 2 {
			t.Errorf("%d were opened in place of one that was broken", w.opened-1)
		}
	})
}

// Goroutines that the handler has not waited for race with the end of the call.
func TestAttackUsesRaceWithTheEndOfTheCall(t *testing.T) {
	w := newWires()
	store := newStore(t)
	srv := w.server()
	var wg sync.WaitGroup
	srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		if _, err := w.Get(ctx, ""); err != nil {
			return err
		}
		started := make(chan struct{})
		wg.Go(func() {
			close(started)
			for range 200 {
				_, _, _ = w.Opened(ctx, "")
				_ = w.Discard(ctx, "")
				_, _ = w.Get(ctx, "")
			}
		})
		<-started
		return nil
	}
	c := serveEdge(t, edge(store), srv).client()
	cookie := c.must(setOption("a", "b")).cookie(t)
	for range 20 {
		c.must(info("x"), cookie)
	}
	wg.Wait()
}

// "Renew gives the session of the call that ctx belongs to a new ID"
func TestAttackRenewOfAHandlesSessionSilentlyDoesNothing(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	n.statements["both"] = func(ctx context.Context, s session.ServerSession) error {
		if err := n.statements["use"](ctx, s); err != nil {
			return err
		}
		return session.Renew(ctx)
	}
	c := serveEdge(t, edge(store), n.sqlServer).client()
	handle, cookie := n.begin(c)
	err := c.do(presenting(info("both"), handle)).err
	if err == nil && c.option("schema", cookie) == "prod" {
		t.Error("Renew has succeeded, and the old ID is good as before")
	}
	// Nor does it if the client has sent the cookie of another one.
	other := c.must(setOption("schema", "x")).cookie(t)
	r := c.do(presenting(info("both"), handle), other)
	if r.err == nil && c.option("schema", cookie) == "prod" {
		t.Error("with another cookie: Renew has succeeded, and the old ID is good as before")
	}
}

// An Open that ends its goroutine leaks a lease on the session.
func TestAttackGoexitInOpenLeaksALeaseOfAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		w := newWires()
		w.opens = func(context.Context) error { runtime.Goexit(); return nil }
		srv := w.server()
		srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = w.Acquire(ctx, "")
			}()
			<-done
			return nil
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		c.must(info("x"), cookie)
		synctest.Wait()
		for i := range store.All() {
			if i.Leases != 0 {
				t.Errorf("after all calls there are %d leases", i.Leases)
				store.Kill(i.Fingerprint)
			}
		}
	})
}

// After End, a ResolveHandle that fails has the call have its ended session again.
func TestAttackAFailedResolveUndoesEnd(t *testing.T) {
	n := newCounter()
	w := newWires()
	store := newStore(t)
	n.statements["x"] = func(ctx context.Context, s session.ServerSession) error {
		if _, err := w.Get(ctx, ""); err != nil {
			return err
		}
		h, err := session.NewHandle(ctx, "t", nil)
		if err != nil {
			return err
		}
		if err := session.End(ctx); err != nil {
			return err
		}
		if _, err := w.Get(ctx, "1"); err == nil {
			t.Error("Get 1")
		}
		if _, err := session.ResolveHandle(ctx, "t", h); err == nil {
			t.Error("Resolve")
		}
		if _, err := w.Get(ctx, "2"); err == nil {
			t.Error("after the end, a resource is opened in the session that has ended")
		}
		if _, err := session.NewHandle(ctx, "t", nil); err == nil {
			t.Error("after the end, a handle is made in the session that has ended")
		}
		return nil
	}
	c := serveEdge(t, edge(store), n.sqlServer).client()
	c.must(info("x"), c.must(setOption("a", "b")).cookie(t))
}

func TestAttackOpenedHoldAndDiscardElsewhere(t *testing.T) {
	w := newWires()
	srv := w.server()
	srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		_, _, opened := w.Opened(ctx, "")
		for i, err := range []error{opened, w.Hold(ctx, "", time.Hour), w.Discard(ctx, "")} {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%d: %v", i, err)
			}
		}
		return nil
	}
	serve(t, stateful(newStore(t)), srv).client().must(info("x"))
	serveEdge(t, edge(&fakeStore{}), srv).client().must(info("x"))
	if err := w.Hold(t.Context(), "", time.Hour); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("outside of a call: %v", err) // "those of GetSessionFromContext"
	}
}

func TestAttackResolveHandleAfterTheCall(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	contexts := make(chan context.Context, 1)
	n.statements["leak"] = func(ctx context.Context, _ session.ServerSession) error { contexts <- ctx; return nil }
	c := serveEdge(t, edge(store), n.sqlServer).client()
	handle, cookie := n.begin(c)
	c.must(info("leak"), cookie)
	ctx := <-contexts
	time.Sleep(50 * time.Millisecond)
	if _, err := session.ResolveHandle(ctx, "transaction", []byte(handle)); err == nil {
		t.Error("no error, and no lease either")
	}
	if within, err := session.Context(ctx); err == nil && within.Err() != nil && store.Len() == 1 {
		if e := (*layover.EndedError)(nil); !errors.As(context.Cause(within), &e) {
			t.Errorf("Context after the call: it is canceled for %v, while the session lives", context.Cause(within))
		}
	}
}

func TestAttackOpenedAndHoldAfterEnd(t *testing.T) {
	w := newWires()
	srv := w.server()
	srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		if _, err := w.Get(ctx, ""); err != nil {
			return err
		}
		_ = session.End(ctx)
		if _, open, err := w.Opened(ctx, ""); err == nil && open {
			t.Error("Opened is not what Get is")
		}
		return nil
	}
	serveEdge(t, edge(newStore(t)), srv).client().must(info("x"))
}

// "Shutdown ends all sessions and waits until they and their resources are closed"
func TestAttackShutdownDoesNotWaitForAnOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := session.NewSessionStore(layover.WithLogger(nil))
		gate := make(chan struct{})
		w.opens = func(context.Context) error { <-gate; return nil }
		c := serveEdgeInBubble(t, edge(store), w.server()).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		go c.do(info("use"), cookie)
		synctest.Wait()
		store.Kill(store.Fingerprint(token(cookie)))
		<-time.After(30 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := store.Shutdown(ctx); err == nil {
			t.Errorf("it returns, and %+v", store.Resources())
		}
		close(gate)
		synctest.Wait()
	})
}

// ResourceEnd.Idle is "since its last use".
func TestAttackAResourceInUseIsReportedAsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		srv := w.server()
		srv.statements["x"] = func(ctx context.Context, s session.ServerSession) error {
			_, err := w.Get(ctx, "")
			<-time.After(time.Hour)
			store.Kill(store.Fingerprint(s.Token()))
			synctest.Wait()
			return err
		}
		serveEdgeInBubble(t, edge(store), srv).client().must(info("x"))
		if idle := w.ends[0].Idle; idle != 0 {
			t.Errorf("used to the end, and idle for %s", idle)
		}
	})
}
