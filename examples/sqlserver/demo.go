// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// demo starts a server whose sessions idle out within a second, and shows what a
// client with a cookie jar sees of its session.
func demo(ctx context.Context, out io.Writer) (err error) {
	c, err := parse([]string{"-addr", "127.0.0.1:0", "-idle-timeout", "1s", "-tell-window", "1s"}, io.Discard)
	if err != nil {
		return err
	}
	p, err := start(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	client, err := flightsql.NewClient(p.addr, nil, cookieJar(flight.NewCookieMiddleware()),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	return (&guide{client, out}).show(ctx, p)
}

// guide shows things.
type guide struct {
	client *flightsql.Client
	out    io.Writer
}

func (g *guide) say(format string, args ...any) { fmt.Fprintf(g.out, format+"\n", args...) }

func (g *guide) show(ctx context.Context, p *process) error {
	g.say("A query that needs no session makes none:")
	g.query(ctx, "SELECT 'a' LIKE 'A'")
	g.say("  sessions: %d", p.store.Len())

	g.say("\nAn option makes one, and the cookie finds it again:")
	if err := g.set(ctx, "case_sensitive_like", true); err != nil {
		return err
	}
	g.query(ctx, "SELECT 'a' LIKE 'A'")
	g.query(ctx, "CREATE TEMP TABLE mine AS SELECT 42 AS answer")
	g.query(ctx, "SELECT answer FROM mine")
	g.say("  sessions: %d, connections: %d", p.store.Len(), p.database.open.Load())

	g.say("\nUnused for longer than a second, it ends, and its connection with it:")
	if err := until(ctx, func() bool { return p.store.Len() == 0 && p.database.open.Load() == 0 }); err != nil {
		return err
	}
	g.say("  sessions: %d, connections: %d", p.store.Len(), p.database.open.Load())

	g.say("\nThe client learns that, and why, before anything runs without its options:")
	g.query(ctx, "SELECT answer FROM mine")

	g.say("\nBy setting options it shows that it knows, and begins afresh:")
	if err := g.set(ctx, "case_sensitive_like", true); err != nil {
		return err
	}
	g.query(ctx, "SELECT 'a' LIKE 'A'")
	g.query(ctx, "SELECT answer FROM mine")
	return nil
}

// set sets a session option.
func (g *guide) set(ctx context.Context, name string, value any) error {
	v, err := flight.NewSessionOptionValue(value)
	if err != nil {
		return err
	}
	r, err := g.client.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{
		SessionOptions: map[string]*flight.SessionOptionValue{name: &v}})
	if err == nil && len(r.GetErrors()) > 0 {
		err = fmt.Errorf("the option was refused: %v", r.GetErrors())
	}
	g.say("  SET %s = %v", name, value)
	return err
}

// query runs a statement and shows its rows, or its error.
func (g *guide) query(ctx context.Context, sql string) {
	g.say("  %s", sql)
	rows, err := g.rows(ctx, sql)
	for _, row := range rows {
		g.say("    %s", row)
	}
	if err != nil {
		s := status.Convert(err)
		g.say("    %v: %s", s.Code(), s.Message())
		for _, detail := range s.Details() {
			if info, ok := detail.(*errdetails.ErrorInfo); ok {
				g.say("    reason: %s", info.GetReason())
			}
		}
	}
}

func (g *guide) rows(ctx context.Context, sql string) (rows []string, _ error) {
	info, err := g.client.Execute(ctx, sql)
	if err != nil {
		return nil, err
	}
	r, err := g.client.DoGet(ctx, info.Endpoint[0].Ticket)
	if err != nil {
		return nil, err
	}
	defer r.Release()
	for r.Next() {
		batch := r.RecordBatch()
		for i := range int(batch.NumRows()) {
			var values []string
			for _, column := range batch.Columns() {
				values = append(values, column.ValueStr(i))
			}
			rows = append(rows, strings.Join(values, " | "))
		}
	}
	return rows, r.Err()
}

// until waits until something is so.
func until(ctx context.Context, is func() bool) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
