// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/google/uuid"

	"github.com/c8e4ff29/layover"
)

// statefulServerSession is a session that stays on the server; its token is an
// ID.
type statefulServerSession struct {
	optionSet                                      // its mutex is also that of id, bound and owner
	id        string                               // renewed while filing is held
	filing    sync.Mutex                           // held while a store takes it in, while its size changes, and while it is renewed
	told      atomic.Bool                          // a client was told that it is closed
	bound     bool                                 // it was made here, so that owner says whose it is
	owner     string                               // the principal whose it is; empty: nobody's
	expires   atomic.Int64                         // of a principal's: when its last proof ends, in nanoseconds
	home      atomic.Pointer[ExpiringSessionStore] // where it lives, if it does

	belongings atomic.Pointer[belongings] // nil: none
}

// NewSessionFactory returns a factory of sessions in memory, safe for concurrent
// use. generateID must return IDs that nobody can guess, such as 128 random bits,
// that never collide, and that are valid cookie values; nil: random UUIDs. The
// managers of this package refuse IDs that are empty or cannot travel in a
// cookie, and ask again, a few times, for one that is taken.
func NewSessionFactory(generateID func() string) SessionFactory {
	return &sessionFactory{generateID}
}

type sessionFactory struct{ generateID func() string }

// CreateSession returns a new, empty session.
func (f *sessionFactory) CreateSession() (ServerSession, error) {
	generate := f.generateID
	if generate == nil {
		generate = uuid.NewString
	}
	id := generate()
	if id == "" {
		return nil, errors.New("session: the ID generator returned an empty ID")
	}
	return &statefulServerSession{id: id}, nil
}

// Token returns the ID.
func (s *statefulServerSession) Token() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.id
}

// limit bounds what is set in the session. One that nobody has limited, and that is
// in no store, is being made, perhaps from what a store has kept elsewhere.
func (s *statefulServerSession) limit(l OptionLimits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limits, s.limited = l, true
}

// belongTo has the session be a principal's.
func (s *statefulServerSession) belongTo(who Principal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound, s.owner = true, who.Name
	s.expires.Store(endOf(who.Expires))
}

// belongsTo returns whose it is, empty: nobody's, if that is known.
func (s *statefulServerSession) belongsTo() (name string, known bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.owner, s.bound
}

// SetSessionOption sets an option to a copy of value. A value without content,
// or nil, erases it. After the session's end it does nothing, nor beyond the
// limits, see [WithOptionLimits].
func (s *statefulServerSession) SetSessionOption(name string, value *flight.SessionOptionValue) {
	if value.GetOptionValue() == nil {
		s.EraseSessionOption(name)
		return
	}
	_, _ = s.keep(name, value, nil, nil)
}

// EraseSessionOption removes an option. It is idempotent.
func (s *statefulServerSession) EraseSessionOption(name string) { s.erase(name, nil) }

// erase removes an option. The lease is that of a call, nil: there is none.
func (s *statefulServerSession) erase(name string, l *layover.Lease[resident]) {
	s.filing.Lock()
	defer s.filing.Unlock()
	s.optionSet.EraseSessionOption(name)
	if home := s.home.Load(); home != nil {
		_ = home.resize(s, s.bytes(), l) // to take less is always allowed
	}
}

// keep sets an option to a copy of value, which is not nil. The error says why it
// was not set: it is beyond the limits, or the store has no room for it. It reports
// whether the store knows that the session holds something: if not, the session
// has ended before, and nobody will be told of what it held. The limits are those
// of the call's manager, as the session may come from elsewhere; nil: its own. The
// lease is the call's, nil: there is none.
func (s *statefulServerSession) keep(name string, value *flight.SessionOptionValue, limits *OptionLimits, l *layover.Lease[resident]) (known bool, _ error) {
	s.filing.Lock()
	defer s.filing.Unlock()
	home := s.home.Load()
	then, err := s.fits(name, value, limits, home != nil)
	if err != nil {
		return false, err
	}
	if home != nil {
		if err := home.resize(s, then.bytes, l); err != nil {
			return false, err
		}
	}
	if !s.set(name, value) {
		return s.holds(), nil
	}
	if home == nil {
		return true, nil
	}
	isLive := func() bool { return home.peek(s.id) == ServerSession(s) }
	// It may end at any moment: if it is live afterwards, it was when it was told.
	return isLive() && home.store.Hold(s.id) == nil && isLive(), nil
}

// Close ends the session: no later call finds it. Calls that use it now keep
// its options until they have ended.
func (s *statefulServerSession) Close() error {
	s.close()
	if home := s.home.Load(); home != nil {
		return home.removeSession(s)
	}
	s.tearDown()
	return nil
}

// Format prints a fingerprint under every verb: the ID is a secret.
func (s *statefulServerSession) Format(f fmt.State, _ rune) {
	if home := s.home.Load(); home != nil {
		fmt.Fprintf(f, "session %s", home.Fingerprint(s.Token()))
		return
	}
	fmt.Fprint(f, "session in no store")
}
