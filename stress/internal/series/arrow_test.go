// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/c8e4ff29/layover"
)

// readArrow returns the schema of what a run writes, and its columns by name.
func readArrow(t *testing.T, r Run) (*arrow.Schema, map[string]arrow.Array) {
	t.Helper()
	var out bytes.Buffer
	if err := r.WriteArrow(&out); err != nil {
		t.Fatal(err)
	}
	file, err := ipc.NewFileReader(bytes.NewReader(out.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	if file.NumRecords() != 1 {
		t.Fatalf("%d batches, want one", file.NumRecords())
	}
	batch, err := file.RecordBatch(0)
	if err != nil {
		t.Fatal(err)
	}
	if int(batch.NumRows()) != len(r.Samples) {
		t.Errorf("%d rows, want one for each of the %d samples", batch.NumRows(), len(r.Samples))
	}
	columns := make(map[string]arrow.Array)
	for i, field := range file.Schema().Fields() {
		columns[field.Name] = batch.Column(i)
		if says, _ := field.Metadata.GetValue("description"); says == "" {
			t.Errorf("column %s has no description", field.Name)
		}
	}
	return file.Schema(), columns
}

func TestEveryNumberOfASampleIsInTheFile(t *testing.T) {
	var samples []Sample
	for i := range 3 {
		samples = append(samples, distinct(1000*i))
	}
	samples = append(samples, Sample{})
	_, columns := readArrow(t, Run{Samples: samples})
	for i, s := range samples {
		want := map[string]any{
			"at_seconds": s.At.Seconds(),
			"max":        int64(s.Max), "live": int64(s.Live), "retired": int64(s.Retired), "closing": int64(s.Closing),
			"goroutines": int64(s.Goroutines), "heap_bytes": s.Heap,
			"calls": s.Calls, "errors": s.Errors, "created": s.Created,
		}
		for reason, n := range s.Ended {
			want["ended_"+layover.Reason(reason).String()] = n
		}
		for name, spread := range map[string]Spread{"latency_": s.Latency, "lag_": s.Lag} {
			want[name+"count"] = spread.N
			for short, d := range map[string]time.Duration{"p50": spread.P50, "p99": spread.P99, "p999": spread.P999, "max": spread.Max} {
				want[name+short+"_seconds"] = d.Seconds()
				if spread.N == 0 {
					want[name+short+"_seconds"] = nil
				}
			}
		}
		for name, value := range want {
			if columns[name] == nil {
				t.Fatalf("there is no column %s", name)
			}
			if got := at(t, columns[name], i); got != value {
				t.Errorf("row %d: %s is %v, want %v", i, name, got, value)
			}
		}
		if len(columns) != len(want) {
			t.Errorf("%d columns, want %d", len(columns), len(want))
		}
	}
}

// distinct returns a sample in which all numbers differ.
func distinct(from int) Sample {
	next := func() int { from++; return from }
	spread := func() Spread {
		return Spread{uint64(next()), time.Duration(next()), time.Duration(next()), time.Duration(next()), time.Duration(next())}
	}
	s := Sample{At: time.Duration(next()), Max: next(), Live: next(), Retired: next(), Closing: next(), Goroutines: next()}
	s.Heap, s.Calls, s.Errors, s.Created = uint64(next()), uint64(next()), uint64(next()), uint64(next())
	for i := range s.Ended {
		s.Ended[i] = uint64(next())
	}
	s.Latency, s.Lag = spread(), spread()
	return s
}

func at(t *testing.T, column arrow.Array, i int) any {
	t.Helper()
	if column.IsNull(i) {
		return nil
	}
	switch column := column.(type) {
	case *array.Int64:
		return column.Value(i)
	case *array.Uint64:
		return column.Value(i)
	case *array.Float64:
		return column.Value(i)
	default:
		t.Fatalf("a column of %s", column.DataType())
		return nil
	}
}

func TestTheFileTellsWhatTheRunWas(t *testing.T) {
	run := Run{
		Title:   "stress: \xff",
		Command: "go run ./stress -seed 1",
		Began:   time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC),
		Took:    1500 * time.Millisecond,
		Facts:   [][2]string{{"seed", "1"}, {"title", "another one"}},
		Checks:  []Check{{"that it holds", 7, ""}, {"that it breaks", 8, "it broke"}},
		Broken:  "it broke",
		History: "created\nended",
		Marks:   []Mark{{time.Second, "flood"}},
	}
	schema, _ := readArrow(t, run)
	for key, want := range map[string]string{
		"title": "stress: \uFFFD", "command": run.Command, "began": "2026-02-03T04:05:06.000000007Z", "took_seconds": "1.5",
		"broken": run.Broken, "history": run.History, "fact seed": "1", "fact title": "another one",
		"marks": `[{"at_seconds":1,"text":"flood"}]`,
	} {
		metadata := schema.Metadata()
		if got, _ := metadata.GetValue(key); got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	metadata := schema.Metadata()
	text, _ := metadata.GetValue("checks")
	var checks []Check
	if err := json.Unmarshal([]byte(text), &checks); err != nil || !slices.Equal(checks, run.Checks) {
		t.Errorf("checks %s, %v, want %v", text, err, run.Checks)
	}
}

func TestARunWithoutSamplesHasAFileWithoutRows(t *testing.T) {
	if _, columns := readArrow(t, Run{}); columns["live"] == nil || columns["live"].Len() != 0 {
		t.Errorf("columns %v, want all, empty", columns)
	}
}

// failing is a disk that is full after so many writes.
type failing struct{ after int }

var errFull = errors.New("disk full")

func (f *failing) Write(p []byte) (int, error) {
	if f.after--; f.after < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestAFileThatCannotBeWrittenIsAnError(t *testing.T) {
	run := Run{Samples: []Sample{distinct(0)}}
	for after := range 3 {
		if err := run.WriteArrow(&failing{after}); !errors.Is(err, errFull) || !strings.HasPrefix(err.Error(), "write the samples: ") {
			t.Errorf("error %v after %d writes, want one that says the disk is full", err, after)
		}
	}
}
