// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"reflect"
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

// Origin is what the store is told about a newcomer.
type Origin struct {
	// Holds says that the session holds something from the start, see
	// [Store.Hold].
	Holds bool
}

// Add files v under id and returns its first lease, so that it cannot leave
// before its first call has ended. A store that is full makes room as
// [WithWhenFull] says.
//
// Errors: [ErrExists], [ErrFull], [ErrDraining], [ErrShutdown], [ErrInvalid].
// On an error v is not stored and not closed; it is still the caller's.
func (s *Store[S]) Add(id string, v S, o Origin) (l Lease[S], err error) {
	e, err := s.insert(id, v, o, leaseUnit, false)
	if err != nil {
		return // a zero lease
	}
	l.store, l.entry = s, e
	return
}

// Put files v under id without a lease. If the same value is filed there
// already, that is a touch. If another one is, that one ends, as replaced: at
// once if idle, after its last release if calls use it. Values that cannot be
// compared are never the same. One value must not be filed under two IDs, nor
// again after it has ended, since it would be closed for each.
//
// Errors are those of Add without [ErrExists]. On an error v is not stored and
// not closed, and what was there stays.
func (s *Store[S]) Put(id string, v S, o Origin) error {
	if e := s.index.get(id); e != nil && same(e.value, v) && s.Touch(id) == nil {
		return nil
	}
	_, err := s.insert(id, v, o, 0, true)
	return err
}

func (s *Store[S]) insert(id string, v S, o Origin, leases state, replace bool) (*entry[S], error) {
	if id == "" || isNil(v) {
		return nil, ErrInvalid
	}
	if err := s.letClosersBreathe(id, replace); err != nil {
		return nil, err
	}
	e := &entry[S]{id: id, value: v, mark: s.Fingerprint(id), jitter: uint8(rand.Uint32())}
	if o.Holds {
		leases |= holdsBit
	}
	e.state.Store(uint64(leases))
	left := make([]*entry[S], 0, 4)
	e, left, err := s.enter(e, replace, left)
	s.finish(left)
	return e, err
}

// letClosersBreathe slows newcomers down to the pace of the closers while more
// sessions wait to be closed than the store may hold, and refuses them if that
// does not help: closers that hang or are too slow push back instead of piling
// up sessions without bound.
func (s *Store[S]) letClosersBreathe(id string, replace bool) error {
	limit := s.config.Load().max
	if limit == 0 {
		return nil
	}
	limit = max(limit, minClosing)
	for wait := time.Millisecond; s.closers.Pending() >= limit; wait *= 2 {
		if err := s.refuses(id, replace); err != nil {
			return err
		}
		if wait >= closePatience || s.closers.Hung() >= limit {
			return s.ledger.refuse()
		}
		time.Sleep(wait)
	}
	return nil
}

// refuses returns why a newcomer has no chance, however long it waits.
func (s *Store[S]) refuses(id string, replace bool) error {
	if _, err := s.visit(id, 0); err == nil && !replace {
		return ErrExists
	}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	return s.ledger.closed()
}

// closePatience bounds how long a newcomer waits for closers: about as long.
const closePatience = time.Second

// minClosing keeps a burst of replacements in a small store from being refused.
const minClosing = 1024

// enter is the part of insert that runs under the locks.
func (s *Store[S]) enter(e *entry[S], replace bool, left []*entry[S]) (*entry[S], []*entry[S], error) {
	sh := s.index.shard(e.id)
	sh.Lock()
	defer sh.Unlock()
	l := &s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	c, now := s.config.Load(), s.now()
	e.created = now
	e.used.Store(int64(now))
	if err := l.closed(); err != nil {
		return nil, left, err
	}
	if old := sh.entries[e.id]; old != nil {
		kept, rest, err := s.displace(c, now, old, e, replace, left)
		if left = rest; kept || err != nil {
			return old, left, err
		}
	}
	left, ok := s.room(c, now, left)
	if !ok {
		l.counts.refused++
		return nil, left, ErrFull
	}
	s.admit(c, e)
	sh.entries[e.id] = e
	return e, left, nil
}

// displace ends old, so that e can have its ID. It is kept if it is the same
// session as e, or live and not to be replaced.
func (s *Store[S]) displace(c *config, now time.Duration, old, e *entry[S], replace bool, left []*entry[S]) (kept bool, _ []*entry[S], err error) {
	l := &s.ledger
	for {
		st := old.load()
		if st.phase() != live {
			s.settle(c, old, now) // on its way out; its end comes before the newcomer
			return false, left, nil
		}
		r := old.overdue(c, st, now)
		if r == 0 {
			if !replace {
				return true, left, ErrExists
			}
			if same(old.value, e.value) {
				old.touch(now)
				if old.swap(st, st+touchUnit) {
					return true, left, nil
				}
				continue
			}
			r = ReasonReplaced
			if st.busy() || c.max > 0 && l.places > c.max {
				// Its place does not become free: another is needed first.
				var ok bool
				if left, ok = s.room(c, now, left); !ok {
					l.counts.refused++
					return true, left, ErrFull
				}
			}
		}
		if old.swap(st, st.ended(r)) {
			s.settle(c, old, now)
			return false, append(left, old), nil
		}
	}
}

// same reports whether a and b are one session.
func same[S Session](a, b S) bool {
	return reflect.ValueOf(a).Comparable() && any(a) == any(b)
}

// isNil reports whether v is nil, or an interface value that holds a nil.
func isNil[S Session](v S) bool {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Map, reflect.Chan, reflect.Func, reflect.Slice:
		return r.IsNil()
	default:
		return false
	}
}

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
	c, st, now := s.config.Load(), e.load(), s.now()
	l.classes[e.class]--
	e.class = st.class()
	l.classes[e.class]++
	l.policy.Reclass(&e.node, e.class)
	e.asked = e.lastUsed() // as its new place counts from now
	l.wheel.File(&e.timer, e, e.lookAt(c, st, now))
	s.arm()
	if bit == confirmedBit {
		l.counts.confirmed++
		s.journal.event(c, s.event(EventConfirmed, e, st, now))
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
		if st.phase() != live || st.busy() {
			break
		}
		if e.swap(st, st.ended(ReasonCapacity)) {
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
	for {
		e, err := s.visit(id, 0)
		if err != nil {
			return err
		}
		if st := e.load(); st.phase() == live && s.end(e, st, ReasonClosed) {
			return nil
		}
	}
}

// CompareAndRemove is Remove, but only of v: if another session has the ID by
// now, that one stays and the error is [ErrNotFound].
func (s *Store[S]) CompareAndRemove(id string, v S) error {
	for {
		e, err := s.visit(id, 0)
		if err != nil {
			return err
		}
		if !same(e.value, v) {
			return s.notFound(id, ReasonReplaced)
		}
		if st := e.load(); st.phase() == live && s.end(e, st, ReasonClosed) {
			return nil
		}
	}
}

// Kill ends the session with fingerprint f and closes it at once, also while
// calls use it; its context is canceled first. It looks at every session, which
// for 65,536 takes about a millisecond. It reports whether there was one.
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

// Info is what [Store.All] tells about a session beside its value.
type Info struct {
	Fingerprint Fingerprint
	Created     time.Time
	// LastUsed is when the idle clock last started.
	LastUsed time.Time
	// Expires is when the session ends if nobody uses it until then, or at the
	// end of its lifetime if it is busy. Zero: never.
	Expires          time.Time
	Leases           int
	Confirmed, Holds bool
}

// All returns the live sessions in no order. It holds no lock while it yields;
// sessions that come or go meanwhile may or may not be seen. It gives no
// leases: a session may be closed while it is looked at.
func (s *Store[S]) All() iter.Seq2[Info, S] {
	return func(yield func(Info, S) bool) {
		s.index.each(func(batch []*entry[S]) bool {
			c, now := s.config.Load(), s.now()
			for _, e := range batch {
				st := e.load()
				if st.phase() != live || e.overdue(c, st, now) != 0 {
					continue
				}
				if !yield(s.info(c, e, st), e.value) {
					return false
				}
			}
			return true
		})
	}
}

func (s *Store[S]) info(c *config, e *entry[S], st state) Info {
	in := Info{
		Fingerprint: e.mark,
		Created:     s.start.Add(e.created),
		LastUsed:    s.start.Add(e.lastUsed()),
		Leases:      st.leases(),
		Confirmed:   st.confirmed(),
		Holds:       st.holds(),
	}
	expires := later(e.created, c.lifetimeFor(e.jitter))
	if !st.busy() {
		expires = min(expires, later(e.lastUsed(), c.idleFor(st)))
	}
	if expires != never {
		in.Expires = s.start.Add(expires)
	}
	return in
}
