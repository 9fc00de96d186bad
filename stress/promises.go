// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// promise is one of the store's that the watch checks.
type promise int

const (
	bounded promise = iota
	ordered
	closedOnce
	notInUse
	notStale
	notEarly
	prompt
	assured
	own
	needed
	told
	renewed
	outlasts
	allotted
	explained
	answered
	sound
	connected
	clean
	promises
)

// grace is what the store is allowed on top of a deadline where something must
// happen in time, and by how much a lookup may be seen late. See allowance.
const grace = time.Second

var promiseTexts = [promises]string{
	bounded:    "live sessions never exceed the maximum",
	ordered:    "created, confirmed and ended in this order, once each, for one reason",
	closedOnce: "every session that was stored is closed exactly once",
	notInUse:   "none is closed, evicted or idled out while a call uses it",
	notStale:   "none is handed out after its deadline or its end",
	notEarly:   "none ends before its deadline, unless closed or for want of room",
	prompt:     "what has expired, or was closed by its client, is gone within " + grace.String(),
	assured:    "confirmed ones are not evicted while newcomers could leave instead",
	own:        "every call sees its own session and the options that were set in it",
	needed:     "a session is made for a call that needs one, and for no other",
	told:       "no statement runs in the default schema after a session that had set one",
	renewed:    "a renewed session is found by its new ID, and by no other",
	outlasts:   "streams go on to their end, whoever closes or renews their session",
	allotted:   "no principal has more than its maximum, and no other one's leave for it",
	explained:  "a client loses its session only for a reason that the store explains",
	answered:   "every call is answered, as the protocol has it",
	sound:      "index, counts, eviction order and timers tell the same of every session",
	connected:  "as many connections are open as sessions have, open or close",
	clean:      "after the shutdown nothing is left",
}

// ofSQL reports whether a promise can be seen from outside of a server.
func (p promise) ofSQL() bool {
	switch p {
	case bounded, own, told, answered, connected, clean:
		return true
	default:
		return false
	}
}

// ofStore reports whether it is one of the server that is part of this program.
func (p promise) ofStore() bool { return p != connected }

// verdicts are what became of the promises. Safe for concurrent use.
type verdicts struct {
	mu     sync.Mutex
	checks [promises]uint64
	broken [promises]string // the first sentence of each
	first  string
	failed chan struct{} // closed with the first
}

// expect notes one check of a promise and returns ok. The sentence is for when
// it is not: what was expected, and what was found.
func (v *verdicts) expect(p promise, ok bool, sentence string, args ...any) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.checks[p]++
	if ok || v.broken[p] != "" {
		return ok
	}
	for i, arg := range args {
		if d, ok := arg.(time.Duration); ok {
			args[i] = d.Round(time.Microsecond)
		}
	}
	v.broken[p] = fmt.Sprintf(sentence, args...)
	if v.first == "" {
		v.first = v.broken[p]
		close(v.failed)
	}
	return ok
}

// patience returns how long to wait for what should be over: less when there is
// a broken promise to be told.
func (v *verdicts) patience() time.Duration {
	if v.verdict() != nil {
		return 2 * time.Second
	}
	return 15 * time.Second
}

// verdict returns the first broken promise as an error.
func (v *verdicts) verdict() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.first == "" {
		return nil
	}
	return errors.New(v.first)
}
