// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "testing"

func TestEmptyLeaveBeforeHolding(t *testing.T) {
	p := NewAssured(reach, 0, false)
	s := new(Source[guest])
	insert(p, s, Holding, 0, 2)
	insert(p, s, Empty, 2, 2)
	expect(t, leave(p, 5), 2, 3, 0, 1)
}

func TestUnconfirmedLeaveFirstInFirstOutHoweverMuchTheyAreUsed(t *testing.T) {
	p := NewAssured(reach, 0, false)
	s := new(Source[guest])
	guests := insert(p, s, Empty, 0, 4)
	guests[0].uses++
	guests[2].uses++
	expect(t, leave(p, 5), 0, 1, 2, 3)
}

func TestHoldingLeaveInTheOrderInWhichTheyBeganToHold(t *testing.T) {
	p := NewAssured(reach, 0, false)
	s := new(Source[guest])
	guests := insert(p, s, Empty, 0, 3)
	p.Reclass(guests[2], Holding)
	p.Reclass(guests[0], Holding)
	p.Reclass(guests[1], Holding)
	p.Reclass(guests[2], Holding) // again: changes nothing
	expect(t, leave(p, 4), 2, 0, 1)
}

func TestConfirmedLeaveLeastRecentlyUsedFirst(t *testing.T) {
	p := NewAssured(reach, 0, false)
	s := new(Source[guest])
	guests := insert(p, s, Empty, 0, 4)
	for _, i := range []int{3, 1, 0, 2} {
		p.Reclass(guests[i], Confirmed)
	}
	guests[3].uses++
	expect(t, leave(p, 5), 1, 0, 2, 3)
}

func TestClassNeverGoesDown(t *testing.T) {
	p := NewAssured(reach, 0, false)
	s := new(Source[guest])
	confirmed := insert(p, s, Confirmed, 0, 2)
	holding := insert(p, s, Holding, 2, 2)
	p.Reclass(confirmed[0], Holding)
	p.Reclass(confirmed[0], Confirmed)
	p.Reclass(confirmed[0], Empty)
	p.Reclass(holding[0], Empty)
	insert(p, s, Empty, 4, 1)
	expect(t, leave(p, 6), 4, 2, 3, 0, 1)
}

func TestFewUnconfirmedMakeRoomAmongConfirmed(t *testing.T) {
	p := NewAssured(reach, 3, false)
	s := new(Source[guest])
	insert(p, s, Confirmed, 0, 3)
	insert(p, s, Empty, 3, 1)
	insert(p, s, Holding, 4, 1)
	expect(t, leave(p, 1), 0)

	insert(p, s, Holding, 5, 1) // now they are not few, both kinds counted
	expect(t, leave(p, 1), 3)
	expect(t, leave(p, 9), 1, 2, 4, 5)
}

func TestConfirmedMakeRoomWhenUnconfirmedAreBusy(t *testing.T) {
	p := NewAssured(reach, 2, false)
	s := new(Source[guest])
	insert(p, s, Confirmed, 0, 1)
	for _, g := range insert(p, s, Empty, 1, 5) {
		g.busy = true
	}
	expect(t, leave(p, 2), 0)
}

func TestFewUnconfirmedLeaveWhenConfirmedAreBusy(t *testing.T) {
	p := NewAssured(reach, 9, false)
	s := new(Source[guest])
	insert(p, s, Confirmed, 0, 1)[0].busy = true
	insert(p, s, Holding, 1, 1)
	insert(p, s, Empty, 2, 1)
	expect(t, leave(p, 3), 2, 1)
}

func TestParkedKeepsItsClassAndDoesNotCountAsUnconfirmed(t *testing.T) {
	p := NewAssured(reach, 2, false)
	s := new(Source[guest])
	insert(p, s, Confirmed, 0, 2)
	guests := insert(p, s, Empty, 2, 3)
	for _, g := range guests[:2] {
		g.busy = true
	}
	expect(t, leave(p, 1), 0) // the two are found busy, and one is few
	guests[0].busy = false
	p.Idle(guests[0])
	expect(t, leave(p, 1), 4)

	p.Reclass(guests[1], Confirmed) // stays parked
	guests[1].busy = false
	expect(t, leave(p, 3), 1, 2)
	p.Idle(guests[1])
	insert(p, s, Empty, 5, 2)
	expect(t, leave(p, 3), 5, 3, 6)
}

func TestKeepConfirmedRefuses(t *testing.T) {
	p := NewAssured(reach, 9, true)
	s := new(Source[guest])
	insert(p, s, Confirmed, 0, 3)
	insert(p, s, Holding, 3, 1)
	insert(p, s, Empty, 4, 1)
	expect(t, leave(p, 9), 4, 3) // few or not
	if g := p.Victim(nil); g != nil {
		t.Fatalf("confirmed element %d left", g.id)
	}
}

func TestHeaviestSourceOfTheStageMakesRoom(t *testing.T) {
	p := NewAssured(reach, 0, false)
	a, b, c := new(Source[guest]), new(Source[guest]), new(Source[guest])
	insert(p, a, Confirmed, 0, 5) // heaviest of all, yet not among the unconfirmed
	insert(p, a, Empty, 10, 1)
	insert(p, b, Holding, 20, 3)
	insert(p, c, Empty, 30, 1)
	insert(p, c, Holding, 31, 1)
	expect(t, leave(p, 2), 20, 30) // b and c had two each, c for longer
	expect(t, leave(p, 1), 21)
	expect(t, leave(p, 3), 10, 31, 22) // one each: in the order in which they came to it
	insert(p, b, Confirmed, 23, 4)
	expect(t, leave(p, 3), 0, 23, 1)
}

func TestBusyElementsWeighOnTheirSource(t *testing.T) {
	p := NewAssured(reach, 0, false)
	a, b := new(Source[guest]), new(Source[guest])
	crowd := insert(p, a, Empty, 0, 3)
	insert(p, b, Empty, 10, 2)
	for _, g := range crowd[:2] {
		g.busy = true
	}
	expect(t, leave(p, 1), 2)
	expect(t, leave(p, 1), 10) // a has two still, but no candidate
	crowd[0].busy = false
	p.Idle(crowd[0])
	expect(t, leave(p, 2), 0, 11)
}

func TestNoSourcePushesOutALighterOne(t *testing.T) {
	for _, c := range []Class{Empty, Holding, Confirmed} {
		p := NewAssured(reach, 0, false)
		light, heavy := new(Source[guest]), new(Source[guest])
		own := insert(p, heavy, c, 0, 3)
		for _, g := range own {
			g.busy = true
		}
		insert(p, light, c, 10, 3)
		heavy.Extra = 1
		if g := p.Victim(heavy); g != nil {
			t.Fatalf("%v: %d left for a heavier source", c, g.id)
		}
		own[1].busy = false
		p.Idle(own[1])
		if g := p.Victim(heavy); g != own[1] { // its own, although not the heaviest of the stage
			t.Fatalf("%v: the victim is %v, want one of the newcomer's source", c, g)
		}
		if g := p.Victim(heavy); g == nil || g.source != light { // now as heavy as the other
			t.Fatalf("%v: nobody of an equally heavy source left", c)
		}
		light.Extra = 1
		if g := p.Victim(heavy); g == nil {
			t.Fatalf("%v: Extra does not count", c)
		}
		check(t, p)
	}
}

func TestNewcomerTakesRoomFromItsOwnSourceIfTheHeaviestIsLighter(t *testing.T) {
	p := NewAssured(reach, 0, false)
	from, other := new(Source[guest]), new(Source[guest])
	insert(p, from, Confirmed, 0, 9)
	insert(p, from, Empty, 10, 1)
	insert(p, other, Empty, 20, 2)
	if g := p.Victim(from); g.id != 10 {
		t.Fatalf("the victim is %d, want 10", g.id)
	}
	// It has none left in that stage, so it pays in the other.
	if g := p.Victim(from); g.id != 0 {
		t.Fatalf("the victim is %d, want 0", g.id)
	}
	if g := p.Victim(other); g.id != 20 {
		t.Fatalf("the victim is %d, want 20", g.id)
	}
}
