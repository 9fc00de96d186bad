// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "testing"

func TestLRUUsedGetsASecondChance(t *testing.T) {
	p := NewLRU(reach)
	guests := insert(p, new(Source[guest]), Empty, 0, 4)
	guests[0].uses++
	guests[2].uses++
	expect(t, leave(p, 5), 1, 3, 0, 2)
}

func TestLRUIgnoresClassesAndSources(t *testing.T) {
	p := NewLRU(reach)
	heavy, light := new(Source[guest]), new(Source[guest])
	guests := insert(p, light, Confirmed, 0, 1)
	guests = append(guests, insert(p, heavy, Holding, 1, 2)...)
	guests = append(guests, insert(p, heavy, Empty, 3, 1)...)
	heavy.Extra = 9
	p.Reclass(guests[1], Confirmed)
	if g := p.Victim(heavy); g.id != 0 {
		t.Fatalf("the victim is %d, want 0", g.id)
	}
	expect(t, leave(p, 4), 1, 2, 3)
}
