// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"github.com/google/uuid"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// The interfaces are Apache's own types, in both directions.
var (
	_ apache.ServerSession        = session.ServerSession(nil)
	_ session.ServerSession       = apache.ServerSession(nil)
	_ apache.ServerSessionManager = session.ServerSessionManager(nil)
	_ apache.SessionFactory       = session.SessionFactory(nil)
	_ apache.SessionStore         = session.SessionStore(nil)

	// Not merely assignable: the same types.
	_ func(apache.ServerSession)        = func(session.ServerSession) {}
	_ func(apache.ServerSessionManager) = func(session.ServerSessionManager) {}
	_ func(apache.SessionFactory)       = func(session.SessionFactory) {}
	_ func(apache.SessionStore)         = func(session.SessionStore) {}

	// What one package makes fits into the other.
	_ = session.WithStore(apache.NewSessionStore())
	_ = apache.WithStore(session.NewSessionStore())
	_ = session.WithFactory(apache.NewSessionFactory(uuid.NewString))
	_ = apache.WithFactory(session.NewSessionFactory(uuid.NewString))
	_ = session.NewServerSessionMiddleware(apache.NewStatefulServerSessionManager())
	_ = apache.NewServerSessionMiddleware(session.NewStatefulServerSessionManager())
)

// The two files of the drop-in program differ in the package clause and in the
// import path, in nothing else.
func TestDropInProgramsAreTheSameText(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	changed := strings.NewReplacer(
		"\npackage session_test\n", "\npackage session\n",
		`"github.com/c8e4ff29/layover/session"`, `"github.com/apache/arrow-go/v18/arrow/flight/session"`,
	).Replace(read("dropin_layover_test.go"))
	if changed != read("dropin_apache_test.go") {
		t.Error("dropin_apache_test.go is not dropin_layover_test.go with Apache's import path")
	}
	if strings.Count(changed, "arrow/flight/session\"") != 1 || strings.Contains(changed, "layover/") {
		t.Error("the program imports more than one session package")
	}
}

// Values and names that other programs compare with are Apache's.
func TestConstantsAndVariablesAreApaches(t *testing.T) {
	if session.ErrNoSession != apache.ErrNoSession { //nolint:errorlint // the very variable
		t.Error("ErrNoSession is another variable")
	}
	if session.StatefulSessionCookieName != apache.StatefulSessionCookieName {
		t.Errorf("the stateful cookie is named %q", session.StatefulSessionCookieName)
	}
	if session.StatelessSessionCookieName != apache.StatelessSessionCookieName {
		t.Errorf("the stateless cookie is named %q", session.StatelessSessionCookieName)
	}
}

// A context made by one package is read by the other.
func TestContextsAreShared(t *testing.T) {
	s := &userSession{id: "x"}
	if got, err := apache.GetSessionFromContext(session.NewSessionContext(t.Context(), s)); err != nil || got != session.ServerSession(s) {
		t.Errorf("Apache's package gets %v, error %v", got, err)
	}
	if got, err := session.GetSessionFromContext(apache.NewSessionContext(t.Context(), s)); err != nil || got != session.ServerSession(s) {
		t.Errorf("ours gets %v, error %v", got, err)
	}
	if _, err := session.GetSessionFromContext(session.NewSessionContext(t.Context(), nil)); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("a context with a nil session: %v", err)
	}
}

// Under Apache's manager and middleware, our store bounds how many sessions
// there are and ends them.
func TestStoreUnderApachesManagerIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 50
		store := newStore(t, layover.WithMaxSessions(most))
		e := serveInBubble(t, apache.NewServerSessionMiddleware(
			apache.NewStatefulServerSessionManager(apache.WithStore(store))), &sqlServer{fromContext: apache.GetSessionFromContext})
		c := e.client()
		for i := range 10 * most {
			c.must(info("")).cookie(t)
			if n := store.Len(); n > most || n < min(i, most) {
				t.Fatalf("%d sessions after %d calls", n, i+1)
			}
		}
		wait(layover.DefaultEmptyTimeout + layover.Tick)
		if st := store.Stats(); st.Live != 0 || st.Created != 10*most || st.Closed != 10*most {
			t.Errorf("after the timeout: %+v", st)
		}
	})
}

// Under Apache's manager, a client that comes back keeps its session as long as
// one that comes back under ours: for the idle timeout.
func TestStoreUnderApachesManagerKeepsClientsThatComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		e := serveInBubble(t, apache.NewServerSessionMiddleware(
			apache.NewStatefulServerSessionManager(apache.WithStore(store))), &sqlServer{fromContext: apache.GetSessionFromContext})
		cookies := new(jar)
		c := cookies.client(e)
		c.must(info(""))
		c.must(setOption("schema", "prod"))
		id := cookies.get(session.StatefulSessionCookieName)
		wait(layover.DefaultIdleTimeout - time.Second)
		c.must(info(""))
		if saw, err := e.last(); saw != id {
			t.Errorf("a confirmed session with an option was gone before its idle timeout (error %v)", err)
		}
	})
}

// Apache's stateless manager works under our middleware: managers written for
// Apache's package work as they are.
func TestApachesStatelessManagerUnderOurMiddleware(t *testing.T) {
	middleware := session.NewServerSessionMiddleware(apache.NewStatelessServerSessionManager(), session.WithLogger(nil))
	c := serve(t, middleware, nil).client()
	r := c.must(setOption("hello", "world"))
	if r.header == nil || r.trailer == nil || r.trailer[0] != session.StatelessSessionCookieName+"="+helloToken {
		t.Errorf("header %q, trailer %q", r.header, r.trailer)
	}
}

// Apache's stateful manager works under our middleware, over both stores.
func TestApachesStatefulManagerUnderOurMiddleware(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"Apache's store": apache.NewSessionStore(), "our store": newStore(t)} {
		t.Run(name, func(t *testing.T) {
			manager := apache.NewStatefulServerSessionManager(apache.WithStore(store))
			e := serve(t, session.NewServerSessionMiddleware(manager, session.WithLogger(nil)), nil)
			aSessionStaysUntilItsClientClosesIt(t, e, store, info(""))
		})
	}
}

// aSessionStaysUntilItsClientClosesIt checks a server as a client with cookies
// sees it.
func aSessionStaysUntilItsClientClosesIt(t *testing.T, e *endpoint, store session.SessionStore, again call) {
	t.Helper()
	cookies := new(jar)
	c := cookies.client(e)
	c.must(setOption("hello", "world"))
	id := cookies.get(session.StatefulSessionCookieName)
	c.must(again)
	if saw, _ := e.last(); saw != id || id == "" {
		t.Error("the second call has another session")
	}
	c.must(closeSession)
	if cookies.get(session.StatefulSessionCookieName) != "" {
		t.Error("the cookie was not deleted")
	}
	if _, err := store.Get(id); err == nil {
		t.Error("the closed session is in the store")
	}
}
