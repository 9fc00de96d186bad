// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

const (
	fullStore = 24 // the places of a store that is full
	few       = 8  // while fewer are unconfirmed, room is made among the confirmed
)

// newcomers fills a small store of its own, with a flood or with honest sessions,
// and checks that each newcomer of a lighter source gets in, that those who leave
// for it are of the heaviest source, and that newcomers do not push out each other.
func (c *client) newcomers(ctx context.Context) {
	store, err := layover.New[*keyed](layover.WithMaxSessions(fullStore), layover.WithLogger(nil), layover.WithSourceShare(0))
	if !c.Expect(promise.Assured, err == nil, "a store cannot be made: %v", err) {
		return
	}
	defer func() { _ = store.Shutdown(context.Background()) }()
	full := &full{c, store}
	heavy, honest := c.rng.IntN(2) == 0, 2+c.rng.IntN(6)
	for i := range honest {
		full.comes(fmt.Sprint("honest", i), fmt.Sprint("honest", i), true)
	}
	for i := range fullStore - honest {
		full.comes(fmt.Sprint("heavy", i), "heavy", heavy)
	}
	late := few - 1 - c.rng.IntN(3)
	for i := range late {
		full.comes(fmt.Sprint("late", i), fmt.Sprint("late", i), false)
		full.comes(fmt.Sprint("again", i), "heavy", heavy) // the heavy source goes on
	}
	for i := range honest {
		full.stays(fmt.Sprint("honest", i))
	}
	for i := range late {
		full.stays(fmt.Sprint("late", i))
	}
	stats := store.Stats()
	c.Expect(promise.Bounded, stats.Live == fullStore && stats.Peak <= fullStore, "a full store has %d sessions, and had %d, expected %d", stats.Live, stats.Peak, fullStore)
	pause(ctx, 2*time.Millisecond)
}

// full is a store that is to be full.
type full struct {
	*client
	store *layover.Store[*keyed]
}

// comes adds a session of a source, which must get in.
func (f *full) comes(id, source string, confirmed bool) {
	l, err := f.store.Add(id, &keyed{}, layover.Origin{Source: source})
	f.Expect(promise.Assured, err == nil, "newcomer %q was refused although others may leave: %v", id, err)
	if confirmed {
		l.Confirm()
	}
	l.Release()
	f.run.calls.Add(1)
}

// stays checks that a session of a light source is still there.
func (f *full) stays(id string) {
	_, err := f.store.Peek(id)
	f.Expect(promise.Assured, err == nil, "session %q, of a source with one, left for others although one source has nearly all places: %v", id, err)
}
