// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// wantReason checks that a call was refused for a reason.
func wantReason(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got, _ := reason(err); got != want {
		t.Errorf("%s: %v, reason %q, want %s", what, err, got, want)
	}
}

// gated has a statement that uses a wire until something comes from the gate.
func (w *wires) gated(srv *sqlServer, name string) (gate chan struct{}) {
	gate = make(chan struct{})
	srv.statements[name] = func(ctx context.Context, _ session.ServerSession) error {
		_, err := w.Get(ctx, "")
		<-gate
		return err
	}
	return gate
}

// A call whose session is killed gets nothing that was closed, nor anything new.
func TestACallWhoseSessionWasKilledGetsNoResource(t *testing.T) {
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
			for _, key := range []string{"", "new"} {
				_, err := w.Get(ctx, key)
				wantReason(t, "Get", err, "SESSION_CLOSED")
			}
			if _, open, _ := w.Opened(ctx, ""); open {
				t.Error("it is said to be open")
			}
			_, err := session.NewHandle(ctx, "x", nil)
			wantReason(t, "NewHandle", err, "SESSION_CLOSED")
			return nil
		}
		_ = serveEdgeInBubble(t, edge(store), srv).client().do(info("x"))
		w.want(t, 1, 1)
	})
}

// A call that has ended its session gets nothing of it, whatever it tries in between.
func TestACallThatHasEndedItsSessionGetsNoResource(t *testing.T) {
	w := newWires()
	srv := w.server()
	srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		if _, err := w.Get(ctx, ""); err != nil {
			return err
		}
		h, handle := session.NewHandle(ctx, "x", nil)
		if err := errors.Join(handle, session.End(ctx)); err != nil {
			return err
		}
		for range 2 {
			_, err := w.Get(ctx, "new")
			wantReason(t, "Get", err, "SESSION_CLOSED")
			_, err = session.NewHandle(ctx, "x", nil)
			wantReason(t, "NewHandle", err, "SESSION_CLOSED")
			if _, open, err := w.Opened(ctx, ""); err == nil && open {
				t.Error("it is said to be open")
			}
			_, err = session.ResolveHandle(ctx, "x", h)
			wantReason(t, "ResolveHandle", err, "SESSION_CLOSED")
		}
		return nil
	}
	c := serveEdge(t, edge(newStore(t)), srv).client()
	c.must(info("x"), c.must(setOption("a", "b")).cookie(t))
	w.want(t, 1, 1)
}

// A handshake gets a session by Begin alone, and by no resource or handle.
func TestAHandshakeGetsNoSessionByAResource(t *testing.T) {
	w := newWires()
	store := newStore(t)
	login := flight.ServerMiddleware{Stream: func(_ any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, _ grpc.StreamHandler) error {
		ctx := stream.Context()
		_, get := w.Get(ctx, "")
		_, handle := session.NewHandle(ctx, "k", nil)
		if !errors.Is(get, session.ErrNoSession) || !errors.Is(handle, session.ErrNoSession) || store.Len() > 0 {
			t.Errorf("%v, %v, %d sessions", get, handle, store.Len())
		}
		_, begin := session.Begin(ctx)
		_, handle = session.NewHandle(ctx, "k", nil)
		_, get = w.Get(ctx, "") // whose Open looks for the session
		if err := errors.Join(begin, handle, get); err != nil {
			t.Error(err)
		}
		return nil
	}}
	if serveEdge(t, chained(edge(store), login), nil).client().must(handshake); store.Len() != 1 {
		t.Errorf("%d sessions", store.Len())
	}
}

// A broken one makes room for the one that replaces it, also if the store may have
// no more.
func TestADiscardedResourceIsReplacedInAFullStore(t *testing.T) {
	w := newWires()
	store := newStore(t)
	if err := store.SetMaxResources(1); err != nil {
		t.Fatal(err)
	}
	srv := w.server()
	srv.statements["replace"] = func(ctx context.Context, _ session.ServerSession) error {
		_, one := w.Get(ctx, "")
		discard := w.Discard(ctx, "")
		_, two := w.Get(ctx, "")
		return errors.Join(one, discard, two)
	}
	serveEdge(t, edge(store), srv).client().must(info("replace"))
	if w.opened != 2 {
		t.Errorf("%d were opened", w.opened)
	}
}

// However many goroutines of a call have got it: what the call discards it does not
// use any more.
func TestADiscardEndsAllUsesOfTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		w.opens = func(context.Context) error { <-time.After(time.Second); return nil }
		srv := w.server()
		srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
			if _, err := session.Ensure(ctx); err != nil {
				return err
			}
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() { _, _ = w.Get(ctx, "") })
			}
			both.Wait()
			broken, err := w.Get(ctx, "")
			if err = errors.Join(err, w.Discard(ctx, "")); err != nil {
				return err
			}
			synctest.Wait()
			if !broken.done {
				t.Error("it is open, though nobody uses it any more")
			}
			next, err := w.Get(ctx, "")
			if next == broken {
				t.Error("Get returns the discarded one")
			}
			return err
		}
		serveEdgeInBubble(t, edge(newStore(t)), srv).client().must(info("x"))
	})
}

// Of two calls that find the same one broken, the later one does not discard what
// has replaced it.
func TestALateDiscardLeavesTheReplacement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		srv := w.server()
		gate := make(chan struct{})
		srv.statements["late"] = func(ctx context.Context, _ session.ServerSession) error {
			one, get := w.Get(ctx, "")
			<-gate
			discard := w.Discard(ctx, "")
			two, again := w.Get(ctx, "")
			if two == one {
				t.Error("the broken one is there yet")
			}
			return errors.Join(get, discard, again)
		}
		c := serveEdgeInBubble(t, edge(newStore(t)), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() { c.must(info("late"), cookie) })
		}
		synctest.Wait()
		gate <- struct{}{}
		synctest.Wait()
		gate <- struct{}{}
		both.Wait()
		synctest.Wait()
		w.want(t, 2, 1)
	})
}

// Goroutines that a handler has left behind may use resources while its call ends:
// they keep none.
func TestUsesBesideTheEndOfTheCallKeepNothing(t *testing.T) {
	w := newWires()
	store := newStore(t)
	srv := w.server()
	var left sync.WaitGroup
	srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		if _, err := w.Get(ctx, ""); err != nil {
			return err
		}
		started := make(chan struct{})
		left.Go(func() {
			close(started)
			for range 100 {
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
	left.Wait()
	if st := store.Resources(); st.Busy != 0 || leases(store) != 0 {
		t.Errorf("%+v, %d leases", st, leases(store))
	}
}

// What is open only when the call is over is used by nobody.
func TestAResourceThatIsOpenTooLateIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		gate := make(chan struct{})
		w.opens = func(context.Context) error { <-gate; return nil }
		store := newStore(t)
		srv := w.server()
		got := make(chan error, 1)
		srv.statements["leave"] = func(ctx context.Context, _ session.ServerSession) error {
			go func() { _, err := w.Get(ctx, ""); got <- err }()
			synctest.Wait()
			return nil
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		c.must(info("leave"), c.must(setOption("a", "b")).cookie(t))
		close(gate)
		if err := <-got; err == nil {
			t.Error("it is got after the call")
		}
		if st := store.Resources(); st.Open != 1 || st.Busy != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// An Open that ends its goroutine is an error: the client gets an answer, and the
// session is leased to nobody any more.
func TestAnOpenThatExitsIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		w.opens = func(context.Context) error { runtime.Goexit(); return nil }
		srv := w.server()
		srv.statements["acquire"] = func(ctx context.Context, _ session.ServerSession) error { _, err := w.Acquire(ctx, ""); return err }
		store := newStore(t)
		c := serveEdgeInBubble(t, edge(store), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		for _, what := range []string{"use", "acquire"} {
			replied := c.start(info(what), cookie)
			wait(time.Hour)
			select {
			case r := <-replied:
				wantReason(t, what, r.err, "SESSION_RESOURCE_FAILED")
			default:
				t.Fatalf("%s: after an hour there is no answer", what)
			}
		}
		if n := leases(store); n != 0 {
			t.Errorf("%d leases", n)
		}
		w.want(t, 0)
	})
}

// A shutdown is over when nothing is being opened any more.
func TestShutdownWaitsForAnOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		gate := make(chan struct{})
		w.opens = func(context.Context) error { <-gate; return nil }
		c := serveEdgeInBubble(t, edge(store), w.server()).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		replied := c.start(info("use"), cookie)
		synctest.Wait()
		store.Kill(store.Fingerprint(token(cookie)))
		wait(30 * time.Second) // it is not waited for by the end of the session any more
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := store.Shutdown(ctx); err == nil {
			t.Errorf("it returns, and %+v", store.Resources())
		}
		close(gate)
		<-replied
		if err := store.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Of one that was in use to its end it is not said that it was idle.
func TestAResourceInUseIsNotSaidToBeIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		srv := w.server()
		gate := w.gated(srv, "long")
		c := serveEdgeInBubble(t, edge(store), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		replied := c.start(info("long"), cookie)
		wait(time.Hour)
		store.Kill(store.Fingerprint(token(cookie)))
		synctest.Wait()
		if e := w.ends[0]; e.Idle != 0 || e.Age < time.Hour {
			t.Errorf("%+v", e)
		}
		close(gate)
		<-replied
	})
}

// What an Open has asked for does not idle out under what it was asked for.
func TestAResourceKeepsWhatItsOpenHasAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner, outer := newWires(), newWires()
		inner.IdleTimeout, outer.IdleTimeout = time.Minute, 10*time.Minute
		outer.opens = func(ctx context.Context) error { _, err := inner.Get(ctx, ""); return err }
		c := serveEdgeInBubble(t, edge(newStore(t)), outer.server()).client()
		cookie := c.must(info("use")).cookie(t)
		c.must(info("use"), cookie)
		wait(10*time.Minute - late)
		inner.want(t, 1)
		wait(2 * late)
		outer.want(t, 1, 1)
		wait(time.Minute)
		inner.want(t, 1, 1)
	})
}

// Places are counted for whom a session belongs to by now, not where it came from
// before its login.
func TestALoginTakesTheResourcesAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		if err := store.SetMaxResources(3); err != nil {
			t.Fatal(err)
		}
		srv := w.server()
		srv.statements["login"] = func(ctx context.Context, _ session.ServerSession) error {
			return session.Renew(ctx, session.Principal{Name: "alice"})
		}
		c := serveEdgeInBubble(t, edge(store, session.WithPrincipal(who)), srv).client()
		alice := func(f call) call { return with(f, "x-user", "alice") }
		// Alice has one from before her login and one from after it; nobody has one, which
		// was used longest ago.
		anonymous := c.must(info("use")).cookie(t)
		c.must(info("use"), anonymous)
		before := c.must(info("use")).cookie(t)
		before = c.must(info("login"), before).cookie(t)
		after := c.must(alice(info("use"))).cookie(t)
		wait(time.Second)
		c.must(alice(info("use")), before)
		c.must(alice(info("use")), after)
		w.want(t, 3)
		c.must(with(info("use"), "x-user", "carol"))
		synctest.Wait()
		if len(w.ends) != 1 || w.ends[0].Session == store.Fingerprint(token(anonymous)) {
			t.Errorf("not one of alice's two made room: %+v", w.ends)
		}
	})
}

// Nobody makes room for who has more than he has: that one is refused.
func TestNobodyMakesRoomForWhoHasMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		if err := store.SetMaxResources(3); err != nil {
			t.Fatal(err)
		}
		srv := w.server()
		gate := w.gated(srv, "long")
		c := serveEdgeInBubble(t, edge(store, session.WithPrincipal(who)), srv).client()
		alice := func(f call) call { return with(f, "x-user", "alice") }
		c.must(with(info("use"), "x-user", "bob"))
		one, two := c.start(alice(info("long"))), c.start(alice(info("long")))
		synctest.Wait()
		err := c.do(alice(info("use"))).err
		if status.Code(err) != codes.ResourceExhausted {
			t.Errorf("got %v", err)
		}
		wantReason(t, "alice's third", err, "SESSION_RESOURCE_LIMIT")
		w.want(t, 3)
		close(gate)
		<-one
		<-two
	})
}

// A Close that fails is logged, whoever quotes the token in its error: that is in no
// line, event or end.
func TestAFailingCloseIsReportedWithoutTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		var mu sync.Mutex
		id, seen := "", new(strings.Builder)
		note := func(what any, err error) {
			mu.Lock()
			defer mu.Unlock()
			_, _ = fmt.Fprintf(seen, "%v %+v %#v %v\n", what, what, what, err)
		}
		r := &session.Resource[int]{Name: "n", IdleTimeout: time.Second, Open: func(ctx context.Context, _ string) (int, error) {
			s, err := session.Lookup(ctx)
			id = s.Token()
			return 1, err
		}, Close: func(int) error { return fmt.Errorf("closing %s", id) },
			Closed: func(e session.ResourceEnd) { note(e, e.Err) }}
		srv := &sqlServer{statements: map[string]statement{"x": func(ctx context.Context, _ session.ServerSession) error { _, err := r.Get(ctx, "k"); return err }}}
		store := newStore(t, layover.WithLogger(log.logger()), layover.WithObserver(func(e layover.Event) { note(e, nil) }))
		c := serveEdgeInBubble(t, edge(store, session.WithLogger(log.logger())), srv).client()
		cookie := c.must(info("x")).cookie(t)
		wait(2 * time.Second)
		if got := log.String(); !strings.Contains(got, "could not be closed") || !strings.Contains(got, store.Fingerprint(id).String()) {
			t.Errorf("the log: %s", got)
		}
		c.must(info("x"), cookie)
		c.must(closeSession, cookie)
		wait(time.Second)
		mu.Lock()
		defer mu.Unlock()
		if all := log.String() + seen.String(); strings.Contains(all, id) || strings.Count(seen.String(), "closing") < 3 {
			t.Errorf("the token %s, or not all three: %s", id, all)
		}
	})
}

// What Opened returns is fit for the client, as it is of Get.
func TestTheErrorsOfOpenedAreFitForTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		gate := make(chan struct{})
		w.opens = func(context.Context) error { <-gate; return nil }
		srv := w.server()
		srv.statements["both"] = func(ctx context.Context, _ session.ServerSession) error {
			ctx, cancel := context.WithTimeoutCause(ctx, time.Second, errors.New("secret: hunter2"))
			defer cancel()
			_, get := w.Get(ctx, "")
			_, _, opened := w.Opened(ctx, "")
			for _, err := range []error{get, opened} {
				if status.Code(err) != codes.DeadlineExceeded || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("got %v", err)
				}
			}
			return nil
		}
		c := serveEdgeInBubble(t, edge(newStore(t)), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		replied := c.start(info("use"), cookie)
		synctest.Wait()
		c.must(info("both"), cookie)
		close(gate)
		<-replied
	})
}
