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
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// "CloseSession is never an error", also if several ask at the same time.
func TestAttackCloseSessionByMany(t *testing.T) {
	for _, by := range []string{"cookie", "principal"} {
		t.Run(by, func(t *testing.T) {
			var opts []session.MiddlewareOption
			if by == "principal" {
				opts = append(opts, session.WithCarriers(session.ByPrincipal(func(context.Context) (session.Principal, error) { return session.Principal{Name: "ada"}, nil })))
			}
			store := newStore(t)
			c := serveEdge(t, edge(store, opts...), &sqlServer{base: new(session.BaseServer)}).client()
			for range 100 {
				var cookies []string
				if r := c.must(setOption("schema", "prod")); by == "cookie" {
					cookies = append(cookies, r.cookie(t))
				}
				var all sync.WaitGroup
				for range 6 {
					all.Go(func() {
						var st gen.CloseSessionResult_Status
						if r := c.do(closing(&st), cookies...); r.err != nil {
							t.Errorf("%v", r.err)
						}
					})
					all.Go(func() {
						if r := c.do(setOption("other", "x"), cookies...); r.err != nil && status.Code(r.err) != codes.NotFound {
							t.Errorf("set: %v", r.err)
						}
					})
				}
				all.Wait()
				var st gen.CloseSessionResult_Status
				if c.must(closing(&st), cookies...); st != flight.CloseSessionResultClosed {
					t.Errorf("in the end: %v", st)
				}
			}
		})
	}
}

// Dead tokens and the three actions, under each policy.
func TestAttackDeadTokensAndTheActions(t *testing.T) {
	for _, p := range []session.DeadTokenPolicy{session.RenewDead, session.TellDead, session.StrictDead} {
		for _, death := range []string{"idle", "killed"} {
			t.Run(fmt.Sprint(p, death), func(t *testing.T) {
				store := newStore(t, layover.WithIdleTimeout(50*time.Millisecond))
				o := &session.Option[int64]{Name: "limit", Default: 7}
				c := serveEdge(t, edge(store, session.WithDeadTokens(p)), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(o)}}).client()
				cookie := c.must(setOption("limit", int64(8))).cookie(t)
				c.must(info(""), cookie)
				if death == "killed" {
					for i := range store.All() {
						store.Kill(i.Fingerprint)
					}
				}
				for store.Len() > 0 {
					time.Sleep(5 * time.Millisecond)
				}
				var st gen.CloseSessionResult_Status
				r := c.do(closing(&st), cookie)
				if r.err != nil || st != flight.CloseSessionResultClosed {
					t.Errorf("close: %v %v", st, r.err)
				}
				r = c.do(getOptions(nil), cookie)
				if status.Code(r.err) != codes.NotFound {
					t.Errorf("get: %v", r.err)
				}
				var got verdicts
				r = c.do(set(&got, map[string]any{"no": "x"}), cookie)
				t.Logf("all refused: %v %v %q", got, r.err, r.header)
				r = c.do(set(&got, map[string]any{"limit": "9"}), cookie)
				if p == session.StrictDead { // as its documentation says
					if status.Code(r.err) != codes.NotFound {
						t.Errorf("strict: set: %v %v", got, r.err)
					}
				} else if r.err != nil || len(r.header) != 1 {
					t.Errorf("set: %v %v %q", got, r.err, r.header)
				}
			})
		}
	}
}

// An observer may renew the session, and kill it.
func TestAttackRenewAndKillInAnObserver(t *testing.T) {
	store := newStore(t)
	renew := &session.Option[string]{Name: "renew", Default: "", OnChange: func(ctx context.Context, _, to string) error {
		if err := session.Renew(ctx); err != nil {
			return err
		}
		if to == "refuse" {
			return errors.New("no")
		}
		return nil
	}}
	kill := &session.Option[bool]{Name: "z", OnChange: func(context.Context, bool, bool) error {
		for i := range store.All() {
			store.Kill(i.Fingerprint)
		}
		return nil
	}}
	c := baseServer(t, store, renew, kill).client()
	cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
	cookie = c.wantVerdicts(nil, map[string]any{"renew": "a"}, cookie).cookie(t)
	c.wantOptions("map[renew:a z:&{false}]", cookie)
	cookie = c.wantVerdicts(verdicts{"renew": refused}, map[string]any{"renew": "refuse"}, cookie).cookie(t)
	var got verdicts
	r := c.do(set(&got, map[string]any{"z": true}), cookie)
	t.Logf("the session was killed meanwhile: %v, %v", got, r.err)
}

// ResolveHandle before an option is set: it is the session of the handle, and the
// observers of two sessions do not mix.
func TestAttackResolveHandleThenSet(t *testing.T) {
	seen := map[string]string{}
	var mu sync.Mutex
	o := &session.Option[string]{Name: "a", OnChange: func(ctx context.Context, from, to string) error {
		s, err := session.Lookup(ctx)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if seen[s.Token()] != from {
			t.Errorf("from %q, was %q", from, seen[s.Token()])
		}
		if to == "no" {
			return errors.New("no")
		}
		seen[s.Token()] = to
		return nil
	}}
	var handle []byte
	value := "x"
	var late bool
	e := serveEdge(t, edge(newStore(t)), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(o)}, statements: map[string]statement{
		"make": func(ctx context.Context, _ session.ServerSession) (err error) {
			handle, err = session.NewHandle(ctx, "k", []byte("o"))
			return err
		},
		"use": func(ctx context.Context, _ session.ServerSession) error {
			if late {
				if err := o.Set(ctx, "mine"); err != nil {
					return err
				}
			}
			if _, err := session.ResolveHandle(ctx, "k", handle); err != nil {
				return err
			}
			return o.Set(ctx, value)
		}}})
	c := e.client()
	first := c.must(info("make")).cookie(t)
	second := c.wantVerdicts(nil, map[string]any{"a": "second"}).cookie(t)
	c.must(info("use"))
	c.wantOptions("map[a:x]", first)
	value = "y"
	c.must(info("use"), second)
	c.wantOptions("map[a:y]", first)
	c.wantOptions("map[a:second]", second)
	value, late = "no", true
	if r := c.do(info("use"), second); r.err == nil {
		t.Error("no error")
	}
	c.wantOptions("map[a:y]", first)
	c.wantOptions("map[a:mine]", second)
}

// Whoever presents another principal's cookie learns nothing of what became of it.
func TestAttackClosingTellsOthersOfASession(t *testing.T) {
	who := "ada"
	var mu sync.Mutex
	opts := []session.MiddlewareOption{session.WithPrincipal(func(context.Context) (session.Principal, error) {
		mu.Lock()
		defer mu.Unlock()
		return session.Principal{Name: who}, nil
	})}
	started, gate := make(chan struct{}), make(chan struct{})
	c := serveEdge(t, edge(newStore(t), opts...), &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
		"wait": func(context.Context, session.ServerSession) error { close(started); <-gate; return nil }}}).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	var all sync.WaitGroup
	all.Go(func() { c.must(info("wait"), cookie) })
	<-started
	as := func(name string) { mu.Lock(); defer mu.Unlock(); who = name }
	as("bob")
	var st gen.CloseSessionResult_Status
	if r := c.do(closing(&st), cookie); st != flight.CloseSessionResultClosed {
		t.Errorf("bob closes ada's live session: %v %v", st, r.err)
	}
	as("ada")
	c.wantOptions("map[schema:prod]", cookie)
	if c.must(closing(&st), cookie); st != flight.CloseSessionResultClosing {
		t.Errorf("ada: %v", st)
	}
	as("bob")
	if r := c.do(closing(&st), cookie); st != flight.CloseSessionResultClosed {
		t.Errorf("bob is told of ada's session that it is still in use: %v %v", st, r.err)
	}
	close(gate)
	all.Wait()
}

// The edges of conversions.
func TestAttackConversions(t *testing.T) {
	c := baseServer(t, newStore(t), &session.Option[int64]{Name: "i"}, &session.Option[float64]{Name: "f"}, &session.Option[bool]{Name: "b"},
		&session.Option[[]string]{Name: "l"}, &session.Option[string]{Name: "s"}).client()
	for _, tt := range []struct {
		name string
		v    any
		ok   bool
	}{
		{"i", 9223372036854775808.0, false}, {"i", -9223372036854775808.0, true}, {"i", 9223372036854774784.0, true}, {"i", "9223372036854775808", false},
		{"i", 1.5, false}, {"i", "1.0", false}, {"i", "+5", true}, {"i", "0x10", false}, {"i", "1_000", false}, {"i", true, false}, {"i", []string{"1"}, false},
		{"f", int64(1<<53 + 1), false}, {"f", int64(1 << 53), true}, {"f", int64(-1 << 63), true}, {"f", int64(1<<63 - 1), false}, {"f", "NaN", false}, {"f", "1e400", false}, {"f", "x", false},
		{"b", int64(1), false}, {"b", "tRuE", true}, {"b", " on\n", true}, {"b", "", false}, {"b", "y", false},
		{"l", `"a""b", c ,""`, true}, {"l", `"a`, false}, {"l", `a"b`, false}, {"l", int64(1), false}, {"l", strings.Repeat(",", 20000), false},
		{"s", int64(1), false}, {"s", []string{}, false}, {"s", "", true},
	} {
		var got verdicts
		c.must(set(&got, map[string]any{tt.name: tt.v}))
		if (len(got) == 0) != tt.ok {
			t.Errorf("%s = %.30v: %v", tt.name, fmt.Sprint(tt.v), got)
		}
	}
}
