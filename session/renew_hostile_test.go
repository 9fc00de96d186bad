// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// gated is a statement that waits for a gate, which is closed once it is reached.
func gated(reached, gate chan struct{}, f statement) statement {
	return func(ctx context.Context, s session.ServerSession) error {
		close(reached)
		<-gate
		return f(ctx, s)
	}
}

// lateInTheNext has a call of alice's under way while her session ends and she gets
// the next one, which has the same derived ID. Only then the statement runs, and has to
// succeed.
func lateInTheNext(t *testing.T, m *session.StatefulServerSessionManager, f statement, end func(*client)) *client {
	t.Helper()
	reached, gate := make(chan struct{}), make(chan struct{})
	server := &sqlServer{statements: map[string]statement{"late": gated(reached, gate, f)}}
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithCarriers(session.ByPrincipal(who))), server).client()
	alice := []string{"x-user", "alice"}
	c.must(with(setOption("schema", "prod"), alice...))
	late := c.start(with(info("late"), alice...))
	<-reached
	end(c)
	c.must(with(setOption("schema", "next"), alice...))
	close(gate)
	if r := <-late; r.err != nil {
		t.Error(r.err)
	}
	return c
}

func aliceCloses(c *client) { c.must(with(closeSession, "x-user", "alice")) }

// untold are policies under which the client of a session that has ended gets the
// next one without being told, in the second case after a moment.
func untold() map[string][]session.MiddlewareOption {
	return map[string][]session.MiddlewareOption{
		"RenewDead": {session.WithDeadTokens(session.RenewDead)}, "after the window": {session.WithTellWindow(time.Millisecond)},
	}
}

// acquiring is a server whose statement "acquire" leaves a lease.
func acquiring(l *session.SessionLease) *sqlServer {
	return &sqlServer{statements: map[string]statement{"acquire": func(ctx context.Context, _ session.ServerSession) (err error) {
		*l, err = session.Acquire(ctx)
		return err
	}}}
}

func end(ctx context.Context, _ session.ServerSession) error   { return session.End(ctx) }
func renew(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx) }

// A call that is under way with the old ID of a renewed copy closes the session.
func TestCallUnderWayClosesARenewedCopy(t *testing.T) {
	remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
	server := renewing()
	server.statements["late close"] = gated(reached, gate, end)
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
	old := c.must(setOption("schema", "prod")).cookie(t)
	late := c.start(info("late close"), old)
	<-reached
	renewed := c.must(info("RENEW"), old).cookie(t)
	close(gate)
	if r := <-late; r.err != nil {
		t.Error(r.err)
	}
	if got := c.option("schema", renewed); got != "" || remote.size() != 0 {
		t.Errorf("the session was closed, and has schema %q; %d rows", got, remote.size())
	}
}

// A call that is under way with the old ID of a renewed copy can lease it again.
func TestCallUnderWayAcquiresARenewedCopy(t *testing.T) {
	remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
	server := renewing()
	server.statements["late acquire"] = gated(reached, gate, func(ctx context.Context, _ session.ServerSession) error {
		l, err := session.Acquire(ctx)
		if err == nil {
			l.Release()
		}
		return err
	})
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
	old := c.must(setOption("schema", "prod")).cookie(t)
	late := c.start(info("late acquire"), old)
	<-reached
	c.must(info("RENEW"), old)
	close(gate)
	if r := <-late; r.err != nil {
		t.Error(r.err)
	}
}

// A call without a login that renews at the same time as one with a login does not
// take the session back from its new owner.
func TestParallelRenewalTakesNoSessionFromItsNewOwner(t *testing.T) {
	var n atomic.Int64
	var blocks atomic.Bool
	reached, gate := make(chan struct{}), make(chan struct{})
	ids := func() string {
		if blocks.CompareAndSwap(true, false) {
			close(reached)
			<-gate
		}
		return fmt.Sprint("a-long-id-", n.Add(1))
	}
	store := newStore(t)
	manager := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(session.NewSessionFactory(ids)))
	server := renewing()
	server.statements["LOGIN"] = func(ctx context.Context, _ session.ServerSession) error {
		return session.Renew(ctx, session.Principal{Name: "alice"})
	}
	c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil), session.WithPrincipal(who)), server).client()
	planted := c.must(setOption("schema", "prod")).cookie(t)
	blocks.Store(true)
	attacker := c.start(info("RENEW"), planted)
	<-reached
	hers := c.must(info("LOGIN"), planted).cookie(t)
	close(gate)
	r := <-attacker
	t.Logf("%v", r)
	for _, line := range r.header {
		if got := c.option("schema", line); got != "" {
			t.Errorf("an anonymous caller has alice's session: schema %q, sources %+v", got, store.Sources(9))
		}
	}
	_ = hers
}

// blockNth has the store block in the nth of what it does, until the gate is opened.
func blockNth(remote *remoteStore, what string, nth int, reached, gate chan struct{}, then func(string) error) {
	var n atomic.Int64
	remote.on(func(does string) error {
		if does == what && n.Add(1) == int64(nth) {
			close(reached)
			<-gate
			return nil
		}
		if then != nil {
			return then(does)
		}
		return nil
	})
}

// What a call is about to write when its session is renewed is not lost.
func TestWriteUnderWayIsNotLostByARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, begun, start := new(remoteStore), make(chan struct{}), make(chan struct{})
		reached, gate := make(chan struct{}), make(chan struct{})
		server := &sqlServer{statements: map[string]statement{"renew": gated(begun, start, renew)}}
		c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
		old := c.must(setOption("schema", "prod")).cookie(t)
		renewal := c.start(info("renew"), old)
		<-begun
		blockNth(remote, "get", 2, reached, gate, nil) // the first one finds the session, the second one is of the write
		late := c.start(setOption("late", "x"), old)
		<-reached
		close(start)
		synctest.Wait() // the renewal waits for the write
		close(gate)
		if r := <-late; r.err != nil {
			t.Fatal(r.err)
		}
		renewed := (<-renewal).cookie(t)
		if got := c.option("late", renewed); got != "x" {
			t.Errorf("a call was told that it succeeded, and what it has set is lost: %q", got)
		}
	})
}

// What a call writes while somebody tries in vain to close the session is not lost.
func TestWriteIsNotLostByACloseThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
		c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		blockNth(remote, "get", 2, reached, gate, func(what string) error {
			if what == "remove" {
				return errors.New("not now")
			}
			return nil
		})
		late := c.start(setOption("late", "x"), cookie)
		<-reached
		closed := c.start(closeSession, cookie)
		synctest.Wait()
		close(gate)
		r, closing := <-late, <-closed
		t.Logf("%v, %v", r.err, closing.err)
		if got := c.option("late", cookie); r.err == nil && closing.err != nil && got != "x" {
			t.Errorf("a call was told that it succeeded, and what it has set is lost: %q", got)
		}
	})
}

// A store that panics leaves no usage behind.
func TestPanickingGetLeaksNoUsage(t *testing.T) {
	remote := new(remoteStore)
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	remote.on(func(string) error { panic("no") })
	if r := c.do(getOptions(nil), cookie); r.err == nil {
		t.Error("succeeded")
	}
	remote.on(nil)
}

// A session whose removal has panicked is there as before.
func TestPanickingRemoveChangesNothing(t *testing.T) {
	remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
	server := &sqlServer{statements: map[string]statement{"late": gated(reached, gate, func(_ context.Context, s session.ServerSession) error {
		s.SetSessionOption("late", text("x"))
		return nil
	})}}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	late := c.start(info("late"), cookie)
	<-reached
	remote.on(func(what string) error {
		if what == "remove" {
			panic("no")
		}
		return nil
	})
	r := c.do(closeSession, cookie)
	t.Log(r.err)
	remote.on(nil)
	close(gate)
	told := <-late
	if got := c.option("late", cookie); told.err == nil && got != "x" {
		t.Errorf("the close failed, a later write succeeded, and late is %q; %d rows", got, remote.size())
	}
}

// The same, seen by other calls.
func TestPanickingRemoveHidesNothing(t *testing.T) {
	remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
	server := &sqlServer{statements: map[string]statement{"late": gated(reached, gate, func(context.Context, session.ServerSession) error { return nil })}}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	late := c.start(info("late"), cookie)
	<-reached
	remote.on(func(what string) error {
		if what == "remove" {
			panic("no")
		}
		return nil
	})
	if r := c.do(closeSession, cookie); r.err == nil {
		t.Error("closed")
	}
	remote.on(nil)
	r := c.do(getOptions(nil), cookie)
	close(gate)
	<-late
	if r.err != nil || remote.size() != 1 {
		t.Errorf("the session could not be closed, and is lost all the same: %v, %d rows", r.err, remote.size())
	}
}

// A raw session that its handler closes is closed.
func TestRawCloseOfACopyClosesIt(t *testing.T) {
	remote := new(remoteStore)
	ours := session.NewSessionFactory(nil)
	m := session.NewStatefulServerSessionManager(session.WithStore(remote), session.WithFactory(fakeFactory(ours.CreateSession)))
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	r := c.must(closeSession, cookie)
	if got := c.option("schema", cookie); got != "" || remote.size() != 0 {
		t.Errorf("closed, told %q, and schema is %q; %d rows", r.header, got, remote.size())
	}
}

// A lease that outlives its call: closing its session closes it.
func TestCloseOfAnAcquiredCopyClosesIt(t *testing.T) {
	remote := new(remoteStore)
	var l session.SessionLease
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), acquiring(&l)).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(info("acquire"), cookie)
	if err := l.Session().Close(); err != nil {
		t.Error(err)
	}
	l.Release()
	if got := c.option("schema", cookie); got != "" || remote.size() != 0 {
		t.Errorf("closed, and schema is %q, %d left", got, remote.size())
	}
}

// wrapping is a manager of the server's own that adds to one of ours.
type wrapping struct {
	*session.StatefulServerSessionManager
}

// Under a manager that wraps one of ours, copies are written back, too.
func TestWrappedManagerWritesBack(t *testing.T) {
	remote := new(remoteStore)
	m := wrapping{copying(t, remote)}
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(setOption("catalog", "x"), cookie)
	if schema, catalog := c.option("schema", cookie), c.option("catalog", cookie); schema != "prod" || catalog != "x" {
		t.Errorf("%q, %q", schema, catalog)
	}
}

// A renewal that goes on after its call has ended leaves nothing behind, and the
// client has what is good.
func TestRenewalThatOutlivesItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote, reached, gate, renewed := new(remoteStore), make(chan struct{}), make(chan struct{}), make(chan error, 1)
		server := &sqlServer{statements: map[string]statement{"renew": func(ctx context.Context, _ session.ServerSession) error {
			go func() { renewed <- session.Renew(ctx) }()
			<-reached // as for a client that is gone
			return nil
		}}}
		c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		blockNth(remote, "put", 1, reached, gate, nil)
		done := c.start(info("renew"), cookie)
		<-reached
		synctest.Wait() // the call may wait, or end
		close(gate)
		r := <-done
		err := <-renewed
		if r.header != nil && c.option("schema", r.header[len(r.header)-1]) != "prod" {
			t.Errorf("the client was told of a session that is not there: %v, %v", r, err)
		}
	})
}

// The same for a type of the server's own in a store of this package's.
func TestRenewalOfAUsersTypeThatOutlivesItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reached, gate, renewed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		m := hookedManager(t, func(string) { close(reached); <-gate }, nil)
		server := &sqlServer{statements: map[string]statement{"renew": func(ctx context.Context, _ session.ServerSession) error {
			go func() { renewed <- session.Renew(ctx) }()
			<-reached
			return nil
		}}}
		c := serveEdgeInBubble(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		done := c.start(info("renew"), cookie)
		<-reached
		synctest.Wait()
		close(gate)
		r, err := <-done, <-renewed
		last := cookie
		if len(r.header) > 0 {
			last = r.header[len(r.header)-1]
		}
		if got := c.option("schema", last); got != "prod" {
			t.Errorf("the client has lost its session: told %q, Renew %v; by the old ID schema %q", r.header, err, c.option("schema", cookie))
		}
	})
}

// A session is not removed for a renewal that has failed since a write hung.
func TestFailedRenewalBehindAHungWriteRemovesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote := new(remoteStore)
		c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), renewing()).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		var n atomic.Int64
		remote.on(func(what string) error {
			if what != "put" {
				return nil
			}
			if n.Add(1) == 1 {
				<-time.After(time.Minute)
				return nil
			}
			return errors.New("not now")
		})
		late := c.start(setOption("late", "x"), cookie)
		synctest.Wait()
		if r := c.do(info("RENEW"), cookie); r.err == nil {
			t.Error("renewed")
		}
		r := <-late
		remote.on(nil)
		if got := c.option("schema", cookie); got != "prod" {
			t.Errorf("the renewal failed, the write said %v, and the session is gone: %q, %d rows", r.err, got, remote.size())
		}
	})
}

// Whoever comes with the old cookie gets no new session, whoever it is.
func TestOldCookieOfALoginGetsNoNewSession(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"ours": newStore(t), "copies": new(remoteStore)} {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, edge(store, session.WithPrincipal(who)), renewing(session.Principal{Name: "alice"})).client()
			old := c.must(setOption("schema", "prod")).cookie(t)
			renewed := c.must(info("RENEW"), old).cookie(t)
			r := c.do(with(setOption("schema", "other"), "x-user", "alice"), old)
			if r.header != nil {
				t.Errorf("a new session takes the place of the renewed one in alice's jar: %v", r)
			}
			if got := c.schema("x-user", "alice", "cookie", renewed); got != "prod" {
				t.Errorf("schema %q", got)
			}
		})
	}
}

// quotingStore quotes IDs in its errors.
type quotingStore struct {
	*remoteStore
	fails atomic.Bool
}

func (s *quotingStore) Remove(id string) error {
	if s.fails.Load() {
		return fmt.Errorf("cannot remove %s", id)
	}
	return s.remoteStore.Remove(id)
}

// The log of a renewal that failed has no ID in it.
func TestNoIDInTheLogOfAFailedRenewal(t *testing.T) {
	var log logBuffer
	remote := &quotingStore{remoteStore: new(remoteStore)}
	live := ""
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(log.logger())), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, s session.ServerSession) error {
			s.SetSessionOption("schema", text("prod"))
			live = s.Token()
			remote.fails.Store(true)
			return session.Renew(ctx)
		},
	}}).client()
	r := c.do(info("login"))
	t.Logf("%v", r.err)
	if got := log.String(); strings.Contains(got, live) || !strings.Contains(got, "cannot remove") {
		t.Errorf("the ID %s of a session that is live is in the log: %s", live, got)
	}
}

// hookedUser is a session of the server's own type with hooks in SetToken.
type hookedUser struct {
	*userSession
	mu            sync.Mutex
	before, after func(string)
}

func (s *hookedUser) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

func (s *hookedUser) SetToken(token string) {
	if s.before != nil {
		s.before(token)
	}
	s.mu.Lock()
	s.id = token
	s.mu.Unlock()
	if s.after != nil {
		s.after(token)
	}
}

func hookedManager(t *testing.T, before, after func(string)) *session.StatefulServerSessionManager {
	var n atomic.Int64
	var once, twice sync.Once
	first := func(f func(string), once *sync.Once) func(string) {
		return func(token string) {
			if f != nil {
				once.Do(func() { f(token) })
			}
		}
	}
	return session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return &hookedUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}, before: first(before, &once), after: first(after, &twice)}, nil
	})))
}

// A SetToken that panics after it has set the token: the old ID holds, and the
// session can be closed.
func TestSetTokenThatPanicsLate(t *testing.T) {
	m := hookedManager(t, nil, func(string) { panic("no") })
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), renewing()).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	if r := c.do(info("RENEW"), cookie); r.err == nil {
		t.Error("renewed")
	}
	if got := c.option("schema", cookie); got != "prod" {
		t.Errorf("schema %q", got)
	}
	r := c.must(closeSession, cookie)
	if got := c.option("schema", cookie); got != "" {
		t.Errorf("closed, told %q, and has schema %q", r.header, got)
	}
}

// The same, closed by the handle.
func TestSetTokenThatPanicsLateAndEnd(t *testing.T) {
	m := hookedManager(t, nil, func(string) { panic("no") })
	server := renewing()
	server.statements["END"] = end
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	_ = c.do(info("RENEW"), cookie)
	r := c.must(info("END"), cookie)
	if got := c.option("schema", cookie); got != "" {
		t.Errorf("closed, told %q, and has schema %q", r.header, got)
	}
}

// SetToken may call back into the call's context.
func TestSetTokenMayUseTheContext(t *testing.T) {
	for name, f := range map[string]func(context.Context) error{
		"Renew":  func(ctx context.Context) error { return session.Renew(ctx) },
		"Begin":  func(ctx context.Context) error { _, err := session.Begin(ctx); return err },
		"Ensure": func(ctx context.Context) error { _, err := session.Ensure(ctx); return err },
		"End":    session.End,
	} {
		t.Run(name, func(t *testing.T) {
			var of atomic.Pointer[context.Context]
			m := hookedManager(t, func(string) { _ = f(*of.Load()) }, nil)
			done := make(chan struct{})
			server := &sqlServer{statements: map[string]statement{"renew": func(ctx context.Context, _ session.ServerSession) error {
				of.Store(&ctx)
				go func() { defer close(done); _ = session.Renew(ctx) }()
				select {
				case <-done:
				case <-time.After(2 * time.Second):
					return errors.New("hangs for ever")
				}
				return nil
			}}}
			c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			if r := c.do(info("renew"), cookie); r.err != nil {
				t.Error(r.err)
			}
		})
	}
}

// A store of ours behind another one: a session that no client has brought back is
// not confirmed.
func TestWritingBackConfirmsNothing(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(&fakeLeases{store}), nil).client()
	c.must(setOption("schema", "prod"))
	for i := range store.All() {
		if i.Confirmed {
			t.Errorf("nobody has brought its ID back: %+v", i)
		}
	}
}

// What a call sets late in a session that has ended does not come into another one
// that has its derived ID by then.
func TestLateWriteIntoTheNextSessionOfAPrincipal(t *testing.T) {
	remote := new(remoteStore)
	write := func(_ context.Context, s session.ServerSession) error {
		s.SetSessionOption("late", text("x"))
		return nil
	}
	c := lateInTheNext(t, copying(t, updatingStore{remote}), write, func(*client) {
		remote.mu.Lock()
		defer remote.mu.Unlock()
		remote.rows = nil // another process has removed it
	})
	if got := c.schema("x-user", "alice"); remote.size() != 1 || got != "next" {
		t.Errorf("schema %q, %d rows", got, remote.size())
	}
	remote.mu.Lock()
	defer remote.mu.Unlock()
	for _, row := range remote.rows {
		if row["late"] != nil {
			t.Errorf("what was set in the session before: %v", row)
		}
	}
}

// A late close of a session that has ended does not close the next one that has its
// derived ID.
func TestLateCloseOfTheNextSessionOfAPrincipal(t *testing.T) {
	for how, f := range map[string]statement{"End": end, "raw": func(_ context.Context, s session.ServerSession) error { return s.Close() }} {
		t.Run(how, func(t *testing.T) {
			c := lateInTheNext(t, copying(t, new(remoteStore)), f, aliceCloses)
			if got := c.schema("x-user", "alice"); got != "next" {
				t.Errorf("the next session was closed: %q", got)
			}
		})
	}
}

// A second renewal, by a call under way with a copy, does not give the client its
// old cookie back.
func TestSecondRenewalOfACopyGivesNoOldCookie(t *testing.T) {
	for policy, opts := range untold() {
		t.Run(policy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
				server := renewing()
				server.statements["late renew"] = gated(reached, gate, renew)
				c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), append(opts, session.WithLogger(nil))...), server).client()
				old := c.must(setOption("schema", "prod")).cookie(t)
				late := c.start(info("late renew"), old)
				<-reached
				renewed := c.must(info("RENEW"), old).cookie(t)
				wait(20 * time.Millisecond)
				close(gate)
				r := <-late
				if n := len(r.header); n > 0 && token(r.header[n-1]) != token(renewed) && c.option("schema", r.header[n-1]) != "prod" {
					t.Errorf("the jar has a dead cookie in place of the renewed one: %v", r)
				}
			})
		})
	}
}

// A renewal that fails does not give the client its old cookie back when that was
// renewed by another call meanwhile.
func TestFailedRenewalThatArrivesLate(t *testing.T) {
	reached, gate := make(chan struct{}), make(chan struct{})
	server := renewing()
	server.statements["LOGIN"] = func(ctx context.Context, _ session.ServerSession) error {
		err := session.Renew(ctx, session.Principal{Name: "alice"})
		close(reached)
		<-gate
		return err
	}
	e := serveEdge(t, edge(newStore(t), session.WithPrincipal(who), session.WithMaxPerPrincipal(1, session.RefuseNewest)), server)
	e.client().must(with(setOption("schema", "hers"), "x-user", "alice"))
	var j jar
	c := j.client(e)
	c.must(setOption("schema", "prod"))
	login := c.start(info("LOGIN"))
	<-reached
	c.must(info("RENEW"))
	good := j.get(session.StatefulSessionCookieName)
	close(gate)
	r := <-login
	if got := j.get(session.StatefulSessionCookieName); got != good {
		t.Errorf("the jar has the old cookie in place of the renewed one: %v; schema %q", r, c.option("schema"))
	}
}

// After a login that was refused, its principal is not told that the cookie from
// before was renewed.
func TestARefusedLoginTellsItsPrincipalNothing(t *testing.T) {
	server := &sqlServer{statements: map[string]statement{"LOGIN": func(ctx context.Context, _ session.ServerSession) error {
		return session.Renew(ctx, session.Principal{Name: "alice"})
	}}}
	c := serveEdge(t, edge(newStore(t), session.WithPrincipal(who), session.WithMaxPerPrincipal(1, session.RefuseNewest)), server).client()
	c.must(with(setOption("schema", "hers"), "x-user", "alice"))
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	if r := c.do(info("LOGIN"), cookie); status.Code(r.err) != codes.ResourceExhausted {
		t.Fatal(r.err)
	}
	if r := c.do(with(info(""), "x-user", "alice"), cookie); r.err != nil {
		t.Errorf("she is told %v", r.err)
	}
	if got := c.option("schema", cookie); got != "prod" {
		t.Errorf("schema %q", got)
	}
}

// slowPut is Apache's store with a hook in Put.
type slowPut struct {
	session.SessionStore
	hook atomic.Pointer[func()]
}

func (s *slowPut) Put(v session.ServerSession) error {
	if f := s.hook.Swap(nil); f != nil {
		(*f)()
	}
	return s.SessionStore.Put(v)
}

// A session that CloseSession of the manager ends while it is renewed stays ended.
func TestCloseSessionDuringARenewal(t *testing.T) {
	store := &slowPut{SessionStore: apache.NewSessionStore()}
	m := copying(t, store)
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), renewing()).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	raw, err := store.Get(token(cookie))
	if err != nil {
		t.Fatal(err)
	}
	f := func() {
		if err := m.CloseSession(raw); err != nil {
			t.Error(err)
		}
	}
	store.hook.Store(&f)
	r := c.do(info("RENEW"), cookie)
	for _, line := range r.header {
		if got := c.option("schema", line); got != "" {
			t.Errorf("closed, and has schema %q", got)
		}
	}
}

// What a call under way writes is not lost, however often its session was renewed.
func TestLateWriteAfterTwoRenewals(t *testing.T) {
	remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
	server := renewing()
	server.statements["late"] = gated(reached, gate, func(_ context.Context, s session.ServerSession) error {
		s.SetSessionOption("late", text("x"))
		return nil
	})
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
	old := c.must(setOption("schema", "prod")).cookie(t)
	late := c.start(info("late"), old)
	<-reached
	first := c.must(info("RENEW"), old).cookie(t)
	second := c.must(info("RENEW"), first).cookie(t)
	close(gate)
	r := <-late
	if got := c.option("late", second); got != "x" || r.err != nil {
		t.Errorf("a call that succeeded has set %q, %v", got, r.err)
	}
}

// A session of a user's type that is put again while it is renewed, as a touch, is
// still one.
func TestPutDuringARenewalFilesNothingTwice(t *testing.T) {
	store := newStore(t)
	var n atomic.Int64
	var once sync.Once
	var all []*hookedUser
	factory := fakeFactory(func() (session.ServerSession, error) {
		u := &hookedUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}}
		u.after = func(string) {
			once.Do(func() {
				if err := store.Put(u); err != nil {
					t.Log(err)
				}
			})
		}
		all = append(all, u)
		return u, nil
	})
	m := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(factory))
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), renewing()).client()
	old := c.must(setOption("schema", "prod")).cookie(t)
	r := c.do(info("RENEW"), old)
	t.Logf("%v", r)
	if store.Len() != 1 || len(all) != 1 {
		t.Errorf("%d sessions are one", store.Len())
	}
	if err := store.Check(); err != nil {
		t.Error(err)
	}
}

// An option that is set in a copy after its call has ended is not stored, which
// SetOption says.
func TestSetOptionAfterTheCallSaysSo(t *testing.T) {
	remote := new(remoteStore)
	var of context.Context
	server := &sqlServer{statements: map[string]statement{"leak": func(ctx context.Context, _ session.ServerSession) error {
		of = ctx
		return nil
	}}}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(info("leak"), cookie)
	err := session.SetOption(of, "later", text("x"))
	if got := c.option("later", cookie); err == nil && got != "x" {
		t.Errorf("SetOption says nothing, and the option is lost: %q", got)
	}
}

// A write that hung while its session was closed does not end the next one under its
// derived ID.
func TestHungWriteDoesNotEndTheNextSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remote := new(remoteStore)
		c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, updatingStore{remote}), session.WithLogger(nil), session.WithCarriers(session.ByPrincipal(who))), nil).client()
		alice := []string{"x-user", "alice"}
		c.must(with(setOption("schema", "prod"), alice...))
		var n atomic.Int64
		remote.on(func(what string) error {
			if what == "to update" && n.Add(1) == 1 {
				<-time.After(time.Minute)
			}
			return nil
		})
		late := c.start(with(setOption("late", "x"), alice...))
		synctest.Wait()
		c.must(with(closeSession, alice...))
		start := time.Now()
		if r := c.do(with(setOption("schema", "too early"), alice...)); status.Code(r.err) != codes.Unavailable || time.Since(start) > session.UpdateTimeout {
			t.Errorf("while the write hangs: %v after %v", r.err, time.Since(start))
		}
		<-late
		c.must(with(setOption("schema", "next"), alice...))
		if got := c.schema(alice...); got != "next" {
			t.Errorf("schema %q, %d rows", got, remote.size())
		}
	})
}

// Under Apache's shape, what a handler has set that panics then is written back when
// its call is found to be gone.
func TestPanickingHandlerInApachesShape(t *testing.T) {
	remote := new(remoteStore)
	server := &sqlServer{statements: map[string]statement{"panics": func(_ context.Context, s session.ServerSession) error {
		s.SetSessionOption("x", text("y"))
		panic(plannedPanic)
	}}}
	m := copying(t, remote)
	c := serve(t, session.NewServerSessionMiddleware(m, session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	_ = c.do(info("panics"), cookie)
	for n := 0; n < 1000 && m.InUse() > 0; n++ {
		runtime.GC()
		runtime.Gosched()
	}
	if got := c.option("x", cookie); got != "y" {
		t.Errorf("x is %q; %d in use", got, m.InUse())
	}
}

// The login of a principal who has as many sessions as it may have costs nobody
// anything if the session that it renews has ended.
func TestLoginWithASessionThatHasEndedCostsNothing(t *testing.T) {
	reached, gate := make(chan struct{}), make(chan struct{})
	store := newStore(t)
	server := &sqlServer{statements: map[string]statement{"LOGIN": gated(reached, gate, func(ctx context.Context, _ session.ServerSession) error {
		return session.Renew(ctx, session.Principal{Name: "alice"})
	})}}
	c := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithMaxPerPrincipal(1, session.EvictOldest)), server).client()
	hers := c.must(with(setOption("schema", "hers"), "x-user", "alice")).cookie(t)
	other := c.must(setOption("schema", "prod")).cookie(t)
	login := c.start(info("LOGIN"), other)
	<-reached
	if err := store.Remove(token(other)); err != nil {
		t.Fatal(err)
	}
	close(gate)
	r := <-login
	if r.err == nil {
		t.Error("renewed what has ended")
	}
	if got := c.option("schema", hers); got != "" {
		t.Error("a thief")
	}
	var ok string
	if rr := c.do(with(getOptions(nil), "x-user", "alice"), hers); rr.err != nil {
		ok = rr.err.Error()
	}
	if ok != "" {
		t.Errorf("alice has lost hers for a login that failed: %s", ok)
	}
}

// Two first calls of a principal at the same time lose nothing of what each of them
// sets, though both make its session.
func TestFirstCallsOfAPrincipalLoseNothing(t *testing.T) {
	remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
	m := copying(t, remote)
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithCarriers(session.ByPrincipal(who))), nil).client()
	alice := []string{"x-user", "alice"}
	blockNth(remote, "put", 1, reached, gate, nil)
	first := c.start(with(setOption("first", "x"), alice...))
	<-reached
	second := make(chan reply, 1)
	go func() { second <- c.do(with(setOption("second", "x"), alice...)) }()
	select {
	case r := <-second:
		second <- r
	case <-time.After(300 * time.Millisecond): // it may wait for the first one
	}
	close(gate)
	for _, d := range []<-chan reply{first, second} {
		if r := <-d; r.err != nil {
			t.Error(r.err)
		}
	}
	remote.mu.Lock()
	defer remote.mu.Unlock()
	for _, row := range remote.rows {
		if len(row) != 2 {
			t.Errorf("both calls were told that they succeeded: %v", row)
		}
	}
}

// A renewal of a session that has ended, not by its client, or long ago, gives the
// client no cookie.
func TestRenewalOfWhatHasEndedSetsNoCookie(t *testing.T) {
	for policy, opts := range untold() {
		t.Run(policy, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reached, gate := make(chan struct{}), make(chan struct{})
				server := &sqlServer{statements: map[string]statement{"late renew": gated(reached, gate, renew)}}
				var j jar
				c := j.client(serveEdgeInBubble(t, edge(new(remoteStore), opts...), server))
				c.must(setOption("schema", "prod"))
				late := c.start(info("late renew"))
				<-reached
				c.must(closeSession)
				wait(20 * time.Millisecond)
				c.must(setOption("schema", "next"))
				good := j.get(session.StatefulSessionCookieName)
				close(gate)
				r := <-late
				if got := j.get(session.StatefulSessionCookieName); got != good {
					t.Errorf("a dead cookie is in place of the new one: %v, schema %q", r, c.option("schema"))
				}
			})
		})
	}
}

// Whatever calls do to sessions at a time, nobody hangs, and nothing is left.
func TestNothingIsLeftWhateverCallsDoAtATime(t *testing.T) {
	for name, m := range map[string]*session.StatefulServerSessionManager{
		"ours": session.NewStatefulServerSessionManager(session.WithStore(newStore(t))), "copies": copying(t, new(remoteStore)), "Apache's": copying(t, apache.NewSessionStore()),
	} {
		t.Run(name, func(t *testing.T) {
			once := func(ctx context.Context, s session.ServerSession) error {
				switch rand.IntN(8) {
				case 0, 1:
					return session.Renew(ctx)
				case 2:
					return session.Renew(ctx, session.Principal{Name: "alice"})
				case 3:
					_, err := session.Begin(ctx)
					return err
				case 4:
					return session.End(ctx)
				case 5:
					return session.SetOption(ctx, fmt.Sprint(rand.IntN(9)), text("x"))
				case 6:
					l, err := session.Acquire(ctx)
					if err == nil {
						l.Session().SetSessionOption("acquired", text("x"))
						l.Release()
					}
					return err
				}
				s.EraseSessionOption(fmt.Sprint(rand.IntN(9)))
				return nil
			}
			server := &sqlServer{statements: map[string]statement{"mix": func(ctx context.Context, s session.ServerSession) error {
				var all sync.WaitGroup
				for range 1 + rand.IntN(3) {
					all.Go(func() { _ = once(ctx, s) })
				}
				all.Wait()
				_ = once(ctx, s)
				return nil
			}}}
			var j jar
			e := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithPrincipal(who), session.WithTellWindow(time.Millisecond)), server)
			var all sync.WaitGroup
			for range 6 {
				c := j.client(e)
				all.Go(func() {
					for range 250 {
						f := []call{info("mix"), scan("mix"), scan("direct:mix"), setOption("a", "b"), closeSession}[rand.IntN(5)]
						if rand.IntN(2) == 0 {
							f = with(f, "x-user", "alice")
						}
						_ = c.do(f)
					}
				})
			}
			all.Wait()
		})
	}
}

// A call that comes while a renewal is under way, which then fails, finds the
// session: the old ID holds as before.
func TestCallDuringARenewalThatFails(t *testing.T) {
	remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), renewing()).client()
	old := c.must(setOption("schema", "prod")).cookie(t)
	remote.on(func(what string) error {
		if what == "put" {
			close(reached)
			<-gate
			return errors.New("not now")
		}
		return nil
	})
	renewal := c.start(info("RENEW"), old)
	<-reached
	other := c.start(getOptions(nil), old)
	var r reply
	answered := true
	select {
	case r = <-other:
	case <-time.After(300 * time.Millisecond): // it may wait
		answered = false
	}
	close(gate)
	if failed := <-renewal; failed.err == nil {
		t.Error("renewed")
	}
	if !answered {
		r = <-other
	}
	if r.err != nil {
		t.Errorf("a call was told that its session is lost, which it is not: %v", r.err)
	}
}

// Who is about to be removed is not found by calls that come meanwhile.
func TestASessionThatIsBeingRemovedIsNotFound(t *testing.T) {
	remote, reached, gate := new(remoteStore), make(chan struct{}), make(chan struct{})
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	blockNth(remote, "remove", 1, reached, gate, nil)
	closing := c.start(closeSession, cookie)
	<-reached
	if got := c.option("schema", cookie); got != "" {
		t.Errorf("schema %q", got)
	}
	close(gate)
	if r := <-closing; r.err != nil {
		t.Error(r.err)
	}
}

// Who had the session with its old ID, when it was not somebody's yet, cannot renew
// it: its owner keeps the ID that is good.
func TestOnlyItsOwnerRenewsASession(t *testing.T) {
	store, reached, gate := newStore(t), make(chan struct{}), make(chan struct{})
	server := renewing(session.Principal{Name: "alice"})
	server.statements["late"] = gated(reached, gate, renew)
	c := serveEdge(t, edge(store, session.WithPrincipal(who)), server).client()
	planted := c.must(setOption("schema", "prod")).cookie(t)
	late := c.start(info("late"), planted)
	<-reached
	hers := c.must(info("RENEW"), planted).cookie(t)
	close(gate)
	if r := <-late; r.err == nil || r.header != nil {
		t.Errorf("%v", r)
	}
	if got := c.schema("x-user", "alice", "cookie", hers); got != "prod" {
		t.Errorf("schema %q", got)
	}
}

// takesNoCookie is the stream of a call whose header has left between two looks.
type takesNoCookie struct{ grpc.ServerTransportStream }

func (takesNoCookie) SetHeader(md metadata.MD) error {
	if md.Get("set-cookie") != nil {
		return errors.New("the header has left")
	}
	return nil
}

func (takesNoCookie) SetTrailer(metadata.MD) error { return nil }

// renewOver has a call with this cookie renew its session over a stream, and returns
// the token that it has then.
func renewOver(ctx context.Context, middleware flight.ServerMiddleware, cookie string, stream grpc.ServerTransportStream) (renewed string, err error) {
	ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("cookie", cookie))
	ctx = grpc.NewContextWithServerTransportStream(ctx, stream)
	_, err = middleware.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/arrow.flight.protocol.FlightService/GetFlightInfo"},
		func(ctx context.Context, _ any) (any, error) {
			s, err := session.Lookup(ctx)
			if err != nil {
				return nil, err
			}
			err = session.Renew(ctx)
			renewed = s.Token()
			return nil, err
		})
	return renewed, err
}

// Should the header leave in the middle of a renewal, the session has its old ID back.
func TestARenewalWhoseHeaderLeavesIsUndone(t *testing.T) {
	for name, manager := range renewable(t) {
		t.Run(name, func(t *testing.T) {
			middleware := session.NewServerMiddleware(manager, session.WithLogger(nil))
			c := serveEdge(t, middleware, nil).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			_, err := renewOver(t.Context(), middleware, cookie, takesNoCookie{})
			if reasonOf(t, err) != "SESSION_RENEWED_TOO_LATE" {
				t.Error(err)
			}
			if got := c.schema("cookie", cookie); got != "prod" {
				t.Errorf("schema %q", got)
			}
		})
	}
}

// leaves is the stream of a call whose client leaves between two looks.
type leaves struct {
	takesNoCookie
	cancel context.CancelFunc
}

func (s leaves) SetHeader(md metadata.MD) error {
	err := s.takesNoCookie.SetHeader(md)
	if err != nil {
		s.cancel()
	}
	return err
}

// A client that leaves while its session is renewed does not have that session end
// and come back: it is under its new ID, as if the client had left a moment later.
func TestARenewalWhoseClientLeavesIsDone(t *testing.T) {
	for name, manager := range renewable(t) {
		t.Run(name, func(t *testing.T) {
			middleware := session.NewServerMiddleware(manager, session.WithLogger(nil))
			c := serveEdge(t, middleware, nil).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			ctx, cancel := context.WithCancel(t.Context())
			renewed, err := renewOver(ctx, middleware, cookie, leaves{cancel: cancel})
			if err != nil || renewed == token(cookie) {
				t.Errorf("it has its old ID: %v", err)
			}
			if got := c.schema("cookie", session.StatefulSessionCookieName+"="+renewed); got != "prod" {
				t.Errorf("by its new ID, schema %q", got)
			}
			if r := c.do(setOption("schema", "other"), cookie); status.Code(r.err) != codes.NotFound {
				t.Errorf("by its old ID: %v", r)
			}
		})
	}
}

// A renewal that a store refuses leaves the session its token.
func TestARefusedRenewalLeavesTheToken(t *testing.T) {
	store := &slowPut{SessionStore: apache.NewSessionStore()}
	fail := errors.New("not now")
	m := copying(t, &failingPut{slowPut: store, fail: &fail})
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), renewing()).client()
	fail = nil
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	fail = errors.New("not now")
	if r := c.do(info("RENEW"), cookie); status.Code(r.err) != codes.Unavailable || r.header != nil {
		t.Errorf("%v", r)
	}
	if s, err := store.Get(token(cookie)); err != nil || s.Token() != token(cookie) {
		t.Errorf("the session has another token: %v", err)
	}
}

// failingPut is a store whose Put fails as told.
type failingPut struct {
	*slowPut
	fail *error
}

func (s *failingPut) Put(v session.ServerSession) error {
	if *s.fail != nil {
		return *s.fail
	}
	return s.slowPut.Put(v)
}
