// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

// chunkSize makes the allocation of a chunk cheap per value, and an empty queue
// small.
const chunkSize = 64

// queue is first in, first out. It is a list of chunks, so that a burst gives
// its memory back as it is worked off; an empty queue keeps one chunk. The zero
// value is empty.
type queue[T any] struct {
	head, tail *chunk[T]
	first      int // index of the oldest value, in head
	end        int // index after the newest value, in tail
	length     int
}

type chunk[T any] struct {
	values [chunkSize]T
	next   *chunk[T]
}

func (q *queue[T]) push(v T) {
	switch {
	case q.tail == nil:
		q.head = new(chunk[T])
		q.tail = q.head
	case q.end == chunkSize:
		q.tail.next = new(chunk[T])
		q.tail, q.end = q.tail.next, 0
	}
	q.tail.values[q.end] = v
	q.end++
	q.length++
}

// pop takes the oldest value out of a queue that is not empty.
func (q *queue[T]) pop() T {
	var none T
	v := q.head.values[q.first]
	q.head.values[q.first] = none // the queue must not keep what left it alive
	q.first++
	q.length--
	switch {
	case q.length == 0:
		q.first, q.end = 0, 0
	case q.first == chunkSize:
		q.head, q.first = q.head.next, 0
	}
	return v
}
