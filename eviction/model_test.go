// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"cmp"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// house is what a policy should hold, and how it should choose, written down
// without regard to time: plain slices that are searched from the start.
type house struct {
	plain         bool // LRU
	few           int
	keepConfirmed bool

	listed, parked []*guest // oldest first
	class          map[*guest]Class
	asked          map[*guest]uint32

	sources []*Source[guest]
	extra   map[*Source[guest]]int
	since   map[standing]int // when it came to its weight, or had a candidate again
	last    map[standing][2]int
	now     int
}

type standing struct {
	source *Source[guest]
	stage  stage
}

func (h *house) in(g *guest) bool { _, in := h.class[g]; return in }

func without(guests []*guest, g *guest) []*guest {
	return slices.DeleteFunc(slices.Clone(guests), func(other *guest) bool { return other == g })
}

// newest files g behind all others.
func (h *house) newest(g *guest) {
	h.parked = without(h.parked, g)
	h.listed = append(without(h.listed, g), g)
	h.asked[g] = g.uses
}

func (h *house) insert(g *guest, c Class) {
	h.remove(g)
	h.class[g] = c
	h.newest(g)
	h.settle()
}

func (h *house) reclass(g *guest, c Class) {
	if !h.in(g) || c <= h.class[g] {
		return
	}
	h.class[g] = c
	if !h.plain && !slices.Contains(h.parked, g) {
		h.newest(g)
	}
	h.settle()
}

func (h *house) remove(g *guest) {
	h.listed, h.parked = without(h.listed, g), without(h.parked, g)
	delete(h.class, g)
	h.settle()
}

func (h *house) idle(g *guest) {
	if slices.Contains(h.parked, g) {
		h.newest(g)
		h.settle()
	}
}

// of returns the candidates of s in a stage, in the order in which they would
// leave if none was used.
func (h *house) of(at standing) []*guest {
	var out []*guest
	for c := range Confirmed + 1 {
		for _, g := range h.listed {
			if g.source == at.source && h.class[g] == c && c.stage() == at.stage {
				out = append(out, g)
			}
		}
	}
	return out
}

// count returns the number of elements of a source in a stage.
func (h *house) count(s *Source[guest], st stage) int {
	n := 0
	for g, c := range h.class {
		if c.stage() == st && g.source == s {
			n++
		}
	}
	return n
}

func (h *house) weight(s *Source[guest]) int {
	return h.count(s, unconfirmed) + h.count(s, confirmed) + h.extra[s]
}

// settle notes since when every source has been where it is.
func (h *house) settle() {
	for _, s := range h.sources {
		for st := range stages {
			at, ready := standing{s, st}, 0
			if len(h.of(at)) > 0 {
				ready = 1
			}
			if is := [2]int{h.count(s, st), ready}; is != h.last[at] {
				h.now++
				h.last[at], h.since[at] = is, h.now
			}
		}
	}
}

// heaviest returns the source that should make room in a stage.
func (h *house) heaviest(st stage) *Source[guest] {
	var best *Source[guest]
	for _, s := range h.sources {
		at := standing{s, st}
		if len(h.of(at)) == 0 {
			continue
		}
		if best == nil || h.count(s, st) > h.count(best, st) ||
			h.count(s, st) == h.count(best, st) && h.since[at] < h.since[standing{best, st}] {
			best = s
		}
	}
	return best
}

// leastRecentlyUsed passes over those candidates that were used. If all were,
// it is the one whose stamp is the oldest.
func (h *house) leastRecentlyUsed(candidates func() []*guest) *guest {
	var passed []*guest
	for { // there are too few guests to come near the bound
		g := candidates()[0]
		if len(passed) > 0 && g == passed[0] {
			return slices.MinFunc(passed, func(a, b *guest) int { return cmp.Compare(a.uses, b.uses) })
		}
		if h.asked[g] == g.uses {
			return g
		}
		h.newest(g)
		passed = append(passed, g)
	}
}

// waiting returns the number of candidates in a stage.
func (h *house) waiting(st stage) int {
	n := 0
	for _, s := range h.sources {
		n += len(h.of(standing{s, st}))
	}
	return n
}

func (h *house) order() []stage {
	if h.keepConfirmed || h.waiting(unconfirmed) >= h.few {
		return []stage{unconfirmed, confirmed}
	}
	return []stage{confirmed, unconfirmed}
}

// first returns who is first to leave, without regard to who is busy.
func (h *house) first(st stage, from *Source[guest]) *guest {
	if h.plain {
		if len(h.listed) == 0 {
			return nil
		}
		return h.leastRecentlyUsed(func() []*guest { return h.listed })
	}
	s := h.heaviest(st)
	if s != nil && from != nil && h.weight(s) < h.weight(from) {
		s = from
	}
	return h.firstOf(standing{s, st})
}

// firstOf returns which candidate of a source is first to leave in a stage.
func (h *house) firstOf(at standing) *guest {
	switch {
	case len(h.of(at)) == 0:
		return nil
	case at.stage == confirmed:
		return h.leastRecentlyUsed(func() []*guest { return h.of(at) })
	}
	return h.of(at)[0]
}

// firstOfOne returns who of a source is first to leave, the unconfirmed ones
// before all others.
func (h *house) firstOfOne(s *Source[guest]) *guest {
	if h.plain {
		return nil
	}
	g := h.firstOf(standing{s, unconfirmed})
	if g == nil && !h.keepConfirmed {
		g = h.firstOf(standing{s, confirmed})
	}
	return g
}

// firstOfAll returns who is first to leave in whichever stage it is.
func (h *house) firstOfAll(from *Source[guest]) *guest {
	for _, st := range h.order() {
		if st == confirmed && h.keepConfirmed {
			continue
		}
		if g := h.first(st, from); g != nil {
			return g
		}
	}
	return nil
}

func (h *house) victim(from *Source[guest]) *guest {
	return h.firstIdle(func() *guest { return h.firstOfAll(from) })
}

func (h *house) victimOf(s *Source[guest]) *guest {
	return h.firstIdle(func() *guest { return h.firstOfOne(s) })
}

// firstIdle takes out the first one that is not busy, and parks those before it.
func (h *house) firstIdle(first func() *guest) *guest {
	for g := first(); g != nil; g = first() {
		if !g.busy {
			h.remove(g)
			return g
		}
		h.listed = without(h.listed, g)
		h.parked = append(h.parked, g)
		h.settle()
	}
	return nil
}

func (h *house) take() *guest {
	var g *guest
	for _, st := range h.order() {
		if g == nil {
			g = h.first(st, nil)
		}
	}
	if g == nil && len(h.parked) > 0 {
		g = h.parked[0]
	}
	if g != nil {
		h.remove(g)
	}
	return g
}

// checkModel compares p with h.
func checkModel(t *rapid.T, p Policy[guest], h *house) {
	h.class, h.asked = make(map[*guest]Class), make(map[*guest]uint32)
	h.extra = make(map[*Source[guest]]int)
	h.since, h.last = make(map[standing]int), make(map[standing][2]int)
	for range rapid.IntRange(1, 5).Draw(t, "sources") {
		h.sources = append(h.sources, new(Source[guest]))
	}
	guests := make([]*guest, rapid.IntRange(1, 16).Draw(t, "guests"))
	for i := range guests {
		guests[i] = &guest{id: i}
	}
	drawSource := func(t *rapid.T) *Source[guest] { return rapid.SampledFrom(h.sources).Draw(t, "source") }
	drawClass := func(t *rapid.T) Class { return Class(rapid.IntRange(0, int(Confirmed)).Draw(t, "class")) }
	for i, g := range guests {
		// Unlike shares to begin with.
		g.source = h.sources[min(i%8, len(h.sources)-1)]
	}
	drawGuest := func(t *rapid.T) *guest { return rapid.SampledFrom(guests).Draw(t, "guest") }

	insert := func(t *rapid.T) {
		g, c := drawGuest(t), drawClass(t)
		if !h.in(g) {
			g.source = drawSource(t)
		}
		p.Insert(g, c)
		h.insert(g, c)
	}
	leaves := func(t *rapid.T, from *Source[guest], victim, want func(*Source[guest]) *guest) {
		for _, g := range guests {
			g.looks = 0
		}
		if got, want := victim(from), want(from); got != want {
			t.Fatalf("the victim is %+v, want %+v", got, want)
		}
		for _, g := range guests {
			if g.looks > 1 {
				t.Fatalf("guest %d was tried %d times", g.id, g.looks)
			}
		}
	}
	victim := func(t *rapid.T) {
		from := rapid.SampledFrom(append([]*Source[guest]{nil}, h.sources...)).Draw(t, "from")
		leaves(t, from, p.Victim, h.victim)
	}
	t.Repeat(map[string]func(*rapid.T){
		"insert":  insert,
		"insert2": insert, // more of them, so that the house fills
		"insert3": insert,
		"reclass": func(t *rapid.T) {
			g, c := drawGuest(t), drawClass(t)
			p.Reclass(g, c)
			h.reclass(g, c)
		},
		"remove": func(t *rapid.T) {
			g := drawGuest(t)
			p.Remove(g)
			h.remove(g)
		},
		"use":   func(t *rapid.T) { drawGuest(t).uses++ },
		"lease": func(t *rapid.T) { drawGuest(t).busy = true },
		"release": func(t *rapid.T) {
			g := drawGuest(t)
			g.busy = false
			p.Idle(g)
			h.idle(g)
		},
		"extra": func(t *rapid.T) {
			s := drawSource(t)
			s.Extra = rapid.IntRange(0, 4).Draw(t, "extra")
			h.extra[s] = s.Extra
		},
		"victim":  victim,
		"victim2": victim,
		"victim of one": func(t *rapid.T) {
			leaves(t, drawSource(t), p.VictimOf, h.victimOf)
		},
		"take": func(t *rapid.T) {
			if got, want := p.Take(), h.take(); got != want {
				t.Fatalf("taken is %+v, want %+v", got, want)
			}
		},
		"": func(t *rapid.T) {
			check(t, p)
			if p.Len() != len(h.class) {
				t.Fatalf("Len() = %d, want %d", p.Len(), len(h.class))
			}
			for _, s := range h.sources {
				if want := h.weight(s) - h.extra[s]; s.Len() != want {
					t.Fatalf("Len() of a source = %d, want %d", s.Len(), want)
				}
			}
			for _, g := range guests {
				if g.node.Linked() != h.in(g) || g.node.class != h.class[g] || (g.node.where == parked) != slices.Contains(h.parked, g) {
					t.Fatalf("guest %+v: want in %v, class %v, parked %v", g, h.in(g), h.class[g], slices.Contains(h.parked, g))
				}
			}
		},
	})
}

func TestAssuredDoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		few := rapid.IntRange(-1, 6).Draw(t, "few")
		keep := rapid.Bool().Draw(t, "keep")
		checkModel(t, NewAssured(reach, few, keep), &house{few: few, keepConfirmed: keep})
	})
}

func TestLRUDoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		checkModel(t, NewLRU(reach), &house{plain: true})
	})
}
