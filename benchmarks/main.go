// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Command benchmarks compares [layover.Store] with caches that are used in its
// place, in one run and interleaved, and writes Markdown tables of ratios:
//
//	go run -C benchmarks . -o ../README.md
//	go run -C benchmarks . -run get/zipf -passes 3 -time 100ms
//
// All of it takes about half an hour on two cores; -h explains the flags, -list
// names the workloads.
//
// # What is measured
//
// Each peer runs in processes of its own, one for each group of workloads, so
// that heaps do not mix. A process fills its peer once and waits for jobs. A
// pass has every peer do every workload for a fixed time, one after the other,
// so that what else the machine does hits all alike. What the tables show is
// the median, over the passes, of the ratio to otter in the same pass: compare
// these, and take the nanoseconds beside otter for orientation only.
//
//   - get (speed.go): a lookup that hits, among 100,000 entries, through copies
//     of the keys, in an order drawn beforehand: uniform, zipf, or always the
//     same key (hot). Sliding expiry where the peer has it.
//   - lease: layover acquires, confirms (which was done before) and releases.
//     The others have no leases and get.
//   - evict: nine lookups, then one put, with room for a fifth of the keys. A
//     miss is no reason to put, so the hits tell whom the peer keeps. In
//     evict/get layover is a cache that evicts the least recently used, in
//     evict/lease its lookups are leases that confirm.
//   - churn: a put and the removal of the same entry beside 100,000 others. The
//     time ends with the last Close. Allocations are those of the peer, without
//     the value.
//   - memory (memory.go), expiry (expiry.go), idle (idle.go) and flood
//     (flood.go) explain themselves.
//
// # What is not comparable
//
// No peer does the same work. Only layover, otter and ttlcache have sliding
// expiry; theine, golang-lru and ristretto count from the put. Ristretto applies
// puts later, or not at all, and stores no keys. Theine, golang-lru and ttlcache
// do not report a value that is overwritten. Nobody but layover has leases,
// closes what is left at the end, or keeps a value from being closed under its
// user. The maps (xsync, sync.Map, one map behind a read-write lock) forget
// nothing and expire nothing: they show what a lookup costs alone. They close
// what they remove or overwrite on the caller's goroutine.
//
// The peers are set up as their documentation recommends for sessions of an
// hour, see peers.go.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
)

// config is what the flags say.
type config struct {
	workloads *regexp.Regexp
	peers     *regexp.Regexp
	passes    int
	heavy     int
	time      time.Duration
	sizes     sizes
	output    string
	list      bool
}

func main() {
	if isChild() {
		exit(serve(os.Stdin, os.Stdout))
	}
	c, err := parse(os.Args[1:])
	if err != nil {
		os.Exit(2)
	}
	exit(benchmark(c, os.Stdout, os.Stderr))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func parse(args []string) (config, error) {
	c := config{sizes: fullSizes}
	f := flag.NewFlagSet("benchmarks", flag.ContinueOnError)
	run := f.String("run", "", "run only workloads that match this `regexp`")
	peers := f.String("peers", "", "compare only peers that match this `regexp`; otter always runs")
	f.IntVar(&c.passes, "passes", 5, "measure speed so many times")
	f.IntVar(&c.heavy, "heavy-passes", 3, "measure memory, expiry, idle and flood so many times")
	f.DurationVar(&c.time, "time", 300*time.Millisecond, "measure each speed for so long in a pass")
	f.IntVar(&c.sizes.Million, "million", c.sizes.Million, "entries in memory, expiry and idle")
	f.IntVar(&c.sizes.Flood, "flood", c.sizes.Flood, "newcomers of the flood in a round")
	f.IntVar(&c.sizes.Rounds, "rounds", c.sizes.Rounds, "rounds of a flood")
	f.StringVar(&c.output, "o", "", "write the tables into this `file`, too, between its benchmarks comments if it has them; relative to the folder benchmarks")
	f.BoolVar(&c.list, "list", false, "list the workloads and do nothing")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	var errRun, errPeers error
	c.workloads, errRun = regexp.Compile(*run)
	c.peers, errPeers = regexp.Compile(*peers)
	err := errors.Join(errRun, errPeers)
	if c.passes < 1 || c.heavy < 1 || c.time <= 0 || c.sizes.Million < 1 || c.sizes.Flood < c.sizes.Honest || c.sizes.Rounds < 1 {
		err = errors.Join(err, fmt.Errorf("numbers must be positive, and -flood at least %d", c.sizes.Honest))
	}
	if err != nil {
		fmt.Fprintln(f.Output(), err)
	}
	return c, err
}

// benchmark runs what c selects, and writes the tables to w and the progress to
// log.
func benchmark(c config, w, log io.Writer) error {
	var ws []workload
	for _, x := range workloads() {
		if c.workloads.MatchString(x.name) {
			ws = append(ws, x)
		}
	}
	var ps []kind
	for _, k := range kinds {
		if k.name == baseline || c.peers.MatchString(k.name) {
			ps = append(ps, k)
		}
	}
	if c.list {
		for _, x := range ws {
			fmt.Fprintln(w, x.name)
		}
		return nil
	}
	results, err := interleave(c, ws, ps, log)
	if err != nil {
		return err
	}
	text := tables(ws, ps, results, c)
	if c.output != "" {
		if err := save(c.output, text); err != nil {
			return err
		}
	}
	_, err = io.WriteString(w, text)
	return err
}

// Lines between which a file that exists is replaced.
const (
	from = "<!-- benchmarks -->\n"
	to   = "<!-- end of benchmarks -->\n"
)

// save writes text to a file, between the two lines if the file has them.
func save(name, text string) error {
	old, err := os.ReadFile(name)
	if err == nil {
		before, rest, ok := strings.Cut(string(old), from)
		_, after, closed := strings.Cut(rest, to)
		if ok && closed {
			text = before + from + text + to + after
		}
	}
	return os.WriteFile(name, []byte(text), 0o644)
}

// interleave runs all passes. What is heavy has a fresh process for each job and
// fewer passes.
func interleave(c config, ws []workload, ps []kind, log io.Writer) (results, error) {
	r := results{}
	children := map[string]*child{}
	defer func() {
		for _, ch := range children {
			ch.stop()
		}
	}()
	for pass := range max(c.passes, c.heavy) {
		for _, w := range ws {
			if w.heavy && pass >= c.heavy || !w.heavy && pass >= c.passes {
				continue
			}
			fmt.Fprintf(log, "pass %d: %s\n", pass+1, w.name)
			for _, k := range ps {
				if !w.suits(k) {
					continue
				}
				m, err := ask(children, k, w, job{Workload: w.name, Pass: pass, Time: c.time, Sizes: c.sizes})
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", w.name, k.name, err)
				}
				r.add(w.name, k.name, m)
			}
		}
	}
	return r, nil
}

// ask has the process that serves k and the group of w do one job.
func ask(children map[string]*child, k kind, w workload, j job) (metrics, error) {
	if w.heavy {
		ch, err := start(k.name)
		if err != nil {
			return nil, err
		}
		defer ch.stop()
		return ch.do(j)
	}
	id := k.name + " " + w.group
	if children[id] == nil {
		ch, err := start(k.name)
		if err != nil {
			return nil, err
		}
		children[id] = ch
	}
	return children[id].do(j)
}

// results holds metrics by workload and peer, in the order of the passes.
type results map[string]map[string][]metrics

func (r results) add(workload, peer string, m metrics) {
	if r[workload] == nil {
		r[workload] = map[string][]metrics{}
	}
	r[workload][peer] = append(r[workload][peer], m)
}
