// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "github.com/c8e4ff29/layover/lru"

// A Source groups elements by where they came from: a principal, a host. The
// zero value is ready to use. It must not be copied, nor dropped, while elements
// of it are in a policy; afterwards it holds no pointer. It takes 136 bytes on
// 64-bit machines, however many elements it has.
//
// The owner's lock that serialises the policy guards its sources too.
type Source[T any] struct {
	// Extra is room that the source takes beside its elements in the policy,
	// such as sessions that have ended but are still in use. It counts in the
	// weight of the source like as many elements. It is the owner's to set, at
	// any time.
	Extra int

	len    int
	lists  [Confirmed + 1]lru.List[T] // candidates by class, oldest first
	places [stages]place[T]
}

// Len returns the number of elements of s in the policy, parked ones included.
func (s *Source[T]) Len() int { return s.len }

// weight is the room that s takes.
func (s *Source[T]) weight() int { return s.len + s.Extra }

// candidate reports whether s has an element in the stage that is not parked.
func (s *Source[T]) candidate(st stage) bool {
	if st == confirmed {
		return s.lists[Confirmed].Len() > 0
	}
	return s.lists[Empty].Len()+s.lists[Holding].Len() > 0
}

// reset forgets the policy. The last element of s has left.
func (s *Source[T]) reset() { *s = Source[T]{Extra: s.Extra} }
