// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
)

// The driver for database/sql keeps no cookies. With the sessions of principals each
// of its connections is in the session of its token; with cookies it has none, and
// yet its transactions and prepared statements work, by their handles.
func TestTheDriverForDatabaseSQLWorksWithAndWithoutSessionsOfItsOwn(t *testing.T) {
	for _, carrier := range []string{"cookie", "principal"} {
		t.Run(carrier, func(t *testing.T) {
			p := serve(t, "-carrier", carrier, "-token", "alice:secret")
			db := sql.OpenDB(connector(t, &driver.DriverConfig{Address: p.addr, Token: "secret", Timeout: 30 * time.Second}))
			defer func() { _ = db.Close() }()
			db.SetMaxOpenConns(1)
			useDriver(t, db)
			if carrier == "principal" {
				if n := p.store.Stats().Created; n != 1 {
					t.Errorf("%d sessions were made, expected that of the principal", n)
				}
				exec(t, db, "CREATE TEMP TABLE mine (n INTEGER)")
				exec(t, db, "INSERT INTO mine VALUES (1)")
			}
		})
	}
}

func connector(t *testing.T, config *driver.DriverConfig) *driver.Connector {
	t.Helper()
	c := &driver.Connector{}
	if err := c.Configure(config); err != nil {
		t.Fatal(err)
	}
	return c
}

func exec(t *testing.T, db interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// useDriver does what programs do.
func useDriver(t *testing.T, db *sql.DB) {
	t.Helper()
	exec(t, db, "CREATE TABLE t (n INTEGER, s TEXT, r REAL, yes BOOLEAN)")
	exec(t, db, "INSERT INTO t VALUES (?, ?, ?, ?)", int64(1), "one", 1.5, true)
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, tx, "CREATE TEMP TABLE scratch (n INTEGER)")
	exec(t, tx, "INSERT INTO scratch VALUES (2), (3)")
	exec(t, tx, "INSERT INTO t SELECT n, 'scratch', n, n = 2 FROM scratch WHERE n > ?", int64(1))
	var n int64
	if err := tx.QueryRowContext(t.Context(), "SELECT count(*) FROM t WHERE s = ?", "scratch").Scan(&n); err != nil || n != 2 {
		t.Fatalf("in the transaction there are %d rows, %v, expected 2", n, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	rows, err := db.QueryContext(t.Context(), "SELECT n, s, r, yes FROM t ORDER BY n")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	got := ""
	for rows.Next() {
		var s string
		var r float64
		var yes bool
		if err := rows.Scan(&n, &s, &r, &yes); err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprintf("%d %s %g %t;", n, s, r, yes)
	}
	if want := "1 one 1.5 true;2 scratch 2 true;3 scratch 3 false;"; got != want || rows.Err() != nil {
		t.Errorf("the table has %s, %v, expected %s", got, rows.Err(), want)
	}
}
