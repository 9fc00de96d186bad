// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// loss is what a client is told of a session that it has lost.
type loss struct{ mark, reason string }

// lossOf returns what an error says of a lost session, nil if nothing.
func lossOf(err error) *loss {
	st := statusOf(err)
	if st.Code() != codes.NotFound || !strings.HasPrefix(st.Message(), session.LostPrefix) {
		return nil
	}
	if info := detailOf(err); info != nil {
		return &loss{info.GetMetadata()["session"], info.GetReason()}
	}
	return nil
}

// statusOf returns the status in an error as it is, nil if there is none.
func statusOf(err error) *status.Status {
	var g interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &g) {
		return nil
	}
	return g.GRPCStatus()
}

func codeOf(err error) codes.Code { return statusOf(err).Code() }

// detailOf returns what the package under test says in an error, nil if nothing.
func detailOf(err error) *errdetails.ErrorInfo {
	for _, detail := range statusOf(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == session.ErrorDomain {
			return info
		}
	}
	return nil
}

// heard notes how a call went, and reports whether it went well.
func (c *client) heard(r reply, s span, err error) bool {
	switch {
	case r.lost != nil:
		c.told(r, s)
		return false
	case err != nil:
		return false
	case c.by != nothing:
		c.follow(r, s)
	case r.made:
		c.watch.Expect(promise.Own, r.session != c.own.mark, "a client without cookies was handed session %s twice", r.session)
		c.own.mark = r.session
	default:
		c.watch.Expect(promise.Own, r.session == "", "a client without cookies was handed session %s, which was not made for it", r.session)
	}
	return true
}

// told notes that a call was refused since the session is lost.
func (c *client) told(r reply, s span) {
	l := r.lost
	c.watch.Expect(promise.Told, true, "")
	c.watch.Expect(promise.Answered, !r.acknowledges(), "%s was refused since session %s is lost, expected it to show that the client knows", r.op, l.mark)
	c.watch.Expect(promise.Explained, l.mark == c.own.mark && !c.own.closed, "a client was told that session %s is lost (%s), but its own is %q (closed: %t)", l.mark, l.reason, c.own.mark, c.own.closed)
	c.watch.Expect(promise.Answered, !c.own.knows, "a client is still told of session %s after it has shown that it knows", l.mark)
	if c.own.told != nil {
		c.watch.Expect(promise.Answered, s.start.Before(c.own.told.end.Add(c.window())), "a client is still told of session %s %s after it was first told, expected for %s", l.mark, s.start.Sub(c.own.told.end), c.window())
		return
	}
	c.own.told = &s
	c.watch.Expect(promise.Explained, c.own.schema != defaultSchema, "a client was told that session %s is lost, which held nothing", l.mark)
	c.watch.lost(l.mark, l.reason, span{c.own.last.start, s.end})
}

// acknowledges reports whether a call shows that its client knows of a loss.
func (r reply) acknowledges() bool { return r.op == setOptions || r.op == closeSession }

// hasSchema reports whether the client has a session with a schema, for all that
// it knows.
func (c *client) hasSchema() bool {
	return c.own.mark != "" && c.own.schema != defaultSchema && !c.own.closed && c.own.told == nil
}

// follow notes which session served a call, and checks that it is the right
// one.
func (c *client) follow(r reply, s span) {
	switch {
	case r.session == "":
		c.left(r, s)
		c.own = ownSession{}
	case r.made:
		c.left(r, s)
		c.own = ownSession{mark: r.session, schema: defaultSchema, last: s}
	case !c.watch.Expect(promise.Own, r.session == c.own.mark, "a client was handed session %s, expected its own one %s", r.session, c.own.mark):
	default:
		unused := s.start.Sub(c.own.last.end)
		c.watch.Expect(promise.NotStale, !c.own.closed, "session %s was handed out after its client had closed it", r.session)
		c.watch.Expect(promise.NotStale, c.own.told == nil, "session %s was handed out after its client had been told that it is lost", r.session)
		most := c.watch.longestUnused(c.own.last.end)
		c.watch.Expect(promise.NotStale, unused < most, "session %s was handed out after its client had not used it for %s, expected less than %s", r.session, unused, most)
		if c.own.last = s; r.renewed != "" {
			c.own.mark = r.renewed
		}
	}
}

// left checks that the client could know that its session is gone, where that
// had a schema, and why it is.
func (c *client) left(r reply, s span) {
	if c.own.mark == "" || c.own.closed {
		return
	}
	if !c.own.knows && !r.acknowledges() && c.own.schema != defaultSchema {
		c.watch.Expect(promise.Told, c.own.told != nil, "%s ran without session %s, which had schema %q, and nobody had been told", r.op, c.own.mark, c.own.schema)
		if c.own.told != nil {
			over := s.end.Sub(c.own.told.start)
			c.watch.Expect(promise.Told, over >= c.window(), "%s ran without session %s, which had schema %q, %s after that was first told, expected at least %s", r.op, c.own.mark, c.own.schema, over, c.window())
		}
	}
	if c.own.told == nil {
		c.watch.lost(c.own.mark, "", span{c.own.last.start, s.end})
	}
}

// recover has a client that was told of its loss show that it knows, in one of
// several ways, or wait until it is taken to know. It reports whether it can go
// on.
func (c *client) recover(ctx context.Context, way int) bool {
	if c.own.told == nil || c.own.knows {
		return true
	}
	switch way {
	case 0:
		return c.close(ctx) && c.query(ctx)
	case 1:
		c.disconnect()
		return c.connect() && c.query(ctx)
	case 2:
		return await.Pause(ctx, time.Until(c.own.told.end.Add(c.window()))) && c.query(ctx)
	}
	return true // the schema that it sets next does
}
