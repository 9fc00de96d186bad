// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"errors"
	"fmt"
	"time"
)

// Kind says what is common to the things that are opened by the same code.
type Kind struct {
	// Name is what errors call one, such as "connection".
	Name string
	// Idle is how long a thing may be unused. Zero or less: as long as its owner
	// lives.
	Idle time.Duration
	// CloseWithin is how long its Close may take before it is given up on, and how
	// long the end of its owner waits for an Open that does not return. It must be
	// more than zero.
	CloseWithin time.Duration
	// Close closes a thing.
	Close func(value any) error
	// Closed, if it is not nil, is told of each thing that was closed, or was given
	// up on, after its place is free. It is waited for no longer than Close is.
	Closed func(Ending)
}

// Reason says why a thing is closed.
type Reason uint8

// The reasons.
const (
	Idle      Reason = iota + 1 // nobody used it for too long
	Capacity                    // another one needed its place
	Ended                       // its owner has ended
	Discarded                   // its users did not want it any more
)

// String returns "idle", "capacity", "ended" or "discarded".
func (r Reason) String() string {
	switch r {
	case Idle:
		return "idle"
	case Capacity:
		return "capacity"
	case Ended:
		return "ended"
	case Discarded:
		return "discarded"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Ending tells of one thing that was closed.
type Ending struct {
	Owner  any
	Name   string // under which it was opened
	Value  any
	Reason Reason
	Opened time.Time
	Used   time.Time // when its last use ended; of one in use, when it was closed
	Closed time.Time // before its Close began
	Late   bool      // the Close of its owner has returned before
	Err    error     // of its Close; ErrHangs: that was given up on
}

// Errors of this package.
var (
	// ErrEnded says that the owner has ended.
	ErrEnded = errors.New("resource: its owner has ended")
	// ErrFull says that all places are taken by things that may not leave: they are in
	// use, or of a source that has fewer; or that as many have a Close that was given up
	// on.
	ErrFull = errors.New("resource: no place for another one")
	// ErrHangs says that a Close or an Open has not returned in time.
	ErrHangs = errors.New("resource: it does not return")
	// ErrRecursive says that a thing was asked for by its own Open, or by that of one
	// for which its own waits.
	ErrRecursive = errors.New("resource: it is asked for by its own Open, for which that would wait")
)
