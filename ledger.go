// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover/eviction"
	"github.com/c8e4ff29/layover/janitor"
)

// ledger is what concerns the store as a whole: who has a place, who would
// leave, and when. Its mutex may be taken under a shard's, never the other way
// round. No foreign code runs under it.
type ledger[S Session] struct {
	mu       sync.Mutex
	places   int // taken: live and retired sessions
	live     int
	classes  [eviction.Confirmed + 1]int // live ones
	retired  map[*entry[S]]struct{}
	policy   eviction.Policy[entry[S]]
	wheel    *janitor.Wheel[entry[S]]
	draining bool
	shut     bool
	empty    chan struct{} // closed when no place is taken, after shut
	counts   counts

	over atomic.Bool // more places taken than the maximum, after it was lowered

	sweeping bool // a sweep is under way, and will arm the timer when it is done
	timer    *time.Timer
	wakeAt   time.Duration  // when the timer fires; never if it is stopped
	sweeps   sync.WaitGroup // a timer that is armed or whose sweep still runs
}

// counts are running totals and a peak.
type counts struct {
	created, confirmed, refused uint64
	ended                       [reasons]uint64
	peak                        int
}

func (s *Store[S]) newPolicy(c *config) eviction.Policy[entry[S]] {
	if c.whenFull == EvictLRU {
		return eviction.NewLRU[entry[S]]()
	}
	return eviction.NewAssured[entry[S]](c.few(), c.whenFull == KeepConfirmed)
}

// admit gives e a place, which must be free, and reports it.
func (s *Store[S]) admit(c *config, e *entry[S]) {
	l := &s.ledger
	st := e.load()
	e.listed, e.placed, e.class, e.asked = true, true, st.class(), e.created
	l.places++
	l.live++
	l.classes[e.class]++
	l.counts.created++
	l.counts.peak = max(l.counts.peak, l.places)
	l.policy.Insert(&e.node, e, e.class)
	l.wheel.File(&e.timer, e, e.lookAt(c, st, e.created))
	s.journal.event(c, s.event(EventCreated, e, st, e.created))
	s.arm()
}

// refuse counts an insert for which there is no room.
func (l *ledger[S]) refuse() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts.refused++
	return ErrFull
}

// settle brings the ledger in line with an entry that has left the live phase.
// It may be called any number of times, by anybody.
func (s *Store[S]) settle(c *config, e *entry[S], now time.Duration) {
	l := &s.ledger
	st := e.load()
	if st.phase() == live {
		return
	}
	if e.listed {
		e.listed = false
		l.live--
		l.classes[e.class]--
		l.counts.ended[st.reason()]++
		l.policy.Remove(&e.node)
		l.wheel.Cancel(&e.timer)
		ev := s.event(EventEnded, e, st, now)
		s.memory.add(ev)
		s.journal.event(c, ev)
		if st.phase() == retired {
			l.retired[e] = struct{}{}
		}
	}
	if st.phase() == gone && e.placed {
		e.placed = false
		l.places--
		delete(l.retired, e)
		l.over.Store(c.max > 0 && l.places > c.max)
		// Here and not after the mutex, so that a Shutdown that finds no place
		// taken waits for this Close as well.
		e.cancel()
		s.closers.Submit(e)
		if l.shut && l.places == 0 {
			close(l.empty)
		}
	}
}

// room makes room for one more session, if need be by ending others, which it
// appends to left. It reports whether there is room.
func (s *Store[S]) room(c *config, now time.Duration, left []*entry[S]) ([]*entry[S], bool) {
	l := &s.ledger
	if c.max == 0 || l.places < c.max {
		return left, true
	}
	for more, n := true, 0; more && l.places >= c.max && n < reapsForRoom; n++ {
		left, more = s.reap(c, now, left)
	}
	for before := l.places + 1; l.places >= c.max && l.places < before; {
		before = l.places
		left = s.evict(c, now, left)
	}
	return left, l.places < c.max
}

// reapsForRoom bounds for how long an insert looks for expired sessions before
// it evicts another: most of what is due may merely have to be filed again.
const reapsForRoom = 16

// closed returns why nothing is inserted any more, nil if it is.
func (l *ledger[S]) closed() error {
	switch {
	case l.shut:
		return ErrShutdown
	case l.draining:
		return ErrDraining
	}
	return nil
}

// reap ends a bounded number of sessions that are due, and reports whether
// there may be more.
func (s *Store[S]) reap(c *config, now time.Duration, left []*entry[S]) ([]*entry[S], bool) {
	l := &s.ledger
	due, more := l.wheel.Due(now, batch, s.due[:0])
	for _, e := range due {
		for {
			st := e.load()
			if st.phase() != live {
				break // whoever ended it settles it
			}
			r := e.overdue(c, st, now)
			if r == 0 {
				l.wheel.File(&e.timer, e, e.lookAt(c, st, now))
				break
			}
			if e.swap(st, st.ended(r)) {
				s.settle(c, e, now)
				left = append(left, e)
				break
			}
		}
	}
	clear(due)
	return left, more
}

// evict ends one session for capacity, if any may leave.
func (s *Store[S]) evict(c *config, now time.Duration, left []*entry[S]) []*entry[S] {
	used := func(e *entry[S]) bool {
		last := e.lastUsed()
		since := last > e.asked
		e.asked = last
		return since
	}
	take := func(e *entry[S]) bool {
		for {
			st := e.load()
			if st.phase() == gone {
				return true // ended by somebody who has yet to settle it
			}
			if st.phase() != live || st.busy() {
				return false
			}
			if e.swap(st, st.ended(ReasonCapacity)) {
				return true
			}
		}
	}
	e := s.ledger.policy.Victim(used, take)
	if e == nil {
		return left
	}
	s.settle(c, e, now)
	return append(left, e)
}

// arm has the timer fire when the wheel next needs it, and stops it when
// nothing is filed.
func (s *Store[S]) arm() {
	l := &s.ledger
	if l.sweeping {
		return
	}
	next, ok := l.wheel.Next()
	if !ok || l.shut {
		next = never
	}
	if next != never && next >= l.wakeAt {
		return // it fires early enough
	}
	// Even if wakeAt says that nothing is armed: a sweep that came late may have
	// forgotten the timer that was armed since it fired.
	if l.timer != nil && l.timer.Stop() {
		l.sweeps.Done()
	}
	l.wakeAt = next
	if next == never {
		return
	}
	l.sweeps.Add(1)
	if wait := next - s.now(); l.timer == nil {
		l.timer = time.AfterFunc(wait, s.sweep)
	} else {
		l.timer.Reset(wait)
	}
}

// batch is how many entries a sweep handles under one hold of the ledger's
// mutex: enough to be cheap, few enough that nobody waits long.
const batch = 256

// sweep ends what is due.
func (s *Store[S]) sweep() {
	defer s.ledger.sweeps.Done()
	if !s.startSweep() {
		return
	}
	var left []*entry[S]
	for more := true; more; runtime.Gosched() {
		s.ledger.mu.Lock()
		left, more = s.reap(s.config.Load(), s.now(), left[:0])
		if !more {
			s.ledger.sweeping = false
			s.arm()
		}
		s.ledger.mu.Unlock()
		s.finish(left)
		clear(left)
	}
}

// startSweep reports whether the caller is to sweep; another one may be at it.
func (s *Store[S]) startSweep() bool {
	l := &s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sweeping {
		return false
	}
	l.sweeping, l.wakeAt = true, never
	return true
}

// depart settles e, which the caller has just ended or killed.
func (s *Store[S]) depart(e *entry[S]) {
	s.ledger.mu.Lock()
	s.settle(s.config.Load(), e, s.now())
	s.arm()
	s.ledger.mu.Unlock()
	s.index.remove(e)
}

// finish takes ended entries out of the index. It runs under no lock.
func (s *Store[S]) finish(left []*entry[S]) {
	for _, e := range left {
		s.index.remove(e)
	}
}
