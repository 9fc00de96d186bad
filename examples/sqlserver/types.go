// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
)

// In SQLite types belong to values, and what a table declares is a wish. In Arrow
// they belong to columns. So a column of a result has the type that its table has
// declared, if all values of the first rows have it, or else the narrowest one that
// they all have.

// columns returns the columns that a statement returns. Those of no known type, as
// those of expressions, have none.
func (s *statement) columns() []arrow.Field {
	fields := make([]arrow.Field, s.stmt.ColumnCount())
	for i := range fields {
		declared := declaredType(s.stmt, i)
		about := flightsql.NewColumnMetadataBuilder()
		if table := s.stmt.ColumnTableName(i); table != "" {
			about.CatalogName(s.stmt.ColumnDatabaseName(i)).TableName(table)
		}
		if declared != "" {
			about.TypeName(declared)
		}
		fields[i] = arrow.Field{Name: s.stmt.ColumnName(i), Type: typeOf(declared), Nullable: true, Metadata: about.Metadata()}
	}
	return fields
}

// typeOf returns the Arrow type for a type that a table declares, nil for those that
// do not say which values to expect. These are SQLite's own rules
// (https://www.sqlite.org/datatype3.html#determination_of_column_affinity), and
// BOOLEAN, DATE and the like: they are numbers and texts to SQLite.
func typeOf(declared string) arrow.DataType {
	declared = strings.ToUpper(declared)
	has := func(parts ...string) bool {
		for _, part := range parts {
			if strings.Contains(declared, part) {
				return true
			}
		}
		return false
	}
	switch {
	case has("BOOL"):
		return arrow.FixedWidthTypes.Boolean
	case has("INT"):
		return arrow.PrimitiveTypes.Int64
	case has("CHAR", "CLOB", "TEXT", "DATE", "TIME"):
		return arrow.BinaryTypes.String
	case has("BLOB"):
		return arrow.BinaryTypes.Binary
	case has("REAL", "FLOA", "DOUBLE"):
		return arrow.PrimitiveTypes.Float64
	}
	return nil
}

// fits reports whether a column of a type can have a value.
func fits(t arrow.DataType, v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case int64:
		switch t.ID() {
		case arrow.BOOL:
			return v == 0 || v == 1
		case arrow.FLOAT64: // it has room for so many digits
			return -1<<53 <= v && v <= 1<<53
		default:
			return true
		}
	case float64:
		return t.ID() == arrow.FLOAT64 || t.ID() == arrow.STRING || t.ID() == arrow.BINARY
	case string:
		return t.ID() == arrow.STRING || t.ID() == arrow.BINARY
	}
	return t.ID() == arrow.BINARY
}

// typeFor returns a type which fits a column of all rows: the declared one, if it
// does, or else the narrowest that does. If all are NULL, that is text, which every
// client can read.
func typeFor(declared arrow.DataType, batches [][][]any, column int) arrow.DataType {
	known := false
	candidates := []arrow.DataType{declared, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Float64, arrow.BinaryTypes.String, arrow.BinaryTypes.Binary}
	for _, row := range slices.Concat(batches...) {
		known = known || row[column] != nil
		for candidates[0] == nil || !fits(candidates[0], row[column]) {
			candidates = candidates[1:]
		}
	}
	switch {
	case known:
		return candidates[0]
	case declared != nil:
		return declared
	}
	return arrow.BinaryTypes.String
}
