// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

// openClock returns a clock with the resolution that an idle timeout asks for.
func openClock(t *testing.T, idle time.Duration) (*clock, *config) {
	t.Helper()
	cfg, err := newConfig([]Option{WithIdleTimeout(idle), WithLifetime(0), WithUnconfirmedTimeouts(0, 0)})
	must(t, err)
	c := new(clock)
	c.init(cfg)
	t.Cleanup(c.park)
	return c, cfg
}

func TestTheCoarseClockIsNeverBehindAndAtMostOneResolutionAhead(t *testing.T) {
	for _, idle := range []time.Duration{10 * time.Millisecond, time.Second, time.Minute, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			c, cfg := openClock(t, idle)
			r := rand.New(rand.NewPCG(1, uint64(idle)))
			for range 5000 {
				pass(time.Duration(r.Int64N(int64(3 * cfg.resolution))))
				ahead := c.soon().duration() - c.now()
				if ahead < 0 || ahead > cfg.resolution {
					t.Fatalf("%v: the clock is %v ahead", cfg.resolution, ahead)
				}
			}
		})
	}
}

func TestTheCoarseClockParksWhenNobodyReadsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, cfg := openClock(t, time.Minute)
		if c.timer.Stop() {
			t.Error("it ticks before anybody has read it")
		}
		pass(12345 * time.Microsecond)
		if got := c.soon(); got != stampOf(c.now()) {
			t.Errorf("parked, it tells %v at %v", got.duration(), c.now())
		}
		pass(cfg.resolution / 2)
		if c.bound.Load() == parked {
			t.Error("it parked although it was read since the last tick")
		}
		pass(2 * cfg.resolution)
		if c.bound.Load() != parked || c.timer.Stop() {
			t.Error("it ticks although nobody reads it")
		}
	})
}

// Short timeouts need a clock that would tick all the time, and often late.
func TestTheClockIsExactIfTimeoutsAreShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, cfg := openClock(t, 8*time.Second)
		if cfg.resolution != exact {
			t.Errorf("the resolution is %v", cfg.resolution)
		}
		for range 100 {
			pass(12345 * time.Microsecond)
			if got := c.soon(); got != stampOf(c.now()) {
				t.Errorf("it tells %v at %v", got.duration(), c.now())
			}
		}
		if c.timer.Stop() {
			t.Error("it ticks")
		}
	})
}

func TestAnEmptyStoreParksTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		add(t, s, "a")
		must(t, s.Touch("a"))
		if s.clock.bound.Load() == parked {
			t.Fatal("the test does not start the clock")
		}
		must(t, s.Remove("a"))
		if s.clock.bound.Load() != parked || s.clock.timer.Stop() {
			t.Error("the clock of an empty store ticks")
		}
	})
}

// holdUp keeps the clock from ticking for d.
func holdUp(s *Store[*conn], d time.Duration) {
	s.clock.timer.Stop()
	pass(d)
	s.clock.tick()
	synctest.Wait()
}

func TestALateTickEndsNobodyEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute))
		add(t, s, "a")
		add(t, s, "b")
		must(t, s.Touch("b"))
		const held = 10 * time.Second
		s.clock.timer.Stop()
		pass(held - 1)
		must(t, s.Touch("a")) // by a clock that is ten seconds behind
		touched := time.Now()
		holdUp(s, 1)
		must(t, s.Touch("b")) // by one that is not
		pass(time.Until(touched.Add(time.Minute - 1)))
		wantLive(t, s, "a")
		pass(late(s) + 2)
		wantErr(t, second(s.Peek("a")), ErrNotFound)
		if n := len(s.clock.late); n != 1 {
			t.Errorf("%d late ticks are remembered", n)
		}
	})
}

func TestLateTicksAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(20*time.Second))
		for i := range 3 * mostLateOnes {
			must(t, s.Put(fmt.Sprint(i), new(conn), Origin{}))
			must(t, s.Touch(fmt.Sprint(i)))
			holdUp(s, 300*time.Millisecond)
		}
		if n := len(s.clock.late); n == 0 || n > 100 {
			t.Errorf("%d late ticks are remembered", n)
		}
	})
}

// A clock that is behind hands out nothing that is past its deadline.
func TestInvariant04NeverStaleThoughTheClockIsHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(8*time.Second))
		add(t, s, "a")
		add(t, s, "other")
		pass(7*time.Second + 500*time.Millisecond)
		must(t, s.Touch("other")) // starts the clock
		s.clock.timer.Stop()
		freeze(s)
		pass(500 * time.Millisecond)
		wantErr(t, second(s.Get("a")), ErrNotFound)
		wantLive(t, s, "other")
	})
}

func TestAFinerResolutionHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour))
		add(t, s, "a")
		must(t, s.Touch("a"))
		pass(time.Second / 2)
		must(t, s.Reconfigure(WithIdleTimeout(time.Second)))
		start := time.Now()
		must(t, s.Touch("a"))
		must(t, s.Touch("a"))
		pass(time.Second - 1)
		wantLive(t, s, "a")
		pass(time.Until(start.Add(time.Second + late(s))))
		wantErr(t, second(s.Peek("a")), ErrNotFound)
	})
}

// When timeouts become shorter, what a coarse clock was ahead is taken back.
func TestShorterTimeoutsTakeBackWhatTheClockWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour))
		add(t, s, "a")
		pass(123 * time.Millisecond)
		must(t, s.Touch("a"))
		must(t, s.Touch("a"))
		e := s.index.find("a")
		if ahead := e.load().used().duration() - s.clock.now(); ahead < 100*time.Millisecond {
			t.Fatalf("the test needs a clock that is ahead, not by %v", ahead)
		}
		must(t, s.Reconfigure(WithIdleTimeout(time.Second)))
		if ahead := e.load().used().duration() - s.clock.now(); ahead < 0 || ahead >= time.Millisecond {
			t.Errorf("the idle clock is %v ahead", ahead)
		}
	})
}

func TestHitsWriteNothingUntilTheClockTicks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour))
		add(t, s, "a")
		e := s.index.find("a")
		must(t, s.Touch("a"))
		must(t, s.Touch("a"))
		before := e.load()
		pass(100 * time.Millisecond)
		must(t, s.Touch("a"))
		_, err := s.Get("a")
		must(t, err)
		if e.load() != before {
			t.Error("a touch wrote although the clock has not ticked")
		}
		pass(10 * time.Second)
		must(t, s.Touch("a"))
		if e.load() == before {
			t.Error("a touch did not write although the clock has ticked")
		}
	})
}
