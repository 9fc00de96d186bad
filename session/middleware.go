// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// ServerSessionMiddleware gives every call a session, in Apache's shape: a
// [flight.CustomServerMiddleware], to be handed to
// [flight.CreateServerMiddleware]. Use [NewServerSessionMiddleware].
type ServerSessionMiddleware struct {
	manager ServerSessionManager
	logger  *slog.Logger

	mu    sync.Mutex
	lines map[codes.Code]*logLine
}

type logLine struct {
	next    time.Time
	skipped int
}

var _ flight.CustomServerMiddleware = (*ServerSessionMiddleware)(nil)

// MiddlewareOption changes a setting of [NewServerSessionMiddleware].
type MiddlewareOption func(*ServerSessionMiddleware)

// WithLogger sets where failures are logged, with everything that is kept from
// clients, at level Error, at most one line a second for each gRPC code. The
// handler runs on the call's goroutine. Default: [slog.Default]; nil: nowhere.
func WithLogger(l *slog.Logger) MiddlewareOption {
	return func(m *ServerSessionMiddleware) {
		if l == nil {
			l = slog.New(slog.DiscardHandler)
		}
		m.logger = l
	}
}

// NewServerSessionMiddleware returns a middleware whose sessions come from
// manager; nil: [NewStatefulServerSessionManager] with its defaults.
//
// Every call, of whatever kind, finds its session, or gets a new one with its
// cookie in the reply's header and trailer. A call's session is leased from
// StartCall to CallCompleted. A handler that panics under a recovering
// interceptor never gets to CallCompleted; its lease is given back when the
// garbage collector finds that the call is gone, which it cannot if the session
// itself keeps the call's context.
func NewServerSessionMiddleware(manager ServerSessionManager, opts ...MiddlewareOption) *ServerSessionMiddleware {
	if manager == nil {
		manager = NewStatefulServerSessionManager()
	}
	m := &ServerSessionMiddleware{manager: manager, logger: slog.Default(), lines: make(map[codes.Code]*logLine)}
	for _, o := range opts {
		if o != nil {
			o(m)
		}
	}
	return m
}

// StartCall returns a context from which [GetSessionFromContext] gets the
// call's session, or the reason why there is none.
func (m *ServerSessionMiddleware) StartCall(ctx context.Context) context.Context {
	ctx, c := newCall(ctx)
	s, err := m.open(ctx)
	if err != nil {
		c.err = m.report(ctx, "layover: a call gets no session", err)
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
			_ = m.report(ctx, "layover: a call's session could not be settled", err) // too late to tell the client
		}
	}
}

func (m *ServerSessionMiddleware) complete(ctx context.Context, c *call) (err error) {
	defer contain(&err)
	if c.session == nil {
		return nil
	}
	sent := incomingCookies(ctx, cookieName(c.session))
	if c.session.Closed() {
		if old, err := cookieToDelete(c.session, sent); err == nil && firstToTell(c.session) {
			old.MaxAge, old.Quoted = -1, false
			setCookie(ctx, grpc.SetTrailer, old)
		}
		return m.manager.CloseSession(c.session)
	}
	cookie, err := CreateCookieForSession(c.session)
	if err == nil && !hasCookie(sent, cookie) {
		setCookie(ctx, grpc.SetTrailer, cookie)
	}
	return err
}

// firstToTell reports whether no other call has told the client yet that this
// session is closed. A stream that outlives its session must not tell it again:
// by its end the client may have a new cookie, and jars know cookies by name.
// Of foreign types it cannot be known.
func firstToTell(s ServerSession) bool {
	own, ok := s.(*statefulServerSession)
	return !ok || own.told.CompareAndSwap(false, true)
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

// contain turns a panic of foreign code into an error.
func contain(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("session: panic in a manager, store, factory or session: %v\n%s", v, debug.Stack())
	}
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

// report logs an error of foreign code and returns what the client may know of
// it.
func (m *ServerSessionMiddleware) report(ctx context.Context, what string, err error) (e *callError) {
	text := "an error whose own methods panic"
	defer func() {
		if recover() != nil {
			e = &callError{code: codes.Internal, text: noSession}
		}
		m.log(ctx, e.code, what, text)
	}()
	text = scrub(ctx, err)
	return newCallError(err)
}

// scrub returns the error's text without the tokens of the call: foreign code
// may quote them.
func scrub(ctx context.Context, err error) string {
	text := err.Error()
	for _, name := range []string{StatefulSessionCookieName, StatelessSessionCookieName} {
		for _, c := range cookiesNamed(ctx, name) {
			text = withoutToken(text, c.Value, "[token]")
		}
	}
	if c := callFrom(ctx); c != nil && c.session != nil {
		text = withoutToken(text, tokenOf(c.session), "[token]")
	}
	return text
}

func tokenOf(s ServerSession) (token string) {
	defer func() { _ = recover() }()
	return s.Token()
}

// withoutToken replaces a token, also where it is quoted as %q has it. What is
// too short to be a secret stays: a client could rewrite the log with it.
func withoutToken(text, token, by string) string {
	if len(token) < minSecret {
		return text
	}
	quoted := strconv.Quote(token)
	text = strings.ReplaceAll(text, token, by)
	return strings.ReplaceAll(text, quoted[1:len(quoted)-1], by)
}

const minSecret = 8 // bytes

// log writes at most one line a second for each code.
func (m *ServerSessionMiddleware) log(ctx context.Context, code codes.Code, what, text string) {
	n := m.count(code)
	if n == 0 {
		return
	}
	defer func() { _ = recover() }() // a log handler is foreign code, too
	m.logger.LogAttrs(ctx, slog.LevelError, what,
		slog.String("code", code.String()), slog.Int("calls", n), slog.String("error", text))
}

// count returns for how many failures a line now stands, zero if one was
// written less than a second ago.
func (m *ServerSessionMiddleware) count(code codes.Code) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lines[code]
	if l == nil {
		l = new(logLine)
		m.lines[code] = l
	}
	l.skipped++
	n, now := l.skipped, time.Now()
	if now.Before(l.next) {
		return 0
	}
	l.next, l.skipped = now.Add(time.Second), 0
	return n
}
