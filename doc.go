// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package layover keeps server-side sessions that are sure to go away.
//
// A [Store] files sessions, anything with a Close method, under string IDs.
// It promises that each of them leaves: after an idle timeout, at an absolute
// lifetime, when the store is full, when somebody removes it, or at shutdown;
// and that whatever it stored is closed exactly once, outside every lock, with
// one [Reason] that can still be asked for afterwards.
//
// Package [github.com/c8e4ff29/layover/session] puts a store behind Arrow
// Flight. This package knows nothing of Flight, gRPC or cookies.
//
// # Words
//
// A call takes a [Lease] on the session that it uses. A session with a lease
// is busy, without one idle. A busy session neither idles out nor is evicted;
// its idle clock starts when the last lease is released.
//
// A session is unconfirmed until a later call has brought its ID back, which
// the caller reports with Confirm. Many clients never bring an ID back, so
// unconfirmed sessions live shorter and leave first. A session holds something
// once it has, or ever had, something that its client would miss.
//
// A session that is removed, replaced or past its lifetime while calls use it
// is retired: absent for every new operation, closed by the last release. Only
// [Store.Kill], and [Store.Shutdown] past its deadline, close a session in use,
// and they cancel its context first.
//
// # Promises
//
//   - Live sessions never exceed the maximum, not for a moment; nor do the bytes
//     that they are said to take.
//   - A flood from one source pushes out no session of a source that takes less.
//   - Every stored session is closed exactly once, even if Close or the
//     observer fails, panics, hangs or ends its goroutine.
//   - After its deadline a session is never handed out, whether or not a timer
//     has run; before it, it does not expire. The idle clock may run ahead by one
//     resolution: a 256th of the shortest timeout, at least a millisecond, at
//     most a second. What has expired is removed within one [Tick].
//   - Close, observers and log handlers run under no lock of the store and may
//     call back into it.
//   - An empty store has no timer and no goroutine. Goroutines exist only while
//     there is something to close or to report.
//   - An ID is a bearer secret. It appears in no error, event, log line or
//     printed value of this package; a [Fingerprint] does.
//
// # How it works
//
// A hit takes no lock and usually writes nothing. It finds its entry in a hash
// table whose readers never wait, asks a coarse clock for the time, and moves
// one atomic word of the entry: the leases, the phase, the marks and when the
// session was last used. If the coarse clock has not moved since the last touch,
// there is nothing to write.
//
// Everything that is about the store as a whole stands in one ledger behind one
// mutex: how many places and bytes are taken, who would leave (package
// eviction) and when (package janitor's timing wheel). Inserts, first
// confirmations and ends take that mutex, hits never do. Closing and reporting
// run on janitor pools.
//
// # Choices
//
// Each was decided by a benchmark: in this package, or in the module benchmarks/
// of the repository, whose figures are in its README.
//
//   - The index is a table of our own. Go maps behind read-write locks answer
//     about as fast (BenchmarkIndexGet), but take 53 bytes a session where this
//     takes 16, and keep them all after a burst (BenchmarkIndexMemory); sync.Map
//     is slower and takes 122. Buckets of a cache line with their tags in it came
//     out ahead of an array of pointers beside one of tags.
//   - It has 256 parts, so that rebuilding one with a million sessions takes
//     under a millisecond (workload expiry: the longest stall). Parts have no
//     locks: every writer holds the ledger's mutex anyway.
//   - There is one wheel, not one a part: whoever files holds the ledger's mutex,
//     and a mass expiry waits for memory, not for that mutex (expiry).
//   - The coarse clock costs a hit 4 ns where the machine's costs 39
//     (BenchmarkClock). Its resolution is a 256th of the shortest timeout, which
//     is too little for anybody to notice, and makes a busy session's word move
//     once in so long instead of with each touch.
//   - Leases count in the same word as the rest, so that acquiring and releasing
//     costs two atomic operations, and one look at the machine's clock: the idle
//     clock after a call is exact to a millisecond (lease). On one session that hundreds of calls
//     use at once, these are what takes time (lease/hot).
//   - Who leaves: first the unconfirmed, between sources the heaviest. Of all
//     policies measured it is the one that lost no session in use (flood).
package layover
