// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package layover keeps server-side sessions that are sure to go away.
//
// A [Store] files sessions, anything with a Close method, under string IDs.
// It promises that each of them leaves: after an idle timeout, at an absolute
// lifetime or an end of its own, when the store is full, when somebody removes
// it, or at shutdown; and that whatever it stored is closed exactly once, outside
// every lock, with one [Reason] that can still be asked for afterwards.
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
// A session that is removed, replaced or past its lifetime, or its own end, while
// calls use it is retired: absent for every new operation, closed by the last
// release. Only [Store.Kill], and [Store.Shutdown] past its deadline, close a
// session in use, and they cancel its context first.
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
//     resolution: a 256th of the shortest timeout, at most a second; a
//     millisecond if the shortest timeout is below eight seconds. What has
//     expired is removed within one [Tick].
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
// there is nothing to write. It waits for memory twice, for the bucket and for
// the first cache line of the entry, which has the ID in it.
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
//   - IDs of up to 39 bytes, as all UUIDs are, lie within their entries (get). The
//     lookup that compares one does not wait for memory a third time, which took
//     a third of it, and an entry with its ID takes 145 bytes, where it took 161
//     with a string beside it (memory). Longer ones are as good, and as slow as
//     before.
//   - The index is a table of our own. Go maps behind read-write locks answer
//     about as fast (BenchmarkIndexGet), but take 53 bytes a session where this
//     takes 16, and keep them all after a burst (BenchmarkIndexMemory); sync.Map
//     is slower and takes 122. Buckets of a cache line with their tags in it came
//     out ahead of an array of pointers beside one of tags.
//   - It has 256 parts, so that rebuilding one with a million sessions takes
//     under a millisecond (expiry: the longest stall). Parts have no locks: every
//     writer holds the ledger's mutex anyway. An entry keeps its hash, so neither
//     a rebuild nor an end computes it again.
//   - There is one wheel, not one a part: whoever files holds the ledger's mutex,
//     and a mass expiry waits for memory, not for that mutex (expiry).
//   - The coarse clock costs a hit 4 ns where the machine's costs 39
//     (BenchmarkClock). Its resolution is a 256th of the shortest timeout, which
//     is too little for anybody to notice, and makes a busy session's word move
//     once in so long instead of with each touch. Below 32 ms it would tick all
//     the time, and on a busy machine often late, which puts deadlines off; so
//     hits then ask the machine.
//   - Leases count in the same word as the rest, so that acquiring and releasing
//     costs two atomic operations and nothing else (lease). On one session that
//     many calls use at once, these two are what takes time: the processors pass
//     its cache line around. Whoever has company therefore takes the line as its
//     own at once, instead of to read it first (lease/hot).
//   - Who ends a session does not wait for the ledger, and the closers get it
//     after the ledger is unlocked (churn). Letting whoever has the ledger let
//     newcomers in as well, as in flat combining, brought nothing.
//   - Who leaves: first the unconfirmed, between sources the heaviest. Of all
//     policies measured it is the one that lost no session in use (flood).
package layover
