// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

// op is a kind of call.
type op int

const (
	getInfo op = iota
	doGet
	streamed
	setOptions
	getOptions
	closeSession
	putUpdate
	begin
	endTransaction
	ops
)

// String returns the name of the call.
func (o op) String() string {
	return [ops]string{"GetFlightInfo", "DoGet", "DoGet, stream *", "SetSessionOptions", "GetSessionOptions", "CloseSession",
		"DoPut, update", "BeginTransaction", "EndTransaction"}[o]
}

// meter measures. Safe for concurrent use, but for what run sets at the end.
type meter struct {
	config
	series  *series.Recorder
	sampled time.Time // when that last took a sample
	began   time.Time
	took    time.Duration

	mu       sync.Mutex
	latency  [ops]*hdrhistogram.Histogram // microseconds
	lag      *hdrhistogram.Histogram      // microseconds, from a session's deadline to its Close
	errors   [ops]uint64
	codes    map[codes.Code]uint64
	calls    uint64
	peakHeap uint64

	goroutines, heap uint64 // in the end
	peakGoroutines   uint64
}

func newMeter(c config) *meter {
	m := &meter{config: c, series: series.NewRecorder(c.duration), began: time.Now(), codes: make(map[codes.Code]uint64)}
	for o := range m.latency {
		m.latency[o] = newHistogram()
	}
	m.lag = newHistogram()
	return m
}

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, time.Hour.Microseconds(), 2) }

// lagged notes how long after its deadline the Close of a session began.
func (m *meter) lagged(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.lag.RecordValue(max(1, d.Microseconds()))
	m.series.Lag(d)
}

func (m *meter) record(o op, d time.Duration, code codes.Code) {
	m.series.Call(d, code != codes.OK)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	_ = m.latency[o].RecordValue(max(1, d.Microseconds())) // only what lasts an hour is too much
	if code != codes.OK {
		m.errors[o]++
		m.codes[code]++
	}
}

// sample notes how much there is of what should be little.
func (m *meter) sample() (heap, goroutines uint64) {
	s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(s)
	heap, goroutines = s[0].Value.Uint64(), uint64(runtime.NumGoroutine())
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peakHeap, m.peakGoroutines = max(m.peakHeap, heap), max(m.peakGoroutines, goroutines)
	return heap, goroutines
}

// gauge takes a sample of a store with so many places if it is time for one, and
// shows it.
func (m *meter) gauge(s layover.Stats, most int, p *progress) {
	if now := time.Now(); now.Sub(m.sampled) >= m.series.Every() {
		m.sampled = now
		p.show(m.gaugeNow(s, most))
	}
}

func (m *meter) gaugeNow(s layover.Stats, most int) series.Sample {
	return m.series.Sample(series.Gauges{Max: most, Live: s.Live, Retired: s.Retired, Closing: s.Closing, Created: s.Created, Ended: s.Ended})
}

// totals returns the numbers of calls and of errors so far.
func (m *meter) totals() (calls, errors uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.codes {
		errors += n
	}
	return m.calls, errors
}

// progress shows how it goes: on one line that changes in place on a terminal,
// else on a new line every second.
type progress struct {
	out      io.Writer
	terminal bool
	last     series.Sample // that was shown
}

func newProgress(f *os.File) *progress { return &progress{out: f, terminal: isTerminal(f)} }

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull) // the other such device that there often is
	return err != nil || !os.SameFile(info, null)
}

// columns is how wide anything may be.
const columns = 100

func (p *progress) show(s series.Sample) {
	every := time.Second
	if p.terminal {
		every = 250 * time.Millisecond
	}
	if p.last.At > 0 && s.At-p.last.At < every {
		return
	}
	since := s.At - p.last.At
	line := fmt.Sprintf("%3.0fs live %d/%d new %s  %s  %s/s err %s  %d MiB %d gor",
		s.At.Seconds(), s.Live, s.Max, short(s.Created), ended(s.Ended, brief, short, " "),
		short(uint64(float64(s.Calls-p.last.Calls)/since.Seconds())), short(s.Errors), s.Heap>>20, s.Goroutines)
	p.last = s
	line = line[:min(len(line), columns)]
	if p.terminal {
		fmt.Fprintf(p.out, "\r%-*s", columns-1, line[:min(len(line), columns-1)])
	} else {
		fmt.Fprintln(p.out, line)
	}
}

// end erases the line.
func (p *progress) end() {
	if p.terminal {
		fmt.Fprintf(p.out, "\r%*s\r", columns-1, "")
	}
}

// ended lists how many sessions ended for which reasons.
func ended(all layover.Ends, name func(layover.Reason) string, number func(uint64) string, separator string) string {
	var parts []string
	for r, n := range all {
		if n > 0 {
			parts = append(parts, name(layover.Reason(r))+" "+number(n))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, separator)
}

// brief returns the first letters of a reason.
func brief(r layover.Reason) string { return r.String()[:3] }

// report writes everything that is known in the end.
func (m *meter) report(out io.Writer, c config, b *promise.Book, before baseline, s layover.Stats, t *tally) {
	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	c.heading(line, m.took)
	line("%-22s %10s %10s %10s", "clients", "number", "rounds", "calls")
	for k, kind := range kinds {
		if t.number[k] > 0 {
			line("  %-20s %10d %10s %10s", kind.name, t.number[k], count(t.rounds[k].Load()), count(t.calls[k].Load()))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table(line)
	line("  * until the first message came")
	line("\n%-13s %s", "errors", m.errorList())
	line("%-13s created %s, confirmed %s, refused %s, peak %d of %d", "sessions", count(s.Created), count(s.EverConfirmed), count(s.Refused), s.Peak, c.max)
	line("%-13s %s", "  ended", ended(s.Ended, layover.Reason.String, count, ", "))
	if m.lag.TotalCount() > 0 {
		line("%-13s Close began %s ms after the deadline at p50, %s ms at p99, %s ms at most", "  expired", ms(m.lag, 50), ms(m.lag, 99), ms(m.lag, 100))
	}
	line("%-13s %s at the start, %s at the peak, %s at the end", "heap", size(before.heap), size(m.peakHeap), size(m.heap))
	line("%-13s %d at the start, %d at the peak, %d at the end", "goroutines", before.goroutines, m.peakGoroutines, m.goroutines)
	verdicts(line, b, c.command(), summary{m.took, m.calls, s.Created}, ofFlight)
}

// heading says what the run was.
func (c config) heading(line func(string, ...any), took time.Duration) {
	line("stress: %s, level %s, %d clients for %.1fs of %s", c.scenario, c.level, c.clients, took.Seconds(), c.duration)
	line("idle timeout %s, lifetime %s, unconfirmed %s and %s, at most %d sessions", c.idle, c.lifetime(), c.empty(), c.holding(), c.max)
	line("repeat with: %s\n", c.command())
}

// command returns what does the run again.
func (c config) command() string {
	run := "go run"
	if raceDetector {
		run += " -race"
	}
	what, limits := "-sqlserver "+c.sql, fmt.Sprintf("-idle %s -max %d", c.idle, c.max)
	if c.sql == "" {
		life, empty, holding := c.lifetime(), c.empty(), c.holding()
		if c.idle == 0 { // that suits the level, and they may follow it
			life, empty, holding = c.life, c.unheld, c.held
		}
		what = fmt.Sprintf("-level %s -scenario %s", c.level, c.scenario)
		limits = fmt.Sprintf("-idle %s -lifetime %s -empty %s -holding %s -max %d", c.idle, life, empty, holding, c.max)
	}
	return fmt.Sprintf("%s ./stress %s -duration %s -clients %d %s -seed %d", run, what, c.duration, c.clients, limits, c.seed)
}

// ms returns a quantile of what is in microseconds.
func ms(h *hdrhistogram.Histogram, q float64) string {
	return fmt.Sprintf("%.2f", float64(h.ValueAtQuantile(q))/1000)
}

// table lists the calls.
func (m *meter) table(line func(string, ...any)) {
	line("\n%-22s %10s %10s %10s %10s %10s %10s", "calls", "number", "per s", "errors", "p50 ms", "p99 ms", "p99.9 ms")
	for o, h := range m.latency {
		if h.TotalCount() == 0 {
			continue
		}
		line("  %-20s %10s %10.0f %10s %10s %10s %10s", op(o), count(uint64(h.TotalCount())),
			float64(h.TotalCount())/m.took.Seconds(), count(m.errors[o]), ms(h, 50), ms(h, 99), ms(h, 99.9))
	}
}

func (m *meter) errorList() string {
	var parts []string
	for code, n := range m.codes {
		parts = append(parts, code.String()+" "+count(n))
	}
	if len(parts) == 0 {
		return "none"
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

// summary is how much there was.
type summary struct {
	took            time.Duration
	calls, sessions uint64
}

// verdicts lists the promises that a run is about.
func verdicts(line func(string, ...any), b *promise.Book, command string, s summary, about func(promise.Promise) bool) {
	line("\n%-12s %10s   %s", "promises", "checks", "")
	held, first := 0, ""
	if err := b.Verdict(); err != nil {
		first = err.Error()
	}
	for _, p := range promise.All() {
		if !about(p) {
			continue
		}
		verdict := "held"
		switch {
		case b.Broken(p) != "":
			verdict = "BROKEN"
		case b.Checks(p) == 0:
			verdict = "not tested"
		default:
			held++
		}
		line("  %-10s %10s   %s", verdict, count(b.Checks(p)), p)
	}
	if first == "" {
		line("\nok: %d promises held in %.1fs, with %s calls and %s sessions", held, s.took.Seconds(), count(s.calls), count(s.sessions))
		return
	}
	for _, p := range promise.All() {
		if also := b.Broken(p); also != "" && also != first {
			line("also broken: %s", also)
		}
	}
	if history := b.History(); history != "" {
		line("\n%s", history)
	}
	line("\nrepeat with: %s", command)
	line("FAILED: %s", first)
}

// ofSQL reports whether a promise can be seen from outside of a server.
func ofSQL(p promise.Promise) bool {
	switch p {
	case promise.Bounded, promise.Own, promise.Told, promise.Answered, promise.Connected, promise.Clean:
		return true
	default:
		return false
	}
}

// ofFlight reports whether it is one of the server that is part of this program.
func ofFlight(p promise.Promise) bool {
	switch p {
	case promise.Connected, promise.Linear:
		return false
	default:
		return true
	}
}

// count writes a number with separators.
func count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short writes a number in few characters.
func short(n uint64) string {
	switch {
	case n < 1000:
		return fmt.Sprint(n)
	case n < 10_000:
		return fmt.Sprintf("%.1fk", float64(n)/1000)
	case n < 1_000_000:
		return fmt.Sprintf("%dk", n/1000)
	}
	return fmt.Sprintf("%.1fM", float64(n)/1e6)
}

func size(bytes uint64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
