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

	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"github.com/google/uuid"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// inCall runs f as the handler of one call of the manager's middleware, which is
// told of the call's end twice: that must not matter.
func inCall(in context.Context, manager session.ServerSessionManager, f func(context.Context)) {
	middleware := session.NewServerSessionMiddleware(manager, session.WithLogger(nil))
	ctx := middleware.StartCall(in)
	f(ctx)
	middleware.CallCompleted(ctx, nil)
	middleware.CallCompleted(ctx, nil)
}

// A LeaseStore's lease is taken once for a call, confirmed if the client has
// brought the ID back, told of options that it cannot know of, and given back
// once.
func TestLeaseOfACall(t *testing.T) {
	for _, tt := range []struct {
		name             string
		known, options   bool
		confirmed, holds int
	}{
		{"created", false, false, 0, 0},
		{"created, with options", false, true, 0, 1},
		{"found", true, false, 1, 0},
		{"found, with options", true, true, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lease := &fakeLease{session: &userSession{id: "x"}}
			manager := session.NewStatefulServerSessionManager(
				session.WithFactory(fakeFactory(func() (session.ServerSession, error) { return lease.session, nil })),
				session.WithStore(&fakeLeaseStore{
					add: func(session.ServerSession) (session.SessionLease, error) { return lease, nil },
					acquire: func(string) (session.SessionLease, error) {
						if !tt.known {
							return nil, layover.ErrNotFound
						}
						return lease, nil
					},
				}))
			inCall(withCookies(session.StatefulSessionCookieName+"=x"), manager, func(ctx context.Context) {
				s, err := session.GetSessionFromContext(ctx)
				if err != nil || s != lease.session {
					t.Fatalf("the handler got %v, error %v", s, err)
				}
				if tt.options {
					s.SetSessionOption("a", text("b"))
				}
				if _, _, released := lease.counts(); released != 0 {
					t.Error("the lease was given back during the call")
				}
			})
			if confirmed, holds, released := lease.counts(); confirmed != tt.confirmed || holds != tt.holds || released != 1 {
				t.Errorf("confirmed %d times, held %d times, released %d times", confirmed, holds, released)
			}
		})
	}
}

// Outside of a middleware the manager works too. A lease without a call is a
// touch.
func TestManagerWithoutMiddleware(t *testing.T) {
	store := newStore(t)
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	s, err := manager.CreateSession(t.Context())
	if err != nil || leases(store) != 0 || store.Len() != 1 {
		t.Fatalf("CreateSession: %v, %d leases, %d sessions", err, leases(store), store.Len())
	}
	got, err := manager.GetSession(withCookies(session.StatefulSessionCookieName + "=" + s.Token()))
	if err != nil || got != s || leases(store) != 0 {
		t.Errorf("GetSession: %v, %d leases", err, leases(store))
	}
	if st := store.Stats(); st.Confirmed != 1 {
		t.Errorf("%+v", st)
	}
	if err := errors.Join(manager.CloseSession(s), manager.CloseSession(s)); err != nil || store.Len() != 0 {
		t.Errorf("CloseSession twice: %v, %d sessions", err, store.Len())
	}
	if err := manager.CloseSession(nil); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("CloseSession of nothing: %v", err)
	}
}

// GetSession says that there is none with the bare variable, since Apache's
// middleware compares with !=.
func TestGetSessionReturnsTheBareVariable(t *testing.T) {
	for name, manager := range map[string]session.ServerSessionManager{
		"stateful":                  session.NewStatefulServerSessionManager(),
		"stateful, Apache's store":  session.NewStatefulServerSessionManager(session.WithStore(apache.NewSessionStore())),
		"stateful, store of a user": session.NewStatefulServerSessionManager(session.WithStore(new(fakeStore))),
		"stateless":                 session.NewStatelessServerSessionManager(),
	} {
		for _, in := range []context.Context{
			context.Background(), withCookies(), withCookies("a=b"),
			withCookies(session.StatefulSessionCookieName + "=unknown; " + session.StatelessSessionCookieName + "=*"),
			withCookies(session.StatefulSessionCookieName + "="),
		} {
			if _, err := manager.GetSession(in); err != session.ErrNoSession { //nolint:errorlint // the point of the test
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A store that fails is not a store without the session: the manager neither
// says ErrNoSession nor hides the cause.
func TestStoreFailureIsNotNoSession(t *testing.T) {
	boom := errors.New("boom")
	manager := session.NewStatefulServerSessionManager(session.WithStore(&fakeStore{
		get:    func(string) (session.ServerSession, error) { return nil, boom },
		put:    func(session.ServerSession) error { return boom },
		remove: func(string) error { return boom },
	}))
	_, got := manager.GetSession(withCookies(session.StatefulSessionCookieName + "=x"))
	_, created := manager.CreateSession(t.Context())
	closed := manager.CloseSession(&userSession{id: "x"})
	for name, err := range map[string]error{"GetSession": got, "CreateSession": created, "CloseSession": closed} {
		if !errors.Is(err, boom) || errors.Is(err, session.ErrNoSession) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The text of an error stays readable when there is no ID to keep out of it.
func TestErrorsWithoutAnIDAreReadable(t *testing.T) {
	manager := session.NewStatefulServerSessionManager(session.WithStore(&fakeStore{
		remove: func(string) error { return errors.New("connection lost") },
	}))
	if err := manager.CloseSession(&userSession{}); err == nil || !strings.Contains(err.Error(), "connection lost") {
		t.Errorf("got %v", err)
	}
}

// An ID stays out of an error, also where the store quotes it with characters
// that %q changes. Such an ID cannot travel, but somebody may try to close it.
func TestErrorsDoNotQuoteOddIDs(t *testing.T) {
	manager := session.NewStatefulServerSessionManager(session.WithStore(&fakeStore{
		remove: func(id string) error { return fmt.Errorf("no session %q, %s", id, id) },
	}))
	for _, id := range []string{"secret\tid", `secret"id`, "secret\xffid"} {
		if err := manager.CloseSession(&userSession{id: id}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("got %v", err)
		}
	}
}

// Sessions that a factory made and that no store took are closed: nobody else
// knows of them.
func TestSessionsThatAreNotStoredAreClosed(t *testing.T) {
	full := newStore(t, layover.WithMaxSessions(1))
	busy, err := full.Add(t.Context(), newSession(t, "busy"), layover.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Release()
	taken := newStore(t)
	put(t, taken, newSession(t, "x"))
	draining := newStore(t)
	draining.Drain()
	for _, tt := range []struct {
		name  string
		id    string
		store session.SessionStore
	}{
		{"the store is full", "x", full},
		{"the store drains", "x", draining},
		{"the ID is taken", "x", taken},
		{"the ID is no cookie", "x;", newStore(t)},
		{"a plain store fails", "x", &fakeStore{put: func(session.ServerSession) error { return errors.New("boom") }}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var made []*userSession
			manager := session.NewStatefulServerSessionManager(session.WithStore(tt.store),
				session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
					made = append(made, &userSession{id: tt.id})
					return made[len(made)-1], nil
				})))
			if _, err := manager.CreateSession(t.Context()); err == nil {
				t.Fatal("CreateSession did not fail")
			}
			for i, s := range made {
				if n := s.closeCount(); n != 1 {
					t.Errorf("session %d of %d was closed %d times", i+1, len(made), n)
				}
			}
		})
	}
}

// CloseSession removes sessions of every type, also of one whose values cannot
// be compared.
func TestCloseSessionOfEveryType(t *testing.T) {
	for name, s := range map[string]session.ServerSession{
		"own":                 newSession(t, "x"),
		"of a user's type":    &userSession{id: "x"},
		"not comparable":      valueSession{newSession(t, "x"), map[string]string{"a": "b"}},
		"wraps one of ours":   &struct{ session.ServerSession }{newSession(t, "x")},
		"Apache's":            apacheSession(t, "x"),
		"comparable by value": struct{ session.ServerSession }{&userSession{id: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			manager := session.NewStatefulServerSessionManager(session.WithStore(store),
				session.WithFactory(fakeFactory(func() (session.ServerSession, error) { return s, nil })))
			inCall(withCookies(), manager, func(ctx context.Context) {
				cur, err := session.GetSessionFromContext(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := cur.Close(); err != nil {
					t.Error(err)
				}
			})
			if st := store.Stats(); st.Live != 0 || st.Retired != 0 {
				t.Errorf("after the call that closed it: %+v", st)
			}
		})
	}
}

func apacheSession(t testing.TB, id string) session.ServerSession {
	t.Helper()
	s, err := apache.NewSessionFactory(func() string { return id }).CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A session whose methods panic during a call keeps no lease.
func TestSessionThatPanicsKeepsNoLease(t *testing.T) {
	var poisoned bool
	s := &userSession{id: "x", onClosed: func() {
		if poisoned {
			panic("boom")
		}
	}}
	store := newStore(t)
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	put(t, store, s)
	poisoned = true
	inCall(withCookies(session.StatefulSessionCookieName+"=x"), manager, func(ctx context.Context) {
		if _, err := session.GetSessionFromContext(ctx); err == nil {
			t.Error("the session was found")
		}
	})
	poisoned = false
	if n := leases(store); n != 0 {
		t.Errorf("%d leases are out after the call", n)
	}
}

// A closed session that is still in a store counts as none.
func TestClosedSessionInTheStoreCountsAsNone(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"plain": apache.NewSessionStore(), "ours": newStore(t)} {
		s := &userSession{id: "x"}
		put(t, store, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		manager := session.NewStatefulServerSessionManager(session.WithStore(store))
		if _, err := manager.GetSession(withCookies(session.StatefulSessionCookieName + "=x")); !errors.Is(err, session.ErrNoSession) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Defaults: random UUIDs in a store of ours; nil options and parts mean them.
func TestManagerDefaults(t *testing.T) {
	for name, manager := range map[string]*session.StatefulServerSessionManager{
		"none":       session.NewStatefulServerSessionManager(),
		"nil option": session.NewStatefulServerSessionManager(nil),
		"nil parts":  session.NewStatefulServerSessionManager(session.WithFactory(nil), session.WithStore(nil)),
	} {
		one, err := manager.CreateSession(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		two, err := manager.CreateSession(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		id, err := uuid.Parse(one.Token())
		if err != nil || id.Version() != 4 || one.Token() == two.Token() {
			t.Errorf("%s: the IDs are no random UUIDs, error %v", name, err)
		}
		if got, err := manager.GetSession(withCookies(session.StatefulSessionCookieName + "=" + two.Token())); err != nil || got != two {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The manager's fingerprint of an ID is that of its store, else one of its own.
func TestManagerFingerprint(t *testing.T) {
	store := newStore(t)
	if got := session.NewStatefulServerSessionManager(session.WithStore(store)).Fingerprint("x"); got != store.Fingerprint("x") {
		t.Errorf("got %v, the store's is %v", got, store.Fingerprint("x"))
	}
	one := session.NewStatefulServerSessionManager(session.WithStore(apache.NewSessionStore()))
	two := session.NewStatefulServerSessionManager(session.WithStore(apache.NewSessionStore()))
	if x := one.Fingerprint("x"); x != one.Fingerprint("x") || x == one.Fingerprint("y") {
		t.Error("a fingerprint does not tell one ID from another")
	}
	if one.Fingerprint("x") == two.Fingerprint("x") {
		t.Error("two managers give an ID the same fingerprint without a common key")
	}
}

// The manager may be used by many goroutines; each of them has its own session.
func TestManagerConcurrently(t *testing.T) {
	store := newStore(t)
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				s, err := manager.CreateSession(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				in := withCookies(session.StatefulSessionCookieName + "=" + s.Token())
				inCall(in, manager, func(ctx context.Context) {
					if got, err := session.GetSessionFromContext(ctx); err != nil || got != s {
						t.Errorf("another session: %v", err)
					}
				})
				if err := manager.CloseSession(s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if st := store.Stats(); st.Live != 0 || st.Created != 400 {
		t.Errorf("%+v", st)
	}
}
