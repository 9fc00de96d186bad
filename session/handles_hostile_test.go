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
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// presented returns the handle that a call presents.
func presented(ctx context.Context) []byte {
	return []byte(strings.Join(metadata.ValueFromIncomingContext(ctx, handleHeader), ""))
}

// after is a statement that does something once the handles of the call are resolved.
func (n *counter) after(f func(ctx context.Context) error) statement {
	return func(ctx context.Context, s session.ServerSession) error {
		if err := n.statements["use"](ctx, s); err != nil {
			return err
		}
		return f(ctx)
	}
}

// killAll kills all sessions.
func killAll(store *session.ExpiringSessionStore) {
	for i := range store.All() {
		store.Kill(i.Fingerprint)
	}
}

// Where IDs are made from principals, the next session of one has the ID of the last
// one. A handle is good for the session in which it was made, and for no other one,
// however that has ended, and although a call may have it yet.
func TestAStaleHandleDoesNotOpenTheNextSession(t *testing.T) {
	alice := func(f call) call { return with(f, "x-user", "alice") }
	for name, end := range map[string]func(store *session.ExpiringSessionStore, c *client){
		"closed": func(_ *session.ExpiringSessionStore, c *client) { c.must(alice(closeSession)) },
		"begun anew": func(_ *session.ExpiringSessionStore, c *client) {
			c.must(alice(info("login")))
		},
		"killed": func(store *session.ExpiringSessionStore, c *client) {
			killAll(store)
			_ = c.do(alice(info(""))) // is told
			c.must(alice(closeSession))
		},
	} {
		for _, busy := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", in use ", busy), func(t *testing.T) {
				store := newStore(t)
				n := newCounter()
				n.statements["login"] = func(ctx context.Context, _ session.ServerSession) error { _, err := session.Begin(ctx); return err }
				inside, gate := make(chan struct{}), make(chan struct{})
				n.statements["long"] = func(context.Context, session.ServerSession) error { inside <- struct{}{}; <-gate; return nil }
				c := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), n.sqlServer).client()
				c.must(alice(setOption("schema", "prod")))
				c.must(alice(info("begin")))
				if busy {
					replied := c.start(alice(info("long")))
					<-inside
					defer func() { <-replied }()
				}
				defer close(gate)
				end(store, c)
				c.must(alice(setOption("schema", "prod")))
				wantUnknown(t, "of the session before", c.do(alice(presenting(info("use"), string(n.handle)))).err)
				c.must(alice(info("begin")))
				c.must(alice(presenting(info("use"), string(n.handle))))
			})
		}
	}
}

// To somebody else, or nobody, a handle is as unknown when its session has ended as
// while it lived, by whatever clients find their sessions.
func TestOnlyItsOwnerIsToldOfTheEndOfAHandlesSession(t *testing.T) {
	ids := session.WithFactory(session.NewSessionFactory(uuid.NewString))
	for name, made := range map[string]struct {
		by  session.MiddlewareOption
		ids []session.StatefulSessionManagerOption
	}{
		"by principal": {by: session.WithCarriers(session.ByPrincipal(who))},
		"by cookie":    {by: session.WithPrincipal(who)},
		"own IDs":      {by: session.WithPrincipal(who), ids: []session.StatefulSessionManagerOption{ids}},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			n := newCounter()
			m := session.NewStatefulServerSessionManager(append(made.ids, session.WithStore(store))...)
			c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), made.by), n.sqlServer).client()
			c.must(with(info("begin"), "x-user", "alice"))
			use := presenting(info("use"), string(n.handle))
			for _, when := range []string{"live", "dead"} {
				wantUnknown(t, when+", to bob", c.do(with(use, "x-user", "bob")).err)
				wantUnknown(t, when+", to nobody", c.do(use).err)
				killAll(store)
			}
			wantReason(t, "to alice", c.do(with(use, "x-user", "alice")).err, "SESSION_KILLED")
		})
	}
}

// Who cannot be told has no session of a handle, and learns nothing.
func TestAHandleIsNothingToAPrincipalThatCannotBeTold(t *testing.T) {
	n := newCounter()
	c := serveEdge(t, edge(newStore(t), session.WithPrincipal(who)), n.sqlServer).client()
	handle, _ := n.begin(c, "x-user", "alice")
	for _, user := range []string{"panicking", "failing", "refused"} {
		err := c.do(with(presenting(info("use"), handle), "x-user", user)).err
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "who is that") {
			t.Errorf("%s: %v", user, err)
		}
	}
	c.must(with(presenting(info("use"), handle), "x-user", "alice"))
}

// Renew gives a session that was found by a handle a new ID, too, which the client
// gets as a cookie, although it has sent none. If it has sent that of another session,
// it keeps that.
func TestASessionFoundByAHandleIsRenewed(t *testing.T) {
	for _, login := range []bool{false, true} {
		for _, other := range []bool{false, true} {
			t.Run(fmt.Sprintf("login %t, another cookie %t", login, other), func(t *testing.T) {
				n := newCounter()
				var user, cookies []string
				n.statements["both"] = n.after(func(ctx context.Context) error { return n.statements["renew"](ctx, nil) })
				c := serveEdge(t, edge(newStore(t), session.WithPrincipal(who)), n.sqlServer).client()
				handle, old := n.begin(c)
				f := presenting(info("both"), handle)
				if login {
					f, user = with(f, "x-login", "alice"), []string{"x-user", "alice"}
				}
				if other {
					cookies = append(cookies, c.must(setOption("schema", "x")).cookie(t))
				}
				r := c.must(f, cookies...)
				if got := c.option("schema", old); got != "" {
					t.Errorf("by the old ID the schema is %q", got)
				}
				c.must(with(presenting(info("use"), handle), user...))
				if other {
					if got := c.option("schema", cookies[0]); r.header != nil || got != "x" {
						t.Errorf("header %q, by the other cookie the schema is %q", r.header, got)
					}
				} else if r := c.must(with(info(""), user...), r.cookie(t)); r.header != nil {
					t.Errorf("the new ID is good for nothing: %q", r.header)
				}
			})
		}
	}
}

// A session that goes by principal has no ID that travels: Renew does nothing, also
// if a handle has named it.
func TestAPrincipalsSessionFoundByAHandleIsNotRenewed(t *testing.T) {
	n := newCounter()
	n.statements["both"] = n.after(func(ctx context.Context) error { return session.Renew(ctx) })
	store := newStore(t)
	c := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who), session.Cookie(""))), n.sqlServer).client()
	alice := func(f call) call { return with(f, "x-user", "alice") }
	c.must(alice(setOption("schema", "prod")))
	c.must(alice(info("begin")))
	if r := c.must(alice(presenting(info("both"), string(n.handle)))); r.header != nil || store.Len() != 1 {
		t.Errorf("header %q, %d sessions", r.header, store.Len())
	}
	if got := c.schema("x-user", "alice"); got != "prod" {
		t.Errorf("the schema is %q", got)
	}
}

// End ends the session that a handle has named, and leaves the one whose cookie the
// client has sent as it is, with its cookie.
func TestTheEndOfAHandlesSessionLeavesTheOther(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	n.statements["end"] = n.after(session.End)
	c := serveEdge(t, edge(store), n.sqlServer).client()
	other := c.must(setOption("schema", "x")).cookie(t)
	handle, mine := n.begin(c)
	if r := c.must(presenting(info("end"), handle), other+"; "+mine); r.header != nil || r.trailer != nil {
		t.Errorf("header %q, trailer %q", r.header, r.trailer)
	}
	if got := c.option("schema", other); got != "x" || store.Len() != 1 {
		t.Errorf("the other one has schema %q, there are %d sessions", got, store.Len())
	}
	wantLost(t, store, mine, c.do(info(""), mine), "CLOSED")
}

// A handle is 100 bytes longer than its object at most, by whatever the client finds
// the session.
func TestAHandleIs100BytesLonger(t *testing.T) {
	for name, by := range map[string]session.MiddlewareOption{
		"by cookie": session.WithPrincipal(who), "by principal": session.WithCarriers(session.ByPrincipal(who)),
	} {
		n := newCounter()
		serveEdge(t, edge(newStore(t), by), n.sqlServer).client().must(with(info("begin"), "x-user", "alice"))
		if more := len(n.handle) - len("object 1"); more > 100 {
			t.Errorf("%s: it is %d bytes longer", name, more)
		}
	}
}

// What remembers the context of a call for longer than that lasts has neither
// handles nor the session's context by it.
func TestNoHandleIsResolvedAfterTheCall(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	contexts := make(chan context.Context, 1)
	n.statements["leak"] = func(ctx context.Context, _ session.ServerSession) error { contexts <- ctx; return nil }
	c := serveEdge(t, edge(store), n.sqlServer).client()
	handle, cookie := n.begin(c)
	c.must(info("leak"), cookie)
	ctx := <-contexts
	_, resolve := session.ResolveHandle(ctx, "transaction", []byte(handle))
	_, within := session.Context(ctx)
	_, made := session.NewHandle(ctx, "transaction", nil)
	for i, err := range []error{resolve, within, made} {
		if !errors.Is(err, session.ErrCallEnded) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if store.Len() != 1 || leases(store) != 0 {
		t.Errorf("%d sessions, %d leases", store.Len(), leases(store))
	}
}

// interruption is a principal, nobody, while which is told something happens.
type interruption struct {
	mu   sync.Mutex
	left int
	do   func()
}

// at has something happen at the nth time from now that the principal is asked for.
func (i *interruption) at(n int, do func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.left, i.do = n, do
}

func (i *interruption) who(context.Context) (p session.Principal, _ error) {
	i.mu.Lock()
	i.left--
	now, do := i.left == 0, i.do
	i.mu.Unlock()
	if now {
		do()
	}
	return p, nil
}

// A call that ends its session while it resolves a handle has none after that,
// whenever that happens.
func TestAnEndWhileAHandleIsResolvedHolds(t *testing.T) {
	ends := 0
	for at := 1; at <= 4; at++ {
		n := newCounter()
		store := newStore(t)
		var asked interruption
		n.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
			ended := false
			asked.at(at, func() { ended = session.End(ctx) == nil })
			_, err := session.ResolveHandle(ctx, "transaction", presented(ctx))
			asked.at(0, nil)
			if !ended {
				return err
			}
			ends++
			wantReason(t, fmt.Sprint("asked for the ", at, ". time"), err, "SESSION_CLOSED")
			return nil
		}
		c := serveEdge(t, edge(store, session.WithPrincipal(asked.who)), n.sqlServer).client()
		handle, _ := n.begin(c)
		c.must(presenting(info("x"), handle))
		if n := leases(store); n != 0 {
			t.Errorf("%d leases", n)
		}
	}
	if ends == 0 {
		t.Error("nothing has happened")
	}
}

// The lease on a resource is one on its session, whenever another goroutine of the
// call begins the next one.
func TestAResourceIsLeasedWithItsOwnSession(t *testing.T) {
	for at := 1; at <= 4; at++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWires()
			store := newStore(t)
			var asked interruption
			var lease *session.ResourceLease[*wire]
			srv := w.server()
			srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) (err error) {
				asked.at(at, func() {
					go func() { _, _ = session.Begin(ctx) }()
					synctest.Wait()
				})
				lease, err = w.Acquire(ctx, "")
				asked.at(0, nil)
				return err
			}
			c := serveEdgeInBubble(t, edge(store, session.WithPrincipal(asked.who)), srv).client()
			_ = c.do(info("x"), c.must(setOption("a", "b")).cookie(t))
			synctest.Wait()
			if lease != nil {
				if lease.Value().done {
					t.Errorf("asked for the %d. time: it is closed, although it is leased", at)
				}
				lease.Release()
			}
			if n := leases(store); n != 0 {
				t.Errorf("%d leases", n)
			}
		})
	}
}

// While sessions are renewed, closed, killed and begun anew all the time, a handle
// opens the session in which it was made, or none.
func TestAHandleOpensItsOwnSessionOrNone(t *testing.T) {
	for name, by := range map[string]session.MiddlewareOption{
		"by cookie": session.WithPrincipal(who), "by principal": session.WithCarriers(session.ByPrincipal(who)),
	} {
		t.Run(name, func(t *testing.T) {
			m := &makers{made: make(map[string]bool)}
			store := newStore(t)
			e := serveEdge(t, edge(store, by), m.server(t))
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() {
					f := with(info([]string{"make", "resolve"}[i%2]), "x-user", "alice")
					for c, cookie, n := e.client(), "", 0; n < 60; n++ {
						if r := c.do(f, cookie); len(r.header) == 1 {
							cookie = r.header[0]
						}
						if i == 0 && n%5 == 4 {
							killAll(store)
						}
					}
				})
			}
			all.Wait()
			if n := leases(store); n != 0 {
				t.Errorf("%d leases", n)
			}
		})
	}
}

// makers make sessions with a handle each, whose object is what the session has as an
// option.
type makers struct {
	ids  atomic.Int64
	mu   sync.Mutex
	made map[string]bool
}

func (m *makers) server(t *testing.T) *sqlServer {
	return &sqlServer{statements: map[string]statement{
		"make": func(ctx context.Context, _ session.ServerSession) error {
			id := fmt.Sprint(m.ids.Add(1))
			_, begin := session.Begin(ctx)
			set := session.SetOption(ctx, "mine", text(id))
			h, err := session.NewHandle(ctx, "k", []byte(id))
			if err = errors.Join(begin, set, err); err == nil {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.made[string(h)] = true
			}
			return err
		},
		"resolve": func(ctx context.Context, _ session.ServerSession) error {
			object, err := session.ResolveHandle(ctx, "k", m.any())
			if err != nil {
				return err
			}
			s, err := session.GetSessionFromContext(ctx)
			if err == nil && s.GetSessionOption("mine").GetStringValue() != string(object) {
				t.Errorf("the handle of %s has opened %s", object, s.GetSessionOption("mine").GetStringValue())
			}
			return err
		},
	}}
}

// any returns a handle.
func (m *makers) any() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	for h := range m.made {
		return []byte(h)
	}
	return nil
}

// Whatever calls do with resources, handles and sessions, at once and in goroutines of
// their own: all that was opened is closed once, there are never more than may be, and
// nothing is left.
func TestTrafficLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := newTraffic(t)
		e := serveEdgeInBubble(t, edge(tr.store, session.WithCancelOnKill(), session.WithLogger(tr.log.logger())), &sqlServer{statements: map[string]statement{"x": tr.call}})
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				cookies := new(jar)
				c := cookies.client(e)
				for range 60 {
					f := info("x")
					if rand.IntN(2) == 0 {
						f = directScan("x")
					}
					if r := c.do(f); r.err != nil { // it was killed, or closed by others, or panics
						cookies.mu.Lock()
						clear(cookies.cookies)
						cookies.mu.Unlock()
					}
				}
			})
		}
		all.Wait()
		synctest.Wait()
		tr.end()
	})
}

const trafficPlaces = 12

// traffic are calls that do anything.
type traffic struct {
	t     *testing.T
	store *session.ExpiringSessionStore
	log   logBuffer
	inner *session.Resource[*trafficThing]
	outer *session.Resource[*trafficThing]

	open, opened, closed atomic.Int32

	mu      sync.Mutex
	handles [][]byte
}

type trafficThing struct{ closed atomic.Bool }

func newTraffic(t *testing.T) *traffic {
	tr := &traffic{t: t, store: newStore(t, layover.WithIdleTimeout(200*time.Millisecond))}
	if err := tr.store.SetMaxResources(trafficPlaces); err != nil {
		t.Fatal(err)
	}
	tr.inner = tr.resource("inner", func(context.Context) {})
	tr.outer = tr.resource("outer", func(ctx context.Context) {
		_, _ = tr.inner.Get(ctx, "0")
		tr.anything(ctx)
	})
	return tr
}

func (tr *traffic) resource(name string, first func(context.Context)) *session.Resource[*trafficThing] {
	return &session.Resource[*trafficThing]{Name: name, IdleTimeout: 30 * time.Millisecond,
		Open: func(ctx context.Context, _ string) (*trafficThing, error) {
			if n := tr.open.Add(1); n > trafficPlaces {
				tr.t.Errorf("%d are open", n)
			}
			first(ctx)
			switch rand.IntN(10) {
			case 0:
				tr.open.Add(-1)
				return nil, errors.New("planned")
			case 1:
				tr.open.Add(-1)
				panic(plannedPanic)
			}
			tr.opened.Add(1)
			return new(trafficThing), nil
		},
		Close: func(x *trafficThing) error {
			if x.closed.Swap(true) {
				tr.t.Error("closed twice")
			}
			<-time.After(time.Millisecond)
			tr.open.Add(-1)
			tr.closed.Add(1)
			return nil
		}}
}

// call does some things at once, and may panic.
func (tr *traffic) call(ctx context.Context, _ session.ServerSession) error {
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for range 3 {
				tr.anything(ctx)
				<-time.After(time.Duration(rand.IntN(10)) * time.Millisecond)
			}
		})
	}
	all.Wait()
	if rand.IntN(20) == 0 {
		panic(plannedPanic)
	}
	return nil
}

// anything does something, and takes it as it comes.
func (tr *traffic) anything(ctx context.Context) {
	key := fmt.Sprint(rand.IntN(2))
	things := []func(){
		func() { _, _ = tr.inner.Get(ctx, key) },
		func() { _, _ = tr.outer.Get(ctx, key) },
		func() { _, _ = tr.outer.Get(ctx, key) },
		func() { _, _, _ = tr.inner.Opened(ctx, key) },
		func() { _ = tr.outer.Hold(ctx, key, time.Duration(rand.IntN(20))*time.Millisecond) },
		func() { _ = tr.inner.Discard(ctx, key) },
		func() { tr.lease(ctx, key) },
		func() { _ = session.Renew(ctx) },
		func() { _, _ = session.Begin(ctx) },
		func() { _ = session.End(ctx) },
		func() { tr.newHandle(ctx) },
		func() { _, _ = session.ResolveHandle(ctx, "k", tr.someHandle()) },
		func() { _, _ = session.Context(ctx) },
		func() { _, _ = session.Ensure(ctx) },
	}
	if i := rand.IntN(4*len(things) + 1); i < 4*len(things) {
		things[i/4]()
		return
	}
	for i := range tr.store.All() {
		tr.store.Kill(i.Fingerprint)
		break
	}
}

func (tr *traffic) lease(ctx context.Context, key string) {
	l, err := tr.outer.Acquire(ctx, key)
	if err != nil {
		return
	}
	go func() {
		<-time.After(5 * time.Millisecond)
		l.Release()
		l.Release()
	}()
}

func (tr *traffic) newHandle(ctx context.Context) {
	if h, err := session.NewHandle(ctx, "k", []byte("object")); err == nil {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.handles = append(tr.handles, h)
	}
}

// someHandle returns one of the last ones.
func (tr *traffic) someHandle() []byte {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if n := len(tr.handles); n > 0 {
		return tr.handles[max(0, n-1-rand.IntN(20))]
	}
	return nil
}

// end checks what is left.
func (tr *traffic) end() {
	wait(time.Second) // for what has leases yet
	if n := leases(tr.store); n != 0 {
		tr.t.Errorf("%d leases", n)
	}
	if err := errors.Join(tr.store.Check(), tr.store.Shutdown(tr.t.Context())); err != nil {
		tr.t.Error(err)
	}
	if st := tr.store.Resources(); st.Places+st.Opening+st.Open+st.Closing+st.Hung+st.Busy+st.Held != 0 || st.Opened != uint64(tr.opened.Load()) {
		tr.t.Errorf("%+v", st)
	}
	if tr.open.Load() != 0 || tr.opened.Load() != tr.closed.Load() || tr.opened.Load() == 0 {
		tr.t.Errorf("open %d, opened %d, closed %d", tr.open.Load(), tr.opened.Load(), tr.closed.Load())
	}
	if n := tr.store.Named(); n != 0 {
		tr.t.Errorf("%d sessions can be found by handles", n)
	}
	for _, h := range tr.handles {
		if strings.Contains(tr.log.String(), string(h)) {
			tr.t.Error("a handle is in the log")
		}
	}
}
