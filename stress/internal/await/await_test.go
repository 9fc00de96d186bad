// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package await

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAGoroutineOfTheStoreIsFound(t *testing.T) {
	const others = "goroutine 1 [running]:\nmain.main()\n\ngoroutine 2 [select]:\ngithub.com/c8e4ff29/layover/stress.(*course).observe()\n\ngoroutine 3 [select]:\ngithub.com/c8e4ff29/layover/session.x()"
	if got := atWork(others); got != "" {
		t.Errorf("the store is at work in\n%s", got)
	}
	for _, frame := range []string{"github.com/c8e4ff29/layover.(*Store[...]).sweep()", "github.com/c8e4ff29/layover/janitor.(*Pool[...]).work()"} {
		one := "goroutine 4 [sleep]:\n" + frame
		if got := atWork(others + "\n\n" + one); got != frame {
			t.Errorf("found %q, want %q", got, frame)
		}
	}
	if got := stacks(); !strings.Contains(got, "TestAGoroutineOfTheStoreIsFound") {
		t.Errorf("this test is not in\n%s", got)
	}
}
