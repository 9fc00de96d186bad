// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestErrorsOfSQLKeepTheirMessageAndHaveTheRightCode(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	c.update("CREATE TABLE t (n INTEGER PRIMARY KEY, m INTEGER CHECK (m > 0))")
	c.update("INSERT INTO t VALUES (1, 1)")
	for _, test := range []struct {
		sql  string
		code codes.Code
		text string
	}{
		{"SELEKT 1", codes.InvalidArgument, `near "SELEKT": syntax error`},
		{"SELECT * FROM nowhere", codes.InvalidArgument, "no such table: nowhere"},
		{"INSERT INTO t VALUES (1, 1)", codes.AlreadyExists, "UNIQUE constraint failed: t.n"},
		{"INSERT INTO t VALUES (2, 0)", codes.InvalidArgument, "CHECK constraint failed"},
		{"SELECT 1; SELECT 2", codes.InvalidArgument, "more than one statement"},
		{"-- nothing", codes.InvalidArgument, "no statement"},
		{"", codes.InvalidArgument, "no statement"},
		{"SELECT ?", codes.InvalidArgument, "0 parameters for a statement that has 1"},
		{"SELECT '" + strings.Repeat("x", maxSQL) + "'", codes.InvalidArgument, "longer than"},
		{"SELECT zeroblob(1000000000)", codes.ResourceExhausted, "too big"},
		{"COMMIT", codes.InvalidArgument, "no transaction is active"},
	} {
		for name, run := range map[string]func() error{
			"query":  func() error { _, err := c.tryQuery(test.sql); return err },
			"update": func() error { _, err := c.ExecuteUpdate(c.ctx, test.sql); return err },
		} {
			err := run()
			if status.Code(err) != test.code || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%s %.40q: %v, expected %v and %q", name, test.sql, err, test.code, test.text)
			}
		}
	}
	c.query("SELECT * FROM t") // the connection is as good as before
	_, err := c.tryQuery("CREATE TEMP TABLE big AS WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT zeroblob(1000000) FROM t")
	wantCode(t, err, codes.ResourceExhausted, "a temporary table of 100 MB, which is in memory")
}

func TestALockOfAnotherSessionIsUnavailable(t *testing.T) {
	p := serve(t)
	a, b := p.connectJar(t), p.connectJar(t)
	a.update("CREATE TABLE t (n)")
	a.update("BEGIN IMMEDIATE")
	b.update("CREATE TEMP TABLE mine (n)")
	if errs := b.setOptions(map[string]any{"busy_timeout": int64(10)}); len(errs) > 0 {
		t.Fatal(errs)
	}
	_, err := b.ExecuteUpdate(b.ctx, "INSERT INTO t VALUES (1)")
	wantCode(t, err, codes.Unavailable, "a write while another session writes")
	a.update("ROLLBACK")
	b.update("INSERT INTO t VALUES (1)")
}

func TestATriggerThatIsGoneIsNoErrorAnyMore(t *testing.T) {
	p := serve(t)
	a, b := p.connectJar(t), p.connectJar(t)
	a.update("CREATE TABLE t (n)")
	b.update("CREATE TEMP TABLE mine (n)") // and so it keeps its connection
	a.update("CREATE TRIGGER bad AFTER INSERT ON t BEGIN INSERT INTO t SELECT name FROM pragma_table_list; END")
	_, err := b.ExecuteUpdate(b.ctx, "INSERT INTO t VALUES (1)")
	wantCode(t, err, codes.InvalidArgument, "a statement whose trigger cannot be compiled")
	a.update("DROP TRIGGER bad")
	b.update("INSERT INTO t VALUES (1)")
}

func TestTriggersOfOthersSeeNothingOfASession(t *testing.T) {
	p := serve(t)
	a, b := p.connectJar(t), p.connectJar(t)
	a.update("CREATE TABLE log (x)")
	a.update("CREATE TABLE t (n)")
	b.update("CREATE TEMP TABLE secret (x)")
	b.update("INSERT INTO secret VALUES ('secret')")
	for _, body := range []string{"SELECT name FROM pragma_table_list", "SELECT sql FROM sqlite_temp_schema", "SELECT sql FROM temp.sqlite_schema", "SELECT x FROM secret", "SELECT x FROM temp.secret"} {
		if _, err := a.ExecuteUpdate(a.ctx, "CREATE TRIGGER spy AFTER INSERT ON t BEGIN INSERT INTO log "+body+"; END"); err != nil {
			continue // SQLite refuses it as it is
		}
		_, _ = b.ExecuteUpdate(b.ctx, "INSERT INTO t VALUES (1)")
		if got := a.query("SELECT x FROM log WHERE x LIKE '%secret%'"); len(got) > 0 {
			t.Errorf("%s: a trigger has found %v", body, got)
		}
		a.update("DROP TRIGGER spy")
	}
}

func TestTheMessageOfAnErrorIsNotAnErrorInAnError(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	for _, sql := range []string{"SELECT 1; SELECT 2", "SELEKT", "SELECT * FROM nowhere", "SELECT ?"} {
		_, err := c.tryQuery(sql)
		if text := status.Convert(err).Message(); text == "" || strings.Contains(text, "rpc error") {
			t.Errorf("%s: the message is %q", sql, text)
		}
	}
}

func TestStatementsCannotReachFilesOrOtherSessions(t *testing.T) {
	folder := t.TempDir()
	p := serve(t, "-db", filepath.Join(folder, "a.db"))
	c := p.connectJar(t)
	c.update("CREATE TABLE t (n)")
	c.update("CREATE TEMP VIEW raw AS SELECT x.data FROM sqlite_dbpage AS x") // to be refused when it is read
	secret := filepath.Join(folder, "secret.db")
	for _, sql := range []string{
		"ATTACH '" + secret + "' AS other",
		"/**/ATTACH DATABASE 'file:" + secret + "' || '' AS other",
		"ATTACH ':memory:' AS other",
		"VACUUM INTO '" + secret + "'",
		"SELECT load_extension('" + secret + "')",
		"PRAGMA hard_heap_limit = 1",
		"EXPLAIN PRAGMA hard_heap_limit = 1",
		"PRAGMA soft_heap_limit = 1",
		"PRAGMA temp_store_directory = '" + folder + "'",
		"PRAGMA temp_store = FILE",
		"PRAGMA writable_schema = ON",
		"PRAGMA journal_mode = DELETE",
		"PRAGMA main.journal_mode = OFF",
		"PRAGMA locking_mode = EXCLUSIVE",
		"PRAGMA wal_checkpoint(TRUNCATE)",
		"PRAGMA query_only = OFF",
		"PRAGMA cache_size = -1000000000",
		"PRAGMA busy_timeout = 100000000",
		"PRAGMA trusted_schema = ON",
		"CREATE VIRTUAL TABLE v USING fts5(x)",
		"UPDATE sqlite_schema SET sql = ''",
		"UPDATE sqlite_dbpage SET data = randomblob(4096) WHERE pgno > 1",
		"INSERT INTO SQLite_DBPage VALUES (2, zeroblob(4096), 'main')",
		"DELETE FROM main.sqlite_dbpage",
		"SELECT count(*) FROM sqlite_dbpage",
		"SELECT data FROM sqlite_dbpage('main')",
		"SELECT * FROM raw",
		"SELECT * FROM dbstat",
	} {
		_, err := c.ExecuteUpdate(c.ctx, sql)
		if code := status.Code(err); code != codes.PermissionDenied && code != codes.InvalidArgument {
			t.Errorf("%s: %v, expected that it is refused", sql, err)
		}
	}
	// Those modules of SQLite's that are tables, too: see isRaw if there is another one.
	if got := c.query("SELECT name FROM pragma_module_list WHERE name NOT LIKE 'pragma_%' ORDER BY name"); !reflect.DeepEqual(got, [][]string{
		{"dbstat"}, {"fts5"}, {"fts5vocab"}, {"geopoly"}, {"rtree"}, {"rtree_i32"}, {"sqlite_dbpage"}}) {
		t.Errorf("SQLite has other modules: %v", got)
	}
	for _, f := range must[[]os.DirEntry](t)(os.ReadDir(folder)) {
		if !strings.HasPrefix(f.Name(), "a.db") {
			t.Errorf("there is a file %s", f.Name())
		}
	}
	for _, sql := range []string{"PRAGMA table_info(t)", "PRAGMA foreign_keys", "SELECT name FROM pragma_table_list", "PRAGMA integrity_check"} {
		c.query(sql)
	}
}

func TestMalformedRequestsAreErrorsAndTheServerGoesOn(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	raw := c.Client.Client
	for name, data := range map[string]*flight.FlightData{
		"nothing":              {},
		"no command":           {FlightDescriptor: &flight.FlightDescriptor{}},
		"garbage":              {FlightDescriptor: &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: []byte("\xff\xff")}},
		"garbage for a header": {FlightDescriptor: commandOf(t, &pb.CommandStatementUpdate{Query: "SELECT 1"}), DataHeader: []byte("\xff\xff\xff\xff")},
		"an unknown handle":    {FlightDescriptor: commandOf(t, &pb.CommandPreparedStatementUpdate{PreparedStatementHandle: []byte("x")})},
	} {
		stream := must[flight.FlightService_DoPutClient](t)(raw.DoPut(c.ctx))
		_ = stream.Send(data)
		_ = stream.CloseSend()
		if _, err := stream.Recv(); err == nil && name != "garbage for a header" {
			t.Errorf("a put of %s succeeded", name)
		}
	}
	for name, ticket := range map[string][]byte{
		"nothing":                   nil,
		"garbage":                   []byte("\xff"),
		"a ticket of nothing":       ticketFor(t, ""),
		"a made up handle":          ticketFor(t, ticketOfSession+"x"),
		"a statement with a state":  ticketFor(t, ticketOfNobody+"CREATE TEMP TABLE t (n)"),
		"a statement that is blank": ticketFor(t, ticketOfNobody),
	} {
		stream, err := raw.DoGet(c.ctx, &flight.Ticket{Ticket: ticket})
		if err == nil {
			_, err = stream.Recv()
		}
		if code := status.Code(err); code != codes.InvalidArgument && code != codes.NotFound {
			t.Errorf("%s: %v, expected INVALID_ARGUMENT or NOT_FOUND", name, err)
		}
	}
	c.query("SELECT 1")
	if n := p.store.Stats().Created; n != 0 {
		t.Errorf("%d sessions were made, expected none", n)
	}
}

func ticketFor(t *testing.T, handle string) []byte {
	t.Helper()
	return must[[]byte](t)(flightsql.CreateStatementQueryTicket([]byte(handle)))
}

func TestKeywordIsTheFirstWordWhateverIsBeforeIt(t *testing.T) {
	for sql, want := range map[string]string{
		"select 1":                         "SELECT",
		" \t\n\ufeffSELECT 1":              "SELECT",
		"-- SELECT\nCREATE TEMP TABLE t":   "CREATE",
		"/* SELECT */PRAGMA x":             "PRAGMA",
		"/* SELECT":                        "",
		"-- SELECT":                        "",
		";;((SELECT 1))":                   "SELECT",
		"--\r SELECT\n/**/ -- \n attach 1": "ATTACH",
		"":                                 "",
		"1":                                "",
		"SELECT\x00":                       "SELECT",
		"séance":                           "S",
	} {
		if got := keyword(sql); got != want {
			t.Errorf("the keyword of %q is %q, expected %q", sql, got, want)
		}
	}
	for _, sql := range []string{"CREATE TEMP TABLE t (n)", "PRAGMA x", "BEGIN", "SAVEPOINT s", "x", "/* SELECT */ ATTACH 'x' AS y"} {
		if leavesNothing(sql) {
			t.Errorf("%q is said to leave nothing behind", sql)
		}
	}
}

// Whatever a client sends, what runs without a session must not be of the kind that
// needs one.
func FuzzKeyword(f *testing.F) {
	for _, sql := range []string{"SELECT 1", "-- x\nCREATE TEMP TABLE t (n)", "/**/PRAGMA cache_size", "(SELECT", ";BEGIN", "EXPLAIN SELECT 1"} {
		f.Add(sql)
	}
	d, err := openDatabase("", limits{max: 10, turn: 1, statement: time.Minute})
	if err != nil {
		f.Fatal(err)
	}
	c, err := d.connect(settings{busyTimeout: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := c.Close(); err != nil {
			f.Error(err)
		}
		if err := d.close(); err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, sql string) {
		s, err := c.compile(sql)
		if err != nil {
			return
		}
		defer s.finalize()
		if keyword(sql) == "" {
			t.Errorf("SQLite understands %q, which has no keyword", sql)
		}
		if !leavesNothing(sql) || keyword(sql) == "EXPLAIN" {
			return
		}
		if _, err := c.run(s, s.nulls()[0]); err == nil && c.inTransaction() {
			t.Errorf("%q has begun a transaction", sql)
		}
	})
}
