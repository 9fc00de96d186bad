// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"fmt"
	"strings"
)

// Errors that operations of a [Store] return. Compare with [errors.Is]; some
// are wrapped in a type that tells more.
var (
	// ErrNotFound says that no live session has the ID. The error is a
	// [*NotFoundError], with the reason where the store still knows it.
	ErrNotFound = errors.New("layover: session not found")
	// ErrExists says that Add was called with the ID of a live session.
	ErrExists = errors.New("layover: a live session has this ID")
	// ErrFull says that the store holds its maximum of sessions or bytes and that
	// none of them may leave: they are busy, kept by [KeepConfirmed], or of
	// sources with fewer sessions, or too many Close calls hang. The error is a
	// [*FullError], with what was wanting.
	ErrFull = errors.New("layover: store is full and no session may leave")
	// ErrLeaseLimit says that the session has as many leases as it may have,
	// see [WithMaxLeases], or its source as many sessions in use, see
	// [WithSourceShare].
	ErrLeaseLimit = errors.New("layover: too many leases")
	// ErrDraining says that [Store.Drain] was called: no new sessions.
	ErrDraining = errors.New("layover: store is draining, no new sessions")
	// ErrShutdown says that [Store.Shutdown] was called.
	ErrShutdown = errors.New("layover: store is shut down")
	// ErrInvalid says that an ID was empty, a session nil, a size or quota
	// negative, a size beyond reason, or a session's own end ([Origin].Expires) not
	// in the future.
	ErrInvalid = errors.New("layover: empty ID, nil session, impossible size or an end that has passed")
	// ErrOptions is wrapped by every error of [New] and [Store.Reconfigure].
	ErrOptions = errors.New("layover: invalid options")
)

// NotFoundError is the [ErrNotFound] of one lookup.
type NotFoundError struct {
	// Reason says why the session ended. Zero: the store does not know, since
	// there never was such a session or it ended too long ago.
	Reason Reason
	// Held says that the session which ended held something, see [Store.Hold]: its
	// client may miss more than the session. False if Reason is zero.
	Held bool

	// A function: most errors are not printed, and a fingerprint takes longer than
	// the lookup; and nobody who prints this can look into it.
	mark func() Fingerprint
}

// Fingerprint stands for the ID that was looked up.
func (e *NotFoundError) Fingerprint() Fingerprint {
	if e.mark == nil {
		return Fingerprint{}
	}
	return e.mark()
}

// Error names the fingerprint and the reason, never the ID.
func (e *NotFoundError) Error() string {
	if e.Reason == 0 {
		return fmt.Sprintf("layover: no session %s", e.Fingerprint())
	}
	return fmt.Sprintf("layover: session %s has ended: %s", e.Fingerprint(), e.Reason)
}

// Is reports whether target is [ErrNotFound].
func (e *NotFoundError) Is(target error) bool { return target == ErrNotFound }

// FullError is the [ErrFull] of one Add, Put or SetSize.
type FullError struct {
	// Max is how many sessions the store may hold, zero if that is not limited; of
	// LackingQuota, how many the source may have.
	Max int
	// Own is how many places the source of the session took at that moment, its
	// retired sessions included. If that is most of Max, the source is in its own
	// way.
	Own int
	// Lacking is what there was not enough of.
	Lacking Lacking
}

// Error gives the numbers.
func (e *FullError) Error() string {
	if e.Max == 0 {
		return fmt.Sprintf("%v: it lacks %s, %d sessions are of the same source", ErrFull, e.Lacking, e.Own)
	}
	return fmt.Sprintf("%v: it lacks %s, %d of at most %d sessions are of the same source", ErrFull, e.Lacking, e.Own, e.Max)
}

// Is reports whether target is [ErrFull].
func (e *FullError) Is(target error) bool { return target == ErrFull }

// Lacking says what a store that is full has not enough of.
type Lacking uint8

// What a store may lack.
const (
	// LackingPlaces: it holds as many sessions as it may, see [WithMaxSessions].
	LackingPlaces Lacking = iota
	// LackingBytes: its sessions take as many bytes as they may, see
	// [WithMaxBytes], or one alone wants more than that.
	LackingBytes
	// LackingClosers: too many sessions that have ended wait for their Close to
	// return, see [WithMaxSessions]. There may be places.
	LackingClosers
	// LackingQuota: the source has as many sessions as it may have, see [Origin].
	// There may be places.
	LackingQuota
)

// String returns "places", "bytes", "closers" or "quota".
func (l Lacking) String() string {
	switch l {
	case LackingPlaces:
		return "places"
	case LackingBytes:
		return "bytes"
	case LackingClosers:
		return "closers"
	case LackingQuota:
		return "quota"
	}
	return fmt.Sprintf("Lacking(%d)", uint8(l))
}

// EndedError is the cause ([context.Cause]) of a session's context once the
// session has ended.
type EndedError struct {
	Fingerprint Fingerprint
	Reason      Reason
}

// Error names the fingerprint and the reason, never the ID.
func (e *EndedError) Error() string {
	return fmt.Sprintf("layover: session %s has ended: %s", e.Fingerprint, e.Reason)
}

// ShutdownError is returned by [Store.Shutdown] when its context ended before
// everything was closed. What it counts goes on in the background, and a later
// Shutdown waits for it again.
type ShutdownError struct {
	// Killed counts the sessions that were still in use at the deadline. Their
	// contexts were canceled, then they were closed.
	Killed int
	// Closing counts the sessions whose Close had not returned. Each keeps one
	// goroutine until it does.
	Closing int
	// Unreported counts the events and log lines that had not been taken.
	Unreported int
	// Cause is the error of the context.
	Cause error
}

// Error gives the counts.
func (e *ShutdownError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "layover: shutdown: %v: %d sessions killed in use, %d still closing", e.Cause, e.Killed, e.Closing)
	if e.Unreported > 0 {
		fmt.Fprintf(&b, ", %d events not delivered", e.Unreported)
	}
	return b.String()
}

// Unwrap returns the error of the context.
func (e *ShutdownError) Unwrap() error { return e.Cause }
