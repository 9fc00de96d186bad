// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"zombiezen.com/go/sqlite"
)

const (
	// batchRows is how many rows a record batch has at most.
	batchRows = 1024
	// batchBytes is how large it may get: beyond that it gets no more rows.
	batchBytes = 1 << 20
	// maxChanges is how many bytes a statement may return of what it has changed.
	maxChanges = 16 << 20
)

// rows are the results of a statement, once for each set of parameters, one after
// the other. Whoever reads them needs the turn of their connection.
type rows struct {
	statement *statement
	sets      [][]any // those that are still to be bound
	running   bool
	bytes     int // that it has read
	schema    *arrow.Schema
	ready     [][][]any // batches that were read before, to find the types or to be done
}

// query runs a statement and reads its first rows. One that changes something it runs
// to its end, all or none of it: what it has locked does not wait for a client that
// reads. It needs the turn.
func (c *conn) query(s *statement, sets [][]any) (r *rows, err error) {
	r = &rows{statement: s, sets: sets}
	if s.returnsChanges() {
		err = c.atomically(r.readAll)
	} else {
		err = r.readSome()
	}
	if err != nil {
		return nil, err
	}
	fields := s.columns()
	for i := range fields {
		fields[i].Type = typeFor(fields[i].Type, r.ready, i)
	}
	r.schema = arrow.NewSchema(fields, nil)
	return r, nil
}

// returnsChanges reports whether a statement is one with RETURNING.
func (s *statement) returnsChanges() bool {
	return changesRows(s.sql) && s.stmt.ColumnCount() > 0 && !readsOnly(s.stmt)
}

// readSome reads the first batch, if there is one.
func (r *rows) readSome() error {
	first, err := r.read(batchRows)
	if err == nil {
		r.ready = append(r.ready, first)
	} else if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// errChanges says that the server cannot keep what a statement returns.
var errChanges = status.Errorf(codes.ResourceExhausted, "the statement returns more than %d bytes, and has changed nothing", maxChanges)

// readAll reads all batches, and frees the statement of its locks.
func (r *rows) readAll() error {
	defer r.statement.rest()
	for n := -1; n < len(r.ready); {
		n = len(r.ready)
		if err := r.readSome(); err != nil {
			return err
		}
		if r.bytes > maxChanges {
			return errChanges
		}
	}
	return nil
}

// next returns the next record batch, which the caller must release, and io.EOF
// after the last one.
func (r *rows) next() (arrow.RecordBatch, error) {
	if len(r.ready) == 0 {
		if err := r.readSome(); err != nil {
			return nil, err
		}
	}
	if len(r.ready) == 0 {
		return nil, io.EOF
	}
	read := r.ready[0]
	r.ready = r.ready[1:]
	b := array.NewRecordBuilder(memory.DefaultAllocator, r.schema)
	defer b.Release()
	for _, row := range read {
		for i, v := range row {
			if err := add(b.Field(i), v); err != nil {
				return nil, invalid("column %q: %v", r.schema.Field(i).Name, err)
			}
		}
	}
	return b.NewRecordBatch(), nil
}

// read returns up to so many rows, or io.EOF if there are no more.
func (r *rows) read(most int) (read [][]any, _ error) {
	bytes := 0
	for len(read) < most && bytes < batchBytes {
		if !r.running {
			if len(r.sets) == 0 {
				break
			}
			if err := r.statement.bind(r.sets[0]); err != nil {
				return nil, err
			}
			r.sets, r.running = r.sets[1:], true
		}
		more, err := r.statement.step()
		if err != nil {
			return nil, err
		}
		if r.running = more; more {
			row, size, err := r.statement.row()
			if err != nil {
				return nil, err
			}
			read, bytes = append(read, row), bytes+size
			r.bytes += size
		}
	}
	if len(read) == 0 {
		return nil, io.EOF
	}
	return read, nil
}

// errRow says that a row is too long. Values have their limit, and so have columns, but
// the one times the other is too much.
var errRow = status.Errorf(codes.ResourceExhausted, "a row has more than %d bytes", maxRow)

// row returns the current row, and about how many bytes it takes. It looks at their
// lengths before it copies the values.
func (s *statement) row() (row []any, bytes int, _ error) {
	row = make([]any, s.stmt.ColumnCount())
	for i := range row {
		bytes += 8
		if t := s.stmt.ColumnType(i); t == sqlite.TypeText || t == sqlite.TypeBlob {
			bytes += s.stmt.ColumnLen(i)
		}
	}
	if bytes > maxRow {
		return nil, 0, errRow
	}
	for i := range row {
		row[i] = s.value(i)
	}
	return row, bytes, nil
}

// value returns a value of the current row.
func (s *statement) value(i int) any {
	switch s.stmt.ColumnType(i) {
	case sqlite.TypeInteger:
		return s.stmt.ColumnInt64(i)
	case sqlite.TypeFloat:
		return s.stmt.ColumnFloat(i)
	case sqlite.TypeText: // SQLite does not care whether it is UTF-8, Arrow does
		return strings.ToValidUTF8(s.stmt.ColumnText(i), "\ufffd")
	case sqlite.TypeBlob:
		blob := make([]byte, s.stmt.ColumnLen(i))
		s.stmt.ColumnBytes(i, blob)
		return blob
	default:
		return nil
	}
}

// errType says that a value came too late to choose another type for its column.
var errType = errors.New("a value has another type than those of the first rows: use CAST")

// add appends a value to a column.
func add(b array.Builder, v any) error {
	if v == nil {
		b.AppendNull()
		return nil
	}
	if !fits(b.Type(), v) {
		return errType
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(v.(int64) != 0)
	case *array.Int64Builder:
		b.Append(v.(int64))
	case *array.Int32Builder: // in metadata only
		b.Append(int32(v.(int64)))
	case *array.Float64Builder:
		if i, ok := v.(int64); ok {
			v = float64(i)
		}
		b.Append(v.(float64))
	case *array.StringBuilder:
		b.Append(textOf(v))
	case *array.BinaryBuilder:
		if blob, ok := v.([]byte); ok {
			b.Append(blob)
		} else {
			b.AppendString(textOf(v))
		}
	}
	return nil
}

// textOf returns a text or a number as text.
func textOf(v any) string {
	switch v := v.(type) {
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		return v
	}
	return ""
}
