// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a run that is over soon, long enough for sessions to end for every reason.
func small(s scenario.Scenario) Config {
	return Config{
		Scenario: s, Duration: time.Second, Clients: 12, Max: 64, Seed: 1, Pictures: "",
		Idle: 60 * time.Millisecond, Lifetime: 300 * time.Millisecond, Empty: 30 * time.Millisecond, Holding: 60 * time.Millisecond,
	}
}

func TestTheStoreKeepsItsPromisesInEveryScenario(t *testing.T) {
	for _, s := range scenario.All {
		t.Run(s.Name, func(t *testing.T) {
			book := promise.NewBook()
			got := Run(t.Context(), small(s), book, series.NewRecorder(time.Second))
			if err := book.Verdict(); err != nil {
				t.Fatalf("%v\n%s", err, book.History())
			}
			t.Logf("%d calls, %d sessions, %v", got.Calls, got.Created, got.Ended)
			for _, p := range promise.All() {
				if n := book.Checks(p); n > 0 {
					t.Logf("%10d %s", n, p)
				}
			}
			if got.Calls == 0 || got.Created == 0 || got.Created != got.Ended.Total() {
				t.Errorf("%d calls, and %d sessions were created, of which %d ended", got.Calls, got.Created, got.Ended.Total())
			}
		})
	}
}
