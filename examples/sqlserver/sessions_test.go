// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

func TestATempTableIsThereForItsSessionOnEveryConnectionAndForNobodyElse(t *testing.T) {
	p := serve(t)
	jar := flight.NewCookieMiddleware()
	a := p.connectWith(t, cookieJar(jar)...)
	a.update("CREATE TEMP TABLE mine (n INTEGER)")
	if n := a.update("INSERT INTO mine VALUES (1), (2)"); n != 2 {
		t.Errorf("%d rows were changed, expected 2", n)
	}
	b := p.connectWith(t, cookieJar(jar.Clone())...) // the same client, another connection
	if got := b.query("SELECT sum(n) FROM mine"); !reflect.DeepEqual(got, [][]string{{"3"}}) {
		t.Errorf("the session has %v on another connection, expected 3", got)
	}
	if _, err := p.connectJar(t).tryQuery("SELECT * FROM mine"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another session gets %v, expected that there is no such table", err)
	}
	if _, err := p.connect(t).tryQuery("SELECT * FROM mine"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a client without a session gets %v, expected that there is no such table", err)
	}
}

func TestAPlainQueryWithoutASessionLeavesNothingBehind(t *testing.T) {
	p := serve(t)
	p.connectJar(t).update("CREATE TABLE t (n INTEGER)")
	before := p.store.Stats().Created
	c := p.connect(t)
	c.update("INSERT INTO t VALUES (1)")
	for _, sql := range []string{
		" -- a comment\n /* another */ SELECT n FROM t", "VALUES (1)",
		"WITH x AS (SELECT 1) SELECT * FROM x", "INSERT INTO t VALUES (2) RETURNING n",
	} {
		c.query(sql)
	}
	if n := p.store.Stats().Created - before; n != 0 {
		t.Errorf("%d sessions were made, expected none", n)
	}
	eventually(t, "but for the session's, all connections are closed", func() bool { return p.database.open.Load() == 1 })
}

func TestASessionThatIsLostIsToldOfWithItsReasonAndCanBeginAfresh(t *testing.T) {
	p := serve(t, "-idle-timeout", "300ms", "-connection-idle-timeout", "0", "-tell-window", "1s")
	c := p.connectJar(t)
	c.update("CREATE TEMP TABLE mine (n)")
	c.query("SELECT * FROM mine") // which confirms the session
	eventually(t, "the session has ended", func() bool { return p.store.Len() == 0 })
	_, err := c.tryQuery("SELECT 1")
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), session.LostPrefix) || reason(err) != "SESSION_IDLE" {
		t.Fatalf("the client is told %v (%s), expected NOT_FOUND and SESSION_IDLE", err, reason(err))
	}
	eventually(t, "its connection is closed", func() bool { return p.database.open.Load() == 0 })
	eventually(t, "the client can begin afresh", func() bool { _, err := c.tryQuery("SELECT 1"); return err == nil })
	c.update("CREATE TEMP TABLE mine (n)")
}

func TestTheConnectionOfAnIdleSessionIsClosedUnlessSomethingWouldBeLost(t *testing.T) {
	p := serve(t, "-connection-idle-timeout", "100ms")
	c := p.connectJar(t)
	c.update("CREATE TABLE t (n)")
	eventually(t, "the connection is closed", func() bool { return p.database.open.Load() == 0 })
	c.query("SELECT * FROM t")
	c.update("CREATE TEMP TABLE t (n, mine)")
	other := p.connectJar(t)
	other.update("PRAGMA table_info(t)")
	eventually(t, "a later connection, with nothing in it, is closed", func() bool { return p.database.open.Load() == 1 })
	c.query("SELECT mine FROM t")
	if n := p.store.Stats().Created; n != 2 {
		t.Errorf("%d sessions were made, expected 2", n)
	}
}

func TestASessionWhoseConnectionIsLostWithItsTemporaryTablesIsToldOnce(t *testing.T) {
	p := serve(t, "-max-connections", "1")
	a, b := p.connectJar(t), p.connectJar(t)
	a.update("CREATE TABLE t (n)")
	a.update("CREATE TEMP TABLE t (n, mine)")
	b.update("PRAGMA foreign_keys = OFF") // and so needs a session, and the only place
	for _, one := range []*client{a, b} {
		_, err := one.ExecuteUpdate(one.ctx, "INSERT INTO t (n) VALUES (1)") // into which one?
		wantCode(t, err, codes.Aborted, "a statement after the temporary table, or a setting, is lost")
		if got := one.query("SELECT count(*) FROM t"); got[0][0] != "0" {
			t.Errorf("the table of the same name has %v rows, expected 0", got)
		}
		one.update("PRAGMA foreign_keys = ON")
	}
}

func TestOptionsAreSetListedAppliedAndRefused(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	set := c.setOptions
	if errs := set(map[string]any{"case_sensitive_like": true}); len(errs) > 0 {
		t.Fatal(errs)
	}
	if got := c.query("SELECT 'a' LIKE 'A'"); got[0][0] != "0" {
		t.Errorf("'a' LIKE 'A' is %v on a connection that was opened later, expected 0", got)
	}
	if errs := set(map[string]any{"case_sensitive_like": false, "query_only": true, "cache_size": int64(100)}); len(errs) > 0 {
		t.Fatal(errs)
	}
	if got := c.query("SELECT 'a' LIKE 'A'"); got[0][0] != "1" {
		t.Errorf("'a' LIKE 'A' is %v on a connection that was open, expected 1", got)
	}
	if got := c.query("PRAGMA cache_size"); got[0][0] != "100" {
		t.Errorf("the cache has %v pages, expected 100", got)
	}
	_, err := c.ExecuteUpdate(c.ctx, "CREATE TABLE t (n)")
	wantCode(t, err, codes.FailedPrecondition, "a change while query_only is set")

	errs := set(map[string]any{"cache_size": "much", "no_such_option": int64(1), "busy_timeout": int64(-1), "query_only": false})
	if len(errs) != 3 || errs["no_such_option"].GetValue() != flight.SetSessionOptionsResultErrorInvalidName ||
		errs["cache_size"].GetValue() != flight.SetSessionOptionsResultErrorInvalidValue ||
		errs["busy_timeout"].GetValue() != flight.SetSessionOptionsResultErrorInvalidValue {
		t.Errorf("the errors are %v", errs)
	}
	all := must[*flight.GetSessionOptionsResult](t)(c.GetSessionOptions(c.ctx, &flight.GetSessionOptionsRequest{})).GetSessionOptions()
	if v := all["cache_size"].GetInt64Value(); v != 100 {
		t.Errorf("cache_size is listed as %d, expected 100", v)
	}
}

func TestAnotherCallOfTheSessionWaitsForItsTurnAndNotForever(t *testing.T) {
	p := serve(t, "-turn-timeout", "200ms")
	c := p.connectJar(t)
	c.update("CREATE TEMP TABLE mine (n)")
	info := must[*flight.FlightInfo](t)(c.Execute(c.ctx, endless))
	r := must[*flight.Reader](t)(c.DoGet(c.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	if !r.Next() {
		t.Fatal(r.Err())
	}
	_, err := c.tryQuery("SELECT 1")
	wantCode(t, err, codes.Unavailable, "a statement while the client's own stream has the connection")
}

// endless has more rows than anybody reads.
const endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n, hex(zeroblob(500)) FROM t"

func TestAClientThatVanishesInMidStreamFreesItsConnection(t *testing.T) {
	p := serve(t)
	jar := flight.NewCookieMiddleware()
	c := p.connectWith(t, cookieJar(jar)...)
	c.update("CREATE TEMP TABLE mine (n)")

	other := p.connectWith(t, cookieJar(jar.Clone())...)
	info := must[*flight.FlightInfo](t)(other.Execute(other.ctx, endless))
	r := must[*flight.Reader](t)(other.DoGet(other.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	if !r.Next() {
		t.Fatal(r.Err())
	}
	_ = other.Close()
	c.query("SELECT count(*) FROM mine")

	// And one whose stream computes, and sends nothing.
	info = must[*flight.FlightInfo](t)(c.Execute(c.ctx, "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT n FROM t WHERE n = 1 OR n < 0"))
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if r, err := c.DoGet(ctx, info.Endpoint[0].Ticket); err == nil {
			r.Release()
		}
	}()
	eventually(t, "the stream has the connection", func() bool { return numbers(p.database, p.store)["connections_busy"] == 1 })
	cancel()
	<-gone
	c.query("SELECT count(*) FROM mine")
}

func TestACallThatRunsOutOfTimeIsInterruptedAndFreesItsConnection(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	c.update("CREATE TEMP TABLE mine (n)")
	ctx, cancel := context.WithTimeout(c.ctx, 100*time.Millisecond)
	defer cancel()
	_, err := c.ExecuteUpdate(ctx, "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) INSERT INTO mine SELECT 1 FROM t WHERE n < 0")
	wantCode(t, err, codes.DeadlineExceeded, "a statement without end")
	if got := c.query("SELECT count(*) FROM mine"); got[0][0] != "0" {
		t.Errorf("there are %v rows, expected none", got)
	}
}

func TestAKilledSessionCancelsItsCallAndClosesItsConnection(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	c.update("CREATE TEMP TABLE mine (n)")
	info := must[*flight.FlightInfo](t)(c.Execute(c.ctx, endless))
	r := must[*flight.Reader](t)(c.DoGet(c.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	for info := range p.store.All() {
		p.store.Kill(info.Fingerprint)
	}
	for r.Next() {
	}
	if reason(r.Err()) != "SESSION_KILLED" {
		t.Errorf("the stream ended with %v, expected that its session was killed", r.Err())
	}
	eventually(t, "the connection is closed", func() bool { return p.database.open.Load() == 0 })
}

func TestManyCallsOfOneSessionTakeTurns(t *testing.T) {
	p := serve(t)
	jar := flight.NewCookieMiddleware()
	c := p.connectWith(t, cookieJar(jar)...)
	c.update("CREATE TEMP TABLE mine (n INTEGER)")
	var wg sync.WaitGroup
	for i := range 8 {
		one := p.connectWith(t, cookieJar(jar.Clone())...)
		wg.Go(func() {
			for range 20 {
				if _, err := one.ExecuteUpdate(one.ctx, "INSERT INTO mine VALUES (1)"); err != nil {
					t.Error(err)
				}
				if _, err := one.tryQuery("SELECT count(*), hex(randomblob(1000)) FROM mine"); err != nil {
					t.Error(err)
				}
				if i == 0 {
					if errs := one.setOptions(map[string]any{"cache_size": int64(i)}); len(errs) > 0 {
						t.Error(errs)
					}
				}
				ctx, cancel := context.WithTimeout(one.ctx, time.Millisecond) // and some give up
				_, _ = one.ExecuteUpdate(ctx, "SELECT count(*) FROM mine, mine, mine")
				cancel()
			}
		})
	}
	wg.Wait()
	if got := c.query("SELECT count(*) FROM mine"); got[0][0] != "160" {
		t.Errorf("there are %v rows, expected 160", got)
	}
}

func TestConnectionsOfSessionsAreLimited(t *testing.T) {
	p := serve(t, "-max-connections", "2")
	a, b, c := p.connectJar(t), p.connectJar(t), p.connectJar(t)
	for _, one := range []*client{a, b} {
		if _, err := one.BeginTransaction(one.ctx); err != nil {
			t.Fatal(err)
		}
	}
	_, err := p.connect(t).tryQuery("SELECT 1")
	wantCode(t, err, codes.ResourceExhausted, "a call without a session when all connections are taken")
	// One that is idle makes room, although it has a transaction open: held ones leave last.
	if _, err := c.BeginTransaction(c.ctx); err != nil {
		t.Error(err)
	}
	if n := p.database.open.Load(); n > 2 {
		t.Errorf("%d connections are open, expected 2", n)
	}
}

func TestAHeaderFindsTheSessionOfItsPrincipalAlone(t *testing.T) {
	p := serve(t, "-carrier", "header:x-session", "-token", "alice:a", "-token", "bob:b")
	with := func(token, key string) *client {
		c := p.connectAs(t, token)
		c.ctx = metadata.AppendToOutgoingContext(c.ctx, "x-session", key)
		return c
	}
	with("a", "one").update("CREATE TEMP TABLE mine (n)")
	with("a", "one").query("SELECT * FROM mine")
	for name, other := range map[string]*client{"another key": with("a", "two"), "another principal": with("b", "one")} {
		_, err := other.tryQuery("SELECT * FROM mine")
		wantCode(t, err, codes.InvalidArgument, name)
	}
}

func TestCloseSessionClosesTheConnection(t *testing.T) {
	p := serve(t)
	c := p.connectJar(t)
	c.update("CREATE TEMP TABLE mine (n)")
	if _, err := c.CloseSession(c.ctx, &flight.CloseSessionRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the connection is closed", func() bool { return p.database.open.Load() == 0 })
}
