// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/c8e4ff29/layover/janitor"
)

type ticket struct {
	name   string
	expiry time.Duration
	timer  janitor.Timer[ticket]
}

// A wheel tells what is due, and when to ask again.
func ExampleWheel() {
	wheel := janitor.NewWheel(time.Second,
		func(t *ticket) *janitor.Timer[ticket] { return &t.timer },
		func(t *ticket, _ time.Duration) time.Duration { return t.expiry })
	for _, t := range []*ticket{
		{name: "short", expiry: 10 * time.Second},
		{name: "touched", expiry: 20 * time.Second},
		{name: "long", expiry: time.Hour},
	} {
		wheel.File(t, t.expiry)
		if t.name == "touched" {
			t.expiry = time.Minute // later: the wheel need not be told
		}
	}

	for {
		now, ok := wheel.Next() // a program would sleep until then
		if !ok {
			break
		}
		due, more := wheel.Due(now, 100, nil)
		for _, t := range due {
			fmt.Println(t.name, "is due at", now, "- more:", more)
		}
	}
	// Output:
	// short is due at 10s - more: false
	// touched is due at 1m0s - more: false
	// long is due at 1h0m0s - more: false
}

// A pool survives what it runs.
func ExamplePool() {
	pool := janitor.NewPool(janitor.PoolConfig[string]{
		Workers: 1,
		Run: func(name string) error {
			switch name {
			case "bad":
				return errors.New("connection lost")
			case "worse":
				panic(name)
			}
			return nil
		},
		Done: func(name string, err error) { fmt.Println(name, "closed:", err) },
	})
	for _, name := range []string{"good", "bad", "worse", "last"} {
		pool.Submit(name)
	}
	fmt.Println("unfinished:", pool.Drain(context.Background()))
	// Output:
	// good closed: <nil>
	// bad closed: connection lost
	// worse closed: panic: string
	// last closed: <nil>
	// unfinished: 0
}
