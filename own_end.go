// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"sync/atomic"
	"time"
)

// ownEnd is the end of one session, beside that of its lifetime. The session's
// ident says whether it has one, and never changes; when it comes may change,
// under the ledger's mutex.
type ownEnd struct {
	at   atomic.Int64 // since the store's start
	told atomic.Int64 // as what time, in Unix nanoseconds
}

func (o *ownEnd) when() time.Duration { return time.Duration(o.at.Load()) }

func (o *ownEnd) set(at time.Duration, t time.Time) {
	o.at.Store(int64(at))
	o.told.Store(t.UnixNano()) // afterwards: who finds t there need not set it
}

// is reports whether t is what was last told.
func (o *ownEnd) is(t time.Time) bool { return o.told.Load() == t.UnixNano() }

// endsAt gives e an end of its own, before others can see it.
func (e *entry[S]) endsAt(at time.Duration, t time.Time) {
	e.ident.n |= endBit
	e.extras().end.set(at, t)
}

// setEnd moves the end of e's own, if it has one, and reports whether it could.
func (s *Store[S]) setEnd(e *entry[S], t time.Time) bool {
	if e = e.latest(); !e.ident.ownEnd() {
		return false
	}
	if e.extra.Load().end.is(t) && e.load().phase() == live {
		return true
	}
	s.lock()
	defer s.unlock()
	if e = e.latest(); !e.ident.ownEnd() {
		return false
	}
	end := &e.extra.Load().end
	c, now := s.config.Load(), s.clock.now()
	s.ageLeases(e, now)  // lest e's new place on the wheel put off the end of a lease
	s.reapOne(c, e, now) // past the old end there is nothing to move
	if e.load().phase() != live {
		return false
	}
	end.set(s.clock.at(t), t)
	s.reapOne(c, e, s.clock.now())
	return true
}
