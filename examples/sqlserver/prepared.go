// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// prepared is a prepared statement of a session.
type prepared struct {
	statement *statement
	sets      [][]any // the parameters that are bound to it as a query
}

var (
	errNotPrepared     = status.Error(codes.NotFound, "there is no such prepared statement any more")
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
	isUpdate := p.statement.stmt.ColumnCount() == 0
	result.IsUpdate = &isUpdate
	if union == typesUnion {
		result.ParameterSchema = p.statement.parameterSchema()
	}
	if result.DatasetSchema, err = c.schemaOf(p.statement); err != nil {
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
	c.prepared[id] = &prepared{statement: s, sets: noParameters}
	return c.prepared[id], nil
}

// unprepare frees a prepared statement. It needs the turn.
func (c *conn) unprepare(id string) {
	if p := c.prepared[id]; p != nil {
		delete(c.prepared, id)
		p.statement.finalize()
	}
}

// schemaOf returns what a statement returns. Where its tables do not say so, and it
// changes nothing, it runs until its first rows, with no parameters. It needs the turn.
func (c *conn) schemaOf(s *statement) (*arrow.Schema, error) {
	fields, known := s.columns(), true
	for _, f := range fields {
		known = known && f.Type != nil
	}
	if !known && onlyReads(s.sql) {
		defer s.rest()
		rows, err := c.query(s, s.nulls())
		if err != nil {
			return nil, err
		}
		return rows.schema, nil
	}
	for i := range fields {
		if fields[i].Type == nil {
			fields[i].Type = arrow.BinaryTypes.String
		}
	}
	return arrow.NewSchema(fields, nil), nil
}

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
// Its handle says which session the call has.
func (s *server) enterPrepared(ctx context.Context, handle []byte) (_ *conn, id string, _ *prepared, leave func(), err error) {
	object, err := session.ResolveHandle(ctx, "prepared statement", handle)
	if err != nil {
		return nil, "", nil, nil, err
	}
	id = string(object)
	c, leave, err := s.enter(ctx)
	if err != nil {
		return nil, "", nil, nil, err
	}
	p := c.prepared[id]
	if p == nil {
		leave()
		return nil, "", nil, nil, errNotPrepared
	}
	return c, id, p, leave, nil
}

// ClosePreparedStatement frees a prepared statement.
func (s *server) ClosePreparedStatement(ctx context.Context, r flightsql.ActionClosePreparedStatementRequest) error {
	c, id, _, leave, err := s.enterPrepared(ctx, r.GetPreparedStatementHandle())
	if err != nil {
		return err
	}
	defer leave()
	c.unprepare(id)
	return nil
}

// GetFlightInfoPreparedStatement returns a ticket for a prepared query.
func (s *server) GetFlightInfoPreparedStatement(ctx context.Context, q flightsql.PreparedStatementQuery, d *flight.FlightDescriptor) (*flight.FlightInfo, error) {
	_, _, _, leave, err := s.enterPrepared(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	defer leave()
	return infoFor(d, d.GetCmd(), nil), nil
}

// GetSchemaPreparedStatement returns the schema of a prepared query's result.
func (s *server) GetSchemaPreparedStatement(ctx context.Context, q flightsql.PreparedStatementQuery, _ *flight.FlightDescriptor) (*flight.SchemaResult, error) {
	c, _, p, leave, err := s.enterPrepared(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	defer leave()
	return schemaOf(c, p.statement)
}

// parametersFor reads parameters for a prepared statement, if there is such a one. It
// leaves the connection meanwhile: their client may be slow.
func (s *server) parametersFor(ctx context.Context, handle []byte, r flight.MessageReader) ([][]any, error) {
	_, _, _, leave, err := s.enterPrepared(ctx, handle)
	if err != nil {
		return nil, err
	}
	leave()
	return parameters(r)
}

// DoPutPreparedStatementQuery binds parameters to a prepared query.
func (s *server) DoPutPreparedStatementQuery(ctx context.Context, q flightsql.PreparedStatementQuery, r flight.MessageReader, _ flight.MetadataWriter) ([]byte, error) {
	sets, err := s.parametersFor(ctx, q.GetPreparedStatementHandle(), r)
	if err != nil {
		return nil, err
	}
	_, _, p, leave, err := s.enterPrepared(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, err
	}
	defer leave()
	for _, set := range sets {
		if err := p.statement.bind(set); err != nil {
			return nil, err
		}
	}
	p.sets = sets
	return q.GetPreparedStatementHandle(), nil
}

// DoGetPreparedStatement runs a prepared query, once for each set of parameters that
// is bound to it, and returns all results, one after the other.
func (s *server) DoGetPreparedStatement(ctx context.Context, q flightsql.PreparedStatementQuery) (*arrow.Schema, <-chan flight.StreamChunk, error) {
	c, _, p, leave, err := s.enterPrepared(ctx, q.GetPreparedStatementHandle())
	if err != nil {
		return nil, nil, err
	}
	return c.stream(leave, func() (*rows, func(), error) {
		rows, err := c.query(p.statement, p.sets)
		return rows, p.statement.rest, err
	})
}

// DoPutPreparedStatementUpdate runs a prepared statement once for each set of
// parameters, all or none of them, and returns how many rows they have changed.
func (s *server) DoPutPreparedStatementUpdate(ctx context.Context, u flightsql.PreparedStatementUpdate, r flight.MessageReader) (int64, error) {
	sets, err := s.parametersFor(ctx, u.GetPreparedStatementHandle(), r)
	if err != nil {
		return 0, err
	}
	c, _, p, leave, err := s.enterPrepared(ctx, u.GetPreparedStatementHandle())
	if err != nil {
		return 0, err
	}
	defer leave()
	return c.runAll(p.statement, sets)
}
