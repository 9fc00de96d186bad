// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// prepared is a prepared statement of a session.
type prepared struct {
	statement   *statement
	transaction string // the ID of the one that it is part of, empty if of none
	bound       *bound // the parameters that are bound to it as a query, nil if they made room
	used        bool   // it has run with them
}

var (
	errNotPrepared     = status.Error(codes.NotFound, "there is no such prepared statement any more")
	errMadeRoom        = status.Error(codes.FailedPrecondition, "the parameters were used, and have made room for others: bind them again")
	errTooMuchBound    = status.Errorf(codes.ResourceExhausted, "the session has bound more than %d bytes of parameters, and not used them", maxBound)
	errSchema          = status.Error(codes.FailedPrecondition, "the types are known only when the statement runs with its parameters: use CAST")
	errTooManyPrepared = status.Errorf(codes.ResourceExhausted, "the session has %d prepared statements: close some", maxPrepared)
)

// CreatePreparedStatement prepares a statement in the session of the call, and makes
// the session if there is none: prepared statements are part of a connection.
func (s *server) CreatePreparedStatement(ctx context.Context, r flightsql.ActionCreatePreparedStatementRequest) (result flightsql.ActionCreatePreparedStatementResult, err error) {
	enter := s.enter
	if t := r.GetTransactionId(); len(t) > 0 {
		enter = func(ctx context.Context) (*conn, func(), error) { return s.enterTransaction(ctx, t) }
	}
	if isBlank(r.GetQuery()) { // which must not make a session
		return result, invalid("there is no statement")
	}
	c, leave, err := enter(ctx)
	if err != nil {
		return result, err
	}
	defer leave()
	union, err := s.options.parameterTypes.Get(ctx)
	if err != nil {
		return result, err
	}
	id := rand.Text()
	if result.Handle, err = session.NewHandle(ctx, "prepared statement", []byte(id)); err != nil {
		return result, err
	}
	p, err := c.prepare(id, r.GetQuery())
	if err != nil {
		return result, err
	}
	if len(r.GetTransactionId()) > 0 {
		p.transaction = c.transaction.id
	}
	isUpdate := p.statement.stmt.ColumnCount() == 0
	result.IsUpdate = &isUpdate
	if union == typesUnion {
		result.ParameterSchema = p.statement.parameterSchema()
	}
	// A guess is better than none: "the server should provide its best guess", says
	// FlightSql.proto, and the JDBC driver takes no columns to mean an update.
	if result.DatasetSchema, _, err = c.schemaOf(p.statement, noParameters); err != nil {
		c.unprepare(id)
	}
	return result, err
}

// prepare compiles a statement and keeps it. It needs the turn.
func (c *conn) prepare(id, sql string) (*prepared, error) {
	if len(c.prepared) >= maxPrepared {
		return nil, errTooManyPrepared
	}
	s, err := c.compile(sql)
	if err != nil {
		return nil, err
	}
	c.prepared[id] = &prepared{statement: s, bound: &bound{sets: noParameters}}
	return c.prepared[id], nil
}

// unprepare frees a prepared statement, and reports whether there was one. It needs the
// turn.
func (c *conn) unprepare(id string) bool {
	p := c.prepared[id]
	if p != nil {
		delete(c.prepared, id)
		p.statement.finalize()
	}
	return p != nil
}

// bindTo binds parameters to a prepared query. They stay, so that it can run again,
// until it gets others, or others need the room. It needs the turn.
func (c *conn) bindTo(p *prepared, b *bound) error {
	size := b.size()
	for _, other := range c.prepared {
		if other != p && other.bound != nil {
			size += other.bound.size()
		}
	}
	for _, other := range c.prepared {
		if size > maxBound && other != p && other.used && other.bound.size() > 0 {
			size -= other.bound.size()
			other.bound, other.used = nil, false
		}
	}
	if size > maxBound {
		return errTooMuchBound
	}
	p.bound, p.used = b, false
	return nil
}

// schemaOf returns what a statement returns, and whether that is known, or a guess.
// Where its tables do not say so, and it changes nothing, it runs until its first rows,
// with the first parameters or without any. It needs the turn.
func (c *conn) schemaOf(s *statement, sets [][]any) (_ *arrow.Schema, known bool, _ error) {
	fields := s.columns()
	unknown := slices.ContainsFunc(fields, func(f arrow.Field) bool { return f.Type == nil })
	if unknown && s.onlyReads() {
		fit := s.takes(sets[0]) == nil
		if !fit {
			sets = s.nulls()
		}
		defer s.rest()
		rows, err := c.query(s, sets)
		if err != nil {
			return nil, false, err
		}
		return rows.schema, fit, nil
	}
	for i := range fields {
		if fields[i].Type == nil {
			fields[i].Type = arrow.BinaryTypes.String
		}
	}
	return arrow.NewSchema(fields, nil), !unknown, nil
}

// onlyReads reports whether a statement may be run to find out what it returns.
func (s *statement) onlyReads() bool { return returnsRows(s.sql) && readsOnly(s.stmt) }

// parameterSchema says that each parameter takes whatever SQLite does.
func (s *statement) parameterSchema() *arrow.Schema {
	anything := arrow.DenseUnionOf([]arrow.Field{
		{Name: "integer", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "real", Type: arrow.PrimitiveTypes.Float64, Nullable: true},
		{Name: "text", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "blob", Type: arrow.BinaryTypes.Binary, Nullable: true},
	}, []arrow.UnionTypeCode{0, 1, 2, 3})
	fields := make([]arrow.Field, s.stmt.BindParamCount())
	for i := range fields {
		name := s.stmt.BindParamName(i + 1)
		if name == "" {
			name = "?"
		}
		fields[i] = arrow.Field{Name: name, Type: anything, Nullable: true}
	}
	return arrow.NewSchema(fields, nil)
}

// enterPrepared returns a prepared statement and the connection that it belongs to.
// Its handle says which session the call has. One that was prepared in a transaction is
// part of it, and so ends with it.
func (s *server) enterPrepared(ctx context.Context, handle []byte) (_ *conn, _ *prepared, leave func(), err error) {
	id, err := session.ResolveHandle(ctx, "prepared statement", handle)
	if err != nil {
		return nil, nil, nil, err
	}
	c, leave, err := s.enter(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	p := c.prepared[string(id)]
	switch {
	case p == nil:
		err = errNotPrepared
	case p.transaction != "" && !c.isIn(p.transaction):
		err = errTransactionOver
	default:
		return c, p, leave, nil
	}
	leave()
	return nil, nil, nil, err
}

// ClosePreparedStatement frees a prepared statement.
func (s *server) ClosePreparedStatement(ctx context.Context, r flightsql.ActionClosePreparedStatementRequest) error {
	id, err := session.ResolveHandle(ctx, "prepared statement", r.GetPreparedStatementHandle())
	if err != nil {
		return err
	}
	c, leave, err := s.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if !c.unprepare(string(id)) {
		return errNotPrepared
	}
	return nil
}

// GetFlightInfoPreparedStatement returns a ticket for a prepared query.
func (s *server) GetFlightInfoPreparedStatement(ctx context.Context, q flightsql.PreparedStatementQuery, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	_, _, leave, err := s.enterPrepared(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	defer leave()
	return infoFor(d, d.GetCmd(), nil), nil
}

// GetSchemaPreparedStatement returns the schema of a prepared query's result.
func (s *server) GetSchemaPreparedStatement(ctx context.Context, q flightsql.PreparedStatementQuery, _ *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	c, p, leave, err := s.enterPrepared(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	defer leave()
	sets := noParameters
	if p.bound != nil {
		sets = p.bound.sets
	}
	return schemaOf(c, p.statement, sets)
}

// parametersFor reads parameters for a prepared statement, if there is such a one. It
// leaves the connection meanwhile: their client may be slow.
func (s *server) parametersFor(ctx context.Context, handle []byte, r flight.MessageReader) (*bound, error) {
	_, _, leave, err := s.enterPrepared(ctx, handle)
	if err != nil {
		return nil, err
	}
	leave()
	return parameters(r)
}

// DoPutPreparedStatementQuery binds parameters to a prepared query.
func (s *server) DoPutPreparedStatementQuery(ctx context.Context, q flightsql.PreparedStatementQuery, r flight.MessageReader, _ flight.MetadataWriter) ([]byte, error) {
	b, err := s.parametersFor(ctx, q.GetPreparedStatementHandle(), r)
	if err != nil {
		return nil, err
	}
	c, p, leave, err := s.enterPrepared(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, set := range b.sets {
		if err := p.statement.takes(set); err != nil {
			return nil, err
		}
	}
	if err := c.bindTo(p, b); err != nil {
		return nil, err
	}
	return q.GetPreparedStatementHandle(), nil
}

// DoGetPreparedStatement runs a prepared query, once for each set of parameters that
// is bound to it, and returns all results, one after the other.
func (s *server) DoGetPreparedStatement(ctx context.Context, q flightsql.PreparedStatementQuery) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	c, p, leave, err := s.enterPrepared(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, nil, err
	}
	return c.stream(leave, func() (*rows, func(), error) {
		if p.bound == nil {
			return nil, nil, errMadeRoom
		}
		p.used = true
		rows, err := c.query(p.statement, p.bound.sets)
		return rows, p.statement.rest, err
	})
}

// DoPutPreparedStatementUpdate runs a prepared statement once for each set of
// parameters, all or none of them, and returns how many rows they have changed.
func (s *server) DoPutPreparedStatementUpdate(ctx context.Context, u flightsql.PreparedStatementUpdate, r flight.MessageReader) (int64, error) {
	b, err := s.parametersFor(ctx, u.GetPreparedStatementHandle(), r)
	if err != nil {
		return 0, err
	}
	c, p, leave, err := s.enterPrepared(ctx, u.GetPreparedStatementHandle())
	if err != nil {
		return 0, err
	}
	defer leave()
	return c.runAll(p.statement, b.sets)
}
