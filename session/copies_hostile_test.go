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

	"github.com/apache/arrow-go/v18/arrow/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// An anonymous call under way with a copy that renews after the login of alice does
// not get alice's session.
func TestAttackerUnderWayRenewsALoggedInCopy(t *testing.T) {
	for name, m := range map[string]*session.StatefulServerSessionManager{
		"copies": copying(t, new(remoteStore)), "Apache's": copying(t, apache.NewSessionStore()),
	} {
		t.Run(name, func(t *testing.T) {
			reached, gate := make(chan struct{}), make(chan struct{})
			server := renewing(session.Principal{Name: "alice"})
			server.statements["late renew"] = gated(reached, gate, renew)
			c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithPrincipal(who)), server).client()
			planted := c.must(setOption("schema", "prod")).cookie(t)
			attacker := c.start(info("late renew"), planted)
			<-reached
			hers := c.must(info("RENEW"), planted).cookie(t)
			c.must(with(setOption("secret", "x"), "x-user", "alice"), hers)
			close(gate)
			r := <-attacker
			for _, line := range r.header {
				if got := c.option("secret", line); got != "" {
					t.Errorf("an anonymous caller has alice's session: secret %q; %v", got, r)
				}
			}
			r = c.do(with(getOptions(nil), "x-user", "alice"), hers)
			if r.err != nil {
				t.Errorf("alice has lost hers: %v", r.err)
			}
		})
	}
}

// A store that hangs for one call blocks no other one for longer than UpdateTimeout.
func TestHungStoreBlocksLookups(t *testing.T) {
	t.Run("first call", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			remote := new(remoteStore)
			c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil), session.WithCarriers(session.ByPrincipal(who))), nil).client()
			alice := []string{"x-user", "alice"}
			var n atomic.Int64
			remote.on(func(what string) error {
				if what == "put" && n.Add(1) == 1 {
					<-time.After(time.Hour)
				}
				return nil
			})
			first := c.start(with(setOption("schema", "prod"), alice...))
			synctest.Wait()
			start := time.Now()
			_ = c.do(with(getOptions(nil), alice...))
			if took := time.Since(start); took > session.UpdateTimeout+time.Second {
				t.Errorf("another call of hers that only reads took %v", took)
			}
			<-first
		})
	})
	t.Run("closed meanwhile", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			remote := new(remoteStore)
			c := serveEdgeInBubble(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), nil).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			var n atomic.Int64
			remote.on(func(what string) error {
				if what == "put" && n.Add(1) == 1 {
					<-time.After(time.Hour)
				}
				return nil
			})
			late := c.start(setOption("late", "x"), cookie)
			synctest.Wait()
			c.must(closeSession, cookie)
			start := time.Now()
			_ = c.do(getOptions(nil), cookie)
			if took := time.Since(start); took > session.UpdateTimeout+time.Second {
				t.Errorf("a call with the old cookie took %v", took)
			}
			<-late
		})
	})
}

// A call whose session has ended gets no lease on the next one with its derived ID.
func TestAcquireOfTheNextSession(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"ours": newStore(t), "copies": new(remoteStore)} {
		t.Run(name, func(t *testing.T) {
			lateInTheNext(t, session.NewStatefulServerSessionManager(session.WithStore(store)), func(ctx context.Context, _ session.ServerSession) error {
				l, err := session.Acquire(ctx)
				if err == nil {
					l.Session().SetSessionOption("of the one before", text("x"))
					l.Release()
					return errors.New("it has a lease")
				}
				return ctx.Err()
			}, aliceCloses)
		})
	}
}

// backUser is a session whose SetToken panics first, and then does what it is told.
type backUser struct {
	*userSession
	mu    sync.Mutex
	n     int
	first func()
	then  func()
}

func (s *backUser) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

func (s *backUser) SetToken(token string) {
	s.mu.Lock()
	s.n++
	n := s.n
	s.mu.Unlock()
	if n == 1 && s.first != nil {
		s.first()
	}
	if n == 2 && s.then != nil {
		s.then()
	}
	s.mu.Lock()
	s.id = token
	s.mu.Unlock()
}

// SetToken that is called to go back runs under no lock.
func TestSetTokenBackRunsUnderNoLock(t *testing.T) {
	for _, how := range []string{"calls back", "blocks"} {
		t.Run(how, func(t *testing.T) {
			store := newStore(t)
			var n atomic.Int64
			blocked, gate := make(chan struct{}), make(chan struct{})
			factory := fakeFactory(func() (session.ServerSession, error) {
				u := &backUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}}
				if n.Load() == 1 {
					u.first = func() { panic("no") }
					u.then = func() {
						if how == "calls back" {
							go func() { _ = store.Put(u); close(gate) }() // not even on this goroutine
						}
						close(blocked)
						select {
						case <-gate:
						case <-time.After(4 * time.Second):
							t.Error("hangs: the store's Put waits for a lock under which SetToken runs")
						}
					}
				}
				return u, nil
			})
			if how == "blocks" {
				time.AfterFunc(3*time.Second, func() { close(gate) })
			}
			m := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(factory))
			server := renewing()
			server.statements["END"] = end
			c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			other := c.must(setOption("schema", "other")).cookie(t)
			renewal := c.start(info("RENEW"), cookie)
			<-blocked
			start := time.Now()
			c.must(info("END"), other)
			if took := time.Since(start); took > time.Second {
				t.Errorf("the end of another client's session took %v", took)
			}
			<-renewal
		})
	}
}

// failedLoginMovesNoEnd checks that a session which a login does not get, whose proof
// is good for five minutes, outlives that.
func failedLoginMovesNoEnd(t *testing.T, c *client) {
	t.Helper()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	if r := c.do(info("RENEW"), cookie); r.err == nil {
		t.Error("renewed")
	}
	if got := c.option("schema", cookie); got != "prod" {
		t.Errorf("at once: schema %q", got)
	}
	wait(6 * time.Minute)
	if got := c.option("schema", cookie); got != "prod" {
		t.Errorf("the login failed, and the session has ended with its proof: schema %q", got)
	}
}

// A renewal that fails changes no end of the session's.
func TestFailedRenewalLeavesTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			return &backUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}, first: func() { panic("no") }}, nil
		})))
		server := renewing(session.Principal{Name: "alice", Expires: time.Now().Add(5 * time.Minute)})
		c := serveEdgeInBubble(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithPrincipal(who)), server).client()
		failedLoginMovesNoEnd(t, c)
	})
}

// Renew with a principal without a name does nothing to a session that goes by
// principal.
func TestRenewForNobody(t *testing.T) {
	for name, carriers := range map[string][]session.Carrier{
		"no cookies": {session.ByPrincipal(who)}, "cookies": {session.ByPrincipal(who), session.Cookie("c")},
	} {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, edge(newStore(t), session.WithCarriers(carriers...)), renewing(session.Principal{})).client()
			alice := []string{"x-user", "alice"}
			c.must(with(setOption("schema", "prod"), alice...))
			r := c.do(with(info("RENEW"), alice...))
			if got := c.schema(alice...); got != "prod" {
				t.Errorf("Renew said %v, and schema is %q", r, got)
			}
		})
	}
}

// After a login in the call, the session can be renewed in it again.
func TestRenewAfterLoginInOneCall(t *testing.T) {
	alice := session.Principal{Name: "alice"}
	for name, store := range map[string]session.SessionStore{"ours": newStore(t), "copies": new(remoteStore)} {
		for how, login := range map[string]statement{
			"Begin, Renew": func(ctx context.Context, _ session.ServerSession) error {
				_, err := session.Begin(ctx, alice)
				return err
			},
			"Renew, Renew": func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx, alice) },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				server := &sqlServer{statements: map[string]statement{"LOGIN": func(ctx context.Context, s session.ServerSession) error {
					if err := login(ctx, s); err != nil {
						return err
					}
					if err := session.SetOption(ctx, "role", text("admin")); err != nil {
						return err
					}
					return session.Renew(ctx) // its privileges have changed
				}}}
				c := serveEdge(t, edge(store, session.WithPrincipal(who)), server).client()
				cookie := c.must(setOption("schema", "prod")).cookie(t)
				r := c.do(info("LOGIN"), cookie)
				if r.err != nil {
					t.Fatal(r.err)
				}
				if got := c.schema("x-user", "alice", "cookie", r.header[len(r.header)-1]); got != "prod" && how == "Renew, Renew" {
					t.Errorf("schema %q", got)
				}
			})
		}
	}
}

// panicky is Apache's store, or one that copies, which panics once after it has done
// what it was told.
type panicky struct {
	session.SessionStore
	put, remove atomic.Bool
}

func (s *panicky) Put(v session.ServerSession) error {
	err := s.SessionStore.Put(v)
	if s.put.Swap(false) {
		panic("no")
	}
	return err
}

func (s *panicky) Remove(id string) error {
	if s.remove.Swap(false) {
		panic("no")
	}
	return s.SessionStore.Remove(id)
}

// A store that panics in the middle of a renewal: nothing has changed.
func TestStoreThatPanicsInARenewal(t *testing.T) {
	for _, what := range []string{"put", "remove"} {
		t.Run("copies, "+what, func(t *testing.T) {
			remote := new(remoteStore)
			store := &panicky{SessionStore: remote}
			c := serveEdge(t, session.NewServerMiddleware(copying(t, store), session.WithLogger(nil)), renewing()).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			store.put.Store(what == "put")
			store.remove.Store(what == "remove")
			if r := c.do(info("RENEW"), cookie); r.err == nil {
				t.Error("renewed")
			}
			if got := c.option("schema", cookie); got != "prod" || remote.size() != 1 {
				t.Errorf("schema %q, %d rows", got, remote.size())
			}
			c.must(closeSession, cookie)
			if remote.size() != 0 {
				t.Errorf("closed, and %d rows", remote.size())
			}
		})
		t.Run("Apache's, "+what, func(t *testing.T) {
			store := &panicky{SessionStore: apache.NewSessionStore()}
			m := copying(t, store)
			c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), renewing()).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			raw, err := store.Get(token(cookie))
			if err != nil {
				t.Fatal(err)
			}
			store.put.Store(what == "put")
			store.remove.Store(what == "remove")
			if r := c.do(info("RENEW"), cookie); r.err == nil {
				t.Error("renewed")
			}
			if raw.Token() != token(cookie) {
				t.Error("the renewal failed, and the session has the new token")
			}
			c.must(setOption("schema", "next"), cookie)
			if err := m.CloseSession(raw); err != nil {
				t.Error(err)
			}
			if got := c.option("schema", cookie); got != "" {
				t.Errorf("CloseSession has closed it, and it has schema %q", got)
			}
		})
	}
}

// A store that fails after having stored: no row is left.
func TestStoreThatFailsLateInARenewal(t *testing.T) {
	remote := new(remoteStore)
	store := &fakeStore{get: remote.Get, remove: remote.Remove}
	var fails atomic.Bool
	store.put = func(v session.ServerSession) error {
		err := remote.Put(v)
		if fails.Swap(false) {
			return errors.New("timed out")
		}
		return err
	}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, store), session.WithLogger(nil)), renewing()).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	fails.Store(true)
	if r := c.do(info("RENEW"), cookie); r.err == nil {
		t.Error("renewed")
	}
	c.must(closeSession, cookie)
	if remote.size() != 0 {
		t.Errorf("closed, and %d rows", remote.size())
	}
}

// An ID that is taken replaces nobody's session in a store that copies.
func TestTakenIDInARenewalOfACopy(t *testing.T) {
	ids := []string{"id-of-alice", "id-of-bob", "id-of-alice", "a-new-id"}
	var n atomic.Int64
	gen := func() string { return ids[min(int(n.Add(1))-1, len(ids)-1)] }
	remote := new(remoteStore)
	m := session.NewStatefulServerSessionManager(session.WithStore(remote), session.WithFactory(session.NewSessionFactory(gen)))
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), renewing()).client()
	alice := c.must(setOption("schema", "alice's")).cookie(t)
	bob := c.must(setOption("schema", "bob's")).cookie(t)
	r := c.do(info("RENEW"), bob)
	if got := c.option("schema", alice); got != "alice's" {
		t.Errorf("Renew said %v, and alice has schema %q", r, got)
	}
}

// What another process closes in the middle of a renewal stays closed in an Updater.
func TestClosedByAnotherProcessInARenewal(t *testing.T) {
	remote := new(remoteStore)
	c := serveEdge(t, session.NewServerMiddleware(copying(t, updatingStore{remote}), session.WithLogger(nil)), renewing()).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	remote.on(func(what string) error {
		if what == "put" {
			remote.forget(token(cookie))
		}
		return nil
	})
	r := c.do(info("RENEW"), cookie)
	for _, line := range r.header {
		if got := c.option("schema", line); got != "" {
			t.Errorf("closed by another process, and back: schema %q", got)
		}
	}
	if remote.size() != 0 {
		t.Errorf("%d rows", remote.size())
	}
}

// Our store behind a plain one.
func TestOursBehindAPlainStore(t *testing.T) {
	store := newStore(t)
	plain := &fakeStore{get: store.Get, put: store.Put, remove: store.Remove}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, plain), session.WithLogger(nil)), renewing()).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	var all sync.WaitGroup
	all.Go(func() {
		for i := range 50 {
			_ = c.do(setOption("n", fmt.Sprint(i)), cookie)
		}
	})
	var r reply
	for range 20 {
		r = c.do(info("RENEW"), cookie)
	}
	all.Wait()
	last := cookie
	if n := len(r.header); n > 0 {
		last = r.header[n-1]
	}
	if got := c.option("schema", last); got != "prod" {
		t.Errorf("%v, schema %q", r, got)
	}
	t.Log(r)
}

// A session that only a call for its options has called for leaves no cookie, also
// if it is renewed.
func TestHeaderLeavesInSetToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		var of atomic.Pointer[context.Context]
		m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			return &backUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}, first: func() {
				_ = grpc.SendHeader(*of.Load(), metadata.MD{})
			}}, nil
		})))
		server := &sqlServer{statements: map[string]statement{"RENEW": func(ctx context.Context, _ session.ServerSession) error {
			of.Store(&ctx)
			return session.Renew(ctx, session.Principal{Name: "alice", Expires: time.Now().Add(5 * time.Minute)})
		}}}
		c := serveEdgeInBubble(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithPrincipal(who)), server).client()
		failedLoginMovesNoEnd(t, c)
	})
}

// A login that fails since the old session could not be removed leaves it as it was.
func TestFailedBeginLeavesTheOldSession(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"copies": new(remoteStore), "Apache's": apache.NewSessionStore()} {
		t.Run(name, func(t *testing.T) {
			var fails atomic.Bool
			failing := &fakeStore{get: store.Get, put: store.Put, remove: func(id string) error {
				if fails.Swap(false) {
					return errors.New("not now")
				}
				return store.Remove(id)
			}}
			server := &sqlServer{statements: map[string]statement{"LOGIN": func(ctx context.Context, s session.ServerSession) error {
				fails.Store(true)
				_, err := session.Begin(ctx)
				if err != nil && s.GetSessionOption("schema").GetStringValue() != "prod" {
					t.Error("the handler's session has lost its options")
				}
				return err
			}}}
			var j jar
			c := j.client(serveEdge(t, session.NewServerMiddleware(copying(t, failing), session.WithLogger(nil)), server))
			c.must(setOption("schema", "prod"))
			r := c.do(info("LOGIN"))
			if r.err == nil {
				t.Error("logged in")
			}
			if got := c.option("schema"); got != "prod" {
				t.Errorf("the login failed (%v), and the old session is gone: schema %q", r, got)
			}
		})
	}
}

// tokenHook is a session whose Token blocks once.
type tokenHook struct {
	*tokenUser
	hook *atomic.Pointer[func()]
}

func (s *tokenHook) Token() string {
	if f := s.hook.Swap(nil); f != nil {
		(*f)()
	}
	return s.tokenUser.Token()
}

// A call without a login that renews at the same time as one with a login does not
// take a session of a user's type from its new owner.
func TestParallelRenewalOfAUsersType(t *testing.T) {
	var hook atomic.Pointer[func()]
	var n atomic.Int64
	store := newStore(t)
	m := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return &tokenHook{&tokenUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}}, &hook}, nil
	})))
	server := renewing(session.Principal{Name: "alice"})
	reached, gate := make(chan struct{}), make(chan struct{})
	server.statements["attack"] = func(ctx context.Context, _ session.ServerSession) error {
		f := func() { close(reached); <-gate }
		hook.Store(&f)
		return session.Renew(ctx)
	}
	begun := make(chan struct{})
	server.statements["late RENEW"] = func(ctx context.Context, _ session.ServerSession) error {
		close(begun)
		return session.Renew(ctx, session.Principal{Name: "alice"})
	}
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithPrincipal(who)), server).client()
	planted := c.must(setOption("schema", "prod")).cookie(t)
	attacker := c.start(info("attack"), planted)
	<-reached
	login := c.start(info("late RENEW"), planted)
	<-begun
	close(gate)
	a, l := <-attacker, <-login
	if l.err != nil {
		t.Fatal(l.err)
	}
	r := c.do(with(getOptions(nil), "x-user", "alice"), l.cookie(t))
	if r.err != nil {
		t.Errorf("an anonymous caller has renewed alice's session (%v), who has lost it: %v", a, r.err)
	}
}

// A session that only a call for options has called for leaves no cookie, also if it
// is renewed.
func TestBriefSessionLeavesNoCookie(t *testing.T) {
	var n atomic.Int64
	store := newStore(t)
	var of atomic.Pointer[func(context.Context)]
	m := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return &tokenUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}}, nil
	})))
	server := &sqlServer{fromContext: func(ctx context.Context) (session.ServerSession, error) {
		if f := of.Load(); f != nil {
			(*f)(ctx)
		}
		return session.GetSessionFromContext(ctx)
	}}
	for how, f := range map[string]func(context.Context){
		"Renew": func(ctx context.Context) {
			if err := session.Renew(ctx); err != nil {
				t.Log(err)
			}
		},
		"Begin": func(ctx context.Context) {
			if _, err := session.Begin(ctx); err != nil {
				t.Log(err)
			}
		},
	} {
		t.Run(how, func(t *testing.T) {
			c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
			of.Store(&f)
			r := c.do(getOptions(nil))
			of.Store(nil)
			t.Log(r, store.Len())
			if len(r.header) > 0 && store.Len() == 0 {
				t.Errorf("a cookie of a session that is dead: %v", r)
			}
			if store.Len() != 0 && len(r.header) == 0 {
				t.Errorf("a session without a cookie")
			}
		})
	}
}

// A store that cannot remove a session: no ID is in what the handler gets, in the
// reply, or in the log.
func TestNoIDInTheErrorOfAClose(t *testing.T) {
	closing := map[string]func(context.Context, session.ServerSession) error{
		"End":    func(ctx context.Context, _ session.ServerSession) error { return session.End(ctx) },
		"handle": func(_ context.Context, s session.ServerSession) error { return s.Close() },
		"Begin":  func(ctx context.Context, _ session.ServerSession) error { _, err := session.Begin(ctx); return err },
	}
	for how, f := range closing {
		for by, opts := range map[string][]session.MiddlewareOption{"cookie": nil, "principal": {session.WithCarriers(session.ByPrincipal(who))}} {
			t.Run(how+", by "+by, func(t *testing.T) {
				var log logBuffer
				var live atomic.Value
				remote := &quotingStore{remoteStore: new(remoteStore)}
				c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), append(opts, session.WithLogger(log.logger()))...), &sqlServer{statements: map[string]statement{
					"close": func(ctx context.Context, s session.ServerSession) error {
						s.SetSessionOption("schema", text("prod"))
						live.Store(s.Token())
						remote.fails.Store(true)
						err := f(ctx, s)
						if err == nil {
							t.Error("closed")
						}
						if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), s.Token()) {
							t.Errorf("the ID is in the error that the handler gets: %v", err)
						}
						return err
					},
				}}).client()
				r := c.do(with(info("close"), "x-user", "alice"))
				if strings.Contains(fmt.Sprint(r.err), live.Load().(string)) {
					t.Errorf("the ID is in the reply: %v", r.err)
				}
				if strings.Contains(log.String(), live.Load().(string)) {
					t.Errorf("the ID is in the log: %s", log.String())
				}
			})
		}
	}
}

// The same for a copy that its manager closes by the ID that it had before.
func TestNoIDInTheErrorOfACloseOfARenewedCopy(t *testing.T) {
	remote := &quotingStore{remoteStore: new(remoteStore)}
	m := copying(t, remote)
	var raw session.ServerSession
	var got error
	var renewedID string
	server := &sqlServer{statements: map[string]statement{"close": func(ctx context.Context, s session.ServerSession) error {
		if err := session.Renew(ctx); err != nil {
			return err
		}
		renewedID = s.Token()
		remote.fails.Store(true)
		got = m.CloseSession(raw)
		remote.fails.Store(false)
		return nil
	}}}
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	raw, _ = remote.Get(token(cookie))
	c.must(info("close"), cookie)
	if got == nil || strings.Contains(got.Error(), renewedID) {
		t.Errorf("the ID is in the error: %v", got)
	}
}

// deafUser is a session that does not take the token that it is given.
type deafUser struct{ *userSession }

func (deafUser) SetToken(string) {}

// A SetToken that does nothing: no close is lost.
func TestSetTokenThatDoesNothing(t *testing.T) {
	var n atomic.Int64
	m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return &deafUser{&userSession{id: fmt.Sprint("user-session-", n.Add(1))}}, nil
	})))
	server := renewing()
	server.statements["END"] = end
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	r := c.do(info("RENEW"), cookie)
	last := cookie
	if len(r.header) > 0 {
		last = r.header[0]
	}
	c.must(info("END"), last)
	if got := c.option("schema", last); got != "" {
		t.Errorf("renewed (%v), closed, and has schema %q", r.err, got)
	}
}

type counted struct{ n atomic.Int32 }

func (c *counted) Close() error { c.n.Add(1); return nil }

// Whatever comes instead of whatever: the store's books are right, and everything is
// closed once.
func TestAddInsteadAtRandom(t *testing.T) {
	for _, workers := range []int{1, 4} {
		for round := range 12 {
			t.Run(fmt.Sprint(workers, " ", round), func(t *testing.T) {
				opts := []layover.Option{layover.WithLogger(nil), layover.WithMaxSessions(6), layover.WithIdleTimeout(100 * time.Millisecond), layover.WithLifetime(400 * time.Millisecond)}
				if round%3 == 1 {
					opts = append(opts, layover.WithMaxBytes(1000))
				}
				s, err := layover.New[*counted](opts...)
				if err != nil {
					t.Fatal(err)
				}
				var mu sync.Mutex
				var all []*counted
				made := func() *counted {
					c := new(counted)
					mu.Lock()
					all = append(all, c)
					mu.Unlock()
					return c
				}
				var refused atomic.Int64
				var g sync.WaitGroup
				for range workers {
					g.Go(func() {
						var held []*layover.Lease[*counted]
						id := func() string { return fmt.Sprint("id-", rand.IntN(8)) }
						origin := func() layover.Origin {
							o := layover.Origin{Source: fmt.Sprint("s", rand.IntN(3)), Size: int64(rand.IntN(300)), EvictOwn: rand.IntN(2) == 0, Holds: rand.IntN(2) == 0}
							if rand.IntN(2) == 0 {
								o.Quota = 1 + rand.IntN(3)
							}
							if rand.IntN(4) == 0 {
								o.Expires = time.Now().Add(time.Duration(1+rand.IntN(50)) * time.Millisecond)
							}
							return o
						}
						some := func() *layover.Lease[*counted] {
							if len(held) == 0 {
								return new(layover.Lease[*counted])
							}
							return held[rand.IntN(len(held))]
						}
						for range 1500 {
							switch rand.IntN(9) {
							case 0, 1:
								c := made()
								l, err := s.AddInstead(some(), id(), c, origin())
								if err == nil {
									held = append(held, &l)
								} else {
									refused.Add(1)
									c.n.Add(1)
								}
							case 2:
								c := made()
								if l, err := s.Add(id(), c, origin()); err == nil {
									held = append(held, &l)
								} else {
									c.n.Add(1)
								}
							case 3:
								if l, err := s.Acquire(id()); err == nil {
									l.Confirm()
									held = append(held, &l)
								}
							case 4:
								_ = some().Rename(id(), origin())
							case 5, 6:
								if n := len(held); n > 0 {
									i := rand.IntN(n)
									held[i].Release()
									held = append(held[:i], held[i+1:]...)
								}
							case 7:
								_ = s.Remove(id())
							case 8:
								_ = some().SetSize(int64(rand.IntN(300)))
							}
							if workers == 1 {
								if err := s.Check(); err != nil {
									t.Fatal(err)
								}
							}
						}
						for _, l := range held {
							l.Release()
						}
					})
				}
				g.Wait()
				if err := s.Check(); err != nil {
					t.Error(err)
				}
				if err := s.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				for i, c := range all {
					if n := c.n.Load(); n != 1 {
						t.Fatalf("%d of %d was closed %d times", i, len(all), n)
					}
				}
				t.Log(len(all), refused.Load(), s.Stats())
			})
		}
	}
}

// Whoever comes with the old cookie of a login, by Renew or Begin, gets no new session.
func TestOldCookieOfALogin(t *testing.T) {
	alice := session.Principal{Name: "alice"}
	var n atomic.Int64
	ids := func() string { return fmt.Sprint("id-number-", n.Add(1)) }
	users := fakeFactory(func() (session.ServerSession, error) {
		return &tokenUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}}, nil
	})
	managers := map[string]func() *session.StatefulServerSessionManager{
		"ours": func() *session.StatefulServerSessionManager {
			return session.NewStatefulServerSessionManager(session.WithStore(newStore(t)))
		},
		"ours, IDs": func() *session.StatefulServerSessionManager {
			return session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(session.NewSessionFactory(ids)))
		},
		"ours, type": func() *session.StatefulServerSessionManager {
			return session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(users))
		},
		"copies": func() *session.StatefulServerSessionManager { return copying(t, new(remoteStore)) },
		"copies, IDs": func() *session.StatefulServerSessionManager {
			return session.NewStatefulServerSessionManager(session.WithStore(new(remoteStore)), session.WithFactory(session.NewSessionFactory(ids)))
		},
		"Apache's": func() *session.StatefulServerSessionManager { return copying(t, apache.NewSessionStore()) },
		"Apache's, type": func() *session.StatefulServerSessionManager {
			return session.NewStatefulServerSessionManager(session.WithStore(apache.NewSessionStore()), session.WithFactory(users))
		},
	}
	for name, m := range managers {
		for how, login := range map[string]statement{
			"Renew": func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx, alice) },
			"Begin": func(ctx context.Context, _ session.ServerSession) error {
				_, err := session.Begin(ctx, alice)
				return err
			},
		} {
			for _, from := range []string{"", "bob"} {
				for _, as := range []string{from, "alice"} {
					for policy, opts := range map[string][]session.MiddlewareOption{"TellDead": nil, "StrictDead": {session.WithDeadTokens(session.StrictDead)}} {
						t.Run(fmt.Sprintf("%s, %s, from %q, as %q, %s", name, how, from, as, policy), func(t *testing.T) {
							server := &sqlServer{statements: map[string]statement{"LOGIN": login}}
							c := serveEdge(t, session.NewServerMiddleware(m(), append(opts, session.WithLogger(nil), session.WithPrincipal(who))...), server).client()
							old := c.must(with(setOption("schema", "prod"), "x-user", from)).cookie(t)
							r := c.do(with(info("LOGIN"), "x-user", from), old)
							if r.err != nil {
								t.Fatal(r.err)
							}
							for range 2 {
								if r := c.do(with(setOption("schema", "x"), "x-user", as), old); r.header != nil || r.trailer != nil {
									t.Errorf("a cookie: %v", r)
								}
							}
							if r := c.do(with(getOptions(nil), "x-user", as), old); r.header != nil || r.trailer != nil {
								t.Errorf("a cookie: %v", r)
							}
							if r := c.do(with(getOptions(nil), "x-user", "alice"), r.header[len(r.header)-1]); r.err != nil {
								t.Errorf("the new one: %v", r.err)
							}
						})
					}
				}
			}
		}
	}
}

// The header leaves in the middle of the renewal of a copy: the old ID holds, and
// nothing is lost.
func TestHeaderLeavesInTheRenewalOfACopy(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"copies": new(remoteStore), "Apache's": apache.NewSessionStore()} {
		t.Run(name, func(t *testing.T) {
			slow := &slowPut{SessionStore: store}
			m := copying(t, slow)
			server := &sqlServer{statements: map[string]statement{"RENEW": func(ctx context.Context, s session.ServerSession) error {
				s.SetSessionOption("mine", text("x"))
				f := func() { _ = grpc.SendHeader(ctx, metadata.MD{}) }
				slow.hook.Store(&f)
				return session.Renew(ctx, session.Principal{Name: "alice"})
			}}}
			c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithPrincipal(who)), server).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			r := c.do(info("RENEW"), cookie)
			if r.err == nil || r.header != nil || r.trailer != nil {
				t.Errorf("%v", r)
			}
			if schema, mine := c.option("schema", cookie), c.option("mine", cookie); schema != "prod" || mine != "x" {
				t.Errorf("schema %q, mine %q", schema, mine)
			}
			if remote, ok := store.(*remoteStore); ok && remote.size() != 1 {
				t.Errorf("%d rows", remote.size())
			}
			rr := c.must(closeSession, cookie)
			if len(rr.header) != 1 {
				t.Errorf("closed: %v", rr)
			}
		})
	}
}

// Calls in parallel that together set more options than a session may have: what a call
// was told of as set is set.
func TestParallelWritesBeyondTheLimits(t *testing.T) {
	remote := new(remoteStore)
	const each = 200
	var all [2]chan struct{}
	server := &sqlServer{statements: map[string]statement{}}
	gate := make(chan struct{})
	for i := range all {
		all[i] = make(chan struct{})
		server.statements[fmt.Sprint("set ", i)] = gated(all[i], gate, func(ctx context.Context, _ session.ServerSession) error {
			for k := range each {
				if err := session.SetOption(ctx, fmt.Sprint(i, " ", k), text("x")); err != nil {
					return err
				}
			}
			return nil
		})
	}
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(nil)), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	var done []<-chan reply
	for i := range all {
		done = append(done, c.start(info(fmt.Sprint("set ", i)), cookie))
		<-all[i]
	}
	close(gate)
	set := 1
	for _, d := range done {
		if r := <-d; r.err == nil {
			set += each
		}
	}
	remote.mu.Lock()
	for _, row := range remote.rows {
		if len(row) > 256 {
			t.Errorf("a session may have 256 options, and has %d", len(row))
		}
	}
	remote.mu.Unlock()
	var got map[string]*flight.SessionOptionValue
	c.must(getOptions(&got), cookie)
	if len(got) != set {
		t.Errorf("calls were told that %d options are set, of which there are %d", set, len(got))
	}
}
