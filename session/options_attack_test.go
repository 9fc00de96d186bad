// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"

	"github.com/c8e4ff29/layover/session"
)

// Option.OnChange: "An error ... refuses the change: the old value is put back". Not
// if another call of the client has taken the room: then the session has the default,
// and the observer, who refused, the old value.
func TestAttackARefusedChangeLosesTheOldValueForWantOfRoom(t *testing.T) {
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

// "an option that is not in the result's errors was set": not in the session that the
// client has, if the observer has given it a new one.
func TestAttackBeginInAnObserverLosesTheOptionThatIsReportedAsSet(t *testing.T) {
	user := &session.Option[string]{Name: "user", Default: "nobody", OnChange: func(ctx context.Context, _, _ string) error {
		_, err := session.Begin(ctx) // as a login does, against fixation
		return err
	}}
	c := baseServer(t, newStore(t), user).client()
	cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
	var got verdicts
	r := c.must(set(&got, map[string]any{"user": "ada"}), cookie)
	t.Logf("errors: %v, header: %q", got, r.header)
	c.wantOptions("map[user:ada]", r.header[len(r.header)-1])
}

// "the old value is put back" - into the new session, which never had it.
func TestAttackBeginInAnObserverThatRefusesCarriesTheOldValueOver(t *testing.T) {
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
	t.Logf("errors: %v, header: %q", got, r.header)
	c.wantOptions("map[user:nobody]", r.header[len(r.header)-1])
}

// "In one session such changes are made one at a time": not two that one OnChange
// makes by its context at the same time.
func TestAttackChangesInAnObserverOverlap(t *testing.T) {
	var running, most atomic.Int32
	var a, b *session.Option[int64]
	b = &session.Option[int64]{Name: "b", OnChange: func(context.Context, int64, int64) error {
		n := running.Add(1)
		if n > most.Load() {
			most.Store(n)
		}
		time.Sleep(50 * time.Millisecond)
		running.Add(-1)
		return nil
	}}
	a = &session.Option[int64]{Name: "a", OnChange: func(ctx context.Context, _, _ int64) error {
		var all sync.WaitGroup
		for i := range 3 {
			all.Go(func() { _ = b.Set(ctx, int64(i+1)) })
		}
		all.Wait()
		return nil
	}}
	c := baseServer(t, newStore(t), a, b).client()
	c.wantVerdicts(nil, map[string]any{"a": int64(1)})
	if most.Load() > 1 {
		t.Errorf("%d changes of one option of one session were made at a time", most.Load())
	}
}

// The same, by a goroutine that an OnChange has left behind, against another call: in
// the end the observer has another value than the session.
func TestAttackAChangeThatOutlivesItsOuterOneOverlapsOthers(t *testing.T) {
	in, gate := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	var seen atomic.Int64
	var a, b *session.Option[int64]
	b = &session.Option[int64]{Name: "b", OnChange: func(_ context.Context, _, to int64) error {
		if to == 1 {
			close(in)
			<-gate
		}
		seen.Store(to)
		return nil
	}}
	a = &session.Option[int64]{Name: "a", OnChange: func(ctx context.Context, _, _ int64) error {
		go func() { done <- b.Set(ctx, 1) }()
		<-in
		return nil
	}}
	var c *client
	hold := make(chan struct{})
	e := serveEdge(t, edge(newStore(t)), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(a, b)}, statements: map[string]statement{
		"set a": func(ctx context.Context, _ session.ServerSession) error { err := a.Set(ctx, 1); <-hold; return err }}})
	c = e.client()
	cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
	var all sync.WaitGroup
	all.Go(func() { c.must(info("set a"), cookie) })
	<-in
	time.Sleep(100 * time.Millisecond) // a's change is over
	second := make(chan struct{})
	go func() { defer close(second); c.wantVerdicts(nil, map[string]any{"b": int64(2)}, cookie) }()
	select {
	case <-second:
	case <-time.After(500 * time.Millisecond):
	}
	close(gate)
	if err := <-done; err != nil {
		t.Log(err)
	}
	<-second
	close(hold)
	all.Wait()
	var got map[string]*flight.SessionOptionValue
	c.must(getOptions(&got), cookie)
	if got["b"].GetInt64Value() != seen.Load() {
		t.Errorf("the session has b = %d, its observer %d", got["b"].GetInt64Value(), seen.Load())
	}
}

// "it is made ... not by [a request] of whose options none is set".
func TestAttackASessionIsMadeForAChangeThatIsRefused(t *testing.T) {
	store := newStore(t)
	c := baseServer(t, store, &session.Option[string]{Name: "a", OnChange: func(context.Context, string, string) error { return errors.New("no") }}).client()
	var got verdicts
	r := c.must(set(&got, map[string]any{"a": "x"}))
	if got["a"] != refused || store.Len() != 0 || len(r.header) != 0 {
		t.Errorf("%v, %d sessions, cookies %q", got, store.Len(), r.header)
	}
}

// "In one session such changes are made one at a time", of any type.
func TestAttackChangesOfASessionThatCannotBeComparedOverlap(t *testing.T) {
	var running, most atomic.Int32
	o := &session.Option[int64]{Name: "a", OnChange: func(context.Context, int64, int64) error {
		n := running.Add(1)
		if n > most.Load() {
			most.Store(n)
		}
		time.Sleep(100 * time.Millisecond)
		running.Add(-1)
		return nil
	}}
	m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return valueSession{ServerSession: &userSession{id: "one"}, tags: map[string]string{}}, nil
	})))
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(o)}}).client()
	cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() { c.wantVerdicts(nil, map[string]any{"a": int64(i + 1)}, cookie) })
	}
	all.Wait()
	if most.Load() > 1 {
		t.Errorf("%d changes of one session were made at a time", most.Load())
	}
}

// A BaseServer under Apache's own middleware and managers.
func TestAttackABaseServerUnderApachesOwnMiddleware(t *testing.T) {
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
