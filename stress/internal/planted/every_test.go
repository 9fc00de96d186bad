// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

//go:build planted

package planted_test

import (
	"strings"
	"testing"

	"github.com/c8e4ff29/layover/stress/internal/planted"
)

// attempts is how many runs a bug has to be found by, as what happens when in a run is
// left to chance.
const attempts = 3

func TestTheHarnessFindsEveryPlantedBug(t *testing.T) {
	h, err := build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("none", func(t *testing.T) {
		t.Parallel()
		o, err := h.run(t.Context(), "")
		if err != nil || o.status != 0 || !strings.Contains(o.said, "\nok: ") {
			t.Errorf("with no bug awake: exit status %d, %v, want 0 and a line that begins with ok:\n%s", o.status, err, o.end())
		}
	})
	for _, b := range planted.All() {
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			for attempt := 1; ; attempt++ {
				o, err := h.run(t.Context(), b.Name, b.Flags...)
				missing := o.found(b)
				if err == nil && missing == "" {
					t.Logf("found by run %d, in %.1fs", attempt, o.took.Seconds())
					return
				}
				if err != nil || attempt == attempts {
					t.Fatalf("%s: exit status %d after %s, %v, want %s\n%s", b.What, o.status, o.took, err, missing, o.end())
				}
				t.Logf("run %d has not found it: exit status %d after %s, want %s", attempt, o.status, o.took, missing)
			}
		})
	}
}

// end returns the last lines.
func (o outcome) end() string {
	const most = 60
	lines := strings.Split(o.said, "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
