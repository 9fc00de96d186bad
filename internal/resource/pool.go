// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Pool has the places for the things of all sets. It is safe for concurrent use.
// [NewPool] makes one.
type Pool struct {
	mu      sync.Mutex
	max     int
	places  int            // taken
	sources map[string]int // of these, by source, but for those that are closing
	open    map[*thing]struct{}
	opening int           // things that are being opened
	leaving int           // things that are closing and have a place yet
	freed   chan struct{} // closed when a place is free; nil unless somebody waits
	closing int           // things whose Close is waited for
	lost    int           // those whose Close was given up on, and has not returned
	changed chan struct{} // closed when opening, closing or lost falls; nil unless somebody waits
	totals  Stats
}

// Stats are counters of a [Pool], and how it stands.
type Stats struct {
	Max     int // places
	Places  int // taken
	Opening int
	Open    int
	Busy    int // of these, those in use
	Held    int // of these, those that are not in use, but held
	Closing int // whose Close is waited for
	Hung    int // whose Close was given up on, and has not returned yet

	// Since the pool was made.
	Opened      uint64
	Failed      uint64 // an Open that has failed
	Refused     uint64 // there was no place
	EndedIdle   uint64 // closed, by reason
	Evicted     uint64
	EndedOwner  uint64
	Discarded   uint64
	CloseErrors uint64 // a Close that has failed, or was given up on
}

// NewPool returns an empty pool with at most so many places.
func NewPool(places int) *Pool {
	return &Pool{max: places, sources: make(map[string]int), open: make(map[*thing]struct{})}
}

// NewSet returns the empty set of one owner, which endings name, that comes from a
// source.
func (p *Pool) NewSet(owner any, source string) *Set {
	return &Set{pool: p, owner: owner, source: source, things: make(map[key]*thing), done: make(chan struct{})}
}

// SetMax changes how many places there are. If more are taken, idle things leave at
// once, held ones last, and those in use as they are released; until there are
// fewer, none is opened.
func (p *Pool) SetMax(places int) {
	p.mu.Lock()
	p.max = places
	p.free()
	p.mu.Unlock()
	for p.trim() {
	}
}

// trim dismisses some of those that are too many, and reports whether there are more.
// Whoever leaves makes its source lighter, which matters to the order of the others:
// so it is some of many, and one of a few, with others let in between.
func (p *Pool) trim() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	var idle []*thing
	for t := range p.open {
		if t.uses == 0 {
			idle = append(idle, t)
		}
	}
	now := time.Now()
	slices.SortFunc(idle, func(a, b *thing) int {
		if p.before(a, b, now) {
			return -1
		}
		return 1
	})
	n := max(0, min(p.places-p.leaving-p.max, len(idle), 1+len(idle)/16))
	for _, t := range idle[:n] {
		p.dismiss(t, Capacity)
	}
	return n > 0
}

// Stats returns the pool's counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, now := p.totals, time.Now()
	s.Max, s.Places, s.Opening, s.Open, s.Closing, s.Hung = p.max, p.places, p.opening, len(p.open), p.closing, p.lost
	for t := range p.open {
		switch {
		case t.uses > 0:
			s.Busy++
		case now.Before(t.held):
			s.Held++
		}
	}
	return s
}

// Wait waits until every Open and every Close has returned, also those that were given
// up on. If ctx ends first, it returns how many have not.
func (p *Pool) Wait(ctx context.Context) (left int) {
	for {
		p.mu.Lock()
		left = p.opening + p.closing + p.lost
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.mu.Unlock()
		if left == 0 {
			return 0
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return left
		}
	}
}

// exchange closes a thing that leaves, and has handed its place on to another one. If
// ctx ends before that is done, it has its place back.
func (p *Pool) exchange(ctx context.Context, leaves, comes *thing) error {
	go func() { _ = p.finish(leaves, Capacity) }()
	select {
	case <-leaves.gone:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-leaves.gone:
	default:
		p.vacate(comes)
		p.occupy(leaves)
	}
	return context.Cause(ctx)
}

// The methods below are called with the mutex held, except for finish.

// admit takes a place for a thing that is to be opened. If all are taken, an idle
// thing leaves for it, and hands its place on; whoever opens must close that first. If
// none may, but one is about to be free, there is that to wait for.
func (p *Pool) admit(t *thing) (leaves *thing, wait <-chan struct{}, err error) {
	if p.lost < p.max {
		if p.places == p.max {
			if leaves = p.victim(t.set.source, time.Now()); leaves != nil {
				p.leave(leaves)
				p.vacate(leaves)
			}
		}
		switch {
		case p.places < p.max:
			p.occupy(t)
			return leaves, nil, nil
		case p.places-p.leaving < p.max:
			if p.freed == nil {
				p.freed = make(chan struct{})
			}
			return nil, p.freed, nil
		}
	}
	p.totals.Refused++
	return nil, nil, ErrFull
}

func (p *Pool) occupy(t *thing) {
	t.placed = true
	if p.places++; t.state == closing {
		p.leaving++
	} else {
		p.weigh(t.set.source, 1)
	}
}

// weigh notes that a source has more places, or fewer.
func (p *Pool) weigh(source string, places int) {
	if p.sources[source] += places; p.sources[source] == 0 {
		delete(p.sources, source)
	}
}

// placesOf returns how many places of a set count for its source.
func (p *Pool) placesOf(s *Set) (n int) {
	for _, t := range s.order { // also those that were discarded
		if t.state == open {
			n++
		}
	}
	for _, t := range s.things {
		if t.placed && t.state == opening {
			n++
		}
	}
	return n
}

func (p *Pool) vacate(t *thing) {
	if !t.placed {
		return
	}
	t.placed = false
	if p.places--; t.state == closing {
		p.leaving--
	} else {
		p.weigh(t.set.source, -1)
	}
	p.free()
}

// free wakes those who wait for a place: there is one, or somebody who may leave.
func (p *Pool) free() {
	if p.freed != nil {
		close(p.freed)
		p.freed = nil
	}
}

// victim returns the thing that leaves first for one from a source; nil: none may.
func (p *Pool) victim(source string, now time.Time) (first *thing) {
	for t := range p.open {
		if t.uses == 0 && p.sources[t.set.source] >= p.sources[source] && (first == nil || p.before(t, first, now)) {
			first = t
		}
	}
	return first
}

// before reports whether a leaves before b, which are both idle.
func (p *Pool) before(a, b *thing, now time.Time) bool {
	if x, y := now.Before(a.held), now.Before(b.held); x != y {
		return y
	}
	if x, y := a.set.confirmed.Load(), b.set.confirmed.Load(); x != y {
		return y
	}
	if x, y := p.sources[a.set.source], p.sources[b.set.source]; x != y {
		return x > y
	}
	return a.used.Before(b.used)
}

// dismiss closes a thing, for whom nobody waits.
func (p *Pool) dismiss(t *thing, r Reason) {
	p.leave(t)
	go func() { _ = p.finish(t, r) }()
}

// leave takes a thing that is open out of use. Whoever calls it calls finish.
func (p *Pool) leave(t *thing) {
	if t.uses > 0 {
		t.used = time.Now()
	}
	t.state = closing
	delete(p.open, t)
	if t.timer != nil {
		t.timer.Stop()
	}
	p.closing++
	p.leaving++
	p.weigh(t.set.source, -1)
}

// settle has a thing leave that nobody uses if it was discarded, or if there are
// more than may be, and else waits until it has been idle for long enough.
func (p *Pool) settle(t *thing) {
	switch {
	case t.uses > 0 || t.state != open:
	case t.discarded:
		p.dismiss(t, Discarded)
	case p.places-p.leaving > p.max:
		p.dismiss(t, Capacity)
	default:
		p.free()
		if !t.armed {
			t.arm()
		}
	}
}

// finish closes a thing that has left, and waits for that as long as its kind says.
func (p *Pool) finish(t *thing, r Reason) error {
	e := Ending{Owner: t.set.owner, Name: t.key.name, Value: t.value, Reason: r, Opened: t.opened, Used: t.used, Closed: time.Now()}
	e.Err = within(t.key.kind.CloseWithin, func() error { return t.key.kind.Close(t.value) }, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if t.returned = true; t.lost {
			p.lost--
			p.wake()
		}
	})
	p.mu.Lock()
	if !t.returned {
		t.lost = true
		p.lost++
	}
	t.closeErr, e.Late = e.Err, t.set.over
	p.count(e)
	p.vacate(t)
	t.letGo()
	t.set.forget(t)
	close(t.gone)
	p.mu.Unlock()
	if tell := t.key.kind.Closed; tell != nil {
		_ = within(t.key.kind.CloseWithin, func() error { tell(e); return nil }, nil)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing--
	p.wake()
	return e.Err
}

func (p *Pool) wake() {
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

func (p *Pool) count(e Ending) {
	switch e.Reason {
	case Idle:
		p.totals.EndedIdle++
	case Capacity:
		p.totals.Evicted++
	case Ended:
		p.totals.EndedOwner++
	case Discarded:
		p.totals.Discarded++
	}
	if e.Err != nil {
		p.totals.CloseErrors++
	}
}
