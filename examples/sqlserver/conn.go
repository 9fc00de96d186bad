// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const (
	// maxSQL is how long a statement may be, so that its ticket fits into a message.
	maxSQL = 256 << 10
	// maxValue is how long a string or blob may be.
	maxValue = 4 << 20
	// maxColumns is how many columns a table or a result may have.
	maxColumns = 1000
	// maxRow is how many bytes of text and blobs a row of a result may have.
	maxRow = 8 << 20
	// maxPattern is how long a pattern of LIKE or GLOB may be.
	maxPattern = 250
	// maxProgram is how many instructions a statement may be compiled to.
	maxProgram = 500_000
	// maxCompound is how many SELECTs may be joined by UNION and the like.
	maxCompound = 200
	// maxTempPages is how many pages, of 4 KiB by default, the temporary tables of a
	// session may take.
	maxTempPages = 16 << 10
	// maxPrepared is how many prepared statements a connection may have.
	maxPrepared = 1000
)

// conn is the connection of a session, with all that lives in it: temporary tables,
// settings, a transaction, prepared statements. It is used by one call at a time,
// which has its turn. What is said about a method that needs the turn holds for
// all fields, too.
type conn struct {
	database *database
	db       *sqlite.Conn
	turn     chan struct{} // has one element while nobody has the turn

	prepared    map[string]*prepared
	transaction *transaction // the one that BeginTransaction has begun, if it is open
	settings    settings
	call        *call // the one that has the turn, nil if there is none
	trusted     bool  // what runs is the server's own
	changed     bool  // it has temporary tables, or settings that a new one would not have
	known       stake
}

// settings are the session options that concern a connection.
type settings struct {
	cacheSize         int64
	caseSensitiveLike bool
	queryOnly         bool
	busyTimeout       int64 // milliseconds
}

func (s settings) busy() time.Duration { return time.Duration(s.busyTimeout) * time.Millisecond }

func newConn(d *database, db *sqlite.Conn) *conn {
	c := &conn{database: d, db: db, turn: make(chan struct{}, 1), prepared: make(map[string]*prepared)}
	c.turn <- struct{}{}
	return c
}

// call is a call that has the turn of a connection.
type call struct {
	ctx   context.Context // done when it is over, or has not come on for too long
	end   context.CancelCauseFunc
	clock *time.Timer // that ends it if it does not come on
}

// errTooLong ends a call whose statement computes and computes, or whose client does
// not read what it returns: it must not keep its locks and its connection.
var errTooLong = status.Error(codes.DeadlineExceeded, "the statement took too long, or nobody has read for too long what it returns")

// begin begins a call, and finish ends it.
func (c *conn) begin(ctx context.Context) {
	ctx, end := context.WithCancelCause(ctx)
	c.call = &call{ctx: ctx, end: end, clock: time.AfterFunc(c.database.statement, func() { end(errTooLong) })}
	c.db.SetInterrupt(ctx.Done())
}

func (c *conn) finish() {
	c.db.SetInterrupt(nil)
	c.call.clock.Stop()
	c.call.end(nil)
	c.call = nil
}

// progress says that the call comes on. It needs the turn.
func (c *conn) progress() { c.call.clock.Reset(c.database.statement) }

// over says why the call that has the turn is over, nil while it is not.
func (c *conn) over() error {
	if c.call == nil || c.call.ctx.Err() == nil {
		return nil
	}
	if errors.Is(context.Cause(c.call.ctx), errTooLong) {
		return errTooLong
	}
	return failed(c.call.ctx.Err())
}

// failed is failed for an error of this connection's: if that is an interruption, it
// says why.
func (c *conn) failed(err error) error {
	if sqlite.ErrCode(err) == sqlite.ResultInterrupt && c.over() != nil {
		return c.over()
	}
	return failed(err)
}

// patiently does what may need a lock that others have, and tries again until
// busy_timeout or until the call is over. SQLite itself would wait, too, but whatever
// becomes of the call. It needs the turn.
func (c *conn) patiently(try func() error) error {
	err := try()
	end := time.Now().Add(c.settings.busy())
	for delay := time.Millisecond; sqlite.ErrCode(err) == sqlite.ResultBusy && time.Now().Before(end); delay = min(2*delay, 25*time.Millisecond) {
		if c.pause(delay); c.over() != nil {
			return c.over()
		}
		err = try()
	}
	return c.failed(err)
}

// pause waits, but not if the call is over.
func (c *conn) pause(d time.Duration) {
	over := context.Background().Done()
	if c.call != nil {
		over = c.call.ctx.Done()
	}
	select {
	case <-time.After(d):
	case <-over:
	}
}

// enter waits for the turn until ctx is done, which also interrupts whatever the
// caller does until it leaves. It does not wait forever for those who never look at
// their clock: a client that reads a stream while it sends the next statement in the
// same session would wait for itself.
func (c *conn) enter(ctx context.Context) (leave func(), _ error) {
	patience := time.NewTimer(c.database.turn)
	defer patience.Stop()
	select {
	case <-c.turn:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-patience.C:
		return nil, status.Error(codes.Unavailable, "another call of this session still uses its connection")
	}
	c.begin(ctx)
	return func() {
		c.finish()
		c.turn <- struct{}{}
	}, nil
}

// apply has the connection follow its settings, all of them or none: it takes no time,
// and so is not interrupted. It needs the turn.
func (c *conn) apply(s settings) (err error) {
	before := c.settings
	c.settings = s // which has the server wait for locks
	c.uninterrupted(func() {
		err = c.pragmas(
			fmt.Sprintf("cache_size = %d", s.cacheSize),
			fmt.Sprintf("case_sensitive_like = %t", s.caseSensitiveLike),
			fmt.Sprintf("query_only = %t", s.queryOnly))
	})
	if err != nil {
		c.settings = before
	}
	return err
}

// pragmas runs such statements, which clients may not. It needs the turn.
func (c *conn) pragmas(all ...string) error {
	c.trusted = true
	defer func() { c.trusted = false }()
	for _, pragma := range all {
		if err := c.patiently(func() error { return sqlitex.ExecuteTransient(c.db, "PRAGMA "+pragma, nil) }); err != nil {
			return err
		}
	}
	return nil
}

// inTransaction reports what is the case in SQLite, whoever has begun or ended the
// transaction: a call for it, SQL text, or an error. It needs the turn.
func (c *conn) inTransaction() bool { return !c.db.AutocommitEnabled() }

// stake is what would be lost with a connection.
type stake int

const (
	nothing     stake = iota
	temporaries       // temporary tables, settings
	open              // a transaction
)

// stake needs the turn.
func (c *conn) stake() stake {
	switch {
	case c.inTransaction():
		return open
	case c.changed:
		return temporaries
	}
	return nothing
}

// Close rolls back what is open, and closes the connection with all that is in it.
// The session calls it when no call uses the connection any more.
func (c *conn) Close() error {
	<-c.turn // for good
	defer c.database.closed()
	for _, p := range c.prepared {
		p.statement.finalize()
	}
	return closeConn(c.db)
}

// statement is a statement that SQLite has understood.
type statement struct {
	conn   *conn
	sql    string
	stmt   *sqlite.Stmt
	hasRow bool
}

// compile has SQLite understand a statement. The caller must finalize it. It needs
// the turn.
func (c *conn) compile(sql string) (*statement, error) {
	if isBlank(sql) {
		return nil, invalid("there is no statement")
	}
	var stmt *sqlite.Stmt
	var rest int
	prepare := func() (err error) {
		stmt, rest, err = c.db.PrepareTransient(sql)
		return err
	}
	err := c.patiently(prepare)
	if err != nil && c.refresh(err) {
		err = c.patiently(prepare)
	}
	if err != nil {
		return nil, err
	}
	if !isBlank(sql[len(sql)-rest:]) {
		_ = stmt.Finalize()
		return nil, invalid("there is more than one statement: send them one by one")
	}
	return &statement{conn: c, sql: sql, stmt: stmt}, nil
}

// refresh has SQLite look whether others have changed the schema, if an error may be due
// to what it remembers of it: while a statement cannot be compiled, it does not look. It
// needs the turn.
func (c *conn) refresh(err error) bool {
	if code := status.Code(err); c.inTransaction() || code != codes.InvalidArgument && code != codes.PermissionDenied {
		return false
	}
	return sqlitex.ExecuteTransient(c.db, "SELECT 1 FROM main.sqlite_schema LIMIT 1", nil) == nil
}

// finalize frees a statement.
func (s *statement) finalize() { _ = s.stmt.Finalize() } // the error is that of the last step

// rest has a statement forget the rows that nobody has read, so that it keeps no
// transaction open, and its parameters.
func (s *statement) rest() {
	s.hasRow = false
	_ = s.stmt.Reset()         // the error is that of the last step
	_ = s.stmt.ClearBindings() // unless the call is over: then it does so next time
}

// step runs a statement to its next row, and reports whether there is one. Before the
// first one it may wait for locks. It needs the turn.
func (s *statement) step() (_ bool, err error) {
	if s.hasRow {
		s.hasRow, err = s.stmt.Step()
		return s.hasRow, s.conn.failed(err)
	}
	err = s.conn.patiently(func() (err error) {
		s.hasRow, err = s.stmt.Step()
		return err
	})
	return s.hasRow, err
}

// once compiles a statement, runs it with no parameters and returns how many rows
// it has changed. It needs the turn.
func (c *conn) once(sql string) (int64, error) {
	s, err := c.compile(sql)
	if err != nil {
		return 0, err
	}
	defer s.finalize()
	return c.run(s, noParameters[0])
}

// run runs a statement to its end and returns how many rows it has changed, -1 if
// nobody knows. It needs the turn.
func (c *conn) run(s *statement, params []any) (int64, error) {
	defer s.rest()
	if err := s.bind(params); err != nil {
		return 0, err
	}
	for {
		more, err := s.step()
		if err != nil {
			return 0, err
		}
		if !more {
			break
		}
	}
	if err := s.stmt.Reset(); err != nil {
		return 0, c.failed(err)
	}
	switch {
	case !changesRows(s.sql):
		return 0, nil
	case keyword(s.sql) == "WITH" && s.stmt.ColumnCount() > 0: // a query, or RETURNING
		return -1, nil
	}
	return int64(c.db.Changes()), nil
}

// runAll runs a statement once for each set of parameters, all or none of them, and
// returns how many rows they have changed. It needs the turn.
func (c *conn) runAll(s *statement, sets [][]any) (total int64, err error) {
	if len(sets) == 1 {
		return c.run(s, sets[0])
	}
	err = c.atomically(func() error {
		for _, set := range sets {
			n, err := c.run(s, set)
			if err != nil {
				return err
			}
			total += n
		}
		return nil
	})
	return total, err
}

// atomically does all that f does, or if that fails, nothing. It needs the turn.
func (c *conn) atomically(f func() error) error {
	const point = `"all or nothing"`
	if err := c.own("SAVEPOINT " + point); err != nil {
		return err
	}
	err := f()
	if err == nil {
		err = c.own("RELEASE " + point)
	}
	if err != nil {
		c.undo(point)
	}
	return err
}

// own runs a statement of the server's own. It needs the turn.
func (c *conn) own(sql string) error {
	_, err := c.once(sql)
	return err
}

// undo takes back what was done since a savepoint, even if the call is over. It
// fails if the error that was the reason for it has rolled back everything, which
// is as good. It needs the turn.
func (c *conn) undo(point string) {
	c.uninterrupted(func() {
		_ = c.own("ROLLBACK TO " + point)
		_ = c.own("RELEASE " + point)
	})
}

// uninterrupted runs f even if the call that has the turn is over. It needs the turn.
func (c *conn) uninterrupted(f func()) {
	done := c.db.SetInterrupt(nil)
	defer c.db.SetInterrupt(done)
	f()
}
