// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// events is what the store has reported, in the order in which it happened.
type events struct {
	life *life
	seen atomic.Uint64 // sessions that were reported as created

	mu          sync.Mutex
	trails      map[layover.Fingerprint]*trail
	live        int
	unconfirmed int
	sources     map[string]*crowd
	created     uint64
	ended       layover.Ends
	over        excess // unless the next event takes one away
}

// excess is what is too many, and of which promise.
type excess struct {
	of   promise.Promise
	what string
}

// crowd is how many live sessions a source has.
type crowd struct{ live, unconfirmed int }

// like returns how many of them are confirmed, or are not.
func (c *crowd) like(confirmed bool) int {
	if confirmed {
		return c.live - c.unconfirmed
	}
	return c.unconfirmed
}

// trail is what was reported of an ID. A name that several sessions share has no
// session here, since nobody knows yet which one it is.
type trail struct {
	name            *name
	session         *session
	source          string
	live, confirmed bool
}

// who returns what stands for it in a sentence: the session, which has a history, or
// the mark that several share.
func (t *trail) who() any {
	if t.session != nil {
		return t.session
	}
	return t.name.mark
}

func newEvents(l *life) events {
	return events{life: l, trails: make(map[layover.Fingerprint]*trail), sources: make(map[string]*crowd)}
}

// expect notes that a session may be created under a name.
func (e *events) expect(n *name, s *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.trails[n.mark] != nil {
		return
	}
	t := &trail{name: n, source: s.source}
	if !n.shared {
		t.session = s
	}
	e.trails[n.mark] = t
}

// forget drops what was expected of a name and did not come.
func (e *events) forget(n *name) (came bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := e.trails[n.mark]
	if n.shared || t == nil {
		return t == nil
	}
	if t.live {
		return true
	}
	delete(e.trails, n.mark)
	return false
}

// observe is the store's observer.
func (l *life) observe(ev layover.Event) {
	l.events.take(ev)
	if l.events.seen.Load()%64 == 0 {
		l.keepsSecrets(ev.String(), "an event")
	}
	l.faults().observe(ev)
}

func (e *events) take(ev layover.Event) {
	e.mu.Lock()
	t, over := e.trails[ev.Fingerprint], e.over
	e.over = excess{}
	e.mu.Unlock()
	if ev.Reason != layover.ReasonRenamed && ev.Reason != layover.ReasonReplaced {
		e.life.Expect(over.of, over.what == "", "%s", over.what)
	}
	if !e.life.Expect(promise.Ordered, t != nil, "session %s was reported (%s) that nobody had stored, or that had ended already", ev.Fingerprint, ev.Kind) {
		return
	}
	switch ev.Kind {
	case layover.EventCreated:
		e.creates(t, ev)
	case layover.EventConfirmed:
		e.confirms(t)
	case layover.EventEnded:
		e.ends(t, ev)
	}
}

func (e *events) creates(t *trail, ev layover.Event) {
	l := e.life
	e.mu.Lock()
	twice := t.live
	t.live, t.confirmed = true, ev.Confirmed
	e.created++
	e.live++
	of := e.sources[t.source]
	if of == nil {
		of = &crowd{}
		e.sources[t.source] = of
	}
	of.live++
	if !ev.Confirmed {
		e.unconfirmed++
		of.unconfirmed++
	}
	live, own := e.live, of.live
	e.mu.Unlock()
	e.seen.Add(1)
	if t.session != nil {
		t.session.note("created", 0)
	}
	_, most := l.limits.since(ev.At.Add(-slack))
	l.Expect(promise.Ordered, !twice, "session %s was created twice, expected once", t.who())
	over := excess{}
	switch {
	case live > most.max:
		over.what = fmt.Sprintf("%d sessions were live at once, expected at most %d", live, most.max)
	case t.source == mobSource && own > mobQuota:
		over = excess{promise.Allotted, fmt.Sprintf("a source had %d sessions, expected at most its quota of %d", own, mobQuota)}
	}
	if t.source == mobSource {
		l.Expect(promise.Allotted, true, "")
	}
	e.mu.Lock()
	e.over = over // the one that was renamed or replaced is reported just after
	e.mu.Unlock()
}

// slack is by how much the time of an event may be off, as the store's clock is
// coarse.
const slack = 2 * time.Millisecond

func (e *events) confirms(t *trail) {
	e.mu.Lock()
	ok := t.live && !t.confirmed
	t.confirmed = true
	if ok {
		e.unconfirmed--
		e.sources[t.source].unconfirmed--
	}
	e.mu.Unlock()
	e.life.Expect(promise.Ordered, ok, "session %s was confirmed, expected once, after its creation and before its end", t.who())
	if t.session != nil {
		t.session.note("confirmed", 0)
	}
}

func (e *events) ends(t *trail, ev layover.Event) {
	l := e.life
	e.mu.Lock()
	ok := t.live
	e.mu.Unlock()
	if !l.Expect(promise.Ordered, ok, "session %s ended (%s), expected that after its creation", t.who(), ev.Reason) {
		return
	}
	if ev.Reason == layover.ReasonCapacity {
		e.assured(t, ev)
	}
	e.mu.Lock()
	t.live = false
	e.live--
	e.ended[ev.Reason]++
	of := e.sources[t.source]
	if of.live--; of.live == 0 {
		delete(e.sources, t.source)
	}
	if !t.confirmed {
		e.unconfirmed--
		of.unconfirmed--
	}
	if !t.name.shared {
		delete(e.trails, ev.Fingerprint)
	}
	e.mu.Unlock()
	if t.session != nil {
		t.session.reported(t, ev)
	}
}

// reported checks the end of a session.
func (s *session) reported(t *trail, ev layover.Event) {
	l := s.life
	s.mu.Lock()
	leased := s.using > 0 && s.asked.Before(ev.At)
	began := s.began
	if ev.Reason != layover.ReasonRenamed {
		s.ended++
		s.reason, s.endedAt = ev.Reason, ev.At
	}
	ended := s.ended
	s.history.note("ended ("+ev.Reason.String()+")", 0)
	s.mu.Unlock()
	l.Expect(promise.ClosedOnce, ended <= 1, "session %s was reported to have ended %d times, expected once", s, ended)
	s.justified(ev.Reason, began, ev.At, leased)
	expired := ev.Reason == layover.ReasonIdle || ev.Reason == layover.ReasonUnconfirmed
	if expired {
		l.Expect(promise.Ordered, t.confirmed == (ev.Reason == layover.ReasonIdle), "session %s ended (%s), and it was confirmed: %t", s, ev.Reason, t.confirmed)
	}
	if expired || ev.Reason == layover.ReasonCapacity || ev.Reason == layover.ReasonQuota {
		l.Expect(promise.NotInUse, !ev.InUse, "session %s ended (%s) although it was leased, expected never", s, ev.Reason)
	}
	if s.n%explainEvery == 0 {
		why, ok := l.store.Explain(ev.Fingerprint)
		l.Expect(promise.Explained, !ok || why.Reason == ev.Reason, "session %s was reported to have ended for the reason %s, but the store explains %s", s, ev.Reason, why.Reason)
	}
	l.settled(s)
}

// explainEvery is of how many sessions one is asked for again, since that takes
// milliseconds.
const explainEvery = 512

// assured checks that a session which made room was the right one to leave, by the
// documented rule: an unconfirmed one, unless few are, and of the source that has
// most of them, unless the newcomer's own one has more sessions. So many more as calls run may have been in use, and so many may be retired,
// which no event tells of.
func (e *events) assured(t *trail, ev layover.Event) {
	l := e.life
	least, most := l.limits.since(ev.At.Add(-slack))
	inUse := int(l.mostBusy.Load())
	e.mu.Lock()
	live, unconfirmed, own := e.live, e.unconfirmed, *e.sources[t.source]
	worse, newest := crowd{}, 0 // a source that should have made room; the heaviest that has newcomers
	for _, of := range e.sources {
		if like := of.like(t.confirmed); like > own.like(t.confirmed)+inUse && of.live > own.live+inUse {
			worse = *of
		}
		if of.unconfirmed > inUse {
			newest = max(newest, of.live)
		}
	}
	e.mu.Unlock()
	if t.session != nil && t.session.size > 0 {
		return // it may have left for the bytes that it takes
	}
	l.Expect(promise.NotEarly, live+inUse >= least.max, "session %s was evicted with %d live sessions and at most %d retired ones, expected only when %d places are taken", t.who(), live, inUse, least.max)
	l.Expect(promise.Assured, worse.live == 0, "session %s (confirmed: %t), of a source with %d sessions, %d of them unconfirmed, was evicted while another source had %d and %d",
		t.who(), t.confirmed, own.live, own.unconfirmed, worse.live, worse.unconfirmed)
	if few := max(8, most.max/64) + inUse; t.confirmed {
		ok := unconfirmed < few || newest < own.live+inUse
		l.Expect(promise.Assured, ok, "confirmed session %s was evicted while %d unconfirmed ones were there, of a source with %d, expected only with fewer than %d", t.who(), unconfirmed, newest, few)
	}
}

// judgeEnd compares what was reported with what the store counts.
func (e *events) judgeEnd(s *layover.Stats) {
	e.mu.Lock()
	created, ended, live, sum, over := e.created, e.ended, e.live, e.ended.Total(), e.over
	e.mu.Unlock()
	l := e.life
	l.Expect(over.of, over.what == "", "%s", over.what)
	l.Expect(promise.Ordered, s.EventsDropped == 0, "%d events were dropped, expected none", s.EventsDropped)
	l.Expect(promise.Ordered, live == 0 && created == sum, "%d sessions were reported as created and %d as ended, expected the same number", created, sum)
	l.Expect(promise.Ordered, created == s.Created && ended == s.Ended, "the store counts %d created sessions and the ends %v, but reported %d and %v", s.Created, s.Ended, created, ended)
	l.Expect(promise.ClosedOnce, l.closes.Load() == created-ended[layover.ReasonRenamed], "%d sessions were closed of %d, expected all", l.closes.Load(), created-ended[layover.ReasonRenamed])
}
