// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"sync"
	"time"
)

// outcome is how an operation ended.
type outcome int

const (
	done outcome = iota
	hit
	miss
	refused
	outcomes
)

// batch is how many operations a goroutine does between looks at the clock, so
// that these do not count.
const batch = 64

// timing is what was done in a while.
type timing struct {
	counts  [outcomes]int64
	began   time.Time
	ended   time.Time
	mallocs uint64
}

func (t timing) ops() (n int64) {
	for _, c := range t.counts {
		n += c
	}
	return n
}

// nanoseconds is the time that one operation took of all procs together.
func (t timing) nanoseconds() float64 {
	return float64(t.ended.Sub(t.began)) / float64(t.ops())
}

// measure has goroutines repeat op for the time d. Each counts from zero, in
// numbers of its own. If there is an afterwards, it gets the number of
// operations, and says when it ended.
func measure(procs, goroutines int, d time.Duration, op func(worker, i int) outcome, afterwards func(ops int64) time.Time) (t timing) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
	counts := make([][outcomes]int64, goroutines)
	var (
		wg       sync.WaitGroup
		ready    = make(chan struct{})
		deadline time.Time
	)
	for w := range goroutines {
		wg.Go(func() {
			<-ready
			var c [outcomes]int64
			// Each looks at the clock itself: who would tell them to stop may have
			// to queue up behind them for a processor.
			for i := 0; i == 0 || time.Now().Before(deadline); {
				for range batch {
					c[op(w, i)]++
					i++
				}
			}
			counts[w] = c
		})
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	t.began = time.Now()
	deadline = t.began.Add(d)
	close(ready)
	wg.Wait()
	for _, c := range counts {
		for i, n := range c {
			t.counts[i] += n
		}
	}
	t.ended = time.Now()
	if afterwards != nil {
		t.ended = afterwards(t.ops())
	}
	runtime.ReadMemStats(&after)
	t.mallocs = after.Mallocs - before.Mallocs
	return t
}

// at spreads the goroutines and the passes over the n lookups, a power of two.
func at(n, pass, worker, i int) int { return (pass*104729 + worker*7919 + i) & (n - 1) }

// fill puts all keys, and waits until a peer that takes its time has them.
func fill(p peer, keys, sources []string, b *books) {
	for i, k := range keys {
		v := b.value()
		for range 100 {
			if p.put(k, sources[i], v) {
				break
			}
			p.settle()
		}
	}
	p.settle()
}

// useAll has every session be used once by a later call, which confirms it.
func useAll(p peer, keys []string) {
	for _, k := range keys {
		p.use(k)
	}
}

// order is how keys are looked up.
type order int

const (
	zipfian order = iota
	uniform
	hot
)

// hits is a peer that has what is looked up.
type hits struct {
	peer
	lookups [hot + 1][]string
}

func (s *subject) filledHits(z sizes) (*hits, error) {
	if s.hits != nil {
		return s.hits, nil
	}
	p, err := s.open(2*z.Entries, hour)
	if err != nil {
		return nil, err
	}
	keys := uuids(z.Entries)
	fill(p, keys, sources(z.Entries, z.PerSource), newBooks())
	useAll(p, keys)
	s.hits = &hits{peer: p, lookups: [...][]string{
		zipfian: copies(keys, zipfIndexes(z.Lookups, z.Entries)),
		uniform: copies(keys, uniformIndexes(z.Lookups, z.Entries)),
		hot:     copies(keys, make([]int, min(1024, z.Lookups))),
	}}
	return s.hits, nil
}

// hitting looks up entries that exist.
func hitting(o order, leases bool) func(*subject, job, int, int) (metrics, error) {
	return func(s *subject, j job, procs, goroutines int) (metrics, error) {
		h, err := s.filledHits(j.Sizes)
		if err != nil {
			return nil, err
		}
		get, lookups := h.get, h.lookups[o]
		if leases {
			get = h.use
		}
		t := measure(procs, goroutines, j.Time, func(w, i int) outcome {
			if get(lookups[at(len(lookups), j.Pass, w, i)]) {
				return hit
			}
			return miss
		}, nil)
		return metrics{"ns": t.nanoseconds(), "hits": percent(t.counts[hit], t.ops())}, nil
	}
}

// evict is a peer that has room for a fifth of what is looked up.
type evict struct {
	peer
	hit     func(key string) bool
	books   *books
	lookups []string
}

func (e *evict) op(n int) outcome {
	key := e.lookups[n&(len(e.lookups)-1)]
	if n%10 != 0 {
		if e.hit(key) {
			return hit
		}
		return miss
	}
	if v := e.books.value(); !e.put(key, "", v) {
		_ = v.Close()
		return refused
	}
	return done
}

func (s *subject) filledEvict(z sizes, leases bool) (*evict, error) {
	if e := s.evict[leases]; e != nil {
		return e, nil
	}
	capacity, open := z.Entries/5, s.open
	if !leases && s.openLRU != nil {
		open = s.openLRU
	}
	p, err := open(capacity, hour)
	if err != nil {
		return nil, err
	}
	keys := uuids(z.Entries)
	senders := make([]string, capacity) // all from one source: the order is that of use alone
	e := &evict{peer: p, hit: p.get, books: newBooks(), lookups: copies(keys, zipfIndexes(z.Lookups, z.Entries))}
	if leases {
		e.hit = p.use
	}
	fill(p, keys[z.Entries-capacity:], senders, e.books) // with the rarest, unconfirmed
	for i := range 2 * z.Lookups {                       // all have the same time to learn
		e.op(i)
	}
	if s.evict == nil {
		s.evict = map[bool]*evict{}
	}
	s.evict[leases] = e
	return e, nil
}

// evicting is nine lookups, then one put.
func evicting(leases bool) func(*subject, job, int, int) (metrics, error) {
	return func(s *subject, j job, procs, goroutines int) (metrics, error) {
		e, err := s.filledEvict(j.Sizes, leases)
		if err != nil {
			return nil, err
		}
		t := measure(procs, goroutines, j.Time, func(w, i int) outcome { return e.op(j.Pass*104729 + w*7919 + i) }, nil)
		m := metrics{"ns": t.nanoseconds(), "refused": percent(t.counts[refused], t.counts[done]+t.counts[refused])}
		if s.bounded {
			m["hits"] = percent(t.counts[hit], t.counts[hit]+t.counts[miss])
		}
		return m, nil
	}
}

// churn is a peer beside whose entries others come and go.
type churn struct {
	peer
	keys    []string
	sources []string
	fresh   int
}

const churners = 128 // goroutines at most

func (s *subject) filledChurn(z sizes) (*churn, error) {
	if s.churn != nil {
		return s.churn, nil
	}
	p, err := s.open(2*z.Entries, hour)
	if err != nil {
		return nil, err
	}
	others := uuids(z.Entries)
	fill(p, others, sources(z.Entries, z.PerSource), newBooks())
	useAll(p, others)
	n := churners * z.Fresh
	s.churn = &churn{peer: p, keys: uuids(n), sources: sources(n, z.PerSource), fresh: z.Fresh}
	return s.churn, nil
}

// churning puts and removes. Every goroutine has keys of its own.
func churning(s *subject, j job, procs, goroutines int) (metrics, error) {
	c, err := s.filledChurn(j.Sizes)
	if err != nil {
		return nil, err
	}
	b := newBooks()
	t := measure(procs, goroutines, j.Time, func(w, i int) outcome {
		n := w*c.fresh + i&(c.fresh-1)
		v := b.value()
		if !c.put(c.keys[n], c.sources[n], v) {
			_ = v.Close()
			return refused
		}
		c.remove(c.keys[n])
		return done
	}, func(ops int64) time.Time { return b.wait(ops, 300*time.Millisecond, 5*time.Second) })
	m := metrics{"ns": t.nanoseconds(), "allocs": float64(t.mallocs)/float64(t.ops()) - 1,
		"refused": percent(t.counts[refused], t.ops())}
	b.verdict(t.ops(), m)
	return m, nil
}

func percent(n, of int64) float64 { return 100 * float64(n) / float64(max(1, of)) }
