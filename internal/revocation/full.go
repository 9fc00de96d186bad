// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation

// insert makes an entry for a session that has none.
func (l *List) insert(e Entry) error {
	covered, err := l.makeRoom(e)
	if err == nil && !covered {
		l.put(&record{Entry: e})
	}
	return err
}

// makeRoom collapses somebody if there is no room for an entry. Covered: that was the
// principal of that entry, which needs no room any more.
func (l *List) makeRoom(e Entry) (covered bool, err error) {
	own, most := l.index.of(e.Principal), l.index.most()
	switch {
	case e.Principal == "" && len(own) >= l.max/2:
		return false, ErrFull
	case len(l.index.expiring) < l.max:
		return false, nil
	case e.Principal != "" && (len(own) >= len(most) || len(most) < 2):
		return true, l.collapse(e, own)
	case len(most) < 2:
		return false, ErrFull // nobody is logged out so that one who is anonymous can close
	}
	return false, l.collapse(most[0].Entry, most)
}

// collapse replaces all entries of the principal of e, and e, by a not-before record.
func (l *List) collapse(e Entry, records []*record) error {
	all := Entry{Principal: e.Principal, Issued: e.Issued, Until: e.Until, Why: Collapsed}
	for _, r := range records {
		all.merge(Entry{Issued: r.Issued, Until: r.Until, Why: Collapsed})
	}
	err := l.raise(all)
	if err == nil {
		l.collapsed++
	}
	return err
}

// raise adds a not-before record, and drops the entries that are needless now.
func (l *List) raise(e Entry) error {
	if old, is := l.notBefore(e.Principal); is {
		old.merge(e)
		e = old
	} else if l.principals.Len() >= l.max {
		return ErrFull
	}
	l.nPrincipals.Add(1) // at least; sweep counts
	l.principals.Set(e.Principal, e, e.ttl())
	records := l.index.of(e.Principal)
	for i := len(records) - 1; i >= 0; i-- { // a drop moves the last one, which stays, to its place
		if e.covers(records[i].Entry) {
			l.drop(records[i])
		}
	}
	return nil
}

// Admit returns ErrFull, and counts that, if there is no room for a session of a
// principal, now: before others are told of what could not be added then.
func (l *List) Admit(principal string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep()
	if l.hasRoom(principal) {
		return nil
	}
	l.refused++
	return ErrFull
}

// hasRoom is makeRoom without making it.
func (l *List) hasRoom(principal string) bool {
	own, most := l.index.of(principal), l.index.most()
	full := len(l.index.expiring) >= l.max
	switch {
	case principal == "" && len(own) >= l.max/2:
		return false
	case !full:
		return true
	case principal != "" && (len(own) >= len(most) || len(most) < 2):
		return l.canRaise(principal)
	case len(most) < 2:
		return false
	}
	return l.canRaise(most[0].Principal)
}

// canRaise reports whether raise would find a place.
func (l *List) canRaise(principal string) bool {
	_, is := l.notBefore(principal)
	return is || l.principals.Len() < l.max
}
