// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestAPreparedUpdateRunsOnceForEachRowOfParametersAllOrNone(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	c.update("CREATE TABLE t (n TEXT PRIMARY KEY)")
	prepared := must[*flightsql.PreparedStatement](t)(c.Prepare(c.ctx, "INSERT INTO t VALUES (?)"))
	if isUpdate, known := prepared.IsUpdate(); !isUpdate || !known {
		t.Errorf("it is said to be an update: %t, known: %t", isUpdate, known)
	}
	prepared.SetParameters(batch(t, `[{"n": "a"}, {"n": "b"}, {"n": "c"}]`, "n"))
	if n := must[int64](t)(prepared.ExecuteUpdate(c.ctx)); n != 3 {
		t.Errorf("%d rows were changed, expected 3", n)
	}
	prepared.SetParameters(batch(t, `[{"n": "d"}, {"n": "a"}]`, "n"))
	_, err := prepared.ExecuteUpdate(c.ctx)
	wantCode(t, err, codes.AlreadyExists, "an update whose second row violates the key")
	if got := c.query("SELECT count(*) FROM t"); got[0][0] != "3" {
		t.Errorf("there are %v rows, expected 3: the first row of the failed update has been kept", got)
	}
	prepared.SetParameters(batch(t, `[{"n": "d", "m": "e"}]`, "n", "m"))
	_, err = prepared.ExecuteUpdate(c.ctx)
	wantCode(t, err, codes.InvalidArgument, "two parameters for one")
	if err := prepared.Close(c.ctx); err != nil {
		t.Error(err)
	}
	wantCode(t, c.closePrepared(prepared.Handle()), codes.NotFound, "what is closed already")
}

func TestAPreparedQueryRunsOnceForEachRowOfParameters(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	c.update("CREATE TABLE t (n INTEGER, s TEXT)")
	c.update("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'b')")
	prepared := must[*flightsql.PreparedStatement](t)(c.Prepare(c.ctx, "SELECT n, s, n * 1.5 FROM t WHERE s = ? ORDER BY n"))
	want := []arrow.DataType{arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String, arrow.BinaryTypes.String} // no row, no type
	for i, f := range prepared.DatasetSchema().Fields() {
		if !arrow.TypeEqual(f.Type, want[i]) {
			t.Errorf("column %d of the dataset schema is %v, expected %v", i, f.Type, want[i])
		}
	}
	if prepared.ParameterSchema() != nil {
		t.Errorf("the parameters are said to be %v", prepared.ParameterSchema())
	}
	prepared.SetParameters(batch(t, `[{"s": "b"}, {"s": "none"}, {"s": "a"}]`, "s"))
	info := must[*flight.FlightInfo](t)(prepared.Execute(c.ctx))
	got := must[[][]string](t)(c.fetch(info))
	if !reflect.DeepEqual(got, [][]string{{"2", "b", "3"}, {"3", "b", "4.5"}, {"1", "a", "1.5"}}) {
		t.Errorf("the results are %v", got)
	}
	// The parameters stay bound, and the session goes on without cookies.
	info = must[*flight.FlightInfo](t)(prepared.Execute(c.ctx))
	if again := must[[][]string](t)(c.fetch(info)); !reflect.DeepEqual(again, got) {
		t.Errorf("the results of the second time are %v", again)
	}
}

func TestParametersAreUnionsForClientsThatAskForIt(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	if errs := c.setOptions(map[string]any{"parameter_types": typesUnion}); len(errs) > 0 {
		t.Fatal(errs)
	}
	prepared := must[*flightsql.PreparedStatement](t)(c.Prepare(c.ctx, "SELECT ? AS a, :b AS b"))
	schema := prepared.ParameterSchema()
	if schema == nil || schema.NumFields() != 2 || schema.Field(1).Name != ":b" || schema.Field(0).Type.ID() != arrow.DENSE_UNION {
		t.Errorf("the parameters are said to be %v", schema)
	}
}

func TestEveryValueComesBackAsItWas(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	c.update("CREATE TABLE t (i INTEGER, r REAL, s TEXT, b BLOB, yes BOOLEAN, d DATE, n NUMERIC, v)")
	c.update("INSERT INTO t VALUES (1, 1.5, 'text', x'00ff', TRUE, '2026-01-02', 7, NULL), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), (-9223372036854775808, 2, '', x'', 0, 20260102, 1.25, 'v')")
	info := must[*flight.FlightInfo](t)(c.Execute(c.ctx, "SELECT * FROM t"))
	schema, rows, err := c.fetchSchema(info)
	if err != nil {
		t.Fatal(err)
	}
	want := []arrow.DataType{arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Float64, arrow.BinaryTypes.String, arrow.BinaryTypes.Binary,
		arrow.FixedWidthTypes.Boolean, arrow.BinaryTypes.String, arrow.PrimitiveTypes.Float64, arrow.BinaryTypes.String}
	for i, f := range schema.Fields() {
		if !arrow.TypeEqual(f.Type, want[i]) {
			t.Errorf("column %s is %v, expected %v", f.Name, f.Type, want[i])
		}
	}
	null := "(null)"
	if expected := [][]string{
		{"1", "1.5", "text", "AP8=", "true", "2026-01-02", "7", null},
		{null, null, null, null, null, null, null, null},
		{"-9223372036854775808", "2", "", "", "false", "20260102", "1.25", "v"},
	}; !reflect.DeepEqual(rows, expected) {
		t.Errorf("the rows are\n%v, expected\n%v", rows, expected)
	}
}

func TestASchemaIsKnownWithoutTheRows(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	c.update("CREATE TABLE t (i INTEGER, s TEXT)")
	result := must[*flight.SchemaResult](t)(c.GetExecuteSchema(c.ctx, "SELECT i, s, 1.5 AS x FROM t UNION ALL SELECT 1, 'a', 2.5"))
	schema := must[*arrow.Schema](t)(flight.DeserializeSchema(result.GetSchema(), memory.DefaultAllocator))
	for i, want := range []arrow.DataType{arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String, arrow.PrimitiveTypes.Float64} {
		if f := schema.Field(i); !arrow.TypeEqual(f.Type, want) {
			t.Errorf("column %s is %v, expected %v", f.Name, f.Type, want)
		}
	}
}

func TestLongResultsComeInBatches(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	rows := c.query("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5000) SELECT n FROM t")
	if len(rows) != 5000 || rows[4999][0] != "5000" {
		t.Errorf("there are %d rows, expected 5000", len(rows))
	}
	_, err := c.tryQuery("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5000) SELECT CASE WHEN n < 4000 THEN n ELSE 'x' END FROM t")
	wantCode(t, err, codes.InvalidArgument, "a column that becomes text after a thousand rows")
}

func TestTheDeclaredTypeCanBeFound(t *testing.T) {
	d, err := openDatabase("", limits{max: 10, turn: 1, statement: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.connect(settings{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := c.once("CREATE TABLE t (a VARCHAR(10))"); err != nil {
		t.Fatal(err)
	}
	s, err := c.compile("SELECT a AS b, 1 FROM t")
	if err != nil {
		t.Fatal(err)
	}
	defer s.finalize()
	if got := declaredType(s.stmt, 0); got != "VARCHAR(10)" {
		t.Errorf("the type is %q: the package for SQLite has changed, see declaredType", got)
	}
	if got := declaredType(s.stmt, 1); got != "" {
		t.Errorf("the type of an expression is %q, expected none", got)
	}
}

func TestMetadata(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	c.update("CREATE TABLE parent (a INTEGER, b TEXT NOT NULL, PRIMARY KEY (b, a))")
	c.update("CREATE TEMP TABLE scratch (x REAL)")
	c.update("CREATE VIEW seen AS SELECT a FROM parent")
	check := func(what string, want [][]string) func(*flight.FlightInfo, error) {
		return func(info *flight.FlightInfo, err error) {
			t.Helper()
			if err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			if got := must[[][]string](t)(c.fetch(info)); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v, expected %v", what, got, want)
			}
		}
	}
	check("catalogs", [][]string{{"main"}, {"temp"}})(c.GetCatalogs(c.ctx))
	check("schemas", [][]string{{"main", ""}, {"temp", ""}})(c.GetDBSchemas(c.ctx, &flightsql.GetDBSchemasOpts{}))
	check("table types", [][]string{{"table"}, {"view"}})(c.GetTableTypes(c.ctx))
	check("tables", [][]string{{"main", "", "parent", "table"}, {"temp", "", "scratch", "table"}, {"main", "", "seen", "view"}})(
		c.GetTables(c.ctx, &flightsql.GetTablesOpts{}))
	pattern, temp := "scr%", "temp"
	check("tables of a name", [][]string{{"temp", "", "scratch", "table"}})(
		c.GetTables(c.ctx, &flightsql.GetTablesOpts{TableNameFilterPattern: &pattern, Catalog: &temp, TableTypes: []string{"table"}}))
	check("primary key", [][]string{{"main", "", "parent", "b", "1", "(null)"}, {"main", "", "parent", "a", "2", "(null)"}})(
		c.GetPrimaryKeys(c.ctx, flightsql.TableRef{Table: "parent"}))
	check("transactions", [][]string{{"8", "[3,2]"}})(c.GetSqlInfo(c.ctx, []flightsql.SqlInfo{flightsql.SqlInfoFlightSqlServerTransaction}))
	if got := must[[][]string](t)(c.fetch(must[*flight.FlightInfo](t)(c.GetXdbcTypeInfo(c.ctx, nil)))); len(got) != 5 {
		t.Errorf("there are %d types, expected 5: %v", len(got), got)
	}
	other := p.connect(t)
	info := must[*flight.FlightInfo](t)(other.GetTables(other.ctx, &flightsql.GetTablesOpts{IncludeSchema: true, TableTypes: []string{"table"}}))
	r := must[*flight.Reader](t)(other.DoGet(other.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	if !r.Next() || r.RecordBatch().NumRows() != 1 {
		t.Fatalf("a client without the session sees %v, expected one table", r.RecordBatch())
	}
	column := r.RecordBatch().Column(4).(interface{ Value(int) []byte })
	schema := must[*arrow.Schema](t)(flight.DeserializeSchema(bytes.Clone(column.Value(0)), memory.DefaultAllocator))
	if schema.NumFields() != 2 || schema.Field(1).Nullable || !arrow.TypeEqual(schema.Field(0).Type, arrow.PrimitiveTypes.Int64) {
		t.Errorf("the table's schema is %v", schema)
	}
}

func TestWhatSomebodyMakesInTheDatabaseLeavesOthersTheirMetadata(t *testing.T) {
	p := serve(t, "-max-memory", "32")
	p.connect(t).update("CREATE TABLE honest (n INTEGER PRIMARY KEY)")
	for _, sql := range []string{
		"CREATE VIEW pragma_table_list AS SELECT 'main' AS schema, 1 AS name, 'table' AS type",
		"CREATE TABLE pragma_table_info (name, type)",
		"CREATE VIEW broken AS SELECT * FROM nowhere",
		`CREATE VIEW "a ""quoted"" one" AS SELECT 1 AS x`,
		"CREATE VIEW expanding AS " + explosion(40),
	} {
		p.connect(t).update(sql)
	}
	c := p.connect(t)
	columns := map[string]int{"honest": 1, "pragma_table_list": 3, "pragma_table_info": 2, "broken": 0, `a "quoted" one`: 1, "expanding": 0}
	info := must[*flight.FlightInfo](t)(c.GetTables(c.ctx, &flightsql.GetTablesOpts{IncludeSchema: true}))
	r := must[*flight.Reader](t)(c.DoGet(c.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	if !r.Next() || int(r.RecordBatch().NumRows()) != len(columns) {
		t.Fatalf("the tables are %v, %v, expected %d", r.RecordBatch(), r.Err(), len(columns))
	}
	for i := range len(columns) {
		name := r.RecordBatch().Column(2).ValueStr(i)
		schema := must[*arrow.Schema](t)(flight.DeserializeSchema(r.RecordBatch().Column(4).(interface{ Value(int) []byte }).Value(i), memory.DefaultAllocator))
		if want, ok := columns[name]; !ok || schema.NumFields() != want {
			t.Errorf("%s has the columns %v, expected %d", name, schema, want)
		}
	}
	keys := must[*flight.FlightInfo](t)(c.GetPrimaryKeys(c.ctx, flightsql.TableRef{Table: "honest"}))
	if got := must[[][]string](t)(c.fetch(keys)); !reflect.DeepEqual(got, [][]string{{"main", "", "honest", "n", "1", "(null)"}}) {
		t.Errorf("the primary key is %v", got)
	}
}

// large returns rows of one parameter each.
func large(rows, size int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.BinaryTypes.Binary}}, nil))
	defer b.Release()
	for range rows {
		b.Field(0).(*array.BinaryBuilder).Append(make([]byte, size))
	}
	return b.NewRecordBatch()
}

func TestParametersThatWereUsedMakeRoomForOthers(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	bind := func() (*flightsql.PreparedStatement, *flight.FlightInfo, error) {
		prepared := must[*flightsql.PreparedStatement](t)(c.Prepare(c.ctx, "SELECT length(?)"))
		prepared.SetParameters(large(3, 4<<20)) // 12 of 32 MiB
		info, err := prepared.Execute(c.ctx)
		prepared.SetParameters(nil)
		return prepared, info, err
	}
	var infos []*flight.FlightInfo
	for range 3 {
		_, info, err := bind()
		if err != nil {
			t.Fatal(err)
		}
		infos = append(infos, info)
		if got := must[[][]string](t)(c.fetch(info)); len(got) != 3 {
			t.Errorf("the results are %v, expected three", got)
		}
	}
	for _, info := range infos { // nobody knows which of them made room, but some did
		if _, err := c.fetch(info); status.Code(err) == codes.FailedPrecondition {
			infos = nil
		}
	}
	if infos != nil {
		t.Error("all parameters are still bound")
	}
	var err error
	for range 3 { // which are not used
		_, _, err = bind()
	}
	wantCode(t, err, codes.ResourceExhausted, "36 MiB that are not used")
}

func TestAPreparedStatementEndsWithItsTransaction(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	c.update("CREATE TABLE t (n INTEGER)")
	tx := must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
	prepared := must[*flightsql.PreparedStatement](t)(tx.Prepare(c.ctx, "INSERT INTO t VALUES (1)"))
	must[int64](t)(prepared.ExecuteUpdate(c.ctx))
	if err := tx.Rollback(c.ctx); err != nil {
		t.Fatal(err)
	}
	for range 2 { // outside of a transaction, and in another one
		_, err := prepared.ExecuteUpdate(c.ctx)
		wantCode(t, err, codes.NotFound, "a statement of a transaction that has ended")
		must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
		if _, err := c.ExecuteUpdate(c.ctx, "ROLLBACK"); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.query("SELECT count(*) FROM t"); got[0][0] != "0" {
		t.Errorf("there are %v rows, expected none", got)
	}
	if err := prepared.Close(c.ctx); err != nil {
		t.Errorf("it cannot be closed: %v", err)
	}
}

func TestASchemaIsThatOfTheResultOrThereIsNone(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	c.update("CREATE TABLE t (n INTEGER, m NUMERIC)")
	for sql, known := range map[string]bool{
		"VALUES (1)":                                  true,
		"SELECT n, m FROM t":                          true,
		"SELECT count(*) FROM t":                      true,
		"WITH x AS (SELECT 1 AS a) SELECT a FROM x":   true,
		"INSERT INTO t VALUES (1, 2) RETURNING n":     true,
		"INSERT INTO t VALUES (1, 2) RETURNING n + 1": false,
		"WITH x AS (SELECT 1) INSERT INTO t SELECT *, 2 FROM x RETURNING n + 1": false,
	} {
		c.update("DELETE FROM t")
		said, err := c.GetExecuteSchema(c.ctx, sql)
		if !known {
			wantCode(t, err, codes.FailedPrecondition, sql)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want := must[*arrow.Schema](t)(flight.DeserializeSchema(said.GetSchema(), memory.DefaultAllocator))
		sent, _, err := c.fetchSchema(must[*flight.FlightInfo](t)(c.Execute(c.ctx, sql)))
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range sent.Fields() {
			if !arrow.TypeEqual(f.Type, want.Field(i).Type) {
				t.Errorf("%s: column %d is %v, and was said to be %v", sql, i, f.Type, want.Field(i).Type)
			}
		}
	}
	if got := c.query("SELECT count(*) FROM t"); got[0][0] == "2" {
		t.Error("asking for a schema has inserted a row")
	}
}
