// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

// endsUnder is the part of a phase's end for which its clients must be there.
func (r *course) endsUnder(ctx context.Context, p *population, e scenario.End) {
	switch e {
	case scenario.GoesOn, scenario.Idles:
	case scenario.Stops:
		r.drain(ctx, p)
	case scenario.Cut:
		r.cut(ctx, p)
	}
}

// endsAfter is the rest of it, when they have left.
func (r *course) endsAfter(ctx context.Context, e scenario.End) (alive bool) {
	switch {
	case ctx.Err() != nil || r.Verdict() != nil:
	case e == scenario.Idles:
		return r.idles(ctx)
	case e == scenario.Stops || e == scenario.Cut:
		r.shutDown()
	}
	return true
}

// idles waits until nobody is left, which the store brings about by itself.
func (r *course) idles(ctx context.Context) (alive bool) {
	patience := r.idle + 10*promise.Grace + r.server.watch.patience()
	waiting, over := context.WithTimeout(ctx, patience)
	defer over()
	empty := func(s layover.Stats) bool {
		return s.Live+s.Retired+s.Closing == 0 && r.server.watch.isEmpty()
	}
	if !r.observe(waiting, empty) {
		return false
	}
	if ctx.Err() == nil && r.Verdict() == nil && r.Expect(promise.Prompt, empty(r.stats),
		"%d sessions are live, %d retired and %d closing %s after all clients have left, expected none", r.stats.Live, r.stats.Retired, r.stats.Closing, patience) {
		r.server.watch.quiet()
	}
	return true
}

// patience returns by how much longer everything takes on a machine that is late.
func (w *watch) patience() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.allowance()
}

// isEmpty reports whether the watch was told the end and the Close of everybody.
func (w *watch) isEmpty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.live)+len(w.unclosed) == 0
}

// quiet checks that an empty store has no goroutine.
func (w *watch) quiet() {
	left := await.Quiet(5 * promise.Grace)
	w.Expect(promise.Clean, left == "", "the store is empty, and has a goroutine in %s", left)
}

// drain takes no new sessions any more, while clients come and go. One who has a
// session keeps it, and one who has none gets none and is told why.
func (r *course) drain(ctx context.Context, p *population) {
	resident, newcomer := r.witness(p), r.witness(p)
	defer resident.disconnect()
	defer newcomer.disconnect()
	has := resident.connect() && resident.set(ctx, "resident")
	r.server.watch.draining()
	r.server.store.Drain()
	r.server.watch.drained(time.Now())
	if newcomer.connect() {
		newcomer.refused(ctx, "SESSION_STORE_DRAINING")
		newcomer.query(ctx) // which needs no session
	}
	if has {
		resident.query(ctx)
	}
	await.Pause(ctx, r.idle/4)
}

// cutTime is how long a shutdown has that is to run out of time.
const cutTime = 3 * time.Millisecond

// cut shuts the store down in the middle of calls, without enough time.
func (r *course) cut(ctx context.Context, p *population) {
	w := r.server.watch
	late := r.witness(p)
	defer late.disconnect()
	hanging := r.server.mishaps.hung()
	short, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutTime)
	defer cancel()
	deadline, _ := short.Deadline()
	w.cutting(deadline)
	done := make(chan error, 1)
	go func() { done <- r.server.store.Shutdown(short) }()
	select {
	case err := <-done:
		w.cutShort(err, hanging)
		w.remains(r.server.store.Stats(), err)
	case <-time.After(answerTime):
		w.Expect(promise.Clean, false, "Shutdown with %s did not return within %s", cutTime, answerTime)
		return
	}
	if late.connect() {
		late.refused(ctx, "SESSION_STORE_SHUTDOWN")
	}
	await.Pause(ctx, r.idle/8) // others come, too
}

// witness returns one more client of a phase, that behaves.
func (r *course) witness(p *population) *client {
	counts := make([]int, len(kinds))
	counts[0]++
	id := sum(r.tally.number)
	r.tally.add(counts)
	return p.client(0, id)
}

// refused checks that the client gets no new session, for this reason.
func (c *client) refused(ctx context.Context, reason string) {
	ctx, cancel := context.WithTimeout(ctx, c.longestCall())
	defer cancel()
	err := c.askSet("refused")(ctx)
	info := detailOf(err)
	c.watch.Expect(promise.Answered, codeOf(err) == codes.Unavailable && info.GetReason() == reason,
		"SetSessionOptions of a client without a session was answered with %s and %v, expected %s and %s", codeOf(err), info, codes.Unavailable, reason)
	c.checkSecrets(err)
}
