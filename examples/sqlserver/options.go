// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/c8e4ff29/layover/session"
)

// options are the session options, in SQLite's terms. The base of the server has
// clients set and list them. They apply at once to the connection that a session has,
// and to the one that it gets later.
type options struct {
	catalog           *session.Option[string]
	cacheSize         *session.Option[int64]
	caseSensitiveLike *session.Option[bool]
	queryOnly         *session.Option[bool]
	busyTimeout       *session.Option[int64]
	parameterTypes    *session.Option[string]
	connectionState   *session.Option[bool]
}

const (
	typesNone  = "none"
	typesUnion = "union"
)

func newOptions(s *server) *options {
	return &options{
		catalog: &session.Option[string]{Name: "catalog", Default: "main", Check: session.OneOf("main"),
			Description: "where tables without a catalog are looked for, after temp"},
		cacheSize: &session.Option[int64]{Name: "cache_size", Default: -2000, Check: session.Range[int64](-65_536, 16_384),
			Description: "how much of the database is kept in memory: in pages, or in KiB if it is negative",
			OnChange:    change(s, func(s *settings, v int64) { s.cacheSize = v })},
		caseSensitiveLike: &session.Option[bool]{Name: "case_sensitive_like",
			Description: "whether LIKE tells a from A",
			OnChange:    change(s, func(s *settings, v bool) { s.caseSensitiveLike = v })},
		queryOnly: &session.Option[bool]{Name: "query_only",
			Description: "whether whatever would change the database is refused",
			OnChange:    change(s, func(s *settings, v bool) { s.queryOnly = v })},
		busyTimeout: &session.Option[int64]{Name: "busy_timeout", Default: 5000, Check: session.Range[int64](0, 60_000),
			Description: "for how many milliseconds a statement waits for those of other sessions",
			OnChange:    change(s, func(s *settings, v int64) { s.busyTimeout = v })},
		// JDBC binds only parameters of which it knows a type; arrow-go's driver for
		// database/sql cannot write unions, the only type that says what SQLite takes.
		parameterTypes: &session.Option[string]{Name: "parameter_types", Default: typesNone, Check: session.OneOf(typesNone, typesUnion),
			Description: "whether parameters of prepared statements are said to be unions, or nothing is said of them"},
		connectionState: &session.Option[bool]{Name: "connection_state", ReadOnly: true,
			Description: "whether the connection has temporary tables, settings or a transaction, which would be lost with it"},
	}
}

// schema says which options there are.
func (o *options) schema() *session.Schema {
	return session.MustSchema(o.catalog, o.cacheSize, o.caseSensitiveLike, o.queryOnly, o.busyTimeout, o.parameterTypes, o.connectionState)
}

// settings returns those of the call's session.
func (o *options) settings(ctx context.Context) (s settings, err error) {
	if s.cacheSize, err = o.cacheSize.Get(ctx); err != nil {
		return s, err
	}
	if s.caseSensitiveLike, err = o.caseSensitiveLike.Get(ctx); err != nil {
		return s, err
	}
	if s.queryOnly, err = o.queryOnly.Get(ctx); err != nil {
		return s, err
	}
	s.busyTimeout, err = o.busyTimeout.Get(ctx)
	return s, err
}

// change has the connection of the call's session, if it has one, follow an option.
func change[T any](s *server, set func(*settings, T)) func(context.Context, T, T) error {
	return func(ctx context.Context, _, to T) error {
		c, ok, err := s.conns.Opened(ctx, "")
		if err != nil || !ok {
			return err
		}
		leave, err := c.enter(ctx)
		if err != nil {
			return err
		}
		defer leave()
		settings := c.settings
		set(&settings, to)
		return c.apply(settings)
	}
}
