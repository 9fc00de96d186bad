// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/c8e4ff29/layover"
)

// connection is what the sessions of the examples own.
type connection struct{ name string }

func (c *connection) Close() error {
	fmt.Println("closing", c.name)
	return nil
}

// newStore makes a store for the examples, which do not show the log.
func newStore(opts ...layover.Option) *layover.Store[*connection] {
	store, err := layover.New[*connection](append(opts, layover.WithLogger(nil))...)
	if err != nil {
		panic(err)
	}
	return store
}

func Example() {
	store, err := layover.New[*connection](
		layover.WithIdleTimeout(15*time.Minute),
		layover.WithMaxSessions(10_000),
		layover.WithLogger(nil),
	)
	if err != nil {
		fmt.Println(err) // says which options to change
		return
	}

	// The first call of a client makes its session, and has a lease on it.
	first, err := store.Add("3f0c", &connection{"db1"}, layover.Origin{})
	if err != nil {
		fmt.Println(err)
		return
	}
	first.Release()

	// A later call brings the ID back.
	call, err := store.Acquire("3f0c")
	if err != nil {
		fmt.Println(err)
		return
	}
	call.Confirm()
	fmt.Println("using", call.Session().name)
	call.Release() // from here the idle timeout counts

	// Every session that is left is closed.
	if err := store.Shutdown(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// using db1
	// closing db1
}

// A session cannot leave before the call that made it has ended, even if the
// store is full.
func ExampleStore_Add() {
	store := newStore(layover.WithMaxSessions(1))

	lease, err := store.Add("a", &connection{"db1"}, layover.Origin{})
	fmt.Println(lease.Session().name, err)

	_, err = store.Add("a", &connection{"db2"}, layover.Origin{})
	fmt.Println(errors.Is(err, layover.ErrExists))

	_, err = store.Add("b", &connection{"db2"}, layover.Origin{})
	fmt.Println(errors.Is(err, layover.ErrFull))

	lease.Release()
	lease, err = store.Add("b", &connection{"db2"}, layover.Origin{})
	fmt.Println(lease.Session().name, err)
	lease.Release()

	_ = store.Shutdown(context.Background())
	// Unordered output:
	// db1 <nil>
	// true
	// true
	// db2 <nil>
	// closing db1
	// closing db2
}

// A client asks why its session is gone. Its error and the server's log have
// the same fingerprint.
func ExampleStore_Explain() {
	store := newStore(layover.WithFingerprintKey([]byte("a secret that replicas share")))
	_ = store.Put("3f0c", &connection{"db1"}, layover.Origin{})
	_ = store.Remove("3f0c")

	_, err := store.Acquire("3f0c")
	fmt.Println(err)

	fingerprint, err := layover.ParseFingerprint("75b573e717023b9a")
	if err != nil {
		fmt.Println(err)
	}
	if end, ok := store.Explain(fingerprint); ok {
		fmt.Println(end.Kind, end.Reason, "confirmed:", end.Confirmed, "in use:", end.InUse)
	}

	_ = store.Shutdown(context.Background())
	// Unordered output:
	// closing db1
	// layover: session 75b573e717023b9a has ended: closed
	// ended closed confirmed: false in use: false
}

// Settings change while the store runs, all or none.
func ExampleStore_Reconfigure() {
	store := newStore(layover.WithMaxSessions(3))
	for _, id := range []string{"a", "b", "c"} {
		_ = store.Put(id, &connection{id}, layover.Origin{})
	}

	err := store.Reconfigure(layover.WithMaxSessions(1), layover.WithLifetime(time.Minute))
	fmt.Println(err)
	fmt.Println(store.Len(), "sessions")

	err = store.Reconfigure(layover.WithMaxSessions(1), layover.WithLifetime(2*time.Hour))
	fmt.Println(err, store.Len(), "session")

	_ = store.Shutdown(context.Background())
	// Unordered output:
	// layover: invalid options: lifetime 1m0s is shorter than idle timeout 1h0m0s: raise the lifetime or lower the idle timeout
	// 3 sessions
	// <nil> 1 session
	// closing a
	// closing b
	// closing c
}

// Somebody ends a session that runs away. Its user learns by the context.
func ExampleStore_Kill() {
	store := newStore()
	call, err := store.Add("3f0c", &connection{"db1"}, layover.Origin{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer call.Release()

	for info, c := range store.All() {
		if info.Leases > 0 && c.name == "db1" {
			fmt.Println("killed:", store.Kill(info.Fingerprint))
		}
	}

	<-call.Context().Done()
	var ended *layover.EndedError
	if errors.As(context.Cause(call.Context()), &ended) {
		fmt.Println("ended:", ended.Reason)
	}

	_ = store.Shutdown(context.Background())
	// Unordered output:
	// killed: true
	// ended: killed
	// closing db1
}

// An observer is told of every session, in order.
func ExampleWithObserver() {
	store := newStore(layover.WithObserver(func(e layover.Event) {
		if e.Kind == layover.EventEnded {
			fmt.Println("event:", e.Kind, e.Reason)
		} else {
			fmt.Println("event:", e.Kind)
		}
	}))
	lease, err := store.Add("3f0c", &connection{"db1"}, layover.Origin{Holds: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	lease.Confirm()
	lease.Release()
	_ = store.Remove("3f0c")

	_ = store.Shutdown(context.Background()) // waits for the observer, too
	// Unordered output:
	// event: created
	// event: confirmed
	// event: ended closed
	// closing db1
}
