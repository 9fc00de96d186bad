// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation

import (
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jellydator/ttlcache/v3"
)

// List says which sessions are revoked. It is safe for concurrent use. [New] makes
// one.
type List struct {
	max int

	// Readers use these without mu. What goes from one to the other is in both for a
	// moment, and they look in this order, so that they never miss it. The counts are
	// never too low.
	sessions    *ttlcache.Cache[ID, *record]
	principals  *ttlcache.Cache[string, Entry] // not-before records
	nSessions   atomic.Int64
	nPrincipals atomic.Int64

	mu        sync.Mutex // whoever changes anything holds it
	index     index
	collapsed uint64
	refused   uint64
}

// Stats counts.
type Stats struct {
	Sessions   int    // that are revoked one by one
	Principals int    // that have a not-before record
	Collapsed  uint64 // how many times a principal's revocations were put together
	Refused    uint64 // how many times Add has returned ErrFull
}

// New returns an empty list of at most maximum entries of sessions, and as many
// not-before records. If that is not more than zero, it is full from the start.
func New(maximum int) *List {
	return &List{
		max:        maximum,
		sessions:   ttlcache.New(ttlcache.WithDisableTouchOnHit[ID, *record]()),
		principals: ttlcache.New(ttlcache.WithDisableTouchOnHit[string, Entry]()),
		index:      index{owners: make(map[string]*owner)},
	}
}

// Add revokes a session until e.Until, or with a zero ID all sessions of a principal
// that began at e.Issued or before. Added reports whether they were not revoked
// before, one by one or with others of their principal.
//
// One who is revoked already stays so until the later Until. The principal is always
// the same for the same ID. An entry whose Until has passed is not stored, as its
// tokens are dead; it counts as added every time.
//
// The error is ErrFull, or says that e has neither an ID nor a principal. Then
// nothing has changed.
func (l *List) Add(e Entry) (added bool, err error) {
	if e.ID == (ID{}) && e.Principal == "" {
		return false, errNobody
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.find(e.ID)
	known, is := l.notBefore(e.Principal)
	added = old == nil && (!is || !known.revokes(e.Issued))
	switch {
	case time.Until(e.Until) <= 0 || is && known.covers(e):
	case e.ID == (ID{}):
		err = l.raise(e)
	case old != nil:
		l.extend(old, e)
	default:
		err = l.insert(e)
	}
	if err != nil {
		l.refused++
		return false, err
	}
	return added, nil
}

// Remove takes an Add back, unless the session is revoked with others of its
// principal since.
func (l *List) Remove(id ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := l.find(id); r != nil {
		l.drop(r)
	}
}

// Revoked reports whether a session is revoked, and why. It wants the principal that
// the session was added with, and when it began.
func (l *List) Revoked(id ID, principal string, issued time.Time) (why string, yes bool) {
	// Has is cheaper than Get by far, and mostly enough.
	if l.nSessions.Load() > 0 && l.sessions.Has(id) {
		if item := l.sessions.Get(id); item != nil {
			return item.Value().Why, true
		}
	}
	if principal != "" && l.nPrincipals.Load() > 0 && l.principals.Has(principal) {
		if e, is := l.notBefore(principal); is && e.revokes(issued) {
			return e.Why, true
		}
	}
	return "", false
}

// All returns what was revoked when the iteration began. Adding all of it to another
// list makes that revoke the same, and more, if it has had others, or is smaller: then
// somebody may be collapsed, or ErrFull come. Not-before records come first, as they
// may make entries needless. The list is not locked meanwhile.
func (l *List) All() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		l.mu.Lock()
		l.sweep()
		principals, records := l.principals.Items(), slices.Clone(l.index.expiring)
		l.mu.Unlock()
		for _, item := range principals {
			if !yield(item.Value()) {
				return
			}
		}
		for _, r := range records {
			if !yield(r.Entry) {
				return
			}
		}
	}
}

// Stats returns the counts, without what has expired.
func (l *List) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep()
	return Stats{
		Sessions:   len(l.index.expiring),
		Principals: l.principals.Len(),
		Collapsed:  l.collapsed,
		Refused:    l.refused,
	}
}

// find returns the entry of a session, nil: none, after all that have expired are
// gone. Whoever calls this, or what follows, holds the mutex.
func (l *List) find(id ID) *record {
	item := l.sessions.Get(id)
	l.sweep() // after Get: what had expired then is gone now, here as in the index
	if item == nil || item.Value().place < 0 {
		return nil
	}
	return item.Value()
}

// notBefore returns the not-before record of a principal, if there is one. It needs no
// mutex.
func (l *List) notBefore(principal string) (e Entry, is bool) {
	if item := l.principals.Get(principal); item != nil {
		return item.Value(), true
	}
	return e, false
}

// sweep drops what has expired. Readers need not wait until all is gone.
func (l *List) sweep() {
	now := time.Now()
	for len(l.index.expiring) > 0 && l.index.expiring[0].expires.Before(now) {
		l.drop(l.index.expiring[0])
	}
	l.principals.DeleteExpired()
	l.nPrincipals.Store(int64(l.principals.Len()))
}

func (l *List) drop(r *record) {
	l.sessions.Delete(r.ID)
	l.index.remove(r)
	l.nSessions.Store(int64(len(l.index.expiring)))
}

func (l *List) put(r *record) {
	l.nSessions.Store(int64(len(l.index.expiring)) + 1)
	r.expires = l.sessions.Set(r.ID, r, r.ttl()).ExpiresAt()
	l.index.add(r)
}

// extend makes an entry live as long as another one of the same session.
func (l *List) extend(old *record, e Entry) {
	merged := old.Entry
	merged.merge(Entry{Issued: e.Issued, Until: e.Until, Why: old.Why})
	if merged == old.Entry {
		return
	}
	l.index.remove(old)
	l.put(&record{Entry: merged}) // over the old one: readers see one or the other
}
