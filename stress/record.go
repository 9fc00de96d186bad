// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/c8e4ff29/layover"
)

// record is what the watch knows of one session, under its mutex.
type record struct {
	mark  layover.Fingerprint
	named bool // it is found by a principal, whose next session has the same mark

	// From the observer.
	created, confirmed, ended bool
	createdAt, endedAt        time.Time
	toldAt                    time.Time // when the watch was told of the end
	reason                    layover.Reason
	nth                       uint64 // to end
	born, died                uint64 // its places among all events

	// From the middlewares: the calls that use it.
	calls      int       // ever
	running    int       // now, from around the lease
	inside     int       // now, from inside the lease
	firstStart time.Time // when its first call asked for it, before it was made
	entered    time.Time // the same, after
	lastStart  time.Time // of the latest call
	lastLeft   time.Time // the latest end of a use, before its lease was given back
	lastDone   time.Time // the same, after

	held     bool      // an option was set
	closedAt time.Time // a client asked for its end; zero: none did

	resource bool // it is of the type with a resource
	closes   int
	tornAt   time.Time // when the last of them began

	// Of what may have only so many sessions, see floods.go.
	owner string
	allot *allotment

	// Of what was renewed, see heirs.go.
	renewals  int       // that calls have asked for, and are yet to come
	renamedAt time.Time // since then, at the latest, its ID finds nothing
	heir      *record   // what it is since
}

// call is one call as the middlewares around and inside the session middleware
// see it.
type call struct {
	start time.Time
	named bool   // it names a principal, by which its session is found
	owner string // the principal whose session by cookie it gets, of what may have only so many
	allot *allotment
	asked time.Time // when it asked for a new session; zero: it did not
	used  *record   // the session that it got, nil if none
}

// reserved reports whether it is a principal's, whose places are not to be had for
// others.
func (r *record) reserved() bool { return r.named || r.owner != "" }

// sticks reports whether a session is to be confirmed: a second call has come,
// or its principal proves who it is anyway.
func (r *record) sticks() bool { return r.calls > 1 || r.named }

// stage says how far a session has come according to its events.
func (r *record) stage() string {
	switch {
	case r.ended:
		return "it had ended already"
	case r.confirmed:
		return "it was confirmed already"
	case r.created:
		return "it was created"
	}
	return "it was not created yet"
}

// record returns the books of the latest session with this mark, of which so
// much is known. Events and calls may come in any order. The caller holds the
// mutex.
func (w *watch) record(f layover.Fingerprint, known func(*record) bool) *record {
	all := w.sessions[f]
	for i := len(all) - 1; i > 0; i-- {
		if known(all[i]) {
			return all[i]
		}
	}
	if len(all) == 0 {
		return w.successor(f)
	}
	return all[0]
}

// What may be known of a session.
func anything(*record) bool     { return true }
func byEvents(r *record) bool   { return r.created }
func byCalls(r *record) bool    { return r.calls > 0 }
func byNoEvents(r *record) bool { return !r.created }
func byNoCalls(r *record) bool  { return r.calls == 0 }

// next returns the books of a new session: the first with this mark of which
// nothing is known from that side. Only principals' sessions have successors.
func (w *watch) next(f layover.Fingerprint, unknown func(*record) bool) *record {
	all := w.sessions[f]
	for _, r := range all {
		if unknown(r) {
			return r
		}
	}
	if len(all) > 0 && !all[0].named {
		return all[0] // which is wrong, as will be found
	}
	return w.successor(f)
}

func (w *watch) successor(f layover.Fingerprint) *record {
	r := &record{mark: f}
	w.sessions[f] = append(w.sessions[f], r)
	return r
}
