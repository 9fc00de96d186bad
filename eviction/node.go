// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

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

// A stage is what [Assured] compares sources by: all unconfirmed elements, or
// the confirmed ones.
type stage uint8

const (
	unconfirmed stage = iota // Empty and Holding
	confirmed
	stages
)

func (c Class) stage() stage {
	if c == Confirmed {
		return confirmed
	}
	return unconfirmed
}

// A Node is an element's place in a [Policy]: 24 bytes on 64-bit machines. Make
// it a field of the element. The zero value is in no policy and ready to use. A
// node that is in no policy holds no pointer. It must not be copied while it is
// in one.
type Node[T any] struct {
	hook  lru.Hook[T]
	asked uint32 // what Used said when it was last asked
	class Class
	where uint8

	// Spare is the owner's, for whatever it likes; it would be padding
	// otherwise. A policy neither reads nor writes it.
	Spare uint16
}

// Where a node is.
const (
	nowhere uint8 = iota // in no policy
	listed               // a candidate
	parked               // busy when it was last looked at
)

// Linked reports whether n is in a policy, whichever it is, listed or parked.
// Its caller holds the lock that serialises the calls to that policy.
func (n *Node[T]) Linked() bool { return n.where != nowhere }

// leave forgets all that a policy wrote into n, whose hook is in no list any
// more.
func (n *Node[T]) leave() { n.asked, n.class, n.where = 0, Empty, nowhere }
