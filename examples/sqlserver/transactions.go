// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// A session has one connection, and SQLite one transaction for each connection. So
// a session has one transaction at a time, and all its statements run in it, with
// the transaction's ID or without.

// transaction is one that BeginTransaction has begun.
type transaction struct {
	id         string
	savepoints []string // the IDs of those that are open, the innermost last
}

var (
	errTransactionOpen = status.Error(codes.FailedPrecondition, "this session has a transaction open: end it before you begin another one, or use another session")
	errTransactionOver = status.Error(codes.NotFound, "this transaction has ended")
	errSavepointOver   = status.Error(codes.NotFound, "this savepoint has ended")
)

// isIn reports whether a transaction is the one that is open. It needs the turn.
func (c *conn) isIn(id string) bool {
	return c.transaction != nil && c.transaction.id == id && c.inTransaction()
}

// enterTransaction returns the connection of a transaction, whose handle says which
// session the call has.
func (s *server) enterTransaction(ctx context.Context, handle []byte) (*conn, func(), error) {
	id, err := session.ResolveHandle(ctx, "transaction", handle)
	if err != nil {
		return nil, nil, err
	}
	c, leave, err := s.enter(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !c.isIn(string(id)) {
		leave()
		return nil, nil, errTransactionOver
	}
	return c, leave, nil
}

// BeginTransaction begins a transaction in the session of the call, and makes the
// session if there is none.
func (s *server) BeginTransaction(ctx context.Context, _ flightsql.ActionBeginTransactionRequest) ([]byte, error) {
	c, leave, err := s.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	if c.inTransaction() {
		return nil, errTransactionOpen
	}
	t := &transaction{id: rand.Text()}
	handle, err := session.NewHandle(ctx, "transaction", []byte(t.id))
	if err != nil {
		return nil, err
	}
	if err := c.own("BEGIN"); err != nil {
		return nil, err
	}
	c.transaction = t
	return handle, nil
}

// EndTransaction commits a transaction or rolls it back. If it cannot be committed
// because of another session's locks, it stays open, so that the client can try again.
func (s *server) EndTransaction(ctx context.Context, r flightsql.ActionEndTransactionRequest) error {
	var end string
	switch r.GetAction() {
	case flightsql.EndTransactionCommit:
		end = "COMMIT"
	case flightsql.EndTransactionRollback:
		end = "ROLLBACK"
	default:
		return invalid("a transaction can be committed or rolled back")
	}
	c, leave, err := s.enterTransaction(ctx, r.GetTransactionId())
	if err != nil {
		return err
	}
	defer leave()
	return c.own(end)
}

// BeginSavepoint sets a savepoint in a transaction. Names are the client's business:
// SQLite gets one that cannot meet those in its SQL.
func (s *server) BeginSavepoint(ctx context.Context, r flightsql.ActionBeginSavepointRequest) ([]byte, error) {
	if r.GetName() == "" {
		return nil, invalid("a savepoint needs a name")
	}
	c, leave, err := s.enterTransaction(ctx, r.GetTransactionId())
	if err != nil {
		return nil, err
	}
	defer leave()
	id := rand.Text()
	handle, err := session.NewHandle(ctx, "savepoint", []byte(c.transaction.id+":"+id))
	if err != nil {
		return nil, err
	}
	if err := c.own("SAVEPOINT " + strconv.Quote(id)); err != nil {
		return nil, err
	}
	c.transaction.savepoints = append(c.transaction.savepoints, id)
	return handle, nil
}

// EndSavepoint keeps or takes back what was done since a savepoint, and ends it and
// those that were set after it.
func (s *server) EndSavepoint(ctx context.Context, r flightsql.ActionEndSavepointRequest) error {
	if r.GetAction() != flightsql.EndSavepointRelease && r.GetAction() != flightsql.EndSavepointRollback {
		return invalid("a savepoint can be released or rolled back")
	}
	object, err := session.ResolveHandle(ctx, "savepoint", r.GetSavepointId())
	if err != nil {
		return err
	}
	transaction, id, _ := strings.Cut(string(object), ":")
	c, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if !c.isIn(transaction) {
		return errTransactionOver
	}
	return c.endSavepoint(id, r.GetAction() == flightsql.EndSavepointRollback)
}

// endSavepoint needs the turn.
func (c *conn) endSavepoint(id string, rollback bool) error {
	for i, open := range c.transaction.savepoints {
		if open != id {
			continue
		}
		if rollback {
			if err := c.own("ROLLBACK TO " + strconv.Quote(id)); err != nil {
				return err
			}
		}
		if err := c.own("RELEASE " + strconv.Quote(id)); err != nil {
			return err
		}
		c.transaction.savepoints = c.transaction.savepoints[:i]
		return nil
	}
	return errSavepointOver
}
