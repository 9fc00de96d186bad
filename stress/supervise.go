// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
)

// A run that takes its process down could not tell what it was about. So it has a
// process of its own, and the one that was called reports its end.

// childVariable is set for the process that does the run.
const childVariable = "LAYOVER_STRESS_RUN"

// raceStatus is how a process exits in which the race detector has found something.
const raceStatus = 66

// isChild reports whether this process does the run, and has the other one told if
// it crashes.
func isChild() bool {
	if os.Getenv(childVariable) == "" {
		return false
	}
	crash := os.NewFile(3, "crash")
	_ = debug.SetCrashOutput(crash, debug.CrashOptions{}) // without it, the crash is told less well
	_ = crash.Close()
	return true
}

// supervise does the run in another process, and returns the exit status.
func supervise(c config, args []string, stdout, stderr *os.File) int {
	crash, crashed, err := os.Pipe()
	if err != nil {
		fmt.Fprintln(stderr, "stress:", err)
		return 1
	}
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(stderr, "stress:", err)
		return 1
	}
	cmd := exec.Command(self, append(args, fmt.Sprint("-seed=", c.seed))...)
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, stdout, stderr
	cmd.ExtraFiles = []*os.File{crashed}
	err = cmd.Start()
	_ = crashed.Close()
	if err != nil {
		fmt.Fprintln(stderr, "stress:", err)
		return 1
	}
	stop := forward(cmd.Process, stderr)
	defer stop()
	text, _ := io.ReadAll(crash)
	return c.verdictOf(cmd.Wait(), string(text), stdout)
}

// forward hands signals on to a process. On a terminal, an interrupt reaches both.
func forward(p *os.Process, terminal *os.File) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for s := range signals {
			if s != os.Interrupt || !isTerminal(terminal) {
				_ = p.Signal(s)
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(signals)
	}
}

// verdictOf returns the exit status, and says what happened if the run could not.
func (c config) verdictOf(err error, crash string, out io.Writer) int {
	var exit *exec.ExitError
	status := 1
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		crash = err.Error()
	case exit.ExitCode() == raceStatus:
		crash = "the race detector has found a data race, which standard error shows"
	case crash == "" && exit.ExitCode() > 0:
		return exit.ExitCode() // it has said why
	case crash == "":
		crash = exit.String()
	default:
		crash = "the process was taken down: " + firstLine(crash)
	}
	fmt.Fprintf(out, "\nrepeat with: %s\nFAILED: %s\n", c.command(), crash)
	return status
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}
