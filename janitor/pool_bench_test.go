// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// benchPool runs nothing, as cheaply as can be told.
func benchPool(workers int) *Pool[*int] {
	return NewPool(PoolConfig[*int]{
		Workers: workers, HungAfter: time.Minute, MaxHung: 1,
		Run:  func(*int) error { return nil },
		Done: func(*int, error) {},
		Hung: func(*int) {},
	})
}

// share has several goroutines do n things together.
func share(goroutines, n int, do func()) {
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g; i < n; i += goroutines {
				do()
			}
		})
	}
	wg.Wait()
}

func forEach(b *testing.B, do func(b *testing.B, submitters, workers int)) {
	for _, submitters := range []int{1, 16} {
		for _, workers := range []int{1, 16} {
			b.Run(fmt.Sprintf("submitters=%d/workers=%d", submitters, workers), func(b *testing.B) {
				b.ReportAllocs()
				do(b, submitters, workers)
			})
		}
	}
}

// A steady stream: the queue is worked off while it is filled.
func BenchmarkPoolStream(b *testing.B) {
	forEach(b, func(b *testing.B, submitters, workers int) {
		p := benchPool(workers)
		v := new(int)
		share(submitters, b.N, func() { p.Submit(v) })
		p.Drain(b.Context())
	})
}

// One value after the other: submit, wait for its end, again.
func BenchmarkPoolOneAtATime(b *testing.B) {
	for _, workers := range []int{1, 16} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.ReportAllocs()
			done := make(chan struct{}, 1)
			p := NewPool(PoolConfig[*int]{
				Workers: workers, HungAfter: time.Minute, MaxHung: 1,
				Run:  func(*int) error { return nil },
				Done: func(*int, error) { done <- struct{}{} },
			})
			v := new(int)
			for range b.N {
				p.Submit(v)
				<-done
			}
			p.Drain(b.Context())
		})
	}
}

// One value now and then: submit it, do something else for about a microsecond.
func BenchmarkPoolNowAndThen(b *testing.B) {
	b.ReportAllocs()
	p := benchPool(2)
	v := new(int)
	x := 0
	for range b.N {
		p.Submit(v)
		for i := range 1000 {
			x += i & x
		}
	}
	*v = x
	p.Drain(b.Context())
}

// A queue that is full beforehand: what running one costs.
func BenchmarkPoolRun(b *testing.B) {
	for _, workers := range []int{1, 16} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.ReportAllocs()
			gate := make(chan struct{})
			p := NewPool(PoolConfig[*int]{
				Workers: workers, HungAfter: time.Minute, MaxHung: 1,
				Run: func(v *int) error {
					if v == nil {
						<-gate
					}
					return nil
				},
				Done: func(*int, error) {},
				Hung: func(*int) {},
			})
			for range workers {
				p.Submit(nil)
			}
			v := new(int)
			for range b.N {
				p.Submit(v)
			}
			b.ResetTimer()
			close(gate)
			p.Drain(b.Context())
		})
	}
}

func BenchmarkPoolBurst(b *testing.B) {
	const burst = 100_000
	forEach(b, func(b *testing.B, submitters, workers int) {
		v := new(int)
		p := benchPool(workers)
		for b.Loop() {
			share(submitters, burst, func() { p.Submit(v) })
			p.Drain(b.Context())
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/burst, "ns/value")
	})
}

// The same with one call.
func BenchmarkPoolSubmitAll(b *testing.B) {
	vs := make([]*int, 100_000)
	p := benchPool(1)
	for b.Loop() {
		p.SubmitAll(vs)
		p.Drain(b.Context())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(vs)), "ns/value")
}
