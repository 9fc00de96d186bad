// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"math/rand/v2"
	"reflect"
	"time"
)

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
	if !replace {
		if _, err := s.visit(id, 0); err == nil {
			return ErrExists
		}
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
