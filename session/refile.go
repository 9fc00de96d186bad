// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"sync"

	"github.com/c8e4ff29/layover"
)

// has reports whether this very session is live, as far as it can be told from
// another one with its token.
func (s *ExpiringSessionStore) has(session ServerSession) bool {
	for id := range s.tokens(session) {
		there := s.peek(id)
		if there != nil && (same(there, session) || !reflect.ValueOf(session).Comparable()) {
			return true
		}
	}
	return false
}

// tokens yields the token under which a session is filed, and again as long as it is
// renewed meanwhile.
func (s *ExpiringSessionStore) tokens(session ServerSession) iter.Seq[string] {
	return func(yield func(string) bool) {
		last := ""
		for range maxRenewals {
			token := s.tokenOf(session)
			if token == last || !yield(token) {
				return
			}
			last = token
		}
	}
}

// maxRenewals bounds for how long a session is run after whose token is always
// another one.
const maxRenewals = 100

// tokenOf returns the token under which a session is filed, as it will say by itself
// once it has been told.
func (s *ExpiringSessionStore) tokenOf(session ServerSession) string {
	if !isOwn(session) && reflect.ValueOf(session).Comparable() {
		if token := s.renewals.token(session); token != "" {
			return token
		}
	}
	return session.Token() // afterwards: one that has just been told says so
}

// rename files the leased session under another token, unless it does not come from
// where the caller thinks any more. Whoever ends it finds it at every moment.
func (s *ExpiringSessionStore) rename(l *layover.Lease[resident], r *renewal) (err error) {
	session := l.Session().ServerSession
	if isNil(session) {
		return errClosed
	}
	if own, ok := session.(*statefulServerSession); ok {
		return s.renameOwn(l, own, r)
	}
	defer contain(&err)
	old := session.Token()
	if err := s.renewals.file(session, r.token, func() error { return r.refile(l) }); err != nil {
		return err
	}
	good := false
	defer func() { // also if SetToken ends its goroutine
		err = errors.Join(err, s.renewals.file(session, "", func() error {
			if good {
				return nil
			}
			return l.Rename(old, layover.Origin{Source: r.was})
		}))
	}()
	if err = setToken(session, r.token); err != nil { // it may have the new one all the same
		return errors.Join(err, setToken(session, old))
	}
	good = true
	return nil
}

// takeTurn lets one call at a time renew a session of a foreign type, until done is
// called. The others wait, unless their call ends before.
func (s *ExpiringSessionStore) takeTurn(ctx context.Context, session ServerSession) (done func(), _ error) {
	return s.renewals.take(ctx, session)
}

// take waits for the caller's turn, no longer than its context. Others wait until
// done is called.
func (t *turns) take(ctx context.Context, session ServerSession) (done func(), _ error) {
	for {
		mine, other := t.begin(session)
		if other == nil {
			return func() { t.end(session, mine) }, nil
		}
		select {
		case <-other.over:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// turns are sessions with which one call at a time does something: those of foreign
// types that are being renewed, see [ExpiringSessionStore]; of those of this package's
// type the token is read and renewed under their mutex. And those of which an option
// is changed, see observed.
type turns struct {
	mu  sync.Mutex // no foreign code runs under it
	all map[ServerSession]*turn
}

// turn is that of a call.
type turn struct {
	over  chan struct{}
	token string // if it renews the session: under which the session is filed already, and of which it is not told yet
}

// begin returns the caller's turn, or the one of another call.
func (t *turns) begin(session ServerSession) (mine, other *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if another := t.all[session]; another != nil {
		return nil, another
	}
	if t.all == nil {
		t.all = make(map[ServerSession]*turn)
	}
	mine = &turn{over: make(chan struct{})}
	t.all[session] = mine
	return mine, nil
}

func (t *turns) end(session ServerSession, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.all, session)
	close(mine.over)
}

// token returns the token under which a session is filed, if it is not told yet.
func (t *turns) token(session ServerSession) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if turn := t.all[session]; turn != nil {
		return turn.token
	}
	return ""
}

// file has a session filed under a token, of which it is yet to be told; empty: of
// which it knows. Nobody looks for it in between.
func (t *turns) file(session ServerSession, token string, rename func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := rename()
	if err == nil || token == "" {
		t.all[session].token = token
	}
	return err
}

// refile renames the leased session in the store, if it comes from where the caller
// thinks.
func (r *renewal) refile(l *layover.Lease[resident]) error {
	if l.Source() != r.was {
		return errClosed
	}
	return l.Rename(r.token, r.origin)
}

// renameOwn is rename of a session of this package's type, whose token is read under
// its mutex.
func (s *ExpiringSessionStore) renameOwn(l *layover.Lease[resident], own *statefulServerSession, r *renewal) error {
	own.filing.Lock()
	defer own.filing.Unlock()
	own.mu.Lock()
	defer own.mu.Unlock()
	if err := r.refile(l); err != nil {
		return err
	}
	own.id = r.token
	r.hand(own)
	return nil
}
