// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/c8e4ff29/layover"
)

// Gauges is what whoever drives a store knows of it at one moment.
type Gauges struct {
	Max, Live, Retired, Closing int

	// Created and Ended count from the beginning of the store.
	Created uint64
	Ended   layover.Ends
}

const (
	// limit is how many samples a recorder keeps: more than a page has columns of
	// pixels for. It is even, so that pairs are merged without a rest.
	limit = 1000

	// shards is how many goroutines can record a call at once. Chance decides who
	// goes where: a call holds its shard for some nanoseconds, so few meet.
	shards = 16
)

// Recorder records a run while it goes on. Use [NewRecorder]. Safe for concurrent
// use. Times are counted from the call of NewRecorder, and durations are recorded
// with two significant digits.
//
// It keeps at most 1000 samples. When there are more, each two neighbours are
// merged into one, and from then on every sample covers twice as many intervals. A
// merged sample ends when the later one did and has its totals. Max, Live and Retired
// are those of the moment at which more places were taken, as they have a meaning only
// together. Every other gauge is the larger of both. N of its spreads is the sum, and
// the percentiles and Max are the larger of both: the true ones of both intervals
// together are no higher.
type Recorder struct {
	began time.Time
	every time.Duration
	calls [shards]callShard

	mu      sync.Mutex
	lag     *hdrhistogram.Histogram
	latency *hdrhistogram.Histogram // of one interval, while it is closed
	spare   *hdrhistogram.Histogram // empty
	total   Sample                  // the totals of the stores before this one
	last    Sample                  // the latest, as it was returned
	covers  int                     // intervals that a sample covers
	newest  int                     // intervals that the last of the samples covers
	samples []Sample
	marks   []Mark
}

// callShard records the calls of those whom chance sends there.
type callShard struct {
	mu      sync.Mutex
	failed  uint64
	latency *hdrhistogram.Histogram
	_       [64]byte // the next one's mutex is on another cache line
}

// NewRecorder returns a recorder for a run that should take that long. If it takes
// longer or shorter, only [Recorder.Every] fits less.
func NewRecorder(expected time.Duration) *Recorder {
	r := &Recorder{
		began:   time.Now(),
		every:   min(max(expected/200, 50*time.Millisecond), time.Second),
		lag:     newHistogram(),
		latency: newHistogram(),
		spare:   newHistogram(),
		covers:  1,
	}
	for i := range r.calls {
		r.calls[i].latency = newHistogram()
	}
	return r
}

// longest is what a longer duration is recorded as.
const longest = time.Hour

// newHistogram returns one of nanoseconds.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(longest), 2) }

// Every returns how often Sample should be called: about 200 times in the time that
// the run should take, but neither more often than every 50 ms nor less often than
// every second.
func (r *Recorder) Every() time.Duration { return r.every }

// Call records one call, how long it took and whether it failed. It is for hot
// paths: callers hardly ever wait for each other, and never for a sample to be
// computed.
func (r *Recorder) Call(d time.Duration, failed bool) {
	s := &r.calls[rand.Uint32N(shards)]
	s.mu.Lock()
	record(s.latency, d)
	if failed {
		s.failed++
	}
	s.mu.Unlock()
}

// Lag records how long after its deadline the Close of a session began.
func (r *Recorder) Lag(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	record(r.lag, d)
}

// record cannot fail: the duration is brought into the range of the histogram.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(int64(min(max(d, 0), longest)))
}

// Mark notes that something begins now which the samples will show.
func (r *Recorder) Mark(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marks = append(r.marks, Mark{At: time.Since(r.began), Text: text})
}

// NewStore tells that the next gauges are those of another store, whose totals begin
// at zero. The totals of the samples go on. What ends in the old store after the
// last sample of it is not in them, so take one when it has been shut down.
func (r *Recorder) NewStore() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total = r.last
}

// Sample closes the interval that began with the sample before and returns what was
// recorded in it, together with the gauges and with what the process takes.
func (r *Recorder) Sample(g Gauges) Sample {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Sample{
		At:         time.Since(r.began),
		Max:        g.Max,
		Live:       g.Live,
		Retired:    g.Retired,
		Closing:    g.Closing,
		Goroutines: runtime.NumGoroutine(),
		Heap:       heap[0].Value.Uint64(),
		Created:    r.total.Created + g.Created,
		Ended:      r.total.Ended,
		Errors:     r.last.Errors + r.collect(),
		Latency:    spread(r.latency),
		Lag:        spread(r.lag),
	}
	for i, n := range g.Ended {
		s.Ended[i] += n
	}
	s.Calls = r.last.Calls + s.Latency.N
	r.lag.Reset()
	r.last = s
	r.keep(s)
	return s
}

// collect moves what was recorded of calls from the shards into r.latency, and
// returns how many failed. Histograms are exchanged, lest callers wait while one is
// added up.
func (r *Recorder) collect() (failed uint64) {
	r.latency.Reset()
	for i := range r.calls {
		s := &r.calls[i]
		s.mu.Lock()
		full := s.latency
		s.latency = r.spare
		failed += s.failed
		s.failed = 0
		s.mu.Unlock()
		if full.TotalCount() > 0 { // else it takes a while for nothing
			r.latency.Merge(full)
			full.Reset()
		}
		r.spare = full
	}
	return failed
}

// keep adds a sample to those that are kept.
func (r *Recorder) keep(s Sample) {
	if r.newest < r.covers && len(r.samples) > 0 {
		i := len(r.samples) - 1
		r.samples[i] = merge(r.samples[i], s)
		r.newest++
		return
	}
	if len(r.samples) == limit {
		for i := range limit / 2 {
			r.samples[i] = merge(r.samples[2*i], r.samples[2*i+1])
		}
		r.samples = r.samples[:limit/2]
		r.covers *= 2
	}
	r.samples = append(r.samples, s)
	r.newest = 1
}

// Samples returns the samples so far, in the order of time.
func (r *Recorder) Samples() []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.samples)
}

// Marks returns the marks so far, in the order of time.
func (r *Recorder) Marks() []Mark {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.marks)
}

// merge returns one sample for two neighbours. See [Recorder].
func merge(a, b Sample) Sample {
	if a.Live+a.Retired > b.Live+b.Retired {
		b.Max, b.Live, b.Retired = a.Max, a.Live, a.Retired
	}
	b.Closing = max(a.Closing, b.Closing)
	b.Goroutines = max(a.Goroutines, b.Goroutines)
	b.Heap = max(a.Heap, b.Heap)
	b.Latency = mergeSpreads(a.Latency, b.Latency)
	b.Lag = mergeSpreads(a.Lag, b.Lag)
	return b
}

func mergeSpreads(a, b Spread) Spread {
	return Spread{
		N:    a.N + b.N,
		P50:  max(a.P50, b.P50),
		P99:  max(a.P99, b.P99),
		P999: max(a.P999, b.P999),
		Max:  max(a.Max, b.Max),
	}
}

func spread(h *hdrhistogram.Histogram) Spread {
	if h.TotalCount() == 0 {
		return Spread{}
	}
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) }
	return Spread{
		N:    uint64(h.TotalCount()),
		P50:  at(50),
		P99:  at(99),
		P999: at(99.9),
		Max:  time.Duration(h.Max()),
	}
}
