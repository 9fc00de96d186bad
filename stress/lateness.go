// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// lag keeps book of how late the machine is, and forgets it at the rate of time.
func (w *watch) lag(now time.Time) {
	w.late = max(0, w.late-pollEvery)
	if !w.probed.IsZero() {
		w.late = max(w.late, now.Sub(w.probed))
	}
	if !w.polled.IsZero() {
		w.late = max(w.late, now.Sub(w.polled)-pollEvery)
	}
	w.polled = now
}

// allowance is how late the store may be: on a machine on which even a poll or
// a probe is late, several times that on top of the grace.
func (w *watch) allowance() time.Duration { return promise.Grace + 4*w.late }

// probe measures how long the machine takes for what the store does at a
// deadline: a timer fires, one goroutine starts another one, which yields once as
// closers do, and the watch is told.
func (w *watch) probe() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.probed.IsZero() {
		return
	}
	w.probed = time.Now()
	time.AfterFunc(layover.Tick, func() {
		go func() {
			runtime.Gosched()
			w.mu.Lock()
			defer w.mu.Unlock()
			w.late = max(w.late, time.Since(w.probed))
			w.probed = time.Time{}
		}()
	})
}

// lingering is a session that is past a deadline, for all that the watch knows.
type lingering struct {
	mark     layover.Fingerprint
	created  time.Time
	by, most time.Duration
	what     string
}

// review returns what seems to be past a deadline.
func (w *watch) review(now time.Time) (all []lingering) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lag(now)
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
		return append(all, lingering{r.mark, r.createdAt, by, late + promise.Grace, what})
	}
	w.Expect(promise.Prompt, true, "")
	return all
}
