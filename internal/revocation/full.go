// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation

// insert makes an entry for a session that has none, if need be after somebody was
// collapsed for it. If that was its own principal, it needs none any more.
func (l *List) insert(e Entry) error {
	who, err := l.toCollapse(e.Principal)
	if err == nil && who != "" {
		err = l.collapse(who, e)
	}
	if err == nil && (who == "" || who != e.Principal) {
		l.put(&record{Entry: e})
	}
	return err
}

// toCollapse returns who must be collapsed so that a session of a principal can be
// revoked; nobody if there is room, and never those who have no name.
func (l *List) toCollapse(principal string) (who string, err error) {
	own, most := l.index.of(principal), l.index.most()
	switch {
	case principal == "" && len(own) >= l.max/2:
		return "", ErrFull
	case len(l.index.expiring) < l.max:
		return "", nil
	case principal != "" && (len(own) >= len(most) || len(most) < 2):
		return principal, nil
	case len(most) < 2:
		return "", ErrFull // nobody is logged out so that one who is anonymous can close
	}
	return most[0].Principal, nil
}

// collapse replaces all entries of a principal by a not-before record, which revokes a
// session that has yet to get its entry, too, if that is the principal's.
func (l *List) collapse(who string, e Entry) error {
	all := Entry{Principal: who, Why: Collapsed}
	if e.Principal == who {
		all.Issued, all.Until = e.Issued, e.Until
	}
	for _, r := range l.index.of(who) {
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
	if !l.canRaise(e.Principal) {
		return ErrFull
	}
	if old, is := l.notBefore(e.Principal); is {
		old.merge(e)
		e = old
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
	who, err := l.toCollapse(principal)
	if err == nil && who != "" && !l.canRaise(who) {
		err = ErrFull
	}
	if err != nil {
		l.refused++
	}
	return err
}

// canRaise reports whether raise would find a place.
func (l *List) canRaise(principal string) bool {
	_, is := l.notBefore(principal)
	return is || l.principals.Len() < l.max
}
