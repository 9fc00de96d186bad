// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Command stress tries to break the store's promises, at two levels: of the store
// alone, at full speed (package engine); and of a real Flight SQL server, whose
// sessions live in a store with small limits, with a population of real clients over
// gRPC on the loopback interface. The rest of this comment is about the second one.
//
//	go run ./stress
//	go run ./stress -list
//	go run -race ./stress -level flight -scenario restart -duration 1m -clients 200
//
// It exits with status 1 as soon as a promise is broken. Then the report ends with
// what had happened to the session that it was broken on, the command that does it
// again, and one sentence. So it does if the race detector finds something or the
// process is taken down, since it is run by another one (supervise.go). It exits with
// status 2 if a flag makes no sense. A signal ends it early, with the report; a second
// one kills it. With -report FOLDER it writes a page with plots, index.html, and the
// numbers behind them, as Arrow IPC files.
//
// # The contract
//
// Every check is exact or errs on the side of the store: what was measured on
// the server lies inside what was measured around it. No session ends before its
// deadline, nor is it handed out later than one resolution of the store's clock
// after it. The checks that are about being gone in time allow for [promise.Grace]
// on top of that, and for more on a machine that is seen to be late itself. Where
// options change under the store, the most lenient of those that may have been in
// force counts (settings.go). A promise that a run never put to the test is reported
// as such.
//
// The decisions of the clients derive from the seed; when they come about does
// not.
//
// # Scenarios
//
// A run is one of the scenarios of package scenario, by default one with a bit of each
// of them. It goes through phases (phases.go), in each of which a population
// (population.go) is split over the crowds that are there, and some things go wrong:
// a Close fails, panics, ends its goroutine, is slow, hangs or calls back into the
// store, as the observer does, which also panics (mishaps.go); options change
// (settings.go); memory and processors are few (package machine). A Close that was to
// fail must be counted as failed, and no other.
//
// When a phase is over its clients leave (ends.go), and the store goes on for those of
// the next one; or it must become empty by its own timers, and then have no goroutine;
// or it is drained, refuses who is new and serves the others, and is shut down when
// they have left; or it is shut down under its calls, without enough time. Then
// (ending.go) it may close sessions under their calls, from its deadline on and after
// their contexts were canceled, and must count them. The next phase has another
// server, to which some clients bring the cookies of the one before (returning.go):
// it finds nothing of theirs and says that it is lost.
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
// own type, as at the last two, where principals may have so many only. Those with a
// resource lose their options when they are torn down, so that a client would see it
// if that came too early; the others keep them for the calls that still use them, and
// take no more.
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
// The ID of no session may be in an event, a line of the log or an error that a client
// gets (secrets.go), not even if the Close that has failed says it.
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
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

// config is what the flags say.
type config struct {
	level    level
	scenario string
	duration time.Duration
	clients  int
	idle     time.Duration
	max      int
	seed     uint64
	list     bool // the scenarios are to be printed, and nothing else
	life     time.Duration
	unheld   time.Duration // the timeout of unconfirmed sessions that hold nothing
	held     time.Duration // the same, of those that hold something
	report   string        // the folder for the page; empty: none is written
	sql      string        // the folder of the server to be driven; empty: the one that is part of this program
}

// The other timeouts follow the idle timeout, unless they are given.
func (c config) empty() time.Duration    { return min(cmp.Or(c.unheld, c.idle/2), c.holding()) }
func (c config) holding() time.Duration  { return min(cmp.Or(c.held, c.idle), c.idle) }
func (c config) lifetime() time.Duration { return cmp.Or(c.life, 5*c.idle) }

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

// sqlDuration is how long a run against another server takes, if nobody says otherwise.
const sqlDuration = 15 * time.Second

func parse(args []string, stderr io.Writer) (config, error) {
	var c config
	f := flag.NewFlagSet("stress", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar((*string)(&c.level), "level", string(bothLevels), "what is driven: the store alone, a flight server with its clients, or both")
	f.StringVar(&c.scenario, "scenario", scenario.Default, "`name` of what happens, see -list")
	f.BoolVar(&c.list, "list", false, "print the scenarios, and do nothing else")
	f.DurationVar(&c.duration, "duration", 0, "how long it takes, all in all; 0: as long as the scenario usually does")
	f.IntVar(&c.clients, "clients", 0, "how many clients there are, split over the kinds of the scenario; 0: as many as suit the level")
	f.DurationVar(&c.idle, "idle", 0, "idle timeout; 0: as suits the level")
	f.DurationVar(&c.life, "lifetime", 0, "lifetime; 0: five idle timeouts")
	f.DurationVar(&c.unheld, "empty", 0, "timeout of unconfirmed sessions that hold nothing; 0: half the idle timeout")
	f.DurationVar(&c.held, "holding", 0, "timeout of unconfirmed sessions that hold something; 0: the idle timeout")
	f.IntVar(&c.max, "max", 0, "maximum of sessions; 0: as suits the level")
	f.StringVar(&c.report, "report", "", "`folder` into which a page with plots is written, and the numbers behind them")
	f.Uint64Var(&c.seed, "seed", 0, "seed of the clients' decisions; 0: a random one, which is printed")
	f.StringVar(&c.sql, "sqlserver", "", "`folder` of a Flight SQL server that is built, run and driven in place of the one in here, such as examples/sqlserver")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if c.sql != "" && c.scenario != scenario.Default {
		fmt.Fprintln(stderr, "stress: -scenario is ignored: with -sqlserver there are none")
	}
	if s, ok := scenario.Find(c.scenario); ok && c.duration == 0 {
		if c.duration = s.Time; c.sql != "" {
			c.duration = sqlDuration
		}
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
	_, known := scenario.Find(c.scenario)
	switch {
	case len(rest) > 0:
		return fmt.Errorf("%q is no flag: all arguments are flags, see -help", rest[0])
	case c.level != storeLevel && c.level != flightLevel && c.level != bothLevels:
		return fmt.Errorf("-level %s: use store, flight or both", c.level)
	case !known:
		return fmt.Errorf("-scenario %s: there is no such one, see -list", c.scenario)
	case c.duration <= 0 || c.duration > maxDuration:
		return fmt.Errorf("-duration %s: use more than 0s and at most %s", c.duration, maxDuration)
	}
	for _, c := range c.levels() {
		if err := c.checkLimits(); err != nil {
			return err
		}
	}
	return nil
}

// checkLimits checks what is in force at one level.
func (c config) checkLimits() error {
	least := len(kinds)
	if c.level == storeLevel {
		least = 1
	}
	switch {
	case c.clients < least || c.clients > maxClients:
		return fmt.Errorf("-clients %d: at the level %s use %d to %d", c.clients, c.level, least, maxClients)
	case c.idle < minIdle || c.idle > maxDuration:
		return fmt.Errorf("-idle %s: use %s to %s", c.idle, minIdle, maxDuration)
	case c.life != 0 && (c.life < c.idle || c.life > maxDuration):
		return fmt.Errorf("-lifetime %s: use at least the idle timeout of %s and at most %s", c.life, c.idle, maxDuration)
	case c.unheld != 0 && (c.unheld < minIdle || c.unheld > c.idle):
		return fmt.Errorf("-empty %s: use %s to the idle timeout of %s", c.unheld, minIdle, c.idle)
	case c.held != 0 && (c.held < max(minIdle, c.unheld) || c.held > c.idle):
		return fmt.Errorf("-holding %s: use %s, as for those that hold nothing, to the idle timeout of %s", c.held, max(minIdle, c.unheld), c.idle)
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
	case c.list:
		list(stdout)
		return 0
	}
	if !isChild() {
		return supervise(c, args, stdout, stderr)
	}
	what, _ := scenario.Find(c.scenario)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // the next signal kills the process, as usual
	time.AfterFunc(c.longest(len(what.Phases)), func() {
		_ = pprof.Lookup("goroutine").WriteTo(stderr, 1)
		fmt.Fprintf(stdout, "\nrepeat with: %s\n", c.command())
		fmt.Fprintln(stdout, "FAILED: the run is not over long after its time, so something hangs; standard error shows where")
		os.Exit(1)
	})
	if err := c.drive(ctx, stdout, stderr); err != nil {
		return 1
	}
	return 0
}

// longest is how long a run with so many phases at each level may take, all in all.
func (c config) longest(phases int) time.Duration {
	all := c.duration + time.Minute
	for _, l := range c.levels() {
		all += time.Duration(phases) * (endTime + 2*l.idle)
	}
	return all
}

// endTime is how long the end of a phase may take, beside two idle timeouts.
const endTime = 5 * time.Second

// list writes the scenarios.
func list(out io.Writer) {
	longest := 0
	for _, s := range scenario.All {
		longest = max(longest, len(s.Name))
	}
	for _, s := range scenario.All {
		fmt.Fprintf(out, "%-*s  %s\n", longest, s.Name, s.Sentence)
	}
}
