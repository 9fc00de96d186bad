// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"iter"
	"maps"
	"slices"
)

// Reconfigure changes settings while the store runs. They are checked as a
// whole together with those in force; on an error, which wraps [ErrOptions] or
// is [ErrShutdown], nothing changes. Timeouts hold at once for every session, also for those that
// exist. If the maximum is lowered, idle sessions leave within the call, least
// worthy first and confirmed ones too, busy ones as they are released, and
// nothing is inserted until there is room.
//
// A few settings can be made in [New] only; their options say so.
func (s *Store[S]) Reconfigure(opts ...Option) error {
	s.reconf.Lock()
	defer s.reconf.Unlock()
	if s.stopped.Load() {
		return ErrShutdown
	}
	old := s.config.Load()
	c, err := old.with(opts)
	if err != nil {
		return err
	}
	s.closers.SetWorkers(c.closers)
	s.bringIn(old, c)
	if c.resolution != old.resolution || c.longestIdle != old.longestIdle {
		s.clock.adopt(c)
	}
	if c.idle != old.idle || c.lifetime != old.lifetime || c.empty != old.empty || c.holding != old.holding || c.leaseAge != old.leaseAge {
		s.refile()
	}
	return nil
}

// bringIn has c hold, ends what is above a lowered maximum, and brings the new policy
// in, if there is one. That is one step for everybody who has the mutex: if others
// knew of a lowered maximum before the idle ones have made room, those who are
// released just then would have to leave instead.
func (s *Store[S]) bringIn(old, c *config) {
	l := &s.ledger
	s.lock()
	defer s.unlock()
	s.config.Store(c)
	other := c.whenFull != old.whenFull || c.few() != old.few()
	if l.exceeds(c) {
		l.over.Store(true) // before looking, so that nobody is released unseen
		if c.whenFull == KeepConfirmed || old.whenFull == KeepConfirmed {
			anybody := *c
			anybody.whenFull = EvictUnconfirmed
			s.changePolicies(&anybody)
			other = true
		}
		now := s.clock.now()
		for l.excessPlaces(c) && s.evict(c, now, l.policy.Victim(nil)) {
		}
		for l.excessBytes(c) && s.evict(c, now, l.sized.Victim(nil)) {
		}
	}
	if other {
		s.changePolicies(c)
	}
	l.over.Store(l.exceeds(c))
}

// changePolicies moves all sessions to the policies that c asks for, in the
// order in which they would leave.
func (s *Store[S]) changePolicies(c *config) {
	l := &s.ledger
	var places, bytes []*entry[S] // all leave before any enters: a source is in one policy
	for e := l.policy.Take(); e != nil; e = l.policy.Take() {
		places = append(places, e)
	}
	for e := l.sized.Take(); e != nil; e = l.sized.Take() {
		bytes = append(bytes, e)
	}
	l.policy, l.sized = newPolicies[S](c, &l.why)
	for _, e := range places {
		l.policy.Insert(e, e.counted())
	}
	for _, e := range bytes {
		l.sized.Insert(e, e.counted())
	}
}

// refile puts every session on the wheel where the new timeouts want it, a
// batch at a time.
func (s *Store[S]) refile() {
	some := make([]*entry[S], 0, batch)
	for e := range s.index.all() {
		if some = append(some, e); len(some) == batch {
			s.refileSome(some)
			some = some[:0]
		}
	}
	s.refileSome(some)
	s.lock()
	defer s.unlock()
	for e := range s.ledger.retired {
		s.file(e, s.look(e, s.clock.now()))
	}
}

func (s *Store[S]) refileSome(some []*entry[S]) {
	s.lock()
	defer s.unlock()
	now := s.clock.now()
	for _, e := range some {
		if e.flag(listed) {
			s.takeBack(e)
			s.file(e, s.look(e, now))
		}
	}
}

// takeBack takes back what the coarse clock was ahead when e was used, which may
// be much when timeouts that were long become short.
func (s *Store[S]) takeBack(e *entry[S]) {
	for {
		st := e.load()
		now := stampOf(s.clock.now()) // after the load: the use that it tells of came before
		if st.used() <= now || e.swap(st, st&^usedMask|state(now)) {
			return
		}
	}
}

// Drain has every further Add and Put of a new session fail with [ErrDraining].
// Sessions that exist go on as before. It cannot be undone.
func (s *Store[S]) Drain() {
	s.lock()
	defer s.unlock()
	s.ledger.draining = true
}

// Shutdown ends all sessions and waits until they are closed. Idle ones are
// closed at once, those in use after their last release. When ctx ends first,
// the contexts of those still in use are canceled, they are closed under their
// users, and a [*ShutdownError] that wraps ctx's error counts them and whatever
// is not closed yet; that goes on in the background.
//
// From its first moment every operation fails with [ErrShutdown]; Release,
// Stats, Explain and Shutdown still work. It may be called several times, also
// at the same time; each waits. It must not be called from a session's Close or
// from the observer, for which it would wait. When it has returned nil, no
// goroutine of the store is left.
func (s *Store[S]) Shutdown(ctx context.Context) error {
	empty := s.stop()
	for e := range s.index.all() {
		for st := e.load(); st.phase() == live && !s.end(e, st, ReasonShutdown); st = e.load() {
		}
	}
	result := &ShutdownError{}
	select {
	case <-empty:
	case <-ctx.Done():
		result.Killed = s.killUsed()
	}
	s.handOver()
	if result.Closing = s.closers.Drain(ctx); result.Closing > 0 {
		s.closers.Hurry()
	}
	s.ledger.sweeps.Wait()
	s.journal.flush(s.config.Load().logger)
	result.Unreported = s.journal.pool.Drain(ctx)
	if result.Killed == 0 && result.Closing == 0 && result.Unreported == 0 {
		return nil
	}
	result.Cause = ctx.Err()
	return result
}

// stop closes the doors. The channel that it returns is closed when nobody has
// a place any more.
func (s *Store[S]) stop() <-chan struct{} {
	l := &s.ledger
	s.lock()
	defer s.unlock()
	s.stopped.Store(true)
	if !l.shut {
		l.shut = true
		l.empty = make(chan struct{})
	}
	return l.empty
}

// killUsed closes those who are still in use, and reports how many it were.
func (s *Store[S]) killUsed() (killed int) {
	for e := range s.placed() {
		if s.kill(e, ReasonShutdown) {
			killed++
			if c := s.config.Load(); c.leaseTraces {
				s.tellLeases(c, e)
			}
		} else {
			s.depart(e) // who ended it has yet to come to it
		}
	}
	return killed
}

// placed yields all who have a place, under no lock. Who comes or goes meanwhile may be
// yielded or not.
func (s *Store[S]) placed() iter.Seq[*entry[S]] {
	return func(yield func(*entry[S]) bool) {
		for e := range s.index.all() {
			if !yield(e) {
				return
			}
		}
		for _, e := range s.retiredOnes() { // afterwards: who retires goes from there to here
			if !yield(e) {
				return
			}
		}
	}
}

func (s *Store[S]) retiredOnes() []*entry[S] {
	s.lock()
	defer s.unlock()
	return slices.Collect(maps.Keys(s.ledger.retired))
}
