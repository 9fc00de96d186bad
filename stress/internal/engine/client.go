// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// client is one of those that use the store. Its methods are called by one
// goroutine.
type client struct {
	*life
	id     int
	rng    *rand.Rand
	source string
	since  atomic.Int64 // when its call began, in nanoseconds since the run did; zero: none is under way
	rounds uint64
}

// starts notes that a call begins.
func (c *client) starts() time.Time {
	now := time.Now()
	c.since.Store(max(1, int64(now.Sub(c.run.began))))
	return now
}

// stopped notes that the call is over.
func (c *client) stopped(err error) time.Time {
	now := time.Now()
	began := c.since.Swap(0)
	c.run.recorder.Call(now.Sub(c.run.began)-time.Duration(began), err != nil)
	c.run.calls.Add(1)
	if err != nil && began%16 == 0 {
		c.keepsSecrets(err.Error(), "an error")
		c.keepsSecrets(fmt.Sprintf("%+v", err), "a printed error")
	}
	return now
}

// lease is a lease, and the books about it.
type lease struct {
	layover.Lease[*session]
	client  *client
	session *session
}

// backlog is how many events may be on their way before whoever adds sessions waits:
// the store would drop those beyond what its queue takes.
const backlog = 20_000

// add has a new session stored. Nil: it was refused.
func (c *client) add(o layover.Origin) *lease {
	n := c.name(fmt.Sprint("own", c.id))
	return c.addAs(c.session(n, o.Source), n, o, func(s *session) (layover.Lease[*session], error) {
		return c.store.Add(n.id, s, o)
	})
}

// addAs has a session stored under a name by f.
func (c *client) addAs(s *session, n *name, o layover.Origin, f func(*session) (layover.Lease[*session], error)) *lease {
	c.catchUp()
	drained, over := c.drained.Load(), c.over.Load()
	c.begins()
	n.pending.Add(1)
	c.events.expect(n, s)
	asked := c.starts()
	s.mu.Lock()
	s.asked, s.size, s.own, s.holds, s.putting = asked, o.Size, o.Expires, o.Holds, o.Holds
	s.mu.Unlock()
	got := &lease{client: c, session: s}
	var err error
	got.Lease, err = f(s)
	now := c.stopped(err)
	n.pending.Add(-1)
	if err != nil {
		c.ends()
		c.refused(s, n, err)
		return nil
	}
	c.Expect(promise.Answered, !drained && !over, "session %s was added after Drain or Shutdown had returned", s)
	s.mu.Lock()
	s.added, s.done = now, later(s.done, now)
	if s.n%4 == 0 {
		s.ctx = got.Context()
	}
	s.history.note("added", c.id)
	s.mu.Unlock()
	s.uses(asked, c.id)
	c.within(asked)
	return got
}

// within checks that no more sessions have leases than may be live, nor more bytes,
// given that a session was just added.
func (c *client) within(asked time.Time) {
	_, most := c.limits.since(asked)
	held, bytes := c.held.Load(), c.heldBytes.Load()
	c.Expect(promise.Bounded, held <= int64(most.max), "%d sessions have leases, expected at most %d that are live", held, most.max)
	c.Expect(promise.Bounded, bytes <= most.bytes, "sessions with leases take %d bytes, expected at most %d", bytes, most.bytes)
}

// catchUp waits until the events of earlier sessions have come.
func (c *client) catchUp() {
	for c.unseen() > backlog {
		time.Sleep(time.Millisecond)
	}
}

// unseen returns how many sessions may have been created, by whoever adds or renames,
// without a report so far.
func (l *life) unseen() int64 {
	seen := l.events.seen.Load() + l.refusals.Load()
	return int64(l.added.Load() + l.renamed.Load() - seen)
}

// refused checks why a session was not stored.
func (c *client) refused(s *session, n *name, err error) {
	came := c.events.forget(n)
	s.mu.Lock()
	s.refused, s.gone = true, time.Now()
	s.history.note("refused", c.id)
	s.mu.Unlock()
	c.refusals.Add(1)
	c.Expect(promise.ClosedOnce, s.closes.Load() == 0, "session %s was closed, but the store had refused it", s)
	c.Expect(promise.Ordered, !came || n.shared, "session %s was reported to have been created, but Add failed: %v", s, err)
	c.settled(s)
	switch {
	case errors.Is(err, layover.ErrInvalid):
		c.Expect(promise.Answered, !s.own.IsZero() && !time.Now().Before(s.own), "session %s was refused: %v", s, err)
	case errors.Is(err, layover.ErrFull): // whether it had to be, others find out, see newcomers
	case errors.Is(err, layover.ErrExists):
		c.Expect(promise.Answered, n.shared, "session %s was refused, expected that its new ID is free: %v", s, err)
	case errors.Is(err, layover.ErrDraining):
		c.Expect(promise.Answered, c.draining.Load(), "session %s was refused, but nobody has drained the store: %v", s, err)
	default:
		c.Expect(promise.Answered, errors.Is(err, layover.ErrShutdown) && c.stopping.Load(), "session %s was refused: %v", s, err)
	}
}

// acquire gets a lease on a session. Nil: it is gone.
func (c *client) acquire(s *session) *lease {
	n := s.name
	c.begins()
	b := s.look(n.pending.Add(1) > 1, c.starts())
	got := &lease{client: c, session: s}
	var err error
	got.Lease, err = c.store.Acquire(n.id)
	c.stopped(err)
	if err != nil {
		n.pending.Add(-1)
		c.ends()
		s.lost(b, err, "Acquire")
		return nil
	}
	c.Expect(promise.Own, got.Session() == s, "Acquire of session %s returned session %s", s, got.Session())
	s.found(b, "Acquire")
	s.uses(b.at, c.id)
	n.pending.Add(-1)
	return got
}

// acquireShared gets a lease on whatever goes by a shared name. Nil: there is none.
func (c *client) acquireShared(n *name) *lease {
	c.begins()
	n.pending.Add(1)
	over := c.over.Load()
	began := c.starts()
	got := &lease{client: c}
	var err error
	got.Lease, err = c.store.Acquire(n.id)
	c.stopped(err)
	if err != nil {
		n.pending.Add(-1)
		c.ends()
		ok := errors.Is(err, layover.ErrNotFound) || errors.Is(err, layover.ErrShutdown) && c.stopping.Load()
		c.Expect(promise.Answered, ok, "Acquire failed with %v, expected that no session is found", err)
		return nil
	}
	s := got.Session()
	got.session = s
	s.found(s.lookBack(began, over), "Acquire")
	s.uses(began, c.id)
	n.pending.Add(-1)
	return got
}

// release gives the lease back.
func (l *lease) release() {
	s, c := l.session, l.client
	s.mu.Lock()
	n := s.name
	s.mu.Unlock()
	n.pending.Add(1)
	began := c.starts()
	s.leaves(began, c.id)
	l.Release()
	s.touched(began, c.stopped(nil))
	n.pending.Add(-1)
	c.ends()
	c.settled(s)
}

// confirms has the session confirmed, by its lease.
func (l *lease) confirms() {
	s := l.session
	s.mu.Lock()
	s.confirming = true
	s.mu.Unlock()
	l.Confirm()
	s.mu.Lock()
	defer s.mu.Unlock()
	// Whether the session had ended before, and is not confirmed, does not matter.
	s.confirmed = true
}

// puts has the session hold something, by its lease.
func (l *lease) puts() {
	s := l.session
	s.mu.Lock()
	s.putting = true
	s.mu.Unlock()
	l.Hold()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds = true
}

// looks uses a session without a lease, by a call that touches it or does not, and
// reports whether it was there.
func (c *client) looks(s *session, what string, touches bool, f func(id string) error) bool {
	n := s.name
	b := s.look(n.pending.Add(1) > 1, c.starts())
	err := f(n.id)
	now := c.stopped(err)
	if err == nil {
		s.found(b, what)
		if touches {
			s.touched(b.at, now)
		}
	}
	n.pending.Add(-1)
	if err != nil {
		s.lost(b, err, what)
	}
	return err == nil
}

// removes ends a session.
func (c *client) removes(s *session) {
	s.endsFor(layover.ReasonClosed, c.id)
	n := s.name
	b := s.look(n.pending.Add(1) > 1, c.starts())
	err := c.store.Remove(n.id)
	now := c.stopped(err)
	n.pending.Add(-1)
	if err != nil {
		s.lost(b, err, "Remove")
		return
	}
	s.found(b, "Remove")
	s.endedBy(now)
	_, err = c.store.Peek(n.id)
	c.Expect(promise.NotStale, err != nil, "session %s was found by Peek after Remove had returned, expected never", s)
}
