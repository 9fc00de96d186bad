// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package resource keeps things that belong to an owner, such as the database
// connection of a session: each is opened once, however many ask for it at the
// same time, and closed once, when it was idle for too long, when another one needs
// its place, or together with all others of its owner.
//
// A [Pool] has the places, a [Set] the things of one owner, and a [Lease] is the
// right to use a thing: nothing that is leased is closed, but by [Set.Close].
//
// # Places
//
// A thing has its place from before it is opened until its Close has returned, so
// there are never more of them than the pool's maximum, with one exception: a Close
// that takes longer than [Kind.CloseWithin] is given up on, and the place with it,
// as long as there are fewer of these than the maximum.
//
// When all places are taken, an idle thing leaves: first of owners that nobody
// has confirmed, of these and of the others first that of the source which has
// most, and of that source's the one that was idle for longest. Those that are
// held come last ([Set.Hold]). No source makes room for one that has more. Victims
// are found by a look at all that are open; opening anything takes longer.
//
// # Foreign code
//
// Open and Close run on goroutines of their own, for which those who need the
// outcome wait, under no lock and contained: a panic is an error, and so is
// runtime.Goexit. What is closed because nobody used it has the goroutine of its timer
// to wait for it, and what leaves for others has one.
package resource
