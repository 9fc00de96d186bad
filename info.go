// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"iter"
	"time"
)

// Info is what [Store.All] tells about a session beside its value.
type Info struct {
	Fingerprint Fingerprint
	Source      string // see [Origin]
	Created     time.Time
	// LastUsed is when the idle clock last started.
	LastUsed time.Time
	// Expires is when the session ends if nobody uses it until then; if it is
	// busy, the end of its lifetime or its own ([Origin].Expires). Zero: never.
	Expires          time.Time
	Leases           int
	Confirmed, Holds bool
}

// All returns the live sessions in no order. It holds no lock while it yields;
// sessions that come or go meanwhile may or may not be seen. It gives no
// leases: a session may be closed while it is looked at.
func (s *Store[S]) All() iter.Seq2[Info, S] {
	return func(yield func(Info, S) bool) {
		c := s.config.Load()
		for e := range s.index.all() {
			now, st := s.clock.now(), e.load()
			if st.phase() != live || s.overdue(c, e, st, now) != 0 {
				continue
			}
			if !yield(s.info(c, e, st, now), e.value) {
				return
			}
		}
	}
}

func (s *Store[S]) info(c *config, e *entry[S], st state, now time.Duration) Info {
	in := Info{
		Fingerprint: s.Fingerprint(e.id()),
		Source:      e.source.name,
		Created:     s.clock.start.Add(min(e.created(), now)),
		LastUsed:    s.clock.start.Add(min(st.used().duration(), now)),
		Leases:      st.leases(),
		Confirmed:   st.confirmed(),
		Holds:       st.holds(),
	}
	if expires := e.deadline(c, st); expires != never {
		in.Expires = s.clock.start.Add(expires)
	}
	return in
}
