// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stalled returns a stream whose client has read the first batch, and then reads no
// more, so that the server waits for it.
func stalled(t *testing.T, c *client) *flight.Reader {
	t.Helper()
	info := must[*flight.FlightInfo](t)(c.Execute(c.ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x, zeroblob(100000) FROM c"))
	r := must[*flight.Reader](t)(c.DoGet(c.ctx, info.Endpoint[0].Ticket))
	t.Cleanup(r.Release)
	if !r.Next() {
		t.Fatal(r.Err())
	}
	return r
}

// locked returns a client that writes and so has the lock, and one that must wait for it
// much longer than a test lasts.
func locked(t *testing.T, p *process) (writer, waiter *client) {
	t.Helper()
	writer, waiter = p.connectJar(t), p.connectJar(t)
	writer.update("CREATE TABLE t (n)")
	writer.update("BEGIN IMMEDIATE")
	if errs := waiter.setOptions(map[string]any{"busy_timeout": int64(60_000)}); len(errs) > 0 {
		t.Fatal(errs)
	}
	waiter.update("CREATE TEMP TABLE mine (n)")
	return writer, waiter
}

func TestAClientThatLeavesWhileItWaitsForALockFreesItsConnection(t *testing.T) {
	p := serve(t, "-turn-timeout", "15s") // and so less than the lock
	_, c := locked(t, p)
	ctx, cancel := context.WithTimeout(c.ctx, 100*time.Millisecond)
	defer cancel()
	_, err := c.ExecuteUpdate(ctx, "INSERT INTO t VALUES (1)")
	wantCode(t, err, codes.DeadlineExceeded, "a write that waits for another one")
	c.query("SELECT 1 FROM mine")
}

func TestALockIsGotWhenItIsFree(t *testing.T) {
	p := serve(t)
	writer, waiter := locked(t, p)
	done := make(chan error, 1)
	go func() {
		_, err := waiter.ExecuteUpdate(waiter.ctx, "INSERT INTO t VALUES (1)")
		done <- err
	}()
	eventually(t, "it waits", func() bool { return numbers(p.database, p.store)["connections_busy"] == 1 })
	writer.update("COMMIT")
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAStopDoesNotWaitForALock(t *testing.T) {
	p := startOnly(t, "-drain-timeout", "10s")
	_, waiter := locked(t, p)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = waiter.ExecuteUpdate(waiter.ctx, "INSERT INTO t VALUES (1)")
	}()
	eventually(t, "it waits", func() bool { return numbers(p.database, p.store)["connections_busy"] == 1 })
	p.config.drain = 100 * time.Millisecond
	if err := p.stop(); errors.Is(err, errStuck) {
		t.Errorf("the server ended with: %v", err)
	}
	<-done
	<-p.failed
	eventually(t, "the connections are closed", func() bool { return p.database.open.Load() == 0 })
}

// startOnly is serve for a server that the test stops.
func startOnly(t *testing.T, args ...string) *process {
	t.Helper()
	p, err := start(must[*config](t)(parse(append([]string{"-addr", "127.0.0.1:0"}, args...), io.Discard)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAStopDoesNotWaitForAStatementThatNothingInterrupts(t *testing.T) {
	p := startOnly(t, "-drain-timeout", "50ms")
	p.connect(t).update("CREATE TABLE t (n)")
	other := p.connectJar(t)
	if errs := other.setOptions(map[string]any{"busy_timeout": int64(0)}); len(errs) > 0 {
		t.Fatal(errs)
	}
	c := p.connect(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.ExecuteUpdate(c.ctx, "INSERT INTO t SELECT instr(zeroblob(700000), zeroblob(350000) || x'01')")
	}()
	eventually(t, "it runs, and so has the lock", func() bool {
		_, err := other.ExecuteUpdate(other.ctx, "INSERT INTO t VALUES (1)")
		return status.Code(err) == codes.Unavailable
	})
	if err := p.stop(); err == nil {
		t.Error("the server ended well, expected that connections are still open")
	}
	<-done
	<-p.failed
	eventually(t, "it has run", func() bool { return p.database.open.Load() == 0 })
}

func TestAStreamThatNobodyReadsEnds(t *testing.T) {
	p := serve(t, "-statement-timeout", "200ms", "-transaction-timeout", "200ms", "-connection-idle-timeout", "200ms")
	p.connect(t).update("CREATE TABLE t (n)")
	inTransaction := p.connectJar(t)
	inTransaction.update("BEGIN")
	inTransaction.update("INSERT INTO t VALUES (1)")
	stalled(t, inTransaction)
	stream := stalled(t, p.connect(t))
	eventually(t, "their connections are closed", func() bool { return p.database.open.Load() == 0 })
	p.connect(t).update("INSERT INTO t VALUES (2)")
	for stream.Next() {
	}
	wantCode(t, stream.Err(), codes.DeadlineExceeded, "the rest of the stream")
}

func TestAStatementThatComputesForTooLongEnds(t *testing.T) {
	p := serve(t, "-statement-timeout", "200ms")
	_, err := p.connect(t).tryQuery("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c")
	wantCode(t, err, codes.DeadlineExceeded, "a count without end")
}

func TestWhatAChangeReturnsKeepsNoLock(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	c.update("CREATE TABLE t (n INTEGER, b BLOB)")
	const insert = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < %d) INSERT INTO t SELECT x, zeroblob(100000) FROM c RETURNING n, b"
	info := must[*flight.FlightInfo](t)(c.Execute(c.ctx, fmt.Sprintf(insert, 150)))
	r := must[*flight.Reader](t)(c.DoGet(c.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	if !r.Next() {
		t.Fatal(r.Err())
	}
	p.connect(t).update("INSERT INTO t VALUES (0, NULL)") // while nobody reads on
	rows := r.RecordBatch().NumRows()
	for r.Next() {
		rows += r.RecordBatch().NumRows()
	}
	if r.Err() != nil || rows != 150 {
		t.Errorf("%d rows came back, %v, expected 150", rows, r.Err())
	}
	_, err := c.tryQuery(fmt.Sprintf(insert, 200))
	wantCode(t, err, codes.ResourceExhausted, "a change that returns 20 MB")
	if got := c.query("SELECT count(*) FROM t"); got[0][0] != "151" {
		t.Errorf("there are %v rows, expected 151: the change that failed has been kept", got)
	}
}

func TestSettingsApplyAllOrNoneWhateverBecomesOfTheCall(t *testing.T) {
	d := must[*database](t)(openDatabase("", limits{turn: time.Second, statement: time.Minute}))
	c := must[*conn](t)(d.connect(settings{busyTimeout: 5000}))
	defer func() {
		if err := errors.Join(c.Close(), d.close()); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	leave, err := c.enter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	want := settings{busyTimeout: 1, queryOnly: true, caseSensitiveLike: true, cacheSize: 7}
	if err := c.apply(want); err != nil || c.settings != want {
		t.Errorf("they are %v, %v, expected %v", c.settings, err, want)
	}
	leave()
	for sql, want := range map[string]int64{"PRAGMA query_only": 1, "PRAGMA cache_size": 7, "SELECT 'a' LIKE 'A'": 0} {
		if got := must[[][]any](t)(c.list(sql)); got[0][0] != want {
			t.Errorf("%s: %v, expected %d", sql, got, want)
		}
	}
}
