// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/c8e4ff29/layover/session"
)

// A ticket has the statement that it is for, and runs it as often as it is presented.
// That of a session is a handle, so that only its owner can use it, and needs no
// cookie. That of a statement that needs no session is the statement itself: whoever
// makes it up could send the statement just as well.
const (
	ticketOfSession = "session:"
	ticketOfNobody  = "nobody:"
)

// GetFlightInfoStatement checks a query and returns a ticket for it.
func (s *server) GetFlightInfoStatement(ctx context.Context, q flightsql.StatementQuery, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	sql := q.GetQuery()
	c, leave, err := s.enterFor(ctx, sql, q.GetTransactionId())
	if err != nil {
		return nil, err
	}
	defer leave()
	statement, err := c.compile(sql)
	if err != nil {
		return nil, err
	}
	statement.finalize()
	ticket := []byte(ticketOfNobody + sql)
	if hasSession(ctx) {
		transaction := ""
		if len(q.GetTransactionId()) > 0 {
			transaction = c.transaction.id
		}
		handle, err := session.NewHandle(ctx, "statement", []byte(transaction+":"+sql))
		if err != nil {
			return nil, err
		}
		ticket = append([]byte(ticketOfSession), handle...)
	}
	if ticket, err = flightsql.CreateStatementQueryTicket(ticket); err != nil {
		return nil, err
	}
	return infoFor(d, ticket, nil), nil
}

// infoFor returns what a client needs to get a result.
func infoFor(d *flight.FlightDescriptor, ticket []byte, schema *arrow.Schema) *flight.FlightInfo {
	info := &flight.FlightInfo{FlightDescriptor: d, TotalRecords: -1, TotalBytes: -1,
		Endpoint: []*flight.FlightEndpoint{{Ticket: &flight.Ticket{Ticket: ticket}}}}
	if schema != nil {
		info.Schema = flight.SerializeSchema(schema, memory.DefaultAllocator)
	}
	return info
}

// enterFor returns the connection for a statement: that of its transaction, that of
// the session, or one for this call alone if the client has no session and the
// statement leaves nothing behind that would need one.
func (s *server) enterFor(ctx context.Context, sql string, transaction []byte) (_ *conn, leave func(), _ error) {
	switch {
	case len(sql) > maxSQL:
		return nil, nil, invalid("the statement is longer than %d bytes", maxSQL)
	case len(transaction) > 0:
		return s.enterTransaction(ctx, transaction)
	case leavesNothing(sql):
		return s.enterIf(ctx)
	case isBlank(sql):
		return nil, nil, invalid("there is no statement")
	}
	return s.enter(ctx)
}

// GetSchemaStatement returns the schema of a query's result.
func (s *server) GetSchemaStatement(ctx context.Context, q flightsql.StatementQuery, _ *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	c, leave, err := s.enterFor(ctx, q.GetQuery(), q.GetTransactionId())
	if err != nil {
		return nil, err
	}
	defer leave()
	statement, err := c.compile(q.GetQuery())
	if err != nil {
		return nil, err
	}
	defer statement.finalize()
	return schemaOf(c, statement, noParameters)
}

// schemaOf returns what a statement returns with such parameters, and no guess.
func schemaOf(c *conn, statement *statement, sets [][]any) (*flight.SchemaResult, error) {
	schema, known, err := c.schemaOf(statement, sets)
	if err != nil {
		return nil, err
	}
	if !known {
		return nil, errSchema
	}
	return &flight.SchemaResult{Schema: flight.SerializeSchema(schema, memory.DefaultAllocator)}, nil
}

// DoGetStatement runs the query of a ticket.
func (s *server) DoGetStatement(ctx context.Context, t flightsql.StatementQueryTicket) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	c, sql, leave, err := s.enterTicket(ctx, string(t.GetStatementHandle()))
	if err != nil {
		return nil, nil, err
	}
	return c.stream(leave, func() (*rows, func(), error) {
		statement, err := c.compile(sql)
		if err != nil {
			return nil, nil, err
		}
		rows, err := c.query(statement, noParameters)
		return rows, statement.finalize, err
	})
}

// enterTicket returns the statement of a ticket, and the connection for it.
func (s *server) enterTicket(ctx context.Context, ticket string) (_ *conn, sql string, leave func(), err error) {
	if sql, ok := strings.CutPrefix(ticket, ticketOfNobody); ok {
		if len(sql) > maxSQL || !leavesNothing(sql) {
			return nil, "", nil, invalid("there is no such ticket")
		}
		c, leave, err := s.visit(ctx)
		return c, sql, leave, err
	}
	handle, ok := strings.CutPrefix(ticket, ticketOfSession)
	if !ok {
		return nil, "", nil, invalid("there is no such ticket")
	}
	object, err := session.ResolveHandle(ctx, "statement", []byte(handle))
	if err != nil {
		return nil, "", nil, err
	}
	transaction, sql, _ := strings.Cut(string(object), ":")
	c, leave, err := s.enter(ctx)
	if err == nil && transaction != "" && !c.isIn(transaction) {
		leave()
		err = errTransactionOver
	}
	return c, sql, leave, err
}

// stream starts a query and sends its results, and frees its statement and leaves the
// connection at the end. That is in use until then, since the rows are read from it
// while they are sent. A client that vanishes ends its call, and so the stream, wherever
// it is, and so does one that does not read for too long.
func (c *conn) stream(leave func(), start func() (_ *rows, free func(), _ error)) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	end, streaming := leave, false
	defer func() {
		if !streaming { // an error, or a panic
			end()
		}
	}()
	rows, free, err := start()
	if free != nil {
		end = func() { free(); leave() }
	}
	if err != nil {
		return nil, nil, err
	}
	chunks := make(chan flight.StreamChunk)
	streaming = true
	go func() {
		defer close(chunks)
		err := func() error {
			defer end()
			return c.send(rows, chunks)
		}()
		// Only now that the connection is free: arrow-go's server reads until the end,
		// but not while it waits for a client that does not.
		if err != nil {
			chunks <- flight.StreamChunk{Err: err}
		}
	}()
	return rows.schema, chunks, nil
}

// send sends all batches. That the call is over is an error, too: arrow-go's server may
// notice only that the channel is closed, and the client of a session that was killed
// would take what it has for all of the result. It needs the turn.
func (c *conn) send(r *rows, chunks chan<- flight.StreamChunk) error {
	for {
		batch, err := r.nextOrPanic()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case chunks <- flight.StreamChunk{Data: batch}:
			c.progress()
		case <-c.call.ctx.Done():
			batch.Release()
			return c.over()
		}
	}
}

// nextOrPanic is next on a goroutine that no interceptor guards.
func (r *rows) nextOrPanic() (_ arrow.RecordBatch, err error) {
	defer recovered("a stream", &err)
	return r.next()
}

// DoPutCommandStatementUpdate runs a statement and returns how many rows it has
// changed.
func (s *server) DoPutCommandStatementUpdate(ctx context.Context, u flightsql.StatementUpdate) (int64, error) {
	c, leave, err := s.enterFor(ctx, u.GetQuery(), u.GetTransactionId())
	if err != nil {
		return 0, err
	}
	defer leave()
	return c.once(u.GetQuery())
}
