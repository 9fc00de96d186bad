// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover/eviction"
	"github.com/c8e4ff29/layover/janitor"
)

// state is the whole condition of an entry in one word, so that one
// compare-and-swap decides every race about it.
//
// The sequence moves with every touch and release. Without it, a sweep that
// found a session unused for too long could end it although a call used it
// between the look and the swap.
type state uint64

const (
	leaseUnit    state = 1 // bits 0-27: how many leases
	leaseMask    state = 1<<28 - 1
	reasonShift        = 28 // bits 28-31: why it ended
	reasonMask   state = 0xf
	phaseShift         = 32 // bits 32-33
	phaseMask    state = 0x3
	confirmedBit state = 1 << 34
	holdsBit     state = 1 << 35
	touchUnit    state = 1 << 36 // bits 36-63: the sequence
)

// phase is how far an entry has come. It only ever grows.
type phase uint8

const (
	live    phase = iota // findable
	retired              // absent, still in use
	gone                 // absent, to be closed by whoever made it so
)

func (s state) leases() int     { return int(s & leaseMask) }
func (s state) busy() bool      { return s&leaseMask != 0 }
func (s state) reason() Reason  { return Reason(s >> reasonShift & reasonMask) }
func (s state) phase() phase    { return phase(s >> phaseShift & phaseMask) }
func (s state) confirmed() bool { return s&confirmedBit != 0 }
func (s state) holds() bool     { return s&holdsBit != 0 }

// ended returns s after its end for r: retired while busy, else gone.
func (s state) ended(r Reason) state {
	if s.busy() {
		return s.moved(retired, r)
	}
	return s.moved(gone, r)
}

// moved returns s in phase p. The first reason stays.
func (s state) moved(p phase, r Reason) state {
	if s.reason() != 0 {
		r = s.reason()
	}
	return s&^(phaseMask<<phaseShift|reasonMask<<reasonShift) | state(p)<<phaseShift | state(r)<<reasonShift
}

// released returns s with one lease less; a retired session goes with its last.
func (s state) released() state {
	s = s - leaseUnit + touchUnit
	if s.phase() == retired && !s.busy() {
		return s.moved(gone, 0)
	}
	return s
}

func (s state) class() eviction.Class {
	switch {
	case s.confirmed():
		return eviction.Confirmed
	case s.holds():
		return eviction.Holding
	}
	return eviction.Empty
}

// entry is one session and everything that the store knows of it.
type entry[S Session] struct {
	state   atomic.Uint64
	used    atomic.Int64 // when the idle clock last started
	ctx     atomic.Pointer[sessionContext]
	id      string
	value   S
	created time.Duration
	mark    Fingerprint
	jitter  uint8

	// The ledger's, under its mutex.
	listed bool           // counted as live, in the policy and on the wheel
	placed bool           // takes a place
	class  eviction.Class // as counted
	asked  time.Duration  // used, when the policy last asked
	node   eviction.Node[entry[S]]
	timer  janitor.Timer[entry[S]]
}

func (e *entry[S]) load() state              { return state(e.state.Load()) }
func (e *entry[S]) swap(from, to state) bool { return e.state.CompareAndSwap(uint64(from), uint64(to)) }
func (e *entry[S]) lastUsed() time.Duration  { return time.Duration(e.used.Load()) }

// touch starts the idle clock at now. Clocks read by different goroutines may
// arrive in any order; the latest holds.
func (e *entry[S]) touch(now time.Duration) {
	for {
		old := e.used.Load()
		if int64(now) <= old || e.used.CompareAndSwap(old, int64(now)) {
			return
		}
	}
}

// overdue says for which reason a session in state st is past its deadline at
// now; zero if it is not.
func (e *entry[S]) overdue(c *config, st state, now time.Duration) Reason {
	lifeEnd := later(e.created, c.lifetimeFor(e.jitter))
	idleEnd := never
	if !st.busy() {
		idleEnd = later(e.lastUsed(), c.idleFor(st))
	}
	switch {
	case now < min(lifeEnd, idleEnd):
		return 0
	case lifeEnd <= idleEnd:
		return ReasonLifetime
	case st.confirmed():
		return ReasonIdle
	}
	return ReasonUnconfirmed
}

// lookAt returns when the janitor must look at e next. That of a busy session
// is where its idle deadline would be if it were released this moment: a real
// release comes later, so the look is never too late, and a release need not
// touch the wheel.
func (e *entry[S]) lookAt(c *config, st state, now time.Duration) time.Duration {
	from := e.lastUsed()
	if st.busy() {
		from = now
	}
	return min(later(e.created, c.lifetimeFor(e.jitter)), later(from, c.idleFor(st)))
}

// sessionContext ends with its session.
type sessionContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

// context returns the session's context, made on first use.
func (e *entry[S]) context() context.Context {
	c := e.ctx.Load()
	if c == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		c = &sessionContext{ctx, cancel}
		if !e.ctx.CompareAndSwap(nil, c) {
			cancel(nil)
			c = e.ctx.Load()
		}
	}
	if e.load().phase() == gone { // it may have ended before it could see c
		e.cancel()
	}
	return c
}

func (e *entry[S]) cancel() {
	if c := e.ctx.Load(); c != nil {
		c.cancel(&EndedError{e.mark, e.load().reason()})
	}
}
