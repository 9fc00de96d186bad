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
// compare-and-swap decides every race about it. When it was last used is part
// of it: a sweep that found a session unused for too long fails its swap if a
// call has used it in between.
type state uint64

const (
	usedMask      state = 1<<38 - 1 // bits 0-37: when the idle clock last started, a stamp
	reasonShift         = 38        // bits 38-41: why it ended
	reasonMask    state = 0xf
	phaseShift          = 42 // bits 42-43
	phaseMask     state = 0x3
	confirmedBit  state = 1 << 44
	holdsBit      state = 1 << 45
	parkedBit     state = 1 << 46 // the policy waits to be told when it is idle
	generationBit state = 1 << 47 // turns over when the age of leases is looked at
	leaseShift          = 48      // bits 48-63: how many leases
	leaseUnit     state = 1 << leaseShift
	mostLeases          = 1<<16 - 1
)

// phase is how far an entry has come. It only ever grows.
type phase uint8

const (
	live    phase = iota // findable
	retired              // absent, still in use
	gone                 // absent, to be closed by whoever made it so
)

// marks are the bits of a state that a lease remembers from when it was taken.
type marks uint8

func (s state) marks() marks     { return marks(s >> phaseShift) }
func (m marks) state() state     { return state(m) << phaseShift }
func (s state) generation() bool { return s&generationBit != 0 }
func (s state) leases() int      { return int(s >> leaseShift) }
func (s state) busy() bool       { return s >= leaseUnit }
func (s state) reason() Reason   { return Reason(s >> reasonShift & reasonMask) }
func (s state) phase() phase     { return phase(s >> phaseShift & phaseMask) }
func (s state) confirmed() bool  { return s&confirmedBit != 0 }
func (s state) holds() bool      { return s&holdsBit != 0 }
func (s state) used() stamp      { return stamp(s & usedMask) }

// touched returns s with the idle clock started at t. Clocks read by different
// goroutines may arrive in any order; the latest holds.
func (s state) touched(t stamp) state {
	if t <= s.used() {
		return s
	}
	return s&^usedMask | min(state(t), usedMask)
}

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

// released returns s with one lease less at time t; a retired session goes with
// its last.
func (s state) released(t stamp) state {
	s -= leaseUnit
	switch {
	case s.phase() == live:
		s = s.touched(t)
	case s.phase() == retired && !s.busy():
		s = s.moved(gone, 0)
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

// entry is one session and everything that the store knows of it, its ID
// included. It is packed: 128 bytes at most. What only few sessions need is in
// extra.
type entry[S Session] struct {
	// What a hit reads comes first, and lies in one cache line: what has the size
	// of two of them is allocated at the start of one.
	state atomic.Uint64
	birth uint64 // when it was created, a stamp, << hashBits | the hash of the ID
	ident ident
	value S

	source *source[S]
	extra  atomic.Pointer[extra[S]]

	// The ledger's, under its mutex. node.Spare has the flags below.
	timer janitor.Timer[entry[S]]
	node  eviction.Node[entry[S]]
}

// What the ledger has counted an entry as.
const (
	listed     uint16 = 1 << iota // live: in the index, the policy and the classes
	placed                        // takes a place
	classShift = iota
)

func (e *entry[S]) flag(f uint16) bool { return e.node.Spare&f != 0 }

// counted is the class as which the ledger has counted e.
func (e *entry[S]) counted() eviction.Class { return eviction.Class(e.node.Spare >> classShift) }

func (e *entry[S]) load() state { return state(e.state.Load()) }

// own is load for one who is about to swap and has company: the cache line comes
// as its own at once, and most likely stays until the swap.
func (e *entry[S]) own() state { return state(e.state.Add(0)) }

func (e *entry[S]) swap(from, to state) bool { return e.state.CompareAndSwap(uint64(from), uint64(to)) }

// newEntry returns an entry that is in no store yet.
func newEntry[S Session](id string, v S) *entry[S] {
	e := &entry[S]{value: v}
	var long string
	if e.ident, long = identOf(id); e.ident.long() {
		e.extras().long = long
	}
	return e
}

// is reports whether e has the given ID.
func (e *entry[S]) is(id string) bool {
	if len(id) <= shortID {
		return e.ident.is(id)
	}
	return e.ident.long() && e.extra.Load().long == id
}

// id returns e's ID.
func (e *entry[S]) id() string {
	if e.ident.long() {
		return e.extra.Load().long
	}
	return e.ident.text()
}

// born notes when e was created, before others can see it.
func (e *entry[S]) born(now time.Duration, h idHash) {
	e.birth = uint64(min(stampOf(now), stamp(usedMask)))<<hashBits | uint64(h)
}

// hash is that of the ID, kept so that whoever ends e need not fetch its ID.
func (e *entry[S]) hash() idHash           { return idHash(e.birth & (1<<hashBits - 1)) }
func (e *entry[S]) created() time.Duration { return stamp(e.birth >> hashBits).duration() }

// jitter is a random part of e's own: some of the hash will do.
func (e *entry[S]) jitter() uint8 { return uint8(e.birth) }

// idleEnd is when a session in state st ends if nobody uses it.
func (c *config) idleEnd(st state) time.Duration {
	return later(st.used().duration(), c.idleFor(st))
}

// deadline is when a session in state st ends unless something happens to it.
// Only for those few that have an end of their own it looks beyond the first
// cache line.
func (e *entry[S]) deadline(c *config, st state) time.Duration {
	end := later(e.created(), c.lifetimeFor(e.jitter()))
	if e.ident.ownEnd() {
		end = min(end, e.extra.Load().end.when())
	}
	if !st.busy() {
		end = min(end, c.idleEnd(st))
	}
	return end
}

// lifeEnd is when e ends however much it is used.
func (e *entry[S]) lifeEnd(c *config) time.Duration { return e.deadline(c, leaseUnit) }

// overdue says for which reason a session in state st is past its deadline at
// now; zero if it is not.
func (s *Store[S]) overdue(c *config, e *entry[S], st state, now time.Duration) Reason {
	lifeEnd, idleEnd := e.lifeEnd(c), never
	if !st.busy() {
		idleEnd = later(s.clock.latest(st.used()).duration(), c.idleFor(st))
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

// extra is what only some sessions have.
type extra[S Session] struct {
	ctx  atomic.Pointer[sessionContext]
	long string // the ID, if it does not fit into the entry
	end  ownEnd
	heir *entry[S]     // of one that was renamed; set before its state says so
	past *atomic.Int32 // how many are left of the entries that the session had

	// The ledger's, under its mutex.
	size  int64
	sized eviction.Node[entry[S]] // while size is not zero
	old   int                     // leases of the generation before the present one
	since time.Duration           // when that ended: how old they are at least
	moved time.Duration           // when it was renamed: how old all are at least

	traces atomic.Pointer[leaseTraces] // its heir's, too
}

// extras returns e's extra, made on first use.
func (e *entry[S]) extras() *extra[S] {
	if x := e.extra.Load(); x != nil {
		return x
	}
	e.extra.CompareAndSwap(nil, new(extra[S]))
	return e.extra.Load()
}

func (e *entry[S]) size() int64 {
	if x := e.extra.Load(); x != nil {
		return x.size
	}
	return 0
}

// sessionContext ends with its session.
type sessionContext struct {
	context.Context
	cancel context.CancelCauseFunc
}

// context returns e's context, made on first use.
func (s *Store[S]) context(e *entry[S]) context.Context {
	x := e.extras()
	c := x.ctx.Load()
	if c == nil {
		ctx, cancel := context.WithCancelCause(context.Background())
		c = &sessionContext{ctx, cancel}
		if !x.ctx.CompareAndSwap(nil, c) {
			cancel(nil)
			c = x.ctx.Load()
		}
	}
	if e = e.latest(); e.load().phase() == gone { // it may have ended before it could see c
		s.cancel(e)
	}
	return c
}

func (s *Store[S]) cancel(e *entry[S]) {
	x := e.extra.Load()
	if x == nil {
		return
	}
	if c := x.ctx.Load(); c != nil {
		c.cancel(&EndedError{s.Fingerprint(e.id()), e.load().reason()})
	}
}
