// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"sync"
	"time"

	"github.com/c8e4ff29/layover"
)

// limits are the settings of a store that change while it runs.
type limits struct {
	idle, lifetime, empty, holding time.Duration
	max                            int
	bytes                          int64
}

func (l limits) options() []layover.Option {
	return []layover.Option{
		layover.WithIdleTimeout(l.idle),
		layover.WithLifetime(l.lifetime),
		layover.WithUnconfirmedTimeouts(l.empty, l.holding),
		layover.WithMaxSessions(l.max),
		layover.WithMaxBytes(l.bytes),
	}
}

// resolution is how late a deadline of the store's may be, as it documents it: a
// part of the shortest timeout, within limits; below 32 milliseconds its clock is
// exact.
func (l limits) resolution() time.Duration {
	if r := min(l.idle, l.lifetime, l.empty, l.holding) / 256; r >= coarseFrom {
		return min(time.Second, r)
	}
	return time.Millisecond
}

const coarseFrom = 32 * time.Millisecond

// least returns the smaller of each limit, most the larger.
func (l limits) least(o limits) limits {
	return limits{
		min(l.idle, o.idle), min(l.lifetime, o.lifetime), min(l.empty, o.empty), min(l.holding, o.holding),
		min(l.max, o.max), min(l.bytes, o.bytes),
	}
}

func (l limits) most(o limits) limits {
	return limits{
		max(l.idle, o.idle), max(l.lifetime, o.lifetime), max(l.empty, o.empty), max(l.holding, o.holding),
		max(l.max, o.max), max(l.bytes, o.bytes),
	}
}

// period is a time in which limits may have been in force.
type period struct {
	limits
	from, until time.Time // until is zero for those in force
}

// changes is which limits were in force when, of late.
type changes struct {
	mu  sync.RWMutex
	all []period // the latest ones, the last is in force
}

const rememberedChanges = 256

func newChanges(first limits, now time.Time) *changes {
	return &changes{all: []period{{limits: first, from: now}}}
}

// begin notes that other limits are about to hold, end that the former ones do not
// hold any more.
func (c *changes) begin(next limits, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) >= rememberedChanges {
		c.all = append(c.all[:0], c.all[1:]...)
	}
	c.all = append(c.all, period{limits: next, from: now})
}

func (c *changes) end(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[len(c.all)-2].until = now
}

// since returns the least and the most of each limit that may have been in force at
// some time since then.
func (c *changes) since(then time.Time) (least, most limits) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	last := len(c.all) - 1
	least, most = c.all[last].limits, c.all[last].limits
	for i := last - 1; i >= 0; i-- {
		p := c.all[i]
		if !p.until.IsZero() && p.until.Before(then) {
			break
		}
		least, most = least.least(p.limits), most.most(p.limits)
	}
	return least, most
}

// now returns the limits in force.
func (c *changes) now() limits {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.all[len(c.all)-1].limits
}
