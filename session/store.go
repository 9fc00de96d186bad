// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/internal/resource"
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
	renewals turns
	things   *resource.Pool
	handles  *handles
}

var _ LeaseStore = (*ExpiringSessionStore)(nil)

// resident is a session as the store keeps it. Its Close is the teardown; the
// Close of the session itself, which handlers call, means "remove me".
type resident struct{ ServerSession }

// Close tears the session down.
func (r resident) Close() error {
	if own, ok := r.ServerSession.(*statefulServerSession); ok {
		own.seal()
		return own.release()
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
	return &ExpiringSessionStore{store: s, things: resource.NewPool(defaultMaxResources), handles: newHandles()}, nil
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

// Shutdown ends all sessions and waits until they and their resources are closed, see
// [layover.Store.Shutdown]. Call it after the server has stopped taking calls.
func (s *ExpiringSessionStore) Shutdown(ctx context.Context) error {
	err := s.store.Shutdown(ctx)
	if left := s.things.Wait(ctx); left > 0 {
		err = errors.Join(err, fmt.Errorf("session: shutdown: %w: %d resources still closing", ctx.Err(), left))
	}
	return err
}

// SetMaxResources changes how many resources the sessions of this store may have open
// at a time, all together; 1,024 if it is never called. It may be called while the
// store runs. When there are as many, one that no call uses is closed for each that is
// opened, see [Resource]; if none can, [ErrResourceLimit]. If there are more
// already, those that are not in use are closed at once, and the others as they are
// released. The error wraps [layover.ErrOptions]: n is less than 1.
func (s *ExpiringSessionStore) SetMaxResources(n int) error {
	if n < 1 {
		return fmt.Errorf("%w: SetMaxResources(%d): want 1 at least", layover.ErrOptions, n)
	}
	s.things.SetMax(n)
	return nil
}

// ResourceStats tells how it stands with the resources of all sessions.
type ResourceStats struct {
	Max     int // how many places there are, see [ExpiringSessionStore.SetMaxResources]
	Places  int // taken: from before Open until Close has returned, or was given up on
	Opening int // whose Open runs, or waits for a place to be free
	Open    int
	Busy    int // of these, those that are in use
	Held    int // of these, those that are not, but held
	Closing int // whose Close is waited for
	Hung    int // whose Close was given up on, and has not returned yet

	// Totals.
	Opened      uint64
	Failed      uint64 // failures of Open
	Refused     uint64 // there was no place
	EndedIdle   uint64 // closed, by reason, see [ResourceReason]
	Evicted     uint64
	EndedOwner  uint64
	Discarded   uint64
	CloseErrors uint64 // failures of Close, and those that were given up on
}

// Resources returns the counters of the sessions' resources. It looks at all that are
// open.
func (s *ExpiringSessionStore) Resources() ResourceStats { return ResourceStats(s.things.Stats()) }

// Format prints the number of sessions under every verb.
func (s *ExpiringSessionStore) Format(f fmt.State, verb rune) { s.store.Format(f, verb) }
