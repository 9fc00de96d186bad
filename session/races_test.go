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
