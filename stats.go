// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import "github.com/c8e4ff29/layover/eviction"

// Stats is a consistent snapshot of a store's gauges and totals, but for the
// last six, which move on their own.
type Stats struct {
	// Live counts the sessions that can be found; Peak is the most places that
	// were ever taken.
	Live, Peak int
	// Retired counts the sessions that have ended but are still in use. They
	// take places.
	Retired int
	// Bytes is what live and retired sessions are said to take.
	Bytes int64
	// Sources counts the sources that have sessions.
	Sources int
	// Unconfirmed and Confirmed split Live. Holding counts the unconfirmed ones
	// that hold something.
	Unconfirmed, Holding, Confirmed int
	// Created, EverConfirmed and Ended are totals. Index Ended with a [Reason].
	Created, EverConfirmed uint64
	Ended                  Ends
	// Refused counts inserts that failed with [ErrFull].
	Refused uint64
	// LeasesExpired counts sessions that were killed because a lease was held
	// for longer than [WithMaxLeaseAge].
	LeasesExpired uint64
	// Closing counts sessions whose Close is due or runs; HungClose those of
	// them that take longer than [WithHungClose].
	Closing, HungClose int
	// Closed counts Close calls that ended; CloseFailed those of them that
	// returned an error, panicked or ended their goroutine.
	Closed, CloseFailed uint64
	// LeasesRefused counts failures with [ErrLeaseLimit].
	LeasesRefused uint64
	// EventsDropped counts events that a slow observer or log handler missed.
	EventsDropped uint64
}

// Ends counts ended sessions by [Reason].
type Ends [reasons]uint64

// Total returns how many sessions have ended.
func (e Ends) Total() (n uint64) {
	for _, c := range e {
		n += c
	}
	return n
}

// Stats returns the store's counters. Live sessions plus ended ones are those
// that were created.
func (s *Store[S]) Stats() Stats {
	l := &s.ledger
	s.lock()
	defer s.unlock()
	return Stats{
		Live: l.live, Peak: l.counts.peak, Retired: l.places - l.live,
		Bytes: l.bytes, Sources: l.sources.count(),
		Unconfirmed: l.classes[eviction.Empty] + l.classes[eviction.Holding],
		Holding:     l.classes[eviction.Holding],
		Confirmed:   l.classes[eviction.Confirmed],
		Created:     l.counts.created, EverConfirmed: l.counts.confirmed, Ended: l.counts.ended,
		Refused: l.counts.refused, LeasesExpired: l.counts.leasesExpired,
		Closing: s.closers.Pending() + int(l.handing.Load()), HungClose: s.closers.Hung(),
		Closed: s.closed.Load(), CloseFailed: s.failed.Load(),
		LeasesRefused: s.leasesRefused.Load(),
		EventsDropped: s.journal.dropped.Load(),
	}
}

// Len returns how many sessions are live. Expired ones that the janitor has not
// reached count for up to a [Tick].
func (s *Store[S]) Len() int {
	s.lock()
	defer s.unlock()
	return s.ledger.live
}
