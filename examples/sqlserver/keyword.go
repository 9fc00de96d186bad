// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "strings"

// keyword returns the first keyword of a statement in capitals, empty if there is
// none. Comments and parentheses before it do not hide it.
func keyword(sql string) string {
	sql = skip(sql, " \t\n\v\f\r\ufeff;(")
	end := strings.IndexFunc(sql, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
	if end < 0 {
		end = len(sql)
	}
	return strings.ToUpper(sql[:end])
}

// isBlank reports whether nothing in the text is a statement.
func isBlank(sql string) bool { return skip(sql, " \t\n\v\f\r\ufeff;") == "" }

// skip returns what follows such characters and comments.
func skip(sql, chars string) string {
	for {
		rest := strings.TrimLeft(sql, chars)
		switch {
		case strings.HasPrefix(rest, "--"):
			_, rest, _ = strings.Cut(rest, "\n")
		case strings.HasPrefix(rest, "/*"):
			_, rest, _ = strings.Cut(rest[2:], "*/")
		case rest == sql:
			return rest
		}
		sql = rest
	}
}

// leavesNothing reports whether a statement is of a kind that leaves nothing in the
// connection that runs it, so that a client without a session needs none for it.
// What it does not know leaves something: a session too many ends by itself.
func leavesNothing(sql string) bool {
	switch keyword(sql) {
	case "SELECT", "VALUES", "WITH", "EXPLAIN", "INSERT", "UPDATE", "DELETE", "REPLACE":
		return true
	}
	return false
}

// returnsRows reports whether a statement is there to return rows. WITH may begin an
// INSERT, too.
func returnsRows(sql string) bool {
	switch keyword(sql) {
	case "SELECT", "VALUES", "WITH", "EXPLAIN":
		return true
	}
	return false
}

// changesRows reports whether SQLite's count of changes is about this statement, if
// it returns no rows. After all others it is still that of the one before.
func changesRows(sql string) bool {
	switch keyword(sql) {
	case "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH":
		return true
	}
	return false
}
