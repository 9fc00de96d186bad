// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package planted_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/planted"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// harness is stress with all bugs in it, asleep.
type harness struct {
	root    string // of the module
	temp    string // for what runs leave behind
	binary  string
	overlay string
	turns   chan struct{} // that so many run at a time
}

// atOnce is how many run at a time: they take their time waiting, mostly.
const atOnce = 4

// build builds stress in a folder.
func build(ctx context.Context, folder string) (*harness, error) {
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		return nil, err
	}
	h := &harness{root: root, temp: folder, binary: filepath.Join(folder, "stress"), turns: make(chan struct{}, atOnce)}
	if h.overlay, err = planted.Overlay(root, folder, planted.All()); err != nil {
		return nil, err
	}
	b := exec.CommandContext(ctx, "go", "build", "-overlay", h.overlay, "-o", h.binary, "./stress")
	b.Dir = root
	if said, err := b.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build with the bugs planted: %w\n%s", err, said)
	}
	return h, nil
}

// outcome is how a run ended.
type outcome struct {
	status int
	said   string
	took   time.Duration
}

// limit bounds every run: one that hangs says so after a minute more than it
// should take.
const limit = 3 * time.Minute

// run runs stress while the bug of this name is awake; empty: none is.
func (h *harness) run(ctx context.Context, bug string, flags ...string) (outcome, error) {
	h.turns <- struct{}{}
	defer func() { <-h.turns }()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var said bytes.Buffer
	c := exec.CommandContext(ctx, h.binary, flags...)
	c.Dir, c.Stdout, c.Stderr = h.root, &said, &said
	// What a run builds by itself has the bugs, too.
	c.Env = append(os.Environ(), "TMPDIR="+h.temp, planted.Variable+"="+bug, "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+h.overlay))
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	start := time.Now()
	err := c.Run()
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) && ctx.Err() == nil {
		err = nil
	}
	return outcome{c.ProcessState.ExitCode(), said.String(), time.Since(start)}, err
}

// broke reports whether a run says that a promise is broken.
func (o outcome) broke(p promise.Promise) bool {
	for line := range strings.Lines(o.said) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "BROKEN") && strings.HasSuffix(line, p.String()) {
			return true
		}
	}
	return false
}

// found returns what is missing for a run to have found a bug; empty: it has.
func (o outcome) found(b planted.Bug) (missing string) {
	switch {
	case o.status != 1:
		return "exit status 1"
	case !strings.Contains(o.said, "repeat with: go run ./stress ") || !strings.Contains(o.said, " -seed "):
		return "how to repeat the run"
	case b.Says != "" && !strings.Contains(o.said, "\nFAILED: "+b.Says):
		return fmt.Sprintf("%q", "FAILED: "+b.Says)
	case b.Says == "" && !slices.ContainsFunc(b.Breaks, o.broke):
		return fmt.Sprintf("as broken: %s", b.Breaks)
	}
	return ""
}
