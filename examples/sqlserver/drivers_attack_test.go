// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// FlightSql.proto: dataset_schema "contains the schema of the result set" of a prepared
// query. What the server says of a parameter's type, with NULL, is not what it sends.
func TestAttackThePreparedSchemaIsNotThatOfTheResult(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	c.update("CREATE TABLE t (n NUMERIC)")
	for _, q := range []string{"SELECT ? + 1", "SELECT ?", "SELECT n FROM t"} {
		st, err := c.Prepare(c.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if q == "SELECT n FROM t" {
			c.update("INSERT INTO t VALUES (1)")
		} else {
			b, _, err := array.RecordFromJSON(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "0", Type: arrow.PrimitiveTypes.Int64}}, nil), strings.NewReader(`[{"0":1}]`))
			if err != nil {
				t.Fatal(err)
			}
			st.SetParameters(b)
		}
		info, err := st.Execute(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		schema, rows, err := c.fetchSchema(info)
		if err != nil {
			t.Fatal(err)
		}
		if said, sent := st.DatasetSchema().Field(0).Type, schema.Field(0).Type; !arrow.TypeEqual(said, sent) {
			t.Errorf("%s: prepared as %v, sent as %v: %v", q, said, sent, rows)
		}
		_ = st.Close(c.ctx)
	}
}

// GetSchema (ExecuteSchema) of a query and the result differ, too.
func TestAttackTheSchemaOfAQueryIsNotThatOfItsResult(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	c.update("CREATE TABLE t (n INTEGER)")
	for _, q := range []string{"INSERT INTO t VALUES (1) RETURNING n + 1", "WITH x AS (SELECT 1 AS a) SELECT a FROM x", "VALUES (1)"} {
		r, err := c.GetExecuteSchema(c.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		said, err := flight.DeserializeSchema(r.GetSchema(), memory.DefaultAllocator)
		if err != nil {
			t.Fatal(err)
		}
		info, err := c.Execute(c.ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		sent, _, err := c.fetchSchema(info)
		if err != nil {
			t.Fatal(err)
		}
		if !arrow.TypeEqual(said.Field(0).Type, sent.Field(0).Type) {
			t.Errorf("%s: %v, sent as %v", q, said.Field(0).Type, sent.Field(0).Type)
		}
	}
}

// What an ordinary program does with database/sql.
func TestAttackDatabaseSQL(t *testing.T) {
	for _, carrier := range []string{"cookie", "principal"} {
		t.Run(carrier, func(t *testing.T) {
			p := serve(t, "-carrier", carrier, "-token", "alice:secret")
			connector := &driver.Connector{}
			if err := connector.Configure(&driver.DriverConfig{Address: p.addr, Token: "secret", Timeout: 30 * time.Second}); err != nil {
				t.Fatal(err)
			}
			db := sql.OpenDB(connector)
			defer func() { _ = db.Close() }()
			ctx := t.Context()
			exec(t, db, "CREATE TABLE t (n INTEGER, s TEXT, r REAL, b BLOB, yes BOOLEAN, at TIMESTAMP)")
			if _, err := db.ExecContext(ctx, "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", int64(1), "one", 1.5, []byte{0, 255}, true, time.Date(2024, 2, 29, 1, 2, 3, 0, time.UTC)); err != nil {
				t.Errorf("all types: %v", err)
			}
			if _, err := db.ExecContext(ctx, "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", nil, nil, nil, nil, nil, nil); err != nil {
				t.Errorf("NULLs: %v", err)
			}
			if _, err := db.ExecContext(ctx, "INSERT INTO t (n, s) VALUES (?, ?)", int64(2), nil); err != nil {
				t.Errorf("NULL and a value: %v", err)
			}
			rows, err := db.QueryContext(ctx, "SELECT n, s, r, b, yes, at FROM t ORDER BY n")
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
				var n sql.NullInt64
				var s, at sql.NullString
				var r sql.NullFloat64
				var b []byte
				var yes sql.NullBool
				if err := rows.Scan(&n, &s, &r, &b, &yes, &at); err != nil {
					t.Errorf("%v", err)
				}
				t.Log(n, s, r, b, yes, at)
			}
			if rows.Err() != nil {
				t.Error(rows.Err())
			}
			_ = rows.Close()
			// An update while rows are open, on another connection of the pool.
			rows, err = db.QueryContext(ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 100000) SELECT x FROM c")
			if err != nil {
				t.Fatal(err)
			}
			rows.Next()
			short, cancel := context.WithTimeout(ctx, 3*time.Second)
			if _, err := db.ExecContext(short, "INSERT INTO t (n) VALUES (3)"); err != nil {
				t.Logf("while a result is open: %v", err)
			}
			cancel()
			_ = rows.Close()
			// A failing statement in a transaction, two transactions at a time.
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO nowhere VALUES (1)"); err == nil {
				t.Error("no error")
			}
			if tx2, err := db.BeginTx(ctx, nil); err != nil {
				t.Logf("a second transaction of the pool: %v", err)
			} else {
				_ = tx2.Rollback()
			}
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
			st, err := db.PrepareContext(ctx, "SELECT s FROM t WHERE n = ?")
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				var s string
				if err := st.QueryRowContext(ctx, int64(1)).Scan(&s); err != nil || s != "one" {
					t.Errorf("%q %v", s, err)
				}
			}
			_ = st.Close()
			eventually(t, "nothing is busy", func() bool {
				n := numbers(p.database, p.store)
				return n["connections_busy"] == 0 && n["connections_alone"] == 0
			})
			t.Log(numbers(p.database, p.store))
		})
	}
}

// Views and triggers in main that run in others' connections tell nothing of them.
func TestAttackTriggersInMainSeeNothingOfOthers(t *testing.T) {
	p := serve(t)
	a := p.connectJar(t)
	a.update("CREATE TABLE log (x)")
	a.update("CREATE TABLE t (x)")
	for _, body := range []string{"SELECT name FROM pragma_table_list", "SELECT sql FROM sqlite_temp_schema", "SELECT sql FROM sqlite_temp_master", "SELECT x FROM secret", "SELECT x FROM temp.secret", "SELECT changes()||'/'||last_insert_rowid()"} {
		if _, err := a.ExecuteUpdate(a.ctx, "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log "+body+"; END"); err != nil {
			t.Logf("%s: %v", body, err)
			continue
		}
		v := p.connectJar(t)
		v.update("CREATE TEMP TABLE secret (x)")
		v.update("INSERT INTO secret VALUES ('s3cret')")
		_, err := v.ExecuteUpdate(v.ctx, "INSERT INTO t VALUES (1)")
		t.Logf("%s: victim: %v, log: %v", body, err, a.query("SELECT * FROM log"))
		for _, row := range a.query("SELECT * FROM log") {
			if strings.Contains(row[0], "secret") {
				t.Errorf("%s: %v", body, row)
			}
		}
		a.update("DROP TRIGGER tr")
	}
}

// Handles, cookies and tickets of another principal, forged and stale ones.
func TestAttackOthersHandles(t *testing.T) {
	p := serve(t, "-token", "alice:a", "-token", "bob:b", "-user", "carol:c")
	alice := p.connectWith(t, cookieJar(flight.NewCookieMiddleware())...)
	alice.ctx = metadata.AppendToOutgoingContext(alice.ctx, "authorization", "Bearer a")
	alice.update("CREATE TEMP TABLE mine (n)")
	tx := must[*flightTxn](t)(begin(alice))
	info := must[*flight.FlightInfo](t)(alice.Execute(alice.ctx, "SELECT 1 FROM mine"))
	bob := p.connectAs(t, "b")
	wantCode(t, bob.endTransaction(tx.id), codes.NotFound, "bob ends alice's transaction")
	_, err := bob.fetch(info)
	wantCode(t, err, codes.NotFound, "bob's alice's ticket")
	for _, id := range []string{"", "x", strings.Repeat("x", 1000), string(tx.id[:len(tx.id)-1]), string(tx.id) + "x"} {
		err := alice.endTransaction([]byte(id))
		if status.Code(err) != codes.NotFound && id != "" {
			t.Errorf("forged %.10q: %v", id, err)
		}
		t.Logf("forged %.10q: %v", id, err)
	}
	if _, err := alice.executeSchemaIn("SELECT 1", tx.id); err != nil {
		t.Error(err)
	}
	for _, token := range []string{"", "c", "a.b.c.d", "....", "YWxpY2U.99999999999.x.", strings.Repeat("a", 5000)} {
		if _, err := p.connectAs(t, token).tryQuery("SELECT 1"); status.Code(err) != codes.Unauthenticated {
			t.Errorf("token %.20q: %v", token, err)
		}
	}
	for _, header := range []string{"Bearer", "Basic YTpi", "a", "", "Basic Y2Fyb2w6eA=="} {
		c := p.connect(t)
		c.ctx = metadata.AppendToOutgoingContext(c.ctx, "authorization", header)
		if _, err := c.tryQuery("SELECT 1"); err == nil {
			t.Errorf("header %q is let in", header)
		} else if status.Code(err) != codes.Unauthenticated {
			t.Logf("header %q: %v", header, err)
		}
	}
	carol := p.connect(t)
	ctx, err := carol.Client.Client.AuthenticateBasicToken(carol.ctx, "carol", "c")
	if err != nil {
		t.Fatal(err)
	}
	carol.ctx = ctx
	if _, err := carol.tryQuery("SELECT 1"); err != nil {
		t.Error(err)
	}
	if _, err := carol.Client.Client.AuthenticateBasicToken(t.Context(), "nobody", ""); status.Code(err) != codes.Unauthenticated {
		t.Error(err)
	}
}

type flightTxn struct{ id []byte }

func begin(c *client) (*flightTxn, error) {
	tx, err := c.BeginTransaction(c.ctx)
	if err != nil {
		return nil, err
	}
	return &flightTxn{tx.ID()}, nil
}

// Clients that vanish in the middle leave nothing.
func TestAttackVanishingClients(t *testing.T) {
	p := serve(t, "-idle-timeout", "500ms", "-transaction-timeout", "500ms", "-connection-idle-timeout", "300ms")
	p.connect(t).update("CREATE TABLE t (n, b)")
	for i := range 10 {
		c := p.connectWith(t)
		ctx, cancel := context.WithCancel(c.ctx)
		c.ctx = ctx
		_, _ = begin(c)
		_, _ = c.Prepare(ctx, "SELECT ?")
		var all sync.WaitGroup
		all.Go(func() {
			_, _ = c.tryQuery("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c")
		})
		all.Go(func() {
			_, _ = c.tryQuery("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x, zeroblob(100000) FROM c")
		})
		all.Go(func() {
			_, _ = c.ExecuteUpdate(ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) INSERT INTO t SELECT x, zeroblob(10000) FROM c")
		})
		time.Sleep(time.Duration(10*i) * time.Millisecond)
		cancel()
		all.Wait()
	}
	eventually(t, "nothing is left", func() bool { n := numbers(p.database, p.store); return n["connections"] == 0 && n["sessions"] == 0 })
	t.Log(fmt.Sprint(numbers(p.database, p.store)))
	p.connect(t).update("INSERT INTO t VALUES (1, 2)")
}

// README: a transaction is rolled back "at the latest with its session" - unless a
// client stalls in a stream of it.
func TestAttackAStalledStreamOutlivesItsSession(t *testing.T) {
	p := serve(t, "-transaction-timeout", "300ms", "-connection-idle-timeout", "300ms", "-idle-timeout", "500ms", "-lifetime", "1500ms", "-turn-timeout", "500ms")
	p.connect(t).update("CREATE TABLE t (n, b)")
	c := p.connectJar(t)
	c.update("BEGIN")
	c.update("INSERT INTO t VALUES (1, 2)")
	info := must[*flight.FlightInfo](t)(c.Execute(c.ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x, zeroblob(100000) FROM c"))
	r := must[*flight.Reader](t)(c.DoGet(c.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	r.Next()
	time.Sleep(4 * time.Second)
	if _, err := p.connect(t).ExecuteUpdate(t.Context(), "INSERT INTO t VALUES (0, NULL)"); err != nil {
		t.Errorf("past every timeout, another client writes: %v; %v", err, numbers(p.database, p.store))
	}
}

// params.go: "the server keeps it until it is used". It keeps it after that, too: 1000
// statements of 16 MiB each in one session.
func TestAttackParametersStayAfterTheyWereUsed(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	heap := func() int {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc >> 20)
	}
	jar := p.connectJar(t)
	jar.update("CREATE TEMP TABLE x (n)")
	_ = c
	before := heap()
	for range 10 {
		st, err := jar.Prepare(jar.ctx, "SELECT length(?)")
		if err != nil {
			t.Fatal(err)
		}
		b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "0", Type: arrow.BinaryTypes.Binary}}, nil))
		for range 4 {
			b.Field(0).(*array.BinaryBuilder).Append(bytes.Repeat([]byte("x"), 3<<20))
		}
		batch := b.NewRecordBatch()
		b.Release()
		st.SetParameters(batch)
		batch.Release()
		info, err := st.Execute(jar.ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := jar.fetch(info); err != nil {
			t.Fatal(err)
		}
		st.SetParameters(nil)
	}
	if grown := heap() - before; grown > 40 {
		t.Errorf("10 statements that were used keep %d MB, 1000 will keep %d", grown, grown*100)
	}
}

// SIGTERM in mid-stream: exit 0 in time.
func TestAttackSIGTERMInMidStream(t *testing.T) {
	addr, cmd, exited, log := spawn(t, "-drain-timeout", "1s")
	p := &process{addr: addr}
	p.connect(t).update("CREATE TABLE t (n, b)")
	var all sync.WaitGroup
	for i := range 12 {
		var c *client
		if c = p.connect(t); i%2 == 0 {
			c = p.connectJar(t)
			c.update("CREATE TEMP TABLE x (n)")
			c.update("BEGIN")
		}
		all.Go(func() {
			switch i % 3 {
			case 0:
				_, _ = c.tryQuery("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) FROM c")
			case 1:
				info, err := c.Execute(c.ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x, zeroblob(1000) FROM c")
				if err != nil {
					return
				}
				r, err := c.DoGet(c.ctx, info.Endpoint[0].Ticket)
				if err != nil {
					return
				}
				defer r.Release()
				for r.Next() {
				}
			case 2:
				_, _ = c.ExecuteUpdate(c.ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) INSERT INTO t SELECT x, zeroblob(100) FROM c")
			}
		})
	}
	time.Sleep(time.Second)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	start := time.Now()
	select {
	case err := <-exited:
		if err != nil {
			t.Errorf("%v: %s", err, log)
		}
		t.Logf("it took %v", time.Since(start))
	case <-time.After(20 * time.Second):
		t.Errorf("it does not end: %s", log)
		_ = cmd.Process.Kill()
	}
	all.Wait()
}
