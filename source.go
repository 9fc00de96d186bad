// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"iter"
	"sync/atomic"

	"github.com/c8e4ff29/layover/eviction"
)

// source is where sessions came from. It exists while any of them has a place.
type source[S Session] struct {
	name   string
	busy   atomic.Int32               // sessions in use; not counted for the source without a name
	places eviction.Source[entry[S]]  // its sessions; Extra: those retired
	bytes  *eviction.Source[entry[S]] // those that take bytes; Extra: how many; nil until one does
}

// enter counts one more busy session of the source, unless it has its share
// already. A share of zero is unlimited.
func (f *source[S]) enter(share int) bool {
	if f.name == "" {
		return true
	}
	if n := int(f.busy.Add(1)); share == 0 || n <= share {
		return true
	}
	f.busy.Add(-1)
	return false
}

// leave is for each enter that was allowed.
func (f *source[S]) leave() {
	if f.name != "" {
		f.busy.Add(-1)
	}
}

// sources finds the sources that have sessions.
type sources[S Session] struct {
	unnamed *source[S]
	named   map[string]*source[S]
	most    int // entries that the map has had since it was made
}

// taken returns how many places the source takes.
func (f *source[S]) taken() int { return f.places.Len() + f.places.Extra }

// size returns how many bytes the source takes.
func (f *source[S]) size() int64 {
	if f.bytes == nil {
		return 0
	}
	return int64(f.bytes.Extra)
}

// weighed returns f.bytes, made on first use.
func (f *source[S]) weighed() *eviction.Source[entry[S]] {
	if f.bytes == nil {
		f.bytes = new(eviction.Source[entry[S]])
	}
	return f.bytes
}

// find returns the source with the given name. It is not kept until keep.
func (m *sources[S]) find(name string) *source[S] {
	if f := m.named[name]; f != nil {
		return f
	}
	if name == "" && m.unnamed != nil {
		return m.unnamed
	}
	f := &source[S]{name: name}
	if name == "" {
		m.unnamed = f
	}
	return f
}

// keep is called before the first session of f is counted.
func (m *sources[S]) keep(f *source[S]) {
	if f.name == "" || f.taken() > 0 {
		return
	}
	if m.named == nil {
		m.named = make(map[string]*source[S])
	}
	m.named[f.name] = f
	m.most = max(m.most, len(m.named))
}

// drop forgets f if it has no sessions left. Maps do not shrink, so a much smaller
// one is copied.
func (m *sources[S]) drop(f *source[S]) {
	if f.name == "" || f.taken() > 0 {
		return
	}
	delete(m.named, f.name)
	if m.most < minSources || len(m.named) > m.most/8 {
		return
	}
	smaller := make(map[string]*source[S], len(m.named))
	for name, f := range m.named {
		smaller[name] = f
	}
	m.named, m.most = smaller, len(smaller)
}

const minSources = 64 // below which a map is not worth shrinking

// count returns how many sources have sessions.
func (m *sources[S]) count() int {
	n := len(m.named)
	if m.unnamed != nil && m.unnamed.taken() > 0 {
		n++
	}
	return n
}

// all yields the sources that have sessions.
func (m *sources[S]) all() iter.Seq[*source[S]] {
	return func(yield func(*source[S]) bool) {
		if m.unnamed != nil && m.unnamed.taken() > 0 && !yield(m.unnamed) {
			return
		}
		for _, f := range m.named {
			if !yield(f) {
				return
			}
		}
	}
}
