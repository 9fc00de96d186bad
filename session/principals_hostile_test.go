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
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// A SetToken that panics is called once more, with the old token; under no lock that
// other sessions need.
func TestSetTokenRunsUnderNoLock(t *testing.T) {
	reached, gate := make(chan struct{}), make(chan struct{})
	var calls, n atomic.Int64
	m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return &hookedUser{userSession: &userSession{id: fmt.Sprint("user-session-", n.Add(1))}, before: func(string) {
			if calls.Add(1) == 1 {
				panic("no")
			}
			close(reached)
			<-gate
		}}, nil
	})))
	e := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), renewing())
	c := e.client()
	one, other := c.must(setOption("schema", "prod")).cookie(t), c.must(setOption("schema", "test")).cookie(t)
	renewed, closed := make(chan reply, 1), make(chan reply, 1)
	go func() { renewed <- c.do(info("RENEW"), one) }()
	<-reached
	go func() { closed <- c.do(closeSession, other) }()
	select {
	case <-closed:
	case <-time.After(2 * time.Second):
		t.Error("while SetToken of one session runs, no other one can be closed")
	}
	close(gate)
	<-renewed
}

// Whatever calls do at the same time, what is written back is within the limits.
func TestMergedCopiesAreWithinTheLimits(t *testing.T) {
	remote := new(remoteStore)
	var ready sync.WaitGroup
	const calls, each = 8, 4
	ready.Add(calls)
	var n atomic.Int64
	m := session.NewStatefulServerSessionManager(session.WithStore(remote), session.WithOptionLimits(session.OptionLimits{Options: each + 1}))
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"set": func(ctx context.Context, _ session.ServerSession) error {
			me := n.Add(1)
			for i := range each {
				if err := session.SetOption(ctx, fmt.Sprint("option", me, "-", i), text("x")); err != nil {
					return err
				}
			}
			ready.Done()
			ready.Wait()
			return nil
		}}}).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	var all sync.WaitGroup
	for range calls {
		all.Go(func() { c.do(info("set"), cookie) })
	}
	all.Wait()
	for _, row := range remote.rows {
		if len(row) > each+1 {
			t.Errorf("%d options of a session, which may have %d", len(row), each+1)
		}
	}
}

// Begin, too, says that the principal is hidden, rather than have the session be
// nobody's, or a gateway's.
func TestBeginIsToldOfAHiddenPrincipal(t *testing.T) {
	for name, f := range map[string]statement{
		"begin": func(ctx context.Context, _ session.ServerSession) error { _, err := session.Begin(ctx); return err },
		"renew": renew,
		"acquire": func(ctx context.Context, _ session.ServerSession) error {
			l, err := session.Acquire(ctx)
			if err == nil {
				l.Release()
			}
			return err
		},
	} {
		var seen alarms
		store := newStore(t)
		ours := edge(store, session.WithSecurityEvents(seen.tell))
		server := &sqlServer{
			fromContext: func(context.Context) (session.ServerSession, error) { return nil, nil },
			statements:  map[string]statement{name: f},
		}
		planter := serveEdge(t, ours, nil).client()
		cookie := planter.must(setOption("schema", "planted")).cookie(t)
		c := serveEdge(t, chained(ours, authenticating(func(bearer string) any { return bearer })), server).client()
		r := c.do(bearer(info(name), "alice"), cookie)
		if events := seen.take(); status.Code(r.err) != codes.Internal || len(events) == 0 {
			t.Errorf("%s: %v, header %q, %d sessions, events %+v", name, r.err, r.header, store.Len(), events)
		}
	}
}

// No ID of a session that is live is in the log, nor in what Close returns, when a
// store that quotes IDs cannot remove it.
func TestNoIDInTheLogOfAFailedEnd(t *testing.T) {
	for name, f := range map[string]statement{
		"end":   func(ctx context.Context, _ session.ServerSession) error { return session.End(ctx) },
		"begin": func(ctx context.Context, _ session.ServerSession) error { _, err := session.Begin(ctx); return err },
		"close": func(_ context.Context, s session.ServerSession) error { return s.Close() },
		"raw":   nil,
	} {
		var log logBuffer
		remote := &quotingStore{remoteStore: new(remoteStore)}
		live := ""
		m := copying(t, remote)
		c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(log.logger())), &sqlServer{statements: map[string]statement{
			"do": func(ctx context.Context, s session.ServerSession) error {
				s.SetSessionOption("schema", text("prod"))
				live = s.Token()
				remote.fails.Store(true)
				if f == nil {
					return m.CloseSession(s)
				}
				return f(ctx, s)
			},
		}}).client()
		r := c.do(info("do"))
		remote.fails.Store(false)
		if got := log.String(); live == "" || strings.Contains(got, live) || strings.Contains(fmt.Sprint(r.err), live) {
			t.Errorf("%s: the ID %s of a session that is live is in the log: %s\nor in the error %v", name, live, got, r.err)
		}
	}
}

// The same of the session of a principal, whose ID is in no header.
func TestNoIDInTheLogOfAFailedLogin(t *testing.T) {
	var log logBuffer
	remote := &quotingStore{remoteStore: new(remoteStore)}
	live := ""
	c := serveEdge(t, session.NewServerMiddleware(copying(t, remote), session.WithLogger(log.logger()), session.WithCarriers(session.ByPrincipal(who))), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, s session.ServerSession) error {
			live = s.Token()
			remote.fails.Store(true)
			_, err := session.Begin(ctx)
			return err
		},
	}}).client()
	c.must(with(setOption("schema", "prod"), "x-user", "alice"))
	r := c.do(with(info("login"), "x-user", "alice"))
	remote.fails.Store(false)
	if got := log.String(); live == "" || strings.Contains(got, live) || !strings.Contains(got, "cannot remove") {
		t.Errorf("the ID %q of a session that is live is in the log: %s (%v)", live, got, r.err)
	}
}

// A subject that names no one, as that of all SVIDs of SPIRE (C=US,O=SPIRE), must not
// make one principal of all workloads: their URIs say who they are.
func TestWorkloadsWithOneSubjectAreNotOnePrincipal(t *testing.T) {
	names := make(map[string]string)
	for _, text := range []string{"spiffe://cluster/ns/a", "spiffe://cluster/ns/b"} {
		u, _ := url.Parse(text)
		leaf := &x509.Certificate{Subject: pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}, URIs: []*url.URL{u}}
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}}})
		who, err := session.DefaultPrincipal(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if other := names[who.Name]; other != "" {
			t.Errorf("%q and %q are both %q", other, text, who.Name)
		}
		names[who.Name] = text
	}
}

// Limits above the defaults hold in a store that copies: its copies are made by this
// package's factory, and must not lose what the manager has allowed.
func TestCopiesKeepWhatTheManagerAllows(t *testing.T) {
	for what, options := range map[string]map[string]any{
		"many":  {},
		"large": {"large": strings.Repeat("v", 100<<10)},
	} {
		if what == "many" {
			for i := range 300 {
				options[fmt.Sprint("option", i)] = "x"
			}
		}
		m := copying(t, &remoteStore{})
		session.WithOptionLimits(session.OptionLimits{Options: 1000, Value: 1 << 20, Session: 1 << 20})(m)
		c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), nil).client()
		cookie := c.must(setOptions(options)).cookie(t)
		var got map[string]*flight.SessionOptionValue
		c.must(getOptions(&got), cookie)
		if len(got) != len(options) {
			t.Errorf("%s: %d of %d options are left", what, len(got), len(options))
		}
	}
}

// Two subjects that differ in their DER, and both are taken by crypto/x509, are two.
func TestTwoSubjectsAreTwoPrincipals(t *testing.T) {
	names := make(map[string]string)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cn := []byte{0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x05, 'a', 'l', 'i', 'c', 'e'}
	in := func(tag byte, b []byte) []byte { return append([]byte{tag, byte(len(b))}, b...) }
	for what, attr := range map[string][]byte{"plain": cn, "with more": append(cn[:len(cn):len(cn)], 0x0c, 0x01, 'x')} {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1), RawSubject: in(0x30, in(0x31, in(0x30, attr)))},
			&x509.Certificate{Subject: pkix.Name{CommonName: "CA"}}, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf}}}}})
		who, err := session.DefaultPrincipal(ctx)
		if err != nil {
			continue
		}
		if other := names[who.Name]; other != "" {
			t.Errorf("%q and %q are both %q", other, what, who.Name)
		}
		names[who.Name] = what
	}
}

// After Begin the call's session is the new one, also for SetOption, where sessions
// are made at once.
func TestSetOptionAfterBeginIsKept(t *testing.T) {
	var n atomic.Int64
	users := fakeFactory(func() (session.ServerSession, error) {
		return &userSession{id: fmt.Sprint("user-session-", n.Add(1))}, nil
	})
	m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(users))
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, _ session.ServerSession) error {
			if _, err := session.Begin(ctx); err != nil {
				return err
			}
			return session.SetOption(ctx, "schema", text("prod"))
		},
	}}).client()
	r := c.must(info("login"))
	last := r.header[len(r.header)-1]
	if got := c.option("schema", last); got != "prod" {
		t.Errorf("SetOption has said that it is set, and schema is %q; %q", got, r.header)
	}
}

// A factory that returns the session which is there gets it replaced by itself: it must
// not end for that, and Begin must not say that there is a new one.
func TestBeginDoesNotReplaceASessionByItself(t *testing.T) {
	one := &userSession{id: "user-session"}
	store := newStore(t)
	m := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(fakeFactory(func() (session.ServerSession, error) { return one, nil })))
	var began error
	c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"login": func(ctx context.Context, _ session.ServerSession) error { _, began = session.Begin(ctx); return nil },
	}}).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(info("login"), cookie)
	if began == nil || store.Len() != 1 || one.closeCount() != 0 {
		t.Errorf("Begin: %v; %d sessions; closed %d times", began, store.Len(), one.closeCount())
	}
}

// A call that has given its session to a principal can renew it again.
func TestALoginCanRenewTwice(t *testing.T) {
	alice := session.Principal{Name: "alice"}
	for name, first := range map[string]func(context.Context) error{
		"renew": func(ctx context.Context) error { return session.Renew(ctx, alice) },
		"begin": func(ctx context.Context) error { _, err := session.Begin(ctx, alice); return err },
	} {
		for again, f := range map[string]func(context.Context) error{
			"renew":         func(ctx context.Context) error { return session.Renew(ctx) },
			"renew as hers": func(ctx context.Context) error { return session.Renew(ctx, alice) },
		} {
			c := serveEdge(t, edge(newStore(t), session.WithPrincipal(who)), &sqlServer{statements: map[string]statement{
				"login": func(ctx context.Context, _ session.ServerSession) error {
					if err := first(ctx); err != nil {
						return fmt.Errorf("first: %w", err)
					}
					return f(ctx)
				},
			}}).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			r := c.do(info("login"), cookie)
			if r.err != nil {
				t.Errorf("%s, then %s: %v", name, again, r.err)
				continue
			}
			last := r.header[len(r.header)-1]
			if got := c.do(with(getOptions(nil), "x-user", "alice"), last); got.err != nil {
				t.Errorf("%s, then %s: %v", name, again, got.err)
			}
		}
	}
}

// Behind another lease store, too, a session that was closed under a call is counted
// to the byte, and its call keeps what it sets.
func TestEndedSessionsInUseCountBehindAnotherStore(t *testing.T) {
	store := newStore(t)
	m := session.NewStatefulServerSessionManager(session.WithStore(&fakeLeases{store}))
	big := text(strings.Repeat("v", 45<<10))
	var c *client
	var cookie string
	c = serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"grow": func(_ context.Context, s session.ServerSession) error {
			s.SetSessionOption("big", big)
			c.must(closeSession, cookie)
			s.SetSessionOption("big2", big)
			if n := len(s.GetSessionOptions()); n != 3 {
				t.Errorf("%d options", n)
			}
			s.EraseSessionOption("big")
			s.EraseSessionOption("big2")
			if n := store.Stats().Bytes; n > 1000 {
				t.Errorf("%d bytes are counted for a session without large options", n)
			}
			return nil
		}}}).client()
	cookie = c.must(setOption("schema", "prod")).cookie(t)
	if r := c.do(info("grow"), cookie); r.err != nil {
		t.Error(r.err)
	}
}

// What one session has does not count in another one that the handler goes on with.
func TestTheLimitsInApachesShapeAreOfOneSession(t *testing.T) {
	var n atomic.Int64
	users := fakeFactory(func() (session.ServerSession, error) {
		return &userSession{id: fmt.Sprint("user-session-", n.Add(1))}, nil
	})
	m := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithFactory(users),
		session.WithOptionLimits(session.OptionLimits{Options: 2}))
	ours := flight.CreateServerMiddleware(session.NewServerSessionMiddleware(m, session.WithLogger(nil)))
	c := serveEdge(t, ours, &sqlServer{statements: map[string]statement{"login": func(ctx context.Context, _ session.ServerSession) error {
		for i := range 2 {
			if err := session.SetOption(ctx, fmt.Sprint("old", i), text("x")); err != nil {
				return err
			}
		}
		next, err := m.CreateSession(ctx)
		if err != nil {
			return err
		}
		return session.SetOption(session.NewSessionContext(ctx, next), "schema", text("prod"))
	}}}).client()
	if r := c.do(info("login")); r.err != nil {
		t.Error(r.err)
	}
}
