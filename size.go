// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import "github.com/c8e4ff29/layover/eviction"

// sane reports whether a session may say that it takes n bytes: sums of such
// numbers do not overflow.
func sane(n int64) bool { return n >= 0 && n <= 1<<40 }

func (s *Store[S]) sizeOf(e *entry[S]) int64 {
	s.lock()
	defer s.unlock()
	return e.latest().size()
}

// setSize has e take n bytes. A session in use does not make room itself.
func (s *Store[S]) setSize(e *entry[S], n int64) error {
	l := &s.ledger
	s.lock()
	defer s.unlock()
	e = e.latest()
	if !e.flag(placed) {
		return nil // killed: it takes nothing any more
	}
	c, more := s.config.Load(), n-e.size()
	if more > 0 {
		if err := s.roomToGrow(c, e, more); err != nil {
			return err
		}
	}
	if !e.flag(placed) {
		return nil // it was on its way out, and has made room itself
	}
	l.resize(e, n-e.size(), e.counted())
	l.over.Store(l.exceeds(c))
	return nil
}

// roomToGrow makes room for more bytes of e, which does not make it itself.
func (s *Store[S]) roomToGrow(c *config, e *entry[S], more int64) error {
	if c.maxBytes > 0 && e.size()+more > c.maxBytes {
		return s.ledger.refuse(c.max, e.source, LackingBytes) // whoever leaves
	}
	if !e.load().busy() { // else it cannot leave
		undo := s.ledger.spare(e)
		defer undo()
	}
	return s.room(c, s.clock.now(), e.source, 0, more)
}

// spare has e make no room for bytes, until the function that it returns is
// called.
func (l *ledger[S]) spare(e *entry[S]) (undo func()) {
	if e.size() == 0 || !e.flag(listed) {
		return func() {}
	}
	l.sized.Remove(e)
	return func() {
		if e.flag(listed) {
			l.sized.Insert(e, e.counted())
		}
	}
}

// resize counts more bytes for e. While it is live and takes any, it may have to
// leave for those who want some.
func (l *ledger[S]) resize(e *entry[S], more int64, c eviction.Class) {
	if more == 0 {
		return
	}
	x := e.extras()
	e.source.weighed().Extra += int(more)
	if x.size+more == 0 {
		l.sized.Remove(e)
	} else if x.size == 0 && e.flag(listed) {
		l.sized.Insert(e, c)
	}
	x.size += more
	l.bytes += more
}
