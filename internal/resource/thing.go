// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"slices"
	"time"
)

// key finds a thing of a set.
type key struct {
	kind *Kind
	name string
}

// thing is one that is opened.
type thing struct {
	set   *Set
	key   key
	ready chan struct{} // closed when it is open, or will not be
	gone  chan struct{} // closed when it is closed, or was given up on

	// Set before ready is closed.
	value any
	err   error // why it could not be opened
	again bool  // that was the business of who has tried alone

	closeErr error // of its Close; set before gone is closed

	// Under the pool's mutex.
	state     state
	stop      context.CancelCauseFunc // of its Open
	waits     []*thing                // for which its Open waits
	kept      []*thing                // which its Open has acquired
	placed    bool                    // it has a place
	uses      int
	discarded bool
	opened    time.Time
	used      time.Time // when its last use ended
	held      time.Time // until when it is not idle
	timer     *time.Timer
	armed     bool // the timer is
	returned  bool // its Close has
	lost      bool // its Close was given up on
}

// state is how far a thing has come. It only ever grows.
type state uint8

const (
	opening state = iota
	open
	closing
)

// openingKey finds in the context of an Open which thing it opens. The context may
// outlive the Open.
type openingKey struct{}

// The methods below are called with the pool's mutex held, but for settles and
// expire. The receiver of the first three is nil for those who ask for themselves.

// waitFor notes that the Open of t waits for another thing.
func (t *thing) waitFor(other *thing) {
	if t != nil && t.state == opening {
		t.waits = append(t.waits, other)
	}
}

// waitedFor undoes waitFor.
func (t *thing) waitedFor(other *thing) {
	if t == nil {
		return
	}
	if i := slices.Index(t.waits, other); i >= 0 {
		t.waits = slices.Delete(t.waits, i, i+1)
	}
}

// keep has what the Open of t has acquired stay in use as long as t is there.
func (t *thing) keep(inner *thing) {
	if t != nil && t.state == opening && !slices.Contains(t.kept, inner) {
		t.kept = append(t.kept, inner)
		inner.uses++
	}
}

// letGo undoes keep.
func (t *thing) letGo() {
	for _, inner := range t.kept {
		inner.release()
	}
	t.kept = nil
}

// needs reports whether the Open of t waits for that of another thing, however many
// there are in between.
func (t *thing) needs(other *thing) bool {
	if other == nil || other.state != opening || t.state != opening {
		return false
	}
	if t == other {
		return true
	}
	return slices.ContainsFunc(t.waits, func(next *thing) bool { return next != nil && next.needs(other) })
}

// release ends one use.
func (t *thing) release() {
	if t.uses--; t.uses == 0 && t.state == open {
		t.used = time.Now()
		t.set.pool.settle(t)
	}
}

// hold keeps t for d, zero or less: no longer, if it is open.
func (t *thing) hold(d time.Duration) bool {
	if t.state != open {
		return false
	}
	t.held = time.Time{}
	if d > 0 {
		t.held = time.Now().Add(d)
	}
	if t.armed {
		t.arm()
	}
	return true
}

// discard has nobody else use t.
func (t *thing) discard() {
	if t.set.things[t.key] == t {
		delete(t.set.things, t.key)
	}
	t.discarded = true
	t.set.pool.settle(t)
}

// settles waits until a thing is open or will not be.
func (t *thing) settles(patience time.Duration) bool {
	select {
	case <-t.ready: // also if there is no patience left
		return true
	default:
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-t.ready:
		return true
	case <-timer.C:
		return false
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

// arm has the timer go off at the deadline.
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
	if t.expires() {
		_ = t.set.pool.finish(t, Idle)
	}
}

// expires has a thing leave if it is due.
func (t *thing) expires() bool {
	p := t.set.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	t.armed = false
	switch {
	case t.uses > 0 || t.state != open: // its release sets the timer
		return false
	case time.Now().Before(t.deadline()):
		t.arm()
		return false
	}
	p.leave(t)
	return true
}
