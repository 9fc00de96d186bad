// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"sync"

	"modernc.org/libc"
	sqlite3 "modernc.org/sqlite/lib"
)

// countMemory has SQLite count the memory that it takes, without which it knows no
// limit. This build of it does not by default, and it listens only before it has
// opened its first connection. It costs a lock for each piece of memory.
var countMemory = sync.OnceValue(func() error {
	tls := libc.NewTLS()
	defer tls.Close()
	on := libc.NewVaList(int32(1))
	defer libc.Xfree(tls, on)
	if code := sqlite3.Xsqlite3_config(tls, sqlite3.SQLITE_CONFIG_MEMSTATUS, on); code != sqlite3.SQLITE_OK {
		return fmt.Errorf("SQLite does not count its memory: code %d", code)
	}
	return nil
})

// limitMemory sets how many bytes SQLite may take in this process, for all that no
// other limit bounds: what a statement sorts, groups or recurs over, how far its
// views expand, temporary tables, caches. Caches shrink first. Then whoever asks for
// more is out of memory, which may be somebody who has asked for little; everything
// goes on when the statement that took the most has failed.
func limitMemory(bytes int64) error {
	if err := countMemory(); err != nil {
		return err
	}
	tls := libc.NewTLS()
	defer tls.Close()
	sqlite3.Xsqlite3_hard_heap_limit64(tls, bytes)
	return nil
}

// memoryUsed returns how many bytes SQLite has taken.
func memoryUsed() int64 {
	tls := libc.NewTLS()
	defer tls.Close()
	return sqlite3.Xsqlite3_memory_used(tls)
}
