// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// addEnding files a new session with an end of its own.
func addEnding(t testing.TB, s *Store[*conn], id string, end time.Time) (*conn, *Lease[*conn]) {
	t.Helper()
	c := new(conn)
	l, err := s.Add(id, c, Origin{Expires: end})
	must(t, err)
	return c, &l
}

// An end of its own comes to the nanosecond, whoever asks, whether the session is
// in use or not, and without the janitor.
func TestInvariant04NeverStaleNorEarlyAtAnEndOfItsOwn(t *testing.T) {
	const end = 50*time.Minute + 123_456_789*time.Nanosecond
	long := strings.Repeat("x", 100)
	for name, do := range map[string]func(*Store[*conn], string) error{
		"Acquire": func(s *Store[*conn], id string) error {
			l, err := s.Acquire(id)
			l.Release()
			return err
		},
		"Get":    func(s *Store[*conn], id string) error { return second(s.Get(id)) },
		"Peek":   func(s *Store[*conn], id string) error { return second(s.Peek(id)) },
		"Touch":  func(s *Store[*conn], id string) error { return s.Touch(id) },
		"Remove": func(s *Store[*conn], id string) error { return s.Remove(id) },
		"Kill": func(s *Store[*conn], id string) error {
			if s.Kill(s.Fingerprint(id)) {
				return nil
			}
			return ErrNotFound
		},
		"All": func(s *Store[*conn], id string) error {
			for in := range s.All() {
				if in.Fingerprint == s.Fingerprint(id) {
					return nil
				}
			}
			_ = s.Touch(id) // for who has it end
			return ErrNotFound
		},
	} {
		for _, id := range []string{"x", long} {
			for _, busy := range []bool{false, true} {
				if busy && name == "Kill" {
					continue // which finds a session in use anyway
				}
				for _, moved := range []time.Duration{0, -time.Minute, time.Minute} {
					for _, late := range []time.Duration{-1, 0, 1, time.Hour} {
						synctest.Test(t, func(t *testing.T) {
							s := open(t, WithLifetime(24*time.Hour))
							start := time.Now()
							c, l := addEnding(t, s, id, start.Add(end))
							add(t, s, "other") // keeps the clock going
							if moved != 0 && !l.SetExpires(start.Add(end+moved)) {
								t.Fatal("was not moved")
							}
							if !busy {
								l.Release()
							}
							freeze(s)
							pass(end + moved + late - time.Millisecond)
							_ = s.Touch("other") // starts the clock
							_ = s.Touch("other")
							pass(time.Millisecond)
							err := do(s, id)
							if late < 0 {
								wantErr(t, err, nil)
							} else {
								wantErr(t, err, ErrNotFound)
								if ev, _ := s.Explain(s.Fingerprint(id)); ev.Reason != ReasonLifetime || ev.InUse != busy {
									t.Errorf("explained as %v", ev)
								}
								synctest.Wait()
								if c.isClosed(t) == busy {
									t.Errorf("in use: %v, closed: %v", busy, !busy)
								}
							}
							l.Release()
							synctest.Wait()
							if late >= 0 && !c.isClosed(t) {
								t.Error("was not closed")
							}
							if t.Failed() {
								t.Logf("%s, in use: %v, moved by %v, %v late", name, busy, moved, late)
							}
						})
					}
				}
			}
		}
	}
}

// Nobody need come for it to end.
func TestInvariant06PromptAtAnEndOfItsOwn(t *testing.T) {
	const end = 10*time.Minute + 333*time.Microsecond
	for _, timeouts := range [][]Option{
		{WithIdleTimeout(0)},
		{WithIdleTimeout(time.Hour)},
		{WithIdleTimeout(time.Hour), WithLifetime(time.Hour)},
		{WithIdleTimeout(10*time.Minute + time.Second), WithUnconfirmedTimeouts(0, 0)},
	} {
		for _, busy := range []bool{false, true} {
			for _, moved := range []time.Duration{0, -9*time.Minute - 7, -time.Microsecond, time.Microsecond, 500 * time.Millisecond} {
				synctest.Test(t, func(t *testing.T) {
					<-time.After(123_456 * time.Nanosecond)
					s := open(t, timeouts...)
					at := time.Now().Add(end)
					_, l := addEnding(t, s, "x", at)
					if !busy {
						l.Release()
					}
					pass(time.Second)
					if at = at.Add(moved); moved != 0 {
						other := acquire(t, s, "x")
						if !other.SetExpires(at) {
							t.Fatal("was not moved")
						}
						other.Release()
					}
					for in := range s.All() {
						if !in.Expires.Equal(at) {
							t.Errorf("moved by %v: All says %v, want %v", moved, in.Expires, at)
						}
					}
					pass(time.Until(at) - 1)
					if s.Len() != 1 {
						t.Errorf("moved by %v: ended early", moved)
					}
					pass(1 + Tick)
					if s.Len() != 0 {
						t.Errorf("moved by %v: is still there", moved)
					}
					ev, _ := s.Explain(s.Fingerprint("x"))
					if late := ev.At.Sub(at); ev.Reason != ReasonLifetime || ev.InUse != busy || late < 0 || late >= Tick {
						t.Errorf("moved by %v: left %v late: %v", moved, late, ev)
					}
					if retired := s.Stats().Retired; (retired == 1) != busy {
						t.Errorf("%d retired", retired)
					}
					l.Release()
				})
			}
		}
	}
}

func TestTheEarlierOfLifetimeAndOwnEndHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour), WithLifetime(10*time.Hour))
		start := time.Now()
		_, before := addEnding(t, s, "before", start.Add(8*time.Hour))
		_, after := addEnding(t, s, "after", start.Add(12*time.Hour))
		_, never := addEnding(t, s, "never", start.AddDate(1000, 0, 0))
		pass(8*time.Hour - 1)
		wantLive(t, s, "before", "after", "never")
		pass(1 + Tick)
		wantGone(t, s, "before", ReasonLifetime)
		wantLive(t, s, "after", "never")
		pass(2 * time.Hour)
		wantGone(t, s, "after", ReasonLifetime)
		wantGone(t, s, "never", ReasonLifetime)
		for _, l := range []*Lease[*conn]{before, after, never} {
			l.Release()
		}
	})
}

// An idle timeout that comes first is still the reason.
func TestTheIdleTimeoutHoldsBesideAnOwnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute))
		_, l := addEnding(t, s, "a", time.Now().Add(time.Hour))
		l.Confirm()
		l.Release()
		pass(time.Minute + late(s))
		wantGone(t, s, "a", ReasonIdle)
	})
}

func TestReconfigureLeavesOwnEndsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour))
		end := time.Now().Add(30 * time.Minute)
		_, idle := addEnding(t, s, "idle", end)
		idle.Release()
		_, busy := addEnding(t, s, "busy", end)
		for _, o := range [][]Option{
			{WithIdleTimeout(0)}, {WithIdleTimeout(2 * time.Hour), WithLifetime(20 * time.Hour)}, {WithLifetime(0)},
			{WithMaxLeaseAge(time.Hour)}, {WithIdleTimeout(0)},
		} {
			must(t, s.Reconfigure(o...))
			pass(time.Minute)
		}
		pass(time.Until(end) - 1)
		if s.Len() != 2 {
			t.Errorf("%d are left before their end, want 2", s.Len())
		}
		pass(1 + Tick)
		if s.Len() != 0 {
			t.Errorf("%d are left after their end", s.Len())
		}
		wantGone(t, s, "idle", ReasonLifetime)
		wantGone(t, s, "busy", ReasonLifetime)
		busy.Release()
	})
}

func TestAnEndThatHasPassedIsInvalid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		c := new(conn)
		now := time.Now()
		for _, at := range []time.Time{now, now.Add(-1), now.Add(-time.Hour), now.AddDate(-1000, 0, 0)} {
			o := Origin{Expires: at}
			wantErr(t, second(s.Add("a", c, o)), ErrInvalid)
			wantErr(t, s.Put("a", c, o), ErrInvalid)
		}
		if st := s.Stats(); st.Created != 0 || c.isClosed(t) {
			t.Errorf("stored, or closed: %+v", st)
		}
		must(t, s.Put("a", c, Origin{Expires: time.Now().Add(1)}))
		wantLive(t, s, "a")
		must(t, s.Put("a", c, Origin{Expires: time.Now().Add(-1)})) // a touch, as it is the same
		pass(1)
		wantGone(t, s, "a", ReasonLifetime)
	})
}

// What the wall says counts, not when the store was made by it.
func TestAnOwnEndMayBeATimeOfTheWallClockAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		_, l := addEnding(t, s, "a", time.Unix(time.Now().Unix()+60, 0).UTC())
		pass(time.Minute - 1)
		wantLive(t, s, "a")
		pass(1)
		wantGone(t, s, "a", ReasonLifetime)
		l.Release()
	})
}

func TestSetExpiresIsForSessionsThatWereBornWithAnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		in := func(d time.Duration) time.Time { return time.Now().Add(d) }
		_, without := addLeased(t, s, "without")
		_, l := addEnding(t, s, "a", in(time.Minute))
		_, dead := addEnding(t, s, "dead", in(time.Minute))
		s.Kill(s.Fingerprint("dead"))
		_, retired := addEnding(t, s, "retired", in(time.Minute))
		must(t, s.Remove("retired"))
		released := acquire(t, s, "a")
		released.Release()
		for name, l := range map[string]*Lease[*conn]{"without": without, "dead": dead, "retired": retired, "released": released, "zero": {}} {
			if l.SetExpires(in(time.Second)) || l.SetExpires(time.Time{}) || l.SetExpires(in(-time.Second)) {
				t.Errorf("%s: says that the end was moved", name)
			}
		}
		pass(2 * time.Second)
		wantLive(t, s, "without", "a")
		if !l.SetExpires(in(time.Hour)) || !l.SetExpires(in(2*time.Hour)) {
			t.Error("says that the end was not moved")
		}
		for _, l := range []*Lease[*conn]{without, l, dead, retired} {
			l.Release()
		}
	})
}

// It has ended, whether or not anybody has noticed.
func TestSetExpiresRevivesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		_, l := addEnding(t, s, "a", time.Now().Add(time.Minute))
		freeze(s)
		pass(time.Minute)
		if l.SetExpires(time.Now().Add(time.Hour)) {
			t.Error("an end that has passed was moved")
		}
		wantGone(t, s, "a", ReasonLifetime)
		l.Release()
	})
}

func TestSetExpiresToATimeThatHasPassedRetiresAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		c, l := addEnding(t, s, "a", time.Now().Add(time.Minute))
		pass(time.Second)
		if !l.SetExpires(time.Now().Add(-time.Hour)) {
			t.Error("says that the end was not moved")
		}
		if st := s.Stats(); st.Live != 0 || st.Retired != 1 || st.Ended[ReasonLifetime] != 1 {
			t.Errorf("not retired: %+v", st)
		}
		if l.Context().Err() != nil || c.isClosed(t) {
			t.Error("was ended under its user")
		}
		l.Release()
		synctest.Wait()
		if !c.isClosed(t) {
			t.Error("was not closed")
		}
	})
}

func TestSetExpiresToNeverAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(0))
		_, l := addEnding(t, s, "a", time.Now().Add(time.Minute))
		if !l.SetExpires(time.Time{}) {
			t.Error("says that the end was not moved")
		}
		pass(1000 * time.Hour)
		for in := range s.All() {
			if !in.Expires.IsZero() {
				t.Errorf("All says %v", in.Expires)
			}
		}
		if !l.SetExpires(time.Now().Add(time.Minute)) {
			t.Error("says that the end was not moved")
		}
		l.Release()
		pass(time.Minute - 1)
		wantLive(t, s, "a")
		pass(1 + Tick)
		if s.Len() != 0 {
			t.Error("is still there")
		}
	})
}

// A successor has its own end or none, not that of whom it replaced.
func TestAnOwnEndIsNotInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		must(t, s.Put("a", new(conn), Origin{Expires: time.Now().Add(time.Minute)}))
		must(t, s.Put("a", new(conn), Origin{}))
		must(t, s.Put("b", new(conn), Origin{}))
		must(t, s.Put("b", new(conn), Origin{Expires: time.Now().Add(time.Minute)}))
		pass(time.Minute + Tick)
		wantLive(t, s, "a")
		wantGone(t, s, "b", ReasonLifetime)
	})
}

func TestSetExpiresDoesNotPutOffTheEndOfALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxLeaseAge(time.Hour))
		c, l := addEnding(t, s, "a", time.Now().Add(time.Hour))
		for range 5 {
			pass(30 * time.Minute)
			l.SetExpires(time.Now().Add(time.Hour))
		}
		if !c.isClosed(t) {
			t.Error("a lease of an hour is two and a half hours old")
		}
		l.Release()
	})
}

// Every call may tell when its token ends.
func TestSetExpiresToTheSameTimeTakesNoMutex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		end := time.Now().Add(time.Hour)
		_, l := addEnding(t, s, "a", end)
		told := func(want time.Time) {
			s.lock()
			defer s.unlock()
			if !l.SetExpires(want) { // would wait for ever
				t.Error("says that it does not hold")
			}
		}
		told(end)
		told(end.UTC())
		l.SetExpires(end.Add(1))
		told(end.Add(1))
		l.Release()
	})
}

// A lookup that saw the old end pass does not end a session whose end was moved
// in time.
func TestInvariant04NeverEarlyThoughItsOwnEndMoves(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				for i := range 4 {
					_ = s.Touch(fmt.Sprint(i))
				}
			}
		})
	}
	for i := range 20_000 {
		id := fmt.Sprint(i % 4)
		l, err := s.Add(id, new(conn), Origin{Expires: time.Now().Add(time.Duration(i%50) * time.Microsecond / 10)})
		if err != nil {
			continue // it came too late
		}
		moved := l.SetExpires(time.Now().Add(time.Hour))
		err = s.Touch(id)
		if moved && err != nil {
			t.Errorf("its end was moved, but it has ended: %v", err)
		}
		if !moved && err == nil {
			t.Error("it has not ended, but its end was not moved")
		}
		l.Release()
		_ = s.Remove(id)
	}
	cancel()
	wg.Wait()
}

// Without timeouts, too, the coarse clock is not relied upon near an own end.
func TestInvariant04NeverStaleAtAnOwnEndThoughTheClockIsHeldUp(t *testing.T) {
	for _, idle := range []time.Duration{0, 4 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			s := open(t, WithIdleTimeout(idle))
			_, l := addEnding(t, s, "a", time.Now().Add(time.Minute))
			add(t, s, "other")
			pass(40 * time.Second)
			must(t, s.Touch("other")) // starts the clock
			s.clock.timer.Stop()
			freeze(s)
			pass(20*time.Second - 1)
			must(t, s.Touch("a"))
			pass(1)
			wantErr(t, second(s.Get("a")), ErrNotFound)
			wantErr(t, second(s.Acquire("a")), ErrNotFound)
			wantLive(t, s, "other")
			l.Release()
		})
	}
}

// Somebody finds a session past its own end by settings that have changed when it comes
// to ending it. What is above the new maximum still leaves as it is released.
func TestWhoEndsASessionGoesByTheSettingsOfThatMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(8))
		for _, id := range []string{"a", "b", "c"} {
			_, l := addLeased(t, s, id)
			defer l.Release()
		}
		_, l := addEnding(t, s, "ends", time.Now().Add(time.Minute))
		l.Release()
		lower, err := s.config.Load().with([]Option{WithMaxSessions(2)})
		must(t, err)
		s.lock()
		s.wake(never) // the janitor comes later
		pass(time.Minute)
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = s.Get("ends") })
		for range 1000 { // it comes as far as the mutex
			runtime.Gosched()
		}
		s.config.Store(lower) // as Reconfigure does
		s.ledger.over.Store(true)
		s.unlock()
		wg.Wait()
		must(t, s.Check())
		wantLive(t, s, "a", "b", "c")
	})
}
