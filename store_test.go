// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// conn is the session of the tests. It counts its Close calls.
type conn struct {
	closed atomic.Int32
	close  func() error // what Close does; nil: nothing
}

func (c *conn) Close() error {
	c.closed.Add(1)
	if c.close != nil {
		return c.close()
	}
	return nil
}

// isClosed says whether c was closed, and complains if it was more than once.
func (c *conn) isClosed(t testing.TB) bool {
	t.Helper()
	n := c.closed.Load()
	if n > 1 {
		t.Errorf("a session was closed %d times", n)
	}
	return n > 0
}

// open returns a store without lifetime, unconfirmed timeouts and log, unless
// opts say otherwise. It is shut down when the test ends.
func open(t testing.TB, opts ...Option) *Store[*conn] {
	t.Helper()
	return openOf[*conn](t, opts...)
}

func openOf[S Session](t testing.TB, opts ...Option) *Store[S] {
	t.Helper()
	plain := []Option{WithIdleTimeout(time.Hour), WithLifetime(0), WithUnconfirmedTimeouts(0, 0), WithLogger(nil)}
	s, err := New[S](append(plain, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		defer func() {
			if err := s.Check(); err != nil {
				t.Errorf("after the shutdown: %v", err)
			}
		}()
		if err := s.Check(); err != nil {
			t.Errorf("at the end of the test: %v", err)
		}
		if err := s.Shutdown(ctx); err != nil && !t.Failed() {
			t.Errorf("shutdown at the end of the test: %v", err)
		}
	})
	return s
}

// late is by how much a session may outlive its deadline.
func late[S Session](s *Store[S]) time.Duration { return s.config.Load().resolution + Tick }

// pass lets d go by in a bubble, and everything that it sets off come to rest.
func pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
	synctest.Wait()
}

// watch calls look again and again, until it returns false or the function that
// watch returns is called.
func watch(look func() bool) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for look() {
			select {
			case <-done:
				return
			default:
				runtime.Gosched()
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// add files a new session under id, whose lease is released at once.
func add(t testing.TB, s *Store[*conn], id string) *conn {
	t.Helper()
	c, l := addLeased(t, s, id)
	l.Release()
	return c
}

// addConfirmed is add and Confirm.
func addConfirmed(t testing.TB, s *Store[*conn], id string) *conn {
	t.Helper()
	c := add(t, s, id)
	must(t, s.Confirm(id))
	return c
}

func addLeased(t testing.TB, s *Store[*conn], id string) (*conn, *Lease[*conn]) {
	t.Helper()
	c := new(conn)
	l, err := s.Add(id, c, Origin{})
	must(t, err)
	return c, &l
}

func acquire[S Session](t testing.TB, s *Store[S], id string) *Lease[S] {
	t.Helper()
	l, err := s.Acquire(id)
	must(t, err)
	return &l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got error %v, want %v", got, want)
	}
}

// wantGone checks that id is absent, and that the error tells why.
func wantGone[S Session](t testing.TB, s *Store[S], id string, why Reason) {
	t.Helper()
	_, err := s.Peek(id)
	var nf *NotFoundError
	if !errors.As(err, &nf) {
		t.Errorf("got error %v, want a NotFoundError", err)
		return
	}
	wantErr(t, err, ErrNotFound)
	if nf.Fingerprint() != s.Fingerprint(id) || nf.Reason != why {
		t.Errorf("got %v (%v), want %v (%v)", nf.Fingerprint(), nf.Reason, s.Fingerprint(id), why)
	}
}

func wantLive[S Session](t testing.TB, s *Store[S], ids ...string) {
	t.Helper()
	for _, id := range ids {
		if _, err := s.Peek(id); err != nil {
			t.Errorf("session %q: %v", id, err)
		}
	}
}

// recorder is an observer that notes everything.
type recorder struct {
	mu     sync.Mutex
	events []Event
}

func (r *recorder) observe(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) all() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// story is what happened to the sessions with fingerprint f, such as
// "created confirmed ended:idle".
func (r *recorder) story(f Fingerprint) string {
	var parts []string
	for _, e := range r.all() {
		if e.Fingerprint != f {
			continue
		}
		part := e.Kind.String()
		if e.Kind == EventEnded {
			part += ":" + e.Reason.String()
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, " ")
}

func TestAddReturnsTheFirstLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Second))
		c, l := addLeased(t, s, "a")
		if l.Session() != c || l.Fingerprint() != s.Fingerprint("a") || l.Context().Err() != nil {
			t.Error("the lease is not one of what was added")
		}
		pass(time.Hour)
		wantLive(t, s, "a")
		l.Release()
		pass(time.Second + late(s))
		wantGone(t, s, "a", ReasonUnconfirmed)
	})
}

func TestOnAnErrorNothingIsStoredNorClosed(t *testing.T) {
	s := open(t, WithMaxSessions(1))
	old, l := addLeased(t, s, "a")
	defer l.Release()
	for _, x := range []struct {
		name string
		err  error
		want error
	}{
		{"Add of an ID that is taken", second(s.Add("a", new(conn), Origin{})), ErrExists},
		{"Add to a full store", second(s.Add("b", new(conn), Origin{})), ErrFull},
		{"Add of an empty ID", second(s.Add("", new(conn), Origin{})), ErrInvalid},
		{"Put into a full store", s.Put("b", new(conn), Origin{}), ErrFull},
		{"Put over a busy session of a full store", s.Put("a", new(conn), Origin{}), ErrFull},
		{"Put of an empty ID", s.Put("", new(conn), Origin{}), ErrInvalid},
	} {
		if !errors.Is(x.err, x.want) {
			t.Errorf("%s: got %v, want %v", x.name, x.err, x.want)
		}
	}
	c := new(conn)
	failed, err := s.Add("b", c, Origin{})
	wantErr(t, err, ErrFull)
	if failed.Session() != nil || failed.Fingerprint() != (Fingerprint{}) || failed.Context().Err() == nil {
		t.Error("a failed Add returned a lease on something")
	}
	failed.Confirm()
	failed.Hold()
	failed.Release()
	if got, err := s.Peek("a"); got != old || err != nil {
		t.Errorf("what was there did not stay: %v", err)
	}
	if st := s.Stats(); st.Created != 1 || st.Refused != 4 {
		t.Errorf("created %d, refused %d; want 1 and 4", st.Created, st.Refused)
	}
	if c.isClosed(t) || old.isClosed(t) {
		t.Error("something was closed")
	}
}

func second[T any](_ T, err error) error { return err }

func TestNilSessionsAreInvalid(t *testing.T) {
	s := openOf[Session](t)
	wantErr(t, second(s.Add("a", nil, Origin{})), ErrInvalid)
	wantErr(t, s.Put("a", nil, Origin{}), ErrInvalid)
	must(t, s.Put("a", new(conn), Origin{}))
	wantErr(t, s.Put("a", nil, Origin{}), ErrInvalid)
	wantLive(t, s, "a")
}

func TestNilPointersAreInvalid(t *testing.T) {
	s := open(t)
	l, err := s.Add("a", nil, Origin{})
	wantErr(t, err, ErrInvalid)
	l.Release()
	wantErr(t, s.Put("a", nil, Origin{}), ErrInvalid)
	of := openOf[Session](t)
	wantErr(t, of.Put("a", (*conn)(nil), Origin{}), ErrInvalid)
}

func TestPutOfTheSameValueIsATouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(recorder)
		s := open(t, WithIdleTimeout(time.Minute), WithMaxSessions(1), WithObserver(r.observe))
		c := new(conn)
		must(t, s.Put("a", c, Origin{}))
		for range 3 {
			pass(time.Minute - 1)
			must(t, s.Put("a", c, Origin{Holds: true}))
		}
		if got := r.story(s.Fingerprint("a")); got != "created" {
			t.Errorf("events: %s", got)
		}
		pass(time.Minute + time.Minute/resolutionShare)
		wantGone(t, s, "a", ReasonUnconfirmed)
		synctest.Wait()
		if !c.isClosed(t) {
			t.Error("not closed")
		}
	})
}

func TestPutOfAnotherValueReplaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(recorder)
		s := open(t, WithMaxSessions(1), WithObserver(r.observe))
		first, next := new(conn), new(conn)
		must(t, s.Put("a", first, Origin{}))
		must(t, s.Put("a", next, Origin{}))
		synctest.Wait()
		if !first.isClosed(t) || next.isClosed(t) {
			t.Error("the wrong session was closed")
		}
		if got, err := s.Peek("a"); got != next || err != nil {
			t.Errorf("Peek returns another session, or %v", err)
		}
		if got := r.story(s.Fingerprint("a")); got != "created ended:replaced created" {
			t.Errorf("events: %s", got)
		}
	})
}

func TestPutOverABusySessionClosesItWithItsLastRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(2))
		first, l := addLeased(t, s, "a")
		l2 := acquire(t, s, "a")
		next := new(conn)
		must(t, s.Put("a", next, Origin{}))
		l.Release()
		pass(time.Minute)
		if first.isClosed(t) || l2.Session() != first || l2.Context().Err() != nil {
			t.Error("a session in use was closed, or its lease lost")
		}
		if st := s.Stats(); st.Live != 1 || st.Retired != 1 {
			t.Errorf("live %d, retired %d; want 1 and 1", st.Live, st.Retired)
		}
		l2.Release()
		synctest.Wait()
		if !first.isClosed(t) || next.isClosed(t) {
			t.Error("the wrong session was closed")
		}
	})
}

// bag cannot be compared.
type bag struct {
	items []int
	*conn
}

func TestValuesThatCannotBeComparedAreNeverTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openOf[Session](t)
		b := bag{nil, new(conn)}
		must(t, s.Put("a", b, Origin{}))
		must(t, s.Put("a", b, Origin{}))
		if got := s.Stats().Ended[ReasonReplaced]; got != 1 {
			t.Errorf("%d replaced, want 1", got)
		}
		must(t, s.Put("b", new(conn), Origin{}))
		must(t, s.Put("b", bag{nil, new(conn)}, Origin{})) // another type
		if got := s.Stats().Ended[ReasonReplaced]; got != 2 {
			t.Errorf("%d replaced, want 2", got)
		}
	})
}

func TestARetiredSessionFreesItsID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		old, l := addLeased(t, s, "a")
		must(t, s.Remove("a"))
		wantGone(t, s, "a", ReasonClosed)
		young := add(t, s, "a")
		l.Confirm() // of the old one, which is nobody's business any more
		l.Hold()
		l.Release()
		synctest.Wait()
		if !old.isClosed(t) || young.isClosed(t) {
			t.Error("the wrong session was closed")
		}
		if got, err := s.Peek("a"); got != young || err != nil {
			t.Errorf("the new session is lost: %v", err)
		}
		if st := s.Stats(); st.Confirmed != 0 || st.EverConfirmed != 0 || st.Holding != 0 {
			t.Errorf("a retired session was counted: %+v", st)
		}
	})
}

func TestGetAndTouchStartTheIdleClockTheOthersDoNot(t *testing.T) {
	for name, x := range map[string]struct {
		visit   func(*Store[*conn]) error
		touches bool
	}{
		"Get":     {func(s *Store[*conn]) error { return second(s.Get("a")) }, true},
		"Touch":   {func(s *Store[*conn]) error { return s.Touch("a") }, true},
		"Peek":    {func(s *Store[*conn]) error { return second(s.Peek("a")) }, false},
		"Confirm": {func(s *Store[*conn]) error { return s.Confirm("a") }, false},
		"Hold":    {func(s *Store[*conn]) error { return s.Hold("a") }, false},
		"All": {func(s *Store[*conn]) error {
			for range s.All() {
			}
			return nil
		}, false},
		"Release": {func(s *Store[*conn]) error {
			l, err := s.Acquire("a")
			l.Release()
			return err
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, WithIdleTimeout(time.Minute))
				add(t, s, "a")
				pass(30 * time.Second)
				must(t, x.visit(s))
				pass(30 * time.Second)
				_, err := s.Peek("a")
				if found := err == nil; found != x.touches {
					t.Errorf("after the idle timeout from the start, found is %v", found)
				}
				pass(30*time.Second + late(s))
				wantErr(t, second(s.Peek("a")), ErrNotFound)
			})
		})
	}
}

func TestEveryLookupTellsWhyASessionEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute))
		add(t, s, "a")
		must(t, s.Remove("a"))
		for name, err := range map[string]error{
			"Acquire": second(s.Acquire("a")), "Get": second(s.Get("a")), "Peek": second(s.Peek("a")),
			"Touch": s.Touch("a"), "Confirm": s.Confirm("a"), "Hold": s.Hold("a"), "Remove": s.Remove("a"),
		} {
			var nf *NotFoundError
			if !errors.As(err, &nf) || nf.Reason != ReasonClosed || nf.Fingerprint() != s.Fingerprint("a") {
				t.Errorf("%s: got %v", name, err)
			}
		}
		wantGone(t, s, "never", 0)
		if text := s.Touch("never").Error(); !strings.Contains(text, s.Fingerprint("never").String()) {
			t.Errorf("no fingerprint in %q", text)
		}
	})
}

// Held is right however the store comes to know of the end, and by whatever the
// session was found to hold something.
func TestNotFoundTellsWhetherTheSessionHeldSomething(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute))
		held := func(id string) bool {
			t.Helper()
			var nf *NotFoundError
			if err := s.Touch(id); !errors.As(err, &nf) || nf.Reason == 0 {
				t.Fatalf("%s: got %v", id, err)
			}
			return nf.Held
		}
		for id, prepare := range map[string]func(l *Lease[*conn]){
			"holds":     func(l *Lease[*conn]) { l.Hold() },
			"confirmed": func(l *Lease[*conn]) { l.Confirm(); l.Hold() },
			"nothing":   func(*Lease[*conn]) {},
			"came back": func(l *Lease[*conn]) { l.Confirm() },
		} {
			want := id == "holds" || id == "confirmed"
			_, l := addLeased(t, s, id)
			prepare(l)
			l.Release()
			freeze(s)
			pass(time.Minute + late(s))
			if held(id) != want { // finds it overdue
				t.Errorf("%s: overdue: held is %v", id, !want)
			}
			if held(id) != want { // remembers it
				t.Errorf("%s: remembered: held is %v", id, !want)
			}
		}
		l, err := s.Add("born", new(conn), Origin{Holds: true})
		must(t, err)
		must(t, s.Remove("born")) // retired
		if !held("born") {
			t.Error("born so: held is false")
		}
		l.Release()
		must(t, s.Put("born", new(conn), Origin{}))
		must(t, s.Remove("born"))
		if held("born") {
			t.Error("the last one with this ID held nothing")
		}
		var nf *NotFoundError
		if err := s.Touch("never"); !errors.As(err, &nf) || nf.Held || nf.Reason != 0 {
			t.Errorf("never there: %+v", nf)
		}
	})
}

// Who still uses a session that has ended may tell that it holds something. That
// is not told of another one that had its ID.
func TestNotFoundTellsWhatARetiredSessionHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		held := func() bool {
			var nf *NotFoundError
			return errors.As(s.Touch("a"), &nf) && nf.Held && nf.Reason == ReasonClosed
		}
		for _, confirmed := range []bool{false, true} {
			_, l := addLeased(t, s, "a")
			if confirmed {
				l.Confirm()
			}
			must(t, s.Remove("a"))
			if held() {
				t.Error("held something from the start")
			}
			l.Hold()
			if ev, _ := s.Explain(s.Fingerprint("a")); !held() || !ev.Holds {
				t.Errorf("confirmed %v: held nothing", confirmed)
			}
			l.Release()
			pass(time.Second)
		}
		_, old := addLeased(t, s, "a")
		must(t, s.Remove("a"))
		pass(time.Second)
		_, l := addLeased(t, s, "a")
		l.Release()
		must(t, s.Remove("a"))
		if old.Hold(); held() {
			t.Error("held what another one did")
		}
		old.Release()
	})
}

// A lookup that finds an entry which has just ended tells what that one held.
func TestNotFoundTellsWhatAnEntryHeldThatIsNotSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		must(t, s.Put("a", new(conn), Origin{Holds: true}))
		e := s.index.find("a")
		st := e.load()
		if !e.swap(st, st.ended(ReasonClosed)) {
			t.Fatal("could not end it")
		}
		var nf *NotFoundError
		if err := s.Touch("a"); !errors.As(err, &nf) || !nf.Held || nf.Reason != ReasonClosed {
			t.Errorf("got %+v", nf)
		}
		s.depart(e)
	})
}

func TestCompareAndRemoveTellsOfTheOneThatWasMeant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		a, b := new(conn), new(conn)
		must(t, s.Put("a", a, Origin{Holds: true}))
		must(t, s.Put("a", b, Origin{}))
		var nf *NotFoundError
		if err := s.CompareAndRemove("a", a); !errors.As(err, &nf) || !nf.Held || nf.Reason != ReasonReplaced {
			t.Errorf("replaced: got %+v", nf)
		}
		wantLive(t, s, "a")
		must(t, s.CompareAndRemove("a", b))
		must(t, s.Put("a", a, Origin{}))
		if err := s.CompareAndRemove("a", b); !errors.As(err, &nf) || nf.Held || nf.Reason != ReasonClosed {
			t.Errorf("closed: got %+v", nf)
		}
		if err := s.CompareAndRemove("a", a); err != nil {
			t.Error(err)
		}
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		idle := add(t, s, "idle")
		busy, l := addLeased(t, s, "busy")
		must(t, s.Remove("idle"))
		must(t, s.Remove("busy"))
		wantErr(t, s.Remove("busy"), ErrNotFound)
		synctest.Wait()
		if !idle.isClosed(t) || busy.isClosed(t) {
			t.Error("the wrong session was closed")
		}
		l.Release()
		synctest.Wait()
		if !busy.isClosed(t) {
			t.Error("the last release did not close the session")
		}
	})
}

func TestALeaseMayBeReleasedOftenAndByMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		c, l := addLeased(t, s, "a")
		other := acquire(t, s, "a")
		must(t, s.Remove("a"))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				l.Confirm()
				l.Release()
				l.Hold()
				_ = l.Session()
				_ = l.Context()
			})
		}
		wg.Wait()
		synctest.Wait()
		if c.isClosed(t) || other.Session() != c {
			t.Error("a second release of one lease took away another")
		}
		if l.Session() != nil || l.Fingerprint() != (Fingerprint{}) || l.Context().Err() == nil {
			t.Error("after Release the lease still leads to something")
		}
		other.Release()
		synctest.Wait()
		if !c.isClosed(t) {
			t.Error("not closed by the last release")
		}
	})
}

func TestAHitAllocatesNothing(t *testing.T) {
	s := open(t)
	addConfirmed(t, s, "a")
	for name, hit := range map[string]func(){
		"Acquire, Confirm, Release": func() {
			l, err := s.Acquire("a")
			if err != nil || l.Session() == nil {
				t.Fatal(err)
			}
			l.Confirm()
			l.Release()
		},
		"Get":     func() { _, _ = s.Get("a") },
		"Peek":    func() { _, _ = s.Peek("a") },
		"Touch":   func() { _ = s.Touch("a") },
		"Confirm": func() { _ = s.Confirm("a") },
	} {
		if n := testing.AllocsPerRun(100, hit); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestContextEndsWithTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute))
		_, l := addLeased(t, s, "a")
		ctx := l.Context()
		l2 := acquire(t, s, "a")
		if l2.Context() != ctx {
			t.Error("two leases on one session have different contexts")
		}
		l.Release()
		l2.Release()
		pass(time.Minute - 1)
		if ctx.Err() != nil {
			t.Error("canceled before the end")
		}
		pass(late(s))
		var ended *EndedError
		if ctx.Err() == nil || !errors.As(context.Cause(ctx), &ended) {
			t.Fatalf("cause: %v", context.Cause(ctx))
		}
		if ended.Fingerprint != s.Fingerprint("a") || ended.Reason != ReasonUnconfirmed {
			t.Errorf("cause: %v", ended)
		}
	})
}

func TestContextMadeAfterAKillIsCanceled(t *testing.T) {
	s := open(t)
	_, l := addLeased(t, s, "a")
	s.Kill(l.Fingerprint())
	var ended *EndedError
	if ctx := l.Context(); ctx.Err() == nil || !errors.As(context.Cause(ctx), &ended) || ended.Reason != ReasonKilled {
		t.Errorf("context: %v, cause: %v", ctx.Err(), context.Cause(ctx))
	}
	l.Release()
}

// One user makes the context while the session is killed, and is held up before
// it can tell the context. Another one must not be told that all is well.
func TestContextMadeDuringAKillIsCanceledForAll(t *testing.T) {
	s := open(t)
	_, l := addLeased(t, s, "a")
	s.Kill(l.Fingerprint())
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	l.entry.extras().ctx.Store(&sessionContext{ctx, cancel})
	if l.Context().Err() == nil {
		t.Error("the context of a session that was closed is not canceled")
	}
	l.Release()
}

func TestKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(recorder)
		s := open(t, WithObserver(r.observe))
		idle := add(t, s, "idle")
		busy, l := addLeased(t, s, "busy")
		retired, l2 := addLeased(t, s, "retired")
		must(t, s.Remove("retired"))
		for _, id := range []string{"idle", "busy", "retired"} {
			if !s.Kill(s.Fingerprint(id)) {
				t.Errorf("Kill did not find %s", id)
			}
			if s.Kill(s.Fingerprint(id)) {
				t.Errorf("Kill found %s twice", id)
			}
		}
		if s.Kill(s.Fingerprint("never")) {
			t.Error("Kill found what never was")
		}
		synctest.Wait()
		if !idle.isClosed(t) || !busy.isClosed(t) || !retired.isClosed(t) {
			t.Error("Kill did not close at once")
		}
		wantGone(t, s, "idle", ReasonKilled)
		wantGone(t, s, "busy", ReasonKilled)
		wantGone(t, s, "retired", ReasonClosed) // the first reason stays
		if got := r.story(s.Fingerprint("retired")); got != "created ended:closed" {
			t.Errorf("events: %s", got)
		}
		if st := s.Stats(); st.Live+st.Retired != 0 {
			t.Errorf("places are still taken: %+v", st)
		}
		l.Release()
		l2.Release()
		synctest.Wait()
		if busy.isClosed(t); retired.isClosed(t) == false {
			t.Error("the releases changed something")
		}
	})
}

func TestKillPrefersNoneOfTwoWithOneID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		_, l := addLeased(t, s, "a")
		must(t, s.Remove("a"))
		add(t, s, "a")
		n := 0
		for s.Kill(s.Fingerprint("a")) {
			n++
		}
		if n != 2 {
			t.Errorf("killed %d, want the live and the retired one", n)
		}
		l.Release()
	})
}

func TestAllTellsOfTheLiveOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute), WithUnconfirmedTimeouts(10*time.Second, 20*time.Second))
		start := time.Now()
		_, busy := addLeased(t, s, "busy")
		_, retired := addLeased(t, s, "retired")
		must(t, s.Remove("retired"))
		addConfirmed(t, s, "confirmed")
		l, err := s.Add("holding", new(conn), Origin{Holds: true})
		must(t, err)
		l.Release()
		pass(5 * time.Second)
		must(t, s.Touch("confirmed"))
		want := map[Fingerprint]Info{
			s.Fingerprint("busy"):      {Created: start, LastUsed: start, Leases: 1},
			s.Fingerprint("confirmed"): {Created: start, LastUsed: start.Add(5 * time.Second), Expires: start.Add(65 * time.Second), Confirmed: true},
			s.Fingerprint("holding"):   {Created: start, LastUsed: start, Expires: start.Add(20 * time.Second), Holds: true},
		}
		for in, c := range s.All() {
			w, ok := want[in.Fingerprint]
			if !ok || c == nil {
				t.Errorf("unexpected, or without value: %+v", in)
			}
			delete(want, in.Fingerprint)
			if ahead := in.LastUsed.Sub(w.LastUsed); ahead < 0 || ahead > late(s) || !w.Expires.IsZero() && in.Expires.Sub(w.Expires) != ahead ||
				!in.Created.Equal(w.Created) || in.Expires.IsZero() != w.Expires.IsZero() ||
				in.Leases != w.Leases || in.Confirmed != w.Confirmed || in.Holds != w.Holds {
				t.Errorf("got %+v, want %+v", in, w)
			}
		}
		if len(want) > 0 {
			t.Errorf("not seen: %v", want)
		}
		n := 0
		for range s.All() {
			n++
			break
		}
		if n != 1 {
			t.Error("All went on after the loop had ended")
		}
		busy.Release()
		retired.Release()
	})
}

func TestStatsFollowASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(3), WithIdleTimeout(time.Minute))
		check := func(when string, want Stats) {
			t.Helper()
			synctest.Wait()
			got := s.Stats()
			if got.Live+got.Retired > 0 {
				want.Sources = 1
			}
			if got != want {
				t.Errorf("%s:\n got %+v\nwant %+v", when, got, want)
			}
			if got.Created != uint64(got.Live)+got.Ended.Total() {
				t.Errorf("%s: live and ended ones are not those that were created", when)
			}
			if s.Len() != got.Live {
				t.Errorf("%s: Len is %d", when, s.Len())
			}
		}
		check("empty", Stats{})
		_, l := addLeased(t, s, "a")
		want := Stats{Live: 1, Peak: 1, Unconfirmed: 1, Created: 1}
		check("added", want)
		l.Hold()
		l.Hold()
		want.Holding = 1
		check("holds", want)
		l.Confirm()
		l.Confirm()
		must(t, s.Confirm("a"))
		want.Holding, want.Unconfirmed, want.Confirmed, want.EverConfirmed = 0, 0, 1, 1
		check("confirmed", want)
		must(t, s.Remove("a"))
		want.Live, want.Retired, want.Confirmed, want.Ended[ReasonClosed] = 0, 1, 0, 1
		check("retired", want)
		l.Release()
		want.Retired, want.Closed = 0, 1
		check("closed", want)

		hang := make(chan struct{})
		must(t, s.Put("b", &conn{close: func() error { <-hang; return errors.New("no") }}, Origin{Holds: true}))
		must(t, s.Remove("b"))
		want.Created, want.Closing, want.Ended[ReasonClosed] = 2, 1, 2
		check("closing", want)
		pass(DefaultHungClose * 5 / 4)
		want.HungClose = 1
		check("hangs", want)
		close(hang)
		want.HungClose, want.Closing, want.Closed, want.CloseFailed = 0, 0, 2, 1
		check("failed", want)

		for i := range 3 {
			_, l := addLeased(t, s, fmt.Sprint(i))
			defer l.Release()
		}
		wantErr(t, second(s.Add("d", new(conn), Origin{})), ErrFull)
		want.Live, want.Peak, want.Unconfirmed, want.Created, want.Refused = 3, 3, 3, 5, 1
		check("full", want)
	})
}

func TestDrainRefusesOnlyNewcomers(t *testing.T) {
	s := open(t)
	c := new(conn)
	must(t, s.Put("a", c, Origin{}))
	s.Drain()
	wantErr(t, second(s.Add("b", new(conn), Origin{})), ErrDraining)
	wantErr(t, s.Put("b", new(conn), Origin{}), ErrDraining)
	wantErr(t, s.Put("a", new(conn), Origin{}), ErrDraining)
	must(t, s.Put("a", c, Origin{})) // a touch
	must(t, s.Confirm("a"))
	acquire(t, s, "a").Release()
	must(t, s.Remove("a"))
}

func TestAfterShutdownEverythingFails(t *testing.T) {
	s := open(t)
	c := new(conn)
	must(t, s.Put("a", c, Origin{}))
	must(t, s.Shutdown(context.Background()))
	for name, err := range map[string]error{
		"Add": second(s.Add("b", new(conn), Origin{})), "Put": s.Put("b", new(conn), Origin{}), "Put of the same": s.Put("a", c, Origin{}),
		"Acquire": second(s.Acquire("a")), "Get": second(s.Get("a")), "Peek": second(s.Peek("a")),
		"Touch": s.Touch("a"), "Confirm": s.Confirm("a"), "Hold": s.Hold("a"), "Remove": s.Remove("a"),
		"Reconfigure": s.Reconfigure(WithMaxSessions(1)),
	} {
		if !errors.Is(err, ErrShutdown) {
			t.Errorf("%s: got %v, want ErrShutdown", name, err)
		}
	}
	for in := range s.All() {
		t.Errorf("All yields %+v", in)
	}
	if s.Kill(s.Fingerprint("a")) {
		t.Error("Kill found something")
	}
	if ev, ok := s.Explain(s.Fingerprint("a")); !ok || ev.Reason != ReasonShutdown {
		t.Errorf("Explain: %v %v", ev, ok)
	}
	if st := s.Stats(); st.Closed != 1 || st.Ended[ReasonShutdown] != 1 || !c.isClosed(t) {
		t.Errorf("not closed by the shutdown: %+v", st)
	}
}

func TestShutdownWaitsForTheLastRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		idle := add(t, s, "idle")
		busy, l := addLeased(t, s, "busy")
		results := make(chan error, 2)
		go func() { results <- s.Shutdown(t.Context()) }()
		go func() { results <- s.Shutdown(t.Context()) }()
		pass(time.Minute)
		if !idle.isClosed(t) || busy.isClosed(t) || len(results) != 0 || l.Context().Err() != nil {
			t.Error("the shutdown did not wait for the session in use, or only for it")
		}
		l.Release()
		synctest.Wait()
		if !busy.isClosed(t) || len(results) != 2 {
			t.Fatal("the last release did not end the shutdown")
		}
		must(t, <-results)
		must(t, <-results)
		must(t, s.Shutdown(t.Context()))
	})
}

func TestShutdownPastItsDeadlineKillsAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithClosers(1), WithHungClose(0))
		_, l := addLeased(t, s, "busy")
		l.Confirm()
		session := l.Context()
		hang := make(chan struct{})
		var closers []*conn
		for i := range 3 {
			c := &conn{close: func() error { <-hang; return nil }}
			closers = append(closers, c)
			must(t, s.Put(fmt.Sprint(i), c, Origin{}))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err := s.Shutdown(ctx)
		if took := time.Since(start); took != time.Minute {
			t.Errorf("took %v", took)
		}
		var se *ShutdownError
		if !errors.As(err, &se) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if se.Killed != 1 || se.Closing < 3 || se.Closing > 4 {
			t.Errorf("got %+v", se)
		}
		if text := err.Error(); !strings.Contains(text, "1 sessions killed in use") {
			t.Errorf("the text does not tell: %s", text)
		}
		var ended *EndedError
		if !errors.As(context.Cause(session), &ended) || ended.Reason != ReasonShutdown {
			t.Errorf("cause of the killed session's context: %v", context.Cause(session))
		}
		synctest.Wait()
		for i, c := range closers {
			if !c.isClosed(t) {
				t.Errorf("Close %d waits for one that hangs, past the deadline", i)
			}
		}
		again := make(chan error)
		go func() { again <- s.Shutdown(t.Context()) }()
		pass(time.Minute)
		close(hang)
		must(t, <-again)
		if st := s.Stats(); st.Closed != 4 {
			t.Errorf("%d closed, want 4", st.Closed)
		}
		l.Release()
	})
}

// When Shutdown returns nil, whatever was stored is closed, whoever ended it.
// Here the last lease is given back by somebody who is held up half way.
func TestShutdownWaitsForThoseWhoAreStillLeaving(t *testing.T) {
	for name, leave := range map[string]func(*Store[*conn], *Lease[*conn]){
		"by a release": func(s *Store[*conn], l *Lease[*conn]) { l.Release() },
		"by a kill":    func(s *Store[*conn], l *Lease[*conn]) { s.kill(l.entry, ReasonKilled) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			c, l := addLeased(t, s, "a")
			done := make(chan error)
			go func() { done <- s.Shutdown(context.Background()) }()
			for s.Stats().Retired == 0 { // Shutdown has passed the index
				runtime.Gosched()
			}
			e := l.entry
			s.lock() // whoever ends it cannot give its place back
			go leave(s, l)
			for e.load().phase() != gone {
				runtime.Gosched()
			}
			for range 10_000 { // time for a Shutdown that does not wait
				runtime.Gosched()
			}
			select {
			case <-done:
				t.Error("Shutdown returned before the session was closed")
				s.unlock()
			default:
				s.unlock()
				must(t, <-done)
			}
			if c.closed.Load() == 0 {
				t.Error("Shutdown returned before the session was closed")
			}
			l.Release()
		})
	}
}

func TestHungClosersPushBackAndRecover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const maximum = 10
		s := open(t, WithMaxSessions(maximum), WithClosers(2), WithHungClose(0))
		hang := make(chan struct{})
		add := func() error {
			l, err := s.Add(fmt.Sprint(s.Stats().Created), &conn{close: func() error { <-hang; return nil }}, Origin{})
			l.Release()
			return err
		}
		for range minClosing + maximum {
			must(t, add())
		}
		if st := s.Stats(); st.Closing != minClosing || st.Live != maximum {
			t.Errorf("closing %d, live %d", st.Closing, st.Live)
		}
		wantFull(t, add(), FullError{Max: maximum, Own: maximum, Lacking: LackingClosers})
		wantFull(t, s.Put("x", new(conn), Origin{Source: "other"}), FullError{Max: maximum, Lacking: LackingClosers})
		if got := s.Stats().Refused; got != 2 {
			t.Errorf("%d refused, want 2", got)
		}
		close(hang)
		synctest.Wait()
		must(t, add())
	})
}

func TestAHungCloseHoldsUpNobodyForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithClosers(1), WithHungClose(time.Second))
		hang := make(chan struct{})
		must(t, s.Put("hangs", &conn{close: func() error { <-hang; return nil }}, Origin{}))
		must(t, s.Remove("hangs"))
		c := add(t, s, "next")
		must(t, s.Remove("next"))
		pass(time.Second - 1)
		if c.isClosed(t) {
			t.Error("one closer closed two at a time")
		}
		pass(time.Second/4 + 1)
		if !c.isClosed(t) {
			t.Error("the hung Close still holds up the next one")
		}
		close(hang)
	})
}

func TestClosersBoundHowManyCloseAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithClosers(3), WithHungClose(0))
		var now, most atomic.Int32
		for i := range 10 {
			must(t, s.Put(fmt.Sprint(i), &conn{close: func() error {
				most.Store(max(most.Load(), now.Add(1)))
				<-time.After(time.Second)
				now.Add(-1)
				return nil
			}}, Origin{}))
		}
		for i := range 10 {
			must(t, s.Remove(fmt.Sprint(i)))
		}
		pass(time.Second / 2)
		must(t, s.Reconfigure(WithClosers(5)))
		pass(1)
		if now.Load() != 5 {
			t.Errorf("%d at a time after Reconfigure, want 5", now.Load())
		}
		pass(10 * time.Second)
		if most.Load() != 5 {
			t.Errorf("%d at a time, want at most 5", most.Load())
		}
	})
}

func TestFingerprints(t *testing.T) {
	key := []byte("0123456789abcdef")
	a, b := open(t, WithFingerprintKey(key)), open(t, WithFingerprintKey(key))
	other := open(t)
	f := a.Fingerprint("id")
	if f != b.Fingerprint("id") || f == other.Fingerprint("id") || f == a.Fingerprint("id2") {
		t.Error("a fingerprint is not a function of key and ID alone")
	}
	text, err := f.MarshalText()
	if parsed, err2 := ParseFingerprint(f.String()); parsed != f || err2 != nil || err != nil || string(text) != f.String() || len(text) != 16 {
		t.Errorf("%s reads back as %s, %v", text, parsed, err2)
	}
	for _, bad := range []string{"", "0123", strings.Repeat("x", 16), strings.Repeat("0", 17), strings.Repeat("é", 8)} {
		if got, err := ParseFingerprint(bad); err == nil || got != (Fingerprint{}) {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func TestNames(t *testing.T) {
	for want, got := range map[string]fmt.Stringer{
		"idle": ReasonIdle, "lifetime": ReasonLifetime, "unconfirmed": ReasonUnconfirmed, "capacity": ReasonCapacity,
		"closed": ReasonClosed, "replaced": ReasonReplaced, "killed": ReasonKilled, "shutdown": ReasonShutdown,
		"unknown": Reason(0), "Reason(200)": Reason(200),
		"created": EventCreated, "confirmed": EventConfirmed, "ended": EventEnded, "EventKind(9)": EventKind(9),
		"EvictUnconfirmed": EvictUnconfirmed, "KeepConfirmed": KeepConfirmed, "EvictLRU": EvictLRU, "WhenFull(7)": WhenFull(7),
		"places": LackingPlaces, "bytes": LackingBytes, "closers": LackingClosers, "Lacking(9)": Lacking(9),
	} {
		if got.String() != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
