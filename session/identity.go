// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/c8e4ff29/layover/internal/token"
)

// identity is what a sealed session has beside its options. Whoever reads or writes it
// holds the session's writes.
type identity struct {
	id      token.ID
	issued  time.Time
	used    time.Time   // when it was last used, as far as text says
	expires time.Time   // when the latest proof of its principal ends; zero: never
	owner   string      // the principal whose it is; empty: nobody's
	told    atomic.Bool // a client was told that it is closed, under Apache's shape of middleware
	ending  int         // calls that are about to end it: no client may get a token of it any more

	// The token that says all this, and what it was made of. Empty: there is none yet.
	text    string
	written uint64 // changes that are in it
	ends    time.Time
	key     token.KeyID

	filed token.ID // under which it is found by other calls; the mutex of its manager's inUse guards it
	users int      // of these, as well
}

// content is what a token says. It does not change: calls share it.
type content struct {
	token.Claims // but for the options
	key          token.KeyID
	text         string
	values       map[string]*flight.SessionOptionValue
	weight       weight
	encoded      int
}

// session returns a session of this content.
func (c *content) session(m *StatelessServerSessionManager) *StatelessServerSession {
	s := &StatelessServerSession{manager: m}
	s.id, s.issued, s.owner = c.ID, c.Issued, c.Principal
	s.take(c)
	return s
}

// take has the session say what a token does. Nobody else has it, or the caller holds
// writes.
func (s *StatelessServerSession) take(c *content) {
	s.mu.Lock()
	s.values, s.shared, s.weight, s.most = c.values, true, c.weight, len(c.values)
	s.held = s.held || c.Held || len(c.values) > 0
	s.mu.Unlock()
	s.changes, s.encoded = c.Change, c.encoded
	s.used, s.expires = c.Used, c.Expires
	s.text, s.written, s.ends, s.key = c.text, c.Change, c.Expires, c.key
}

// catchUp has a session that calls of this process use say what a newer token does, which
// its client has from another one. What calls of this process have changed stays if the
// token does not know more.
func (s *StatelessServerSession) catchUp(c *content) {
	s.writes.Lock()
	defer s.writes.Unlock()
	if c.ID != s.id {
		return // it was renewed
	}
	if c.Change > s.changes {
		expires := s.expires
		s.take(c)
		s.prove(expires)
		return
	}
	if c.Change == s.written && c.Used.After(s.used) {
		s.text, s.used, s.ends, s.key = c.text, c.Used, c.Expires, c.key
	}
	s.prove(c.Expires)
}

// prove has the session end no earlier than a proof of its principal; zero: never. The
// caller holds writes.
func (s *StatelessServerSession) prove(expires time.Time) {
	if expires.IsZero() || !s.expires.IsZero() && expires.After(s.expires) {
		s.expires = expires
	}
}

// currentSealed returns a token that says what the session is by now.
func (s *StatelessServerSession) currentSealed(now time.Time) (string, error) {
	if s.Closed() || s.ending > 0 || s.text != "" && !s.isDue(now) {
		return s.text, nil
	}
	options, err := s.marshal()
	if err != nil {
		return "", err
	}
	m := s.manager
	if now.After(s.used) { // another replica's clock may be ahead
		s.used = now
	}
	s.text, s.key = m.sealer.Seal(&token.Claims{
		ID: s.id, Issued: s.issued, Used: s.used, Expires: s.expires, Principal: s.owner,
		Held: s.holds(), Change: s.changes, Options: options,
	})
	s.written, s.ends = s.changes, s.expires
	return s.text, nil
}

// isDue reports whether the token does not say what it should.
func (s *StatelessServerSession) isDue(now time.Time) bool {
	m := s.manager
	switch {
	case s.changes != s.written, !m.keys.IsCurrent(s.key):
		return true
	case m.idle > 0 && now.Sub(s.used) >= m.refresh:
		return true
	case s.expires.IsZero():
		return !s.ends.IsZero()
	default:
		return s.expires.Sub(s.ends) >= m.refresh
	}
}

// ownerName returns whose it is; empty: nobody's.
func (s *StatelessServerSession) ownerName() string {
	s.writes.Lock()
	defer s.writes.Unlock()
	return s.owner
}

// name returns what stands for the session where a token would be too secret, and
// changes too often.
func (s *StatelessServerSession) name() string {
	s.writes.Lock()
	defer s.writes.Unlock()
	return s.id.String()
}
