// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// ErrGoexit is the error of a Run that called [runtime.Goexit].
var ErrGoexit = errors.New("janitor: run called runtime.Goexit")

// PanicError is the error of a Run that panicked.
//
// A panic value may hold anything, secrets included, so the error text names
// only its type. The one exception is the Go runtime's own errors (nil pointer,
// index out of range), whose text holds numbers and type names only. Whoever
// prints Value is responsible for it.
type PanicError struct {
	Value any    // what Run panicked with
	Stack []byte // where, as [debug.Stack] has it: function names, lines, addresses
}

// Error says that there was a panic, and the type of its value.
func (e *PanicError) Error() string {
	if err, ok := e.Value.(runtime.Error); ok {
		return fmt.Sprintf("panic: %v", err)
	}
	return fmt.Sprintf("panic: %T", e.Value)
}

// GoString keeps the value out of %#v, too.
func (e *PanicError) GoString() string { return e.Error() }

// PoolConfig says what a [Pool] runs, and how.
//
// The functions are called without any lock, from several goroutines at once,
// and may call back into the pool. Drain waits for them, so they must not call it
// without a deadline.
type PoolConfig[T any] struct {
	// Workers is how many values run at a time. Below 1 counts as 1.
	Workers int

	// Run is the foreign code. It may fail, panic, call runtime.Goexit or hang.
	// It is required: NewPool panics without it.
	Run func(T) error

	// Done is called once for each value whose Run has ended, with Run's error,
	// a *PanicError or ErrGoexit. The value is pending until Done has ended,
	// too. A panic or Goexit in it is contained, and told to nobody. Optional.
	Done func(T, error)

	// HungAfter is how long a value may take. One that takes longer is hung:
	// its place is given to another one, so that the queue goes on. It is still
	// reported by Done if its Run ever returns. A Done that takes this long
	// gives its place away as well. 0 or below: no limit.
	HungAfter time.Duration

	// Hung is called once for each value whose Run was not back after
	// HungAfter. It may overlap Run, but Done waits until it has ended. A panic
	// or Goexit in it is contained, and told to nobody. Optional.
	Hung func(T)

	// MaxHung is how many places at most are given away at a time. Values that
	// hang beyond that keep their places, and the queue may come to wait for
	// them. 0 or below: none are given away.
	MaxHung int
}

// Pool runs foreign code for values, in the order in which they were submitted,
// on a bounded number of goroutines that exist only while there is something to
// run. It is safe for concurrent use. [NewPool] makes one; it must not be
// copied.
type Pool[T any] struct {
	config PoolConfig[T] // Workers aside, constant

	mu       sync.Mutex
	queue    queue[T]
	running  int           // values that have a goroutine
	hung     int           // those of them that have taken longer than HungAfter
	starting int           // goroutines that were started but have not come to run yet
	hurried  bool          // Hurry was called
	drained  chan struct{} // closed when nothing is pending; nil unless somebody waits
}

// NewPool returns a pool without goroutines.
func NewPool[T any](config PoolConfig[T]) *Pool[T] {
	if config.Run == nil {
		panic("janitor: a pool needs something to run")
	}
	config.Workers = max(config.Workers, 1)
	config.MaxHung = max(config.MaxHung, 0)
	return &Pool[T]{config: config}
}

// Submit queues v. It never blocks, and never runs foreign code itself. Values
// are started in the order of submission; with one worker, each after the one
// before it has ended.
func (p *Pool[T]) Submit(v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queue.push(v)
	p.start()
}

// SetWorkers changes how many values run at a time; below 1 counts as 1. More
// start at once. Fewer is reached as running ones end.
func (p *Pool[T]) SetWorkers(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.config.Workers = max(n, 1)
	p.start()
}

// Pending returns how many values are queued or running, hung ones included.
func (p *Pool[T]) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.length + p.running
}

// Hung returns how many values are hung now; after Hurry, how many are running.
func (p *Pool[T]) Hung() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hurried {
		return p.running
	}
	return p.hung
}

// Drain waits until nothing is pending, and returns 0. If ctx ends first, it
// returns how many values are still pending. It does not stop Submit; what is
// submitted meanwhile is waited for as well.
func (p *Pool[T]) Drain(ctx context.Context) (unfinished int) {
	p.mu.Lock()
	if p.queue.length+p.running == 0 {
		p.mu.Unlock()
		return 0
	}
	if p.drained == nil {
		p.drained = make(chan struct{})
	}
	drained := p.drained
	p.mu.Unlock()
	select {
	case <-drained:
		return 0
	case <-ctx.Done():
		return p.Pending()
	}
}

// Hurry is for a shutdown that is past its deadline. From now on no value waits
// for another one: each running one counts as hung without delay, and Workers
// and MaxHung no longer matter. It reports nothing: Hung is still called for
// what outlives HungAfter, and Done for all that ends. There is no way back.
//
// The queue is started one goroutine after the other, each by the one before it
// just before it calls its Run. So there are never more of them than values that
// have not ended, and one. A million quick ones need a handful at a time, not
// the gigabytes that starting all at once would take; a million that hang are
// all started nevertheless.
func (p *Pool[T]) Hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hurried = true
	p.start()
}

// start gives queued values a goroutine while there is a place. It is called
// with mu held whenever a value or a place may have come up.
func (p *Pool[T]) start() {
	for p.queue.length > 0 && p.hasPlace() {
		w := &worker[T]{pool: p}
		w.take()
		p.starting++
		go w.enter()
	}
}

// hasPlace reports whether one more value may run. The caller holds mu.
func (p *Pool[T]) hasPlace() bool {
	if p.hurried {
		return p.starting == 0
	}
	return p.running-min(p.hung, p.config.MaxHung) < p.config.Workers
}

// worker is a goroutine of the pool, or several in turn: when foreign code
// exits one, the next goes on where it was. It runs one value after the other
// until the queue is empty or its watch has fired. Then it leaves; so a watch
// that fires late can never be mistaken for one of a later value.
type worker[T any] struct {
	pool *Pool[T]

	// Used by one goroutine at a time. Hung reads value, which stays until it
	// has ended.
	value T
	err   error
	stage stage
	watch *time.Timer // nil without HungAfter, or before the first value

	// Guarded by pool.mu.
	returned  bool // Run has: from here on it cannot be reported as hung
	ended     bool // Done has, too
	hung      bool // the watch fired before the end
	reporting bool // Hung is being called
	orphaned  bool // Run returned while reporting: the report's end goes on with Done
}

// stage is what a worker does next. It is set before foreign code is called, so
// that it is right even if that code does not return.
type stage int

const (
	toRun stage = iota
	toReport
	toFinish
)

// take makes the oldest queued value the worker's next. The caller holds mu.
func (w *worker[T]) take() {
	w.value = w.pool.queue.pop()
	w.stage, w.returned, w.ended = toRun, false, false
	w.pool.running++
}

// enter is the start of a worker's first goroutine.
func (w *worker[T]) enter() {
	p := w.pool
	p.mu.Lock()
	p.starting--
	p.start() // after Hurry this is what starts the next one
	p.mu.Unlock()
	w.work()
}

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
		case toRun:
			w.arm()
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

// arm starts the watch of the next value.
func (w *worker[T]) arm() {
	after := w.pool.config.HungAfter
	switch {
	case after <= 0:
	case w.watch == nil:
		w.watch = time.AfterFunc(after, w.expire)
	default:
		w.watch.Reset(after)
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
	w.pool.mu.Lock()
	defer w.pool.mu.Unlock()
	w.returned = true
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
// whether it did; if not, the worker leaves.
func (w *worker[T]) finish() bool {
	p := w.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	var none T
	w.value, w.err, w.ended = none, nil, true
	p.running--
	if w.hung {
		p.hung--
	}
	if p.drained != nil && p.queue.length+p.running == 0 {
		close(p.drained)
		p.drained = nil
	}
	fired := w.watch != nil && !w.watch.Stop()
	if !fired && p.queue.length > 0 && p.hasPlace() {
		w.take()
		return true
	}
	p.start()
	return false
}

// expire is what the watch calls, on a goroutine of its own.
func (w *worker[T]) expire() {
	p := w.pool
	p.mu.Lock()
	if w.ended { // just in time
		p.mu.Unlock()
		return
	}
	w.hung = true
	p.hung++
	report := !w.returned && p.config.Hung != nil
	w.reporting = report
	p.start()
	p.mu.Unlock()
	if report {
		w.reportHung()
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
