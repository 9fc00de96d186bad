// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets the test binary serve as its own children, as the command does.
func TestMain(m *testing.M) {
	if isChild() {
		exit(serve(os.Stdin, os.Stdout))
	}
	// Under the race detector every process would sleep for a second at its end.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

var tinySizes = sizes{
	Entries: 500, Lookups: 512, Fresh: 16,
	Million: 500, Ahead: 50 * time.Millisecond, Limit: 50 * time.Millisecond, Idle: 10 * time.Millisecond,
	Capacity: 100, Honest: 80, PerSource: 4, Newcomers: 5, Flood: 1000, Rounds: 2,
}

func tiny(t *testing.T, args ...string) config {
	t.Helper()
	c, err := parse(append([]string{"-passes", "1", "-heavy-passes", "1", "-time", "1ms"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	c.sizes = tinySizes
	return c
}

// Every workload runs on every peer that suits it, and has its place in the
// tables. Layover closes exactly once in all of them, and never exceeds its
// maximum.
func TestEveryWorkload(t *testing.T) {
	c, ws := tiny(t), workloads()
	r, err := interleave(c, ws, kinds, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	text := tables(ws, kinds, r, c)
	t.Log("\n" + text)
	for _, w := range ws {
		title := map[string]string{"memory": "an entry and its key", "idle": "idle: percent", "expiry": "all expire at once"}[w.name]
		if title == "" {
			title = w.title
		}
		if !strings.Contains(text, "| "+title) {
			t.Errorf("%s: no row %q in the tables", w.name, title)
		}
		for _, k := range kinds {
			if got := len(r[w.name][k.name]); w.suits(k) != (got == 1) {
				t.Errorf("%s, %s: measured %d times", w.name, k.name, got)
			}
		}
		for _, m := range r[w.name]["layover"] {
			if m["never closed"] != 0 || m["closed again"] != 0 || m["peak"] > 100 {
				t.Errorf("%s: %v", w.name, m)
			}
			if _, counted := m["created"]; !counted && (w.heavy && w.name != "idle" || w.group == "churn") {
				t.Errorf("%s: nobody counted the values: %v", w.name, m)
			}
		}
	}
}

// What the command prints is what it writes into the file.
func TestOutputFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tables.md")
	var out bytes.Buffer
	if err := benchmark(tiny(t, "-run", "get/hot", "-peers", "layover", "-o", file), &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(file)
	if err != nil || string(written) != out.String() || out.Len() == 0 {
		t.Errorf("the file has %d bytes, the output %d: %v", len(written), out.Len(), err)
	}
}

// The books tell values that were never closed from those closed twice.
func TestBooks(t *testing.T) {
	b := newBooks()
	for i := range 5 {
		v := b.value()
		for range i {
			_ = v.Close()
		}
	}
	m := metrics{}
	b.verdict(5, m)
	if m["created"] != 5 || m["never closed"] != 1 || m["closed again"] != 0+1+2+3 {
		t.Error(m)
	}
}

// A median and a ratio are those of the passes.
func TestRatios(t *testing.T) {
	r := results{}
	for _, ns := range [][2]float64{{10, 20}, {30, 20}, {8, 20}} {
		r.add("w", "layover", metrics{"ns": ns[0]})
		r.add("w", baseline, metrics{"ns": ns[1]})
	}
	if x, ok := r.median("w", "layover", "ns"); x != 10 || !ok {
		t.Errorf("median %v, %v; want 10", x, ok)
	}
	if x, ok := r.ratio("w", "layover", "ns"); x != 0.5 || !ok {
		t.Errorf("ratio %v, %v; want 0.5", x, ok)
	}
	if _, ok := r.ratio("w", "theine", "ns"); ok {
		t.Error("a peer that was not measured has a ratio")
	}
}

// Flags that make no sense are refused.
func TestParse(t *testing.T) {
	for _, args := range [][]string{{"-passes", "0"}, {"-run", "("}, {"-flood", "1"}, {"-time", "-1s"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
