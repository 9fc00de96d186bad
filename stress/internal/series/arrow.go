// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/c8e4ff29/layover"
)

// column is one of the numbers of a sample.
type column struct {
	name, says string
	kind       arrow.DataType
	put        func(array.Builder, Sample)
}

// columns are those of the file, in order.
var columns = func() []column {
	all := []column{
		duration("at_seconds", "since the run began, when the interval ended", func(s Sample) time.Duration { return s.At }),
		gauge("max", "sessions that may be live", func(s Sample) int { return s.Max }),
		gauge("live", "sessions that can be found", func(s Sample) int { return s.Live }),
		gauge("retired", "sessions that have ended and are still in use", func(s Sample) int { return s.Retired }),
		gauge("closing", "sessions whose Close is due or runs", func(s Sample) int { return s.Closing }),
		gauge("goroutines", "of the whole process", func(s Sample) int { return s.Goroutines }),
		total("heap_bytes", "of the whole process, what is in use or not swept yet", func(s Sample) uint64 { return s.Heap }),
		total("calls", "since the run began", func(s Sample) uint64 { return s.Calls }),
		total("errors", "calls that failed since the run began, whether or not they should", func(s Sample) uint64 { return s.Errors }),
		total("created", "sessions that were made since the run began", func(s Sample) uint64 { return s.Created }),
	}
	for r := range (layover.Ends{}) {
		reason := layover.Reason(r)
		all = append(all, total("ended_"+reason.String(), "sessions that have ended for this reason since the run began",
			func(s Sample) uint64 { return s.Ended[reason] }))
	}
	all = append(all, percentiles("latency", "calls in the interval", func(s Sample) Spread { return s.Latency })...)
	return append(all, percentiles("lag", "sessions that expired in the interval, from the deadline to the start of Close",
		func(s Sample) Spread { return s.Lag })...)
}()

func gauge(name, says string, of func(Sample) int) column {
	return column{name, says, arrow.PrimitiveTypes.Int64, func(b array.Builder, s Sample) {
		b.(*array.Int64Builder).Append(int64(of(s)))
	}}
}

func total(name, says string, of func(Sample) uint64) column {
	return column{name, says, arrow.PrimitiveTypes.Uint64, func(b array.Builder, s Sample) {
		b.(*array.Uint64Builder).Append(of(s))
	}}
}

func duration(name, says string, of func(Sample) time.Duration) column {
	return column{name, says, arrow.PrimitiveTypes.Float64, func(b array.Builder, s Sample) {
		b.(*array.Float64Builder).Append(of(s).Seconds())
	}}
}

// percentiles are the columns of a spread. Those of nothing are null.
func percentiles(name, says string, of func(Sample) Spread) []column {
	one := func(short, long string, value func(Spread) time.Duration) column {
		c := duration(name+"_"+short+"_seconds", long+"; null if there are none", func(s Sample) time.Duration { return value(of(s)) })
		known := c.put
		c.put = func(b array.Builder, s Sample) {
			if of(s).N == 0 {
				b.AppendNull()
				return
			}
			known(b, s)
		}
		return c
	}
	return []column{
		total(name+"_count", says, func(s Sample) uint64 { return of(s).N }),
		one("p50", "the median of them", func(s Spread) time.Duration { return s.P50 }),
		one("p99", "what 99 % of them do not exceed", func(s Spread) time.Duration { return s.P99 }),
		one("p999", "what 99.9 % of them do not exceed", func(s Spread) time.Duration { return s.P999 }),
		one("max", "the longest of them", func(s Spread) time.Duration { return s.Max }),
	}
}

// WriteArrow writes the samples as an Arrow IPC file, one row a sample, one column
// a number. Names of columns end in their unit, and each has a sentence in its
// metadata. The metadata of the schema are what else is known of the run, its
// marks and checks as JSON.
func (r Run) WriteArrow(w io.Writer) error {
	schema, err := r.schema()
	if err != nil {
		return fmt.Errorf("write the samples: %w", err)
	}
	rows := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer rows.Release()
	for _, s := range r.Samples {
		for i, c := range columns {
			c.put(rows.Field(i), s)
		}
	}
	batch := rows.NewRecordBatch()
	defer batch.Release()
	file, err := ipc.NewFileWriter(w, ipc.WithSchema(schema))
	if err != nil {
		return fmt.Errorf("write the samples: %w", err)
	}
	err = file.Write(batch)
	if closed := file.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write the samples: %w", err)
	}
	return nil
}

func (r Run) schema() (*arrow.Schema, error) {
	var fields []arrow.Field
	for _, c := range columns {
		says := arrow.NewMetadata([]string{"description"}, []string{c.says})
		fields = append(fields, arrow.Field{Name: c.name, Type: c.kind, Nullable: true, Metadata: says})
	}
	metadata, err := r.metadata()
	return arrow.NewSchema(fields, &metadata), err
}

// metadata returns what there is beside the samples. Facts have a prefix, lest one
// is taken for something else.
func (r Run) metadata() (arrow.Metadata, error) {
	var keys, values []string
	add := func(key, value string) {
		keys = append(keys, strings.ToValidUTF8(key, "\uFFFD"))
		values = append(values, strings.ToValidUTF8(value, "\uFFFD"))
	}
	checks, err := json.Marshal(r.Checks)
	if err != nil {
		return arrow.Metadata{}, err
	}
	type mark struct {
		AtSeconds float64 `json:"at_seconds"`
		Text      string  `json:"text"`
	}
	all := []mark{}
	for _, m := range r.Marks {
		all = append(all, mark{m.At.Seconds(), m.Text})
	}
	marks, err := json.Marshal(all)
	if err != nil {
		return arrow.Metadata{}, err
	}
	add("title", r.Title)
	add("command", r.Command)
	add("began", r.Began.Format(time.RFC3339Nano))
	add("took_seconds", fmt.Sprint(r.Took.Seconds()))
	add("broken", r.Broken)
	add("history", r.History)
	add("marks", string(marks))
	add("checks", string(checks))
	for _, f := range r.Facts {
		add("fact "+f[0], f[1])
	}
	return arrow.NewMetadata(keys, values), nil
}
