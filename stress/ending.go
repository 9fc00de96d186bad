// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// ending is what the watch knows of how its store ends, under its mutex.
type ending struct {
	drains  bool      // it may refuse new sessions
	drained time.Time // from then on it must; zero: never
	stopped bool      // the shutdown has begun

	// Of a shutdown that runs out of time.
	cut     time.Time            // when it does; zero: there is none
	killed  map[*record]struct{} // whose calls were told so
	inUse   map[*record]struct{} // whose calls had them then, or may have
	nobody  int                  // calls of that time of which it is not known what they had
	unheard uint64               // calls that asked for a session and failed: it may have been made
	counted int                  // killed ones, as Shutdown says
}

// mayKill reports whether sessions may be closed under their calls.
func (e *ending) mayKill(now time.Time) bool { return !e.cut.IsZero() && !now.Before(e.cut) }

// draining notes that the store is about to be drained.
func (w *watch) draining() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending.drains = true
}

// drained notes that it was.
func (w *watch) drained(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending.drained = now
}

// drains reports whether new sessions may be refused for that.
func (w *watch) drains() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ending.drains
}

// undrained checks that no session is made for a call that asks for it after the
// store was drained.
func (w *watch) undrained(c *call, f layover.Fingerprint) {
	w.Expect(promise.Answered, w.ending.drained.IsZero() || !c.asked.After(w.ending.drained),
		"session %s was made for a call that asked for it %s after the store had been drained", f, c.asked.Sub(w.ending.drained))
}

// refusedInTheEnd reports whether a call got no session since there are no more.
func (w *watch) refusedInTheEnd(err error) bool {
	switch {
	case errors.Is(err, layover.ErrDraining):
		w.Expect(promise.Answered, w.ending.drains, "a call got no session since the store drains, which nobody has told it: %v", err)
		return true
	case !w.ending.cut.IsZero():
		w.ending.unheard++
		return true
	}
	return false
}

// stopping notes that the store is about to be shut down.
func (w *watch) stopping() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending.stopped = true
}

// cutting notes that the store is about to be shut down under its calls, with time
// until then.
func (w *watch) cutting(deadline time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut.Store(true)
	w.ending.stopped, w.ending.cut = true, deadline
	w.ending.killed, w.ending.inUse = make(map[*record]struct{}), make(map[*record]struct{})
}

// isCut reports whether that has begun. Every client asks for it all the time, so it
// waits for nobody.
func (w *watch) isCut() bool { return w.cut.Load() }

// cutShort checks what a shutdown without enough time said, while so many calls of
// Close hung.
func (w *watch) cutShort(err error, hanging int) {
	var e *layover.ShutdownError
	is := errors.As(err, &e)
	if !w.Expect(promise.Clean, err == nil || is && errors.Is(err, context.DeadlineExceeded), "Shutdown without enough time failed with %v, expected a ShutdownError for its deadline", err) || !is {
		e = new(layover.ShutdownError)
	}
	w.Expect(promise.Clean, e.Closing >= hanging, "Shutdown says that %d calls of Close have not returned, expected at least the %d that hang: %v", e.Closing, hanging, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ending.counted = e.Killed
}

// doneAt notes that a call which has come to its end may have had its session when
// time was out.
func (w *watch) doneAt(c *call, now time.Time) {
	switch {
	case !w.ending.mayKill(now):
	case c.used != nil:
		w.ending.inUse[c.used.latest()] = struct{}{}
	case c.start.Before(w.ending.cut): // later ones found the store shut
		w.ending.nobody++
	}
}

// killed notes that a call was told that its session is closed under it by the
// shutdown.
func (w *watch) killed(c *call, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := c.used.latest()
	if r == nil || !w.Expect(promise.NotInUse, w.ending.mayKill(now), "session %s was killed under a call, and nobody had asked for that", r.mark) {
		return
	}
	w.Note(r.mark, now, "a call is told that it is killed")
	w.ending.killed[r] = struct{}{}
}

// killedAsCounted checks how many sessions the shutdown says that it has killed, when
// all calls have ended. The caller holds the mutex.
func (w *watch) killedAsCounted() {
	e := &w.ending
	if e.cut.IsZero() {
		return
	}
	w.Expect(promise.Clean, e.counted >= len(e.killed), "Shutdown says that it killed %d sessions in use, but the calls of %d were told so", e.counted, len(e.killed))
	most := len(e.inUse) + e.nobody
	w.Expect(promise.Clean, e.counted <= most, "Shutdown says that it killed %d sessions in use, but at most %d were", e.counted, most)
	e.killed, e.inUse = nil, nil // they are not a leak
}
