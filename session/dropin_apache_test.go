// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

// This file is a program written for Apache's package. It exists twice, with
// nothing different but the package clause and the import path; see
// TestDropInProgramsAreTheSameText. Names begin with dropIn so that they meet
// nobody else's.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/apache/arrow-go/v18/arrow/flight/session"
)

// Every exported name of Apache's package, used as its users use it.
const (
	dropInStateful  string = session.StatefulSessionCookieName
	dropInStateless string = session.StatelessSessionCookieName
)

var (
	dropInErr     error                                = session.ErrNoSession
	dropInManager session.ServerSessionManager         = session.NewStatefulServerSessionManager()
	_             session.ServerSessionManager         = session.NewStatelessServerSessionManager()
	_             session.ServerSessionManager         = (*dropInCountingManager)(nil)
	_             session.SessionFactory               = session.NewSessionFactory(uuid.NewString)
	_             session.SessionStore                 = session.NewSessionStore()
	_             session.SessionStore                 = (*dropInMapStore)(nil)
	_             session.ServerSession                = session.NewStatelessServerSession(nil)
	_             session.ServerSession                = (*dropInNamedSession)(nil)
	_             flight.CustomServerMiddleware        = session.NewServerSessionMiddleware(dropInManager)
	_             session.StatefulSessionManagerOption = session.WithStore(session.NewSessionStore())

	_ func(session.ServerSession) (http.Cookie, error)                  = session.CreateCookieForSession
	_ func(context.Context, string) (http.Cookie, error)                = session.GetIncomingCookieByName
	_ func(context.Context, session.ServerSession) context.Context      = session.NewSessionContext
	_ func(context.Context) (session.ServerSession, error)              = session.GetSessionFromContext
	_ func(session.SessionFactory) session.StatefulSessionManagerOption = session.WithFactory
	_ func(session.SessionStore) session.StatefulSessionManagerOption   = session.WithStore
)

// The three examples of the package's documentation.

func dropInDefaultMiddleware() flight.ServerMiddleware {
	middleware := session.NewServerSessionMiddleware(nil)
	return flight.CreateServerMiddleware(middleware)
}

func dropInCustomStateful(generateID func() string, store session.SessionStore) flight.ServerMiddleware {
	factory := session.NewSessionFactory(generateID)
	manager := session.NewStatefulServerSessionManager(session.WithFactory(factory), session.WithStore(store))
	middleware := session.NewServerSessionMiddleware(manager)
	return flight.CreateServerMiddleware(middleware)
}

func dropInStatelessMiddleware() flight.ServerMiddleware {
	manager := session.NewStatelessServerSessionManager()
	middleware := session.NewServerSessionMiddleware(manager)
	return flight.CreateServerMiddleware(middleware)
}

// dropInMapStore is a store of a user's own.
type dropInMapStore struct {
	mu       sync.Mutex
	sessions map[string]session.ServerSession
}

func (s *dropInMapStore) Get(id string) (session.ServerSession, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, ok := s.sessions[id]; ok {
		return found, nil
	}
	return nil, session.ErrNoSession
}

func (s *dropInMapStore) Put(v session.ServerSession) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions == nil {
		s.sessions = make(map[string]session.ServerSession)
	}
	s.sessions[v.Token()] = v
	return nil
}

func (s *dropInMapStore) Remove(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, id)
	return nil
}

func (s *dropInMapStore) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.sessions))
}

// dropInPresets is a factory of a user's own: its sessions begin with options.
type dropInPresets struct{ session.SessionFactory }

func (f dropInPresets) CreateSession() (session.ServerSession, error) {
	s, err := f.SessionFactory.CreateSession()
	if err != nil {
		return nil, fmt.Errorf("presets: %w", err)
	}
	s.SetSessionOption("preset", dropInValue("yes"))
	return s, nil
}

// dropInCountingManager is a manager of a user's own.
type dropInCountingManager struct {
	session.ServerSessionManager
	mu           sync.Mutex
	made, closed int
}

func (m *dropInCountingManager) CreateSession(ctx context.Context) (session.ServerSession, error) {
	m.mu.Lock()
	m.made++
	m.mu.Unlock()
	return m.ServerSessionManager.CreateSession(ctx)
}

func (m *dropInCountingManager) CloseSession(s session.ServerSession) error {
	m.mu.Lock()
	m.closed++
	m.mu.Unlock()
	return m.ServerSessionManager.CloseSession(s)
}

// dropInNamedSession is a session of a user's own type.
type dropInNamedSession struct {
	session.ServerSession
	name string
}

func (s *dropInNamedSession) Token() string { return s.name }

func dropInValue(s string) *flight.SessionOptionValue {
	v, _ := flight.NewSessionOptionValue(s)
	return &v
}

// dropInServer is the server of a user.
type dropInServer struct{ flightsql.BaseServer }

func (*dropInServer) SetSessionOptions(ctx context.Context, req *flight.SetSessionOptionsRequest) (*flight.SetSessionOptionsResult, error) {
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, err
	}
	for name, v := range req.GetSessionOptions() {
		s.SetSessionOption(name, v)
	}
	return &flight.SetSessionOptionsResult{}, nil
}

func (*dropInServer) GetSessionOptions(ctx context.Context, _ *flight.GetSessionOptionsRequest) (*flight.GetSessionOptionsResult, error) {
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, err
	}
	return &flight.GetSessionOptionsResult{SessionOptions: s.GetSessionOptions()}, nil
}

func (*dropInServer) CloseSession(ctx context.Context, _ *flight.CloseSessionRequest) (*flight.CloseSessionResult, error) {
	s, err := session.GetSessionFromContext(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return &flight.CloseSessionResult{Status: flight.CloseSessionResultClosed}, nil
}

// dropInDial starts a server with the middleware and returns a client.
func dropInDial(t *testing.T, middleware flight.ServerMiddleware) *flightsql.Client {
	t.Helper()
	srv := flight.NewServerWithMiddleware([]flight.ServerMiddleware{middleware})
	srv.RegisterFlightService(flightsql.NewFlightServer(new(dropInServer)))
	if err := srv.Init("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve()
	}()
	client, err := flightsql.NewClient(srv.Addr().String(), nil, nil, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close()
		srv.Shutdown()
		<-served
	})
	return client
}

// dropInJourney makes a session, uses it, closes it, and comes back with the
// dead cookie, which must give a new session. The two cookies are expected.
func dropInJourney(t *testing.T, client *flightsql.Client, name, first, changed, second string) {
	t.Helper()
	var header, trailer metadata.MD
	opts := []grpc.CallOption{grpc.Header(&header), grpc.Trailer(&trailer)}
	with := func(value string) context.Context {
		header, trailer = nil, nil
		return metadata.AppendToOutgoingContext(t.Context(), "cookie", name+"="+value)
	}
	expect := func(step string, err error, inHeader, inTrailer []string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		if got := header.Get("set-cookie"); !slices.Equal(got, inHeader) {
			t.Errorf("%s: header %q, want %q", step, got, inHeader)
		}
		if got := trailer.Get("set-cookie"); !slices.Equal(got, inTrailer) {
			t.Errorf("%s: trailer %q, want %q", step, got, inTrailer)
		}
	}

	_, err := client.GetSessionOptions(t.Context(), &flight.GetSessionOptionsRequest{}, opts...)
	expect("a call without cookie", err, []string{name + "=" + first}, []string{name + "=" + first})

	set := &flight.SetSessionOptionsRequest{SessionOptions: map[string]*flight.SessionOptionValue{"hello": dropInValue("world")}}
	_, err = client.SetSessionOptions(with(first), set, opts...)
	if changed == first {
		expect("SetSessionOptions", err, nil, nil)
	} else {
		expect("SetSessionOptions", err, nil, []string{name + "=" + changed})
	}

	got, err := client.GetSessionOptions(with(changed), &flight.GetSessionOptionsRequest{}, opts...)
	expect("GetSessionOptions", err, nil, nil)
	if v := got.GetSessionOptions()["hello"].GetStringValue(); v != "world" {
		t.Errorf("the option has the value %q", v)
	}

	_, err = client.CloseSession(with(changed), &flight.CloseSessionRequest{}, opts...)
	expect("CloseSession", err, nil, []string{name + "=" + changed + "; Max-Age=0"})

	if second == "" {
		return
	}
	got, err = client.GetSessionOptions(with(changed), &flight.GetSessionOptionsRequest{}, opts...)
	expect("a call with the dead cookie", err, []string{name + "=" + second}, []string{name + "=" + second})
	if v := got.GetSessionOptions()["hello"]; v != nil {
		t.Errorf("the new session has the option %v", v)
	}
}

func TestDropInProgram(t *testing.T) {
	ids := func() func() string {
		n := 0
		return func() string {
			n++
			return fmt.Sprint("id-", n)
		}
	}
	t.Run("default", func(t *testing.T) {
		client := dropInDial(t, dropInDefaultMiddleware())
		var header metadata.MD
		if _, err := client.GetSessionOptions(t.Context(), &flight.GetSessionOptionsRequest{}, grpc.Header(&header)); err != nil {
			t.Fatal(err)
		}
		got := (&http.Response{Header: http.Header{"Set-Cookie": header.Get("set-cookie")}}).Cookies()
		if len(got) != 1 || got[0].Name != dropInStateful {
			t.Fatalf("got the cookies %v", got)
		}
		if _, err := uuid.Parse(got[0].Value); err != nil {
			t.Errorf("the ID is no UUID: %v", err)
		}
	})
	t.Run("the package's store", func(t *testing.T) {
		store := session.NewSessionStore()
		dropInJourney(t, dropInDial(t, dropInCustomStateful(ids(), store)), dropInStateful, "id-1", "id-1", "id-2")
		if s, err := store.Get("id-1"); err == nil {
			t.Errorf("the closed session is still in the store: %v", s.Closed())
		}
		if s, err := store.Get("id-2"); err != nil || s.Token() != "id-2" || s.Closed() {
			t.Errorf("the second session is not in the store, error %v", err)
		}
	})
	t.Run("a store of one's own", func(t *testing.T) {
		store := new(dropInMapStore)
		dropInJourney(t, dropInDial(t, dropInCustomStateful(ids(), store)), dropInStateful, "id-1", "id-1", "id-2")
		if got := store.names(); !slices.Equal(got, []string{"id-2"}) {
			t.Errorf("the store has %q", got)
		}
	})
	t.Run("stateless", func(t *testing.T) {
		dropInJourney(t, dropInDial(t, dropInStatelessMiddleware()), dropInStateless, "", "ChAKBWhlbGxvEgcKBXdvcmxk", "")
	})
	t.Run("a manager and a factory of one's own", func(t *testing.T) {
		manager := &dropInCountingManager{ServerSessionManager: session.NewStatefulServerSessionManager(
			session.WithFactory(dropInPresets{session.NewSessionFactory(ids())}))}
		client := dropInDial(t, flight.CreateServerMiddleware(session.NewServerSessionMiddleware(manager)))
		dropInJourney(t, client, dropInStateful, "id-1", "id-1", "id-2")
		got, err := client.GetSessionOptions(t.Context(), &flight.GetSessionOptionsRequest{})
		if v := got.GetSessionOptions()["preset"].GetStringValue(); err != nil || v != "yes" {
			t.Errorf("the preset option is %q, error %v", v, err)
		}
		manager.mu.Lock()
		defer manager.mu.Unlock()
		if manager.made != 3 || manager.closed != 1 {
			t.Errorf("the manager made %d sessions and closed %d", manager.made, manager.closed)
		}
	})
}

func TestDropInProgramWithoutServer(t *testing.T) {
	if dropInStateful != "arrow_flight_session_id" || dropInStateless != "arrow_flight_session" {
		t.Errorf("the cookies are named %q and %q", dropInStateful, dropInStateless)
	}
	if dropInErr.Error() != "flight: server session not present" {
		t.Errorf("ErrNoSession says %q", dropInErr)
	}
	if _, err := session.GetSessionFromContext(t.Context()); err != session.ErrNoSession { //nolint:errorlint // as users do
		t.Errorf("outside of a call: %v", err)
	}

	named := &dropInNamedSession{session.NewStatelessServerSession(nil), "mine"}
	ctx := session.NewSessionContext(t.Context(), named)
	if got, err := session.GetSessionFromContext(ctx); err != nil || got != session.ServerSession(named) {
		t.Errorf("got %v, error %v", got, err)
	}
	for _, m := range []session.ServerSessionManager{session.NewStatefulServerSessionManager(), session.NewStatelessServerSessionManager()} {
		if got, err := m.GetSession(ctx); err != nil || got != session.ServerSession(named) {
			t.Errorf("%T does not find the session of the context: %v", m, err)
		}
		in := metadata.NewIncomingContext(t.Context(), metadata.MD{})
		if _, err := m.GetSession(in); err != session.ErrNoSession { //nolint:errorlint // as users do
			t.Errorf("%T without a cookie: %v", m, err)
		}
	}

	store := session.NewSessionStore()
	s, err := session.NewSessionFactory(func() string { return "one" }).CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(s); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(s.Token()); err != nil || got != s {
		t.Errorf("Get after Put: %v", err)
	}
	cookie, err := session.CreateCookieForSession(s)
	if err != nil || cookie.String() != "arrow_flight_session_id=one" {
		t.Errorf("the cookie is %q, error %v", cookie.String(), err)
	}
	in := metadata.NewIncomingContext(t.Context(), metadata.Pairs("cookie", "a=b; "+cookie.String()))
	if got, err := session.GetIncomingCookieByName(in, dropInStateful); err != nil || got.Value != "one" {
		t.Errorf("the cookie came back as %q, error %v", got.Value, err)
	}
	if _, err := session.GetIncomingCookieByName(in, dropInStateless); !errors.Is(err, http.ErrNoCookie) {
		t.Errorf("a cookie that is not there: %v", err)
	}
	if got, err := session.NewStatefulServerSessionManager(session.WithStore(store)).GetSession(in); err != nil || got != s {
		t.Errorf("the manager does not find the session: %v", err)
	}
	if _, err := session.CreateCookieForSession(nil); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("a cookie for no session: %v", err)
	}
	if err := store.Remove("one"); err != nil {
		t.Error(err)
	}
	if err := store.Remove("one"); err != nil {
		t.Errorf("Remove is not idempotent: %v", err)
	}
	if _, err := store.Get("one"); err == nil {
		t.Error("Get after Remove finds the session")
	}
}

func TestDropInProgramWithOptions(t *testing.T) {
	made, err := session.NewSessionFactory(uuid.NewString).CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []session.ServerSession{made, session.NewStatelessServerSession(nil)} {
		list, _ := flight.NewSessionOptionValue([]string{"original"})
		s.SetSessionOption("list", &list)
		list.GetStringListValue().Values[0] = "changed"
		s.GetSessionOption("list").GetStringListValue().Values[0] = "changed"
		s.GetSessionOptions()["list"].GetStringListValue().Values[0] = "changed"
		if got := s.GetSessionOption("list").GetStringListValue().GetValues(); !slices.Equal(got, []string{"original"}) {
			t.Errorf("%T does not clone: %q", s, got)
		}
		if s.GetSessionOption("none") != nil {
			t.Errorf("%T has an option that was never set", s)
		}
		s.SetSessionOption("list", &flight.SessionOptionValue{})
		if len(s.GetSessionOptions()) != 0 {
			t.Errorf("%T: a value without content does not erase", s)
		}
		s.SetSessionOption("x", dropInValue("y"))
		s.EraseSessionOption("x")
		s.EraseSessionOption("x")
		if len(s.GetSessionOptions()) != 0 || s.Closed() {
			t.Errorf("%T: options %v, closed %v", s, s.GetSessionOptions(), s.Closed())
		}
		if err := s.Close(); err != nil || !s.Closed() {
			t.Errorf("%T: Close: %v, closed %v", s, err, s.Closed())
		}
		if err := s.Close(); err != nil {
			t.Errorf("%T: second Close: %v", s, err)
		}
	}
	hello := map[string]*flight.SessionOptionValue{"hello": dropInValue("world")}
	if got := session.NewStatelessServerSession(hello).Token(); got != "ChAKBWhlbGxvEgcKBXdvcmxk" {
		t.Errorf("the stateless token is %q", got)
	}
	if got := session.NewStatelessServerSession(nil).Token(); got != "" {
		t.Errorf("the token of an empty stateless session is %q", got)
	}
}
