// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// A handle that "is somebody else's" is SESSION_HANDLE_UNKNOWN, also once it is over.
func TestAttackSomebodyElseIsToldOfTheEndOfAHandlesSession(t *testing.T) {
	for name, m := range map[string]func(*session.ExpiringSessionStore) []session.MiddlewareOption{
		"by principal": func(*session.ExpiringSessionStore) []session.MiddlewareOption {
			return []session.MiddlewareOption{session.WithCarriers(session.ByPrincipal(who))}
		},
		"own IDs": nil, "cookies": func(*session.ExpiringSessionStore) []session.MiddlewareOption {
			return []session.MiddlewareOption{session.WithPrincipal(who)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			n := newCounter()
			var e *endpoint
			if m == nil {
				manager := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(session.NewSessionFactory(uuid.NewString)))
				e = serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil), session.WithPrincipal(who)), n.sqlServer)
			} else {
				e = serveEdge(t, edge(store, m(store)...), n.sqlServer)
			}
			c := e.client()
			c.must(with(info("begin"), "x-user", "alice"))
			handle := string(n.handle)
			wantUnknown(t, "live", c.do(with(presenting(info("use"), handle), "x-user", "bob")).err)
			for i := range store.All() {
				store.Kill(i.Fingerprint)
			}
			wantUnknown(t, "dead", c.do(with(presenting(info("use"), handle), "x-user", "bob")).err)
			wantUnknown(t, "dead, nobody", c.do(presenting(info("use"), handle)).err)
		})
	}
}

// Whatever gives a call its session, a kill of that cancels it, and no other end does.
func TestAttackCancelOnKill(t *testing.T) {
	for _, way := range []string{"cookie", "renew", "begin", "handle", "make", "action", "renew by another"} {
		for _, end := range []string{"kill", "close", "former"} {
			t.Run(way+" "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { cancelOnKill(t, way, end) })
			})
		}
	}
}

func cancelOnKill(t *testing.T, way, end string) {
	store := newStore(t)
	n := newCounter()
	n.statements["RENEW"] = func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx) }
	inside, gate := make(chan string, 1), make(chan struct{})
	n.statements["x"] = func(ctx context.Context, _ session.ServerSession) (err error) {
		switch way {
		case "renew":
			err = session.Renew(ctx)
		case "begin":
			_, err = session.Begin(ctx)
		case "make":
			_, err = session.Ensure(ctx)
		case "handle":
			_, err = session.ResolveHandle(ctx, "transaction", []byte(strings.Join(metadata.ValueFromIncomingContext(ctx, handleHeader), "")))
		}
		if err != nil {
			inside <- ""
			return err
		}
		s, err := session.Lookup(ctx)
		if err != nil {
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
	handle, hcookie := n.begin(c)
	other := c.must(setOption("a", "b")).cookie(t)
	cookies := []string{other}
	f := info("x")
	switch way {
	case "handle":
		f = presenting(f, handle)
	case "make":
		cookies = nil
	case "action":
		f = directScan("x")
	}
	done := make(chan reply, 1)
	go func() { done <- c.do(f, cookies...) }()
	tok := <-inside
	if tok == "" {
		t.Fatal((<-done).err)
	}
	if way == "renew by another" {
		r := c.must(info("RENEW"), other)
		tok = token(r.cookie(t))
	}
	synctest.Wait()
	_ = hcookie
	switch end {
	case "kill":
		if !store.Kill(store.Fingerprint(tok)) {
			t.Error("no kill")
		}
		synctest.Wait()
		select {
		case r := <-done:
			if got, _ := reason(r.err); status.Code(r.err) != codes.NotFound || got != "SESSION_KILLED" {
				t.Errorf("%v", r.err)
			}
		default:
			t.Error("not canceled")
			close(gate)
			<-done
		}
	default:
		if end == "close" {
			_ = store.Remove(tok)
		} else {
			for i := range store.All() {
				if i.Fingerprint != store.Fingerprint(tok) {
					store.Kill(i.Fingerprint)
				}
			}
		}
		wait(time.Second)
		close(gate)
		if r := <-done; r.err != nil {
			t.Errorf("canceled: %v", r.err)
		}
	}
}

// Everything in one store at once; nothing may be left.
func TestAttackEverythingAtOnce(t *testing.T) {
	store := session.NewSessionStore(layover.WithLogger(nil), layover.WithIdleTimeout(200*time.Millisecond))
	_ = store.SetMaxResources(6)
	var log logBuffer
	var open, opened, closed atomic.Int32
	type conn struct{ closed atomic.Bool }
	var r1, r2 *session.Resource[*conn]
	mk := func(name string, in func(ctx context.Context)) *session.Resource[*conn] {
		return &session.Resource[*conn]{Name: name, IdleTimeout: 30 * time.Millisecond, Open: func(ctx context.Context, _ string) (*conn, error) {
			if n := open.Add(1); n > 6 {
				t.Errorf("%d open", n)
			}
			in(ctx)
			switch rand.IntN(10) {
			case 0:
				open.Add(-1)
				return nil, errors.New("x")
			case 1:
				open.Add(-1)
				panic("x")
			}
			opened.Add(1)
			return new(conn), nil
		}, Close: func(c *conn) error {
			if c.closed.Swap(true) {
				t.Error("twice")
			}
			time.Sleep(time.Millisecond)
			open.Add(-1)
			closed.Add(1)
			return nil
		}}
	}
	var mu sync.Mutex
	var all [][]byte
	var any func(ctx context.Context, depth int)
	r1 = mk("one", func(ctx context.Context) {})
	r2 = mk("two", func(ctx context.Context) {
		_, _ = r1.Get(ctx, "")
		any(ctx, 3)
	})
	any = func(ctx context.Context, depth int) {
		key := fmt.Sprint(rand.IntN(2))
		switch rand.IntN(18) {
		case 0, 1:
			_, _ = r1.Get(ctx, key)
		case 2, 3:
			_, _ = r2.Get(ctx, key)
		case 4:
			_, _, _ = r1.Opened(ctx, key)
		case 5:
			_ = r2.Hold(ctx, key, time.Millisecond*time.Duration(rand.IntN(20)))
		case 6:
			_ = r1.Discard(ctx, key)
		case 7:
			if l, err := r2.Acquire(ctx, key); err == nil {
				go func() { time.Sleep(5 * time.Millisecond); l.Release(); l.Release() }()
			}
		case 8:
			_ = session.Renew(ctx)
		case 9:
			_, _ = session.Begin(ctx)
		case 10:
			_ = session.End(ctx)
		case 11:
			if h, err := session.NewHandle(ctx, "k", []byte("o")); err == nil {
				mu.Lock()
				all = append(all, h)
				mu.Unlock()
			}
		case 12, 13:
			mu.Lock()
			var h []byte
			if len(all) > 0 {
				h = all[max(0, len(all)-1-rand.IntN(20))%len(all)]
			}
			mu.Unlock()
			_, _ = session.ResolveHandle(ctx, "k", h)
		case 14:
			if rand.IntN(4) == 0 {
				for i := range store.All() {
					store.Kill(i.Fingerprint)
					break
				}
			}
		case 15:
			if c, err := session.Context(ctx); err == nil {
				context.AfterFunc(c, func() {})
			}
		case 16:
			_, _ = session.Ensure(ctx)
		case 17:
			if depth == 0 && rand.IntN(3) == 0 {
				panic(plannedPanic)
			}
		}
	}
	run := func(ctx context.Context, _ session.ServerSession) error {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond) // two that open for each other would wait for ever
		defer cancel()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for range 3 {
					any(ctx, 1)
				}
			})
		}
		wg.Wait()
		any(ctx, 0)
		return nil
	}
	srv := &sqlServer{statements: map[string]statement{"x": run}}
	e := serveEdge(t, edge(store, session.WithCancelOnKill(), session.WithLogger(log.logger())), srv)
	var wg sync.WaitGroup
	stop := time.Now().Add(6 * time.Second)
	for range 6 {
		wg.Go(func() {
			c := e.client()
			cookie := ""
			for time.Now().Before(stop) {
				f := info("x")
				if rand.IntN(2) == 0 {
					f = directScan("x")
				}
				var r reply
				if cookie != "" {
					r = c.do(f, cookie)
				} else {
					r = c.do(f)
				}
				if got := r.header; len(got) > 0 {
					cookie, _, _ = strings.Cut(got[len(got)-1], ";")
					if strings.HasSuffix(cookie, "=") {
						cookie = ""
					}
				}
				if r.err != nil {
					cookie = ""
				}
			}
		})
	}
	wg.Wait()
	time.Sleep(100 * time.Millisecond)
	for i := range store.All() {
		if i.Leases != 0 {
			t.Errorf("%d leases", i.Leases)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := store.Check(); err != nil {
		t.Error(err)
	}
	if err := store.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	rs := store.Resources()
	if rs.Places+rs.Open+rs.Closing+rs.Hung+rs.Busy+rs.Held != 0 || open.Load() != 0 || opened.Load() != closed.Load() || session.HandlesIn(store) != 0 {
		t.Errorf("%+v, open %d, opened %d, closed %d, %d handles", rs, open.Load(), opened.Load(), closed.Load(), session.HandlesIn(store))
	}
	t.Logf("%+v", rs)
	for _, h := range all {
		if strings.Contains(log.String(), string(h)) {
			t.Error("a handle in the log")
		}
	}
}
