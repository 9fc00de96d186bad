// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/engine"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

// runStore drives the store alone until the scenario is over, ctx ends or a promise is
// broken, and writes the report to out. The error is the broken promise.
func runStore(ctx context.Context, c config, what scenario.Scenario, out io.Writer, p *progress) (series.Run, error) {
	book, rec, before, began := promise.NewBook(), series.NewRecorder(c.duration), newBaseline(), time.Now()
	got := engine.Run(ctx, engine.Config{
		Scenario: what, Duration: c.duration, Clients: c.clients, Max: c.max, Seed: c.seed,
		Idle: c.idle, Lifetime: c.lifetime(), Empty: c.empty(), Holding: c.holding(),
		Pictures: c.report, Show: p.show,
	}, book, rec)
	took := time.Since(began)
	after := before.settle(book, c.leftHeap())
	p.end()

	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	c.heading(line, took)
	line("%-22s %10s %10s", "clients", "number", "rounds")
	for _, crowd := range got.Crowds {
		line("  %-20s %10d %10s", crowd.Kind, crowd.Clients, count(crowd.Rounds))
	}
	whole := series.Run{Samples: rec.Samples()}
	worst := peaks(whole.Samples)
	line("\n%-13s %s, %s/s", "calls", count(got.Calls), count(uint64(float64(got.Calls)/took.Seconds())))
	line("%-13s created %s, peak %d of %d", "sessions", count(got.Created), got.Peak, c.max)
	line("%-13s %s", "  ended", ended(got.Ended, layover.Reason.String, count, ", "))
	line("%-13s %s at the start, %s at the peak, %s at the end", "heap", size(before.heap), size(worst.heap), size(after.heap))
	line("%-13s %d at the start, %d at the peak, %d at the end", "goroutines", before.goroutines, worst.goroutines, after.goroutines)
	verdicts(line, book, c.command(), summary{took, got.Calls, got.Created}, ofStore)
	return c.page(book, rec, began, took, ofStore), book.Verdict()
}

// ofStore reports whether it is a promise of the store alone.
func ofStore(p promise.Promise) bool {
	switch p {
	case promise.Needed, promise.Told, promise.Outlasts, promise.Connected:
		return false
	default:
		return true
	}
}
