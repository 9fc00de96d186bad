// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// who stands for authentication: it believes the headers x-user, x-login and
// x-expires.
func who(ctx context.Context) (p session.Principal, err error) {
	one := func(name string) string { return strings.Join(metadata.ValueFromIncomingContext(ctx, name), "") }
	switch p.Name, p.Key = one("x-user"), one("x-login"); p.Name {
	case "refused":
		return p, status.Error(codes.PermissionDenied, "go away")
	case "failing":
		return p, errors.New("ldap://admin:hunter2@directory is down")
	case "panicking":
		panic("who is that?")
	}
	if at := one("x-expires"); at != "" {
		p.Expires, err = time.Parse(time.RFC3339Nano, at)
	}
	return p, err
}

// with makes a call with further metadata headers.
func with(f call, headers ...string) call {
	return func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
		return f(metadata.AppendToOutgoingContext(ctx, headers...), c, opts...)
	}
}

// schema returns what GetSessionOptions tells of the schema.
func (c *client) schema(headers ...string) string {
	c.t.Helper()
	var options map[string]*flight.SessionOptionValue
	if r := c.must(with(getOptions(&options), headers...)); r.header != nil || r.trailer != nil {
		c.t.Errorf("header %q, trailer %q", r.header, r.trailer)
	}
	return options["schema"].GetStringValue()
}

// The cookie has the name that the owner chose, and no other.
func TestCookieNameIsTheOwners(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store, session.WithCarriers(session.Cookie("my_session"))), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	if !strings.HasPrefix(cookie, "my_session=") {
		t.Fatalf("cookie %q", cookie)
	}
	if got := c.schema("cookie", cookie); got != "prod" {
		t.Errorf("schema %q", got)
	}
	if got := c.schema("cookie", session.StatefulSessionCookieName+"="+token(cookie)); got != "" {
		t.Errorf("schema %q by a cookie of another name", got)
	}
	r := c.must(closeSession, cookie)
	if all := append(r.header, r.trailer...); len(all) != 1 || all[0] != "my_session=; Max-Age=0" {
		t.Errorf("CloseSession: %q", all)
	}
}

// By principal, a session belongs to what authentication has proved: it needs no
// cookie, is confirmed at birth, and is nobody else's.
func TestASessionByPrincipalBelongsToIt(t *testing.T) {
	store := newStore(t)
	e := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), nil)
	c := e.client()
	alice, bob := []string{"x-user", "alice", "x-login", "1"}, []string{"x-user", "bob", "x-login", "1"}
	if r := c.must(with(setOption("schema", "prod"), alice...)); r.header != nil || r.trailer != nil {
		t.Errorf("header %q, trailer %q", r.header, r.trailer)
	}
	if st := store.Stats(); st.Confirmed != 1 {
		t.Errorf("not confirmed at birth: %+v", st)
	}
	for _, other := range [][]string{bob, {"x-user", "carol", "x-login", "1"}, {"x-user", "alice", "x-login", "2"}, {"x-user", "alice"}, {"x-user", "alic", "x-login", "e1"}, nil} {
		if got := c.schema(other...); got != "" {
			t.Errorf("%v has schema %q", other, got)
		}
	}
	if got := c.schema(alice...); got != "prod" {
		t.Errorf("alice has schema %q", got)
	}
	saw, _ := e.last()
	if got := c.schema("cookie", session.StatefulSessionCookieName+"="+saw); got != "" {
		t.Errorf("who knows the store's key has schema %q", got)
	}
	if strings.Contains(saw, "alice") || strings.Contains(saw, "1") && len(saw) < 30 {
		t.Errorf("the store's key is %q", saw)
	}
	for info := range store.All() {
		if info.Source != "principal alice" {
			t.Errorf("source %q", info.Source)
		}
	}
	if r := c.do(setOption("schema", "x")); status.Code(r.err) != codes.Unauthenticated {
		t.Errorf("a session for nobody: %v", r.err)
	}
	c.must(with(closeSession, alice...))
	if got := c.schema(alice...); got != "" || store.Len() != 0 {
		t.Errorf("after CloseSession: schema %q, %d sessions", got, store.Len())
	}
}

// A principal's session ends no later than the proof, and a later proof puts its
// end off.
func TestASessionEndsNoLaterThanTheProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		c := serveEdgeInBubble(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), nil).client()
		proof := func(d time.Duration) []string {
			return []string{"x-user", "alice", "x-expires", time.Now().Add(d).Format(time.RFC3339Nano)}
		}
		c.must(with(setOption("schema", "prod"), proof(time.Minute)...))
		wait(time.Minute - time.Second)
		if got := c.schema(proof(time.Minute)...); got != "prod" {
			t.Fatalf("schema %q before the end", got)
		}
		if got := c.schema(proof(time.Second)...); got != "prod" { // an older proof
			t.Fatalf("schema %q", got)
		}
		wait(time.Minute - time.Second)
		if store.Len() != 1 {
			t.Error("it ended before its latest proof")
		}
		wait(time.Second + layover.Tick)
		if st := store.Stats(); st.Live != 0 || st.Ended[layover.ReasonLifetime] != 1 {
			t.Errorf("after the proof: %+v", st)
		}
		r := c.do(with(info(""), proof(-time.Second)...))
		if why, _ := reason(r.err); status.Code(r.err) != codes.Unauthenticated || why != "SESSION_UNAUTHENTICATED" {
			t.Errorf("an expired proof: %v, reason %q", r.err, why)
		}
		if r := c.do(with(info(""), proof(time.Minute)...)); status.Code(r.err) != codes.NotFound {
			t.Errorf("a new proof after the session's end was not told of it: %v", r.err)
		}
	})
}

// A key that the client chooses counts only together with a principal, and for
// that one alone.
func TestAKeyThatTheClientChoosesIsScopedToItsPrincipal(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store, session.WithCarriers(session.Header("X-Session", who), session.ByPrincipal(who), session.Cookie(""))), nil).client()
	c.must(with(setOption("schema", "one"), "x-user", "alice", "x-session", "a"))
	c.must(with(setOption("schema", "two"), "x-user", "alice", "x-session", "b"))
	c.must(with(setOption("schema", "three"), "x-user", "alice"))
	cookie := c.must(setOption("schema", "four")).cookie(t)
	for want, headers := range map[string][]string{
		"one":   {"x-user", "alice", "x-session", "a"},
		"two":   {"x-user", "alice", "x-session", " b "},
		"three": {"x-user", "alice"},
		"four":  {"cookie", cookie},
		"":      {"x-user", "bob", "x-session", "a"},
	} {
		if got := c.schema(headers...); got != want {
			t.Errorf("%v has schema %q, want %q", headers, got, want)
		}
	}
	if got := c.schema("x-user", "carol", "x-session", "a"); got != "" { // a name as long as alice
		t.Errorf("carol has schema %q by a key of alice's", got)
	}
	if got := c.schema("x-user", "alice", "x-login", "a"); got != "" { // which a client cannot choose
		t.Errorf("a login has schema %q of a key that is spelled alike", got)
	}
	if st := store.Stats(); st.Live != 4 || st.Confirmed != 4 {
		t.Errorf("%+v", st)
	}
	if r := c.do(with(info(""), "x-session", "a")); status.Code(r.err) != codes.Unauthenticated {
		t.Errorf("a key of nobody's: %v", r.err)
	}
	for _, key := range []string{"", strings.Repeat("x", 257)} {
		if r := c.do(with(info(""), "x-user", "alice", "x-session", key)); status.Code(r.err) != codes.InvalidArgument {
			t.Errorf("a key of %d bytes: %v", len(key), r.err)
		}
	}
}

// A call that names different sessions by different carriers is refused.
func TestCarriersThatDisagreeAreRefused(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithCarriers(session.Header("x-session", who), session.Cookie(""))), nil).client()
	cookie := c.must(with(setOption("schema", "four"), "x-user", "alice")).cookie(t)
	c.must(with(setOption("schema", "one"), "x-user", "alice", "x-session", "a"))
	for _, headers := range [][]string{
		{"x-user", "alice", "x-session", "a", "cookie", cookie},
		{"x-user", "alice", "x-session", "new", "cookie", cookie},
		{"x-user", "alice", "x-session", "a", "x-session", "b"},
	} {
		for _, do := range []call{info(""), scan(""), setOption("schema", "x"), closeSession} {
			r := c.do(with(do, headers...))
			if why, _ := reason(r.err); status.Code(r.err) != codes.InvalidArgument || why != "SESSION_AMBIGUOUS" {
				t.Errorf("%v: %v", headers, r.err)
			}
		}
	}
	if got := c.schema("x-user", "alice", "x-session", "a", "cookie", session.StatefulSessionCookieName+"=garbage"); got != "one" {
		t.Errorf("beside garbage: schema %q", got)
	}
	if got := c.schema("x-user", "alice", "cookie", cookie); got != "four" {
		t.Errorf("schema %q", got)
	}
}

// What authentication says of a call that it refuses reaches the client if it is
// a gRPC status; its other words, and its panics, do not.
func TestARefusedPrincipalIsRefusedInTheRightWords(t *testing.T) {
	var log logBuffer
	c := serveEdge(t, edge(newStore(t), session.WithCarriers(session.ByPrincipal(who)), session.WithLogger(log.logger())), nil).client()
	for user, want := range map[string]codes.Code{"refused": codes.PermissionDenied, "failing": codes.Unauthenticated, "panicking": codes.Internal} {
		for _, do := range []call{info(""), scan("")} {
			r := c.do(with(do, "x-user", user))
			if status.Code(r.err) != want || strings.Contains(r.err.Error(), "hunter2") || strings.Contains(r.err.Error(), "who is that") {
				t.Errorf("%s: %v", user, r.err)
			}
			if says := strings.Contains(r.err.Error(), "go away"); says != (user == "refused") {
				t.Errorf("%s: %v", user, r.err)
			}
		}
	}
	if !strings.Contains(log.String(), "hunter2") || !strings.Contains(log.String(), "who is that") {
		t.Errorf("the log has not the whole story: %s", log.String())
	}
}

// What a principal's session held when it ended is told of, unless the client
// has closed it.
func TestTheEndOfAPrincipalsSessionIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		c := serveEdgeInBubble(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), nil).client()
		alice := []string{"x-user", "alice"}
		for range 2 {
			c.must(with(setOption("schema", "prod"), alice...))
			wait(idle + late)
			for range 3 {
				if why, _ := reason(c.do(with(scan(""), alice...)).err); why != "SESSION_IDLE" {
					t.Errorf("reason %q", why)
				}
			}
			c.must(with(setOption("schema", "prod"), alice...))
			if got := c.schema(alice...); got != "prod" {
				t.Errorf("schema %q", got)
			}
			c.must(with(closeSession, alice...))
			c.must(with(info(""), alice...))
		}
	})
}

// The ID of a principal's session, which a foreign lease that fails may quote, is in
// no log and no error.
func TestTheIDOfAPrincipalIsNotInTheLog(t *testing.T) {
	var log logBuffer
	var id string
	fails := func(s session.ServerSession) *confirmPanics {
		id = s.Token()
		return &confirmPanics{&fakeLease{session: s}}
	}
	for what, store := range map[string]*fakeLeaseStore{
		"a new one": {add: func(s session.ServerSession) (session.SessionLease, error) { return fails(s), nil }},
		"a known one": {acquire: func(id string) (session.SessionLease, error) {
			s, err := session.NewSessionFactory(func() string { return id }).CreateSession()
			return fails(s), err
		}},
	} {
		c := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who)), session.WithLogger(log.logger())), nil).client()
		r := c.do(with(setOption("schema", "prod"), "x-user", "alice"))
		if text := log.String() + fmt.Sprint(r.err); id == "" || strings.Contains(text, id) || !strings.Contains(text, "not connected") || status.Code(r.err) != codes.Unavailable {
			t.Errorf("%s: %v; the log: %s", what, r.err, text)
		}
	}
}

type confirmPanics struct{ *fakeLease }

func (l *confirmPanics) Confirm() { panic("not connected: " + l.session.Token()) }

// A login handler begins a session by itself, in a handshake or in any call, and
// a logout handler ends it.
func TestALoginHandlerBeginsAndEndsASession(t *testing.T) {
	store := newStore(t)
	login := func(ctx context.Context) error {
		s, err := session.Begin(ctx)
		if err == nil {
			s.SetSessionOption("schema", text("of the login"))
		}
		return err
	}
	mw := edge(store, session.WithCarriers(session.ByPrincipal(who), session.Cookie("")))
	within := mw.Stream
	mw.Stream = func(srv any, s grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) error {
		return within(srv, s, i, func(srv any, s grpc.ServerStream) error {
			if strings.HasSuffix(i.FullMethod, "/Handshake") {
				if _, err := session.GetSessionFromContext(s.Context()); !errors.Is(err, session.ErrNoSession) {
					t.Errorf("a handshake has a session: %v", err)
				}
				return login(s.Context())
			}
			return h(srv, s)
		})
	}
	e := serveEdge(t, mw, &sqlServer{statements: map[string]statement{
		"LOGIN":  func(ctx context.Context, _ session.ServerSession) error { return login(ctx) },
		"LOGOUT": func(ctx context.Context, _ session.ServerSession) error { return session.End(ctx) },
		"LOGIN AS alice": func(ctx context.Context, _ session.ServerSession) error {
			s, err := session.Begin(ctx, session.Principal{Name: "alice", Key: "7"})
			if err == nil {
				s.SetSessionOption("schema", text("of alice"))
			}
			return err
		},
	}})
	c := e.client()
	r := c.do(handshake)
	if r.err != nil || len(r.header) != 1 {
		t.Fatalf("Handshake: %+v", r)
	}
	old := r.header[0]
	if got := c.schema("cookie", old); got != "of the login" {
		t.Errorf("schema %q after the handshake", got)
	}
	fresh := c.must(info("LOGIN"), old).cookie(t)
	if fresh == old || store.Len() != 1 {
		t.Errorf("a login kept the old session, %d are there", store.Len())
	}
	if got := c.schema("cookie", fresh); got != "of the login" {
		t.Errorf("schema %q after the login", got)
	}
	if r := c.must(info("LOGOUT"), fresh); len(r.header) != 1 || !strings.HasSuffix(r.header[0], "; Max-Age=0") || store.Len() != 0 {
		t.Errorf("LOGOUT: header %q, %d sessions", r.header, store.Len())
	}
	c.must(info("LOGIN AS alice"))
	if got := c.schema("x-user", "alice", "x-login", "7"); got != "of alice" {
		t.Errorf("alice has schema %q", got)
	}
	c.must(info("LOGIN AS alice"))
	if store.Len() != 1 || store.Stats().Created != 4 {
		t.Errorf("%d sessions, %d were made", store.Len(), store.Stats().Created)
	}
}

// Carriers that make no sense are refused when the server starts.
func TestCarriersThatMakeNoSensePanicAtTheStart(t *testing.T) {
	own := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)))
	foreign := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(nil)))
	for name, make := range map[string]func(){
		"none":                     func() { session.NewServerMiddleware(own, session.WithCarriers()) },
		"zero":                     func() { session.NewServerMiddleware(own, session.WithCarriers(session.Carrier{})) },
		"header of nobody":         func() { session.NewServerMiddleware(own, session.WithCarriers(session.Header("x", nil))) },
		"principal of nobody":      func() { session.NewServerMiddleware(own, session.WithCarriers(session.ByPrincipal(nil))) },
		"header without a name":    func() { session.NewServerMiddleware(own, session.WithCarriers(session.Header("", who))) },
		"header with a meaning":    func() { session.NewServerMiddleware(own, session.WithCarriers(session.Header("Cookie", who))) },
		"cookie that is no cookie": func() { session.NewServerMiddleware(own, session.WithCarriers(session.Cookie("a b"))) },
		"two cookies": func() {
			session.NewServerMiddleware(own, session.WithCarriers(session.Cookie("a"), session.Cookie("b")))
		},
		"header after principal": func() {
			session.NewServerMiddleware(own, session.WithCarriers(session.ByPrincipal(who), session.Header("x", who)))
		},
		"principal with a foreign factory": func() { session.NewServerMiddleware(foreign, session.WithCarriers(session.ByPrincipal(who))) },
		"cookie name with a foreign manager": func() {
			session.NewServerMiddleware(&fakeManager{}, session.WithCarriers(session.Cookie("a")))
		},
		"short key":          func() { session.NewServerMiddleware(own, session.WithTokenKey([]byte("short"))) },
		"no window":          func() { session.NewServerMiddleware(own, session.WithTellWindow(0)) },
		"a code that is OK":  func() { session.NewServerMiddleware(own, session.WithDeadTokenCode(codes.OK)) },
		"unknown policy":     func() { session.NewServerMiddleware(own, session.WithDeadTokens(99)) },
		"for Apache's shape": func() { session.NewServerSessionMiddleware(own, session.WithDeadTokens(session.TellDead)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if v, _ := recover().(string); !strings.HasPrefix(v, "session: New") {
					t.Errorf("panicked with %q", v)
				}
			}()
			make()
			t.Error("it did not panic")
		})
	}
}
