// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package series is what a run measured over time: recorded while it runs, then
// written as an Arrow IPC file and drawn as a page.
package series

import (
	"time"

	"github.com/c8e4ff29/layover"
)

// Run is one run, with all that its page tells.
type Run struct {
	Title   string // such as "stress: flood, at the level of the store"
	Began   time.Time
	Took    time.Duration
	Facts   [][2]string // names and values: the seed, the limits, the Go version
	Command string      // that does it again
	Checks  []Check
	Broken  string // the sentence; empty: every promise held
	History string // of the session that it is about, a line an event
	Marks   []Mark
	Samples []Sample // in the order of time
	Data    string   // the name of the file that WriteArrow wrote beside the page; empty: there is none
}

// Check is what became of one promise.
type Check struct {
	Promise string `json:"promise"`
	Times   uint64 `json:"times"`  // that it was put to the test; zero: it was not
	Broken  string `json:"broken"` // empty: it held
}

// Mark is a moment that explains what the samples show, such as a phase that begins.
type Mark struct {
	At   time.Duration // since the run began
	Text string
}

// Sample is what was measured in one interval. The totals are those since the run
// began, also over several stores.
type Sample struct {
	At         time.Duration // since the run began, when the interval ended
	Max        int           // sessions that may be live
	Live       int
	Retired    int
	Closing    int
	Goroutines int
	Heap       uint64       // bytes
	Calls      uint64       // total
	Errors     uint64       // total of calls that failed, whether or not they should
	Created    uint64       // total
	Ended      layover.Ends // totals by reason
	Latency    Spread       // of the calls in the interval
	Lag        Spread       // between the deadlines of sessions that expired in the interval and the start of their Close
}

// Spread tells how durations are distributed. N is their number.
type Spread struct {
	N                   uint64
	P50, P99, P999, Max time.Duration
}
