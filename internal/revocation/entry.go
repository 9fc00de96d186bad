// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"errors"
	"time"
)

// ID names a session. The zero ID names none.
type ID [16]byte

// Entry says that a session is closed. One with the zero ID is a not-before record:
// it says that of all sessions of its principal that began at Issued or before.
type Entry struct {
	ID        ID
	Principal string    // whose the session was; empty: nobody's
	Issued    time.Time // when the session began
	Until     time.Time // when the last of its tokens dies by itself
	Why       string    // the reason, such as "closed" or "renamed"
}

// Collapsed is the reason in the not-before records that a full list makes.
const Collapsed = "collapsed"

// ErrFull says that a session cannot be revoked, as there is no room for it, and
// nobody whose entries may be put together.
var ErrFull = errors.New("revocation: the list is full")

var errNobody = errors.New("revocation: an entry names neither a session nor a principal")

// revokes reports whether a not-before record revokes what began at issued.
func (e Entry) revokes(issued time.Time) bool { return !issued.After(e.Issued) }

// covers reports whether a not-before record makes an entry needless.
func (e Entry) covers(other Entry) bool {
	return e.revokes(other.Issued) && !other.Until.After(e.Until)
}

// merge makes a not-before record revoke what another one of the same principal
// does. The reason is that of the one that revokes more.
func (e *Entry) merge(other Entry) {
	if other.Issued.After(e.Issued) {
		e.Issued, e.Why = other.Issued, other.Why
	}
	if other.Until.After(e.Until) {
		e.Until = other.Until
	}
}

// ttl returns how long an entry lives from now on. It is never 0, which the caches
// would take for always.
func (e Entry) ttl() time.Duration { return max(time.Until(e.Until), 1) }
