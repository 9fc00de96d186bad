// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Lease is the right to use a session for one call. While any lease on a
// session exists, the session neither idles out nor is evicted, and is closed
// under its user only by [Store.Kill] or a [Store.Shutdown] past its deadline.
//
// Its methods may be called by several goroutines, and after Release. It must
// not be copied; hand on a pointer.
type Lease[S Session] struct {
	store    *Store[S]
	entry    *entry[S]
	trace    *leaseTrace
	released atomic.Bool // and not an atomic entry: its swap would have every lease escape to the heap
	taken    marks
}

// held returns the leased entry, or nil after Release.
func (l *Lease[S]) held() *entry[S] {
	if l.released.Load() {
		return nil
	}
	return l.entry
}

// Format prints the fingerprint of the leased session, under every verb.
func (l *Lease[S]) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "layover.Lease(%s)", l.Fingerprint())
}

// Session returns the leased session, or the zero S after Release.
func (l *Lease[S]) Session() S {
	if e := l.held(); e != nil {
		return e.value
	}
	var zero S
	return zero
}

// Fingerprint returns the session's fingerprint, or the zero one after Release.
func (l *Lease[S]) Fingerprint() Fingerprint {
	if e := l.held(); e != nil {
		return l.store.Fingerprint(e.latest().id())
	}
	return Fingerprint{}
}

// Source returns where the leased session came from, as its [Origin] had it;
// empty after Release.
func (l *Lease[S]) Source() string {
	if e := l.held(); e != nil {
		return e.latest().source.name
	}
	return ""
}

// Context returns a context that is canceled before the session is closed, with
// an [*EndedError] as its cause. Under a lease that happens only when the
// session is killed or a shutdown runs out of time. It is made when first asked
// for. After Release it returns a context that is already canceled.
func (l *Lease[S]) Context() context.Context {
	if e := l.held(); e != nil {
		return l.store.context(e.latest())
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// Confirm is [Store.Confirm] of the leased session.
func (l *Lease[S]) Confirm() { l.raise(confirmedBit) }

// Hold is [Store.Hold] of the leased session.
func (l *Lease[S]) Hold() { l.raise(holdsBit) }

// raise need not look at the session, which others use, if the mark was there
// when the lease was taken: marks stay.
func (l *Lease[S]) raise(bit state) {
	if l.taken.state()&bit != 0 {
		return
	}
	if e := l.held(); e != nil {
		l.store.raise(e, bit)
	}
}

// Shared reports whether there are other leases on the session, whoever has them,
// also those that were taken under a former ID: whether it stays in use when this
// one is released. Once the session has ended it takes no more of them, so that
// false is final then. After Release it is false. It takes the ledger's mutex.
func (l *Lease[S]) Shared() bool {
	e := l.held()
	return e != nil && l.store.shared(e)
}

// Size returns how many bytes the session is said to take.
func (l *Lease[S]) Size() int64 {
	if e := l.held(); e != nil {
		return l.store.sizeOf(e)
	}
	return 0
}

// SetSize tells the store how many bytes the session takes from now on. If it
// has grown and the maximum of bytes is reached, others make room, as they do
// for a newcomer. Errors: [ErrFull], as a [*FullError], if they cannot, and
// [ErrInvalid] if n is negative or more than a tebibyte; the size is then what it
// was. After Release it does nothing.
func (l *Lease[S]) SetSize(n int64) error {
	if !sane(n) {
		return ErrInvalid
	}
	if e := l.held(); e != nil {
		return l.store.setSize(e, n)
	}
	return nil
}

// SetExpires moves the end of the session's own, see [Origin]: earlier or later,
// as when its token was refreshed. Zero: from now on it has none. A time that has
// passed ends the session at once; as the lease is on it, it is retired. To tell
// the same time again, as every call may do, costs next to nothing; another one
// takes the ledger's mutex, as an insert does.
//
// It reports whether it was moved. It is not for a session that was added without
// an end of its own, unless it was renamed since, so that hits need not look for one;
// nor for one that has ended, and not after Release.
func (l *Lease[S]) SetExpires(t time.Time) bool {
	e := l.held()
	return e != nil && l.store.setEnd(e, t)
}

// Release gives the lease back and starts the idle clock. The last release of
// a retired session has it closed. Further calls do nothing.
func (l *Lease[S]) Release() {
	if l.entry != nil && l.released.CompareAndSwap(false, true) {
		if l.trace != nil {
			l.entry.extras().leaseTraces().remove(l.trace)
		}
		l.store.release(l.entry, l.taken.state().generation())
	}
}
