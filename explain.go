// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"sync"
	"time"
)

// record is what there is to tell about a session at one moment, in the store's
// own terms.
type record struct {
	ident             ident
	long              string // the ID, if it is long
	source            string
	created, used, at time.Duration
	state             state
	turn              uint64 // counts the ends, as several may have one time
}

func (e *entry[S]) record(st state, now time.Duration) record {
	r := record{ident: e.ident, source: e.source.name, created: min(e.created(), now), used: min(st.used().duration(), now), at: now, state: st}
	if r.ident.long() {
		r.long = e.id()
	}
	return r
}

func (r *record) is(id string) bool {
	if len(id) <= shortID {
		return r.ident.is(id)
	}
	return r.long == id
}

func (r *record) id() string {
	if r.ident.long() {
		return r.long
	}
	return r.ident.text()
}

// event tells what r says, but for the fingerprint.
func (s *Store[S]) event(kind EventKind, r record) Event {
	ev := Event{
		Kind:      kind,
		At:        s.clock.start.Add(r.at),
		Created:   s.clock.start.Add(r.created),
		LastUsed:  s.clock.start.Add(r.used),
		Confirmed: r.state.confirmed(),
		Holds:     r.state.holds(),
	}
	if kind == EventEnded {
		ev.Reason, ev.InUse = r.state.reason(), r.state.busy()
	}
	return ev
}

// memory remembers how sessions ended, in two rings of bounded size: one for
// sessions that somebody may ask after, one for those that never were confirmed
// nor held anything and that any flood makes by the thousand. It keeps IDs,
// which open nothing any more, and computes fingerprints only when asked for one,
// once each: sessions end more often than anybody asks.
type memory struct {
	mu    sync.Mutex
	turn  uint64
	rings [2]ring
}

func newMemory(size int) *memory {
	return &memory{rings: [2]ring{{size: (size + 1) / 2}, {size: size / 2}}}
}

// ring returns where the end of a session in state st is remembered, nil if
// nowhere.
func (m *memory) ring(st state) *ring {
	r := &m.rings[1]
	if st.confirmed() || st.holds() {
		r = &m.rings[0]
	}
	if r.size == 0 {
		return nil
	}
	return r
}

// remember notes how e has ended. It returns the number of the record, zero if
// there is none.
func (s *Store[S]) remember(e *entry[S], st state, now time.Duration) (turn uint64) {
	m := s.memory
	ring := m.ring(st)
	if ring == nil {
		return 0
	}
	r := e.record(st, now)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn++
	r.turn = m.turn
	ring.add(e.hash(), r)
	return r.turn
}

// hold notes that a session held something after all: it has ended, but a call
// that still used it put something into it.
func (m *memory) hold(h idHash, id string, turn uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.rings {
		if r := m.rings[i].find(h, id); r != nil && r.turn == turn { // and not another one with its ID
			r.state |= holdsBit
		}
	}
}

// find returns the state in which the session with this ID ended, the last one if
// there were several, and its source; zero if it is not known.
func (m *memory) find(h idHash, id string) (st state, source string) {
	if m.rings[0].size == 0 {
		return 0, "" // without the mutex, which every miss would take
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var turn uint64
	for i := range m.rings {
		if r := m.rings[i].find(h, id); r != nil && r.turn > turn {
			st, source, turn = r.state, r.source, r.turn
		}
	}
	return st, source
}

// unmarked is a record whose fingerprint is not known yet.
type unmarked struct {
	ring   *ring
	number uint32
	id     string
	mark   Fingerprint // to be computed
}

// unmarked returns all that there are.
func (m *memory) unmarked() (all []unmarked) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.rings {
		r := &m.rings[i]
		for j := range r.ends {
			if e := &r.ends[j]; e.mark == (Fingerprint{}) {
				all = append(all, unmarked{ring: r, number: e.number, id: e.id()})
			}
		}
	}
	return all
}

// mark notes the fingerprints of records, but for those that were overwritten since.
func (m *memory) mark(all []unmarked) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range all {
		if e := &u.ring.ends[u.ring.slot(u.number)]; e.number == u.number {
			e.mark = u.mark
		}
	}
}

// marked returns the last record with this fingerprint.
func (m *memory) marked(f Fingerprint) (last record, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.rings {
		for j := range m.rings[i].ends {
			if e := &m.rings[i].ends[j]; e.mark == f && f != (Fingerprint{}) && (!ok || e.turn > last.turn) {
				last, ok = e.record, true
			}
		}
	}
	return last, ok
}

// ring holds the last records, chained by hash. A chain runs from the newest to
// the oldest, and ends where it leads to a record that was overwritten since.
type ring struct {
	size  int
	ends  []ended
	heads []uint32 // by hash: the number of the newest record, zero if there is none
	next  uint32   // the number of the next record, counted from 1; it may wrap around
}

type ended struct {
	record
	hash   idHash
	number uint32
	older  uint32      // in the chain
	mark   Fingerprint // zero: not computed yet
}

func (r *ring) add(h idHash, rec record) {
	if r.heads == nil {
		r.heads = make([]uint32, r.size)
	}
	if r.next++; r.next == 0 {
		r.next = 1 // zero means none
	}
	head := &r.heads[int(h)%r.size]
	e := ended{record: rec, hash: h, number: r.next, older: *head}
	*head = r.next
	if len(r.ends) < r.size {
		r.ends = append(r.ends, e)
	} else {
		r.ends[r.slot(r.next)] = e
	}
}

// slot is where the record with this number is, if it still is.
func (r *ring) slot(number uint32) int { return int((number - 1) % uint32(r.size)) }

func (r *ring) find(h idHash, id string) *record {
	if len(r.ends) == 0 {
		return nil
	}
	number := r.heads[int(h)%r.size]
	for number != 0 {
		e := &r.ends[r.slot(number)]
		if e.number != number {
			return nil
		}
		if e.hash == h && e.is(id) {
			return &e.record
		}
		number = e.older
	}
	return nil
}

// Explain tells when and why the session with fingerprint f ended: its
// [EventEnded]. False means that the session is live, was never here, or ended
// so long ago that it is forgotten, see [WithRemembered]. If several sessions
// had the same ID, it tells of the one that ended last. It looks at all that is
// remembered, which takes some milliseconds the first time, and then less.
func (s *Store[S]) Explain(f Fingerprint) (ev Event, ok bool) {
	s.lock() // and whoever has ended is remembered
	s.unlock()
	fresh := s.memory.unmarked()
	for i := range fresh {
		fresh[i].mark = s.Fingerprint(fresh[i].id)
	}
	s.memory.mark(fresh)
	last, ok := s.memory.marked(f)
	if !ok {
		return Event{}, false
	}
	ev = s.event(EventEnded, last)
	ev.Fingerprint = f
	return ev, true
}

// notFound returns the error of a lookup of id, which ended in state st as far as
// the caller knows.
func (s *Store[S]) notFound(id string, st state) error {
	return &NotFoundError{st.reason(), st.holds(), func() Fingerprint { return s.Fingerprint(id) }}
}
