// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/lru"
)

func TestLRUDoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := NewLRU[guest]()
		oneRoom := func(Class) int { return 0 }
		checkModel(t, p, []*lru.List[guest]{&p.list}, oneRoom, func(h *house) *guest {
			return h.leastRecentlyUsed(0)
		})
	})
}

func TestLRUUsedGetsASecondChance(t *testing.T) {
	p := NewLRU[guest]()
	guests := insert(p, Empty, 0, 4)
	guests[0].used = true
	guests[2].used = true
	expect(t, leave(p, 5), 1, 3, 0, 2)
}

func TestLRUIgnoresClasses(t *testing.T) {
	p := NewLRU[guest]()
	guests := insert(p, Confirmed, 0, 1)
	guests = append(guests, insert(p, Holding, 1, 1)...)
	guests = append(guests, insert(p, Empty, 2, 1)...)
	p.Reclass(&guests[1].node, Confirmed)
	expect(t, leave(p, 4), 0, 1, 2)
}

// Hits go on while Victim walks.
func TestLRUFindsAVictimWhileEverybodyIsUsedAllTheTime(t *testing.T) {
	p := NewLRU[guest]()
	insert(p, Empty, 0, 4)
	always := func(*guest) bool { return true }
	for want := range 4 {
		if g := p.Victim(always, take); g == nil || g.id != want {
			t.Fatalf("the victim is %v, want %d", g, want)
		}
	}
}
