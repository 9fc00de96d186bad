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
	expiry janitor.Timer[ticket]
}

// A wheel tells what is due, and when to ask again.
func ExampleWheel() {
	wheel := janitor.NewWheel[ticket](time.Second)
	short, long := &ticket{name: "short"}, &ticket{name: "long"}
	wheel.File(&short.expiry, short, 10*time.Second)
	wheel.File(&long.expiry, long, time.Hour)

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
