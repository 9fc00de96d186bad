// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package engine drives the store alone, without Flight, at full speed, through the
// phases of a scenario, and checks that it keeps its promises.
//
// The books are kept by the clients and by the sessions themselves (session.go), who
// share no code with the store: how many leases a session surely has, since when its
// idle clock runs at the earliest and at the latest, who has begun to end it; and by
// the observer (events.go), who is told what happens in the order in which it does.
// Every check is exact or errs on the side of the store.
package engine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/lateness"
	"github.com/c8e4ff29/layover/stress/internal/machine"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

// Config is what a run is about.
type Config struct {
	Scenario                       scenario.Scenario
	Duration                       time.Duration
	Clients                        int // goroutines, split over the crowds
	Idle, Lifetime, Empty, Holding time.Duration
	Max                            int
	Seed                           uint64
	Pictures                       string              // the folder for those of histories; empty: the one for temporary files
	Show                           func(series.Sample) // how it goes; nil: nobody is told
}

// pollEvery is how often a run looks at the store from outside.
const pollEvery = 100 * time.Millisecond

// Result is what a run was.
type Result struct {
	Crowds  []Crowd
	Calls   uint64
	Created uint64
	Ended   layover.Ends
	Peak    int
}

// Crowd is what those of one kind did.
type Crowd struct {
	Kind    string
	Clients int // the most at once
	Rounds  uint64
}

// run is a run.
type run struct {
	Config
	*promise.Book
	limits   limits
	began    time.Time
	sampled  time.Time // when that was last done
	late     *lateness.Meter
	recorder *series.Recorder
	calls    atomic.Uint64

	mu     sync.Mutex
	crowds map[string]*Crowd
	result Result
}

// Run drives stores until the scenario is over, ctx ends or a promise is broken, of
// which the book tells.
func Run(ctx context.Context, c Config, b *promise.Book, rec *series.Recorder) Result {
	r := &run{
		Config: c, Book: b, recorder: rec, began: time.Now(), late: lateness.New(pollEvery),
		limits: limits{idle: c.Idle, lifetime: c.Lifetime, empty: c.Empty, holding: c.Holding, max: c.Max, bytes: int64(c.Max) << 10},
		crowds: make(map[string]*Crowd),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-b.Failed():
			cancel()
		case <-ctx.Done():
		}
	}()
	total := 0
	for _, p := range c.Scenario.Phases {
		total += p.Share
	}
	var l *life
	for i, p := range c.Scenario.Phases {
		if ctx.Err() != nil {
			break
		}
		if l == nil {
			if l = r.open(); l == nil {
				break
			}
		}
		last := i == len(c.Scenario.Phases)-1
		if r.phase(ctx, l, i, p, c.Duration*time.Duration(p.Share)/time.Duration(total)); last || p.End == scenario.Stops || p.End == scenario.Cut {
			r.close(l)
			l = nil
		}
	}
	if l != nil {
		r.close(l)
	}
	r.result.Calls = r.calls.Load()
	for _, k := range kinds {
		if c := r.crowds[k.name]; c != nil {
			r.result.Crowds = append(r.result.Crowds, *c)
		}
	}
	return r.result
}

func (r *run) open() *life {
	l, err := newLife(r)
	if !r.Expect(promise.Answered, err == nil, "the store cannot be made: %v", err) {
		return nil
	}
	return l
}

// close shuts a store down whose clients have left.
func (r *run) close(l *life) {
	l.faults().relieve()
	if r.alive(func() { l.stop(r.Patience()) }, r.Patience()+promise.Grace) {
		s := l.store.Stats()
		r.sample(l, s)
		r.recorder.NewStore()
		r.result.Created += s.Created
		for i, n := range s.Ended {
			r.result.Ended[i] += n
		}
		r.result.Peak = max(r.result.Peak, s.Peak)
	}
}

// alive reports whether f comes back in time.
func (r *run) alive(f func(), patience time.Duration) bool {
	return r.Expect(promise.Answered, await.Return(patience, f), "the store does not answer within %s: it hangs", patience)
}

// phase has the crowds of a phase at the store for so long, and then does what is
// its end.
func (r *run) phase(ctx context.Context, l *life, nth int, p scenario.Phase, d time.Duration) {
	r.recorder.Mark(p.String())
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	l.suffer(p.Faults)
	all := r.gather(l, nth, p.Store)
	var wait sync.WaitGroup
	for _, c := range all {
		wait.Go(func() { r.live(within, c.client, c.kind) })
	}
	wait.Go(func() { machine.Impair(within, p.Faults) })
	if p.Faults.Has(scenario.Reconfigured) {
		wait.Go(func() { r.change(within, l, nth) })
	}
	r.watch(within, l, all, d)
	if p.End == scenario.Stops && ctx.Err() == nil {
		l.draining.Store(true)
		l.store.Drain()
		l.drained.Store(true)
		r.watch(within, l, all, min(d/4, r.limits.idle))
	}
	if p.End == scenario.Cut && ctx.Err() == nil {
		r.alive(l.cutOff, r.Patience())
	}
	cancel()
	l.faults().relieve()
	r.alive(wait.Wait, r.Patience()+2*r.Idle)
	if p.End == scenario.Idles && ctx.Err() == nil {
		r.idles(ctx, l)
	}
}

// member is a client and what it does.
type member struct {
	*client
	kind kind
}

// gather returns the clients of the crowds, each of which has at least one.
func (r *run) gather(l *life, nth int, crowds []scenario.Crowd) (all []member) {
	total := 0
	for _, c := range crowds {
		total += c.Share
	}
	for _, c := range crowds {
		n := max(1, r.Clients*c.Share/total)
		if c.Kind == "keys" {
			n = min(n, mostKeys)
		}
		for range n {
			id := len(all) + 1
			rng := rand.New(rand.NewPCG(r.Seed, uint64(nth)<<32|uint64(id)))
			all = append(all, member{&client{life: l, id: id, rng: rng, source: fmt.Sprint("client", id)}, find(c.Kind)})
		}
		if r.crowds[c.Kind] == nil {
			r.crowds[c.Kind] = &Crowd{Kind: c.Kind}
		}
		r.crowds[c.Kind].Clients = max(r.crowds[c.Kind].Clients, n)
	}
	return all
}

// mostKeys bounds how many have histories checked at once: each of them computes all
// the time, on several goroutines, and hundreds would keep the others from the store.
const mostKeys = 4

// find returns the kind of this name. Scenarios name no others, as a test tells.
func find(name string) kind {
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	panic("engine: no such kind of clients: " + name)
}

// live has a client go round and round until ctx ends.
func (r *run) live(ctx context.Context, c *client, k kind) {
	defer func() {
		if what := recover(); what != nil {
			r.Expect(promise.Answered, false, "a call of the %s panicked: %v\n%s", k.name, what, debug.Stack())
		}
	}()
	for ctx.Err() == nil && !c.over.Load() {
		k.round(c, ctx)
		c.rounds++
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.crowds[k.name].Rounds += c.rounds
}

// change changes the limits until ctx ends, and puts them back.
func (r *run) change(ctx context.Context, l *life, nth int) {
	c := &client{life: l, rng: rand.New(rand.NewPCG(r.Seed, uint64(nth)<<32))}
	for await.Pause(ctx, r.Idle/4) {
		c.reconfigure()
	}
	c.change(r.limits)
}

// watch looks at the store from outside for so long.
func (r *run) watch(ctx context.Context, l *life, all []member, d time.Duration) {
	over := time.NewTimer(d)
	defer over.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			return
		case <-tick.C:
		}
		if !r.alive(func() { r.poll(l, all) }, r.answerTime()) {
			return
		}
	}
}

// answerTime is how long a call may take.
func (r *run) answerTime() time.Duration { return 10 * r.late.Allowance() }

// poll checks what must be true at any time.
func (r *run) poll(l *life, all []member) {
	now := time.Now()
	r.late.Poll(now)
	r.late.Probe(nil)
	err := l.store.Check()
	r.Expect(promise.Sound, err == nil, "the store contradicts itself: %v", err)
	var s layover.Stats
	most := l.mostDuring(func() { s = l.store.Stats() })
	r.Expect(promise.Bounded, s.Live+s.Retired <= most, "the store counts %d live and %d retired sessions, expected at most %d", s.Live, s.Retired, most)
	r.Expect(promise.Bounded, s.Bytes <= r.limits.bytes, "the store counts %d bytes, expected at most %d", s.Bytes, r.limits.bytes)
	r.Expect(promise.Ordered, uint64(s.Live)+s.Ended.Total() == s.Created && s.Unconfirmed+s.Confirmed == s.Live,
		"the store counts %d created, %d ended and %d live sessions (%d confirmed, %d not), which do not add up", s.Created, s.Ended.Total(), s.Live, s.Confirmed, s.Unconfirmed)
	for _, c := range all {
		if since := c.since.Load(); since > 0 {
			took := now.Sub(r.began) - time.Duration(since)
			r.Expect(promise.Answered, took < r.answerTime(), "a call of a client has not returned for %s: it hangs", took)
		}
	}
	l.each(func(s *session) { s.review(now, r.late.Allowance()) })
	if now.Sub(r.sampled) >= r.recorder.Every() {
		r.sampled = now
		r.sample(l, s)
	}
}

func (r *run) sample(l *life, s layover.Stats) {
	now := r.recorder.Sample(series.Gauges{Max: l.limits.now().max, Live: s.Live, Retired: s.Retired, Closing: s.Closing, Created: s.Created, Ended: s.Ended})
	if r.Show != nil {
		r.Show(now)
	}
}

// review checks that a session which is over has left, and was closed.
func (s *session) review(now time.Time, allowance time.Duration) {
	l := s.life
	s.mu.Lock()
	late := l.resolution(s.done) + allowance
	due, why := s.due()
	over := s.closed || s.ended > 0 || s.refused
	if s.name.shared { // its end is known only by its Close
		due = l.faults().queued(due)
		over = over || s.using > 0 || l.faults().delays()
	}
	free := s.using == 0 && s.ended > 0 && !s.closed
	since := now.Sub(l.faults().queued(later(s.endedAt, s.done)))
	s.mu.Unlock()
	if by := now.Sub(due); why != "" && !over && by > late {
		ok := l.unseen() > backlog/2 // the event may be on its way
		l.Expect(promise.Prompt, ok, "session %s is there %s after %s, expected less than %s", s, by, why, late)
	} else {
		l.Expect(promise.Prompt, true, "")
	}
	if free && !l.faults().delays() {
		l.Expect(promise.Prompt, since < allowance, "session %s ended %s ago and was not closed yet, expected less than %s", s, since, allowance)
	}
}

// due returns when the session must have ended at the latest, and what that is; empty:
// it is not known. The caller holds the mutex.
func (s *session) due() (at time.Time, why string) {
	if s.added.IsZero() {
		return time.Time{}, ""
	}
	_, most := s.life.limits.since(s.added)
	at, why = s.added.Add(most.lifetime), "the end of its lifetime"
	if !s.own.IsZero() && s.own.Before(at) {
		at, why = s.own, "its own end"
	}
	if s.using > 0 || s.name.pending.Load() > 0 {
		return at, why
	}
	_, longest := s.timeouts(s.done)
	if idle := s.done.Add(longest); idle.Before(at) {
		at, why = idle, "its idle deadline"
	}
	return at, why
}

// idles waits until nothing is left in the store, which nobody uses.
func (r *run) idles(ctx context.Context, l *life) {
	r.recorder.Mark("nobody is there")
	now := l.limits.now()
	end := time.Now().Add(now.idle + l.resolution(time.Now()) + r.late.Allowance())
	for l.store.Len() > 0 && time.Now().Before(end) {
		began := time.Now()
		if r.watch(ctx, l, nil, pollEvery+1); ctx.Err() != nil {
			return
		}
		end = end.Add(max(0, time.Since(began)-2*pollEvery)) // a machine that stood still has not given the store its time
		end = later(end, time.Now().Add(r.late.Allowance()-promise.Grace))
	}
	r.Expect(promise.Prompt, l.store.Len() == 0, "%d sessions are there although nobody has used any for longer than the idle timeout", l.store.Len())
	r.quiet()
}
