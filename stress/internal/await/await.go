// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package await waits for what is to come within a time.
package await

import (
	"context"
	"runtime"
	"strings"
	"time"
)

// Pause waits, and reports whether ctx goes on.
func Pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Return runs f on a goroutine of its own, and reports whether it came back in time.
func Return(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// True reports whether f came true in time.
func True(d time.Duration, f func() bool) bool {
	for end := time.Now().Add(d); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// Quiet waits for so long that no goroutine of the store is left, and returns a frame
// of one that is; empty: there is none.
func Quiet(d time.Duration) (left string) {
	True(d, func() bool {
		left = atWork(stacks())
		return left == ""
	})
	return left
}

// stacks returns those of all goroutines.
func stacks() string {
	b := make([]byte, 1<<20)
	return string(b[:runtime.Stack(b, true)])
}

// atWork returns the first frame of the store on any of the stacks, empty: there is
// none.
func atWork(stacks string) string {
	for line := range strings.Lines(stacks) {
		for _, pkg := range []string{"layover.", "layover/janitor.", "layover/eviction."} {
			if strings.Contains(line, "github.com/c8e4ff29/"+pkg) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}
