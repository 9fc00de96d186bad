// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/schema_ref"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What Flight SQL calls a catalog is a database of the connection here: main, the
// file, and temp, which every session has for itself. Each has one schema, which
// has no name. So "temp"."t" is a table's full name in both worlds.

// GetFlightInfoCatalogs returns a ticket for the catalogs.
func (s *server) GetFlightInfoCatalogs(_ context.Context, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return infoFor(d, d.GetCmd(), schema_ref.Catalogs), nil
}

// DoGetCatalogs returns the catalogs.
func (s *server) DoGetCatalogs(context.Context) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return table(schema_ref.Catalogs, [][]any{{"main"}, {"temp"}})
}

// GetFlightInfoSchemas returns a ticket for the schemas.
func (s *server) GetFlightInfoSchemas(_ context.Context, _ flightsql.GetDBSchemas, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return infoFor(d, d.GetCmd(), schema_ref.DBSchemas), nil
}

// DoGetDBSchemas returns the schemas.
func (s *server) DoGetDBSchemas(ctx context.Context, r flightsql.GetDBSchemas) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	rows, err := s.list(ctx, `WITH s(catalog, name) AS (VALUES ('main', ''), ('temp', ''))
		SELECT catalog, name FROM s
		WHERE (?1 IS NULL OR catalog = ?1) AND (?2 IS NULL OR name LIKE ?2) ORDER BY catalog`,
		value(r.GetCatalog()), value(r.GetDBSchemaFilterPattern()))
	if err != nil {
		return nil, nil, err
	}
	return table(schema_ref.DBSchemas, rows)
}

// GetFlightInfoTableTypes returns a ticket for the types of tables.
func (s *server) GetFlightInfoTableTypes(_ context.Context, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return infoFor(d, d.GetCmd(), schema_ref.TableTypes), nil
}

// DoGetTableTypes returns the types of tables.
func (s *server) DoGetTableTypes(context.Context) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	return table(schema_ref.TableTypes, [][]any{{"table"}, {"view"}})
}

// GetFlightInfoTables returns a ticket for the tables.
func (s *server) GetFlightInfoTables(_ context.Context, r flightsql.GetTables, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return infoFor(d, d.GetCmd(), tablesSchema(r)), nil
}

func tablesSchema(r flightsql.GetTables) *arrow.Schema {
	if r.GetIncludeSchema() {
		return schema_ref.TablesWithIncludedSchema
	}
	return schema_ref.Tables
}

// tablesQuery asks the schemas themselves. pragma_table_list would expand all views that
// anybody has made, and is itself a name that a table in main can take.
const tablesQuery = `SELECT catalog, '', name, type FROM (
		SELECT 'main' AS catalog, name, type FROM main.sqlite_schema
		UNION ALL SELECT 'temp', name, type FROM temp.sqlite_schema)
	WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%' ESCAPE '\'
	AND (?1 IS NULL OR catalog = ?1) AND (?2 IS NULL OR '' LIKE ?2) AND (?3 IS NULL OR name LIKE ?3)
	ORDER BY type, catalog, name`

// DoGetTables returns the tables and views, those of the session among them: it runs on
// its connection.
func (s *server) DoGetTables(ctx context.Context, r flightsql.GetTables) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	c, leave, err := s.enterIf(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	found, err := c.list(tablesQuery, value(r.GetCatalog()), value(r.GetDBSchemaFilterPattern()), value(r.GetTableNameFilterPattern()))
	if err != nil {
		return nil, nil, err
	}
	var rows [][]any
	for _, row := range found {
		if !wanted(r.GetTableTypes(), text(row[3])) {
			continue
		}
		if r.GetIncludeSchema() {
			schema, err := c.tableSchema(text(row[0]), text(row[2]))
			if err != nil {
				return nil, nil, err
			}
			row = append(row, flight.SerializeSchema(schema, memory.DefaultAllocator))
		}
		rows = append(rows, row)
	}
	return table(tablesSchema(r), rows)
}

// text returns a value that should be text, and is unless somebody has tampered with
// the file.
func text(v any) string {
	s, _ := v.(string)
	return s
}

func wanted(types []string, one string) bool {
	for _, t := range types {
		if t == one {
			return true
		}
	}
	return len(types) == 0
}

// column is a column of a table.
type column struct {
	name, declared string
	notNull        bool
	key            int64 // its place in the primary key, from 1
}

// columnsOf returns the columns of a table. A view that cannot be read, because what
// it is made of is gone or is too much, has none: whoever has made it must not keep
// others from knowing their tables. It needs the turn.
func (c *conn) columnsOf(catalog, name string) (columns []column, _ error) {
	rows, err := c.list("PRAGMA " + quote(catalog) + ".table_info(" + quote(name) + ")")
	switch over := c.over(); {
	case over != nil:
		return nil, over
	case err != nil:
		return nil, nil //nolint:nilerr // see above
	}
	for _, row := range rows { // cid, name, type, notnull, dflt_value, pk
		key, _ := row[5].(int64)
		columns = append(columns, column{name: text(row[1]), declared: text(row[2]), notNull: row[3] == int64(1), key: key})
	}
	return columns, nil
}

// quote returns a name as an identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// tableSchema returns the columns of a table as Arrow has them. It needs the turn.
func (c *conn) tableSchema(catalog, name string) (*arrow.Schema, error) {
	columns, err := c.columnsOf(catalog, name)
	if err != nil {
		return nil, err
	}
	fields := make([]arrow.Field, len(columns))
	for i, column := range columns {
		about := flightsql.NewColumnMetadataBuilder().CatalogName(catalog).TableName(name).TypeName(column.declared)
		fields[i] = arrow.Field{Name: column.name, Type: typeOf(column.declared), Nullable: !column.notNull, Metadata: about.Metadata()}
		if fields[i].Type == nil {
			fields[i].Type = arrow.BinaryTypes.String
		}
	}
	return arrow.NewSchema(fields, nil), nil
}

// GetFlightInfoPrimaryKeys returns a ticket for a table's primary key.
func (s *server) GetFlightInfoPrimaryKeys(_ context.Context, _ flightsql.TableRef, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return infoFor(d, d.GetCmd(), schema_ref.PrimaryKeys), nil
}

// DoGetPrimaryKeys returns the columns of a table's primary key.
func (s *server) DoGetPrimaryKeys(ctx context.Context, t flightsql.TableRef) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	c, leave, err := s.enterIf(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	var rows [][]any
	for _, catalog := range []string{"main", "temp"} {
		if t.Catalog != nil && *t.Catalog != catalog || t.DBSchema != nil && *t.DBSchema != "" {
			continue
		}
		columns, err := c.columnsOf(catalog, t.Table)
		if err != nil {
			return nil, nil, err
		}
		slices.SortStableFunc(columns, func(a, b column) int { return cmp.Compare(a.key, b.key) })
		for _, column := range columns {
			if column.key > 0 {
				rows = append(rows, []any{catalog, "", t.Table, column.name, column.key, nil})
			}
		}
	}
	return table(schema_ref.PrimaryKeys, rows)
}

// GetFlightInfoXdbcTypeInfo returns a ticket for the types.
func (s *server) GetFlightInfoXdbcTypeInfo(_ context.Context, _ flightsql.GetXdbcTypeInfo, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	return infoFor(d, d.GetCmd(), schema_ref.XdbcTypeInfo), nil
}

// DoGetXdbcTypeInfo returns the types that tables are best declared with. The codes
// are those of ODBC and JDBC.
func (s *server) DoGetXdbcTypeInfo(_ context.Context, r flightsql.GetXdbcTypeInfo) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	const nullable, searchable = 1, 3
	var rows [][]any
	for _, t := range []struct {
		name   string
		code   int64
		size   any
		quote  any
		radix  any
		serial any
	}{
		{"BOOLEAN", -7, int64(1), nil, nil, nil},
		{"INTEGER", -5, int64(19), nil, int64(10), int64(0)},
		{"BLOB", -4, int64(maxValue), nil, nil, nil},
		{"TEXT", -1, int64(maxValue), "'", nil, nil},
		{"REAL", 8, int64(15), nil, int64(10), int64(0)},
	} {
		if want := r.GetDataType(); want != nil && int64(*want) != t.code {
			continue
		}
		rows = append(rows, []any{t.name, t.code, t.size, t.quote, t.quote, nil, int64(nullable), int64(0), int64(searchable),
			t.serial, int64(0), t.serial, t.name, nil, nil, t.code, nil, t.radix, nil})
	}
	return table(schema_ref.XdbcTypeInfo, rows)
}

// value returns an optional string as a parameter.
func value(s *string) any {
	if s == nil {
		return nil
	}
	return *s
}

// list runs a query on the connection that the call would use.
func (s *server) list(ctx context.Context, sql string, params ...any) ([][]any, error) {
	c, leave, err := s.enterIf(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return c.list(sql, params...)
}

// maxMetadata is how many bytes an answer about tables may have.
const maxMetadata = 64 << 20

var errMetadata = status.Errorf(codes.ResourceExhausted, "there are more than %d bytes of metadata: ask for less", maxMetadata)

// list returns all that a query of the server's own finds. It needs the turn.
func (c *conn) list(sql string, params ...any) (all [][]any, _ error) {
	statement, err := c.compile(sql)
	if err != nil {
		return nil, err
	}
	defer statement.finalize()
	r := &rows{statement: statement, sets: [][]any{params}}
	for {
		read, err := r.read(batchRows)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if all = append(all, read...); r.bytes > maxMetadata {
			return nil, errMetadata
		}
	}
}

// table returns rows as a stream of one batch.
func table(schema *arrow.Schema, rows [][]any) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for _, row := range rows {
		for i, v := range row {
			if err := add(b.Field(i), v); err != nil {
				return nil, nil, err
			}
		}
	}
	chunks := make(chan flight.StreamChunk, 1)
	chunks <- flight.StreamChunk{Data: b.NewRecordBatch()}
	close(chunks)
	return schema, chunks, nil
}
