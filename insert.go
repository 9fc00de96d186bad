// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"reflect"
	"time"
)

// Origin is what the store is told about a newcomer.
type Origin struct {
	// Source names where the session comes from: a principal, a host. Sources
	// share a full store: the one with the most sessions makes room first, and
	// none pushes out the sessions of one that has fewer. Sessions with an
	// empty Source are all of one source.
	Source string

	// Quota is how many places its source may take at most, with this session and
	// with those that were retired while in use. If it has as many already, Add
	// fails with [ErrFull], or with EvictOwn the one of them that would be the first
	// to leave makes room, for [ReasonQuota]. The places are counted from the
	// sessions that are there, for all that were added with whatever quota. Put does
	// not look at it. Zero: no such limit.
	Quota int

	// EvictOwn: see Quota. Sessions in use do not leave, nor confirmed ones under
	// [KeepConfirmed]; and none do under [EvictLRU], which knows no order within a
	// source. If nobody can leave, Add fails.
	EvictOwn bool

	// Size is how many bytes the session takes, by the caller's reckoning, see
	// [WithMaxBytes] and [Lease.SetSize]. It must be neither negative nor more
	// than a tebibyte.
	Size int64

	// Holds says that the session holds something from the start, see
	// [Store.Hold].
	Holds bool

	// Expires is an end of the session's own, such as that of the token which it
	// was opened with. It ends then or at the end of its lifetime, whichever comes
	// first, in both cases for [ReasonLifetime]; but this end comes on time, to
	// the [Tick], without the lifetime's random part. It must be in the future.
	// [Lease.SetExpires] moves it. Zero: none.
	Expires time.Time
}

// Add files v under id and returns its first lease, so that it cannot leave
// before its first call has ended. A store that is full makes room as
// [WithWhenFull] says. IDs of up to 39 bytes are found fastest, and are copied:
// the store does not keep the string.
//
// Errors: [ErrExists], [ErrFull], [ErrLeaseLimit], [ErrDraining],
// [ErrShutdown], [ErrInvalid]. On an error v is not stored and not closed; it
// is still the caller's.
func (s *Store[S]) Add(id string, v S, o Origin) (l Lease[S], err error) {
	return s.addInstead(nil, id, v, o)
}

// AddInstead is Add, but if v is filed, the session that old leases ends at the same
// moment, as replaced; if v is not, that one stays. They may have the same ID. In the
// quota of its source the old one does not count; its place becomes free with its
// last release. If it has ended already, there is nothing to replace, nor if old is
// nil. If it is the same session as v, the error is [ErrExists].
func (s *Store[S]) AddInstead(old *Lease[S], id string, v S, o Origin) (l Lease[S], err error) {
	if old == nil || old.held() == nil {
		return s.addInstead(nil, id, v, o)
	}
	if old.store != s {
		err = ErrInvalid
		return
	}
	e := old.held().latest()
	if s.same(e.value, v) {
		err = ErrExists
		return
	}
	if st, held := s.lease(s.config.Load(), e); held == nil { // it stays in use until it is replaced
		defer s.release(e, st.generation())
	}
	return s.addInstead(e, id, v, o)
}

func (s *Store[S]) addInstead(old *entry[S], id string, v S, o Origin) (l Lease[S], err error) {
	e, err := s.insert(id, v, o, arrival[S]{leases: leaseUnit, instead: old})
	if err != nil {
		return // a zero lease
	}
	l.store, l.entry = s, e
	if s.config.Load().leaseTraces {
		l.trace = s.trace(e)
	}
	return
}

// arrival says how somebody comes into the store.
type arrival[S Session] struct {
	leases  state     // it has from the start
	replace bool      // whoever has the ID
	instead *entry[S] // ends at the same moment; nil: nobody
}

// Put files v under id without a lease. If the same value is filed there
// already, that is a touch, and o does not matter. If another one is, that one
// ends, as replaced: at once if idle, after its last release if calls use it; v
// is confirmed if that one was, since it is the ID that was brought back. Values
// that cannot be compared are never the same. One value must not be filed under
// two IDs, nor again after it has ended, since it would be closed for each.
//
// Errors are those of Add without [ErrExists] and [ErrLeaseLimit]. On an error
// v is not stored and not closed, and what was there stays.
func (s *Store[S]) Put(id string, v S, o Origin) error {
	if e := s.index.find(id); e != nil && s.same(e.value, v) && s.Touch(id) == nil {
		return nil
	}
	_, err := s.insert(id, v, o, arrival[S]{replace: true})
	return err
}

func (s *Store[S]) insert(id string, v S, o Origin, a arrival[S]) (*entry[S], error) {
	if id == "" || s.isNil(v) || !sane(o.Size) || o.Quota < 0 {
		return nil, ErrInvalid
	}
	if err := s.letClosersBreathe(id, o.Source, a.replace || a.instead != nil); err != nil {
		return nil, err
	}
	e := newEntry(id, v)
	if o.Holds {
		a.leases |= holdsBit
	}
	now := s.clock.now() // before the mutex, under which every look at the machine's clock would hold up others
	if !o.Expires.IsZero() {
		at := s.clock.at(o.Expires)
		if at <= now {
			return nil, ErrInvalid
		}
		e.endsAt(at, o.Expires)
	}
	e.born(now, s.index.hash(id))
	e.state.Store(uint64(a.leases.touched(stampOf(now))))
	s.lock()
	defer s.unlock()
	if a.instead != nil {
		a.instead = a.instead.latest()
	}
	return s.enter(&newcomer[S]{now: now, id: id, entry: e, origin: o, arrival: a})
}

// newcomer is who is to be let in.
type newcomer[S Session] struct {
	now    time.Duration
	id     string
	entry  *entry[S]
	origin Origin
	arrival[S]
	placed bool // it has a place already
}

// letClosersBreathe slows newcomers down to the pace of the closers while more
// sessions wait to be closed than the store may hold, and refuses them if that
// does not help: closers that hang or are too slow push back instead of piling
// up sessions without bound.
func (s *Store[S]) letClosersBreathe(id, source string, replace bool) error {
	c := s.config.Load()
	if c.max == 0 {
		return nil
	}
	limit := max(c.max, minClosing)
	for wait := time.Millisecond; s.closers.Pending() >= limit; wait *= 2 {
		if err := s.refuses(id, replace); err != nil {
			return err
		}
		if wait >= closePatience || s.closers.Hung() >= limit {
			return s.refuseFor(c, source, LackingClosers)
		}
		time.Sleep(wait)
	}
	return nil
}

// refuses returns why a newcomer has no chance, however long it waits.
func (s *Store[S]) refuses(id string, replace bool) error {
	if !replace {
		if _, err := s.visit(id); err == nil {
			return ErrExists
		}
	}
	s.lock()
	defer s.unlock()
	return s.ledger.closed()
}

// refuseFor is refuse for a newcomer who has not got as far as the ledger.
func (s *Store[S]) refuseFor(c *config, source string, why Lacking) error {
	l := &s.ledger
	s.lock()
	defer s.unlock()
	return l.refuse(c.max, l.sources.find(source), why)
}

// closePatience bounds how long a newcomer waits for closers: about as long.
const closePatience = time.Second

// minClosing keeps a burst of replacements in a small store from being refused.
const minClosing = 1024

// enter is the part of insert that runs under the ledger's mutex.
func (s *Store[S]) enter(n *newcomer[S]) (_ *entry[S], err error) {
	l := &s.ledger
	if err := l.closed(); err != nil {
		return nil, err
	}
	e := n.entry
	c, st, filed := s.config.Load(), e.load(), false
	e.source = l.sources.find(n.origin.Source)
	old := s.index.get(e.hash(), n.id)
	if old != nil || !l.hasPlaces(c, 1) || !l.hasBytes(c, n.origin.Size) {
		n.now = s.clock.now() // others may have to end, who may have come while n waited
	}
	if old != nil && old != n.instead {
		var kept bool
		if kept, filed, err = s.displace(c, n, old); kept || err != nil {
			return old, err
		}
	}
	share := c.share
	if share > 0 {
		share += n.spares()
	}
	if st.busy() && !e.source.enter(share) {
		s.leasesRefused.Add(1)
		return nil, ErrLeaseLimit
	}
	err = s.roomInQuota(c, n)
	if err == nil {
		err = s.room(c, n.now, e.source, 1, n.origin.Size)
	}
	if err != nil {
		if st.busy() {
			e.source.leave()
		}
		return nil, err
	}
	if n.instead != nil {
		filed = s.giveWay(c, n)
	}
	s.admit(c, n, filed)
	return e, nil
}

// giveWay ends the session instead of which n comes. If it has had n's ID, n is
// filed.
func (s *Store[S]) giveWay(c *config, n *newcomer[S]) (filed bool) {
	old := n.instead
	for st := old.load(); st.phase() == live; st = old.load() {
		if !old.swap(st, st.ended(ReasonReplaced)) {
			continue
		}
		if filed = old.is(n.id); filed {
			s.index.replace(old, n.entry)
		}
		break
	}
	s.settle(c, old, s.clock.now()) // somebody else may have ended it since n came
	return filed
}

// displace ends old, so that n can have its ID. It is kept if it is the same
// session as n's, or live and not to be replaced. If n has replaced it, n is
// filed.
func (s *Store[S]) displace(c *config, n *newcomer[S], old *entry[S]) (kept, filed bool, _ error) {
	e := n.entry
	for {
		st := old.load()
		if st.phase() != live {
			s.settle(c, old, s.clock.now()) // on its way out, perhaps since n came; its end is told before n
			return false, false, nil
		}
		r := s.overdue(c, old, st, n.now)
		if r == 0 {
			if !n.replace {
				return true, false, ErrExists
			}
			if s.same(old.value, e.value) {
				if old.swap(st, st.touched(stampOf(n.now))) {
					return true, false, nil
				}
				continue
			}
			if err := s.roomToReplace(c, n, old, st); err != nil {
				return true, false, err
			}
			r = ReasonReplaced
		}
		if old.swap(st, st.ended(r)) {
			if r == ReasonReplaced {
				// There is room for e by now. It is the ID that was brought back.
				e.state.Store(uint64(e.load() | st&confirmedBit))
				s.index.replace(old, e)
			}
			s.settle(c, old, n.now)
			return false, r == ReasonReplaced, nil
		}
	}
}

// roomToReplace makes the room that a newcomer takes beyond that of old, which
// stays where it is if there is none.
func (s *Store[S]) roomToReplace(c *config, n *newcomer[S], old *entry[S], st state) error {
	sessions, from, size := 0, n.entry.source, n.origin.Size
	if st.busy() || s.ledger.excessPlaces(c) { // its place does not become free
		sessions = 1
	}
	if st.busy() {
		return s.room(c, n.now, from, sessions, size)
	}
	if c.maxBytes > 0 && size > c.maxBytes {
		return s.ledger.refuse(c.max, from, LackingBytes)
	}
	undo := s.ledger.spare(old) // if there is no room, it stays
	defer undo()
	return s.room(c, n.now, from, sessions, size-old.size())
}

// same reports whether a and b are one session.
func (s *Store[S]) same(a, b S) bool {
	return (s.pointers || reflect.ValueOf(a).Comparable()) && any(a) == any(b)
}

// isNil reports whether v is nil, or an interface value that holds a nil.
func (s *Store[S]) isNil(v S) bool {
	if s.pointers {
		var none S
		return any(v) == any(none)
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Map, reflect.Chan, reflect.Func, reflect.Slice:
		return r.IsNil()
	default:
		return false
	}
}
