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
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// A store that is full says how many places there are, how many of them are the
// caller's own, and when to come back; the log says who has the others.
func TestAFullStoreSaysWhoHasThePlaces(t *testing.T) {
	var log logBuffer
	store := newStore(t, layover.WithMaxSessions(3), layover.WithWhenFull(layover.KeepConfirmed))
	c := serveEdge(t, edge(store, session.WithCarriers(session.ByPrincipal(who)), session.WithLogger(log.logger())), nil).client()
	for _, user := range []string{"alice", "alice", "bob"} {
		c.must(with(setOption("schema", "x"), "x-user", user, "x-login", fmt.Sprint(store.Len())))
	}
	r := c.do(with(setOption("schema", "x"), "x-user", "alice", "x-login", "more"))
	info, retry := new(errdetails.ErrorInfo), new(errdetails.RetryInfo)
	for _, d := range status.Convert(r.err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if status.Code(r.err) != codes.ResourceExhausted || info.GetReason() != "SESSION_STORE_FULL" || retry.GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("%v, %v, %v", r.err, info, retry)
	}
	if m := info.GetMetadata(); m["places"] != "3" || m["own"] != "2" || !strings.Contains(r.err.Error(), "2 of all 3") {
		t.Errorf("%v, %v", r.err, m)
	}
	if strings.Contains(fmt.Sprint(r.err, info), "bob") {
		t.Errorf("the client is told who else there is: %v, %v", r.err, info)
	}
	if got := log.String(); !strings.Contains(got, "bob") || !strings.Contains(got, "alice") {
		t.Errorf("the log does not say who has the places: %s", got)
	}
}

const backendText = "dial tcp db:5432: password=hunter2 rejected"

// A store that fails before the handler is UNAVAILABLE, never "no session";
// what a back end says, and the token, go to the log alone, under the
// fingerprint that the client is told.
func TestAStoreThatFailsIsUnavailable(t *testing.T) {
	var log logBuffer
	const id = "0123456789abcdef"
	store := &fakeStore{get: func(id string) (session.ServerSession, error) {
		return nil, fmt.Errorf("get %q: %s", id, backendText)
	}}
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(log.logger())), nil).client()
	for _, do := range []call{info(""), scan(""), setOption("schema", "x"), closeSession} {
		r := c.do(do, session.StatefulSessionCookieName+"="+id)
		why, mark := reason(r.err)
		if status.Code(r.err) != codes.Unavailable || why != "SESSION_STORE_FAILED" || mark != manager.Fingerprint(id).String() {
			t.Errorf("%v, reason %q, fingerprint %q", r.err, why, mark)
		}
		for _, secret := range []string{id, "hunter2", "db:5432"} {
			if strings.Contains(fmt.Sprintf("%+v %#v", r.err, status.Convert(r.err).Proto()), secret) {
				t.Errorf("the client is told %q", secret)
			}
		}
	}
	if got := log.String(); !strings.Contains(got, "hunter2") || !strings.Contains(got, manager.Fingerprint(id).String()) || strings.Contains(got, id) {
		t.Errorf("the log: %s", got)
	}
}

// What could not be saved after the handler is INTERNAL: UNAVAILABLE would have
// the client run its INSERT again.
func TestASessionThatIsNotSavedIsInternal(t *testing.T) {
	var log logBuffer
	manager := &fakeManager{close: func(session.ServerSession) error { return errors.New(backendText) }}
	e := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(log.logger())), &sqlServer{statements: map[string]statement{
		"close": func(_ context.Context, s session.ServerSession) error { return s.Close() },
		"close and fail": func(_ context.Context, s session.ServerSession) error {
			return errors.Join(s.Close(), status.Error(codes.Aborted, "its own"))
		},
	}})
	c := e.client()
	for _, do := range []call{info("close"), scan("close")} {
		r := c.do(do)
		if why, _ := reason(r.err); status.Code(r.err) != codes.Internal || why != "SESSION_NOT_SAVED" || strings.Contains(r.err.Error(), "hunter2") {
			t.Errorf("%v, reason %q", r.err, why)
		}
	}
	if r := c.do(info("close and fail")); !strings.Contains(r.err.Error(), "its own") {
		t.Errorf("the handler's own error is lost: %v", r.err)
	}
	if !strings.Contains(log.String(), "hunter2") {
		t.Errorf("the log: %s", log.String())
	}

	stateless := session.NewServerMiddleware(session.NewStatelessServerSessionManager(), session.WithLogger(nil))
	c = serveEdge(t, stateless, &sqlServer{statements: map[string]statement{
		"unspeakable": func(_ context.Context, s session.ServerSession) error {
			s.SetSessionOption("\xff", text("x"))
			return nil
		},
	}}).client()
	r := c.do(info("unspeakable"))
	if why, _ := reason(r.err); why != "SESSION_OPTION_INVALID" || status.Code(r.err) != codes.InvalidArgument {
		t.Errorf("an option that cannot be encoded: %v, reason %q", r.err, why)
	}
}

// Managers, stores and factories that fail or panic take nothing down and tell
// clients nothing.
func TestForeignCodeThatPanicsIsInternal(t *testing.T) {
	panics := func() { panic(backendText) }
	for name, manager := range map[string]session.ServerSessionManager{
		"get":    &fakeManager{get: func(context.Context) (session.ServerSession, error) { panics(); return nil, nil }},
		"nil":    &fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, nil }},
		"create": &fakeManager{create: func(context.Context) (session.ServerSession, error) { panics(); return nil, nil }},
		"created nil": &fakeManager{create: func(context.Context) (session.ServerSession, error) {
			return (*userSession)(nil), nil
		}},
		"no cookie": &fakeManager{create: func(context.Context) (session.ServerSession, error) { return &userSession{id: ";"}, nil }},
		"factory": session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			panics()
			return nil, nil
		}))),
		"generator": session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(session.NewSessionFactory(func() string {
			panics()
			return ""
		}))),
	} {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), nil).client()
			for range 2 {
				r := c.do(setOption("schema", "x"))
				if status.Code(r.err) != codes.Internal || strings.Contains(r.err.Error(), "hunter2") {
					t.Errorf("%v", r.err)
				}
			}
		})
	}
}

// Whatever prints a session, a lease or a call's context prints no token.
func TestNothingPrintsATokenUnderAnyVerb(t *testing.T) {
	store := newStore(t)
	var printed []string
	show := func(what any) {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			printed = append(printed, fmt.Sprintf(verb, what))
		}
	}
	e := serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"show": func(ctx context.Context, s session.ServerSession) error {
			l, err := session.Acquire(ctx)
			if err != nil {
				return err
			}
			defer l.Release()
			same, err := session.Lookup(ctx)
			for _, what := range []any{ctx, s, l, same, []any{s}, struct{ S session.ServerSession }{s}, err} {
				show(what)
			}
			return err
		},
		"empty": func(_ context.Context, s session.ServerSession) error { show(s); return nil },
	}})
	c := e.client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(info("show"), cookie)
	all := strings.Join(printed, "\n")
	if strings.Contains(all, token(cookie)) || strings.Contains(all, fmt.Sprintf("%x", token(cookie))) {
		t.Errorf("the token was printed: %s", all)
	}
	if !strings.Contains(all, store.Fingerprint(token(cookie)).String()) {
		t.Errorf("the fingerprint was not: %s", all)
	}
	printed = nil
	c.must(info("empty"))
	if got := printed[0]; got != "no session yet" || store.Len() != 1 {
		t.Errorf("an empty one prints as %q, %d sessions", got, store.Len())
	}
}

// A principal prints without its key, which may be a bearer token, also in
// structured logs.
func TestAPrincipalPrintsWithoutItsKey(t *testing.T) {
	p := session.Principal{Name: "alice", Key: "0123456789abcdef"}
	var log logBuffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "who", p, "all", []session.Principal{p})
	log.logger().Info("x", "who", p)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		_, _ = fmt.Fprintf(&log, verb+verb, p, &p)
	}
	if got := log.String(); strings.Contains(got, p.Key) || strings.Contains(got, fmt.Sprintf("%x", p.Key)) || !strings.Contains(got, "alice") {
		t.Error(got)
	}
}

// A handler sees no session token in the metadata that it may forward, if the
// owner wants that; other cookies and headers stay.
func TestTokensAreStrippedFromWhatHandlersSee(t *testing.T) {
	store := newStore(t)
	var seen metadata.MD
	e := serveEdge(t, edge(store, session.WithTokensStripped(), session.WithCarriers(session.Header("x-session", who), session.Cookie(""))), &sqlServer{statements: map[string]statement{
		"look": func(ctx context.Context, s session.ServerSession) error {
			seen, _ = metadata.FromIncomingContext(ctx)
			if s.GetSessionOption("schema") == nil {
				return errors.New("not its session")
			}
			return nil
		},
	}})
	c := e.client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(with(setOption("schema", "prod"), "x-user", "alice", "x-session", "the client's key"))
	for _, do := range []call{info("look"), scan("look")} {
		c.must(do, "AWSALB=x; "+cookie+"; theme=dark", cookie)
		if got := fmt.Sprint(seen); strings.Contains(got, token(cookie)) || strings.Join(seen.Get("cookie"), "|") != "AWSALB=x; theme=dark" {
			t.Errorf("the handler sees %s", got)
		}
		c.must(with(do, "x-user", "alice", "x-session", "the client's key"))
		if got := fmt.Sprint(map[string][]string(seen)); strings.Contains(got, "the client's key") || !strings.Contains(got, "alice") {
			t.Errorf("the handler sees %s", got)
		}
	}
}

// If the owner requires TLS, no token travels without it, on either way; calls
// that need no session still run.
func TestTokensTravelOverTLSAloneIfRequired(t *testing.T) {
	store := newStore(t)
	server, client := certificate(t)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", lis.Addr().String())
	}
	c := serveOn(t, lis, dial, edge(store, session.WithTLSRequired()), nil, grpc.Creds(server)).clientOver(client)
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	if got := c.schema("cookie", cookie); got != "prod" {
		t.Errorf("schema %q", got)
	}
	plain := serveEdge(t, edge(store, session.WithTLSRequired()), nil).client()
	plain.must(info(""))
	for _, r := range []reply{plain.do(info(""), cookie), plain.do(setOption("schema", "x")), plain.do(info(""), session.StatefulSessionCookieName+"=x")} {
		if why, _ := reason(r.err); status.Code(r.err) != codes.FailedPrecondition || why != "SESSION_NEEDS_TLS" || r.header != nil {
			t.Errorf("%+v", r)
		}
	}
}

// certificate returns the credentials of a server for this host, and of clients
// that trust it.
func certificate(t *testing.T) (server, client credentials.TransportCredentials) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"server"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return credentials.NewServerTLSFromCert(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}),
		credentials.NewClientTLSFromCert(pool, "server")
}

// One line warns if a token leaves for another host in the clear, none if it
// stays on this one.
func TestOneWarningIfATokenLeavesInTheClear(t *testing.T) {
	for from, want := range map[string]int{"10.1.2.3:4": 1, "[2001:db8::1]:4": 1, "127.0.0.1:4": 0, "[::1]:4": 0, "@": 0} {
		var log logBuffer
		middleware := edge(newStore(t), session.WithLogger(log.logger()))
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: address(from)})
		for range 3 {
			_, err := middleware.Unary(ctx, nil, getFlightInfo, func(ctx context.Context, _ any) (any, error) {
				return nil, session.SetOption(ctx, "schema", text("x"))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if got := strings.Count(log.String(), "unencrypted"); got != want {
			t.Errorf("%s: %d warnings, want %d: %s", from, got, want, log.String())
		}
	}
}

var getFlightInfo = &grpc.UnaryServerInfo{FullMethod: "/arrow.flight.protocol.FlightService/GetFlightInfo"}

// address is where a call comes from.
type address string

func (a address) Network() string { return "tcp" }
func (a address) String() string  { return string(a) }
