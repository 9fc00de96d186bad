// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package revocation knows which sessions without state have been closed while
// their tokens could still live. A [List] forgets nothing before its time, and has
// a bound all the same.
//
// # When it is full
//
// The heaviest principal, who has the most entries, is collapsed: one not-before
// record takes the place of all of them. It revokes every session of that principal
// that began no later than the latest of those that were closed. Some of these may
// not have been closed, so a principal who floods the list is logged out, and nobody
// else is:
//
//   - Who closes a session, and has as many entries as the heaviest, is the one who
//     is collapsed.
//   - When nobody has more than one entry, the session that is closed gets no entry,
//     but the not-before record of its own principal.
//   - Sessions of nobody are never collapsed, as that would log out everybody who is
//     anonymous. They have at most half of the entries.
//
// What finds no room that way is refused with [ErrFull].
//
// # Cost
//
// [List.Revoked] is an atomic load while nothing is revoked, else a look-up by
// session and, once anybody was collapsed, one by principal, each under a lock that
// readers share. Only for what it finds there is that lock taken alone.
//
// [List.Add] takes time that grows with the logarithm of the number of entries. So
// does each entry that it drops because that has expired or was collapsed, and each
// is dropped once: a full list costs no more for each Add than one that is not.
// Nothing runs in the background: what has expired keeps its memory until the next
// call of a method other than Revoked.
package revocation
