// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

const (
	fullStore = 24 // the places of a store that is full
	few       = 8  // while fewer are unconfirmed, room is made among the confirmed
)

// newcomers fills a small store of its own, with a flood or with honest sessions,
// and checks that each newcomer of a lighter source gets in, that those who leave
// for it are of the heaviest source and the first there in line, and that newcomers do
// not push out each other.
func (c *client) newcomers(ctx context.Context) {
	store, err := layover.New[*keyed](layover.WithMaxSessions(fullStore), layover.WithLogger(nil), layover.WithSourceShare(0))
	if !c.Expect(promise.Assured, err == nil, "a store cannot be made: %v", err) {
		return
	}
	defer func() { _ = store.Shutdown(context.Background()) }()
	full := &full{c, store}
	heavy, honest := c.rng.IntN(2) == 0, 2+c.rng.IntN(6)
	for i := range honest {
		full.comes(fmt.Sprint("honest", i), layover.Origin{Source: fmt.Sprint("honest", i)}, true)
	}
	holds := c.rng.IntN(4) // how many of the heavy source's first ones hold something
	for i := range fullStore - honest {
		full.comes(fmt.Sprint("heavy", i), layover.Origin{Source: "heavy", Holds: i < holds}, heavy)
	}
	late := few - 1 - c.rng.IntN(3)
	for i := range late {
		full.comes(fmt.Sprint("late", i), layover.Origin{Source: fmt.Sprint("late", i)}, false)
		full.comes(fmt.Sprint("again", i), layover.Origin{Source: "heavy"}, heavy) // the heavy source goes on
	}
	for i := range honest {
		full.stays(fmt.Sprint("honest", i))
	}
	for i := range late {
		full.stays(fmt.Sprint("late", i))
	}
	if !heavy {
		for i := range fullStore - honest {
			full.goes(fmt.Sprint("heavy", i), i >= holds && i < holds+2*late)
		}
	}
	stats := store.Stats()
	c.Expect(promise.Bounded, stats.Live == fullStore && stats.Peak <= fullStore, "a full store has %d sessions, and had %d, expected %d", stats.Live, stats.Peak, fullStore)
	await.Pause(ctx, 2*time.Millisecond)
}

// full is a store that is to be full.
type full struct {
	*client
	store *layover.Store[*keyed]
}

// comes adds a session of a source, which must get in.
func (f *full) comes(id string, o layover.Origin, confirmed bool) {
	l, err := f.store.Add(id, &keyed{}, o)
	f.Expect(promise.Assured, err == nil, "newcomer %q was refused although others may leave: %v", id, err)
	if confirmed {
		l.Confirm()
	}
	l.Release()
	f.run.calls.Add(1)
}

// goes checks whether an unconfirmed session of the heaviest source has left: first
// those do that hold nothing, the oldest ones first.
func (f *full) goes(id string, expected bool) {
	_, err := f.store.Peek(id)
	f.Expect(promise.Assured, (err != nil) == expected, "session %q of the heaviest source has left: %t, expected that the oldest ones do which hold nothing", id, err != nil)
}

// stays checks that a session of a light source is still there.
func (f *full) stays(id string) {
	_, err := f.store.Peek(id)
	f.Expect(promise.Assured, err == nil, "session %q, of a source with one, left for others although one source has nearly all places: %v", id, err)
}
