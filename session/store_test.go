// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// newSession returns a new session of this package with an ID.
func newSession(t testing.TB, id string) session.ServerSession {
	t.Helper()
	s, err := session.NewSessionFactory(func() string { return id }).CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put stores s or fails the test.
func put(t testing.TB, store session.SessionStore, s session.ServerSession) {
	t.Helper()
	if err := store.Put(s); err != nil {
		t.Fatal(err)
	}
}

// Put of what is there already is a touch and closes nothing.
func TestPutOfTheSameSessionIsATouch(t *testing.T) {
	for name, s := range map[string]session.ServerSession{"own": newSession(t, "x"), "of a user's type": &userSession{id: "x"}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore(t)
				put(t, store, s)
				for range 5 {
					wait(layover.DefaultEmptyTimeout - time.Second)
					put(t, store, s)
				}
				if got, err := store.Get("x"); err != nil || got != s || s.Closed() {
					t.Errorf("Get: %v, closed %v", err, s.Closed())
				}
				if st := store.Stats(); st.Created != 1 || st.Closed != 0 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// Two calls that put the same new session at the same time both succeed, as
// with Apache's store.
func TestConcurrentPutsOfOneSession(t *testing.T) {
	store := newStore(t)
	for i := range 2000 {
		s := newSession(t, fmt.Sprint(i))
		start := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				<-start
				if err := store.Put(s); err != nil {
					t.Errorf("Put: %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
	}
	if st := store.Stats(); st.Live != 2000 || st.Created != 2000 {
		t.Errorf("%+v", st)
	}
}

// Put of another session with the same token ends the old one, once.
func TestPutOfAnotherSessionReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		old, next := &userSession{id: "x"}, &userSession{id: "x"}
		put(t, store, old)
		put(t, store, next)
		synctest.Wait()
		if got, err := store.Get("x"); err != nil || got != session.ServerSession(next) {
			t.Errorf("Get: %v", err)
		}
		if old.closeCount() != 1 || next.closeCount() != 0 {
			t.Errorf("the old one was closed %d times, the new one %d times", old.closeCount(), next.closeCount())
		}
		if st := store.Stats(); st.Live != 1 || st.Ended[layover.ReasonReplaced] != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// What cannot be stored is not.
func TestPutRefuses(t *testing.T) {
	store := newStore(t)
	closed := newSession(t, "closed")
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	elsewhere := newSession(t, "elsewhere")
	put(t, newStore(t), elsewhere)
	for name, s := range map[string]session.ServerSession{
		"nil": nil, "typed nil": (*userSession)(nil), "empty token": &userSession{}, "closed": closed,
		"closed, of a user's type": &userSession{id: "x", closes: 1}, "in another store": elsewhere,
	} {
		if err := store.Put(s); err == nil {
			t.Errorf("Put stores a session: %s", name)
		}
		if l, err := store.Add(t.Context(), s, layover.Origin{}); err == nil || l != nil {
			t.Errorf("Add stores a session: %s", name)
		}
	}
	if st := store.Stats(); st.Created != 0 || elsewhere.Closed() {
		t.Errorf("%+v, the session of the other store is closed: %v", st, elsewhere.Closed())
	}
}

// A session that a full store refused can be stored when there is room.
func TestRefusedSessionCanBeStoredLater(t *testing.T) {
	store := newStore(t, layover.WithMaxSessions(1))
	busy, err := store.Add(t.Context(), newSession(t, "busy"), layover.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	s := newSession(t, "x")
	if err := store.Put(s); !errors.Is(err, layover.ErrFull) {
		t.Errorf("Put into a full store: %v", err)
	}
	if _, err := store.Add(t.Context(), s, layover.Origin{}); !errors.Is(err, layover.ErrFull) {
		t.Errorf("Add to a full store: %v", err)
	}
	s.SetSessionOption("a", text("b")) // it is alive
	busy.Release()
	put(t, store, s)
	if got, err := store.Get("x"); err != nil || got != s || s.GetSessionOption("a") == nil {
		t.Errorf("Get: %v", err)
	}
}

// What stands for an ID is the store's fingerprint of it.
func TestPrintedIsTheFingerprint(t *testing.T) {
	store := newStore(t)
	s := newSession(t, secretID)
	lease, err := store.Add(t.Context(), s, layover.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	defer lease.Release()
	mark := store.Fingerprint(secretID).String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, v := range []any{s, lease} {
			if got := fmt.Sprintf(verb, v); !strings.Contains(got, mark) || strings.Contains(got, secretID) {
				t.Errorf("%s of a %T is %s", verb, v, got)
			}
		}
	}
}

// Remove of what is not there, or not any more, succeeds.
func TestRemoveIsIdempotent(t *testing.T) {
	store := newStore(t)
	put(t, store, newSession(t, "x"))
	for range 3 {
		if err := store.Remove("x"); err != nil {
			t.Error(err)
		}
	}
	for _, id := range []string{"never", ""} {
		if err := store.Remove(id); err != nil {
			t.Error(err)
		}
	}
	if err := store.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := store.Remove("x"); err != nil {
		t.Errorf("after Shutdown: %v", err)
	}
	if st := store.Stats(); st.Ended[layover.ReasonClosed] != 1 || st.Closed != 1 {
		t.Errorf("%+v", st)
	}
}

// A late Close of a session that was replaced does not end its successor;
// neither does the manager's CloseSession.
func TestLateCloseSparesTheSuccessor(t *testing.T) {
	store := newStore(t)
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	first, second, third := newSession(t, "x"), newSession(t, "x"), &userSession{id: "x"}
	put(t, store, first)
	put(t, store, second)
	if err := errors.Join(first.Close(), manager.CloseSession(first)); err != nil {
		t.Error(err)
	}
	if got, err := store.Get("x"); err != nil || got != second || second.Closed() {
		t.Errorf("the second session is gone: %v, closed %v", err, second.Closed())
	}
	put(t, store, third)
	if err := errors.Join(second.Close(), manager.CloseSession(second)); err != nil {
		t.Error(err)
	}
	if got, err := store.Get("x"); err != nil || got != session.ServerSession(third) || third.Closed() {
		t.Errorf("the third session is gone: %v, closed %v", err, third.Closed())
	}
}

// A late save, of a session that was removed while a call used it, does not
// bring it back.
func TestLatePutDoesNotResurrect(t *testing.T) {
	for name, end := range map[string]func(*session.ExpiringSessionStore, session.ServerSession) error{
		"removed": func(store *session.ExpiringSessionStore, s session.ServerSession) error {
			return store.Remove(s.Token())
		},
		"closed": func(_ *session.ExpiringSessionStore, s session.ServerSession) error { return s.Close() },
		"past its lifetime": func(*session.ExpiringSessionStore, session.ServerSession) error {
			wait(layover.DefaultLifetime)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore(t)
				s := newSession(t, "x")
				lease, err := store.Add(t.Context(), s, layover.Origin{})
				if err != nil {
					t.Fatal(err)
				}
				if err := end(store, s); err != nil {
					t.Fatal(err)
				}
				if err := store.Put(s); err == nil {
					t.Error("a session that has ended can be put again")
				}
				lease.Release()
				synctest.Wait()
				if got, err := store.Get("x"); err == nil {
					t.Errorf("the session is back, closed: %v", got.Closed())
				}
				if st := store.Stats(); st.Live != 0 || st.Closed != 1 {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// ends are all ways in which a session leaves a store.
var ends = map[string]func(*testing.T, *session.ExpiringSessionStore, session.ServerSession){
	"idle, lifetime or unconfirmed": func(*testing.T, *session.ExpiringSessionStore, session.ServerSession) {
		wait(layover.DefaultLifetime)
	},
	"capacity": func(t *testing.T, store *session.ExpiringSessionStore, _ session.ServerSession) {
		put(t, store, &userSession{id: "another"})
	},
	"removed": func(t *testing.T, store *session.ExpiringSessionStore, s session.ServerSession) {
		if err := store.Remove(s.Token()); err != nil {
			t.Error(err)
		}
	},
	"replaced": func(t *testing.T, store *session.ExpiringSessionStore, s session.ServerSession) {
		put(t, store, &userSession{id: s.Token()})
	},
	"killed": func(t *testing.T, store *session.ExpiringSessionStore, s session.ServerSession) {
		if !store.Kill(store.Fingerprint(s.Token())) {
			t.Error("nothing to kill")
		}
	},
	"shutdown": func(t *testing.T, store *session.ExpiringSessionStore, _ session.ServerSession) {
		if err := store.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	},
}

// A session of a user's type is closed exactly once, whatever ends it: by the
// store, unless its handler did.
func TestForeignSessionIsClosedOnce(t *testing.T) {
	for name, end := range ends {
		for _, byHandler := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", closed by its handler ", byHandler), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newStore(t, layover.WithMaxSessions(1))
					s := &userSession{id: "x"}
					put(t, store, s)
					if byHandler {
						if err := s.Close(); err != nil {
							t.Error(err)
						}
					}
					end(t, store, s)
					synctest.Wait()
					if n := s.closeCount(); n != 1 {
						t.Errorf("closed %d times", n)
					}
					if got, err := store.Get("x"); err == nil && got == session.ServerSession(s) {
						t.Error("it is still there")
					}
				})
			})
		}
	}
}

// A session of this package is torn down, whatever ends it: it counts as
// closed, and takes no more options. Those that it has go with it: it may have
// been killed under a call that goes by them.
func TestOwnSessionIsTornDown(t *testing.T) {
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore(t, layover.WithMaxSessions(1))
				s := newSession(t, "x")
				s.SetSessionOption("a", text("b"))
				put(t, store, s)
				end(t, store, s)
				synctest.Wait()
				s.SetSessionOption("late", text("b"))
				if !s.Closed() || len(s.GetSessionOptions()) != 1 {
					t.Errorf("closed %v, options %v", s.Closed(), s.GetSessionOptions())
				}
				if err := s.Close(); err != nil {
					t.Errorf("a late Close: %v", err)
				}
			})
		})
	}
}

// A session that got its first option before it was stored holds something, and
// so does one that gets it while it is being stored.
func TestOptionsBeforeTheStoreCount(t *testing.T) {
	store := newStore(t)
	s := newSession(t, "before")
	s.SetSessionOption("a", text("b"))
	put(t, store, s)
	for i := range 200 {
		s := newSession(t, fmt.Sprint(i))
		var wg sync.WaitGroup
		wg.Go(func() { s.SetSessionOption("a", text("b")) })
		wg.Go(func() {
			if i%2 == 0 {
				put(t, store, s)
				return
			}
			if l, err := store.Add(t.Context(), s, layover.Origin{}); err != nil {
				t.Error(err)
			} else {
				l.Release()
			}
		})
		wg.Wait()
	}
	if st := store.Stats(); st.Live != 201 || st.Holding != 201 {
		t.Errorf("%+v", st)
	}
}

// Get, Add, Acquire and their leases answer as documented.
func TestStoreErrors(t *testing.T) {
	store := newStore(t, layover.WithMaxSessions(1))
	lease, err := store.Add(t.Context(), newSession(t, "x"), layover.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Add(t.Context(), newSession(t, "x"), layover.Origin{}); !errors.Is(err, layover.ErrExists) {
		t.Errorf("Add of a taken token: %v", err)
	}
	if _, err := store.Add(t.Context(), newSession(t, "y"), layover.Origin{}); !errors.Is(err, layover.ErrFull) {
		t.Errorf("Add to a full store: %v", err)
	}
	if err := store.Put(newSession(t, "y")); !errors.Is(err, layover.ErrFull) {
		t.Errorf("Put into a full store: %v", err)
	}
	if _, err := store.Get("y"); !errors.Is(err, layover.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if l, err := store.Acquire(t.Context(), "y"); !errors.Is(err, layover.ErrNotFound) || l != nil {
		t.Errorf("Acquire: %v, %v", l, err)
	}
	second, err := store.Acquire(t.Context(), "x")
	if err != nil || second.Session() != lease.Session() || leases(store) != 2 {
		t.Errorf("Acquire: %v, %d leases", err, leases(store))
	}
	for range 3 {
		lease.Release()
	}
	if lease.Session() != nil || leases(store) != 1 {
		t.Errorf("after three releases of one lease: session %v, %d leases", lease.Session(), leases(store))
	}
	lease.Confirm()
	lease.Hold()
	second.Release()
	store.Drain()
	if err := store.Put(newSession(t, "z")); !errors.Is(err, layover.ErrDraining) {
		t.Errorf("Put while draining: %v", err)
	}
	if err := store.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get("x"); !errors.Is(err, layover.ErrShutdown) {
		t.Errorf("Get after Shutdown: %v", err)
	}
	if _, err := store.Acquire(t.Context(), "x"); !errors.Is(err, layover.ErrShutdown) {
		t.Errorf("Acquire after Shutdown: %v", err)
	}
}

// Options that make no sense are an error, or a panic.
func TestStoreOptions(t *testing.T) {
	bad := layover.WithMaxSessions(-1)
	if s, err := session.OpenSessionStore(bad); !errors.Is(err, layover.ErrOptions) || s != nil {
		t.Errorf("OpenSessionStore: %v, %v", s, err)
	}
	func() {
		defer func() {
			if err, ok := recover().(error); !ok || !errors.Is(err, layover.ErrOptions) {
				t.Errorf("NewSessionStore panicked with %v", err)
			}
		}()
		session.NewSessionStore(bad)
	}()
	store := newStore(t)
	if err := store.Reconfigure(bad); !errors.Is(err, layover.ErrOptions) {
		t.Errorf("Reconfigure: %v", err)
	}
	put(t, store, newSession(t, "a"))
	put(t, store, newSession(t, "b"))
	if err := store.Reconfigure(layover.WithMaxSessions(1)); err != nil || store.Len() != 1 {
		t.Errorf("Reconfigure: %v, %d sessions", err, store.Len())
	}
}

// All, Explain, Kill and Fingerprint speak of the same session, without its
// token.
func TestStoreExplains(t *testing.T) {
	store := newStore(t)
	s := newSession(t, "x")
	put(t, store, s)
	f := store.Fingerprint("x")
	seen := 0
	for in, got := range store.All() {
		if seen++; in.Fingerprint != f || got != s {
			t.Errorf("All yields %v", in)
		}
	}
	for range store.All() {
		break // must not go on
	}
	if _, ok := store.Explain(f); ok || seen != 1 {
		t.Errorf("Explain of a live session: %v; All yielded %d", ok, seen)
	}
	if !store.Kill(f) || store.Kill(f) {
		t.Error("Kill did not kill once")
	}
	if ev, ok := store.Explain(f); !ok || ev.Reason != layover.ReasonKilled {
		t.Errorf("Explain: %v, %v", ev, ok)
	}
}

// Readers and writers of one session's options do not disturb each other.
func TestOptionsConcurrently(t *testing.T) {
	store := newStore(t)
	stored := newSession(t, "x")
	put(t, store, stored)
	for _, s := range []session.ServerSession{stored, newSession(t, "y"), session.NewStatelessServerSession(nil)} {
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 200 {
					name := fmt.Sprint((g + i) % 7)
					s.SetSessionOption(name, text(name))
					for key, v := range s.GetSessionOptions() {
						if v.GetStringValue() != key {
							t.Errorf("option %s has the value %q", key, v.GetStringValue())
						}
					}
					_ = s.GetSessionOption(name)
					_ = s.Token()
					_ = fmt.Sprint(s)
					s.EraseSessionOption(name)
					if g == 0 && i == 150 {
						if err := s.Close(); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}
		wg.Wait()
	}
}

// An ID is a bearer secret: nothing of this package prints it, in no way.
func TestNothingPrintsAnID(t *testing.T) {
	var printed []any
	store := newStore(t, layover.WithMaxSessions(1), layover.WithWhenFull(layover.KeepConfirmed),
		layover.WithObserver(func(layover.Event) {}))
	inStore, inNone := newSession(t, secretID), newSession(t, secretID)
	inStore.SetSessionOption("a", text("b"))
	lease, err := store.Add(t.Context(), inStore, layover.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	lease.Confirm()
	manager := session.NewStatefulServerSessionManager(session.WithStore(store),
		session.WithFactory(session.NewSessionFactory(func() string { return secretID })))
	failing := session.NewStatefulServerSessionManager(session.WithStore(&fakeStore{
		get:    func(string) (session.ServerSession, error) { return nil, errBackEnd },
		put:    func(session.ServerSession) error { return errBackEnd },
		remove: func(string) error { return errBackEnd },
	}), session.WithFactory(session.NewSessionFactory(func() string { return secretID })))
	middleware := session.NewServerSessionMiddleware(manager, session.WithLogger(nil))
	for in, s := range store.All() {
		printed = append(printed, in, s)
	}
	printed = append(printed, inStore, inNone, store, lease, manager, failing, middleware, manager.Fingerprint(secretID),
		failing.Fingerprint(secretID), store.Stats(), struct{ S session.ServerSession }{inStore},
		map[string]session.ServerSession{"s": inNone}, []session.SessionLease{lease})

	cookie := withCookies(session.StatefulSessionCookieName + "=" + secretID)
	note := func(_ any, err error) {
		t.Helper()
		if err == nil {
			t.Error("no error to print")
		}
		printed = append(printed, err, fmt.Errorf("wrapped: %w", err), errors.Join(err, err))
	}
	_, err = failing.GetSession(cookie)
	note(nil, err)
	_, err = failing.CreateSession(cookie)
	note(nil, err)
	note(nil, failing.CloseSession(inNone))
	_, err = manager.CreateSession(context.Background()) // taken
	note(nil, err)
	note(session.GetSessionFromContext(session.NewServerSessionMiddleware(failing, session.WithLogger(nil)).StartCall(cookie)))
	_, err = store.Get(secretID + "x")
	note(nil, err)
	_, err = store.Add(t.Context(), inNone, layover.Origin{})
	note(nil, err)
	note(nil, store.Put(&userSession{id: secretID + "y"})) // full
	note(session.CreateCookieForSession(&userSession{id: secretID + ";"}))
	lease.Release()
	if err := inStore.Close(); err != nil {
		t.Error(err)
	}
	note(nil, store.Put(inStore))
	_, err = store.Get(secretID)
	note(nil, err)
	ev, _ := store.Explain(store.Fingerprint(secretID))
	printed = append(printed, ev, lease)

	for _, v := range printed {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X"} {
			checkSecret(t, verb, v, fmt.Sprintf(verb, v))
		}
		if b, err := json.Marshal(v); err == nil {
			checkSecret(t, "JSON", v, string(b))
		}
		var log strings.Builder
		slog.New(slog.NewTextHandler(&log, nil)).Info("", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("", "v", v)
		checkSecret(t, "slog", v, log.String())
	}
}

func checkSecret(t *testing.T, how string, v any, got string) {
	t.Helper()
	for _, secret := range []string{secretID, fmt.Sprintf("%x", secretID), fmt.Sprintf("%X", secretID)} {
		if strings.Contains(got, secret) {
			t.Errorf("%s of a %T has the ID: %s", how, v, got)
		}
	}
}
