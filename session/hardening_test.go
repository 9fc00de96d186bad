// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// Two calls of one principal that begin before it has a session, and both need
// one, share it.
func TestParallelFirstCallsOfAPrincipalShareItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		gate := make(chan struct{})
		e := serveEdgeInBubble(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), &sqlServer{statements: map[string]statement{
			"late": func(ctx context.Context, s session.ServerSession) error {
				<-gate
				s.SetSessionOption("late", text("x"))
				return nil
			},
		}})
		c := e.client()
		alice := []string{"x-user", "alice"}
		done := []<-chan reply{c.start(with(info("late"), alice...)), c.start(with(directScan("late"), alice...))}
		synctest.Wait()
		c.must(with(setOption("schema", "prod"), alice...))
		close(gate)
		for _, d := range done {
			if r := <-d; r.err != nil {
				t.Errorf("a call that began before another one made the session: %v", r.err)
			}
		}
		if got := c.schema(alice...); got != "prod" || store.Stats().Created != 1 || leases(store) != 0 {
			t.Errorf("schema %q, %+v", got, store.Stats())
		}
	})
}

// Parallel logins of one principal all succeed.
func TestParallelLoginsOfAPrincipal(t *testing.T) {
	store := newStore(t)
	e := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), &sqlServer{statements: map[string]statement{
		"LOGIN": func(ctx context.Context, _ session.ServerSession) error {
			_, err := session.Begin(ctx, session.Principal{Name: "alice"})
			return err
		},
	}})
	c := e.client()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 20 {
				if r := c.do(info("LOGIN")); r.err != nil {
					t.Errorf("a login: %v", r.err)
				}
			}
		})
	}
	all.Wait()
	if st := store.Stats(); st.Live != 1 || st.Retired != 0 || leases(store) != 0 {
		t.Errorf("%+v", st)
	}
}

// A principal's session can live in a store without leases.
func TestByPrincipalOverAPlainStore(t *testing.T) {
	c := serveEdge(t, edge(apache.NewSessionStore(), session.WithCarriers(session.ByPrincipal(who))), nil).client()
	alice := []string{"x-user", "alice"}
	c.must(with(setOption("schema", "prod"), alice...))
	if got := c.schema(alice...); got != "prod" {
		t.Errorf("schema %q", got)
	}
	c.must(with(closeSession, alice...))
	if got := c.schema(alice...); got != "" {
		t.Errorf("schema %q", got)
	}
}

// A session of a foreign type whose Closed panics keeps no lease.
func TestAPanicInClosedLeaksNoLease(t *testing.T) {
	store := newStore(t)
	var broken bool
	s := &userSession{id: "user-session", onClosed: func() {
		if broken {
			panic("Closed panics")
		}
	}}
	manager := session.NewStatefulServerSessionManager(session.WithStore(store),
		session.WithFactory(fakeFactory(func() (session.ServerSession, error) { return s, nil })))
	c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), nil).client()
	cookie := c.must(info("")).cookie(t)
	broken = true
	for range 3 {
		if r := c.do(info(""), cookie); status.Code(r.err) != codes.Internal {
			t.Errorf("got %v", r.err)
		}
	}
	broken = false
	if n := leases(store); n != 0 {
		t.Errorf("%d leases leaked", n)
	}
}

// A panic in a session's Token, whenever it comes, is an error of the call, and
// leaks neither a lease nor a place.
func TestAPanicInTokenLeaksNothing(t *testing.T) {
	begins := func(ctx context.Context, _ any) (any, error) { return session.Begin(ctx) }
	looks := func(context.Context, any) (any, error) { return nil, nil }
	for what, c := range map[string]struct {
		handler grpc.UnaryHandler
		left    int // places of a call that fails: a login that is refused leaves the session before it
	}{"looks": {looks, 0}, "begins": {begins, 1}} {
		for at := range 16 {
			store := newStore(t)
			n := 0
			m := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
				n++
				return &tokenPanics{userSession: &userSession{id: fmt.Sprint("user-", n)}, left: at}, nil
			})))
			mw := session.NewServerMiddleware(m, session.WithLogger(nil))
			_, err := mw.Unary(t.Context(), nil, getFlightInfo, c.handler)
			if places := store.Len(); err != nil && places > c.left {
				t.Errorf("%s, a panic after %d calls of Token: %d places, %v", what, at, places, err)
			}
			for info := range store.All() {
				if info.Leases != 0 {
					t.Errorf("%s, a panic after %d calls of Token: %d leases", what, at, info.Leases)
				}
			}
		}
	}
}

// tokenPanics panics in Token once, after so many calls.
type tokenPanics struct {
	*userSession
	left int
}

func (s *tokenPanics) Token() string {
	if s.left--; s.left == -1 {
		panic("no token today")
	}
	return s.id
}

// A session that ended by itself under a call, and is then closed by it, has no
// cookie to be deleted: its client may have a newer one.
func TestClosingASessionThatHasEndedDeletesNoNewerCookie(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *session.ExpiringSessionStore, string){
		"lifetime": func(*testing.T, *session.ExpiringSessionStore, string) { wait(time.Hour) },
		"removed": func(t *testing.T, store *session.ExpiringSessionStore, id string) {
			if err := store.Remove(id); err != nil {
				t.Error(err)
			}
		},
		"killed": func(t *testing.T, store *session.ExpiringSessionStore, id string) {
			store.Kill(store.Fingerprint(id))
		},
	} {
		for _, holds := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", holds ", holds), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newStore(t, layover.WithIdleTimeout(time.Hour), layover.WithLifetime(time.Hour), layover.WithMaxLeaseAge(0))
					gate := make(chan struct{})
					server := makesSession()
					server.statements["close late"] = func(_ context.Context, s session.ServerSession) error { <-gate; return s.Close() }
					b := &browser{c: serveEdgeInBubble(t, edge(store), server).client()}
					first := info("ensure")
					if holds {
						first = setOption("schema", "old")
					}
					b.arrive(b.send(first))
					old := b.has()
					closing := b.c.start(info("close late"), session.StatefulSessionCookieName+"="+old)
					synctest.Wait()
					end(t, store, old)
					b.arrive(b.send(setOption("schema", "new")))
					fresh := b.has()
					if fresh == old {
						t.Fatal("no new session")
					}
					close(gate)
					b.arrive(<-closing)
					if b.has() != fresh {
						t.Errorf("the jar has lost the new cookie")
					}
				})
			})
		}
	}
}

// A login replaces a session that a parallel call then closes. The deletion does
// not take the cookie of the login along.
func TestClosingTheSessionBeforeALoginDeletesNoNewerCookie(t *testing.T) {
	for _, loginFirst := range []bool{true, false} {
		t.Run(fmt.Sprint("login first ", loginFirst), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newStore(t)
				gates := map[string]chan struct{}{"close": make(chan struct{}), "login": make(chan struct{})}
				b := &browser{c: serveEdgeInBubble(t, edge(store), &sqlServer{statements: map[string]statement{
					"close": func(_ context.Context, s session.ServerSession) error { <-gates["close"]; return s.Close() },
					"login": func(ctx context.Context, s session.ServerSession) error {
						<-gates["login"]
						_, err := session.Begin(ctx)
						return err
					},
				}}).client()}
				b.arrive(b.send(setOption("schema", "old")))
				old := session.StatefulSessionCookieName + "=" + b.has()
				closing, login := b.c.start(info("close"), old), b.c.start(info("login"), old)
				synctest.Wait()
				order := []string{"close", "login"}
				if loginFirst {
					order = []string{"login", "close"}
				}
				for _, name := range order {
					close(gates[name])
					synctest.Wait()
				}
				r := <-login
				b.arrive(r)
				b.arrive(<-closing) // arrives last
				if len(r.header) > 0 && b.has() == "" {
					t.Errorf("the deletion took the cookie of the login along: %+v", r)
				}
				if n := store.Len(); (n > 0) != (b.has() != "") {
					t.Errorf("%d sessions, the jar has one: %t", n, b.has() != "")
				}
			})
		})
	}
}

// CloseSession deletes the cookie of a stateless session, also of a manager that
// is not ours, and of the second client whose session looks the same.
func TestForeignStatelessManagersDeleteTheirCookies(t *testing.T) {
	for name, manager := range map[string]session.ServerSessionManager{
		"Apache's": apache.NewStatelessServerSessionManager(),
		"wrapped":  around{session.NewStatelessServerSessionManager()},
	} {
		for _, lazy := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", lazy ", lazy), func(t *testing.T) {
				opts := []session.MiddlewareOption{session.WithLogger(nil)}
				if lazy {
					opts = append(opts, session.WithLazySessions())
				}
				e := serveEdge(t, session.NewServerMiddleware(manager, opts...), nil)
				for i := range 3 {
					cookies := new(jar)
					c := cookies.client(e)
					c.must(setOption("hello", "world"))
					if cookies.get(session.StatelessSessionCookieName) == "" {
						t.Fatal("no cookie")
					}
					c.must(closeSession)
					if got := cookies.get(session.StatelessSessionCookieName); got != "" {
						t.Errorf("client %d still has the cookie %q after CloseSession", i, got)
					}
				}
			})
		}
	}
}

// forgetful is a session that has no token any more once it is closed.
type forgetful struct{ *userSession }

func (f forgetful) Token() string {
	if f.closeCount() > 0 {
		return ""
	}
	return f.userSession.Token()
}

// A call that finds a session which was closed outside of any call does not
// look for it for ever, whatever that says of its token.
func TestAClosedSessionWithoutATokenIsNotLookedForForEver(t *testing.T) {
	store := newStore(t)
	s := forgetful{&userSession{id: "user-session"}}
	manager := session.NewStatefulServerSessionManager(session.WithStore(store),
		session.WithFactory(fakeFactory(func() (session.ServerSession, error) { return s, nil })))
	c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil), session.WithDeadTokens(session.RenewDead), session.WithLazySessions()), nil).client()
	cookie := c.must(setOption("a", "b")).cookie(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "cookie", cookie), 2*time.Second)
	defer cancel()
	if err := info("")(ctx, c.Client); err != nil {
		t.Error(err)
		_ = store.Remove("user-session") // ends the loop
	}
	if store.Len() != 0 {
		t.Error("it is still there")
	}
}

// A handshake's handler sees no tokens either.
func TestTokensAreStrippedFromHandshakes(t *testing.T) {
	var seen metadata.MD
	mw := edge(newStore(t), session.WithTokensStripped(), session.WithCarriers(session.Header("x-session", who), session.Cookie("")))
	within := mw.Stream
	mw.Stream = func(srv any, s grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return within(srv, s, i, func(_ any, s grpc.ServerStream) error {
			seen, _ = metadata.FromIncomingContext(s.Context())
			return nil
		})
	}
	c := serveEdge(t, mw, nil).client()
	c.must(with(handshake, "X-Session", "secret-key", "cookie", "a=b; "+session.StatefulSessionCookieName+" =secret; c=d", "cookie", session.StatefulSessionCookieName+`="secret"`))
	if text := fmt.Sprint(seen.Get("x-session"), seen.Get("cookie")); strings.Contains(text, "secret") || !strings.Contains(text, "a=b") {
		t.Errorf("the handler of a handshake sees %s", text)
	}
}

// Of an error that wraps a status, the client gets the status, not what is
// wrapped around it.
func TestAWrappedStatusOfAPrincipalFuncLeaksNothing(t *testing.T) {
	var log logBuffer
	c := serveEdge(t, edge(newStore(t), session.WithLogger(log.logger()), session.WithCarriers(session.ByPrincipal(func(context.Context) (session.Principal, error) {
		return session.Principal{}, fmt.Errorf("ldap://admin:hunter2@directory: %w", status.Error(codes.PermissionDenied, "go away"))
	}))), nil).client()
	r := c.do(info(""))
	if status.Code(r.err) != codes.PermissionDenied || !strings.Contains(r.err.Error(), "go away") || strings.Contains(r.err.Error(), "hunter2") {
		t.Errorf("the client got %v", r.err)
	}
	if !strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log has not the whole story: %s", log.String())
	}
}

// However many dead tokens a call brings, one window is enough.
func TestSeveralDeadTokensAreToldOfTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		c := serveEdgeInBubble(t, edge(store), nil).client()
		one, two := c.must(setOption("schema", "a")).cookie(t), c.must(setOption("schema", "b")).cookie(t)
		wait(idle + late)
		if r := c.do(info(""), one, two); r.err == nil {
			t.Error("not told")
		}
		wait(session.DefaultTellWindow)
		if r := c.do(info(""), one, two); r.err != nil {
			t.Errorf("after the window: %v", r.err)
		}
	})
}

// A proof that is good for thousands of years is the latest.
func TestAProofForEverIsTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t, layover.WithIdleTimeout(24*time.Hour), layover.WithLifetime(48*time.Hour))
		c := serveEdgeInBubble(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), nil).client()
		forEver := time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Format(time.RFC3339Nano)
		hour := time.Now().Add(time.Hour).Format(time.RFC3339Nano)
		c.must(with(setOption("schema", "prod"), "x-user", "alice", "x-expires", forEver))
		c.must(with(setOption("schema", "prod"), "x-user", "bob", "x-expires", hour))
		c.must(with(info(""), "x-user", "alice", "x-expires", hour))
		c.must(with(info(""), "x-user", "bob", "x-expires", forEver))
		wait(time.Hour + time.Second)
		for _, user := range []string{"alice", "bob"} {
			if r := c.do(with(info(""), "x-user", user, "x-expires", forEver)); r.err != nil {
				t.Errorf("%s: %v", user, r.err)
			}
		}
	})
}

// Under StrictDead, a client that missed the deletion can have it again.
func TestStrictDeadDeletesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		c := serveEdgeInBubble(t, edge(store, session.WithDeadTokens(session.StrictDead)), nil).client()
		cookie := c.must(setOption("schema", "x")).cookie(t)
		wait(idle + late)
		for i := range 3 {
			r := c.must(closeSession, cookie)
			if all := append(r.header, r.trailer...); len(all) != 1 || !strings.HasSuffix(all[0], "; Max-Age=0") {
				t.Errorf("CloseSession %d: %q", i, all)
			}
			wait(2 * session.DefaultTellWindow)
		}
	})
}

// A store that panics when a session is removed panics in no handler.
func TestAPanickingRemoveDoesNotPanicInBegin(t *testing.T) {
	for _, principal := range []bool{false, true} {
		t.Run(fmt.Sprint("principal ", principal), func(t *testing.T) {
			works := apache.NewSessionStore()
			store := &fakeStore{get: works.Get, put: works.Put, remove: func(string) error { panic("Remove panics") }}
			e := serveEdge(t, edge(store, session.WithCarriers(session.Cookie(""), session.ByPrincipal(who))), &sqlServer{statements: map[string]statement{
				"LOGIN": func(ctx context.Context, _ session.ServerSession) (err error) {
					defer func() {
						if v := recover(); v != nil {
							err = status.Error(codes.Aborted, fmt.Sprint("Begin panicked: ", v))
						}
					}()
					if principal {
						_, err = session.Begin(ctx, session.Principal{Name: "alice"})
					} else {
						_, err = session.Begin(ctx)
					}
					return err
				},
			}})
			c := e.client()
			headers := []string{"x-user", "alice"}
			if !principal {
				headers = []string{"cookie", c.must(setOption("a", "b")).cookie(t)}
			} else {
				c.must(with(setOption("a", "b"), headers...))
			}
			if r := c.do(with(info("LOGIN"), headers...)); status.Code(r.err) != codes.Internal && status.Code(r.err) != codes.Unavailable {
				t.Errorf("got %v", r.err)
			}
		})
	}
}

// evilError is an error whose own methods panic.
type evilError struct{}

func (evilError) Error() string { panic("Error panics") }
func (evilError) Unwrap() error { panic("Unwrap panics") }

// Errors whose methods panic kill no process.
func TestErrorsWhoseMethodsPanic(t *testing.T) {
	for name, manager := range map[string]session.ServerSessionManager{
		"get":    &fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, evilError{} }},
		"create": &fakeManager{create: func(context.Context) (session.ServerSession, error) { return nil, evilError{} }},
		"close":  &fakeManager{close: func(session.ServerSession) error { return evilError{} }},
	} {
		for _, lazy := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", lazy ", lazy), func(t *testing.T) {
				opts := []session.MiddlewareOption{session.WithLogger(nil)}
				if lazy {
					opts = append(opts, session.WithLazySessions())
				}
				c := serveEdge(t, session.NewServerMiddleware(manager, opts...), &sqlServer{statements: map[string]statement{
					"end": func(ctx context.Context, s session.ServerSession) error {
						s.SetSessionOption("a", text("b"))
						return session.End(ctx)
					},
				}}).client()
				for _, do := range []call{info("end"), getOptions(nil)} {
					c.do(do) // recovering tells of a panic
				}
			})
		}
	}
}

// A session that was made for a call whose handler panics does not stay where
// its client has not heard of it.
func TestASessionOfAPanickingHandlerIsNotLeft(t *testing.T) {
	var made []*userSession
	factory := fakeFactory(func() (session.ServerSession, error) {
		made = append(made, &userSession{id: fmt.Sprint("id-", len(made))})
		return made[len(made)-1], nil
	})
	store := newStore(t)
	var panics bool
	for name, manager := range map[string]session.ServerSessionManager{
		"ours":    session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(factory)),
		"foreign": around{session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(factory))},
	} {
		e := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), &sqlServer{fromContext: func(ctx context.Context) (session.ServerSession, error) {
			if panics {
				panic(plannedPanic)
			}
			return session.GetSessionFromContext(ctx)
		}})
		c := e.client()
		panics = true
		for what, do := range map[string]call{"GetSessionOptions": getOptions(nil), "GetFlightInfo": info(""), "CloseSession": closeSession} {
			before := store.Len()
			r := c.do(do)
			if r.err == nil {
				t.Error("no panic")
			}
			if told := len(r.header) + len(r.trailer); store.Len()-before != told {
				t.Errorf("%s, %s: %d sessions were left, the client was told of %d", name, what, store.Len()-before, told)
			}
		}
		panics = false
	}
}

// A session of a type that cannot be compared is removed when its handler closes
// it.
func TestASessionThatCannotBeComparedIsRemovedByItsClose(t *testing.T) {
	store := newStore(t)
	n := 0
	manager := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		n++
		return valueSession{ServerSession: &userSession{id: fmt.Sprint("id-", n)}, tags: map[string]string{}}, nil
	})))
	cookies := new(jar)
	c := cookies.client(serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), nil))
	c.must(setOption("a", "b"))
	c.must(closeSession)
	if got := cookies.get(session.StatefulSessionCookieName); got != "" || store.Len() != 0 {
		t.Errorf("after CloseSession: cookie %q, %d sessions", got, store.Len())
	}
}

// A proof that ends in the course of a call makes no session any more, which is
// no failure of the store.
func TestAProofThatEndsDuringTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serveEdgeInBubble(t, edge(newStore(t), session.WithCarriers(session.ByPrincipal(who))), &sqlServer{statements: map[string]statement{
			"late": func(_ context.Context, s session.ServerSession) error {
				<-time.After(time.Hour)
				s.SetSessionOption("a", text("b"))
				return nil
			},
		}}).client()
		r := c.do(with(info("late"), "x-user", "alice", "x-expires", time.Now().Add(time.Minute).Format(time.RFC3339Nano)))
		if status.Code(r.err) != codes.Unauthenticated {
			t.Errorf("got %v, want UNAUTHENTICATED", r.err)
		}
	})
}

// A LeaseStore of a user's learns that a session of ours holds something.
func TestAForeignLeaseStoreLearnsWhatHolds(t *testing.T) {
	var l *fakeLease
	store := &fakeLeaseStore{add: func(s session.ServerSession) (session.SessionLease, error) {
		l = &fakeLease{session: s}
		return l, nil
	}}
	c := serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"ensure, then set": func(ctx context.Context, s session.ServerSession) error {
			_, err := session.Ensure(ctx)
			s.SetSessionOption("a", text("b"))
			return err
		},
	}}).client()
	c.must(info("ensure, then set"))
	if _, holds, released := l.counts(); holds == 0 || released != 1 {
		t.Errorf("told of holding %d times, released %d times", holds, released)
	}
}

// secretValue is a session that is no pointer.
type secretValue struct {
	ID string
	*userSession
}

// Leases print no IDs, whoever keeps the session.
func TestLeasesOfForeignManagersPrintNoIDs(t *testing.T) {
	manager := &fakeManager{create: func(context.Context) (session.ServerSession, error) {
		return secretValue{secretID, &userSession{id: secretID}}, nil
	}}
	var printed string
	c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"print": func(ctx context.Context, _ session.ServerSession) error {
			l, err := session.Acquire(ctx)
			if err == nil {
				printed = fmt.Sprintf("%v %+v %#v %s %d", l, l, l, l, l)
			}
			return err
		},
	}}).client()
	c.must(info("print"))
	if printed == "" || strings.Contains(printed, secretID) {
		t.Errorf("printed %s", printed)
	}
}

// Clients that are told of dead tokens do not keep the failures of the store out
// of the log.
func TestTellingsHideNoFailuresFromTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		store := shortLived(t)
		c := serveEdgeInBubble(t, edge(store, session.WithLogger(log.logger()), session.WithDeadTokenCode(codes.Unauthenticated),
			session.WithCarriers(session.ByPrincipal(who), session.Cookie(""))), nil).client()
		cookie := c.must(setOption("schema", "x")).cookie(t)
		wait(idle + late)
		c.do(info(""), cookie)
		c.do(with(info(""), "x-user", "failing"))
		if !strings.Contains(log.String(), "hunter2") {
			t.Errorf("the log lacks the failure: %s", log.String())
		}
	})
}

// What is set after the session was closed in the same call is refused in the
// same words, whether there was a session or not.
func TestSetOptionAfterCloseIsRefusedAlike(t *testing.T) {
	c := serveEdge(t, edge(newStore(t)), &sqlServer{statements: map[string]statement{
		"close, then set": func(ctx context.Context, s session.ServerSession) error {
			return errors.Join(s.Close(), session.SetOption(ctx, "a", text("b")))
		},
	}}).client()
	cookie := c.must(setOption("schema", "x")).cookie(t)
	for _, cookies := range [][]string{{cookie}, nil} {
		if r := c.do(info("close, then set"), cookies...); status.Code(r.err) != codes.NotFound {
			t.Errorf("cookies %q: %v", cookies, r.err)
		}
	}
}

// Whatever goroutines of one call do to its session at the same time, and after
// its end, no lease is left, and no session but one that the client knows.
func TestGoroutinesOfOneCallLeaveNothing(t *testing.T) {
	store := newStore(t)
	var left sync.WaitGroup
	e := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who), session.Cookie(""))), &sqlServer{statements: map[string]statement{
		"all at once": func(ctx context.Context, s session.ServerSession) error {
			for i, do := range []func(){
				func() { _, _ = session.Ensure(ctx) },
				func() { _ = s.Close() },
				func() { _, _ = session.Begin(ctx) },
				func() { _ = session.SetOption(ctx, "a", text("b")) },
				func() { s.SetSessionOption("c", text("d")) },
				func() { _ = session.End(ctx) },
				func() { _ = s.Token() + fmt.Sprint(s) },
				func() {
					if l, err := session.Acquire(ctx); err == nil {
						l.Release()
					}
				},
				func() { _, _ = session.Begin(ctx, session.Principal{Name: "alice"}) },
				func() { _, _ = session.Lookup(ctx); _ = s.Closed(); _ = s.GetSessionOptions() },
			} {
				left.Go(func() {
					for range i % 3 * 20 {
						runtime.Gosched()
					}
					do()
				})
			}
			for range 20 {
				runtime.Gosched()
			}
			return nil
		},
	}})
	c := e.client()
	for i := range 300 {
		cookies := new(jar)
		r := c.do(info("all at once"))
		left.Wait()
		if r.err != nil && status.Code(r.err) != codes.Internal {
			t.Errorf("call %d: %v", i, r.err)
		}
		cookies.feed(metadata.MD{"set-cookie": r.header}, metadata.MD{"set-cookie": r.trailer})
		id := cookies.get(session.StatefulSessionCookieName)
		for in := range store.All() {
			if in.Leases != 0 {
				t.Fatalf("call %d: %d leases", i, in.Leases)
			}
			if in.Source != "principal alice" && (id == "" || in.Fingerprint != store.Fingerprint(id)) {
				known := -1
				for at, line := range append(r.header, r.trailer...) {
					if store.Fingerprint(token(line)) == in.Fingerprint {
						known = at
					}
				}
				t.Fatalf("call %d: a session whose cookie, number %d, the client has not: %q %q, error %v, %+v", i, known, r.header, r.trailer, r.err, in)
			}
			store.Kill(in.Fingerprint)
		}
		if id != "" {
			if r := c.do(getOptions(nil), session.StatefulSessionCookieName+"="+id); r.err != nil && !strings.Contains(r.err.Error(), session.LostPrefix) {
				t.Error(r.err)
			}
		}
	}
	if err := store.Check(); err != nil {
		t.Error(err)
	}
}

// Handlers of actions find sessions of a type of their own in the context, also
// where an interceptor has made a context of its own before the action arrived.
func TestForeignSessionsOfActionsBehindAnotherInterceptor(t *testing.T) {
	manager := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return &userSession{id: "user-session"}, nil
	})))
	mw := session.NewServerMiddleware(manager, session.WithLogger(nil))
	within := mw.Stream
	mw.Stream = func(srv any, s grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return within(srv, s, i, func(srv any, s grpc.ServerStream) error {
			type key struct{}
			return h(srv, &tracedStream{s, context.WithValue(s.Context(), key{}, "span")})
		})
	}
	var saw session.ServerSession
	c := serveEdge(t, mw, &sqlServer{fromContext: func(ctx context.Context) (session.ServerSession, error) {
		s, err := apache.GetSessionFromContext(ctx)
		saw = s
		return s, err
	}}).client()
	c.must(setOption("a", "b"))
	if _, ok := saw.(*userSession); !ok {
		t.Errorf("the handler of an action saw a %T", saw)
	}
}

// tracedStream is a stream of an interceptor that puts something into contexts.
type tracedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *tracedStream) Context() context.Context { return s.ctx }

// Under WithTLSRequired a handshake that brings a token in the clear is refused
// like any other call.
func TestTLSIsRequiredOfHandshakes(t *testing.T) {
	c := serveEdge(t, edge(newStore(t), session.WithTLSRequired()), nil).client()
	h, err := c.Client.Client.Handshake(metadata.AppendToOutgoingContext(t.Context(), "cookie", session.StatefulSessionCookieName+"=secret"))
	if err == nil {
		_ = h.CloseSend()
		_, err = h.Recv()
	}
	if why, _ := reason(err); status.Code(err) != codes.FailedPrecondition || why != "SESSION_NEEDS_TLS" {
		t.Errorf("got %v", err)
	}
}

// Goroutines of one call that need a session at the same time never get two, of
// which one would take its options along.
func TestGoroutinesOfOneCallNeverGetTwoSessions(t *testing.T) {
	store := newStore(t)
	const calls, each = 500, 8
	e := serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"many": func(_ context.Context, s session.ServerSession) error {
			var all sync.WaitGroup
			for i := range each {
				all.Go(func() { s.SetSessionOption(fmt.Sprint("option", i), text("x")) })
			}
			all.Wait()
			if n := len(s.GetSessionOptions()); n != each {
				return fmt.Errorf("%d options of %d", n, each)
			}
			return nil
		},
	}})
	c := e.client()
	for range calls {
		c.must(info("many")).cookie(t)
	}
	if st := store.Stats(); st.Created != calls {
		t.Errorf("%d calls made %d sessions", calls, st.Created)
	}
}

// Whoever still comes with the cookie that a login has replaced gets no new one,
// which would take the place of the login's, even if nothing was lost.
func TestAReplacedCookieGetsNoSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		e := serveEdgeInBubble(t, edge(store), &sqlServer{statements: map[string]statement{
			"ensure": func(ctx context.Context, _ session.ServerSession) error { _, err := session.Ensure(ctx); return err },
			"LOGIN":  func(ctx context.Context, _ session.ServerSession) error { _, err := session.Begin(ctx); return err },
		}})
		c := e.client()
		old := c.must(info("ensure")).cookie(t)
		fresh := c.must(info("LOGIN"), old).cookie(t)
		for _, do := range []call{info("ensure"), setOption("schema", "x"), scan("")} {
			wantLost(t, store, old, c.do(do, old), "REPLACED")
		}
		c.must(setOption("schema", "x"), fresh)
		wait(session.DefaultTellWindow)
		c.must(setOption("schema", "x"), old).cookie(t)
	})
}

// A store that is not ours cannot tell whether a session was over when it was
// closed. If anybody was told so, there may be a newer cookie, and nothing is
// deleted.
func TestOverAPlainStoreNothingIsDeletedOfWhichSomebodyWasTold(t *testing.T) {
	store := apache.NewSessionStore()
	gate, running := make(chan struct{}), make(chan struct{})
	e := serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"close late": func(_ context.Context, s session.ServerSession) error {
			close(running)
			<-gate
			return s.Close()
		},
	}})
	c := e.client()
	cookie := c.must(setOption("schema", "x")).cookie(t)
	done := c.start(info("close late"), cookie)
	<-running
	if err := store.Remove(token(cookie)); err != nil {
		t.Fatal(err)
	}
	if why, _ := reason(c.do(info(""), cookie).err); why != "SESSION_UNKNOWN" {
		t.Errorf("reason %q", why)
	}
	close(gate)
	if r := <-done; r.header != nil || r.trailer != nil || r.err != nil {
		t.Errorf("%+v", r)
	}
}

// What fails to close can be closed again.
func TestACloseThatFailsCanBeRepeated(t *testing.T) {
	fails := true
	store := &fakeStore{remove: func(string) error {
		if fails {
			return errors.New("not now")
		}
		return nil
	}}
	e := serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"close": func(_ context.Context, s session.ServerSession) error {
			s.SetSessionOption("schema", text("x"))
			if s.Close() == nil || s.Closed() && fails == false {
				return errors.New("the first Close went through")
			}
			fails = false
			return s.Close()
		},
	}})
	e.client().must(info("close"))
}

// A generator of one's own makes no IDs that look like those of principals,
// whom nobody finds by cookie.
func TestAGeneratorMakesNoIDsOfPrincipals(t *testing.T) {
	factory := session.NewSessionFactory(func() string { return "p:123" })
	manager := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(factory))
	c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), nil).client()
	if r := c.do(setOption("schema", "x")); status.Code(r.err) != codes.Internal {
		t.Errorf("%+v", r)
	}
}

// A bearer that a failing PrincipalFunc quotes is not in the log.
func TestTheLogHasNoBearer(t *testing.T) {
	var log logBuffer
	middleware := edge(newStore(t), session.WithLogger(log.logger()), session.WithCarriers(session.ByPrincipal(func(ctx context.Context) (session.Principal, error) {
		bearer, _ := strings.CutPrefix(metadata.ValueFromIncomingContext(ctx, "authorization")[0], "Bearer ")
		return session.Principal{}, fmt.Errorf("introspecting %q: no answer", bearer)
	})))
	c := serveEdge(t, middleware, nil).client()
	r := c.do(with(info(""), "authorization", "Bearer 0123456789abcdef"))
	if status.Code(r.err) != codes.Unauthenticated || !strings.Contains(log.String(), "no answer") || strings.Contains(log.String()+r.err.Error(), "0123456789abcdef") {
		t.Errorf("%v; the log: %s", r.err, log.String())
	}
}
