// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"hash"
	"reflect"
	"runtime"
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
	config   atomic.Pointer[config]
	stopped  atomic.Bool
	clock    clock
	pointers bool      // S is a pointer type
	index    *index[S] // a pointer, as fmt prints a store by reflection that is in an unexported field

	_                             [64]byte   // what hits read is not on a cache line that others write
	reconf                        sync.Mutex // one Reconfigure at a time
	ledger                        ledger[S]
	memory                        *memory
	journal                       *journal
	closers                       *janitor.Pool[*entry[S]]
	macs                          sync.Pool // of hash.Hash, for fingerprints
	closed, failed, leasesRefused atomic.Uint64
}

// New returns an empty store. The options' errors wrap [ErrOptions] and say
// what to change; they are all reported at once.
func New[S Session](opts ...Option) (*Store[S], error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	s := &Store[S]{index: newIndex[S](), pointers: reflect.TypeFor[S]().Kind() == reflect.Pointer}
	s.config.Store(c)
	s.clock.init(c)
	s.macs.New = func() any { return hmac.New(sha256.New, []byte(c.key)) }
	s.journal = newJournal(s.Fingerprint, s.clock.now)
	s.memory = newMemory(c.remembered)
	s.ledger.why = ReasonCapacity
	s.ledger.retired = make(map[*entry[S]]uint64)
	s.ledger.policy, s.ledger.sized = newPolicies[S](c, &s.ledger.why)
	s.ledger.wheel = janitor.NewWheel(Tick, func(e *entry[S]) *janitor.Timer[entry[S]] { return &e.timer }, s.look)
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
		s.journal.fail(closeFailed, s.config.Load().logger, "layover: closing a session failed", e.id(), err)
	}
}

func (s *Store[S]) closeHangs(e *entry[S]) {
	s.journal.fail(closeHangs, s.config.Load().logger, "layover: closing a session hangs", e.id(), nil)
}

// find returns the entry under id. Whoever does not accept the source of a session
// that has ended is not told of it; nil accepts all.
func (s *Store[S]) find(id string, accept func(string) bool) (*entry[S], error) {
	if s.stopped.Load() {
		return nil, ErrShutdown
	}
	h := s.index.hash(id)
	if e := s.index.get(h, id); e != nil {
		return e, nil
	}
	st, source := s.memory.find(h, id)
	if st != 0 && accept != nil && !accept(source) {
		st = 0
	}
	return nil, s.notFound(id, st)
}

// fresh reports whether e, in state st, is far from its deadline by the coarse
// clock: so far that it does not matter if that ticks late.
func (e *entry[S]) fresh(c *config, st state, soon stamp) bool {
	return st.phase() == live && soon.duration()+c.margin < e.deadline(c, st)
}

// alive returns the state of e if it may be handed out. If not, the error says
// why, and e has ended. The machine is asked for the time only near a deadline.
func (s *Store[S]) alive(c *config, e *entry[S], soon stamp) (state, error) {
	for {
		st := e.load()
		if e.fresh(c, st, soon) {
			return st, nil
		}
		if st.phase() != live {
			return st, s.notFound(e.id(), st)
		}
		r := s.overdue(c, e, st, s.clock.now())
		if r == 0 {
			return st, nil
		}
		s.expire(e, st, r)
	}
}

// expire tries to end e, which in state st is past its deadline. If that may be
// moved, then only under the ledger's mutex: nobody ends for a deadline that
// held a moment ago, nor for settings that did.
func (s *Store[S]) expire(e *entry[S], st state, r Reason) {
	if !e.ident.ownEnd() {
		s.end(e, st, r)
		return
	}
	s.lock()
	defer s.unlock()
	s.reapOne(s.config.Load(), e.latest(), s.clock.now())
}

// visit finds the live session under id.
func (s *Store[S]) visit(id string) (*entry[S], error) {
	for {
		e, err := s.find(id, nil)
		if err != nil {
			return nil, err
		}
		if _, err = s.alive(s.config.Load(), e, s.clock.soon()); err == nil {
			return e, nil
		}
		if !s.replaced(e) {
			return nil, err
		}
	}
}

// touch finds the live session under id and starts its idle clock again. It
// writes only if the coarse clock has moved since the last touch.
func (s *Store[S]) touch(id string) (*entry[S], error) {
	for {
		e, err := s.find(id, nil)
		if err != nil {
			return nil, err
		}
		if err = s.refresh(e); err == nil {
			return e, nil
		}
		if !s.replaced(e) {
			return nil, err
		}
	}
}

func (s *Store[S]) refresh(e *entry[S]) error {
	c, soon := s.config.Load(), s.clock.soon()
	for {
		st, err := s.alive(c, e, soon)
		if err != nil {
			return err
		}
		if next := st.touched(soon); next == st || e.swap(st, next) {
			return nil
		}
	}
}

// replaced reports whether e, which has ended, has a successor under its ID by
// the time that it returns.
func (s *Store[S]) replaced(e *entry[S]) bool {
	if e.load().reason() != ReasonReplaced {
		return false
	}
	s.lock() // whoever replaces it holds the mutex until the successor is filed
	s.unlock()
	return s.index.get(e.hash(), e.id()) != e
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
// session. Errors: [ErrNotFound], [ErrLeaseLimit], [ErrShutdown].
func (s *Store[S]) Acquire(id string) (l Lease[S], err error) { return s.AcquireFrom(id, nil) }

// AcquireFrom is Acquire, but only if accept takes the session's source, see
// [Origin]. If it does not, the session is not touched and the error is that of
// an ID that never was, also if the session has ended. accept runs under no lock, perhaps several times; nil
// takes all.
func (s *Store[S]) AcquireFrom(id string, accept func(source string) bool) (l Lease[S], err error) {
	for {
		var e *entry[S]
		if e, err = s.find(id, accept); err != nil {
			return // a zero lease
		}
		if accept != nil && !accept(e.source.name) {
			err = s.notFound(id, 0)
			return
		}
		c := s.config.Load()
		var st state
		if st, err = s.lease(c, e); err == nil {
			l.store, l.entry, l.taken = s, e, st.marks()
			if c.leaseTraces {
				l.trace = s.trace(e)
			}
			return
		}
		if !s.replaced(e) {
			return
		}
	}
}

// lease adds a lease to e.
func (s *Store[S]) lease(c *config, e *entry[S]) (state, error) {
	soon, st := s.clock.soon(), e.load()
	if st.busy() {
		st = e.own()
	}
	for tries := 0; ; st = e.own() {
		if !e.fresh(c, st, soon) {
			var err error
			if st, err = s.alive(c, e, soon); err != nil {
				return st, err
			}
		}
		if st.leases() >= c.maxLeases {
			s.leasesRefused.Add(1)
			return st, ErrLeaseLimit
		}
		if !st.busy() && !e.source.enter(c.share) {
			// Others may count for a moment who are about to share this session,
			// or to give up.
			if tries++; tries < shareTries {
				runtime.Gosched()
				continue
			}
			s.leasesRefused.Add(1)
			return st, ErrLeaseLimit
		}
		if e.swap(st, st+leaseUnit) {
			return st, nil
		}
		if !st.busy() {
			e.source.leave()
		}
	}
}

const shareTries = 16

// Get returns the session under id and touches it. It gives no lease: the
// session may be closed at any moment, so this suits only sessions whose use
// after Close is harmless. Errors: [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Get(id string) (S, error) { return value(s.touch(id)) }

// Peek is Get without the touch: the idle clock goes on.
func (s *Store[S]) Peek(id string) (S, error) { return value(s.visit(id)) }

func value[S Session](e *entry[S], err error) (S, error) {
	if err != nil {
		var zero S
		return zero, err
	}
	return e.value, nil
}

// Touch starts the idle clock of the session under id again. The clock that it
// reads is coarse, so the session ends up to a 256th of the shortest timeout
// later (at most a second; a millisecond if the shortest timeout is below eight
// seconds), never earlier. Errors: [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Touch(id string) error {
	_, err := s.touch(id)
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
	e, err := s.visit(id)
	if err == nil {
		s.raise(e, bit)
	}
	return err
}

// raise sets a bit that stays.
func (s *Store[S]) raise(e *entry[S], bit state) {
	for {
		e = e.latest()
		st := e.load()
		if st&bit != 0 || st.phase() == gone {
			return
		}
		if st.reason() != ReasonRenamed && e.swap(st, st|bit) {
			break
		}
	}
	l := &s.ledger
	s.lock()
	defer s.unlock()
	if !e.flag(listed) {
		if turn := l.retired[e]; turn != 0 && bit == holdsBit {
			s.memory.hold(e.hash(), e.id(), turn)
		}
		return
	}
	st := e.load()
	if st.class() == e.counted() {
		return // it was counted so when it was admitted
	}
	l.classes[e.counted()]--
	l.classes[st.class()]++
	e.node.Spare = listed | placed | uint16(st.class())<<classShift
	l.policy.Reclass(e, st.class())
	if e.size() > 0 {
		l.sized.Reclass(e, st.class())
	}
	// The wheel need not know: a higher class never ends earlier, see check.
	if bit == confirmedBit {
		l.counts.confirmed++
		s.tell(s.config.Load(), EventConfirmed, e, st, s.clock.now())
	}
}

// release gives back one lease, which was taken in the given generation.
func (s *Store[S]) release(e *entry[S], generation bool) {
	soon, st := s.clock.soon(), e.load()
	if st.leases() > 1 {
		st = e.own()
	}
	for ; ; st = e.own() {
		if !st.busy() {
			return // a lease was copied, and the copy released before
		}
		next := st.released(soon)
		idle := !next.busy()
		if idle {
			next &^= parkedBit
		}
		if !e.swap(st, next) {
			continue
		}
		if idle && st.phase() != gone && st.reason() != ReasonRenamed { // else its heir does
			e.source.leave()
		}
		if generation != next.generation() {
			s.retireLease(e)
		}
		if next.phase() != st.phase() {
			if heir := e.heir(); heir != nil {
				e.extra.Load().past.Add(-1)
				s.release(heir, false)
			} else {
				s.depart(e)
			}
			return
		}
		if idle && st&parkedBit != 0 {
			s.unpark(e)
		}
		if s.ledger.over.Load() { // looked at after the swap, see bringIn
			s.leaveIfOver(e)
		}
		return
	}
}

// unpark tells the policy that e is idle again.
func (s *Store[S]) unpark(e *entry[S]) {
	s.lock()
	defer s.unlock()
	s.ledger.policy.Idle(e)
	if e.size() > 0 {
		s.ledger.sized.Idle(e)
	}
}

// leaveIfOver ends e, if it is idle, when more is taken than the maximum, which
// was lowered while e was busy.
func (s *Store[S]) leaveIfOver(e *entry[S]) {
	l := &s.ledger
	s.lock()
	defer s.unlock()
	for l.over.Load() {
		st := e.load()
		if st.phase() != live || st.busy() || e.swap(st, st.ended(ReasonCapacity)) {
			break
		}
	}
	s.settle(s.config.Load(), e, s.clock.now())
}

// Remove ends the session under id, as closed: at once if idle, after its last
// release if calls use it. Errors: [ErrNotFound], [ErrShutdown].
func (s *Store[S]) Remove(id string) error {
	return s.removeIf(id, func(S) bool { return true })
}

// CompareAndRemove is Remove, but only of v: if another session has the ID by
// now, that one stays and the error is [ErrNotFound].
func (s *Store[S]) CompareAndRemove(id string, v S) error {
	return s.removeIf(id, func(filed S) bool { return s.same(filed, v) })
}

// CompareAndSetSize is [Lease.SetSize] of the live session v under id, without a
// lease. Errors: those of SetSize, [ErrNotFound], [ErrShutdown].
func (s *Store[S]) CompareAndSetSize(id string, v S, n int64) error {
	if !sane(n) {
		return ErrInvalid
	}
	e, err := s.visit(id)
	if err != nil {
		return err
	}
	if !s.same(e.value, v) {
		return s.notFound(id, 0)
	}
	return s.setSize(e, n)
}

func (s *Store[S]) removeIf(id string, meant func(S) bool) error {
	for {
		e, err := s.visit(id)
		if err != nil {
			return err
		}
		if !meant(e.value) {
			st, _ := s.memory.find(e.hash(), id)
			return s.notFound(id, st.moved(gone, ReasonReplaced))
		}
		if st := e.load(); st.phase() == live && s.end(e, st, ReasonClosed) {
			return nil
		}
	}
}

// Fingerprint returns what stands for id in events, logs and errors of s.
func (s *Store[S]) Fingerprint(id string) Fingerprint {
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	return fingerprint(mac, id)
}

// Format prints the number of sessions, under every verb: %+v must not spill
// IDs.
func (s *Store[S]) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "layover.Store(%d sessions)", s.Len()) }
