// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// session is what the store keeps, with the books about it. What the clients note
// is true whatever the store does: how many leases they surely have, since when at
// the earliest and until when at the latest its idle clock runs.
type session struct {
	life   *life
	n      uint64
	source string
	size   int64
	own    time.Time // an end of its own; zero: none
	closes atomic.Int32

	mu      sync.Mutex
	history history
	name    *name     // by which it goes
	refused bool      // the store did not take it
	asked   time.Time // when somebody began to add it
	added   time.Time // when it was surely there
	using   int       // leases that clients surely have
	killed  bool      // it has no place any more, whoever has leases
	began   time.Time // the idle clock started then, or later
	done    time.Time // the idle clock started then, or earlier

	// Of what a client does to it: that it has begun to, and that it has done it.
	confirming, confirmed bool
	putting, holds        bool
	ending                ending
	renaming              int
	gone                  time.Time // when it was first known to be gone

	ctx      context.Context // of its leases: it must be canceled before a close under them
	ended    int             // that its ends were reported
	reason   layover.Reason
	closed   bool
	endedAt  time.Time
	closedAt time.Time
}

// ending is what somebody has begun to do to end a session.
type ending struct {
	at     time.Time
	reason layover.Reason
}

// String returns the mark of the session, not its ID.
func (s *session) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name.mark.String()
}

// History tells what has happened to the session, see [promise.Historian].
func (s *session) History() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history.tell(s.life.run.began)
}

// note adds a line to the session's history.
func (s *session) note(what string, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.note(what, by)
}

// name is an ID, and how many calls are under way that may touch what goes by it.
type name struct {
	id      string
	mark    layover.Fingerprint
	shared  bool // several sessions go by it, one after the other
	pending atomic.Int32
}

// timeouts returns the shortest idle timeout that the session may have had since
// then, and the longest. The caller holds its mutex.
func (s *session) timeouts(since time.Time) (shortest, longest time.Duration) {
	least, most := s.life.limits.since(since)
	shortest, longest = least.empty, most.empty
	switch {
	case s.confirming:
		longest = most.idle
	case s.putting:
		longest = most.holding
	}
	switch {
	case s.confirmed:
		shortest = least.idle
	case s.holds:
		shortest = least.holding
	}
	return min(shortest, least.idle), min(longest, most.idle)
}

// before is what was known of a session when a call began that may get it.
type before struct {
	at    time.Time
	alone bool // nobody else used it, or had begun to
	done  time.Time
	began time.Time
	gone  time.Time
	using int
	over  bool // the store was shut down
}

// look returns what is known of the session.
func (s *session) look(others bool, now time.Time) before {
	s.mu.Lock()
	defer s.mu.Unlock()
	return before{
		at: now, alone: !others && s.using == 0 && !s.added.IsZero(),
		done: s.done, began: s.began, gone: s.gone, using: s.using, over: s.life.over.Load(),
	}
}

// lookBack returns what was known of the session when a call began which could not
// know yet that it would get this one, nor that nobody else did.
func (s *session) lookBack(began time.Time, over bool) before {
	b := s.look(true, began)
	if b.over = over; !b.gone.Before(began) {
		b.gone = time.Time{} // that was meanwhile
	}
	return b
}

// found checks that a session which a call got may still be handed out. b is what
// was known of it when the call began.
func (s *session) found(b before, what string) {
	l := s.life
	s.mu.Lock()
	_, longest := s.timeouts(b.done)
	late, added, own := l.resolution(b.done), s.added, s.own
	s.mu.Unlock()
	if !b.gone.IsZero() {
		l.Expect(promise.NotStale, b.at.Before(b.gone), "session %s was handed out by %s %s after it was known to be gone, expected never", s, what, b.at.Sub(b.gone))
	}
	l.Expect(promise.NotStale, !b.over, "session %s was handed out by %s after the store was shut down", s, what)
	if b.alone {
		unused := b.at.Sub(b.done)
		l.Expect(promise.NotStale, unused < longest+late, "session %s was handed out by %s %s after its last use, expected less than %s", s, what, unused, longest+late)
	}
	if !added.IsZero() {
		_, most := l.limits.since(added)
		age := b.at.Sub(added)
		l.Expect(promise.NotStale, age < most.lifetime+late, "session %s was handed out by %s at the age of %s, expected less than %s", s, what, age, most.lifetime+late)
	}
	if !own.IsZero() {
		l.Expect(promise.NotStale, b.at.Before(own.Add(late)), "session %s was handed out by %s %s after its own end, expected never", s, what, b.at.Sub(own))
	}
}

// lost checks why a call did not find a session.
func (s *session) lost(b before, err error, what string) {
	l := s.life
	if errors.Is(err, layover.ErrShutdown) {
		l.Expect(promise.Explained, l.stopping.Load(), "session %s: %s failed with %v, but nobody has shut the store down", s, what, err)
		return
	}
	var nf *layover.NotFoundError
	if !l.Expect(promise.Explained, errors.As(err, &nf), "session %s: %s failed with %v, expected that it is not found", s, what, err) {
		return
	}
	now := time.Now()
	s.mu.Lock()
	if s.gone.IsZero() {
		s.gone = now
		s.history.note("not found by "+what+" ("+nf.Reason.String()+")", 0)
	}
	s.mu.Unlock()
	if nf.Reason != 0 {
		s.justified(nf.Reason, b.began, now, b.using > 0)
	}
}

// justified checks that a session may have ended for a reason, given that its idle
// clock started then at the earliest, and that it had ended by now.
func (s *session) justified(r layover.Reason, began, now time.Time, leased bool) {
	l := s.life
	s.mu.Lock()
	shortest, _ := s.timeouts(began)
	asked, ending, own, renaming := s.asked, s.ending, s.own, s.renaming > 0
	s.mu.Unlock()
	switch r {
	case layover.ReasonIdle, layover.ReasonUnconfirmed:
		unused := now.Sub(began)
		l.Expect(promise.NotInUse, !leased, "session %s ended (%s) although it was leased, expected never", s, r)
		l.Expect(promise.NotEarly, unused >= shortest, "session %s ended (%s) %s after its last use, expected at least %s", s, r, unused, shortest)
	case layover.ReasonLifetime:
		least, _ := l.limits.since(asked)
		age, youngest := now.Sub(asked), least.lifetime-least.lifetime/10 // a random part of a tenth is taken off
		early := age < youngest && (own.IsZero() || now.Before(own))
		l.Expect(promise.NotEarly, !early, "session %s ended (lifetime) at the age of %s, expected at least %s", s, age, youngest)
	case layover.ReasonCapacity, layover.ReasonQuota:
		l.Expect(promise.NotInUse, !leased, "session %s ended (%s) although it was leased, expected never", s, r)
	case layover.ReasonShutdown:
		l.Expect(promise.NotEarly, l.stopping.Load(), "session %s ended for a shutdown, but there was none", s)
	case layover.ReasonRenamed:
		l.Expect(promise.Renewed, renaming, "session %s ended (renamed), but nobody did that", s)
	default:
		l.Expect(promise.NotEarly, ending.reason == r, "session %s ended (%s), but nobody did that", s, r)
	}
}

// uses notes that a client has a lease on the session; the other half is leaves.
func (s *session) uses(now time.Time, by int) {
	s.mu.Lock()
	s.using++
	first := s.using == 1 && !s.killed
	s.began = later(s.began, now)
	s.history.note("leased", by)
	s.mu.Unlock()
	if first {
		s.life.leased(s.size)
	}
}

// leaves notes that a client is about to give its lease back.
func (s *session) leaves(now time.Time, by int) {
	s.mu.Lock()
	s.using--
	last := s.using == 0 && !s.killed
	s.began = later(s.began, now)
	s.history.note("released", by)
	s.mu.Unlock()
	if last {
		s.life.released(s.size)
	}
}

// touched notes a use that began and ended then.
func (s *session) touched(began, done time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began, s.done = later(s.began, began), later(s.done, done)
}

// endsFor notes that a client is about to end the session.
func (s *session) endsFor(r layover.Reason, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = ending{time.Now(), r}
	s.history.note("to be ended ("+r.String()+")", by)
	if r == layover.ReasonKilled && !s.killed {
		if s.killed = true; s.using > 0 {
			s.life.released(s.size)
		}
	}
}

// endedBy notes that the session is surely gone.
func (s *session) endedBy(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone.IsZero() {
		s.gone = now
	}
}

// Close is the teardown, which only the store calls.
func (s *session) Close() error {
	now, l := time.Now(), s.life
	n := s.closes.Add(1)
	s.mu.Lock()
	using, refused, ctx, ending := s.using, s.refused, s.ctx, s.ending
	_, longest := s.timeouts(s.done)
	lag := now.Sub(s.done.Add(longest))
	s.closed, s.closedAt = true, now
	s.history.note("closed", 0)
	s.mu.Unlock()
	l.Expect(promise.ClosedOnce, n == 1, "session %s was closed %d times, expected once", s, n)
	l.Expect(promise.ClosedOnce, !refused, "session %s was closed, but the store had refused it", s)
	if using > 0 {
		killed := ending.reason == layover.ReasonKilled || l.cut.Load() && !now.Before(l.deadline)
		l.Expect(promise.NotInUse, killed, "session %s was closed under %d leases, expected none", s, using)
		l.Expect(promise.NotInUse, ctx == nil || ctx.Err() != nil, "session %s was closed under a lease whose context was not canceled before", s)
	} else if lag > 0 && ending.at.IsZero() && !l.stopping.Load() {
		l.run.recorder.Lag(lag)
	}
	l.closes.Add(1)
	l.settled(s)
	return l.faults().close(s, n)
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
