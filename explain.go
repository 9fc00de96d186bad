// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"sync"
	"time"
)

// memory remembers how sessions ended, in two rings of bounded size: one for
// sessions that somebody may ask after, one for those that never were confirmed
// nor held anything and that any flood makes by the thousand.
type memory struct {
	mu    sync.Mutex
	rings [2]ring
}

type ring struct {
	ends []Event
	at   map[Fingerprint]int
	next int
	size int
}

func (m *memory) init(size int) {
	m.rings[0].size = (size + 1) / 2
	m.rings[1].size = size / 2
}

func (m *memory) add(ev Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ring, other := &m.rings[1], &m.rings[0]
	if ev.Confirmed || ev.Holds {
		ring, other = other, ring
	}
	delete(other.at, ev.Fingerprint) // one ID, one explanation: the last
	ring.add(ev)
}

func (m *memory) find(f Fingerprint) (Event, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.rings {
		if at, ok := m.rings[i].at[f]; ok {
			return m.rings[i].ends[at], true
		}
	}
	return Event{}, false
}

func (r *ring) add(ev Event) {
	if r.size == 0 {
		return
	}
	if r.at == nil {
		r.at = make(map[Fingerprint]int)
	}
	if len(r.ends) < r.size {
		r.next = len(r.ends)
		r.ends = append(r.ends, ev)
	} else {
		if old := r.ends[r.next].Fingerprint; r.at[old] == r.next {
			delete(r.at, old)
		}
		r.ends[r.next] = ev
	}
	r.at[ev.Fingerprint] = r.next
	r.next = (r.next + 1) % r.size
}

// Explain tells when and why the session with fingerprint f ended: its
// [EventEnded]. False means that the session is live, was never here, or ended
// so long ago that it is forgotten, see [WithRemembered]. If several sessions
// had the same ID, it tells of the one that ended last.
func (s *Store[S]) Explain(f Fingerprint) (Event, bool) { return s.memory.find(f) }

// notFound returns the error of a lookup of id. r is the reason if the caller
// knows it already.
func (s *Store[S]) notFound(id string, r Reason) error {
	f := s.Fingerprint(id)
	if r == 0 {
		ev, _ := s.memory.find(f)
		r = ev.Reason
	}
	return &NotFoundError{f, r}
}

// event describes what happened to e, which is in state st.
func (s *Store[S]) event(kind EventKind, e *entry[S], st state, now time.Duration) Event {
	ev := Event{
		Kind:        kind,
		Fingerprint: e.mark,
		At:          s.start.Add(now),
		Created:     s.start.Add(e.created),
		LastUsed:    s.start.Add(e.lastUsed()),
		Confirmed:   st.confirmed(),
		Holds:       st.holds(),
	}
	if kind == EventEnded {
		ev.Reason, ev.InUse = st.reason(), st.busy()
	}
	return ev
}
