// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
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
	// gives its place away as well. This is noticed never before HungAfter has
	// passed, and within a quarter of HungAfter from then, as far as the
	// machine keeps up. 0 or below: no limit.
	HungAfter time.Duration

	// Hung is called once for each value whose Run is not back when it is
	// noticed that HungAfter has passed, and on a goroutine of its own. It may overlap Run, but Done waits until it has ended. A panic
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

	pending atomic.Int64 // values that are queued or running; written with mu held
	stuck   atomic.Int64 // what Hung returns; written with mu held
	called  atomic.Bool  // a value has come while a worker lingers

	mu        sync.Mutex
	queue     queue[T]
	running   int           // values that have a worker
	hung      int           // those of them that have taken longer than HungAfter
	seeking   bool          // a worker without a value is on its way to the queue
	lingering bool          // it has found the queue empty, and waits for a moment
	hurried   bool          // Hurry was called
	drained   chan struct{} // closed when nothing is pending; nil unless somebody waits
	workers   *worker[T]    // all there are, linked; seeking and running ones
	patroller *time.Timer   // the watchdog; nil until first needed
	patrols   bool          // it is armed
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
	p.queue.push(v)
	p.pending.Add(1)
	p.start()
	p.mu.Unlock()
}

// SubmitAll queues the values of vs in their order, with nothing between them.
// It is like Submit for each, but cheaper. It keeps nothing of vs.
func (p *Pool[T]) SubmitAll(vs []T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, v := range vs {
		p.queue.push(v)
	}
	p.pending.Add(int64(len(vs)))
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

// Pending returns how many values are queued or running, hung ones included. It
// takes no lock.
func (p *Pool[T]) Pending() int { return int(p.pending.Load()) }

// Hung returns how many values are hung now; after Hurry, how many are running.
// It takes no lock.
func (p *Pool[T]) Hung() int { return int(p.stuck.Load()) }

// Drain waits until nothing is pending, and returns 0. If ctx ends first, it
// returns how many values are still pending. It does not stop Submit; what is
// submitted meanwhile is waited for as well.
//
// When it has returned 0, no foreign code of what was submitted before is
// running. A goroutine of the pool may linger for some microseconds.
func (p *Pool[T]) Drain(ctx context.Context) (unfinished int) {
	p.mu.Lock()
	if p.Pending() == 0 {
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
// The queue is started one goroutine after the other. So there are never more of
// them than values that have not ended, and one. A million quick ones need a
// handful at a time, not the gigabytes that starting all at once would take; a
// million that hang are all started nevertheless.
func (p *Pool[T]) Hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hurried = true
	p.count()
	p.start()
}

// start sees to it that queued values get a worker while there is a place. It is
// called with mu held whenever a value or a place may have come up.
//
// Workers are started one after the other, each by the one before it just before
// it calls its Run. So a burst of quick values does not start more of them than
// the machine can run.
func (p *Pool[T]) start() {
	switch {
	case p.queue.length == 0:
	case p.lingering:
		p.called.Store(true)
	case !p.seeking && p.hasPlace():
		w := &worker[T]{pool: p}
		p.enlist(w)
		p.seeking = true
		go w.work()
	}
}

// hasPlace reports whether one more value may run. The caller holds mu.
func (p *Pool[T]) hasPlace() bool {
	return p.hurried || p.running-min(p.hung, p.config.MaxHung) < p.config.Workers
}

// count publishes what Hung returns. The caller holds mu.
func (p *Pool[T]) count() {
	if p.hurried {
		p.stuck.Store(int64(p.running))
	} else {
		p.stuck.Store(int64(p.hung))
	}
}
