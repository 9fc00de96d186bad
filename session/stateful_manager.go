// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
)

// StatefulSessionManagerOption changes a setting of
// [NewStatefulServerSessionManager].
type StatefulSessionManagerOption func(*StatefulServerSessionManager)

// WithFactory sets what makes new sessions. Default, and nil: [NewSessionFactory]
// with random UUIDs.
func WithFactory(factory SessionFactory) StatefulSessionManagerOption {
	return func(m *StatefulServerSessionManager) { m.factory = factory }
}

// WithStore sets where sessions live. Default, and nil: [NewSessionStore]. Pass
// one of your own making to set its timeouts and its maximum, and to shut it
// down.
//
// A store that is not of this package's may keep its sessions elsewhere and hand
// out copies. So when a call ends that has changed options, these changes are
// written back: made to the session as the store has it by then, which is stored by
// [Updater].Update, or by Put if the store is none. The client is told that its call
// succeeded only after that; under Apache's shape of middleware, which cannot refuse
// a call, a failure is only logged. What this manager has closed meanwhile is not
// brought back; what other processes have closed is not if the store is an Updater.
// Calls of one process lose nothing of what each of them sets. What a session holds
// beside its options is for its type to store.
func WithStore(store SessionStore) StatefulSessionManagerOption {
	return func(m *StatefulServerSessionManager) { m.store = store }
}

// StatefulServerSessionManager keeps sessions in a store, under IDs that travel
// in cookies. It is safe for concurrent use. Use
// [NewStatefulServerSessionManager].
type StatefulServerSessionManager struct {
	factory SessionFactory
	store   SessionStore
	usages  *usages // of a store that is not of this package's, else nil
	limits  OptionLimits
	key     []byte // of fingerprints, where the store has none
}

// NewStatefulServerSessionManager returns a manager that keeps sessions in a
// store.
func NewStatefulServerSessionManager(opts ...StatefulSessionManagerOption) *StatefulServerSessionManager {
	m := &StatefulServerSessionManager{key: make([]byte, 32)}
	_, _ = rand.Read(m.key) // never fails, see crypto/rand
	for _, o := range opts {
		if o != nil {
			o(m)
		}
	}
	if m.factory == nil {
		m.factory = NewSessionFactory(nil)
	}
	if m.store == nil {
		m.store = NewSessionStore()
	}
	if _, ours := m.store.(*ExpiringSessionStore); !ours {
		m.usages = new(usages)
	}
	return m
}

// attempts is how often a factory may come up with an ID that is taken.
const attempts = 3

var (
	errStore = errors.New("session: the store failed")
	errTaken = fmt.Errorf("session: the factory returned %d IDs in a row that are taken", attempts)
)

// CreateSession makes a session and stores it. Under a middleware of this
// package and with a [LeaseStore], the call that ctx belongs to gets its first
// lease. The session belongs to the [DefaultPrincipal] of ctx, if that has one; if
// that cannot be told, it is an error, and nobody gets a session that others would
// share. Errors of a [layover.Store], such as [layover.ErrFull], are wrapped.
func (m *StatefulServerSessionManager) CreateSession(ctx context.Context) (ServerSession, error) {
	who, err := authenticated(ctx)
	if err != nil {
		return nil, err
	}
	origin := layover.Origin{Source: sourceOf(ctx)}
	if who != "" {
		origin.Source = principalSource + who
	}
	s, l, err := m.create(ctx, birth{Origin: origin}, &ownedFactory{m.factory, Principal{Name: who}, m.limits})
	if err == nil {
		callFrom(ctx).keep(l)
	}
	return s, err
}

// birth is what is known of a new session.
type birth struct {
	layover.Origin
	instead *layover.Lease[resident] // of a session that ends in its favor; nil: none does
}

// create stores a session of the factory, and leases it.
func (m *StatefulServerSessionManager) create(ctx context.Context, b birth, factory SessionFactory) (ServerSession, SessionLease, error) {
	for range attempts {
		s, err := factory.CreateSession()
		if err != nil {
			return nil, nil, fmt.Errorf("session: the factory failed: %w", err)
		}
		if isNil(s) {
			return nil, nil, errors.New("session: the factory returned no session")
		}
		_, err = CreateCookieForSession(s)
		if _, named := factory.(*namedFactory); err == nil && !named && isDerived(s.Token()) {
			err = fmt.Errorf("session: the factory returned an ID that begins with %q, as those of principals do", derivedPrefix)
		}
		if err != nil {
			return nil, nil, errors.Join(err, s.Close())
		}
		l, err := m.add(ctx, s, b)
		if err == nil {
			return s, l, nil
		}
		err = m.failed(errors.Join(err, m.discard(s)), s.Token())
		if !errors.Is(err, layover.ErrExists) {
			return nil, nil, err
		}
	}
	return nil, nil, errTaken
}

// failed returns the error of the store about the session with this ID.
func (m *StatefulServerSessionManager) failed(err error, id string) error {
	return fmt.Errorf("%w: %w", errStore, m.redact(err, id))
}

// add stores a new session, and leases it.
func (m *StatefulServerSessionManager) add(ctx context.Context, s ServerSession, b birth) (_ SessionLease, err error) {
	defer contain(&err) // here, where its text can be redacted
	if store, ours := m.store.(*ExpiringSessionStore); ours {
		return store.addInstead(b.instead, s, b.Origin)
	}
	c, err := m.addCopy(ctx, s, b.Origin)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// discard closes a session that the store has not taken, unless it is there
// because the factory returned it before.
func (m *StatefulServerSessionManager) discard(s ServerSession) (err error) {
	defer contain(&err)
	var old ServerSession
	if store, ok := m.store.(*ExpiringSessionStore); ok {
		old = store.peek(s.Token())
	} else {
		old, _ = m.store.Get(s.Token())
	}
	if same(old, s) {
		return nil
	}
	return s.Close()
}

// same reports whether a and b are one session, as far as that can be told.
func same(a, b ServerSession) bool {
	return !isNil(a) && reflect.ValueOf(a).Comparable() && a == b
}

// GetSession returns the session of the context, else the first known one of
// those that the client's cookies name and that belong to the [DefaultPrincipal]
// of the context, else [ErrNoSession]. If there are cookies and the principal cannot
// be told, that is an error. Under a middleware of this package and with
// a [LeaseStore], the call that ctx belongs to leases it. A failure of the store is
// an error, never ErrNoSession.
func (m *StatefulServerSessionManager) GetSession(ctx context.Context) (ServerSession, error) {
	//nolint:errorlint // Apache compares with != as well, so it is the bare variable.
	if s, err := GetSessionFromContext(ctx); err != ErrNoSession {
		return s, err
	}
	cookies := incomingCookies(ctx, StatefulSessionCookieName)
	if len(cookies) == 0 {
		return nil, ErrNoSession
	}
	who, err := authenticated(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range cookies {
		if c.Value == "" || isDerived(c.Value) {
			continue
		}
		s, err := m.find(ctx, c.Value, who)
		if err != nil {
			return nil, m.failed(err, c.Value)
		}
		if s != nil {
			return s, nil
		}
	}
	return nil, ErrNoSession
}

// find returns the session with this ID, nil if who has none, and leases it for
// the call.
func (m *StatefulServerSessionManager) find(ctx context.Context, id, who string) (ServerSession, error) {
	by := owner{name: who}
	s, l, err := m.lookupOf(ctx, id, &by)
	if isNotFound(err, id) {
		return nil, nil
	}
	if err != nil {
		return s, err
	}
	if !by.ownsLeased(s, l) {
		return nil, release(l)
	}
	if err := confirm(l); err != nil {
		return nil, errors.Join(err, release(l))
	}
	callFrom(ctx).keep(l)
	return s, nil
}

// confirm notes that a client has brought the ID back. The lease may be of a
// foreign store.
func confirm(l SessionLease) (err error) {
	defer contain(&err)
	l.Confirm()
	return nil
}

// lookup returns the session with this ID and its lease. That there is none is an
// error for which isNotFound is true.
func (m *StatefulServerSessionManager) lookup(ctx context.Context, id string) (ServerSession, SessionLease, error) {
	return m.lookupOf(ctx, id, nil)
}

// lookupOf is lookup of an owner's session, as far as the store can tell; nil: of
// anybody's.
func (m *StatefulServerSessionManager) lookupOf(ctx context.Context, id string, by *owner) (_ ServerSession, _ SessionLease, err error) {
	defer contain(&err) // here, where its text can be redacted
	if m.usages != nil {
		return m.lookupCopy(ctx, id)
	}
	l := new(lease)
	if l.Lease, err = m.store.(*ExpiringSessionStore).store.AcquireFrom(id, by.owns); err != nil {
		return nil, nil, err
	}
	s := l.Session()
	usable := false
	defer func() {
		if !usable {
			l.Release()
		}
	}()
	if s.Closed() { // outside of a call, or it would be gone
		return nil, nil, cmp.Or(m.CloseSession(s), layover.ErrNotFound)
	}
	usable = true
	return s, l, nil
}

// fetch returns the session with this ID, leased where the store can do that.
func (m *StatefulServerSessionManager) fetch(ctx context.Context, id string) (ServerSession, SessionLease, error) {
	store, ok := m.store.(LeaseStore)
	if !ok {
		s, err := m.store.Get(id)
		if err == nil && isNil(s) {
			err = layover.ErrNotFound
		}
		return s, nil, err
	}
	l, err := store.Acquire(ctx, id)
	if err == nil && l == nil {
		err = layover.ErrNotFound
	}
	if err != nil {
		return nil, nil, err
	}
	s := l.Session()
	if isNil(s) {
		l.Release()
		return nil, nil, layover.ErrNotFound
	}
	return s, l, nil
}

// isNotFound reports whether a store's error says that it has no such session.
func isNotFound(err error, id string) bool {
	return err != nil && (errors.Is(err, layover.ErrNotFound) ||
		errors.Is(err, ErrNoSession) ||
		status.Code(err) == codes.NotFound ||
		err.Error() == "session with ID "+id+" not found") // Apache's store, and copies of it
}

// CloseSession removes the session from the store. Calls that still use it keep
// it until they have ended, if the store is a [LeaseStore].
func (m *StatefulServerSessionManager) CloseSession(session ServerSession) error {
	if h, ok := session.(*handle); ok {
		return h.Close()
	}
	if isNil(session) {
		return ErrNoSession
	}
	var err error
	if store, ok := m.store.(*ExpiringSessionStore); ok {
		err = store.removeSession(session)
	} else {
		err = m.closeCopy(session)
	}
	if err != nil {
		return m.failed(err, session.Token())
	}
	return nil
}

// Fingerprint returns what stands for a token in errors and logs: the store's
// where it has one.
func (m *StatefulServerSessionManager) Fingerprint(id string) layover.Fingerprint {
	if s, ok := m.store.(interface {
		Fingerprint(string) layover.Fingerprint
	}); ok {
		return s.Fingerprint(id)
	}
	return layover.FingerprintOf(m.key, id)
}

// Format prints nothing of the manager's keys and sessions.
func (m *StatefulServerSessionManager) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, "session.StatefulServerSessionManager")
}

func (m *StatefulServerSessionManager) redact(err error, id string) error {
	return &redacted{err, id, m.Fingerprint(id)}
}

// redacted is an error of a back end whose text may quote an ID.
type redacted struct {
	err  error
	id   string
	mark layover.Fingerprint
}

// Error returns the text with the fingerprint in place of the ID.
func (e *redacted) Error() string {
	return "session " + e.mark.String() + ": " + withoutToken(e.err.Error(), e.id, e.mark.String())
}

// Unwrap returns the error of the back end.
func (e *redacted) Unwrap() error { return e.err }

// GoString keeps the ID out of %#v.
func (e *redacted) GoString() string { return e.Error() }
