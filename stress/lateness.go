// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/c8e4ff29/layover"
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
func (w *watch) allowance() time.Duration { return grace + 4*w.late }

// probe measures how long the machine takes for what the store does at a
// deadline: a timer fires, one goroutine starts another one, and the watch is
// told.
func (w *watch) probe() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.probed.IsZero() {
		return
	}
	w.probed = time.Now()
	time.AfterFunc(layover.Tick, func() {
		go func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.late = max(w.late, time.Since(w.probed))
			w.probed = time.Time{}
		}()
	})
}
