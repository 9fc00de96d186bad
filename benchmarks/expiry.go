// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// expiry has a million entries expire at one instant, while a reader goes on
// with entries that do not.
//
//   - seconds: from the instant until the last Close has run, or nothing if not
//     all have within the limit
//   - p99, stall: 99th percentile in microseconds, and longest, in milliseconds,
//     of the reader's lookups from the instant to the last Close; the clock is
//     read for each, which is in there
//   - p99 before, stall before: the same in up to a second before the instant,
//     to show what the machine does on its own
//   - early: percent that were closed before the instant: evicted or expired
//
// Peers with a time to live for each entry get what is left until the instant.
// Layover has one idle timeout for all: its entries are touched, in one go, so
// long before. Its instant is when the first of them expires, so that the time
// which the touching took counts against it.
func expiry(s *subject, j job) (metrics, error) {
	z := j.Sizes
	keys, senders := uuids(z.Million), sources(z.Million, z.PerSource)
	for ahead := z.Ahead; ahead <= 16*z.Ahead; ahead *= 2 {
		e := &expiring{ahead: ahead, sizes: z, keys: keys, senders: senders, staying: uuids(1024), books: newBooks()}
		ready, err := e.fill(s.kind)
		if err != nil {
			return nil, err
		}
		if ready {
			return e.watch()
		}
		if err := e.close(); err != nil {
			return nil, err
		}
		e.peer = nil
		runtime.GC()
	}
	return nil, errors.New("the machine is too slow to fill so many in time")
}

type expiring struct {
	peer
	ahead   time.Duration
	sizes   sizes
	keys    []string
	senders []string
	staying []string
	books   *books
	instant time.Time
}

// fill reports whether it was done before the first entry expired.
func (e *expiring) fill(k kind) (bool, error) {
	p, err := k.open(len(e.keys)+len(e.keys)/10+2*len(e.staying), e.ahead)
	if err != nil {
		return false, err
	}
	e.peer = p
	others := newBooks()
	e.instant = time.Now().Add(e.ahead)
	ttl, own := p.(ttlPeer)
	for _, k := range e.staying {
		if own {
			ttl.putFor(k, others.value(), hour)
		} else {
			p.put(k, "reader", others.value())
		}
	}
	e.inHalves(func(i int) {
		v := e.books.value()
		for range 100 {
			if own && ttl.putFor(e.keys[i], v, time.Until(e.instant)) || !own && p.put(e.keys[i], e.senders[i], v) {
				return
			}
			p.settle()
		}
		_ = v.Close()
	})
	p.settle()
	runtime.GC()
	if time.Now().After(e.instant) {
		return false, nil
	}
	if !own {
		touched := time.Now()
		e.inHalves(func(i int) { p.get(e.keys[i]) })
		if time.Now().After(e.instant) {
			return false, nil
		}
		e.instant = touched.Add(e.ahead)
	}
	return true, nil
}

func (e *expiring) inHalves(f func(i int)) {
	var wg sync.WaitGroup
	half := len(e.keys) / 2
	for _, r := range [][2]int{{0, half}, {half, len(e.keys)}} {
		wg.Go(func() {
			for i := r[0]; i < r[1]; i++ {
				f(i)
			}
		})
	}
	wg.Wait()
}

// watch reads until all is closed.
func (e *expiring) watch() (metrics, error) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	before, during := newHistogram(), newHistogram()
	n := int64(len(e.keys))
	closedEarly := e.books.closed.Value()
	wg.Go(func() { e.read(&stop, before, during) })
	time.Sleep(time.Until(e.instant))
	last := e.books.wait(n, e.sizes.Limit, e.sizes.Limit)
	stop.Store(true)
	wg.Wait()

	m := metrics{
		"p99": float64(during.ValueAtQuantile(99)) / 1e3, "stall": float64(during.Max()) / 1e6,
		"p99 before": float64(before.ValueAtQuantile(99)) / 1e3, "stall before": float64(before.Max()) / 1e6,
		"early": percent(closedEarly, n),
	}
	if e.books.closed.Value() >= n {
		m["seconds"] = max(0, last.Sub(e.instant).Seconds())
	}
	e.books.verdict(n, m)
	return m, e.close()
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute), 3) }

// read looks up what stays. What the instant falls into counts as during.
func (e *expiring) read(stop *atomic.Bool, before, during *hdrhistogram.Histogram) {
	last := time.Now()
	for i := 0; !stop.Load(); i++ {
		e.get(e.staying[i&1023])
		now := time.Now()
		h := before
		if now.After(e.instant) {
			h = during
		}
		if now.After(e.instant.Add(-time.Second)) {
			_ = h.RecordValue(max(1, int64(now.Sub(last)))) // an hour would not fit, and does not happen
		}
		last = time.Now()
	}
}
