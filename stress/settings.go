// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// options are what a store is told of the timeouts and the maximum.
func (c config) options() []layover.Option {
	return []layover.Option{
		layover.WithIdleTimeout(c.idle),
		layover.WithLifetime(c.lifetime()),
		layover.WithUnconfirmedTimeouts(c.empty(), c.holding()),
		layover.WithMaxSessions(c.max),
	}
}

// other returns other settings: timeouts that are shorter or longer, a factor of two
// apart, and as many sessions or half of them.
func (c config) other(rng *rand.Rand) config {
	c.idle = c.idle * time.Duration(3+rng.IntN(4)) / 4
	if c.life > 0 {
		c.life = max(c.life, c.idle)
	}
	if rng.IntN(2) == 0 {
		c.max = max(1, c.max/2)
	}
	return c
}

// reconfigure changes the store's settings until ctx ends, and puts them back.
func (s *server) reconfigure(ctx context.Context, c config, rng *rand.Rand) {
	for await.Pause(ctx, c.idle/4) {
		s.adopt(c.other(rng))
	}
	s.adopt(c)
}

// adopt gives the store other settings. What does not fit any more must have left
// within the call, unless it is in use.
func (s *server) adopt(c config) {
	w := s.watch
	w.changing(c)
	err := s.store.Reconfigure(c.options()...)
	w.changed(time.Now())
	stats := s.store.Stats()
	w.Expect(promise.Answered, err == nil, "Reconfigure failed, expected success: %v", err)
	inUse := w.mostCalls()
	w.Expect(promise.Bounded, stats.Live+stats.Retired <= c.max+inUse,
		"%d sessions are live and %d retired after the maximum was changed to %d, expected at most %d more, which may be in use", stats.Live, stats.Retired, c.max, inUse)
}

// inForce returns the settings that were adopted last.
func (w *watch) inForce() config {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.settings[len(w.settings)-1].config
}

// setting is in force for a while, or may be.
type setting struct {
	config
	till time.Time // zero: it still may be
}

// changing notes that the store is about to get other settings.
func (w *watch) changing(c config) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settings = append(w.settings, setting{config: c})
}

// changed notes that only the latest settings are in force, and forgets those that
// no check asks for any more.
func (w *watch) changed(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := len(w.settings) - 1
	for i := range w.settings[:last] {
		if s := &w.settings[i]; s.till.IsZero() {
			s.till = now
		}
	}
	over := now.Add(-3 * w.lifetime())
	w.settings = slices.DeleteFunc(w.settings, func(s setting) bool { return !s.till.IsZero() && s.till.Before(over) })
}

// mostCalls returns how many calls ran at once, at most.
func (w *watch) mostCalls() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.peak
}

// least returns the smallest of what the settings say that may have been in force
// since then. The caller holds the mutex.
func least[T cmp.Ordered](w *watch, since time.Time, of func(config) T) T {
	return extreme(w, since, of, func(a, b T) T { return min(a, b) })
}

// most is the same of the largest.
func most[T cmp.Ordered](w *watch, since time.Time, of func(config) T) T {
	return extreme(w, since, of, func(a, b T) T { return max(a, b) })
}

func extreme[T cmp.Ordered](w *watch, since time.Time, of func(config) T, choose func(a, b T) T) T {
	found := of(w.settings[len(w.settings)-1].config)
	for _, s := range w.settings {
		if s.till.IsZero() || !s.till.Before(since) {
			found = choose(found, of(s.config))
		}
	}
	return found
}

// longestUnused returns for how long at most a session may have been unused, since
// then, and be handed out.
func (w *watch) longestUnused(since time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return most(w, since, func(c config) time.Duration { return c.idle + w.behind(c) })
}

func maximum(c config) int { return c.max }

// timeout returns how long the session may go unused.
func (r *record) timeout(c config) time.Duration {
	switch {
	case r.sticks(): // so it is confirmed
		return c.idle
	case r.held:
		return c.holding()
	}
	return c.empty()
}
