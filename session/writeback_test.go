// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// remoteStore keeps sessions elsewhere, as if by a network: whoever gets one gets a
// copy. What the test does not say succeeds.
type remoteStore struct {
	mu     sync.Mutex
	rows   map[string]map[string]*flight.SessionOptionValue
	writes []string // "put" and "update"
	before func(what string) error
}

func (s *remoteStore) do(what string) error {
	s.mu.Lock()
	f := s.before
	s.mu.Unlock()
	if f != nil {
		return f(what)
	}
	return nil
}

// on has f called before whatever the store does.
func (s *remoteStore) on(f func(what string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

func (s *remoteStore) Get(id string) (session.ServerSession, error) {
	if err := s.do("get"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	row, ok := s.rows[id]
	if !ok {
		return nil, session.ErrNoSession
	}
	made, err := session.NewSessionFactory(func() string { return id }).CreateSession()
	for name, v := range row {
		made.SetSessionOption(name, v)
	}
	return made, err
}

func (s *remoteStore) Put(v session.ServerSession) error { return s.write("put", v) }

func (s *remoteStore) write(what string, v session.ServerSession) error {
	err := s.do(what)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = append(s.writes, what)
	if err != nil {
		return err
	}
	if s.rows == nil {
		s.rows = make(map[string]map[string]*flight.SessionOptionValue)
	}
	s.rows[v.Token()] = v.GetSessionOptions()
	return nil
}

func (s *remoteStore) Remove(id string) error {
	if err := s.do("remove"); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, id)
	return nil
}

// forget is Remove by another process.
func (s *remoteStore) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.rows, id)
}

// taken returns what was written since it was last asked.
func (s *remoteStore) taken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.writes = nil }()
	return strings.Join(s.writes, " ")
}

func (s *remoteStore) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.rows)
}

// updatingStore is a remoteStore that can write only what is there.
type updatingStore struct{ *remoteStore }

func (s updatingStore) Update(ctx context.Context, v session.ServerSession) error {
	if _, bounded := ctx.Deadline(); !bounded || ctx.Err() != nil {
		return fmt.Errorf("bounded %v, %w", bounded, ctx.Err())
	}
	if err := s.do("to update"); err != nil {
		return err
	}
	s.mu.Lock()
	_, there := s.rows[v.Token()]
	s.mu.Unlock()
	if !there {
		return fmt.Errorf("the other end: %w", layover.ErrNotFound)
	}
	return s.write("update", v)
}

// copying returns a manager over a store that copies, which must be used by nobody
// when the test ends.
func copying(t *testing.T, store session.SessionStore) *session.StatefulServerSessionManager {
	m := session.NewStatefulServerSessionManager(session.WithStore(store))
	t.Cleanup(func() {
		if n := m.InUse(); n != 0 {
			t.Errorf("%d sessions are in use", n)
		}
	})
	return m
}

// scanning sets an option, or erases and sets it again.
func scanning(name, value string) *sqlServer {
	return &sqlServer{statements: map[string]statement{
		"SET": func(ctx context.Context, _ session.ServerSession) error {
			return session.SetOption(ctx, name, text(value))
		},
		"BACK": func(_ context.Context, s session.ServerSession) error {
			s.EraseSessionOption(name)
			s.SetSessionOption(name, text(value))
			return nil
		},
	}}
}

// What a call changes after Put is written back when it ends: once, and only if
// there was a change.
func TestCopiesAreWrittenBackOnceAndOnlyIfChanged(t *testing.T) {
	remote := new(remoteStore)
	for update, store := range map[string]session.SessionStore{"put": remote, "update": updatingStore{remote}} {
		t.Run(update, func(t *testing.T) {
			c := serveEdge(t, session.NewServerMiddleware(copying(t, store), session.WithLogger(nil)), scanning("streamed", "x")).client()
			cookie := c.must(info("")).header
			if cookie != nil || remote.taken() != "" {
				t.Error("a call that needs no session has made one")
			}
			known := c.must(setOption("schema", "prod")).cookie(t)
			if got := remote.taken(); got != "put "+update {
				t.Errorf("a new session: %q", got)
			}
			for _, step := range []struct {
				what string
				call call
				want string
			}{
				{"reads", getOptions(nil), ""},
				{"sets what is set", setOption("schema", "prod"), ""},
				{"sets two", setOptions(map[string]any{"a": "b", "schema": "test"}), update},
				{"erases", setOption("a", nil), update},
				{"erases what is not set", setOption("a", nil), ""},
				{"sets in a stream", scan("direct:SET"), update},
				{"changes it there and back", info("BACK"), ""},
			} {
				c.must(step.call, known)
				if got := remote.taken(); got != step.want {
					t.Errorf("a call that %s: %q, want %q", step.what, got, step.want)
				}
			}
			if schema, a, streamed := c.option("schema", known), c.option("a", known), c.option("streamed", known); schema != "test" || a != "" || streamed != "x" {
				t.Errorf("%q, %q, %q", schema, a, streamed)
			}
			c.must(closeSession, known)
			if got := remote.taken(); got != "" || remote.size() != 0 {
				t.Errorf("closed: %q, %d left", got, remote.size())
			}
		})
	}
}

// A call is told that it succeeded only when what it has changed is stored.
func TestACallThatCouldNotBeWrittenBackFails(t *testing.T) {
	var log logBuffer
	remote := new(remoteStore)
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(log.logger())), scanning("streamed", "x")).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	remote.on(func(what string) error {
		if what == "put" {
			return errors.New("no space left for " + token(cookie))
		}
		return nil
	})
	for what, f := range map[string]call{"unary": setOption("schema", "x"), "stream": scan("direct:SET")} {
		r := c.do(f, cookie)
		if status.Code(r.err) != codes.Internal || reasonOf(t, r.err) != "SESSION_NOT_SAVED" {
			t.Errorf("%s: %v", what, r.err)
		}
	}
	if got := log.String(); !strings.Contains(got, "no space left") || strings.Contains(got, token(cookie)) {
		t.Errorf("the log: %s", got)
	}
	if got := c.schema("cookie", cookie); got != "prod" {
		t.Errorf("schema %q", got)
	}
}

// What is closed while a call uses it stays closed, whatever that call writes.
func TestALateWriteBringsNoSessionBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, gate := new(remoteStore), make(chan struct{})
		server := &sqlServer{statements: map[string]statement{"late": func(ctx context.Context, s session.ServerSession) error {
			<-gate
			s.SetSessionOption("late", text("x"))
			return nil
		}}}
		c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		late := []<-chan reply{c.start(info("late"), cookie), c.start(scan("direct:late"), cookie)}
		synctest.Wait()
		c.must(closeSession, cookie)
		remote.taken()
		close(gate)
		for _, d := range late {
			if r := <-d; r.err != nil {
				t.Error(r.err)
			}
		}
		if got := remote.taken(); got != "" || remote.size() != 0 {
			t.Errorf("%q, %d sessions", got, remote.size())
		}
	})
}

// Closing waits for a write that is under way; if that hangs, then not for longer
// than UpdateTimeout. In both cases nothing is left.
func TestClosingWaitsForAWriteUnderWay(t *testing.T) {
	for name, hangs := range map[string]time.Duration{"slow": time.Second, "hung": time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				remote := new(remoteStore)
				c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), nil).client()
				cookie := c.must(setOption("schema", "prod")).cookie(t)
				remote.on(func(what string) error {
					if what == "put" {
						<-time.After(hangs)
					}
					return nil
				})
				late := c.start(setOption("schema", "late"), cookie)
				synctest.Wait()
				start := time.Now()
				c.must(closeSession, cookie)
				if took, most := time.Since(start), min(hangs, session.UpdateTimeout); took < most-time.Millisecond || took > most+time.Millisecond {
					t.Errorf("closing took %v", took)
				}
				<-late
				if remote.size() != 0 {
					t.Error("the session is back")
				}
			})
		})
	}
}

// Calls in parallel lose nothing of what each of them sets.
func TestParallelWritesAreMerged(t *testing.T) {
	remote := new(remoteStore)
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), nil).client()
	cookie := c.must(setOption("erased", "x")).cookie(t)
	var all sync.WaitGroup
	all.Go(func() { c.must(setOption("erased", nil), cookie) })
	for i := range 20 {
		all.Go(func() { c.must(setOption(fmt.Sprint("option ", i), "x"), cookie) })
	}
	all.Wait()
	var got map[string]*flight.SessionOptionValue
	c.must(getOptions(&got), cookie)
	if _, there := got["erased"]; there || len(got) != 20 {
		t.Errorf("%d options: %v", len(got), maps.Keys(got))
	}
}

// That another process has removed the session is no failure of a call, which does
// not bring it back.
func TestAnUpdaterBringsNothingBack(t *testing.T) {
	remote := new(remoteStore)
	server := &sqlServer{statements: map[string]statement{"gone": func(_ context.Context, s session.ServerSession) error {
		s.SetSessionOption("x", text("y"))
		return nil
	}}}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, updatingStore{remote}), session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	remote.on(func(what string) error {
		if what == "to update" { // the other process is faster
			remote.forget(token(cookie))
		}
		return nil
	})
	if r := c.do(info("gone"), cookie); r.err != nil || remote.size() != 0 {
		t.Errorf("%v, %d sessions", r.err, remote.size())
	}
}

// A call that its client has canceled is written back all the same.
func TestACanceledCallIsWrittenBack(t *testing.T) {
	remote, wrote := new(remoteStore), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	server := &sqlServer{statements: map[string]statement{"canceled": func(ctx context.Context, s session.ServerSession) error {
		s.SetSessionOption("x", text("y"))
		cancel()
		<-ctx.Done()
		remote.on(func(what string) error {
			if what == "update" {
				close(wrote)
			}
			return nil
		})
		return ctx.Err()
	}}}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, updatingStore{remote}), session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	if err := info("canceled")(metadata.AppendToOutgoingContext(ctx, "cookie", cookie), c.Client); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	<-wrote
}

// A call whose handler panics, or fails, is written back like any other.
func TestAFailedCallIsWrittenBack(t *testing.T) {
	remote := new(remoteStore)
	fail := func(how func() error) statement {
		return func(ctx context.Context, s session.ServerSession) error {
			s.SetSessionOption("x", text("y"))
			return how()
		}
	}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"panics": fail(func() error { panic(plannedPanic) }),
		"fails":  fail(func() error { return errors.New("no") }),
	}}).client()
	for _, what := range []string{"panics", "fails"} {
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		_ = c.do(info(what), cookie)
		if got := c.option("x", cookie); got != "y" {
			t.Errorf("%s: x is %q", what, got)
		}
	}
}

// A copy that is renewed takes along what other calls have written, and what calls
// that are under way with the old ID write later.
func TestARenewedCopyLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, gate := new(remoteStore), make(chan struct{})
		server := &sqlServer{statements: map[string]statement{
			"late": func(_ context.Context, s session.ServerSession) error {
				s.SetSessionOption("late", text("x"))
				<-gate
				return nil
			},
			"renew": func(ctx context.Context, s session.ServerSession) error {
				s.SetSessionOption("mine", text("x"))
				<-time.After(time.Minute)
				return session.Renew(ctx)
			},
		}}
		c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
		old := c.must(setOption("schema", "prod")).cookie(t)
		late, renew := c.start(info("late"), old), c.start(info("renew"), old)
		synctest.Wait()
		c.must(setOption("other", "x"), old)
		renewed := (<-renew).cookie(t)
		close(gate)
		if r := <-late; r.err != nil {
			t.Error(r.err)
		}
		for _, name := range []string{"schema", "mine", "other", "late"} {
			if c.option(name, renewed) == "" {
				t.Errorf("%s was lost", name)
			}
		}
		if c.option("schema", old) != "" || remote.size() != 1 {
			t.Errorf("the old ID holds: %d sessions", remote.size())
		}
	})
}

// What is set by a lease that outlives its call is written back when it is released.
func TestALeaseAfterTheCallIsWrittenBack(t *testing.T) {
	remote := new(remoteStore)
	var l session.SessionLease
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), acquiring(&l)).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(info("acquire"), cookie)
	l.Session().SetSessionOption("later", text("x"))
	l.Release()
	l.Release()
	if got := c.option("later", cookie); got != "x" {
		t.Errorf("later is %q", got)
	}
}

// Under Apache's shape of middleware copies are written back, too.
func TestCopiesAreWrittenBackInApachesShape(t *testing.T) {
	remote := new(remoteStore)
	c := serve(t, session.NewServerSessionMiddleware(copying(t, remote)), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(setOption("catalog", "x"), cookie)
	c.must(getOptions(nil), cookie)
	if got := remote.taken(); got != "put put put" {
		t.Errorf("%q", got)
	}
	if schema, catalog := c.option("schema", cookie), c.option("catalog", cookie); schema != "prod" || catalog != "x" {
		t.Errorf("%q, %q", schema, catalog)
	}
	c.must(closeSession, cookie)
	if remote.size() != 0 {
		t.Error("the closed session is there")
	}
}
