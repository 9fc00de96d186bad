// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
)

// acquire leases the session with this ID, if it is its owner's; nil: whoever's.
// That there is none is an error for which isNotFound is true.
func (m *interceptors) acquire(ctx context.Context, id string, by *owner, l *held) (err error) {
	if m.store != nil {
		return m.acquireResident(id, by, l)
	}
	l.session, l.other, err = m.own.lookup(ctx, id)
	if err != nil && !isNotFound(err, id) {
		if by != nil && m.isElses(id, by.name) { // what it fails at is not this caller's business
			return layover.ErrNotFound
		}
		return m.own.failed(err, id)
	}
	if err == nil && by != nil && (m.isElses(id, by.name) || !by.ownsLeased(l.session, l.other)) {
		by.found = true
		return errors.Join(layover.ErrNotFound, release(l.other))
	}
	if err == nil {
		if err := confirm(l.other); err != nil {
			return m.own.failed(errors.Join(err, release(l.other)), id)
		}
	}
	return err
}

// acquireResident is acquire from a store of this package's, without detours.
func (m *interceptors) acquireResident(id string, by *owner, l *held) (err error) {
	for {
		if l.lease, err = m.store.store.AcquireFrom(id, by.owns); err != nil {
			if errors.Is(err, layover.ErrNotFound) {
				return err
			}
			return m.own.failed(err, id)
		}
		if l.usable() {
			l.lease.Confirm()
			return nil
		}
		// It was closed outside of a call, or it would be gone. Once it is, the store
		// knows why.
		if _, err := m.store.endUnder(id, l.session); err != nil {
			return m.own.failed(err, id)
		}
	}
}

// usable reports whether the session that was leased is not closed. If it is, or
// that cannot be told, the lease is given back.
func (l *held) usable() (yes bool) {
	l.session = l.lease.Session().ServerSession
	if own, ok := l.session.(*statefulServerSession); ok && !own.Closed() {
		return true
	}
	defer func() { // also if it panics
		if !yes {
			l.lease.Release()
		}
	}()
	return !l.session.Closed()
}

// expire has a session end no later than the latest proof that it was called
// with; zero: never. Older proofs that are still good do not bring its end
// forward.
func (l *held) expire(at time.Time) {
	own, ok := l.session.(*statefulServerSession)
	if !ok {
		return
	}
	proof := endOf(at)
	for was := own.expires.Load(); was < proof; was = own.expires.Load() {
		if own.expires.CompareAndSwap(was, proof) {
			l.leased().SetExpires(at)
			if now := own.expires.Load(); now > proof { // it may have been told in between
				l.leased().SetExpires(timeOf(now))
			}
		}
	}
}

// endOf returns an end as a number, to be compared.
func endOf(at time.Time) int64 {
	if at.IsZero() || at.Unix() >= math.MaxInt64/int64(time.Second) { // in the year 2262
		return math.MaxInt64
	}
	return at.UnixNano()
}

func timeOf(end int64) time.Time {
	if end == math.MaxInt64 {
		return time.Time{}
	}
	return time.Unix(0, end)
}

// create makes a session for a call: for a principal if that is named, else one
// that its client finds by cookie.
func (m *interceptors) create(h *handle, by *named, holds bool) (*held, error) {
	return m.createInstead(h, by, birth{Origin: layover.Origin{Holds: holds}})
}

// createInstead is create of a session of which something is known already.
func (m *interceptors) createInstead(h *handle, by *named, b birth) (l *held, err error) {
	defer contain(&err)
	if m.config.requireTLS {
		if err := requireTLS(h.base); err != nil {
			return nil, err
		}
	}
	switch {
	case m.stateless != nil:
		return m.createStateless(h, by)
	case m.own == nil:
		return m.createForeign(h)
	}
	b.Source = sourceOf(h.base)
	l = &held{fresh: true}
	switch {
	case by != nil && by.id != "":
		if err := expired(by.who); err != nil { // since the call began
			return nil, err
		}
		m.belongs(&b.Origin, by.who)
		if l.session, l.other, err = m.own.create(h.base, b, newNamedFactory(by, m.own.limits)); err != nil {
			return nil, err
		}
		if err := confirm(l.other); err != nil {
			return nil, m.own.failed(errors.Join(err, m.remove(l), l.release()), by.id) // which may be in its text
		}
		m.tellings.forget(m.fingerprint(by.id))
		return l, nil
	case m.cookie == "":
		return nil, errAnonymous
	}
	var who Principal
	if by != nil {
		who = by.who
	} else if who, err = m.config.principal.ask(h.base); err != nil {
		return nil, err
	}
	return m.createByCookie(h.base, who, b)
}

// createByCookie makes a session that its client finds by cookie, and that
// belongs to a principal, if it has a name.
func (m *interceptors) createByCookie(ctx context.Context, who Principal, b birth) (_ *held, err error) {
	l, factory := &held{fresh: true, cookie: true}, m.own.factory
	if who.Name != "" {
		m.belongs(&b.Origin, who)
	}
	if m.mints {
		factory = &sessionFactory{func() string { return m.mint.new(who.Name) }}
	}
	factory = &ownedFactory{factory, who, m.own.limits}
	if l.session, l.other, err = m.own.create(ctx, b, factory); err != nil {
		return nil, err
	}
	return l, nil
}

// belongs has a new session belong to a principal.
func (m *interceptors) belongs(o *layover.Origin, who Principal) {
	o.Source, o.Expires = principalSource+who.Name, who.Expires
	o.Quota, o.EvictOwn = m.config.quota, m.config.whenOver == EvictOldest
}

// ownedFactory makes sessions that belong to a principal, with these limits.
type ownedFactory struct {
	SessionFactory
	who    Principal
	limits OptionLimits
}

// CreateSession returns a new, empty session.
func (f *ownedFactory) CreateSession() (ServerSession, error) {
	s, err := f.SessionFactory.CreateSession()
	if own, ok := s.(*statefulServerSession); ok && own != nil {
		if _, bound := own.belongsTo(); !bound { // else it was made before, for somebody else
			own.limit(f.limits)
			own.belongTo(f.who)
		}
	}
	return s, err
}

// share makes a session for a call. If it is a principal's, and another call of
// that one has been faster, they share it.
func (m *interceptors) share(h *handle, by *named, holds bool) (l *held, err error) {
	defer contain(&err)
	if by == nil {
		return m.create(h, nil, holds)
	}
	for range attempts {
		l = new(held)
		if err = m.acquire(h.base, by.id, nil, l); err == nil {
			l.expire(by.who.Expires)
			return l, nil
		}
		if !isNotFound(err, by.id) {
			return nil, err
		}
		// One may have come and gone since this call began, which had nothing to be
		// told of then. Its successor would hide that from everybody.
		if d, dead := m.deadNamed(by, err); dead {
			if err := m.judge(h.base, d, false); err != nil {
				return nil, err
			}
		}
		if l, err = m.create(h, by, holds); !overtaken(err) {
			return l, err
		}
	}
	return nil, errTaken
}

// overtaken reports whether no session could be made under a principal's ID since
// another call has made one, or has ended this one the moment it was stored.
func overtaken(err error) bool { return errors.Is(err, errTaken) || errors.Is(err, errClosed) }

// namedFactory makes the session of a principal under the ID that is its own.
type namedFactory struct{ ownedFactory }

func newNamedFactory(by *named, limits OptionLimits) *namedFactory {
	return &namedFactory{ownedFactory{&sessionFactory{func() string { return by.id }}, by.who, limits}}
}

// errAnonymous says that a session was needed by a call that names none.
var errAnonymous = &callError{code: codes.Unauthenticated, reason: "SESSION_ANONYMOUS",
	text: "a session needs a principal here, and the call has none"}

func (m *interceptors) createForeign(h *handle) (*held, error) {
	ctx := context.WithValue(h.base, callKey{}, h.rare.Load().rec)
	s, err := m.manager.CreateSession(ctx)
	if err == nil && isNil(s) {
		err = errors.New("session: the manager created a session that is nil")
	}
	if err != nil {
		return nil, err
	}
	if _, err := CreateCookieForSession(s); err != nil {
		return nil, errors.Join(err, s.Close(), m.manager.CloseSession(s))
	}
	return &held{session: s, other: (*unleased)(nil), fresh: true}, nil
}

// remove ends a session for every later call.
func (m *interceptors) remove(l *held) error {
	_, err := m.end(l)
	return err
}

// end is remove. It reports whether the session was not over before, as far as
// the store can tell.
func (m *interceptors) end(l *held) (ended bool, err error) {
	defer contain(&err)
	s := l.session
	if b, ok := l.other.(*bearer); ok {
		return b.m.end(b.ctx, b.session, cmp.Or(b.ends, whyClosed))
	}
	if m.store != nil {
		ended, err = m.store.end(s)
		if own, ok := s.(*statefulServerSession); ok {
			own.close() // not before: a call that found it closed would end it in our place
		}
		return ended, err
	}
	if c, copies := l.other.(*copied); copies { // and not one that has its token by now
		if err = c.end(); err == nil && !s.Closed() { // nobody else tears it down
			err = s.Close()
		}
		return true, err
	}
	if !s.Closed() {
		err = s.Close()
	}
	return true, errors.Join(err, m.manager.CloseSession(s))
}

// tokenOf returns the token that the session has by now, or if that travels in it whole,
// what stands for it.
func (m *interceptors) tokenOf(l *held) string {
	if m.store != nil {
		return m.store.tokenOf(l.session)
	}
	switch other := l.other.(type) {
	case *copied:
		return other.token()
	case *bearer:
		return other.session.name()
	}
	return l.session.Token()
}

// fingerprint returns what stands for a token in errors and logs.
func (m *interceptors) fingerprint(token string) layover.Fingerprint {
	if m.own != nil {
		return m.own.Fingerprint(token)
	}
	return layover.FingerprintOf(m.mint.key, token)
}
