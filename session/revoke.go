// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"iter"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover/internal/revocation"
	"github.com/c8e4ff29/layover/internal/token"
)

// Revocation says that a stateless session was closed while its tokens could still live.
// It is made to be sent to other replicas, as JSON or otherwise.
type Revocation struct {
	// Session names it in its tokens. It opens nothing. Empty: all sessions of the
	// principal that had begun by Issued.
	Session string `json:"session,omitempty"`
	// Principal is whose it was; empty: nobody's.
	Principal string `json:"principal,omitempty"`
	// Issued is when the session began.
	Issued time.Time `json:"issued"`
	// Until is when the last of its tokens ends by itself.
	Until time.Time `json:"until"`
	// Reason is why: "closed", "renamed" if [Renew] gave it another ID, or "replaced" if
	// [Begin] made another one.
	Reason string `json:"reason"`
}

// errNoPlace says that a session cannot be closed.
var errNoPlace = &callError{code: codes.ResourceExhausted, reason: "SESSION_NOT_CLOSED", retry: retryFull,
	text: "the session's tokens cannot be revoked: too many have been of late"}

// errNotShared says that other replicas did not learn that a session is closed.
var errNotShared = errors.New("session: sharing a revocation failed")

// revoke has the tokens of a session be worth nothing, here and where share tells it. It
// reports whether they were worth something before. If it fails they still are. Others
// are told first: what was closed here and then could not be told would have to be opened
// again, after clients have been told that it is closed.
func (m *StatelessServerSessionManager) revoke(ctx context.Context, e revocation.Entry) (first bool, err error) {
	if m.share != nil {
		if m.revoked.Admit(e.Principal) != nil {
			return false, errNoPlace
		}
		e.Until = m.lastOf(e.Issued, time.Now())
		if err := m.tell(ctx, e); err != nil {
			return false, &callError{code: codes.Unavailable, reason: "SESSION_NOT_CLOSED", retry: retryFull,
				text: "the session's tokens cannot be revoked: the server's other replicas could not be told", cause: fmt.Errorf("%w: %w", errNotShared, err)}
		}
	}
	e.Until = m.lastOf(e.Issued, time.Now()) // that may have taken a while
	if first, err = m.add(e); err != nil {
		return false, errNoPlace
	}
	return first, nil
}

// add notes that a session is closed, and has the calls that use it know. The list
// forgets it when its tokens have ended by themselves; a call may go on for longer.
func (m *StatelessServerSessionManager) add(e revocation.Entry) (first bool, err error) {
	collapsed := m.revoked.Stats().Collapsed
	if first, err = m.revoked.Add(e); err != nil {
		return false, err
	}
	everybody := e.ID == (revocation.ID{}) || m.revoked.Stats().Collapsed != collapsed
	for _, s := range m.inUse.named(token.ID(e.ID), everybody) {
		m.isOver(s)
	}
	return first, nil
}

// hasRevoked reports whether a session was closed, whose writes the caller holds.
func (m *StatelessServerSessionManager) hasRevoked(s *StatelessServerSession) bool {
	if !m.seals() {
		return false
	}
	if _, yes := m.revoked.Revoked(revocation.ID(s.id), s.owner, s.said.Issued); yes {
		s.over = true
	}
	return s.over
}

// isOver reports whether a session was closed.
func (m *StatelessServerSessionManager) isOver(session ServerSession) bool {
	s, ok := session.(*StatelessServerSession)
	if !ok {
		return false
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	return m.hasRevoked(s)
}

// tell runs the owner's function.
func (m *StatelessServerSessionManager) tell(ctx context.Context, e revocation.Entry) (err error) {
	defer contain(&err)
	return harmless(m.share(ctx, revocationOf(e)))
}

// lastOf returns when the last token of a session ends that is closed now. Clocks may
// differ by the skew when it was sealed, and again when it is looked at.
func (m *StatelessServerSessionManager) lastOf(issued, now time.Time) time.Time {
	var last time.Time
	if m.idle > 0 {
		last = now.Add(m.idle + m.refresh)
	}
	if m.lifetime > 0 {
		if old := issued.Add(m.lifetime); last.IsZero() || old.Before(last) {
			last = old
		}
	}
	return last.Add(2*m.skew + time.Millisecond) // tokens count milliseconds
}

// Revoke has the tokens of a session be worth nothing that another replica has closed, as
// [WithRevocation] tells, or that was closed before this process began, see
// [StatelessServerSessionManager.Revocations]. The error says that r makes no sense, or
// that there is no place for it.
func (m *StatelessServerSessionManager) Revoke(r Revocation) error {
	if !m.seals() {
		return errors.New("session: Revoke: sessions without keys cannot be revoked")
	}
	switch {
	case r.Until.IsZero():
		return errors.New("session: Revoke: it does not say until when")
	case r.Session == "" && (r.Principal == "" || r.Issued.IsZero()):
		return errors.New("session: Revoke: it names neither a session, nor a principal and a time")
	}
	e := revocation.Entry{Principal: r.Principal, Issued: r.Issued, Until: r.Until, Why: r.Reason}
	e.Why = reasonOf(e.Why)
	if r.Session != "" {
		id, err := base64.RawURLEncoding.Strict().DecodeString(r.Session)
		if err != nil || len(id) != len(e.ID) {
			return errors.New("session: Revoke: this names no session")
		}
		copy(e.ID[:], id)
	}
	if last := m.lastOf(e.Issued, time.Now()); e.Until.Before(last) && e.Until.After(time.Now()) {
		e.Until = last // a call here may have sealed it anew since
	}
	if _, err := m.add(e); err != nil {
		return fmt.Errorf("session: Revoke: %w", err)
	}
	return nil
}

// Revocations yields what the manager remembers of closed sessions: to be kept over a
// restart, after which tokens of sessions that were closed before would be good again,
// or for a replica that joins the others.
func (m *StatelessServerSessionManager) Revocations() iter.Seq[Revocation] {
	return func(yield func(Revocation) bool) {
		if !m.seals() {
			return
		}
		for e := range m.revoked.All() {
			if !yield(revocationOf(e)) {
				return
			}
		}
	}
}

// reasonOf returns why a session was closed, of which the list says something: of those
// that were put together it is not known.
func reasonOf(why string) string {
	switch why {
	case whyRenamed, whyReplaced:
		return why
	}
	return whyClosed
}

func revocationOf(e revocation.Entry) Revocation {
	r := Revocation{Principal: e.Principal, Issued: e.Issued, Until: e.Until, Reason: reasonOf(e.Why)}
	if e.ID != (revocation.ID{}) {
		r.Session = base64.RawURLEncoding.EncodeToString(e.ID[:])
	}
	return r
}
