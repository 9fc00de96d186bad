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

	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// A session that is closed while it is being stored does not stay in the store.
func TestCloseWhileBeingStored(t *testing.T) {
	store, factory := newStore(t), session.NewSessionFactory(nil)
	for range 5000 {
		s, err := factory.CreateSession()
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		_ = store.Put(s) // may come too late
		wg.Wait()
		if _, err := store.Get(s.Token()); err == nil {
			t.Fatal("a session whose Close has returned is live in the store")
		}
	}
}

// An option that is set late, in a session that was replaced, says nothing of
// its successor.
func TestLateOptionDoesNotHoldTheSuccessor(t *testing.T) {
	store := newStore(t)
	old, successor := newSession(t, "x"), newSession(t, "x")
	l, err := store.Add(t.Context(), old, layover.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	put(t, store, successor)
	old.SetSessionOption("a", text("b"))
	if st := store.Stats(); st.Holding != 0 {
		t.Errorf("the successor is said to hold something: %+v", st)
	}
}

// A session that was closed outside of any call is removed by the call that
// finds it, instead of being kept alive by it.
func TestDeadSessionIsNotKeptAlive(t *testing.T) {
	store := newStore(t)
	s := &userSession{id: "x"}
	put(t, store, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	if _, err := manager.GetSession(withCookies(session.StatefulSessionCookieName + "=x")); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("got %v", err)
	}
	if n := store.Len(); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

// No token of a call reaches the log, however many the client sends; and no
// client can rewrite the log with tokens that are none.
func TestNoTokenOfManyReachesTheLog(t *testing.T) {
	var log logBuffer
	middleware := session.NewServerSessionMiddleware(&fakeManager{get: func(ctx context.Context) (session.ServerSession, error) {
		return nil, fmt.Errorf("cannot read %q", metadata.ValueFromIncomingContext(ctx, "cookie"))
	}}, session.WithLogger(log.logger()))
	var cookies []string
	for i := range 9 {
		cookies = append(cookies, fmt.Sprintf("%s=secret-%d%d%d", session.StatefulSessionCookieName, i, i, i))
	}
	cookies = append(cookies, session.StatefulSessionCookieName+"=a")
	middleware.StartCall(withCookies(strings.Join(cookies, "; ")))
	if text := log.String(); strings.Contains(text, "secret-") || !strings.Contains(text, "cannot read") {
		t.Errorf("the log has %s", text)
	}
}

// Of several calls that close a session at once, exactly one has the client drop
// its cookie, of whatever type the session is.
func TestCallsThatCloseAtOnceDropTheCookieOnce(t *testing.T) {
	for name, manager := range renewable(t) {
		t.Run(name, func(t *testing.T) {
			const width = 4
			var ready, end sync.WaitGroup
			server := &sqlServer{statements: map[string]statement{"END": func(ctx context.Context, _ session.ServerSession) error {
				ready.Done()
				ready.Wait()
				defer end.Wait()
				defer end.Done()
				return session.End(ctx)
			}}}
			c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), server).client()
			for range 200 {
				cookie := c.must(setOption("schema", "prod")).cookie(t)
				ready.Add(width)
				end.Add(width)
				var replies []<-chan reply
				for range width {
					replies = append(replies, c.start(info("END"), cookie))
				}
				dropped := 0
				for _, r := range replies {
					r := <-r
					if r.err != nil {
						t.Fatal(r.err)
					}
					dropped += len(r.header)
				}
				if dropped != 1 {
					t.Fatalf("the cookie was dropped %d times", dropped)
				}
			}
		})
	}
}

// ending ends its session, says so, and is answered when the gate opens.
func ending(ended, gate chan struct{}) statement {
	return func(ctx context.Context, _ session.ServerSession) error {
		err := session.End(ctx)
		close(ended)
		<-gate
		return err
	}
}

// No call that closes a session has the client drop the cookie that a login by
// another one has put in its place, or that follows a login which has failed.
func TestACloseBesideALoginLeavesTheNextCookie(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("the login fails: ", fails), func(t *testing.T) {
			var n atomic.Int64
			var armed atomic.Bool
			making, goOn, ended, gate := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
			ids := session.NewSessionFactory(func() string {
				if armed.CompareAndSwap(true, false) {
					close(making)
					if <-goOn; fails {
						return "no cookie; value"
					}
				}
				return fmt.Sprint("id-number-", n.Add(1))
			})
			m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(ids))
			server := &sqlServer{statements: map[string]statement{"END": ending(ended, gate), "BEGIN": func(ctx context.Context, _ session.ServerSession) error {
				_, err := session.Begin(ctx)
				return err
			}}}
			c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), server).client()
			old := c.must(setOption("schema", "prod")).cookie(t)
			armed.Store(true)
			begun := c.start(info("BEGIN"), old)
			<-making
			closed := c.start(info("END"), old)
			<-ended
			close(goOn)
			r := <-begun
			if fails {
				r = c.do(setOption("schema", "next"), old)
			}
			next := r.cookie(t)
			close(gate)
			if r := <-closed; r.err != nil || r.header != nil || r.trailer != nil {
				t.Errorf("the client was given %q, and then told %v", next, r)
			}
		})
	}
}

// pausing is a session that pauses the nth time from now that it tells its token.
type pausing struct {
	tokenUser
	left          atomic.Int64
	reached, gate chan struct{}
}

func (s *pausing) Token() string {
	token := s.tokenUser.Token()
	if s.left.Add(-1) == 0 {
		close(s.reached)
		<-s.gate
	}
	return token
}

// servePausing serves one session that pauses, and then such as do not.
func servePausing(t *testing.T, statements func(*pausing) map[string]statement) (*client, *pausing) {
	s := &pausing{tokenUser: tokenUser{userSession: &userSession{id: "user-session-1"}}, reached: make(chan struct{}), gate: make(chan struct{})}
	var n atomic.Int64
	m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		if n.Add(1) == 1 {
			return s, nil
		}
		return &tokenUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Load())}}, nil
	})))
	return serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), &sqlServer{statements: statements(s)}).client(), s
}

// A renewal that fails since another call closes the session has nothing to do with
// the cookie that the client gets next.
func TestACloseBesideARenewalLeavesTheNextCookie(t *testing.T) {
	ended, gate := make(chan struct{}), make(chan struct{})
	c, s := servePausing(t, func(s *pausing) map[string]statement {
		return map[string]statement{"END": ending(ended, gate), "RENEW": func(ctx context.Context, _ session.ServerSession) error {
			s.left.Store(2)
			return session.Renew(ctx)
		}}
	})
	old := c.must(setOption("schema", "prod")).cookie(t)
	renewal := c.start(info("RENEW"), old)
	<-s.reached
	closed := c.start(info("END"), old)
	<-ended
	close(s.gate)
	if r := <-renewal; r.err == nil || r.header != nil {
		t.Errorf("a session that was closed is renewed: %v", r)
	}
	next := c.must(setOption("schema", "next"), old).cookie(t)
	close(gate)
	if r := <-closed; r.err != nil || r.header != nil || r.trailer != nil {
		t.Errorf("the client was given %q, and then told %v", next, r)
	}
}

// A close that began before a renewal, and ends what was renewed, does not have the
// client drop the new cookie at some time.
func TestACloseAfterARenewalLeavesTheNewCookie(t *testing.T) {
	c, s := servePausing(t, func(s *pausing) map[string]statement {
		return map[string]statement{
			"RENEW": func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx) },
			"END": func(ctx context.Context, _ session.ServerSession) error {
				s.left.Store(1)
				return session.End(ctx)
			},
		}
	})
	old := c.must(setOption("schema", "prod")).cookie(t)
	closed := c.start(info("END"), old)
	<-s.reached
	renewed := c.must(info("RENEW"), old).cookie(t)
	close(s.gate)
	if r := <-closed; r.err != nil || r.header != nil || r.trailer != nil {
		t.Errorf("the client was given %q, and then told %v", renewed, r)
	}
	if got := c.option("schema", renewed); got != "" {
		t.Errorf("the session was closed, and has schema %q", got)
	}
}

// mute is a session that notes whether it is asked for its token after its end.
type mute struct {
	*userSession
	over, asked atomic.Bool
}

func (s *mute) Close() error {
	s.over.Store(true)
	return s.userSession.Close()
}

func (s *mute) Token() string {
	if s.over.Load() {
		s.asked.Store(true)
	}
	return s.userSession.Token()
}

// No session is asked for its token after its end.
func TestASessionThatHasEndedIsNotAskedForItsToken(t *testing.T) {
	s := &mute{userSession: &userSession{id: "made"}}
	m := &fakeManager{get: func(context.Context) (session.ServerSession, error) { return s, nil }}
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"END": func(ctx context.Context, _ session.ServerSession) error { return session.End(ctx) },
	}}).client()
	if r := c.do(info("END"), session.StatefulSessionCookieName+"=made"); r.err != nil || len(r.header) != 1 || s.asked.Load() {
		t.Errorf("it was asked: %t; %v", s.asked.Load(), r)
	}
}
