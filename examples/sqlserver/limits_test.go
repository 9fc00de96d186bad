// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// explosion is a query whose parts expand to so many times two.
func explosion(n int) string {
	var b strings.Builder
	b.WriteString("WITH a0 AS (SELECT 1 x)")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, ", a%d AS (SELECT a.x FROM a%d a, a%d b)", i, i-1, i-1)
	}
	fmt.Fprintf(&b, " SELECT count(*) FROM a%d", n)
	return b.String()
}

func TestNoStatementTakesAllMemory(t *testing.T) {
	p := serve(t, "-max-memory", "32")
	c := p.connect(t)
	tls := libc.NewTLS()
	defer tls.Close()
	sqlite3.Xsqlite3_memory_highwater(tls, 1)
	for name, sql := range map[string]string{
		"a recursion":  "WITH RECURSIVE c(x, y) AS (SELECT 1, zeroblob(100000) UNION SELECT x + 1, zeroblob(100000) FROM c) SELECT count(*) FROM c",
		"a sort":       "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 1000) SELECT (x % 7) || zeroblob(100000) AS r FROM c ORDER BY r",
		"what expands": explosion(40),
		"one wide row": "SELECT " + strings.Repeat("zeroblob(4194304), ", 50) + "1",
	} {
		_, err := c.tryQuery(sql)
		wantCode(t, err, codes.ResourceExhausted, name)
		if most := sqlite3.Xsqlite3_memory_highwater(tls, 1); most > 32<<20 {
			t.Errorf("%s takes %d MiB", name, most>>20)
		}
	}
	c.query("SELECT 1")
}

func TestARowIsNotTooLongHoweverShortItsValuesAre(t *testing.T) {
	p := serve(t)
	_, err := p.connect(t).tryQuery("SELECT " + strings.Repeat("zeroblob(3000000), ", 3) + "1")
	if status.Convert(err).Message() != status.Convert(errRow).Message() {
		t.Errorf("a row of 9 MB: %v, expected %v", err, errRow)
	}
}

func TestAPatternIsNotTooLong(t *testing.T) {
	p := serve(t)
	_, err := p.connect(t).tryQuery("SELECT 'a' LIKE replace(hex(zeroblob(1000)), '0', '%')")
	wantCode(t, err, codes.InvalidArgument, "a pattern of 2000 bytes")
}

func TestNotEvenTheServerCanWriteIntoTheSchema(t *testing.T) {
	d := must[*database](t)(openDatabase("", limits{max: 10, turn: 1, statement: time.Minute}))
	c := must[*conn](t)(d.connect(settings{}))
	c.trusted = true
	for _, sql := range []string{"PRAGMA writable_schema = ON", "CREATE TABLE t (n)"} {
		must[int64](t)(c.once(sql))
	}
	if _, err := c.once("UPDATE sqlite_schema SET sql = ''"); err == nil {
		t.Error("it can: the package for SQLite has changed, see defend")
	}
	if err := errors.Join(c.Close(), d.close()); err != nil {
		t.Error(err)
	}
}
