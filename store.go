// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover/janitor"
)

// Tick is how late, at most, the janitor removes a session after its deadline,
// as far as the machine lets a timer run in time. Lookups do not wait for it.
const Tick = time.Millisecond

// Session is what a store keeps: anything that must be closed when it ends. The
// store calls Close exactly once, on a goroutine of its own and under no lock.
// Its error is logged.
type Session interface {
	Close() error
}

// Store keeps sessions. All methods may be called from any goroutine, also from
// a session's Close and from the observer, but for Shutdown, which waits for
// both. Use [New].
type Store[S Session] struct {
	start   time.Time
	config  atomic.Pointer[config]
	reconf  sync.Mutex // one Reconfigure at a time
	stopped atomic.Bool
	index   *index[S] // a pointer, as fmt prints a store by reflection that is in an unexported field
	ledger  ledger[S]
	due     [batch]*entry[S] // scratch of reap, under the ledger's mutex
	memory  memory
	journal *journal
	closers *janitor.Pool[*entry[S]]
	closed  atomic.Uint64
	failed  atomic.Uint64
}

// New returns an empty store. The options' errors wrap [ErrOptions] and say
// what to change; they are all reported at once.
func New[S Session](opts ...Option) (*Store[S], error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	s := &Store[S]{start: time.Now(), index: newIndex[S](), journal: newJournal()}
	s.config.Store(c)
	s.memory.init(c.remembered)
	s.ledger.retired = make(map[*entry[S]]struct{})
	s.ledger.policy = s.newPolicy(c)
	s.ledger.wheel = janitor.NewWheel[entry[S]](Tick)
	s.ledger.wakeAt = never
	s.closers = janitor.NewPool(janitor.PoolConfig[*entry[S]]{
		Workers:   c.closers,
		Run:       func(e *entry[S]) error { return e.value.Close() },
		Done:      s.closeDone,
		HungAfter: c.hungClose,
		Hung:      s.closeHangs,
		MaxHung:   maxHungClosers,
	})
	return s, nil
}

func (s *Store[S]) closeDone(e *entry[S], err error) {
	s.closed.Add(1)
	if err != nil {
		s.failed.Add(1)
		s.journal.fail(closeFailed, s.config.Load().logger, "layover: closing a session failed", e.mark, e.id, err)
	}
}

func (s *Store[S]) closeHangs(e *entry[S]) {
	s.journal.fail(closeHangs, s.config.Load().logger, "layover: closing a session hangs", e.mark, e.id, nil)
}

func (s *Store[S]) now() time.Duration { return time.Since(s.start) }

// visit finds the live session under id and adds delta to its state: a lease, a
// touch, or nothing.
func (s *Store[S]) visit(id string, delta state) (*entry[S], error) {
	if s.stopped.Load() {
		return nil, ErrShutdown
	}
	e := s.index.get(id)
	if e == nil {
		return nil, s.notFound(id, 0)
	}
	c, now := s.config.Load(), s.now()
	for {
		st := e.load()
		if st.phase() != live {
			return nil, s.notFound(id, st.reason())
		}
		if r := e.overdue(c, st, now); r != 0 {
			s.end(e, st, r)
			continue
		}
		if delta == touchUnit {
			e.touch(now)
		}
		if delta == 0 || e.swap(st, st+delta) {
			return e, nil
		}
	}
}

// end tries to end e, seen in state st, and reports whether it did.
func (s *Store[S]) end(e *entry[S], st state, r Reason) bool {
	if !e.swap(st, st.ended(r)) {
		return false
	}
	s.depart(e)
	return true
}

// Acquire returns a lease on the session under id. It does not confirm the
// session. Errors: [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Acquire(id string) (l Lease[S], err error) {
	e, err := s.visit(id, leaseUnit)
	if err != nil {
		return // a zero lease
	}
	l.store, l.entry = s, e
	return
}

// Get returns the session under id and touches it. It gives no lease: the
// session may be closed at any moment, so this suits only sessions whose use
// after Close is harmless. Errors: [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Get(id string) (S, error) { return value(s.visit(id, touchUnit)) }

// Peek is Get without the touch: the idle clock goes on.
func (s *Store[S]) Peek(id string) (S, error) { return value(s.visit(id, 0)) }

func value[S Session](e *entry[S], err error) (S, error) {
	if err != nil {
		var zero S
		return zero, err
	}
	return e.value, nil
}

// Touch starts the idle clock of the session under id again. Errors:
// [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Touch(id string) error {
	_, err := s.visit(id, touchUnit)
	return err
}

// Confirm notes that a later call than the one that created the session has
// brought its ID back. From now on the idle timeout applies to it, and under
// [EvictUnconfirmed] and [KeepConfirmed] it is no longer among the first to
// leave. It is not a touch. Errors: [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Confirm(id string) error { return s.raiseID(id, confirmedBit) }

// Hold notes that the session under id has, or had, something that its client
// would miss: an option, a connection, a temp table. It cannot be taken back.
// An unconfirmed session that holds something lives longer than one that holds
// nothing. It is not a touch. Errors: [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Hold(id string) error { return s.raiseID(id, holdsBit) }

func (s *Store[S]) raiseID(id string, bit state) error {
	e, err := s.visit(id, 0)
	if err == nil {
		s.raise(e, bit)
	}
	return err
}

// raise sets a bit that stays.
func (s *Store[S]) raise(e *entry[S], bit state) {
	for {
		st := e.load()
		if st&bit != 0 || st.phase() == gone {
			return
		}
		if e.swap(st, st|bit) {
			break
		}
	}
	l := &s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if !e.listed {
		return
	}
	st := e.load()
	l.classes[e.class]--
	e.class = st.class()
	l.classes[e.class]++
	l.policy.Reclass(&e.node, e.class)
	e.asked = e.lastUsed() // as its new place counts from now
	// The wheel need not know: a higher class never ends earlier, see check.
	if bit == confirmedBit {
		l.counts.confirmed++
		s.journal.event(s.config.Load(), s.event(EventConfirmed, e, st, s.now()))
	}
}

// release gives one lease back.
func (s *Store[S]) release(e *entry[S]) {
	e.touch(s.now())
	for {
		st := e.load()
		if !st.busy() {
			return // a lease was copied, and the copy released before
		}
		next := st.released()
		if !e.swap(st, next) {
			continue
		}
		if next.phase() != st.phase() {
			s.depart(e)
		} else if s.ledger.over.Load() { // looked at after the swap, see trim
			s.leaveIfOver(e)
		}
		return
	}
}

// leaveIfOver ends e, if it is idle, when more places are taken than the
// maximum, which was lowered while e was busy.
func (s *Store[S]) leaveIfOver(e *entry[S]) {
	l := &s.ledger
	l.mu.Lock()
	c := s.config.Load()
	for l.over.Load() {
		st := e.load()
		if st.phase() != live || st.busy() || e.swap(st, st.ended(ReasonCapacity)) {
			break
		}
	}
	s.settle(c, e, s.now())
	s.arm()
	l.mu.Unlock()
	if e.load().phase() != live {
		s.index.remove(e)
	}
}

// Remove ends the session under id, as closed: at once if idle, after its last
// release if calls use it. Errors: [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Remove(id string) error {
	return s.removeIf(id, func(S) bool { return true })
}

// CompareAndRemove is Remove, but only of v: if another session has the ID by
// now, that one stays and the error is [ErrNotFound].
func (s *Store[S]) CompareAndRemove(id string, v S) error {
	return s.removeIf(id, func(filed S) bool { return same(filed, v) })
}

func (s *Store[S]) removeIf(id string, meant func(S) bool) error {
	for {
		e, err := s.visit(id, 0)
		if err != nil {
			return err
		}
		if !meant(e.value) {
			return s.notFound(id, ReasonReplaced)
		}
		if st := e.load(); st.phase() == live && s.end(e, st, ReasonClosed) {
			return nil
		}
	}
}

// Kill ends the session with fingerprint f and closes it at once, also while
// calls use it; its context is canceled first. It looks at every session, which
// for 65,536 takes about a millisecond. It reports whether there was one; if an ID
// was used again, several may be in use under one fingerprint.
func (s *Store[S]) Kill(f Fingerprint) bool {
	c, now := s.config.Load(), s.now()
	for _, e := range s.marked(f) {
		if st := e.load(); st.phase() == live {
			if r := e.overdue(c, st, now); r != 0 {
				s.end(e, st, r)
			}
		}
		if s.kill(e, ReasonKilled) {
			return true
		}
	}
	return false
}

// marked returns the entries with fingerprint f that are in the store.
func (s *Store[S]) marked(f Fingerprint) (found []*entry[S]) {
	s.index.each(func(batch []*entry[S]) bool {
		for _, e := range batch {
			if e.mark == f {
				found = append(found, e)
			}
		}
		return true
	})
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	for e := range s.ledger.retired {
		if e.mark == f {
			found = append(found, e)
		}
	}
	return found
}

// kill closes e, used or not, and reports whether this call did it.
func (s *Store[S]) kill(e *entry[S], r Reason) bool {
	for {
		st := e.load()
		if st.phase() == gone {
			return false
		}
		if e.swap(st, st.moved(gone, r)) {
			s.depart(e)
			return true
		}
	}
}

// Fingerprint returns what stands for id in events, logs and errors of s.
func (s *Store[S]) Fingerprint(id string) Fingerprint {
	return FingerprintOf([]byte(s.config.Load().key), id)
}

// Format prints the number of sessions, under every verb: %+v must not spill
// IDs.
func (s *Store[S]) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "layover.Store(%d sessions)", s.Len()) }
