// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// A session that is renewed is to the store's events one that ends and, just
// before, another one that is created: its heir. The books go on in those of the
// heir, also for the calls that have the session by its former ID.

// latest returns the books of the session by the ID that it has now.
func (r *record) latest() *record {
	for r != nil && r.heir != nil {
		r = r.heir
	}
	return r
}

// since returns when the session was made, by whatever ID it has gone since.
func (r *record) since() time.Time {
	if r.calls > 0 {
		return r.entered
	}
	return r.createdAt
}

// inherit has h be what r is since it was renamed.
func (w *watch) inherit(r, h *record) {
	if !w.Expect(promise.Renewed, h != nil && h != r && h.calls == 0 && !h.ended, "session %s was renamed, and no other one was created in its place", r.mark) {
		return
	}
	r.heir, h.renewals = h, r.renewals-1
	h.calls, h.running, h.inside = r.calls, r.running, r.inside
	h.firstStart, h.entered, h.lastStart = r.firstStart, r.entered, r.lastStart
	h.lastLeft, h.lastDone, h.closedAt = r.lastLeft, r.lastDone, r.closedAt
	h.held, h.resource, h.named, h.owner, h.allot = r.held, r.resource, r.named, r.owner, r.allot
	r.running, r.inside, r.resource = 0, 0, false // they go on with the heir
	w.counts.renamed++
	w.Note(r.mark, time.Now(), "is session "+h.mark.String()+" from now on")
	w.Note(h.mark, time.Now(), "was session "+r.mark.String())
	w.reserve(h)
}

// renewing notes that a call is about to renew its session, or that it has failed
// to.
func (w *watch) renewing(c *call, by int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c.used.latest().renewals += by
}

// renamed notes that the ID with this mark finds nothing any more.
func (w *watch) renamed(old layover.Fingerprint, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.known(old); r != nil && r.renamedAt.IsZero() {
		r.renamedAt = now
	}
}

// known returns the books of the session with this mark, nil if there are none.
func (w *watch) known(f layover.Fingerprint) *record {
	if len(w.sessions[f]) == 0 {
		return nil
	}
	return w.sessions[f][0]
}

// current returns the books of the session that a call found under an ID: whoever
// came after it was renamed must not find it.
func (w *watch) current(c *call, r *record) *record {
	for ; r.heir != nil; r = r.heir {
		w.Expect(promise.Renewed, r.renamedAt.IsZero() || !c.start.After(r.renamedAt),
			"a call with the ID of session %s was handed session %s, %s after that was renewed", r.mark, r.latest().mark, c.start.Sub(r.renamedAt))
	}
	return r
}

// follows waits until the watch was told what became of one of the sessions that
// a call brought the IDs of, which takes long on a machine that is late, and reports
// whether that is the session that it got.
// Its mark may change meanwhile.
func (w *watch) follows(c *call, mark func() layover.Fingerprint, brought []layover.Fingerprint) (f layover.Fingerprint, ok bool) {
	ok = await.True(min(4*promise.Grace+w.patience(), answerTime), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		f = mark()
		got := w.known(f)
		for _, old := range brought {
			if r := w.known(old); r != nil && got != nil && r.latest() == got.latest() {
				w.current(c, r)
				return true
			}
		}
		return false
	})
	return f, ok
}

// withinMax checks how many sessions there were before an event: for as long as it
// takes to be renamed, a session has two IDs.
func (w *watch) withinMax(next layover.Event) {
	if next.Reason != layover.ReasonRenamed {
		w.Expect(promise.Bounded, len(w.live) <= w.max, "%d sessions were live at once, expected at most %d", len(w.live), w.max)
	}
}
