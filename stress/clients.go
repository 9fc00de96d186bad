// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// kind is a way to treat a server. A client of it goes round and round until
// the run ends.
type kind struct {
	name  string
	by    carrier
	till  tide // from which on it rests
	round func(*client, context.Context, *rand.Rand)
}

// kinds are the crowds that there are for scenarios, see package scenario.
var kinds = []kind{
	{"well-behaved", cookie, slack, (*client).behave},
	{"flooding", nothing, low, (*client).flood},
	{"cookie-less", nothing, low, (*client).pass},
	{"vanishing", cookie, slack, (*client).vanish},
	{"slow streams", cookie, never, (*client).stream},
	{"garbage", cookie, slack, (*client).garble},
	{"concurrent", cookie, low, (*client).race},
	{"header keys", header, slack, (*client).behave},
	{"principals", proof, slack, (*client).behave},
	{"retrying", inTurn, slack, (*client).retry},
	{"thieves", cookie, slack, (*client).steal},
	{"renewing", cookie, slack, (*client).renew},
	{"closing streams", cookie, slack, (*client).closeUnder},
	{"mobs", crowd, slack, (*client).mob},
	{"mobs' neighbours", alone, slack, (*client).behave},
}

// decisions returns what a client decides by in one round, whatever happened in
// the rounds before.
func decisions(seed uint64, client, round int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(client)<<32|uint64(round)))
}

// upTo returns a random duration below d.
func upTo(rng *rand.Rand, d time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(d))) }

// client is one client. Its methods are called by one goroutine.
type client struct {
	*population
	kind, id int
	carries  carrier
	by       carrier // of this connection
	logins   int     // connections that it has made
	mixed    bool    // its server has sessions of both types
	sql      *flightsql.Client
	jar      *jar
	own      ownSession
}

// ownSession is what a client knows of its session.
type ownSession struct {
	mark   string // fingerprint; empty: it has none
	schema string
	last   span // the last call that used it
	closed bool
	told   *span // the first call that was refused since it is lost
	knows  bool  // it has shown that it knows
}

// fingerprint returns the mark as the store has it.
func (o ownSession) fingerprint() layover.Fingerprint {
	f, _ := layover.ParseFingerprint(o.mark)
	return f
}

// span is the time that a call took, as its client saw it.
type span struct{ start, end time.Time }

func (c *client) live(ctx context.Context) {
	defer c.disconnect()
	for round := 0; c.over(ctx) == nil; round++ {
		for c.tide(time.Now()) >= kinds[c.kind].till && await.Pause(ctx, c.idle/16) {
		}
		if c.over(ctx) != nil || !c.connect() {
			continue
		}
		if rng := decisions(c.seed, c.id, round); round == 0 {
			c.bringBack(ctx, rng)
		} else {
			kinds[c.kind].round(c, ctx, rng)
			c.tally.rounds[c.kind].Add(1)
		}
	}
	c.keep()
}

// over returns why the client ends: its phase is over, or its server ends under it.
func (c *client) over(ctx context.Context) error {
	if err := ctx.Err(); err != nil || !c.watch.isCut() {
		return err
	}
	return errCut
}

var errCut = errors.New("the server is shut down under its calls")

// connect makes a connection, with an empty jar and a login of its own, unless
// there is one.
func (c *client) connect() bool {
	if c.sql != nil {
		return true
	}
	if c.by = c.carries; c.by == inTurn {
		c.by = cookie + carrier((c.id+c.logins)%3)
	}
	c.logins++
	if c.own, c.jar = (ownSession{}), nil; c.by.inJar() {
		c.jar = newJar()
	}
	c.mixed = c.identity() == nil && c.id%2 == 0
	door := c.server.doors[1]
	switch {
	case c.mixed:
		door = c.server.doors[0]
	case c.by == crowd || c.by == alone:
		door = c.server.doors[2+c.id%2]
	}
	sql, err := flightsql.NewClient(door.addr, nil, []flight.ClientMiddleware{c.jar.middleware(c.identity()...)},
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	c.sql = sql
	return c.watch.Expect(promise.Answered, err == nil, "a client cannot be made: %v", err)
}

// disconnect closes the connection without a word to the server.
func (c *client) disconnect() {
	if c.sql != nil {
		_ = c.sql.Close()
		c.sql = nil
	}
}

// behave is the model client: it sets a schema, runs queries that depend on it,
// asks for it and closes its session. Now and then it is away for longer than
// the idle timeout, or stays for another round.
func (c *client) behave(ctx context.Context, rng *rand.Rand) {
	schema, queries := fmt.Sprint("schema", rng.IntN(1000)), 1+rng.IntN(8)
	away, stays := rng.IntN(16) == 0, rng.IntN(4) == 0
	if !c.recover(ctx, rng.IntN(8)) || !c.set(ctx, schema) {
		return
	}
	for range queries {
		if !c.query(ctx) || !await.Pause(ctx, upTo(rng, c.idle/8)) {
			return
		}
	}
	if away && !await.Pause(ctx, c.idle+upTo(rng, c.idle/4)) {
		return
	}
	if c.get(ctx) && !stays {
		c.close(ctx)
	}
}

// flood is a client that has sessions made and never brings one back, since it
// keeps no cookies.
func (c *client) flood(ctx context.Context, rng *rand.Rand) {
	if rng.IntN(2) == 0 {
		c.set(ctx, fmt.Sprint("flood", rng.IntN(1000)))
	} else {
		c.run(ctx, makeSession)
	}
	await.Pause(ctx, upTo(rng, 5*time.Millisecond))
}

// pass is a client without cookies, as most are by default, that needs no
// session: none of its calls makes one.
func (c *client) pass(ctx context.Context, rng *rand.Rand) {
	switch rng.IntN(8) {
	case 0:
		c.get(ctx)
	case 1:
		c.close(ctx)
	default:
		c.query(ctx)
	}
	c.watch.Expect(promise.Needed, c.own.mark == "", "session %s was made for a client that never needs one", c.own.mark)
	await.Pause(ctx, upTo(rng, 5*time.Millisecond))
}

// vanish sets an option, may use the session, and is never seen again: the
// connection ends without CloseSession, sometimes in the middle of a stream.
func (c *client) vanish(ctx context.Context, rng *rand.Rand) {
	defer c.disconnect()
	schema, queries, streams := fmt.Sprint("lost", rng.IntN(1000)), max(0, rng.IntN(6)-2), rng.IntN(4) == 0
	if !c.set(ctx, schema) {
		return
	}
	for range queries {
		if !c.query(ctx) {
			return
		}
	}
	if streams {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer time.AfterFunc(upTo(rng, c.idle/4), cancel).Stop()
		c.run(ctx, fmt.Sprintf(streamSchema, 8, c.idle/4))
	}
	await.Pause(ctx, upTo(rng, c.idle/4))
}

// stream sets a schema and reads results that take longer to come than the idle
// timeout, all of which must be of that schema, also when the session's
// lifetime ends meanwhile. It never closes its session.
func (c *client) stream(ctx context.Context, rng *rand.Rand) {
	schema, anew := fmt.Sprint("slow", rng.IntN(1000)), rng.IntN(4) == 0
	if (anew || !c.hasSchema()) && !c.set(ctx, schema) {
		return
	}
	if c.run(ctx, fmt.Sprintf(streamSchema, 7, c.idle/4)) && c.query(ctx) {
		await.Pause(ctx, upTo(rng, c.idle/8))
	}
}

// race has several calls use a session while another one closes it. Those that
// got it must see its schema to their end; those that begin after the answer to
// CloseSession must not get it; the others are told that it is gone, even the one
// that would set the schema again, since the client is losing its cookie.
func (c *client) race(ctx context.Context, rng *rand.Rand) {
	defer c.disconnect()
	schema, delay := fmt.Sprint("raced", rng.IntN(1000)), upTo(rng, 10*time.Millisecond)
	if !c.set(ctx, schema) {
		return
	}
	v := c.volley(fmt.Sprintf(streamSchema, 3, 2*time.Millisecond))
	v.fire(ctx, 0)
	v.all.Go(func() {
		if dead := withCookies(ctx, c.cookie()); await.Pause(ctx, delay) {
			v.sets(c.call(dead, setOptions, c.askSet(schema), codes.NotFound))
		}
	})
	if await.Pause(ctx, delay) {
		r, s, err := c.call(ctx, closeSession, c.askClose)
		if err != nil { // the run is over, and whether the session is, nobody knows
			v.all.Wait()
			return
		}
		v.closes(r, s)
	}
	v.judge()
	await.Pause(ctx, upTo(rng, c.idle/16))
}

// set sets the schema. Like the others it reports whether the call went well.
func (c *client) set(ctx context.Context, schema string) bool {
	r, s, err := c.call(ctx, setOptions, c.askSet(schema))
	if !c.heard(r, s, err) {
		c.own.knows = true // there was no room for another session, so the last one is gone
		return false
	}
	if c.by != nothing {
		c.own.schema = schema
	}
	return c.watch.Expect(promise.Answered, r.session != "", "SetSessionOptions was answered without a session")
}

func (c *client) askSet(schema string) func(context.Context) error {
	return func(ctx context.Context) error {
		value, _ := flight.NewSessionOptionValue(schema)
		result, err := c.sql.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{
			SessionOptions: map[string]*flight.SessionOptionValue{optionName: &value}})
		c.watch.Expect(promise.Answered, len(result.GetErrors()) == 0, "SetSessionOptions was answered with %v, expected no errors", result.GetErrors())
		return err
	}
}

// get asks for the schema. Who has no session gets NotFound.
func (c *client) get(ctx context.Context) bool {
	var result *flight.GetSessionOptionsResult
	r, s, err := c.call(ctx, getOptions, func(ctx context.Context) (err error) {
		result, err = c.sql.GetSessionOptions(ctx, &flight.GetSessionOptionsRequest{})
		return err
	}, codes.NotFound)
	none := status.Code(err) == codes.NotFound && r.lost == nil
	if none {
		err = nil
	}
	if !c.heard(r, s, err) {
		return false
	}
	c.watch.Expect(promise.Answered, none == (r.session == ""), "GetSessionOptions was answered as without a session (%t), by session %q", none, r.session)
	if none {
		return false
	}
	schema := result.GetSessionOptions()[optionName].GetStringValue()
	return c.watch.Expect(promise.Own, schema == c.own.schema, "GetSessionOptions of session %s returned schema %q, expected %q", r.session, schema, c.own.schema)
}

// close asks for the end of the session, after which the client has no cookie
// of a session that was live.
func (c *client) close(ctx context.Context) bool {
	r, s, err := c.call(ctx, closeSession, c.askClose)
	if !c.heard(r, s, err) {
		return false
	}
	c.own.closed = true
	left := r.session != "" && c.jar.has()
	if left {
		ev, _ := c.watch.explain(c.own.fingerprint())
		left = ev.Reason != layover.ReasonLifetime // which was over first
	}
	return c.watch.Expect(promise.Answered, !left, "CloseSession left the client its cookie")
}

func (c *client) askClose(ctx context.Context) error {
	result, err := c.sql.CloseSession(ctx, &flight.CloseSessionRequest{})
	if err == nil {
		c.watch.Expect(promise.Answered, result.GetStatus() == flight.CloseSessionResultClosed, "CloseSession was answered with %s, expected CLOSED", result.GetStatus())
	}
	return err
}

func (c *client) query(ctx context.Context) bool { return c.run(ctx, showSchema) }

// run runs a query, every batch of which must show the client's schema.
func (c *client) run(ctx context.Context, query string) bool {
	schemas, ok := c.execute(ctx, query, c.heard)
	return ok && c.sees(schemas)
}

// sees checks the schemas that a query's batches saw.
func (c *client) sees(schemas []string) bool {
	want := c.own.schema
	if want == "" { // it has no session
		want = defaultSchema
	}
	for i, schema := range schemas {
		if !c.watch.Expect(promise.Own, schema == want, "batch %d of a query in session %s saw schema %q, expected %q", i, c.own.mark, schema, want) {
			return false
		}
	}
	return true
}

// sawOptions reports whether batches saw the schema of a session.
func sawOptions(schemas []string) bool {
	return slices.ContainsFunc(schemas, func(s string) bool { return s != defaultSchema })
}

// execute runs a query and returns the schema that each batch saw. seen is told
// of both its calls, and says whether the query goes on.
func (c *client) execute(ctx context.Context, query string, seen func(reply, span, error) bool, allowed ...codes.Code) (schemas []string, ok bool) {
	var info *flight.FlightInfo
	r, s, err := c.call(ctx, getInfo, func(ctx context.Context) (err error) {
		info, err = c.sql.Execute(ctx, query)
		return err
	}, allowed...)
	if !seen(r, s, err) {
		return nil, false
	}
	o := doGet
	if strings.HasPrefix(query, "STREAM") {
		o = streamed
	}
	r, s, err = c.call(ctx, o, func(ctx context.Context) error {
		rows, err := c.sql.DoGet(ctx, info.GetEndpoint()[0].GetTicket())
		if err != nil {
			return err
		}
		defer rows.Release()
		for rows.Next() {
			schemas = append(schemas, strings.Clone(rows.RecordBatch().Column(0).(*array.String).Value(0)))
		}
		return rows.Err()
	}, allowed...)
	if !seen(r, s, err) {
		return nil, false
	}
	return schemas, c.watch.Expect(promise.Answered, len(schemas) > 0, "a query returned no batch")
}

// answerTime is how long an answer may take, beside what a stream takes by its
// nature.
const answerTime = 10 * time.Second

// longestCall is how long a call may take.
func (c config) longestCall() time.Duration { return answerTime + 2*c.idle }

// codeOfCall returns the code of a call's error.
func codeOfCall(err error) codes.Code {
	if errors.Is(err, context.DeadlineExceeded) {
		return codes.DeadlineExceeded
	}
	return status.Code(err)
}

// drained reports whether a call was refused since the store takes no new sessions,
// as it may be.
func (c *client) drained(err error) bool {
	return status.Code(err) == codes.Unavailable && detailOf(err).GetReason() == "SESSION_STORE_DRAINING" && c.watch.drains()
}

// outlasted reports whether a call could not keep an option since its session had come
// to the end of its lifetime meanwhile, before it held anything.
func (c *client) outlasted(r reply, err error) bool {
	if !isNotSaved(err) {
		return false
	}
	mark, _ := layover.ParseFingerprint(r.session)
	ev, _ := c.watch.explain(mark)
	return ev.Reason == layover.ReasonLifetime
}

func isNotSaved(err error) bool { return detailOf(err).GetReason() == "SESSION_NOT_SAVED" }

// checkSecrets looks for IDs in an error that the client gets, if it is one.
func (c *client) checkSecrets(err error) {
	if err != nil {
		c.secrets.check("an error that a client gets", fmt.Sprint(err, statusOf(err).Details()))
	}
}

// cutOff checks how a call was answered that was not over when the server was shut
// down under it: with what it asked for, or with words that fit. If its client went
// away, nobody knows.
func (c *client) cutOff(ctx context.Context, o op, err error, allowed []codes.Code) {
	if ctx.Err() != nil {
		return
	}
	code := codeOfCall(err)
	words := []codes.Code{codes.OK, codes.Unavailable, codes.NotFound, codes.Canceled, codes.ResourceExhausted}
	c.watch.Expect(promise.Answered, slices.Contains(words, code) || slices.Contains(allowed, code) || isNotSaved(err),
		"%s was answered with %s when the server was shut down under it, expected OK, or to be told that: %v", o, code, err)
}

// call does one call and checks that it is answered with OK, with one of the
// allowed codes, with the one of a full store, see [watch.refused], or with the
// loss of a session. It may be called by several goroutines.
func (c *client) call(ctx context.Context, o op, f func(context.Context) error, allowed ...codes.Code) (reply, span, error) {
	replyCtx, r := withReply(ctx)
	timeCtx, cancel := context.WithTimeout(replyCtx, c.longestCall())
	defer cancel()
	s := span{start: time.Now()}
	err := f(timeCtx)
	s.end = time.Now()
	c.checkSecrets(err)
	if over := c.over(ctx); over != nil {
		c.cutOff(ctx, o, err, allowed)
		return *r, s, over
	}
	r.op, r.lost = o, lossOf(err)
	code := codeOfCall(err)
	c.tally.calls[c.kind].Add(1)
	latency := s.end.Sub(s.start)
	if o == streamed && !r.first.IsZero() {
		latency = r.first.Sub(s.start)
	}
	c.meter.record(o, latency, code)
	ok := err == nil || r.lost != nil || code == codes.ResourceExhausted || slices.Contains(allowed, code) || c.drained(err) || c.outlasted(*r, err)
	c.watch.Expect(promise.Answered, ok, "%s was answered with %s after %s by session %s, expected OK: %v", o, code, s.end.Sub(s.start), r.session, err)
	return *r, s, err
}
