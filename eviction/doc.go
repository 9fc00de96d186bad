// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package eviction decides who leaves when a store is full.
//
// A [Policy] keeps an order of elements and names the next victim. [Assured]
// is the default: a flood of newcomers cannot push out what is in use, and no
// [Source] can push out those that take less room. [LRU] is the plain one:
// whoever was not used for the longest time leaves.
//
// # Contract
//
// The owner serialises all calls to a policy, usually with a lock of its own.
// It tells the policy what comes, what goes, what is confirmed and what is busy
// no longer, but never what is used or becomes busy: a hit does not touch the
// policy. The policy reaches into the elements by [Access].
//
// An element that is in use is busy, otherwise idle. A busy element is never a
// victim. Victim finds out that an element is busy by trying to claim it; it is
// then parked, which means no candidate, until the owner calls Idle.
//
// Calls take constant time, with three limits. One call of Victim parks
// whatever it finds busy on its way: each parking is paid for by the use that
// made the element busy, and none is looked at again before that use has ended.
// It passes over at most 64 elements because they were used; then the stalest
// of these leaves. And when a source has run out of candidates, the
// search for the next heaviest steps over the weights of those that have none
// either: the square root of 2b steps for b parked elements at the very worst.
//
// Calls allocate nothing, save for more buckets (see below) than were ever in
// use before.
//
// Memory: a [Node] takes 24 bytes, a [Source] 136.
//
// # How it works
//
// Most hits change nothing that matters to the next victim, so the order of use
// is settled lazily: a hit does no more than to change a stamp in the element,
// and Victim asks for the stamps of the elements at the old end while it looks
// for a victim. One that was used since it was last asked gets a second chance
// at the new end. This is the second-chance, or CLOCK, algorithm (F. J. Corbató,
// "A Paging Experiment with the Multics System", 1968); the list is the ring,
// its old end is the hand.
//
// That newcomers make room before those who came back is what Linux connection
// tracking does when its table is full: only connections that are not yet
// "assured" by traffic in both directions are dropped early (early_drop in
// net/netfilter/nf_conntrack_core.c).
//
// Newcomers that are busy cannot make room, so they do not count when it is
// decided whether there are enough of them to make room for each other. That one
// is busy shows only when Victim comes to it, so that decides anew after each
// that it parks.
//
// That the heaviest source makes room, and none for a heavier one, tends to a
// max-min fair division (D. Bertsekas, R. Gallager, "Data Networks", 1992,
// section 6.5.2): who asks for less than an equal share gets all of it, and the
// others divide what remains.
//
// The heaviest source is found without a search by counting: the sources of
// each weight share a bucket, and the buckets are linked in the order of their
// weights. Weights change by one, so a source moves between neighbours. This is
// the structure of the LFU scheme of K. Shah, A. Mitra and D. Matani ("An O(1)
// algorithm for implementing the LFU cache eviction scheme", 2010). Buckets are
// used again and again; there are never more of them than different weights at
// a time, about the square root of twice the number of elements.
package eviction
