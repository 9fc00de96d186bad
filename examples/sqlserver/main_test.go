// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	goleak.VerifyTestMain(m)
}

// serve starts a server that ends with the test, and must end well.
func serve(t *testing.T, args ...string) *process {
	t.Helper()
	c, err := parse(append([]string{"-addr", "127.0.0.1:0", "-source-share", "1"}, args...), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(); err != nil {
			t.Errorf("the server ended with: %v", err)
		}
		if err := <-p.failed; err != nil {
			t.Errorf("Serve returned: %v", err)
		}
		if n := p.database.open.Load(); n != 0 {
			t.Errorf("%d connections are open after the end, expected none", n)
		}
	})
	return p
}

// client is a Flight SQL client that fails its test.
type client struct {
	*flightsql.Client
	t   *testing.T
	ctx context.Context
}

// connect returns a client without cookies.
func (p *process) connect(t *testing.T) *client { return p.connectWith(t) }

// connectJar returns a client with a cookie jar of its own.
func (p *process) connectJar(t *testing.T) *client {
	return p.connectWith(t, cookieJar(flight.NewCookieMiddleware())...)
}

func (p *process) connectWith(t *testing.T, m ...flight.ClientMiddleware) *client {
	t.Helper()
	c, err := flightsql.NewClient(p.addr, nil, m, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return &client{Client: c, t: t, ctx: ctx}
}

// update runs a statement.
func (c *client) update(sql string) int64 {
	c.t.Helper()
	n, err := c.ExecuteUpdate(c.ctx, sql)
	if err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// query returns the rows of a query, as text.
func (c *client) query(sql string) [][]string {
	c.t.Helper()
	rows, err := c.tryQuery(sql)
	if err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return rows
}

func (c *client) tryQuery(sql string) ([][]string, error) {
	info, err := c.Execute(c.ctx, sql)
	if err != nil {
		return nil, err
	}
	return c.fetch(info)
}

// fetch returns the rows of a result, as text.
func (c *client) fetch(info *flight.FlightInfo) ([][]string, error) {
	_, rows, err := c.fetchSchema(info)
	return rows, err
}

func (c *client) fetchSchema(info *flight.FlightInfo) (*arrow.Schema, [][]string, error) {
	r, err := c.DoGet(c.ctx, info.Endpoint[0].Ticket)
	if err != nil {
		return nil, nil, err
	}
	defer r.Release()
	rows := [][]string{}
	for r.Next() {
		batch := r.RecordBatch()
		for i := range int(batch.NumRows()) {
			var row []string
			for _, column := range batch.Columns() {
				row = append(row, column.ValueStr(i))
			}
			rows = append(rows, row)
		}
	}
	return r.Schema(), rows, r.Err()
}

// must returns v, or fails the test.
func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantCode fails the test unless the error has a code.
func wantCode(t *testing.T, err error, want codes.Code, what string) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Fatalf("%s: %v, expected %v", what, err, want)
	}
}

// reason returns the reason that an error of the library has.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// eventually polls until something is so.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("this never came true: %s", what)
		}
	}
}

var insecureDial = grpc.WithTransportCredentials(insecure.NewCredentials())

// connectAs returns a client without cookies that authenticates by a token.
func (p *process) connectAs(t *testing.T, token string) *client {
	c := p.connectWith(t)
	c.ctx = metadata.AppendToOutgoingContext(c.ctx, "authorization", "Bearer "+token)
	return c
}

// act sends an action that the client would send only for an object of its own.
func (c *client) act(name string, request proto.Message) error {
	c.t.Helper()
	packed := must[*anypb.Any](c.t)(anypb.New(request))
	body := must[[]byte](c.t)(proto.Marshal(packed))
	stream, err := c.Client.Client.DoAction(c.ctx, &flight.Action{Type: name, Body: body})
	if err != nil {
		return err
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (c *client) endTransaction(id []byte) error {
	return c.act(flightsql.EndTransactionActionType, &pb.ActionEndTransactionRequest{
		TransactionId: id, Action: pb.ActionEndTransactionRequest_END_TRANSACTION_COMMIT})
}

func (c *client) closePrepared(handle []byte) error {
	return c.act(flightsql.ClosePreparedStatementActionType, &pb.ActionClosePreparedStatementRequest{PreparedStatementHandle: handle})
}

// executeSchemaIn asks for a schema in a transaction.
func (c *client) executeSchemaIn(sql string, id []byte) (*flight.SchemaResult, error) {
	c.t.Helper()
	return c.Client.Client.GetSchema(c.ctx, commandOf(c.t, &pb.CommandStatementQuery{Query: sql, TransactionId: id}))
}

// commandOf returns a descriptor with a command.
func commandOf(t *testing.T, command proto.Message) *flight.FlightDescriptor {
	t.Helper()
	packed := must[*anypb.Any](t)(anypb.New(command))
	return &flight.FlightDescriptor{Type: flight.DescriptorCMD, Cmd: must[[]byte](t)(proto.Marshal(packed))}
}

// batch returns a record batch of JSON whose columns are strings.
func batch(t *testing.T, json string, columns ...string) arrow.RecordBatch {
	t.Helper()
	fields := make([]arrow.Field, len(columns))
	for i, name := range columns {
		fields[i] = arrow.Field{Name: name, Type: arrow.BinaryTypes.String, Nullable: true}
	}
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, arrow.NewSchema(fields, nil), strings.NewReader(json))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return b
}

// setOptions sets session options, and returns which were refused.
func (c *client) setOptions(options map[string]any) map[string]*flight.SetSessionOptionsResultError {
	c.t.Helper()
	request := &flight.SetSessionOptionsRequest{SessionOptions: make(map[string]*flight.SessionOptionValue)}
	for name, value := range options {
		v := must[flight.SessionOptionValue](c.t)(flight.NewSessionOptionValue(value))
		request.SessionOptions[name] = &v
	}
	return must[*flight.SetSessionOptionsResult](c.t)(c.SetSessionOptions(c.ctx, request)).GetErrors()
}
