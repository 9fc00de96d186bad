// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/session"
)

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// openAction is a DoAction whose action has not been sent yet.
type openAction struct {
	t testing.TB
	grpc.ClientStream
}

func (e *endpoint) openAction(headers ...string) *openAction {
	e.t.Helper()
	conn, err := grpc.NewClient("passthrough:///server", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(e.dial))
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = conn.Close() })
	ctx := metadata.AppendToOutgoingContext(e.t.Context(), headers...)
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/arrow.flight.protocol.FlightService/DoAction")
	if err != nil {
		e.t.Fatal(err)
	}
	return &openAction{e.t, s}
}

// run sends the action, and returns its first result.
func (a *openAction) run(kind string, body, result proto.Message) error {
	b, err := proto.Marshal(body)
	if err != nil {
		return err
	}
	if err := a.SendMsg(&flight.Action{Type: kind, Body: b}); err != nil {
		return err
	}
	if err := a.CloseSend(); err != nil {
		return err
	}
	var r flight.Result
	if err := a.RecvMsg(&r); err != nil {
		return err
	}
	for err == nil {
		err = a.RecvMsg(new(flight.Result))
	}
	return proto.Unmarshal(r.GetBody(), result)
}

// planted is a server with a session that a thief has planted, and with whose token the
// thief has a DoAction under way that has not sent its action; then alice logs in.
func planted(t *testing.T, s *sqlServer) (m *session.StatelessServerSessionManager, c *client, thief *openAction, hers string) {
	m = sealing(t)
	e := serveEdge(t, over(m, session.WithPrincipal(who)), s)
	c = e.client()
	cookie := c.must(setOption("schema", "planted")).cookie(t)
	thief = e.openAction("cookie", cookie)
	eventually(t, "the thief's call has begun", func() bool { return m.Stats().InUse == 1 })
	hers = c.must(info("RENEW"), cookie).cookie(t)
	hers = c.must(with(setOption("schema", "hers"), "x-user", "alice"), hers).cookie(t)
	return m, c, thief, hers
}

// Session fixation, reading: a DoAction that was opened with the planted token before
// the login, and sends GetSessionOptions after it, gets nothing of alice's.
func TestPlantedTokenReadsNothingAfterRenew(t *testing.T) {
	s := renewing(session.Principal{Name: "alice"})
	s.base = new(session.BaseServer)
	_, _, thief, _ := planted(t, s)
	var got flight.GetSessionOptionsResult
	err := thief.run(flight.GetSessionOptionsActionType, &flight.GetSessionOptionsRequest{}, &got)
	if v := got.GetSessionOptions()["schema"].GetStringValue(); v == "hers" {
		t.Errorf("the thief reads alice's schema %q, error %v", v, err)
	}
}

// Session fixation, writing: nor does it set an option in her session.
func TestPlantedTokenWritesNothingAfterRenew(t *testing.T) {
	s := renewing(session.Principal{Name: "alice"})
	s.base = new(session.BaseServer)
	started, proceed := make(chan struct{}), make(chan struct{})
	s.statements["hers"] = func(ctx context.Context, _ session.ServerSession) error {
		close(started)
		<-proceed
		return session.SetOption(ctx, "x", text("y"))
	}
	_, c, thief, hers := planted(t, s)
	alice := make(chan reply)
	go func() { alice <- c.do(with(info("hers"), "x-user", "alice"), hers) }()
	<-started
	options, _ := flight.NewSessionOptionValues(map[string]any{"evil": "yes"})
	_ = thief.run(flight.SetSessionOptionsActionType, &flight.SetSessionOptionsRequest{SessionOptions: options}, new(flight.SetSessionOptionsResult))
	close(proceed)
	hers = (<-alice).cookie(t)
	if got := c.as("alice", "evil", hers); got != "" {
		t.Errorf("the thief has set evil = %q in alice's session", got)
	}
}

// Session fixation, closing: nor does it close it.
func TestPlantedTokenClosesNothingAfterRenew(t *testing.T) {
	s := renewing(session.Principal{Name: "alice"})
	s.base = new(session.BaseServer)
	_, c, thief, hers := planted(t, s)
	_ = thief.run(flight.CloseSessionActionType, &flight.CloseSessionRequest{}, new(flight.CloseSessionResult))
	if got := c.as("alice", "schema", hers); got != "hers" {
		t.Errorf("the thief has closed alice's session: schema %q", got)
	}
}

// Session fixation by a login: Begin of the thief's call under way ends nothing of hers.
func TestPlantedTokenBeginEndsNothingOfHers(t *testing.T) {
	s := renewing(session.Principal{Name: "alice"})
	started, proceed := make(chan struct{}), make(chan struct{})
	s.statements["slow login"] = func(ctx context.Context, _ session.ServerSession) error {
		close(started)
		<-proceed
		_, err := session.Begin(ctx, session.Principal{Name: "mallory"})
		return err
	}
	c := serveEdge(t, over(sealing(t), session.WithPrincipal(who)), s).client()
	cookie := c.must(setOption("schema", "planted")).cookie(t)
	thief := make(chan reply)
	go func() { thief <- c.do(info("slow login"), cookie) }()
	<-started
	hers := c.must(info("RENEW"), cookie).cookie(t)
	close(proceed)
	<-thief
	if got := c.as("alice", "schema", hers); got != "planted" {
		t.Errorf("the thief's login has ended alice's session: schema %q", got)
	}
}

// A call under way with the old token cannot lease her session by Acquire.
func TestPlantedTokenAcquiresNothingAfterRenew(t *testing.T) {
	s := renewing(session.Principal{Name: "alice"})
	started, proceed := make(chan struct{}), make(chan struct{})
	s.statements["slow"] = func(ctx context.Context, _ session.ServerSession) error {
		close(started)
		<-proceed
		l, err := session.Acquire(ctx)
		if err != nil {
			return nil
		}
		defer l.Release()
		return fmt.Errorf("leased %q, token of %d bytes", l.Session().GetSessionOption("schema").GetStringValue(), len(l.Session().Token()))
	}
	c := serveEdge(t, over(sealing(t), session.WithPrincipal(who)), s).client()
	cookie := c.must(setOption("schema", "planted")).cookie(t)
	thief := make(chan reply)
	go func() { thief <- c.do(info("slow"), cookie) }()
	<-started
	c.must(info("RENEW"), cookie)
	close(proceed)
	if r := <-thief; r.err != nil {
		t.Errorf("the thief has alice's session, and could send its token: %v", r.err)
	}
}

// Token() of a call under way is not the new token of her session, which a handler might
// send in an answer.
func TestTokenOfARenewedSessionIsNotHandedToOldCalls(t *testing.T) {
	s := renewing(session.Principal{Name: "alice"})
	started, proceed := make(chan struct{}), make(chan struct{})
	var seen string
	s.statements["slow"] = func(_ context.Context, cur session.ServerSession) error {
		close(started)
		<-proceed
		seen = cur.Token()
		return nil
	}
	c := serveEdge(t, over(sealing(t), session.WithPrincipal(who)), s).client()
	cookie := c.must(setOption("schema", "planted")).cookie(t)
	thief := make(chan reply)
	go func() { thief <- c.do(info("slow"), cookie) }()
	<-started
	c.must(info("RENEW"), cookie)
	close(proceed)
	<-thief
	if got := c.as("alice", "schema", session.StatelessSessionCookieName+"="+seen); got != "" {
		t.Errorf("the token of the thief's call is alice's: schema %q", got)
	}
}

// hook is a share function whose calls wait for what the test says.
type hook struct {
	begun  chan struct{}
	result chan error // of the calls, in the order in which they came, unless by says otherwise
	by     []chan error
	n      atomic.Int64
}

func newHook() *hook { return &hook{begun: make(chan struct{}), result: make(chan error)} }

func (h *hook) share(context.Context, session.Revocation) error {
	n := int(h.n.Add(1)) - 1
	h.begun <- struct{}{}
	if n < len(h.by) {
		return <-h.by[n]
	}
	return <-h.result
}

// Of two calls that close a session at the same time, one fails to share it after the
// other one has: it stays closed, as a client was told.
func TestAClosedSessionStaysClosedWhenAnotherCloseFails(t *testing.T) {
	h := newHook()
	h.by = []chan error{make(chan error), make(chan error)}
	m2 := make(chan reply, 2)
	started, proceed := make(chan struct{}), make(chan struct{})
	s := &sqlServer{statements: map[string]statement{"close": func(ctx context.Context, _ session.ServerSession) error {
		started <- struct{}{}
		<-proceed
		return session.End(ctx)
	}}}
	c := serveEdge(t, over(sealing(t, session.WithRevocation(10, h.share))), s).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	for range 2 {
		go func() { m2 <- c.do(info("close"), cookie) }()
		<-started
	}
	proceed <- struct{}{}
	<-h.begun // the first one shares
	proceed <- struct{}{}
	<-h.begun // so does the second
	h.by[1] <- nil
	one := <-m2
	h.by[0] <- errors.New("down")
	var two reply
	select {
	case two = <-m2:
	case <-h.begun: // it tries again, as it finds the session closed, but not revoked
		h.result <- errors.New("down")
		two = <-m2
	}
	if one.err != nil || two.err == nil {
		t.Fatal("want that the first one fails", one.err, two.err)
	}
	if got := c.option("schema", cookie); got != "" {
		t.Errorf("a call has closed the session (%v, %v), and it lives again: schema %q", one.err, two.err, got)
	}
}

// That another replica has closed it meanwhile is not taken back by a close that fails.
func TestARevocationOfAnotherReplicaIsNotTakenBack(t *testing.T) {
	h := newHook()
	keys := ring(t, aKey())
	var got session.Revocation
	other := sealingBy(t, keys, session.WithRevocation(10, func(_ context.Context, r session.Revocation) error {
		got = r
		return nil
	}))
	m := sealingBy(t, keys, session.WithRevocation(10, h.share))
	here, there := serveEdge(t, over(m), nil).client(), serveEdge(t, over(other), nil).client()
	cookie := here.must(setOption("schema", "prod")).cookie(t)
	done := make(chan reply)
	go func() { done <- here.do(closeSession, cookie) }()
	<-h.begun
	there.must(closeSession, cookie)
	if err := m.Revoke(got); err != nil {
		t.Fatal(err)
	}
	h.result <- errors.New("down")
	<-done
	if got := here.option("schema", cookie); got != "" {
		t.Errorf("closed elsewhere, and it lives again: schema %q", got)
	}
}

// When sharing fails, nothing is closed, also where the principal had to be collapsed.
func TestAFailedCloseCollapsesNobody(t *testing.T) {
	fails := false
	m := sealing(t, session.WithRevocation(2, func(context.Context, session.Revocation) error {
		if fails {
			return errors.New("down")
		}
		return nil
	}))
	c := serveEdge(t, over(m, session.WithPrincipal(who)), nil).client()
	alice := func(f call) call { return with(f, "x-user", "alice") }
	var all []string
	for i := range 4 {
		all = append(all, c.must(alice(setOption("n", fmt.Sprint(i)))).cookie(t))
	}
	c.must(alice(closeSession), all[0])
	c.must(alice(closeSession), all[1])
	fails = true
	if r := c.do(alice(closeSession), all[2]); r.err == nil {
		t.Fatal("no error")
	}
	for i := 2; i < 4; i++ {
		if got := c.as("alice", "n", all[i]); got != fmt.Sprint(i) {
			t.Errorf("session %d: closing failed, and n = %q", i, got)
		}
	}
}

// A stream that is under way while its session is closed by another replica, and takes
// longer than the tokens could live, does not bring it back to life.
func TestAStreamDoesNotReviveARevokedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := ring(t, aKey())
		var m *session.StatelessServerSessionManager
		other := sealingBy(t, keys, short(), session.WithRevocation(10, func(_ context.Context, r session.Revocation) error { return m.Revoke(r) }))
		m = sealingBy(t, keys, short())
		s := &sqlServer{statements: map[string]statement{"long": func(context.Context, session.ServerSession) error {
			<-time.After(time.Hour)
			return nil
		}}}
		here, there := serveEdgeInBubble(t, over(m), s).client(), serveEdgeInBubble(t, over(other), nil).client()
		cookie := here.must(setOption("schema", "prod")).cookie(t)
		slow := make(chan reply)
		go func() { slow <- here.do(scan("long"), cookie) }()
		wait(time.Minute)
		there.must(closeSession, cookie)
		if got := here.option("schema", cookie); got != "" {
			t.Errorf("schema %q", got)
		}
		r := <-slow
		for _, line := range append(r.header, r.trailer...) {
			if got := here.option("schema", line) + there.option("schema", line); got != "" {
				t.Errorf("the session was closed an hour ago, and lives again: schema %q", got)
			}
		}
	})
}

// Under Apache's shape of middleware, too.
func TestAStreamUnderApachesShapeSetsNoCookieForARevokedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := ring(t, aKey())
		m := sealingBy(t, keys, short())
		other := sealingBy(t, keys, short(), session.WithRevocation(10, func(_ context.Context, r session.Revocation) error { return m.Revoke(r) }))
		s := &sqlServer{statements: map[string]statement{"long": func(context.Context, session.ServerSession) error {
			<-time.After(2 * time.Minute)
			return nil
		}}}
		here, there := serveInBubble(t, session.NewServerSessionMiddleware(m, session.WithLogger(nil)), s).client(), serveEdgeInBubble(t, over(other), nil).client()
		cookie := here.must(setOption("schema", "prod")).trailer[0]
		slow := make(chan reply)
		go func() { slow <- here.do(scan("long"), cookie) }()
		wait(time.Second)
		there.must(closeSession, cookie)
		if r := <-slow; r.header != nil || r.trailer != nil {
			t.Errorf("header %q, trailer %q", r.header, r.trailer)
		}
	})
}

// A session that a call uses is not idle: calls beside a stream that takes longer than
// the idle timeout are not told that it has idled out.
func TestASessionThatAStreamUsesIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sqlServer{statements: map[string]statement{"long": func(context.Context, session.ServerSession) error {
			<-time.After(time.Hour)
			return nil
		}}}
		c := serveEdgeInBubble(t, over(sealing(t, short())), s).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		slow := make(chan reply)
		go func() { slow <- c.do(scan("long"), cookie) }()
		wait(30 * time.Minute)
		if r := c.do(info(""), cookie); r.err != nil {
			t.Errorf("a stream of the session is under way, and it has idled out: %v", r.err)
		}
		<-slow
	})
}

// A key that has leaked and was removed takes its sessions along, also if a call with
// one is under way: the answer must not seal it under the new key.
func TestARemovedKeyTakesItsSessionsAlong(t *testing.T) {
	keys := ring(t, aKey())
	started, proceed := make(chan struct{}), make(chan struct{})
	s := &sqlServer{statements: map[string]statement{"slow": func(context.Context, session.ServerSession) error {
		close(started)
		<-proceed
		return nil
	}}}
	c := serveEdge(t, over(sealingBy(t, keys)), s).client()
	cookie := c.must(setOption("schema", "forged")).cookie(t)
	slow := make(chan reply)
	go func() { slow <- c.do(scan("slow"), cookie) }()
	<-started
	if err := keys.Set(aKey()); err != nil {
		t.Fatal(err)
	}
	close(proceed)
	r := <-slow
	for _, line := range append(r.header, r.trailer...) {
		if got := c.option("schema", line); got != "" {
			t.Errorf("the session of a removed key was sealed under the new one: schema %q", got)
		}
	}
}

// The cookie is never larger than WithMaxCookie: not by options that are set while the
// session is being renewed to a principal with a longer name.
func TestRenewToALongerNameKeepsTheCookieSmall(t *testing.T) {
	h := newHook()
	long := strings.Repeat("a", 300)
	m := sealing(t, session.WithMaxCookie(1024), session.WithRevocation(10, h.share))
	started, proceed := make(chan struct{}), make(chan struct{})
	s := renewing(session.Principal{Name: long})
	s.statements["fill"] = func(ctx context.Context, _ session.ServerSession) error {
		close(started)
		<-proceed
		return session.SetOption(ctx, "fill", text(strings.Repeat("f", 500)))
	}
	c := serveEdge(t, over(m, session.WithPrincipal(who)), s).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	other := make(chan reply)
	go func() { other <- c.do(info("fill"), cookie) }()
	<-started
	renewed := make(chan reply)
	go func() { renewed <- c.do(info("RENEW"), cookie) }()
	<-h.begun
	close(proceed)
	fill := <-other
	h.result <- nil
	r := <-renewed
	if r.err != nil {
		return // an error is fine, if the old one is as it was
	}
	if size := len(r.cookie(t)); size > 1024 {
		t.Errorf("the cookie has %d bytes (fill: %v); alice has schema %q", size, fill.err, c.as(long, "schema", r.header[0]))
	}
}

// Release may be called more than once.
func TestALeaseIsReleasedOnce(t *testing.T) {
	m := sealing(t)
	started, proceed := make(chan struct{}), make(chan struct{})
	s := &sqlServer{statements: map[string]statement{"slow": func(ctx context.Context, _ session.ServerSession) error {
		l, err := session.Acquire(ctx)
		if err != nil {
			return err
		}
		for range 3 {
			l.Release()
		}
		close(started)
		<-proceed
		return session.SetOption(ctx, "slow", text("x"))
	}}}
	c := serveEdge(t, over(m), s).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	slow := make(chan reply)
	go func() { slow <- c.do(scan("slow"), cookie) }()
	<-started
	if got := m.Stats().InUse; got != 1 {
		t.Errorf("%d sessions are in use, while a call uses one", got)
	}
	c.must(setOption("other", "y"), cookie)
	close(proceed)
	r := <-slow
	last := append(r.header, r.trailer...)
	if len(last) != 1 || c.option("other", last[0]) != "y" || c.option("slow", last[0]) != "x" {
		t.Errorf("the answer takes back what another call has set: header %q, trailer %q", r.header, r.trailer)
	}
	if got := m.Stats().InUse; got != 0 {
		t.Errorf("%d sessions are in use", got)
	}
}

// A session that its handler closes directly, and that cannot be revoked, stays entirely
// usable, also for other calls at the same time.
func TestADirectCloseThatFailsLeavesTheSessionUsable(t *testing.T) {
	var fails atomic.Bool
	fails.Store(true)
	m := sealing(t, session.WithRevocation(10, func(context.Context, session.Revocation) error {
		if fails.Load() {
			return errors.New("down")
		}
		return nil
	}))
	started, proceed := make(chan struct{}), make(chan struct{})
	s := &sqlServer{statements: map[string]statement{
		"slow": func(context.Context, session.ServerSession) error {
			close(started)
			<-proceed
			return nil
		},
		"close": func(ctx context.Context, _ session.ServerSession) error {
			inner, err := session.As[*session.StatelessServerSession](ctx)
			if err != nil {
				return err
			}
			return inner.Close()
		},
		"set": func(ctx context.Context, _ session.ServerSession) error {
			return session.SetOption(ctx, "a", text("b"))
		},
	}}
	c := serveEdge(t, over(m), s).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	slow := make(chan reply)
	go func() { slow <- c.do(scan("slow"), cookie) }()
	<-started
	defer func() { close(proceed); <-slow }()
	if r := c.do(info("close"), cookie); r.err == nil {
		t.Fatal("the client is not told")
	}
	if r := c.do(info("set"), cookie); r.err != nil {
		t.Errorf("the session could not be closed, and another call cannot use it: %v", r.err)
	}
	fails.Store(false)
	_ = c.do(info(""), cookie)
	if got := c.option("schema", cookie); got != "prod" {
		t.Errorf("a call that has nothing to do with it has closed the session: schema %q", got)
	}
}

// What a call sets while another one fails to close the session is not lost.
func TestAFailedCloseLosesNoOption(t *testing.T) {
	for _, what := range []string{"close", "renew"} {
		t.Run(what, func(t *testing.T) {
			h := newHook()
			m := sealing(t, session.WithRevocation(10, h.share))
			started, proceed := make(chan struct{}), make(chan struct{})
			s := &sqlServer{statements: map[string]statement{"set": func(ctx context.Context, _ session.ServerSession) error {
				close(started)
				<-proceed
				return session.SetOption(ctx, "a", text("b"))
			}, "close": func(ctx context.Context, _ session.ServerSession) error { return session.End(ctx) },
				"renew": func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx) }}}
			var cookies jar
			c := cookies.client(serveEdge(t, over(m), s))
			c.must(setOption("schema", "prod"))
			setting, closing := make(chan reply), make(chan reply)
			go func() { setting <- c.do(info("set")) }()
			<-started
			go func() { // its client gives up, as the hook takes too long
				closing <- c.do(func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
					ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
					defer cancel()
					return info(what)(ctx, c, opts...)
				})
			}()
			<-h.begun
			close(proceed)
			if r := <-closing; r.err == nil {
				t.Fatal("closed")
			}
			h.result <- errors.New("down")
			set := <-setting
			eventually(t, "all calls have ended", func() bool { return m.Stats().InUse == 0 })
			if set.err != nil {
				t.Errorf("set: %v", set.err)
			}
			if got := c.option("a"); got != "b" {
				t.Errorf("the option was set, and a = %q; schema %q", got, c.option("schema"))
			}
		})
	}
}

// While a close that will fail is under way, nobody is told that the session was closed.
func TestNobodyIsToldOfACloseThatFails(t *testing.T) {
	h := newHook()
	m := sealing(t, session.WithRevocation(10, h.share))
	c := serveEdge(t, over(m), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	closing := make(chan reply)
	go func() { closing <- c.do(closeSession, cookie) }()
	<-h.begun
	meanwhile := make(chan reply)
	go func() { meanwhile <- c.do(setOption("a", "b"), cookie) }()
	var r reply
	select {
	case r = <-meanwhile:
		h.result <- errors.New("down")
	case <-time.After(time.Second): // it waits, which is fine
		h.result <- errors.New("down")
		r = <-meanwhile
	}
	if failed := <-closing; failed.err == nil {
		t.Fatal("closed")
	}
	if why, _ := reason(r.err); why == "SESSION_CLOSED" {
		t.Errorf("told that its options and resources are gone: %v; schema %q", r.err, c.option("schema", cookie))
	}
}

// Of calls that renew a session at the same time one is successful, or none, but its
// client always has a session that lives.
func TestRenewalsAtTheSameTimeKeepTheSession(t *testing.T) {
	for name, policy := range map[string]session.DeadTokenPolicy{"tell": session.TellDead, "renew": session.RenewDead} {
		t.Run(name, func(t *testing.T) {
			m := sealing(t, session.WithRevocation(1<<20, nil))
			start := new(atomic.Pointer[sync.WaitGroup])
			s := &sqlServer{statements: map[string]statement{"RENEW": func(ctx context.Context, _ session.ServerSession) error {
				wg := start.Load()
				wg.Done()
				wg.Wait()
				return session.Renew(ctx)
			}}}
			c := serveEdge(t, over(m, session.WithDeadTokens(policy)), s).client()
			dead := 0
			for range 400 {
				cookie := c.must(setOption("schema", "prod")).cookie(t)
				const n = 4
				wg := new(sync.WaitGroup)
				wg.Add(n)
				start.Store(wg)
				all := make(chan reply, n)
				for range n {
					go func() { all <- c.do(info("RENEW"), cookie) }()
				}
				renewed := ""
				for range n {
					if r := <-all; r.err == nil && len(r.header) == 1 {
						renewed = r.header[0]
					}
				}
				if renewed != "" && c.option("schema", renewed) != "prod" {
					dead++
				}
			}
			if dead > 0 {
				t.Errorf("%d of 400 sessions were renewed, and are dead", dead)
			}
		})
	}
}

// What a call sets in a session that another call has renewed meanwhile is kept, or the
// call learns that it is not.
func TestASlowCallOfARenewedSessionLosesNothingSilently(t *testing.T) {
	started, proceed := make(chan struct{}), make(chan struct{})
	s := renewing()
	s.statements["slow"] = func(ctx context.Context, _ session.ServerSession) error {
		close(started)
		<-proceed
		return session.SetOption(ctx, "a", text("b"))
	}
	var cookies jar
	c := cookies.client(serveEdge(t, over(sealing(t)), s))
	c.must(setOption("schema", "prod"))
	slow := make(chan reply)
	go func() { slow <- c.do(info("slow")) }()
	<-started
	c.must(info("RENEW"))
	close(proceed)
	if r := <-slow; r.err != nil {
		return
	}
	if got := c.option("a"); got != "b" {
		t.Errorf("SetOption was successful, and a = %q (schema %q)", got, c.option("schema"))
	}
}

// The client is told when its session cannot be closed, also under Apache's shape, where
// at least it must keep its cookie.
func TestUnderApachesShapeACloseThatFailsIsNotAnnounced(t *testing.T) {
	m := sealing(t, session.WithRevocation(10, func(context.Context, session.Revocation) error { return errors.New("down") }))
	c := serve(t, session.NewServerSessionMiddleware(m, session.WithLogger(nil)), nil).client()
	cookie := c.must(setOption("schema", "prod")).trailer[0]
	r := c.do(closeSession, cookie)
	if got := c.option("schema", cookie); got == "prod" && r.err == nil && len(r.trailer) > 0 {
		t.Errorf("the client was told that it is closed, trailer %q, and the session lives", r.trailer)
	}
}

// Two tokens of a session that were sealed from the same one, by two replicas, are not
// taken for each other: the session of a call is what its client's token says, or what
// the answer's does.
func TestForkedTokensAreNotConfused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := ring(t, aKey())
		started, proceed := make(chan struct{}), make(chan struct{})
		s := &sqlServer{statements: map[string]statement{"slow": func(context.Context, session.ServerSession) error {
			close(started)
			<-proceed
			return nil
		}}}
		here, there := serveEdgeInBubble(t, over(sealingBy(t, keys)), s).client(), serveEdgeInBubble(t, over(sealingBy(t, keys)), nil).client()
		root := here.must(setOption("schema", "prod")).cookie(t)
		a := here.must(setOption("a", "1"), root).cookie(t)
		wait(time.Second)
		b := there.must(setOption("b", "2"), root).cookie(t)
		slow := make(chan reply)
		go func() { slow <- here.do(scan("slow"), a) }()
		<-started
		var during, after map[string]*flight.SessionOptionValue
		r := here.must(getOptions(&during), b)
		last := b
		if len(r.header) == 1 {
			last = r.header[0]
		}
		close(proceed)
		<-slow
		here.must(getOptions(&after), last)
		if !proto.Equal(&flight.GetSessionOptionsResult{SessionOptions: during}, &flight.GetSessionOptionsResult{SessionOptions: after}) {
			t.Errorf("a call with a token read %v, and its client's token says %v", during, after)
		}
	})
}

// If the header leaves in the middle of Renew, the new ID goes in the trailer.
func TestARenewalWhoseHeaderHasLeftIsAnnouncedInTheTrailer(t *testing.T) {
	h := newHook()
	send := make(chan struct{})
	s := &sqlServer{statements: map[string]statement{"RENEW": func(ctx context.Context, _ session.ServerSession) error {
		done := make(chan struct{})
		go func() {
			defer close(done)
			<-send
			_ = grpc.SendHeader(ctx, nil)
		}()
		go func() { <-h.begun; close(send); <-done; h.result <- nil }()
		return session.Renew(ctx)
	}}}
	c := serveEdge(t, over(sealing(t, session.WithRevocation(10, h.share))), s).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	r := c.do(info("RENEW"), cookie)
	if got := c.option("schema", last2(r, "")); r.err != nil || got != "prod" {
		t.Errorf("Renew said %v, header %q, trailer %q, and the new ID has schema %q", r.err, r.header, r.trailer, got)
	}
}

// A close that fails beside a renewal does not leave the client without a session that
// both have said to live.
func TestACloseThatFailsBesideARenewalKeepsTheSession(t *testing.T) {
	h := newHook()
	started, proceed := make(chan struct{}), make(chan struct{})
	s := renewing()
	s.statements["close"] = func(ctx context.Context, _ session.ServerSession) error {
		close(started)
		<-proceed
		return session.End(ctx)
	}
	c := serveEdge(t, over(sealing(t, session.WithRevocation(10, h.share))), s).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	closing, renewing := make(chan reply), make(chan reply)
	go func() { closing <- c.do(info("close"), cookie) }()
	<-started
	go func() { renewing <- c.do(info("RENEW"), cookie) }()
	<-h.begun
	close(proceed)
	<-h.begun
	var one, two reply
	h.result <- nil // one of them, whichever
	select {
	case one = <-renewing:
		h.result <- errors.New("down")
		two = <-closing
	case two = <-closing:
		h.result <- errors.New("down")
		one = <-renewing
	}
	last := cookie
	if len(one.header) == 1 {
		last = one.header[0]
	}
	if got := c.option("schema", last); got != "prod" && two.err != nil {
		t.Errorf("closing: %v, renewing: %v; schema %q", two.err, one.err, got)
	}
}

// Sessions that were made from one remembered content share nothing that changes.
func TestRememberedContentIsNotShared(t *testing.T) {
	m := sealing(t)
	list, _ := flight.NewSessionOptionValue([]string{"x", "y"})
	s, err := m.CreateSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.SetSessionOption("list", &list)
	for i := range 20 {
		s.SetSessionOption(fmt.Sprint("o", i), text("v"))
	}
	ctx := withCookies(session.StatelessSessionCookieName + "=" + s.Token())
	eventually(t, "it is remembered", func() bool {
		_, err := m.GetSession(ctx)
		return err == nil && m.Stats().Remembered > 0
	})
	option := session.Option[[]string]{Name: "list"}
	for range 50 {
		var all [8]session.ServerSession // not at the same time: then they could share one
		for i := range all {
			if all[i], err = m.GetSession(ctx); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for i, s := range all {
			wg.Go(func() {
				if got := fmt.Sprint(option.Of(s), len(s.GetSessionOptions())); got != "[x y] 21" {
					t.Errorf("got %s", got)
				}
				option.Of(s)[0] = "evil"
				s.GetSessionOption("list").GetStringListValue().Values[1] = "evil"
				s.GetSessionOptions()["list"].GetStringListValue().Values = nil
				s.SetSessionOption("o1", text(fmt.Sprint(i)))
				s.SetSessionOption("mine", text(fmt.Sprint(i)))
				for j := range 19 {
					s.EraseSessionOption(fmt.Sprint("o", j))
				}
				_ = s.Close()
			})
		}
		wg.Wait()
	}
}

// Outside of a call GetSession returns a session that nobody else has: no call keeps it.
func TestOutsideOfCallsSessionsAreNotShared(t *testing.T) {
	m := sealing(t)
	s, err := m.CreateSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.SetSessionOption("schema", text("prod"))
	ctx := withCookies(session.StatelessSessionCookieName + "=" + s.Token())
	var wg sync.WaitGroup
	var seen sync.Map
	var shared atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				s, err := m.GetSession(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if _, twice := seen.LoadOrStore(s, true); twice {
					shared.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := shared.Load(); n > 0 {
		t.Errorf("%d of 16000 sessions were somebody else's, too", n)
	}
}

// Options are read as package proto does.
func TestOptionsAreReadAsByProto(t *testing.T) {
	m := session.NewStatelessServerSessionManager()
	piece := rapid.SampledFrom([][]byte{{0x0a}, {0x12}, {0x8a, 0}, {0}, {1}, {2}, {4}, {6}, {0x80, 0}, {0x81, 0}, {'a'}, {0xff}, {0x10, 1}, {0x10, 0},
		{0x19, 1, 2, 3, 4, 5, 6, 7, 8}, {0x21, 1, 2, 3, 4, 5, 6, 7, 8}, {0x0a, 1, 'a'}, {0x12, 3, 0x0a, 1, 'b'}, {0x12, 2, 0x10, 1}, {0x0a, 8, 0x0a, 1, 'a', 0x12, 3, 0x0a, 1, 'c'},
		{0x0a, 4, 0x0a, 0, 0x12, 0}, {0x2a, 3, 0x0a, 1, 'z'}, {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}})
	rapid.Check(t, func(t *rapid.T) {
		var b []byte
		for _, p := range rapid.SliceOfN(piece, 0, 12).Draw(t, "pieces") {
			b = append(b, p...)
		}
		if rapid.Bool().Draw(t, "entry") && len(b) < 120 {
			b = append([]byte{0x0a, byte(len(b))}, b...)
		}
		var want flight.GetSessionOptionsResult
		bad := proto.Unmarshal(b, &want)
		s, err := m.GetSession(withCookies(session.StatelessSessionCookieName + "=" + base64.StdEncoding.EncodeToString(b)))
		if (bad != nil) != (err != nil) {
			t.Fatalf("%x: %v, want %v", b, err, bad)
		}
		if err != nil {
			return
		}
		want.ProtoReflect().SetUnknown(nil)
		for name, v := range want.SessionOptions {
			if v.GetOptionValue() == nil {
				delete(want.SessionOptions, name)
			}
		}
		if !proto.Equal(&want, &flight.GetSessionOptionsResult{SessionOptions: s.GetSessionOptions()}) {
			t.Fatalf("%x: %v, want %v", b, s.GetSessionOptions(), want.SessionOptions)
		}
	})
}

// The error names the option, whichever limit it is beyond.
func TestALimitNamesTheOption(t *testing.T) {
	s := &sqlServer{statements: map[string]statement{
		"value": func(ctx context.Context, _ session.ServerSession) error {
			return session.SetOption(ctx, "too_long", text(strings.Repeat("x", 70000)))
		},
		"name": func(ctx context.Context, _ session.ServerSession) error {
			return session.SetOption(ctx, "too_long"+strings.Repeat("x", 300), text("x"))
		},
		"many": func(ctx context.Context, _ session.ServerSession) error {
			for i := range 300 {
				if err := session.SetOption(ctx, fmt.Sprint("too_long", i), text("")); err != nil {
					return err
				}
			}
			return nil
		},
	}}
	c := serveEdge(t, over(sealing(t, session.WithMaxCookie(1<<20)), session.WithLogger(nil)), s).client()
	small := serveEdge(t, over(sealing(t)), s).client()
	for _, what := range []string{"value", "name", "many"} {
		for _, c := range []*client{c, small} {
			if r := c.do(info(what)); !strings.Contains(fmt.Sprint(r.err), "too_long") {
				t.Errorf("%s: %.150s", what, fmt.Sprint(r.err))
			}
		}
	}
}

// What a share hook fails with is logged without the session's ID, as the hook got it.
func TestNoIDInTheLog(t *testing.T) {
	var log logBuffer
	var id string
	m := sealing(t, session.WithRevocation(10, func(_ context.Context, r session.Revocation) error {
		id = r.Session
		return fmt.Errorf("publishing %+v: down", r)
	}))
	c := serveEdge(t, over(m, session.WithLogger(log.logger())), nil).client()
	r := c.do(closeSession, c.must(setOption("schema", "prod")).cookie(t))
	if id == "" || strings.Contains(log.String()+fmt.Sprint(r.err), id) {
		t.Errorf("the ID %q is in the log: %s", id, log.String())
	}
}

// A stream that ends long after its session was closed by CloseSession of the manager
// does not take its client's next cookie away.
func TestAStreamThatEndsLateDropsNoCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sealing(t, short())
		s := &sqlServer{statements: map[string]statement{
			"long": func(context.Context, session.ServerSession) error {
				<-time.After(time.Hour)
				return nil
			},
			"close": func(ctx context.Context, _ session.ServerSession) error {
				inner, err := session.As[*session.StatelessServerSession](ctx)
				if err != nil {
					return err
				}
				return m.CloseSession(inner)
			},
		}}
		c := serveEdgeInBubble(t, over(m), s).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		slow := make(chan reply)
		go func() { slow <- c.do(scan("long"), cookie) }()
		wait(time.Minute)
		c.must(info("close"), cookie)
		if r := <-slow; r.header != nil || r.trailer != nil {
			t.Errorf("header %q, trailer %q", r.header, r.trailer)
		}
	})
}

// A share hook may use the manager and the session; nothing locks up.
func TestAShareHookMayUseAll(t *testing.T) {
	var m *session.StatelessServerSessionManager
	var inner atomic.Pointer[session.StatelessServerSession]
	var cookie atomic.Pointer[string]
	var depth atomic.Int64
	m = sealing(t, session.WithRevocation(10, func(context.Context, session.Revocation) error {
		if depth.Add(1) > 1 {
			return nil
		}
		defer depth.Add(-1)
		s := inner.Load()
		s.SetSessionOption("hook", text("x"))
		_, _, _ = s.Token(), s.GetSessionOptions(), fmt.Sprintf("%+v %#v", s, m)
		s.EraseSessionOption("hook")
		_, _ = m.GetSession(withCookies(*cookie.Load()))
		_, _ = m.Stats(), m.CloseSession(s)
		for r := range m.Revocations() {
			_ = m.Revoke(r)
		}
		_ = s.Close()
		return nil
	}))
	use := func(f func(context.Context) error) statement {
		return func(ctx context.Context, _ session.ServerSession) error {
			s, err := session.As[*session.StatelessServerSession](ctx)
			inner.Store(s)
			return errors.Join(err, f(ctx))
		}
	}
	s := &sqlServer{statements: map[string]statement{
		"END":   use(session.End),
		"RENEW": use(func(ctx context.Context) error { return session.Renew(ctx) }),
		"BEGIN": use(func(ctx context.Context) error { _, err := session.Begin(ctx); return err }),
	}}
	c := serveEdge(t, over(m), s).client()
	for _, what := range []string{"END", "RENEW", "BEGIN"} {
		line := c.must(setOption("schema", "prod")).cookie(t)
		cookie.Store(&line)
		done := make(chan reply)
		go func() { done <- c.do(info(what), line) }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it hangs", what)
		}
		if got := c.option("schema", line); got != "" {
			t.Errorf("%s: schema %q", what, got)
		}
	}
	if got := m.Stats().InUse; got != 0 {
		t.Errorf("%d in use", got)
	}
}

// Whatever calls do at the same time, whatever fails, nothing stays in use, nothing
// locks up, and no cookie is too large.
func TestAStormLeavesNothingInUse(t *testing.T) {
	var n atomic.Int64
	first, second := aKey(), aKey()
	keys := ring(t, first, second)
	m := sealingBy(t, keys, session.WithMaxCookie(1024), session.WithRevocation(64, func(context.Context, session.Revocation) error {
		switch n.Add(1) % 7 {
		case 0:
			return errors.New("down")
		case 1:
			panic("hook")
		case 2:
			runtime.Gosched()
		}
		return nil
	}), session.WithPlainTokensUntil(time.Now().Add(time.Hour), session.MustSchema(&session.Option[string]{Name: "hello", NoDefault: true, Check: func(string) error { panic("check") }}).AcceptUnknown()))
	var leases sync.WaitGroup
	s := &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
		"RENEW": func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx) },
		"LOGIN": func(ctx context.Context, _ session.ServerSession) error {
			return session.Renew(ctx, session.Principal{Name: "alice"})
		},
		"BEGIN": func(ctx context.Context, _ session.ServerSession) error {
			_, err := session.Begin(ctx, session.Principal{Name: "alice"})
			return err
		},
		"PANIC": func(ctx context.Context, cur session.ServerSession) error {
			cur.SetSessionOption("p", text("q"))
			panic(plannedPanic)
		},
		"LEASE": func(ctx context.Context, cur session.ServerSession) error {
			l, err := session.Acquire(ctx)
			if err == nil {
				leases.Go(func() {
					runtime.Gosched()
					l.Session().SetSessionOption("late", text("x"))
					_ = l.Session().Token()
					l.Release()
				})
			}
			return nil
		},
		"ERROR": func(context.Context, session.ServerSession) error { return errors.New("no") },
	}}
	e := serveEdge(t, over(m, session.WithPrincipal(who)), s)
	var workers sync.WaitGroup
	stop := make(chan struct{})
	var rotation sync.WaitGroup
	rotation.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(3 * time.Millisecond):
			}
			if i%2 == 0 {
				_ = keys.Set(second, first)
			} else {
				_ = keys.Set(first, second)
			}
		}
	})
	for j := range 3 {
		var cookies jar
		for i := range 4 {
			c := cookies.client(e)
			workers.Go(func() {
				for k := range 120 {
					f := []call{setOption(fmt.Sprint("o", k%5), strings.Repeat("v", k)), getOptions(nil), info("RENEW"), scan("direct:LOGIN"), info("BEGIN"), info("PANIC"),
						scan("LEASE"), info("ERROR"), closeSession, scan("direct:PANIC")}[(k*7+i*3+j+k/10)%10]
					user := []string{"", "alice", "panicking", "failing"}[(k/3)%4]
					r := c.do(with(f, "x-user", user))
					for _, line := range append(r.header, r.trailer...) {
						if len(line) > 1024 && !strings.Contains(line, "Max-Age=0") {
							t.Errorf("a cookie of %d bytes", len(line))
						}
					}
					if k%20 == 0 {
						_ = c.do(info(""), session.StatelessSessionCookieName+"="+helloToken)
					}
				}
			})
		}
	}
	workers.Wait()
	leases.Wait()
	close(stop)
	rotation.Wait()
	eventually(t, "nothing is in use", func() bool { return m.Stats().InUse == 0 })
}

// A login that fails, since the session before cannot be revoked, closes nothing of who
// logs in.
func TestALoginThatFailsClosesNothing(t *testing.T) {
	s := &sqlServer{statements: map[string]statement{"LOGIN": func(ctx context.Context, _ session.ServerSession) error {
		_, err := session.Begin(ctx, session.Principal{Name: "alice"})
		return err
	}}}
	m := sealing(t, session.WithRevocation(2, func(context.Context, session.Revocation) error { return errors.New("down") }))
	c := serveEdge(t, over(m, session.WithPrincipal(who)), s).client()
	hers := c.must(with(setOption("schema", "hers"), "x-user", "alice")).cookie(t)
	anonymous := c.must(setOption("schema", "prod")).cookie(t)
	if r := c.do(info("LOGIN"), anonymous); status.Code(r.err) != codes.Unavailable {
		t.Fatalf("the login: %v", r.err)
	}
	if got := c.as("alice", "schema", hers); got != "hers" {
		t.Errorf("a login of alice has failed, and her other session has schema %q", got)
	}
	if got := c.option("schema", anonymous); got != "prod" {
		t.Errorf("the session before has schema %q", got)
	}
}

// An idle timeout that is as long as can be never ends a session early.
func TestAnEndlessIdleTimeoutIsNotOver(t *testing.T) {
	for _, idle := range []time.Duration{math.MaxInt64, math.MaxInt64 - time.Hour} {
		c := serveEdge(t, over(sealing(t, session.WithTokenTimeouts(idle, 24*time.Hour))), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		if got := c.option("schema", cookie); got != "prod" {
			t.Errorf("idle timeout %v: schema %q", idle, got)
		}
		c.must(closeSession, cookie)
		if got := c.option("schema", cookie); got != "" {
			t.Errorf("idle timeout %v: closed, and schema %q", idle, got)
		}
	}
}

// A manager that serves under both shapes of middleware hands the new token of a renewed
// session to nobody who had the old one.
func TestUnderApachesShapeNobodyGetsTheRenewedToken(t *testing.T) {
	m := sealing(t)
	started, proceed := make(chan struct{}), make(chan struct{})
	s := &sqlServer{statements: map[string]statement{"slow": func(context.Context, session.ServerSession) error {
		close(started)
		<-proceed
		return nil
	}}}
	apache := serve(t, session.NewServerSessionMiddleware(m, session.WithLogger(nil)), s).client()
	c := serveEdge(t, over(m, session.WithPrincipal(who)), renewing(session.Principal{Name: "alice"})).client()
	planted := c.must(setOption("schema", "prod")).cookie(t)
	thief := make(chan reply)
	go func() { thief <- apache.do(scan("slow"), planted) }()
	<-started
	c.must(info("RENEW"), planted)
	close(proceed)
	r := <-thief
	for _, line := range append(r.header, r.trailer...) {
		if got := c.as("alice", "schema", line); got == "prod" {
			t.Errorf("the thief has got a token of alice's session")
		}
	}
}

// A proof that ends with the call under way, clocks of replicas that differ, and a token
// that another replica has sealed later: the session ends neither early nor too late.
func TestClocksOfReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := ring(t, aKey())
		const skew = 10 * time.Second
		m := sealingBy(t, k, short())
		c := serveEdgeInBubble(t, over(m), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t) // now is the time of a replica behind
		wait(16 * time.Minute)
		if got := c.option("schema", cookie); got != "prod" {
			t.Errorf("early: schema %q", got)
		}
		cookie = c.must(setOption("schema", "test"), cookie).cookie(t)
		wait(17*time.Minute + skew)
		if got := c.option("schema", cookie); got != "test" { // exactly then it is still good
			t.Errorf("early: schema %q", got)
		}
		cookie = c.must(setOption("schema", "last"), cookie).cookie(t)
		wait(17*time.Minute + skew + 2*time.Millisecond)
		wantGone(t, c.do(info(""), cookie), "IDLE")
		// Revocation outlives each token, whatever clock it was sealed by.
		line := c.must(setOption("schema", "a"), cookie).cookie(t)
		for range 10 {
			wait(time.Minute)
			line = c.must(setOption("schema", fmt.Sprint(time.Now())), line).cookie(t)
		}
		c.must(closeSession, line)
		for range 40 {
			wait(30 * time.Second)
			if got := c.option("schema", line); got != "" {
				t.Fatalf("it lives again: %q", got)
			}
		}
	})
}

// What a call of this process has set is not taken back by a token that its client has
// from another replica, and which knows nothing of it.
func TestCatchingUpTakesBackNothing(t *testing.T) {
	keys := ring(t, aKey())
	started, proceed := make(chan struct{}), make(chan struct{})
	s := &sqlServer{statements: map[string]statement{"slow": func(ctx context.Context, _ session.ServerSession) error {
		if err := session.SetOption(ctx, "a", text("1")); err != nil {
			return err
		}
		close(started)
		<-proceed
		return nil
	}}}
	here, there := serveEdge(t, over(sealingBy(t, keys)), s).client(), serveEdge(t, over(sealingBy(t, keys)), nil).client()
	cookie := here.must(setOption("schema", "prod")).cookie(t)
	slow := make(chan reply)
	go func() { slow <- here.do(info("slow"), cookie) }()
	<-started
	cookie = there.must(setOption("b", "1"), cookie).cookie(t)
	cookie = there.must(setOption("b", "2"), cookie).cookie(t)
	here.must(info(""), cookie)
	close(proceed)
	last := (<-slow).cookie(t)
	if a, b := here.option("a", last), here.option("b", last); a != "1" {
		t.Errorf("the call has set a, and its answer says a = %q, b = %q", a, b)
	}
}
