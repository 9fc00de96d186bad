// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
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
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

const (
	// fingerprintHeader tells the client which session served its call, so that
	// it can ask what became of it.
	fingerprintHeader = "layover-fingerprint"
	// madeHeader tells it that the session was made for the call.
	madeHeader = "layover-made"
	// renewedHeader tells it which one its session is since the call renewed it.
	renewedHeader = "layover-renewed"
	// lateHeader asks for a CloseSession that may take its time.
	lateHeader = "x-late"
	// maxHeaderBytes lets the client with oversized cookies have an error; the
	// default of grpc-go is 16 MiB.
	maxHeaderBytes = 16 << 10
	// maxStreams is how many calls a connection may have at once, by default as
	// many as it likes.
	maxStreams = 128
	maxMessage = 1 << 20

	optionName    = "schema"
	defaultSchema = "default"
)

// server is a Flight SQL server under load, at several addresses with one store:
// one for clients with cookies, with sessions of both types, another one for every
// carrier, and two where principals may have so many sessions only.
type server struct {
	flightsql.BaseServer
	store   *session.ExpiringSessionStore
	watch   *watch
	mishaps *mishaps
	secrets *secrets
	number  int // no other one of the run has it
	doors   []*door

	closes atomic.Uint64 // calls of CloseSession that may be late
}

// door is an address of the server, with a middleware of its own.
type door struct {
	grpc *grpc.Server
	addr string
	done chan error
}

func startServer(c config, w *watch, known *secrets) (*server, error) {
	s := &server{watch: w, secrets: known}
	s.mishaps = &mishaps{server: s}
	var err error
	s.store, err = session.OpenSessionStore(append(c.options(),
		layover.WithSourceShare(1),                 // all clients are on this host
		layover.WithMaxLeaseAge(2*c.longestCall()), // no call hangs, however slow the machine is
		layover.WithHungClose(max(layover.Tick, c.idle/2)),
		layover.WithObserver(s.observe),
		layover.WithLogger(known.logger()),
	)...)
	if err != nil {
		return nil, err
	}
	w.explain, w.planted = s.store.Explain, s.mishaps.failed.Load
	mixed := session.WithFactory(&factory{plain: session.NewSessionFactory(nil), server: s})
	refuse, evict := &allotment{c.allot(), session.RefuseNewest}, &allotment{c.allot(), session.EvictOldest}
	for _, err := range []error{
		s.open(c, &outside{watch: w}, mixed, session.WithLazySessions(), session.WithCancelOnKill()),
		s.open(c, &outside{watch: w, byName: true}, nil, session.WithCancelOnKill(),
			session.WithCarriers(session.Header(keyHeader, principal), session.ByPrincipal(principal), session.Cookie(""))),
		s.open(c, &outside{watch: w, allot: refuse}, nil, session.WithMaxPerPrincipal(refuse.most, refuse.over)),
		s.open(c, &outside{watch: w, allot: evict}, nil, session.WithMaxPerPrincipal(evict.most, evict.over)),
	} {
		if err != nil {
			s.stop()
			return nil, err
		}
	}
	return s, nil
}

// open serves at one more address.
func (s *server) open(c config, o *outside, factory session.StatefulSessionManagerOption, opts ...session.MiddlewareOption) error {
	managed := []session.StatefulSessionManagerOption{session.WithStore(s.store)}
	if factory != nil {
		managed = append(managed, factory)
	}
	sessions := session.NewServerMiddleware(session.NewStatefulServerSessionManager(managed...),
		append(opts, session.WithTellWindow(c.window()), session.WithLogger(s.secrets.logger()), session.WithPrincipal(principal))...)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	around := flight.CreateServerMiddleware(o)
	within := flight.CreateServerMiddleware(&inside{s})
	d := &door{addr: listener.Addr().String(), done: make(chan error, 1)}
	d.grpc = grpc.NewServer(
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.ConnectionTimeout(answerTime),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 10 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second}),
		grpc.ChainUnaryInterceptor(around.Unary, sessions.Unary, within.Unary),
		grpc.ChainStreamInterceptor(around.Stream, sessions.Stream, within.Stream))
	flight.RegisterFlightServiceServer(d.grpc, flightsql.NewFlightServer(s))
	go func() { d.done <- d.grpc.Serve(listener) }()
	s.doors = append(s.doors, d)
	return nil
}

// stop ends the server, then the store with enough time, as [session.ExpiringSessionStore]
// recommends.
func (s *server) stop() {
	for _, d := range s.doors {
		patience := s.watch.Patience()
		if !s.watch.Expect(promise.Clean, await.Return(patience, d.grpc.GracefulStop), "the server did not stop within %s: a call does not end", patience) {
			d.grpc.Stop()
		}
		<-d.done
		d.grpc = nil // and what its middleware remembers of tokens for a day, which would look like a leak
	}
	s.watch.stopping()
	ctx, cancel := context.WithTimeout(context.Background(), s.watch.Patience())
	defer cancel()
	err := s.store.Shutdown(ctx)
	s.watch.Expect(promise.Clean, err == nil, "Shutdown failed, expected success since no call runs: %v", err)
	s.watch.quiet()
}

// observe is the store's observer.
func (s *server) observe(ev layover.Event) {
	s.watch.observe(ev)
	s.secrets.check("an event", fmt.Sprintf("%+v", ev))
	s.mishaps.observed(ev)
}

// factory makes sessions of both types in turn, see the package's comment.
type factory struct {
	plain  session.SessionFactory
	server *server
	made   atomic.Uint64
}

// CreateSession returns a new session.
func (f *factory) CreateSession() (session.ServerSession, error) {
	s, err := f.plain.CreateSession()
	if err != nil || f.made.Add(1)%2 == 0 {
		return s, err
	}
	r := &resource{ServerSession: s, server: f.server}
	r.SetToken(s.Token())
	f.server.watch.opened(r.mark())
	return r, nil
}

// resource is a session of the server's own type that needs closing, and can be
// renewed.
type resource struct {
	session.ServerSession
	server *server
	token  atomic.Pointer[string]
	ends   atomic.Pointer[context.Context] // of the session; nil: no call has had it
}

// Token returns the session's token.
func (r *resource) Token() string { return *r.token.Load() }

// SetToken gives the session another token.
func (r *resource) SetToken(token string) {
	r.server.secrets.learn(token)
	r.token.Store(&token)
}

func (r *resource) mark() layover.Fingerprint { return r.server.store.Fingerprint(r.Token()) }

// Close is the teardown. Only the store calls it, or the package under test if the
// store has refused the session; then nothing goes wrong.
func (r *resource) Close() error {
	ends := r.ends.Load()
	r.server.watch.closed(r.mark(), ends != nil && (*ends).Err() != nil, time.Now())
	err := r.ServerSession.Close()
	if ends != nil {
		err = errors.Join(err, r.server.mishaps.closing(r.Token()))
	}
	return err
}

// stored notes that a call has its session from the store, if it is a resource.
func (s *server) stored(ctx context.Context, own session.ServerSession) {
	s.secrets.learn(own.Token())
	if r, err := session.As[*resource](ctx); err == nil && r.ends.Load() == nil {
		if ends, err := session.Context(ctx); err == nil {
			r.ends.Store(&ends)
		}
	}
}

type callKey struct{}

func callFrom(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

// outside is the middleware around the one under test: whatever lease a call
// has, it has it in between.
type outside struct {
	watch  *watch
	byName bool       // principals find their sessions by name
	allot  *allotment // nil: they may have as many as they like
}

// StartCall notes that a call begins.
func (o *outside) StartCall(ctx context.Context) context.Context {
	c := &call{start: time.Now(), named: o.byName && isNamed(ctx), allot: o.allot}
	if o.allot != nil {
		c.owner = first(ctx, userHeader)
	}
	o.watch.begin(c)
	return context.WithValue(ctx, callKey{}, c)
}

// CallCompleted notes that the call has given its session back.
func (o *outside) CallCompleted(ctx context.Context, _ error) {
	o.watch.done(callFrom(ctx), time.Now())
}

// inside is the middleware inside the one under test: in between the call is
// sure to have its lease.
type inside struct{ server *server }

// StartCall notes which session the call found, if any.
func (i *inside) StartCall(ctx context.Context) context.Context {
	c, w := callFrom(ctx), i.server.watch
	s, err := session.Lookup(ctx)
	if err != nil {
		w.Expect(promise.Answered, errors.Is(err, session.ErrNoSession), "a call was to be refused before its handler: %v", err)
		w.without(c)
		return ctx
	}
	i.server.stored(ctx, s)
	token := s.Token()
	mark, brought := i.server.store.Fingerprint(token), c.named || brings(ctx, token)
	if !brought { // or a former ID of it
		mark, brought = w.follows(c, func() layover.Fingerprint { return i.server.store.Fingerprint(s.Token()) }, i.server.brought(ctx))
	}
	w.enter(c, mark, brought)
	_ = grpc.SetHeader(ctx, metadata.Pairs(fingerprintHeader, mark.String()))
	return ctx
}

// CallCompleted notes that the handler no longer uses the session.
func (i *inside) CallCompleted(ctx context.Context, _ error) {
	_, err := session.Lookup(ctx)
	ended, now := (*layover.EndedError)(nil), time.Now()
	if errors.As(context.Cause(ctx), &ended) {
		i.server.watch.killed(callFrom(ctx), now)
	}
	i.server.watch.leave(callFrom(ctx), err == nil, now)
}

// brings reports whether the call's cookies contain a token.
func brings(ctx context.Context, token string) bool {
	return strings.Contains(strings.Join(metadata.ValueFromIncomingContext(ctx, "cookie"), ";"), token)
}

// need runs f, after which the call has a session, and notes which one was made
// if it had none before.
func (s *server) need(ctx context.Context, holds bool, f func() error) error {
	c := callFrom(ctx)
	if c.used != nil {
		if holds {
			s.watch.holds(c.used)
		}
		return f()
	}
	s.watch.asks(c, time.Now())
	failed := f()
	if failed != nil && !isNotSaved(failed) { // else one was made
		s.watch.refused(c, failed)
		return failed
	}
	own, err := session.Lookup(ctx)
	if !s.watch.Expect(promise.Needed, err == nil, "a call asked for a session and has none: %v", err) {
		return err
	}
	s.stored(ctx, own)
	mark := s.store.Fingerprint(own.Token())
	s.watch.makes(c, mark, holds, brings(ctx, own.Token()), time.Now())
	return cmp.Or(failed, grpc.SetHeader(ctx, metadata.Pairs(fingerprintHeader, mark.String(), madeHeader, "1")))
}

// SetSessionOptions sets the schema, the only option that there is.
func (s *server) SetSessionOptions(ctx context.Context, req *flight.SetSessionOptionsRequest) (*flight.SetSessionOptionsResult, error) {
	result := &flight.SetSessionOptionsResult{Errors: make(map[string]*flight.SetSessionOptionsResultError)}
	for name, value := range req.GetSessionOptions() {
		_, text := value.GetOptionValue().(*pb.SessionOptionValue_StringValue)
		switch {
		case name != optionName:
			result.Errors[name] = &flight.SetSessionOptionsResultError{Value: flight.SetSessionOptionsResultErrorInvalidName}
		case !text:
			result.Errors[name] = &flight.SetSessionOptionsResultError{Value: flight.SetSessionOptionsResultErrorInvalidValue}
		default:
			if err := s.need(ctx, true, func() error { return session.SetOption(ctx, name, value) }); err != nil {
				return nil, err
			}
		}
	}
	return result, nil
}

// GetSessionOptions returns the schema. Without a session it is an error.
func (s *server) GetSessionOptions(ctx context.Context, _ *flight.GetSessionOptionsRequest) (*flight.GetSessionOptionsResult, error) {
	own, err := session.Lookup(ctx)
	if err != nil {
		return nil, status.Error(codes.NotFound, "no session")
	}
	value, err := flight.NewSessionOptionValue(schemaOf(own))
	return &flight.GetSessionOptionsResult{SessionOptions: map[string]*flight.SessionOptionValue{optionName: &value}}, err
}

// CloseSession ends the session, if there is one. Of those that ask for it some
// come to it late, and some are answered late.
func (s *server) CloseSession(ctx context.Context, _ *flight.CloseSessionRequest) (_ *flight.CloseSessionResult, err error) {
	if used := callFrom(ctx).used; used != nil {
		var before, after time.Duration
		if first(ctx, lateHeader) != "" {
			n, step := s.closes.Add(1), s.watch.idle/32
			before, after = time.Duration(n%4)*step, time.Duration(n/4%4)*step
		}
		await.Pause(ctx, before)
		s.watch.closing(used, time.Now())
		err = session.End(ctx)
		await.Pause(ctx, time.Millisecond+after) // this call still uses the session: its teardown has to wait
	}
	return &flight.CloseSessionResult{Status: flight.CloseSessionResultClosed}, err
}

func schemaOf(s session.ServerSession) string {
	if v := s.GetSessionOption(optionName); v != nil {
		return v.GetStringValue()
	}
	return defaultSchema
}

// Queries: what showSchema returns depends on the session; streamSchema returns
// the same a number of times, at intervals; makeSession needs a session, which
// holds nothing; the others renew it and return what showSchema does.
const (
	showSchema   = "SHOW schema"
	makeSession  = "MAKE session"
	renewSession = "RENEW session"
	renewLate    = "RENEW session after the header"
	renewInfo    = "RENEW session before there is a result"
	streamSchema = "STREAM schema %d EVERY %d" // batches, nanoseconds
)

// GetFlightInfoStatement answers any query with a ticket that contains it.
func (s *server) GetFlightInfoStatement(ctx context.Context, q flightsql.StatementQuery, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	if q.GetQuery() == renewInfo {
		if err := s.renew(ctx); err != nil {
			return nil, err
		}
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
	switch query := string(t.GetStatementHandle()); query {
	case showSchema, renewInfo:
	case renewSession:
		if err := s.renew(ctx); err != nil {
			return nil, nil, err
		}
	case renewLate:
		if err := s.renewLate(ctx); err != nil {
			return nil, nil, err
		}
	case makeSession:
		ensure := func() error { _, err := session.Ensure(ctx); return err }
		if err := s.need(ctx, false, ensure); err != nil {
			return nil, nil, err
		}
	default:
		if n, err := fmt.Sscanf(query, streamSchema, &batches, &every); n != 2 || err != nil || batches < 1 || every <= 0 {
			return nil, nil, status.Error(codes.InvalidArgument, "no such query")
		}
	}
	chunks := make(chan flight.StreamChunk)
	go produce(ctx, chunks, own, batches, every)
	return resultSchema, chunks, nil
}

var resultSchema = arrow.NewSchema([]arrow.Field{{Name: optionName, Type: arrow.BinaryTypes.String}}, nil)

// produce sends batches that tell which schema the session has at that moment. Who
// reads the channel reads it to its end.
func produce(ctx context.Context, chunks chan<- flight.StreamChunk, s session.ServerSession, batches int, every time.Duration) {
	defer close(chunks)
	for i := range batches {
		if i > 0 && !await.Pause(ctx, every) {
			chunks <- flight.StreamChunk{Err: context.Cause(ctx)}
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
			chunks <- flight.StreamChunk{Err: context.Cause(ctx)}
			return
		}
	}
}
