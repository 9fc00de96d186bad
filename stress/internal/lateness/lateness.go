// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package lateness measures how late a machine is, so that what must happen in time
// is not held against a store whose machine was busy.
package lateness

import (
	"runtime"
	"sync"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// Meter keeps book of how late the machine is, and forgets it at the rate of time.
// Safe for concurrent use. Use [New].
type Meter struct {
	every time.Duration

	mu     sync.Mutex
	polled time.Time     // when Poll was last called
	probed time.Time     // when the probe that is on its way began
	late   time.Duration // lately
	most   time.Duration // ever
}

// New returns a meter whose [Meter.Poll] is to be called at this interval, and Probe
// as often.
func New(every time.Duration) *Meter { return &Meter{every: every} }

// Poll notes that a poll has come.
func (m *Meter) Poll(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.late = max(0, m.late-m.every)
	if !m.polled.IsZero() {
		m.add(now.Sub(m.polled) - m.every)
	}
	if !m.probed.IsZero() {
		m.add(now.Sub(m.probed))
	}
	m.polled = now
}

// Probe measures how long the machine takes for what a store does at a deadline, unless
// a probe is on its way: a timer fires, and a goroutine starts another one, which
// yields once, as closers do that look for more to close. With few processors, that
// may take longer than all the rest. Then comes what told does, which stands for
// whoever is told of it; nil: nobody is.
func (m *Meter) Probe(told func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.probed.IsZero() {
		return
	}
	m.probed = time.Now()
	time.AfterFunc(layover.Tick, func() {
		go func() {
			runtime.Gosched()
			if told != nil {
				told()
			}
			m.arrive()
		}()
	})
}

func (m *Meter) arrive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(time.Since(m.probed))
	m.probed = time.Time{}
}

// add notes that something was as late. The caller holds the mutex.
func (m *Meter) add(late time.Duration) {
	m.late = max(m.late, late)
	m.most = max(m.most, late)
}

// Allowance is how late the store may be now: [promise.Grace], and on a machine on
// which even a poll or a probe is late, several times that on top of it.
func (m *Meter) Allowance() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return promise.Grace + 4*m.late
}

// MostAllowed is the most that [Meter.Allowance] ever was.
func (m *Meter) MostAllowed() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return promise.Grace + 4*m.most
}
