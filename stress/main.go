// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Command stress drives a real Flight SQL server, whose sessions live in a
// store with small limits, with a population of real clients over gRPC on the
// loopback interface, and watches that the store keeps its promises.
//
//	go run ./stress
//	go run -race ./stress -duration 1m -clients 200
//
// It exits with status 1 and one sentence as soon as a promise is broken, with
// status 2 if a flag makes no sense. A signal ends it early, with the report; a
// second one kills it.
//
// # The contract
//
// Every check is exact or errs on the side of the store: what was measured on
// the server lies inside what was measured around it. No session ends before its
// deadline, nor is it handed out later than one resolution of the store's clock
// after it. The checks that are about being gone in time allow for [grace] on top
// of that, and for more on a machine that is seen to be late itself. A promise
// that a run never put to the test is reported as such.
//
// The decisions of the clients derive from the seed; when they come about does
// not.
//
// # How it works
//
// The watch (watch.go) keeps books of its own. It is fed by the store's
// observer, by middlewares around and inside the one under test and by the
// handlers that have sessions made (server.go), by the closing of the sessions'
// resources, and by the clients (clients.go), who know which schema they have set
// and are told in a header which session served them, if any.
//
// The server has four addresses, with one store. At one of them clients are known
// by cookies, and every other session is of the package's own type. The others
// are of a type of the server's, with a resource that the store closes: Close of
// such a type is the teardown, so it is the store's alone to call, which is what
// the watch counts. At another one clients are also known by a header of their
// choice or by who they are (carriers.go), and all sessions are of the package's
// own type, as at the last two, where principals may have so many only. Those with a resource lose their options when they are torn
// down, so that a client would see it if that came too early; the others keep
// them for the calls that still use them, and take no more.
//
// Some clients keep no cookies, and need sessions or none. Some are away for so
// long that their session ends, or are evicted. Whoever had set a schema must
// then be refused, and told why, however many statements it runs at once and
// however often it runs them again (retries.go, volley.go), until it shows that
// it knows, by SetSessionOptions or CloseSession or with a new connection, or
// until it was told for three quarters of the idle timeout. Only after that may a
// statement of it see the default schema.
//
// Some have their session renewed, one at a time or at once (renewals.go): it must
// live on under its new ID (heirs.go), while the old one finds nothing, and its
// owner is told. Some close theirs while its streams run (closers.go), which go on
// to their end, and at once have another one made, which must stay. Mobs of one
// principal want far more sessions than it may have (floods.go): where the newest
// are refused, and where the oldest leave, none of anybody else's may leave for it.
//
// # Another server
//
// With -sqlserver FOLDER it builds the Flight SQL server in that folder, runs it as a
// child process, and drives that by SQL (sql_clients.go): temporary tables that must
// be there as long as their session and be seen by nobody else, transactions and
// prepared statements of clients without cookies, clients that vanish in the middle of
// a transaction or a result. What the server says of itself (sql_process.go) must show
// as many connections as sessions have, and in the end none, and no lock.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// config is what the flags say.
type config struct {
	duration time.Duration
	clients  int
	idle     time.Duration
	max      int
	seed     uint64
	sql      string // the folder of the server to be driven; empty: the one that is part of this program
}

// The other timeouts follow the idle timeout.
func (c config) empty() time.Duration    { return c.idle / 2 }
func (c config) holding() time.Duration  { return c.idle }
func (c config) lifetime() time.Duration { return 5 * c.idle }

// window is for how long a client is told that its session is lost.
func (c config) window() time.Duration { return c.idle * 3 / 4 }

// resolution is how late a deadline of the store's may be: one resolution of its
// clock. As the store documents it, that is a part of the shortest timeout,
// within limits.
func (c config) resolution() time.Duration {
	shortest := min(c.idle, c.lifetime(), c.empty(), c.holding())
	if r := min(shortest/resolutionShare, maxResolution); r >= coarseFrom {
		return r
	}
	return exact
}

const (
	resolutionShare = 256
	coarseFrom      = 32 * time.Millisecond // below that, its clock is exact
	exact           = time.Millisecond
	maxResolution   = time.Second
)

// Limits of the flags: all load is bounded.
const (
	maxDuration = 24 * time.Hour
	maxClients  = 4096
	minIdle     = 20 * time.Millisecond
)

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("stress", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.DurationVar(&c.duration, "duration", 15*time.Second, "how long the clients drive the server")
	f.IntVar(&c.clients, "clients", 64, "how many clients there are, split over the kinds, such as floods, thieves, renewals, mobs")
	f.DurationVar(&c.idle, "idle", 2*time.Second, "idle timeout; the lifetime is five times that")
	f.IntVar(&c.max, "max", 128, "maximum of sessions")
	f.Uint64Var(&c.seed, "seed", 0, "seed of the clients' decisions; 0: a random one, which is printed")
	f.StringVar(&c.sql, "sqlserver", "", "`folder` of a Flight SQL server that is built, run and driven in place of the one in here, such as examples/sqlserver")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if c.seed == 0 {
		c.seed = max(1, rand.Uint64())
	}
	err := c.check(f.Args())
	if err != nil {
		fmt.Fprintln(stderr, "stress:", err)
	}
	return c, err
}

func (c config) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q is no flag: all arguments are flags, see -help", rest[0])
	case c.duration <= 0 || c.duration > maxDuration:
		return fmt.Errorf("-duration %s: use more than 0s and at most %s", c.duration, maxDuration)
	case c.clients < len(kinds) || c.clients > maxClients:
		return fmt.Errorf("-clients %d: use %d, one of each kind, to %d", c.clients, len(kinds), maxClients)
	case c.idle < minIdle || c.idle > maxDuration:
		return fmt.Errorf("-idle %s: use %s to %s", c.idle, minIdle, maxDuration)
	case c.max < 1:
		return fmt.Errorf("-max %d: use at least 1, the clients need a place", c.max)
	}
	return nil
}

func main() { os.Exit(start(os.Args[1:], os.Stdout, os.Stderr)) }

// start returns the exit status.
func start(args []string, stdout, stderr *os.File) int {
	c, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the next signal kills the process, as usual
	time.AfterFunc(c.duration+time.Minute, func() {
		_ = pprof.Lookup("goroutine").WriteTo(stderr, 1)
		fmt.Fprintln(stdout, "FAILED: the run is not over a minute after its time, so something hangs; standard error shows where")
		os.Exit(1)
	})
	var failed error
	if c.sql != "" {
		failed = runSQL(ctx, c, stdout, stderr)
	} else {
		failed = run(ctx, c, stdout, newProgress(stderr))
	}
	if failed != nil {
		return 1
	}
	return 0
}

// run drives a server until the time is over, ctx ends or a promise is broken,
// and writes the report to out. The error is the broken promise.
func run(ctx context.Context, c config, out io.Writer, p *progress) error {
	m := newMeter(c)
	w := newWatch(c)
	srv, err := startServer(c, w)
	if err != nil {
		fmt.Fprintln(out, "FAILED: the server does not start:", err)
		return err
	}
	began := time.Now()
	// No deadline: calls would take it for theirs.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(c.duration, cancel).Stop()
	people := newPopulation(c, srv.doors, w, m, began)
	people.start(ctx)
	stats, alive := observe(ctx, srv.store, w, m, p)
	m.took = time.Since(began)
	cancel()
	if alive {
		patience := w.Patience()
		w.Expect(promise.Answered, within(patience, people.wait), "calls still run %s after they were canceled", patience)
		srv.stop()
		stats = srv.store.Stats()
		w.settle(stats, m)
	}
	p.end()
	m.report(out, c, w, stats, people)
	return w.Verdict()
}

// observe polls, and shows how it goes, until ctx ends or a promise is broken.
// It reports whether the store is alive: if it hangs, so would a shutdown.
func observe(ctx context.Context, store *session.ExpiringSessionStore, w *watch, m *meter, p *progress) (stats layover.Stats, alive bool) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return stats, true
		case <-w.Failed():
			return stats, true
		case <-tick.C:
		}
		now := make(chan layover.Stats, 1)
		go func() {
			err := store.Check()
			w.Expect(promise.Sound, err == nil, "the store contradicts itself: %v", err)
			now <- store.Stats()
		}()
		select {
		case stats = <-now:
		case <-time.After(answerTime):
			return stats, w.Expect(promise.Answered, false, "the store did not tell its Stats within %s: it hangs", answerTime)
		}
		w.probe()
		w.poll(stats, time.Now())
		m.sample()
		p.show(m, stats)
	}
}

const pollEvery = 100 * time.Millisecond

// within runs f and reports whether it came back in time.
func within(d time.Duration, f func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// eventually reports whether f came true in time.
func eventually(d time.Duration, f func() bool) bool {
	for end := time.Now().Add(d); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// heap returns the size of what is reachable.
func heap() uint64 {
	runtime.GC()
	runtime.GC() // what sync.Pools hold goes with the second
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
