// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a run that is over soon, long enough for sessions to end for every
// reason.
var small = config{level: flightLevel, scenario: "all", duration: 1500 * time.Millisecond, clients: 16, idle: 100 * time.Millisecond, max: 20, seed: 1}

// all is one phase with every kind of client, in which nothing goes wrong.
func all(t *testing.T) []scenario.Phase {
	t.Helper()
	soak, _ := scenario.Find("soak")
	ph := soak.Phases[0]
	ph.Faults = 0
	return []scenario.Phase{ph}
}

func TestTheStoreKeepsItsPromisesUnderAPopulationOfClients(t *testing.T) {
	var out, shown bytes.Buffer
	if _, err := run(t.Context(), small, all(t), &out, &progress{out: &shown}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "ok: ") {
		t.Errorf("last line %q, want one that begins with ok:", last)
	}
	for _, line := range slices.Concat(lines, strings.Split(shown.String(), "\n")) {
		if len(line) > columns && !strings.HasPrefix(line, "repeat with: ") { // a command is one line
			t.Errorf("%d columns, want at most %d: %s", len(line), columns, line)
		}
	}
}

func TestASignalEndsARunEarlyWithTheReport(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(300*time.Millisecond, cancel).Stop()
	c, out := small, new(bytes.Buffer)
	c.duration = time.Hour
	if _, err := run(ctx, c, all(t), out, &progress{out: io.Discard, terminal: true}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\nok: ") {
		t.Errorf("no verdict in %s", out.String())
	}
}

func TestDecisionsDeriveFromTheSeed(t *testing.T) {
	draw := func(seed uint64, client, round int) (all [8]uint64) {
		rng := decisions(seed, client, round)
		for i := range all {
			all[i] = rng.Uint64()
		}
		return all
	}
	first, again := draw(7, 3, 4), draw(7, 3, 4)
	if first != again {
		t.Error("the same seed gives other decisions")
	}
	for _, other := range [][3]int{{8, 3, 4}, {7, 4, 4}, {7, 3, 5}, {7, 4, 3}} {
		if first == draw(uint64(other[0]), other[1], other[2]) {
			t.Errorf("seed, client and round %v give the decisions of [7 3 4]", other)
		}
	}
}

func TestTheTideTurns(t *testing.T) {
	p := &population{config: config{idle: time.Second}, began: time.Now()}
	for ms, want := range map[int]tide{
		0: high, 1999: high, 2000: low, 2999: low, 3000: slack, 5249: slack, 5250: high, 7250: low, 8250: slack,
	} {
		if got := p.tide(p.began.Add(time.Duration(ms) * time.Millisecond)); got != want {
			t.Errorf("tide %d after %dms, want %d", got, ms, want)
		}
	}
}

func TestAPhaseThatEndsByAShutdownHasNoSlackWater(t *testing.T) {
	r := newCourse(config{idle: time.Second, clients: 15}, nil)
	r.server = &server{}
	for end, want := range map[scenario.End]tide{scenario.GoesOn: slack, scenario.Idles: slack, scenario.Stops: high, scenario.Cut: high} {
		ph := all(t)[0]
		ph.End = end
		p := r.populate(ph)
		if got := p.tide(p.began.Add(4 * time.Second)); got != want {
			t.Errorf("a phase after which the store %s: tide %d after 4s, want %d", end, got, want)
		}
	}
}

func TestEveryCrowdOfAPhaseHasClientsAndNobodyElse(t *testing.T) {
	for _, s := range scenario.All {
		for i, ph := range s.Phases {
			for _, clients := range []int{len(kinds), len(kinds) + 1, 64, 1000} {
				counts, there := split(clients, ph.Flight), make(map[int]bool)
				for _, c := range ph.Flight {
					k := kindOf(c.Kind)
					if there[k] = true; k < 0 {
						t.Fatalf("%s: there are no %q", s.Name, c.Kind)
					}
				}
				for k, n := range counts {
					if there[k] != (n > 0) {
						t.Errorf("phase %d of %s has %d clients of %d that are %s, want some: %t", i, s.Name, n, clients, kinds[k].name, there[k])
					}
				}
				if sum(counts) != clients {
					t.Errorf("%d clients were split into %v", clients, counts)
				}
			}
		}
	}
}

func TestCrowdsAreSplitByTheirShares(t *testing.T) {
	counts := split(42, []scenario.Crowd{{Kind: "flooding", Share: 3}, {Kind: "garbage", Share: 1}})
	if got := []int{counts[kindOf("flooding")], counts[kindOf("garbage")]}; !slices.Equal(got, []int{31, 11}) {
		t.Errorf("42 clients were split into %v, want 31 and 11", got)
	}
}

func TestNoTwoPhasesHaveTheSameClient(t *testing.T) {
	r := newCourse(config{clients: 20}, nil)
	r.server = &server{}
	first, second := r.populate(all(t)[0]), r.populate(all(t)[0])
	if first.first != 0 || second.first != 20 || sum(r.tally.number) != 40 {
		t.Errorf("clients from %d and from %d on, %d in all, want 0, 20 and 40", first.first, second.first, sum(r.tally.number))
	}
}

// tiny is the size of a run of every scenario.
var tiny = config{duration: 600 * time.Millisecond, clients: 16, idle: 100 * time.Millisecond, max: 20, seed: 1}

func TestTheStoreKeepsItsPromisesInEveryScenario(t *testing.T) {
	for _, s := range scenario.All {
		t.Run(s.Name, func(t *testing.T) {
			c, out := tiny, new(bytes.Buffer)
			if c.scenario = s.Name; s.Name == scenario.Default {
				c.duration *= 4 // of many phases
			}
			if _, err := run(t.Context(), c, s.Phases, out, &progress{out: io.Discard}); err != nil {
				t.Errorf("%v\n%s", err, out.String())
			}
			if want := "repeat with: " + c.command() + "\n"; !strings.Contains(out.String(), want) {
				t.Errorf("the report does not say %q", want)
			}
		})
	}
}

func TestFlags(t *testing.T) {
	c, err := parse([]string{"-level", "store", "-scenario", "flood", "-list", "-lifetime", "9s", "-empty", "200ms", "-holding", "300ms", "-report", "there", "-duration", "3s", "-clients", "16", "-idle", "1s", "-max", "5", "-seed", "6", "-sqlserver", "folder"}, io.Discard)
	if want := (config{level: storeLevel, scenario: "flood", list: true, life: 9 * time.Second, unheld: 200 * time.Millisecond, held: 300 * time.Millisecond, report: "there", duration: 3 * time.Second, clients: 16, idle: time.Second, max: 5, seed: 6, sql: "folder"}); c != want || err != nil {
		t.Errorf("%+v, %v, want %+v", c, err, want)
	}
	if c, err := parse(nil, io.Discard); err != nil || c.seed == 0 {
		t.Errorf("seed %d, %v, want a random one", c.seed, err)
	}
	for _, bad := range []string{
		"-level all", "-scenario nonsense", "-duration -1s", "-duration 25h", "-clients 14", "-clients 5000", "-idle 1ms",
		"-idle 25h", "-idle 2", "-lifetime 1ms", "-empty 1h", "-empty 1ms", "-holding 1h", "-holding 1ms", "-max -1", "-max x", "-seed -1", "-nonsense", "nonsense",
	} {
		var said bytes.Buffer
		if _, err := parse(strings.Fields(bad), &said); err == nil || !strings.Contains(said.String(), strings.Fields(bad)[0]) {
			t.Errorf("%s: error %v and the words %q, want both, about the flag", bad, err, said.String())
		}
	}
}

func TestWhatTheFlagsLeaveOpenSuitsTheScenarioAndTheLevel(t *testing.T) {
	store := config{level: storeLevel, scenario: "mix", duration: 20 * time.Second, clients: 16, idle: 100 * time.Millisecond, max: 256}
	flight := config{level: flightLevel, scenario: "mix", duration: 20 * time.Second, clients: 64, idle: 500 * time.Millisecond, max: 128}
	for args, want := range map[string][]config{
		"":                                  {with(store, 8*time.Second), with(flight, 12*time.Second)},
		"-level store":                      {store},
		"-level flight":                     {flight},
		"-level flight -duration 1m":        {with(flight, time.Minute)},
		"-level store -idle 3s -clients 99": {{level: storeLevel, scenario: "mix", duration: 20 * time.Second, clients: 99, idle: 3 * time.Second, max: 256}},
		"-level store -scenario soak":       {{level: storeLevel, scenario: "soak", duration: 10 * time.Minute, clients: 16, idle: 100 * time.Millisecond, max: 256}},
		"-sqlserver x":                      {{level: flightLevel, scenario: "mix", sql: "x", duration: sqlDuration, clients: 64, idle: 2 * time.Second, max: 128}},
		"-sqlserver x -duration 1s":         {{level: flightLevel, scenario: "mix", sql: "x", duration: time.Second, clients: 64, idle: 2 * time.Second, max: 128}},
	} {
		for i := range want {
			want[i].seed = 1
		}
		if c, err := parse(strings.Fields(args+" -seed 1"), io.Discard); !slices.Equal(c.levels(), want) || err != nil {
			t.Errorf("%q: %+v, %v, want %+v", args, c.levels(), err, want)
		}
	}
}

func with(c config, d time.Duration) config {
	c.duration = d
	return c
}

func TestACommandRepeatsWhatItIsPrintedFor(t *testing.T) {
	for _, args := range []string{"", "-level store -scenario flood -idle 1s -empty 200ms -max 9", "-sqlserver x -clients 20"} {
		c, err := parse(strings.Fields(args), io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range c.levels() {
			_, flags, _ := strings.Cut(c.command(), "./stress ")
			again, err := parse(strings.Fields(flags), io.Discard)
			if err != nil || len(again.levels()) != 1 || again.levels()[0].command() != c.command() {
				t.Errorf("%q: %q, which means %q: %v", args, c.command(), again.levels()[0].command(), err)
			}
		}
	}
}

func TestScenariosAreNotForAnotherServer(t *testing.T) {
	for args, want := range map[string]bool{"-sqlserver x": false, "-sqlserver x -scenario flood": true, "-scenario flood": false} {
		var said bytes.Buffer
		if _, err := parse(strings.Fields(args), &said); err != nil || strings.Contains(said.String(), "-scenario is ignored") != want {
			t.Errorf("%q: error %v and the words %q, want them to say that the scenario is ignored: %t", args, err, said.String(), want)
		}
	}
}

func TestTheListHasEveryScenarioWithItsSentence(t *testing.T) {
	var out bytes.Buffer
	list(&out)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != len(scenario.All) {
		t.Fatalf("%d lines, want %d", len(lines), len(scenario.All))
	}
	at := strings.Index(lines[0], scenario.All[0].Sentence)
	for i, s := range scenario.All {
		if !strings.HasPrefix(lines[i], s.Name+" ") || strings.Index(lines[i], s.Sentence) != at {
			t.Errorf("line %q, want %s, and its sentence in column %d", lines[i], s.Name, at)
		}
	}
}

func TestExitStatus(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	if got := start([]string{"-clients", "1"}, null, null); got != 2 {
		t.Errorf("status %d for a bad flag, want 2", got)
	}
	for _, good := range []string{"-help", "-list"} {
		if got := start([]string{good}, null, null); got != 0 {
			t.Errorf("status %d for %s, want 0", got, good)
		}
	}
}

func TestBothLevelsHaveTimeToEnd(t *testing.T) {
	c := config{level: bothLevels, duration: time.Second, idle: 3 * time.Second}
	if got, want := c.longest(10), time.Second+time.Minute+2*10*(5+6)*time.Second; got != want {
		t.Errorf("a run may take %s, want %s", got, want)
	}
}
