// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

const (
	// fingerprintHeader tells the client which session served its call, so that
	// it can ask what became of it.
	fingerprintHeader = "layover-fingerprint"
	// maxHeaderBytes lets the client with oversized cookies have an error.
	maxHeaderBytes = 16 << 10

	optionName    = "schema"
	defaultSchema = "default"
)

// server is a Flight SQL server under load.
type server struct {
	flightsql.BaseServer
	store *session.ExpiringSessionStore
	watch *watch
	grpc  *grpc.Server
	addr  string
	done  chan error
}

func startServer(c config, w *watch) (*server, error) {
	store, err := session.OpenSessionStore(
		layover.WithIdleTimeout(c.idle),
		layover.WithLifetime(c.lifetime()),
		layover.WithUnconfirmedTimeouts(c.empty(), c.holding()),
		layover.WithMaxSessions(c.max),
		layover.WithSourceShare(1), // all clients are on this host
		layover.WithObserver(w.observe),
		layover.WithLogger(nil),
	)
	if err != nil {
		return nil, err
	}
	w.explain = store.Explain
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	manager := session.NewStatefulServerSessionManager(
		session.WithStore(store),
		session.WithFactory(&factory{plain: session.NewSessionFactory(nil), store: store, watch: w}))
	around := flight.CreateServerMiddleware(&outside{w})
	sessions := flight.CreateServerMiddleware(session.NewServerSessionMiddleware(manager, session.WithLogger(nil)))
	within := flight.CreateServerMiddleware(&inside{w, store})
	s := &server{store: store, watch: w, addr: listener.Addr().String(), done: make(chan error, 1)}
	s.grpc = grpc.NewServer(
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ChainUnaryInterceptor(around.Unary, sessions.Unary, within.Unary),
		grpc.ChainStreamInterceptor(around.Stream, sessions.Stream, within.Stream))
	flight.RegisterFlightServiceServer(s.grpc, flightsql.NewFlightServer(s))
	go func() { s.done <- s.grpc.Serve(listener) }()
	return s, nil
}

// stop ends the server, then the store, as [session.ExpiringSessionStore]
// recommends.
func (s *server) stop() {
	patience := s.watch.patience()
	if !s.watch.expect(clean, within(patience, s.grpc.GracefulStop), "the server did not stop within %s: a call does not end", patience) {
		s.grpc.Stop()
	}
	s.watch.stopping()
	ctx, cancel := context.WithTimeout(context.Background(), s.watch.patience())
	defer cancel()
	err := s.store.Shutdown(ctx)
	s.watch.expect(clean, err == nil, "Shutdown failed, expected success since no call runs: %v", err)
}

// factory makes sessions of both types in turn, see the package's comment.
type factory struct {
	plain session.SessionFactory
	store *session.ExpiringSessionStore
	watch *watch
	made  atomic.Uint64
}

// CreateSession returns a new session.
func (f *factory) CreateSession() (session.ServerSession, error) {
	s, err := f.plain.CreateSession()
	if err != nil || f.made.Add(1)%2 == 0 {
		return s, err
	}
	r := &resource{s, f.store.Fingerprint(s.Token()), f.watch}
	f.watch.opened(r.mark)
	return r, nil
}

// resource is a session of the server's own type that needs closing.
type resource struct {
	session.ServerSession
	mark  layover.Fingerprint
	watch *watch
}

// Close is the teardown. Only the store calls it.
func (r *resource) Close() error {
	r.watch.closed(r.mark, time.Now())
	return r.ServerSession.Close()
}

type callKey struct{}

func callFrom(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// outside is the middleware around the one under test: whatever lease a call
// has, it has it in between.
type outside struct{ watch *watch }

// StartCall notes that a call begins.
func (o *outside) StartCall(ctx context.Context) context.Context {
	c := &call{start: time.Now()}
	o.watch.begin(c)
	return context.WithValue(ctx, callKey{}, c)
}

// CallCompleted notes that the call has given its session back.
func (o *outside) CallCompleted(ctx context.Context, _ error) {
	o.watch.done(callFrom(ctx), time.Now())
}

// inside is the middleware inside the one under test: in between the call is
// sure to have its lease.
type inside struct {
	watch *watch
	store *session.ExpiringSessionStore
}

// StartCall notes which session the call got.
func (i *inside) StartCall(ctx context.Context) context.Context {
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		i.watch.refused(callFrom(ctx), err)
		return ctx
	}
	mark := i.store.Fingerprint(s.Token())
	cookies := strings.Join(metadata.ValueFromIncomingContext(ctx, "cookie"), ";")
	i.watch.enter(callFrom(ctx), mark, strings.Contains(cookies, s.Token()), time.Now())
	_ = grpc.SetHeader(ctx, metadata.Pairs(fingerprintHeader, mark.String()))
	return ctx
}

// CallCompleted notes that the handler no longer uses the session.
func (i *inside) CallCompleted(ctx context.Context, _ error) {
	i.watch.leave(callFrom(ctx), time.Now())
}

// SetSessionOptions sets the schema, the only option that there is.
func (s *server) SetSessionOptions(ctx context.Context, req *flight.SetSessionOptionsRequest) (*flight.SetSessionOptionsResult, error) {
	own, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, err
	}
	result := &flight.SetSessionOptionsResult{Errors: make(map[string]*flight.SetSessionOptionsResultError)}
	for name, value := range req.GetSessionOptions() {
		_, text := value.GetOptionValue().(*pb.SessionOptionValue_StringValue)
		switch {
		case name != optionName:
			result.Errors[name] = &flight.SetSessionOptionsResultError{Value: flight.SetSessionOptionsResultErrorInvalidName}
		case !text && value.GetOptionValue() != nil:
			result.Errors[name] = &flight.SetSessionOptionsResultError{Value: flight.SetSessionOptionsResultErrorInvalidValue}
		default:
			s.watch.holds(callFrom(ctx).used)
			own.SetSessionOption(name, value)
		}
	}
	return result, nil
}

// GetSessionOptions returns the schema. Without a known cookie it is an error.
func (s *server) GetSessionOptions(ctx context.Context, _ *flight.GetSessionOptionsRequest) (*flight.GetSessionOptionsResult, error) {
	own, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, err
	}
	if callFrom(ctx).fresh {
		return nil, status.Error(codes.NotFound, "no session")
	}
	value, err := flight.NewSessionOptionValue(schemaOf(own))
	return &flight.GetSessionOptionsResult{SessionOptions: map[string]*flight.SessionOptionValue{optionName: &value}}, err
}

// CloseSession ends the session; see the package's comment for the two ways.
func (s *server) CloseSession(ctx context.Context, _ *flight.CloseSessionRequest) (*flight.CloseSessionResult, error) {
	own, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, err
	}
	s.watch.closing(callFrom(ctx).used, time.Now())
	if _, foreign := own.(*resource); foreign {
		err = s.store.Remove(own.Token())
	} else {
		err = own.Close()
	}
	pause(ctx, time.Millisecond) // this call still uses the session: its teardown has to wait
	return &flight.CloseSessionResult{Status: flight.CloseSessionResultClosed}, err
}

func schemaOf(s session.ServerSession) string {
	if v := s.GetSessionOption(optionName); v != nil {
		return v.GetStringValue()
	}
	return defaultSchema
}

// Queries: what showSchema returns depends on the session; streamSchema returns
// the same a number of times, at intervals.
const (
	showSchema   = "SHOW schema"
	streamSchema = "STREAM schema %d EVERY %d" // batches, nanoseconds
)

// GetFlightInfoStatement answers any query with a ticket that contains it.
func (s *server) GetFlightInfoStatement(ctx context.Context, q flightsql.StatementQuery, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	if _, err := session.GetSessionFromContext(ctx); err != nil {
		return nil, err
	}
	ticket, err := flightsql.CreateStatementQueryTicket([]byte(q.GetQuery()))
	if err != nil {
		return nil, err
	}
	return &flight.FlightInfo{FlightDescriptor: d, TotalRecords: -1, TotalBytes: -1,
		Endpoint: []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: ticket}}}}, nil
}

// DoGetStatement runs a query.
func (s *server) DoGetStatement(ctx context.Context, t flightsql.StatementQueryTicket) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	own, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, nil, err
	}
	batches, every := 1, time.Duration(0)
	if query := string(t.GetStatementHandle()); query != showSchema {
		if n, err := fmt.Sscanf(query, streamSchema, &batches, &every); n != 2 || err != nil || batches < 1 || every <= 0 {
			return nil, nil, status.Error(codes.InvalidArgument, "no such query")
		}
	}
	chunks := make(chan flight.StreamChunk)
	go produce(ctx, chunks, own, batches, every)
	return resultSchema, chunks, nil
}

var resultSchema = arrow.NewSchema([]arrow.Field{{Name: optionName, Type: arrow.BinaryTypes.String}}, nil)

// produce sends batches that tell which schema the session has at that moment.
func produce(ctx context.Context, chunks chan<- flight.StreamChunk, s session.ServerSession, batches int, every time.Duration) {
	defer close(chunks)
	for i := range batches {
		if i > 0 && !pause(ctx, every) {
			return
		}
		b := array.NewRecordBuilder(memory.DefaultAllocator, resultSchema)
		b.Field(0).(*array.StringBuilder).Append(schemaOf(s))
		batch := b.NewRecordBatch()
		b.Release()
		select {
		case chunks <- flight.StreamChunk{Data: batch}:
		case <-ctx.Done():
			batch.Release()
			return
		}
	}
}

// pause waits and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
