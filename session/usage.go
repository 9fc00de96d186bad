// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"sync"
)

// usages are the sessions of a store that is not of this package's which calls use,
// by token. They keep what a call writes late from bringing back a session that was
// ended by this manager meanwhile, and from getting into the next one with its token.
type usages struct {
	mu   sync.Mutex
	used map[string]*usage
}

// usage is a session that calls use.
type usage struct {
	turn chan struct{} // full while somebody stores, writes, renames or ends it

	// Under the mutex of usages.
	id     string   // its token by now
	tokens []string // all under which it is in usages: also those that it had, or may get
	users  int
	known  bool   // the store has, or had, such a session
	given  string // the principal whose it has become while calls used it; empty: none
	ended  bool   // nobody writes it any more
	hung   bool   // it was removed while somebody hung who writes it
}

// write waits until nobody else stores, writes, renames or ends the session, no longer
// than UpdateTimeout. Others wait until done is called.
func (u *usage) write(ctx context.Context) (done func(), _ error) {
	ctx, cancel := context.WithTimeout(ctx, UpdateTimeout)
	defer cancel()
	select {
	case u.turn <- struct{}{}:
		return func() { <-u.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join notes that a call uses the session with this token, before it looks for it.
// A new one may have the token of one that has ended, or was renamed.
func (a *usages) join(id string, isNew bool) *usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.used[id]
	if u == nil || isNew && (u.ended || u.id != id) {
		u = &usage{turn: make(chan struct{}, 1), id: id}
		a.add(u, id)
	}
	u.users++
	return u
}

// add has the mutex.
func (a *usages) add(u *usage, token string) {
	if a.used == nil {
		a.used = make(map[string]*usage)
	}
	a.used[token] = u
	u.tokens = append(u.tokens, token)
}

// using is join of a session that calls use; nil: none does.
func (a *usages) using(id string) *usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.used[id]
	if u != nil {
		u.users++
	}
	return u
}

// leave undoes join and using.
func (a *usages) leave(u *usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if u.users--; u.users > 0 {
		return
	}
	for _, token := range u.tokens {
		if a.used[token] == u {
			delete(a.used, token)
		}
	}
}

// of returns the token that the session has by now, and whether it may be written.
func (a *usages) of(u *usage) (id string, live bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return u.id, !u.ended
}

// contended reports whether another call may be about to change what the store has.
func (a *usages) contended(u *usage) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return u.users > 1 && (!u.ended || u.hung)
}

// found notes that the store has the session, and reports whether somebody has found
// it before.
func (a *usages) found(u *usage) (before bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	before, u.known = u.known, true
	return before
}

// finish has nobody write the session any more. orderly: nobody does at this moment.
func (a *usages) finish(u *usage, orderly bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	u.ended, u.hung = true, !orderly
}

// unfinish undoes finish.
func (a *usages) unfinish(u *usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	u.ended, u.hung = false, false
}

// removedMeanwhile reports whether the session was removed while the caller wrote it,
// and no other one has its token.
func (a *usages) removedMeanwhile(u *usage) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return u.hung && (a.used[u.id] == u || a.used[u.id] == nil)
}

// alias has the session found under a token that it is about to get.
func (a *usages) alias(u *usage, token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.add(u, token)
}

// renamed notes that it has got it, and whose it is from now on.
func (a *usages) renamed(u *usage, r *renewal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	u.id = r.token
	if r.moved {
		u.given = r.owner
	}
}

// keeps reports whether it is still whose a call thinks.
func (a *usages) keeps(u *usage, caller string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return u.given == "" || u.given == caller
}
