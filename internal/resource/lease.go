// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"sync/atomic"
	"time"
)

// Lease is the right to use a thing. While it has one, only the end of its owner
// closes it. It is safe for concurrent use.
type Lease struct {
	thing    *thing
	released atomic.Bool
}

// Value returns the thing.
func (l *Lease) Value() any { return l.thing.value }

// Of reports whether this is a lease on a thing of s of that kind and name.
func (l *Lease) Of(s *Set, k *Kind, name string) bool {
	return l.thing.set == s && l.thing.key == key{k, name}
}

// Same reports whether two leases are on one thing.
func (l *Lease) Same(other *Lease) bool { return l.thing == other.thing }

// Current reports whether the thing is open, and not discarded.
func (l *Lease) Current() bool {
	l.thing.set.pool.mu.Lock()
	defer l.thing.set.pool.mu.Unlock()
	return l.thing.state == open && !l.thing.discarded
}

// Release gives the lease back. The idle clock starts with the last one. Further
// calls do nothing.
func (l *Lease) Release() {
	if !l.released.CompareAndSwap(false, true) {
		return
	}
	l.thing.set.pool.mu.Lock()
	defer l.thing.set.pool.mu.Unlock()
	l.thing.release()
}

// Hold is [Set.Hold] of this very thing.
func (l *Lease) Hold(d time.Duration) bool {
	l.thing.set.pool.mu.Lock()
	defer l.thing.set.pool.mu.Unlock()
	return l.thing.hold(d)
}

// Discard is [Set.Discard] of this very thing.
func (l *Lease) Discard() {
	l.thing.set.pool.mu.Lock()
	defer l.thing.set.pool.mu.Unlock()
	if l.thing.state == open {
		l.thing.discard()
	}
}
