// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction

import "github.com/c8e4ff29/layover/lru"

// A Policy keeps elements and says which one leaves when there is no more room.
// It is not safe for concurrent use: the owner serialises all calls.
//
// An element is in one policy at most, and so are all elements of a source: to
// move to another policy, take all elements out first, then insert them. To
// call a method with an element that is in another policy is a mistake that
// breaks both.
type Policy[T any] interface {
	// Insert files elem, which must not be nil, as the newest one of class c,
	// which is one of the three constants. If elem is in this policy already,
	// it is taken out first.
	Insert(elem *T, c Class)

	// Reclass raises the class of elem to c, as its newest element: it holds
	// something now, or was confirmed. A parked element stays parked. Reclass
	// does nothing if elem is of class c or a higher one, for a class never goes
	// down, or in no policy.
	Reclass(elem *T, c Class)

	// Remove takes elem out. It does nothing if elem is in no policy.
	Remove(elem *T)

	// Idle says that elem is no longer busy. If it is parked, it becomes a
	// candidate again, as the newest one of its class. Otherwise Idle does
	// nothing.
	Idle(elem *T)

	// Victim removes and returns the element that should leave so that a
	// newcomer of source from gets in, nil if there is none. A from of nil
	// stands for no newcomer: anybody may leave.
	Victim(from *Source[T]) *T

	// VictimOf is Victim among the elements of one source: the one that should leave
	// first, nil if there is none. [LRU] knows no order within a source, and always
	// returns nil.
	VictimOf(s *Source[T]) *T

	// Take removes and returns any one element, busy or not, also one that the
	// policy would never name as a victim; nil if there are none. They come in
	// the order in which they would leave, parked ones last. It is for moving
	// all elements to another policy.
	Take() *T

	// Len returns the number of elements, parked ones included.
	Len() int
}

// Access is how a policy reaches into the owner's elements. All functions are
// required. They run while the owner serialises the policy, and must not call
// back into it.
type Access[T any] struct {
	// Node returns the place of elem, always the same one.
	Node func(elem *T) *Node[T]

	// Source returns where elem came from, never nil, and always the same one
	// while elem is in the policy.
	Source func(elem *T) *Source[T]

	// Used returns a stamp of when elem was last used. It grows with each use,
	// and may wrap around. Others may use elem meanwhile.
	Used func(elem *T) uint32

	// Take claims elem for good and reports true: it is the victim. It reports
	// false if elem is busy; then elem is parked, and the owner promises to call
	// Idle for it once it is busy no longer, if it is still in the policy. (A
	// mark that Take leaves in elem spares the owner the call for all others.)
	Take func(elem *T) bool
}

// hook returns the accessor for lists of elements.
func (a *Access[T]) hook() func(*T) *lru.Hook[T] {
	node := a.Node
	return func(elem *T) *lru.Hook[T] { return &node(elem).hook }
}

// maxChances bounds how many elements one call passes over because they were
// used, and with it the time that the owner's lock is held: 64 of them cost a
// few microseconds. If all of them were used, those behind them most likely
// were too, and it matters little which one leaves.
const maxChances = 64

// secondChance returns the least recently used element of l, nil if l is
// empty. Whatever was used since it was last asked is passed over, at the
// expense of chances. If all were used, or no chance is left, the one of those
// passed over that was used before the others is returned.
func (a *Access[T]) secondChance(l *lru.List[T], chances *int) *T {
	var first, stalest *T
	for ; *chances > 0 && l.Len() > 0; *chances-- {
		elem := l.Oldest()
		if elem == first { // all the way round
			break
		}
		n, used := a.Node(elem), a.Used(elem)
		if n.asked == used {
			return elem
		}
		n.asked = used
		l.Rotate()
		if first == nil {
			first = elem
		}
		if stalest == nil || int32(used-a.Node(stalest).asked) < 0 {
			stalest = elem
		}
	}
	if stalest != nil {
		return stalest
	}
	return l.Oldest()
}
