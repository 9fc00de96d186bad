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
	said    *content    // what its token says
	id      token.ID    // it gets another one if it is renewed
	owner   string      // the principal whose it is, likewise; empty: nobody's
	expires time.Time   // when the latest proof of its principal ends; zero: never
	told    atomic.Bool // a client was told that it is closed, under Apache's shape of middleware
	ending  int         // calls that are about to end it: no client may get a token of it any more

	filed token.ID // under which it is found by other calls; the mutex of its manager's inUse guards it
	users int      // of these, as well
}

// content is what a token says. It does not change: calls share it.
type content struct {
	token.Claims // but for the options
	key          token.KeyID
	text         string // the token; empty: there is none yet
	values       map[string]*flight.SessionOptionValue
}

// session returns a session of this content.
func (c *content) session(m *StatelessServerSessionManager) *StatelessServerSession {
	s := &StatelessServerSession{manager: m}
	s.id, s.owner = c.ID, c.Principal
	s.take(c)
	return s
}

// take has the session say what a token does. Nobody else has it, or the caller holds
// writes.
func (s *StatelessServerSession) take(c *content) {
	s.mu.Lock()
	s.values, s.shared = c.values, true
	s.held = s.held || c.Held || len(c.values) > 0
	s.mu.Unlock()
	s.changes, s.measured, s.expires, s.said = c.Change, false, c.Expires, c
}

// catchUp has a session that calls of this process use say what a newer token does, which
// its client has from another one. What calls of this process have changed stays if the
// token does not know more.
func (s *StatelessServerSession) catchUp(c *content) {
	s.writes.Lock()
	defer s.writes.Unlock()
	switch expires := s.expires; {
	case c.ID != s.id: // it was renewed
		return
	case c.Change > s.changes:
		s.take(c)
		s.prove(expires)
	case c.Change == s.said.Change && c.Used.After(s.said.Used):
		s.said = c
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
	if s.Closed() || s.ending > 0 || s.said.text != "" && !s.isDue(now) {
		return s.said.text, nil
	}
	options, err := s.marshal()
	if err != nil {
		return "", err
	}
	claims := token.Claims{ID: s.id, Issued: s.said.Issued, Used: s.said.Used, Expires: s.expires, Principal: s.owner,
		Held: s.holds(), Change: s.changes, Options: options}
	if now.After(claims.Used) { // else another replica's clock is ahead
		claims.Used = now
	}
	said := &content{Claims: claims}
	said.text, said.key = s.manager.sealer.Seal(&claims)
	said.Options = nil
	s.said = said
	return said.text, nil
}

// isDue reports whether the token does not say what it should.
func (s *StatelessServerSession) isDue(now time.Time) bool {
	m, said := s.manager, s.said
	switch {
	case s.changes != said.Change, !m.keys.IsCurrent(said.key):
		return true
	case m.idle > 0 && now.Sub(said.Used) >= m.refresh:
		return true
	case s.expires.IsZero():
		return !said.Expires.IsZero()
	default:
		return s.expires.Sub(said.Expires) >= m.refresh
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
