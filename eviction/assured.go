// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "github.com/c8e4ff29/layover/lru"

// Assured is the policy under which newcomers make room for each other before
// they push out anybody who came back, and under which whoever takes most room
// makes room first.
//
// Victims come in two stages:
//
//   - the unconfirmed elements: the [Empty] before the [Holding] ones, within a
//     class first in, first out. Using an unconfirmed element does not keep it;
//   - the [Confirmed] ones, the least recently used first, like [LRU].
//
// The unconfirmed stage comes first if at least few unconfirmed elements are
// candidates; else the confirmed stage does. So while they are few, room is made
// among the confirmed, and newcomers live long enough to be confirmed
// themselves. Those that Victim has found busy do not count, also if it finds
// them so in the same call: a flood of newcomers that stay busy could not make
// room, and would have the others push out only each other. With keepConfirmed
// the confirmed elements are never victims, and the unconfirmed ones are,
// however few.
//
// Within a stage, the victim is taken from the source that has most elements of
// that stage, busy ones included, among the sources that have a candidate there.
// Of several with equally many, it is the one that has waited for longest: since
// it came to have so many, or to have a candidate again.
//
// No source pushes out a lighter one. The weight of a source is the number of
// its elements, of all classes and busy ones included, and its [Source.Extra].
// If the source that should make room is lighter than that of the newcomer, the
// newcomer takes room from its own source in that stage instead, else from
// nobody. So a source all of whose elements are busy can have no more than its
// share, and Victim returns nil although others are idle.
type Assured[T any] struct {
	access        Access[T]
	hook          func(*T) *lru.Hook[T]
	few           int
	keepConfirmed bool

	parked     lru.List[T]
	rankings   [stages]ranking[T]
	counts     [stages]int // elements, parked ones included
	candidates [stages]int // without them
}

var _ Policy[struct{}] = (*Assured[struct{}])(nil)

// NewAssured returns an empty policy. If few is zero or less, unconfirmed
// elements always leave before confirmed ones.
func NewAssured[T any](a Access[T], few int, keepConfirmed bool) *Assured[T] {
	p := &Assured[T]{access: a, hook: a.hook(), few: few, keepConfirmed: keepConfirmed}
	p.parked = lru.New(p.hook)
	for st := range stages {
		p.rankings[st].init(st)
	}
	return p
}

// Insert implements [Policy].
func (p *Assured[T]) Insert(elem *T, c Class) {
	p.Remove(elem)
	n, s := p.access.Node(elem), p.access.Source(elem)
	if s.len == 0 {
		p.adopt(s)
	}
	s.len++
	n.class = c
	p.file(elem, n, s)
	p.count(s, c.stage(), +1)
}

// adopt readies a source that has no elements.
func (p *Assured[T]) adopt(s *Source[T]) {
	for c := range s.lists {
		s.lists[c] = lru.New(p.hook)
	}
	for st := range s.places {
		s.places[st].bucket = &p.rankings[st].root
	}
}

// file makes elem the newest candidate of its class. The ranking is to be
// updated.
func (p *Assured[T]) file(elem *T, n *Node[T], s *Source[T]) {
	n.where, n.asked = listed, p.access.Used(elem)
	s.lists[n.class].Push(elem)
	p.candidates[n.class.stage()]++
}

// unlink takes elem out of the list that it is in. The ranking is to be
// updated.
func (p *Assured[T]) unlink(elem *T, n *Node[T], s *Source[T]) {
	if n.where == parked {
		p.parked.Remove(elem)
	} else {
		s.lists[n.class].Remove(elem)
		p.candidates[n.class.stage()]--
	}
}

// count changes the number of elements that s has in a stage.
func (p *Assured[T]) count(s *Source[T], st stage, delta int) {
	p.counts[st] += delta
	p.rankings[st].update(s, delta)
}

// Reclass implements [Policy].
func (p *Assured[T]) Reclass(elem *T, c Class) {
	n := p.access.Node(elem)
	if !n.Linked() || c <= n.class {
		return
	}
	s, was := p.access.Source(elem), n.class.stage()
	if n.where == parked {
		n.class, n.asked = c, p.access.Used(elem)
	} else {
		p.unlink(elem, n, s)
		n.class = c
		p.file(elem, n, s)
	}
	if is := c.stage(); is != was {
		p.count(s, was, -1)
		p.count(s, is, +1)
	}
}

// Remove implements [Policy].
func (p *Assured[T]) Remove(elem *T) {
	n := p.access.Node(elem)
	if !n.Linked() {
		return
	}
	s, st := p.access.Source(elem), n.class.stage()
	p.unlink(elem, n, s)
	n.leave()
	s.len--
	p.count(s, st, -1)
	if s.len == 0 {
		s.reset()
	}
}

// Idle implements [Policy].
func (p *Assured[T]) Idle(elem *T) {
	n := p.access.Node(elem)
	if n.where != parked {
		return
	}
	s := p.access.Source(elem)
	p.unlink(elem, n, s)
	p.file(elem, n, s)
	p.rankings[n.class.stage()].update(s, 0)
}

// park takes elem, which is busy, out of the candidates.
func (p *Assured[T]) park(elem *T) {
	n, s := p.access.Node(elem), p.access.Source(elem)
	p.unlink(elem, n, s)
	n.where = parked
	p.parked.Push(elem)
	p.rankings[n.class.stage()].update(s, 0)
}

// Victim implements [Policy]. One call passes over at most 64 confirmed
// elements because they were used; then the stalest of these leaves.
func (p *Assured[T]) Victim(from *Source[T]) *T {
	chances := maxChances
	for {
		// Asked again after each that is parked: there may be few left.
		st, s := p.turn(from)
		if s == nil {
			return nil
		}
		if elem := p.next(s, st, &chances); p.claim(elem) {
			return elem
		}
	}
}

// claim takes elem out for good, or parks it if it is busy.
func (p *Assured[T]) claim(elem *T) bool {
	if p.access.Take(elem) {
		p.Remove(elem)
		return true
	}
	p.park(elem)
	return false
}

// VictimOf implements [Policy]. The source's unconfirmed elements leave first,
// however few.
func (p *Assured[T]) VictimOf(s *Source[T]) *T {
	chances := maxChances
	for {
		st := unconfirmed
		if !s.candidate(st) {
			st = confirmed
		}
		if !s.candidate(st) || st == confirmed && p.keepConfirmed {
			return nil
		}
		if elem := p.next(s, st, &chances); p.claim(elem) {
			return elem
		}
	}
}

// order returns the stages in the order in which they make room.
func (p *Assured[T]) order() (first, second stage) {
	if p.candidates[unconfirmed] >= p.few || p.keepConfirmed {
		return unconfirmed, confirmed
	}
	return confirmed, unconfirmed
}

// turn returns the stage and the source that make room for a newcomer, nil if
// none does.
func (p *Assured[T]) turn(from *Source[T]) (stage, *Source[T]) {
	first, second := p.order()
	s := p.payer(first, from)
	if s != nil || second == confirmed && p.keepConfirmed {
		return first, s
	}
	return second, p.payer(second, from)
}

// payer returns the source that makes room for a newcomer in a stage, nil if
// none does. It has a candidate there.
func (p *Assured[T]) payer(st stage, from *Source[T]) *Source[T] {
	s := p.rankings[st].heaviest()
	switch {
	case s == nil || from == nil || s.weight() >= from.weight():
		return s
	case from.candidate(st):
		return from
	}
	return nil
}

// next returns the candidate of s that is the first to leave in a stage. There
// is one.
func (p *Assured[T]) next(s *Source[T], st stage, chances *int) *T {
	if st == confirmed {
		return p.access.secondChance(&s.lists[Confirmed], chances)
	}
	if elem := s.lists[Empty].Oldest(); elem != nil {
		return elem
	}
	return s.lists[Holding].Oldest()
}

// Take implements [Policy].
func (p *Assured[T]) Take() *T {
	elem := p.candidate()
	if elem == nil {
		elem = p.parked.Oldest()
	}
	if elem != nil {
		p.Remove(elem)
	}
	return elem
}

// candidate returns the first in line to leave, nil if all elements are parked.
func (p *Assured[T]) candidate() *T {
	first, second := p.order()
	for _, st := range [...]stage{first, second} {
		if s := p.rankings[st].heaviest(); s != nil {
			chances := maxChances
			return p.next(s, st, &chances)
		}
	}
	return nil
}

// Len implements [Policy].
func (p *Assured[T]) Len() int { return p.counts[unconfirmed] + p.counts[confirmed] }
