// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// wire is the resource of these tests: a connection to nothing.
type wire struct {
	n      int
	key    string
	schema string // of its session when it was opened
	done   bool
}

// wires opens and closes them, and counts.
type wires struct {
	*session.Resource[*wire]
	mu     sync.Mutex
	opened int
	closed []int
	ends   []session.ResourceEnd
	fails  error                       // of the next Open
	opens  func(context.Context) error // what an Open does
}

func newWires() *wires {
	w := new(wires)
	w.Resource = &session.Resource[*wire]{Name: "wire", Open: w.open, Close: w.close, Closed: w.ended}
	return w
}

func (w *wires) open(ctx context.Context, key string) (*wire, error) {
	w.mu.Lock()
	opens := w.opens
	w.mu.Unlock()
	if opens != nil {
		if err := opens(ctx); err != nil {
			return nil, err
		}
	}
	s, err := session.Lookup(ctx)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fails != nil {
		err, w.fails = w.fails, nil
		return nil, err
	}
	w.opened++
	return &wire{n: w.opened, key: key, schema: s.GetSessionOption("schema").GetStringValue()}, nil
}

func (w *wires) close(c *wire) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.done {
		return errors.New("closed twice")
	}
	c.done = true
	w.closed = append(w.closed, c.n)
	return nil
}

func (w *wires) ended(e session.ResourceEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, e)
}

func (w *wires) want(t *testing.T, opened int, closed ...int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.opened != opened || fmt.Sprint(w.closed) != fmt.Sprint(closed) {
		t.Errorf("opened %d, closed %v, want %d and %v", w.opened, w.closed, opened, closed)
	}
}

// server is one whose statements use wires.
func (w *wires) server() *sqlServer {
	use := func(ctx context.Context, _ session.ServerSession) error {
		c, err := w.Get(ctx, "")
		if err == nil && c.done {
			err = errors.New("it is closed")
		}
		return err
	}
	return &sqlServer{statements: map[string]statement{
		"use":  use,
		"more": func(ctx context.Context, _ session.ServerSession) error { _, err := w.Get(ctx, "more"); return err },
		"hold": func(ctx context.Context, _ session.ServerSession) error {
			if _, err := w.Get(ctx, ""); err != nil {
				return err
			}
			return w.Hold(ctx, "", time.Hour)
		},
		"hold only": func(ctx context.Context, _ session.ServerSession) error { return w.Hold(ctx, "", time.Hour) },
		"discard":   func(ctx context.Context, _ session.ServerSession) error { return w.Discard(ctx, "") },
		"peek": func(ctx context.Context, _ session.ServerSession) error {
			_, open, err := w.Opened(ctx, "")
			if err == nil && !open {
				return status.Error(codes.FailedPrecondition, "not open")
			}
			return err
		},
	}}
}

func TestAResourceIsOpenedOncePerSessionAndKey(t *testing.T) {
	w := newWires()
	store := newStore(t)
	c := serveEdge(t, edge(store), w.server()).client()
	cookie := c.must(info("use")).cookie(t) // it makes the session
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { c.must(info("use"), cookie) })
		all.Go(func() { c.must(scan("use"), cookie) })
	}
	all.Wait()
	w.want(t, 1)
	c.must(info("more"), cookie)
	w.want(t, 2)
	other := c.must(info("use")).cookie(t)
	w.want(t, 3)
	if st := store.Resources(); st.Open != 3 || st.Places != 3 || st.Opened != 3 {
		t.Errorf("%+v", st)
	}
	c.must(closeSession, cookie)
	c.must(closeSession, other)
}

// However a session ends, its resources are closed before that is done, in reverse
// order.
func TestResourcesEndWithTheirSession(t *testing.T) {
	ends := map[string]func(t *testing.T, store *session.ExpiringSessionStore, c *client, cookie string){
		"idle": func(*testing.T, *session.ExpiringSessionStore, *client, string) { wait(time.Minute + late) },
		"closed": func(_ *testing.T, _ *session.ExpiringSessionStore, c *client, cookie string) {
			c.must(closeSession, cookie)
		},
		"killed": func(_ *testing.T, s *session.ExpiringSessionStore, _ *client, cookie string) {
			s.Kill(s.Fingerprint(token(cookie)))
		},
		"capacity": func(_ *testing.T, _ *session.ExpiringSessionStore, c *client, _ string) { c.must(setOption("a", "b")) },
		"shutdown": func(t *testing.T, s *session.ExpiringSessionStore, _ *client, _ string) {
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWires()
				store := newStore(t, layover.WithIdleTimeout(time.Minute), layover.WithUnconfirmedTimeouts(time.Minute, time.Minute), layover.WithMaxSessions(1))
				c := serveEdgeInBubble(t, edge(store), w.server()).client()
				cookie := c.must(info("use")).cookie(t)
				c.must(info("more"), cookie)
				wait(30 * time.Second)
				end(t, store, c, cookie)
				synctest.Wait()
				w.want(t, 2, 2, 1)
				for _, e := range w.ends {
					if e.Reason != session.ResourceEnded || e.Session != store.Fingerprint(token(cookie)) || e.Name != "wire" || e.Idle < 30*time.Second || e.Age < e.Idle {
						t.Errorf("%+v", e)
					}
				}
			})
		})
	}
}

// The resource goes, the options stay, and the next call opens another one.
func TestAnIdleResourceGoesAndItsSessionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		w.IdleTimeout = time.Minute
		store := newStore(t)
		c := serveEdgeInBubble(t, edge(store), w.server()).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		for range 5 {
			c.must(info("use"), cookie)
			wait(time.Minute - late)
		}
		w.want(t, 1)
		wait(2 * late)
		w.want(t, 1, 1)
		if w.ends[0].Reason != session.ResourceIdle {
			t.Errorf("%+v", w.ends[0])
		}
		if err := c.do(info("peek"), cookie).err; status.Code(err) != codes.FailedPrecondition {
			t.Errorf("it is said to be open: %v", err)
		}
		c.must(info("use"), cookie)
		w.want(t, 2, 1)
		if got := c.schema("cookie", cookie); got != "prod" {
			t.Errorf("the schema is %q", got)
		}
	})
}

// By default that is after ten minutes.
func TestResourcesIdleOutAfterTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		c := serveEdgeInBubble(t, edge(newStore(t)), w.server()).client()
		cookie := c.must(info("use")).cookie(t)
		c.must(info("peek"), cookie)
		wait(10*time.Minute - late)
		w.want(t, 1)
		wait(2 * late)
		w.want(t, 1, 1)
	})
}

// A stream of ten minutes uses its resource for ten minutes. Whoever closes the
// session does not close it under the stream; who kills it does.
func TestAResourceInUseIsClosedUnderItsCallByAKillOnly(t *testing.T) {
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprint("kill ", kill), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWires()
				w.IdleTimeout = time.Second
				store := newStore(t)
				gate := make(chan struct{})
				srv := w.server()
				srv.statements["long"] = func(ctx context.Context, _ session.ServerSession) error {
					c, err := w.Get(ctx, "")
					<-gate
					if c.done != kill {
						t.Errorf("closed under its call: %t", c.done)
					}
					return err
				}
				c := serveEdgeInBubble(t, edge(store), srv).client()
				cookie := c.must(info("use")).cookie(t)
				done := make(chan reply, 1)
				go func() { done <- c.do(directScan("long"), cookie) }()
				wait(10 * time.Minute)
				if kill {
					store.Kill(store.Fingerprint(token(cookie)))
				} else {
					c.must(closeSession, cookie)
				}
				synctest.Wait()
				if kill {
					w.want(t, 1, 1)
				} else {
					w.want(t, 1)
				}
				close(gate)
				<-done
				synctest.Wait()
				w.want(t, 1, 1)
			})
		})
	}
}

// A transaction that is open between two calls is held.
func TestAHeldResourceIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		w.IdleTimeout = time.Minute
		c := serveEdgeInBubble(t, edge(newStore(t, layover.WithIdleTimeout(3*time.Hour))), w.server()).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		err := c.do(info("hold only"), cookie).err
		if got, _ := reason(err); status.Code(err) != codes.NotFound || got != "SESSION_RESOURCE_CLOSED" {
			t.Errorf("what is not open is held: %v", err)
		}
		c.must(info("hold"), cookie)
		wait(time.Hour - late)
		w.want(t, 1)
		wait(2 * late)
		w.want(t, 1, 1)
	})
}

// When the store has as many as it may have, one that nobody uses makes room; if all
// are in use, the call is refused.
func TestTheStoreHasAMaximumOfResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		if err := store.SetMaxResources(0); !errors.Is(err, layover.ErrOptions) {
			t.Errorf("none at all: %v", err)
		}
		if got := store.Resources().Max; got != 1024 {
			t.Errorf("the default is %d", got)
		}
		if err := store.SetMaxResources(2); err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		srv := w.server()
		srv.statements["long"] = func(ctx context.Context, _ session.ServerSession) error {
			_, err := w.Get(ctx, "")
			<-gate
			return err
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		var cookies []string
		for range 3 {
			cookies = append(cookies, c.must(setOption("a", "b")).cookie(t))
		}
		for _, cookie := range cookies {
			c.must(info("use"), cookie)
			wait(time.Second)
		}
		w.want(t, 3, 1)
		var long sync.WaitGroup
		for _, cookie := range cookies[1:] {
			long.Go(func() { c.must(info("long"), cookie) })
		}
		synctest.Wait()
		err := c.do(info("use"), cookies[0]).err
		if got, _ := reason(err); status.Code(err) != codes.ResourceExhausted || got != "SESSION_RESOURCE_LIMIT" {
			t.Errorf("with all in use: %v", err)
		}
		close(gate)
		long.Wait()
		c.must(info("use"), cookies[0])
		if w.opened != 4 || len(w.closed) != 2 || store.Resources().Evicted != 2 {
			t.Errorf("opened %d, closed %v", w.opened, w.closed)
		}
		if w.ends[0].Reason != session.ResourceCapacity {
			t.Errorf("%+v", w.ends[0])
		}
	})
}

// The client is not told what Open says, unless it says it to the client; the handler
// and the log are. The next call tries again.
func TestAFailedOpenIsNotRemembered(t *testing.T) {
	var log logBuffer
	w := newWires()
	c := serveEdge(t, edge(newStore(t), session.WithLogger(log.logger())), w.server()).client()
	cookie := c.must(setOption("a", "b")).cookie(t)
	secret := errors.New("postgres://admin:hunter2@db is down")
	for _, fails := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{secret, codes.Unavailable, "flight session: the session's wire could not be opened"},
		{status.Error(codes.PermissionDenied, "not yours"), codes.PermissionDenied, "not yours"},
		{fmt.Errorf("hunter2: %w", status.Error(codes.PermissionDenied, "not yours")), codes.PermissionDenied, "not yours"},
	} {
		w.fails = fails.err
		err := c.do(info("use"), cookie).err
		if status.Code(err) != fails.code || status.Convert(err).Message() != fails.text {
			t.Errorf("%v: the client is told %v", fails.err, err)
		}
	}
	if !strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log does not have it: %s", log.String())
	}
	w.opens = func(context.Context) error { panic("hunter2") }
	if err := c.do(info("use"), cookie).err; status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a panic: %v", err)
	}
	w.opens = nil
	c.must(info("use"), cookie)
	w.want(t, 1)
}

func TestTheHandlerLearnsWhyAnOpenFailed(t *testing.T) {
	cause := errors.New("no route")
	w := newWires()
	w.fails = cause
	srv := &sqlServer{statements: map[string]statement{"": func(ctx context.Context, _ session.ServerSession) error {
		if _, err := w.Get(ctx, ""); !errors.Is(err, cause) || strings.Contains(err.Error(), cause.Error()) {
			t.Errorf("got %v", err)
		}
		return nil
	}}}
	serveEdge(t, edge(newStore(t)), srv).client().must(info(""))
}

// A broken one is replaced by the next Get, also in the same call.
func TestADiscardedResourceIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		srv := w.server()
		srv.statements["replace"] = func(ctx context.Context, _ session.ServerSession) error {
			one, err := w.Get(ctx, "")
			if err != nil {
				return err
			}
			if err := w.Discard(ctx, ""); err != nil {
				return err
			}
			two, err := w.Get(ctx, "")
			if one == two {
				t.Error("it is the same one")
			}
			return err
		}
		store := newStore(t)
		c := serveEdgeInBubble(t, edge(store), srv).client()
		c.must(info("discard")) // nothing to do
		if store.Len() != 0 {
			t.Error("that has made a session")
		}
		cookie := c.must(info("replace")).cookie(t)
		synctest.Wait() // it is closed
		c.must(info("replace"), cookie)
		synctest.Wait()
		if err := store.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		w.want(t, 3, 1, 2, 3)
	})
}

// What goes on after the call keeps resource and session for as long as it needs them.
func TestAResourceLeaseOutlivesTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		w.IdleTimeout = time.Minute
		store := newStore(t, layover.WithIdleTimeout(time.Hour))
		leases := make(chan *session.ResourceLease[*wire], 1)
		srv := w.server()
		srv.statements["acquire"] = func(ctx context.Context, _ session.ServerSession) error {
			l, err := w.Acquire(ctx, "")
			leases <- l
			return err
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		cookie := c.must(info("acquire")).cookie(t)
		l := <-leases
		wait(5 * time.Hour)
		if l.Value().done || store.Len() != 1 {
			t.Error("it is closed")
		}
		c.must(closeSession, cookie)
		synctest.Wait()
		w.want(t, 1)
		l.Release()
		l.Release()
		synctest.Wait()
		w.want(t, 1, 1)
	})
}

// Who asks for one after the call has ended, or in a session that has, gets none.
func TestNoResourceAfterTheEnd(t *testing.T) {
	w := newWires()
	store := newStore(t)
	contexts := make(chan context.Context, 1)
	srv := w.server()
	srv.statements["leak"] = func(ctx context.Context, _ session.ServerSession) error {
		contexts <- ctx
		_, err := w.Get(ctx, "")
		return err
	}
	srv.statements["end first"] = func(ctx context.Context, _ session.ServerSession) error {
		return errors.Join(session.End(ctx), srv.statements["use"](ctx, nil))
	}
	c := serveEdge(t, edge(store), srv).client()
	cookie := c.must(info("leak")).cookie(t)
	ctx := <-contexts
	if _, err := w.Get(ctx, "late"); !errors.Is(err, session.ErrCallEnded) && !errors.Is(err, context.Canceled) {
		t.Errorf("after the call: %v", err)
	}
	if _, err := w.Acquire(ctx, "late"); err == nil {
		t.Error("after the call there is a lease")
	}
	err := c.do(info("end first"), cookie).err
	if got, _ := reason(err); status.Code(err) != codes.NotFound || got != "SESSION_CLOSED" {
		t.Errorf("after the end: %v", err)
	}
}

// Elsewhere there is an error, which says so.
func TestResourcesNeedThisPackagesSessions(t *testing.T) {
	w := newWires()
	srv := w.server()
	var got []error
	srv.statements["all"] = func(ctx context.Context, _ session.ServerSession) error {
		_, get := w.Get(ctx, "")
		_, acquire := w.Acquire(ctx, "")
		_, _, opened := w.Opened(ctx, "")
		hold, discard := w.Hold(ctx, "", time.Hour), w.Discard(ctx, "")
		_, handle := session.NewHandle(ctx, "thing", nil)
		_, resolve := session.ResolveHandle(ctx, "thing", []byte("x"))
		_, within := session.Context(ctx)
		got = []error{get, acquire, opened, hold, discard, handle, resolve, within}
		return nil
	}
	users := session.WithFactory(fakeFactory(func() (session.ServerSession, error) { return &userSession{id: "user-session"}, nil }))
	for name, m := range map[string]*endpoint{
		"Apache's shape": serve(t, stateful(newStore(t)), srv),
		"Apache's store": serveEdge(t, edge(apache.NewSessionStore()), srv),
		"stateless":      serveEdge(t, session.NewServerMiddleware(session.NewStatelessServerSessionManager()), srv),
	} {
		m.client().must(info("all"))
		for i, err := range got {
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s, %d: %v", name, i, err)
			}
		}
	}
	serveEdge(t, session.NewServerMiddleware(session.NewStatefulServerSessionManager(users)), srv).client().must(info("all"))
	for i, err := range got[:6] { // the others have what they need
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("a type of the server's own, %d: %v", i, err)
		}
	}
	_, get := w.Get(t.Context(), "")
	for _, err := range []error{get, w.Hold(t.Context(), "", time.Hour), w.Discard(t.Context(), "")} {
		if !errors.Is(err, session.ErrNoSession) {
			t.Errorf("outside: %v", err)
		}
	}
	w.want(t, 0)
}

func TestAResourceThatCannotBeOpenedOrClosedIsRefused(t *testing.T) {
	srv := &sqlServer{statements: map[string]statement{"": func(ctx context.Context, _ session.ServerSession) error {
		_, err := (&session.Resource[int]{Name: "number", Open: func(context.Context, string) (int, error) { return 1, nil }}).Get(ctx, "")
		return err
	}}}
	if err := serveEdge(t, edge(newStore(t)), srv).client().do(info("")).err; status.Code(err) != codes.Internal {
		t.Errorf("got %v", err)
	}
}
