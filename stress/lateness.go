// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// probe measures how late the machine is, and how long the watch is waited for.
func (w *watch) probe() {
	w.late.Probe(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
	})
}

// allowance is how late the store may be.
func (w *watch) allowance() time.Duration { return w.late.Allowance() }

// behind returns by how much the store's clock may put a deadline off: a coarse one
// does by as much as it ticks late.
func (w *watch) behind(c config) time.Duration {
	late := c.resolution()
	if late > exact {
		late += w.late.MostAllowed()
	}
	return late
}

// lingering is a session that is past a deadline, for all that the watch knows.
type lingering struct {
	*record
	created  time.Time
	succeeds bool // others may come after it under the same mark, of which the watch hears later
	by, most time.Duration
	what     string
}

// hasLeft reports whether a session had left by then, though its events were on their
// way: the store explains why, it was reported since, or calls have a successor of it.
func (w *watch) hasLeft(l lingering, then time.Time) bool {
	ev, known := w.explain(l.mark) // which takes a while
	if known && !ev.At.Before(l.created) && !ev.At.After(then) {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if l.ended {
		return !l.endedAt.After(then)
	}
	all := w.sessions[l.mark]
	return len(all) > 0 && all[len(all)-1] != l.record && byCalls(all[len(all)-1])
}

// review returns what seems to be past a deadline.
func (w *watch) review(now time.Time) (all []lingering) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late.Poll(now)
	for r := range w.live {
		if r.running == 0 {
			since := later(r.createdAt, r.lastDone)
			all = w.overdue(all, r, since.Add(most(w, since, r.timeout)), most(w, since, config.resolution), now, "its idle deadline")
		}
		all = w.overdue(all, r, r.since().Add(most(w, r.since(), config.lifetime)), most(w, r.since(), config.resolution), now, "the end of its lifetime")
		if !r.closedAt.IsZero() {
			all = w.overdue(all, r, r.closedAt, 0, now, "its client had closed it")
		}
	}
	for r := range w.unclosed {
		if r.running == 0 && !w.mayBeUsed(r.endedAt) {
			since := now.Sub(later(r.endedAt, r.lastDone))
			w.Expect(promise.Prompt, since < w.allowance(), "session %s ended %s ago and was not closed yet, expected less than %s", r.mark, since, promise.Grace)
		}
	}
	return all
}

// overdue adds a live session that is past a deadline, which the store may take to
// be later by so much.
func (w *watch) overdue(all []lingering, r *record, deadline time.Time, late time.Duration, now time.Time, what string) []lingering {
	by := now.Sub(deadline)
	if by >= late+w.allowance() && !w.mayBeUsed(deadline.Add(late)) {
		return append(all, lingering{r, r.createdAt, r.named, by, late + promise.Grace, what})
	}
	w.Expect(promise.Prompt, true, "")
	return all
}
