// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/scenario"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

// level is what is driven.
type level string

const (
	storeLevel  level = "store"  // the store alone, at full speed
	flightLevel level = "flight" // a Flight SQL server and its clients
	bothLevels  level = "both"   // one after the other
)

// says says it in a few words.
func (l level) says() string {
	if l == storeLevel {
		return "the store alone"
	}
	return "a Flight server and its clients"
}

// levels returns the configurations of the runs that are asked for.
func (c config) levels() []config {
	switch {
	case c.sql != "":
		return []config{c.at(flightLevel)}
	case c.level != bothLevels:
		return []config{c.at(c.level)}
	}
	store, flight := c.at(storeLevel), c.at(flightLevel)
	store.duration = c.duration * 2 / 5
	flight.duration = c.duration - store.duration
	return []config{store, flight}
}

// at returns the configuration at one level: what the flags leave open is such that
// within the shortest phase of the usual scenario sessions have the time to idle out.
func (c config) at(l level) config {
	usual := config{clients: 64, idle: 500 * time.Millisecond, max: 128}
	switch {
	case l == storeLevel:
		usual = config{clients: 16, idle: 100 * time.Millisecond, max: 256}
	case c.sql != "":
		usual.idle = 2 * time.Second // there are no phases
	}
	c.level = l
	if c.clients == 0 {
		c.clients = usual.clients
	}
	if c.idle == 0 {
		c.idle = usual.idle
	}
	if c.max == 0 {
		c.max = usual.max
	}
	return c
}

// drive does the runs, and writes the files that are asked for. It returns the broken
// promise, and why the files could not be written.
func (c config) drive(ctx context.Context, stdout, stderr *os.File) (err error) {
	if c.sql != "" {
		return runSQL(ctx, c.levels()[0], stdout, stderr)
	}
	if c.report != "" {
		if err := os.MkdirAll(c.report, 0o777); err != nil {
			fmt.Fprintln(stderr, "stress: there is no folder for the report:", err)
			return err
		}
	}
	what, _ := scenario.Find(c.scenario)
	var pages []series.Run
	for i, c := range c.levels() {
		if i > 0 {
			fmt.Fprintln(stdout)
		}
		var page series.Run
		if c.level == storeLevel {
			page, err = runStore(ctx, c, what, stdout, newProgress(stderr))
		} else {
			page, err = run(ctx, c, what.Phases, stdout, newProgress(stderr))
		}
		if pages = append(pages, page); err != nil || ctx.Err() != nil {
			break
		}
	}
	if c.report == "" {
		return err
	}
	written := writeFiles(c.report, pages)
	if written != nil {
		fmt.Fprintln(stderr, "stress: the report is not written:", written)
	}
	return errors.Join(err, written)
}
