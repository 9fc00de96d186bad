// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "github.com/c8e4ff29/layover/lru"

// Assured is the policy under which newcomers make room for each other before
// they push out anybody who came back. Linux connection tracking does the same
// when its table is full: only connections that are not yet "assured" by
// traffic in both directions are dropped early (early_drop in
// net/netfilter/nf_conntrack_core.c).
//
// Victims are, in this order:
//
//  1. the unconfirmed elements, if there are at least few of them: the [Empty]
//     before the [Holding] ones, within a class first in, first out. Using an
//     unconfirmed element does not keep it;
//  2. the [Confirmed] ones, the least recently used first, like [LRU];
//  3. the unconfirmed ones, however few.
//
// So while there are fewer than few unconfirmed elements, room is made among
// the confirmed, and newcomers live long enough to be confirmed themselves.
// With keepConfirmed the confirmed elements are never victims, and the
// unconfirmed ones are, however few.
//
// A busy element is passed over: it stays in its class, and moves behind the
// newest one there.
type Assured[T any] struct {
	lists         [Confirmed + 1]lru.List[T] // by class
	few           int
	keepConfirmed bool
}

var _ Policy[struct{}] = (*Assured[struct{}])(nil)

// NewAssured returns an empty policy. If few is zero or less, unconfirmed
// elements always leave before confirmed ones.
func NewAssured[T any](few int, keepConfirmed bool) *Assured[T] {
	return &Assured[T]{few: few, keepConfirmed: keepConfirmed}
}

// Insert implements [Policy].
func (p *Assured[T]) Insert(n *Node[T], elem *T, c Class) {
	p.lists[c].Push(&n.hook, elem)
}

// Reclass implements [Policy].
func (p *Assured[T]) Reclass(n *Node[T], c Class) {
	elem := n.hook.Elem()
	for lower := range c {
		if p.lists[lower].Remove(&n.hook) {
			p.lists[c].Push(&n.hook, elem)
			return
		}
	}
}

// Remove implements [Policy].
func (p *Assured[T]) Remove(n *Node[T]) {
	for c := range p.lists {
		if p.lists[c].Remove(&n.hook) {
			return
		}
	}
}

// Victim implements [Policy].
func (p *Assured[T]) Victim(used, take func(*T) bool) *T {
	if p.keepConfirmed {
		return p.unconfirmed(take)
	}
	if p.lists[Empty].Len()+p.lists[Holding].Len() >= p.few {
		if elem := p.unconfirmed(take); elem != nil {
			return elem
		}
		return p.confirmed(used, take)
	}
	if elem := p.confirmed(used, take); elem != nil {
		return elem
	}
	return p.unconfirmed(take)
}

func (p *Assured[T]) unconfirmed(take func(*T) bool) *T {
	if elem := firstIdle(&p.lists[Empty], take); elem != nil {
		return elem
	}
	return firstIdle(&p.lists[Holding], take)
}

func (p *Assured[T]) confirmed(used, take func(*T) bool) *T {
	return secondChance(&p.lists[Confirmed], used, take)
}

// Take implements [Policy].
func (p *Assured[T]) Take() *T {
	for c := range p.lists {
		if elem := p.lists[c].RemoveOldest(); elem != nil {
			return elem
		}
	}
	return nil
}
