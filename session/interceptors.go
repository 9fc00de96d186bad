// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// NewServerMiddleware returns interceptors that give the calls of a Flight
// server their sessions, for [flight.NewServerWithMiddleware]. The sessions come
// from manager; nil: [NewStatefulServerSessionManager] with its defaults. It
// panics on options that make no sense.
//
// A call leases its session from before its handler starts until the handler
// has returned, streams included, also if it panics. Then the idle clock starts.
// [Acquire] is for what goes on after that.
//
// A session exists only where one is needed. A call that brings no token gets a
// session from [GetSessionFromContext] that reads as empty, takes no place in
// the store and sends no cookie, until an option is set in it, its token is
// asked for, or [Ensure] is called. If it cannot be made then, the call fails;
// with [SetOption] and Ensure the handler learns that at once. With a manager or
// a factory of one's own, whose handlers may expect its types in the context,
// calls get their session at once, see [WithLazySessions].
//
// A call with the token of a session that has ended is told so, see [TellDead].
//
// Calls of other services on the same server, such as health checks, and
// handshakes get no session. Put interceptors that authenticate before this one,
// and those that recover from panics before both.
func NewServerMiddleware(manager ServerSessionManager, opts ...MiddlewareOption) flight.ServerMiddleware {
	if manager == nil {
		manager = NewStatefulServerSessionManager()
	}
	m, err := newInterceptors(manager, newMiddlewareConfig(opts))
	if err != nil {
		panic(fmt.Sprintf("session: NewServerMiddleware: %v", err))
	}
	return flight.ServerMiddleware{Unary: m.unary, Stream: m.stream}
}

// interceptors are what all calls share.
type interceptors struct {
	config    *middlewareConfig
	manager   ServerSessionManager
	own       *StatefulServerSessionManager // manager, if it is one
	store     *ExpiringSessionStore         // of own, if it is one
	cookie    string                        // its name; empty: tokens do not travel in cookies
	derived   []Carrier                     // those that go by principal
	mint      *mint
	stateless *StatelessServerSessionManager // manager, if it is one
	mints     bool                           // the tokens are its own
	remembers bool                           // nothing of the store outlives the process
	eager     bool                           // calls get their session at once
	tellings  *tellings
	closes    sync.Mutex // one call at a time closes a session of this package's
	reporter  *reporter
	alarms    [PrincipalHidden + 1]atomic.Uint64 // security events by kind
	warned    atomic.Bool
}

func newInterceptors(manager ServerSessionManager, c *middlewareConfig) (*interceptors, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	m := &interceptors{config: c, manager: manager, reporter: newReporter(c.logger),
		tellings: newTellings(c.window), mint: newMint(c.key, time.Now())}
	for _, carrier := range c.carriers {
		switch carrier.kind {
		case cookieCarrier:
			m.cookie = carrier.name
			m.reporter.cookies = append(m.reporter.cookies, carrier.name)
		case headerCarrier:
			m.reporter.headers = append(m.reporter.headers, carrier.name)
			fallthrough
		default:
			m.derived = append(m.derived, carrier)
		}
	}
	m.own, _ = manager.(*StatefulServerSessionManager)
	if m.stateless, _ = manager.(*StatelessServerSessionManager); m.stateless != nil {
		return m, m.forStateless()
	}
	if m.own == nil {
		m.eager = !c.lazy
		if len(c.carriers) != 1 || m.cookie != StatefulSessionCookieName {
			return nil, fmt.Errorf("a %T reads cookies by itself: carriers need a *StatefulServerSessionManager", manager)
		}
		if c.binds || c.quota != 0 || c.alarm != nil || c.cancels {
			return nil, fmt.Errorf("a %T finds sessions by itself: WithPrincipal, WithMaxPerPrincipal, WithSecurityEvents and WithCancelOnKill need a *StatefulServerSessionManager", manager)
		}
		return m, nil
	}
	m.store, _ = m.own.store.(*ExpiringSessionStore)
	m.remembers = m.store != nil
	if c.cancels && m.store == nil {
		return nil, fmt.Errorf("a %T has no contexts of sessions: WithCancelOnKill needs an *ExpiringSessionStore", m.own.store)
	}
	if _, leases := m.own.store.(LeaseStore); !leases && c.quota != 0 {
		return nil, fmt.Errorf("a %T counts no sessions: WithMaxPerPrincipal needs a LeaseStore", m.own.store)
	}
	factory, ours := m.own.factory.(*sessionFactory)
	m.mints = ours && factory.generateID == nil
	m.eager = !ours && !c.lazy
	if !ours && len(m.derived) > 0 {
		return nil, fmt.Errorf("sessions of a %T have IDs of its own: ByPrincipal and Header need NewSessionFactory", m.own.factory)
	}
	return m, nil
}

// forStateless prepares for sessions that travel whole in their cookies, and returns
// what is wrong with that.
func (m *interceptors) forStateless() error {
	c := m.config
	if len(c.carriers) != 1 || m.cookie != StatefulSessionCookieName {
		return errors.New("stateless sessions travel in a cookie, whose name WithTokenCookie sets: carriers need a *StatefulServerSessionManager")
	}
	if c.quota != 0 || c.cancels {
		return errors.New("nobody counts or kills stateless sessions: WithMaxPerPrincipal and WithCancelOnKill need a *StatefulServerSessionManager")
	}
	if !m.stateless.seals() && (c.binds || c.alarm != nil) {
		return errors.New("sessions without keys belong to nobody: WithPrincipal and WithSecurityEvents need WithKeyring, or a *StatefulServerSessionManager")
	}
	m.cookie = m.stateless.cookie
	m.reporter.cookies = append(m.reporter.cookies, m.cookie)
	return nil
}

// binds reports whether it is this package that knows whose sessions are.
func (m *interceptors) binds() bool { return m.own != nil || m.stateless.seals() }

// The methods of FlightService, see Flight.proto.
const (
	flightService   = "/arrow.flight.protocol.FlightService/"
	handshakeMethod = flightService + "Handshake"
	doActionMethod  = flightService + "DoAction"
)

func (m *interceptors) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (res any, err error) {
	if !strings.HasPrefix(info.FullMethod, flightService) {
		return handler(ctx, req)
	}
	h := &handle{m: m, base: ctx}
	defer h.release()
	if err := h.open(ctx, false); err != nil {
		return nil, m.refusal(ctx, err)
	}
	if err := h.decide(""); err != nil {
		return nil, m.refusal(ctx, err)
	}
	if ctx, err = h.context(ctx, ""); err != nil {
		return nil, m.refusal(ctx, err)
	}
	h.runs = true
	res, err = handler(ctx, req)
	return res, h.complete(err)
}

// streamCall is all that the interceptor of a stream needs.
type streamCall struct {
	grpc.ServerStream
	handle    handle
	ctx       context.Context // of the handler
	undecided bool            // until the type of the action is known
	replied   bool            // a message was sent
}

func (m *interceptors) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if !strings.HasPrefix(info.FullMethod, flightService) {
		return handler(srv, stream)
	}
	ctx := stream.Context()
	c := &streamCall{ServerStream: stream}
	h := &c.handle
	h.m, h.base = m, ctx
	defer h.release()
	greets := info.FullMethod == handshakeMethod
	err := h.open(ctx, greets)
	if greets && !errors.Is(err, errPlaintext) {
		return c.handshake(srv, handler)
	}
	if err != nil {
		return m.refusal(ctx, err)
	}
	if info.FullMethod == doActionMethod {
		c.undecided = true
		h.undecided(true)
		if c.ctx = h.share(ctx); m.eager {
			c.ctx = &lateContext{Context: c.ctx}
		}
	} else if err := c.start(""); err != nil {
		return m.refusal(ctx, err)
	}
	h.runs = true
	return h.complete(handler(srv, c))
}

// start decides about the call and gives it its context.
func (c *streamCall) start(action string) error {
	if err := c.handle.decide(action); err != nil || c.ctx != nil && !c.handle.m.eager {
		return err
	}
	ctx, err := c.handle.context(c.handle.base, action)
	if err != nil {
		return err
	}
	if late, ok := c.ctx.(*lateContext); ok {
		late.now.Store(&ctx)
	} else {
		c.ctx = ctx
	}
	return nil
}

// lateContext has the session only when the type of the action is known. By then
// others may have made contexts from it.
type lateContext struct {
	context.Context
	now atomic.Pointer[context.Context]
}

// Value returns what the context has by now.
func (c *lateContext) Value(key any) any {
	if now := c.now.Load(); now != nil {
		return (*now).Value(key)
	}
	return c.Context.Value(key)
}

// String keeps to what contexts print of themselves.
func (c *lateContext) String() string { return fmt.Sprint(c.Context) }

// Context returns the context of the handler.
func (c *streamCall) Context() context.Context { return c.ctx }

// RecvMsg receives a message. Of DoAction it is the action, by whose type the
// call is decided.
func (c *streamCall) RecvMsg(msg any) error {
	if err := c.ServerStream.RecvMsg(msg); err != nil || !c.undecided {
		return err
	}
	c.undecided = false
	defer c.handle.undecided(false)
	action, ok := msg.(interface{ GetType() string })
	if !ok {
		return nil
	}
	if err := c.start(action.GetType()); err != nil {
		return c.handle.m.refusal(c.handle.base, err)
	}
	return nil
}

// SendHeader sends the header, which some clients read alone.
func (c *streamCall) SendHeader(md metadata.MD) error {
	c.reply()
	return c.ServerStream.SendHeader(md)
}

// SendMsg sends a message, and the header before the first one.
func (c *streamCall) SendMsg(msg any) error {
	c.reply()
	return c.ServerStream.SendMsg(msg)
}

// reply is called before the header leaves.
func (c *streamCall) reply() {
	if !c.replied {
		c.replied = true
		c.handle.headerLeaves()
		if c.handle.m.own == nil { // other managers' sessions may change until now
			_ = c.handle.announce() // what is wrong with it shows at the end of the call
		}
	}
}

// handshake acknowledges whatever has ended. A login handler can begin a session
// by itself.
func (c *streamCall) handshake(srv any, handler grpc.StreamHandler) error {
	h := &c.handle
	for _, d := range h.brought() {
		if d.held {
			h.m.tellings.acknowledge(d.key, time.Now())
		}
	}
	h.more().greets = true // nobody else has h yet
	c.ctx = context.WithValue(h.strip(h.cancelable(h.base)), handleKey{}, h)
	h.runs = true
	return h.complete(handler(srv, c))
}
