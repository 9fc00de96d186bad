// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

// page returns what is told of a run in files.
func (c config) page(b *promise.Book, rec *series.Recorder, began time.Time, took time.Duration, about func(promise.Promise) bool) series.Run {
	r := series.Run{
		Title: fmt.Sprintf("%s of the %s", c.scenario, c.level),
		Began: began,
		Took:  took,
		Facts: [][2]string{
			{"Clients", fmt.Sprint(c.clients)},
			{"Idle timeout", c.idle.String()},
			{"Unconfirmed", fmt.Sprintf("%s empty, %s holding", c.empty(), c.holding())},
			{"Lifetime", c.lifetime().String()},
			{"Sessions at most", fmt.Sprint(c.max)},
			{"Seed", fmt.Sprint(c.seed)},
			{"Go", fmt.Sprintf("%s %s/%s, %d processors, race detector: %t", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), raceDetector)},
		},
		Command: c.command(),
		History: b.History(),
		Marks:   rec.Marks(),
		Samples: rec.Samples(),
	}
	if err := b.Verdict(); err != nil {
		r.Broken = err.Error()
	}
	for _, p := range promise.All() {
		if about(p) {
			r.Checks = append(r.Checks, series.Check{Promise: p.String(), Times: b.Checks(p), Broken: b.Broken(p)})
		}
	}
	return r
}

// peaks returns the most that there was of what should be little.
func peaks(all []series.Sample) (most baseline) {
	for i := range all {
		most.heap = max(most.heap, all[i].Heap)
		most.goroutines = max(most.goroutines, uint64(all[i].Goroutines))
	}
	return most
}
