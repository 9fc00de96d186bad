// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import "time"

// patrolsPerLimit is how often the watchdog comes by in the time that a value may
// take. It does not know when a value started, but only when it first saw it. So
// it notices a hung one late by the time between two patrols at most, and by how
// late the patrols are themselves; 8 keeps the sum below a quarter.
const patrolsPerLimit = 8

// arm has the watchdog come by. The caller holds mu.
func (p *Pool[T]) arm() {
	p.patrols = true
	period := (p.config.HungAfter-1)/patrolsPerLimit + 1 // rounded up: HungAfter is positive
	if p.patroller == nil {
		p.patroller = time.AfterFunc(period, p.patrol)
	} else {
		p.patroller.Reset(period)
	}
}

// patrol is the watchdog: it looks for values that have taken longer than
// HungAfter. It comes back only if there are others that still may.
//
// Its work is in proportion to the values that run. They pay nothing for it,
// not even a look at the clock.
func (p *Pool[T]) patrol() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	again := false
	for w := p.workers; w != nil; w = w.next {
		switch {
		case !w.busy || w.hung:
		case !w.seen:
			w.seen, w.since, again = true, now, true
		case now.Sub(w.since) < p.config.HungAfter:
			again = true
		default:
			w.declareHung()
		}
	}
	if again {
		p.arm()
	} else {
		p.patrols = false
	}
	p.start()
}

// declareHung gives the place of w's value away, and has it reported if its Run
// is not back. The caller holds mu.
func (w *worker[T]) declareHung() {
	p := w.pool
	w.hung = true
	p.hung++
	p.count()
	if p.config.Hung != nil && w.phase.CompareAndSwap(running, reported) {
		w.reporting = true
		go w.reportHung()
	}
}

// reportHung calls Hung, then goes on with the value if Run has returned
// meanwhile.
func (w *worker[T]) reportHung() {
	defer func() { // deferred: Hung may call runtime.Goexit
		w.pool.mu.Lock()
		defer w.pool.mu.Unlock()
		w.reporting = false
		if w.orphaned {
			go w.work()
		}
	}()
	defer func() { _ = recover() }() // nobody is left to be told
	w.pool.config.Hung(w.value)
}
