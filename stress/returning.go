// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// luggage is what clients have left of sessions when their phase ends, for clients
// of a later phase. Safe for concurrent use.
type luggage struct {
	mu  sync.Mutex
	all []cookieOf
}

// cookieOf is the cookie of a session that had a schema.
type cookieOf struct {
	server int  // which one it was
	mixed  bool // its server has sessions of both types
	schema string
	lines  []string
}

const maxLuggage = 64

// leave keeps a cookie.
func (l *luggage) leave(c cookieOf) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.all) == maxLuggage {
		l.all = slices.Delete(l.all, 0, 1)
	}
	l.all = append(l.all, c)
}

// take returns a cookie of another server than this one.
func (l *luggage) take(now int, mixed bool) (cookieOf, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.IndexFunc(l.all, func(c cookieOf) bool { return c.server != now && c.mixed == mixed })
	if i < 0 {
		return cookieOf{}, false
	}
	c := l.all[i]
	l.all = slices.Delete(l.all, i, i+1)
	return c, true
}

// keep leaves the client's cookie for others.
func (c *client) keep() {
	if c.by == cookie && c.jar != nil && c.jar.has() && c.hasSchema() {
		c.luggage.leave(cookieOf{c.server.number, c.mixed, c.own.schema, c.cookie()})
	}
}

// bringBack comes with the cookie of a session that was on another server, if one was
// left. Nothing of it may be found. What the server says is that the session is lost,
// until the client shows that it knows; or, if a token looks like none of its own,
// nothing at all, as without a session.
func (c *client) bringBack(ctx context.Context, rng *rand.Rand) {
	if c.by != cookie {
		return
	}
	old, left := c.luggage.take(c.server.number, c.mixed)
	if !left {
		return
	}
	stale := withCookies(ctx, old.lines)
	told, ok := c.findsNothing(stale, old)
	if ok && told != nil {
		var again *span
		again, ok = c.findsNothing(stale, old)
		over := time.Since(told.start)
		c.watch.Expect(promise.Told, !ok || again != nil || over >= c.window(), "a client was told of a session on another server only once, %s ago, expected for %s", over, c.window())
	}
	if !ok {
		return
	}
	if rng.IntN(2) == 0 {
		r, _, err := c.call(stale, closeSession, c.askClose)
		ok = err == nil && c.watch.Expect(promise.Own, r.session == "", "the cookie of a session on another server was used to close session %s", r.session)
	} else {
		r, _, err := c.call(stale, setOptions, c.askSet("since"))
		if ok = err == nil; ok {
			c.watch.Expect(promise.Own, r.made, "the cookie of a session on another server has set an option in session %s", r.session)
		}
	}
	if ok && told != nil {
		again, ok := c.findsNothing(stale, old)
		c.watch.Expect(promise.Answered, !ok || again == nil, "a client is still told of a session on another server after it has shown that it knows")
	}
}

// findsNothing runs a statement with the cookie of a session on another server, and
// returns when it was told that this is lost, nil: it was not. False: nobody knows,
// since its phase or its server is over.
func (c *client) findsNothing(ctx context.Context, old cookieOf) (told *span, ok bool) {
	reasons := []string{"SESSION_RESTARTED", "SESSION_UNKNOWN"}
	schemas, ran := c.execute(ctx, showSchema, func(r reply, s span, err error) bool {
		if c.over(ctx) != nil {
			return false
		}
		c.watch.Expect(promise.Own, r.session == "", "session %s was handed out for the cookie of a session on another server", r.session)
		if r.lost != nil {
			told = &s
			c.watch.Expect(promise.Explained, slices.Contains(reasons, r.lost.reason), "a client was told that a session on another server is lost for the reason %s, expected one of %s", r.lost.reason, reasons)
		}
		return err == nil
	})
	if c.over(ctx) != nil {
		return nil, false
	}
	c.watch.Expect(promise.Own, !slices.Contains(schemas, old.schema), "a statement saw schema %q of a session on another server", old.schema)
	c.watch.Expect(promise.Own, !ran || !sawOptions(schemas), "a statement with the cookie of a session on another server saw the schemas %q", schemas)
	return told, ran || told != nil
}
