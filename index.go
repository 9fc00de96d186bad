// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"sync/atomic"
)

// index finds entries by ID. Readers take no lock. Writers take turns: they
// hold the ledger's mutex.
//
// It is a hash table of buckets that are a cache line each: a word of tags, one
// byte of the hash for each of seven slots, and the slots. So a search touches
// one line and, as a rule, no entry but the one that it is for. What does not
// fit into its bucket goes to the next one, and the eighth byte of the word
// counts how many have gone by, as in Facebook's F14: a search ends at a bucket
// that nobody has passed, and removal needs no tombstones. Nothing moves within
// a table, so a reader that has the table finds whatever is in it.
//
// There are many small tables, so that replacing one by a larger or smaller one
// does not hold up the writers for long.
type index[S Session] struct {
	seed  maphash.Seed
	parts [parts]part[S]
}

const (
	partBits = 8
	parts    = 1 << partBits

	bucketSlots = 7
	passedShift = 8 * bucketSlots
	passedUnit  = 1 << passedShift
	mostPassed  = 0xff // a count that has come so far is not exact any more, and stays

	lowBits  = 0x01010101010101 // of each tag
	highBits = lowBits << 7
)

type part[S Session] struct {
	table atomic.Pointer[[]bucket[S]] // a power of two of them
	live  int
}

type bucket[S Session] struct {
	tags  atomic.Uint64 // zero: the slot is free
	slots [bucketSlots]atomic.Pointer[entry[S]]
}

func newIndex[S Session]() *index[S] { return &index[S]{seed: maphash.MakeSeed()} }

// idHash is what is kept of the hash of an ID. Its upper bits name the part, the
// next ones are the tag, the lower ones name the bucket. Beyond a
// million sessions the last two overlap, and tags tell less.
type idHash uint32

const hashBits = 26

func (x *index[S]) hash(id string) idHash {
	return idHash(maphash.String(x.seed, id) >> (64 - hashBits))
}

func (h idHash) part() int     { return int(h >> (hashBits - partBits)) }
func (h idHash) tag() uint64   { return max(1, uint64(h)>>(hashBits-partBits-8)&0xff) }
func (h idHash) start() uint64 { return uint64(h) & (1<<(hashBits-partBits) - 1) }

// having returns the high bits of the tags that are equal to tag. It may err on
// those above one that is.
func having(tags, tag uint64) uint64 {
	diff := tags ^ tag*lowBits
	return (diff - lowBits) &^ diff & highBits
}

// get returns the entry under id, nil if there is none.
func (x *index[S]) get(h idHash, id string) *entry[S] {
	table := x.parts[h.part()].table.Load()
	if table == nil {
		return nil
	}
	buckets, tag := *table, h.tag()
	for i, n := h.start(), len(buckets); n > 0; i, n = i+1, n-1 { // all may have been passed
		b := &buckets[i&uint64(len(buckets)-1)]
		tags := b.tags.Load()
		for m := having(tags, tag); m != 0; m &= m - 1 {
			if e := b.slots[bits.TrailingZeros64(m)/8].Load(); e != nil && e.is(id) {
				return e
			}
		}
		if tags < passedUnit {
			return nil
		}
	}
	return nil
}

func (x *index[S]) find(id string) *entry[S] { return x.get(x.hash(id), id) }

// put files e, whose ID is not in use.
func (x *index[S]) put(e *entry[S]) {
	p := &x.parts[e.hash().part()]
	buckets := p.buckets()
	if p.live*4 >= len(buckets)*bucketSlots*3 {
		buckets = x.rebuild(p)
	}
	p.live++
	place(buckets, e)
}

// place puts e into the first bucket that has room.
func place[S Session](buckets []bucket[S], e *entry[S]) {
	for i := e.hash().start(); ; i++ {
		b := &buckets[i&uint64(len(buckets)-1)]
		tags := b.tags.Load()
		if free := having(tags, 0); free != 0 {
			slot := bits.TrailingZeros64(free) / 8
			b.slots[slot].Store(e) // before its tag
			b.tags.Store(tags | e.hash().tag()<<(8*slot))
			return
		}
		if tags>>passedShift != mostPassed {
			b.tags.Store(tags + passedUnit)
		}
	}
}

// remove takes e out, if it is in.
func (x *index[S]) remove(e *entry[S]) {
	p := &x.parts[e.hash().part()]
	buckets := p.buckets()
	b, slot, at := seek(buckets, e.hash(), e)
	if b == nil {
		return
	}
	b.tags.Store(b.tags.Load() &^ (0xff << (8 * slot)))
	b.slots[slot].Store(nil)
	for i := e.hash().start(); i != at; i++ {
		b := &buckets[i&uint64(len(buckets)-1)]
		if tags := b.tags.Load(); tags>>passedShift != mostPassed {
			b.tags.Store(tags - passedUnit)
		}
	}
	if p.live--; len(buckets) > 1 && p.live*16 < len(buckets)*bucketSlots {
		x.rebuild(p)
	}
}

// replace files e where old is, which has the same ID. No reader sees neither.
func (x *index[S]) replace(old, e *entry[S]) {
	if b, slot, _ := seek(x.parts[old.hash().part()].buckets(), old.hash(), old); b != nil {
		b.slots[slot].Store(e)
	}
}

// seek returns where e is, counted from the start of its hash; no bucket if it
// is not in.
func seek[S Session](buckets []bucket[S], h idHash, e *entry[S]) (b *bucket[S], slot int, at uint64) {
	at = h.start()
	for n := len(buckets); n > 0; at, n = at+1, n-1 {
		b = &buckets[at&uint64(len(buckets)-1)]
		for slot = range b.slots {
			if b.slots[slot].Load() == e {
				return b, slot, at
			}
		}
		if b.tags.Load() < passedUnit {
			break
		}
	}
	return nil, 0, 0
}

// warm looks at the buckets of entries that are about to be removed. Nothing
// depends on what it sees, so the processor fetches many at a time; one after
// the other, waiting for memory would be most of the work of a mass expiry.
func (x *index[S]) warm(entries []*entry[S]) (seen uint64) {
	for _, e := range entries {
		h := e.hash()
		if buckets := x.parts[h.part()].buckets(); len(buckets) > 0 {
			seen ^= buckets[h.start()&uint64(len(buckets)-1)].tags.Load()
		}
	}
	return seen
}

// rebuild moves a part to a table with room for one more entry, of which it
// takes two fifths or less.
func (x *index[S]) rebuild(p *part[S]) []bucket[S] {
	fresh := make([]bucket[S], 1<<bits.Len(uint(p.live*5/(2*bucketSlots))))
	for e := range p.entries() {
		place(fresh, e)
	}
	p.table.Store(&fresh)
	return fresh
}

func (p *part[S]) buckets() []bucket[S] {
	if table := p.table.Load(); table != nil {
		return *table
	}
	return nil
}

// entries yields what is in p. What comes or goes meanwhile may be seen or not.
func (p *part[S]) entries() iter.Seq[*entry[S]] {
	return func(yield func(*entry[S]) bool) {
		buckets := p.buckets()
		for i := range buckets {
			for slot := range buckets[i].slots {
				if e := buckets[i].slots[slot].Load(); e != nil && !yield(e) {
					return
				}
			}
		}
	}
}

// all yields all entries, under no lock. What comes or goes meanwhile may be
// seen or not.
func (x *index[S]) all() iter.Seq[*entry[S]] {
	return func(yield func(*entry[S]) bool) {
		for i := range x.parts {
			for e := range x.parts[i].entries() {
				if !yield(e) {
					return
				}
			}
		}
	}
}
