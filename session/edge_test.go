// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// handlersOf are the two ways in which handlers find their session.
var handlersOf = map[string]func(context.Context) (session.ServerSession, error){
	"ours": session.GetSessionFromContext, "Apache's": apache.GetSessionFromContext,
}

// A handler that only looks at its session makes none, whatever the call, also
// one that was written against Apache's package.
func TestACallThatOnlyLooksMakesNoSession(t *testing.T) {
	for name, get := range handlersOf {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			e := serveEdge(t, edge(store), &sqlServer{fromContext: get})
			c := e.client()
			options := map[string]*flight.SessionOptionValue{}
			for what, do := range map[string]call{"GetFlightInfo": info(""), "DoGet": scan(""), "GetSessionOptions": getOptions(&options), "CloseSession": closeSession} {
				r := c.must(do)
				if r.header != nil || r.trailer != nil {
					t.Errorf("%s: header %q, trailer %q", what, r.header, r.trailer)
				}
				if _, err := e.last(); err != nil {
					t.Errorf("%s: the handler got no session to look at: %v", what, err)
				}
			}
			if st := store.Stats(); st.Created != 0 || len(options) != 0 {
				t.Errorf("%d sessions were made, options %v", st.Created, options)
			}
		})
	}
}

// The first option makes the session: its cookie is in the header, and brings
// it back without another word.
func TestTheFirstOptionMakesTheSession(t *testing.T) {
	for name, get := range handlersOf {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			e := serveEdge(t, edge(store), &sqlServer{fromContext: get})
			c := e.client()
			r := c.must(setOption("schema", "prod"))
			cookie := r.cookie(t)
			if r.trailer != nil || len(cookie) != len(session.StatefulSessionCookieName)+1+39 {
				t.Errorf("cookie %q, trailer %q", cookie, r.trailer)
			}
			var options map[string]*flight.SessionOptionValue
			for _, do := range []call{getOptions(&options), info(""), scan("")} {
				if r := c.must(do, cookie); r.header != nil || r.trailer != nil {
					t.Errorf("a known cookie was answered with header %q, trailer %q", r.header, r.trailer)
				}
			}
			if got := options["schema"].GetStringValue(); got != "prod" {
				t.Errorf("schema %q", got)
			}
			if st := store.Stats(); st.Created != 1 || st.Confirmed != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// adbc does what the ADBC driver with its defaults does: it connects, runs
// queries and closes, and keeps no cookies.
func adbc(c *client, queries int) {
	for range 1 + queries { // the first asks for the server's properties
		c.must(info(""))
		c.must(scan(""))
	}
	c.must(closeSession)
}

// A client with the defaults of the most used drivers leaves no session, where
// under Apache's middleware it leaves 23.
func TestAnADBCLikeClientLeavesNoSession(t *testing.T) {
	ours, theirs := newStore(t), newStore(t)
	adbc(serveEdge(t, edge(ours), nil).client(), 10)
	if st := ours.Stats(); st.Created != 0 {
		t.Errorf("%d sessions were made, want none", st.Created)
	}
	middleware := apache.NewServerSessionMiddleware(apache.NewStatefulServerSessionManager(apache.WithStore(theirs)))
	adbc(serve(t, middleware, &sqlServer{fromContext: apache.GetSessionFromContext}).client(), 10)
	if st := theirs.Stats(); st.Created != 23 {
		t.Errorf("under Apache's %d sessions were made, expected 23: the comparison is not what it says", st.Created)
	}
}

// Parallel first calls that need a session leave at most one each, unconfirmed;
// those that need none leave none.
func TestParallelFirstCallsLeaveAtMostUnconfirmedSessions(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store), nil).client()
	const each = 8
	var all sync.WaitGroup
	for range each {
		for _, do := range []call{setOption("schema", "prod"), info(""), closeSession} {
			all.Go(func() {
				if r := c.do(do); r.err != nil {
					t.Error(r.err)
				}
			})
		}
	}
	all.Wait()
	if st := store.Stats(); st.Live != each || st.Unconfirmed != each {
		t.Errorf("%+v", st)
	}
}

// However the handler ends, the call has its lease until then and not longer,
// and the idle clock starts.
func TestACallHasItsLeaseUntilItsHandlerEnds(t *testing.T) {
	for _, kind := range []string{"unary", "stream"} {
		for _, end := range []string{"return", "error", "panic", "cancel"} {
			t.Run(kind+" "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { leaseUntilTheEnd(t, kind, end) })
			})
		}
	}
}

func leaseUntilTheEnd(t *testing.T, kind, end string) {
	const idle = time.Minute
	store := newStore(t, layover.WithIdleTimeout(idle), layover.WithUnconfirmedTimeouts(idle, idle))
	gate := make(chan struct{})
	stop := func(ctx context.Context, _ session.ServerSession) error {
		<-gate
		switch end {
		case "error":
			return status.Error(codes.Aborted, "on purpose")
		case "panic":
			panic(plannedPanic)
		}
		return nil
	}
	e := serveEdgeInBubble(t, edge(store), &sqlServer{statements: map[string]statement{"stop": stop}})
	c := e.client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), "cookie", cookie))
	defer cancel()
	do := map[string]call{"unary": info("stop"), "stream": directScan("stop")}[kind]
	done := make(chan error, 1)
	go func() { done <- do(ctx, c.Client) }()
	wait(3 * idle)
	if end == "cancel" {
		cancel()
		<-done
		wait(3 * idle) // the handler goes on
	}
	if st := store.Stats(); st.Live != 1 {
		t.Fatalf("the session ended during the call: %+v", st)
	}
	close(gate)
	if end != "cancel" {
		if err := <-done; (err == nil) != (end == "return") {
			t.Errorf("the call ended with %v", err)
		}
	}
	wait(idle - time.Second)
	if st := store.Stats(); st.Live != 1 {
		t.Errorf("it ended before its idle timeout after the call: %+v", st)
	}
	wait(time.Second + late)
	if st := store.Stats(); st.Live != 0 || st.Closed != 1 {
		t.Errorf("an idle timeout after the call: %+v", st)
	}
}

// directScan is DoGet whose statement runs on the handler's own goroutine.
func directScan(text string) call { return scan("direct:" + text) }

// Only Flight methods get sessions: not health checks, reflection, other
// services, nor handshakes, whatever cookies they bring.
func TestOnlyFlightMethodsGetSessions(t *testing.T) {
	store := newStore(t)
	seen := make(map[string]bool)
	looks := func(ctx context.Context, method string) {
		_, err := session.GetSessionFromContext(ctx)
		seen[method] = err == nil
	}
	middleware := edge(store)
	srv := grpc.NewServer(
		grpc.ChainUnaryInterceptor(middleware.Unary, func(ctx context.Context, req any, i *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			looks(ctx, i.FullMethod)
			return h(ctx, req)
		}),
		grpc.ChainStreamInterceptor(middleware.Stream, func(srv any, s grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			looks(s.Context(), i.FullMethod)
			return h(srv, s)
		}))
	flight.RegisterFlightServiceServer(srv, flightsql.NewFlightServer(new(sqlServer)))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	reflection.Register(srv)
	conn := dialServer(t, srv)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "cookie", session.StatefulSessionCookieName+"=x")
	if _, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	r, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err == nil {
		_ = r.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		_ = r.CloseSend()
		_, err = r.Recv()
	}
	if err != nil {
		t.Error(err)
	}
	client := flight.NewClientFromConn(conn, nil)
	h, err := client.Handshake(ctx)
	if err == nil {
		_ = h.CloseSend()
		_, _ = h.Recv() // no authentication is set up
	}
	_, _ = client.GetFlightInfo(ctx, &flight.FlightDescriptor{})
	srv.Stop()
	for method, has := range seen {
		if want := strings.HasSuffix(method, "/GetFlightInfo"); has != want {
			t.Errorf("%s: has a session: %t", method, has)
		}
	}
	if len(seen) != 4 || store.Stats().Created != 0 {
		t.Errorf("calls %v, %d sessions were made", seen, store.Stats().Created)
	}
}

// dialServer starts a server on loopback and returns a connection to it.
func dialServer(t *testing.T, srv *grpc.Server) *grpc.ClientConn {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	t.Cleanup(func() {
		srv.Stop()
		if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// A goroutine of the server that goes on after the call keeps its session by a
// lease of its own, until it gives it back.
func TestAcquireOutlivesTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle = time.Minute
		store := newStore(t, layover.WithIdleTimeout(idle), layover.WithUnconfirmedTimeouts(idle, idle))
		leases := make(chan session.SessionLease, 2)
		e := serveEdgeInBubble(t, edge(store), &sqlServer{statements: map[string]statement{
			"acquire": func(ctx context.Context, _ session.ServerSession) error {
				l, err := session.Acquire(ctx)
				leases <- l
				return err
			},
			"none": func(ctx context.Context, _ session.ServerSession) error {
				if _, err := session.Acquire(ctx); !errors.Is(err, session.ErrNoSession) {
					return fmt.Errorf("a call without a session got %w", err)
				}
				return nil
			},
		}})
		c := e.client()
		c.must(info("none"))
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		c.must(info("acquire"), cookie)
		l := <-leases
		wait(10 * idle)
		if got := l.Session().GetSessionOption("schema").GetStringValue(); got != "prod" || store.Len() != 1 {
			t.Errorf("schema %q, %d sessions", got, store.Len())
		}
		c.must(closeSession, cookie)
		synctest.Wait()
		if st := store.Stats(); st.Retired != 1 || l.Session().GetSessionOption("schema") == nil {
			t.Errorf("after CloseSession: %+v", st)
		}
		l.Release()
		synctest.Wait()
		if st := store.Stats(); st.Retired != 0 || st.Closed != 1 {
			t.Errorf("after the release: %+v", st)
		}
	})
}

// What cannot be made when it is needed fails the call, or is the handler's to
// handle where it asks for the error.
func TestASessionThatCannotBeMadeFailsTheCall(t *testing.T) {
	store := newStore(t)
	store.Drain()
	sentinel := errors.New("not asked")
	got := map[string]error{"Ensure": sentinel, "SetOption": sentinel}
	e := serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"set": func(_ context.Context, s session.ServerSession) error {
			s.SetSessionOption("schema", text("prod"))
			return nil
		},
		"token": func(_ context.Context, s session.ServerSession) error {
			if s.Token() != "" {
				return errors.New("a token of no session")
			}
			return nil
		},
		"ask": func(ctx context.Context, _ session.ServerSession) error {
			_, got["Ensure"] = session.Ensure(ctx)
			got["SetOption"] = session.SetOption(ctx, "schema", text("prod"))
			return nil
		},
		"erase": func(ctx context.Context, s session.ServerSession) error {
			s.EraseSessionOption("schema")
			s.SetSessionOption("schema", nil)
			return session.SetOption(ctx, "schema", nil)
		},
	}})
	c := e.client()
	for _, do := range []call{info("set"), scan("set"), info("token"), setOption("schema", "prod")} {
		if r := c.do(do); status.Code(r.err) != codes.Unavailable {
			t.Errorf("the call ended with %v, want UNAVAILABLE", r.err)
		}
	}
	c.must(info("ask"))
	for name, err := range got {
		if !errors.Is(err, layover.ErrDraining) || status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.must(info("erase"))
}

// Several goroutines of one call that need a session get the same one.
func TestOneCallMakesOneSession(t *testing.T) {
	store := newStore(t)
	e := serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"many": func(_ context.Context, s session.ServerSession) error {
			var all sync.WaitGroup
			for i := range 16 {
				all.Go(func() { s.SetSessionOption(fmt.Sprint("option", i), text("x")) })
			}
			all.Wait()
			if n := len(s.GetSessionOptions()); n != 16 {
				return fmt.Errorf("%d options", n)
			}
			return nil
		},
	}})
	r := e.client().must(info("many"))
	if st := store.Stats(); st.Created != 1 || len(r.header) != 1 {
		t.Errorf("%d sessions, header %q", st.Created, r.header)
	}
}

// A call that has ended makes no session any more.
func TestAnEndedCallMakesNoSession(t *testing.T) {
	store := newStore(t)
	ctxs := make(chan context.Context, 1)
	e := serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"leak": func(ctx context.Context, _ session.ServerSession) error { ctxs <- ctx; return nil },
	}})
	e.client().must(info("leak"))
	ctx := <-ctxs
	if _, err := session.Ensure(ctx); !errors.Is(err, session.ErrCallEnded) {
		t.Errorf("Ensure: %v", err)
	}
	if err := session.SetOption(ctx, "schema", text("prod")); !errors.Is(err, session.ErrCallEnded) {
		t.Errorf("SetOption: %v", err)
	}
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.SetSessionOption("schema", text("prod"))
	if s.Token() != "" || s.GetSessionOption("schema") != nil || store.Stats().Created != 0 {
		t.Error("a session was made after the end of its call")
	}
}

// Handlers that expect the sessions of their own factory in the context find
// them there at once; As finds them under WithLazySessions, which makes none
// for calls that only look.
func TestSessionsOfAForeignTypeAreInTheContext(t *testing.T) {
	for _, lazy := range []bool{false, true} {
		t.Run(fmt.Sprint("lazy ", lazy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { foreignSessions(t, lazy) })
		})
	}
}

func foreignSessions(t *testing.T, lazy bool) {
	store := newStore(t)
	var made []*userSession
	factory := fakeFactory(func() (session.ServerSession, error) {
		made = append(made, &userSession{id: fmt.Sprint("id-", len(made))})
		return made[len(made)-1], nil
	})
	manager := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(factory))
	opts := []session.MiddlewareOption{session.WithLogger(nil)}
	if lazy {
		opts = append(opts, session.WithLazySessions())
	}
	as := func(ctx context.Context, s session.ServerSession) error {
		mine, err := session.As[*userSession](ctx)
		if err != nil {
			return err
		}
		if _, ok := s.(*userSession); ok == lazy {
			return fmt.Errorf("the context has a %T", s)
		}
		if mine.Token() != s.Token() {
			return errors.New("two sessions")
		}
		_, err = session.As[*session.StatelessServerSession](ctx)
		if err == nil {
			return errors.New("a session of any type was found")
		}
		return nil
	}
	e := serveEdgeInBubble(t, session.NewServerMiddleware(manager, opts...), &sqlServer{statements: map[string]statement{"as": as}})
	c := e.client()
	c.must(getOptions(nil))
	c.must(closeSession)
	if store.Len() != 0 {
		t.Errorf("%d sessions after GetSessionOptions and CloseSession", store.Len())
	}
	c.must(info(""))
	if want := map[bool]int{false: 1, true: 0}[lazy]; store.Len() != want {
		t.Errorf("%d sessions after a call that only looks, want %d", store.Len(), want)
	}
	cookie := c.must(directScan("as")).cookie(t)
	c.must(info("as"), cookie)
	c.must(setOption("schema", "prod"), cookie)
	before := store.Len()
	if r := c.must(closeSession, cookie); len(r.header)+len(r.trailer) != 1 || store.Len() != before-1 {
		t.Errorf("CloseSession: header %q, trailer %q, %d sessions of %d", r.header, r.trailer, store.Len(), before)
	}
	synctest.Wait()
	if closed := int(store.Stats().Closed); closed != len(made)-store.Len() {
		t.Errorf("%d sessions of %d were closed, %d are there", closed, len(made), store.Len())
	}
	for _, s := range made {
		if n := s.closeCount(); n > 1 {
			t.Errorf("a session was closed %d times", n)
		}
	}
}

// Stateless sessions, too, exist only where something is put into them. Their
// token is in the header, which some clients read alone, and once more in the
// trailer if it changed after that.
func TestStatelessSessionsAreMadeWhenNeeded(t *testing.T) {
	synctest.Test(t, statelessWhenNeeded)
}

func statelessWhenNeeded(t *testing.T) {
	e := serveEdgeInBubble(t, session.NewServerMiddleware(session.NewStatelessServerSessionManager(), session.WithLogger(nil)),
		&sqlServer{statements: map[string]statement{
			"late": func(_ context.Context, s session.ServerSession) error {
				<-time.After(time.Second) // until the header has left
				s.SetSessionOption("late", text("x"))
				return nil
			},
		}})
	c := e.client()
	for _, do := range []call{info(""), scan(""), getOptions(nil), closeSession} {
		if r := c.must(do); r.header != nil || r.trailer != nil {
			t.Errorf("header %q, trailer %q", r.header, r.trailer)
		}
	}
	r := c.must(setOption("hello", "world"))
	if r.cookie(t) != session.StatelessSessionCookieName+"="+helloToken || r.trailer != nil {
		t.Errorf("header %q, trailer %q", r.header, r.trailer)
	}
	cookie := r.cookie(t)
	if r := c.must(info(""), cookie); r.header != nil || r.trailer != nil {
		t.Errorf("unchanged: header %q, trailer %q", r.header, r.trailer)
	}
	if r := c.must(scan("late"), cookie); r.header != nil || len(r.trailer) != 1 || r.trailer[0] == cookie {
		t.Errorf("changed in mid-stream: header %q, trailer %q", r.header, r.trailer)
	}
	r = c.must(closeSession, cookie)
	if all := append(r.header, r.trailer...); len(all) != 1 || !strings.HasSuffix(all[0], "; Max-Age=0") {
		t.Errorf("closed: %q", all)
	}
	if r := c.must(info(""), session.StatelessSessionCookieName+"=%%%"); r.header != nil {
		t.Errorf("garbage: %q", r.header)
	}
}

// Managers that were written for Apache's package work under the interceptors.
func TestManagersOfApachesPackageWorkUnderTheInterceptors(t *testing.T) {
	store := newStore(t)
	for name, manager := range map[string]session.ServerSessionManager{
		"Apache's stateful": apache.NewStatefulServerSessionManager(apache.WithStore(store)),
		"wrapped":           around{session.NewStatefulServerSessionManager(session.WithStore(store))},
	} {
		t.Run(name, func(t *testing.T) {
			e := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), nil)
			aSessionStaysUntilItsClientClosesIt(t, e, store, scan(""))
		})
	}
}

// around is a manager around another one.
type around struct{ session.ServerSessionManager }
