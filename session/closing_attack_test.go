// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// "CLOSING ... until they have ended also if its client asks again": under each policy,
// after a renewal, after the tell window, and with a handle in place of a cookie.
func TestAttackClosingIsToldUntilTheEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		opts   []session.MiddlewareOption
		renew  bool
		handle bool
		stores []layover.Option
		wait   time.Duration
	}{
		"renew dead":   {opts: []session.MiddlewareOption{session.WithDeadTokens(session.RenewDead)}},
		"strict":       {opts: []session.MiddlewareOption{session.WithDeadTokens(session.StrictDead)}},
		"renewed":      {renew: true},
		"renewed dead": {renew: true, opts: []session.MiddlewareOption{session.WithDeadTokens(session.RenewDead)}},
		"tell window":  {opts: []session.MiddlewareOption{session.WithTellWindow(20 * time.Millisecond)}, wait: 60 * time.Millisecond},
		"handle":       {handle: true},
		"principal":    {opts: []session.MiddlewareOption{session.WithPrincipal(func(context.Context) (session.Principal, error) { return session.Principal{Name: "ada"}, nil })}},
		"strip":        {opts: []session.MiddlewareOption{session.WithTokensStripped()}},
		"cancel":       {opts: []session.MiddlewareOption{session.WithCancelOnKill()}},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t, tt.stores...)
			started, gate := make(chan struct{}), make(chan struct{})
			var handle []byte
			e := serveEdge(t, edge(store, tt.opts...), &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
				"handle": func(ctx context.Context, _ session.ServerSession) (err error) {
					handle, err = session.NewHandle(ctx, "k", nil)
					return err
				},
				"renew": func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx) },
				"wait": func(ctx context.Context, _ session.ServerSession) error {
					if tt.handle {
						if _, err := session.ResolveHandle(ctx, "k", handle); err != nil {
							return err
						}
					}
					close(started)
					<-gate
					return nil
				}}})
			c := e.client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			c.must(info("handle"), cookie)
			var all sync.WaitGroup
			all.Go(func() {
				if tt.handle {
					c.do(info("wait"))
				} else {
					c.do(info("wait"), cookie)
				}
			})
			<-started
			if tt.renew {
				cookie = c.must(info("renew"), cookie).cookie(t)
			}
			for i := range 3 {
				var st gen.CloseSessionResult_Status
				if r := c.do(closing(&st), cookie); r.err != nil || st != flight.CloseSessionResultClosing {
					t.Errorf("close %d: %v %v", i, st, r.err)
				}
				time.Sleep(tt.wait)
			}
			close(gate)
			all.Wait()
			var st gen.CloseSessionResult_Status
			if r := c.do(closing(&st), cookie); r.err != nil || st != flight.CloseSessionResultClosed {
				t.Errorf("afterwards: %v %v", st, r.err)
			}
		})
	}
}

// A principal that begins anew while its former session is closing, and closes that.
func TestAttackClosedAndThenClosing(t *testing.T) {
	opts := []session.MiddlewareOption{session.WithCarriers(session.ByPrincipal(func(context.Context) (session.Principal, error) { return session.Principal{Name: "ada"}, nil }))}
	started, gate := make(chan struct{}), make(chan struct{})
	e := serveEdge(t, edge(newStore(t), opts...), &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
		"wait": func(context.Context, session.ServerSession) error { close(started); <-gate; return nil }}})
	c := e.client()
	c.must(setOption("schema", "prod"))
	var all sync.WaitGroup
	all.Go(func() { c.must(info("wait")) })
	<-started
	var got []gen.CloseSessionResult_Status
	closeIt := func() {
		var st gen.CloseSessionResult_Status
		c.must(closing(&st))
		got = append(got, st)
	}
	closeIt()
	c.must(setOption("schema", "again"))
	closeIt()
	closeIt()
	close(gate)
	all.Wait()
	closeIt()
	t.Log(got)
	if got[1] == flight.CloseSessionResultClosed && got[2] == flight.CloseSessionResultClosing {
		t.Errorf("CLOSED becomes CLOSING: %v", got)
	}
}

// "It stores first", and a change is told of "after it was stored". In a store that
// copies nothing is stored before the end of the call: if that fails, the client is
// told so, but the observer keeps the new value.
func TestAttackAnObserverOfACopyThatIsNotSaved(t *testing.T) {
	var kept sync.Map
	var failing atomic.Bool
	copies := &fakeStore{
		put: func(s session.ServerSession) error {
			if failing.Load() {
				return errors.New("the store is away")
			}
			kept.Store(s.Token(), &userSession{id: s.Token(), options: s.GetSessionOptions()})
			return nil
		},
		remove: func(id string) error { kept.Delete(id); return nil },
		get: func(id string) (session.ServerSession, error) {
			if s, ok := kept.Load(id); ok {
				was := s.(session.ServerSession)
				return &userSession{id: was.Token(), options: was.GetSessionOptions()}, nil
			}
			return nil, session.ErrNoSession
		}}
	seen := "default"
	o := &session.Option[string]{Name: "a", Default: "default", OnChange: func(_ context.Context, _, to string) error { seen = to; return nil }}
	m := session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(copies), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return &userSession{id: "one"}, nil
	}))), session.WithLogger(nil))
	c := serveEdge(t, m, &sqlServer{base: &session.BaseServer{Options: session.MustSchema(o)}}).client()
	cookie := c.wantVerdicts(nil, map[string]any{"a": "old"}).cookie(t)
	failing.Store(true)
	var got verdicts
	r := c.do(set(&got, map[string]any{"a": "new"}), cookie)
	failing.Store(false)
	t.Logf("the client: %v, %v", got, r.err)
	var all map[string]*flight.SessionOptionValue
	c.must(getOptions(&all), cookie)
	if v := all["a"].GetStringValue(); v != seen {
		t.Errorf("stored %q, observed %q", v, seen)
	}
}
