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
)

// Set has the things of one owner. It is safe for concurrent use.
// [Pool.NewSet] makes one.
type Set struct {
	pool      *Pool
	owner     any
	confirmed atomic.Bool

	// Under the pool's mutex.
	source string
	things map[key]*thing // being opened, open, or closing
	order  []*thing       // those that are open or closing, as they were opened
	ended  bool
	over   bool          // Close has returned
	done   chan struct{} // closed when the owner has ended
}

// Acquire returns a lease on the thing of that kind and name. If there is none, it is
// opened first: by one caller, for whom the others wait no longer than their
// contexts. All of them get the error of an Open that fails, unless that was for the
// end of the opener's own context; the next caller tries again. The context of Open
// is ctx, which ends when Open has returned, or the owner has ended. Whatever Open
// itself acquires with its context stays in use for as long as the thing is there.
//
// Errors: ErrEnded, ErrFull, ErrRecursive, the context's, and that of Open.
func (s *Set) Acquire(ctx context.Context, k *Kind, name string, open func(context.Context) (any, error)) (*Lease, error) {
	outer, _ := ctx.Value(openingKey{}).(*thing)
	for {
		f, err := s.find(ctx, key{k, name}, outer)
		switch {
		case err != nil:
			return nil, err
		case f.lease != nil:
			return f.lease, nil
		case f.mine:
			return s.open(ctx, f.thing, outer, f.leaves, open)
		}
		if err := s.await(ctx, f, outer); err != nil {
			return nil, err
		}
		if f.thing != nil && f.thing.err != nil && !f.thing.again {
			return nil, f.thing.err
		}
	}
}

// found is what there is under a key: a lease, or something to wait for, or a thing
// that is the caller's to open, once another one that leaves for it is closed.
type found struct {
	lease  *Lease
	wait   <-chan struct{}
	thing  *thing // nil: it is a place that is waited for
	mine   bool
	leaves *thing // nil: none
}

// find looks under a key, on behalf of an Open that asks for it, nil: none.
func (s *Set) find(ctx context.Context, k key, outer *thing) (f found, err error) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.ended {
		return f, ErrEnded
	}
	if t := s.things[k]; t != nil {
		return s.use(t, outer)
	}
	if ctx.Err() != nil { // nobody leaves for one who is gone
		return f, context.Cause(ctx)
	}
	t := &thing{set: s, key: k, ready: make(chan struct{}), gone: make(chan struct{})}
	if f.leaves, f.wait, err = p.admit(t); err != nil || f.wait != nil {
		return f, err
	}
	s.things[k] = t
	p.opening++
	outer.waitFor(t)
	f.thing, f.mine = t, true
	return f, nil
}

// use returns a lease on a thing if it is open, else what to wait for. The caller
// holds the pool's mutex.
func (s *Set) use(t, outer *thing) (f found, err error) {
	switch {
	case t.state == open:
		t.uses++
		outer.keep(t)
		return found{lease: &Lease{thing: t}}, nil
	case t.needs(outer):
		return f, ErrRecursive
	case t.state == opening:
		f.wait = t.ready
	default:
		f.wait = t.gone
	}
	f.thing = t
	outer.waitFor(t)
	return f, nil
}

// await waits for what was found, on behalf of an Open that asks for it, nil: none.
func (s *Set) await(ctx context.Context, f found, outer *thing) error {
	defer func() {
		s.pool.mu.Lock()
		defer s.pool.mu.Unlock()
		outer.waitedFor(f.thing)
	}()
	select {
	case <-f.wait:
		return nil
	case <-s.done:
		return ErrEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open has a thing opened, and leases it.
func (s *Set) open(ctx context.Context, t, outer, leaves *thing, open func(context.Context) (any, error)) (*Lease, error) {
	callers := ctx
	ctx, stop := context.WithCancelCause(context.WithValue(ctx, openingKey{}, t))
	defer stop(nil)
	s.stopWith(t, stop)
	value, err := s.pool.make(ctx, t, leaves, open)
	if err != nil {
		return nil, s.fail(t, outer, err, callers.Err() != nil)
	}
	return s.opened(t, outer, value)
}

// make opens a thing, once the one that leaves for it is closed. Open has a goroutine
// of its own, which the caller waits for, lest it ends that of the caller.
func (p *Pool) make(ctx context.Context, t, leaves *thing, open func(context.Context) (any, error)) (value any, err error) {
	if leaves != nil {
		if err := p.exchange(ctx, leaves, t); err != nil {
			return nil, err
		}
	}
	err = apart(func() (err error) {
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
func (s *Set) fail(t, outer *thing, err error, again bool) error {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.ended {
		err = ErrEnded
	}
	p.totals.Failed++
	p.vacate(t)
	p.tried(t, outer)
	t.state = closing // lest what Open has left behind keeps something for it
	t.err, t.again = err, again
	t.letGo()
	s.forget(t)
	close(t.ready)
	close(t.gone)
	return err
}

// opened has a thing be used. If its owner has ended meanwhile, it is closed.
func (s *Set) opened(t, outer *thing, value any) (*Lease, error) {
	p := s.pool
	p.mu.Lock()
	t.value, t.opened = value, time.Now()
	t.used = t.opened
	p.totals.Opened++
	s.order = append(s.order, t)
	p.tried(t, outer)
	if !s.ended {
		t.state, t.uses = open, 1
		p.open[t] = struct{}{}
		outer.keep(t)
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

// tried notes that an Open is over. The caller holds the mutex.
func (p *Pool) tried(t, outer *thing) {
	outer.waitedFor(t)
	t.stop, t.waits = nil, nil // they would keep the context of the opener
	p.opening--
	p.wake()
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
// nil. One that is just being opened is waited for. Errors: ErrRecursive, and the
// context's.
func (s *Set) Opened(ctx context.Context, k *Kind, name string) (*Lease, error) {
	outer, _ := ctx.Value(openingKey{}).(*thing)
	for {
		f, err := s.peek(key{k, name}, outer)
		if err != nil || f.lease != nil || f.wait == nil {
			return f.lease, err
		}
		if err := s.await(ctx, f, outer); err != nil {
			return nil, err
		}
	}
}

// peek is find for what is open, or is being opened.
func (s *Set) peek(k key, outer *thing) (f found, err error) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if t := s.things[k]; t != nil && t.state != closing && !s.ended {
		return s.use(t, outer)
	}
	return f, nil
}

// Confirm notes that the owner has proved to be worth more than a newcomer.
func (s *Set) Confirm() {
	if !s.confirmed.Load() {
		s.confirmed.Store(true)
	}
}

// SetSource notes that the owner comes from another source from now on.
func (s *Set) SetSource(source string) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.source == source {
		return
	}
	places := p.placesOf(s)
	p.weigh(s.source, -places)
	s.source = source
	p.weigh(s.source, places)
}

// Hold keeps a thing that is open from idling out for d from now, and has it leave
// after all others that are not in use; zero or less: no longer. It reports whether it
// is open.
func (s *Set) Hold(k *Kind, name string, d time.Duration) bool {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	t := s.things[key{k, name}]
	return t != nil && t.hold(d)
}

// Discard has a thing be closed when nobody uses it any more. From now on another
// one is opened in its place. Who has a lease on it calls [Lease.Discard].
func (s *Set) Discard(k *Kind, name string) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if t := s.things[key{k, name}]; t != nil && t.state == open {
		t.discard()
	}
}

// Close ends the owner: nothing is opened any more, what is being opened is waited
// for and closed, then all others are, also those in use, in reverse order of their
// opening, each for no longer than its kind says. The error says which of them have
// failed. Further calls do nothing.
func (s *Set) Close() error {
	var errs []error
	began := time.Now()
	for _, t := range s.end() {
		if !t.settles(t.key.kind.CloseWithin - time.Since(began)) { // all at the same time
			errs = append(errs, fmt.Errorf("%s: its Open: %w", t.key.kind.Name, ErrHangs))
			continue
		}
		<-t.gone
		if t.closeErr != nil {
			errs = append(errs, fmt.Errorf("%s: its Close: %w", t.key.kind.Name, t.closeErr))
		}
	}
	for t, mine := s.last(); t != nil; t, mine = s.last() {
		if !mine {
			<-t.gone
		} else if err := s.pool.finish(t, Ended); err != nil {
			errs = append(errs, fmt.Errorf("%s: its Close: %w", t.key.kind.Name, err))
		}
	}
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	s.over = true
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
	close(s.done)
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
