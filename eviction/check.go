// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import (
	"fmt"
	"iter"

	"github.com/c8e4ff29/layover/lru"
)

// Check walks all of p and returns the first inconsistency that it finds, nil
// if there is none. It is for tests and for debugging: it takes time and memory
// in proportion to the number of elements. The owner serialises it like any
// other call.
func (p *LRU[T]) Check() error {
	t := newTally(&p.access)
	if err := t.list("candidates", &p.list, listed, anywhere); err != nil {
		return err
	}
	if err := t.list("parked", &p.parked, parked, anywhere); err != nil {
		return err
	}
	_, err := t.sum()
	return err
}

// Check walks all of p and returns the first inconsistency that it finds, nil
// if there is none. It is for tests and for debugging: it takes time and memory
// in proportion to the number of elements. The owner serialises it like any
// other call.
func (p *Assured[T]) Check() error {
	t := newTally(&p.access)
	if err := t.list("parked", &p.parked, parked, anywhere); err != nil {
		return err
	}
	for st := range p.rankings {
		for s := range p.rankings[st].ready() {
			if _, known := t.ready[s]; known {
				continue // by the other stage
			}
			t.ready[s] = struct{}{}
			if err := t.candidates(s); err != nil {
				return err
			}
		}
	}
	all, err := t.sum()
	if err != nil {
		return err
	}
	if all != p.counts || t.listed != p.candidates {
		return fmt.Errorf("eviction: the stages have %v elements, %v of them candidates, counted are %v and %v", all, t.listed, p.counts, p.candidates)
	}
	for st := range p.rankings {
		if err := p.rankings[st].check(t.counts); err != nil {
			return fmt.Errorf("eviction: ranking %d: %w", st, err)
		}
	}
	return nil
}

// A tally is what Check has seen.
type tally[T any] struct {
	access *Access[T]
	counts map[*Source[T]]*[stages]int
	listed [stages]int // candidates
	ready  map[*Source[T]]struct{}
}

func newTally[T any](a *Access[T]) *tally[T] {
	return &tally[T]{access: a, counts: make(map[*Source[T]]*[stages]int), ready: make(map[*Source[T]]struct{})}
}

// candidates checks and counts what is in the lists of s.
func (t *tally[T]) candidates(s *Source[T]) error {
	for c := range s.lists {
		here := func(n *Node[T], from *Source[T]) bool { return n.class == Class(c) && from == s }
		if err := t.list(Class(c).String(), &s.lists[c], listed, here); err != nil {
			return err
		}
	}
	return nil
}

// list checks and counts the elements of l, whose nodes say where, and of which
// belongs holds.
func (t *tally[T]) list(name string, l *lru.List[T], where uint8, belongs func(*Node[T], *Source[T]) bool) error {
	n := 0
	for elem := range l.All() {
		if n++; n > l.Len() {
			break
		}
		node, s := t.access.Node(elem), t.access.Source(elem)
		if node.where != where || !node.hook.Linked() || node.class > Confirmed || !belongs(node, s) {
			return fmt.Errorf("eviction: in list %q is an element that says where %d, class %v, linked %v",
				name, node.where, node.class, node.hook.Linked())
		}
		if t.counts[s] == nil {
			t.counts[s] = new([stages]int)
		}
		t.counts[s][node.class.stage()]++
		if where == listed {
			t.listed[node.class.stage()]++
		}
	}
	if n != l.Len() {
		return fmt.Errorf("eviction: list %q counts %d elements and has %d", name, l.Len(), n)
	}
	return nil
}

// sum compares the counts with what the sources say, and adds them up.
func (t *tally[T]) sum() (all [stages]int, err error) {
	for s, counts := range t.counts {
		if n := counts[unconfirmed] + counts[confirmed]; s.len != n {
			return all, fmt.Errorf("eviction: a source counts %d elements and has %d", s.len, n)
		}
		for st, n := range counts {
			all[st] += n
		}
	}
	return all, nil
}

func anywhere[T any](*Node[T], *Source[T]) bool { return true }

// ready returns all sources that have a candidate in the stage, each once. It
// ends early if the links are broken.
func (r *ranking[T]) ready() iter.Seq[*Source[T]] {
	return func(yield func(*Source[T]) bool) {
		for b := r.root.up; b != nil && b != &r.root; b = b.up {
			s := b.first
			for n := 0; s != nil && n < b.sources && (n == 0 || s != b.first); n++ {
				if !yield(s) {
					return
				}
				s = s.places[r.stage].next
			}
		}
	}
}

// check compares r with the numbers of elements that each source has.
func (r *ranking[T]) check(counts map[*Source[T]]*[stages]int) error {
	sources := make(map[*bucket[T]]int)
	ready := make(map[*Source[T]]bool)
	for s := range r.ready() {
		ready[s] = true
	}
	for s, n := range counts {
		at := &s.places[r.stage]
		switch {
		case at.bucket == nil || at.bucket.weight != n[r.stage]:
			return fmt.Errorf("a source with %d elements is in the wrong bucket", n[r.stage])
		case ready[s] != s.candidate(r.stage) || ready[s] != (at.next != nil):
			return fmt.Errorf("a source with a candidate (%v) is in the ring of its bucket (%v)", s.candidate(r.stage), ready[s])
		case ready[s] && (at.next.places[r.stage].prev != s ||
			at.next.places[r.stage].bucket != at.bucket):
			return fmt.Errorf("the ring of sources with %d elements is broken", n[r.stage])
		}
		if n[r.stage] > 0 {
			sources[at.bucket]++
		}
	}
	return r.checkBuckets(sources)
}

// checkBuckets compares the buckets with the numbers of sources that they have.
func (r *ranking[T]) checkBuckets(sources map[*bucket[T]]int) error {
	top, all := &r.root, 0
	for b := r.root.up; b != &r.root; b = b.up {
		switch {
		case b.up == nil || b.up.down != b || b.down == nil || b.down.up != b:
			return fmt.Errorf("the links of the bucket of weight %d are broken", b.weight)
		case b.weight <= b.down.weight:
			return fmt.Errorf("the bucket of weight %d is above that of %d", b.weight, b.down.weight)
		case b.sources == 0 || b.sources != sources[b]:
			return fmt.Errorf("the bucket of weight %d counts %d sources and has %d", b.weight, b.sources, sources[b])
		}
		all += b.sources
		if b.first != nil {
			top = b
		}
	}
	if r.root.first != nil || r.root.weight != 0 || r.root.sources != -all {
		return fmt.Errorf("the root counts %d sources below zero, there are %d", -r.root.sources, all)
	}
	if r.top != top {
		return fmt.Errorf("the heaviest source has %d elements, taken for it is one with %d", top.weight, r.top.weight)
	}
	return nil
}
