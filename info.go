// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"cmp"
	"iter"
	"slices"
	"strings"
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

// Retired reports whether a session that had this ID last has ended but is not closed
// yet, since calls still use it, and its source is accepted; nil: any is. It looks at
// all such sessions.
func (s *Store[S]) Retired(id string, accept func(source string) bool) bool {
	e := s.retiree(id)
	return e != nil && (accept == nil || accept(e.source.name))
}

func (s *Store[S]) retiree(id string) *entry[S] {
	h := s.index.hash(id)
	s.lock()
	defer s.unlock()
	for e := range s.ledger.retired {
		if e.hash() == h && e.is(id) && e.load().phase() == retired {
			return e
		}
	}
	return nil
}

// SourceInfo is what [Store.Sources] tells about a source.
type SourceInfo struct {
	Name string // see [Origin]
	// Sessions counts its places: its live sessions, and its retired ones.
	Sessions int
	// Bytes is what they are said to take.
	Bytes int64
}

// Sources returns the n sources with the most places, heaviest first; all of
// them if there are fewer. It is for logs and pages, not for every call: it looks
// at every source under the ledger's mutex, so that nobody gets in or out
// meanwhile, which for 65,536 of them takes about ten milliseconds, and then
// sorts them.
func (s *Store[S]) Sources(n int) []SourceInfo {
	all := s.allSources()
	slices.SortFunc(all, func(a, b SourceInfo) int {
		return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.Name, b.Name))
	})
	if n = max(n, 0); n < len(all) {
		return slices.Clone(all[:n]) // and not keep the others
	}
	return all
}

func (s *Store[S]) allSources() []SourceInfo {
	m := &s.ledger.sources
	s.lock()
	defer s.unlock()
	all := make([]SourceInfo, 0, m.count())
	for f := range m.all() {
		all = append(all, SourceInfo{f.name, f.taken(), f.size()})
	}
	return all
}
