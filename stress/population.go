// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

// population is all clients of a phase.
type population struct {
	config
	server   *server
	watch    *watch
	secrets  *secrets
	meter    *meter
	tally    *tally
	luggage  *luggage
	began    time.Time
	restless bool  // it is always high tide
	first    int   // of the clients' IDs, which no other phase has
	counts   []int // of clients, by kind
	all      sync.WaitGroup
}

// tally counts what the clients of all phases have done, by kind.
type tally struct {
	number        []int
	rounds, calls []atomic.Uint64
}

func newTally() *tally {
	return &tally{make([]int, len(kinds)), make([]atomic.Uint64, len(kinds)), make([]atomic.Uint64, len(kinds))}
}

// add counts clients.
func (t *tally) add(counts []int) {
	for k, n := range counts {
		t.number[k] += n
	}
}

// split gives every kind that is in the crowds one client and its share of the
// others.
func split(clients int, crowds []scenario.Crowd) []int {
	total, counts := 0, make([]int, len(kinds))
	for _, c := range crowds {
		total += c.Share
	}
	rest := clients - len(crowds)
	for _, c := range crowds {
		counts[kindOf(c.Kind)] = 1 + rest*c.Share/total
	}
	counts[kindOf(crowds[0].Kind)] += clients - sum(counts)
	return counts
}

// kindOf returns the index of the kind with this name, which there must be: scenarios
// are part of this program.
func kindOf(name string) int {
	return slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
}

func sum(all []int) (n int) {
	for _, c := range all {
		n += c
	}
	return n
}

// tide is what time it is. At high tide so many sessions are made that some are
// evicted. At low tide they have the time to expire. At slack water hardly any
// are made, so that nothing but the store's own timer ends them. Each phase begins
// at high tide, so that a short one is not over before anybody was there; one that
// ends by a shutdown has nothing else, lest it finds nobody.
type tide int

const (
	high tide = iota
	low
	slack
	never
)

func (p *population) tide(now time.Time) tide {
	const highs, lows = 2, 1 // idle timeouts
	if p.restless {
		return high
	}
	length := (highs+lows+1)*p.idle + p.idle/4 + promise.Grace
	switch at := now.Sub(p.began) % length; {
	case at < highs*p.idle:
		return high
	case at < (highs+lows)*p.idle:
		return low
	}
	return slack
}

// start starts the clients; they end with ctx.
func (p *population) start(ctx context.Context) {
	id := p.first
	for k := range kinds {
		for range p.counts[k] {
			c := p.client(k, id)
			p.all.Go(func() { c.live(ctx) })
			id++
		}
	}
}

// client returns a client.
func (p *population) client(kind, id int) *client {
	return &client{population: p, kind: kind, carries: kinds[kind].by, id: id}
}

// wait returns when all clients have ended.
func (p *population) wait() { p.all.Wait() }
