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
