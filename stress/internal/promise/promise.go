// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package promise lists what the store promises, and keeps book of what became of
// it in a run: how often each promise was put to the test, what broke it first, and
// what had happened to the session that it was broken on.
package promise

import "time"

// Promise is one of the store's that a run checks.
type Promise int

// The promises. See [Promise.String].
const (
	Bounded Promise = iota
	Ordered
	ClosedOnce
	NotInUse
	NotStale
	NotEarly
	Prompt
	Assured
	Own
	Needed
	Told
	Renewed
	Outlasts
	Allotted
	Explained
	Answered
	Sound
	Linear
	Secret
	Connected
	Clean
	promises
)

// Grace is what the store is allowed on top of a deadline where something must
// happen in time, and by how much a lookup may be seen late.
const Grace = time.Second

var texts = [promises]string{
	Bounded:    "live sessions never exceed the maximum",
	Ordered:    "created, confirmed and ended in this order, once each, for one reason",
	ClosedOnce: "every session that was stored is closed exactly once",
	NotInUse:   "none is closed, evicted or idled out while a call uses it",
	NotStale:   "none is handed out after its deadline or its end",
	NotEarly:   "none ends before its deadline, unless closed or for want of room",
	Prompt:     "what has expired, or was closed by its client, is gone within " + Grace.String(),
	Assured:    "confirmed ones are not evicted while newcomers could leave instead",
	Own:        "every call sees its own session and the options that were set in it",
	Needed:     "a session is made for a call that needs one, and for no other",
	Told:       "no statement runs in the default schema after a session that had set one",
	Renewed:    "a renewed session is found by its new ID, and by no other",
	Outlasts:   "streams go on to their end, whoever closes or renews their session",
	Allotted:   "no principal has more than its maximum, and no other one's leave for it",
	Explained:  "a client loses its session only for a reason that the store explains",
	Answered:   "every call is answered, as the protocol has it",
	Sound:      "index, counts, eviction order and timers tell the same of every session",
	Linear:     "what calls see of one ID is as if they came one after the other",
	Secret:     "no ID appears in an error, an event, a log line or a printed value",
	Connected:  "as many connections are open as sessions have, open or close",
	Clean:      "after the shutdown nothing is left",
}

// String returns the promise in a sentence.
func (p Promise) String() string { return texts[p] }

// All returns all promises.
func All() (all []Promise) {
	for p := range promises {
		all = append(all, p)
	}
	return all
}
