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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// small is a run that is over soon, long enough for sessions to end for every
// reason.
var small = config{duration: 1500 * time.Millisecond, clients: 16, idle: 100 * time.Millisecond, max: 20, seed: 1}

func TestTheStoreKeepsItsPromisesUnderAPopulationOfClients(t *testing.T) {
	var out, shown bytes.Buffer
	if err := run(t.Context(), small, &out, &progress{out: &shown}); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "ok: ") {
		t.Errorf("last line %q, want one that begins with ok:", last)
	}
	for _, line := range slices.Concat(lines, strings.Split(shown.String(), "\n")) {
		if len(line) > columns {
			t.Errorf("%d columns, want at most %d: %s", len(line), columns, line)
		}
	}
}

func TestASignalEndsARunEarlyWithTheReport(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(300*time.Millisecond, cancel).Stop()
	c, out := small, new(bytes.Buffer)
	c.duration = time.Hour
	if err := run(ctx, c, out, &progress{out: io.Discard, terminal: true}); err != nil {
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

func TestEveryKindHasAClient(t *testing.T) {
	for _, clients := range []int{len(kinds), len(kinds) + 1, 64, 1000} {
		counts := split(clients)
		if sum(counts) != clients || slices.Min(counts) < 1 {
			t.Errorf("%d clients were split into %v", clients, counts)
		}
	}
}

func TestFlags(t *testing.T) {
	c, err := parse([]string{"-duration", "3s", "-clients", "16", "-idle", "1s", "-max", "5", "-seed", "6", "-sqlserver", "folder"}, io.Discard)
	if want := (config{duration: 3 * time.Second, clients: 16, idle: time.Second, max: 5, seed: 6, sql: "folder"}); c != want || err != nil {
		t.Errorf("%+v, %v, want %+v", c, err, want)
	}
	if c, err := parse(nil, io.Discard); err != nil || c.seed == 0 {
		t.Errorf("seed %d, %v, want a random one", c.seed, err)
	}
	for _, bad := range []string{
		"-duration 0s", "-duration -1s", "-duration 25h", "-clients 14", "-clients 5000", "-idle 1ms",
		"-idle 25h", "-idle 2", "-max 0", "-max x", "-seed -1", "-nonsense", "nonsense",
	} {
		var said bytes.Buffer
		if _, err := parse(strings.Fields(bad), &said); err == nil || !strings.Contains(said.String(), strings.Fields(bad)[0]) {
			t.Errorf("%s: error %v and the words %q, want both, about the flag", bad, err, said.String())
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
	if got := start([]string{"-help"}, null, null); got != 0 {
		t.Errorf("status %d for -help, want 0", got)
	}
}
