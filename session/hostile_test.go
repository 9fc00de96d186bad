// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// A stateless cookie that is no token kills nothing: it counts as no cookie,
// and the client is given a good one.
func TestBadStatelessCookieCountsAsNone(t *testing.T) {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	e := serve(t, implementations[0].stateless(), nil)
	c := e.client()
	name := session.StatelessSessionCookieName
	for bad, value := range map[string]string{
		"not base64":                          "!!!",
		"base64 of the URL kind":              "_-_-",
		"base64 cut short":                    helloToken[:len(helloToken)-1],
		"not protobuf":                        encode("\xff\xff\xff\xff"),
		"protobuf cut short":                  encode(string(unbase64(helloToken)[:8])),
		"an option name that is no UTF-8":     encode("\n\x0b\n\x02\xff\xfe\x12\x05\n\x03abc"),
		"an option value that is no UTF-8":    encode("\n\x0b\n\x03abc\x12\x04\n\x02\xff\xfe"),
		"a list with a value that is no UTF8": encode("\n\x0d\n\x03abc\x12\x06*\x04\n\x02\xff\xfe"),
		"groups nested without end":           encode(strings.Repeat("\x0b", 100_000)),
		"a length that is a lie":              encode("\n\xff\xff\xff\xff\x0f"),
		"megabytes of no base64":              strings.Repeat("*", 2<<20),
		"a megabyte of no protobuf":           strings.Repeat("/", 1<<20),
	} {
		t.Run(bad, func(t *testing.T) {
			r := c.must(setOption("hello", "world"), name+"="+value)
			if !slices.Equal(r.header, []string{name + "="}) || !slices.Equal(r.trailer, []string{name + "=" + helloToken}) {
				t.Errorf("header %q, trailer %q", r.header, r.trailer)
			}
			if r := c.must(getOptions(nil), name+"="+helloToken); r.header != nil || r.trailer != nil {
				t.Errorf("the next honest call got the header %q, the trailer %q", r.header, r.trailer)
			}
			if saw, err := e.last(); saw != helloToken {
				t.Errorf("the next honest call saw %q, error %v", saw, err)
			}
		})
	}
}

// A token of more than a megabyte counts as none, unless the owner takes such ones.
func TestStatelessTokenOfAMegabyte(t *testing.T) {
	big := session.NewStatelessServerSession(map[string]*flight.SessionOptionValue{"big": text(strings.Repeat("x", 1<<20))})
	read := func(opts ...session.StatelessSessionManagerOption) (int, reply) {
		manager := session.NewStatelessServerSessionManager(opts...)
		e := serve(t, session.NewServerSessionMiddleware(manager, session.WithLogger(nil)), nil)
		var got map[string]*flight.SessionOptionValue
		r := e.client().must(getOptions(&got), session.StatelessSessionCookieName+"="+big.Token())
		return len(got["big"].GetStringValue()), r
	}
	if n, r := read(session.WithMaxCookie(2 << 20)); n != 1<<20 || r.header != nil || r.trailer != nil {
		t.Errorf("got %d bytes, header %q, trailer %d lines", n, r.header, len(r.trailer))
	}
	if n, r := read(); n != 0 || len(r.header) != 1 {
		t.Errorf("got %d bytes, header %q", n, r.header)
	}
}

// middlewares are both kinds of ours.
func middlewares(t testing.TB) map[string]flight.CustomServerMiddleware {
	return map[string]flight.CustomServerMiddleware{
		"stateful":  stateful(newStore(t)),
		"stateless": implementations[0].stateless(),
	}
}

// Whatever a handler does with its session after Close, the server lives.
func TestUseAfterCloseIsHarmless(t *testing.T) {
	for name, middleware := range middlewares(t) {
		t.Run(name, func(t *testing.T) {
			e := serve(t, middleware, &sqlServer{statements: map[string]statement{
				"close, then use": func(_ context.Context, s session.ServerSession) error {
					err := s.Close()
					s.SetSessionOption("a", text("b"))
					s.SetSessionOption("a", nil)
					s.EraseSessionOption("a")
					_, _, _ = s.GetSessionOption("a"), s.GetSessionOptions(), s.Token()
					return errors.Join(err, s.Close())
				},
			}})
			cookies := new(jar)
			c := cookies.client(e)
			for range 3 {
				c.must(setOption("hello", "world"))
				c.must(scan("close, then use"))
				if len(cookies.cookies) != 0 {
					t.Errorf("the closed session left the cookies %v", cookies.cookies)
				}
			}
		})
	}
}

// A session that an operator kills is closed under the calls that use it. They
// go on without harm, and the client's next call gets another session.
func TestUseAfterKillIsHarmless(t *testing.T) {
	store := newStore(t)
	e := serve(t, stateful(store), &sqlServer{statements: map[string]statement{
		"kill": func(_ context.Context, s session.ServerSession) error {
			if !store.Kill(store.Fingerprint(s.Token())) {
				return errors.New("there is no session to kill")
			}
			s.SetSessionOption("a", text("b"))
			_ = s.GetSessionOptions()
			return nil
		},
	}})
	cookies := new(jar)
	c := cookies.client(e)
	c.must(setOption("hello", "world"))
	c.must(info("kill"))
	var got map[string]*flight.SessionOptionValue
	c.must(getOptions(&got))
	if len(got) != 0 {
		t.Errorf("the next session has the options %v", got)
	}
}

// CloseSession races every other call of the same client. Nobody is hurt, and
// no session is left behind or closed twice.
func TestCloseSessionRacesOtherCalls(t *testing.T) {
	for name, foreign := range map[string]bool{"own sessions": false, "sessions of a user's type": true} {
		t.Run(name, func(t *testing.T) {
			store := session.NewSessionStore(layover.WithLogger(nil))
			var mu sync.Mutex
			var made []*userSession
			factory := session.NewSessionFactory(nil)
			if foreign {
				factory = fakeFactory(func() (session.ServerSession, error) {
					mu.Lock()
					defer mu.Unlock()
					made = append(made, &userSession{id: fmt.Sprint("user-", len(made))})
					return made[len(made)-1], nil
				})
			}
			e := serve(t, stateful(store, session.WithFactory(factory)), nil)
			race(t, e)
			st := store.Stats()
			if st.Created != uint64(st.Live)+st.Ended.Total() || st.Retired != 0 || st.Ended[layover.ReasonClosed] == 0 {
				t.Errorf("%+v", st)
			}
			if err := store.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			if st = store.Stats(); st.Closed != st.Created || st.CloseFailed != 0 {
				t.Errorf("after the shutdown: %+v", st)
			}
			for _, s := range made {
				// Its handlers may close it several times; the store must not
				// add to that, nor forget it.
				if s.closeCount() == 0 {
					t.Errorf("session %s was never closed", s.id)
				}
			}
		})
	}
	t.Run("stateless", func(t *testing.T) { race(t, serve(t, implementations[0].stateless(), nil)) })
}

// race has several goroutines with one cookie jar make calls, CloseSession
// among them.
func race(t *testing.T, e *endpoint) {
	t.Helper()
	cookies := new(jar)
	calls := []call{setOption("hello", "world"), getOptions(nil), info(""), scan(""), setOption("hello", nil), closeSession}
	var wg sync.WaitGroup
	for g := range 8 {
		c := cookies.client(e)
		wg.Go(func() {
			for i := range 30 {
				if r := c.do(calls[(g+i)%len(calls)]); r.err != nil {
					t.Errorf("a call failed: %v", r.err)
				}
			}
		})
	}
	wg.Wait()
}

// Two secrets that a back end's errors quote: neither may reach a client, and
// the ID may not reach the log either.
const (
	secretID = "secret-7f3a91"
	backEnd  = "dial tcp db.internal:5432: password hunter2 refused"
)

var errBackEnd = errors.New(backEnd + " for session " + secretID)

// userError is an error type of a user's, whose nil pointer cannot be printed.
type userError struct{ text string }

func (e *userError) Error() string { return e.text }

// fault is a way in which the code of users, or what it stands on, can fail.
type fault struct {
	name string
	// manager returns a manager that fails while broken, and works afterwards.
	manager func(t *testing.T, broken func() bool) session.ServerSessionManager
	cookie  bool         // the client sends the cookie secretID
	calls   []call       // default: info
	codes   []codes.Code // one of these; OK: the call goes on with a new session
	is      error        // what the handler's error matches
	cause   string       // a part of the log line
}

// plain returns a manager over a store whose parts fail.
func plain(fail fakeStore) func(*testing.T, func() bool) session.ServerSessionManager {
	return func(_ *testing.T, broken func() bool) session.ServerSessionManager {
		works := apache.NewSessionStore()
		return session.NewStatefulServerSessionManager(session.WithFactory(session.NewSessionFactory(secretOnce(broken))),
			session.WithStore(&fakeStore{
				get: func(id string) (session.ServerSession, error) {
					if broken() && fail.get != nil {
						return fail.get(id)
					}
					return works.Get(id)
				},
				put: func(s session.ServerSession) error {
					if broken() && fail.put != nil {
						return fail.put(s)
					}
					return works.Put(s)
				},
				remove: func(id string) error {
					if broken() && fail.remove != nil {
						return fail.remove(id)
					}
					return works.Remove(id)
				},
			}))
	}
}

// leasing returns a manager over a LeaseStore whose parts fail.
func leasing(fail fakeLeaseStore) func(*testing.T, func() bool) session.ServerSessionManager {
	return func(t *testing.T, broken func() bool) session.ServerSessionManager {
		works := newStore(t)
		return session.NewStatefulServerSessionManager(session.WithFactory(session.NewSessionFactory(secretOnce(broken))),
			session.WithStore(&fakeLeaseStore{
				add: func(s session.ServerSession) (session.SessionLease, error) {
					if broken() && fail.add != nil {
						return fail.add(s)
					}
					return works.Add(t.Context(), s, layover.Origin{})
				},
				acquire: func(id string) (session.SessionLease, error) {
					if broken() && fail.acquire != nil {
						return fail.acquire(id)
					}
					return works.Acquire(t.Context(), id)
				},
			}))
	}
}

// making returns a manager whose factory fails.
func making(fail fakeFactory) func(*testing.T, func() bool) session.ServerSessionManager {
	return func(t *testing.T, broken func() bool) session.ServerSessionManager {
		works := session.NewSessionFactory(nil)
		return session.NewStatefulServerSessionManager(session.WithStore(newStore(t)),
			session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
				if broken() {
					return fail()
				}
				return works.CreateSession()
			})))
	}
}

// managing returns a manager whose parts fail.
func managing(fail fakeManager) func(*testing.T, func() bool) session.ServerSessionManager {
	return func(_ *testing.T, broken func() bool) session.ServerSessionManager {
		works := new(fakeManager)
		return &fakeManager{
			get: func(ctx context.Context) (session.ServerSession, error) {
				if broken() && fail.get != nil {
					return fail.get(ctx)
				}
				return works.GetSession(ctx)
			},
			create: func(ctx context.Context) (session.ServerSession, error) {
				if broken() && fail.create != nil {
					return fail.create(ctx)
				}
				return works.CreateSession(ctx)
			},
			close: func(s session.ServerSession) error {
				if broken() && fail.close != nil {
					return fail.close(s)
				}
				return works.CloseSession(s)
			},
		}
	}
}

// secretOnce generates secretID while broken, so that a new session's ID is a
// secret too, and unique IDs afterwards.
func secretOnce(broken func() bool) func() string {
	var n atomic.Int64
	return func() string {
		if broken() {
			return secretID
		}
		return fmt.Sprint("id-", n.Add(1))
	}
}

var (
	isInternal    = []codes.Code{codes.Internal}
	isUnavailable = []codes.Code{codes.Unavailable}
	isFull        = []codes.Code{codes.ResourceExhausted}
	isOK          = []codes.Code{codes.OK}
	// A store that panics has failed. Whether that is told from another panic is
	// not promised.
	isEither = []codes.Code{codes.Internal, codes.Unavailable}
)

func wrapped(err error) error { return fmt.Errorf("%s for session %s: %w", backEnd, secretID, err) }

var faults = []fault{
	// A plain store.
	{name: "store: Get fails", cookie: true, codes: isUnavailable, cause: backEnd,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) { return nil, errBackEnd }})},
	{name: "store: Get panics", cookie: true, codes: isEither, cause: backEnd,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) { panic(errBackEnd) }})},
	{name: "store: Get returns nothing", cookie: true, codes: isOK,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) { return nil, nil }})},
	{name: "store: Get returns a typed nil", cookie: true, codes: isEither,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) { return (*userSession)(nil), nil }})},
	{name: "store: Get returns a wrapped ErrNoSession", cookie: true, codes: isOK,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) { return nil, wrapped(session.ErrNoSession) }})},
	{name: "store: Get returns the status NotFound", cookie: true, codes: isOK,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) { return nil, status.Error(codes.NotFound, backEnd) }})},
	{name: "store: Get returns an error that is a typed nil", cookie: true, codes: isEither,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) { return nil, (*userError)(nil) }})},
	{name: "store: Put returns an error that is a typed nil", codes: isEither,
		manager: plain(fakeStore{put: func(session.ServerSession) error { return (*userError)(nil) }})},
	{name: "store: Get returns another status", cookie: true, codes: isUnavailable, cause: backEnd,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) {
			return nil, status.Error(codes.PermissionDenied, errBackEnd.Error())
		}})},
	{name: "store: Get runs into a timeout of its own", cookie: true, codes: isUnavailable, cause: backEnd,
		manager: plain(fakeStore{get: func(string) (session.ServerSession, error) { return nil, wrapped(context.DeadlineExceeded) }})},
	{name: "store: Put fails", codes: isUnavailable, cause: backEnd,
		manager: plain(fakeStore{put: func(session.ServerSession) error { return errBackEnd }})},
	{name: "store: Put panics", codes: isEither, cause: backEnd,
		manager: plain(fakeStore{put: func(session.ServerSession) error { panic(errBackEnd) }})},
	{name: "store: Get fails and so does Put, for another session", cookie: true, codes: isUnavailable, cause: backEnd,
		manager: plain(fakeStore{
			get: func(string) (session.ServerSession, error) { return nil, errBackEnd },
			put: func(session.ServerSession) error { return errBackEnd },
		})},
	{name: "store: Remove fails", codes: isOK, calls: []call{closeSession}, cause: backEnd,
		manager: plain(fakeStore{remove: func(string) error { return errBackEnd }})},
	{name: "store: Remove panics", codes: isOK, calls: []call{closeSession}, cause: backEnd,
		manager: plain(fakeStore{remove: func(string) error { panic(errBackEnd) }})},

	// A store with leases.
	{name: "lease store: Acquire fails", cookie: true, codes: isUnavailable, cause: backEnd,
		manager: leasing(fakeLeaseStore{acquire: func(string) (session.SessionLease, error) { return nil, errBackEnd }})},
	{name: "lease store: Acquire panics", cookie: true, codes: isEither, cause: backEnd,
		manager: leasing(fakeLeaseStore{acquire: func(string) (session.SessionLease, error) { panic(errBackEnd) }})},
	{name: "lease store: Acquire returns nothing", cookie: true, codes: isOK,
		manager: leasing(fakeLeaseStore{acquire: func(string) (session.SessionLease, error) { return nil, nil }})},
	{name: "lease store: Acquire returns a typed nil", cookie: true, codes: isEither,
		manager: leasing(fakeLeaseStore{acquire: func(string) (session.SessionLease, error) { return (*fakeLease)(nil), nil }})},
	{name: "lease store: Acquire returns a lease on nothing", cookie: true, codes: isOK,
		manager: leasing(fakeLeaseStore{acquire: func(string) (session.SessionLease, error) { return new(fakeLease), nil }})},
	{name: "lease store: Acquire says that it is shut down", cookie: true, codes: isUnavailable, is: layover.ErrShutdown, cause: backEnd,
		manager: leasing(fakeLeaseStore{acquire: func(string) (session.SessionLease, error) { return nil, wrapped(layover.ErrShutdown) }})},
	{name: "lease store: Add fails", codes: isUnavailable, cause: backEnd,
		manager: leasing(fakeLeaseStore{add: func(session.ServerSession) (session.SessionLease, error) { return nil, errBackEnd }})},
	{name: "lease store: Add panics", codes: isEither, cause: backEnd,
		manager: leasing(fakeLeaseStore{add: func(session.ServerSession) (session.SessionLease, error) { panic(errBackEnd) }})},
	{name: "lease store: Add returns nothing", codes: isUnavailable, cause: "no lease",
		manager: leasing(fakeLeaseStore{add: func(session.ServerSession) (session.SessionLease, error) { return nil, nil }})},
	{name: "lease store: Add says that it is full", codes: isFull, is: layover.ErrFull, cause: backEnd,
		manager: leasing(fakeLeaseStore{add: func(session.ServerSession) (session.SessionLease, error) {
			return nil, wrapped(layover.ErrFull)
		}})},
	{name: "lease store: Add says that it is draining", codes: isUnavailable, is: layover.ErrDraining, cause: backEnd,
		manager: leasing(fakeLeaseStore{add: func(session.ServerSession) (session.SessionLease, error) {
			return nil, wrapped(layover.ErrDraining)
		}})},
	{name: "lease store: every ID is taken", codes: isInternal, cause: "taken",
		manager: leasing(fakeLeaseStore{add: func(session.ServerSession) (session.SessionLease, error) {
			return nil, wrapped(layover.ErrExists)
		}})},

	// A factory.
	{name: "factory: returns an error that is a typed nil", codes: isInternal,
		manager: making(func() (session.ServerSession, error) { return nil, (*userError)(nil) })},
	{name: "factory: fails", codes: isInternal, cause: backEnd,
		manager: making(func() (session.ServerSession, error) { return nil, errors.New(backEnd) })},
	{name: "factory: panics", codes: isInternal, cause: backEnd,
		manager: making(func() (session.ServerSession, error) { panic(backEnd) })},
	{name: "factory: returns nothing", codes: isInternal,
		manager: making(func() (session.ServerSession, error) { return nil, nil })},
	{name: "factory: returns a typed nil", codes: isInternal,
		manager: making(func() (session.ServerSession, error) { return (*userSession)(nil), nil })},
	{name: "factory: returns a closed session", codes: isEither,
		manager: making(func() (session.ServerSession, error) { return &userSession{id: secretID, closes: 1}, nil })},

	// A manager.
	{name: "manager: GetSession fails", cookie: true, codes: isInternal, cause: backEnd,
		manager: managing(fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, errBackEnd }})},
	{name: "manager: GetSession panics", cookie: true, codes: isInternal, cause: backEnd,
		manager: managing(fakeManager{get: func(context.Context) (session.ServerSession, error) { panic(errBackEnd) }})},
	{name: "manager: GetSession returns nothing", cookie: true, codes: isInternal, cause: "nil",
		manager: managing(fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, nil }})},
	{name: "manager: GetSession returns a typed nil", cookie: true, codes: isInternal,
		manager: managing(fakeManager{get: func(context.Context) (session.ServerSession, error) { return (*userSession)(nil), nil }})},
	{name: "manager: GetSession returns an error that is a typed nil", cookie: true, codes: isInternal,
		manager: managing(fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, (*userError)(nil) }})},
	{name: "manager: CreateSession returns an error that is a typed nil", codes: isInternal,
		manager: managing(fakeManager{create: func(context.Context) (session.ServerSession, error) { return nil, (*userError)(nil) }})},
	{name: "manager: CloseSession returns an error that is a typed nil", codes: isOK, calls: []call{closeSession},
		manager: managing(fakeManager{close: func(session.ServerSession) error { return (*userError)(nil) }})},
	{name: "manager: GetSession wraps ErrNoSession", cookie: true, codes: isOK,
		manager: managing(fakeManager{get: func(context.Context) (session.ServerSession, error) {
			return nil, wrapped(session.ErrNoSession)
		}})},
	{name: "manager: CreateSession fails", codes: isInternal, cause: backEnd,
		manager: managing(fakeManager{create: func(context.Context) (session.ServerSession, error) { return nil, errors.New(backEnd) }})},
	{name: "manager: CreateSession panics", codes: isInternal, cause: backEnd,
		manager: managing(fakeManager{create: func(context.Context) (session.ServerSession, error) { panic(backEnd) }})},
	{name: "manager: CreateSession returns nothing", codes: isInternal, cause: "nil",
		manager: managing(fakeManager{create: func(context.Context) (session.ServerSession, error) { return nil, nil }})},
	{name: "manager: CreateSession returns a typed nil", codes: isInternal,
		manager: managing(fakeManager{create: func(context.Context) (session.ServerSession, error) { return (*userSession)(nil), nil }})},
	{name: "manager: CreateSession returns a session whose ID is no cookie", codes: isInternal, cause: "cookie",
		manager: managing(fakeManager{create: func(context.Context) (session.ServerSession, error) {
			return &userSession{id: secretID + ";"}, nil
		}})},
	{name: "manager: CreateSession is out of room", codes: isFull, is: layover.ErrFull, cause: backEnd,
		manager: managing(fakeManager{create: func(context.Context) (session.ServerSession, error) {
			return nil, fmt.Errorf("%s: %w", backEnd, layover.ErrFull)
		}})},
	{name: "manager: CloseSession fails", codes: isOK, calls: []call{closeSession}, cause: backEnd,
		manager: managing(fakeManager{close: func(session.ServerSession) error { return errors.New(backEnd) }})},
	{name: "manager: CloseSession panics", codes: isOK, calls: []call{closeSession}, cause: backEnd,
		manager: managing(fakeManager{close: func(session.ServerSession) error { panic(backEnd) }})},
	{name: "manager: CloseSession panics and quotes the session's ID", codes: isOK, calls: []call{closeSession}, cause: backEnd,
		manager: managing(fakeManager{
			create: func(context.Context) (session.ServerSession, error) { return &userSession{id: secretID}, nil },
			close:  func(s session.ServerSession) error { panic(backEnd + " for session " + s.Token()) },
		})},
}

// Whatever the code of users does, the server lives. The handler learns why
// there is no session and the client gets the right status, with neither IDs
// nor the words of a back end. The log has the cause, and not the ID. The next
// honest call is answered.
func TestFaultsAreContained(t *testing.T) {
	for _, f := range faults {
		calls := f.calls
		if calls == nil {
			calls = []call{info(""), scan(""), getOptions(nil)}
		}
		for i, do := range calls {
			t.Run(fmt.Sprint(f.name, ", call ", i+1), func(t *testing.T) { contained(t, f, do) })
		}
	}
}

func contained(t *testing.T, f fault, do call) {
	var log logBuffer
	var broken atomic.Bool
	broken.Store(true)
	middleware := session.NewServerSessionMiddleware(f.manager(t, broken.Load), session.WithLogger(log.logger()))
	e := serve(t, middleware, nil)
	c := e.client()
	var sent []string
	if f.cookie {
		sent = []string{session.StatefulSessionCookieName + "=" + secretID}
	}

	r := c.do(do, sent...)
	if code := status.Code(r.err); !slices.Contains(f.codes, code) {
		t.Errorf("the client got %v, want one of %v", r.err, f.codes)
	}
	if r.err != nil {
		checkRefusal(t, e, f, r)
	}
	if got := log.String(); !strings.Contains(got, f.cause) {
		t.Errorf("the log does not have the cause %q: %s", f.cause, got)
	} else if strings.Contains(got, secretID) {
		t.Errorf("the log has the ID: %s", got)
	} else if r.err != nil && got == "" {
		t.Error("the log is empty")
	}

	broken.Store(false)
	c.must(do)
	c.must(info(""))
	if _, err := e.last(); err != nil {
		t.Errorf("the next honest call got no session: %v", err)
	}
}

func checkRefusal(t *testing.T, e *endpoint, f fault, r reply) {
	t.Helper()
	for _, secret := range []string{secretID, backEnd, "hunter2", "goroutine"} {
		if strings.Contains(r.err.Error(), secret) {
			t.Errorf("the client is told %q: %v", secret, r.err)
		}
	}
	if len(r.header)+len(r.trailer) > 0 {
		t.Errorf("a failed session was replaced: header %q, trailer %q", r.header, r.trailer)
	}
	_, err := e.last()
	if f.is != nil && !errors.Is(err, f.is) {
		t.Errorf("the handler's error %v does not match %v", err, f.is)
	}
	if errors.Is(err, session.ErrNoSession) {
		t.Errorf("the handler's error %v looks like a call without a session", err)
	}
}

// A store that is full, draining or shut down says so to the client.
func TestClientIsToldWhyThereIsNoSession(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(*session.ExpiringSessionStore) error
		code codes.Code
		is   error
	}{
		{"full", func(*session.ExpiringSessionStore) error { return nil }, codes.ResourceExhausted, layover.ErrFull},
		{"draining", func(s *session.ExpiringSessionStore) error { s.Drain(); return nil }, codes.Unavailable, layover.ErrDraining},
		{"shut down", func(s *session.ExpiringSessionStore) error { return s.Shutdown(context.Background()) }, codes.Unavailable, layover.ErrShutdown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newStore(t, layover.WithMaxSessions(1), layover.WithWhenFull(layover.KeepConfirmed))
			e := serve(t, stateful(store), nil)
			c := e.client()
			cookie := c.must(info("")).cookie(t)
			c.must(info(""), cookie) // confirmed: it may not leave
			if err := tt.end(store); err != nil {
				t.Fatal(err)
			}
			r := c.do(info(""))
			if _, err := e.last(); status.Code(r.err) != tt.code || !errors.Is(err, tt.is) {
				t.Errorf("the client got %v, the handler %v", r.err, err)
			}
			r = c.do(info(""), cookie)
			if down := tt.is == layover.ErrShutdown; (r.err != nil) != down || down && status.Code(r.err) != tt.code { //nolint:errorlint // a table
				t.Errorf("the client that has a session got %v", r.err)
			}
		})
	}
}

// IDs that are empty or that cannot travel in a cookie make no session.
func TestIDsThatCannotTravelMakeNoSession(t *testing.T) {
	for _, id := range []string{"", "a;b-secret", "secret; Max-Age=0", "secret ", "sec\tret", "sec\r\nret", "\x00secret", "secr\u00e9t",
		`"secret"`, `sec\ret`} {
		t.Run(fmt.Sprintf("%q", id), func(t *testing.T) {
			var log logBuffer
			store := newStore(t)
			ids := []string{id, "good"}
			factory := session.NewSessionFactory(func() string {
				next := ids[0]
				ids = ids[1:]
				return next
			})
			middleware := session.NewServerSessionMiddleware(session.NewStatefulServerSessionManager(
				session.WithStore(store), session.WithFactory(factory)), session.WithLogger(log.logger()))
			c := serve(t, middleware, nil).client()
			r := c.do(info(""))
			if status.Code(r.err) != codes.Internal || r.header != nil || r.trailer != nil {
				t.Errorf("got %v, header %q, trailer %q", r.err, r.header, r.trailer)
			}
			if strings.Contains(log.String(), "ret") && id != "" {
				t.Errorf("the log has the ID: %s", log.String())
			}
			if st := store.Stats(); st.Created != 0 {
				t.Errorf("%+v", st)
			}
			if got := c.must(info("")).cookie(t); got != session.StatefulSessionCookieName+"=good" {
				t.Errorf("the next call got %q", got)
			}
		})
	}
}

// An ID that is taken is never given to a second client: it would see the
// session of the first.
func TestTakenIDIsNotGivenAway(t *testing.T) {
	for name, store := range map[string]session.SessionStore{"our store": newStore(t), "Apache's store": apache.NewSessionStore()} {
		t.Run(name, func(t *testing.T) {
			e := serve(t, stateful(store, session.WithFactory(session.NewSessionFactory(func() string { return "same" }))), nil)
			c := e.client()
			cookie := c.must(setOption("schema", "mine")).cookie(t)
			r := c.do(setOption("schema", "theirs"))
			if status.Code(r.err) != codes.Internal || r.header != nil || r.trailer != nil {
				t.Errorf("the second client got %v, header %q, trailer %q", r.err, r.header, r.trailer)
			}
			var got map[string]*flight.SessionOptionValue
			c.must(getOptions(&got), cookie)
			if v := got["schema"].GetStringValue(); v != "mine" {
				t.Errorf("the first client's option is %q", v)
			}
		})
	}
}

// A generator that collides now and then is asked again.
func TestCollidingIDIsAskedForAgain(t *testing.T) {
	ids := []string{"a", "a", "a", "b"}
	e := serve(t, stateful(newStore(t), session.WithFactory(session.NewSessionFactory(func() string {
		next := ids[0]
		ids = ids[1:]
		return next
	}))), nil)
	c := e.client()
	first, second := c.must(info("")).cookie(t), c.must(info("")).cookie(t)
	if first == second || !strings.HasSuffix(second, "=b") {
		t.Errorf("got %q and %q", first, second)
	}
}

// An option that cannot be encoded fails the call that asks for it, at most.
func TestOptionsThatCannotBeEncoded(t *testing.T) {
	for name, middleware := range middlewares(t) {
		t.Run(name, func(t *testing.T) {
			e := serve(t, middleware, &sqlServer{statements: map[string]statement{
				"poison": func(_ context.Context, s session.ServerSession) error {
					s.SetSessionOption("name \xff", text("value"))
					s.SetSessionOption("name", text("value \xff"))
					return nil
				},
				"antidote": func(_ context.Context, s session.ServerSession) error {
					s.EraseSessionOption("name \xff")
					s.EraseSessionOption("name")
					return nil
				},
			}})
			cookies := new(jar)
			c := cookies.client(e)
			c.must(info(""))
			c.must(info("poison"))
			c.must(scan("poison"))
			c.do(getOptions(nil)) // may fail
			c.must(info("antidote"))
			c.must(setOption("hello", "world"))
			var got map[string]*flight.SessionOptionValue
			c.must(getOptions(&got))
			if got["hello"].GetStringValue() != "world" {
				t.Errorf("got %v", got)
			}
		})
	}
}

// Outside a server, without metadata, without a stream, without anything: the
// middleware does its work as far as that goes.
func TestContextsOfNoCall(t *testing.T) {
	for name, middleware := range middlewares(t) {
		t.Run(name, func(t *testing.T) {
			ctx := middleware.StartCall(context.Background())
			s, err := session.GetSessionFromContext(ctx)
			if err != nil {
				t.Fatal(err)
			}
			s.SetSessionOption("a", text("b"))
			middleware.CallCompleted(ctx, nil)
			middleware.CallCompleted(ctx, errors.New("twice"))
			middleware.CallCompleted(context.Background(), nil) // of no call of ours
		})
	}
}

// A burst of failures is one log line a second, which says for how many calls
// it stands.
func TestLogIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		middleware := session.NewServerSessionMiddleware(
			&fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, errors.New(backEnd) }},
			session.WithLogger(log.logger()))
		burst := func() {
			for range 100 {
				middleware.CallCompleted(middleware.StartCall(t.Context()), nil)
			}
		}
		burst()
		if n := strings.Count(log.String(), backEnd); n != 1 || !strings.Contains(log.String(), "calls=1 ") {
			t.Errorf("%d lines: %s", n, log.String())
		}
		wait(time.Second)
		burst()
		if n := strings.Count(log.String(), backEnd); n != 2 || !strings.Contains(log.String(), "calls=100 ") {
			t.Errorf("%d lines: %s", n, log.String())
		}
	})
}
