// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover/janitor"
)

// Set has the things of one owner. It is safe for concurrent use.
// [Pool.NewSet] makes one.
type Set struct {
	pool      *Pool
	owner     any
	source    string
	confirmed atomic.Bool

	// Under the pool's mutex.
	things map[key]*thing // being opened, open, or closing
	order  []*thing       // those that are open or closing, as they were opened
	ended  bool
}

// key finds a thing of a set.
type key struct {
	kind *Kind
	name string
}

// thing is one that is opened.
type thing struct {
	set   *Set
	key   key
	outer *thing        // whose Open has asked for this one
	ready chan struct{} // closed when it is open, or will not be
	gone  chan struct{} // closed when it is closed, or was given up on

	// Set before ready is closed.
	value any
	err   error // why it could not be opened
	again bool  // that was the business of who has tried alone

	// Under the pool's mutex.
	state     state
	stop      context.CancelCauseFunc // of its Open
	placed    bool                    // it has a place
	uses      int
	discarded bool
	opened    time.Time
	used      time.Time // when its last use ended
	held      time.Time // until when it is not idle
	timer     *time.Timer
	armed     bool // the timer is
	returned  bool // its Close has
	lost      bool // its Close was given up on
}

// state is how far a thing has come. It only ever grows.
type state uint8

const (
	opening state = iota
	open
	closing
)

// openingKey finds in the context of an Open which thing it opens.
type openingKey struct{}

// Acquire returns a lease on the thing of that kind and name. If there is none, it is
// opened first: by one caller, for whom the others wait no longer than their
// contexts. All of them get the error of an Open that fails, unless that was for the
// end of the opener's own context; the next caller tries again. The context of Open
// is ctx, which ends when Open has returned, or the owner has ended.
//
// Errors: ErrEnded, ErrFull, ErrRecursive, the context's, and that of Open.
func (s *Set) Acquire(ctx context.Context, k *Kind, name string, open func(context.Context) (any, error)) (*Lease, error) {
	outer, _ := ctx.Value(openingKey{}).(*thing)
	for {
		t, leaves, mine, err := s.find(key{k, name}, outer)
		switch {
		case err != nil:
			return nil, err
		case mine:
			return s.open(ctx, t, leaves, open)
		}
		l, wait := s.lease(t)
		if l != nil {
			return l, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if t.err != nil && !t.again {
			return nil, t.err
		}
	}
}

// find returns the thing under a key. If it is the caller's to open, one that leaves
// for it must be closed first; nil: none.
func (s *Set) find(k key, outer *thing) (t, leaves *thing, mine bool, err error) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.ended {
		return nil, nil, false, ErrEnded
	}
	if t = s.things[k]; t != nil {
		for o := outer; o != nil; o = o.outer {
			if o == t {
				return nil, nil, false, ErrRecursive
			}
		}
		return t, nil, false, nil
	}
	t = &thing{set: s, key: k, outer: outer, ready: make(chan struct{}), gone: make(chan struct{})}
	if leaves, err = p.admit(t); err != nil {
		return nil, nil, false, err
	}
	s.things[k] = t
	return t, leaves, true, nil
}

// lease returns a lease on a thing if it is open, else what to wait for.
func (s *Set) lease(t *thing) (l *Lease, wait <-chan struct{}) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	switch t.state {
	case opening:
		return nil, t.ready
	case open:
		t.uses++
		return &Lease{thing: t}, nil
	case closing:
	}
	return nil, t.gone
}

// open has a thing opened, and leases it.
func (s *Set) open(ctx context.Context, t, leaves *thing, open func(context.Context) (any, error)) (l *Lease, err error) {
	callers := ctx
	ctx, stop := context.WithCancelCause(context.WithValue(ctx, openingKey{}, t))
	defer stop(nil)
	s.stopWith(t, stop)
	exits := true // until the next lines have returned
	defer func() {
		if l == nil {
			err = s.fail(t, err, exits || callers.Err() != nil)
		}
	}()
	value, err := s.pool.make(ctx, t, leaves, open)
	if exits = false; err != nil {
		return nil, err
	}
	return s.opened(t, value)
}

// make opens a thing, once the one that leaves for it is closed.
func (p *Pool) make(ctx context.Context, t, leaves *thing, open func(context.Context) (any, error)) (value any, err error) {
	if leaves != nil {
		if err := p.exchange(ctx, leaves, t); err != nil {
			return nil, err
		}
	}
	err = contained(func() (err error) {
		value, err = open(ctx)
		return err
	})
	return value, err
}

// stopWith notes how the Open of a thing is told that its owner has ended.
func (s *Set) stopWith(t *thing, stop context.CancelCauseFunc) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if t.stop = stop; s.ended {
		stop(ErrEnded)
	}
}

// fail notes that a thing could not be opened, and returns why.
func (s *Set) fail(t *thing, err error, again bool) error {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.state != opening { // it could, but its owner has ended
		return err
	}
	switch {
	case s.ended:
		err = ErrEnded
	case err == nil:
		err = janitor.ErrGoexit
	}
	p.totals.Failed++
	p.vacate(t)
	s.forget(t)
	t.err, t.again = err, again
	close(t.ready)
	close(t.gone)
	return err
}

// opened has a thing be used. If its owner has ended meanwhile, it is closed.
func (s *Set) opened(t *thing, value any) (*Lease, error) {
	p := s.pool
	p.mu.Lock()
	t.value, t.opened = value, time.Now()
	t.used = t.opened
	p.totals.Opened++
	s.order = append(s.order, t)
	if !s.ended {
		t.state, t.uses = open, 1
		p.open[t] = struct{}{}
		close(t.ready)
		p.mu.Unlock()
		return &Lease{thing: t}, nil
	}
	t.err = ErrEnded
	p.leave(t)
	close(t.ready)
	p.mu.Unlock()
	_ = p.finish(t, Ended) // whoever ends the owner waits for it, too
	return nil, ErrEnded
}

// forget removes a thing that is closed, or was not opened. The caller holds the
// pool's mutex.
func (s *Set) forget(t *thing) {
	if s.things[t.key] == t {
		delete(s.things, t.key)
	}
	if i := slices.Index(s.order, t); i >= 0 {
		s.order = slices.Delete(s.order, i, i+1)
	}
}

// Opened returns a lease on the thing of that kind and name if it is open, else
// nil. One that is just being opened is waited for. The error is the context's.
func (s *Set) Opened(ctx context.Context, k *Kind, name string) (*Lease, error) {
	s.pool.mu.Lock()
	t := s.things[key{k, name}]
	s.pool.mu.Unlock()
	if t == nil {
		return nil, nil
	}
	select {
	case <-t.ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l, _ := s.lease(t)
	return l, nil
}

// Confirm notes that the owner has proved to be worth more than a newcomer.
func (s *Set) Confirm() {
	if !s.confirmed.Load() {
		s.confirmed.Store(true)
	}
}

// Hold keeps a thing that is open from idling out for d from now, and has it leave
// after all others that are not in use; zero or less: no longer. It reports whether it
// is open.
func (s *Set) Hold(k *Kind, name string, d time.Duration) bool {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	t := s.things[key{k, name}]
	if t == nil || t.state != open {
		return false
	}
	t.held = time.Time{}
	if d > 0 {
		t.held = time.Now().Add(d)
	}
	if t.armed {
		t.arm()
	}
	return true
}

// Discard has a thing be closed when nobody uses it any more. From now on another
// one is opened in its place.
func (s *Set) Discard(k *Kind, name string) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	t := s.things[key{k, name}]
	if t == nil || t.state != open {
		return
	}
	delete(s.things, t.key)
	t.discarded = true
	p.settle(t)
}

// Close ends the owner: nothing is opened any more, what is being opened is waited
// for and closed, then all others are, also those in use, in reverse order of their
// opening, each for no longer than its kind says. The error says which of them have
// failed. Further calls do nothing.
func (s *Set) Close() error {
	var errs []error
	for _, t := range s.end() {
		if !t.settles() {
			errs = append(errs, fmt.Errorf("%s: its Open: %w", t.key.kind.Name, ErrHangs))
		}
	}
	for t, mine := s.last(); t != nil; t, mine = s.last() {
		if !mine {
			<-t.gone
		} else if err := s.pool.finish(t, Ended); err != nil {
			errs = append(errs, fmt.Errorf("%s: its Close: %w", t.key.kind.Name, err))
		}
	}
	return errors.Join(errs...)
}

// end lets nothing be opened any more, and returns what is just being opened.
func (s *Set) end() (pending []*thing) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if s.ended {
		return nil
	}
	s.ended = true
	for _, t := range s.things {
		if t.state != opening {
			continue
		}
		pending = append(pending, t)
		if t.stop != nil {
			t.stop(ErrEnded)
		}
	}
	return pending
}

// settles waits until a thing is open or will not be, as long as its kind says.
func (t *thing) settles() bool {
	patience := time.NewTimer(t.key.kind.CloseWithin)
	defer patience.Stop()
	select {
	case <-t.ready:
		return true
	case <-patience.C:
		return false
	}
}

// last returns what was opened last of what is left, nil: nothing. It is the
// caller's to be closed, or somebody else is at it.
func (s *Set) last() (t *thing, mine bool) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if len(s.order) == 0 {
		return nil, false
	}
	t = s.order[len(s.order)-1]
	if mine = t.state == open; mine {
		s.pool.leave(t)
	}
	return t, mine
}
