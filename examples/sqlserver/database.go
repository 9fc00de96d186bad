// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"zombiezen.com/go/sqlite"
)

// database is a database file. It hands out connections to it and keeps none of them:
// they are the sessions'.
type database struct {
	file    string
	anchor  *sqlite.Conn // idle, so that the last one of the others need not tidy up the file
	scratch string       // the folder to remove in the end, if the file is a temporary one
	limits

	open   atomic.Int64
	opened atomic.Int64 // since the start
	alone  atomic.Int64 // of those that are open, for calls without a session
}

// limits are what the flags say about connections.
type limits struct {
	max       int64         // how many there may be before calls without a session get none
	turn      time.Duration // for how long calls of a session wait for each other
	statement time.Duration // for how long a call may keep one without coming on
}

// openDatabase opens a database file, makes it if need be, and has it write ahead,
// so that readers and the writer do not wait for each other. Without a name it is a
// temporary one: an in-memory database that connections share locks whole tables.
func openDatabase(file string, l limits) (_ *database, err error) {
	d := &database{file: file, limits: l}
	if err := countMemory(); err != nil {
		return nil, err
	}
	if file == "" {
		if d.scratch, err = os.MkdirTemp("", "sqlserver-"); err != nil {
			return nil, err
		}
		d.file = filepath.Join(d.scratch, "scratch.db")
	}
	if d.anchor, err = openConn(d.file, sqlite.OpenReadWrite, sqlite.OpenCreate, sqlite.OpenWAL); err != nil {
		return nil, errors.Join(err, d.remove())
	}
	return d, nil
}

// addresses is held while a connection is opened or closed. Package sqlite (v1.4.2)
// keeps authorizers by the address of their connection and removes them after it has
// freed that: if another one that is just being opened got it, it would lose its own.
var addresses sync.Mutex

func openConn(file string, flags ...sqlite.OpenFlags) (*sqlite.Conn, error) {
	addresses.Lock()
	defer addresses.Unlock()
	return sqlite.OpenConn(file, flags...)
}

func closeConn(c *sqlite.Conn) error {
	addresses.Lock()
	defer addresses.Unlock()
	return c.Close()
}

// connect opens a connection.
func (d *database) connect(s settings) (_ *conn, err error) {
	d.open.Add(1)
	d.opened.Add(1)
	defer func() {
		if err != nil {
			d.open.Add(-1)
		}
	}()
	db, err := openConn(d.file, sqlite.OpenReadWrite)
	if err != nil {
		return nil, failed(err)
	}
	c := newConn(d, db)
	if err := c.configure(s); err != nil {
		_ = closeConn(db)
		return nil, failed(err)
	}
	return c, nil
}

// configure prepares a new connection for statements of strangers.
func (c *conn) configure(s settings) error {
	c.settings = s
	c.db.SetBusyTimeout(0) // we wait for locks ourselves: by default it does without end
	if err := c.pragmas(
		"temp_store = MEMORY", // temporary tables leave no file behind
		fmt.Sprintf("temp.max_page_count = %d", maxTempPages), // they are in memory
		"trusted_schema = OFF",
		"foreign_keys = ON",
	); err != nil {
		return err
	}
	for limit, value := range map[sqlite.Limit]int32{
		sqlite.LimitLength:    maxValue,
		sqlite.LimitSQLLength: maxSQL,
		sqlite.LimitColumn:    maxColumns,
		sqlite.LimitAttached:  0,
		// Nothing interrupts a function, nor how a statement is compiled. These are the
		// places where a short text takes the longest.
		sqlite.LimitLikePatternLength: maxPattern,
		sqlite.LimitVDBEOp:            maxProgram,
		sqlite.LimitCompoundSelect:    maxCompound,
	} {
		c.db.Limit(limit, value)
	}
	if err := defend(c.db); err != nil {
		return err
	}
	if err := c.db.SetAuthorizer(sqlite.AuthorizeFunc(c.authorize)); err != nil {
		return err
	}
	return c.apply(s)
}

// closed takes a connection off the count.
func (d *database) closed() { d.open.Add(-1) }

// remove deletes a temporary database.
func (d *database) remove() error {
	if d.scratch == "" {
		return nil
	}
	return os.RemoveAll(d.scratch)
}

// close is called when all other connections are closed.
func (d *database) close() (err error) {
	if n := d.open.Load(); n != 0 {
		err = fmt.Errorf("%d connections are still open", n)
	}
	return errors.Join(err, closeConn(d.anchor), d.remove())
}
