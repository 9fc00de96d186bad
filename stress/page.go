// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

// page returns what is told of a run in files.
func (c config) page(b *promise.Book, rec *series.Recorder, began time.Time, took time.Duration, about func(promise.Promise) bool) series.Run {
	r := series.Run{
		Title: fmt.Sprintf("stress: %s, %s", c.scenario, c.level.says()),
		Data:  dataFile(c.level),
		Began: began,
		Took:  took,
		Facts: [][2]string{
			{"Clients", fmt.Sprint(c.clients)},
			{"Idle timeout", c.idle.String()},
			{"Unconfirmed", fmt.Sprintf("%s empty, %s holding", c.empty(), c.holding())},
			{"Lifetime", c.lifetime().String()},
			{"Sessions at most", fmt.Sprint(c.max)},
			{"Seed", fmt.Sprint(c.seed)},
			{"Race detector", map[bool]string{true: "on", false: "off"}[raceDetector]},
			{"Go", fmt.Sprintf("%s, %d processors", runtime.Version(), runtime.NumCPU())},
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

// pageFile is the name of the page in its folder, dataFile that of the numbers.
const pageFile = "index.html"

func dataFile(l level) string { return string(l) + ".arrow" }

// writeFiles writes the page about the runs, and the numbers of each, into a folder.
func writeFiles(folder string, runs []series.Run) error {
	errs := []error{writeFile(filepath.Join(folder, pageFile), func(w io.Writer) error { return series.WritePage(w, runs...) })}
	for _, r := range runs {
		errs = append(errs, writeFile(filepath.Join(folder, r.Data), r.WriteArrow))
	}
	return errors.Join(errs...)
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// peaks returns the most that there was of what should be little.
func peaks(all []series.Sample) (most baseline) {
	for i := range all {
		most.heap = max(most.heap, all[i].Heap)
		most.goroutines = max(most.goroutines, uint64(all[i].Goroutines))
	}
	return most
}
