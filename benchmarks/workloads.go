// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "fmt"

// A workload is one row of the speed table, or one column of another.
type workload struct {
	name  string // for -run
	title string // in the table
	group string // workloads of one group share what was filled
	heavy bool   // has a process of its own for each job
	suits func(kind) bool
	run   func(*subject, job) (metrics, error)
}

func everybody(kind) bool    { return true }
func bounded(k kind) bool    { return k.bounded }
func expires(k kind) bool    { return k.expires }
func onlyLeases(k kind) bool { return k.leases }

// grid lists how many procs and goroutines a workload is measured with.
var (
	full  = [][2]int{{1, 1}, {1, 16}, {1, 128}, {2, 1}, {2, 16}, {2, 128}}
	multi = [][2]int{{2, 1}, {2, 16}, {2, 128}}
	some  = [][2]int{{1, 1}, {2, 1}, {2, 16}, {2, 128}}
)

func workloads() []workload {
	var ws []workload
	speed := func(group, name, title string, grid [][2]int, run func(*subject, job, int, int) (metrics, error)) {
		for _, g := range grid {
			ws = append(ws, workload{
				name:  fmt.Sprintf("%s/procs=%d/goroutines=%d", name, g[0], g[1]),
				title: fmt.Sprintf("%s; %d, %d", title, g[0], g[1]),
				group: group,
				suits: everybody,
				run:   func(s *subject, j job) (metrics, error) { return run(s, j, g[0], g[1]) },
			})
		}
	}
	speed("hits", "get/zipf", "get, zipf", full, hitting(zipfian, false))
	speed("hits", "get/uniform", "get, uniform", full, hitting(uniform, false))
	speed("hits", "get/hot", "get, one hot key", multi, hitting(hot, false))
	speed("hits", "lease/zipf", "acquire + release, zipf", multi, hitting(zipfian, true))
	speed("hits", "lease/uniform", "acquire + release, uniform", multi, hitting(uniform, true))
	speed("hits", "lease/hot", "acquire + release, one hot key", multi, hitting(hot, true))
	speed("evict", "evict/get", "90 % get, 10 % put, evicting", some, evicting(false))
	speed("evict", "evict/lease", "90 % acquire + release, 10 % put, evicting", some, evicting(true))
	speed("churn", "churn", "add + remove, closed", some, churning)

	heavy := func(name, title string, suits func(kind) bool, run func(*subject, job) (metrics, error)) {
		ws = append(ws, workload{name: name, title: title, heavy: true, suits: suits, run: run})
	}
	heavy("memory", "memory", everybody, memory)
	heavy("expiry", "expiry", expires, expiry)
	heavy("idle", "idle", everybody, idle)
	for _, f := range floods {
		suits := bounded
		if f.needsLeases() {
			suits = onlyLeases
		}
		heavy("flood/"+f.name, f.name, suits, f.run)
	}
	return ws
}
