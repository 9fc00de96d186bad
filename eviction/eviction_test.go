// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"reflect"
	"slices"
	"testing"
	"unsafe"
)

// guest is an element of the tests. uses and busy are what a store would keep
// in its state word.
type guest struct {
	node   Node[guest]
	source *Source[guest]
	id     int
	uses   uint32
	busy   bool
	looks  int // how often it was tried to take it
}

var reach = Access[guest]{
	Node:   func(g *guest) *Node[guest] { return &g.node },
	Source: func(g *guest) *Source[guest] { return g.source },
	Used:   func(g *guest) uint32 { return g.uses },
	Take: func(g *guest) bool {
		g.looks++
		return !g.busy
	},
}

// insert files n new guests of class c. Their ids begin at from.
func insert(p Policy[guest], s *Source[guest], c Class, from, n int) []*guest {
	guests := make([]*guest, n)
	for i := range guests {
		guests[i] = &guest{id: from + i, source: s}
		p.Insert(guests[i], c)
	}
	return guests
}

// leave asks for n victims; the answers end at the first nil.
func leave(p Policy[guest], n int) []*guest {
	var out []*guest
	for range n {
		g := p.Victim(nil)
		if g == nil {
			break
		}
		out = append(out, g)
	}
	return out
}

func ids(guests []*guest) []int {
	out := make([]int, len(guests))
	for i, g := range guests {
		out[i] = g.id
	}
	return out
}

func expect(t *testing.T, got []*guest, want ...int) {
	t.Helper()
	if !slices.Equal(ids(got), want) {
		t.Fatalf("who left: %v, want %v", ids(got), want)
	}
}

func check(t interface {
	Helper()
	Fatal(...any)
}, p Policy[guest]) {
	t.Helper()
	if err := p.(interface{ Check() error }).Check(); err != nil {
		t.Fatal(err)
	}
}

// policies are those that every promise of the interface is checked on.
func policies() map[string]Policy[guest] {
	return map[string]Policy[guest]{
		"LRU":           NewLRU(reach),
		"Assured":       NewAssured(reach, 3, false),
		"Assured, none": NewAssured(reach, 0, false),
		"Assured, keep": NewAssured(reach, 3, true),
	}
}

func TestSizes(t *testing.T) {
	const word = unsafe.Sizeof(uintptr(0))
	if got, want := unsafe.Sizeof(Node[guest]{}), 2*word+8; got != want { // 24 on 64-bit machines
		t.Errorf("a Node takes %d bytes, want %d", got, want)
	}
	if got, want := unsafe.Sizeof(Source[guest]{}), 17*word; got != want { // 136
		t.Errorf("a Source takes %d bytes, want %d", got, want)
	}
}

func TestBusyIsNeverAVictim(t *testing.T) {
	for name, p := range policies() {
		for _, c := range []Class{Empty, Holding, Confirmed} {
			for i, g := range insert(p, new(Source[guest]), c, 0, 5) {
				g.busy = true
				g.uses = uint32(i % 2)
			}
		}
		if g := p.Victim(nil); g != nil {
			t.Errorf("%s: a busy element left", name)
		}
		check(t, p)
	}
}

func TestVictimFindsTheOnlyIdleElement(t *testing.T) {
	const n = 7
	for name := range policies() {
		for _, c := range []Class{Empty, Holding, Confirmed} {
			if name == "Assured, keep" && c == Confirmed {
				continue
			}
			for idle := range n {
				for uses := range uint32(2) {
					p := policies()[name]
					// Busy elements in every other class, and around the idle one.
					s, other := new(Source[guest]), new(Source[guest])
					busy := slices.Concat(insert(p, s, Empty, 0, 2), insert(p, other, Holding, 0, 2), insert(p, s, Confirmed, 0, 2))
					guests := insert(p, s, c, 0, n)
					for _, g := range slices.Concat(busy, guests) {
						g.busy, g.uses = g != guests[idle], uses
					}
					if got := p.Victim(nil); got != guests[idle] {
						t.Fatalf("%s, %v: the victim is %v, want the idle one at %d", name, c, got, idle)
					}
				}
			}
		}
	}
}

func TestBusyIsLookedAtOnceUntilItIsIdle(t *testing.T) {
	const busy, idle = 1000, 50
	for name, p := range policies() {
		var crowd []*guest
		for i := range 10 {
			s := new(Source[guest])
			for _, c := range []Class{Empty, Holding, Confirmed} {
				crowd = append(crowd, insert(p, s, c, 0, busy/100*(i+1))...)
			}
		}
		for _, g := range crowd {
			g.busy = true
		}
		insert(p, new(Source[guest]), Empty, 0, idle)
		for i := range 2 * idle {
			if got := p.Victim(nil) != nil; got != (i < idle) {
				t.Fatalf("%s: call %d found somebody: %v", name, i, got)
			}
		}
		for _, g := range crowd {
			if g.looks > 1 {
				t.Fatalf("%s: a busy element was tried %d times", name, g.looks)
			}
			p.Reclass(g, Confirmed)
			p.Idle(g) // too soon: it is parked again, and no more than that
		}
		if p.Victim(nil) != nil {
			t.Fatalf("%s: a busy element left", name)
		}
		for _, g := range crowd {
			if g.looks > 2 {
				t.Fatalf("%s: a busy element was tried %d times after one Idle", name, g.looks)
			}
		}
		check(t, p)
	}
}

func TestIdleComesBackAsTheNewest(t *testing.T) {
	for name, p := range policies() {
		s := new(Source[guest])
		guests := insert(p, s, Empty, 0, 3)
		guests[0].busy = true
		guests[0].node.Spare = 7
		expect(t, leave(p, 1), 1)
		if !guests[0].node.Linked() || s.Len() != 2 || p.Len() != 2 {
			t.Errorf("%s: the parked element is not counted", name)
		}
		guests[0].busy = false
		guests[0].uses++
		p.Idle(guests[0])
		p.Idle(guests[0]) // and once more, for nothing
		p.Idle(guests[1]) // which has left
		p.Idle(guests[2]) // which is not parked
		insert(p, s, Empty, 3, 1)
		expect(t, leave(p, 5), 2, 0, 3)
		if guests[0].node.Spare != 7 {
			t.Errorf("%s: Spare was written to", name)
		}
	}
}

func TestNothingLooksAtTheParked(t *testing.T) {
	for name, p := range policies() {
		g := insert(p, new(Source[guest]), Empty, 0, 1)[0]
		g.busy = true
		p.Victim(nil)
		g.busy = false // but Idle is not called
		if p.Victim(nil) != nil || g.looks != 1 {
			t.Errorf("%s: a parked element was looked at", name)
		}
	}
}

func TestUsedOnesPassedOverAreBounded(t *testing.T) {
	asked := 0
	counting := reach
	counting.Used = func(g *guest) uint32 {
		asked++
		return reach.Used(g)
	}
	for name, p := range map[string]Policy[guest]{"LRU": NewLRU(counting), "Assured": NewAssured(counting, 0, false)} {
		guests := insert(p, new(Source[guest]), Confirmed, 0, 2*maxChances)
		for i, g := range guests {
			g.uses += uint32(2*maxChances - i) // the later, the less
		}
		asked = 0
		got := leave(p, 1)
		if want := []int{maxChances - 1}; !slices.Equal(ids(got), want) || asked > maxChances {
			t.Errorf("%s: %v left after a look at %d elements, want the stalest of %d: %v", name, ids(got), asked, maxChances, want)
		}
	}
}

func TestIfAllWereUsedTheStalestLeaves(t *testing.T) {
	for name, p := range map[string]Policy[guest]{"LRU": NewLRU(reach), "Assured": NewAssured(reach, 0, false)} {
		for i, g := range insert(p, new(Source[guest]), Confirmed, 0, 4) {
			g.uses += []uint32{3, 1, 4, 2}[i]
		}
		if got := ids(leave(p, 1)); !slices.Equal(got, []int{1}) {
			t.Errorf("%s: %v left, want 1", name, got)
		}
	}
}

// Hits go on while Victim looks.
func TestVictimIsFoundWhileEverybodyIsUsedAllTheTime(t *testing.T) {
	always := reach
	always.Used = func(g *guest) uint32 {
		g.uses++
		return g.uses
	}
	for name, p := range map[string]Policy[guest]{"LRU": NewLRU(always), "Assured": NewAssured(always, 0, false)} {
		insert(p, new(Source[guest]), Confirmed, 0, 4)
		if got := leave(p, 5); len(got) != 4 {
			t.Errorf("%s: %d left, want all 4", name, len(got))
		}
	}
}

func TestLeftElementAndSourceKeepNoPointer(t *testing.T) {
	for name, p := range policies() {
		s := new(Source[guest])
		guests := slices.Concat(insert(p, s, Holding, 0, 4), insert(p, s, Empty, 4, 2), insert(p, s, Confirmed, 6, 2))
		p.Remove(guests[1])
		guests[2].busy = true
		for _, g := range guests {
			g.uses++
			p.Reclass(g, Confirmed)
		}
		insert(p, s, Empty, 8, 1)
		for p.Victim(nil) != nil {
		}
		p.Remove(guests[2])
		for p.Take() != nil {
		}
		for _, g := range guests {
			if g.node.Linked() || g.node != (Node[guest]{}) {
				t.Errorf("%s: guest %d has left, its node is not zero", name, g.id)
			}
		}
		if !reflect.ValueOf(s).Elem().IsZero() {
			t.Errorf("%s: the source has no elements and is not zero", name)
		}
		s.Extra = 3
		insert(p, s, Empty, 0, 1)
		p.Take()
		if s.Extra != 3 {
			t.Errorf("%s: Extra was written to", name)
		}
	}
}

func TestElementInNoPolicyIsLeftAlone(t *testing.T) {
	for name, p := range policies() {
		g := &guest{source: new(Source[guest])}
		p.Remove(g)
		p.Reclass(g, Confirmed)
		p.Idle(g)
		if g.node != (Node[guest]{}) || p.Victim(nil) != nil || p.Len() != 0 {
			t.Errorf("%s: an element that was not in the policy was changed", name)
		}
	}
}

func TestTakeEmptiesInOrderParkedLast(t *testing.T) {
	for name, p := range policies() {
		one, other := new(Source[guest]), new(Source[guest])
		guests := insert(p, one, Empty, 0, 3)
		for _, g := range guests[:2] {
			g.busy = true
		}
		insert(p, other, Empty, 3, 3)
		expect(t, leave(p, 1), 2) // and two are parked
		insert(p, other, Confirmed, 6, 3)[0].uses++
		var order []*guest
		for g := p.Take(); g != nil; g = p.Take() {
			order = append(order, g)
			check(t, p)
		}
		want := []int{3, 4, 5, 7, 8, 6, 0, 1}
		if name == "Assured" {
			want = []int{3, 7, 8, 6, 4, 5, 0, 1} // two unconfirmed ones are few
		}
		expect(t, order, want...)
		if p.Len() != 0 {
			t.Errorf("%s: Len() = %d after all were taken", name, p.Len())
		}
	}
}

func TestAllCanBeMovedToAnotherPolicy(t *testing.T) {
	for from, p := range policies() {
		for to, q := range policies() {
			s := new(Source[guest])
			guests := insert(p, s, Empty, 0, 6)
			p.Reclass(guests[0], Confirmed)
			p.Reclass(guests[1], Holding)
			classes := make(map[*guest]Class)
			var all []*guest
			for range guests {
				for _, g := range guests {
					if g.node.Linked() {
						classes[g] = g.node.class
					}
				}
				all = append(all, p.Take())
			}
			for _, g := range all {
				q.Insert(g, classes[g])
			}
			check(t, p)
			check(t, q)
			if classes[guests[0]] != Confirmed || classes[guests[1]] != Holding || q.Len() != 6 || s.Len() != 6 {
				t.Errorf("%s to %s: something was lost", from, to)
			}
			for q.Take() != nil {
			}
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	for name, p := range policies() {
		sources := make([]Source[guest], 4)
		guests := make([]guest, 64)
		round := func() {
			for i := range guests {
				g := &guests[i]
				// Unequal shares, which give many weights.
				g.source = &sources[min(i%16, 3)]
				g.uses, g.busy = uint32(i%2), i%5 == 0
				p.Insert(g, Class(i%2))
				p.Reclass(&guests[i/2], Confirmed)
			}
			for i := range guests {
				p.Victim(&sources[i%4])
			}
			for i := range guests {
				guests[i].busy = false
				p.Idle(&guests[i])
			}
			for i := range guests {
				p.Remove(&guests[i])
			}
		}
		if allocs := testing.AllocsPerRun(100, round); allocs != 0 {
			t.Errorf("%s: %v allocations, want none", name, allocs)
		}
	}
}

func TestClassHasAName(t *testing.T) {
	for c, want := range map[Class]string{
		Empty: "empty", Holding: "holding", Confirmed: "confirmed", 7: "Class(7)",
	} {
		if got := c.String(); got != want {
			t.Errorf("Class %d is called %q, want %q", uint8(c), got, want)
		}
	}
}
