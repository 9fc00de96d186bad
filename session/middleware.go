// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// ServerSessionMiddleware gives every call a session, in Apache's shape: a
// [flight.CustomServerMiddleware], to be handed to
// [flight.CreateServerMiddleware]. Use [NewServerSessionMiddleware], or rather
// [NewServerMiddleware], which can do more.
type ServerSessionMiddleware struct {
	manager  ServerSessionManager
	reporter *reporter
}

var _ flight.CustomServerMiddleware = (*ServerSessionMiddleware)(nil)

// NewServerSessionMiddleware returns a middleware whose sessions come from
// manager; nil: [NewStatefulServerSessionManager] with its defaults. Of the
// options it takes [WithLogger] alone, and panics with any other one, which this
// shape cannot fulfil.
//
// Every call, of whatever kind, finds its session, or gets a new one with its
// cookie in the reply's header and trailer. A call's session is leased from
// StartCall to CallCompleted. A handler that panics under a recovering
// interceptor never gets to CallCompleted; its lease is given back when the
// garbage collector finds that the call is gone, which it cannot if the session
// itself keeps the call's context. A token that is no longer known counts as
// none: the client silently gets a new session. [NewServerMiddleware] has none of
// these flaws.
//
// Sessions belong to the [DefaultPrincipal] of their call. A call whose principal
// cannot be told gets none, and [GetSessionFromContext] returns why.
func NewServerSessionMiddleware(manager ServerSessionManager, opts ...MiddlewareOption) *ServerSessionMiddleware {
	if manager == nil {
		manager = NewStatefulServerSessionManager()
	}
	c := newMiddlewareConfig(opts)
	if len(c.interceptorsOnly) > 0 {
		panic(fmt.Sprintf("session: NewServerSessionMiddleware cannot fulfil %s, NewServerMiddleware can", strings.Join(c.interceptorsOnly, ", ")))
	}
	return &ServerSessionMiddleware{manager: manager, reporter: newReporter(c.logger)}
}

// StartCall returns a context from which [GetSessionFromContext] gets the
// call's session, or the reason why there is none.
func (m *ServerSessionMiddleware) StartCall(ctx context.Context) context.Context {
	ctx, c := newCall(ctx)
	c.reporter = m.reporter
	if own, ok := m.manager.(*StatefulServerSessionManager); ok {
		c.limits = &own.limits
	}
	s, err := m.open(ctx)
	if err != nil {
		c.err = m.reporter.report(ctx, nil, "layover: a call gets no session", err)
		return ctx
	}
	c.session = s
	return NewSessionContext(ctx, s)
}

// open finds or creates the call's session.
func (m *ServerSessionMiddleware) open(ctx context.Context) (s ServerSession, err error) {
	defer contain(&err)
	s, err = m.manager.GetSession(ctx)
	switch {
	case err == nil && isNil(s):
		return nil, errors.New("session: the manager found a session that is nil")
	case err == nil:
		return s, nil
	case !errors.Is(err, ErrNoSession):
		return nil, err
	}
	s, err = m.manager.CreateSession(ctx)
	if err != nil {
		return nil, err
	}
	if isNil(s) {
		return nil, errors.New("session: the manager created a session that is nil")
	}
	cookie, err := CreateCookieForSession(s)
	if err != nil {
		return nil, errors.Join(err, s.Close(), m.manager.CloseSession(s))
	}
	// Java and .NET clients read no trailers of calls that succeed.
	setCookie(ctx, grpc.SetHeader, cookie)
	callFrom(ctx).fresh = true // nobody else has it yet
	return s, nil
}

// CallCompleted tells the client, in the trailer, how its cookie has changed,
// and gives the session back.
func (m *ServerSessionMiddleware) CallCompleted(ctx context.Context, _ error) {
	c := callFrom(ctx)
	if c == nil {
		return
	}
	for _, err := range []error{m.complete(ctx, c), c.end()} {
		if err != nil {
			_ = m.reporter.report(ctx, c.session, "layover: a call's session could not be settled", err) // too late to tell the client
		}
	}
}

func (m *ServerSessionMiddleware) complete(ctx context.Context, c *call) (err error) {
	defer contain(&err)
	if c.session == nil {
		return nil
	}
	if travels, ok := c.session.(*StatelessServerSession); ok {
		if err := travels.takeUnset(); err != nil {
			_ = m.reporter.report(ctx, c.session, "layover: an option was not set", err)
		}
	}
	sent := incomingCookies(ctx, cookieName(c.session))
	if travels, ok := c.session.(*StatelessServerSession); ok && travels.manager.seals() {
		return m.completeSealed(ctx, c, travels, sent)
	}
	if c.session.Closed() {
		if old, err := cookieToDelete(c.session, sent); err == nil && firstToTell(c.session) {
			old.MaxAge, old.Quoted = -1, false
			setCookie(ctx, grpc.SetTrailer, old)
		}
		return m.manager.CloseSession(c.session)
	}
	if err := c.save(ctx); err != nil {
		return err
	}
	cookie, err := CreateCookieForSession(c.session)
	if err == nil && !c.hasToken(c.session, cookie.Value) && !hasCookie(sent, cookie) {
		setCookie(ctx, grpc.SetTrailer, cookie)
	}
	return err
}

// completeSealed is complete for a sealed session. What can fail comes first: that it is
// closed is told only if it is.
func (m *ServerSessionMiddleware) completeSealed(ctx context.Context, c *call, s *StatelessServerSession, sent []*http.Cookie) error {
	if s.Closed() {
		if err := m.manager.CloseSession(s); err != nil {
			return err
		}
		old, err := cookieToDelete(s, sent)
		if err == nil && firstToTell(s) {
			old.MaxAge, old.Quoted = -1, false
			setCookie(ctx, grpc.SetTrailer, old)
		}
		return err
	}
	cookie, err := CreateCookieForSession(s)
	if err != nil || c.hasToken(s, cookie.Value) || hasCookie(sent, cookie) || s.manager.isOver(s) {
		return err
	}
	setCookie(ctx, grpc.SetTrailer, cookie)
	return nil
}

// firstToTell reports whether no other call has told the client yet that this
// session is closed. A stream that outlives its session must not tell it again:
// by its end the client may have a new cookie, and jars know cookies by name.
// Of foreign types it cannot be known.
func firstToTell(s ServerSession) bool {
	switch s := s.(type) {
	case *statefulServerSession:
		return s.told.CompareAndSwap(false, true)
	case *StatelessServerSession:
		return s.told.CompareAndSwap(false, true)
	}
	return true
}

// cookieToDelete returns the one that the client sent, if possible the very one
// of the session, else the one that the header has announced.
func cookieToDelete(s ServerSession, sent []*http.Cookie) (http.Cookie, error) {
	for _, old := range sent {
		if old.Value == s.Token() {
			return *old, nil
		}
	}
	if len(sent) > 0 {
		return *sent[0], nil
	}
	return CreateCookieForSession(s)
}

// setCookie sends a cookie. Outside a real call there is no stream to send it
// on, which is no error.
func setCookie(ctx context.Context, set func(context.Context, metadata.MD) error, c http.Cookie) {
	_ = set(ctx, metadata.Pairs("Set-Cookie", c.String()))
}

// isNil reports whether a session is nil, or an interface value that holds a
// nil pointer or map.
func isNil(s ServerSession) bool {
	switch v := reflect.ValueOf(s); v.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Map:
		return v.IsNil()
	default:
		return false
	}
}
