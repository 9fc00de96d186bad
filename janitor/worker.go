// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import (
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"
)

// patience is how often a worker with nothing to do yields before it leaves: a
// few microseconds on an idle machine. In a stream of quick values this saves
// most of the cost, which is that of a new goroutine for each.
const patience = 16

// worker is a goroutine of the pool, or several in turn: when foreign code
// exits one, the next goes on where it was. It runs one value after the other
// until it finds the queue empty, and stays so for a moment.
type worker[T any] struct {
	pool *Pool[T]

	// Used by one goroutine at a time. Hung reads value, which stays until it
	// has ended.
	value T
	err   error
	stage stage

	// The one race that is settled without the mutex: Run returns, or is
	// reported as hung, whichever is first.
	phase atomic.Uint32

	// Guarded by pool.mu.
	next, prev *worker[T] // in pool.workers
	busy       bool       // it has a value
	seen       bool       // the watchdog has seen it with this value
	since      time.Time  // when it first did
	hung       bool       // the value has taken longer than HungAfter
	reporting  bool       // Hung is being called
	orphaned   bool       // Run returned while reporting: the report's end goes on with Done
}

// The phases of a value.
const (
	running  uint32 = iota
	returned        // Run has: it cannot be reported as hung any more
	reported        // or is about to be
)

// stage is what a worker does next. It is set before foreign code is called, so
// that it is right even if that code does not return.
type stage int

const (
	toSeek stage = iota
	toRun
	toReport
	toFinish
)

// work goes on with the worker's stage until the worker leaves.
func (w *worker[T]) work() {
	left := false
	defer func() {
		if !left { // runtime.Goexit cannot be stopped, but it can be survived
			go w.work()
		}
	}()
	for !left {
		switch w.stage {
		case toSeek:
			left = !w.seek()
		case toRun:
			w.stage, w.err = toReport, ErrGoexit
			w.err = w.run()
		case toReport:
			if left = w.orphan(); !left {
				w.stage = toFinish
				w.report()
			}
		case toFinish:
			left = !w.finish()
		}
	}
}

// seek takes a value, or lingers in the hope for one. It reports whether the
// worker stays; the decision to leave is made under the lock, so that no value
// relies on one that has left.
func (w *worker[T]) seek() bool {
	p := w.pool
	p.mu.Lock()
	if p.queue.length == 0 {
		p.lingering = true
		p.mu.Unlock()
		for n := 0; n < patience && !p.called.Load(); n++ {
			runtime.Gosched()
		}
		p.mu.Lock()
		p.lingering = false
		p.called.Store(false)
	}
	defer p.mu.Unlock()
	p.seeking = false
	if p.queue.length == 0 || !p.hasPlace() {
		p.dismiss(w)
		return false
	}
	w.take()
	p.start()
	return true
}

// take makes the oldest queued value the worker's next. The caller holds mu.
func (w *worker[T]) take() {
	p := w.pool
	w.value = p.queue.pop()
	w.stage, w.busy, w.seen = toRun, true, false
	w.phase.Store(running)
	p.running++
	if p.hurried {
		p.count()
	}
	if !p.patrols && p.config.HungAfter > 0 {
		p.arm()
	}
}

// run calls Run and turns a panic into an error.
func (w *worker[T]) run() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return w.pool.config.Run(w.value)
}

// orphan notes that Run has returned. If it is just being reported as hung, the
// rest is left to the goroutine of that report: Done comes after Hung.
func (w *worker[T]) orphan() bool {
	if w.phase.CompareAndSwap(running, returned) {
		return false
	}
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	w.orphaned = w.reporting
	return w.orphaned
}

// report calls Done.
func (w *worker[T]) report() {
	defer func() { _ = recover() }() // nobody is left to be told
	if w.pool.config.Done != nil {
		w.pool.config.Done(w.value, w.err)
	}
}

// finish ends the value, and takes the next one if there is one. It reports
// whether the worker stays.
func (w *worker[T]) finish() bool {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	w.end()
	switch {
	case p.hasPlace() && p.queue.length > 0:
		w.take()
		return true
	case p.hasPlace() && !p.seeking:
		p.seeking = true
		w.stage = toSeek
		return true
	}
	p.dismiss(w)
	return false
}

// end settles the account of the value. The caller holds mu.
func (w *worker[T]) end() {
	p := w.pool
	var none T
	w.value, w.err, w.busy = none, nil, false
	p.running--
	if w.hung {
		w.hung = false
		p.hung--
		p.count()
	} else if p.hurried {
		p.count()
	}
	if p.pending.Add(-1) == 0 && p.drained != nil {
		close(p.drained)
		p.drained = nil
	}
}

// enlist adds w to those that the watchdog looks after. The caller holds mu.
func (p *Pool[T]) enlist(w *worker[T]) {
	if w.next = p.workers; w.next != nil {
		w.next.prev = w
	}
	p.workers = w
}

// dismiss takes w, which is about to leave, off that list. The last one takes
// the watchdog along. The caller holds mu.
func (p *Pool[T]) dismiss(w *worker[T]) {
	if w.next != nil {
		w.next.prev = w.prev
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		p.workers = w.next
	}
	if p.workers == nil && p.patrols {
		p.patroller.Stop() // if it is too late for that, it finds nobody
		p.patrols = false
	}
}
