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

// Timer is an element's place in a [Wheel]: 16 bytes, embedded in the element,
// so that filing allocates nothing. The zero value is not filed. A Timer must
// not be copied, nor its element moved, while it is filed.
type Timer[T any] struct {
	next *T
	prev **T // what points here: next of the element before, or first of the slot
}

// Filed reports whether the timer is filed in a wheel.
func (t *Timer[T]) Filed() bool { return t.prev != nil }

// slot is a list of elements.
type slot[T any] struct {
	first *T
	min   int64 // a tick that is not later than any in the slot; void if it is empty
}

// Wheel files elements by deadline and hands out those that are due.
//
// Times are durations since a fixed start that the caller chooses; negative
// ones count as the start. The wheel's time never goes back: a now that is
// earlier than one it has seen makes no progress and takes nothing back.
//
// The wheel is lazy. An element may be touched, that is, its deadline may move
// later, without telling the wheel: when the wheel comes upon the element, it
// asks for the deadline and files it where it belongs. A deadline that moves
// earlier needs File, or the element comes out as late as it is filed.
//
// A Wheel is not safe for concurrent use. Every method but Len writes, so a
// shared read lock is not enough. [NewWheel] makes one; it must not be copied.
type Wheel[T any] struct {
	tick     time.Duration
	timer    func(*T) *Timer[T]
	deadline func(*T, time.Duration) time.Duration

	elapsed int64 // in ticks; not later than any element is filed
	length  int
	moves   int // elements taken out of a slot by Due; the tests bound it

	// Whatever is filed at level l agrees with elapsed in all digits above l,
	// and its digit l is not lower. So the lowest slot in use of a level is its
	// earliest. Advancing elapsed up to the earliest slot preserves this.
	occupied [levels]uint64 // bit k: slot k may have elements; no bit: it has none
	levels   [levels]*[slots]slot[T]
}

// NewWheel returns an empty wheel with the given resolution. It panics unless
// tick is positive and both functions are there.
//
// timer returns the Timer that is embedded in an element, always the same one.
//
// deadline returns when the element is due, as File's at; [math.MaxInt64] is
// never. Due calls it, with the wheel's time, for each element that it comes
// upon, whoever serialises the wheel does so meanwhile, and it must not call the
// wheel. What it says counts for that moment only: after now, and the element is
// filed again for then; otherwise, and it is due.
//
// A wheel takes 1 KiB for each of its levels that was ever used. With a tick of
// 1 ms these are at most five for times up to 12 days, and six up to two years;
// never takes one more.
func NewWheel[T any](tick time.Duration, timer func(*T) *Timer[T], deadline func(elem *T, now time.Duration) time.Duration) *Wheel[T] {
	if tick <= 0 {
		panic("janitor: the tick of a wheel must be positive")
	}
	if timer == nil || deadline == nil {
		panic("janitor: a wheel needs the timers and the deadlines of its elements")
	}
	return &Wheel[T]{tick: tick, timer: timer, deadline: deadline}
}

// File files elem to be looked at, at the given time. An element that is filed
// in this wheel already is moved. The time is rounded up to a whole tick; one in
// the past is at once.
func (w *Wheel[T]) File(elem *T, at time.Duration) {
	t := w.timer(elem)
	if t.Filed() {
		w.unlink(t)
	}
	w.link(elem, t, at)
}

// Cancel takes elem out of the wheel and reports whether it was filed. An
// element that is filed belongs to this wheel; another wheel's is the caller's
// mistake.
func (w *Wheel[T]) Cancel(elem *T) bool {
	t := w.timer(elem)
	if !t.Filed() {
		return false
	}
	w.unlink(t)
	return true
}

// Due takes out at most limit elements that are due at now, in no particular
// order, and appends them to dst. It moves at most limit elements, those that it
// files again included, so it may return fewer of them, or none, and still have
// more to do; then more is true, and the caller should call again soon. A limit
// below 1 counts as 1.
func (w *Wheel[T]) Due(now time.Duration, limit int, dst []*T) (due []*T, more bool) {
	now = max(now, time.Duration(w.elapsed)*w.tick)
	target := int64(now / w.tick)
	limit = max(limit, 1)
	for {
		s := w.earliest()
		if s == nil || s.min > target {
			w.elapsed = target
			return dst, false
		}
		if limit == 0 {
			return dst, true
		}
		// Nothing is filed before the earliest slot's minimum. Once the wheel's
		// time is inside that slot, whatever stays filed goes to another one, and
		// so does every newcomer: the slot only shrinks, even between calls.
		w.elapsed = s.min
		for ; limit > 0 && s.first != nil; limit-- {
			elem := s.first
			at := w.deadline(elem, now) // first: it may panic
			t := w.timer(elem)
			w.unlink(t)
			w.moves++
			if at > now {
				w.link(elem, t, at) // after target, as target+1 is the first tick that is not before at
				continue
			}
			dst = append(dst, elem)
		}
	}
}

// Next returns when Due should be called next, and false if the wheel is empty.
// It is never later than the earliest time that an element is filed at, rounded
// up to a whole tick. It is earlier only if Due has more to do, or if an element
// that was filed earlier was cancelled or moved; Due then finds nothing and Next
// improves.
func (w *Wheel[T]) Next() (at time.Duration, ok bool) {
	s := w.earliest()
	if s == nil {
		return 0, false
	}
	if s.min > int64(math.MaxInt64/w.tick) {
		return math.MaxInt64, true // the end of time is no whole number of ticks
	}
	return time.Duration(s.min) * w.tick, true
}

// Len returns how many elements are filed.
func (w *Wheel[T]) Len() int { return w.length }

// roundUp returns the first tick that is not before at.
func (w *Wheel[T]) roundUp(at time.Duration) int64 {
	ticks := int64(at / w.tick)
	if at > time.Duration(ticks)*w.tick {
		ticks++
	}
	return ticks
}

// earliest returns the occupied slot whose minimum is the earliest, or nil.
// Cancel empties slots without telling the bitmap; that is made up for here, at
// most once for each time that a slot was filled.
func (w *Wheel[T]) earliest() (first *slot[T]) {
	for l := range w.occupied {
		for w.occupied[l] != 0 {
			s := &w.levels[l][bits.TrailingZeros64(w.occupied[l])]
			if s.first == nil {
				w.occupied[l] &= w.occupied[l] - 1
				continue
			}
			// Not the lowest level first: elapsed may have moved into a slot of
			// a higher level whose minimum still lies ahead.
			if first == nil || s.min < first.min {
				first = s
			}
			break
		}
	}
	return first
}

// link files elem, whose timer t is not filed, into the slot of the given time.
func (w *Wheel[T]) link(elem *T, t *Timer[T], at time.Duration) {
	tick := max(w.roundUp(at), w.elapsed)
	l := (bits.Len64(uint64(tick^w.elapsed)|1) - 1) / digitBits
	k := tick >> (l * digitBits) & (slots - 1)
	if w.levels[l] == nil {
		w.levels[l] = new([slots]slot[T]) // short timeouts never need the higher levels
	}
	s := &w.levels[l][k]
	t.next, t.prev = s.first, &s.first
	if s.first == nil {
		s.min = tick
		w.occupied[l] |= 1 << k
	} else {
		s.min = min(s.min, tick)
		w.timer(s.first).prev = &t.next
	}
	s.first = elem
	w.length++
}

// unlink takes t out of its slot.
func (w *Wheel[T]) unlink(t *Timer[T]) {
	*t.prev = t.next
	if t.next != nil {
		w.timer(t.next).prev = t.prev
	}
	*t = Timer[T]{}
	w.length--
}
