// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package lru keeps elements in the order of their last use, so that the least
// recently used one is at hand when something has to make room.
//
// The list is intrusive: its links, a [Hook], are part of the element. So an
// element finds its own place in the list without a search, and every operation
// but [List.All] takes constant time and allocates nothing. There is no map,
// no bound, no lock and no callback in here; they belong to the owner.
//
// A hook is in one list at most. A hook that is in no list holds no pointer,
// so that nothing is kept alive by having been in a list.
//
// Neither [Hook] nor [List] is safe for concurrent use, and neither may be
// copied while in use: the list and its hooks point at each other.
package lru

import "iter"

// A Hook is an element's place in a [List]. Make it a field of the element. The
// zero value is in no list and ready to use.
type Hook[T any] struct {
	older, newer *Hook[T]
	list         *List[T]
	elem         *T
}

// Linked reports whether h is in a list, whichever it is.
func (h *Hook[T]) Linked() bool { return h.list != nil }

// Elem returns the element that h was pushed with, nil if h is in no list.
func (h *Hook[T]) Elem() *T { return h.elem }

// A List holds elements in the order of their last use. The zero value is an
// empty list, ready to use.
type List[T any] struct {
	oldest, newest *Hook[T]
	len            int
}

// Push makes elem, whose hook is h, the most recently used element of l. If h
// is in l already, it is moved; if it is in another list, it is taken out of
// that one first. elem must not be nil.
func (l *List[T]) Push(h *Hook[T], elem *T) {
	if h.list != nil {
		h.list.Remove(h)
	}
	*h = Hook[T]{older: l.newest, list: l, elem: elem}
	if l.newest != nil {
		l.newest.newer = h
	} else {
		l.oldest = h
	}
	l.newest = h
	l.len++
}

// Touch makes the element of h the most recently used one. It returns false,
// and changes nothing, if h is not in l.
func (l *List[T]) Touch(h *Hook[T]) bool {
	if h.list != l {
		return false
	}
	l.Push(h, h.elem)
	return true
}

// Remove takes h out of l. It returns false, and changes nothing, if h is not
// in l.
func (l *List[T]) Remove(h *Hook[T]) bool {
	if h.list != l {
		return false
	}
	if h.older != nil {
		h.older.newer = h.newer
	} else {
		l.oldest = h.newer
	}
	if h.newer != nil {
		h.newer.older = h.older
	} else {
		l.newest = h.older
	}
	l.len--
	*h = Hook[T]{}
	return true
}

// Oldest returns the least recently used element, nil if l is empty.
func (l *List[T]) Oldest() *T {
	if l.oldest == nil {
		return nil
	}
	return l.oldest.elem
}

// Newest returns the most recently used element, nil if l is empty.
func (l *List[T]) Newest() *T {
	if l.newest == nil {
		return nil
	}
	return l.newest.elem
}

// RemoveOldest removes and returns the least recently used element, nil if l
// is empty.
func (l *List[T]) RemoveOldest() *T {
	elem := l.Oldest()
	if elem != nil {
		l.Remove(l.oldest)
	}
	return elem
}

// Rotate makes the least recently used element the most recently used one. It
// does nothing if l is empty.
func (l *List[T]) Rotate() {
	if l.oldest != nil {
		l.Touch(l.oldest)
	}
}

// Len returns the number of elements.
func (l *List[T]) Len() int { return l.len }

// All returns the elements, the least recently used one first.
//
// The loop may remove or touch the element that it was just handed, or push it
// or a new one to any list: All goes on with the element that was next, and
// ends with the one that was the newest when the loop began, so that it yields
// nothing twice and nothing that came later. Which elements follow is not
// specified once the loop removes or moves any other element.
func (l *List[T]) All() iter.Seq[*T] {
	return func(yield func(*T) bool) {
		last := l.newest
		for h := l.oldest; h != nil; {
			next, done := h.newer, h == last
			if !yield(h.elem) || done {
				return
			}
			h = next
		}
	}
}
