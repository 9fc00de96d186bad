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
//   - Live sessions never exceed the maximum, not for a moment.
//   - Every stored session is closed exactly once, even if Close or the
//     observer fails, panics, hangs or ends its goroutine.
//   - After its deadline a session is never handed out, whether or not a timer
//     has run; before it, it does not expire. Deadlines are kept to the reading
//     of the clock for lookups and to one [Tick] for removal.
//   - Close, observers and log handlers run under no lock of the store and may
//     call back into it.
//   - An empty store has no timer and no goroutine. Goroutines exist only while
//     there is something to close or to report.
//   - An ID is a bearer secret. It appears in no error, event, log line or
//     printed value of this package; a [Fingerprint] does.
//
// # How it works
//
// The index is split into shards, each a map behind a read-write lock. A hit
// reads its shard and moves one atomic word of the entry; it takes no exclusive
// lock. Everything that is about the store as a whole stands in one ledger
// behind one mutex: how many places are taken, who would leave
// (package eviction) and when (package janitor's timing wheel). Inserts, first
// confirmations and ends take that mutex, hits never do. Closing and reporting
// run on janitor pools.
package layover
