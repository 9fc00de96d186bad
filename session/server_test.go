// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// sqlServer is the Flight SQL server of these tests, written as users write
// theirs: whatever it does starts with the session of the context.
type sqlServer struct {
	flightsql.BaseServer
	// fromContext is GetSessionFromContext of the package under test; nil: of
	// this one.
	fromContext func(context.Context) (session.ServerSession, error)
	// statements says what a statement does; one that is missing does nothing.
	statements map[string]statement
	// base does the session actions; nil: as most users write them.
	base *session.BaseServer

	mu       sync.Mutex
	lastSeen string // token of the session of the last call
	lastErr  error  // of fromContext in the last call
}

type statement func(context.Context, session.ServerSession) error

func (s *sqlServer) session(ctx context.Context) (session.ServerSession, error) {
	get := s.fromContext
	if get == nil {
		get = session.GetSessionFromContext
	}
	cur, err := get(ctx)
	if v := reflect.ValueOf(cur); v.Kind() == reflect.Pointer && v.IsNil() && err == nil {
		err = errors.New("a handler would die of a session that is a typed nil")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastSeen, s.lastErr = "", err
	if err != nil {
		return nil, err
	}
	if _, err := session.Lookup(ctx); err == nil { // asking for a token makes a session
		s.lastSeen = cur.Token()
	}
	return cur, nil
}

// last returns what the last call saw: the token of its session, or an error.
func (s *sqlServer) last() (token string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastSeen, s.lastErr
}

func (s *sqlServer) SetSessionOptions(ctx context.Context, req *flight.SetSessionOptionsRequest) (*flight.SetSessionOptionsResult, error) {
	if s.base != nil {
		return s.base.SetSessionOptions(ctx, req)
	}
	cur, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	for name, v := range req.GetSessionOptions() {
		cur.SetSessionOption(name, v)
	}
	return &flight.SetSessionOptionsResult{}, nil
}

func (s *sqlServer) GetSessionOptions(ctx context.Context, req *flight.GetSessionOptionsRequest) (*flight.GetSessionOptionsResult, error) {
	if s.base != nil {
		return s.base.GetSessionOptions(ctx, req)
	}
	cur, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	return &flight.GetSessionOptionsResult{SessionOptions: cur.GetSessionOptions()}, nil
}

func (s *sqlServer) CloseSession(ctx context.Context, req *flight.CloseSessionRequest) (*flight.CloseSessionResult, error) {
	if s.base != nil {
		return s.base.CloseSession(ctx, req)
	}
	cur, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	if err := cur.Close(); err != nil {
		return nil, err
	}
	return &flight.CloseSessionResult{Status: flight.CloseSessionResultClosed}, nil
}

func (s *sqlServer) GetFlightInfoStatement(ctx context.Context, q flightsql.StatementQuery, _ *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	if err := s.run(ctx, q.GetQuery()); err != nil {
		return nil, err
	}
	return &flight.FlightInfo{}, nil
}

// DoGetStatement streams one batch before the statement runs and one after.
// One that begins with "direct:" runs before the stream.
func (s *sqlServer) DoGetStatement(ctx context.Context, ticket flightsql.StatementQueryTicket) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	if direct, ok := strings.CutPrefix(string(ticket.GetStatementHandle()), "direct:"); ok {
		if err := s.run(ctx, direct); err != nil {
			return nil, nil, err
		}
	}
	schema := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.Null}}, nil)
	chunks := make(chan flight.StreamChunk)
	send := func(c flight.StreamChunk) bool {
		select {
		case chunks <- c:
			return true
		case <-ctx.Done():
			return false
		}
	}
	batch := func() flight.StreamChunk {
		return flight.StreamChunk{Data: array.NewRecordBatch(schema, []arrow.Array{array.NewNull(1)}, 1)}
	}
	go func() {
		defer close(chunks)
		if !send(batch()) {
			return
		}
		if err := s.run(ctx, string(ticket.GetStatementHandle())); err != nil {
			send(flight.StreamChunk{Err: err})
			return
		}
		send(batch())
	}()
	return schema, chunks, nil
}

func (s *sqlServer) run(ctx context.Context, text string) error {
	cur, err := s.session(ctx)
	if err != nil {
		return err
	}
	if f := s.statements[text]; f != nil {
		return f(ctx, cur)
	}
	return nil
}

// plannedPanic is what a statement panics with if the test wants it to.
const plannedPanic = "this handler panics on purpose"

// recovering is the outermost interceptor of every server here, as many
// operators run one. Any panic but a planned one fails the test: in a server
// without it, the process would be dead.
func recovering(t testing.TB) flight.ServerMiddleware {
	contain := func(err *error) {
		if v := recover(); v != nil {
			if v != plannedPanic {
				t.Errorf("a call would have killed the server: %v\n%s", v, debug.Stack())
			}
			*err = status.Error(codes.Unknown, "panic")
		}
	}
	return flight.ServerMiddleware{
		Unary: func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
			defer contain(&err)
			return handler(ctx, req)
		},
		Stream: func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
			defer contain(&err)
			return handler(srv, stream)
		},
	}
}

// endpoint is a server that listens.
type endpoint struct {
	*sqlServer
	t    testing.TB
	dial func(context.Context, string) (net.Conn, error)
}

// serve starts a server on loopback.
func serve(t testing.TB, middleware flight.CustomServerMiddleware, s *sqlServer) *endpoint {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, lis, func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", lis.Addr().String())
	}, flight.CreateServerMiddleware(middleware), s)
}

// serveEdge starts a server with interceptors on loopback.
func serveEdge(t testing.TB, middleware flight.ServerMiddleware, s *sqlServer, opts ...grpc.ServerOption) *endpoint {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, lis, func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", lis.Addr().String())
	}, middleware, s, opts...)
}

// serveEdgeInBubble starts a server with interceptors in memory.
func serveEdgeInBubble(t testing.TB, middleware flight.ServerMiddleware, s *sqlServer) *endpoint {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	return serveOn(t, lis, func(ctx context.Context, _ string) (net.Conn, error) {
		return lis.DialContext(ctx)
	}, middleware, s)
}

// edge returns silent interceptors over the store.
func edge(store session.SessionStore, opts ...session.MiddlewareOption) flight.ServerMiddleware {
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	return session.NewServerMiddleware(manager, append([]session.MiddlewareOption{session.WithLogger(nil)}, opts...)...)
}

// serveInBubble starts a server in memory, so that its gRPC runs on the clock
// of the bubble.
func serveInBubble(t testing.TB, middleware flight.CustomServerMiddleware, s *sqlServer) *endpoint {
	t.Helper()
	lis := bufconn.Listen(1 << 20)
	return serveOn(t, lis, func(ctx context.Context, _ string) (net.Conn, error) {
		return lis.DialContext(ctx)
	}, flight.CreateServerMiddleware(middleware), s)
}

func serveOn(t testing.TB, lis net.Listener, dial func(context.Context, string) (net.Conn, error), middleware flight.ServerMiddleware, s *sqlServer, opts ...grpc.ServerOption) *endpoint {
	t.Helper()
	if s == nil {
		s = new(sqlServer)
	}
	srv := flight.NewServerWithMiddleware([]flight.ServerMiddleware{recovering(t), middleware}, opts...)
	srv.RegisterFlightService(flightsql.NewFlightServer(s))
	srv.InitListener(lis)
	served := make(chan error, 1)
	go func() { served <- srv.Serve() }()
	t.Cleanup(func() {
		srv.Shutdown()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("Serve: %v", err)
		}
	})
	return &endpoint{s, t, dial}
}

// client is a Flight SQL client that sends exactly the cookies it is told.
type client struct {
	*flightsql.Client
	t testing.TB
}

func (e *endpoint) client(opts ...grpc.DialOption) *client {
	e.t.Helper()
	return e.clientOver(insecure.NewCredentials(), opts...)
}

// clientOver is client over a connection with these credentials.
func (e *endpoint) clientOver(creds credentials.TransportCredentials, opts ...grpc.DialOption) *client {
	e.t.Helper()
	opts = append(opts, grpc.WithTransportCredentials(creds), grpc.WithContextDialer(e.dial))
	cl, err := flightsql.NewClient("passthrough:///server", nil, nil, opts...)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = cl.Close() })
	return &client{cl, e.t}
}

// call is one Flight call that reads its stream to the end.
type call func(context.Context, *flightsql.Client, ...grpc.CallOption) error

func setOptions(values map[string]any) call {
	return func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
		options, err := flight.NewSessionOptionValues(values)
		if err != nil {
			return err
		}
		_, err = c.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: options}, opts...)
		return err
	}
}

func setOption(name string, value any) call { return setOptions(map[string]any{name: value}) }

// getOptions reads the session's options, if into is not nil.
func getOptions(into *map[string]*flight.SessionOptionValue) call {
	return func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
		r, err := c.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{}, opts...)
		if into != nil {
			*into = r.GetSessionOptions()
		}
		return err
	}
}

func closeSession(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
	_, err := c.CloseSession(ctx, &flight.CloseSessionRequest{}, opts...)
	return err
}

// info is GetFlightInfo, a unary call.
func info(text string) call {
	return func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
		_, err := c.Execute(ctx, text, opts...)
		return err
	}
}

// scan is DoGet, a stream.
func scan(text string) call {
	return func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
		ticket, err := flightsql.CreateStatementQueryTicket([]byte(text))
		if err != nil {
			return err
		}
		stream, err := c.Client.DoGet(ctx, &flight.Ticket{Ticket: ticket}, opts...)
		for err == nil {
			_, err = stream.Recv()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// reply is what comes back from a call.
type reply struct {
	header, trailer []string // the Set-Cookie lines
	err             error
}

// do makes a call with these cookie headers and waits until its stream has
// ended.
func (c *client) do(f call, cookies ...string) reply {
	ctx := c.t.Context()
	for _, line := range cookies {
		ctx = metadata.AppendToOutgoingContext(ctx, "cookie", line)
	}
	var header, trailer metadata.MD
	err := f(ctx, c.Client, grpc.Header(&header), grpc.Trailer(&trailer))
	return reply{header.Get("set-cookie"), trailer.Get("set-cookie"), err}
}

// must is do for a call that has to succeed.
func (c *client) must(f call, cookies ...string) reply {
	c.t.Helper()
	r := c.do(f, cookies...)
	if r.err != nil {
		c.t.Fatalf("the call failed: %v", r.err)
	}
	return r
}

// cookie returns the cookie that the reply's header sets, as a client sends it.
func (r reply) cookie(t testing.TB) string {
	t.Helper()
	if len(r.header) != 1 || r.err != nil {
		t.Fatalf("want one new cookie in the header, got %q, error %v", r.header, r.err)
	}
	return r.header[0]
}

// jar keeps cookies as a client does that loses none: it reads header and
// trailer after the stream has ended.
type jar struct {
	mu      sync.Mutex
	cookies map[string]string
}

// client returns a client with this jar. It must be used without further
// cookies.
func (j *jar) client(e *endpoint) *client {
	return e.client(grpc.WithChainUnaryInterceptor(j.unary), grpc.WithChainStreamInterceptor(j.stream))
}

func (j *jar) get(name string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cookies[name]
}

func (j *jar) attach(ctx context.Context) context.Context {
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []string
	for name, value := range j.cookies {
		all = append(all, name+"="+value)
	}
	if len(all) == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "cookie", strings.Join(all, "; "))
}

func (j *jar) feed(parts ...metadata.MD) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, md := range parts {
		for _, c := range (&http.Response{Header: http.Header{"Set-Cookie": md.Get("set-cookie")}}).Cookies() {
			if j.cookies == nil {
				j.cookies = make(map[string]string)
			}
			if j.cookies[c.Name] = c.Value; c.MaxAge < 0 {
				delete(j.cookies, c.Name)
			}
		}
	}
}

func (j *jar) unary(ctx context.Context, method string, req, res any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	var header, trailer metadata.MD
	err := invoke(j.attach(ctx), method, req, res, cc, append(opts, grpc.Header(&header), grpc.Trailer(&trailer))...)
	j.feed(header, trailer)
	return err
}

func (j *jar) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := open(j.attach(ctx), desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &jarStream{s, j}, nil
}

type jarStream struct {
	grpc.ClientStream
	jar *jar
}

func (s *jarStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		header, _ := s.Header()
		s.jar.feed(header, s.Trailer())
	}
	return err
}

// logBuffer is a log in memory.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newStore returns a silent store that is shut down with the test, when nobody
// may have a lease any more.
func newStore(t testing.TB, opts ...layover.Option) *session.ExpiringSessionStore {
	t.Helper()
	store := session.NewSessionStore(append([]layover.Option{layover.WithLogger(nil)}, opts...)...)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := store.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown, which waits for leases: %v", err)
		}
	})
	return store
}

// stateful returns a silent middleware over the store; opts are the manager's.
func stateful(store session.SessionStore, opts ...session.StatefulSessionManagerOption) *session.ServerSessionMiddleware {
	manager := session.NewStatefulServerSessionManager(append(opts, session.WithStore(store))...)
	return session.NewServerSessionMiddleware(manager, session.WithLogger(nil))
}

// late is by how much a session may outlive its idle timeout, if it is long.
const late = time.Second + layover.Tick

// wait lets the bubble's clock run, and whatever is due with it.
func wait(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// text returns an option value.
func text(s string) *flight.SessionOptionValue {
	v, _ := flight.NewSessionOptionValue(s) // fails for unknown types only
	return &v
}
