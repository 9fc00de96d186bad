// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// config is what the flags say.
type config struct {
	addr, debug     string
	db              string
	tlsCert, tlsKey string
	carrier         string
	users           *users

	idle, lifetime, connectionIdle, transaction, turn, statement, drain, tell time.Duration

	maxSessions, maxConnections, maxMemory, maxHeaderBytes, maxStreams int
	sourceShare                                                        float64
}

// parse reads the flags.
func parse(args []string, out io.Writer) (*config, error) {
	c := &config{users: newUsers()}
	f := flag.NewFlagSet("sqlserver", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&c.addr, "addr", "127.0.0.1:32010", "`address` to listen at")
	f.StringVar(&c.db, "db", "", "database `file`; without it, a temporary one that is removed at the end")
	f.StringVar(&c.carrier, "carrier", "cookie", "how calls say which session they mean: cookie, principal or header:`NAME`")
	f.DurationVar(&c.idle, "idle-timeout", 15*time.Minute, "a session ends when it is unused for so long")
	f.DurationVar(&c.lifetime, "lifetime", 12*time.Hour, "a session ends at this age, however busy it is")
	f.DurationVar(&c.connectionIdle, "connection-idle-timeout", 5*time.Minute, "the connection of a session is closed when it is unused for so long; 0: with the session")
	f.DurationVar(&c.transaction, "transaction-timeout", 5*time.Minute, "for so long an open transaction keeps its connection from being closed for that")
	f.DurationVar(&c.turn, "turn-timeout", time.Minute, "for so long a call waits for another one of its session")
	f.DurationVar(&c.statement, "statement-timeout", 5*time.Minute, "for so long a statement may compute, and its client leave unread what it returns")
	f.DurationVar(&c.tell, "tell-window", 30*time.Second, "for so long a client is told that its session has ended")
	f.DurationVar(&c.drain, "drain-timeout", 10*time.Second, "for so long calls may go on when the server is told to stop")
	f.IntVar(&c.maxSessions, "max-sessions", 10_000, "how many sessions there may be")
	f.IntVar(&c.maxConnections, "max-connections", 2_000, "how many connections to the database the sessions may have; when there are so many in all, a call without a session gets none")
	f.IntVar(&c.maxMemory, "max-memory", 1024, "how many MiB SQLite may take, for all connections")
	f.Float64Var(&c.sourceShare, "source-share", 0.5, "which part of the sessions one client host or principal may have in use; 1 behind a proxy")
	f.IntVar(&c.maxHeaderBytes, "max-header-bytes", 16<<10, "how large the header of a call may be")
	f.IntVar(&c.maxStreams, "max-streams", 128, "how many calls a client's connection may have at a time")
	f.StringVar(&c.tlsCert, "tls-cert", "", "certificate `file`; with -tls-key")
	f.StringVar(&c.tlsKey, "tls-key", "", "key `file`")
	f.Func("user", "`NAME:PASSWORD` of somebody who may call, may be repeated; others see it, -users is better", c.users.add)
	f.Func("users", "`file` of NAME:PASSWORD lines", c.users.read)
	f.Func("token", "`NAME:TOKEN` of somebody who may call with that bearer token, may be repeated", c.users.addToken)
	f.StringVar(&c.debug, "debug", "", "loopback `address` that serves numbers at /debug/vars")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return c, c.check()
}

// check finds what makes no sense.
func (c *config) check() error {
	switch {
	case (c.tlsCert == "") != (c.tlsKey == ""):
		return errors.New("-tls-cert and -tls-key need each other")
	case c.carrier != "cookie" && !c.users.any():
		return fmt.Errorf("-carrier %s: nobody authenticates: add a -user, -users or -token", c.carrier)
	case c.maxConnections < 1, c.maxMemory < 1, c.maxStreams < 1, c.maxHeaderBytes < 1:
		return errors.New("-max-connections, -max-memory, -max-streams and -max-header-bytes must be positive")
	case c.transaction <= 0, c.turn <= 0, c.statement <= 0:
		return errors.New("-transaction-timeout, -turn-timeout and -statement-timeout must be positive")
	case c.connectionIdle < 0:
		return errors.New("-connection-idle-timeout must not be negative")
	}
	return nil
}

// carriers returns what -carrier stands for.
func (c *config) carriers() (session.Carrier, error) {
	name, isHeader := strings.CutPrefix(c.carrier, "header:")
	switch {
	case c.carrier == "cookie":
		return session.Cookie(""), nil
	case c.carrier == "principal":
		return session.ByPrincipal(principal), nil
	case isHeader && name != "":
		return session.Header(name, principal), nil
	}
	return session.Carrier{}, fmt.Errorf("-carrier: expected cookie, principal or header:NAME, not %q", c.carrier)
}

// store opens the store of the sessions.
func (c *config) store() (*session.ExpiringSessionStore, error) {
	store, err := session.OpenSessionStore(
		layover.WithIdleTimeout(c.idle),
		layover.WithLifetime(c.lifetime),
		layover.WithMaxSessions(c.maxSessions),
		layover.WithSourceShare(c.sourceShare),
	)
	if err != nil {
		return nil, err
	}
	return store, store.SetMaxResources(c.maxConnections)
}

// middleware has calls find their sessions in the store.
func (c *config) middleware(store *session.ExpiringSessionStore) (flight.ServerMiddleware, error) {
	carrier, err := c.carriers()
	if err != nil {
		return flight.ServerMiddleware{}, err
	}
	return session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store)),
		session.WithCarriers(carrier),
		session.WithPrincipal(principal),
		session.WithTellWindow(c.tell),
		session.WithCancelOnKill()), nil
}
