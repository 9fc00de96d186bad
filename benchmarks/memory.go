// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"slices"
	"time"
)

// keyBytes is what Go allocates for a string of 36 bytes.
const keyBytes = 48

// memory fills a peer with a million entries, and removes them again. Values
// exist before. Keys are made when they are needed, and are the peer's to keep:
// most hold on to the string, layover copies short ones into its entries,
// ristretto keeps a hash. There is a twentieth more room than needed, so that
// nobody evicts.
//
//   - whole: bytes for each entry that can be found, its key included
//   - overhead: the same without the key, if the peer keeps it
//   - kept: bytes for each entry once all are removed
//   - gc: milliseconds of a full garbage collection, beyond that of the
//     values alone
//   - live: share of the entries that can be found, in percent
func memory(s *subject, j job) (metrics, error) {
	n := j.Sizes.Million
	values, b := make([]value, n), newBooks()
	empty, gcEmpty := heap()

	p, err := s.open(n+n/20+100, hour)
	if err != nil {
		return nil, err
	}
	for i := range n {
		values[i].books = b
		k := memoryKey(i)
		for range 100 {
			if p.put(k, "", &values[i]) {
				break
			}
			p.settle()
		}
	}
	p.settle()
	filled, gcFilled := heap()
	var live int64
	for i := range n {
		if p.get(memoryKey(i)) {
			live++
		}
	}

	for i := range n {
		p.remove(memoryKey(i))
		if i%1000 == 0 {
			p.settle()
		}
	}
	p.settle()
	b.wait(int64(n), 2*time.Second, time.Minute)
	removed, _ := heap()

	whole := (filled - empty) / float64(max(1, live))
	m := metrics{
		"whole":    whole,
		"overhead": whole,
		"kept":     max(0, (removed-empty)/float64(n)),
		"gc":       max(0, gcFilled-gcEmpty),
		"live":     percent(live, int64(n)),
	}
	if !s.keyless {
		m["overhead"] -= keyBytes
	}
	b.verdict(int64(n), m)
	runtime.KeepAlive(values)
	return m, p.close()
}

// heap returns the bytes that survive garbage collection, and the median of how
// many milliseconds one takes. It takes more than one until pools are empty.
func heap() (bytes, ms float64) {
	times := make([]float64, 5)
	for i := range times {
		began := time.Now()
		runtime.GC()
		times[i] = time.Since(began).Seconds() * 1000
	}
	slices.Sort(times)
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc), times[len(times)/2]
}
