// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package lru keeps elements in the order of their last use, so that the least
// recently used one is at hand when something has to make room.
//
// The list is intrusive: its links, a [Hook] of two words, are part of the
// element. So an element finds its own place in the list without a search, and
// every operation but [List.All] takes constant time and allocates nothing.
// There is no map, no bound and no lock in here; they belong to the owner.
//
// # Contract
//
// An element is in one list per hook at most, and a hook does not know in which
// one: that is for the caller to know. To push an element that is in a list
// already, or to touch or remove it in a list that it is not in, is a mistake of
// the caller that breaks the list. [Hook.Linked] tells whether it is in any. A
// hook that is in none holds no pointer, so that nothing is kept alive by having
// been in a list.
//
// Neither [Hook] nor [List] is safe for concurrent use.
//
// # How it works
//
// The elements form a ring, in which the newest one is followed by the oldest.
// The list points at the oldest. So an element that is in a list has neighbours
// even when it is alone there, namely itself, and to pass over the oldest one
// is to turn the ring.
package lru

import "iter"

// A Hook is an element's place in a [List]. Make it a field of the element. The
// zero value is in no list and ready to use. It must not be copied while it is
// in one.
type Hook[T any] struct {
	older, newer *T // of the oldest, older is the newest; nil in no list
}

// Linked reports whether h is in a list, whichever it is.
func (h *Hook[T]) Linked() bool { return h.newer != nil }

// A List holds elements in the order of their last use. Make one with [New]:
// the zero value does not know where the hooks are, and is not usable. A list
// may be copied, and the copy used in place of the original, as long as it is
// empty.
type List[T any] struct {
	hook   func(*T) *Hook[T]
	oldest *T
	len    int
}

// New returns an empty list. hook returns the place that an element has in this
// list, always the same one; it must not use the list.
func New[T any](hook func(*T) *Hook[T]) List[T] { return List[T]{hook: hook} }

// Push adds elem, which must not be nil and must be in no list by the same
// hook, as the most recently used element.
func (l *List[T]) Push(elem *T) {
	h := l.hook(elem)
	if l.oldest == nil {
		h.older, h.newer = elem, elem
		l.oldest = elem
	} else {
		oldest := l.hook(l.oldest)
		h.older, h.newer = oldest.older, l.oldest
		l.hook(oldest.older).newer = elem
		oldest.older = elem
	}
	l.len++
}

// Touch makes elem, which must be in l, the most recently used element.
func (l *List[T]) Touch(elem *T) {
	if elem == l.oldest {
		l.Rotate()
		return
	}
	l.Remove(elem)
	l.Push(elem)
}

// Remove takes elem, which must be in l, out of it.
func (l *List[T]) Remove(elem *T) {
	h := l.hook(elem)
	if l.len == 1 {
		l.oldest = nil
	} else {
		l.hook(h.older).newer = h.newer
		l.hook(h.newer).older = h.older
		if elem == l.oldest {
			l.oldest = h.newer
		}
	}
	*h = Hook[T]{}
	l.len--
}

// Oldest returns the least recently used element, nil if l is empty.
func (l *List[T]) Oldest() *T { return l.oldest }

// RemoveOldest removes and returns the least recently used element, nil if l
// is empty.
func (l *List[T]) RemoveOldest() *T {
	elem := l.oldest
	if elem != nil {
		l.Remove(elem)
	}
	return elem
}

// Rotate makes the least recently used element the most recently used one. It
// does nothing if l is empty.
func (l *List[T]) Rotate() {
	if l.oldest != nil {
		l.oldest = l.hook(l.oldest).newer
	}
}

// Len returns the number of elements.
func (l *List[T]) Len() int { return l.len }

// All returns the elements, the least recently used one first.
//
// The loop may remove or touch the element that it was just handed, move it to
// another list, or push a new one: All goes on with the element that was next,
// and ends with the one that was the newest when the loop began, so that it
// yields nothing twice and nothing that came later. Which elements follow is not
// specified once the loop removes or moves any other element.
func (l *List[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		if l.oldest == nil {
			return
		}
		last := l.hook(l.oldest).older
		for elem := l.oldest; ; {
			next, done := l.hook(elem).newer, elem == last
			if !yield(elem) || done {
				return
			}
			elem = next
		}
	}
}
