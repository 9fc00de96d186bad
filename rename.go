// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"sync/atomic"
	"time"
)

// Rename files the leased session under another ID, as for a client whose old
// one may be known to others. From now on the old one finds nothing; leases that
// were taken under it stay good. The session is not closed, and stays what it is:
// its age, what it holds and its size, and whether it was confirmed. To events and
// counters it is one that ends, for [ReasonRenamed], and one that is created, but
// with the age of the old.
//
// Of o, Source, Quota, EvictOwn and Expires matter: whose it is from now on. The
// quota is not looked at if the source is what it was. Without Expires an end of
// its own stays; one that had none can be given one from now on, see
// [Lease.SetExpires]. Its place comes with it, so it can be renamed in a store that is
// full, or draining.
//
// Errors: [ErrLeaseLimit] if there are leases under 64 of its former IDs, [ErrExists]
// if the ID is taken, [ErrFull] for want of quota,
// [ErrNotFound] if the session has ended or the lease was released, [ErrShutdown],
// [ErrInvalid]. Nothing has changed then.
func (l *Lease[S]) Rename(id string, o Origin) error {
	e := l.held()
	if e == nil {
		return ErrNotFound
	}
	return l.store.rename(e, id, o)
}

// An entry cannot get another ID: readers look at it under no lock. So a session
// that is renamed gets another entry, its heir. What is left of the old one is
// in none of the store's lists, has no place, and serves only to count its leases.
// All together they are one lease on the heir, which is released with the last of
// them.

// maxPast bounds how many entries a session has beside its own: one for each of its
// former IDs under which there still are leases.
const maxPast = 64

// heir returns the entry in whose place e was, nil if e was not renamed.
func (e *entry[S]) heir() *entry[S] {
	if e.load().reason() != ReasonRenamed {
		return nil
	}
	return e.extra.Load().heir
}

// latest returns the entry that the session has by now.
func (e *entry[S]) latest() *entry[S] {
	for h := e.heir(); h != nil; h = e.heir() {
		e = h
	}
	return e
}

func (s *Store[S]) rename(e *entry[S], id string, o Origin) error {
	if id == "" || o.Quota < 0 {
		return ErrInvalid
	}
	heir, now := newEntry(id, e.value), s.clock.now()
	if !o.Expires.IsZero() {
		at := s.clock.at(o.Expires)
		if at <= now {
			return ErrInvalid
		}
		heir.endsAt(at, o.Expires)
	}
	hash := s.index.hash(id)
	l := &s.ledger
	s.lock()
	defer s.unlock()
	if l.shut {
		return ErrShutdown
	}
	e = e.latest()
	heir.birth = e.birth&^(1<<hashBits-1) | uint64(hash)
	if heir.source = l.sources.find(o.Source); heir.source == e.source {
		o.Quota = 0
	}
	switch {
	case !o.Expires.IsZero():
	case e.ident.ownEnd():
		end := &e.extra.Load().end
		heir.endsAt(end.when(), time.Unix(0, end.told.Load()))
	default:
		heir.endsAt(never, time.Time{})
	}
	c := s.config.Load()
	s.ageLeases(e, now) // lest e's new place on the wheel put off the end of a lease
	s.reapOne(c, e, now)
	if st := e.load(); st.phase() != live || !st.busy() {
		return s.notFound(e.id(), st)
	}
	if past := e.extras().past; past != nil && past.Load() >= maxPast {
		s.leasesRefused.Add(1)
		return ErrLeaseLimit
	}
	n := &newcomer[S]{now: now, id: id, entry: heir, origin: o, placed: true}
	if old := s.index.get(hash, id); old != nil {
		if kept, _, err := s.displace(c, n, old); kept {
			return err
		}
	}
	if err := s.roomInQuota(c, n); err != nil {
		return err
	}
	return s.bequeath(c, e, n)
}

// bequeath puts the heir in e's place, unless e has ended.
func (s *Store[S]) bequeath(c *config, e *entry[S], n *newcomer[S]) error {
	l, heir := &s.ledger, n.entry
	s.context(e)
	x := e.extras()
	heir.extras().ctx.Store(x.ctx.Load()) // who waits for the end waits for the heir's
	x.heir = heir                         // nobody looks before the swap
	if x.past == nil {
		x.past = new(atomic.Int32)
	}
	heir.extras().past = x.past
	if c.leaseTraces {
		heir.extras().traces.Store(x.leaseTraces())
	}
	for {
		st := e.load()
		if st.phase() != live || !st.busy() {
			return s.notFound(e.id(), st)
		}
		marks := st & (usedMask | confirmedBit | holdsBit)
		heir.state.Store(uint64(leaseUnit | marks.touched(stampOf(n.now))))
		e.inheritAge(heir, n.now)
		if e.swap(st, st.moved(retired, ReasonRenamed)) {
			break
		}
	}
	x.past.Add(1)
	heir.source.enter(0) // it is in use already, and takes nobody's share
	e.source.leave()
	n.origin.Size = e.size()
	l.resize(e, -n.origin.Size, e.counted())
	l.places-- // which the heir takes
	s.admit(c, n, false)
	s.delist(c, e, e.load(), n.now)
	e.node.Spare = 0
	l.wheel.Cancel(e)
	l.sources.drop(e.source)
	return nil
}

// shared reports whether there are other leases on a session than the caller's, which
// was taken under e. Those under IDs that it had before e cannot be found from here,
// but are counted: if any is in use, so are all that came after it.
func (s *Store[S]) shared(e *entry[S]) bool {
	s.lock() // nobody renames it meanwhile
	defer s.unlock()
	former := 0 // that are in use, as far as the caller's lease has them be
	for ; ; former++ {
		if e.load().leases() > 1 { // its own, and then that of the one before
			return true
		}
		next := e.heir()
		if next == nil {
			break
		}
		e = next
	}
	x := e.extra.Load()
	return x != nil && x.past != nil && int(x.past.Load()) > former
}
