// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"time"
)

// Reason says why a session ended. The zero Reason means unknown.
type Reason uint8

// The reasons. A session ends for exactly one of them.
const (
	// ReasonIdle: a confirmed session was not used for the idle timeout.
	ReasonIdle Reason = iota + 1
	// ReasonLifetime: the session reached its absolute lifetime, or an end of its
	// own, see [Origin].
	ReasonLifetime
	// ReasonUnconfirmed: an unconfirmed session was not used for its timeout; no
	// later call has brought its ID back.
	ReasonUnconfirmed
	// ReasonCapacity: the store was full and the session made room.
	ReasonCapacity
	// ReasonClosed: it was removed, as a rule because its client closed it.
	ReasonClosed
	// ReasonReplaced: another session was put under the same ID.
	ReasonReplaced
	// ReasonKilled: [Store.Kill] ended it.
	ReasonKilled
	// ReasonShutdown: the store was shut down.
	ReasonShutdown
	// ReasonQuota: its source had as many as it may have, and it made room for
	// another one, see [Origin].
	ReasonQuota
	// ReasonRenamed: it lives on under another ID, see [Lease.Rename].
	ReasonRenamed

	reasons = iota + 1 // how many values a Reason has, the zero one included
)

var reasonNames = [reasons]string{
	"unknown", "idle", "lifetime", "unconfirmed", "capacity", "closed", "replaced", "killed", "shutdown", "quota", "renamed",
}

// String returns the reason's name, such as "idle".
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// EventKind says what happened to a session.
type EventKind uint8

// The kinds of events.
const (
	// EventCreated: the session entered the store.
	EventCreated EventKind = iota + 1
	// EventConfirmed: a later call brought its ID back for the first time.
	EventConfirmed
	// EventEnded: it left, for the event's Reason. From now on it is absent for
	// every operation. Its Close runs after this moment: at once if the session
	// is idle, with the last release if it is retired.
	EventEnded
)

// String returns "created", "confirmed" or "ended".
func (k EventKind) String() string {
	switch k {
	case EventCreated:
		return "created"
	case EventConfirmed:
		return "confirmed"
	case EventEnded:
		return "ended"
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// Event tells one thing that happened to one session. See [WithObserver] for
// the order in which events are delivered. It contains no ID.
type Event struct {
	Kind        EventKind
	Fingerprint Fingerprint
	// At is when it happened.
	At time.Time
	// Created is when the session entered the store, to a millisecond.
	Created time.Time
	// LastUsed is when its idle clock last started. For a session that was in
	// use when it ended, that is before the lease which it had then.
	LastUsed time.Time
	// Reason says why the session ended; zero for other kinds.
	Reason Reason
	// Confirmed and Holds tell its class at the time. See [Store.Confirm] and
	// [Store.Hold].
	Confirmed, Holds bool
	// InUse says that calls were using the session when it ended.
	InUse bool
}

// String returns one line without the ID, fit for a log.
func (e Event) String() string {
	s := fmt.Sprintf("session %s %s", e.Fingerprint, e.Kind)
	if e.Kind == EventEnded {
		s += fmt.Sprintf(": %s, age %s, unused for %s", e.Reason,
			e.At.Sub(e.Created).Round(time.Millisecond), e.At.Sub(e.LastUsed).Round(time.Millisecond))
	}
	return s
}
