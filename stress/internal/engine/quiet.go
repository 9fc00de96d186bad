// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"bytes"
	"runtime"
	"runtime/metrics"
	"strings"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// quiet checks that an empty store has no goroutine and no timer that goes off.
func (r *run) quiet() {
	var left string
	for end := time.Now().Add(r.late.Allowance()); ; time.Sleep(pollEvery / 10) {
		if left = own(); left == "" || time.Now().After(end) {
			break
		}
	}
	r.Expect(promise.Clean, left == "", "the store is empty, and a goroutine of it is left:\n%s", left)
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

// own returns the stack of a goroutine of the store's, empty if there is none.
func own() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for stack := range bytes.SplitSeq(stacks, []byte("\n\n")) {
		text := string(stack)
		if strings.Contains(text, "stress/internal/engine.(*client)") || strings.Contains(text, "stress/internal/engine.(*run)") {
			continue
		}
		if strings.Contains(text, "github.com/c8e4ff29/layover.") || strings.Contains(text, "github.com/c8e4ff29/layover/janitor.") {
			return text
		}
	}
	return ""
}
