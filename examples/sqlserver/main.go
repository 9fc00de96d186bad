// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Command sqlserver is a Flight SQL server on SQLite in which every session has a
// connection of its own: temporary tables, settings, transactions and prepared
// statements belong to the session and go with it. It shows how a server uses
// package session, from the flags to the shutdown.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"

	"github.com/c8e4ff29/layover/session"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sqlserver:", err)
		stop()
		os.Exit(1) //nolint:gocritic // the deferred stop has been called
	}
}

// run serves until ctx is done, and returns what went wrong. With the argument "demo"
// it shows a client's session instead.
func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 1 && args[0] == "demo" {
		return demo(ctx, out)
	}
	c, err := parse(args, out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	p, err := start(c)
	if err != nil {
		return err
	}
	slog.Info("serving Flight SQL", "address", p.addr, "carrier", c.carrier, "authentication", c.users.any())
	select {
	case <-ctx.Done():
		slog.Info("stopping", "drain_timeout", c.drain)
		return p.stop()
	case err := <-p.failed:
		return errors.Join(err, p.stop())
	}
}

// process is a server that runs.
type process struct {
	config   *config
	addr     string
	database *database
	store    *session.ExpiringSessionStore
	grpc     *grpc.Server
	health   *health.Server
	failed   chan error // has the error of Serve
	numbers  string     // address of the debug server
	stopHTTP func()
}

// start opens all that a server needs, and begins to serve.
func start(c *config) (_ *process, err error) {
	p := &process{config: c, failed: make(chan error, 1), stopHTTP: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.store, err = c.store(); err != nil {
		return p, err
	}
	if err := limitMemory(int64(c.maxMemory) << 20); err != nil {
		return p, err
	}
	if p.database, err = openDatabase(c.db, limits{max: int64(c.maxConnections), turn: c.turn, statement: c.statement}); err != nil {
		return p, err
	}
	sessions, err := c.middleware(p.store)
	if err != nil {
		return p, err
	}
	s := newServer(p.database, c.connectionIdle, c.transaction)
	if p.grpc, p.health, err = listen(c, s, sessions); err != nil {
		return p, err
	}
	if c.debug != "" {
		if p.numbers, p.stopHTTP, err = serveNumbers(c.debug, func() map[string]int64 { return numbers(p.database, p.store) }); err != nil {
			p.stopHTTP = func() {}
			return p, err
		}
		slog.Info("serving numbers", "url", "http://"+p.numbers+"/debug/vars")
	}
	listener, err := net.Listen("tcp", c.addr)
	if err != nil {
		return p, err
	}
	p.addr = listener.Addr().String()
	go func() { p.failed <- p.grpc.Serve(listener) }()
	return p, nil
}

// errStuck says that calls go on although they were canceled.
var errStuck = errors.New("calls do not end")

// stop ends the server: no new clients, then no new sessions, then no calls, then no
// sessions. Calls that do not end by themselves are cut off, as those are which watch
// its health: they have been told. Nothing interrupts some of what SQLite does, so that
// at last the process ends with an error, and them.
func (p *process) stop() (err error) {
	p.health.Shutdown() // NOT_SERVING
	p.store.Drain()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		p.grpc.GracefulStop()
	}()
	deadline := time.NewTimer(p.config.drain)
	defer deadline.Stop()
	select {
	case <-ended:
	case <-deadline.C:
		slog.Warn("calls are cut off")
		// This cancels them, so that they end. GracefulStop waits for those that do not,
		// under a lock that Stop needs, too, and so we wait for neither.
		go p.grpc.Stop()
		deadline.Reset(p.config.drain)
		select {
		case <-ended:
		case <-deadline.C:
			err = errStuck
		}
	}
	return errors.Join(err, p.close())
}

// close ends the sessions, and with them their connections, and then the rest.
func (p *process) close() (err error) {
	p.stopHTTP()
	if p.store != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.config.drain)
		defer cancel()
		err = p.store.Shutdown(ctx)
	}
	if p.database != nil {
		err = errors.Join(err, p.database.close())
	}
	return err
}
