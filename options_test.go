// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestDefaults(t *testing.T) {
	c, err := newConfig(nil)
	must(t, err)
	if c.idle != time.Hour || c.lifetime != 24*time.Hour || c.empty != time.Minute || c.holding != 30*time.Minute ||
		c.max != 65536 || c.maxBytes != 256<<20 || c.maxLeases != 256 || c.sourceShare != 0.5 || c.longestLease() != c.lifetime || c.closers != 16 || c.hungClose != 30*time.Second || c.remembered != 16384 ||
		c.whenFull != EvictUnconfirmed || c.observer != nil || c.logger == nil || len(c.key) < minFingerprintKey {
		t.Errorf("defaults changed: %+v", *c)
	}
	if _, err := New[*conn](nil, WithObserver(nil), WithLogger(nil)); err != nil {
		t.Errorf("nil options and nil functions: %v", err)
	}
}

func TestOptionErrorsSayWhatToChange(t *testing.T) {
	for _, x := range []struct {
		name string
		opts []Option
		want []string // parts of the text; none: the options are fine
	}{
		{"zero for none everywhere", []Option{WithIdleTimeout(0), WithLifetime(0), WithUnconfirmedTimeouts(0, 0),
			WithMaxSessions(0), WithHungClose(0), WithRemembered(0)}, nil},
		{"the shortest", []Option{WithIdleTimeout(Tick), WithLifetime(Tick), WithUnconfirmedTimeouts(Tick, Tick), WithHungClose(Tick)}, nil},
		{"the longest", []Option{WithIdleTimeout(never), WithLifetime(never), WithUnconfirmedTimeouts(never, never), WithHungClose(never)}, nil},
		{"the later one holds", []Option{WithIdleTimeout(-1), WithIdleTimeout(time.Minute)}, nil},
		{"negative idle timeout", []Option{WithIdleTimeout(-time.Second)}, []string{"idle timeout -1s is negative", "zero for none"}},
		{"negative lifetime", []Option{WithLifetime(-1)}, []string{"lifetime", "negative"}},
		{"negative empty timeout", []Option{WithUnconfirmedTimeouts(-1, time.Minute)}, []string{"empty unconfirmed", "negative"}},
		{"negative holding timeout", []Option{WithUnconfirmedTimeouts(0, -1)}, []string{"holding unconfirmed", "negative"}},
		{"negative hung-close", []Option{WithHungClose(-1)}, []string{"hung-close", "negative"}},
		{"no unit", []Option{WithIdleTimeout(30)}, []string{"30ns", "below the resolution of 1ms", "unit"}},
		{"lifetime below idle", []Option{WithLifetime(time.Minute)}, []string{"1m0s", "1h0m0s", "raise the lifetime or lower the idle timeout"}},
		{"empty beyond holding", []Option{WithUnconfirmedTimeouts(time.Minute, time.Second)}, []string{"1m0s", "1s", "swap"}},
		{"empty without a timeout of its own, holding with one", []Option{WithUnconfirmedTimeouts(0, time.Minute)}, []string{"1h0m0s", "1m0s", "outlive"}},
		{"the same, but the idle timeout is shorter anyway", []Option{WithIdleTimeout(time.Second), WithUnconfirmedTimeouts(0, time.Minute)}, nil},
		{"negative maximum", []Option{WithMaxSessions(-3)}, []string{"-3", "zero for no maximum"}},
		{"negative bytes", []Option{WithMaxBytes(-3)}, []string{"-3 bytes", "zero for no maximum"}},
		{"negative leases", []Option{WithMaxLeases(-1)}, []string{"-1 leases", "1 to 65535"}},
		{"too many leases", []Option{WithMaxLeases(65536)}, []string{"65536 leases", "1 to 65535"}},
		{"more than all", []Option{WithSourceShare(1.5)}, []string{"1.5", "0 to 1"}},
		{"no number", []Option{WithSourceShare(math.NaN())}, []string{"NaN", "0 to 1"}},
		{"negative age of a lease", []Option{WithMaxLeaseAge(-1)}, []string{"maximum age of a lease", "negative"}},
		{"zero for none of the limits", []Option{WithMaxBytes(0), WithMaxLeases(0), WithSourceShare(0), WithMaxLeaseAge(0)}, nil},
		{"unknown policy", []Option{WithWhenFull(77)}, []string{"WhenFull(77)"}},
		{"full for ever", []Option{WithWhenFull(KeepConfirmed), WithIdleTimeout(0), WithLifetime(0)}, []string{"KeepConfirmed", "for ever", "EvictUnconfirmed"}},
		{"kept, but with a lifetime", []Option{WithWhenFull(KeepConfirmed), WithIdleTimeout(0)}, nil},
		{"no closers", []Option{WithClosers(0)}, []string{"0 closers", "at least 1"}},
		{"negative memory", []Option{WithRemembered(-1)}, []string{"-1", "zero for none"}},
		{"short key", []Option{WithFingerprintKey(make([]byte, 15))}, []string{"15 bytes", "at least 16"}},
		{"several", []Option{WithClosers(0), WithMaxSessions(-1), WithIdleTimeout(-1)}, []string{"closers", "maximum", "idle timeout"}},
	} {
		s, err := New[*conn](x.opts...)
		if len(x.want) == 0 {
			if err != nil {
				t.Errorf("%s: %v", x.name, err)
			}
			continue
		}
		if s != nil || !errors.Is(err, ErrOptions) {
			t.Errorf("%s: got %v", x.name, err)
			continue
		}
		for _, want := range x.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q is not in %q", x.name, want, err)
			}
		}
	}
}

func TestUnconfirmedTimeouts(t *testing.T) {
	const minute = time.Minute
	for _, x := range []struct {
		name                         string
		idle, empty, holding         time.Duration
		wantEmpty, wantHolding, want time.Duration // zero: never
	}{
		{"each its own", 60 * minute, minute, 30 * minute, minute, 30 * minute, 60 * minute},
		{"capped by the idle timeout", 10 * minute, 20 * minute, 30 * minute, 10 * minute, 10 * minute, 10 * minute},
		{"zero: the idle timeout alone", 10 * minute, 0, 0, 10 * minute, 10 * minute, 10 * minute},
		{"no idle timeout", 0, minute, 2 * minute, minute, 2 * minute, 0},
		{"empty alone", 10 * minute, minute, 0, minute, 10 * minute, 10 * minute},
		{"none at all", 0, 0, 0, 0, 0, 0},
	} {
		t.Run(x.name, func(t *testing.T) {
			opts := []Option{WithIdleTimeout(x.idle), WithUnconfirmedTimeouts(x.empty, x.holding)}
			checkIdle(t, opts, ReasonUnconfirmed, x.wantEmpty, func(*Lease[*conn]) {})
			checkIdle(t, opts, ReasonUnconfirmed, x.wantHolding, (*Lease[*conn]).Hold)
			checkIdle(t, opts, ReasonIdle, x.want, (*Lease[*conn]).Confirm)
			checkIdle(t, opts, ReasonIdle, x.want, func(l *Lease[*conn]) { l.Confirm(); l.Hold() })
		})
	}
}

// checkIdle checks after how long from its last release a session ends.
func checkIdle(t *testing.T, opts []Option, why Reason, after time.Duration, prepare func(*Lease[*conn])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, opts...)
		c, l := addLeased(t, s, "a")
		prepare(l)
		pass(100 * time.Minute)
		l.Release()
		if after == 0 {
			pass(10_000 * time.Hour)
			wantLive(t, s, "a")
			return
		}
		pass(after - 1)
		wantLive(t, s, "a")
		pass(1)
		wantGone(t, s, "a", why)
		if !c.isClosed(t) {
			t.Errorf("not closed after %v", after)
		}
	})
}

func TestHoldFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithUnconfirmedTimeouts(time.Minute, 2*time.Minute))
		must(t, s.Put("a", new(conn), Origin{Holds: true}))
		pass(2*time.Minute - 1)
		wantLive(t, s, "a")
		pass(1)
		wantGone(t, s, "a", ReasonUnconfirmed)
	})
}

func TestLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lifetime, n = time.Hour, 400
		r := new(recorder)
		s := open(t, WithIdleTimeout(0), WithLifetime(lifetime), WithObserver(r.observe))
		for i := range n {
			add(t, s, fmt.Sprint(i))
		}
		start := time.Now()
		pass(lifetime - lifetime/10)
		if s.Len() != n {
			t.Errorf("%d of %d ended more than a tenth early", n-s.Len(), n)
		}
		pass(lifetime / 10)
		ends := make(map[time.Duration]int)
		for _, e := range r.all() {
			if e.Kind == EventEnded {
				ends[e.At.Sub(start).Truncate(lifetime/100)]++
				if e.Reason != ReasonLifetime {
					t.Errorf("ended for %v", e.Reason)
				}
			}
		}
		if s.Len() != 0 || len(ends) < 8 {
			t.Errorf("%d are left; ends are not spread: %v", s.Len(), ends)
		}
	})
}

func TestLifetimeEndsHoweverMuchASessionIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute), WithLifetime(time.Hour))
		used, leased := add(t, s, "used"), new(conn)
		l, err := s.Add("leased", leased, Origin{})
		must(t, err)
		for range 60 {
			<-time.After(time.Minute - time.Second)
			_ = s.Touch("used")
		}
		pass(time.Minute)
		wantGone(t, s, "used", ReasonLifetime)
		wantGone(t, s, "leased", ReasonLifetime)
		if !used.isClosed(t) || leased.isClosed(t) || l.Context().Err() != nil {
			t.Error("the session in use must be retired, the other one closed")
		}
		l.Release()
		synctest.Wait()
		if !leased.isClosed(t) {
			t.Error("not closed with its last release")
		}
	})
}

func TestKeepConfirmedRefusesNewcomers(t *testing.T) {
	s := open(t, WithMaxSessions(3), WithWhenFull(KeepConfirmed))
	addConfirmed(t, s, "a")
	addConfirmed(t, s, "b")
	add(t, s, "c")
	add(t, s, "d") // c makes room
	wantGone(t, s, "c", ReasonCapacity)
	must(t, s.Confirm("d"))
	wantErr(t, second(s.Add("e", new(conn), Origin{})), ErrFull)
	wantLive(t, s, "a", "b", "d")
	must(t, s.Put("d", new(conn), Origin{})) // replacing needs no more room
}

func TestEvictLRUIgnoresClasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(3), WithWhenFull(EvictLRU))
		addConfirmed(t, s, "a")
		add(t, s, "b")
		addConfirmed(t, s, "c")
		pass(2 * time.Second)
		must(t, s.Touch("b"))
		add(t, s, "d")
		wantGone(t, s, "a", ReasonCapacity)
		add(t, s, "e")
		wantGone(t, s, "c", ReasonCapacity)
		wantLive(t, s, "b", "d", "e")
	})
}

func TestEvictUnconfirmedOrder(t *testing.T) {
	s := open(t, WithMaxSessions(20))
	for i := range 10 {
		addConfirmed(t, s, fmt.Sprint("confirmed", i))
	}
	l, err := s.Add("holds", new(conn), Origin{Holds: true})
	must(t, err)
	l.Release()
	_, busy := addLeased(t, s, "busy")
	for i := range 8 {
		add(t, s, fmt.Sprint("empty", i))
	}
	must(t, s.Touch("empty0")) // use does not keep an unconfirmed one
	for i := range 8 {
		add(t, s, fmt.Sprint("new", i))
		wantGone(t, s, fmt.Sprint("empty", i), ReasonCapacity)
	}
	for i := range 8 {
		must(t, s.Hold(fmt.Sprint("new", i)))
	}
	add(t, s, "more") // those who hold something, in the order in which they began to
	wantGone(t, s, "holds", ReasonCapacity)
	add(t, s, "yet more")
	wantGone(t, s, "more", ReasonCapacity)
	var held []*Lease[*conn]
	for _, id := range []string{"yet more", "new0"} {
		l, err := s.Acquire(id)
		must(t, err)
		held = append(held, &l)
	}
	add(t, s, "last") // of the unconfirmed ones, seven are not in use: few
	wantGone(t, s, "confirmed0", ReasonCapacity)
	wantLive(t, s, "busy", "yet more", "new0", "new1", "confirmed1")
	for _, l := range append(held, busy) {
		l.Release()
	}
}

// Newcomers do not merely push out each other: the ninth is what makes room
// among them, the eighth still did among the confirmed.
func TestFewUnconfirmedPushOutConfirmedOnes(t *testing.T) {
	for maximum, few := range map[int]int{20: 8, 512: 8, 64 * 12: 12} {
		s := open(t, WithMaxSessions(maximum))
		for i := range maximum {
			addConfirmed(t, s, fmt.Sprint("confirmed", i))
		}
		for i := range few {
			add(t, s, fmt.Sprint("new", i))
			wantGone(t, s, fmt.Sprint("confirmed", i), ReasonCapacity)
		}
		add(t, s, "one more")
		wantGone(t, s, "new0", ReasonCapacity)
		wantLive(t, s, fmt.Sprint("confirmed", few))
	}
}

func TestExpiredOnesLeaveFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(2), WithIdleTimeout(time.Minute), WithWhenFull(KeepConfirmed))
		freeze(s)
		addConfirmed(t, s, "old")
		pass(30 * time.Second)
		addConfirmed(t, s, "young")
		freeze(s)
		pass(30 * time.Second)
		add(t, s, "new")
		wantGone(t, s, "old", ReasonIdle)
		wantLive(t, s, "young", "new")
	})
}

func TestReconfigureTimeoutsHoldAtOnceAndOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour))
		c := addConfirmed(t, s, "a")
		pass(time.Minute)
		must(t, s.Reconfigure(WithIdleTimeout(2*time.Minute))) // shorter
		pass(time.Minute - 1)
		if c.isClosed(t) {
			t.Error("early after a shorter timeout")
		}
		pass(1)
		if !c.isClosed(t) {
			t.Error("late after a shorter timeout")
		}

		c = addConfirmed(t, s, "b")
		pass(time.Minute)
		must(t, s.Reconfigure(WithIdleTimeout(time.Hour))) // longer
		pass(59*time.Minute - 1)
		wantLive(t, s, "b")
		pass(1)
		if !c.isClosed(t) {
			t.Error("late after a longer timeout")
		}

		c = addConfirmed(t, s, "c")
		pass(time.Minute)
		must(t, s.Reconfigure(WithIdleTimeout(time.Minute))) // over already
		wantErr(t, second(s.Peek("c")), ErrNotFound)
		synctest.Wait()
		if !c.isClosed(t) {
			t.Error("late after a timeout that was over already")
		}

		add(t, s, "d")
		must(t, s.Reconfigure(WithIdleTimeout(0)))
		pass(1000 * time.Hour)
		wantLive(t, s, "d")
		must(t, s.Reconfigure(WithUnconfirmedTimeouts(time.Second, time.Hour)))
		pass(0)
		wantGone(t, s, "d", ReasonUnconfirmed)

		c = add(t, s, "e")
		must(t, s.Reconfigure(WithUnconfirmedTimeouts(0, 0), WithLifetime(time.Hour)))
		pass(time.Hour)
		if !c.isClosed(t) {
			t.Error("late after a lifetime was set")
		}
		wantGone(t, s, "e", ReasonLifetime)
	})
}

func TestReconfigureOfABusySession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour))
		c, l := addLeased(t, s, "a")
		pass(30 * time.Minute)
		must(t, s.Reconfigure(WithIdleTimeout(time.Minute)))
		pass(30 * time.Minute)
		wantLive(t, s, "a")
		l.Release()
		pass(time.Minute - 1)
		wantLive(t, s, "a")
		pass(late(s))
		if !c.isClosed(t) {
			t.Error("late")
		}
	})
}

func TestALowerMaximum(t *testing.T) {
	for _, w := range []WhenFull{EvictUnconfirmed, KeepConfirmed, EvictLRU} {
		t.Run(w.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, WithMaxSessions(20), WithWhenFull(w))
				var leases []*Lease[*conn]
				for i := range 20 {
					id := fmt.Sprint(i)
					if i < 10 {
						addConfirmed(t, s, id)
					} else {
						add(t, s, id)
					}
					if i%5 == 0 {
						leases = append(leases, acquire(t, s, id))
					}
				}
				must(t, s.Reconfigure(WithMaxSessions(10)))
				if s.Len() != 10 {
					t.Errorf("%d live after the call, want 10", s.Len())
				}
				must(t, s.Reconfigure(WithMaxSessions(2)))
				if s.Len() != 4 {
					t.Errorf("%d live after the call, want the 4 busy ones", s.Len())
				}
				wantErr(t, second(s.Add("new", new(conn), Origin{})), ErrFull)
				busy := leases[0].Session()
				wantErr(t, s.Put("0", new(conn), Origin{}), ErrFull)
				for i, l := range leases {
					l.Release()
					if want := max(2, 3-i); s.Len() != want {
						t.Errorf("%d live after %d releases, want %d", s.Len(), i+1, want)
					}
				}
				synctest.Wait()
				if !busy.isClosed(t) {
					t.Error("not closed when it was released")
				}
				if w == KeepConfirmed {
					must(t, s.Remove("10"))
				}
				add(t, s, "new")
				if got := s.Stats().Ended[ReasonCapacity]; got < 18 {
					t.Errorf("%d ended for capacity", got)
				}
			})
		})
	}
}

func TestALowerMaximumEvictsTheLeastWorthyFirst(t *testing.T) {
	for _, w := range []WhenFull{EvictUnconfirmed, KeepConfirmed} {
		t.Run(w.String(), func(t *testing.T) {
			s := open(t, WithMaxSessions(40), WithWhenFull(w))
			for i := range 10 {
				addConfirmed(t, s, fmt.Sprint("confirmed", i))
			}
			for i := range 30 {
				add(t, s, fmt.Sprint("empty", i))
			}
			must(t, s.Reconfigure(WithMaxSessions(20)))
			if st := s.Stats(); st.Live != 20 || st.Confirmed != 10 {
				t.Errorf("live %d, confirmed %d", st.Live, st.Confirmed)
			}
			wantLive(t, s, "empty20")
			must(t, s.Reconfigure(WithMaxSessions(5)))
			if st := s.Stats(); st.Live != 5 {
				t.Errorf("live %d, want 5", st.Live)
			}
		})
	}
}

// Sessions that are released while the maximum is lowered leave, too.
func TestALowerMaximumMissesNobodyWhoIsJustReleased(t *testing.T) {
	for range 2000 {
		s, err := New[*conn](WithMaxSessions(2), WithLogger(nil))
		must(t, err)
		_, a := addLeased(t, s, "a")
		_, b := addLeased(t, s, "b")
		released := make(chan struct{}, 2)
		for _, l := range []*Lease[*conn]{a, b} {
			go func() {
				l.Release()
				released <- struct{}{}
			}()
		}
		must(t, s.Reconfigure(WithMaxSessions(1)))
		<-released
		<-released
		live := s.Len()
		must(t, s.Shutdown(t.Context()))
		if live > 1 {
			t.Fatalf("%d idle sessions above a maximum of 1", live)
		}
	}
}

// As long as the idle ones have not made room, nobody who is released has to leave.
func TestALoweredMaximumIsKnownToNobodyBeforeTheIdleOnesHaveLeft(t *testing.T) {
	s := open(t, WithMaxSessions(20))
	for i := range 10 {
		add(t, s, fmt.Sprint("empty", i))
	}
	addConfirmed(t, s, "used")
	l, err := s.Acquire("used")
	must(t, err)
	s.lock()
	var wg sync.WaitGroup
	wg.Go(func() { must(t, s.Reconfigure(WithMaxSessions(5))) })
	for range 1000 { // it comes as far as the mutex
		runtime.Gosched()
	}
	wg.Go(func() { must(t, s.Remove("empty0")) })
	for range 1000 {
		runtime.Gosched()
	}
	s.settleDeparted() // as whoever has the mutex does
	if s.ledger.over.Load() {
		t.Error("a session that is released now has to leave, although idle ones could")
	}
	s.unlock()
	wg.Wait()
	l.Release()
	if st := s.Stats(); st.Live != 5 {
		t.Errorf("%d live", st.Live)
	}
	wantLive(t, s, "used")
}

func TestARaisedMaximumHoldsAtOnce(t *testing.T) {
	s := open(t, WithMaxSessions(1))
	add(t, s, "a")
	must(t, s.Reconfigure(WithMaxSessions(2)))
	add(t, s, "b")
	must(t, s.Reconfigure(WithMaxSessions(0)))
	for i := range 100 {
		add(t, s, fmt.Sprint(i))
	}
	if s.Len() != 102 {
		t.Errorf("%d live", s.Len())
	}
}

func TestChangingHowRoomIsMade(t *testing.T) {
	// Ten confirmed and ten unconfirmed sessions: who leaves first depends on
	// the policy in force, whichever was before.
	policies := []WhenFull{EvictUnconfirmed, KeepConfirmed, EvictLRU}
	for _, from := range policies {
		for _, to := range policies {
			t.Run(fmt.Sprint(from, " to ", to), func(t *testing.T) {
				s := open(t, WithMaxSessions(20), WithWhenFull(from))
				for i := range 20 {
					if i < 10 {
						addConfirmed(t, s, fmt.Sprint(i))
					} else {
						add(t, s, fmt.Sprint(i))
					}
				}
				must(t, s.Reconfigure(WithWhenFull(to)))
				for i := range 20 {
					l, err := s.Add(fmt.Sprint("new", i), new(conn), Origin{})
					if to == KeepConfirmed && i >= 10 {
						wantErr(t, err, ErrFull)
						continue
					}
					if err != nil {
						t.Fatalf("newcomer %d: %v, with %+v", i, err, s.Stats())
					}
					defer l.Release()
				}
				confirmed := 0
				if to == KeepConfirmed {
					confirmed = 10
				}
				if got := s.Stats().Confirmed; got != confirmed {
					t.Errorf("%d confirmed are left, want %d", got, confirmed)
				}
			})
		}
	}
}

func TestAnInvalidReconfigureChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(2), WithIdleTimeout(time.Minute))
		add(t, s, "a")
		add(t, s, "b")
		before := s.config.Load()
		for name, opts := range map[string][]Option{
			"together with those in force": {WithMaxSessions(1), WithLifetime(time.Second)},
			"wrong policy":                 {WithMaxSessions(1), WithWhenFull(9)},
			"fixed: the key":               {WithMaxSessions(1), WithFingerprintKey(make([]byte, 32))},
			"fixed: no key":                {WithMaxSessions(1), WithFingerprintKey(nil)},
			"fixed: hung close":            {WithMaxSessions(1), WithHungClose(time.Minute)},
			"fixed: remembered":            {WithMaxSessions(1), WithRemembered(1)},
		} {
			wantErr(t, s.Reconfigure(opts...), ErrOptions)
			if s.config.Load() != before || s.Len() != 2 {
				t.Errorf("%s: something changed", name)
			}
		}
		must(t, s.Reconfigure())
		must(t, s.Reconfigure(WithHungClose(DefaultHungClose), WithRemembered(DefaultRemembered)))
		pass(time.Minute + late(s))
		if s.Len() != 0 {
			t.Error("the timeout is lost")
		}
	})
}
