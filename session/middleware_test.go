// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// A client with a cookie jar has one session, from its first call to
// CloseSession, and another one after that.
func TestConversation(t *testing.T) {
	for _, impl := range implementations {
		t.Run(impl.name+", stateful", func(t *testing.T) {
			middleware, _ := impl.stateful(t, impl.factory(freshID))
			converse(t, serve(t, middleware, &sqlServer{fromContext: impl.current}), session.StatefulSessionCookieName)
		})
		if impl.stateless == nil {
			continue
		}
		t.Run(impl.name+", stateless", func(t *testing.T) {
			converse(t, serve(t, impl.stateless(), &sqlServer{fromContext: impl.current}), session.StatelessSessionCookieName)
		})
	}
}

func converse(t *testing.T, e *endpoint, cookie string) {
	t.Helper()
	cookies := new(jar)
	c := cookies.client(e)
	want := func(step, value string) {
		t.Helper()
		var got map[string]*flight.SessionOptionValue
		c.must(getOptions(&got))
		if got["schema"].GetStringValue() != value {
			t.Errorf("%s: schema is %q, want %q", step, got["schema"].GetStringValue(), value)
		}
	}
	want("at first", "")
	c.must(setOption("schema", "dev"))
	want("after it was set", "dev")
	c.must(scan(""))
	c.must(info(""))
	c.must(setOption("schema", "prod"))
	want("after it was changed", "prod")
	first := cookies.get(cookie)
	c.must(closeSession)
	if v, there := cookies.cookies[cookie]; there {
		t.Errorf("after CloseSession the client still has the cookie %q", v)
	}
	want("after CloseSession", "")
	if second := cookies.get(cookie); second == first {
		t.Error("the session after CloseSession is the one before it")
	}
}

// What the stock arrow-go client middleware does with our cookies. Its stream
// interceptor loses cookies at times, so only unary calls are certain.
func TestStockGoClientKeepsItsSession(t *testing.T) {
	store := newStore(t)
	e := serve(t, stateful(store), nil)
	cl, err := flightsql.NewClient("passthrough:///server", nil, []flight.ClientMiddleware{flight.NewClientCookieMiddleware()},
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(e.dial))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cl.Close() }()
	for range 10 {
		if _, err := cl.Execute(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	if st := store.Stats(); st.Created != 1 || st.Confirmed != 1 {
		t.Errorf("after ten calls of one client: %+v", st)
	}
}

// A client that reads headers only has its session from the first reply on,
// also if that was an error; Java and .NET do.
func TestHeaderAloneIsEnough(t *testing.T) {
	store := newStore(t)
	e := serve(t, stateful(store), tableServer(implementations[0]))
	for _, do := range []call{info(""), info("fail"), scan(""), scan("fail"), getOptions(nil)} {
		c := e.client()
		r := c.do(do)
		if len(r.header) != 1 {
			t.Fatalf("the header has %q", r.header)
		}
		c.must(info(""), r.header[0])
		if saw, err := e.last(); session.StatefulSessionCookieName+"="+saw != r.header[0] {
			t.Errorf("the second call has another session, error %v", err)
		}
	}
}

// userOptions is a session of a user's type around one of ours.
type userOptions struct {
	session.ServerSession
	closes int
}

func (s *userOptions) Close() error {
	s.closes++
	return s.ServerSession.Close()
}

// A session of a user's own type, which kills Apache's middleware, lives like
// any other, and handlers get it as it is.
func TestUsersOwnTypes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var made []*userOptions
		inner := session.NewSessionFactory(nil)
		store := newStore(t)
		middleware := stateful(store, session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			s, err := inner.CreateSession()
			made = append(made, &userOptions{ServerSession: s})
			return made[len(made)-1], err
		})))
		e := serveInBubble(t, middleware, &sqlServer{statements: map[string]statement{
			"is mine": func(_ context.Context, s session.ServerSession) error {
				if _, ok := s.(*userOptions); !ok {
					return fmt.Errorf("the handler got a %T", s)
				}
				return nil
			},
		}})
		for range 3 {
			cookies := new(jar)
			c := cookies.client(e)
			c.must(info("is mine"))
			c.must(setOption("schema", "prod"))
			c.must(scan("is mine"))
			if len(made) != 3 { // the third client goes without a word
				c.must(closeSession)
			}
		}
		wait(layover.DefaultIdleTimeout + late)
		for i, s := range made {
			if s.closes != 1 {
				t.Errorf("session %d was closed %d times", i+1, s.closes)
			}
		}
		if st := store.Stats(); st.Live != 0 || st.Created != 3 {
			t.Errorf("%+v", st)
		}
	})
}

// Two middlewares, as a server has that moves from one kind of cookie to the
// other: the inner one leaves the session of the outer one alone.
func TestTwoMiddlewares(t *testing.T) {
	store := newStore(t)
	both := stacked{stateful(store), implementations[0].stateless()}
	e := serve(t, &both, nil)
	c := e.client()
	cookie := c.must(info("")).cookie(t)
	r := c.must(setOption("a", "b"), cookie)
	if saw, err := e.last(); session.StatefulSessionCookieName+"="+saw != cookie || r.header != nil || r.trailer != nil {
		t.Errorf("saw another session, error %v, header %q, trailer %q", err, r.header, r.trailer)
	}
	if leases(store) != 0 || store.Len() != 1 {
		t.Errorf("%d sessions, %d leases", store.Len(), leases(store))
	}
}

// stacked is an outer and an inner middleware. As in the real chain, each is
// told of the call's end with the context that it made.
type stacked struct{ outer, inner flight.CustomServerMiddleware }

type outerKey struct{}

func (m *stacked) StartCall(ctx context.Context) context.Context {
	ctx = m.outer.StartCall(ctx)
	return m.inner.StartCall(context.WithValue(ctx, outerKey{}, ctx))
}

func (m *stacked) CallCompleted(ctx context.Context, err error) {
	m.inner.CallCompleted(ctx, err)
	if outer, ok := ctx.Value(outerKey{}).(context.Context); ok {
		m.outer.CallCompleted(outer, err)
	}
}

// A call's error does not become the session's: the cookie comes all the same,
// and with it the session.
func TestFailedCallsKeepTheirSession(t *testing.T) {
	store := newStore(t)
	e := serve(t, stateful(store), &sqlServer{statements: map[string]statement{
		"set, then fail": func(_ context.Context, s session.ServerSession) error {
			s.SetSessionOption("schema", text("prod"))
			return status.Error(codes.Aborted, "no")
		},
	}})
	c := e.client()
	for _, do := range []call{info("set, then fail"), scan("set, then fail")} {
		r := c.do(do)
		if status.Code(r.err) != codes.Aborted || len(r.header) != 1 || !slices.Equal(r.header, r.trailer) {
			t.Fatalf("%v, header %q, trailer %q", r.err, r.header, r.trailer)
		}
		var got map[string]*flight.SessionOptionValue
		c.must(getOptions(&got), r.header[0])
		if got["schema"].GetStringValue() != "prod" {
			t.Errorf("got %v", got)
		}
	}
}

// The same fingerprint reaches the client's error and the server's log, so that
// an operator finds the line of a client that complains.
func TestFingerprintReachesClientAndLog(t *testing.T) {
	var log logBuffer
	manager := session.NewStatefulServerSessionManager(session.WithStore(&fakeStore{
		get: func(string) (session.ServerSession, error) { return nil, errBackEnd },
	}))
	e := serve(t, session.NewServerSessionMiddleware(manager, session.WithLogger(log.logger())), nil)
	r := e.client().do(info(""), session.StatefulSessionCookieName+"="+secretID)
	mark := manager.Fingerprint(secretID).String()
	if r.err == nil || !strings.Contains(r.err.Error(), mark) {
		t.Errorf("the client does not get the fingerprint %s: %v", mark, r.err)
	}
	if !strings.Contains(log.String(), mark) {
		t.Errorf("the log does not have the fingerprint %s: %s", mark, log.String())
	}
}

// Handlers that return the error as it is, wrap it, or look into it, all give
// the client the right status.
func TestGetSessionFromContextErrors(t *testing.T) {
	ctx := session.NewServerSessionMiddleware(&fakeManager{get: func(context.Context) (session.ServerSession, error) {
		return nil, fmt.Errorf("%s: %w", backEnd, layover.ErrFull)
	}}, session.WithLogger(nil)).StartCall(t.Context())
	_, err := session.GetSessionFromContext(ctx)
	if status.Code(err) != codes.ResourceExhausted || status.Code(fmt.Errorf("more: %w", err)) != codes.ResourceExhausted {
		t.Errorf("status %v", status.Code(err))
	}
	if !errors.Is(err, layover.ErrFull) || errors.Is(err, layover.ErrShutdown) || errors.Is(err, session.ErrNoSession) {
		t.Errorf("the error is %v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%q"} {
		if got := fmt.Sprintf(verb, err); strings.Contains(got, "hunter2") {
			t.Errorf("%s spills the back end: %s", verb, got)
		}
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if strings.Contains(e.Error(), "hunter2") {
			t.Errorf("a wrapped error spills the back end: %v", e)
		}
	}
	if _, err := apache.GetSessionFromContext(ctx); err != session.ErrNoSession { //nolint:errorlint // what Apache's handlers compare with
		t.Errorf("Apache's GetSessionFromContext: %v", err)
	}
	if _, err := session.GetSessionFromContext(t.Context()); err != session.ErrNoSession { //nolint:errorlint // the same
		t.Errorf("outside of a call: %v", err)
	}
}

// The client that gave up, or ran out of time, is told so by a manager that
// notices.
func TestCanceledContextsHaveTheirCodes(t *testing.T) {
	for want, cause := range map[codes.Code]error{codes.Canceled: context.Canceled, codes.DeadlineExceeded: context.DeadlineExceeded} {
		ctx := session.NewServerSessionMiddleware(&fakeManager{create: func(context.Context) (session.ServerSession, error) {
			return nil, fmt.Errorf("waiting: %w", cause)
		}}, session.WithLogger(nil)).StartCall(t.Context())
		if _, err := session.GetSessionFromContext(ctx); status.Code(err) != want || !errors.Is(err, cause) {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

// Nil stands for the defaults: a stateful manager, the default logger.
func TestMiddlewareDefaults(t *testing.T) {
	var log logBuffer
	was := slog.Default()
	slog.SetDefault(log.logger())
	defer slog.SetDefault(was)
	r := serve(t, session.NewServerSessionMiddleware(nil, nil), nil).client().must(info(""))
	if !strings.HasPrefix(r.cookie(t), session.StatefulSessionCookieName+"=") {
		t.Errorf("got %q", r.header)
	}
	broken := &fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, errors.New("boom") }}
	session.NewServerSessionMiddleware(broken).StartCall(t.Context())
	if !strings.Contains(log.String(), "boom") {
		t.Error("the default logger was told nothing")
	}
	session.NewServerSessionMiddleware(broken, session.WithLogger(nil)).StartCall(t.Context())
	if n := strings.Count(log.String(), "boom"); n != 1 {
		t.Errorf("a nil logger logs: %d lines", n)
	}
}

// A factory that hands out the same session twice makes a call fail. It does
// not end the session of the client that has it.
func TestFactoryThatRepeatsItselfHarmsNobody(t *testing.T) {
	for name, s := range map[string]session.ServerSession{"own": newSession(t, "x"), "of a user's type": &userSession{id: "x"}} {
		t.Run(name, func(t *testing.T) {
			e := serve(t, stateful(newStore(t), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
				return s, nil
			}))), nil)
			c := e.client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			c.do(info(""))
			var got map[string]*flight.SessionOptionValue
			if r := c.must(getOptions(&got), cookie); r.header != nil || got["schema"].GetStringValue() != "prod" {
				t.Errorf("the client that had the session got the header %q, the options %v", r.header, got)
			}
		})
	}
}

// Nothing that foreign code returns or panics with spills the ID, however it
// quotes it.
func TestQuotedIDsStayOutOfTheLog(t *testing.T) {
	const odd = `secret'id$with%odd&characters`
	for name, quote := range map[string]func(string) string{
		"plain":  func(id string) string { return "no session " + id },
		"%q":     func(id string) string { return fmt.Sprintf("no session %q", id) },
		"twice":  func(id string) string { return id + id },
		"cookie": func(id string) string { return session.StatefulSessionCookieName + "=" + id + "; Path=/" },
	} {
		t.Run(name, func(t *testing.T) {
			var log logBuffer
			fail := func(id string) error { return errors.New(backEnd + ": " + quote(id)) }
			manager := session.NewStatefulServerSessionManager(
				session.WithFactory(session.NewSessionFactory(func() string { return odd })),
				session.WithStore(&fakeStore{
					get:    func(id string) (session.ServerSession, error) { return nil, fail(id) },
					put:    func(s session.ServerSession) error { panic(fail(s.Token())) },
					remove: func(id string) error { panic(fail(id)) },
				}))
			for _, in := range []context.Context{withCookies(session.StatefulSessionCookieName + "=" + odd), withCookies()} {
				middleware := session.NewServerSessionMiddleware(manager, session.WithLogger(log.logger()))
				ctx := middleware.StartCall(in)
				if _, err := session.GetSessionFromContext(ctx); err == nil || strings.Contains(err.Error(), odd) {
					t.Errorf("the handler got the error %v", err)
				}
				middleware.CallCompleted(ctx, nil)
			}
			if n := strings.Count(log.String(), backEnd); n != 2 || strings.Contains(log.String(), "odd&characters") {
				t.Errorf("%d lines: %s", n, log.String())
			}
		})
	}
}

// A log handler that panics takes nothing down.
func TestLogHandlerThatPanics(t *testing.T) {
	middleware := session.NewServerSessionMiddleware(
		&fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, errors.New("boom") }},
		session.WithLogger(slog.New(panickingHandler{})))
	e := serve(t, middleware, nil)
	if r := e.client().do(info("")); status.Code(r.err) != codes.Internal {
		t.Errorf("got %v", r.err)
	}
}

type panickingHandler struct{ slog.Handler }

func (panickingHandler) Enabled(context.Context, slog.Level) bool  { return true }
func (panickingHandler) Handle(context.Context, slog.Record) error { panic("boom") }
