// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

// A ranking finds the heaviest source of one stage that has a candidate there.
// The weight is the number of its elements in the stage, parked ones included.
//
// The sources of each weight that occurs share a bucket, and the buckets are
// linked in the order of their weights. A weight changes by one at a time, so
// its new bucket is a neighbour of the old one, or is put there. (K. Shah,
// A. Mitra, D. Matani, "An O(1) algorithm for implementing the LFU cache
// eviction scheme", 2010, count frequencies of use in this way.)
//
// Sources without a candidate keep their place, but not in the ring of their
// bucket: they may have one again at any moment, and would have to be sorted in
// otherwise.
type ranking[T any] struct {
	stage stage
	// root closes the ring of buckets: above it is the lightest, below it the
	// heaviest. Its weight is zero. Sources come from it and go back to it, so
	// its count is minus that of all buckets together; hence it is never taken
	// for a bucket of one source, which may change its weight, or of none.
	root bucket[T]
	top  *bucket[T] // the heaviest that has a candidate, else &root
	// free is linked by up. It is not bounded: there were never more buckets
	// than different weights at a time, about the square root of twice the
	// number of elements.
	free *bucket[T]
}

// A bucket has the sources of one weight.
type bucket[T any] struct {
	weight   int
	sources  int        // those without a candidate included
	first    *Source[T] // of the ring of those that have a candidate
	up, down *bucket[T] // heavier, lighter
}

// A place is where a source is in a ranking.
type place[T any] struct {
	bucket     *bucket[T] // the root if its weight is zero
	prev, next *Source[T] // in the ring of the bucket; nil without a candidate
}

func (r *ranking[T]) init(st stage) {
	r.stage = st
	r.root.up, r.root.down = &r.root, &r.root
	r.top = &r.root
}

// heaviest returns the heaviest source that has a candidate, nil if there is
// none. Of several, it is the one that has been waiting in their bucket for the
// longest time.
func (r *ranking[T]) heaviest() *Source[T] { return r.top.first }

// update brings the place of s in line with a weight that has changed by delta,
// which is -1, 0 or +1, and with whether s has a candidate.
func (r *ranking[T]) update(s *Source[T], delta int) {
	at := &s.places[r.stage]
	was, is := at.next != nil, s.candidate(r.stage)
	if delta == 0 && was == is {
		return
	}
	if was {
		r.leaveRing(s)
	}
	if delta != 0 {
		at.bucket = r.shift(at.bucket, delta)
	}
	if is {
		r.joinRing(s)
		if at.bucket.weight > r.top.weight {
			r.top = at.bucket
		}
	}
	// Each bucket that is passed has sources whose elements in this stage are
	// all parked, and no two of them as many. So b parked elements make for no
	// more than the square root of 2b steps; and they are not taken again
	// before a heavier source has a candidate once more.
	for r.top != &r.root && r.top.first == nil {
		r.top = r.top.down
	}
}

// shift moves a source that is in no ring from b to the bucket that is heavier
// by delta, and returns that one.
func (r *ranking[T]) shift(b *bucket[T], delta int) *bucket[T] {
	weight := b.weight + delta
	to, below := b.up, b
	if delta < 0 {
		to, below = b.down, b.down
	}
	if to.weight != weight {
		if b.sources == 1 {
			b.weight = weight // nobody else is in the way
			return b
		}
		to = r.insert(weight, below)
	}
	to.sources++
	b.sources--
	if b.sources == 0 {
		r.drop(b)
	}
	return to
}

// insert returns a new bucket above another one.
func (r *ranking[T]) insert(weight int, below *bucket[T]) *bucket[T] {
	b := r.free
	if b == nil {
		b = new(bucket[T])
	} else {
		r.free = b.up
	}
	*b = bucket[T]{weight: weight, up: below.up, down: below}
	b.up.down, b.down.up = b, b
	return b
}

// drop puts an empty bucket aside.
func (r *ranking[T]) drop(b *bucket[T]) {
	if r.top == b {
		r.top = b.down
	}
	b.up.down, b.down.up = b.down, b.up
	*b = bucket[T]{up: r.free}
	r.free = b
}

// joinRing puts s at the end of the ring of its bucket.
func (r *ranking[T]) joinRing(s *Source[T]) {
	at := &s.places[r.stage]
	first := at.bucket.first
	if first == nil {
		at.bucket.first, at.prev, at.next = s, s, s
		return
	}
	last := first.places[r.stage].prev
	at.prev, at.next = last, first
	last.places[r.stage].next, first.places[r.stage].prev = s, s
}

// leaveRing takes s out of the ring of its bucket.
func (r *ranking[T]) leaveRing(s *Source[T]) {
	at := &s.places[r.stage]
	at.prev.places[r.stage].next, at.next.places[r.stage].prev = at.next, at.prev
	if at.bucket.first == s {
		at.bucket.first = at.next
		if at.next == s {
			at.bucket.first = nil
		}
	}
	at.prev, at.next = nil, nil
}
