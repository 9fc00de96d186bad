// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"container/heap"
	"time"
)

// index finds the entries of sessions by what [ttlcache.Cache] does not tell: which
// have expired, so that the counts are exact, and who has the most.
type index struct {
	expiring queue[*record]
	owners   map[string]*owner
	heaviest queue[*owner] // of those who have a name
}

// record is the entry of a session. Readers see only the Entry, which never changes.
type record struct {
	Entry
	expires time.Time // from the cache
	owner   *owner
	nth     int // of its owner's
	place   int // in index.expiring, -1: it is not there any more
}

func (r *record) before(other *record) bool { return r.expires.Before(other.expires) }
func (r *record) move(to int)               { r.place = to }

// owner is a principal who has entries.
type owner struct {
	name    string
	records []*record
	place   int // in index.heaviest
}

func (o *owner) before(other *owner) bool { return len(o.records) > len(other.records) }
func (o *owner) move(to int)              { o.place = to }

func (x *index) add(r *record) {
	o := x.owners[r.Principal]
	if o == nil {
		o = &owner{name: r.Principal}
		x.owners[o.name] = o
		if o.name != "" {
			heap.Push(&x.heaviest, o)
		}
	}
	r.owner, r.nth = o, len(o.records)
	o.records = append(o.records, r)
	x.weigh(o)
	heap.Push(&x.expiring, r)
}

func (x *index) remove(r *record) {
	o := r.owner
	last := len(o.records) - 1
	o.records[r.nth] = o.records[last]
	o.records[r.nth].nth = r.nth
	o.records[last] = nil
	o.records = o.records[:last]
	x.weigh(o)
	heap.Remove(&x.expiring, r.place)
}

// weigh is called when the number of somebody's entries has changed.
func (x *index) weigh(o *owner) {
	switch {
	case len(o.records) > 0 && o.name != "":
		heap.Fix(&x.heaviest, o.place)
	case len(o.records) == 0 && o.name != "":
		heap.Remove(&x.heaviest, o.place)
		fallthrough
	case len(o.records) == 0:
		delete(x.owners, o.name)
	}
}

// of returns the entries of a principal.
func (x *index) of(principal string) []*record {
	if o := x.owners[principal]; o != nil {
		return o.records
	}
	return nil
}

// most returns the entries of the principal who has the most, of those who have a
// name.
func (x *index) most() []*record {
	if len(x.heaviest) == 0 {
		return nil
	}
	return x.heaviest[0].records
}

// placed is an element of a queue, which is told its place.
type placed[T any] interface {
	before(other T) bool
	move(to int)
}

// queue is a [heap.Interface] whose elements know where they are.
type queue[T placed[T]] []T

func (q queue[T]) Len() int           { return len(q) }
func (q queue[T]) Less(i, j int) bool { return q[i].before(q[j]) }

func (q queue[T]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].move(i)
	q[j].move(j)
}

func (q *queue[T]) Push(x any) {
	x.(T).move(len(*q))
	*q = append(*q, x.(T))
}

func (q *queue[T]) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	clear((*q)[last:])
	*q = (*q)[:last]
	x.move(-1)
	return x
}
