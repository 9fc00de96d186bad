// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package planted_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/planted"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

// tabulate runs every bug under every scenario, for so long, and under the usual one
// for as long as that takes. It prints after how many seconds each was found, with
// the end of the run.
func tabulate(out io.Writer, most time.Duration) error {
	folder, err := os.MkdirTemp("", "planted")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	ctx := context.Background()
	h, err := build(ctx, folder)
	if err != nil {
		return err
	}
	names := runs()
	fmt.Fprintf(out, "| bug | what goes wrong | what it breaks | %s |\n|%s\n", strings.Join(names, " | "), strings.Repeat("---|", 3+len(names)))
	for _, b := range planted.All() {
		cells := make([]string, len(names))
		var all sync.WaitGroup
		for i, name := range names {
			all.Go(func() { cells[i] = h.cell(ctx, b, name, most) })
		}
		all.Wait()
		fmt.Fprintf(out, "%s %s |\n", row(b), strings.Join(cells, " | "))
	}
	return nil
}

// ofServer is the run that drives a server of another module.
const ofServer = "-sqlserver"

// runs are the names of the columns: the scenarios that are short enough, and one
// for the server of another module.
func runs() (names []string) {
	for _, s := range scenario.All {
		if s.Time <= time.Minute {
			names = append(names, s.Name)
		}
	}
	return append(names, ofServer)
}

// row begins the row of a bug.
func row(b planted.Bug) string {
	breaks := b.Says
	if breaks == "" {
		breaks = b.Breaks[0].String()
	}
	return fmt.Sprintf("| %s | %s | %s |", b.Name, b.What, breaks)
}

// cell returns after how many seconds a bug was found in a run.
func (h *harness) cell(ctx context.Context, b planted.Bug, name string, most time.Duration) string {
	flags := []string{"-scenario", name, "-duration", most.String()}
	switch {
	case name == scenario.Default:
		flags = nil // in a part of that time it would come to nothing
	case name == ofServer && !slices.Contains(b.Flags, ofServer):
		return ""
	case name == ofServer:
		flags = b.Flags
	}
	o, err := h.run(ctx, b.Name, flags...)
	if err != nil || o.found(b) != "" {
		return ""
	}
	return fmt.Sprintf("%.0f", max(1, o.took.Seconds()))
}
