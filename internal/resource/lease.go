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

// Of reports whether this is a lease on what s has under that kind and name, or had
// when it was taken.
func (l *Lease) Of(s *Set, k *Kind, name string) bool {
	return l.thing.set == s && l.thing.key == key{k, name}
}

// Release gives the lease back. The idle clock starts with the last one. Further
// calls do nothing.
func (l *Lease) Release() {
	if !l.released.CompareAndSwap(false, true) {
		return
	}
	t, p := l.thing, l.thing.set.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.uses--; t.uses == 0 && t.state == open {
		t.used = time.Now()
		p.settle(t)
	}
}

// deadline is when a thing that nobody uses has been idle for long enough.
func (t *thing) deadline() time.Time {
	idle := t.used.Add(t.key.kind.Idle)
	if t.held.After(idle) {
		return t.held
	}
	return idle
}

// arm has the timer go off at the deadline. The caller holds the pool's mutex.
func (t *thing) arm() {
	if t.key.kind.Idle <= 0 {
		return
	}
	t.armed = true
	if d := time.Until(t.deadline()); t.timer == nil {
		t.timer = time.AfterFunc(d, t.expire)
	} else {
		t.timer.Reset(d)
	}
}

// expire closes a thing that has been idle for long enough. Uses do not touch the
// timer, so it may come too early.
func (t *thing) expire() {
	p := t.set.pool
	p.mu.Lock()
	t.armed = false
	if t.uses > 0 || t.state != open { // its release sets the timer
		p.mu.Unlock()
		return
	}
	if time.Now().Before(t.deadline()) {
		t.arm()
		p.mu.Unlock()
		return
	}
	p.leave(t)
	p.mu.Unlock()
	_ = p.finish(t, Idle)
}
