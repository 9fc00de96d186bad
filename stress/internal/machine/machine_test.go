// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package machine

import (
	"context"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// percent returns at what growth of the heap the collector begins.
func percent() uint64 {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// impaired has a machine impaired while f runs.
func impaired(t *testing.T, faults scenario.Faults, f func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		Impair(ctx, faults)
	}()
	f()
	cancel()
	<-done
}

// await returns when ok comes true, which it must in the end.
func await(t *testing.T, ok func() bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("it never came true")
		}
	}
}

func TestLittleMemoryIsPutBack(t *testing.T) {
	before := percent()
	impaired(t, scenario.LittleMemory, func() { await(t, func() bool { return percent() == little }) })
	if got := percent(); got != before {
		t.Errorf("the collector begins at %d percent afterwards, want %d", got, before)
	}
}

func TestProcessorsComeAndGoAndArePutBack(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	impaired(t, scenario.FewProcessors, func() {
		for n := 1; n <= mostProcs; n++ {
			await(t, func() bool { return runtime.GOMAXPROCS(0) == n })
		}
	})
	if got := runtime.GOMAXPROCS(0); got != before {
		t.Errorf("%d processors afterwards, want %d", got, before)
	}
}

func TestOtherFaultsAreNotTheMachines(t *testing.T) {
	memory, procs := percent(), runtime.GOMAXPROCS(0)
	all := scenario.FailingClosers | scenario.HangingClosers | scenario.Reconfigured
	impaired(t, all, func() {
		if percent() != memory || runtime.GOMAXPROCS(0) != procs {
			t.Errorf("%d percent and %d processors, want %d and %d", percent(), runtime.GOMAXPROCS(0), memory, procs)
		}
	})
}
