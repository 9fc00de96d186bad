// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// alarms collects security events.
type alarms struct {
	mu  sync.Mutex
	all []session.SecurityEvent
}

func (a *alarms) tell(e session.SecurityEvent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = append(a.all, e)
}

func (a *alarms) take() []session.SecurityEvent {
	a.mu.Lock()
	defer a.mu.Unlock()
	defer func() { a.all = nil }()
	return a.all
}

// stores of every kind that keep the owner of a session.
func boundStores(t *testing.T) map[string]session.SessionStore {
	own := newStore(t)
	return map[string]session.SessionStore{"ours": own, "a lease store": &fakeLeases{newStore(t)}, "Apache's": apache.NewSessionStore()}
}

// fakeLeases is a LeaseStore that this package does not know.
type fakeLeases struct{ session.LeaseStore }

// For any other principal, and for an anonymous caller, a token is one that never
// was: it gives no session, ends none, and the reply is that to garbage. It is
// reported, without the token.
func TestATokenIsWorthNothingToAnybodyElse(t *testing.T) {
	for name, store := range boundStores(t) {
		t.Run(name, func(t *testing.T) {
			var seen alarms
			var log logBuffer
			c := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithSecurityEvents(seen.tell), session.WithLogger(log.logger())), nil).client()
			cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
			garbage := cookie[:len(cookie)-2] + "AA"
			for _, thief := range []string{"bob", "alic", "Alice", "alice ", ""} {
				for what, f := range map[string]call{"get": getOptions(nil), "query": info(""), "stream": scan(""), "close": closeSession} {
					stolen, made := c.do(with(f, "x-user", thief), cookie), c.do(with(f, "x-user", thief), garbage)
					if fmt.Sprint(stolen) != fmt.Sprint(made) || stolen.err != nil || stolen.header != nil || stolen.trailer != nil {
						t.Errorf("%s by %q: stolen %v, garbage %v", what, thief, stolen, made)
					}
				}
				if got := c.schema("x-user", thief, "cookie", cookie); got != "" {
					t.Errorf("%q has schema %q", thief, got)
				}
				if other := c.must(with(setOption("schema", "x"), "x-user", thief), cookie).cookie(t); token(other) == token(cookie) {
					t.Errorf("%q was given the stolen token", thief)
				}
			}
			events := seen.take()
			if len(events) != 30 {
				t.Errorf("%d events, want 30", len(events))
			}
			for i, e := range events {
				if e.Kind != session.ForeignToken || e.Count != uint64(i+1) || e.Host != "127.0.0.1" || strings.Contains(fmt.Sprintf("%+v", e), token(cookie)) {
					t.Errorf("event %d: %+v", i, e)
				}
				if name == "ours" && e.Owner != "principal alice" {
					t.Errorf("owner %q", e.Owner)
				}
			}
			if text := log.String(); !strings.Contains(text, "WARN") || !strings.Contains(text, "foreign token") || strings.Contains(text, token(cookie)) {
				t.Errorf("the log: %s", text)
			}
			if got := c.schema("x-user", "alice", "cookie", cookie); got != "prod" {
				t.Errorf("alice has schema %q", got)
			}
			if again := seen.take(); again != nil {
				t.Errorf("her own call was reported: %+v", again)
			}
		})
	}
}

// Who tries a stolen token neither confirms its session nor starts its idle clock.
func TestAStolenTokenKeepsNothingAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		c := serveEdgeInBubble(t, edge(store, session.WithPrincipal(who)), nil).client()
		cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
		<-time.After(time.Second)
		state := func() (all []layover.Info) {
			for info := range store.All() {
				all = append(all, info)
			}
			return all
		}
		before := state()
		for range 10 {
			<-time.After(time.Second)
			c.must(with(info(""), "x-user", "bob"), cookie)
		}
		if after := state(); !slices.Equal(before, after) || len(after) != 1 || after[0].Confirmed {
			t.Errorf("before %+v, after %+v", before, after)
		}
	})
}

// A session that an anonymous caller made is not a principal's: whoever plants a
// token gets nothing of what its victim does after the login.
func TestAPlantedTokenIsNotAdopted(t *testing.T) {
	for name, store := range boundStores(t) {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, edge(store, session.WithPrincipal(who)), nil).client()
			planted := c.must(setOption("schema", "evil")).cookie(t)
			if got := c.schema("x-user", "alice", "cookie", planted); got != "" {
				t.Errorf("alice has schema %q", got)
			}
			own := c.must(with(setOption("schema", "prod"), "x-user", "alice"), planted).cookie(t)
			if token(own) == token(planted) {
				t.Error("the token was adopted")
			}
			if got := c.schema("cookie", planted); got != "evil" {
				t.Errorf("the planter sees %q", got)
			}
			for _, bad := range []string{"made-up", token(own)[1:], "p:" + token(own)} {
				r := c.must(with(setOption("schema", "x"), "x-user", "bob"), session.StatefulSessionCookieName+"="+bad)
				if token(r.cookie(t)) == bad {
					t.Errorf("the made-up token %q was adopted", bad)
				}
			}
		})
	}
}

// What becomes of a session is its owner's business alone: nobody else is told of
// its end, nor uses up or acknowledges what its owner is to be told.
func TestNobodyElseIsToldOfALostSession(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store, session.WithPrincipal(who)), nil).client()
	cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
	store.Kill(store.Fingerprint(token(cookie)))
	for _, thief := range []string{"bob", ""} {
		for _, f := range []call{info(""), setOption("schema", "x"), closeSession} {
			if r := c.do(with(f, "x-user", thief), cookie); r.err != nil {
				t.Errorf("%q was told %v", thief, r.err)
			}
		}
	}
	if r := c.do(with(info(""), "x-user", "alice"), cookie); status.Code(r.err) != codes.NotFound {
		t.Errorf("alice was told %v", r.err)
	}
}

// In a store that copies, sessions are found by their owners, and their tokens are
// worth nothing to others all the same.
func TestCopiesAreBoundByTheirTokens(t *testing.T) {
	var mu sync.Mutex
	kept := make(map[string]map[string]*flight.SessionOptionValue)
	store := &fakeStore{
		put: func(s session.ServerSession) error {
			mu.Lock()
			defer mu.Unlock()
			kept[s.Token()] = s.GetSessionOptions()
			return nil
		},
		get: func(id string) (session.ServerSession, error) {
			mu.Lock()
			defer mu.Unlock()
			if kept[id] == nil {
				return nil, session.ErrNoSession
			}
			return session.NewSessionFactory(func() string { return id }).CreateSession()
		},
		remove: func(id string) error {
			mu.Lock()
			defer mu.Unlock()
			delete(kept, id)
			return nil
		},
	}
	var seen alarms
	e := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithSecurityEvents(seen.tell)), nil)
	c := e.client()
	cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
	for user, want := range map[string]string{"alice": token(cookie), "bob": "", "": ""} {
		c.must(with(info(""), "x-user", user), cookie)
		if saw, _ := e.last(); saw != want {
			t.Errorf("%q found %q, want %q", user, saw, want)
		}
	}
	if n := len(seen.take()); n != 2 {
		t.Errorf("%d events", n)
	}
	c.must(with(closeSession, "x-user", "bob"), cookie)
	if len(kept) != 1 {
		t.Error("somebody else has closed the session")
	}
	c.must(with(closeSession, "x-user", "alice"), cookie)
	if r := c.do(with(setOption("schema", "x"), "x-user", "alice"), cookie); len(kept) != 0 || status.Code(r.err) != codes.NotFound {
		t.Errorf("after the close: %d kept, %v", len(kept), r.err)
	}
}

// Nor where the tokens themselves do not say whose they are: what somebody else
// acknowledges, its owner is told all the same.
func TestNobodyElseAcknowledgesALoss(t *testing.T) {
	store := newStore(t)
	n := 0
	ids := session.WithFactory(session.NewSessionFactory(func() string { n++; return fmt.Sprint("id-", n) }))
	manager := session.NewStatefulServerSessionManager(session.WithStore(store), ids)
	c := serveEdge(t, session.NewServerMiddleware(manager, session.WithPrincipal(who), session.WithLogger(nil)), nil).client()
	cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
	store.Kill(store.Fingerprint(token(cookie)))
	for _, thief := range []string{"bob", ""} {
		c.must(with(setOption("schema", "x"), "x-user", thief), cookie)
		c.must(with(info(""), "x-user", thief), cookie)
	}
	if r := c.do(with(info(""), "x-user", "alice"), cookie); status.Code(r.err) != codes.NotFound {
		t.Errorf("alice was told %v", r.err)
	}
}

// Sessions of the owner's own type are bound as well.
func TestSessionsOfAnyTypeAreBound(t *testing.T) {
	store := newStore(t)
	n := 0
	manager := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		n++
		return &userSession{id: fmt.Sprint("user-", n)}, nil
	})))
	c := serveEdge(t, session.NewServerMiddleware(manager, session.WithPrincipal(who), session.WithLogger(nil), session.WithLazySessions()), nil).client()
	cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
	if got := c.schema("x-user", "alice", "cookie", cookie); got != "prod" {
		t.Errorf("alice has schema %q", got)
	}
	if r := c.do(with(getOptions(nil), "x-user", "bob"), cookie); status.Code(r.err) != codes.NotFound || !strings.Contains(r.err.Error(), "does not know it") {
		t.Errorf("bob: %v", r.err)
	}
	unknown := c.do(with(getOptions(nil), "x-user", "bob"), session.StatefulSessionCookieName+"=user-99")
	if status.Code(unknown.err) != codes.NotFound || !strings.Contains(unknown.err.Error(), "does not know it") {
		t.Errorf("an unknown one: %v", unknown.err)
	}
}

type name struct{ text string }

func (n name) String() string { return n.text }

// authenticating puts an identity into the context, as arrow-go does.
func authenticating(identity func(bearer string) any) flight.ServerMiddleware {
	return flight.CreateServerBasicAuthMiddleware(validator(identity))
}

type validator func(string) any

func (validator) Validate(user, _ string) (string, error) { return user, nil }
func (v validator) IsValid(bearer string) (any, error)    { return v(bearer), nil }
func bearer(f call, user string, cookies ...string) call {
	return with(f, append([]string{"authorization", "Bearer " + user}, cookies...)...)
}
func chained(first, second flight.ServerMiddleware) flight.ServerMiddleware {
	return flight.ServerMiddleware{
		Unary: func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			return first.Unary(ctx, req, info, func(ctx context.Context, req any) (any, error) { return second.Unary(ctx, req, info, handler) })
		},
		Stream: func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			return first.Stream(srv, stream, info, func(srv any, stream grpc.ServerStream) error { return second.Stream(srv, stream, info, handler) })
		},
	}
}

// By default the principal is what arrow-go's authentication has proved, if it
// has a name; an identity without one fails the calls that need a session, and
// names its type in the log.
func TestThePrincipalIsWhoHasAuthenticated(t *testing.T) {
	identities := func(bearer string) any {
		switch kind, who, _ := strings.Cut(bearer, "-"); kind {
		case "text":
			return who
		case "stringer":
			return name{who}
		case "struct":
			return struct{ user string }{who}
		}
		return nil
	}
	var log logBuffer
	e := serveEdge(t, chained(authenticating(identities), edge(newStore(t), session.WithLogger(log.logger()))), nil)
	c := e.client()
	for _, kind := range []string{"text-", "stringer-"} {
		cookie := c.must(bearer(setOption("schema", "prod"), kind+"alice")).cookie(t)
		for _, other := range []string{"text-bob", "stringer-bob", "anonymous", "text-"} {
			var got map[string]*flight.SessionOptionValue
			if c.must(bearer(getOptions(&got), other), cookie); len(got) != 0 {
				t.Errorf("%s has %v", other, got)
			}
		}
		var got map[string]*flight.SessionOptionValue
		if c.must(bearer(getOptions(&got), kind+"alice"), cookie); len(got) != 1 {
			t.Errorf("alice has %v", got)
		}
		if r := c.do(bearer(getOptions(nil), "struct-alice"), cookie); status.Code(r.err) != codes.Internal {
			t.Errorf("an identity without a name: %v", r.err)
		}
	}
	c.must(bearer(info(""), "struct-alice"))
	if r := c.do(bearer(setOption("schema", "x"), "struct-alice")); status.Code(r.err) != codes.Internal || strings.Contains(fmt.Sprint(r.err), "struct") {
		t.Errorf("a session for an identity without a name: %v", r.err)
	}
	if text := log.String(); !strings.Contains(text, "struct { user string }") || !strings.Contains(text, "WithPrincipal") {
		t.Errorf("the log: %s", text)
	}
}

// Authentication that comes after the session interceptor hides the principal:
// calls get no session then, and the log says why.
func TestAnOrderThatHidesThePrincipalIsNamed(t *testing.T) {
	var seen alarms
	var log logBuffer
	store := newStore(t)
	middleware := chained(edge(store, session.WithSecurityEvents(seen.tell), session.WithLogger(log.logger())), authenticating(func(bearer string) any { return bearer }))
	c := serveEdge(t, middleware, nil).client()
	for _, f := range []call{setOption("schema", "x"), info(""), getOptions(nil)} {
		if r := c.do(bearer(f, "alice")); status.Code(r.err) != codes.Internal || !strings.Contains(r.err.Error(), "put authentication first") {
			t.Errorf("%v", r.err)
		}
	}
	if events := seen.take(); len(events) != 3 || events[0].Kind != session.PrincipalHidden || events[0].Caller != "alice" {
		t.Errorf("%+v", events)
	}
	if !strings.Contains(log.String(), "principal hidden") || store.Len() != 0 {
		t.Errorf("%d sessions; the log: %s", store.Len(), log.String())
	}
}

// So does a gateway in front of all callers, for whom the interceptor takes them when
// it cannot see who is behind it, by whatever carrier: they share nothing.
func TestCallersBehindAGatewayAreNotTheGateway(t *testing.T) {
	gateway := func(ctx context.Context) (session.Principal, error) { // as DefaultPrincipal over mutual TLS
		if name, ok := flight.AuthFromContext(ctx).(string); ok {
			return session.Principal{Name: name}, nil
		}
		return session.Principal{Name: "gateway"}, nil
	}
	authentication := authenticating(func(bearer string) any { return bearer })
	for name, opt := range map[string]session.MiddlewareOption{
		"by cookie":    session.WithPrincipal(gateway),
		"by principal": session.WithCarriers(session.ByPrincipal(gateway)),
	} {
		var seen alarms
		store := newStore(t)
		ours := edge(store, opt, session.WithSecurityEvents(seen.tell))
		c := serveEdge(t, chained(ours, authentication), nil).client()
		for _, f := range []call{setOption("schema", "x"), info(""), getOptions(nil)} {
			if r := c.do(bearer(f, "alice")); status.Code(r.err) != codes.Internal || !strings.Contains(r.err.Error(), "put authentication first") {
				t.Errorf("%s: %v", name, r.err)
			}
		}
		if events := seen.take(); len(events) != 3 || events[0].Kind != session.PrincipalHidden || events[0].Caller != "alice" || store.Len() != 0 {
			t.Errorf("%s: %d sessions, events %+v", name, store.Len(), events)
		}
		c = serveEdge(t, chained(authentication, ours), nil).client() // as it must be
		r := c.must(bearer(setOption("schema", "prod"), "alice"))
		var cookies []string
		if name == "by cookie" {
			cookies = append(cookies, r.cookie(t))
		}
		for user, want := range map[string]int{"alice": 1, "gateway": 0} {
			var got map[string]*flight.SessionOptionValue
			if c.do(bearer(getOptions(&got), user), cookies...); len(got) != want {
				t.Errorf("%s: %s has %v", name, user, got)
			}
		}
		for _, e := range seen.take() {
			if e.Kind == session.PrincipalHidden {
				t.Errorf("%s: in the right order: %+v", name, e)
			}
		}
	}
}

// A login handler that knows whom it has authenticated hides nobody: the session
// that it has renewed is that one's.
func TestALoginThatRenewsHidesNobody(t *testing.T) {
	type authenticated struct{}
	known := func(ctx context.Context) (session.Principal, error) {
		name, _ := ctx.Value(authenticated{}).(string)
		return session.Principal{Name: name}, nil
	}
	var seen alarms
	c := serveEdge(t, edge(newStore(t), session.WithPrincipal(known), session.WithSecurityEvents(seen.tell)), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, _ session.ServerSession) error {
			if err := session.Renew(ctx, session.Principal{Name: "alice"}); err != nil {
				return err
			}
			return session.SetOption(context.WithValue(ctx, authenticated{}, "alice"), "schema", text("hers"))
		}}}).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(info("login"), cookie)
	if events := seen.take(); events != nil {
		t.Errorf("%+v", events)
	}
}

// The name of a certificate is remembered no longer than there is the certificate.
func TestNamesOfCertificatesAreNotKept(t *testing.T) {
	gone := make(chan struct{})
	func() {
		leaf := &x509.Certificate{RawSubject: subject(t, rdn("CN", strings.Repeat("alice", 1000)))}
		for range 2 {
			if name := principalIn(t, leaf); !strings.HasPrefix(name, "x509 subject CN=alice") {
				t.Error(name)
			}
		}
		runtime.AddCleanup(leaf, func(gone chan struct{}) { close(gone) }, gone)
	}()
	for range 1000 {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-time.After(time.Millisecond):
		}
	}
	t.Error("the certificate is still there")
}

// A flood of one kind of security event leaves the log its lines of another one.
func TestForeignTokensHideNoHiddenPrincipal(t *testing.T) {
	var log logBuffer
	both := func(ctx context.Context) (session.Principal, error) { // a header's, else whom arrow-go has authenticated
		p, err := who(ctx)
		if name, ok := flight.AuthFromContext(ctx).(string); ok && p.Name == "" {
			p.Name = name
		}
		return p, err
	}
	middleware := chained(edge(newStore(t), session.WithPrincipal(both), session.WithLogger(log.logger())), authenticating(func(bearer string) any { return bearer }))
	c := serveEdge(t, middleware, nil).client()
	cookie := c.must(with(bearer(setOption("schema", "prod"), "x"), "x-user", "alice")).cookie(t)
	for range 10 {
		c.must(with(bearer(info(""), "x"), "x-user", "bob"), cookie)
	}
	if r := c.do(bearer(info(""), "carol")); r.err == nil {
		t.Error("carol's call was not refused")
	}
	for _, kind := range []string{"foreign token", "principal hidden"} {
		if n := strings.Count(log.String(), kind); n < 1 || n > 5 { // one a second
			t.Errorf("%d lines of a %s: %s", n, kind, log.String())
		}
	}
}

// A login handler binds its session to whom it has authenticated, also where the
// session is found by cookie: nobody else can use it.
func TestBeginBindsTheSessionToThePrincipal(t *testing.T) {
	e := serveEdge(t, edge(newStore(t), session.WithPrincipal(who)), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, _ session.ServerSession) error {
			s, err := session.Begin(ctx, session.Principal{Name: "alice"})
			if err == nil {
				s.SetSessionOption("schema", text("prod"))
			}
			return err
		}}})
	c := e.client()
	cookie := c.must(info("login")).cookie(t)
	if got := c.schema("x-user", "alice", "cookie", cookie); got != "prod" {
		t.Errorf("alice has schema %q", got)
	}
	for _, other := range []string{"bob", ""} {
		if got := c.schema("x-user", other, "cookie", cookie); got != "" {
			t.Errorf("%q has schema %q", other, got)
		}
	}
}

// A panic in the owner's functions is an error of the call.
func TestPanicsOfPrincipalsAndAlarmsAreContained(t *testing.T) {
	c := serveEdge(t, edge(newStore(t), session.WithPrincipal(who), session.WithSecurityEvents(func(session.SecurityEvent) { panic("no") })), nil).client()
	cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
	c.must(with(info(""), "x-user", "bob"), cookie)
	if r := c.do(with(info(""), "x-user", "panicking"), cookie); status.Code(r.err) != codes.Internal {
		t.Errorf("%v", r.err)
	}
}

// In Apache's shape, too, a token is worth nothing to anybody else.
func TestATokenIsWorthNothingToAnybodyElseInApachesShape(t *testing.T) {
	for name, store := range boundStores(t) {
		t.Run(name, func(t *testing.T) {
			manager := session.NewStatefulServerSessionManager(session.WithStore(store))
			ours := flight.CreateServerMiddleware(session.NewServerSessionMiddleware(manager, session.WithLogger(nil)))
			c := serveEdge(t, chained(authenticating(func(bearer string) any { return bearer }), ours), nil).client()
			cookie := c.must(bearer(setOption("schema", "prod"), "alice")).cookie(t)
			for user, want := range map[string]string{"alice": "prod", "bob": ""} {
				var got map[string]*flight.SessionOptionValue
				r := c.must(bearer(getOptions(&got), user), cookie)
				if got["schema"].GetStringValue() != want || (r.header == nil) != (user == "alice") {
					t.Errorf("%s has %v, header %q", user, got, r.header)
				}
			}
		})
	}
}

// Nor does an identity that has no name make its callers one anonymous one: they get
// no session in Apache's shape either, and the handler learns why.
func TestNamelessIdentitiesShareNothingInApachesShape(t *testing.T) {
	for what, nameless := range map[string]func(string) any{
		"a struct":    func(user string) any { return struct{ user string }{user} },
		"one to fear": func(string) any { return (*name)(nil) }, // String panics
	} {
		var log logBuffer
		store := newStore(t)
		ours := flight.CreateServerMiddleware(session.NewServerSessionMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store)), session.WithLogger(log.logger())))
		identity := func(user string) any {
			if user == "anonymous" {
				return nil
			}
			return nameless(user)
		}
		e := serveEdge(t, chained(authenticating(identity), ours), nil)
		c := e.client()
		planted := c.must(bearer(setOption("schema", "planted"), "anonymous")).cookie(t)
		for _, cookies := range [][]string{nil, {planted}} {
			for method, f := range map[string]call{"set": setOption("schema", "prod"), "get": getOptions(nil), "query": info("")} {
				r := c.do(bearer(f, "alice"), cookies...)
				if code := status.Code(r.err); code != codes.Internal && code != codes.Unauthenticated || r.header != nil || r.trailer != nil {
					t.Errorf("%s, %s with %d cookies: %v, header %q", what, method, len(cookies), r.err, r.header)
				}
				if strings.Contains(fmt.Sprint(r.err), "struct") {
					t.Errorf("%s, %s: the client is told %v", what, method, r.err)
				}
			}
		}
		if store.Len() != 1 || !strings.Contains(log.String(), "a call gets no session") {
			t.Errorf("%s: %d sessions; the log: %s", what, store.Len(), log.String())
		}
	}
}

// A client is whom its verified certificate names.
func TestACertificateNamesThePrincipal(t *testing.T) {
	link, _ := url.Parse("spiffe://cluster/ns/a")
	page, _ := url.Parse("https://example.com/a")
	for want, leaf := range map[string]*x509.Certificate{
		"x509 subject CN=alice,O=Example": {Subject: pkix.Name{CommonName: "alice", Organization: []string{"Example"}}, URIs: []*url.URL{page}},
		"x509 URI spiffe://cluster/ns/a":  {Subject: pkix.Name{Organization: []string{"SPIRE"}}, URIs: []*url.URL{link}},
		"x509 URI https://example.com/a":  {URIs: []*url.URL{page}, DNSNames: []string{"a.example"}},
		"x509 DNS a.example":              {DNSNames: []string{"a.example"}, EmailAddresses: []string{"a@b.example"}},
		"x509 email a@b.example":          {EmailAddresses: []string{"a@b.example"}},
		"x509 serial 7 of CN=ca":          {SerialNumber: big.NewInt(7), Issuer: pkix.Name{CommonName: "ca"}},
	} {
		for verified, name := range map[bool]string{true: want, false: ""} {
			info := credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}}
			if verified {
				info.State.VerifiedChains = [][]*x509.Certificate{{leaf}}
			}
			got, err := session.DefaultPrincipal(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info}))
			if err != nil || got.Name != name {
				t.Errorf("verified %t: %q, %v, want %q", verified, got.Name, err, name)
			}
		}
	}
}

// Certificates that differ in any part of the subject, in the kind of name or, without
// a name, in the issuer are several principals; the same subject is one, however
// its text is encoded.
func TestEveryIdentityInACertificateIsOnePrincipal(t *testing.T) {
	link, _ := url.Parse("alice")
	sevens := func(issuer string) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(7), RawIssuer: subject(t, rdn("CN", issuer))}
	}
	seen := make(map[string]string)
	for what, leaf := range map[string]*x509.Certificate{
		"bob of Sales":         {RawSubject: subject(t, rdn("CN", "Sales"), rdn("CN", "bob"))}, // as Active Directory names users
		"bob of Admins":        {RawSubject: subject(t, rdn("CN", "Admins"), rdn("CN", "bob"))},
		"Sales of bob":         {RawSubject: subject(t, rdn("CN", "bob"), rdn("CN", "Sales"))},
		"bob and Sales in one": {RawSubject: subject(t, rdn("CN", "bob", "CN", "Sales"))},
		"a comma":              {RawSubject: subject(t, rdn("CN", "bob,CN=Sales"))},
		"another attribute":    {RawSubject: subject(t, rdn("OU", "Sales"), rdn("CN", "bob"))},
		"teletex":              {RawSubject: subject(t, rdn("CN", asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte("Ren\xe9")}))},
		"another teletex":      {RawSubject: subject(t, rdn("CN", asn1.RawValue{Tag: asn1.TagT61String, Bytes: []byte("Ren\xe8")}))},
		"a number":             {RawSubject: subject(t, rdn("CN", 5))},
		"the digit":            {RawSubject: subject(t, rdn("CN", "5"))},
		"a CN alice":           {RawSubject: subject(t, rdn("CN", "alice"))},
		"a URI":                {URIs: []*url.URL{link}},
		"a host":               {DNSNames: []string{"alice"}},
		"an address":           {EmailAddresses: []string{"alice"}},
		"a serial number":      sevens("a"),
		"of another issuer":    sevens("b"),
	} {
		name := principalIn(t, leaf)
		if other, known := seen[name]; known || name == "alice" {
			t.Errorf("%q is %q as well as %q", name, what, other)
		}
		seen[name] = what
	}
	printable := &x509.Certificate{RawSubject: subject(t, rdn("CN", asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte("alice")}))}
	if name := principalIn(t, printable); seen[name] != "a CN alice" {
		t.Errorf("alice in UTF-8 is %q", name)
	}
}

// principalIn returns the principal that a certificate names.
func principalIn(t *testing.T, leaf *x509.Certificate) string {
	t.Helper()
	info := credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}}
	who, err := session.DefaultPrincipal(peer.NewContext(t.Context(), &peer.Peer{AuthInfo: info}))
	if err != nil {
		t.Error(err)
	}
	return who.Name
}

// rdn returns a part of a subject: attributes and their values in turn.
func rdn(pairs ...any) (set pkix.RelativeDistinguishedNameSET) {
	types := map[any]asn1.ObjectIdentifier{"CN": {2, 5, 4, 3}, "OU": {2, 5, 4, 11}}
	for i := 0; i < len(pairs); i += 2 {
		set = append(set, pkix.AttributeTypeAndValue{Type: types[pairs[i]], Value: pairs[i+1]})
	}
	return set
}

func subject(t *testing.T, parts ...pkix.RelativeDistinguishedNameSET) []byte {
	t.Helper()
	der, err := asn1.Marshal(pkix.RDNSequence(parts))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// Nobody is taken for a certificate, whatever name authentication let it choose.
func TestNobodyIsNamedAsACertificateIs(t *testing.T) {
	identity := func(bearer string) any { return name{bearer} }
	c := serveEdge(t, chained(authenticating(identity), edge(newStore(t))), nil).client()
	if r := c.do(bearer(setOption("schema", "x"), "x509 DNS alice")); status.Code(r.err) != codes.Internal {
		t.Errorf("%v", r.err)
	}
	c.must(bearer(setOption("schema", "x"), "x509"))
}

// Over mutual TLS, a token is worth something only together with the certificate
// of the client for which it was made.
func TestATokenBelongsToAVerifiedCertificate(t *testing.T) {
	ca, caKey := authority(t)
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	server := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{issue(t, ca, caKey, "server")}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven})
	e := serveEdge(t, edge(newStore(t)), nil, grpc.Creds(server))
	as := func(names ...string) *client {
		config := &tls.Config{RootCAs: pool, ServerName: "server"}
		for _, name := range names {
			config.Certificates = append(config.Certificates, issue(t, ca, caKey, name))
		}
		return e.clientOver(credentials.NewTLS(config))
	}
	cookie := as("alice").must(setOption("schema", "prod")).cookie(t)
	for name, want := range map[string]string{"alice": "prod", "bob": ""} {
		if got := as(name).schema("cookie", cookie); got != want {
			t.Errorf("%s has schema %q", name, got)
		}
	}
	if got := as().schema("cookie", cookie); got != "" {
		t.Errorf("a client without a certificate has schema %q", got)
	}
}

// authority returns a certificate that signs others.
func authority(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return ca, key
}

// issue returns a certificate of that name.
func issue(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A principal has no more sessions than it may have: the newest is refused, or its
// own oldest leaves, and its client is told why. Others are not concerned.
func TestAPrincipalHasNoMoreSessionsThanItMay(t *testing.T) {
	for _, evict := range []bool{false, true} {
		store, over := newStore(t), session.RefuseNewest
		if evict {
			over = session.EvictOldest
		}
		c := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithMaxPerPrincipal(2, over)), nil).client()
		first := c.must(with(setOption("schema", "1"), "x-user", "alice")).cookie(t)
		second := c.must(with(setOption("schema", "2"), "x-user", "alice")).cookie(t)
		c.must(with(setOption("schema", "1"), "x-user", "bob"))
		c.must(setOption("schema", "1"))
		third := c.do(with(setOption("schema", "3"), "x-user", "alice"))
		r := c.do(with(info(""), "x-user", "alice"), first)
		if !evict {
			if why, _ := reason(third.err); why != "SESSION_STORE_FULL" || !strings.Contains(third.err.Error(), "you have 2 of at most 2") || r.err != nil {
				t.Errorf("the third: %v, the first: %v", third.err, r.err)
			}
		} else if why, _ := reason(r.err); why != "SESSION_QUOTA" || third.err != nil {
			t.Errorf("the third: %v, the first: %v", third.err, r.err)
		}
		if got := c.schema("x-user", "alice", "cookie", second); got != "2" || store.Len() != 4 {
			t.Errorf("schema %q, %d sessions", got, store.Len())
		}
		c.must(with(closeSession, "x-user", "alice"), second)
		c.must(with(setOption("schema", "4"), "x-user", "alice"))
	}
}

// Nobody else learns why a session ended, whoever makes the IDs.
func TestNobodyElseLearnsWhyASessionEnded(t *testing.T) {
	for _, policy := range []session.DeadTokenPolicy{session.TellDead, session.StrictDead} {
		store := newStore(t)
		n := 0
		ids := session.WithFactory(session.NewSessionFactory(func() string { n++; return fmt.Sprint("session-", n) }))
		m := session.NewStatefulServerSessionManager(session.WithStore(store), ids)
		c := serveEdge(t, session.NewServerMiddleware(m, session.WithPrincipal(who), session.WithLogger(nil), session.WithDeadTokens(policy)), nil).client()
		cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
		store.Kill(store.Fingerprint(token(cookie)))
		stolen := c.do(with(info(""), "x-user", "bob"), cookie)
		made := c.do(with(info(""), "x-user", "bob"), session.StatefulSessionCookieName+"=session-9")
		if a, b := reasonOf(t, stolen.err), reasonOf(t, made.err); a != b {
			t.Errorf("%s: stolen: %s, garbage: %s", policy, a, b)
		}
	}
}

// Nor does anybody by another listener of the same server.
func TestNobodyElseLearnsItAtAnotherListener(t *testing.T) {
	store := newStore(t)
	one, two := serveEdge(t, edge(store, session.WithPrincipal(who)), nil).client(), serveEdge(t, edge(store, session.WithPrincipal(who)), nil).client()
	cookie := one.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
	store.Kill(store.Fingerprint(token(cookie)))
	garbage := cookie[:len(cookie)-2] + "AA"
	a, b := two.do(with(info(""), "x-user", "bob"), cookie), two.do(with(info(""), "x-user", "bob"), garbage)
	if reasonOf(t, a.err) != reasonOf(t, b.err) {
		t.Errorf("stolen: %v, garbage: %v", a.err, b.err)
	}
}

// Under a manager of the server's own, too, what an owner is to be told is not used
// up by others.
func TestNobodyElseUsesUpTheTellingUnderAManagerOfTheServersOwn(t *testing.T) {
	store := newStore(t)
	m := &ownManager{session.NewStatefulServerSessionManager(session.WithStore(store))}
	c := serveEdge(t, chained(authenticating(func(b string) any { return b }), session.NewServerMiddleware(m, session.WithLogger(nil))), nil).client()
	cookie := c.must(bearer(setOption("schema", "prod"), "alice")).cookie(t)
	c.do(bearer(setOption("schema", "x"), "bob"), cookie) // it is live, and not bob's
	store.Kill(store.Fingerprint(token(cookie)))
	if r := c.do(bearer(info(""), "alice"), cookie); status.Code(r.err) != codes.NotFound {
		t.Errorf("alice, whose schema is gone, was told %v", r.err)
	}
}

// A planted cookie of an anonymous session is garbage to a principal with a session
// of its own.
func TestAPlantedCookieDeniesNothing(t *testing.T) {
	c := serveEdge(t, edge(newStore(t), session.WithPrincipal(who), session.WithCarriers(session.ByPrincipal(who), session.Cookie(""))), nil).client()
	planted := c.must(setOption("schema", "evil")).cookie(t)
	garbage := planted[:len(planted)-2] + "AA"
	a, b := c.do(with(info(""), "x-user", "alice"), planted), c.do(with(info(""), "x-user", "alice"), garbage)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("planted: %v, garbage: %v", a.err, b.err)
	}
}

// A session that a factory returns a second time stays with its first owner.
func TestASessionThatAFactoryReturnsAgainStaysItsOwners(t *testing.T) {
	own := session.NewSessionFactory(func() string { return "the-only-one" })
	var once session.ServerSession
	m := session.NewStatefulServerSessionManager(session.WithStore(apache.NewSessionStore()), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		if once == nil {
			once, _ = own.CreateSession()
		}
		return once, nil
	})))
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithPrincipal(who), session.WithLazySessions()), nil).client()
	cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
	if r := c.do(with(setOption("schema", "x"), "x-user", "bob")); r.err == nil {
		t.Error("bob got it")
	}
	var got map[string]*flight.SessionOptionValue
	if c.do(with(getOptions(&got), "x-user", "bob"), cookie); len(got) != 0 {
		t.Errorf("bob has %v", got)
	}
	got = nil
	if r := c.do(with(getOptions(&got), "x-user", "alice"), cookie); len(got) != 1 {
		t.Errorf("alice has %v, %v", got, r.err)
	}
}

// Sessions of foreign types are bound where the leases are of this package, also
// behind a store of the server's own.
func TestSessionsBehindAnotherStoreAreBound(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"ours": newStore(t), "wrapped": &fakeLeases{newStore(t)}} {
		n := 0
		m := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			n++
			return &userSession{id: fmt.Sprint("user-", n)}, nil
		})))
		c := serveEdge(t, session.NewServerMiddleware(m, session.WithPrincipal(who), session.WithLogger(nil), session.WithLazySessions()), nil).client()
		cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
		var got map[string]*flight.SessionOptionValue
		if c.do(with(getOptions(&got), "x-user", "bob"), cookie); len(got) != 0 {
			t.Errorf("%s: bob has %v", name, got)
		}
	}
}

// A session of a foreign type that its first call closes is remembered as closed by
// its owner.
func TestACloseInItsFirstCallIsRememberedOfItsOwner(t *testing.T) {
	told := make(map[string]string)
	for _, user := range []string{"", "alice"} {
		n := 0
		m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			n++
			return &userSession{id: fmt.Sprint("user-", n)}, nil
		})))
		c := serveEdge(t, session.NewServerMiddleware(m, session.WithPrincipal(who), session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
			"close": func(_ context.Context, s session.ServerSession) error { return s.Close() },
		}}).client()
		r := c.must(with(info("close"), "x-user", user))
		late := c.do(with(info(""), "x-user", user), r.header[0]) // which was under way
		told[user] = fmt.Sprint(reasonOf(t, late.err), len(late.header))
	}
	if told[""] != told["alice"] {
		t.Errorf("%v", told)
	}
}

// In Apache's shape of middleware, who brings a stolen token neither keeps its
// session alive nor learns that others use it.
func TestAStolenTokenTouchesNothingInApachesShape(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t, layover.WithIdleTimeout(30*time.Minute), layover.WithMaxLeases(1))
		release := make(chan struct{})
		m := session.NewStatefulServerSessionManager(session.WithStore(store))
		shape := chained(authenticating(func(b string) any { return b }), flight.CreateServerMiddleware(session.NewServerSessionMiddleware(m, session.WithLogger(nil))))
		c := serveEdgeInBubble(t, shape, &sqlServer{statements: map[string]statement{
			"wait": func(context.Context, session.ServerSession) error { <-release; return nil },
		}}).client()
		cookie := c.must(bearer(setOption("schema", "prod"), "alice")).cookie(t)
		busy := c.start(bearer(info("wait"), "alice"), cookie)
		synctest.Wait()
		c.must(bearer(info(""), "bob"), cookie)
		close(release)
		<-busy
		for range 3 {
			wait(15 * time.Minute)
			c.must(bearer(info(""), "bob"), cookie)
		}
		if ev, ok := store.Explain(store.Fingerprint(token(cookie))); !ok || ev.Reason != layover.ReasonIdle {
			t.Errorf("%v", ev)
		}
	})
}

// ownManager is a manager of the server's own around one of this package's.
type ownManager struct{ session.ServerSessionManager }

// Options that a manager or a store cannot heed are refused at the start: nobody
// believes that they protect something.
func TestSecurityOptionsThatWouldDoNothingPanic(t *testing.T) {
	ours := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)))
	for name, test := range map[string]struct {
		manager session.ServerSessionManager
		opt     session.MiddlewareOption
	}{
		"principal":            {&ownManager{ours}, session.WithPrincipal(who)},
		"maximum":              {&ownManager{ours}, session.WithMaxPerPrincipal(1, session.RefuseNewest)},
		"events":               {session.NewStatelessServerSessionManager(), session.WithSecurityEvents(func(session.SecurityEvent) {})},
		"maximum, plain store": {session.NewStatefulServerSessionManager(session.WithStore(apache.NewSessionStore())), session.WithMaxPerPrincipal(1, session.EvictOldest)},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("accepted")
				}
			}()
			session.NewServerMiddleware(test.manager, test.opt)
		})
	}
}

// A login whose session replaces the only one that its principal may have succeeds.
func TestALoginNeedsNoPlaceBesideTheSessionItReplaces(t *testing.T) {
	for name, opts := range map[string][]session.MiddlewareOption{
		"cookie":    {session.WithPrincipal(who)},
		"principal": {session.WithPrincipal(who), session.WithCarriers(session.ByPrincipal(who))},
	} {
		for _, over := range []session.WhenOver{session.RefuseNewest, session.EvictOldest} {
			t.Run(name+", "+over.String(), func(t *testing.T) {
				store := newStore(t)
				c := serveEdge(t, edge(store, append(opts, session.WithMaxPerPrincipal(1, over))...), &sqlServer{statements: map[string]statement{
					"login": func(ctx context.Context, _ session.ServerSession) error {
						_, err := session.Begin(ctx, session.Principal{Name: "alice"})
						return err
					}}}).client()
				r := c.must(with(setOption("schema", "prod"), "x-user", "alice"))
				cookie := ""
				if len(r.header) > 0 {
					cookie = r.header[0]
				}
				if r := c.do(with(info("login"), "x-user", "alice"), cookie); r.err != nil {
					var got map[string]*flight.SessionOptionValue
					after := c.do(with(getOptions(&got), "x-user", "alice"), cookie)
					t.Errorf("the login, whose session would replace the only one: %v; afterwards she has %v, %v", r.err, got, after.err)
				}
			})
		}
	}
}

// A login in the place of a session has none of another device leave.
func TestALoginCostsNoOtherDeviceItsSession(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithMaxPerPrincipal(2, session.EvictOldest)), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, _ session.ServerSession) error {
			_, err := session.Begin(ctx, session.Principal{Name: "alice"})
			return err
		}}}).client()
	phone := c.must(with(setOption("schema", "phone"), "x-user", "alice")).cookie(t)
	desk := c.must(with(setOption("schema", "desk"), "x-user", "alice")).cookie(t)
	c.must(with(info("login"), "x-user", "alice"), desk)
	if r := c.do(with(info(""), "x-user", "alice"), phone); r.err != nil {
		t.Errorf("the other device: %v; %d sessions of at most two", r.err, store.Len())
	}
}

// A login that is refused leaves the session that it would have replaced.
func TestARefusedLoginLeavesTheSession(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, _ session.ServerSession) error {
			_, err := session.Begin(ctx, session.Principal{Name: "alice"})
			return err
		}}}).client()
	c.must(with(setOption("schema", "prod"), "x-user", "alice"))
	store.Drain()
	if r := c.do(with(info("login"), "x-user", "alice")); r.err == nil {
		t.Fatal("not refused")
	}
	var got map[string]*flight.SessionOptionValue
	r := c.do(with(getOptions(&got), "x-user", "alice"))
	if got["schema"].GetStringValue() != "prod" && r.err == nil {
		t.Errorf("the login was refused; the schema is %v, and nobody is told", got)
	}
}

// A login without a principal, of a client that the call names, begins a session that
// the client finds by what it proves.
func TestALoginWithoutAPrincipalIsTheCallersOwn(t *testing.T) {
	c := serveEdge(t, edge(newStore(t), session.WithPrincipal(who), session.WithCarriers(session.ByPrincipal(who), session.Cookie(""))), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, _ session.ServerSession) error {
			s, err := session.Begin(ctx)
			if err == nil {
				s.SetSessionOption("schema", text("prod"))
			}
			return err
		},
	}}).client()
	if r := c.must(with(info("login"), "x-user", "alice")); r.header != nil {
		t.Errorf("cookies %q", r.header)
	}
	if got := c.schema("x-user", "alice"); got != "prod" {
		t.Errorf("schema %q", got)
	}
}
