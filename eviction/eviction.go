// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package eviction decides who leaves when a store is full.
//
// A [Policy] keeps an order of elements and names the next victim. [Assured]
// is the default: a flood of newcomers cannot push out what is in use. [LRU] is
// the plain one: whoever was not used for the longest time leaves.
//
// # Contract
//
// The owner serialises all calls to a policy, usually with a lock of its own.
// It tells the policy what comes, what goes and what is confirmed, and never
// what is used: a hit does not touch the policy. No call allocates. All calls
// but Victim take constant time.
//
// An element that is in use is busy, otherwise idle. A busy element is never a
// victim, and an element that is a candidate and idle throughout a call of
// Victim is found by it if no better one is. A call looks at an element twice
// at most.
//
// # How it works
//
// Most hits change nothing that matters to the next victim, so the order of use
// is settled lazily: a hit does no more than to set a bit in the element, and
// Victim asks for the bits of the elements at the old end while it looks for a
// victim. One that was used gets a second chance at the new end. This is the
// second-chance, or CLOCK, algorithm (F. J. Corbató, "A Paging Experiment with
// the Multics System", 1968); the list is the ring, its old end is the hand.
//
// Victim moves whatever it passes over, used or busy, to the new end. So the
// next call begins with elements that this one has not looked at, and does not
// walk over the same busy ones again. Only a class whose elements are all busy is
// walked over by every call that comes to it.
package eviction

import (
	"strconv"

	"github.com/c8e4ff29/layover/lru"
)

// A Class says how much an element has proved to be worth keeping. It only
// ever goes up.
type Class uint8

// The classes, in the order in which sessions leave.
const (
	Empty     Class = iota // unconfirmed, holds nothing
	Holding                // unconfirmed, has or had an option or a resource
	Confirmed              // a later call has brought its token back
)

// String returns the name of c in lower case.
func (c Class) String() string {
	switch c {
	case Empty:
		return "empty"
	case Holding:
		return "holding"
	case Confirmed:
		return "confirmed"
	}
	return "Class(" + strconv.Itoa(int(c)) + ")"
}

// A Node is an element's place in a [Policy]. Make it a field of the element.
// The zero value is in no policy and ready to use. A node that is in no policy
// holds no pointer. It must not be copied while it is in one.
type Node[T any] struct {
	// The class is not stored: it is which of the policy's lists the hook is
	// in. That keeps the node at four words.
	hook lru.Hook[T]
}

// Linked reports whether n is in a policy, whichever it is. Its caller holds
// the lock that serialises the calls to that policy.
func (n *Node[T]) Linked() bool { return n.hook.Linked() }

// A Policy keeps elements and says which one leaves when there is no more room.
// A policy may ignore classes. It is not safe for concurrent use: the caller
// serialises all calls.
type Policy[T any] interface {
	// Insert files elem, whose node is n, as the newest one of class c. A node
	// that is in a policy already is taken out of it first. elem must not be
	// nil, and c is one of the three constants.
	Insert(n *Node[T], elem *T, c Class)

	// Reclass raises the class of n to c, as its newest element: it holds
	// something now, or was confirmed. It does nothing for a node that is in
	// class c or a higher one, or is not in this policy: a class never goes
	// down.
	Reclass(n *Node[T], c Class)

	// Remove takes n out. It does nothing for a node that is not in this
	// policy.
	Remove(n *Node[T])

	// Victim removes and returns the element that should leave, nil if there
	// is none.
	//
	// used reports whether the element was used since it was inserted or since
	// used was last called for it. take tries to claim the element for good; it
	// fails while the element is busy, which is then passed over. Both run
	// while the caller serialises the policy, so neither may call back into it.
	// Others may use elements meanwhile.
	Victim(used, take func(*T) bool) *T

	// Take removes and returns the next element in line, in use or not, also if
	// the policy would never name it as a victim; nil if there are no elements.
	// It is for moving all elements to another policy.
	Take() *T
}

// secondChance removes and returns the least recently used element of l that
// take claims, nil if it claims none. See the package documentation.
func secondChance[T any](l *lru.List[T], used, take func(*T) bool) *T {
	spared := false
	for range l.Len() {
		elem := l.Oldest()
		if used(elem) {
			spared = true
		} else if take(elem) {
			return l.RemoveOldest()
		}
		l.Rotate()
	}
	if !spared {
		return nil
	}
	// Everything was used or busy. One chance is all that there is: without
	// asking again, hits that keep coming cannot keep the store from finding
	// a victim.
	return firstIdle(l, take)
}

// firstIdle removes and returns the element nearest to the old end of l that
// take claims, nil if it claims none.
func firstIdle[T any](l *lru.List[T], take func(*T) bool) *T {
	for range l.Len() {
		if take(l.Oldest()) {
			return l.RemoveOldest()
		}
		l.Rotate()
	}
	return nil
}
