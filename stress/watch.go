// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/lateness"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// watch keeps books about every session and compares them with what the store
// does. Its methods may be called by any goroutine. Times are handed to it, so
// that a test can tell it any history.
type watch struct {
	*promise.Book
	config  // what the flags say; see settings
	explain func(layover.Fingerprint) (layover.Event, bool)
	planted func() uint64       // how many calls of Close have failed, or are about to, as they were to
	lagged  func(time.Duration) // is told how long after its deadline the Close of a session began
	before  baseline
	cut     atomic.Bool // the store is shut down under its calls

	mu          sync.Mutex
	running     int                               // calls
	peak        int                               // of them
	waiting     map[*call]struct{}                // those that may have got a session, but have not told which
	sessions    map[layover.Fingerprint][]*record // those of principals have successors
	live        map[*record]struct{}              // created, not ended
	unclosed    map[*record]struct{}              // ended, with a resource that is still open
	ends        []*record                         // in order, so that they can be forgotten
	unconfirmed int                               // of the live ones
	named       int                               // of the live ones
	mostNamed   int                               // of them
	endsInUse   int
	owned       map[string][]*record // by principals that may have only so many
	newest      *record              // the last one that was created
	counts      struct{ events, created, ended, renamed, opened, closed, entered uint64 }
	settings    []setting // never empty
	ending      ending    // how the store ends
	late        *lateness.Meter
}

// newWatch returns the watch of one store, which writes into the book of the run.
func newWatch(c config, b *promise.Book, before baseline) *watch {
	return &watch{
		Book:     b,
		config:   c,
		before:   before,
		late:     lateness.New(pollEvery),
		settings: []setting{{config: c}},
		planted:  func() uint64 { return 0 },
		lagged:   func(time.Duration) {},
		explain:  func(layover.Fingerprint) (layover.Event, bool) { return layover.Event{}, false },
		sessions: make(map[layover.Fingerprint][]*record),
		live:     make(map[*record]struct{}),
		unclosed: make(map[*record]struct{}),
		waiting:  make(map[*call]struct{}),
		owned:    make(map[string][]*record),
	}
}

// observe is the store's observer: it gets the events in the order in which
// they happened.
func (w *watch) observe(ev layover.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.withinMax(ev)
	w.counts.events++
	r := w.record(ev.Fingerprint, byEvents)
	switch ev.Kind {
	case layover.EventCreated:
		if r.ended {
			r = w.next(ev.Fingerprint, byNoEvents)
		}
		w.Expect(promise.Ordered, !r.ended, "session %s was created after it had ended, expected never", r.mark)
		w.Expect(promise.Ordered, !r.created, "session %s was created twice, expected once", r.mark)
		r.created, r.createdAt, r.born, w.newest = true, ev.At, w.counts.events, r
		w.live[r] = struct{}{}
		if r.confirmed = ev.Confirmed; !r.confirmed {
			w.unconfirmed++
		}
		w.counts.created++
		w.Note(r.mark, ev.At, "created")
		w.withinQuota(r.owner)
	case layover.EventConfirmed:
		w.Expect(promise.Ordered, r.created && !r.confirmed && !r.ended,
			"session %s was confirmed when %s, expected once, after its creation and before its end", r.mark, r.stage())
		r.confirmed = true
		w.unconfirmed--
		w.Note(r.mark, ev.At, "confirmed")
	case layover.EventEnded:
		w.counts.ended++
		if !w.Expect(promise.Ordered, r.created && !r.ended, "session %s ended (%s) when %s, expected once, after its creation", r.mark, ev.Reason, r.stage()) {
			return
		}
		w.Note(r.mark, ev.At, "ended: "+ev.Reason.String())
		w.judge(r, ev)
		r.ended, r.endedAt, r.reason, r.nth, r.died = true, ev.At, ev.Reason, w.counts.ended, w.counts.events
		r.toldAt = later(ev.At, time.Now())
		w.ends = append(w.ends, r)
		delete(w.live, r)
		if !r.confirmed {
			w.unconfirmed--
		}
		if r.reserved() {
			w.named--
		}
		if ev.Reason == layover.ReasonRenamed {
			w.inherit(r, w.newest)
		}
		if r.closes > 0 {
			w.tellLag(r)
		} else if r.resource {
			w.unclosed[r] = struct{}{}
		}
	}
}

// judge checks the end of a session against the reason that is given for it.
func (w *watch) judge(r *record, ev layover.Event) {
	unused, age := ev.At.Sub(r.lastLeft), ev.At.Sub(r.firstStart)
	w.Expect(promise.NotStale, !r.lastStart.After(ev.At.Add(promise.Grace)),
		"session %s was handed out %s after it had ended (%s), expected never", r.mark, r.lastStart.Sub(ev.At), ev.Reason)
	switch ev.Reason {
	case layover.ReasonIdle, layover.ReasonUnconfirmed:
		w.idled(r, ev)
		w.Expect(promise.Ordered, r.confirmed == (ev.Reason == layover.ReasonIdle), "session %s ended as %s when %s", r.mark, ev.Reason, r.stage())
		timeout := least(w, r.lastLeft, r.timeout)
		w.Expect(promise.NotEarly, unused >= timeout, "session %s ended (%s) %s after its last use, expected at least %s", r.mark, ev.Reason, unused, timeout)
	case layover.ReasonLifetime:
		lifetime := least(w, r.firstStart, config.lifetime)
		shortest := lifetime - lifetime/10 // a random part of a tenth is taken off
		w.Expect(promise.NotEarly, age >= shortest, "session %s ended (lifetime) at the age of %s, expected at least %s", r.mark, age, shortest)
	case layover.ReasonCapacity:
		w.idled(r, ev)
		retired := min(w.endsInUse, w.peak) // they take places, too
		places := least(w, ev.At.Add(-promise.Grace), maximum)
		w.Expect(promise.NotEarly, len(w.live)+retired >= places,
			"session %s was evicted with %d live sessions and at most %d retired ones, expected only when %d places are taken", r.mark, len(w.live), retired, places)
		if r.confirmed {
			// The documented rule; so many more may have been found in use as calls run.
			enough := max(8, w.max/64) + w.peak
			w.Expect(promise.Assured, w.unconfirmed < enough,
				"confirmed session %s was evicted while %d unconfirmed ones were there, expected only with fewer than %d", r.mark, w.unconfirmed, enough)
		} else {
			w.Expect(promise.Assured, true, "")
		}
	case layover.ReasonQuota:
		w.idled(r, ev)
		w.outnumbered(r, ev)
	case layover.ReasonRenamed:
		w.Expect(promise.NotEarly, r.renewals > 0, "session %s ended as renamed, but no call renewed it", r.mark)
	case layover.ReasonClosed:
		w.Expect(promise.NotEarly, !r.closedAt.IsZero(), "session %s ended as closed, but no client had closed it", r.mark)
	case layover.ReasonShutdown:
		w.Expect(promise.NotEarly, w.ending.stopped, "session %s ended for a shutdown, but there was none yet", r.mark)
	default:
		w.Expect(promise.NotEarly, false, "session %s ended for the reason %q, which nobody gave", r.mark, ev.Reason)
	}
	if ev.InUse {
		w.endsInUse++
	}
}

// idled checks a session that must have been idle to end like this.
func (w *watch) idled(r *record, ev layover.Event) {
	w.Expect(promise.NotInUse, !ev.InUse, "session %s ended (%s) although it was leased, expected never", r.mark, ev.Reason)
	w.Expect(promise.NotInUse, r.inside == 0, "session %s ended (%s) under calls that use it: %d, expected 0", r.mark, ev.Reason, r.inside)
	w.Expect(promise.Ordered, r.confirmed == r.sticks(), "session %s ended when %s, after %d calls, expected it to be confirmed by the second, or by its principal", r.mark, r.stage(), r.calls)
}

// begin notes that a call begins, before it can have a lease.
func (w *watch) begin(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting[c] = struct{}{}
	w.running++
	w.peak = max(w.peak, w.running)
}

// enter notes which session a call found, and whether it brought what finds it.
func (w *watch) enter(c *call, f layover.Fingerprint, brought bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, c)
	r := w.current(c, w.record(f, byCalls))
	w.Expect(promise.Own, brought, "session %s was handed to a call that did not bring its cookie", f)
	w.Expect(promise.Own, r.calls > 0, "session %s was handed out before the call that it was made for had it", f)
	unused, longest := c.start.Sub(r.lastDone), most(w, r.lastDone, func(c config) time.Duration { return r.timeout(c) + w.behind(c) })
	if r.running == 0 && !w.mayBeUsed(r.lastDone.Add(longest)) {
		w.Expect(promise.NotStale, unused < longest, "session %s was handed out %s after its last use, expected less than %s", f, unused, longest)
	}
	age, oldest := c.start.Sub(r.entered), most(w, r.entered, func(c config) time.Duration { return c.lifetime() + w.behind(c) })
	w.Expect(promise.NotStale, age < oldest, "session %s was handed out at the age of %s, expected less than %s", f, age, oldest)
	w.uses(c, r, c.start)
}

// asks notes that a call is about to have a session made.
func (w *watch) asks(c *call, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.asked = now
	w.waiting[c] = struct{}{}
}

// makes notes which session was made for a call, whether it holds something from
// the start, and whether the call brought its ID.
func (w *watch) makes(c *call, f layover.Fingerprint, holds, brought bool, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, c)
	w.counts.entered++
	r := w.next(f, byNoCalls)
	w.Expect(promise.Needed, !c.asked.IsZero(), "session %s was made for a call that needs none", f)
	w.Expect(promise.Own, r.calls == 0, "session %s, which a call had before, was made for another one", f)
	w.Expect(promise.Own, !brought, "a new session got the ID %s that its client had made up", f)
	w.undrained(c, f)
	r.firstStart, r.lastLeft, r.entered = c.asked, c.asked, now
	r.held, r.named, r.owner, r.allot = holds, c.named, c.owner, c.allot
	w.reserve(r)
	w.uses(c, r, c.asked)
}

// uses notes that a call, which asked for it at a time, uses a session.
func (w *watch) uses(c *call, r *record, asked time.Time) {
	w.Expect(promise.NotStale, !r.ended || !asked.After(r.endedAt.Add(promise.Grace)), "session %s was handed out %s after its end, expected never", r.mark, asked.Sub(r.endedAt))
	c.used = r
	r.lastStart = later(r.lastStart, asked)
	r.calls++
	r.running++
	r.inside++
	w.Note(r.mark, asked, fmt.Sprintf("a call begins, the %d. of it, %d of them run", r.calls, r.running))
}

// without notes that a call has no session, and may not need one.
func (w *watch) without(c *call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, c)
}

// mayBeUsed reports whether any session may be in use since before the given
// time: a call that began earlier has yet to tell which one it got.
func (w *watch) mayBeUsed(since time.Time) bool {
	for c := range w.waiting {
		if c.start.Before(since) {
			return true
		}
	}
	return false
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// holds notes that an option is about to be set.
func (w *watch) holds(r *record) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r = r.latest()
	r.held = true
	w.Note(r.mark, time.Now(), "an option is set")
}

// closing notes that a client asks for the end of its session.
func (w *watch) closing(r *record, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r = r.latest()
	r.closedAt = now
	w.Note(r.mark, now, "its client asks for its end")
}

// leave notes that a call is about to give its session back. has says that it
// has one.
func (w *watch) leave(c *call, has bool, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Expect(promise.Needed, has == (c.used != nil), "a call that had asked for a session (%t) ended with one (%t)", c.used != nil, has)
	if r := c.used.latest(); r != nil {
		r.inside--
		r.lastLeft = later(r.lastLeft, now)
	}
}

// done notes that a call has given its session back.
func (w *watch) done(c *call, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, c) // if it was refused
	w.running--
	if r := c.used.latest(); r != nil {
		r.running--
		r.lastDone = later(r.lastDone, now)
		w.Note(r.mark, now, fmt.Sprintf("a call has ended, %d still run", r.running))
	}
	w.doneAt(c, now)
}

// refused notes that a call which asked for a session got none. The places of
// principals are not to be had for others: no source pushes out a lighter one.
func (w *watch) refused(c *call, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, c)
	if w.refusedInTheEnd(err) || c.allot != nil && w.outOfQuota(c, err) {
		return
	}
	if w.Expect(promise.Answered, errors.Is(err, layover.ErrFull), "a call got no session, expected one, or that the store is full: %v", err) {
		places := least(w, c.asked, maximum) - w.mostNamed
		w.Expect(promise.Answered, w.peak > places, "a call got no session since all places are in use, but at most %d calls ran at once on %d places", w.peak, places)
	}
}

// opened notes that a session's resource was opened.
func (w *watch) opened(f layover.Fingerprint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.record(f, anything).resource = true
	w.counts.opened++
	w.Note(f, time.Now(), "its resource is opened")
}

// closed notes that the store closes a session's resource, and whether the
// session's context was canceled before that.
func (w *watch) closed(f layover.Fingerprint, canceled bool, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Note(f, now, "closed")
	r := w.record(f, anything)
	r.closes++
	r.tornAt = now
	w.counts.closed++
	delete(w.unclosed, r)
	switch {
	case r.ended:
		w.tellLag(r)
	case !r.created && r.calls == 0: // it was refused
		r.endedAt, r.toldAt = now, now
		w.ends = append(w.ends, r)
	}
	w.Expect(promise.ClosedOnce, r.closes == 1, "session %s was closed %d times, expected once", f, r.closes)
	if r.inside == 0 || !w.ending.mayKill(now) {
		w.Expect(promise.NotInUse, r.inside == 0, "session %s was closed under calls that use it: %d, expected 0", f, r.inside)
		return
	}
	w.Expect(promise.NotInUse, canceled, "session %s was killed, and closed before its context was canceled", f)
}

// tellLag tells how late the Close of a session was that has expired.
func (w *watch) tellLag(r *record) {
	if r.reason == layover.ReasonIdle || r.reason == layover.ReasonUnconfirmed {
		w.lagged(max(0, r.tornAt.Sub(r.lastLeft.Add(most(w, r.lastLeft, r.timeout)))))
	}
}

// poll checks what must be true at any time: the store's counters, and that
// what has expired has left. It is to be called every [pollEvery].
func (w *watch) poll(s layover.Stats, now time.Time) {
	w.Expect(promise.Bounded, s.Live+s.Retired <= w.max && s.Peak <= w.max,
		"the store counts %d live and %d retired sessions, and a peak of %d, expected at most %d", s.Live, s.Retired, s.Peak, w.max)
	w.Expect(promise.Ordered, uint64(s.Live)+s.Ended.Total() == s.Created && s.Unconfirmed+s.Confirmed == s.Live,
		"the store counts %d created, %d ended and %d live sessions (%d confirmed, %d not), which do not add up", s.Created, s.Ended.Total(), s.Live, s.Confirmed, s.Unconfirmed)
	failed := w.planted()
	w.Expect(promise.ClosedOnce, s.Closed <= s.Ended.Total() && s.CloseFailed <= failed,
		"the store counts %d closed sessions (%d with errors) of %d ended ones, expected at most as many and at most %d errors", s.Closed, s.CloseFailed, s.Ended.Total(), failed)
	for _, l := range w.review(now) {
		left := w.hasLeft(l, now) || l.succeeds && await.True(promise.Grace, func() bool { return w.hasLeft(l, now) })
		w.Expect(promise.Prompt, left, "session %s was there %s after %s, expected less than %s", l.mark, l.by, l.what, l.most)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forget(now)
}

// forget drops what nobody will ask for any more, so that a long run needs no
// more memory than a short one.
func (w *watch) forget(now time.Time) {
	keep := 2*w.idle + min(w.allowance(), 10*promise.Grace)
	var later []*record
	for len(w.ends) > 0 && now.Sub(w.ends[0].toldAt) > keep {
		r := w.ends[0]
		w.ends[0] = nil
		w.ends = w.ends[1:]
		if w.asksFor(r, now.Add(-keep)) {
			later = append(later, r)
			continue
		}
		w.disown(r)
		if w.sessions[r.mark] = slices.DeleteFunc(w.sessions[r.mark], func(old *record) bool { return old == r }); len(w.sessions[r.mark]) == 0 {
			delete(w.sessions, r.mark)
		}
	}
	w.ends = append(w.ends, later...)
}

// asksFor reports whether somebody may yet ask for a session that had ended by then:
// calls use it, it is not closed, or its events have not come; or so it is with what
// it has become since it was renamed.
func (w *watch) asksFor(r *record, then time.Time) bool {
	now := r.latest()
	_, open := w.unclosed[now]
	return now.running > 0 || open || now.created && !now.ended || now != r && now.endedAt.After(then)
}

// lost checks why a client that has not closed its session lost it, at some time from
// the beginning of the last call that it knows to have used the session to the end of
// the one by which it learned that. It was told why, unless that is empty.
func (w *watch) lost(mark, why string, during span) {
	f, err := layover.ParseFingerprint(mark)
	if !w.Expect(promise.Explained, err == nil, "the server named no session: %v", err) {
		return
	}
	var reason layover.Reason
	known := await.True(5*promise.Grace, func() bool {
		ev, ok := w.explain(f)
		if reason = ev.Reason; !ok {
			reason, ok = w.forgotten(f)
		}
		return ok || w.Verdict() != nil // then there is no time to wait
	})
	if !w.Expect(promise.Explained, known, "session %s of a client is gone, and the store cannot explain why", f) || reason == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Expect(promise.Explained, why == "" || why == "SESSION_"+strings.ToUpper(reason.String()), "a client was told that session %s is lost for the reason %s, but the store explains %s", f, why, reason)
	since, window := during.start, during.end.Sub(during.start)
	timeout := least(w, since, func(c config) time.Duration { return c.idle })
	if len(w.sessions[f]) > 0 {
		r := w.record(f, byEvents)
		timeout = least(w, since, r.timeout)
		followed := w.record(f, anything) != r // by one whose events are on their way, and which the store explains
		w.Expect(promise.Explained, !r.ended || r.reason == reason || followed, "session %s was reported to have ended for the reason %s, but the store explains %s", f, r.reason, reason)
	}
	switch reason {
	case layover.ReasonIdle, layover.ReasonUnconfirmed:
		w.Expect(promise.Explained, window >= timeout, "a client lost session %s (%s) although it had used it in the last %s, expected only after %s", f, reason, window, timeout)
	case layover.ReasonLifetime, layover.ReasonCapacity, layover.ReasonQuota: // judged when it ended
		w.Expect(promise.Explained, true, "")
	default:
		w.Expect(promise.Explained, false, "a client lost session %s (%s), but had not closed it", f, reason)
	}
}

// forgotten reports whether so many sessions have ended since this one that the
// store may have forgotten why it did, and the reason, if that is still known
// here.
func (w *watch) forgotten(f layover.Fingerprint) (layover.Reason, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const each = layover.DefaultRemembered / 2 // of one sort, see [layover.WithRemembered]
	if len(w.sessions[f]) == 0 {
		return 0, w.counts.ended >= each
	}
	r := w.record(f, byEvents)
	return r.reason, r.ended && w.counts.ended-r.nth >= each
}

// leaks looks for sessions that were never closed.
func (w *watch) leaks(all []*record) {
	for _, r := range all {
		if r.resource && r.closes == 0 {
			what := "was never closed"
			if !r.created {
				what = "was made by the factory and refused by the store, and then nobody closed it"
			}
			w.Expect(promise.ClosedOnce, false, "session %s %s, expected once", r.mark, what)
		}
	}
}

// settle checks what must be true after the shutdown.
func (w *watch) settle(s layover.Stats, m *meter) {
	w.mu.Lock()
	n := w.counts
	w.Expect(promise.Clean, len(w.live) == 0 && s.Live == 0 && s.Retired == 0, "%d sessions are live after the shutdown (the store counts %d), expected none", len(w.live), s.Live)
	w.Expect(promise.Ordered, n.created == s.Created && n.ended == s.Ended.Total() && n.created == n.ended && s.EventsDropped == 0,
		"%d sessions were reported as created and %d as ended (the store counts %d and %d), expected the same number", n.created, n.ended, s.Created, s.Ended.Total())
	made := n.created - n.renamed
	w.Expect(promise.ClosedOnce, s.Closed == s.Created-n.renamed, "the store closed %d sessions of %d, expected all", s.Closed, s.Created-n.renamed)
	w.Expect(promise.Needed, made >= n.entered && made <= n.entered+w.ending.unheard, "%d sessions were made for %d calls that asked for one, expected the same number", made, n.entered)
	failed := w.planted()
	w.Expect(promise.ClosedOnce, s.CloseFailed == failed, "the store counts %d calls of Close that failed, expected %d", s.CloseFailed, failed)
	w.killedAsCounted()
	for _, all := range w.sessions {
		w.leaks(all)
	}
	w.Expect(promise.ClosedOnce, n.opened == n.closed, "%d resources were opened and %d closed, expected the same number", n.opened, n.closed)
	w.sessions, w.ends, w.live, w.unclosed, w.owned, w.newest = nil, nil, nil, nil, nil, nil // they are not a leak
	w.mu.Unlock()
	after := w.before.settle(w.Book, w.leftHeap())
	m.goroutines, m.heap = after.goroutines, after.heap
}
