// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// server is a Flight SQL server on SQLite in which every session has a connection
// of its own. The files statements.go, prepared.go, transactions.go and metadata.go
// have the handlers.
type server struct {
	session.BaseServer
	database *database
	options  *options
	conns    *session.Resource[*conn]
	// transactionTimeout is for how long a transaction keeps its connection open if
	// its client does not come back.
	transactionTimeout time.Duration
}

func newServer(d *database, connectionIdle, transactionTimeout time.Duration) *server {
	s := &server{database: d, transactionTimeout: transactionTimeout}
	s.options = newOptions(s)
	s.Options = s.options.schema()
	s.conns = &session.Resource[*conn]{
		Name:        "connection",
		Open:        s.connect,
		Close:       (*conn).Close,
		IdleTimeout: cmp.Or(connectionIdle, -1),
	}
	s.describe()
	return s
}

// errStateLost tells a client, once, that it has lost what the session's connection
// had: its next statement might find another table by the name of a temporary one.
var errStateLost = status.Error(codes.Aborted, "the session's connection was closed meanwhile; its temporary tables, settings and transaction are gone")

// connect opens the connection of the call's session. That the session has none
// although it has a stake in one says that it was lost.
func (s *server) connect(ctx context.Context, _ string) (*conn, error) {
	lost, err := s.options.connectionState.Get(ctx)
	if err != nil {
		return nil, err
	}
	if lost {
		return nil, cmp.Or(s.options.connectionState.Set(ctx, false), errStateLost)
	}
	settings, err := s.options.settings(ctx)
	if err != nil {
		return nil, err
	}
	return s.database.connect(settings)
}

// enter returns the connection of the call's session, and makes both if need be. The
// call has its turn until it leaves, which may be after the handler has returned: the
// lease keeps the connection open for streams.
func (s *server) enter(ctx context.Context) (_ *conn, leave func(), _ error) {
	lease, err := s.conns.Acquire(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	c := lease.Value()
	done, err := c.enter(ctx)
	if err != nil {
		lease.Release()
		return nil, nil, err
	}
	return c, func() {
		s.track(ctx, lease)
		done()
		lease.Release()
	}, nil
}

// track tells the session what its connection has that would be lost with it, whatever
// has made it so. A connection with temporary tables stays open as long as its session,
// unless others need its place; one with a transaction only for a time: a client that
// has gone must not keep its locks. It needs the turn.
func (s *server) track(ctx context.Context, lease *session.ResourceLease[*conn]) {
	c := lease.Value()
	now := c.stake()
	if now != open {
		c.transaction = nil
	}
	if now == c.known {
		return
	}
	hold := time.Duration(0)
	switch now {
	case temporaries:
		hold = forever
	case open:
		hold = s.transactionTimeout
	case nothing:
	}
	lease.Hold(hold) // also when the call is over, and its stream has just ended
	if (now == nothing) != (c.known == nothing) {
		if err := s.options.connectionState.Set(ctx, now != nothing); err != nil {
			slog.Warn("the session does not know the state of its connection", "error", err)
			return
		}
	}
	c.known = now
}

// forever is longer than a session lasts.
const forever = 365 * 24 * time.Hour

// errTooManyConnections says that a call cannot have a connection for itself. How many
// sessions may have one is a matter of the store, which closes those that are idle.
var errTooManyConnections = status.Error(codes.ResourceExhausted, "the database has as many connections as it may have: try again later")

// visit opens a connection for one call that needs no session. It is closed when
// the call leaves.
func (s *server) visit(ctx context.Context) (_ *conn, leave func(), _ error) {
	if s.database.open.Load() >= s.database.max {
		return nil, nil, errTooManyConnections
	}
	s.database.alone.Add(1)
	c, err := s.connect(ctx, "")
	if err != nil {
		s.database.alone.Add(-1)
		return nil, nil, err
	}
	end := func() {
		if err := c.Close(); err != nil {
			slog.Warn("a connection did not close well", "error", err)
		}
		s.database.alone.Add(-1)
	}
	done, err := c.enter(ctx)
	if err != nil {
		end()
		return nil, nil, err
	}
	return c, func() {
		done()
		end()
	}, nil
}

// hasSession reports whether the call has a session already.
func hasSession(ctx context.Context) bool {
	_, err := session.Lookup(ctx)
	return err == nil
}

// enterIf is enter for a call that has a session, and visit for one that has none:
// it leaves nothing behind.
func (s *server) enterIf(ctx context.Context) (_ *conn, leave func(), _ error) {
	switch _, err := session.Lookup(ctx); {
	case err == nil:
		return s.enter(ctx)
	case errors.Is(err, session.ErrNoSession):
		return s.visit(ctx)
	default: // it has one, and could not get it
		return nil, nil, err
	}
}
