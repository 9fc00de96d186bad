// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"runtime/metrics"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// quiet checks that an empty store has no goroutine and no timer that goes off.
func (r *run) quiet() {
	left := await.Quiet(r.late.Allowance())
	r.Expect(promise.Clean, left == "", "the store is empty, and a goroutine of it is in %s", left)
	before, known := created()
	if !known {
		return
	}
	const while = pollEvery
	time.Sleep(while)
	after, _ := created()
	// A timer that ticks starts a goroutine each time.
	r.Expect(promise.Clean, after-before < uint64(while/(10*layover.Tick)), "the store is empty, and %d goroutines were started in %s, expected none", after-before, while)
}

// created returns how many goroutines there ever were, where Go counts them.
func created() (uint64, bool) {
	s := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0, false
	}
	return s[0].Value.Uint64(), true
}
