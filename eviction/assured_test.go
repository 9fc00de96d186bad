// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/lru"
)

func TestAssuredDoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		few := rapid.IntRange(-1, 6).Draw(t, "few")
		keep := rapid.Bool().Draw(t, "keep")
		p := NewAssured[guest](few, keep)
		lists := []*lru.List[guest]{&p.lists[Empty], &p.lists[Holding], &p.lists[Confirmed]}
		const empty, holding, confirmed = 0, 1, 2
		roomFor := func(c Class) int { return map[Class]int{Empty: empty, Holding: holding, Confirmed: confirmed}[c] }
		checkModel(t, p, lists, roomFor, func(h *house) *guest {
			rooms := []int{empty, holding, confirmed}
			if len(h.rooms[empty])+len(h.rooms[holding]) < few {
				rooms = []int{confirmed, empty, holding}
			}
			for _, r := range rooms {
				var g *guest
				switch {
				case r != confirmed:
					g = h.firstIn(r)
				case !keep:
					g = h.leastRecentlyUsed(r)
				}
				if g != nil {
					return g
				}
			}
			return nil
		})
	})
}

func TestConfirmedSurvivesAFloodOfUnconfirmed(t *testing.T) {
	const few, room = 8, 100
	p := NewAssured[guest](few, false)
	honest := insert(p, Confirmed, 0, room-few) // and nobody uses them
	for i := range 10_000 {
		newcomer := insert(p, Class(i%2), room+i, 1)[0]
		newcomer.used = true
		if i >= few {
			if g := p.Victim(wasUsed, take); g.id < room {
				t.Fatalf("newcomer %d pushed out a confirmed element", i)
			}
		}
	}
	for _, g := range honest {
		if !g.node.Linked() {
			t.Fatalf("confirmed element %d is gone", g.id)
		}
	}
}

func TestEmptyLeaveBeforeHolding(t *testing.T) {
	p := NewAssured[guest](0, false)
	insert(p, Holding, 0, 2)
	insert(p, Empty, 2, 2)
	expect(t, leave(p, 5), 2, 3, 0, 1)
}

func TestUnconfirmedLeaveFirstInFirstOutHoweverMuchTheyAreUsed(t *testing.T) {
	p := NewAssured[guest](0, false)
	guests := insert(p, Empty, 0, 4)
	guests[0].used = true
	guests[2].used = true
	expect(t, leave(p, 5), 0, 1, 2, 3)
}

func TestHoldingLeaveInTheOrderInWhichTheyBeganToHold(t *testing.T) {
	p := NewAssured[guest](0, false)
	guests := insert(p, Empty, 0, 3)
	p.Reclass(&guests[2].node, Holding)
	p.Reclass(&guests[0].node, Holding)
	p.Reclass(&guests[1].node, Holding)
	p.Reclass(&guests[2].node, Holding) // again: changes nothing
	expect(t, leave(p, 4), 2, 0, 1)
}

func TestConfirmedLeaveLeastRecentlyUsedFirst(t *testing.T) {
	p := NewAssured[guest](0, false)
	guests := insert(p, Empty, 0, 4)
	for _, i := range []int{3, 1, 0, 2} {
		p.Reclass(&guests[i].node, Confirmed)
	}
	guests[3].used = true
	expect(t, leave(p, 5), 1, 0, 2, 3)
}

func TestClassNeverGoesDown(t *testing.T) {
	p := NewAssured[guest](0, false)
	confirmed := insert(p, Confirmed, 0, 2)
	holding := insert(p, Holding, 2, 2)
	p.Reclass(&confirmed[0].node, Holding)
	p.Reclass(&confirmed[0].node, Confirmed)
	p.Reclass(&confirmed[0].node, Empty)
	p.Reclass(&holding[0].node, Empty)
	insert(p, Empty, 4, 1)
	expect(t, leave(p, 6), 4, 2, 3, 0, 1)
}

func TestFewUnconfirmedMakeRoomAmongConfirmed(t *testing.T) {
	p := NewAssured[guest](3, false)
	insert(p, Confirmed, 0, 3)
	insert(p, Empty, 3, 1)
	insert(p, Holding, 4, 1)
	expect(t, leave(p, 1), 0)

	insert(p, Holding, 5, 1) // now they are not few, both kinds counted
	expect(t, leave(p, 1), 3)
	expect(t, leave(p, 9), 1, 2, 4, 5)
}

func TestConfirmedMakeRoomWhenUnconfirmedAreBusy(t *testing.T) {
	p := NewAssured[guest](2, false)
	insert(p, Confirmed, 0, 1)
	for _, g := range insert(p, Empty, 1, 5) {
		g.busy = true
	}
	expect(t, leave(p, 2), 0)
}

func TestFewUnconfirmedLeaveWhenConfirmedAreBusy(t *testing.T) {
	p := NewAssured[guest](9, false)
	insert(p, Confirmed, 0, 1)[0].busy = true
	insert(p, Holding, 1, 1)
	insert(p, Empty, 2, 1)
	expect(t, leave(p, 3), 2, 1)
}

func TestBusyStaysInItsClassBehindTheNewest(t *testing.T) {
	p := NewAssured[guest](0, false)
	guests := insert(p, Empty, 0, 3)
	insert(p, Holding, 3, 1)
	guests[0].busy = true
	expect(t, leave(p, 1), 1)
	guests[0].busy = false
	expect(t, leave(p, 4), 2, 0, 3)
}

func TestKeepConfirmedRefuses(t *testing.T) {
	p := NewAssured[guest](9, true)
	insert(p, Confirmed, 0, 3)
	insert(p, Holding, 3, 1)
	insert(p, Empty, 4, 1)
	expect(t, leave(p, 9), 4, 3) // few or not
	if g := p.Victim(wasUsed, take); g != nil {
		t.Fatalf("confirmed element %d left", g.id)
	}
}
