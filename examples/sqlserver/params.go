// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a client may bind to one statement at a time, in all rows: the server has
// it in memory.
const (
	maxParameters     = 1 << 20
	maxParameterBytes = 16 << 20
)

// maxBound is how many bytes all parameters of a connection may take that are bound to
// queries: room for those of one that has the most.
const maxBound = 2 * maxParameterBytes

// noParameters are those of a statement that is run once, without any.
var noParameters = [][]any{{}}

// nulls are parameters for a statement that is run to see what it returns.
func (s *statement) nulls() [][]any { return [][]any{make([]any, s.stmt.BindParamCount())} }

// takes fails unless a statement has so many parameters.
func (s *statement) takes(values []any) error {
	if n := s.stmt.BindParamCount(); len(values) != n {
		return invalid("there are %d parameters for a statement that has %d", len(values), n)
	}
	return nil
}

// bind gives a statement its parameters, in the order of their numbers.
func (s *statement) bind(values []any) error {
	s.rest()
	if err := s.takes(values); err != nil {
		return err
	}
	for i, v := range values {
		switch v := v.(type) {
		case nil:
			s.stmt.BindNull(i + 1)
		case int64:
			s.stmt.BindInt64(i+1, v)
		case float64:
			s.stmt.BindFloat(i+1, v)
		case string:
			s.stmt.BindText(i+1, v)
		case []byte:
			s.stmt.BindBytes(i+1, v)
		}
	}
	return nil
}

// parameters reads rows of parameters that a client sends, and returns what SQLite
// makes of them. Arrow's arrays do not look whether what they are made of makes sense
// before they are asked for a value, and then they panic.
func parameters(r flight.MessageReader) (_ *bound, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = invalid("the parameters are malformed: %v", p)
		}
	}()
	b := new(bound)
	for r.Next() {
		if err := b.add(r.RecordBatch()); err != nil {
			return nil, err
		}
	}
	if err := r.Err(); err != nil {
		return nil, unreadable(err)
	}
	if len(b.sets) == 0 {
		b.sets = noParameters
	}
	return b, nil
}

// unreadable returns the status for an error of the reader: that of the call, if it has
// one, or else the client's fault.
func unreadable(err error) error {
	if has := failed(err); status.Code(has) != codes.InvalidArgument {
		return has
	}
	return invalid("the parameters cannot be read: %v", err)
}

// bound are rows of parameters, and how much they are.
type bound struct {
	sets   [][]any
	values int64
	bytes  int
}

// size returns about how much memory they take.
func (b *bound) size() int { return b.bytes + 16*int(b.values) }

// add adds the rows of a batch. It counts before it copies: a few bytes may stand for
// any number of rows, or be referred to again and again.
func (b *bound) add(batch arrow.RecordBatch) error {
	columns := batch.Columns()
	width := int64(max(len(columns), 1))
	if n := batch.NumRows(); n < 0 || n > (maxParameters-b.values)/width {
		return invalid("there are more than %d values", maxParameters)
	}
	b.values += batch.NumRows() * width
	for row := range int(batch.NumRows()) {
		set := make([]any, len(columns))
		for i, column := range columns {
			v, err := valueOf(column, row)
			if err != nil {
				return err
			}
			if b.bytes += sizeOf(v); b.bytes > maxParameterBytes {
				return invalid("there are more than %d bytes of values", maxParameterBytes)
			}
			set[i] = v
		}
		b.sets = append(b.sets, set)
	}
	return nil
}

// sizeOf returns how many bytes a value has beside its own few.
func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []byte:
		return len(v)
	}
	return 0
}

// valueOf returns a value as one of SQLite's five: nil, int64, float64, string,
// []byte. Times are text, as SQLite's own functions have them. What it returns is a
// copy: the message that it came in may be used for another one.
func valueOf(a arrow.Array, i int) (any, error) {
	if a.IsNull(i) {
		return nil, nil
	}
	switch a := a.(type) {
	case *array.Null:
		return nil, nil
	case *array.Boolean:
		if a.Value(i) {
			return int64(1), nil
		}
		return int64(0), nil
	case *array.Int8:
		return int64(a.Value(i)), nil
	case *array.Int16:
		return int64(a.Value(i)), nil
	case *array.Int32:
		return int64(a.Value(i)), nil
	case *array.Int64:
		return a.Value(i), nil
	case *array.Uint8:
		return int64(a.Value(i)), nil
	case *array.Uint16:
		return int64(a.Value(i)), nil
	case *array.Uint32:
		return int64(a.Value(i)), nil
	case *array.Uint64:
		if v := a.Value(i); v <= 1<<63-1 {
			return int64(v), nil
		}
		return nil, invalid("%s is too large an integer", strconv.FormatUint(a.Value(i), 10))
	case *array.Float32:
		return float64(a.Value(i)), nil
	case *array.Float64:
		return a.Value(i), nil
	}
	return otherValueOf(a, i)
}

// otherValueOf is valueOf for what is no number.
func otherValueOf(a arrow.Array, i int) (any, error) {
	switch a := a.(type) {
	case *array.String:
		return strings.Clone(a.Value(i)), nil
	case *array.LargeString:
		return strings.Clone(a.Value(i)), nil
	case *array.StringView:
		return strings.Clone(a.Value(i)), nil
	case *array.Binary:
		return bytes.Clone(a.Value(i)), nil
	case *array.LargeBinary:
		return bytes.Clone(a.Value(i)), nil
	case *array.BinaryView:
		return bytes.Clone(a.Value(i)), nil
	case *array.FixedSizeBinary:
		return bytes.Clone(a.Value(i)), nil
	case *array.Decimal128, *array.Decimal256:
		return a.ValueStr(i), nil
	case *array.Date32:
		return a.Value(i).ToTime().Format("2006-01-02"), nil
	case *array.Date64:
		return a.Value(i).ToTime().Format("2006-01-02"), nil
	case *array.Time32:
		return a.Value(i).ToTime(a.DataType().(*arrow.Time32Type).Unit).Format("15:04:05.999"), nil
	case *array.Time64:
		return a.Value(i).ToTime(a.DataType().(*arrow.Time64Type).Unit).Format("15:04:05.999999999"), nil
	case *array.Timestamp:
		return a.Value(i).ToTime(a.DataType().(*arrow.TimestampType).Unit).Format("2006-01-02 15:04:05.999999999"), nil
	case array.Union:
		child := a.Field(a.ChildID(i))
		if dense, ok := a.(*array.DenseUnion); ok {
			i = int(dense.ValueOffset(i))
		}
		return valueOf(child, i)
	case *array.Dictionary:
		return valueOf(a.Dictionary(), a.GetValueIndex(i))
	}
	return nil, invalid("SQLite has no type for values of %s", a.DataType())
}
