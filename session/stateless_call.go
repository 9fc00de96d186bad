// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"net/http"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover/internal/revocation"
	"github.com/c8e4ff29/layover/internal/token"
)

// openStateless finds the first session that a cookie holds.
func (h *handle) openStateless(ctx context.Context, greets bool) error {
	lines := metadata.ValueFromIncomingContext(ctx, "cookie")
	if lines == nil {
		return nil
	}
	var c candidates
	c.scan(lines, h.m.cookie)
	if c.n == 0 {
		return nil
	}
	if h.m.config.requireTLS {
		if err := requireTLS(ctx); err != nil {
			return err
		}
	}
	var who Principal
	if h.m.stateless.seals() {
		var err error
		if who, err = h.caller(); err != nil {
			return err
		}
	}
	b := h.m.stateless.choose(ctx, c.values(), who, time.Now(), func(v *verdict) { h.bringVerdict(ctx, v, who.Name, greets) })
	if b != nil {
		h.first.session, h.first.other, h.first.cookie = b.session, b, true
		h.live.Store(&h.first)
	}
	return nil
}

// bringVerdict notes a token that names no live session, if there is anything to tell of
// it.
func (h *handle) bringVerdict(ctx context.Context, v *verdict, caller string, greets bool) {
	m := h.m
	if v.found && !greets { // clients that log in again send their cookies with the handshake
		m.alarm(ctx, SecurityEvent{Kind: ForeignToken, Session: m.fingerprint(v.name), Owner: v.owner, Caller: caller})
	}
	d := deadToken{cookie: true, why: v.why, held: v.held, more: v.more}
	if v.found && m.tellings.deleted(m.tellingOf(v.name, caller), time.Now()) {
		d.why, d.held = whyRenamed, true // to this caller, a moment ago: its cookie is on its way
	}
	if v.id != (token.ID{}) {
		d.lingers = m.stateless.inUse.get(v.id) != nil
	}
	if d.why != whyGarbage || m.config.policy == StrictDead {
		d.mark, d.key = m.fingerprint(v.name), m.tellingOf(v.name, caller)
		h.bring(d)
	}
}

// createStateless makes a session for a call. by says whose it is, nil: the caller's.
func (m *interceptors) createStateless(h *handle, by *named) (*held, error) {
	var who Principal
	var err error
	switch {
	case !m.stateless.seals():
	case by != nil:
		who = by.who
	default:
		who, err = h.caller()
	}
	if err != nil {
		return nil, err
	}
	b, err := m.stateless.create(h.base, who)
	if err != nil {
		return nil, err
	}
	return &held{session: b.session, other: b, fresh: true, cookie: true}, nil
}

// announceStateless sends the client the token of its session, if it has not got it: in
// the header, or in the trailer if that has left. One that was closed or renewed is not
// announced, as that cookie could take the place of another one. Whether one that another
// call is about to close is over is waited for, no longer than the client does or
// UpdateTimeout, if there is something to be lost.
func (h *handle) announceStateless(b *bearer) error {
	var patience <-chan time.Time
	for {
		sent, wait, err := h.speak(b)
		if sent {
			h.m.warnOfPlaintext(h.base) // foreign code
		}
		if wait == nil {
			return err
		}
		if patience == nil {
			patience = time.After(UpdateTimeout)
		}
		select {
		case <-wait:
		case <-h.base.Done():
			return nil
		case <-patience:
			return errNotKept
		}
	}
}

// speak is announceStateless without waiting and the warning. It reports whether it has
// sent a token, and returns what to wait for before it can.
func (h *handle) speak(b *bearer) (sent bool, wait chan struct{}, _ error) {
	s := b.session
	s.writes.Lock()
	defer s.writes.Unlock()
	if s.Closed() || b.m.hasRevoked(s) || !b.mayDiffer() {
		return false, nil, nil
	}
	if s.ending > 0 {
		if s.changes == s.said.Change && b.has(s.said.text) {
			return false, nil, nil
		}
		return false, s.settled, nil
	}
	text, err := s.current(time.Now())
	if err != nil || b.has(text) || b.m.seals() && !b.m.keys.Has(s.said.key) {
		return false, nil, err
	}
	if len(b.m.cookie)+len("=")+len(text) > b.m.maxCookie { // with what an option had that is being changed; it is sent later
		return false, nil, nil
	}
	b.known, b.knows, b.spoke = text, true, true
	h.sendCookie((&http.Cookie{Name: b.m.cookie, Value: text}).String())
	return true, nil, nil
}

// mayDiffer reports whether the client may have another token than that of the session
// by now. The caller holds the session's writes.
func (b *bearer) mayDiffer() bool {
	return b.m.seals() || b.session.changes != b.changes || !b.knows
}

// has reports whether the client has this token. Apache encodes options in random order.
func (b *bearer) has(text string) bool {
	if !b.knows || b.known == text || b.m.seals() || b.spoke {
		return b.knows && b.known == text
	}
	was, err := decodeStatelessToken(b.known)
	return err == nil && was.Token() == text
}

// clientHas is has for who does not hold the session's writes.
func (b *bearer) clientHas(text string) bool {
	b.session.writes.Lock()
	defer b.session.writes.Unlock()
	return b.has(text)
}

// deletesStateless returns whether the client has a cookie that it is to drop.
func (h *handle) deletesStateless(b *bearer) bool {
	if h.m.config.policy == RenewDead && b.m.seals() {
		return false
	}
	b.session.writes.Lock()
	defer b.session.writes.Unlock()
	return b.knows
}

// renewStateless gives a sealed session a new ID, and revokes the old one.
func (h *handle) renewStateless(ctx context.Context, b *bearer, who []Principal) error {
	if !b.m.seals() {
		return errUnsupported("it has no ID, as it is not sealed")
	}
	owner, err := h.keeper()
	if err != nil {
		return err
	}
	r := statelessRenewal{h: h, b: b, caller: owner, next: Principal{Name: owner}, moved: names(who), within: isChanging(ctx, b.session)}
	if r.moved {
		if r.next = who[0]; expired(r.next) != nil {
			return expired(r.next)
		}
	}
	h.m.warnOfPlaintext(h.base)
	return r.run()
}

// statelessRenewal is what becomes of a sealed session that is renewed.
type statelessRenewal struct {
	h      *handle
	b      *bearer
	caller string    // whose the session must still be
	next   Principal // whose it will be
	moved  bool      // it gets another principal
	said   bool      // there is a token of the old ID
	within bool      // it is an OnChange that renews it, of an option that is changed in it
}

func (r *statelessRenewal) run() error {
	e, err := r.begin()
	if err != nil {
		return err
	}
	defer r.finish()
	if err := r.h.header("cache-control", `no-cache="set-cookie"`); err != nil { // as OWASP advises
		return err
	}
	undo, first := r.h.retire(r.h.live.Load(), token.ID(e.ID).String(), r.next.Name)
	if !first {
		return errOver
	}
	if r.said {
		if _, err := r.b.m.revoke(r.h.base, e); err != nil && !r.mayStay(err) {
			undo()
			return err
		}
	}
	if err := r.move(); err != nil {
		undo()
		return err
	}
	return nil
}

// begin returns what is to be revoked, or why the session cannot be renewed.
func (r *statelessRenewal) begin() (e revocation.Entry, _ error) {
	s, m := r.b.session, r.b.m
	s.writes.Lock()
	defer s.writes.Unlock()
	if s.Closed() || m.hasRevoked(s) || s.owner != r.caller || s.said.text != "" && !m.keys.Has(s.said.key) {
		return e, errOver
	}
	s.measure()
	if err := m.admitsOwner(r.next.Name, s.encoded); err != nil {
		return e, err
	}
	s.begin()
	r.said = s.said.text != ""
	if s.future = ""; r.moved { // until then nothing is set that would not fit with it
		s.future = r.next.Name
	}
	return revocation.Entry{ID: revocation.ID(s.id), Principal: s.owner, Issued: s.said.Issued, Why: whyRenamed}, nil
}

func (r *statelessRenewal) finish() {
	s := r.b.session
	s.writes.Lock()
	defer s.writes.Unlock()
	s.future = ""
	s.finish()
}

// mayStay reports whether the old ID may stay good, as it cannot be revoked: that of an
// anonymous session which becomes a principal's. With it goes what was in the session
// before, as with any old token, and nothing of what comes after; a flood of anonymous
// callers must not keep others from logging in.
func (r *statelessRenewal) mayStay(err error) bool {
	return r.moved && r.caller == "" && errors.Is(err, errNoPlace)
}

// move gives the call the session under a new ID, of which its client learns when the
// header leaves: that of a stream waits for the renewal. No other call gets it: somebody
// may have planted the token that these have come with.
func (r *statelessRenewal) move() error {
	s, m, h := r.b.session, r.b.m, r.h
	s.writes.Lock()
	if s.Closed() || s.next != nil { // another call has closed or renewed it
		s.writes.Unlock()
		return errOver
	}
	expires := s.expires
	if r.moved {
		expires = r.next.Expires
	}
	is := s.renewed(r.next.Name, expires, r.within)
	for _, d := range []time.Duration{time.Millisecond, m.skew} { // it began before those of its owner that were put together
		if _, yes := m.revoked.Revoked(revocation.ID(is.id), is.owner, is.said.Issued); yes {
			is.said.Issued = time.Now().Add(d)
		}
	}
	b := &bearer{m: m, ctx: r.b.ctx, session: is, known: r.b.known, knows: r.b.knows}
	m.inUse.replace(s, is)
	s.writes.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	old, more := h.live.Load(), h.more()
	more.former = append(more.former, old)
	if h.live.Store(&held{session: is, other: b, cookie: true, fresh: old.fresh}); r.moved {
		more.given = r.next.Name
	}
	return nil
}
