// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

// faulty is what goes wrong in closers and in the observer during one phase.
type faulty struct {
	life   *life
	faults scenario.Faults
	began  time.Time
	over   chan struct{} // closed when the phase is: who hangs goes on
	once   sync.Once
	hung   atomic.Int64
	events atomic.Uint64
}

// mostHung is how many Close calls hang at once: more than there are closers.
const mostHung = closers + 2

// suffer has other things go wrong from now on.
func (l *life) suffer(f scenario.Faults) {
	next := &faulty{life: l, faults: f, began: time.Now(), over: make(chan struct{})}
	l.plan.Swap(next).relieve()
}

// relieve lets those go on who hang.
func (f *faulty) relieve() {
	f.once.Do(func() {
		if f.over != nil {
			close(f.over)
		}
	})
}

// failure is what goes wrong in the Close of a session. It quotes the ID, which the
// store must not pass on.
func failure(s *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.New("the Close of " + s.name.id + " fails on purpose")
}

// close is what happens in the Close of a session, after it was noted.
func (f *faulty) close(s *session, _ int32) error {
	way := (s.n*0x9e3779b97f4a7c15 ^ f.life.run.Seed) >> 32 // nothing that goes round in step with the clients
	has := func(fault scenario.Faults, one uint64) bool { return f.faults.Has(fault) && way%one == 0 }
	if has(scenario.CallingClosers, 2) {
		f.callBack(s)
	}
	if has(scenario.SlowClosers, 16) {
		time.Sleep(time.Duration(way>>8%uint64(4*time.Millisecond) + 1))
	}
	if has(scenario.HangingClosers, 32) {
		if f.hung.Add(1) <= mostHung {
			s.note("its Close hangs", 0)
			<-f.over
		}
	}
	switch {
	case has(scenario.FailingClosers, 3):
		f.life.failed.Add(1)
		return failure(s)
	case has(scenario.PanickingClosers, 5):
		f.life.failed.Add(1)
		panic(failure(s))
	case has(scenario.PanickingClosers, 7):
		f.life.failed.Add(1)
		runtime.Goexit()
	}
	return nil
}

// callBack uses the store as a Close may.
func (f *faulty) callBack(s *session) {
	store := f.life.store
	s.mu.Lock()
	n, shared := s.name, s.name.shared
	s.mu.Unlock()
	if _, err := store.Peek(n.id); !shared && err == nil {
		f.life.Expect(promise.NotStale, false, "session %s was found by Peek in its own Close, expected never", s)
	}
	store.Stats()
	store.Len()
	_ = store.Touch(f.life.names[s.n%uint64(len(f.life.names))].id)
	if s.n%explainEvery == 1 {
		store.Explain(n.mark)
	}
}

// observe is what happens in the observer, after it was noted.
func (f *faulty) observe(ev layover.Event) {
	n := f.events.Add(1)
	if f.faults.Has(scenario.CallingObserver) && n%8 == 0 {
		store := f.life.store
		store.Stats()
		_ = store.Touch(f.life.names[n%uint64(len(f.life.names))].id)
		store.Sources(2)
		if n%4096 == 0 {
			store.Explain(ev.Fingerprint)
		}
	}
	if f.faults.Has(scenario.PanickingObserver) && n%64 == 0 {
		panic("the observer panics on purpose")
	}
}

// reconfigure changes the limits again and again until ctx ends, or while it runs,
// and checks that what it says holds at once.
func (c *client) reconfigure() {
	if c.rounds++; c.rounds%patientEvery == patientEvery/2 {
		c.change(patient(c.run.limits))
		return
	}
	c.change(around(c.run.limits, c.rng))
}

// patientEvery is of how many changes one is that has everybody stay. As long as that
// may have been in force, nobody is missed who stays.
const patientEvery = 48

// patient returns limits by which whoever comes now is expected to stay for long, until
// that changes.
func patient(usual limits) limits {
	usual.idle *= 50
	usual.empty *= 50
	usual.holding *= 50
	usual.lifetime *= 50
	return usual
}

// around returns limits that are not far from the usual ones.
func around(usual limits, rng *rand.Rand) limits {
	about := func(d time.Duration) time.Duration { return d/2 + time.Duration(rng.Int64N(int64(d)*3/2)) }
	next := usual
	next.idle = about(usual.idle)
	next.empty = min(about(usual.empty), next.idle)
	next.holding = max(next.empty, min(about(usual.holding), next.idle))
	next.lifetime = max(next.idle, about(usual.lifetime))
	least := max(1, usual.max/2) // zero is no limit at all
	next.max = least + rng.IntN(usual.max-least+1)
	return next
}

// change has the store go by other limits.
func (c *client) change(next limits) {
	l := c.life
	l.limits.begin(next, time.Now())
	begun, busy := l.begun.Load(), l.busy.Load()
	c.starts()
	err := l.store.Reconfigure(next.options()...)
	c.stopped(err)
	stats := l.store.Stats()
	l.limits.end(time.Now())
	if errors.Is(err, layover.ErrShutdown) {
		return
	}
	l.Expect(promise.Answered, err == nil, "Reconfigure failed: %v", err)
	inUse := int(busy) + int(l.begun.Load()-begun)
	l.Expect(promise.Bounded, stats.Live+stats.Retired <= max(next.max, inUse),
		"%d sessions were there after the maximum was set to %d, while at most %d were in use", stats.Live+stats.Retired, next.max, inUse)
}

// delays reports whether closers may take their time. Those that hang do not hold up
// others: more of them than there are closers do, and others take their places.
func (f *faulty) delays() bool { return f.faults.Has(scenario.SlowClosers) }

// queued returns since when closers go on with those who wait: it may be later than
// their ends, if the phase before had closers take their time.
func (f *faulty) queued(since time.Time) time.Time { return later(since, f.began) }
