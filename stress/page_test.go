// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/ipc"
)

func TestAReportHasAPageOfAllRunsAndTheNumbersOfEach(t *testing.T) {
	c := small
	c.level, c.scenario, c.clients, c.report = bothLevels, "steady", 15, filepath.Join(t.TempDir(), "new", "folder")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if err := c.drive(t.Context(), null, null); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(c.report, pageFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"stress: steady, the store alone", "stress: steady, a Flight server and its clients", "Every promise held", "-level store", "-level flight"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for _, l := range []level{storeLevel, flightLevel} {
		f, err := os.Open(filepath.Join(c.report, dataFile(l)))
		if err != nil {
			t.Fatal(err)
		}
		r, err := ipc.NewFileReader(f)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := r.RecordBatch(0)
		if err != nil || rows.NumRows() < 3 || !strings.Contains(string(page), `href="`+dataFile(l)+`"`) {
			t.Errorf("%s: %d rows, %v, or the page does not lead there", l, rows.NumRows(), err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestAReportThatCannotBeWrittenFailsTheRun(t *testing.T) {
	c := small
	c.level, c.scenario, c.report = storeLevel, "steady", filepath.Join(os.DevNull, "there")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if err := c.drive(t.Context(), null, null); err == nil {
		t.Error("no error")
	}
}
