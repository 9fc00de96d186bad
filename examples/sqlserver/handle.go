// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"reflect"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
	"zombiezen.com/go/sqlite"
)

// The package that we use SQLite by has no method for some of what SQLite can. These
// functions take the handle of a statement or a connection out of it. Tests notice if
// it changes.

// handle returns the field of a struct that is a handle, 0 if there is none.
func handle(of any, field string) uintptr {
	f := reflect.ValueOf(of).Elem().FieldByName(field)
	if f.Kind() != reflect.Uintptr {
		return 0
	}
	return uintptr(f.Uint())
}

// declaredType returns the type that the table of a result's column declares, empty
// if there is none.
func declaredType(s *sqlite.Stmt, column int) string {
	tls := libc.NewTLS()
	defer tls.Close()
	if h := handle(s, "stmt"); h != 0 {
		return libc.GoString(sqlite3.Xsqlite3_column_decltype(tls, h, int32(column)))
	}
	return ""
}

// readsOnly reports whether a statement changes nothing in the database.
func readsOnly(s *sqlite.Stmt) bool {
	tls := libc.NewTLS()
	defer tls.Close()
	h := handle(s, "stmt")
	return h != 0 && sqlite3.Xsqlite3_stmt_readonly(tls, h) != 0
}

// defend has a connection refuse SQL that would write into the file behind SQLite's
// back. Conn.SetDefensive would do the same, but it passes one argument where SQLite
// expects two (v1.4.2), so that SQLite may write to wherever the second one points.
func defend(c *sqlite.Conn) error {
	tls := libc.NewTLS()
	defer tls.Close()
	args := libc.NewVaList(int32(1), uintptr(0))
	defer libc.Xfree(tls, args)
	h := handle(c, "conn")
	if h == 0 {
		return fmt.Errorf("the package for SQLite has changed: see %T", c)
	}
	return sqlite.ResultCode(sqlite3.Xsqlite3_db_config(tls, h, sqlite3.SQLITE_DBCONFIG_DEFENSIVE, args)).ToError()
}
