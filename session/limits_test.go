// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// What a client can make the server hold is limited: how many options, their
// names, their values, and all together. What was there before stays.
func TestOptionsAreLimited(t *testing.T) {
	store := newStore(t)
	many := func(n, size int) map[string]any {
		all := make(map[string]any)
		for i := range n {
			all[fmt.Sprintf("n%05d", i)] = strings.Repeat("v", size)
		}
		return all
	}
	for name, beyond := range map[string]struct {
		options map[string]any
		code    codes.Code
	}{
		"a long name":        {map[string]any{strings.Repeat("n", 257): "v"}, codes.InvalidArgument},
		"a large value":      {map[string]any{"n": strings.Repeat("v", 64<<10)}, codes.InvalidArgument},
		"a large list":       {map[string]any{"n": strings.Split(strings.Repeat("v,", 32<<10), ",")}, codes.InvalidArgument},
		"many options":       {many(257, 1), codes.ResourceExhausted},
		"a hundred thousand": {many(100_000, 1), codes.ResourceExhausted},
		"much in all":        {many(5, 60<<10), codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, edge(store), nil).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			if r := c.do(setOptions(beyond.options), cookie); status.Code(r.err) != beyond.code || reasonOf(t, r.err) != "SESSION_OPTION_LIMIT" {
				t.Errorf("%v", r.err)
			}
			var got map[string]*flight.SessionOptionValue
			c.must(getOptions(&got), cookie)
			if got["schema"].GetStringValue() != "prod" || len(got) > 256 {
				t.Errorf("%d options, schema %q", len(got), got["schema"].GetStringValue())
			}
			c.must(closeSession, cookie)
		})
	}
	t.Run("within the limits", func(t *testing.T) {
		c := serveEdge(t, edge(store), nil).client()
		cookie := c.must(setOptions(map[string]any{strings.Repeat("n", 256): strings.Repeat("v", 65000), "m": "x"})).cookie(t)
		c.must(setOptions(many(254, 550)), cookie)
		c.must(setOption("n00000", "another value for one that is there"), cookie)
		if r := c.do(setOption("one more", "v"), cookie); status.Code(r.err) != codes.ResourceExhausted {
			t.Errorf("%v", r.err)
		}
		c.must(setOption("n00001", nil), cookie)
		c.must(setOption("one more", "v"), cookie)
	})
}

// Handlers learn that an option is beyond the limits, and can go on.
func TestSetOptionSaysWhatIsBeyondTheLimits(t *testing.T) {
	manager := session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithOptionLimits(session.OptionLimits{Value: 10}))
	var got error
	e := serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"set": func(ctx context.Context, _ session.ServerSession) error {
			got = session.SetOption(ctx, "n", text(strings.Repeat("v", 11)))
			return session.SetOption(ctx, "n", text("v"))
		}}})
	e.client().must(info("set"))
	if !errors.Is(got, session.ErrOptionLimit) || status.Code(got) != codes.InvalidArgument {
		t.Errorf("%v", got)
	}
}

// A first option that is refused leaves nothing behind: no session of which the
// client would later be told that it has lost it, and no cookie.
func TestARefusedFirstOptionMakesNoSession(t *testing.T) {
	store := newStore(t)
	c := serveEdge(t, edge(store), nil).client()
	for name, value := range map[string]any{strings.Repeat("n", 257): "v", "n": strings.Repeat("v", 65<<10), "list": make([]string, 20<<10)} {
		r := c.do(setOption(name, value))
		if reasonOf(t, r.err) != "SESSION_OPTION_LIMIT" {
			t.Errorf("%.10s: %v", name, r.err)
		}
		if store.Len() != 0 || r.header != nil || r.trailer != nil {
			t.Errorf("%.10s: %d sessions, header %q, trailer %q", name, store.Len(), r.header, r.trailer)
		}
	}
}

// The limits are those of the manager also for sessions that come from elsewhere:
// copies that a store makes, and those that were put into it.
func TestLimitsAreTheManagersWhoeverMadeTheSession(t *testing.T) {
	var put sync.Map
	copies := &fakeStore{
		put: func(s session.ServerSession) error { put.Store(s.Token(), true); return nil },
		get: func(id string) (session.ServerSession, error) {
			if _, ok := put.Load(id); !ok {
				return nil, session.ErrNoSession
			}
			return session.NewSessionFactory(func() string { return id }).CreateSession()
		},
	}
	for name, store := range map[string]session.SessionStore{"copied": copies, "put": newStore(t)} {
		m := session.NewStatefulServerSessionManager(session.WithStore(store), session.WithOptionLimits(session.OptionLimits{Value: 10}))
		c := serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil)), nil).client()
		s, _ := session.NewSessionFactory(nil).CreateSession()
		if err := store.Put(s); err != nil {
			t.Fatal(err)
		}
		cookie := session.StatefulSessionCookieName + "=" + s.Token()
		if r := c.do(setOption("n", strings.Repeat("v", 11)), cookie); reasonOf(t, r.err) != "SESSION_OPTION_LIMIT" {
			t.Errorf("%s: a value of 11 bytes was set, of at most 10: %v", name, r.err)
		}
	}
}

// Under Apache's shape, which cannot refuse a call, options beyond the limits are
// not kept either.
func TestOptionsAreLimitedInApachesShape(t *testing.T) {
	store := newStore(t)
	c := serve(t, stateful(store), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	for i := range 20 {
		c.must(setOption(fmt.Sprint(i), strings.Repeat("v", 60<<10)), cookie)
	}
	var got map[string]*flight.SessionOptionValue
	if c.must(getOptions(&got), cookie); len(got) != 5 || store.Stats().Bytes > 256<<10 {
		t.Errorf("%d options, %d bytes", len(got), store.Stats().Bytes)
	}
}

// What the options take counts in the store, while they are there: who holds most
// makes room, and when nobody can, the option is refused.
func TestOptionsCountAsBytesOfTheStore(t *testing.T) {
	store := newStore(t, layover.WithMaxBytes(100<<10))
	c := serveEdge(t, edge(store), nil).client()
	cookie := c.must(setOption("n", strings.Repeat("v", 60000))).cookie(t)
	if b := store.Stats().Bytes; b < 60000 || b > 60200 {
		t.Errorf("%d bytes", b)
	}
	c.must(setOption("n", strings.Repeat("v", 100)), cookie)
	if b := store.Stats().Bytes; b < 100 || b > 300 {
		t.Errorf("after a smaller value: %d bytes", b)
	}
	c.must(setOption("n", nil), cookie)
	if b := store.Stats().Bytes; b != 0 {
		t.Errorf("after the option was unset: %d bytes", b)
	}
	c.must(setOptions(map[string]any{"a": strings.Repeat("v", 60000)}), cookie)
	if r := c.do(setOptions(map[string]any{"b": strings.Repeat("v", 60000)}), cookie); reasonOf(t, r.err) != "SESSION_STORE_FULL" {
		t.Errorf("beyond the store's bytes: %v", r.err)
	}
	c.must(setOption("n", strings.Repeat("v", 60000))) // another client: the first one makes room
	if st := store.Stats(); st.Live != 1 || st.Ended[layover.ReasonCapacity] != 1 || st.Bytes > 61000 {
		t.Errorf("%+v", st)
	}
	if err := store.Check(); err != nil {
		t.Error(err)
	}
}

// A session that has ended while a call uses it takes what it takes until that call
// has ended: it can grow no further than the store has room, and can shrink. Also
// under a manager that keeps the leases itself.
func TestEndedSessionsInUseCount(t *testing.T) {
	for name, wrap := range map[string]func(session.ServerSessionManager) session.ServerSessionManager{
		"manager":         func(m session.ServerSessionManager) session.ServerSessionManager { return m },
		"wrapped manager": func(m session.ServerSessionManager) session.ServerSessionManager { return &wrappedManager{m} },
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t, layover.WithMaxBytes(100<<10))
			m := wrap(session.NewStatefulServerSessionManager(session.WithStore(store)))
			want := func(bytes int64) {
				t.Helper()
				if got := store.Stats().Bytes; got < bytes || got > bytes+1000 {
					t.Errorf("%d bytes, want %d", got, bytes)
				}
			}
			var c *client
			var cookie string
			c = serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithLazySessions()), &sqlServer{statements: map[string]statement{
				"grow": func(_ context.Context, s session.ServerSession) error {
					c.must(closeSession, cookie)
					for i := range 3 {
						s.SetSessionOption(fmt.Sprint("big", i), text(strings.Repeat("v", 45<<10)))
					}
					want(90 << 10)
					s.EraseSessionOption("big0")
					want(45 << 10)
					s.SetSessionOption("big2", text(strings.Repeat("v", 45<<10)))
					want(90 << 10)
					if n := len(s.GetSessionOptions()); n != 3 {
						t.Errorf("%d options", n)
					}
					return nil
				}}}).client()
			cookie = c.must(setOption("schema", "prod")).cookie(t)
			if r := c.do(info("grow"), cookie); reasonOf(t, r.err) != "SESSION_STORE_FULL" {
				t.Errorf("an option was not set: %v", r.err)
			}
			if want(0); store.Check() != nil {
				t.Error(store.Check())
			}
		})
	}
}

// The store knows to the byte what a session takes, also while many set and unset
// its options and somebody ends it.
func TestTheStoreKnowsWhatAnEndingSessionTakes(t *testing.T) {
	store := newStore(t)
	var c *client
	var cookie string
	c = serveEdge(t, edge(store), &sqlServer{statements: map[string]statement{
		"churn": func(_ context.Context, s session.ServerSession) error {
			var all sync.WaitGroup
			for i := range 4 {
				all.Go(func() {
					for n := range 200 {
						name := fmt.Sprint("n", (n+i)%7)
						if n%3 == 0 {
							s.EraseSessionOption(name)
						} else {
							s.SetSessionOption(name, text(strings.Repeat("v", n)))
						}
					}
				})
			}
			c.must(closeSession, cookie)
			all.Wait()
			sum := int64(0)
			for name, v := range s.GetSessionOptions() {
				sum += int64(len(name) + proto.Size(v) + 128)
			}
			if got := store.Stats().Bytes; got != sum || sum == 0 {
				t.Errorf("%d bytes, want %d", got, sum)
			}
			return nil
		}}}).client()
	cookie = c.must(setOption("schema", "prod")).cookie(t)
	if c.must(info("churn"), cookie); store.Stats().Bytes != 0 || store.Check() != nil {
		t.Errorf("%d bytes, %v", store.Stats().Bytes, store.Check())
	}
}

// Who has no lease on a session that has ended can only make it smaller, since
// nobody would count what it takes.
func TestEndedSessionsDoNotGrowUncounted(t *testing.T) {
	store := newStore(t)
	s, _ := session.NewSessionFactory(nil).CreateSession()
	l, err := store.Add(t.Context(), s, layover.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	s.SetSessionOption("n", text("value"))
	if err := store.Remove(s.Token()); err != nil {
		t.Fatal(err)
	}
	s.SetSessionOption("more", text("v"))
	s.SetSessionOption("n", text("a longer value"))
	if all := s.GetSessionOptions(); len(all) != 1 || all["n"].GetStringValue() != "value" {
		t.Errorf("it grew: %v", all)
	}
	s.SetSessionOption("n", text("less"))
	if got := s.GetSessionOption("n").GetStringValue(); got != "less" {
		t.Errorf("a smaller value was not set: %q", got)
	}
	if s.EraseSessionOption("n"); len(s.GetSessionOptions()) != 0 {
		t.Error("it cannot be erased")
	}
}

// wrappedManager is a manager of the server's own, which hides ours.
type wrappedManager struct{ session.ServerSessionManager }

// SetOption holds to the limits and says so, whatever the type of the session and
// the shape of the middleware: also where handlers find the bare session.
func TestSetOptionIsLimitedEverywhere(t *testing.T) {
	limits := session.OptionLimits{Options: 2, Value: 20}
	own := func() *session.StatefulServerSessionManager {
		return session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithOptionLimits(limits))
	}
	foreign := func() *session.StatefulServerSessionManager {
		return foreignManager(t, &userSession{id: "user-12345"}, limits)
	}
	quiet := session.WithLogger(nil)
	apaches := func(m session.ServerSessionManager) flight.ServerMiddleware {
		return flight.CreateServerMiddleware(session.NewServerSessionMiddleware(m, quiet))
	}
	for name, middleware := range map[string]flight.ServerMiddleware{
		"own":                   session.NewServerMiddleware(own(), quiet),
		"own, wrapped":          session.NewServerMiddleware(&wrappedManager{own()}, quiet),
		"own, Apache's":         apaches(own()),
		"foreign":               session.NewServerMiddleware(foreign(), quiet),
		"foreign, lazy":         session.NewServerMiddleware(foreign(), quiet, session.WithLazySessions()),
		"foreign, Apache's":     apaches(foreign()),
		"own, Apache's wrapped": apaches(&wrappedManager{own()}),
	} {
		var errs []error
		c := serveEdge(t, middleware, &sqlServer{statements: map[string]statement{
			"set": func(ctx context.Context, s session.ServerSession) error {
				for _, set := range []struct {
					name  string
					value *flight.SessionOptionValue
				}{{"a", text(strings.Repeat("v", 21))}, {"b", text("v")}, {"c", text("v")}, {"d", text("v")}, {"b", nil}, {"d", text("v")}} {
					errs = append(errs, session.SetOption(ctx, set.name, set.value))
				}
				if all := s.GetSessionOptions(); len(all) != 2 || all["c"] == nil || all["d"] == nil {
					t.Errorf("%s: %v", name, all)
				}
				return nil
			}}}).client()
		c.must(info("set"))
		for i, want := range []codes.Code{codes.InvalidArgument, 0, 0, codes.ResourceExhausted, 0, 0} {
			if status.Code(errs[i]) != want || want != 0 && !errors.Is(errs[i], session.ErrOptionLimit) {
				t.Errorf("%s: set %d: %v", name, i, errs[i])
			}
		}
	}
}

// SetOption says that the store has no room also under Apache's shape, where
// SetSessionOption must be silent.
func TestSetOptionSaysThatTheStoreIsFullInApachesShape(t *testing.T) {
	var got error
	c := serve(t, stateful(newStore(t, layover.WithMaxBytes(500))), &sqlServer{statements: map[string]statement{
		"set": func(ctx context.Context, _ session.ServerSession) error {
			got = session.SetOption(ctx, "n", text(strings.Repeat("v", 500)))
			return session.SetOption(ctx, "n", text("v"))
		}}}).client()
	if c.must(info("set")); !errors.Is(got, layover.ErrFull) || reasonOf(t, got) != "SESSION_STORE_FULL" {
		t.Errorf("%v", got)
	}
}

// A call fails if its session of this package's type did not take an option, also
// under a manager or a factory of the server's own.
func TestRefusedOptionsHaveTheCallFail(t *testing.T) {
	limits := session.WithOptionLimits(session.OptionLimits{Value: 10})
	factory := session.WithFactory(fakeFactory(session.NewSessionFactory(nil).CreateSession))
	for name, test := range map[string]struct {
		m    session.ServerSessionManager
		size int
		why  string
	}{
		"factory":      {session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), limits, factory), 11, "SESSION_OPTION_LIMIT"},
		"manager":      {&wrappedManager{session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), limits)}, 11, "SESSION_OPTION_LIMIT"},
		"out of bytes": {session.NewStatefulServerSessionManager(session.WithStore(newStore(t, layover.WithMaxBytes(500))), factory), 500, "SESSION_STORE_FULL"},
	} {
		c := serveEdge(t, session.NewServerMiddleware(test.m, session.WithLogger(nil)), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		if r := c.do(setOption("schema", strings.Repeat("v", test.size)), cookie); reasonOf(t, r.err) != test.why {
			t.Errorf("%s: %v", name, r.err)
		}
		var got map[string]*flight.SessionOptionValue
		if c.must(getOptions(&got), cookie); got["schema"].GetStringValue() != "prod" {
			t.Errorf("%s: %v", name, got)
		}
		c.must(closeSession, cookie)
	}
}

// Sessions of a type of the server's own are asked for what they have once in a
// call, not for each option that it sets.
func TestForeignSessionsAreAskedForTheirOptionsOnce(t *testing.T) {
	s := &askedSession{userSession: &userSession{id: "user-12345"}}
	c := serveForeign(t, s, session.OptionLimits{}, nil)
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	s.asked.Store(0)
	many := make(map[string]any)
	for i := range 3000 {
		many[fmt.Sprint("n", i)] = true
	}
	if r := c.do(setOptions(many), cookie); reasonOf(t, r.err) != "SESSION_OPTION_LIMIT" {
		t.Errorf("3000 options: %v", r.err)
	}
	if n := s.asked.Load(); n > 3 { // and when it is given back, whether it holds anything
		t.Errorf("asked %d times", n)
	}
	if n := len(s.GetSessionOptions()); n != 256 {
		t.Errorf("%d options of at most 256", n)
	}
}

// Goroutines of one call keep within the limits together, also in a session of a
// type of the server's own, and what they unset is no longer counted.
func TestGoroutinesOfACallShareTheLimits(t *testing.T) {
	s := &askedSession{userSession: &userSession{id: "user-12345"}}
	var refused atomic.Int32
	c := serveForeign(t, s, session.OptionLimits{Options: 2}, map[string]statement{
		"set": func(ctx context.Context, cur session.ServerSession) error {
			cur.EraseSessionOption("schema")
			s.asked.Store(0)
			s.meet.Store(true)
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					if session.SetOption(ctx, fmt.Sprint("n", i), text("v")) != nil {
						refused.Add(1)
					}
				})
			}
			all.Wait()
			for name := range s.userSession.GetSessionOptions() {
				cur.EraseSessionOption(name)
				return session.SetOption(ctx, "in its place", text("v"))
			}
			return nil
		}})
	c.must(info("set"), c.must(setOption("schema", "prod")).cookie(t))
	if n := len(s.GetSessionOptions()); n != 2 || refused.Load() != 6 {
		t.Errorf("%d options of at most two, %d of 8 refused", n, refused.Load())
	}
}

// foreignManager returns a manager of this session of a type of the server's own.
func foreignManager(t *testing.T, s session.ServerSession, l session.OptionLimits) *session.StatefulServerSessionManager {
	return session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), session.WithOptionLimits(l),
		session.WithFactory(fakeFactory(func() (session.ServerSession, error) { return s, nil })))
}

// serveForeign serves it to calls that ask for it.
func serveForeign(t *testing.T, s session.ServerSession, l session.OptionLimits, statements map[string]statement) *client {
	t.Helper()
	m := foreignManager(t, s, l)
	return serveEdge(t, session.NewServerMiddleware(m, session.WithLogger(nil), session.WithLazySessions()), &sqlServer{statements: statements}).client()
}

// askedSession counts who asks for all options, and has the first two meet if meet
// is set.
type askedSession struct {
	*userSession
	asked atomic.Int32
	meet  atomic.Bool
}

func (s *askedSession) GetSessionOptions() map[string]*flight.SessionOptionValue {
	all := s.userSession.GetSessionOptions()
	s.asked.Add(1)
	for n := 0; s.meet.Load() && n < 100_000 && s.asked.Load() < 2; n++ {
		runtime.Gosched()
	}
	return all
}

// Whatever is set and unset, the store knows what the options take, to the byte.
func TestTheStoreKnowsWhatOptionsTake(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		store := session.NewSessionStore(layover.WithLogger(nil))
		defer func() { _ = store.Shutdown(context.Background()) }()
		s, _ := session.NewSessionFactory(nil).CreateSession()
		set := func() {
			v := text(strings.Repeat("v", rapid.IntRange(0, 100).Draw(rt, "size")))
			if rapid.Bool().Draw(rt, "unset") {
				v = nil
			}
			s.SetSessionOption(rapid.StringN(0, 3, 3).Draw(rt, "name"), v)
		}
		for range rapid.IntRange(0, 5).Draw(rt, "before") {
			set()
		}
		if err := store.Put(s); err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(0, 20).Draw(rt, "after") {
			set()
			want := int64(0)
			for name, v := range s.GetSessionOptions() {
				want += int64(len(name) + proto.Size(v) + 128)
			}
			if got := store.Stats().Bytes; got != want {
				rt.Fatalf("%d bytes, want %d", got, want)
			}
		}
	})
}

// What is counted is what options take in memory, give or take a factor of two:
// whatever a client sets, and also once it has unset most of it.
func TestOptionsCountForWhatTheyTakeInMemory(t *testing.T) {
	many := func(n int, v any) func(session.ServerSession) {
		return func(s session.ServerSession) {
			for i := range n {
				if text, ok := v.(string); ok {
					v = strings.Clone(text) // as if it had come from a client
				}
				o, err := flight.NewSessionOptionValue(v)
				if err != nil {
					t.Fatal(err)
				}
				s.SetSessionOption(fmt.Sprint("n", i), &o)
			}
		}
	}
	for what, fill := range map[string]func(session.ServerSession){
		"small options":            many(256, false),
		"short texts":              many(200, strings.Repeat("v", 17)),
		"long texts":               many(4, strings.Repeat("v", 50000)),
		"a list of empty strings":  many(1, make([]string, 12<<10)),
		"a list of short strings":  many(1, strings.Split(strings.Repeat("12345678 ", 5000), " ")),
		"lists of one string each": many(256, []string{"v"}),
		"some of many small options": func(s session.ServerSession) {
			many(256, false)(s)
			for i := range 240 {
				s.EraseSessionOption(fmt.Sprint("n", i))
			}
		},
	} {
		for tries := 3; tries > 0; tries-- { // what others have left on the heap may vanish meanwhile
			held, counted := heldAndCounted(t, fill)
			if held < 2*counted && counted < 2*held {
				break
			}
			if tries == 1 {
				t.Errorf("%s: %d bytes held, %d counted", what, held, counted)
			}
		}
	}
}

// heldAndCounted returns what some sessions with these options take in memory, and
// what the store says that they do.
func heldAndCounted(t *testing.T, fill func(session.ServerSession)) (held, counted int64) {
	t.Helper()
	store := newStore(t)
	var sessions []session.ServerSession
	before := heap()
	for range 20 {
		s, _ := session.NewSessionFactory(nil).CreateSession()
		fill(s)
		if err := store.Put(s); err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	defer runtime.KeepAlive(sessions)
	return heap() - before, store.Stats().Bytes
}

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func reasonOf(t *testing.T, err error) string {
	t.Helper()
	why, _ := reason(err)
	return why
}
