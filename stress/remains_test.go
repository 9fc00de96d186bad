// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"testing"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

func TestNobodyHasASessionAfterAShutdown(t *testing.T) {
	late := &layover.ShutdownError{Closing: 1, Cause: context.DeadlineExceeded}
	for name, c := range map[string]struct {
		stats layover.Stats
		err   error
		ok    bool
	}{
		"all are closed":                 {layover.Stats{}, nil, true},
		"one is still being closed":      {layover.Stats{Closing: 1}, late, true},
		"one is, and it does not say so": {layover.Stats{Closing: 1}, nil, false},
		"one is live":                    {layover.Stats{Live: 1}, late, false},
		"one is still in use":            {layover.Stats{Retired: 1}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(storyLimits, promise.NewBook(), baseline{})
			w.remains(c.stats, c.err)
			if err := w.Verdict(); (err == nil) != c.ok {
				t.Errorf("%v, want an error: %t", err, !c.ok)
			}
		})
	}
}
