// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// stamp is a time in milliseconds since the store's start, rounded up, so that
// a deadline counted from it is never early.
type stamp int64

func stampOf(t time.Duration) stamp     { return stamp((t + exact - 1) / exact) }
func (t stamp) duration() time.Duration { return time.Duration(t) * exact }

// exact is the resolution of a clock that asks the machine each time: that of
// stamps.
const exact = time.Millisecond

// clock tells hits the time without asking the machine, which would take as long
// as the rest of the hit. It is coarse: what it tells is not before the real
// time, and ahead of it by one resolution at most. If even the shortest timeout
// is too short for that, it asks the machine after all.
//
// It is wound up by a timer, and parked when nobody has read it since the last
// tick. Whoever reads a parked clock gets the real time and starts it again.
type clock struct {
	start      time.Time
	bound      atomic.Int64 // the stamp to tell <<1, and whether it was told; else parked, always if exact
	resolution atomic.Int64

	lateTicks atomic.Int32 // how many of late there are

	mu      sync.Mutex
	timer   *time.Timer
	longest time.Duration // idle timeout: for how long stamps matter
	late    []lateTick
}

// lateTick is a stamp that was told for longer than it was true, since the tick
// after it came late, by more than half a resolution. Deadlines counted from it
// would be early, so they are counted from when the tick came.
type lateTick struct{ told, actual stamp }

const (
	parked       = -1
	mostLateOnes = 4096
)

func (c *clock) init(cfg *config) {
	c.start = time.Now()
	c.bound.Store(parked)
	c.timer = time.AfterFunc(never, c.tick)
	c.timer.Stop()
	c.resolution.Store(int64(cfg.resolution))
	c.longest = cfg.longestIdle
}

// now asks the machine.
func (c *clock) now() time.Duration { return time.Since(c.start) }

// at returns when t is, never if it is zero. It is as far from now as t is, even
// if somebody has set the machine's clock since the store was made.
func (c *clock) at(t time.Time) time.Duration {
	if t.IsZero() {
		return never
	}
	now := time.Now()
	return later(now.Sub(c.start), t.Sub(now))
}

// soon returns a time that has not passed, at most one resolution ahead.
func (c *clock) soon() stamp {
	b := c.bound.Load()
	if b == parked {
		return c.wind()
	}
	if b&1 == 0 {
		c.bound.CompareAndSwap(b, b|1)
	}
	return stamp(b >> 1)
}

// wind starts a parked clock.
func (c *clock) wind() stamp {
	if c.resolution.Load() == int64(exact) {
		return stampOf(c.now())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.bound.Load() == parked && c.resolution.Load() > int64(exact) {
		c.set(now, 1)
	}
	return stampOf(now)
}

// set has the clock tell until the next tick, which is due in half the time for
// which what it tells is true. Of the resolution, a stamp's rounding takes a part.
func (c *clock) set(now time.Duration, told int64) {
	r := time.Duration(c.resolution.Load()) - exact
	c.bound.Store(int64(stampOf(now+r))<<1 | told)
	c.timer.Reset(r / 2)
}

func (c *clock) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, b := c.now(), c.bound.Load()
	if b == parked {
		return
	}
	if told := stamp(b >> 1); told.duration() < now {
		c.noteLate(now, lateTick{told, stampOf(now)})
	}
	if b&1 == 0 && c.bound.CompareAndSwap(b, parked) {
		return
	}
	c.set(now, 0)
}

// noteLate remembers a late tick for as long as it can matter.
func (c *clock) noteLate(now time.Duration, t lateTick) {
	old := 0
	for old < len(c.late) && (later(c.late[old].actual.duration(), c.longest) < now || len(c.late)-old >= mostLateOnes) {
		old++
	}
	c.late = append(slices.Delete(c.late, 0, old), t)
	c.lateTicks.Store(int32(len(c.late)))
}

// latest returns when at the latest a session was used that has stamp t.
func (c *clock) latest(t stamp) stamp {
	if c.lateTicks.Load() == 0 {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := slices.BinarySearchFunc(c.late, t, func(l lateTick, t stamp) int { return cmp.Compare(l.told, t) })
	if ok {
		return max(t, c.late[i].actual)
	}
	return t
}

// park stops the clock until somebody reads it.
func (c *clock) park() {
	if c.bound.Load() == parked {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bound.Store(parked)
	c.timer.Stop()
}

// adopt takes over the resolution of a new configuration.
func (c *clock) adopt(cfg *config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resolution.Store(int64(cfg.resolution))
	c.longest = max(c.longest, cfg.longestIdle)
	if told := stamp(c.bound.Load() >> 1); told >= 0 && told.duration() < c.now() { // its tick is overdue
		c.noteLate(c.now(), lateTick{told, stampOf(c.now())})
	}
	c.bound.Store(parked)
	c.timer.Stop()
}
