// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package janitor finds what has expired and closes it: a [Wheel] says which
// elements are due, a [Pool] runs their foreign Close functions.
//
// # Contract
//
// A Wheel never reports an element before its deadline, and reports it less
// than one tick after it when asked then. An element whose deadline moves later
// need not be filed again. The wheel costs two words and no allocation per
// element, and no look at elements that are not due, but for one in each period
// for those that were touched. The work of one call is bounded by the caller, so
// that a million elements that expire together do not hold the caller's lock for
// long. [Wheel.Next] tells how long the caller can sleep.
//
// A Pool runs every submitted value exactly once and reports its end exactly
// once, whatever the foreign code does: fail, panic, call [runtime.Goexit],
// hang, or call back into the pool. It holds no lock meanwhile. What hangs is
// noticed when it has taken HungAfter, never before, and less than a quarter of
// HungAfter later. A pool that has nothing to do has no goroutine and no timer,
// some microseconds later, and so needs no Close.
//
// # How it works
//
// The wheel is the hierarchical timing wheel of Varghese and Lauck, "Hashed and
// Hierarchical Timing Wheels" (SOSP 1987), with a bitmap of occupied slots for
// each level. A deadline is a number of ticks in base 64. An element is filed
// at the level of the highest digit in which its deadline differs from the
// wheel's time, in the slot of that digit. Slots remember the earliest deadline
// filed into them; a slot is opened only when that is due. Each element in it is
// asked for its deadline. What is due leaves then, whatever the level; the rest
// is filed again, at a lower level unless it was touched, so an element moves at
// most once per level.
//
// A slot is a list in the manner of Linux's hlist (include/linux/list.h): an
// element points at the next one, and at the pointer that points at it. So it
// leaves its slot without knowing which one that is, and needs to keep neither
// that nor its deadline.
//
// The pool is a queue and a count of free places. A goroutine is started when
// there is both a value and a place, one after the other, and leaves when the
// queue is empty and stays so while it yields the processor a few times.
//
// A value pays nothing for being watched. While values run, a watchdog comes by
// eight times in HungAfter, and notes which of them it has not seen before. One
// that it has known for HungAfter is hung. Whether Run returns or is reported
// first, is settled by one compare-and-swap.
//
// The package knows nothing of sessions. Time comes from the caller in the
// wheel, and from package time in the pool.
package janitor
