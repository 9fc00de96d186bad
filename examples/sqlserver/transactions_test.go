// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestATransactionNeedsNoCookies(t *testing.T) {
	p := serve(t)
	p.connectJar(t).update("CREATE TABLE t (n INTEGER, s TEXT)")
	c := p.connect(t)
	tx := must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
	run := func(sql string) {
		t.Helper()
		if _, err := tx.ExecuteUpdate(c.ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	run("CREATE TEMP TABLE scratch (n INTEGER)")
	run("INSERT INTO scratch VALUES (1), (2), (3)")
	run("INSERT INTO t SELECT n, 'x' FROM scratch")
	run("UPDATE t SET s = 'y' WHERE n > 1")
	prepared := must[*flightsql.PreparedStatement](t)(tx.Prepare(c.ctx, "SELECT count(*) FROM t WHERE s = ?"))
	prepared.SetParameters(batch(t, `[{"s": "y"}]`, "s"))
	info := must[*flight.FlightInfo](t)(prepared.Execute(c.ctx))
	if got := must[[][]string](t)(c.fetch(info)); !reflect.DeepEqual(got, [][]string{{"2"}}) {
		t.Errorf("the prepared statement sees %v in its transaction, expected 2", got)
	}
	info = must[*flight.FlightInfo](t)(tx.Execute(c.ctx, "SELECT count(*) FROM t"))
	if got := must[[][]string](t)(c.fetch(info)); !reflect.DeepEqual(got, [][]string{{"3"}}) {
		t.Errorf("the fifth statement sees %v in its transaction, expected 3", got)
	}
	if got := p.connect(t).query("SELECT count(*) FROM t"); got[0][0] != "0" {
		t.Errorf("others see %v before the commit, expected 0", got)
	}
	if err := prepared.Close(c.ctx); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(c.ctx); err != nil {
		t.Fatal(err)
	}
	if got := p.connect(t).query("SELECT count(*) FROM t"); got[0][0] != "3" {
		t.Errorf("others see %v after the commit, expected 3", got)
	}
}

func TestASessionHasOneTransactionAtATime(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	tx := must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
	_, err := c.BeginTransaction(c.ctx)
	wantCode(t, err, codes.FailedPrecondition, "a second transaction in the session")
	c.update("CREATE TABLE t (n)") // without the ID, and yet in it
	if err := tx.Rollback(c.ctx); err != nil {
		t.Fatal(err)
	}
	if got := c.query("SELECT count(*) FROM sqlite_schema"); got[0][0] != "0" {
		t.Errorf("there are %v tables after the rollback, expected 0", got)
	}
	again := must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
	if err := again.Commit(c.ctx); err != nil {
		t.Error(err)
	}
}

func TestATransactionOfSQLTextIsHeldAsAnyOther(t *testing.T) {
	p := serve(t, "-connection-idle-timeout", "100ms", "-transaction-timeout", "1m")
	c := p.connectJar(t)
	c.update("CREATE TABLE t (n)")
	eventually(t, "the idle connection is closed", func() bool { return p.database.open.Load() == 0 })
	c.update("BEGIN")
	c.update("INSERT INTO t VALUES (1)")
	other := p.connectJar(t)
	other.update("PRAGMA table_info(t)")
	eventually(t, "a later connection is closed", func() bool { return p.database.open.Load() == 1 })
	c.update("COMMIT")
	if got := c.query("SELECT count(*) FROM t"); got[0][0] != "1" {
		t.Errorf("there are %v rows, expected 1", got)
	}
	eventually(t, "the connection is closed after the commit", func() bool { return p.database.open.Load() == 0 })
}

func TestATransactionThatSQLTextEndsHasEnded(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	tx := must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
	c.update("ROLLBACK")
	wantCode(t, tx.Commit(c.ctx), codes.NotFound, "the commit")
	if _, err := c.BeginTransaction(c.ctx); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestSavepoints(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	tx := must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
	insert := func(n int) {
		t.Helper()
		if _, err := tx.ExecuteUpdate(c.ctx, fmt.Sprintf("INSERT INTO t VALUES (%d)", n)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.ExecuteUpdate(c.ctx, "CREATE TABLE t (n INTEGER)"); err != nil {
		t.Fatal(err)
	}
	insert(1)
	outer := must[flightsql.Savepoint](t)(tx.BeginSavepoint(c.ctx, "a"))
	insert(2)
	inner := must[flightsql.Savepoint](t)(tx.BeginSavepoint(c.ctx, "a"))
	insert(3)
	if err := tx.ReleaseSavepoint(c.ctx, inner); err != nil {
		t.Fatal(err)
	}
	if err := tx.RollbackSavepoint(c.ctx, outer); err != nil {
		t.Fatal(err)
	}
	wantCode(t, tx.RollbackSavepoint(c.ctx, outer), codes.NotFound, "a savepoint that has ended")
	if err := tx.Commit(c.ctx); err != nil {
		t.Fatal(err)
	}
	if got := p.connect(t).query("SELECT n FROM t"); !reflect.DeepEqual(got, [][]string{{"1"}}) {
		t.Errorf("the table has %v, expected 1", got)
	}
}

func TestAThousandClientsThatBeginATransactionAndVanishLeaveNothing(t *testing.T) {
	folder := t.TempDir()
	p := serve(t, "-db", filepath.Join(folder, "a.db"), "-idle-timeout", "4s", "-connection-idle-timeout", "1s",
		"-transaction-timeout", "3s", "-max-connections", "1100")
	p.connect(t).update("CREATE TABLE t (n INTEGER)")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 125 {
				c, err := flightsql.NewClient(p.addr, nil, nil, insecureDial)
				if err != nil {
					t.Error(err)
					return
				}
				tx, err := c.BeginTransaction(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				for _, sql := range []string{"CREATE TEMP TABLE mine (n INTEGER)", "INSERT INTO mine VALUES (1)"} {
					_, err := tx.ExecuteUpdate(t.Context(), sql)
					if code := status.Code(err); code == codes.NotFound || code == codes.Aborted {
						break // the client is too slow: its transaction has ended already
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
				_ = c.Close()
			}
		})
	}
	writer := p.connect(t) // one that vanishes with a write lock, too
	tx := must[*flightsql.Txn](t)(writer.BeginTransaction(writer.ctx))
	if _, err := tx.ExecuteUpdate(writer.ctx, "INSERT INTO t VALUES (0)"); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	wg.Wait()
	eventually(t, "all connections are closed", func() bool { return p.database.open.Load() == 0 })
	eventually(t, "all sessions have ended", func() bool { return p.store.Len() == 0 })
	p.connect(t).update("INSERT INTO t VALUES (1)")
	if got := p.connect(t).query("SELECT n FROM t"); !reflect.DeepEqual(got, [][]string{{"1"}}) {
		t.Errorf("the table has %v, expected only what was committed", got)
	}
	files := must[[]os.DirEntry](t)(os.ReadDir(folder))
	for _, f := range files {
		switch f.Name() {
		case "a.db", "a.db-wal", "a.db-shm":
		default:
			t.Errorf("there is a file %s", f.Name())
		}
	}
}

func TestHandlesOfOthersAndMadeUpOnesAreUnknown(t *testing.T) {
	p := serve(t, "-token", "alice:secret-a", "-token", "bob:secret-b")
	alice, bob := p.connectAs(t, "secret-a"), p.connectAs(t, "secret-b")
	tx := must[*flightsql.Txn](t)(alice.BeginTransaction(alice.ctx))
	if _, err := tx.ExecuteUpdate(alice.ctx, "CREATE TABLE t (n)"); err != nil {
		t.Fatal(err)
	}
	prepared := must[*flightsql.PreparedStatement](t)(alice.Prepare(alice.ctx, "SELECT 1"))
	info := must[*flight.FlightInfo](t)(tx.Execute(alice.ctx, "SELECT 2"))

	wantCode(t, bob.endTransaction(tx.ID()), codes.NotFound, "a transaction of somebody else's")
	_, err := bob.executeSchemaIn("SELECT 1", tx.ID())
	wantCode(t, err, codes.NotFound, "a statement in a transaction of somebody else's")
	_, err = bob.fetch(info)
	wantCode(t, err, codes.NotFound, "a ticket of somebody else's")
	wantCode(t, bob.closePrepared(prepared.Handle()), codes.NotFound, "a prepared statement of somebody else's")
	for name, made := range map[string][]byte{"garbage": []byte("x"), "of another kind": prepared.Handle(), "changed": flip(tx.ID())} {
		wantCode(t, alice.endTransaction(made), codes.NotFound, "a transaction whose handle is "+name)
	}
	if err := tx.Commit(alice.ctx); err != nil {
		t.Errorf("its owner's commit: %v", err)
	}
	wantCode(t, alice.endTransaction(tx.ID()), codes.NotFound, "a transaction that has ended")
	_, err = p.connect(t).tryQuery("SELECT 1")
	wantCode(t, err, codes.Unauthenticated, "nobody in particular")
}

func TestHandlesOfASessionThatHasEndedAreToldWhy(t *testing.T) {
	p := serve(t, "-idle-timeout", "300ms")
	c := p.connect(t)
	tx := must[*flightsql.Txn](t)(c.BeginTransaction(c.ctx))
	prepared := must[*flightsql.PreparedStatement](t)(tx.Prepare(c.ctx, "SELECT 1"))
	info := must[*flight.FlightInfo](t)(tx.Execute(c.ctx, "SELECT 1"))
	eventually(t, "the session has ended", func() bool { return p.store.Len() == 0 })
	_, fetched := c.fetch(info)
	for what, err := range map[string]error{
		"a transaction":        c.endTransaction(tx.ID()),
		"a prepared statement": c.closePrepared(prepared.Handle()),
		"a ticket":             fetched,
	} {
		if reason(err) != "SESSION_IDLE" || status.Code(err) != codes.NotFound {
			t.Errorf("%s: %v (%s), expected NOT_FOUND and SESSION_IDLE", what, err, reason(err))
		}
	}
}

func flip(handle []byte) []byte {
	changed := append([]byte(nil), handle...)
	changed[len(changed)/2] ^= 1
	return changed
}
