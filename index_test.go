// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"math/bits"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// unfiled returns an entry for id that knows its hash.
func (x *index[S]) unfiled(id string) *entry[S] {
	var none S
	e := newEntry(id, none)
	e.born(0, x.hash(id))
	return e
}

// crowded returns IDs that all go to one part of x, and a part of them to few
// buckets of it.
func crowded(x *index[*conn], n int) (ids []string) {
	for i := 0; len(ids) < n; i++ {
		if id := fmt.Sprint("id", i); x.hash(id).part() == 7 {
			ids = append(ids, id)
		}
	}
	return ids
}

func TestTheIndexDoesWhatAMapDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex[*conn]()
		ids := crowded(x, rapid.SampledFrom([]int{3, 30, 300}).Draw(t, "ids"))
		model := make(map[string]*entry[*conn])
		check := func() {
			for _, id := range ids {
				if got := x.find(id); got != model[id] {
					t.Fatalf("%s: got %p, want %p", id, got, model[id])
				}
			}
			n := 0
			for e := range x.all() {
				if n++; model[e.id()] != e {
					t.Fatalf("all yields %s", e.id())
				}
			}
			p := &x.parts[7]
			if slots := len(p.buckets()) * bucketSlots; n != len(model) || n != p.live || (n-1)*4 >= slots*3 && n > 0 || slots > max(bucketSlots, 16*n) {
				t.Fatalf("%d in the model, %d in all, %d counted, %d slots", len(model), n, p.live, slots)
			}
		}
		for range rapid.IntRange(1, 10).Draw(t, "rounds") {
			filling := rapid.Bool().Draw(t, "filling")
			for range rapid.IntRange(1, 2*len(ids)).Draw(t, "steps") {
				id := rapid.SampledFrom(ids).Draw(t, "id")
				e := model[id]
				switch {
				case e == nil && filling:
					e = x.unfiled(id)
					x.put(e)
					model[id] = e
				case e != nil && !filling:
					x.remove(x.unfiled(id)) // another one: nothing
					x.remove(e)
					x.remove(e)
					delete(model, id)
				}
			}
			check()
		}
		for id, e := range model {
			x.remove(e)
			delete(model, id)
		}
		check()
	})
}

// More entries than the count of those that went by can tell share a bucket.
func TestAnOverfullBucketLosesNobody(t *testing.T) {
	const h, n = idHash(7) << (hashBits - partBits), 1000
	buckets := make([]bucket[*conn], 256)
	var all []*entry[*conn]
	for i := range n {
		e := newEntry[*conn](fmt.Sprint(i), nil)
		e.born(0, h)
		all = append(all, e)
		place(buckets, e)
	}
	x := newIndex[*conn]()
	x.parts[7].table.Store(&buckets)
	x.parts[7].live = n
	for i, e := range all {
		if x.get(h, e.id()) != e {
			t.Fatalf("%d of %d is not found", i, n)
		}
	}
	for i, e := range all[:n-500] { // before it shrinks, which puts them where they belong
		x.remove(e)
		if x.get(h, e.id()) != nil || x.get(h, all[n-1].id()) == nil {
			t.Fatalf("after the removal of %d, it or the last one is wrong", i)
		}
	}
}

// Every bucket of a table can have been passed by somebody who is still there.
func TestASearchEndsThoughAllBucketsHaveBeenPassed(t *testing.T) {
	x := newIndex[*conn]()
	buckets := make([]bucket[*conn], 2)
	for i := range buckets {
		buckets[i].tags.Store(passedUnit)
	}
	x.parts[7].table.Store(&buckets)
	const h = idHash(7) << (hashBits - partBits)
	if x.get(h, "absent") != nil {
		t.Error("found")
	}
	absent := new(entry[*conn])
	absent.born(0, h)
	x.remove(absent)
}

func TestALongChurnEnds(t *testing.T) {
	s := open(t, WithMaxSessions(3000))
	for i := range 500_000 {
		must(t, s.Put(strconv.Itoa(i), new(conn), Origin{}))
	}
}

func TestHavingFindsTags(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		few := rapid.Uint64Range(0, 3)
		var tags uint64
		for i := range 8 {
			tags |= rapid.OneOf(few, rapid.Uint64Range(0, 255)).Draw(t, "tag") << (8 * i)
		}
		tag := few.Draw(t, "sought")
		got := having(tags, tag)
		for i := range bucketSlots {
			is, said := tags>>(8*i)&0xff == tag, got>>(8*i)&0xff == 0x80
			if is && !said || said && !is && got&(1<<(8*i)-1) == 0 {
				t.Fatalf("tags %016x, sought %02x: got %016x", tags, tag, got)
			}
		}
		if got>>passedShift != 0 || bits.OnesCount64(got) > bucketSlots {
			t.Fatalf("the count was taken for a tag: %016x", got)
		}
	})
}

func TestTheIndexShrinks(t *testing.T) {
	x := newIndex[*conn]()
	var all []*entry[*conn]
	for i := range 100_000 {
		e := x.unfiled(fmt.Sprint(i))
		all = append(all, e)
		x.put(e)
	}
	for _, e := range all {
		x.remove(e)
	}
	for i := range x.parts {
		if n := len(x.parts[i].buckets()); n > 1 {
			t.Fatalf("part %d keeps %d buckets", i, n)
		}
	}
}

// Readers find what is in all the time, and never what was removed before they
// began, whatever the writer does to the tables meanwhile.
func TestReadersOfTheIndexAreNotDisturbedByTheWriter(t *testing.T) {
	x := newIndex[*conn]()
	ids := crowded(x, 600)
	stay, gone := ids[:100], ids[100:200]
	for _, id := range stay {
		x.put(x.unfiled(id))
	}
	for _, id := range gone {
		e := x.unfiled(id)
		x.put(e)
		x.remove(e)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for i, id := range stay {
					if e := x.find(id); e == nil || !e.is(id) {
						t.Errorf("%s is not found", id)
					}
					if x.find(gone[i]) != nil {
						t.Errorf("%s is found", gone[i])
					}
				}
			}
		})
	}
	for range 300 {
		var come []*entry[*conn]
		for _, id := range ids[200:] {
			e := x.unfiled(id)
			x.put(e)
			come = append(come, e)
		}
		for _, e := range come {
			x.remove(e)
		}
	}
	close(done)
	wg.Wait()
}
