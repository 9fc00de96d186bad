// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "github.com/c8e4ff29/layover/lru"

// LRU is the policy under which the least recently used element leaves, as far
// as a second chance tells: of the elements that were not used since Victim
// last passed them, the one that came or was passed first. It ignores classes.
// The zero value is ready to use.
type LRU[T any] struct {
	list lru.List[T]
}

var _ Policy[struct{}] = (*LRU[struct{}])(nil)

// NewLRU returns an empty policy.
func NewLRU[T any]() *LRU[T] { return new(LRU[T]) }

// Insert implements [Policy].
func (p *LRU[T]) Insert(n *Node[T], elem *T, _ Class) { p.list.Push(&n.hook, elem) }

// Reclass does nothing: LRU ignores classes.
func (p *LRU[T]) Reclass(*Node[T], Class) {}

// Remove implements [Policy].
func (p *LRU[T]) Remove(n *Node[T]) { p.list.Remove(&n.hook) }

// Victim implements [Policy].
func (p *LRU[T]) Victim(used, take func(*T) bool) *T {
	return secondChance(&p.list, used, take)
}

// Take implements [Policy].
func (p *LRU[T]) Take() *T { return p.list.RemoveOldest() }
