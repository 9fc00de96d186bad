// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import "time"

// spares returns how many of its source end with n's arrival.
func (n *newcomer[S]) spares() int {
	if old := n.instead; old == nil || old.source != n.entry.source || old.load().phase() != live {
		return 0
	}
	return 1
}

// roomInQuota makes room for n among the sessions of its own source, if that has
// as many as it may have.
func (s *Store[S]) roomInQuota(c *config, n *newcomer[S]) error {
	from, quota := n.entry.source, n.origin.Quota
	quota += n.spares()
	fits := func() bool { return from.taken() < quota }
	if n.origin.Quota == 0 || n.replace || fits() {
		return nil
	}
	n.now = s.clock.now()
	if s.reapUntil(c, n.now, fits) {
		return nil
	}
	if !n.placed && s.ledger.hopeless(c, 1, n.origin.Size) {
		return nil // nobody leaves in vain; the store refuses
	}
	if need := from.taken() - quota + 1; need > 1 && from.idle(n) < need {
		return s.ledger.refuse(n.origin.Quota, from, LackingQuota) // nobody leaves in vain
	}
	for !fits() {
		if !n.origin.EvictOwn || !s.evictOwn(c, n.now, from) {
			return s.ledger.refuse(n.origin.Quota, from, LackingQuota)
		}
	}
	return nil
}

// idle returns how many of the source's sessions nobody uses, n's not counted; of the
// source without a name, all.
func (f *source[S]) idle(n *newcomer[S]) int {
	idle := f.taken() - int(f.busy.Load())
	if f.name != "" && !n.placed && n.leases.busy() { // it has entered
		idle++
	}
	return idle
}

// evictOwn ends the session of a source that is the first to leave, and reports
// whether there is one.
func (s *Store[S]) evictOwn(c *config, now time.Duration, from *source[S]) bool {
	l := &s.ledger
	l.why = ReasonQuota
	defer func() { l.why = ReasonCapacity }()
	return s.evict(c, now, l.policy.VictimOf(&from.places))
}
