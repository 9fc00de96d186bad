// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"

	"zombiezen.com/go/sqlite"
)

// authorize says what statements of clients may do. SQLite asks it about every
// part of each statement, so that no spelling gets around it. Statements could
// otherwise read and write files of the server (ATTACH, VACUUM INTO) and change
// what all sessions have in common (many a PRAGMA). It also notes what makes this
// connection unlike a new one.
func (c *conn) authorize(a sqlite.Action) sqlite.AuthResult {
	switch a.Type() {
	case sqlite.OpAttach, sqlite.OpDetach, sqlite.OpCreateVTable, sqlite.OpDropVTable:
		return sqlite.AuthResultDeny
	case sqlite.OpRead, sqlite.OpInsert, sqlite.OpUpdate, sqlite.OpDelete:
		if isRaw(a.Table()) {
			return sqlite.AuthResultDeny
		}
	case sqlite.OpPragma:
		if c.trusted {
			break
		}
		if !pragmaAllowed(a.Pragma(), a.PragmaArg()) {
			return sqlite.AuthResultDeny
		}
		c.changed = c.changed || a.PragmaArg() != "" && isSetting(a.Pragma())
	case sqlite.OpCreateTempTable, sqlite.OpCreateTempIndex, sqlite.OpCreateTempView, sqlite.OpCreateTempTrigger:
		c.changed = true
	default:
	}
	return sqlite.AuthResultOK
}

// isRaw reports whether a virtual table, which is there in every connection, shows the
// file behind the database. Through it one could change that behind SQLite's back.
func isRaw(table string) bool {
	switch strings.ToLower(table) {
	case "sqlite_dbpage", "dbstat":
		return true
	}
	return false
}

// pragmaAllowed says which PRAGMAs there are for clients: those that tell about the
// schema, those that tell about the database if they are not told to change it, and
// those that belong to the connection, unless they are session options.
func pragmaAllowed(name, arg string) bool {
	switch strings.ToLower(name) {
	case "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo",
		"foreign_key_list", "foreign_key_check", "database_list", "collation_list",
		"function_list", "module_list", "pragma_list", "compile_options",
		"integrity_check", "quick_check", "user_version":
		return true
	case "encoding", "page_size", "page_count", "freelist_count", "max_page_count",
		"journal_mode", "schema_version", "data_version", "application_id", "auto_vacuum",
		"cache_size", "query_only", "temp_store", "trusted_schema":
		return arg == ""
	}
	return isSetting(name)
}

// isSetting says which PRAGMAs are settings of the connection.
func isSetting(name string) bool {
	switch strings.ToLower(name) {
	case "foreign_keys", "defer_foreign_keys", "recursive_triggers", "reverse_unordered_selects", "automatic_index":
		return true
	}
	return false
}
