// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// crashVariable is set for the process that is to be taken down.
const crashVariable = "LAYOVER_STRESS_CRASH"

// TestCrash takes its process down, in the one that the test after it starts.
func TestCrash(*testing.T) {
	if os.Getenv(crashVariable) == "" || !isChild() {
		return
	}
	crashed := make(chan struct{})
	go func() {
		defer close(crashed)
		panic("taken down on purpose")
	}()
	<-crashed
}

func TestARunThatTakesItsProcessDownIsReportedWithWhatRepeatsIt(t *testing.T) {
	t.Setenv(crashVariable, "1")
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	c := small
	status := supervise(c, []string{"-test.run=^TestCrash$", "--"}, out, out)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	said, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := "\nrepeat with: " + c.command() + "\nFAILED: the process was taken down: panic: taken down on purpose"
	if status != 1 || !strings.Contains(string(said), want) {
		t.Errorf("status %d, and %q, want 1 and %q", status, said, want)
	}
}

func TestWhatRepeatsACrashHasTheLimitsThatWereGiven(t *testing.T) {
	given := []string{"-empty", "30ms", "-holding", "40ms", "-lifetime", "5s", "-seed", "3"}
	c, err := parse(given, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	_, flags, _ := strings.Cut(c.command(), "./stress ")
	again, err := parse(strings.Fields(flags), io.Discard)
	if err != nil || again != c {
		t.Errorf("%q gives %+v, %v, want %+v", flags, again, err, c)
	}
}

// Else an interrupt of the one process would not be handed on.
func TestOutputThatIsThrownAwayIsNoTerminal(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close() //nolint:errcheck // nothing was written
	if isTerminal(null) {
		t.Errorf("%s is taken for a terminal", os.DevNull)
	}
}

func TestAProcessThatCannotEvenStartIsReported(t *testing.T) {
	var out strings.Builder
	if status := small.verdictOf(errors.New("no such file"), "", &out); status != 1 || !strings.HasSuffix(out.String(), "FAILED: no such file\n") {
		t.Errorf("status %d, and %q", status, out.String())
	}
	if status := small.verdictOf(nil, "", &out); status != 0 {
		t.Errorf("status %d of a run that went well", status)
	}
}
