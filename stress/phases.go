// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/machine"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

// course is the way of a run through its phases.
type course struct {
	config
	*promise.Book
	before   baseline
	meter    *meter
	progress *progress
	secrets  *secrets
	luggage  *luggage
	tally    *tally
	server   *server       // nil: there is none at the moment
	servers  int           // that there were
	stats    layover.Stats // of this one, as last seen
	past     layover.Stats // of those before it, summed up
}

func newCourse(c config, p *progress) *course {
	b := promise.NewBook()
	return &course{config: c, Book: b, before: newBaseline(), meter: newMeter(c), progress: p,
		secrets: newSecrets(b), luggage: new(luggage), tally: newTally()}
}

// run goes through the phases until ctx ends or a promise is broken, and writes the
// report to out. The error is the broken promise.
func run(ctx context.Context, c config, phases []scenario.Phase, out io.Writer, p *progress) (series.Run, error) {
	r := newCourse(c, p)
	shares := 0
	for _, ph := range phases {
		shares += ph.Share
	}
	began, alive := time.Now(), true
	for _, ph := range phases {
		if ctx.Err() != nil || !alive || r.Verdict() != nil {
			break
		}
		r.meter.series.Mark(ph.String())
		alive = r.goesThrough(ctx, ph, c.duration*time.Duration(ph.Share)/time.Duration(shares))
	}
	if alive && r.server != nil {
		r.shutDown()
	}
	r.meter.took = time.Since(began)
	p.end()
	r.meter.report(out, c, r.Book, r.before, r.total(), r.tally)
	return c.page(r.Book, r.meter.series, began, r.meter.took, ofFlight), r.Verdict()
}

// goesThrough is one phase. It reports whether the store is alive: if it hangs, so
// would a shutdown.
func (r *course) goesThrough(ctx context.Context, ph scenario.Phase, d time.Duration) (alive bool) {
	if r.server == nil && !r.startServer() {
		return false
	}
	during, over := context.WithCancel(ctx) // no deadline: calls would take it for theirs
	defer over()
	defer time.AfterFunc(d, over).Stop()
	clients, leave := context.WithCancel(ctx)
	defer leave()
	people := r.populate(ph)
	r.server.mishaps.begin(ph.Faults)
	defer r.server.mishaps.end()
	people.start(clients)
	repaired := r.impair(during, ph.Faults)
	if !r.observe(during, nil) {
		return false
	}
	over()
	repaired()
	if ctx.Err() == nil && r.Verdict() == nil {
		r.endsUnder(clients, people, ph.End)
	}
	leave()
	patience := r.Patience()
	r.Expect(promise.Answered, await.Return(patience, people.wait), "calls still run %s after they were canceled", patience)
	r.server.mishaps.end()
	return r.endsAfter(ctx, ph.End)
}

// populate makes the phase's clients.
func (r *course) populate(ph scenario.Phase) *population {
	p := &population{config: r.config, server: r.server, watch: r.server.watch, secrets: r.secrets, meter: r.meter, tally: r.tally, luggage: r.luggage,
		began: time.Now(), restless: ph.End == scenario.Stops || ph.End == scenario.Cut, first: sum(r.tally.number), counts: split(r.clients, ph.Flight)}
	r.tally.add(p.counts)
	return p
}

// impair does what is not done to single calls, until ctx ends. It returns what waits
// until all is put back.
func (r *course) impair(ctx context.Context, f scenario.Faults) (repaired func()) {
	machines, options := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(machines)
		machine.Impair(ctx, f)
	}()
	go func() {
		defer close(options)
		if f.Has(scenario.Reconfigured) {
			r.server.reconfigure(ctx, r.config, decisions(r.seed, sum(r.tally.number), 0))
		}
	}()
	return func() {
		<-machines
		<-options
	}
}

// startServer starts the next server, with a store and a watch of its own.
func (r *course) startServer() bool {
	w := newWatch(r.config, r.Book, r.before)
	w.lagged = r.meter.lagged
	srv, err := startServer(r.config, w, r.secrets)
	if !r.Expect(promise.Answered, err == nil, "the server does not start: %v", err) {
		return false
	}
	r.servers++
	srv.number = r.servers
	r.server = srv
	return true
}

// shutDown ends the server and all that belongs to it.
func (r *course) shutDown() {
	r.server.mishaps.end()
	r.server.stop()
	r.stats = r.server.store.Stats()
	r.meter.gaugeNow(r.stats, r.max)
	r.meter.series.NewStore()
	r.server.watch.settle(r.stats, r.meter)
	r.past, r.stats, r.server = r.total(), layover.Stats{}, nil
}

// total returns the store's numbers, over all servers.
func (r *course) total() layover.Stats {
	t := r.stats
	t.Created += r.past.Created
	t.EverConfirmed += r.past.EverConfirmed
	t.Refused += r.past.Refused
	t.Peak = max(t.Peak, r.past.Peak)
	for reason, n := range r.past.Ended {
		t.Ended[reason] += n
	}
	return t
}

// observe polls, and shows how it goes, until ctx ends, a promise is broken or it has
// seen enough; nil: it never has. It reports whether the store is alive.
func (r *course) observe(ctx context.Context, enough func(layover.Stats) bool) (alive bool) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return true
		case <-r.Failed():
			return true
		case <-tick.C:
		}
		if !r.poll() {
			return false
		}
		if enough != nil && enough(r.stats) {
			return true
		}
	}
}

// poll checks once what must be true at any time.
func (r *course) poll() (alive bool) {
	store, w := r.server.store, r.server.watch
	now := make(chan layover.Stats, 1)
	go func() {
		err := store.Check()
		w.Expect(promise.Sound, err == nil, "the store contradicts itself: %v", err)
		r.secrets.check("the store, printed,", fmt.Sprintf("%+v", store))
		now <- store.Stats()
	}()
	select {
	case r.stats = <-now:
	case <-time.After(answerTime):
		return w.Expect(promise.Answered, false, "the store did not tell its Stats within %s: it hangs", answerTime)
	}
	w.probe()
	w.poll(r.stats, time.Now())
	r.meter.sample()
	r.meter.gauge(r.stats, w.inForce().max, r.progress)
	return true
}

const pollEvery = 100 * time.Millisecond
