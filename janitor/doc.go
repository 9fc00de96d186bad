// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package janitor finds what has expired and closes it: a [Wheel] says which
// elements are due, a [Pool] runs their foreign Close functions.
//
// # Contract
//
// A Wheel never reports an element before its deadline, and reports it less
// than one tick after it when asked then. It costs no allocation per element,
// and no look at elements that are not due. The work of one call is bounded by
// the caller, so that a million elements that expire together do not hold the
// caller's lock for long. [Wheel.Next] tells how long the caller can sleep.
//
// A Pool runs every submitted value exactly once and reports its end exactly
// once, whatever the foreign code does: fail, panic, call [runtime.Goexit],
// hang, or call back into the pool. It holds no lock meanwhile. It has no
// goroutine when it has nothing to do, and so needs no Close.
//
// # How it works
//
// The wheel is the hierarchical timing wheel of Varghese and Lauck, "Hashed and
// Hierarchical Timing Wheels" (SOSP 1987), with a bitmap of occupied slots for
// each level. A deadline is a number of ticks in base 64. An element is filed
// at the level of the highest digit in which its deadline differs from the
// wheel's time, in the slot of that digit. Slots remember the earliest deadline
// filed into them; a slot is opened only when that is due. What is due leaves
// then, whatever the level; the rest moves to lower levels, so an element moves
// at most once per level.
//
// The pool is a queue and a count of free places. A goroutine is started when
// there is both a value and a place, and leaves when the queue is empty. A
// watch per goroutine gives its place away when a value takes too long.
//
// The package knows nothing of sessions. Time comes from the caller in the
// wheel, and from package time in the pool.
package janitor
