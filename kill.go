// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

// Kill ends the session with fingerprint f and closes it at once, also while
// calls use it; its context is canceled first. It looks at every session, which
// for 65,536 takes about thirty milliseconds. It reports whether there was one; if
// an ID was used again, several may be in use under one fingerprint.
func (s *Store[S]) Kill(f Fingerprint) bool {
	c, now := s.config.Load(), s.clock.now()
	for _, e := range s.marked(f) {
		if st := e.load(); st.phase() == live {
			if r := s.overdue(c, e, st, now); r != 0 {
				s.expire(e, st, r)
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
	for e := range s.placed() {
		if s.Fingerprint(e.id()) == f {
			found = append(found, e)
		}
	}
	return found
}

// slay tries to end e at once, seen in state st. Leases that are left do not
// count as use any more.
func (e *entry[S]) slay(st state, r Reason) bool {
	if !e.swap(st, st.moved(gone, r)) {
		return false
	}
	if st.busy() {
		e.source.leave()
	}
	return true
}

// kill closes e, used or not, and reports whether this call did it.
func (s *Store[S]) kill(e *entry[S], r Reason) bool {
	for {
		st := e.load()
		if st.phase() == gone || st.reason() == ReasonRenamed {
			return false
		}
		if e.slay(st, r) {
			s.depart(e)
			return true
		}
	}
}
