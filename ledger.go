// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover/eviction"
	"github.com/c8e4ff29/layover/janitor"
)

// ledger is what concerns the store as a whole: who has a place, who would
// leave, and when. Whoever adds or ends a session holds its mutex; hits do not.
// No foreign code runs under it.
type ledger[S Session] struct {
	// Every insert and end writes to these, or reads them. They are together, as
	// each cache line of them has to come from the processor that had the mutex
	// before.
	mu       sync.Mutex
	places   int   // taken: live and retired sessions
	bytes    int64 // that they have said to take
	live     int
	classes  [eviction.Confirmed + 1]int // live ones
	draining bool
	shut     bool
	emptied  bool
	sweeping bool          // a sweep is under way, and will arm the timer when it is done
	wakeAt   time.Duration // when the timer fires; never if it is stopped
	closing  []*entry[S]   // to be handed to the closers when the mutex is unlocked
	counts   counts
	departed departures[S] // ended, to be settled by whoever has the mutex
	handing  atomic.Int32  // on their way to the closers, after the mutex

	sources sources[S]
	policy  eviction.Policy[entry[S]] // who leaves for a place
	why     Reason                    // for which victims end
	sized   eviction.Policy[entry[S]] // who leaves for bytes: of those that take any
	wheel   *janitor.Wheel[entry[S]]
	retired map[*entry[S]]uint64 // and as what they are remembered
	over    atomic.Bool          // more is taken than the maximum, after it was lowered
	empty   chan struct{}        // closed when no place is taken, after shut
	timer   *time.Timer          // of the janitor
	sweeps  sync.WaitGroup       // a timer that is armed or whose sweep still runs
	due     [batch]*entry[S]     // scratch of reap

	testHook func(moment)
}

// counts are running totals and a peak.
type counts struct {
	created, confirmed, refused uint64
	leasesExpired               uint64
	ended                       [reasons]uint64
	peak                        int
}

// newPolicies returns the policies that c asks for. They end victims for the
// reason in why.
func newPolicies[S Session](c *config, why *Reason) (places, bytes eviction.Policy[entry[S]]) {
	access := eviction.Access[entry[S]]{
		Node:   func(e *entry[S]) *eviction.Node[entry[S]] { return &e.node },
		Source: func(e *entry[S]) *eviction.Source[entry[S]] { return &e.source.places },
		Used:   func(e *entry[S]) uint32 { return uint32(e.load().used()) },
		Take:   func(e *entry[S]) bool { return takeIdle(e, *why) },
	}
	sized := access
	sized.Node = func(e *entry[S]) *eviction.Node[entry[S]] { return &e.extra.Load().sized }
	sized.Source = func(e *entry[S]) *eviction.Source[entry[S]] { return e.source.bytes }
	if c.whenFull == EvictLRU {
		return eviction.NewLRU(access), eviction.NewLRU(sized)
	}
	keep := c.whenFull == KeepConfirmed
	return eviction.NewAssured(access, c.few(), keep), eviction.NewAssured(sized, c.few(), keep)
}

// takeIdle ends e for a reason if it is idle. If not, its last release will tell
// the policy.
func takeIdle[S Session](e *entry[S], why Reason) bool {
	for {
		st := e.load()
		switch {
		case st.phase() == gone:
			return true // ended by somebody who has yet to settle it
		case st.phase() == retired || st&parkedBit != 0 && st.busy():
			return false
		case st.busy():
			if e.swap(st, st|parkedBit) {
				return false
			}
		case e.swap(st, st.ended(why)):
			return true
		}
	}
}

// admit gives n a place, which must be free, and reports it. It is filed already
// if it has replaced another one.
func (s *Store[S]) admit(c *config, n *newcomer[S], filed bool) {
	l, e := &s.ledger, n.entry
	st := e.load()
	l.sources.keep(e.source)
	e.node.Spare = listed | placed | uint16(st.class())<<classShift
	l.places++
	l.live++
	l.classes[st.class()]++
	l.counts.created++
	if st.confirmed() {
		l.counts.confirmed++
	}
	l.counts.peak = max(l.counts.peak, l.places)
	l.policy.Insert(e, st.class())
	l.resize(e, n.origin.Size, st.class())
	s.file(e, s.lookAt(e, n.now))
	s.tell(c, EventCreated, e, st, n.now)
	if !filed {
		s.index.put(e)
	}
}

// refuse counts one for whom there is no room, and says why: the store, or for
// want of quota its source, has so many at most.
func (l *ledger[S]) refuse(most int, from *source[S], why Lacking) error {
	l.counts.refused++
	return &FullError{most, from.taken(), why}
}

// settle brings the ledger in line with an entry that has left the live phase.
// It may be called any number of times, by anybody.
func (s *Store[S]) settle(c *config, e *entry[S], now time.Duration) {
	st := e.load()
	if st.phase() == live {
		return
	}
	if e.flag(listed) {
		s.delist(c, e, st, now)
	}
	if st.phase() == gone && e.flag(placed) {
		s.vacate(c, e)
	}
}

// delist has e leave the live ones.
func (s *Store[S]) delist(c *config, e *entry[S], st state, now time.Duration) {
	l := &s.ledger
	class := e.counted()
	e.node.Spare &= placed
	l.live--
	l.classes[class]--
	l.counts.ended[st.reason()]++
	l.policy.Remove(e)
	if e.size() > 0 {
		l.sized.Remove(e)
	}
	turn := s.remember(e, st, now) // before it is not found any more
	s.index.remove(e)
	s.tell(c, EventEnded, e, st, now)
	if st.phase() != retired || st.reason() == ReasonRenamed { // whose place is its heir's
		return
	}
	l.retired[e] = turn
	e.source.places.Extra++
	s.file(e, s.look(e, now)) // which may be later than before: the leases age from now on
}

// vacate frees e's place and has it closed.
func (s *Store[S]) vacate(c *config, e *entry[S]) {
	l := &s.ledger
	if len(l.retired) == 0 {
		// Most go at once.
	} else if _, was := l.retired[e]; was {
		e.source.places.Extra--
		if delete(l.retired, e); len(l.retired) == 0 {
			l.retired = make(map[*entry[S]]uint64) // maps do not shrink
		}
	}
	e.node.Spare = 0
	l.wheel.Cancel(e)
	l.places--
	l.bytes -= e.size()
	if e.size() > 0 {
		e.source.bytes.Extra -= int(e.size())
	}
	l.over.Store(l.exceeds(c))
	l.sources.drop(e.source)
	s.cancel(e)
	l.closing = append(l.closing, e)
}

// exceeds reports whether more is taken than c allows.
func (l *ledger[S]) exceeds(c *config) bool { return l.excessPlaces(c) || l.excessBytes(c) }

func (l *ledger[S]) excessPlaces(c *config) bool { return c.max > 0 && l.places > c.max }
func (l *ledger[S]) excessBytes(c *config) bool  { return c.maxBytes > 0 && l.bytes > c.maxBytes }

// hasPlaces reports whether so many more sessions may come.
func (l *ledger[S]) hasPlaces(c *config, n int) bool {
	return n <= 0 || c.max == 0 || n <= c.max-l.places
}

// hasBytes reports whether so many more bytes may be taken.
func (l *ledger[S]) hasBytes(c *config, n int64) bool {
	return n <= 0 || c.maxBytes == 0 || n <= c.maxBytes-l.bytes
}

// room makes room for so many more sessions and bytes of a source, if need be
// by ending others. The error is a [*FullError].
func (s *Store[S]) room(c *config, now time.Duration, from *source[S], sessions int, bytes int64) error {
	if s.makeRoom(c, now, from, sessions, bytes) {
		return nil
	}
	l, why := &s.ledger, LackingPlaces
	if l.hasPlaces(c, sessions) || c.maxBytes > 0 && bytes > c.maxBytes {
		why = LackingBytes
	}
	return l.refuse(c.max, from, why)
}

// makeRoom is room, and reports whether there is any.
func (s *Store[S]) makeRoom(c *config, now time.Duration, from *source[S], sessions int, bytes int64) bool {
	l := &s.ledger
	fits := func() bool { return l.hasPlaces(c, sessions) && l.hasBytes(c, bytes) }
	if fits() {
		return true
	}
	if c.maxBytes > 0 && bytes > c.maxBytes {
		return false // whoever leaves
	}
	if s.reapUntil(c, now, fits) {
		return true
	}
	if l.hopeless(c, sessions, bytes) {
		return false
	}
	for !l.hasPlaces(c, sessions) {
		if !s.evict(c, now, l.policy.Victim(&from.places)) {
			return false
		}
	}
	return s.roomForBytes(c, now, from, bytes)
}

// hopeless reports whether evicting others makes no room for so much: it is more
// than there ever is, or the maximum was lowered, and first those leave who are
// above it.
func (l *ledger[S]) hopeless(c *config, sessions int, bytes int64) bool {
	return c.maxBytes > 0 && bytes > c.maxBytes || sessions > 0 && l.excessPlaces(c) || bytes > 0 && l.excessBytes(c)
}

// roomForBytes evicts until so many more fit. With them, the source weighs what
// it then will, lest it push out those that take less.
func (s *Store[S]) roomForBytes(c *config, now time.Duration, from *source[S], bytes int64) bool {
	l, w := &s.ledger, from.weighed()
	w.Extra += int(bytes)
	defer func() { w.Extra -= int(bytes) }()
	for !l.hasBytes(c, bytes) {
		if !s.evict(c, now, l.sized.Victim(w)) {
			return false
		}
	}
	return true
}

// reapUntil ends sessions that are due until there is room, and reports whether
// there is.
func (s *Store[S]) reapUntil(c *config, now time.Duration, room func() bool) bool {
	for more, n := true, 0; more && n < reapsForRoom; n++ {
		if more = s.reap(c, now); room() {
			return true
		}
	}
	return false
}

// reapsForRoom bounds for how long an insert looks for expired sessions before
// it evicts another: most of what is due may merely have to be filed again.
const reapsForRoom = 16

// closed returns why nothing is inserted any more, nil if it is.
func (l *ledger[S]) closed() error {
	switch {
	case l.shut:
		return ErrShutdown
	case l.draining:
		return ErrDraining
	}
	return nil
}

// reap ends a bounded number of sessions that are due, and reports whether
// there may be more.
func (s *Store[S]) reap(c *config, now time.Duration) (more bool) {
	l := &s.ledger
	due, more := l.wheel.Due(now, batch, l.due[:0])
	if len(due) > 1 {
		s.index.warm(due)
	}
	for _, e := range due {
		s.reapOne(c, e, now)
	}
	clear(due)
	return more
}

// reapOne ends e if it is past a deadline, or files it again.
func (s *Store[S]) reapOne(c *config, e *entry[S], now time.Duration) {
	for {
		st := e.load()
		if st.phase() == gone {
			return // whoever ended it settles it
		}
		var r Reason
		if st.phase() == live {
			r = s.overdue(c, e, st, now)
		}
		switch {
		case r != 0:
			if e.swap(st, st.ended(r)) {
				s.settle(c, e, now)
				return
			}
		case s.overstayed(c, e, st, now):
			if e.slay(st, ReasonKilled) {
				s.tellOverstayed(c, e)
				s.settle(c, e, now)
				return
			}
		default:
			s.file(e, s.lookAt(e, now))
			return
		}
	}
}

// evict settles a victim, and reports whether there is one.
func (s *Store[S]) evict(c *config, now time.Duration, e *entry[S]) bool {
	if e == nil {
		return false
	}
	if e.load().reason() != s.ledger.why {
		now = s.clock.now() // somebody else has ended it, perhaps since the caller looked at the clock
	}
	s.settle(c, e, now)
	return true
}

// file has the janitor look at e at the given time.
func (s *Store[S]) file(e *entry[S], at time.Duration) {
	l := &s.ledger
	if at == never {
		l.wheel.Cancel(e)
		return
	}
	l.wheel.File(e, at)
	if late := at % Tick; late != 0 {
		at = later(at, Tick-late) // when the wheel hands it out
	}
	if at < l.wakeAt && !l.sweeping {
		s.wake(at)
	}
}

// wake has the timer fire at the given time; never stops it.
func (s *Store[S]) wake(at time.Duration) {
	l := &s.ledger
	if at == l.wakeAt {
		return
	}
	if l.timer != nil && l.timer.Stop() {
		l.sweeps.Done()
	}
	l.wakeAt = at
	if at == never {
		return
	}
	l.sweeps.Add(1)
	if wait := at - s.clock.now(); l.timer == nil {
		l.timer = time.AfterFunc(wait, s.sweep)
	} else {
		l.timer.Reset(wait)
	}
}

// batch is how many entries a sweep handles under one hold of the ledger's
// mutex: enough to be cheap, few enough that nobody waits long.
const batch = 256

// sweep ends what is due.
func (s *Store[S]) sweep() {
	l := &s.ledger
	defer l.sweeps.Done()
	if !s.startSweep() {
		return
	}
	for more := true; more; runtime.Gosched() {
		s.lock()
		if more = s.reap(s.config.Load(), s.clock.now()); !more {
			s.endSweep()
		}
		s.unlock()
	}
}

// startSweep reports whether the caller is to sweep; another one may be at it.
func (s *Store[S]) startSweep() bool {
	l := &s.ledger
	s.lock()
	defer s.unlock()
	if l.sweeping {
		return false
	}
	l.sweeping, l.wakeAt = true, never
	return true
}

// endSweep arms the timer again. It may be armed already: a sweep that came late
// has forgotten the timer that was armed since it fired.
func (s *Store[S]) endSweep() {
	l := &s.ledger
	l.sweeping, l.wakeAt = false, unknown
	next, ok := l.wheel.Next()
	if !ok {
		next = never
	}
	s.wake(next)
}

// unknown is a wakeAt that no deadline equals.
const unknown time.Duration = -1

// look is what the wheel asks when it comes to e: when must the janitor see it?
func (s *Store[S]) look(e *entry[S], now time.Duration) time.Duration {
	s.ageLeases(e, now)
	return s.lookAt(e, now)
}

// lookAt returns when the janitor must look at e next. That of a busy session
// is where its idle deadline would be if it were released this moment: a real
// release comes later, so the look is never too late, and a release need not
// touch the wheel.
func (s *Store[S]) lookAt(e *entry[S], now time.Duration) time.Duration {
	c, st := s.config.Load(), e.load()
	at := never
	if st.phase() == live {
		at = e.lifeEnd(c)
		if st.busy() {
			at = min(at, later(now, c.idleFor(st)))
		} else {
			at = min(at, later(s.clock.latest(st.used()).duration(), c.idleFor(st)))
		}
	}
	return min(at, e.leaseEnd(c, now))
}
