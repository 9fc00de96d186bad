// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "testing"

// hotel is a store of a fixed size in front of a policy.
type hotel struct {
	policy *Assured[guest]
	rooms  int
	next   int
	kept   []*guest // what arrive wants to remember
}

// admit gives a newcomer a room, if need be somebody else's, and reports who
// had to leave. The newcomer is nil if there is no room.
func (h *hotel) admit(s *Source[guest]) (newcomer, left *guest) {
	if h.policy.Len() >= h.rooms {
		left = h.policy.Victim(s)
		if left == nil {
			return nil, nil
		}
	}
	h.next++
	newcomer = &guest{id: h.next, source: s}
	h.policy.Insert(newcomer, Empty)
	return newcomer, left
}

// flood lets one source come 10,000 times, and do with each guest of its what
// arrive says, while twelve others have four guests each: confirmed ones, one
// that holds something, and one that just came. None of those may leave. When
// it is over, another source must still get in.
func flood(t *testing.T, arrive func(*hotel, *guest)) {
	for _, keepConfirmed := range []bool{false, true} {
		h := &hotel{policy: NewAssured(reach, 8, keepConfirmed), rooms: 100}
		honest := make([]Source[guest], 12)
		for i := range honest {
			for _, c := range []Class{Confirmed, Confirmed, Holding, Empty} {
				g, _ := h.admit(&honest[i])
				h.policy.Reclass(g, c)
			}
		}
		flooder := new(Source[guest])
		refused := 0
		for range 10_000 {
			newcomer, left := h.admit(flooder)
			if left != nil && left.source != flooder {
				t.Fatalf("the flood pushed out guest %d", left.id)
			}
			if newcomer == nil {
				refused++
				continue
			}
			arrive(h, newcomer)
		}
		for i := range honest {
			if honest[i].Len() != 4 {
				t.Fatalf("honest source %d has %d guests left, want 4", i, honest[i].Len())
			}
		}
		if got, want := flooder.Len()+flooder.Extra, h.rooms-4*len(honest); got > want {
			t.Fatalf("the flood has %d of %d rooms", got, want)
		}
		check(t, h.policy)
		t.Logf("refused: %d", refused)
	}
}

func TestSilentFloodPushesOutItselfOnly(t *testing.T) {
	flood(t, func(*hotel, *guest) {})
}

// It uses its sessions, but never brings a token back.
func TestBusyButSilentFloodPushesOutItselfOnly(t *testing.T) {
	flood(t, func(_ *hotel, g *guest) { g.uses++ })
}

func TestHoldingFloodPushesOutItselfOnly(t *testing.T) {
	flood(t, func(h *hotel, g *guest) { h.policy.Reclass(g, Holding) })
}

// It brings every token back, and goes on to use what it has.
func TestEchoingFloodPushesOutItselfOnly(t *testing.T) {
	flood(t, func(h *hotel, g *guest) {
		h.policy.Reclass(g, Confirmed)
		h.kept = append(h.kept, g)
		for _, old := range h.kept[max(0, len(h.kept)-100):] {
			old.uses++
		}
	})
}

// It never reads to the end what it asked for, so that nothing of it can leave.
func TestSlowReadingFloodPushesOutNobody(t *testing.T) {
	for c := range Confirmed + 1 {
		flood(t, func(h *hotel, g *guest) {
			g.busy = true
			h.policy.Reclass(g, c)
		})
	}
}

// The first of the honest ones was there before the flood, whose newcomers may
// be known to be busy or have yet to be found so.
func TestAFloodOfBusyNewcomersDoesNotMakeHonestOnesPushOutEachOther(t *testing.T) {
	const few = 8
	for _, known := range []bool{false, true} {
		h := &hotel{policy: NewAssured(reach, few, false), rooms: 100}
		heaviest, other, flooder := new(Source[guest]), new(Source[guest]), new(Source[guest])
		for i := range 50 {
			g, _ := h.admit([]*Source[guest]{heaviest, heaviest, other}[i%3])
			h.policy.Reclass(g, Confirmed)
		}
		newcomers := make([]Source[guest], few)
		h.admit(&newcomers[0])
		for h.policy.Len() < h.rooms {
			g, _ := h.admit(flooder)
			g.busy = true
		}
		for i := 1; i < few; i++ {
			if known || i > 1 {
				if g, left := h.admit(flooder); g != nil {
					t.Fatalf("one more of the flood got in, in the place of %+v", left)
				}
			}
			if g, left := h.admit(&newcomers[i]); g == nil || left.source != heaviest {
				t.Fatalf("known %v: newcomer %d got in: %v; in the place of %+v, want a confirmed one of the heaviest source", known, i, g != nil, left)
			}
		}
		check(t, h.policy)
	}
}

// All of it at once, and some of it ends now and then.
func TestMixedFloodPushesOutItselfOnly(t *testing.T) {
	flood(t, func(h *hotel, g *guest) {
		h.policy.Reclass(g, Class(g.id%3))
		if g.id%2 == 0 {
			g.busy = true
			h.kept = append(h.kept, g)
		}
		if len(h.kept) > 20 {
			h.kept[0].busy = false
			h.policy.Idle(h.kept[0])
			h.kept = h.kept[1:]
		}
	})
}

func TestNewcomersGetInDuringAFlood(t *testing.T) {
	for c := range Confirmed + 1 {
		h := &hotel{policy: NewAssured(reach, 8, false), rooms: 100}
		flooder := new(Source[guest])
		for range 200 {
			g, _ := h.admit(flooder)
			h.policy.Reclass(g, c)
		}
		honest := make([]Source[guest], 49)
		for i := range honest {
			newcomer, left := h.admit(&honest[i])
			if newcomer == nil || left.source != flooder {
				t.Fatalf("%v: newcomer %d got in: %v; in the place of %+v", c, i, newcomer != nil, left)
			}
			h.policy.Reclass(newcomer, Confirmed)
		}
	}
}

// Sessions that have ended but are still in use take room as well.
func TestRetiredOnesWeighOnTheirSource(t *testing.T) {
	p := NewAssured(reach, 0, false)
	honest, flooder := new(Source[guest]), new(Source[guest])
	insert(p, honest, Confirmed, 0, 2)
	flooder.Extra = 3
	if g := p.Victim(flooder); g != nil {
		t.Fatal("a source with nothing but retired sessions pushed out a lighter one")
	}
	flooder.Extra = 2
	if g := p.Victim(flooder); g == nil {
		t.Fatal("equally heavy sources do not make room for each other")
	}
}
