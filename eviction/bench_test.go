// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// benchPolicies have 100,000 elements each, of so many sources. Their shares
// are unequal, every tenth element is confirmed, and a few are parked.
func benchPolicies(b *testing.B, run func(*testing.B, Policy[guest], []*guest)) {
	for _, n := range []int{1, 1000} {
		for name, p := range map[string]Policy[guest]{"LRU": NewLRU(reach), "Assured": NewAssured(reach, 8, false)} {
			sources := make([]Source[guest], n)
			guests := make([]*guest, 100_000)
			rnd := rand.New(rand.NewPCG(1, 2))
			for i := range guests {
				guests[i] = &guest{id: i, source: &sources[min(rnd.IntN(n), rnd.IntN(n))], busy: i%100 == 0}
				p.Insert(guests[i], Empty)
				if i%10 == 0 {
					p.Reclass(guests[i], Confirmed)
				}
			}
			b.Run(fmt.Sprintf("%s/sources=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				run(b, p, guests)
			})
		}
	}
}

func BenchmarkInsertRemove(b *testing.B) {
	benchPolicies(b, func(b *testing.B, p Policy[guest], guests []*guest) {
		i := 0
		for b.Loop() {
			g := guests[i%len(guests)]
			p.Remove(g)
			p.Insert(g, Empty)
			i += 7919
		}
	})
}

// The newcomer is of another source than the victim.
func BenchmarkInsertVictim(b *testing.B) {
	benchPolicies(b, func(b *testing.B, p Policy[guest], guests []*guest) {
		i := 0
		for b.Loop() {
			g := p.Victim(nil)
			g.source = guests[i%len(guests)].source
			p.Insert(g, Empty)
			i += 7919
		}
	})
}

func BenchmarkReclass(b *testing.B) {
	benchPolicies(b, func(b *testing.B, p Policy[guest], guests []*guest) {
		i := 0
		for b.Loop() {
			g := guests[i%len(guests)]
			p.Remove(g)
			p.Insert(g, Empty)
			p.Reclass(g, Confirmed)
			i += 7919
		}
	})
}
