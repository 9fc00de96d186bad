// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/c8e4ff29/layover/internal/token"
)

// identity is what a sealed session has beside its options. Whoever reads or writes it
// holds the session's writes.
type identity struct {
	said    *content      // what its token says
	branch  []uint64      // hashes of the tokens that it had before, the latest ones
	id      token.ID      // it never changes: what it is renewed to is another session
	owner   string        // the principal whose it is; empty: nobody's
	expires time.Time     // when the latest proof of its principal ends; zero: never
	told    atomic.Bool   // a client was told that it is closed, under Apache's shape of middleware
	over    bool          // it is revoked, or was renewed: no client gets a token of it any more
	ending  int           // calls that are about to have it so
	settled chan struct{} // closed when none is any more

	next   *StatelessServerSession // what it was renewed to
	future string                  // the principal whose it is about to be, for whose name its cookie must have room

	users int // calls that have it; the mutex of its manager's inUse guards it
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
	s.changes, s.measured, s.expires = c.Change, false, c.Expires
	s.say(c)
}

// catchUp reports whether a call that comes with a token joins those of this process that
// use its session: if the token is one that the session was read from, or has written,
// or says the same, or more, as its client has changed something by another replica. A
// token that says anything else is of another branch: what its client goes by is what the
// token says. closed says that the session is.
// One that is too old by itself says nothing new.
func (s *StatelessServerSession) catchUp(c *content, old bool) (joins, closed bool) {
	s.writes.Lock()
	defer s.writes.Unlock()
	switch expires, settled := s.expires, s.changes == s.said.Change && len(s.undecided) == 0; {
	case s.Closed() || s.over:
		return false, true
	case s.wrote(c.text):
	case !old && settled && c.Change > s.changes:
		s.take(c)
		s.prove(expires)
	case settled && c.Change == s.changes && s.equals(c.values):
		if s.note(c.text); c.Used.After(s.said.Used) {
			s.said = c
		}
	default:
		return false, false
	}
	s.prove(c.Expires)
	return true, false
}

// longBranch is how many tokens of a session a process remembers while calls use it.
const longBranch = 256

// wrote reports whether the session was read from this token, or has written it. The
// caller holds writes.
func (s *StatelessServerSession) wrote(text string) bool {
	return text == s.said.text || len(s.branch) > 0 && slices.Contains(s.branch, hashOf(text))
}

var textSeed = maphash.MakeSeed()

func hashOf(text string) uint64 { return maphash.String(textSeed, text) }

// say notes what the session's token says from now on.
func (s *StatelessServerSession) say(c *content) {
	if s.said != nil && s.said.text != "" {
		s.note(s.said.text)
	}
	s.said = c
}

// note remembers a token of the session.
func (s *StatelessServerSession) note(text string) {
	if len(s.branch) == longBranch {
		s.branch = slices.Delete(s.branch, 0, 1)
	}
	s.branch = append(s.branch, hashOf(text))
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
	if s.Closed() || s.over || s.ending > 0 || s.said.text != "" && (!s.isDue(now) || !s.manager.keys.Has(s.said.key)) {
		return s.said.text, nil // what was sealed under a key that was removed is not sealed under another one
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
	s.say(said)
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

// begin notes that a call is about to end or renew the session. It is followed by
// finish. The caller holds writes.
func (s *StatelessServerSession) begin() {
	if s.ending++; s.ending == 1 {
		s.settled = make(chan struct{})
	}
}

func (s *StatelessServerSession) finish() {
	if s.ending--; s.ending == 0 {
		close(s.settled)
	}
}

// copied returns a copy of the session that shares nothing with it. What is not decided
// about is not in it, unless it is for the call that changes it. The caller holds writes.
func (s *StatelessServerSession) copied(changes bool) *StatelessServerSession {
	is := &StatelessServerSession{manager: s.manager, changes: s.changes}
	is.id, is.owner, is.expires, is.said = s.id, s.owner, s.expires, s.said
	s.mu.Lock()
	is.values, is.held = maps.Clone(s.values), s.held
	s.mu.Unlock()
	if changes {
		is.undecided = maps.Clone(s.undecided)
	} else {
		is.values = s.decided(is.values)
	}
	return is
}

// renewed returns the session that this one is from now on, for a new owner. Calls that
// have this one do not learn of that: somebody may have planted its token. The caller
// holds writes.
func (s *StatelessServerSession) renewed(owner string, expires time.Time, changes bool) *StatelessServerSession {
	said := *s.said
	said.text = "" // it is of the old ID
	is := s.copied(changes)
	is.id, is.owner, is.expires, is.said = token.NewID(), owner, expires, &said
	s.next, s.over = is, true
	return is
}

// apart returns a copy that shares nothing with the calls that use the session.
func (s *StatelessServerSession) apart() *StatelessServerSession {
	if !s.manager.seals() {
		return s
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	return s.copied(false)
}

// isShared reports whether other calls of this process use the session.
func (s *StatelessServerSession) isShared() bool {
	return s.manager.seals() && s.manager.inUse.shared(s)
}

// nowIn returns what the session was renewed to by a call, whose session or handle is
// given; else this one.
func (s *StatelessServerSession) nowIn(call ServerSession) *StatelessServerSession {
	now, _ := unwrap(call).(*StatelessServerSession)
	for is := s; is != nil && now != nil; {
		if is == now {
			return now
		}
		is.writes.Lock()
		next := is.next
		is.writes.Unlock()
		is = next
	}
	return s
}

// isLost reports whether the session has ended, and held nothing by its last token: nobody
// will be told of what is set in it now.
func (s *StatelessServerSession) isLost() bool {
	s.writes.Lock()
	defer s.writes.Unlock()
	return s.manager.seals() && !s.said.Held && (s.Closed() || s.manager.hasRevoked(s))
}

// wasRenewed reports whether another call has renewed the session: what is set in this
// one is lost.
func (s *StatelessServerSession) wasRenewed() bool {
	s.writes.Lock()
	defer s.writes.Unlock()
	return s.next != nil
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
