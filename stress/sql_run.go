// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// runSQL drives the SQL server of another module until the time is over, ctx ends or
// a promise is broken, and writes the report to out. The error is the broken promise.
func runSQL(ctx context.Context, c config, out, progress io.Writer) error {
	v, m := promise.NewBook(), newMeter(c)
	srv, err := startSQL(ctx, c.sql, sqlFlags(c)...)
	if err != nil {
		fmt.Fprintln(out, "FAILED:", err)
		return err
	}
	people := newSQLPopulation(c, srv.addr, v, m)
	v.Expect(promise.Answered, people.prepare(ctx) == nil, "the table that all sessions share could not be made")
	m.began = time.Now()
	within, cancel := context.WithCancel(ctx) // no deadline: calls would take it for theirs
	defer cancel()
	defer time.AfterFunc(c.duration, cancel).Stop()
	people.start(within)
	last := people.observe(within, srv, progress)
	cancel()
	m.took = time.Since(m.began)
	people.all.Wait()
	for k, kind := range sqlKinds {
		n := people.rounds[k].Load()
		v.Expect(promise.Answered, n < someRounds || people.whole[k].Load() > 0, "%s: in %d rounds nobody has succeeded", kind.name, n)
	}
	if v.Verdict() == nil {
		people.settle(context.WithoutCancel(ctx), srv)
	}
	left, err := srv.stop(v.Patience())
	v.Expect(promise.Clean, err == nil, "the server does not end well: %v", err)
	v.Expect(promise.Clean, len(left) == 0, "the server leaves files behind: %q", left)
	if v.Verdict() != nil {
		fmt.Fprintf(out, "The last lines of the server's log:\n%s\n\n", srv.tail())
	}
	people.report(out, last)
	return v.Verdict()
}

// someRounds are so many that one of them must go well.
const someRounds = 20

// sqlFlags has the server's limits be those of the flags. Connections last as long as
// their sessions, and there are enough of them: a client cannot tell one whose
// temporary table went with its connection from one that sees another session.
func sqlFlags(c config) []string {
	return []string{
		"-idle-timeout", c.idle.String(), "-lifetime", (20 * c.idle).String(), "-transaction-timeout", c.idle.String(),
		"-connection-idle-timeout", "0", "-turn-timeout", answerTime.String(), "-tell-window", c.window().String(),
		"-max-sessions", fmt.Sprint(c.max), "-max-connections", fmt.Sprint(3 * c.max), "-source-share", "1",
	}
}

// prepare makes what all sessions share.
func (p *sqlPopulation) prepare(ctx context.Context) error {
	return p.write(ctx, "CREATE TABLE "+sharedTable+" (id INTEGER)")
}

// write runs a statement from a client that keeps nothing.
func (p *sqlPopulation) write(ctx context.Context, sql string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	c := &sqlClient{sqlPopulation: p}
	if err := c.come(nil); err != nil {
		return err
	}
	defer c.leave()
	_, err := c.flight.ExecuteUpdate(ctx, sql)
	return err
}

// observe polls the server until ctx ends, or a promise is broken.
func (p *sqlPopulation) observe(ctx context.Context, srv *sqlProcess, progress io.Writer) (last sqlNumbers) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var more, less streak
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return last
		case <-p.Failed():
			return last
		case <-srv.exited:
			p.Expect(promise.Answered, false, "the server has ended: %v", srv.err)
			return last
		case <-tick.C:
		}
		now, err := srv.poll(ctx)
		if ctx.Err() != nil {
			return last
		}
		if !p.Expect(promise.Answered, err == nil, "the server does not tell its numbers: %v", err) {
			return last
		}
		last = now
		theirs := now.Connections - now.Alone
		p.Expect(promise.Connected, !more.of(theirs > now.Places+now.Hung), "%d connections are open for %s, and sessions have, open or close %d", theirs, more.took(), now.Places+now.Hung)
		p.Expect(promise.Connected, !less.of(theirs < now.Open), "%d connections are open for %s, and sessions have %d", theirs, less.took(), now.Open)
		p.Expect(promise.Bounded, now.Sessions <= int64(p.max), "%d sessions are live, at most %d may be", now.Sessions, p.max)
		if n%10 == 9 {
			calls, errors := p.meter.totals()
			fmt.Fprintf(progress, "%3.0fs live %d/%d connections %d new %s calls %s err %s\n", time.Since(p.meter.began).Seconds(),
				now.Sessions, p.max, now.Connections, short(uint64(now.Created)), short(calls), short(errors))
		}
	}
}

// streak counts polls in a row at which something was seen. The server counts one
// after the other while it goes on, so that one poll proves nothing; what is true at
// all of many does.
type streak struct{ n int }

const provenBy = 20

// of notes one more poll, and reports whether there are enough.
func (s *streak) of(seen bool) bool {
	if s.n++; !seen {
		s.n = 0
	}
	return s.n >= provenBy
}

func (s *streak) took() time.Duration { return time.Duration(s.n) * pollEvery }

// settle waits until the sessions of clients that have left are gone, and checks that
// nothing of theirs is left: no connection, and no lock.
func (p *sqlPopulation) settle(ctx context.Context, srv *sqlProcess) {
	patience := p.idle + p.idle/4 + promise.Grace + p.Patience()
	var n sqlNumbers
	gone := await.True(patience, func() bool {
		var err error
		n, err = srv.poll(ctx)
		return err == nil && n.Sessions+n.Retired+n.Closing+n.Connections+n.Places+n.Hung == 0
	})
	p.Expect(promise.Clean, gone, "%s after the clients have left, there are %d sessions, %d retired, %d closing, and %d connections", patience, n.Sessions, n.Retired, n.Closing, n.Connections)
	err := p.write(ctx, "INSERT INTO "+sharedTable+" VALUES (2)")
	p.Expect(promise.Clean, err == nil, "a lock is left behind by a client that has vanished: %v", err)
}

// report writes what is known in the end.
func (p *sqlPopulation) report(out io.Writer, last sqlNumbers) {
	line := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	line("stress: %d clients for %.1fs of %s, against the server in %s, idle timeout %s, at most %d sessions", sum(p.counts), p.meter.took.Seconds(), p.duration, p.sql, p.idle, p.max)
	line("repeat with: %s\n", p.command())
	line("%-28s %10s %10s %10s", "clients", "number", "rounds", "whole")
	for k, kind := range sqlKinds {
		line("  %-26s %10d %10s %10s", kind.name, p.counts[k], count(p.rounds[k].Load()), count(p.whole[k].Load()))
	}
	p.meter.mu.Lock()
	defer p.meter.mu.Unlock()
	p.meter.table(line)
	line("\n%-13s %s", "errors", p.meter.errorList())
	line("%-13s created %s", "sessions", count(uint64(last.Created)))
	verdicts(line, p.Book, p.command(), summary{p.meter.took, p.meter.calls, uint64(last.Created)}, ofSQL)
}
