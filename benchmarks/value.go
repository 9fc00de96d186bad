// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync/atomic"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
)

// value stands for a session: something that must be closed exactly once.
type value struct {
	books  *books
	closes atomic.Int32
}

// Close enters itself into the books. It is what peers call back.
func (v *value) Close() error { //nolint:unparam // it is a layover.Session
	if v.closes.Add(1) == 1 {
		v.books.closed.Inc()
	} else {
		v.books.again.Add(1)
	}
	return nil
}

// books counts the values that were closed, and further closes of them.
type books struct {
	closed *xsync.Counter // striped, so that counting does not become the bottleneck
	again  atomic.Int64
}

func newBooks() *books { return &books{closed: xsync.NewCounter()} }

func (b *books) value() *value { return &value{books: b} }

// wait returns when n values are closed, or none was for the time given, or it
// takes too long. It returns when the last was seen to be closed.
func (b *books) wait(n int64, patience, limit time.Duration) time.Time {
	began := time.Now()
	last, seen := began, b.closed.Value()
	for seen < n && time.Since(last) < patience && time.Since(began) < limit {
		time.Sleep(50 * time.Microsecond)
		if now := b.closed.Value(); now != seen {
			last, seen = time.Now(), now
		}
	}
	return last
}

// verdict says how many of n values were never closed, and how many closes were
// too many.
func (b *books) verdict(n int64, m metrics) {
	m["created"] = float64(n)
	m["never closed"] = float64(n - b.closed.Value())
	m["closed again"] = float64(b.again.Load())
}
