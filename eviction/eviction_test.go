// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/lru"
)

// guest is an element of the tests. used, busy and taken are what a store would
// keep in its state word; usedCalls and takeCalls count what Victim asks.
type guest struct {
	node                 Node[guest]
	id                   int
	used, busy           bool
	usedCalls, takeCalls int
}

func wasUsed(g *guest) bool {
	g.usedCalls++
	was := g.used
	g.used = false
	return was
}

func take(g *guest) bool {
	g.takeCalls++
	return !g.busy
}

// insert files n new guests of class c. Their ids begin at from.
func insert(p Policy[guest], c Class, from, n int) []*guest {
	guests := make([]*guest, n)
	for i := range guests {
		guests[i] = &guest{id: from + i}
		p.Insert(&guests[i].node, guests[i], c)
	}
	return guests
}

// leave asks for n victims; the answers end at the first nil.
func leave(p Policy[guest], n int) []*guest {
	var out []*guest
	for range n {
		g := p.Victim(wasUsed, take)
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

// house is what a policy should hold, as plain slices, oldest first. The
// models share it: an LRU is a house with one room, an Assured one with a room
// for each class.
type house struct {
	rooms [][]*guest
}

func (h *house) roomOf(g *guest) int {
	return slices.IndexFunc(h.rooms, func(room []*guest) bool { return slices.Contains(room, g) })
}

func (h *house) remove(g *guest) {
	if r := h.roomOf(g); r >= 0 {
		i := slices.Index(h.rooms[r], g)
		h.rooms[r] = slices.Concat(h.rooms[r][:i], h.rooms[r][i+1:])
	}
}

func (h *house) insert(g *guest, room int) {
	h.remove(g)
	h.rooms[room] = append(h.rooms[room], g)
}

// cut removes guest i of a room; those before it go behind the others.
func (h *house) cut(room, i int) *guest {
	order := h.rooms[room]
	h.rooms[room] = slices.Concat(order[i+1:], order[:i])
	return order[i]
}

func (h *house) firstIn(room int) *guest {
	i := slices.IndexFunc(h.rooms[room], func(g *guest) bool { return !g.busy })
	if i < 0 {
		return nil
	}
	return h.cut(room, i)
}

func (h *house) leastRecentlyUsed(room int) *guest {
	order := h.rooms[room]
	i := slices.IndexFunc(order, func(g *guest) bool { return !g.busy && !g.used })
	asked := order
	if i >= 0 {
		asked = order[:i]
	}
	for _, g := range asked {
		g.used = false
	}
	if i >= 0 {
		return h.cut(room, i)
	}
	return h.firstIn(room)
}

// checkModel compares p, whose lists are given, with a house that has a room
// for each of them. room says where a class lives, victim who leaves the house.
func checkModel(t *rapid.T, p Policy[guest], lists []*lru.List[guest], room func(Class) int, victim func(*house) *guest) {
	model := &house{rooms: make([][]*guest, len(lists))}
	guests := make([]*guest, rapid.IntRange(1, 10).Draw(t, "guests"))
	for i := range guests {
		guests[i] = &guest{id: i}
	}
	drawGuest := func(t *rapid.T) *guest { return guests[rapid.IntRange(0, len(guests)-1).Draw(t, "guest")] }
	drawClass := func(t *rapid.T) Class { return Class(rapid.IntRange(0, int(Confirmed)).Draw(t, "class")) }
	reclass := func(t *rapid.T) {
		g, c := drawGuest(t), drawClass(t)
		p.Reclass(&g.node, c)
		if was := model.roomOf(g); was >= 0 && room(c) > was {
			model.insert(g, room(c))
		}
	}
	insert := func(t *rapid.T) {
		g, c := drawGuest(t), drawClass(t)
		p.Insert(&g.node, g, c)
		model.insert(g, room(c))
	}
	t.Repeat(map[string]func(*rapid.T){
		"insert":  insert,
		"insert2": insert, // more of them, so that the house fills
		"reclass": reclass,
		"remove": func(t *rapid.T) {
			g := drawGuest(t)
			p.Remove(&g.node)
			model.remove(g)
		},
		"use":     func(t *rapid.T) { drawGuest(t).used = true },
		"lease":   func(t *rapid.T) { drawGuest(t).busy = true },
		"release": func(t *rapid.T) { drawGuest(t).busy = false },
		"victim": func(t *rapid.T) {
			usedBits := func() []bool {
				var bits []bool
				for _, g := range guests {
					bits = append(bits, g.used)
				}
				return bits
			}
			before := usedBits()
			got := p.Victim(wasUsed, take)
			after := usedBits()
			for i, g := range guests {
				if g.usedCalls > 1 || g.takeCalls > 2 {
					t.Fatalf("guest %d: asked %d times whether it was used, tried %d times", g.id, g.usedCalls, g.takeCalls)
				}
				g.used, g.usedCalls, g.takeCalls = before[i], 0, 0 // the model's turn
			}
			if want := victim(model); got != want {
				t.Fatalf("victim is %+v, want %+v", got, want)
			}
			if want := usedBits(); !slices.Equal(after, want) {
				t.Fatalf("used bits are %v after Victim, want %v", after, want)
			}
		},
		"": func(t *rapid.T) {
			for r, l := range lists {
				if got := slices.Collect(l.All()); !slices.Equal(got, model.rooms[r]) {
					t.Fatalf("list %d is %v, want %v", r, ids(got), ids(model.rooms[r]))
				}
			}
			for _, g := range guests {
				if in := model.roomOf(g) >= 0; g.node.Linked() != in {
					t.Fatalf("guest %d: Linked() = %v, want %v", g.id, g.node.Linked(), in)
				}
			}
		},
	})
}

// policies are those that every promise of the interface is checked on.
func policies() map[string]Policy[guest] {
	return map[string]Policy[guest]{
		"LRU":           NewLRU[guest](),
		"Assured":       NewAssured[guest](3, false),
		"Assured, none": NewAssured[guest](0, false),
		"Assured, keep": NewAssured[guest](3, true),
	}
}

func TestBusyIsNeverAVictim(t *testing.T) {
	for name, p := range policies() {
		for _, c := range []Class{Empty, Holding, Confirmed} {
			for i, g := range insert(p, c, 0, 5) {
				g.busy = true
				g.used = i%2 == 0
			}
		}
		if g := p.Victim(wasUsed, take); g != nil {
			t.Errorf("%s: a busy element left", name)
		}
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
				for used := range 2 {
					p := policies()[name]
					// Busy elements in every other class, and around the idle one.
					busy := slices.Concat(insert(p, Empty, 0, 2), insert(p, Holding, 0, 2), insert(p, Confirmed, 0, 2))
					guests := insert(p, c, 0, n)
					for _, g := range slices.Concat(busy, guests) {
						g.busy, g.used = g != guests[idle], used == 1
					}
					if got := p.Victim(wasUsed, take); got != guests[idle] {
						t.Fatalf("%s, %v: the victim is %v, want the idle one at %d", name, c, got, idle)
					}
				}
			}
		}
	}
}

func TestBusyOnesAreWalkedOverOnce(t *testing.T) {
	for name, p := range policies() {
		c := Confirmed
		if name == "Assured, keep" {
			c = Empty
		}
		for _, g := range insert(p, c, 0, 100) {
			g.busy = true
		}
		insert(p, c, 100, 100)
		looks := 0
		count := func(g *guest) bool { looks++; return take(g) }
		p.Victim(wasUsed, count)
		for range 50 {
			looks = 0
			p.Victim(wasUsed, count)
			if looks != 1 {
				t.Fatalf("%s: a call after the first one tried %d elements, want 1", name, looks)
			}
		}
	}
}

func TestRemovedNodeKeepsNoPointer(t *testing.T) {
	for name, p := range policies() {
		guests := insert(p, Holding, 0, 4)
		p.Remove(&guests[1].node)
		for p.Victim(wasUsed, take) != nil {
		}
		for _, g := range guests {
			if g.node.Linked() || g.node != (Node[guest]{}) {
				t.Errorf("%s: guest %d has left, its node is not zero", name, g.id)
			}
		}
	}
}

func TestNodeInNoPolicyIsLeftAlone(t *testing.T) {
	for name, p := range policies() {
		g := new(guest)
		p.Remove(&g.node)
		p.Reclass(&g.node, Confirmed)

		other := insert(NewLRU[guest](), Empty, 1, 1)[0]
		p.Remove(&other.node)
		p.Reclass(&other.node, Confirmed)

		if g.node.Linked() || !other.node.Linked() || p.Victim(wasUsed, take) != nil {
			t.Errorf("%s: a node that was not in the policy was changed", name)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	for name, p := range policies() {
		guests := make([]guest, 8)
		allocs := testing.AllocsPerRun(100, func() {
			for i := range guests {
				guests[i].used, guests[i].busy = i%2 == 0, i%3 == 0
				p.Insert(&guests[i].node, &guests[i], Class(i%2))
			}
			p.Reclass(&guests[2].node, Holding)
			p.Reclass(&guests[4].node, Confirmed)
			p.Reclass(&guests[6].node, Confirmed)
			p.Remove(&guests[1].node)
			for range guests {
				p.Victim(wasUsed, take)
			}
		})
		if allocs != 0 {
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
