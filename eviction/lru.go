// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "github.com/c8e4ff29/layover/lru"

// LRU is the policy under which the least recently used element leaves, as far
// as a second chance tells: of the elements that were not used since Victim
// last passed them, the one that came or was passed first. One call passes over
// at most 64 elements because they were used; then the stalest of these leaves.
//
// Classes and sources make no difference. They are kept up to date all the
// same: [Source.Len] is right.
type LRU[T any] struct {
	access Access[T]
	list   lru.List[T] // candidates
	parked lru.List[T]
}

var _ Policy[struct{}] = (*LRU[struct{}])(nil)

// NewLRU returns an empty policy.
func NewLRU[T any](a Access[T]) *LRU[T] {
	hook := a.hook()
	return &LRU[T]{access: a, list: lru.New(hook), parked: lru.New(hook)}
}

// Insert implements [Policy].
func (p *LRU[T]) Insert(elem *T, c Class) {
	p.Remove(elem)
	p.access.Source(elem).len++
	n := p.access.Node(elem)
	n.class = c
	p.file(elem, n)
}

// file makes elem the newest candidate.
func (p *LRU[T]) file(elem *T, n *Node[T]) {
	n.where, n.asked = listed, p.access.Used(elem)
	p.list.Push(elem)
}

// Reclass notes the class. It does not move elem, for LRU ignores classes.
func (p *LRU[T]) Reclass(elem *T, c Class) {
	if n := p.access.Node(elem); n.Linked() {
		n.class = max(n.class, c)
	}
}

// Remove implements [Policy].
func (p *LRU[T]) Remove(elem *T) {
	n := p.access.Node(elem)
	switch n.where {
	case nowhere:
		return
	case listed:
		p.list.Remove(elem)
	case parked:
		p.parked.Remove(elem)
	}
	n.leave()
	p.access.Source(elem).len--
}

// Idle implements [Policy].
func (p *LRU[T]) Idle(elem *T) {
	if n := p.access.Node(elem); n.where == parked {
		p.parked.Remove(elem)
		p.file(elem, n)
	}
}

// Victim implements [Policy]. It ignores where the newcomer comes from.
func (p *LRU[T]) Victim(*Source[T]) *T {
	chances := maxChances
	for {
		elem := p.access.secondChance(&p.list, &chances)
		if elem == nil {
			return nil
		}
		if p.access.Take(elem) {
			p.Remove(elem)
			return elem
		}
		p.list.Remove(elem)
		p.access.Node(elem).where = parked
		p.parked.Push(elem)
	}
}

// VictimOf implements [Policy]. It returns nil: there is no order within a source.
func (p *LRU[T]) VictimOf(*Source[T]) *T { return nil }

// Take implements [Policy].
func (p *LRU[T]) Take() *T {
	chances := maxChances
	elem := p.access.secondChance(&p.list, &chances)
	if elem == nil {
		elem = p.parked.Oldest()
	}
	if elem != nil {
		p.Remove(elem)
	}
	return elem
}

// Len implements [Policy].
func (p *LRU[T]) Len() int { return p.list.Len() + p.parked.Len() }
