// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"sync"

	"github.com/c8e4ff29/layover"
)

// SessionLease is the right to use a session for one call. Release may be
// called more than once. It is safe for concurrent use.
type SessionLease interface {
	// Session returns the leased session.
	Session() ServerSession
	// Confirm notes that a later call than the one that created the session has
	// brought its token back, see [layover.Store.Confirm].
	Confirm()
	// Hold notes that the session has something that its client would miss, see
	// [layover.Store.Hold]. Sessions of this package's own do that themselves.
	Hold()
	// Release gives the lease back; the idle clock starts.
	Release()
}

// LeaseStore is a [SessionStore] that can keep a session from ending while a
// call uses it. The managers of this package use it where a store offers it.
type LeaseStore interface {
	SessionStore
	// Add stores a new session and returns its first lease. A token that is
	// taken is [layover.ErrExists], a full store [layover.ErrFull].
	Add(ctx context.Context, session ServerSession, origin layover.Origin) (SessionLease, error)
	// Acquire leases the session with the given token. That there is none is
	// [layover.ErrNotFound].
	Acquire(ctx context.Context, id string) (SessionLease, error)
}

// ExpiringSessionStore is a [LeaseStore] in memory on a [layover.Store], safe
// for concurrent use. Use [NewSessionStore] or [OpenSessionStore].
//
// It also works under Apache's manager and middleware, which know no leases:
// there it bounds the number of sessions and ends them, but a session may end
// while a call uses it.
type ExpiringSessionStore struct {
	store    *layover.Store[resident]
	renewals sync.Mutex                      // no foreign code runs under it
	renewed  map[ServerSession]string        // tokens of those that are not told yet
	turns    map[ServerSession]chan struct{} // who renews one at this moment
}

var _ LeaseStore = (*ExpiringSessionStore)(nil)

// resident is a session as the store keeps it. Its Close is the teardown; the
// Close of the session itself, which handlers call, means "remove me".
type resident struct{ ServerSession }

// Close tears the session down.
func (r resident) Close() error {
	if own, ok := r.ServerSession.(*statefulServerSession); ok {
		own.seal()
		return nil
	}
	if r.Closed() {
		return nil // its handler did
	}
	return r.ServerSession.Close()
}

var (
	errClosed    = errors.New("session: the session has ended")
	errElsewhere = errors.New("session: the session is in another store")
)

// OpenSessionStore returns an empty store. Its errors wrap
// [layover.ErrOptions].
func OpenSessionStore(opts ...layover.Option) (*ExpiringSessionStore, error) {
	s, err := layover.New[resident](opts...)
	if err != nil {
		return nil, err
	}
	return &ExpiringSessionStore{store: s}, nil
}

// NewSessionStore is [OpenSessionStore], but panics on options that make no
// sense. Without options it never does.
func NewSessionStore(opts ...layover.Option) *ExpiringSessionStore {
	s, err := OpenSessionStore(opts...)
	if err != nil {
		panic(err)
	}
	return s
}

// Get returns the session with the given token, touches and confirms it: who
// knows no leases, such as Apache's manager, calls Get when a client has brought
// the token. The error is [layover.ErrNotFound] or [layover.ErrShutdown].
func (s *ExpiringSessionStore) Get(id string) (ServerSession, error) {
	r, err := s.store.Get(id)
	if err != nil {
		return nil, err
	}
	_ = s.store.Confirm(id) // an error says that it ended this moment, as it may the next
	return r.ServerSession, nil
}

// peek returns the session with the given token, nil if there is none.
func (s *ExpiringSessionStore) peek(id string) ServerSession {
	r, err := s.store.Peek(id)
	if err != nil {
		return nil
	}
	return r.ServerSession
}

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
		if token, renews := s.renews(session); renews {
			return token
		}
	}
	return session.Token() // afterwards: one that has just been told says so
}

// renews returns the token of a session that is being renewed, and is not told yet.
func (s *ExpiringSessionStore) renews(session ServerSession) (token string, _ bool) {
	s.renewals.Lock()
	defer s.renewals.Unlock()
	token, renews := s.renewed[session]
	return token, renews
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
	if err := s.refile(l, session, r); err != nil {
		return err
	}
	good := false
	defer func() { // also if SetToken ends its goroutine
		s.renewals.Lock()
		defer s.renewals.Unlock()
		delete(s.renewed, session)
		if !good {
			err = errors.Join(err, l.Rename(old, layover.Origin{Source: r.was}))
		}
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
	for {
		mine, wait := s.turn(session)
		if wait == nil {
			return func() {
				s.renewals.Lock()
				defer s.renewals.Unlock()
				delete(s.turns, session)
				close(mine)
			}, nil
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// turn returns what ends the caller's turn, or the one of another call.
func (s *ExpiringSessionStore) turn(session ServerSession) (mine, wait chan struct{}) {
	s.renewals.Lock()
	defer s.renewals.Unlock()
	if other := s.turns[session]; other != nil {
		return nil, other
	}
	if s.turns == nil {
		s.turns = make(map[ServerSession]chan struct{})
	}
	mine = make(chan struct{})
	s.turns[session] = mine
	return mine, nil
}

// refile is rename of a session of a foreign type, which is not told yet.
func (s *ExpiringSessionStore) refile(l *layover.Lease[resident], session ServerSession, r *renewal) error {
	s.renewals.Lock()
	defer s.renewals.Unlock()
	if _, renews := s.renewed[session]; renews {
		return errRenews
	}
	if l.Source() != r.was {
		return errClosed
	}
	if err := l.Rename(r.token, r.origin); err != nil {
		return err
	}
	if s.renewed == nil {
		s.renewed = make(map[ServerSession]string)
	}
	s.renewed[session] = r.token
	return nil
}

// renameOwn is rename of a session of this package's type, whose token is read under
// its mutex.
func (s *ExpiringSessionStore) renameOwn(l *layover.Lease[resident], own *statefulServerSession, r *renewal) error {
	own.filing.Lock()
	defer own.filing.Unlock()
	own.mu.Lock()
	defer own.mu.Unlock()
	if l.Source() != r.was {
		return errClosed
	}
	if err := l.Rename(r.token, r.origin); err != nil {
		return err
	}
	own.id = r.token
	r.hand(own)
	return nil
}

// Put stores a session under its token. If it is there already, that is a
// touch; if another session is, that one ends, see [layover.Store.Put]. A
// session that was closed, or one of this package's that has left the store,
// cannot be put again: a late save must not bring it back.
func (s *ExpiringSessionStore) Put(session ServerSession) error {
	session = unwrap(session)
	done := filing(session)
	defer done()
	isNew, err := s.receive(session)
	if err != nil {
		return err
	}
	id, origin := s.tokenOf(session), layover.Origin{Holds: holds(session), Size: size(session)}
	if !isNew {
		if r, err := s.store.Get(id); err != nil || !same(r.ServerSession, session) {
			return errClosed
		}
		return nil
	}
	if err = s.store.Put(id, resident{session}, origin); err != nil {
		s.turnAway(session)
		return err
	}
	if session.Closed() { // since it was received
		return errors.Join(errClosed, s.removeSession(session))
	}
	return nil
}

// Add stores a new session and returns its first lease. The errors are those of
// [layover.Store.Add].
func (s *ExpiringSessionStore) Add(_ context.Context, session ServerSession, origin layover.Origin) (SessionLease, error) {
	return s.addInstead(nil, session, origin)
}

// addInstead is Add of a session in whose favor another one ends; nil: nobody.
func (s *ExpiringSessionStore) addInstead(old *layover.Lease[resident], session ServerSession, origin layover.Origin) (SessionLease, error) {
	if old == nil {
		old = new(layover.Lease[resident])
	}
	session = unwrap(session)
	done := filing(session)
	defer done()
	isNew, err := s.receive(session)
	if err != nil {
		return nil, err
	}
	id := session.Token()
	if !isNew {
		if same(s.peek(id), session) {
			return nil, layover.ErrExists
		}
		return nil, errClosed
	}
	origin.Holds, origin.Size = origin.Holds || holds(session), origin.Size+size(session)
	l := new(lease)
	if l.Lease, err = s.store.AddInstead(old, id, resident{session}, origin); err != nil {
		s.turnAway(session)
		return nil, err
	}
	if session.Closed() { // since it was received
		l.Release()
		return nil, errors.Join(errClosed, s.removeSession(session))
	}
	return l, nil
}

// filing has only one goroutine at a time store a session of this package's, so
// that the others find it stored. It returns what ends that.
func filing(session ServerSession) (done func()) {
	own, ok := session.(*statefulServerSession)
	if !ok || own == nil {
		return func() {}
	}
	own.filing.Lock()
	return own.filing.Unlock
}

// receive gives a session of this package's its home. It reports whether the
// session may be filed: false if it was before. Of foreign types that is not
// known.
func (s *ExpiringSessionStore) receive(session ServerSession) (isNew bool, err error) {
	if isNil(session) {
		return false, layover.ErrInvalid
	}
	if session.Closed() {
		return false, errClosed
	}
	own, ok := session.(*statefulServerSession)
	if !ok || own.home.CompareAndSwap(nil, s) {
		return true, nil
	}
	if own.home.Load() != s {
		return false, errElsewhere
	}
	return false, nil
}

// turnAway undoes receive.
func (s *ExpiringSessionStore) turnAway(session ServerSession) {
	if own, ok := session.(*statefulServerSession); ok {
		own.home.Store(nil)
	}
}

// holds reports whether a session is known to hold something.
func holds(session ServerSession) bool {
	own, ok := session.(*statefulServerSession)
	return ok && own.holds()
}

// size returns what the options of a session take, in bytes, if it is of this
// package's type.
func size(session ServerSession) int64 {
	if own, ok := session.(*statefulServerSession); ok {
		return int64(own.bytes())
	}
	return 0
}

// resize tells the store what the options of a session take. Of one that has ended
// while calls use it, only a lease can tell, nil: there is none. Without one it
// must not grow, since nobody would count it.
func (s *ExpiringSessionStore) resize(own *statefulServerSession, bytes int, l *layover.Lease[resident]) error {
	err := s.store.CompareAndSetSize(own.id, resident{own}, int64(bytes))
	if gone(err) == nil && err != nil {
		switch err = nil; {
		case isOn(l, own):
			if err = l.SetSize(int64(bytes)); err == nil && !isOn(l, own) { // released meanwhile: it did nothing, maybe
				return errClosed
			}
		case bytes > own.bytes():
			return errClosed
		}
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errStore, err)
	}
	return nil
}

// isOn reports whether a lease, which may be nil, is on a session, and was not
// released.
func isOn(l *layover.Lease[resident], own *statefulServerSession) bool {
	return l != nil && l.Session().ServerSession == ServerSession(own)
}

// Acquire leases the session with the given token. The error is
// [layover.ErrNotFound] or [layover.ErrShutdown].
func (s *ExpiringSessionStore) Acquire(_ context.Context, id string) (SessionLease, error) {
	l := new(lease)
	var err error
	if l.Lease, err = s.store.Acquire(id); err != nil {
		return nil, err
	}
	return l, nil
}

// Remove ends the session with the given token: at once if no call uses it,
// else with the last of these calls. It is idempotent.
func (s *ExpiringSessionStore) Remove(id string) error {
	return gone(s.store.Remove(id))
}

// removeSession ends this very session, not one that has its ID by now, as far
// as the two can be told apart.
func (s *ExpiringSessionStore) removeSession(session ServerSession) error {
	_, err := s.end(session)
	return err
}

// end ends this very session, and reports whether it was not over already.
func (s *ExpiringSessionStore) end(session ServerSession) (ended bool, err error) {
	for id := range s.tokens(session) {
		if ended, err = s.endUnder(id, session); ended || err != nil {
			break
		}
	}
	return ended, err
}

// endUnder is end of one that was filed under id, whatever its token is by now.
func (s *ExpiringSessionStore) endUnder(id string, session ServerSession) (ended bool, _ error) {
	var err error
	if reflect.ValueOf(session).Comparable() {
		err = s.store.CompareAndRemove(id, resident{session})
	} else {
		err = s.store.Remove(id)
	}
	return err == nil, gone(err)
}

// gone turns errors that mean that a session is gone into success.
func gone(err error) error {
	if errors.Is(err, layover.ErrNotFound) || errors.Is(err, layover.ErrShutdown) {
		return nil
	}
	return err
}

// lease is a lease on a resident.
type lease struct{ layover.Lease[resident] }

// Session returns the leased session, nil after Release.
func (l *lease) Session() ServerSession { return l.Lease.Session().ServerSession }

// Format prints a fingerprint under every verb.
func (l *lease) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "lease of session %s", l.Fingerprint()) }

// All returns the live sessions without their tokens, see [layover.Store.All].
func (s *ExpiringSessionStore) All() iter.Seq2[layover.Info, ServerSession] {
	return func(yield func(layover.Info, ServerSession) bool) {
		for info, r := range s.store.All() {
			if !yield(info, r.ServerSession) {
				return
			}
		}
	}
}

// Len returns how many sessions are live.
func (s *ExpiringSessionStore) Len() int { return s.store.Len() }

// Stats returns the store's counters.
func (s *ExpiringSessionStore) Stats() layover.Stats { return s.store.Stats() }

// Sources tells who has most of the places, see [layover.Store.Sources].
func (s *ExpiringSessionStore) Sources(n int) []layover.SourceInfo { return s.store.Sources(n) }

// Check looks for contradictions in the store, see [layover.Store.Check].
func (s *ExpiringSessionStore) Check() error { return s.store.Check() }

// Explain tells when and why a session ended, see [layover.Store.Explain].
func (s *ExpiringSessionStore) Explain(f layover.Fingerprint) (layover.Event, bool) {
	return s.store.Explain(f)
}

// Kill ends a session and closes it at once, also while calls use it, see
// [layover.Store.Kill].
func (s *ExpiringSessionStore) Kill(f layover.Fingerprint) bool { return s.store.Kill(f) }

// Fingerprint returns what stands for a token in events, logs and errors.
func (s *ExpiringSessionStore) Fingerprint(id string) layover.Fingerprint {
	return s.store.Fingerprint(id)
}

// Reconfigure changes settings while the store runs, see
// [layover.Store.Reconfigure].
func (s *ExpiringSessionStore) Reconfigure(opts ...layover.Option) error {
	return s.store.Reconfigure(opts...)
}

// Drain refuses new sessions from now on; those that exist go on.
func (s *ExpiringSessionStore) Drain() { s.store.Drain() }

// Shutdown ends all sessions and waits until they are closed, see
// [layover.Store.Shutdown]. Call it after the server has stopped taking calls.
func (s *ExpiringSessionStore) Shutdown(ctx context.Context) error { return s.store.Shutdown(ctx) }

// Format prints the number of sessions under every verb.
func (s *ExpiringSessionStore) Format(f fmt.State, verb rune) { s.store.Format(f, verb) }
