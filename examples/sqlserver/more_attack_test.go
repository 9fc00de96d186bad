// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// A view in main that cannot be read breaks GetTables with schemas for every client.
func TestAttackABrokenViewBreaksTheMetadataOfAll(t *testing.T) {
	p := serve(t)
	p.connect(t).update("CREATE TABLE honest (n INTEGER)")
	p.connect(t).update("CREATE VIEW bad AS SELECT * FROM nowhere")
	victim := p.connect(t)
	info := must[*flight.FlightInfo](t)(victim.GetTables(victim.ctx, &flightsql.GetTablesOpts{IncludeSchema: true}))
	if rows, err := victim.fetch(info); err != nil {
		t.Errorf("%v, %v", rows, err)
	}
}

// A view in main that takes forever to compile hangs GetTables of every client: SQLite
// compiles all views for pragma_table_list. Nothing interrupts that.
func TestAttackAViewInMainHangsTheMetadataOfAll(t *testing.T) {
	p := serve(t)
	p.connect(t).update("CREATE TABLE honest (n INTEGER)")
	p.connect(t).update("CREATE VIEW bad AS " + cteBomb(15))
	victim := p.connect(t)
	ctx, cancel := context.WithTimeout(victim.ctx, 2*time.Second)
	defer cancel()
	victim.ctx = ctx
	start := time.Now()
	info := must[*flight.FlightInfo](t)(victim.GetTables(victim.ctx, &flightsql.GetTablesOpts{}))
	rows, err := victim.fetch(info)
	if err != nil {
		t.Errorf("%v, %v", rows, err)
	}
	eventuallyLong(t, func() bool { return p.database.alone.Load() == 0 })
	t.Logf("it took %v", time.Since(start))
}

// A client that leaves while its statement waits for a lock frees its connection at once.
func TestAttackWaitingForALockIsInterrupted(t *testing.T) {
	p := serve(t)
	one := p.connectJar(t)
	one.update("CREATE TABLE t (n)")
	one.update("BEGIN IMMEDIATE")
	two := p.connectJar(t)
	if errs := two.setOptions(map[string]any{"busy_timeout": int64(8000)}); len(errs) > 0 {
		t.Fatal(errs)
	}
	two.update("CREATE TEMP TABLE x (n)")
	ctx, cancel := context.WithTimeout(two.ctx, 300*time.Millisecond)
	defer cancel()
	_, err := two.ExecuteUpdate(ctx, "INSERT INTO t VALUES (1)")
	start := time.Now()
	two.query("SELECT 1")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the client left (%v), and its session was busy for %v more", status.Code(err), took)
	}
}

// "Nothing is half applied": a change that is interrupted leaves the connection with
// what the session does not have.
func TestAttackAnInterruptedChangeIsHalfApplied(t *testing.T) {
	p := serve(t)
	c := must[*conn](t)(p.database.connect(settings{busyTimeout: 5000}))
	defer func() { _ = c.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	var leave func()
	for leave == nil {
		leave, _ = c.enter(ctx)
	}
	cancel()
	err := c.apply(settings{busyTimeout: 1, queryOnly: true})
	leave()
	if err == nil {
		t.Fatal("it was not interrupted")
	}
	rows := must[[][]any](t)(c.list("PRAGMA busy_timeout"))
	if rows[0][0] != c.settings.busyTimeout {
		t.Errorf("after %v the connection has busy_timeout %v, its settings %v", err, rows[0][0], c.settings.busyTimeout)
	}
}

// SIGTERM while a statement waits for a lock: the session option busy_timeout may be a
// minute, and a drain takes 10 s.
func TestAttackTheShutdownFailsBehindALock(t *testing.T) {
	c, err := parse([]string{"-addr", "127.0.0.1:0", "-drain-timeout", "500ms"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(c)
	if err != nil {
		t.Fatal(err)
	}
	one := p.connectJar(t)
	one.update("CREATE TABLE t (n)")
	one.update("BEGIN IMMEDIATE")
	two := p.connectJar(t)
	if errs := two.setOptions(map[string]any{"busy_timeout": int64(6000)}); len(errs) > 0 {
		t.Fatal(errs)
	}
	done := make(chan struct{})
	go func() { defer close(done); _, _ = two.ExecuteUpdate(two.ctx, "INSERT INTO t VALUES (1)") }()
	eventually(t, "it waits", func() bool { return numbers(p.database, p.store)["connections_busy"] == 1 })
	time.Sleep(200 * time.Millisecond)
	if err := p.stop(); err != nil {
		t.Errorf("the server ends with: %v", err)
	}
	<-done
	eventuallyLong(t, func() bool { return p.database.open.Load() == 0 })
	<-p.failed
}

// README: "temporary tables, settings, the transaction and prepared statements belong
// to the session, and go when it ends". With the flags' defaults they go ten minutes
// earlier, and nobody is told: then a name means another table.
func TestAttackATempTableGoesBeforeItsSession(t *testing.T) {
	p := serve(t, "-idle-timeout", "1m", "-connection-idle-timeout", "100ms")
	p.connect(t).update("CREATE TABLE t (n)")
	p.connect(t).update("INSERT INTO t VALUES (1), (2)")
	c := p.connectJar(t)
	c.update("CREATE TEMP TABLE t (n)")
	c.update("DELETE FROM t") // the session's own
	eventually(t, "the client is idle for a while", func() bool { return p.database.open.Load() == 0 })
	n, err := c.ExecuteUpdate(c.ctx, "DELETE FROM t")
	if err == nil && n != 0 {
		t.Errorf("in the same session, the same statement has deleted %d rows of everybody's table, with no error; sessions ended: %d", n, p.store.Stats().Ended.Total())
	}
}

// The sessions of -carrier header are their principals', whatever header others send.
func TestAttackTheHeaderOfAnother(t *testing.T) {
	p := serve(t, "-carrier", "header:x-session", "-token", "alice:a", "-token", "bob:b")
	as := func(token, name string) *client {
		c := p.connectAs(t, token)
		if name != "" {
			c.ctx = metadata.AppendToOutgoingContext(c.ctx, "x-session", name)
		}
		return c
	}
	as("a", "one").update("CREATE TEMP TABLE mine (n)")
	as("a", "one").query("SELECT * FROM mine")
	for _, c := range []*client{as("b", "one"), as("a", "two"), as("a", ""), as("b", "")} {
		if _, err := c.tryQuery("SELECT * FROM mine"); err == nil {
			t.Error("another session has it")
		}
	}
}

// A trigger that cannot run and is dropped again: whoever has met it goes on failing.
func TestAttackADroppedTriggerGoesOnFailing(t *testing.T) {
	p := serve(t)
	a, v := p.connectJar(t), p.connectJar(t)
	a.update("CREATE TABLE t (x)")
	v.update("CREATE TEMP TABLE mine (x)")
	a.update("CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO t SELECT name FROM pragma_table_list; END")
	_, err := v.ExecuteUpdate(v.ctx, "INSERT INTO t VALUES (1)")
	t.Log(err)
	a.update("DROP TRIGGER tr")
	for i := range 3 {
		if _, err := v.ExecuteUpdate(v.ctx, "INSERT INTO t VALUES (1)"); err != nil {
			t.Errorf("%d: after the trigger is gone: %v", i, err)
		}
	}
}

// Functions with absurd arguments do not end the process.
func TestAttackAbsurdFunctions(t *testing.T) {
	addr, cmd, exited, log := spawn(t)
	c := (&process{addr: addr}).connect(t)
	for _, f := range []string{
		"printf('%*d', 2147483647, 1)", "printf('%.2147483647f', 1.0)", "printf('%2147483647s', 'x')", "printf('%.*c', 999999999, 'x')",
		"rtreenode(2, x'0000ffff')", "rtreenode(1000, zeroblob(4194304))", "rtreedepth(x'')", "rtreedepth(zeroblob(1))", "rtreecheck('main','t')", "rtreecheck('sqlite_master')",
		"geopoly_regular(0,0,1e308,1000000)", "geopoly_blob(x'01ffffff0000')", "geopoly_area(zeroblob(4194304))", "geopoly_json(x'0100000300000000')", "geopoly_debug(1)", "geopoly_overlap(zeroblob(100), zeroblob(100))", "geopoly_ccw(x'01000004ffffffff')",
		"fts5('x')", "fts5_source_id()", "sqlite_offset(1)", "sqlite_log(1,'x')", "zeroblob(-1)", "randomblob(9223372036854775807)", "substr('x', -9223372036854775808, 9223372036854775807)",
		"round(1e308, 2147483647)", "char(1114112, -1)", "unhex(replace(hex(zeroblob(1000000)),'0','a'))", "json_extract(replace(hex(zeroblob(500000)),'00','['), '$')", "jsonb(replace(hex(zeroblob(500000)),'00','['))",
		"json(zeroblob(1000))", "json(x'ffffffffffffffffff')", "jsonb_extract(x'cbffffffff','$[0]')", "json_each.value FROM json_each(x'bcffffff')", "strftime('%Y', 1e300)", "strftime(replace(hex(zeroblob(1000000)),'00','%Y'), 'now')", "date('now', replace(hex(zeroblob(1000000)),'0','+'))",
		"soundex(zeroblob(4194304))", "quote(zeroblob(4194304))", "replace(zeroblob(1000),x'00',zeroblob(4194304))", "abs(-9223372036854775808)", "-9223372036854775808 / -1", "-9223372036854775808 % -1", "1 << -9223372036854775808", "likely(1) LIKE 1 ESCAPE 'xx'",
		"group_concat(x, zeroblob(4194304)) FROM (SELECT 1 x UNION ALL SELECT 2)", "load_extension('x')", "fts5_decode(1, zeroblob(100))", "snippet(1)", "matchinfo(1)", "sum(x) FROM (SELECT 9223372036854775807 x UNION ALL SELECT 1)", "ntile(0) OVER ()", "nth_value(1, -1) OVER ()", "lag(1, 9223372036854775807) OVER ()", "sum(1) OVER (ROWS BETWEEN 9223372036854775807 PRECEDING AND CURRENT ROW)",
	} {
		ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
		info, err := c.Execute(ctx, "SELECT "+f)
		if err == nil {
			var r *flight.Reader
			if r, err = c.DoGet(ctx, info.Endpoint[0].Ticket); err == nil {
				for r.Next() {
				}
				err = r.Err()
				r.Release()
			}
		}
		cancel()
		if code := status.Code(err).String(); code == "Internal" || code == "DeadlineExceeded" || code == "Unavailable" || code == "Unknown" {
			t.Logf("%s: %v", f, err)
		}
		select {
		case err := <-exited:
			t.Fatalf("%s: the process ended with %v: %.500s", f, err, log)
		default:
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := <-exited; err != nil {
		t.Errorf("%v: %s", err, log)
	}
}

// A statement that is prepared within a transaction, options while a stream runs, and a
// result that is read twice: what an ordinary client may do.
func TestAttackOrdinaryUse(t *testing.T) {
	p := serve(t, "-turn-timeout", "500ms")
	c := p.connectJar(t)
	c.update("CREATE TABLE t (n INTEGER)")
	info := must[*flight.FlightInfo](t)(c.Execute(c.ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x, zeroblob(10000) FROM c"))
	ctx, cancel := context.WithCancel(c.ctx)
	r := must[*flight.Reader](t)(c.DoGet(ctx, info.Endpoint[0].Ticket))
	r.Next()
	errs := c.setOptions(map[string]any{"case_sensitive_like": true})
	t.Logf("an option while a stream runs: %v", errs)
	cancel()
	r.Release()
	if got := c.query("SELECT 'a' LIKE 'A'"); len(errs) > 0 && got[0][0] != "1" {
		t.Errorf("an option that was refused holds: %v", got)
	}
}

// FlightSql.proto: with a transaction_id, "create/execute the prepared statement as part
// of this transaction". After its end the statement runs all the same, and commits.
func TestAttackAPreparedStatementOutlivesItsTransaction(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	c.update("CREATE TABLE t (n INTEGER)")
	tx := must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
	st := must[*flightsql.PreparedStatement](t)(tx.Prepare(c.ctx, "INSERT INTO t VALUES (1)"))
	if _, err := st.ExecuteUpdate(c.ctx); err != nil {
		t.Error(err)
	}
	if err := tx.Rollback(c.ctx); err != nil {
		t.Error(err)
	}
	_, err := st.ExecuteUpdate(c.ctx)
	if got := c.query("SELECT count(*) FROM t"); status.Code(err) != codes.NotFound || got[0][0] != "0" {
		t.Errorf("after the rollback it runs outside of any transaction: %v, and has committed %v rows", err, got)
	}
}
