// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// sqlKind is a way to treat the SQL server. A client of it goes round and round.
type sqlKind struct {
	name  string
	share int
	round func(*sqlClient, context.Context, *rand.Rand) error
}

// sqlKinds are the parts of the population.
var sqlKinds = []sqlKind{
	{"temporary tables", 6, (*sqlClient).temporary},
	{"late comers", 2, (*sqlClient).late},
	{"transactions, no cookies", 6, (*sqlClient).transact},
	{"vanish in a transaction", 6, (*sqlClient).vanish},
	{"plain queries, no cookies", 3, (*sqlClient).plain},
	{"cut off in a stream", 2, (*sqlClient).cutOff},
	{"spies", 1, (*sqlClient).spy},
}

// sqlPopulation is all clients.
type sqlPopulation struct {
	config
	*promise.Book
	meter  *meter
	addr   string
	counts []int
	rounds []atomic.Uint64
	whole  []atomic.Uint64 // of these, those in which all went well
	all    sync.WaitGroup
}

func newSQLPopulation(c config, addr string, v *promise.Book, m *meter) *sqlPopulation {
	p := &sqlPopulation{config: c, Book: v, meter: m, addr: addr, rounds: make([]atomic.Uint64, len(sqlKinds)), whole: make([]atomic.Uint64, len(sqlKinds)), counts: make([]int, len(sqlKinds))}
	total := 0
	for _, k := range sqlKinds {
		total += k.share
	}
	for i, k := range sqlKinds {
		p.counts[i] = max(1, c.clients*k.share/total)
	}
	return p
}

// start starts the clients; they end with ctx.
func (p *sqlPopulation) start(ctx context.Context) {
	id := 0
	for k := range sqlKinds {
		for range p.counts[k] {
			c := &sqlClient{sqlPopulation: p, name: sqlKinds[k].name, kind: k, id: id}
			p.all.Go(func() { c.live(ctx) })
			id++
		}
	}
}

// sqlClient is one of them.
type sqlClient struct {
	*sqlPopulation
	name     string // of its kind
	kind, id int
	flight   *flightsql.Client
}

// live makes rounds, each with a connection of its own, until ctx ends.
func (c *sqlClient) live(ctx context.Context) {
	for round := 0; ctx.Err() == nil && c.Verdict() == nil; round++ {
		rng := decisions(c.seed, c.id, round)
		err := sqlKinds[c.kind].round(c, ctx, rng)
		c.leave()
		c.rounds[c.kind].Add(1)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			c.whole[c.kind].Add(1)
		}
		c.Expect(promise.Answered, isFair(err), "%s: a call failed: %v", c.name, err)
		await.Pause(ctx, upTo(rng, c.idle/8))
	}
}

// come connects, with a jar, or without one, nil.
func (c *sqlClient) come(j *jar) (err error) {
	c.flight, err = flightsql.NewClient(c.addr, nil, []flight.ClientMiddleware{j.middleware()}, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return err
}

// leave disconnects, and tells nobody.
func (c *sqlClient) leave() {
	if c.flight != nil {
		_ = c.flight.Close()
		c.flight = nil
	}
}

// isLost reports whether a call was told that its session is gone.
func isLost(err error) bool {
	return status.Code(err) == codes.NotFound && strings.HasPrefix(status.Convert(err).Message(), session.LostPrefix)
}

// isFair reports whether an error is one that any client may get: its session was lost,
// there is no place, or somebody else holds a lock.
func isFair(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.ResourceExhausted, codes.Unavailable:
		return true
	default:
		return isLost(err)
	}
}

// timed makes a call and notes how long it took.
func (c *sqlClient) timed(o op, f func() error) error {
	began := time.Now()
	err := f()
	c.meter.record(o, time.Since(began), status.Code(err))
	return err
}

// update runs a statement.
func (c *sqlClient) update(ctx context.Context, sql string) error {
	return c.timed(putUpdate, func() error { _, err := c.flight.ExecuteUpdate(ctx, sql); return err })
}

// number runs a query that returns one.
func (c *sqlClient) number(ctx context.Context, sql string) (n int64, err error) {
	var info *flight.FlightInfo
	if err := c.timed(getInfo, func() (err error) { info, err = c.flight.Execute(ctx, sql); return err }); err != nil {
		return 0, err
	}
	return c.fetch(ctx, info)
}

// fetch reads the number that a result has.
func (c *sqlClient) fetch(ctx context.Context, info *flight.FlightInfo) (n int64, err error) {
	err = c.timed(doGet, func() error {
		r, err := c.flight.DoGet(ctx, info.GetEndpoint()[0].GetTicket())
		if err != nil {
			return err
		}
		defer r.Release()
		rows := int64(0)
		for r.Next() {
			b := r.RecordBatch()
			for i := range int(b.NumRows()) {
				rows++
				switch column := b.Column(0).(type) {
				case *array.Int64:
					n = column.Value(i)
				default:
					return fmt.Errorf("a column of %T", column)
				}
			}
		}
		if err := r.Err(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if rows != 1 {
			return fmt.Errorf("%d rows", rows)
		}
		return nil
	})
	return n, err
}

// isMine checks what the temporary table of a client's session has: what was put into
// it, unless the session is lost, and the client is told so. A table that is gone, or
// is somebody else's, without a word breaks a promise.
func (c *sqlClient) isMine(ctx context.Context, sql string, want int64) error {
	n, err := c.number(ctx, sql)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	c.Expect(promise.Told, status.Code(err) != codes.InvalidArgument, "%s: a statement ran in another session: %v", c.name, err)
	if err == nil {
		c.Expect(promise.Own, n == want, "%s: %q returned %d, want %d: that is somebody else's table", c.name, sql, n, want)
	}
	return err
}

// settleIn connects with a jar, and makes a session.
func (c *sqlClient) settleIn(ctx context.Context, id int64) error {
	if err := c.come(newJar()); err != nil {
		return err
	}
	return c.make(ctx, id)
}

// make gives the client a session with an option and a temporary table.
func (c *sqlClient) make(ctx context.Context, id int64) error {
	options, err := flight.NewSessionOptionValues(map[string]any{"cache_size": fmt.Sprint(-1000 - id%1000)})
	if err != nil {
		return err
	}
	if err := c.timed(setOptions, func() error {
		r, err := c.flight.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: options})
		if err == nil && len(r.GetErrors()) > 0 {
			return fmt.Errorf("options were refused: %v", r.GetErrors())
		}
		return err
	}); err != nil {
		return err
	}
	if err := c.update(ctx, "CREATE TEMP TABLE mine (id INTEGER)"); err != nil {
		return err
	}
	return c.update(ctx, fmt.Sprintf("INSERT INTO mine VALUES (%d)", id))
}

// temporary uses a temporary table over several calls.
func (c *sqlClient) temporary(ctx context.Context, rng *rand.Rand) error {
	id := rng.Int64N(1 << 40)
	if err := c.settleIn(ctx, id); err != nil {
		return err
	}
	for range 1 + rng.IntN(5) {
		await.Pause(ctx, upTo(rng, c.idle/2))
		if err := c.isMine(ctx, "SELECT id FROM mine", id); err != nil {
			return err
		}
		options, err := c.options(ctx)
		if err != nil {
			return err
		}
		got := options["cache_size"].GetInt64Value()
		c.Expect(promise.Own, got == -1000-id%1000, "the option cache_size is %d, want %d", got, -1000-id%1000)
	}
	if rng.IntN(2) == 0 {
		return nil // as most do
	}
	return c.timed(closeSession, func() error {
		r, err := c.flight.CloseSession(ctx, &flight.CloseSessionRequest{})
		if err == nil && r.GetStatus() != flight.CloseSessionResultClosed {
			err = fmt.Errorf("CloseSession: %s, although nobody else uses the session", r.GetStatus())
		}
		return err
	})
}

func (c *sqlClient) options(ctx context.Context) (map[string]*flight.SessionOptionValue, error) {
	var r *flight.GetSessionOptionsResult
	err := c.timed(getOptions, func() (err error) {
		r, err = c.flight.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{})
		return err
	})
	return r.GetSessionOptions(), err
}

// late comes back when its session has idled out, is told, and starts afresh.
func (c *sqlClient) late(ctx context.Context, rng *rand.Rand) error {
	id := rng.Int64N(1 << 40)
	if err := c.settleIn(ctx, id); err != nil {
		return err
	}
	if !await.Pause(ctx, c.idle+c.idle/4+promise.Grace) {
		return ctx.Err()
	}
	for range 2 {
		_, err := c.number(ctx, "SELECT id FROM mine")
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.Expect(promise.Told, isLost(err), "late comers: after the idle timeout a statement is answered with %v", err)
	}
	if err := c.make(ctx, id+1); err != nil {
		return err
	}
	return c.isMine(ctx, "SELECT id FROM mine", id+1)
}

// transact runs a transaction without cookies: five statements, and a prepared one.
func (c *sqlClient) transact(ctx context.Context, rng *rand.Rand) error {
	tx, err := c.begin(ctx)
	if err != nil {
		return err
	}
	id := rng.Int64N(1 << 40)
	for _, sql := range []string{"CREATE TEMP TABLE mine (id INTEGER)", fmt.Sprintf("INSERT INTO mine VALUES (%d)", id), "INSERT INTO mine VALUES (1)", "DELETE FROM mine WHERE id = 1"} {
		await.Pause(ctx, upTo(rng, c.idle/16))
		if err := c.timed(putUpdate, func() error { _, err := tx.ExecuteUpdate(ctx, sql); return err }); err != nil {
			return err
		}
	}
	if err := c.inTransaction(ctx, tx, id); err != nil {
		return err
	}
	end := tx.Commit
	if rng.IntN(2) == 0 {
		end = tx.Rollback
	}
	return c.timed(endTransaction, func() error { return end(ctx) })
}

// begin connects without a jar, and begins a transaction.
func (c *sqlClient) begin(ctx context.Context) (tx *flightsql.Txn, err error) {
	if err := c.come(nil); err != nil {
		return nil, err
	}
	err = c.timed(begin, func() (err error) { tx, err = c.flight.BeginTransaction(ctx); return err })
	return tx, err
}

// inTransaction reads in the transaction, by a query and by a prepared statement.
func (c *sqlClient) inTransaction(ctx context.Context, tx *flightsql.Txn, id int64) error {
	info, err := tx.Execute(ctx, "SELECT id FROM mine")
	if err != nil {
		return err
	}
	n, err := c.fetch(ctx, info)
	if err != nil {
		return err
	}
	c.Expect(promise.Own, n == id, "a transaction without cookies reads %d, want %d", n, id)
	prepared, err := tx.Prepare(ctx, "SELECT count(*) FROM mine")
	if err != nil {
		return err
	}
	defer func() { _ = prepared.Close(ctx) }()
	if info, err = prepared.Execute(ctx); err != nil {
		return err
	}
	if n, err = c.fetch(ctx, info); err == nil {
		c.Expect(promise.Own, n == 1, "a prepared statement without cookies counts %d, want 1", n)
	}
	return err
}

// vanish leaves in the middle of a transaction; some with the lock on the database.
func (c *sqlClient) vanish(ctx context.Context, rng *rand.Rand) error {
	tx, err := c.begin(ctx)
	if err != nil {
		return err
	}
	sql := "CREATE TEMP TABLE mine (id INTEGER)"
	if rng.IntN(50) == 0 {
		sql = "INSERT INTO " + sharedTable + " VALUES (1)"
	}
	_, err = tx.ExecuteUpdate(ctx, sql)
	return err
}

// sharedTable is in the database that all sessions share.
const sharedTable = "everybodys"

// plain runs a query that needs no session.
func (c *sqlClient) plain(ctx context.Context, rng *rand.Rand) error {
	if err := c.come(nil); err != nil {
		return err
	}
	want := rng.Int64N(1 << 40)
	n, err := c.number(ctx, fmt.Sprint("SELECT ", want))
	if err == nil {
		c.Expect(promise.Own, n == want, "SELECT %d returned %d", want, n)
	}
	return err
}

// cutOff vanishes in the middle of a result that never ends.
func (c *sqlClient) cutOff(ctx context.Context, rng *rand.Rand) error {
	id := rng.Int64N(1 << 40)
	if err := c.settleIn(ctx, id); err != nil {
		return err
	}
	info, err := c.flight.Execute(ctx, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")
	if err != nil {
		return err
	}
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := c.flight.DoGet(within, info.GetEndpoint()[0].GetTicket())
	if err != nil {
		return err
	}
	for range rng.IntN(4) {
		r.Next()
	}
	cancel()
	r.Release()
	return c.isMine(ctx, "SELECT id FROM mine", id) // its turn at the connection is free again
}

// spy has a session without a table, and sees nobody's.
func (c *sqlClient) spy(ctx context.Context, _ *rand.Rand) error {
	if err := c.come(newJar()); err != nil {
		return err
	}
	if err := c.update(ctx, "CREATE TEMP TABLE other (id INTEGER)"); err != nil {
		return err
	}
	n, err := c.number(ctx, "SELECT id FROM mine")
	if status.Code(err) == codes.InvalidArgument {
		err = nil
	} else if err == nil {
		c.Expect(promise.Own, false, "a session that has no such table has read %d from it", n)
	}
	return err
}
