// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Moving what the ledger is about from one processor to the next takes longer
// than what is done with it. So who ends a session while another one has the
// mutex leaves it to that one to settle it: nobody waits for that. Whoever
// unlocks the mutex looks once more for those who came too late for the last
// look, and those look once more for a mutex that was unlocked before they came;
// so nobody is forgotten.

// departures are sessions that have ended and are to be settled by whoever has
// the ledger's mutex.
type departures[S Session] struct {
	n    atomic.Int32
	mu   sync.Mutex
	list []*entry[S]
	free []*entry[S] // the memory of the next list; the ledger's mutex guards it
}

func (d *departures[S]) none() bool { return d.n.Load() == 0 }

// push returns how many there are.
func (d *departures[S]) push(e *entry[S]) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, e)
	return d.n.Add(1)
}

// take empties the list.
func (d *departures[S]) take() []*entry[S] {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.list
	d.list = d.free[:0]
	d.n.Store(0)
	return list
}

// lock takes the ledger's mutex, and settles who has departed.
func (s *Store[S]) lock() {
	s.spin()
	s.settleDeparted()
}

// spin takes the mutex. It is held for so short that whoever cannot have it at
// once gets it sooner by trying again than by going to sleep.
func (s *Store[S]) spin() {
	for range lockTries {
		if s.ledger.mu.TryLock() {
			return
		}
		for range lockPause {
			runtime.KeepAlive(s)
		}
	}
	s.ledger.mu.Lock()
}

const lockTries, lockPause = 20, 300

// settleDeparted is for whoever has the mutex.
func (s *Store[S]) settleDeparted() {
	d := &s.ledger.departed
	if d.none() {
		return
	}
	list := d.take()
	c, now := s.config.Load(), s.clock.now()
	for _, e := range list {
		s.settle(c, e, now)
	}
	clear(list)
	d.free = list
}

// unlock unlocks the mutex. Before and after, it settles those who have departed
// meanwhile. There may always be more, so after a while it leaves them to the
// janitor.
func (s *Store[S]) unlock() {
	l := &s.ledger
	for served := 0; ; served++ {
		s.settleDeparted()
		var few [fewClosing]*entry[S]
		n := s.finish(few[:])
		enough := served >= mostServed && l.places > 0 // an empty store has no janitor
		if enough {
			s.wake(s.clock.now())
		}
		l.test(beforeUnlock)
		l.mu.Unlock()
		l.test(afterUnlock)
		if n > 0 {
			s.closers.SubmitAll(few[:n])
			l.handing.Add(int32(-n))
		}
		if enough || l.departed.none() || !l.mu.TryLock() {
			return
		}
	}
}

// test lets the tests have something happen at a moment that is too short to be
// met otherwise.
func (l *ledger[S]) test(m moment) {
	if l.testHook != nil {
		l.testHook(m)
	}
}

type moment int

const (
	beforeUnlock moment = iota // after the last look under the mutex
	afterUnlock                // before what has ended goes to the closers
)

const (
	mostServed = 16 // times
	fewClosing = 4  // handed to the closers without the mutex, which they need not hold up
)

// finish does what had to wait for the end of a change. It returns how many of
// those that are to be closed it has put into few, for the caller to hand over
// once the mutex is unlocked.
func (s *Store[S]) finish(few []*entry[S]) (n int) {
	l := &s.ledger
	if len(l.closing) > 0 {
		if len(l.closing) <= len(few) {
			n = copy(few, l.closing)
			l.handing.Add(int32(n))
		} else {
			s.closers.SubmitAll(l.closing)
		}
		clear(l.closing)
		l.closing = l.closing[:0]
	}
	if l.wheel.Len() == 0 {
		s.wake(never)
	}
	if l.places == 0 {
		s.clock.park()
		if l.shut && !l.emptied {
			l.emptied = true
			close(l.empty)
		}
	}
	return n
}

// handOver returns when the closers have everybody who had ended before.
func (s *Store[S]) handOver() {
	s.lock()
	s.unlock()
	for s.ledger.handing.Load() > 0 {
		runtime.Gosched()
	}
}

// depart has e settled, which the caller has just ended or killed.
func (s *Store[S]) depart(e *entry[S]) {
	l, now := &s.ledger, s.clock.now()
	if !l.mu.TryLock() {
		if l.departed.push(e) < mostDeparted {
			if l.mu.TryLock() {
				s.unlock()
			}
			return
		}
		s.spin() // more come than one can settle
	}
	s.settleDeparted()
	s.settle(s.config.Load(), e, now)
	s.unlock()
}

// mostDeparted bounds how many have ended and are not settled.
const mostDeparted = 64
