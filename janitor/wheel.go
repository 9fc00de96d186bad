// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import (
	"math"
	"math/bits"
	"time"
)

const (
	digitBits = 6              // 64 slots per level: one bit each in a machine word
	slots     = 1 << digitBits // per level
	levels    = 11             // 11 digits of 6 bits hold every time.Duration, even in ticks of 1 ns
)

// Timer is an element's place in a [Wheel]. It is embedded in the element, so
// that filing allocates nothing. The zero value is not filed. A Timer must not
// be copied while it is filed.
type Timer[T any] struct {
	// A slot is a ring around a Timer that has no element: its head. The tick
	// of a head is not later than any in its slot.
	next, prev *Timer[T]
	elem       *T
	tick       int64
}

// Filed reports whether the timer is filed in a wheel.
func (t *Timer[T]) Filed() bool { return t.next != nil }

// Wheel files elements by deadline and hands out those that are due.
//
// Times are durations since a fixed start that the caller chooses; negative
// ones count as the start. The wheel's time never goes back: a now that is
// earlier than one it has seen makes no progress and takes nothing back.
//
// A Wheel is not safe for concurrent use. Every method but Len writes, so a
// shared read lock is not enough. [NewWheel] makes one; it must not be copied.
type Wheel[T any] struct {
	tick    time.Duration
	elapsed int64 // in ticks; not later than any filed deadline
	length  int
	moves   int // timers taken out of a slot by Due; the tests bound it

	// Every timer at level l agrees with elapsed in all digits above l, and its
	// digit l is not lower. So the lowest slot in use of a level is its
	// earliest. Advancing elapsed up to the earliest deadline preserves this.
	occupied [levels]uint64 // bit k: slot k may have timers; no bit: it has none
	levels   [levels]*[slots]Timer[T]
}

// NewWheel returns an empty wheel with the given resolution. It panics unless
// tick is positive.
//
// A wheel takes 2 KiB for each of its levels that was ever used. With a tick of
// 1 ms these are at most five for times up to 12 days, and six up to two years.
func NewWheel[T any](tick time.Duration) *Wheel[T] {
	if tick <= 0 {
		panic("janitor: the tick of a wheel must be positive")
	}
	return &Wheel[T]{tick: tick}
}

// File files elem under t, which is embedded in it, to be due at the given
// time. A timer that is filed in this wheel already is moved. The time is
// rounded up to a whole tick; a time in the past is due at once.
func (w *Wheel[T]) File(t *Timer[T], elem *T, at time.Duration) {
	w.Cancel(t)
	t.elem = elem
	t.tick = max(w.roundUp(at), w.elapsed)
	w.link(t)
}

// Cancel takes t out of the wheel and reports whether it was filed. A timer
// that is filed belongs to this wheel; another wheel's is the caller's mistake.
func (w *Wheel[T]) Cancel(t *Timer[T]) bool {
	if !t.Filed() {
		return false
	}
	w.unlink(t)
	*t = Timer[T]{}
	return true
}

// Due takes out at most limit elements that are due at now, in no particular
// order, and appends them to dst. It moves at most limit timers, those that it
// files at a lower level included, so it may return fewer elements, or none,
// and still have more to do; then more is true, and the caller should call
// again soon. A limit below 1 counts as 1.
func (w *Wheel[T]) Due(now time.Duration, limit int, dst []*T) (due []*T, more bool) {
	target := max(int64(now/w.tick), w.elapsed)
	limit = max(limit, 1)
	for {
		head := w.earliest()
		if head == nil || head.tick > target {
			w.elapsed = target
			return dst, false
		}
		if limit == 0 {
			return dst, true
		}
		// Nothing is filed before the earliest slot's minimum. Once the wheel's
		// time is inside that slot, whatever stays filed goes to a lower level,
		// and so does every newcomer: the slot only shrinks, even between calls.
		w.elapsed = head.tick
		for ; limit > 0 && head.next != head; limit-- {
			t := head.next
			w.unlink(t)
			w.moves++
			if t.tick > target {
				w.link(t)
				continue
			}
			dst = append(dst, t.elem)
			*t = Timer[T]{}
		}
	}
}

// Next returns when Due should be called next, and false if the wheel is empty.
// It is never later than the earliest deadline, rounded up to a whole tick. It
// is earlier only if Due has more to do, or if an element that was due earlier
// was cancelled or moved; Due then finds nothing and Next improves.
func (w *Wheel[T]) Next() (at time.Duration, ok bool) {
	head := w.earliest()
	if head == nil {
		return 0, false
	}
	if head.tick > int64(math.MaxInt64/w.tick) {
		return math.MaxInt64, true // the end of time is no whole number of ticks
	}
	return time.Duration(head.tick) * w.tick, true
}

// Len returns how many elements are filed.
func (w *Wheel[T]) Len() int { return w.length }

// roundUp returns the first tick that is not before at.
func (w *Wheel[T]) roundUp(at time.Duration) int64 {
	ticks := int64(at / w.tick)
	if at%w.tick > 0 {
		ticks++
	}
	return ticks
}

// earliest returns the head of the occupied slot whose minimum is the earliest,
// or nil. Cancel empties slots without telling the bitmap; that is made up for
// here, at most once for each time that a slot was filled.
func (w *Wheel[T]) earliest() (first *Timer[T]) {
	for l := range w.occupied {
		for w.occupied[l] != 0 {
			head := &w.levels[l][bits.TrailingZeros64(w.occupied[l])]
			if head.next == head {
				w.occupied[l] &= w.occupied[l] - 1
				continue
			}
			// Not the lowest level first: elapsed may have moved into a slot of
			// a higher level whose minimum still lies ahead.
			if first == nil || head.tick < first.tick {
				first = head
			}
			break
		}
	}
	return first
}

// link puts t, whose tick is not before elapsed, at the end of its slot.
func (w *Wheel[T]) link(t *Timer[T]) {
	l := (bits.Len64(uint64(t.tick^w.elapsed)|1) - 1) / digitBits
	slot := t.tick >> (l * digitBits) & (slots - 1)
	head := &w.level(l)[slot]
	if head.next == head {
		head.tick = t.tick
		w.occupied[l] |= 1 << slot
	}
	head.tick = min(head.tick, t.tick)
	t.next, t.prev = head, head.prev
	t.prev.next, head.prev = t, t
	w.length++
}

// unlink takes t out of its slot. It leaves t's own pointers to the caller.
func (w *Wheel[T]) unlink(t *Timer[T]) {
	t.prev.next, t.next.prev = t.next, t.prev
	w.length--
}

// level returns the slots of level l, which it makes when first used: short
// timeouts never need the higher ones.
func (w *Wheel[T]) level(l int) *[slots]Timer[T] {
	if w.levels[l] == nil {
		w.levels[l] = new([slots]Timer[T])
		for i := range w.levels[l] {
			head := &w.levels[l][i]
			head.next, head.prev = head, head
		}
	}
	return w.levels[l]
}
