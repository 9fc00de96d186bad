// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package lateness

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/c8e4ff29/layover/stress/internal/promise"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const every = 100 * time.Millisecond

func TestAMachineThatIsInTimeIsAllowedTheGraceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(every)
		for range 10 {
			m.Poll(time.Now())
			m.Probe(nil)
			time.Sleep(every) //nolint:forbidigo // in the time of the bubble
		}
		if got := m.Allowance(); got > promise.Grace+4*2*time.Millisecond {
			t.Errorf("%s, want little more than %s", got, promise.Grace)
		}
	})
}

func TestALatePollIsAllowedForUntilTimeHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(every)
		m.Poll(time.Now())
		time.Sleep(every + 300*time.Millisecond) //nolint:forbidigo // in the time of the bubble
		m.Poll(time.Now())
		if got, want := m.Allowance(), promise.Grace+4*300*time.Millisecond; got != want {
			t.Errorf("%s after a poll that was late by 300ms, want %s", got, want)
		}
		for range 3 {
			time.Sleep(every) //nolint:forbidigo // in the time of the bubble
			m.Poll(time.Now())
		}
		if got := m.Allowance(); got > promise.Grace+4*2*time.Millisecond {
			t.Errorf("%s when that was long ago, want little more than %s", got, promise.Grace)
		}
		if got, want := m.MostAllowed(), promise.Grace+4*300*time.Millisecond; got != want {
			t.Errorf("the most that was allowed is %s, want %s", got, want)
		}
	})
}
