// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"

	"github.com/c8e4ff29/layover/eviction"
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
	s.config.Store(c)
	s.closers.SetWorkers(c.closers)
	s.finish(s.trim(old, c))
	if c.idle != old.idle || c.lifetime != old.lifetime || c.empty != old.empty || c.holding != old.holding {
		s.refile()
	}
	return nil
}

// trim ends what is above a lowered maximum, then brings the new policy in, if
// there is one.
func (s *Store[S]) trim(old, c *config) (left []*entry[S]) {
	l := &s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	now, other := s.now(), c.whenFull != old.whenFull || c.few() != old.few()
	if c.max > 0 && l.places > c.max {
		l.over.Store(true) // before looking, so that nobody is released unseen
		if c.whenFull == KeepConfirmed || old.whenFull == KeepConfirmed {
			s.changePolicy(eviction.NewAssured[entry[S]](c.few(), false))
			other = true
		}
		for l.places > c.max {
			before := l.places
			if left = s.evict(c, now, left); l.places == before {
				break // the others are busy
			}
		}
	}
	if other {
		s.changePolicy(s.newPolicy(c))
	}
	l.over.Store(c.max > 0 && l.places > c.max)
	s.arm()
	return left
}

// changePolicy moves all sessions to another policy, in the order in which they
// would leave.
func (s *Store[S]) changePolicy(to eviction.Policy[entry[S]]) {
	for e := s.ledger.policy.Take(); e != nil; e = s.ledger.policy.Take() {
		to.Insert(&e.node, e, e.class)
	}
	s.ledger.policy = to
}

// refile puts every session on the wheel where the new timeouts want it, a
// batch at a time.
func (s *Store[S]) refile() {
	s.index.each(func(all []*entry[S]) bool {
		for len(all) > 0 {
			n := min(len(all), batch)
			s.refileSome(all[:n])
			all = all[n:]
		}
		return true
	})
}

func (s *Store[S]) refileSome(some []*entry[S]) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	c, now := s.config.Load(), s.now()
	for _, e := range some {
		if e.listed {
			s.ledger.wheel.File(&e.timer, e, e.lookAt(c, e.load(), now))
		}
	}
	s.arm()
}

// Drain has every further Add and Put of a new session fail with [ErrDraining].
// Sessions that exist go on as before. It cannot be undone.
func (s *Store[S]) Drain() {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
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
	s.index.each(func(batch []*entry[S]) bool {
		for _, e := range batch {
			for st := e.load(); st.phase() == live && !s.end(e, st, ReasonShutdown); st = e.load() {
			}
			s.depart(e) // whoever ended it may not have come to it yet
		}
		return true
	})
	result := &ShutdownError{}
	select {
	case <-empty:
	case <-ctx.Done():
		result.Killed = s.killRetired()
	}
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
	l.mu.Lock()
	defer l.mu.Unlock()
	s.stopped.Store(true)
	if !l.shut {
		l.shut = true
		l.empty = make(chan struct{})
		if l.places == 0 {
			close(l.empty)
		}
		s.arm()
	}
	return l.empty
}

func (s *Store[S]) killRetired() (killed int) {
	s.ledger.mu.Lock()
	var all []*entry[S]
	for e := range s.ledger.retired {
		all = append(all, e)
	}
	s.ledger.mu.Unlock()
	for _, e := range all {
		if s.kill(e, ReasonShutdown) {
			killed++
		} else {
			s.depart(e) // its last release has yet to come to it
		}
	}
	return killed
}
