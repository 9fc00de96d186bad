// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"slices"
	"testing"
)

// crowd is a policy with a bit of everything: three sources with one, two and
// five unconfirmed elements, confirmed ones, and parked ones, among them all of
// the heaviest source.
func crowd(p Policy[guest]) (sources []*Source[guest], guests []*guest) {
	for i, n := range []int{1, 2, 5} {
		s := new(Source[guest])
		sources = append(sources, s)
		guests = slices.Concat(guests, insert(p, s, Empty, 10*i, n), insert(p, s, Confirmed, 10*i+5, 2))
	}
	for _, g := range guests {
		g.busy = g.source == sources[2]
	}
	p.Victim(nil)
	insert(p, sources[1], Empty, 30, 1)
	return sources, guests
}

func TestCheckOfAssuredFindsWhatIsBroken(t *testing.T) {
	type parts struct {
		*Assured[guest]
		sources []*Source[guest]
		guests  []*guest
	}
	for name, damage := range map[string]func(parts){
		"count of a stage":        func(h parts) { h.counts[confirmed]++ },
		"count of candidates":     func(h parts) { h.candidates[unconfirmed]++ },
		"count of a source":       func(h parts) { h.sources[0].len++ },
		"count of a parked one":   func(h parts) { h.sources[2].len-- },
		"class":                   func(h parts) { h.guests[0].node.class = Holding },
		"class of a parked one":   func(h parts) { h.guests[len(h.guests)-7].node.class = Confirmed },
		"unknown class":           func(h parts) { h.guests[len(h.guests)-7].node.class = 3 },
		"where":                   func(h parts) { h.guests[0].node.where = parked },
		"where of a parked one":   func(h parts) { h.guests[len(h.guests)-7].node.where = listed },
		"source":                  func(h parts) { h.guests[0].source = h.sources[1] },
		"source of a parked one":  func(h parts) { h.guests[len(h.guests)-7].source = h.sources[1] },
		"lost from its list":      func(h parts) { h.sources[0].lists[Empty].Remove(h.guests[0]) },
		"lost from the parked":    func(h parts) { h.parked.RemoveOldest() },
		"weight":                  func(h parts) { h.sources[2].places[unconfirmed].bucket.weight++ },
		"order of buckets":        func(h parts) { h.sources[0].places[unconfirmed].bucket.weight = 9 },
		"sources of a bucket":     func(h parts) { h.sources[0].places[unconfirmed].bucket.sources++ },
		"sources of the root":     func(h parts) { h.rankings[confirmed].root.sources++ },
		"bucket":                  func(h parts) { h.sources[0].places[unconfirmed].bucket = nil },
		"links of buckets":        func(h parts) { h.rankings[unconfirmed].root.up.down = nil },
		"broken chain of buckets": func(h parts) { h.rankings[unconfirmed].root.up.up = nil },
		"ring":                    func(h parts) { h.rankings[unconfirmed].leaveRing(h.sources[0]) },
		"ring without candidate":  func(h parts) { h.rankings[unconfirmed].joinRing(h.sources[2]) },
		"links of a ring":         func(h parts) { h.sources[0].places[confirmed].next = h.sources[0] },
		"ring that never ends":    func(h parts) { h.sources[1].places[confirmed].next = h.sources[1] },
		"heaviest":                func(h parts) { h.rankings[unconfirmed].top = &h.rankings[unconfirmed].root },
	} {
		p := NewAssured(reach, 0, false)
		sources, guests := crowd(p)
		if err := p.Check(); err != nil {
			t.Fatalf("before any damage: %v", err)
		}
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("%s: Check panics: %v", name, r)
				}
			}()
			damage(parts{p, sources, guests})
			if err := p.Check(); err == nil {
				t.Errorf("%s: not found", name)
			}
		}()
	}
}

func TestCheckOfLRUFindsWhatIsBroken(t *testing.T) {
	for name, damage := range map[string]func(*LRU[guest], []*guest){
		"count of a source":    func(_ *LRU[guest], g []*guest) { g[0].source.len++ },
		"unknown class":        func(_ *LRU[guest], g []*guest) { g[1].node.class = 3 },
		"where":                func(_ *LRU[guest], g []*guest) { g[1].node.where = parked },
		"lost from its list":   func(p *LRU[guest], g []*guest) { p.list.Remove(g[1]) },
		"lost from the parked": func(p *LRU[guest], _ []*guest) { p.parked.RemoveOldest() },
	} {
		p := NewLRU(reach)
		s := new(Source[guest])
		guests := insert(p, s, Empty, 0, 5)
		guests[0].busy = true
		guests[0], guests[4] = guests[4], guests[0]
		p.Victim(nil)
		guests = slices.DeleteFunc(guests, func(g *guest) bool { return !g.node.Linked() })
		if err := p.Check(); err != nil {
			t.Fatalf("before any damage: %v", err)
		}
		damage(p, guests)
		if p.Check() == nil {
			t.Errorf("%s: not found", name)
		}
	}
}
