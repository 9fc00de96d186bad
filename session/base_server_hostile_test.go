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

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// What is put back is within the limits, also if the client has filled its room while
// the change was being refused.
func TestARefusedChangeKeepsTheOldValueWhateverWasSetMeanwhile(t *testing.T) {
	in, gate := make(chan struct{}), make(chan struct{})
	observed := ""
	watched := &session.Option[string]{Name: "watched", Default: "default", OnChange: func(_ context.Context, _, to string) error {
		if to == "refuse" {
			close(in)
			<-gate
			return errors.New("no")
		}
		observed = to
		return nil
	}}
	e := serveEdge(t, edge(newStore(t)), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(watched).AcceptUnknown()}})
	c := e.client()
	old := strings.Repeat("x", 60<<10)
	cookie := c.wantVerdicts(nil, map[string]any{"watched": old}).cookie(t)
	var all sync.WaitGroup
	all.Go(func() { c.wantVerdicts(verdicts{"watched": refused}, map[string]any{"watched": "refuse"}, cookie) })
	<-in
	full := map[string]any{} // the client itself, in another call: 240 KiB of 256
	for i := range 4 {
		full[fmt.Sprint("filler", i)] = strings.Repeat("y", 60<<10)
	}
	c.wantVerdicts(nil, full, cookie)
	close(gate)
	all.Wait()
	var got map[string]*flight.SessionOptionValue
	c.must(getOptions(&got), cookie)
	if v := got["watched"].GetStringValue(); v != observed {
		t.Errorf("the session has %.20q, its observer %.20q: the refused change has changed it", v, observed)
	}
}

// The option is not in the session that the client has then.
func TestAnOptionWhoseObserverBeginsASessionIsNotReportedAsSet(t *testing.T) {
	user := &session.Option[string]{Name: "user", Default: "nobody", OnChange: func(ctx context.Context, _, _ string) error {
		_, err := session.Begin(ctx) // as a login does, against fixation
		return err
	}}
	c := baseServer(t, newStore(t), user).client()
	cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
	var got verdicts
	r := c.must(set(&got, map[string]any{"user": "ada"}), cookie)
	if fmt.Sprint(got) != fmt.Sprint(verdicts{"user": refused}) {
		t.Errorf("errors: %v", got)
	}
	c.wantOptions("map[user:nobody]", r.header[len(r.header)-1])
}

// An observer that begins a new session and then refuses leaves nothing of the old one
// in the new one.
func TestNothingIsPutBackIntoAnotherSession(t *testing.T) {
	user := &session.Option[string]{Name: "user", Default: "nobody", OnChange: func(ctx context.Context, _, to string) error {
		if to != "root" {
			return nil
		}
		if _, err := session.Begin(ctx); err != nil {
			return err
		}
		return errors.New("no")
	}}
	c := baseServer(t, newStore(t), user).client()
	cookie := c.wantVerdicts(nil, map[string]any{"user": "ada"}).cookie(t)
	var got verdicts
	r := c.must(set(&got, map[string]any{"user": "root"}), cookie)
	c.wantOptions("map[user:nobody]", r.header[len(r.header)-1])
}

// Also with Apache's managers.
func TestABaseServerWorksUnderApachesOwnMiddleware(t *testing.T) {
	for name, m := range map[string]apache.ServerSessionManager{
		"theirs": apache.NewStatefulServerSessionManager(), "stateless": apache.NewStatelessServerSessionManager(),
		"our store": apache.NewStatefulServerSessionManager(apache.WithStore(newStore(t)))} {
		t.Run(name, func(t *testing.T) {
			seen := "default"
			o := &session.Option[string]{Name: "a", Default: "default", OnChange: func(_ context.Context, _, to string) error {
				if to == "no" {
					return errors.New("no")
				}
				seen = to
				return nil
			}}
			jar := new(jar)
			c := jar.client(serve(t, apache.NewServerSessionMiddleware(m), &sqlServer{fromContext: apache.GetSessionFromContext, base: &session.BaseServer{Options: session.MustSchema(o)}}))
			var st gen.CloseSessionResult_Status
			if c.must(closing(&st)); st != flight.CloseSessionResultClosed {
				t.Errorf("without: %v", st)
			}
			c.wantVerdicts(nil, map[string]any{"a": "x"})
			c.wantVerdicts(verdicts{"a": refused, "no": invalidName}, map[string]any{"a": "no", "no": "x"})
			c.wantOptions("map[a:x]")
			if seen != "x" {
				t.Error(seen)
			}
			if c.must(closing(&st)); st != flight.CloseSessionResultClosed {
				t.Errorf("%v", st)
			}
		})
	}
}

// Also one that refuses: the new ID stays, the old value comes back.
func TestAnObserverMayRenewTheSession(t *testing.T) {
	renew := &session.Option[string]{Name: "renew", Default: "", OnChange: func(ctx context.Context, _, to string) error {
		if err := session.Renew(ctx); err != nil {
			return err
		}
		if to == "refuse" {
			return errors.New("no")
		}
		return nil
	}}
	c := baseServer(t, newStore(t), renew).client()
	cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
	cookie = c.wantVerdicts(nil, map[string]any{"renew": "a"}, cookie).cookie(t)
	c.wantOptions("map[renew:a]", cookie)
	cookie = c.wantVerdicts(verdicts{"renew": refused}, map[string]any{"renew": "refuse"}, cookie).cookie(t)
	c.wantOptions("map[renew:a]", cookie)
}

// Observers of the two sessions do not mix.
func TestOptionsAreSetInTheSessionOfTheHandle(t *testing.T) {
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

// A SetSessionOptions beside them may learn that its session has ended.
func TestCloseSessionIsNeverAnErrorHoweverManyAsk(t *testing.T) {
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
						if r := c.do(setOption("other", "x"), cookies...); r.err != nil && !endedBeside(r.err) {
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

// endedBeside reports whether an error says that the session has ended while it was
// used.
func endedBeside(err error) bool {
	why, _ := reason(err)
	return status.Code(err) == codes.NotFound || why == "SESSION_NOT_SAVED"
}

// CloseSession succeeds, GetSessionOptions is an error, and SetSessionOptions begins
// anew, unless the policy is strict.
func TestTheThreeActionsWithADeadToken(t *testing.T) {
	for _, p := range []session.DeadTokenPolicy{session.RenewDead, session.TellDead, session.StrictDead} {
		for _, death := range []string{"idle", "killed"} {
			t.Run(fmt.Sprint(p, death), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { actionsWithADeadToken(t, p, death) })
			})
		}
	}
}

func actionsWithADeadToken(t *testing.T, p session.DeadTokenPolicy, death string) {
	store := newStore(t, layover.WithIdleTimeout(time.Minute))
	o := &session.Option[int64]{Name: "limit", Default: 7}
	c := serveEdgeInBubble(t, edge(store, session.WithDeadTokens(p)), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(o)}}).client()
	cookie := c.must(setOption("limit", int64(8))).cookie(t)
	c.must(info(""), cookie)
	if death == "killed" {
		for i := range store.All() {
			store.Kill(i.Fingerprint)
		}
	}
	wait(time.Minute + late)
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
	r = c.do(set(&got, map[string]any{"limit": "9"}), cookie)
	if p == session.StrictDead { // as its documentation says
		if status.Code(r.err) != codes.NotFound {
			t.Errorf("strict: set: %v %v", got, r.err)
		}
	} else if r.err != nil || len(r.header) != 1 {
		t.Errorf("set: %v %v %q", got, r.err, r.header)
	}
}

// Whoever presents another principal's cookie learns nothing of what became of it.
func TestNobodyElseLearnsThatASessionIsClosing(t *testing.T) {
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

func TestConversionsAtTheirEdges(t *testing.T) {
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

// Under each policy, after a renewal, after the tell window, and for a session by
// handle.
func TestClosingIsToldUntilTheOtherCallsHaveEnded(t *testing.T) {
	for name, tt := range map[string]struct {
		opts   []session.MiddlewareOption
		renew  bool
		handle bool
		wait   time.Duration
	}{
		"renew dead":   {opts: []session.MiddlewareOption{session.WithDeadTokens(session.RenewDead)}},
		"strict":       {opts: []session.MiddlewareOption{session.WithDeadTokens(session.StrictDead)}},
		"renewed":      {renew: true},
		"renewed dead": {renew: true, opts: []session.MiddlewareOption{session.WithDeadTokens(session.RenewDead)}},
		"tell window":  {opts: []session.MiddlewareOption{session.WithTellWindow(20 * time.Millisecond)}, wait: time.Second},
		"handle":       {handle: true},
		"principal":    {opts: []session.MiddlewareOption{session.WithPrincipal(func(context.Context) (session.Principal, error) { return session.Principal{Name: "ada"}, nil })}},
		"strip":        {opts: []session.MiddlewareOption{session.WithTokensStripped()}},
		"cancel":       {opts: []session.MiddlewareOption{session.WithCancelOnKill()}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore(t)
				started, gate := make(chan struct{}), make(chan struct{})
				var handle []byte
				e := serveEdgeInBubble(t, edge(store, tt.opts...), &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
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
					wait(tt.wait)
				}
				close(gate)
				all.Wait()
				var st gen.CloseSessionResult_Status
				if r := c.do(closing(&st), cookie); r.err != nil || st != flight.CloseSessionResultClosed {
					t.Errorf("afterwards: %v %v", st, r.err)
				}
			})
		})
	}
}
