// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"syscall"
	"time"
)

// idle watches a peer that holds a million entries and is not called.
//
//   - cpu: processor time of the process, in percent of one core
//   - goroutines: those that a peer keeps while it is empty
func idle(s *subject, j job) (metrics, error) {
	n := j.Sizes.Million
	keys, senders := uuids(n), sources(n, j.Sizes.PerSource)
	before := runtime.NumGoroutine()
	p, err := s.open(n+n/20+100, hour)
	if err != nil {
		return nil, err
	}
	time.Sleep(j.Sizes.Idle / 10)
	goroutines := runtime.NumGoroutine() - before

	fill(p, keys, senders, newBooks())
	useAll(p, keys)
	heap()
	time.Sleep(j.Sizes.Idle / 5) // the scavenger and what the filling left to do
	used, began := processorTime(), time.Now()
	time.Sleep(j.Sizes.Idle)
	cpu := float64(processorTime()-used) / float64(time.Since(began))
	runtime.KeepAlive(keys)
	return metrics{"cpu": 100 * cpu, "goroutines": float64(goroutines)}, p.close()
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
