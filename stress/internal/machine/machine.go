// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package machine has the process run as on a poor machine: with hardly any memory
// to spare, or with processors that come and go.
package machine

import (
	"context"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

const (
	little    = 5                     // percent that the heap may grow before it is collected; usually 100
	turn      = 50 * time.Millisecond // for which there are so many processors
	mostProcs = 4
)

// Impair does what the faults say of the machine, [scenario.LittleMemory] and
// [scenario.FewProcessors], until ctx ends, and then puts back what there was. Others
// are not its business. It is about the whole process, so call it once at a time.
func Impair(ctx context.Context, f scenario.Faults) {
	if f.Has(scenario.LittleMemory) {
		defer debug.SetGCPercent(debug.SetGCPercent(little))
	}
	if !f.Has(scenario.FewProcessors) {
		<-ctx.Done()
		return
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for n := 1; ; n = n%mostProcs + 1 {
		runtime.GOMAXPROCS(n)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
