// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"

	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// baseline is what there was before anything was started, or is left at the end.
type baseline struct{ goroutines, heap uint64 }

func newBaseline() baseline { return baseline{uint64(runtime.NumGoroutine()), heap()} }

// settle waits until what was started since has ended, and checks that nothing of it
// is left, but for so many bytes. It returns what there is then.
func (before baseline) settle(b *promise.Book, most uint64) (after baseline) {
	await.True(5*promise.Grace, func() bool { return uint64(runtime.NumGoroutine()) <= before.goroutines })
	b.Forget() // whatever is broken has its history by now
	after = newBaseline()
	b.Expect(promise.Clean, after.goroutines <= before.goroutines, "%d goroutines are left after the shutdown, expected at most %d as at the start", after.goroutines, before.goroutines)
	b.Expect(promise.Clean, after.heap <= before.heap+most, "the heap grew from %s to %s, expected at most %s more", size(before.heap), size(after.heap), size(most))
	return after
}

// leftHeap returns by how much the heap may have grown in the end: the store
// remembers some 16,000 ended sessions, the histograms and gRPC keep buffers,
// for each connection, too. It does not depend on how long a run takes, so a
// leak shows in a long one.
func (c config) leftHeap() uint64 { return 8<<20 + uint64(c.clients)<<13 }

// heap returns the size of what is reachable.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what sync.Pools hold goes with the second
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
