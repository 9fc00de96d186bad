// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// renewing is a server whose statement RENEW renews the session.
func renewing(who ...session.Principal) *sqlServer {
	renew := func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx, who...) }
	return &sqlServer{statements: map[string]statement{"RENEW": renew}}
}

// tokenUser is a session of the server's own type that can be renewed.
type tokenUser struct {
	*userSession
	mu sync.Mutex
}

func (s *tokenUser) Token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.id
}

func (s *tokenUser) SetToken(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id = token
}

// renewable are managers whose sessions can be renewed.
func renewable(t *testing.T) map[string]*session.StatefulServerSessionManager {
	var n atomic.Int64
	users := fakeFactory(func() (session.ServerSession, error) {
		return &tokenUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}}, nil
	})
	return map[string]*session.StatefulServerSessionManager{
		"ours":            session.NewStatefulServerSessionManager(session.WithStore(newStore(t))),
		"a type of users": session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(users)),
		"Apache's store":  session.NewStatefulServerSessionManager(session.WithStore(apache.NewSessionStore())),
		"IDs of users": session.NewStatefulServerSessionManager(session.WithStore(newStore(t)),
			session.WithFactory(session.NewSessionFactory(func() string { return fmt.Sprint("id-number-", n.Add(1)) }))),
	}
}

// option returns what GetSessionOptions tells of an option; empty: nothing, or the
// call was refused.
func (c *client) option(name string, cookies ...string) string {
	var options map[string]*flight.SessionOptionValue
	_ = c.do(getOptions(&options), cookies...)
	return options[name].GetStringValue()
}

// After Renew the client has a new ID, by which its session is what it was; the old
// one finds nothing, and whoever comes with it is told so.
func TestARenewedSessionLivesOnUnderANewID(t *testing.T) {
	for name, manager := range renewable(t) {
		for how, f := range map[string]call{"unary": info("RENEW"), "stream": scan("direct:RENEW")} {
			t.Run(name+", "+how, func(t *testing.T) {
				c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), renewing()).client()
				old := c.must(setOption("schema", "prod")).cookie(t)
				renewed := c.must(f, old).cookie(t)
				if token(renewed) == token(old) {
					t.Fatal("the ID is what it was")
				}
				if got := c.schema("cookie", renewed); got != "prod" {
					t.Errorf("schema %q", got)
				}
				for range 3 { // nothing gets the place, and the cookie, of the new one
					r := c.do(setOption("schema", "other"), old)
					if status.Code(r.err) != codes.NotFound || r.header != nil || strings.Contains(fmt.Sprint(r), token(renewed)) {
						t.Errorf("with the old ID: %v", r)
					}
				}
				c.must(closeSession, renewed)
				if got := c.option("schema", renewed); got != "" {
					t.Errorf("closed, and has schema %q", got)
				}
			})
		}
	}
}

// Who comes with the old ID is told why it finds nothing.
func TestTheOldIDOfARenewedSessionIsExplained(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store), renewing()).client()
	old := c.must(setOption("schema", "prod")).cookie(t)
	c.must(info("RENEW"), old)
	r := c.do(info(""), old)
	if got := reasonOf(t, r.err); got != "SESSION_RENAMED" || !strings.Contains(r.err.Error(), "it was given a new ID") {
		t.Errorf("%s: %v", got, r.err)
	}
	if ev, ok := store.Explain(store.Fingerprint(token(old))); !ok || ev.Reason != layover.ReasonRenamed {
		t.Errorf("%v", ev)
	}
}

// Calls that are under way with the old ID go on with the session: they see what
// others set by the new one, and keep it from ending.
func TestTheOldIDIsGoodForCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, gate := newStore(t), make(chan struct{})
		server := renewing()
		server.statements["late"] = func(ctx context.Context, s session.ServerSession) error {
			<-gate
			if v := s.GetSessionOption("schema").GetStringValue(); v != "new" {
				return fmt.Errorf("schema %q", v)
			}
			if err := session.SetOption(ctx, "late", text("x")); err != nil {
				return err
			}
			l, err := session.Acquire(ctx)
			if err == nil {
				l.Release()
			}
			return err
		}
		c := serveEdgeInBubble(t, edge(store), server).client()
		old := c.must(setOption("schema", "prod")).cookie(t)
		late := []<-chan reply{c.start(info("late"), old), c.start(scan("late"), old)}
		synctest.Wait()
		renewed := c.must(info("RENEW"), old).cookie(t)
		c.must(setOption("schema", "new"), renewed)
		wait(layover.DefaultIdleTimeout * 2)
		close(gate)
		for _, d := range late {
			if r := <-d; r.err != nil {
				t.Error(r.err)
			}
		}
		if got := c.option("late", renewed); got != "x" {
			t.Errorf("an option that a call with the old ID has set: %q", got)
		}
		if leases(store) != 0 || store.Check() != nil {
			t.Errorf("%d leases, %v", leases(store), store.Check())
		}
	})
}

// A call with the old ID that closes the session closes it.
func TestACallUnderWayClosesARenewedSession(t *testing.T) {
	for name, manager := range renewable(t) {
		t.Run(name, func(t *testing.T) {
			reached, gate := make(chan struct{}), make(chan struct{})
			server := renewing()
			server.statements["late close"] = func(ctx context.Context, _ session.ServerSession) error {
				close(reached)
				<-gate
				return session.End(ctx)
			}
			c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), server).client()
			old := c.must(setOption("schema", "prod")).cookie(t)
			late := c.start(info("late close"), old)
			<-reached
			renewed := c.must(info("RENEW"), old).cookie(t)
			close(gate)
			if r := <-late; r.err != nil {
				t.Error(r.err)
			}
			if got := c.option("schema", renewed); got != "" {
				t.Errorf("schema %q", got)
			}
		})
	}
}

// When the header has left, the client would never learn of the new ID: that is an
// error, and the old one holds.
func TestRenewingAfterTheHeaderIsAnError(t *testing.T) {
	server := renewing()
	server.statements["header, RENEW"] = func(ctx context.Context, _ session.ServerSession) error {
		if err := grpc.SendHeader(ctx, metadata.MD{}); err != nil {
			return err
		}
		return session.Renew(ctx)
	}
	received := make(chan struct{})
	server.statements["received, RENEW"] = func(ctx context.Context, _ session.ServerSession) error {
		<-received
		return session.Renew(ctx)
	}
	store := newStore(t)
	c := serveEdge(t, edge(store), server).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	stream := func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
		ticket, err := flightsql.CreateStatementQueryTicket([]byte("received, RENEW"))
		if err != nil {
			return err
		}
		r, err := c.DoGet(ctx, &flight.Ticket{Ticket: ticket}, opts...)
		if err != nil {
			return err
		}
		defer r.Release()
		if r.Next() {
			close(received)
		}
		for r.Next() {
		}
		return r.Err()
	}
	for what, f := range map[string]call{"stream": stream, "unary": info("header, RENEW")} {
		r := c.do(f, cookie)
		if status.Code(r.err) != codes.FailedPrecondition || reasonOf(t, r.err) != "SESSION_RENEWED_TOO_LATE" || len(r.trailer) > 0 {
			t.Errorf("%s: %v", what, r)
		}
		if got := c.schema("cookie", cookie); got != "prod" {
			t.Errorf("%s: schema %q", what, got)
		}
	}
	if st := store.Stats(); st.Created != 1 || st.Ended.Total() != 0 {
		t.Errorf("%+v", st)
	}
}

// A login handler makes an anonymous session the property of the principal: from
// then on it is worth nothing to others, and what was set before stays.
func TestRenewBindsTheSessionToThePrincipal(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"ours": newStore(t), "Apache's": apache.NewSessionStore()} {
		t.Run(name, func(t *testing.T) {
			var seen alarms
			alice := []string{"x-user", "alice"}
			c := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithSecurityEvents(seen.tell)), renewing(session.Principal{Name: "alice"})).client()
			planted := c.must(setOption("schema", "prod")).cookie(t)
			hers := c.must(info("RENEW"), planted).cookie(t)
			if got := c.schema(append(alice, "cookie", hers)...); got != "prod" {
				t.Errorf("alice has schema %q", got)
			}
			for _, thief := range []string{"", "bob"} {
				if got := c.schema("x-user", thief, "cookie", hers); got != "" {
					t.Errorf("%q has schema %q", thief, got)
				}
			}
			if n := len(seen.take()); n != 2 {
				t.Errorf("%d events", n)
			}
			if r := c.do(with(getOptions(nil), alice...), planted); r.err != nil && status.Code(r.err) != codes.NotFound {
				t.Error(r.err)
			}
			if s, ok := store.(*session.ExpiringSessionStore); ok {
				if all := s.Sources(9); len(all) != 1 || all[0].Name != "principal alice" {
					t.Errorf("sources %+v", all)
				}
			}
		})
	}
}

// Renewing for a principal who has as many sessions as it may have is refused, and
// the client keeps its old ID; it never counts twice.
func TestRenewingHeedsTheMaximumPerPrincipal(t *testing.T) {
	store := newStore(t)
	alice := []string{"x-user", "alice"}
	c := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithMaxPerPrincipal(1, session.RefuseNewest)), renewing(session.Principal{Name: "alice"})).client()
	hers := c.must(with(setOption("schema", "hers"), alice...)).cookie(t)
	other := c.must(setOption("schema", "prod")).cookie(t)
	r := c.do(info("RENEW"), other)
	if status.Code(r.err) != codes.ResourceExhausted {
		t.Errorf("%v", r)
	}
	if all := r.header; len(all) > 0 && all[len(all)-1] != other {
		t.Errorf("the client was told of %q", all)
	}
	if got := c.schema("cookie", other); got != "prod" {
		t.Errorf("schema %q", got)
	}
	hers = c.must(with(info("RENEW"), alice...), hers).cookie(t)
	if got := c.schema(append(alice, "cookie", hers)...); got != "hers" {
		t.Errorf("alice has schema %q", got)
	}
}

// What cannot be renewed says so, and nothing has changed: other managers, stores
// that cannot rename, and types that do not know how. Where there is nothing to
// renew, nothing happens.
func TestWhatCannotBeRenewedSaysSo(t *testing.T) {
	user := func() session.SessionFactory {
		n := 0
		return fakeFactory(func() (session.ServerSession, error) {
			n++
			return &userSession{id: fmt.Sprint("user-session-", n)}, nil
		})
	}
	var got error
	server := &sqlServer{statements: map[string]statement{"RENEW": func(ctx context.Context, _ session.ServerSession) error {
		got = session.Renew(ctx)
		return nil
	}}}
	for name, m := range map[string]session.ServerSessionManager{
		"stateless":     session.NewStatelessServerSessionManager(),
		"a lease store": session.NewStatefulServerSessionManager(session.WithStore(&fakeLeases{newStore(t)})),
		"a type":        session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(user())),
	} {
		c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		if r := c.must(info("RENEW"), cookie); !errors.Is(got, errors.ErrUnsupported) || r.header != nil {
			t.Errorf("%s: %v, %v", name, got, r)
		}
		if got := c.schema("cookie", cookie); got != "prod" {
			t.Errorf("%s: schema %q", name, got)
		}
	}
	for name, headers := range map[string][]string{"no session": nil, "a principal's": {"x-user", "alice"}} {
		c := serveEdge(t, edge(newStore(t), session.WithCarriers(session.ByPrincipal(who), session.Cookie("c"))), server).client()
		if headers != nil {
			c.must(with(setOption("schema", "prod"), headers...))
		}
		if r := c.must(with(info("RENEW"), headers...)); got != nil || r.header != nil {
			t.Errorf("%s: %v, %v", name, got, r)
		}
	}
	if err := session.Renew(t.Context()); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("outside of a call: %v", err)
	}
}

// However many calls renew, use and close one session at a time, it is one session,
// that whoever got the last ID has, and is closed once.
func TestParallelRenewals(t *testing.T) {
	for name, manager := range renewable(t) {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), renewing()).client()
			for range 20 {
				cookie := c.must(setOption("schema", "prod")).cookie(t)
				var mu sync.Mutex
				var cookies []string
				var all sync.WaitGroup
				for range 4 {
					all.Go(func() {
						r := c.do(info("RENEW"), cookie)
						mu.Lock()
						defer mu.Unlock()
						cookies = append(cookies, r.header...)
					})
					all.Go(func() { _ = c.do(getOptions(nil), cookie) })
				}
				all.Wait()
				cookies = slices.DeleteFunc(cookies, func(one string) bool { return token(one) == token(cookie) })
				live := 0
				for _, one := range cookies {
					if c.option("schema", one) == "prod" {
						live++
						c.must(closeSession, one)
					}
				}
				if live != 1 {
					t.Fatalf("%d of %d cookies are of a session", live, len(cookies))
				}
			}
		})
	}
}

// A session can be renewed by the call that made it, of which the client learns the
// last ID.
func TestASessionIsRenewedInItsFirstCall(t *testing.T) {
	for name, manager := range renewable(t) {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
				"BOTH": func(ctx context.Context, s session.ServerSession) error {
					if err := session.SetOption(ctx, "schema", text("prod")); err != nil {
						return err
					}
					return session.Renew(ctx)
				},
			}}).client()
			r := c.must(info("BOTH"))
			if got := c.option("schema", r.header[len(r.header)-1]); got != "prod" {
				t.Errorf("schema %q by the last of %q", got, r.header)
			}
		})
	}
}

// A session that becomes a principal's ends no later than what has proved who that is.
func TestARenewedSessionEndsWithTheProofOfItsNewOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ends := time.Now().Add(10 * time.Minute)
		c := serveEdgeInBubble(t, edge(newStore(t), session.WithPrincipal(who)), renewing(session.Principal{Name: "alice", Expires: ends})).client()
		hers := c.must(info("RENEW"), c.must(setOption("schema", "prod")).cookie(t)).cookie(t)
		wait(10*time.Minute + time.Second)
		if r := c.do(with(getOptions(nil), "x-user", "alice"), hers); reasonOf(t, r.err) != "SESSION_LIFETIME" {
			t.Errorf("%v", r)
		}
	})
}

// Calls that renew a session at the same time all succeed, one after the other, of
// whatever type it is.
func TestParallelRenewalsAllSucceed(t *testing.T) {
	for name, manager := range renewable(t) {
		if name == "Apache's store" {
			continue // which may have the session without a lease when another call has renewed it
		}
		t.Run(name, func(t *testing.T) {
			var ready sync.WaitGroup
			c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
				"RENEW": func(ctx context.Context, _ session.ServerSession) error {
					ready.Done() // all have the session
					ready.Wait()
					return session.Renew(ctx)
				},
			}}).client()
			for range 20 {
				cookie := c.must(setOption("schema", "prod")).cookie(t)
				ready.Add(4)
				var all sync.WaitGroup
				for range 4 {
					all.Go(func() { c.must(info("RENEW"), cookie) })
				}
				all.Wait()
			}
		})
	}
}
