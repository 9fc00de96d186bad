// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// renew is a client whose session gets a new ID, as at a login. By the new one it
// must find all that it had, by the old one nothing; calls under way go on. Now and
// then it renews too late, or several times at once.
func (c *client) renew(ctx context.Context, rng *rand.Rand) {
	schema, next, way := fmt.Sprint("renewed", rng.IntN(1000)), fmt.Sprint("next", rng.IntN(1000)), rng.IntN(8)
	closes := rng.IntN(8) == 0
	if !c.recover(ctx, rng.IntN(8)) || !c.hasSchema() && !c.set(ctx, schema) {
		return
	}
	ok := false
	switch way {
	case 0:
		ok = c.renewTooLate(ctx)
	case 1, 2:
		c.renewAtOnce(ctx)
	default:
		ok = c.renewUnder(ctx, rng, next)
	}
	if ok && c.query(ctx) && c.get(ctx) && await.Pause(ctx, upTo(rng, c.idle/8)) && closes {
		c.close(ctx)
	}
}

// renewUnder renews the session while streams that have it by its old ID are under
// way, and sets another schema, which they must see, too. Now and then they alone
// use it for longer than the idle timeout.
func (c *client) renewUnder(ctx context.Context, rng *rand.Rand, next string) bool {
	was, old, query := c.own, c.cookie(), []string{renewSession, renewInfo}[rng.IntN(2)]
	u := c.underWay(was)
	if rng.IntN(3) == 0 {
		u.every = c.idle / 4
	}
	defer u.judge()
	if !u.begin(withCookies(ctx, old), 1+rng.IntN(2)) {
		return false
	}
	start := time.Now()
	schemas, ok := c.execute(ctx, query, func(r reply, s span, err error) bool {
		return !c.outlived(r, err) && c.heard(r, s, err)
	}, codes.NotFound)
	if !ok || !c.sees(schemas) {
		return false
	}
	ok = c.own.mark != was.mark && c.cookie()[0] != old[0]
	if !c.watch.Expect(promise.Renewed, ok, "session %s was renewed, and its client got no new ID", was.mark) || !c.query(ctx) {
		return false
	}
	c.spent(ctx, rng, old, was, start)
	u.uses()
	mark := c.own.mark
	if rng.IntN(2) == 0 || !c.set(ctx, next) || c.own.mark != mark { // its lifetime was over, and this is another one
		return true
	}
	u.changes(next, time.Now())
	return true
}

// outlived reports whether a call found its session and then could not renew it,
// which is so only if its lifetime has ended in between.
func (c *client) outlived(r reply, err error) bool {
	if status.Code(err) != codes.NotFound || r.lost != nil {
		return false
	}
	ev, _ := c.watch.explain(c.own.fingerprint())
	c.watch.Expect(promise.Answered, ev.Reason == layover.ReasonLifetime, "session %s, which had ended (%s), could not be renewed, expected that of one whose lifetime is over: %v", c.own.mark, ev.Reason, err)
	return true
}

// renewTooLate has the session renewed when the header has left. Nothing may come
// of it.
func (c *client) renewTooLate(ctx context.Context) bool {
	was, old := c.own, c.cookie()
	_, ok := c.execute(ctx, renewLate, func(r reply, s span, err error) bool {
		if code := status.Code(err); r.lost != nil || code == codes.OK && r.op != doGet {
			return c.heard(r, s, err)
		} else if c.over(ctx) == nil {
			if c.own.last = s; c.outlived(r, err) {
				return false
			}
			c.watch.Expect(promise.Renewed, code == codes.FailedPrecondition && r.renewed == "" && len(r.cookies) == 0,
				"session %s was renewed after the header had left, which was answered with %s, and the cookies of %q", was.mark, code, r.renewed)
		}
		return false
	}, codes.FailedPrecondition, codes.NotFound)
	if ok || c.over(ctx) != nil || c.own.told != nil {
		return false
	}
	return c.watch.Expect(promise.Renewed, c.own.mark == was.mark && c.cookie()[0] == old[0], "session %s has another ID, although it was renewed too late", was.mark)
}

// renewAtOnce has several calls renew the session. Of the IDs that they are told
// one is good in the end.
func (c *client) renewAtOnce(ctx context.Context) {
	defer c.disconnect()
	var mu sync.Mutex
	var told [][]string
	stale := withCookies(ctx, c.cookie())
	var all sync.WaitGroup
	for range volleyWidth {
		all.Go(func() {
			r, _, err := c.call(stale, getInfo, func(ctx context.Context) error {
				_, err := c.sql.Execute(ctx, renewInfo)
				return err
			}, codes.NotFound, codes.Aborted)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				told = append(told, lastCookie(r.cookies))
			}
		})
	}
	all.Wait()
	good := 0
	for _, one := range told {
		if c.finds(ctx, one) {
			good++
		}
	}
	c.watch.Expect(promise.Renewed, c.over(ctx) != nil || len(told) == 0 || good == 1, "%d of %d IDs of session %s, which was renewed several times at once, are good, expected one", good, len(told), c.own.mark)
}

// finds reports whether the client's session, which may have ended since, goes by
// this cookie, and checks that it has its schema.
func (c *client) finds(ctx context.Context, cookie []string) (found bool) {
	schemas, _ := c.execute(withCookies(ctx, cookie), showSchema, func(r reply, _ span, err error) bool {
		found = found || r.session != "" || r.lost != nil && r.lost.reason != "SESSION_RENAMED"
		return err == nil
	})
	for _, schema := range schemas {
		ok := schema == c.own.schema || schema == defaultSchema && !found
		c.watch.Expect(promise.Own, ok, "session %s, which was renewed several times, has schema %q, expected %q", c.own.mark, schema, c.own.schema)
	}
	return found
}

// lastCookie returns what a client brings that was told to set these: of one name
// the last counts.
func lastCookie(lines []string) []string {
	for i := len(lines) - 1; i >= 0; i-- {
		if one, err := http.ParseSetCookie(lines[i]); err == nil && one.MaxAge >= 0 {
			return []string{one.Name + "=" + one.Value}
		}
	}
	return nil
}

// spent has a call come with an ID of a session that was renewed or closed by a
// call which began at that time. It must find nothing and get nothing, and for the
// telling window it must be told why.
func (c *client) spent(ctx context.Context, rng *rand.Rand, old []string, was ownSession, since time.Time) {
	w := c.watch
	ev, known := w.explain(was.fingerprint())
	if !w.Expect(promise.Explained, known, "session %s is gone, and the store cannot explain why", was.mark) || ev.Reason == layover.ReasonLifetime {
		return // before it was closed
	}
	seen := func(r reply, s span, err error) bool {
		if c.over(ctx) != nil {
			return false
		}
		after := s.end.Sub(since)
		w.Expect(promise.Renewed, r.session == "" || r.made && after >= c.window(), "%s with the old ID of session %s was handed session %s after %s, expected none", r.op, was.mark, r.session, after)
		w.Expect(promise.Renewed, after >= c.window() || len(r.cookies) == 0, "%s with the old ID of session %s was told to change its cookie", r.op, was.mark)
		if r.lost == nil {
			w.Expect(promise.Told, r.op == closeSession || after >= c.window(), "%s with the old ID of session %s was not told that it is gone after %s, expected for %s", r.op, was.mark, after, c.window())
			return err == nil
		}
		why := map[layover.Reason]string{layover.ReasonRenamed: "SESSION_RENAMED", layover.ReasonClosed: "SESSION_CLOSED"}[ev.Reason]
		return w.Expect(promise.Explained, r.lost.mark == was.mark && r.lost.reason == why, "with the old ID of session %s, which was %s, a client was told of session %s (%s)", was.mark, ev.Reason, r.lost.mark, r.lost.reason) && err == nil
	}
	stale := withCookies(ctx, old)
	switch rng.IntN(4) {
	case 0:
		seen(c.call(stale, closeSession, c.askClose))
	case 1:
		seen(c.call(stale, setOptions, c.askSet("stale")))
	default:
		schemas, ok := c.execute(stale, showSchema, seen)
		w.Expect(promise.Renewed, !ok || !sawOptions(schemas), "with the old ID of session %s a query saw the schemas %q", was.mark, schemas)
	}
}

// brought returns the marks of the IDs that a call brings in cookies.
func (s *server) brought(ctx context.Context) (marks []layover.Fingerprint) {
	header := http.Header{"Cookie": metadata.ValueFromIncomingContext(ctx, "cookie")}
	for _, one := range (&http.Request{Header: header}).CookiesNamed(session.StatefulSessionCookieName) {
		marks = append(marks, s.store.Fingerprint(one.Value))
	}
	return marks
}

// renew renews the call's session, and tells the client which one it is now. When
// the header leaves, the watch knows, too.
func (s *server) renew(ctx context.Context) error {
	c := callFrom(ctx)
	own, err := session.Lookup(ctx)
	if err != nil {
		return status.Error(codes.NotFound, "no session")
	}
	old := s.store.Fingerprint(own.Token())
	s.watch.renewing(c, 1)
	if err := session.Renew(ctx); err != nil {
		s.watch.renewing(c, -1)
		return err
	}
	s.watch.renamed(old, time.Now())
	mark, known := s.watch.follows(c, func() layover.Fingerprint { return s.store.Fingerprint(own.Token()) }, []layover.Fingerprint{c.used.mark})
	s.watch.Expect(promise.Renewed, known && mark != old, "session %s was renewed, and is session %s now, of which the store tells nothing", old, mark)
	return grpc.SetHeader(ctx, metadata.Pairs(renewedHeader, mark.String()))
}

// renewLate renews the call's session when the header has left, which must fail
// and change nothing.
func (s *server) renewLate(ctx context.Context) error {
	own, err := session.Lookup(ctx)
	if err != nil {
		return status.Error(codes.NotFound, "no session")
	}
	if err := grpc.SendHeader(ctx, metadata.MD{}); err != nil {
		return err
	}
	old := s.store.Fingerprint(own.Token())
	err = session.Renew(ctx)
	mark := s.store.Fingerprint(own.Token())
	s.watch.Expect(promise.Renewed, err != nil && mark == old, "session %s was renewed after the header had left, and is session %s now: %v", old, mark, err)
	return err
}
