// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The tests in this file are named after the promises that the design makes,
// and fail when they are broken. Pauses (10) are measured by the benchmarks.

// freeze stops the janitor's timer until the store is empty, or frozen again.
func freeze[S Session](s *Store[S]) {
	l := &s.ledger
	s.lock()
	defer s.unlock()
	if l.timer != nil && l.timer.Stop() {
		l.sweeps.Done()
	}
	l.wakeAt = 0 // as if it fired long before the next deadline
}

// Whoever holds the first lease of a session knows that it takes a place, and
// needs no help of the store to count.
func TestInvariant01Bound(t *testing.T) {
	const maximum, workers, rounds = 5, 16, 150 // rounds: those who get in
	r := new(recorder)
	s := open(t, WithMaxSessions(maximum), WithObserver(r.observe))
	var held, most atomic.Int64
	stop := watch(func() bool {
		st := s.Stats()
		ok := st.Live+st.Retired <= maximum && st.Peak <= maximum && s.Len() <= maximum
		if !ok {
			t.Errorf("live %d, retired %d, peak %d; maximum %d", st.Live, st.Retired, st.Peak, maximum)
		}
		return ok
	})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				id := fmt.Sprint(w, "/", i)
				l, err := s.Add(id, new(conn), Origin{Holds: i%2 == 0})
				for errors.Is(err, ErrFull) {
					runtime.Gosched()
					l, err = s.Add(id, new(conn), Origin{Holds: i%2 == 0})
				}
				if err != nil {
					t.Error(err)
					return
				}
				if n := held.Add(1); n > most.Load() {
					most.Store(n)
				}
				switch i % 5 {
				case 0: // retired, and replaced by one that takes another place
					_ = s.Put(id, new(conn), Origin{})
				case 1: // retired
					_ = s.Remove(id)
				case 2:
					l.Confirm()
				}
				runtime.Gosched()
				held.Add(-1)
				l.Release()
			}
		})
	}
	wg.Wait()
	stop()
	if most.Load() > maximum {
		t.Errorf("%d sessions were leased at a time, maximum %d", most.Load(), maximum)
	}
	if most.Load() < maximum {
		t.Errorf("the test did not fill the store: %d at a time", most.Load())
	}
	must(t, s.Shutdown(t.Context()))
	live := 0
	for _, e := range r.all() { // in the order in which it happened
		switch e.Kind {
		case EventCreated:
			live++
		case EventEnded:
			live--
		case EventConfirmed:
		}
		if live > maximum {
			t.Fatalf("%d live at %v, maximum %d", live, e, maximum)
		}
	}
	if live != 0 {
		t.Errorf("%d never ended", live)
	}
}

func TestInvariant01BoundWithEveryPlaceInUse(t *testing.T) {
	s := open(t, WithMaxSessions(3))
	_, a := addLeased(t, s, "a")
	_, b := addLeased(t, s, "b")
	_, c := addLeased(t, s, "c")
	must(t, s.Remove("a")) // retired: it takes its place until its release
	for name, err := range map[string]error{
		"Add":                     second(s.Add("d", new(conn), Origin{})),
		"Add of the retired ID":   second(s.Add("a", new(conn), Origin{})),
		"Put":                     s.Put("d", new(conn), Origin{}),
		"Put over a busy session": s.Put("b", new(conn), Origin{}),
	} {
		if !errors.Is(err, ErrFull) {
			t.Errorf("%s: got %v, want ErrFull", name, err)
		}
	}
	a.Release()
	_, d := addLeased(t, s, "d")
	wantErr(t, second(s.Add("e", new(conn), Origin{})), ErrFull)
	s.Kill(s.Fingerprint("b")) // gone at once, whoever uses it
	must(t, s.Put("e", new(conn), Origin{}))
	b.Release()
	n := 0
	for range s.All() {
		n++
	}
	if st := s.Stats(); n != 3 || st.Live != 3 || st.Retired != 0 || st.Peak != 3 {
		t.Errorf("%d live ones seen: %+v", n, st)
	}
	c.Release()
	d.Release()
}

func TestInvariant01BoundWhileTheMaximumIsLowered(t *testing.T) {
	const workers, rounds = 8, 400
	s := open(t, WithMaxSessions(8))
	var limit, held atomic.Int64
	limit.Store(8)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range workers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if l, err := s.Add(fmt.Sprint(w, "/", i), new(conn), Origin{}); err == nil {
					held.Add(1)
					runtime.Gosched()
					held.Add(-1)
					l.Release()
				}
				_ = s.Touch(fmt.Sprint(w, "/", i))
			}
		})
	}
	for range rounds {
		for _, n := range []int{2, 8} {
			must(t, s.Reconfigure(WithMaxSessions(n)))
			if n == 8 {
				continue
			}
			// Only those may be above it that were leased at the call and have
			// been since; so once few enough are, nobody is above it.
			for range 100 {
				before := held.Load()
				if st := s.Stats(); before <= 2 && st.Live+st.Retired <= 2 {
					break
				}
				runtime.Gosched()
			}
		}
	}
	must(t, s.Reconfigure(WithMaxSessions(2)))
	close(stop)
	wg.Wait()
	if n := s.Len(); n > 2 {
		t.Errorf("%d live, maximum 2, nobody uses any", n)
	}
}

// misbehaviors are what foreign code may do instead of returning.
var misbehaviors = map[string]func() error{
	"is well":        func() error { return nil },
	"fails":          func() error { return errors.New("no") },
	"panics":         func() error { panic("at the worst moment") },
	"panics on nil":  func() error { panic(nil) },
	"exits":          func() error { runtime.Goexit(); return nil },
	"fails, panics":  func() error { return badError{} },
	"out of range":   func() error { var none []error; return none[len(none)] },
	"panics, panics": func() error { defer func() { panic("again") }(); panic("once") },
}

// badError is an error that cannot be printed.
type badError struct{}

func (badError) Error() string { panic("no text") }

// endings are all ways in which a session leaves. Each returns the ID of the
// session that it ended, and what has to be released.
var endings = map[Reason]func(*testing.T, *Store[*conn], *conn) (string, *Lease[*conn]){
	ReasonIdle: func(t *testing.T, s *Store[*conn], c *conn) (string, *Lease[*conn]) {
		must(t, s.Put("x", c, Origin{}))
		must(t, s.Confirm("x"))
		pass(time.Hour)
		return "x", nil
	},
	ReasonUnconfirmed: func(t *testing.T, s *Store[*conn], c *conn) (string, *Lease[*conn]) {
		must(t, s.Put("x", c, Origin{}))
		pass(time.Hour)
		return "x", nil
	},
	ReasonLifetime: func(t *testing.T, s *Store[*conn], c *conn) (string, *Lease[*conn]) {
		l, err := s.Add("x", c, Origin{})
		must(t, err)
		pass(24 * time.Hour)
		return "x", &l
	},
	ReasonCapacity: func(t *testing.T, s *Store[*conn], c *conn) (string, *Lease[*conn]) {
		must(t, s.Put("x", c, Origin{}))
		must(t, s.Put("another", new(conn), Origin{}))
		return "x", nil
	},
	ReasonClosed: func(t *testing.T, s *Store[*conn], c *conn) (string, *Lease[*conn]) {
		l, err := s.Add("x", c, Origin{})
		must(t, err)
		must(t, s.Remove("x"))
		return "x", &l
	},
	ReasonReplaced: func(t *testing.T, s *Store[*conn], c *conn) (string, *Lease[*conn]) {
		must(t, s.Put("x", c, Origin{}))
		must(t, s.Put("x", new(conn), Origin{}))
		return "x", nil
	},
	ReasonKilled: func(t *testing.T, s *Store[*conn], c *conn) (string, *Lease[*conn]) {
		l, err := s.Add("x", c, Origin{})
		must(t, err)
		s.Kill(s.Fingerprint("x"))
		return "x", &l
	},
	ReasonShutdown: func(t *testing.T, s *Store[*conn], c *conn) (string, *Lease[*conn]) {
		must(t, s.Put("x", c, Origin{}))
		must(t, s.Shutdown(t.Context()))
		return "x", nil
	},
}

func TestInvariant02Once(t *testing.T) {
	for does, closing := range misbehaviors {
		for observes, observing := range misbehaviors {
			t.Run(fmt.Sprintf("Close %s/observer %s", does, observes), func(t *testing.T) {
				for why, end := range endings {
					synctest.Test(t, func(t *testing.T) {
						r := new(recorder)
						s := open(t, WithMaxSessions(1), WithLifetime(24*time.Hour), WithClosers(1), WithObserver(func(e Event) {
							r.observe(e)
							_ = observing()
						}))
						c := &conn{close: closing}
						id, l := end(t, s, c)
						if l != nil {
							l.Release()
						}
						must(t, s.Shutdown(t.Context()))
						if !c.isClosed(t) {
							t.Errorf("%v: never closed", why)
						}
						story := r.story(s.Fingerprint(id))
						story = strings.TrimSuffix(story, " created ended:shutdown") // what replaced it
						if story != "created ended:"+why.String() && story != "created confirmed ended:"+why.String() {
							t.Errorf("%v: events: %s", why, story)
						}
						st := s.Stats()
						if st.Created != st.Closed || st.Created != st.Ended.Total() || st.Ended[why] == 0 {
							t.Errorf("%v: a session was lost, or counted twice: %+v", why, st)
						}
						if failed := st.CloseFailed > 0; failed != (does != "is well") {
							t.Errorf("%v: %d failures counted", why, st.CloseFailed)
						}
					})
				}
			})
		}
	}
}

func TestInvariant02OnceThoughCloseAndObserverHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, r := make(chan struct{}), new(recorder)
		s := open(t, WithClosers(2), WithHungClose(time.Second), WithObserver(func(e Event) {
			<-release
			r.observe(e)
		}))
		var conns []*conn
		for i := range 40 {
			c := new(conn)
			if i%2 == 0 {
				c.close = func() error { <-release; return nil }
			}
			conns = append(conns, c)
			must(t, s.Put(fmt.Sprint(i), c, Origin{}))
		}
		for i := range 40 {
			must(t, s.Remove(fmt.Sprint(i)))
		}
		pass(time.Minute)
		for i, c := range conns {
			if !c.isClosed(t) {
				t.Errorf("Close of session %d was not called, since another one hangs", i)
			}
		}
		if st := s.Stats(); st.Closed != 20 || st.HungClose != 20 {
			t.Errorf("closed %d, hung %d; want 20 and 20", st.Closed, st.HungClose)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var se *ShutdownError
		if err := s.Shutdown(ctx); !errors.As(err, &se) || se.Closing != 20 || se.Killed != 0 || se.Unreported != 80 {
			t.Errorf("got %v, want 20 that are closing and 80 events", err)
		}
		close(release)
		must(t, s.Shutdown(t.Context()))
		for i := range 40 {
			if got := r.story(s.Fingerprint(fmt.Sprint(i))); got != "created ended:closed" || !conns[i].isClosed(t) {
				t.Errorf("session %d: %s", i, got)
			}
		}
	})
}

// All who could end a session try at the same time. One wins.
func TestInvariant02OnceWhoeverEndsIt(t *testing.T) {
	r := new(recorder)
	s := open(t, WithMaxSessions(2), WithObserver(r.observe))
	const rounds = 2000
	conns := make([]*conn, rounds)
	for i := range rounds {
		id := fmt.Sprint(i)
		c, l := addLeased(t, s, id)
		conns[i] = c
		l2 := acquire(t, s, id)
		var wg sync.WaitGroup
		wg.Go(l.Release)
		wg.Go(l2.Release)
		wg.Go(func() { _ = s.Remove(id) })
		wg.Go(func() { s.Kill(s.Fingerprint(id)) })
		wg.Go(func() { _ = s.Put(id, new(conn), Origin{}) })
		wg.Go(func() { _ = s.Put("another", new(conn), Origin{}) })
		wg.Go(func() { _ = s.Confirm(id) })
		wg.Wait()
		_ = s.Remove(id)
	}
	must(t, s.Shutdown(t.Context()))
	for i, c := range conns {
		if !c.isClosed(t) {
			t.Errorf("session %d was never closed", i)
		}
	}
	checkStories(t, r.all())
	if st := s.Stats(); st.Created != st.Closed || st.Created != st.Ended.Total() {
		t.Errorf("a session was lost, or counted twice: %+v", st)
	}
}

// checkStories checks that in events every session is created, then confirmed
// at most once, then ended, and that one ID has one session at a time.
func checkStories(t *testing.T, events []Event) {
	t.Helper()
	last := make(map[Fingerprint]EventKind)
	for _, e := range events {
		before := last[e.Fingerprint]
		if before == EventEnded {
			before = 0
		}
		if ok := e.Kind == EventCreated && before == 0 || e.Kind == EventConfirmed && before == EventCreated ||
			e.Kind == EventEnded && before != 0; !ok {
			t.Errorf("%v after %v", e, last[e.Fingerprint])
		}
		if (e.Reason != 0) != (e.Kind == EventEnded) {
			t.Errorf("%v has reason %v", e.Kind, e.Reason)
		}
		last[e.Fingerprint] = e.Kind
	}
	for f, kind := range last {
		if kind != EventEnded {
			t.Errorf("session %v: the last event is %v", f, kind)
		}
	}
}

func TestInvariant03NeverInUse(t *testing.T) {
	for name, end := range map[string]func(*testing.T, *Store[*conn]){
		"Remove":      func(t *testing.T, s *Store[*conn]) { must(t, s.Remove("x")) },
		"replacement": func(t *testing.T, s *Store[*conn]) { must(t, s.Put("x", new(conn), Origin{})) },
		"lifetime":    func(*testing.T, *Store[*conn]) { pass(24 * time.Hour) },
		"lifetime, found by a lookup": func(t *testing.T, s *Store[*conn]) {
			freeze(s)
			pass(24 * time.Hour)
			wantErr(t, s.Touch("x"), ErrNotFound)
		},
		"idle timeout": func(*testing.T, *Store[*conn]) { pass(2 * time.Hour) },
		"a flood": func(_ *testing.T, s *Store[*conn]) {
			for i := range 100 {
				_ = s.Put(fmt.Sprint(i), new(conn), Origin{})
			}
		},
		"a lower maximum": func(t *testing.T, s *Store[*conn]) { must(t, s.Reconfigure(WithMaxSessions(1))) },
		"a shutdown in time": func(_ *testing.T, s *Store[*conn]) {
			go func() { _ = s.Shutdown(context.Background()) }()
			pass(time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, WithMaxSessions(3), WithLifetime(24*time.Hour))
				add(t, s, "y")
				c, l := addLeased(t, s, "x")
				l2 := acquire(t, s, "x")
				end(t, s)
				l.Release()
				synctest.Wait()
				if c.isClosed(t) || l2.Context().Err() != nil || l2.Session() != c {
					t.Error("closed or canceled while it was leased")
				}
				l2.Release()
				synctest.Wait()
				_, err := s.Peek("x")
				if gone := !errors.Is(err, nil) || s.index.find("x").value != c; gone && !c.isClosed(t) {
					t.Error("not closed by its last release")
				}
			})
		})
	}
}

func TestInvariant03NeverInUseButCanceledFirst(t *testing.T) {
	for name, x := range map[string]struct {
		end func(*Store[*conn])
		why Reason
	}{
		"Kill": {func(s *Store[*conn]) { s.Kill(s.Fingerprint("x")) }, ReasonKilled},
		"Kill of a retired one": {func(s *Store[*conn]) {
			_ = s.Remove("x")
			s.Kill(s.Fingerprint("x"))
		}, ReasonClosed},
		"Shutdown past its deadline": {func(s *Store[*conn]) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			_ = s.Shutdown(ctx)
		}, ReasonShutdown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t)
				var session context.Context
				var cause error
				c := new(conn)
				c.close = func() error {
					cause = context.Cause(session) // what those see who still use it
					return nil
				}
				l, err := s.Add("x", c, Origin{})
				must(t, err)
				session = l.Context()
				x.end(s)
				synctest.Wait()
				if !c.isClosed(t) {
					t.Fatal("not closed at once")
				}
				var ended *EndedError
				if !errors.As(cause, &ended) || ended.Reason != x.why || ended.Fingerprint != s.Fingerprint("x") {
					t.Errorf("when Close ran, the cause of the context was %v", cause)
				}
				l.Release()
				synctest.Wait()
				c.isClosed(t)
			})
		})
	}
}

// No timer runs in this test: the deadline alone decides.
func TestInvariant04NeverStale(t *testing.T) {
	c := new(conn)
	operations := map[string]func(*Store[*conn]) error{
		"Acquire": func(s *Store[*conn]) error {
			l, err := s.Acquire("x")
			l.Release()
			return err
		},
		"Get":     func(s *Store[*conn]) error { return second(s.Get("x")) },
		"Peek":    func(s *Store[*conn]) error { return second(s.Peek("x")) },
		"Touch":   func(s *Store[*conn]) error { return s.Touch("x") },
		"Confirm": func(s *Store[*conn]) error { return s.Confirm("x") },
		"Hold":    func(s *Store[*conn]) error { return s.Hold("x") },
		"Remove":  func(s *Store[*conn]) error { return s.Remove("x") },
		"All": func(s *Store[*conn]) error {
			for range s.All() {
				return nil
			}
			return ErrNotFound
		},
		"Kill": func(s *Store[*conn]) error {
			if s.Kill(s.Fingerprint("x")) {
				return nil
			}
			return ErrNotFound
		},
		"Add": func(s *Store[*conn]) error { // the other way round
			l, err := s.Add("x", new(conn), Origin{})
			l.Release()
			if errors.Is(err, ErrExists) {
				return nil
			}
			return ErrNotFound
		},
		"Put of the same": func(s *Store[*conn]) error {
			before := s.Stats().Created
			if err := s.Put("x", c, Origin{}); err != nil {
				return err
			}
			if s.Stats().Created == before {
				return nil
			}
			return ErrNotFound
		},
	}
	for name, do := range operations {
		for why, x := range map[Reason]struct {
			deadline time.Duration
			prepare  func(*Store[*conn])
		}{
			ReasonIdle:        {time.Minute, func(s *Store[*conn]) { _ = s.Confirm("x") }},
			ReasonUnconfirmed: {time.Second, func(*Store[*conn]) {}},
			ReasonLifetime: {0, func(s *Store[*conn]) {
				_ = s.Reconfigure(WithIdleTimeout(0), WithUnconfirmedTimeouts(0, 0), WithLifetime(time.Hour))
			}},
		} {
			t.Run(fmt.Sprint(name, "/", why), func(t *testing.T) {
				for _, late := range []time.Duration{-1, 0, 1, time.Hour} {
					synctest.Test(t, func(t *testing.T) {
						r := new(recorder)
						s := open(t, WithIdleTimeout(time.Minute), WithUnconfirmedTimeouts(time.Second, time.Second), WithObserver(r.observe))
						c.closed.Store(0)
						must(t, s.Put("x", c, Origin{}))
						x.prepare(s)
						freeze(s)
						deadline := x.deadline
						if why == ReasonLifetime {
							for in := range s.All() {
								deadline = time.Until(in.Expires)
							}
						}
						pass(deadline + late)
						err := do(s)
						if late < 0 && err != nil {
							t.Errorf("before the deadline: %v", err)
						}
						if late >= 0 && !errors.Is(err, ErrNotFound) {
							t.Errorf("%v after the deadline: got %v, want ErrNotFound", late, err)
						}
						if name == "All" && late >= 0 {
							wantErr(t, second(s.Get("x")), ErrNotFound)
						}
						synctest.Wait()
						if late >= 0 {
							if ev, _ := s.Explain(s.Fingerprint("x")); ev.Reason != why {
								t.Errorf("%v after the deadline: ended for %v", late, ev.Reason)
							}
							if !c.isClosed(t) {
								t.Errorf("%v after the deadline: whoever found it did not have it closed", late)
							}
						}
					})
				}
			})
		}
	}
}

// Deadlines must not be missed, nor come early, because calls come and go while
// the janitor looks.
func TestInvariant04NeverEarly(t *testing.T) {
	s := open(t, WithIdleTimeout(2*time.Millisecond), WithMaxSessions(0))
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			id := fmt.Sprint(w)
			for range 2000 {
				started := time.Now()
				l, err := s.Add(id, new(conn), Origin{})
				if err != nil {
					t.Error(err)
					return
				}
				l.Release()
				before := time.Now()
				err = s.Touch(id)
				if took := time.Since(started); err != nil && took < 2*time.Millisecond {
					t.Errorf("absent %v after its start, %v after its release", took, time.Since(before))
				}
				if l, err := s.Acquire(id); err == nil {
					l.Release()
					_ = s.Remove(id)
				}
			}
		})
	}
	wg.Wait()
}

func TestInvariant05BusyIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute), WithUnconfirmedTimeouts(time.Second, 2*time.Second))
		for id, x := range map[string]struct {
			prepare func(*Lease[*conn])
			after   time.Duration
		}{
			"empty":     {func(*Lease[*conn]) {}, time.Second},
			"holding":   {(*Lease[*conn]).Hold, 2 * time.Second},
			"confirmed": {(*Lease[*conn]).Confirm, time.Minute},
		} {
			c, first := addLeased(t, s, id)
			x.prepare(first)
			query := acquire(t, s, id)
			first.Release() // not the last one
			pass(10 * time.Minute)
			wantLive(t, s, id)
			if c.isClosed(t) || query.Context().Err() != nil {
				t.Errorf("%s: a long query lost its session", id)
			}
			released := time.Now()
			query.Release()
			for in := range s.All() {
				if in.Fingerprint == s.Fingerprint(id) && in.LastUsed.Before(released) {
					t.Errorf("%s: the idle clock started %v before the last release", id, released.Sub(in.LastUsed))
				}
			}
			pass(x.after - 1)
			wantLive(t, s, id)
			pass(late(s))
			wantErr(t, second(s.Peek(id)), ErrNotFound)
		}
	})
}

func TestInvariant06Prompt(t *testing.T) {
	for _, timeout := range []time.Duration{time.Millisecond, 7*time.Millisecond + 13, time.Second - 1, time.Minute + 333*time.Microsecond, 100 * time.Hour} {
		t.Run(timeout.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				<-time.After(123_456 * time.Nanosecond)
				r := new(recorder)
				s := open(t, WithIdleTimeout(timeout), WithObserver(r.observe))
				const n = 7
				var closed [n]time.Time
				for i := range n { // with other deadlines between, before and after
					<-time.After(timeout/10 + 1)
					must(t, s.Put(fmt.Sprint(i), &conn{close: func() error { closed[i] = time.Now(); return nil }}, Origin{}))
				}
				must(t, s.Touch("3"))
				must(t, s.Remove("0"))
				deadlines := make(map[Fingerprint]time.Time)
				for in := range s.All() {
					deadlines[in.Fingerprint] = in.Expires
				}
				pass(2 * timeout)
				check := func(what string, i int, at time.Time) {
					if late := at.Sub(deadlines[s.Fingerprint(fmt.Sprint(i))]); late < 0 || late >= Tick {
						t.Errorf("session %d %s %v after its deadline", i, what, late)
					}
				}
				for i := 1; i < n; i++ {
					check("was closed", i, closed[i])
					ev, _ := s.Explain(s.Fingerprint(fmt.Sprint(i)))
					check("left", i, ev.At)
				}
				if s.Len() != 0 {
					t.Errorf("%d are left", s.Len())
				}
			})
		})
	}
}

func TestInvariant06PromptForNewcomersWhoEndEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour), WithUnconfirmedTimeouts(time.Second, time.Minute))
		addConfirmed(t, s, "hour")
		pass(2 * time.Second) // from now on the janitor sleeps for an hour
		l, err := s.Add("minute", new(conn), Origin{Holds: true})
		must(t, err)
		l.Release()
		second := add(t, s, "second")
		pass(time.Second + late(s))
		if !second.isClosed(t) || s.Len() != 2 {
			t.Error("who was filed last, and ends first, is late")
		}
		pass(time.Minute - time.Second)
		if s.Len() != 1 {
			t.Error("who ends next is late")
		}
		pass(time.Hour - time.Minute - 2*time.Second)
		if s.Len() != 0 {
			t.Error("who ends last is late")
		}
	})
}

func TestInvariant06PromptAsSoonAsACloserIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute), WithClosers(1), WithHungClose(0))
		slow := &conn{close: func() error { <-time.After(10 * time.Second); return nil }}
		must(t, s.Put("slow", slow, Origin{}))
		pass(time.Second)
		next := add(t, s, "next")
		pass(59 * time.Second)
		if !slow.isClosed(t) {
			t.Error("Close did not start on time")
		}
		pass(time.Second)
		if s.Len() != 0 || next.isClosed(t) {
			t.Error("the closer that is busy held up the end, or two ran at a time")
		}
		pass(9*time.Second - 1)
		if next.isClosed(t) {
			t.Error("two closers ran")
		}
		pass(1)
		if !next.isClosed(t) {
			t.Error("Close did not start when the closer was free")
		}
	})
}

// callBack calls everything that foreign code may call.
func callBack(s *Store[*conn], id string) {
	l, err := s.Add(id+"'", new(conn), Origin{})
	if err == nil {
		l.Confirm()
		l.Hold()
		_ = l.Context()
		l.Release()
	}
	if l, err := s.Acquire(id + "'"); err == nil {
		defer l.Release()
	}
	_ = s.Put(id+"''", new(conn), Origin{})
	_ = s.Put(id+"''", new(conn), Origin{})
	_, _ = s.Get(id)
	_, _ = s.Peek(id)
	_ = s.Touch(id)
	_ = s.Confirm(id)
	_ = s.Hold(id)
	_ = s.Remove(id + "''")
	s.Kill(s.Fingerprint(id + "'"))
	for range s.All() {
		_ = s.Stats()
	}
	_, _ = s.Len(), fmt.Sprint(s)
	_, _ = s.Explain(s.Fingerprint(id))
	_ = s.Reconfigure(WithIdleTimeout(time.Hour + time.Duration(s.Len())*time.Second))
}

// handler is a log handler that calls back.
type handler struct {
	slog.Handler
	f func()
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	h.f()
	return h.Handler.Handle(ctx, r)
}

func (h handler) Enabled(ctx context.Context, l slog.Level) bool {
	h.f()
	return h.Handler.Enabled(ctx, l)
}

// A deadlock on a mutex would hang a bubble, so this runs in real time and
// gives up after some.
func TestInvariant08NoForeignCodeUnderALock(t *testing.T) {
	var s *Store[*conn]
	var events, closes, lines atomic.Int32
	s, err := New[*conn](WithMaxSessions(10), WithLifetime(0), WithObserver(func(Event) {
		if n := events.Add(1); n < 30 {
			callBack(s, fmt.Sprint("observer", n))
		}
	}), WithLogger(slog.New(handler{slog.DiscardHandler, func() {
		if n := lines.Add(1); n < 10 {
			callBack(s, fmt.Sprint("log", n))
		}
	}})))
	must(t, err) // not open: its cleanup would hang as well
	callingBack := func() *conn {
		return &conn{close: func() error {
			if n := closes.Add(1); n < 40 {
				callBack(s, fmt.Sprint("close", n))
			}
			return badError{}
		}}
	}
	done := make(chan error)
	go func() {
		for i := range 20 { // every way out, with whoever stands in it
			id := fmt.Sprint(i)
			_ = s.Put(id, callingBack(), Origin{})
			if l, err := s.Acquire(id); err == nil {
				_ = s.Put(id, callingBack(), Origin{})
				l.Release()
			}
			if i%3 == 0 {
				_ = s.Remove(id)
			}
			if i%3 == 1 {
				s.Kill(s.Fingerprint(id))
			}
		}
		_ = s.Put("last", callingBack(), Origin{})
		_ = s.Reconfigure(WithMaxSessions(1))
		for events.Load() < 30 || closes.Load() < 5 {
			runtime.Gosched()
		}
		done <- s.Shutdown(context.Background())
	}()
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<20)
		t.Fatalf("somebody waits for somebody:\n%s", buf[:runtime.Stack(buf, true)])
	}
	if closes.Load() == 0 || lines.Load() == 0 {
		t.Errorf("%d closes, %d lines: the test called nobody", closes.Load(), lines.Load())
	}
}

// noTimer says whether the store's timer is stopped.
func noTimer[S Session](s *Store[S]) bool {
	s.lock()
	defer s.unlock()
	if s.ledger.timer == nil {
		return true
	}
	armed := s.ledger.timer.Stop()
	if armed {
		s.ledger.sweeps.Done()
	}
	return !armed
}

// storeGoroutines counts the goroutines that the stores of this bubble and their
// pools have started. Those of earlier tests may be about to leave.
func storeGoroutines() (n int) {
	all := make([]byte, 1<<20)
	stacks := strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n")
	bubble := regexp.MustCompile(`synctest bubble \d+\b`).FindString(stacks[0]) // ours comes first
	for _, stack := range stacks {
		head, _, _ := strings.Cut(stack, "\n")
		if strings.Contains(head, bubble) && (strings.Contains(stack, "layover/janitor") || strings.Contains(stack, ").sweep(")) {
			n++
		}
	}
	return n
}

func TestInvariant09Quiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		quiet := func(when string, s *Store[*conn]) {
			t.Helper()
			synctest.Wait()
			if n := storeGoroutines(); n > 0 {
				t.Errorf("%s: %d goroutines", when, n)
			}
			if !noTimer(s) {
				t.Errorf("%s: a timer is armed", when)
			}
		}
		r := new(recorder)
		s := open(t, WithIdleTimeout(time.Minute), WithLifetime(time.Hour), WithMaxLeaseAge(0), WithObserver(r.observe))
		quiet("new", s)
		hang := make(chan struct{})
		must(t, s.Put("a", &conn{close: func() error { <-hang; return nil }}, Origin{}))
		must(t, s.Remove("a"))
		synctest.Wait()
		if storeGoroutines() != 1 {
			t.Error("the test cannot see goroutines")
		}
		close(hang)
		add(t, s, "a")
		must(t, s.Remove("a"))
		quiet("removed", s)
		add(t, s, "a")
		must(t, s.Put("a", new(conn), Origin{}))
		s.Kill(s.Fingerprint("a"))
		quiet("killed", s)
		_, l := addLeased(t, s, "a")
		must(t, s.Remove("a"))
		quiet("retired", s)
		l.Release()
		quiet("released", s)
		add(t, s, "a")
		pass(time.Hour)
		quiet("expired", s)
		must(t, s.Reconfigure(WithIdleTimeout(0), WithLifetime(0)))
		add(t, s, "a")
		quiet("nothing ever expires", s)
		must(t, s.Reconfigure(WithIdleTimeout(time.Minute)))
		if noTimer(s) {
			t.Error("the test cannot see timers")
		}
		must(t, s.Shutdown(t.Context()))
		quiet("shut down", s)
	})
}

// A sweep that is held up before it starts must not make the store forget the
// timer that was armed since.
func TestInvariant09QuietAfterALateSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour))
		add(t, s, "a")
		if !s.startSweep() { // as one whose timer fired before this one was armed
			t.Fatal("somebody else sweeps")
		}
		must(t, s.Remove("a"))
		s.lock()
		s.endSweep()
		s.unlock()
		if !noTimer(s) {
			t.Error("an empty store has a timer")
		}
		add(t, s, "b")
		if !s.startSweep() {
			t.Fatal("somebody else sweeps")
		}
		start := time.Now()
		go func() {
			s.lock()
			s.endSweep()
			s.unlock()
		}()
		must(t, s.Shutdown(t.Context()))
		if took := time.Since(start); took > 0 {
			t.Errorf("the shutdown took %v", took)
		}
	})
}

func TestInvariant09QuietUntilTheEarliestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour), WithLifetime(24*time.Hour))
		var wakes atomic.Int32
		s.ledger.timer = time.AfterFunc(never, func() {
			wakes.Add(1)
			s.sweep()
		})
		s.ledger.timer.Stop()
		for i := range 1000 {
			add(t, s, fmt.Sprint(i))
		}
		for range 59 {
			pass(time.Minute)
			for i := range 1000 { // hits wake nobody
				must(t, s.Touch(fmt.Sprint(i)))
			}
		}
		if n := wakes.Load(); n != 0 {
			t.Errorf("woke %d times before the earliest deadline", n)
		}
		pass(time.Hour - 1)
		if s.Len() != 1000 {
			t.Errorf("%d are left", s.Len())
		}
		pass(time.Second + Tick) // touched by a coarse clock
		if s.Len() != 0 {
			t.Errorf("%d are left after the deadline", s.Len())
		}
		if n := wakes.Load(); n > 5 {
			t.Errorf("woke %d times for one deadline that was moved", n)
		}
	})
}

// A hung Close is all that a shutdown leaves behind, and it says so.
func TestInvariant09QuietButForHungCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithClosers(2))
		hang := make(chan struct{})
		for i := range 20 {
			c := new(conn)
			if i < 3 {
				c.close = func() error { <-hang; return nil }
			}
			must(t, s.Put(fmt.Sprint(i), c, Origin{}))
		}
		_, l := addLeased(t, s, "busy")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var se *ShutdownError
		if err := s.Shutdown(ctx); !errors.As(err, &se) {
			t.Fatalf("got %v", err)
		}
		pass(0)
		cancel()
		if n := storeGoroutines(); n != 3 {
			t.Errorf("%d goroutines are left for 3 hung Close calls", n)
		}
		if st := s.Stats(); st.Closing != 3 || st.Closed != 18 {
			t.Errorf("closing %d, closed %d", st.Closing, st.Closed)
		}
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Shutdown(canceled); !errors.As(err, &se) || se.Closing != 3 || se.Killed != 0 {
			t.Errorf("the second shutdown: %v", err)
		}
		close(hang)
		l.Release()
		must(t, s.Shutdown(t.Context()))
		synctest.Wait()
		if n := storeGoroutines(); n > 0 {
			t.Errorf("%d goroutines are left", n)
		}
	})
}

// secret is an ID that nothing may print, and secretKey a fingerprint key.
const (
	secret    = `token-"4f9c"-5b1e`
	secretKey = "K3y-0f-all-fingerprints"
)

// printed collects how values print, under every verb.
type printed struct{ strings.Builder }

func (p *printed) see(values ...any) {
	for _, v := range values {
		// Fields that fmt may not call methods of are printed by reflection.
		for _, v := range []any{v, struct{ v any }{v}} {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				fmt.Fprintf(p, verb+"\n", v)
			}
		}
		text, err := json.Marshal(v)
		fmt.Fprintln(p, string(text), err)
	}
}

// owner is a program's struct with a store in it.
type owner struct{ store *Store[*conn] }

func TestInvariant11Secret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, out, r := new(syncBuffer), new(printed), new(recorder)
		s := open(t, WithIdleTimeout(time.Minute), WithMaxSessions(1), WithFingerprintKey([]byte(secretKey)), WithObserver(func(e Event) {
			r.observe(e)
			panic(fmt.Sprintf("observer: %+v", e))
		}), WithLogger(slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))), WithHungClose(time.Second))

		for _, failure := range []func() error{
			func() error { return fmt.Errorf("cannot close %s", secret) },
			func() error { return fmt.Errorf("cannot close %q", secret) },
			func() error { panic("cannot close " + secret) },
			func() error { panic(fmt.Errorf("cannot close %q", secret)) },
			func() error { panic([]string{secret}) },
			func() error { panic(map[string]int{secret: 1}) },
			func() error { <-time.After(time.Hour); return errors.New(secret) },
		} {
			l, err := s.Add(secret, &conn{close: failure}, Origin{})
			must(t, err)
			ctx := l.Context()
			out.see(&l, s, owner{s}, &owner{s}, s.Stats(), l.Fingerprint(), ctx,
				second(s.Add(secret, new(conn), Origin{})), s.Put(secret, new(conn), Origin{}))
			for in := range s.All() {
				out.see(in)
			}
			must(t, s.Remove(secret))
			out.see(&l, s, ctx)
			l.Release()
			pass(2 * time.Hour)
			ev, _ := s.Explain(s.Fingerprint(secret))
			out.see(&l, s, ev, ev.String(), ctx, context.Cause(ctx), s.Touch(secret), second(s.Acquire(secret)))
		}
		add(t, s, secret)
		add(t, s, "another") // evicts it
		add(t, s, secret)
		pass(time.Hour)
		l, err := s.Add(secret, new(conn), Origin{})
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		out.see(s.Shutdown(ctx), s.Reconfigure(WithFingerprintKey([]byte(secretKey[1:]))), second(New[*conn](WithFingerprintKey([]byte(secretKey[:8])))))
		l.Release()
		must(t, s.Shutdown(t.Context()))
		out.see(s.Touch(secret), s)
		for _, e := range r.all() {
			out.see(e, e.String())
		}

		for name, text := range map[string]string{"a printed value": out.String(), "the log": log.String()} {
			for line := range strings.Lines(text) {
				for _, form := range []string{
					secret, "4f9c", fmt.Sprintf("%x", secret), secretKey[:8], fmt.Sprintf("%x", secretKey), strings.Trim(fmt.Sprintf("%d", []byte(secretKey)), "[]"),
				} {
					if i := strings.Index(line, form); i >= 0 {
						t.Errorf("%s tells a secret: %.60q ... %.90q", name, line, line[max(0, i-30):])
						break
					}
				}
			}
			if !strings.Contains(text, s.Fingerprint(secret).String()) {
				t.Errorf("no fingerprint in %s", name)
			}
		}
		for _, want := range []string{"closing a session failed", "closing a session hangs", "observer failed", "session ended", "capacity", "killed in use"} {
			if !strings.Contains(log.String()+out.String(), want) {
				t.Errorf("the test did not see %q", want)
			}
		}
	})
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// The fingerprint in the client's error is the one in the server's log.
func TestInvariant11SecretButTheSameFingerprintForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, r := new(syncBuffer), new(recorder)
		s := open(t, WithLogger(slog.New(slog.NewTextHandler(log, nil))), WithObserver(r.observe))
		c := &conn{close: func() error { return errors.New("no") }}
		must(t, s.Put(secret, c, Origin{}))
		must(t, s.Remove(secret))
		synctest.Wait()
		f := s.Fingerprint(secret).String()
		var nf *NotFoundError
		if !errors.As(s.Touch(secret), &nf) || !strings.Contains(nf.Error(), f) {
			t.Errorf("not in %v", nf)
		}
		if strings.Count(log.String(), "session="+f) != 2 {
			t.Errorf("not in every line:\n%s", log)
		}
		for _, e := range r.all() {
			if !strings.Contains(e.String(), f) {
				t.Errorf("not in %v", e)
			}
		}
	})
}

// wild is a session that does what it wants.
type wild struct {
	any
	f func() error
}

func (w wild) Close() error { return w.f() }

func TestInvariant12NoPanicFromOutside(t *testing.T) {
	ids := []string{"", "\x00", "a", strings.Repeat("x", 1<<14), "\xff\xfe", "☃", "%s%n", "\n", `"`}
	var count atomic.Int32
	s := openOf[Session](t, WithMaxSessions(3), WithClosers(2), WithObserver(func(Event) {
		switch count.Add(1) % 3 {
		case 0:
			panic(badError{})
		case 1:
			runtime.Goexit()
		}
	}), WithLogger(slog.New(handler{slog.DiscardHandler, func() {
		if count.Add(1)%2 == 0 {
			panic("log")
		}
		runtime.Goexit()
	}})))
	for does, f := range misbehaviors {
		for _, inside := range []any{nil, 1, []int{1}, map[string]int{}, func() {}, [1]any{[]int{}}, struct{ x any }{func() {}}} {
			for _, id := range ids {
				v := wild{inside, f}
				for _, err := range []error{
					s.Put(id, v, Origin{}), s.Put(id, v, Origin{}), s.Put(id, &v, Origin{}), s.Put(id, &v, Origin{}), s.Put(id, wild{1, f}, Origin{}),
				} {
					if err != nil && id != "" && !errors.Is(err, ErrFull) {
						t.Fatalf("Close %s: %v", does, err)
					}
				}
				l, _ := s.Acquire(id)
				_ = s.Confirm(id)
				if len(id)%2 == 0 {
					_ = s.Remove(id)
				}
				_, _ = s.Get(id)
				l.Release()
				s.Kill(s.Fingerprint(id))
			}
		}
	}
	for range 1000 {
		if s.Stats().Closing == 0 {
			break
		}
		runtime.Gosched()
	}
	var zero Lease[Session]
	zero.Release()
	zero.Confirm()
	zero.Hold()
	_, _, _ = zero.Session(), zero.Context(), zero.Fingerprint()
	if got, err := ParseFingerprint(string(slices.Repeat([]byte{0xff}, 16))); err == nil {
		t.Errorf("read %v", got)
	}
}

// What fails is described for the log, which may fail in turn.
func TestInvariant12NoPanicFromOutsideWhileItIsLogged(t *testing.T) {
	for does, f := range misbehaviors {
		t.Run(does, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				seen := new(recorder)
				s := open(t, WithLogger(slog.New(slog.NewTextHandler(new(syncBuffer), nil))), WithObserver(func(e Event) {
					seen.observe(e)
					if err := f(); err != nil {
						panic(err)
					}
				}))
				for range 2 {
					must(t, s.Put("some-long-id", &conn{close: f}, Origin{}))
					must(t, s.Remove("some-long-id"))
					pass(time.Minute)
				}
				if st := s.Stats(); st.Closed != 2 || st.Closing != 0 || len(seen.all()) != 4 {
					t.Errorf("%d events: %+v", len(seen.all()), st)
				}
			})
		})
	}
}
