// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover"
)

func TestEveryCallIsInOneSample(t *testing.T) {
	const goroutines, each = 16, 2000
	r := NewRecorder(time.Second)
	var callers sync.WaitGroup
	for g := range goroutines {
		callers.Go(func() {
			for i := range each {
				r.Call(time.Duration(g*each+i)*time.Nanosecond, i%4 == 0)
				if i%100 == 0 {
					r.Lag(time.Millisecond)
					r.Mark("a hundred more")
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		callers.Wait()
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		r.Sample(Gauges{})
		r.Samples()
	}
	var latency, lag uint64
	samples := r.Samples()
	for _, s := range samples {
		latency += s.Latency.N
		lag += s.Lag.N
		if s.Calls != latency {
			t.Fatalf("%d calls in total, want the sum of the intervals, %d", s.Calls, latency)
		}
	}
	last := samples[len(samples)-1]
	if last.Calls != goroutines*each || last.Errors != goroutines*each/4 {
		t.Errorf("%d calls and %d errors, want %d and %d", last.Calls, last.Errors, goroutines*each, goroutines*each/4)
	}
	if want := uint64(goroutines * each / 100); lag != want || len(r.Marks()) != int(want) {
		t.Errorf("%d lags and %d marks, want %d of each", lag, len(r.Marks()), want)
	}
}

func TestPercentilesHaveTwoSignificantDigits(t *testing.T) {
	r := NewRecorder(time.Second)
	for i := range 1000 {
		r.Call(time.Duration(i+1)*time.Microsecond, false)
	}
	r.Call(-time.Second, false)  // nobody should, but a clock may
	r.Call(48*time.Hour, false)  // longer than what can be told
	r.Lag(1234567 * time.Second) // likewise
	s := r.Sample(Gauges{})
	if s.Latency.N != 1002 || s.Lag.N != 1 {
		t.Fatalf("%d calls and %d lags, want 1002 and 1", s.Latency.N, s.Lag.N)
	}
	for _, c := range []struct {
		name      string
		got, want time.Duration
	}{
		{"p50", s.Latency.P50, 500 * time.Microsecond},
		{"p99", s.Latency.P99, 991 * time.Microsecond},
		{"p99.9", s.Latency.P999, time.Millisecond},
		{"max", s.Latency.Max, time.Hour},
		{"max of the lag", s.Lag.Max, time.Hour},
	} {
		if off := float64(c.got)/float64(c.want) - 1; off < -0.01 || off > 0.01 {
			t.Errorf("%s is %s, want %s", c.name, c.got, c.want)
		}
	}
	if again := r.Sample(Gauges{}); again.Latency != (Spread{}) || again.Lag != (Spread{}) || again.Calls != 1002 {
		t.Errorf("nothing happened in the second interval, but it has %+v", again)
	}
}

func TestASampleTellsWhatTheProcessTakes(t *testing.T) {
	s := NewRecorder(time.Second).Sample(Gauges{Max: 9, Live: 8, Retired: 7, Closing: 6})
	if s.Goroutines < 2 || s.Heap == 0 {
		t.Errorf("%d goroutines and %d bytes, want those of this test", s.Goroutines, s.Heap)
	}
	if s.Max != 9 || s.Live != 8 || s.Retired != 7 || s.Closing != 6 {
		t.Errorf("%+v has other gauges than those it was told", s)
	}
}

func TestTotalsGoOnOverSeveralStores(t *testing.T) {
	r := NewRecorder(time.Second)
	gauges := func(created, idle, killed uint64) (g Gauges) {
		g.Created = created
		g.Ended[layover.ReasonIdle], g.Ended[layover.ReasonKilled] = idle, killed
		return g
	}
	r.Sample(gauges(5, 1, 0))
	r.Sample(gauges(10, 4, 6))
	r.NewStore()
	r.Sample(gauges(0, 0, 0))
	r.Sample(gauges(3, 3, 0))
	r.NewStore()
	r.NewStore() // one of which there is no sample
	got := r.Sample(gauges(2, 0, 1))
	if want := gauges(15, 7, 7); got.Created != want.Created || got.Ended != want.Ended {
		t.Errorf("created %d, ended %v, want %d, %v", got.Created, got.Ended, want.Created, want.Ended)
	}
	for i, want := range []uint64{5, 10, 10, 13, 15} {
		if s := r.Samples()[i]; s.Created != want {
			t.Errorf("sample %d: %d created, want %d", i, s.Created, want)
		}
	}
}

func TestTimesAreThoseSinceTheBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(20 * time.Second)
		for range 3 {
			<-time.After(r.Every())
			r.Sample(Gauges{})
		}
		r.Mark("the end")
		if at := r.Samples()[1].At; at != 200*time.Millisecond {
			t.Errorf("the second sample is of %s, want 200ms", at)
		}
		if marks := r.Marks(); len(marks) != 1 || marks[0] != (Mark{300 * time.Millisecond, "the end"}) {
			t.Errorf("marks %v, want one, after 300ms", marks)
		}
	})
}

func TestHowOftenToSample(t *testing.T) {
	for expected, want := range map[time.Duration]time.Duration{
		0:                50 * time.Millisecond,
		time.Second:      50 * time.Millisecond,
		40 * time.Second: 200 * time.Millisecond,
		24 * time.Hour:   time.Second,
	} {
		if got := NewRecorder(expected).Every(); got != want {
			t.Errorf("a run of %s is sampled every %s, want %s", expected, got, want)
		}
	}
}

// However long a run takes, its samples fit on a page; what is no longer told apart
// keeps peaks and totals.
func TestMergedSamplesKeepPeaksAndTotals(t *testing.T) {
	r := NewRecorder(time.Second)
	rng := rand.New(rand.NewPCG(1, 2))
	var all []Sample
	for i := range 4*limit + 1234 {
		s := Sample{At: time.Duration(i), Max: rng.IntN(100), Live: rng.IntN(100), Retired: rng.IntN(100), Closing: rng.IntN(100)}
		s.Goroutines, s.Heap = rng.IntN(100), rng.Uint64N(100)
		s.Calls, s.Errors, s.Created, s.Ended[i%len(s.Ended)] = rng.Uint64(), rng.Uint64(), rng.Uint64(), rng.Uint64()
		for _, spread := range []*Spread{&s.Latency, &s.Lag} {
			*spread = Spread{N: rng.Uint64N(100), P50: time.Duration(rng.IntN(100)), P99: time.Duration(rng.IntN(100))}
			spread.P999, spread.Max = time.Duration(rng.IntN(100)), time.Duration(rng.IntN(100))
		}
		all = append(all, s)
		r.keep(s)
		if n := len(r.samples); n > limit {
			t.Fatalf("%d samples are kept, want at most %d", n, limit)
		}
	}
	kept := r.Samples()
	if len(kept) < limit/2 {
		t.Errorf("%d samples are kept, want at least %d", len(kept), limit/2)
	}
	rest := all
	for i, got := range kept {
		n := min(8, len(rest)) // merged three times, after 1000, 2000 and 4000
		if want := summary(rest[:n]); got != want {
			t.Fatalf("sample %d of %d intervals is\n%+v, want\n%+v", i, n, got, want)
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		t.Errorf("%d intervals are in no sample", len(rest))
	}
}

// summary is what a sample for all of these should be.
func summary(all []Sample) Sample {
	s := all[len(all)-1]
	most := func(of func(*Sample) *int) {
		for i := range all {
			*of(&s) = max(*of(&s), *of(&all[i]))
		}
	}
	most(func(s *Sample) *int { return &s.Closing })
	most(func(s *Sample) *int { return &s.Goroutines })
	s.Latency, s.Lag = Spread{}, Spread{}
	for i := range all {
		one := all[len(all)-1-i]
		if one.Live+one.Retired > s.Live+s.Retired {
			s.Max, s.Live, s.Retired = one.Max, one.Live, one.Retired
		}
		s.Heap = max(s.Heap, one.Heap)
		for _, sum := range []struct{ sum, one *Spread }{{&s.Latency, &one.Latency}, {&s.Lag, &one.Lag}} {
			sum.sum.N += sum.one.N
			sum.sum.P50 = max(sum.sum.P50, sum.one.P50)
			sum.sum.P99 = max(sum.sum.P99, sum.one.P99)
			sum.sum.P999 = max(sum.sum.P999, sum.one.P999)
			sum.sum.Max = max(sum.sum.Max, sum.one.Max)
		}
	}
	return s
}

func BenchmarkRecorderCall(b *testing.B) {
	r := NewRecorder(time.Minute)
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			r.Call(time.Microsecond, false)
		}
	})
	b.Run("64 goroutines", func(b *testing.B) {
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			d := time.Duration(rand.IntN(1e6))
			for pb.Next() {
				r.Call(d, false)
			}
		})
	})
}

func BenchmarkRecorderSample(b *testing.B) {
	r := NewRecorder(time.Minute)
	for b.Loop() {
		r.Sample(Gauges{})
	}
}
