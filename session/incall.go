// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
)

// Lookup returns the session of the call that ctx belongs to, if it has one.
// Unlike [GetSessionFromContext] it returns [ErrNoSession] for a call that has
// none yet. It makes none.
func Lookup(ctx context.Context) (ServerSession, error) {
	s, err := GetSessionFromContext(ctx)
	if h := handleFrom(ctx); h != nil && h.live.Load() == nil && err == nil {
		return nil, ErrNoSession
	}
	return s, err
}

// Ensure returns the session of the call that ctx belongs to, and makes one if
// there is none yet. The errors are those of [GetSessionFromContext], and
// [ErrCallEnded].
func Ensure(ctx context.Context) (ServerSession, error) {
	s, err := GetSessionFromContext(ctx)
	h, ok := s.(*handle)
	if err != nil || !ok {
		return s, err
	}
	if _, err := h.ensure(false); err != nil {
		return nil, h.m.refusal(h.base, err)
	}
	return h, nil
}

// SetOption sets an option of the call's session to a copy of value, as
// SetSessionOption does, and returns why that was not possible: the errors of
// [Ensure], that the session has ended, or that the option is beyond the limits,
// see [WithOptionLimits]. The error is fit for the client, and the call does not fail
// by itself.
func SetOption(ctx context.Context, name string, value *flight.SessionOptionValue) error {
	s, err := GetSessionFromContext(ctx)
	if err != nil {
		return err
	}
	if s.Closed() {
		return errOver
	}
	h := handleFrom(ctx)
	if h != nil {
		err = h.putIn(s, name, value)
	} else {
		err = callFrom(ctx).put(s, name, value)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errClosed): // in the meantime
		return errOver
	case h != nil:
		return h.m.refusal(h.base, err)
	}
	return newCallError(err)
}

// errOver says that a session which the call had is closed.
var errOver = &callError{code: codes.NotFound, text: "the session has ended", sentinel: errClosed, reason: "SESSION_CLOSED"}

// As returns the session of the call that ctx belongs to as a T, the type that
// the server's own factory or manager makes. It makes one if there is none yet.
// The errors are those of [Ensure], or that it is no T.
func As[T ServerSession](ctx context.Context) (t T, _ error) {
	s, err := Ensure(ctx)
	if err != nil {
		return t, err
	}
	if t, ok := s.(T); ok {
		return t, nil
	}
	if t, ok := unwrap(s).(T); ok {
		return t, nil
	}
	return t, fmt.Errorf("session: the call's session is a %T, not a %T", unwrap(s), t)
}

// Acquire returns one more lease on the session of the call that ctx belongs to:
// for goroutines of the server that go on after the call has ended. They must
// release it. What they set in a stateless session after the call does not reach its
// client. While they have it the session neither idles out nor is evicted;
// at its lifetime, or if its client closes it, it is closed only after the
// release. A session that lives in a store without leases may be closed all the
// same. In a store that copies, it is another copy, and what is changed in it is
// written back by the release.
//
// Errors: [ErrNoSession] if the call has none, or it has ended already; those of
// the store, fit for the client.
func Acquire(ctx context.Context) (SessionLease, error) {
	h := handleFrom(ctx)
	if h == nil {
		return nil, ErrNoSession
	}
	if err := h.seen(ctx, nil); err != nil {
		return nil, err
	}
	live := h.live.Load()
	if live == nil {
		return nil, ErrNoSession
	}
	l, err := h.m.again(ctx, live)
	if err != nil {
		if errors.Is(err, ErrNoSession) {
			return nil, ErrNoSession
		}
		return nil, h.m.refusal(h.base, err)
	}
	return l, nil
}

// again leases a session once more.
func (m *interceptors) again(ctx context.Context, h *held) (_ SessionLease, err error) {
	defer contain(&err)
	if b, ok := h.other.(*bearer); ok {
		again, err := b.again()
		if err != nil {
			return nil, err
		}
		return again, nil
	}
	if m.own == nil {
		return &unguarded{m: m, session: h.session}, nil
	}
	token := m.tokenOf(h)
	found, l, err := m.own.lookup(ctx, token)
	for range maxRenewals {
		last := token
		if token = m.tokenOf(h); token == last || !isNotFound(err, last) {
			break
		}
		found, l, err = m.own.lookup(ctx, token)
	}
	switch {
	case isNotFound(err, token):
		return nil, ErrNoSession
	case err != nil:
		return nil, m.own.failed(err, token)
	case m.store == nil && l.(*copied).use != h.other.(*copied).use: // it is the next one
		l.Release()
		return nil, ErrNoSession
	case m.store == nil:
		return &saved{copied: l.(*copied), m: m}, nil
	case !same(found, h.session):
		l.Release()
		return nil, ErrNoSession
	}
	return l, nil
}

// unguarded is a lease under a manager of the server's own, which keeps what leases
// there are.
type unguarded struct {
	unleased
	m       *interceptors
	session ServerSession
}

// Format prints a fingerprint under every verb.
func (u *unguarded) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "lease of session %s", u.m.fingerprint(tokenOf(u.session)))
}

// Session returns the session.
func (u *unguarded) Session() ServerSession { return u.session }

// Begin gives the call that ctx belongs to a new session, as a login handler
// does; one that it had before ends. In a handshake, which gets no session
// otherwise, it is the only way to one. With a principal, which the handler has just
// authenticated, the client finds the session by what its calls will prove to
// [ByPrincipal] or [Header], or if neither is there, by a cookie that is worth
// something to that principal alone, see [WithPrincipal]. Without one it finds it
// by cookie, and the session belongs to whoever makes this call, who in a handshake
// is nobody as a rule.
//
// The errors are fit for the client: those of [GetSessionFromContext], and that
// no carrier could bring the session back.
func Begin(ctx context.Context, who ...Principal) (ServerSession, error) {
	h := handleFrom(ctx)
	switch {
	case h != nil && h.m.stateless != nil && !h.m.binds():
		return nil, h.m.refusal(h.base, errUnsupported("it has no ID, as it is not sealed"))
	case h == nil || !h.m.binds():
		return nil, ErrNoSession
	}
	if err := h.seen(ctx, who); err != nil {
		return nil, err
	}
	by := h.principal()
	if len(who) > 0 || by == nil {
		var err error
		if by, err = h.m.beginner(h.base, who); err != nil {
			return nil, h.m.refusal(h.base, err)
		}
	}
	_, err := h.anew(by)
	if err == nil {
		h.begun(by.name())
	}
	if err != nil {
		return nil, h.m.refusal(h.base, err)
	}
	return h, nil
}

// errNoCarrier says that no call could ever bring the session back.
var errNoCarrier = &callError{code: codes.Internal, text: noSession, reason: "SESSION_FAILED",
	cause: errors.New("session: Begin: none of the carriers could bring this session back")}

// beginner returns whose session is to begin.
func (m *interceptors) beginner(ctx context.Context, who []Principal) (*named, error) {
	if !names(who) {
		if m.cookie == "" {
			return nil, errNoCarrier
		}
		return nil, nil
	}
	if err := expired(who[0]); err != nil {
		return nil, err
	}
	for i := range m.derived {
		c := &m.derived[i]
		key, sent, err := c.key(ctx)
		if err != nil {
			return nil, err
		}
		if sent || c.kind == principalCarrier {
			return m.nameOf(c.kind, who[0], key), nil
		}
	}
	if m.cookie != "" {
		return &named{who: who[0]}, nil
	}
	return nil, errNoCarrier
}

// anew makes a session in place of the one that the call has.
func (h *handle) anew(by *named) (ServerSession, error) {
	for {
		mine, wait, err := h.begin(true)
		if err != nil {
			return nil, err
		}
		if wait != nil {
			<-wait
			continue
		}
		return h.make(mine, func() (_ *held, err error) {
			defer contain(&err)
			old := h.live.Load()
			if old == nil {
				return h.m.createAnew(h, by, nil)
			}
			return h.replace(old, by)
		})
	}
}

// replace makes a session in place of the one that the call has, which ends only if
// there is a new one. If another call has had the client drop the old one, the
// deletion would take the new one along.
func (h *handle) replace(old *held, by *named) (*held, error) {
	undo, first := func() {}, true
	if old.cookie && !old.dropped.Load() {
		undo, first = h.retire(old, h.m.tokenOf(old), by.name())
	}
	if !first {
		gone := deadToken{mark: h.m.fingerprint(h.m.tokenOf(old)), key: h.telling(old), why: layover.ReasonClosed.String(), held: true, cookie: true}
		if err := h.m.judge(h.base, gone, false); err != nil {
			return nil, err
		}
		undo = func() {}
	}
	l, err := h.m.createAnew(h, by, old)
	if err == nil {
		if b, ok := old.other.(*bearer); ok {
			b.supplanted(l)
		}
		if _, err = h.m.end(old); errors.Is(err, errNoPlace) && old.owner() == "" && by.name() != "" {
			err = nil // as for Renew
		}
		if err != nil {
			err = errors.Join(err, h.m.remove(l), l.release())
		}
	}
	if err != nil {
		undo()
		return nil, err
	}
	return l, nil
}

// maxLogins is how often a login of a principal makes way for another one at the
// same time.
const maxLogins = 1000

// createAnew makes a session, in place of the one that the call has, and if it is a
// principal's, of the one that this has.
func (m *interceptors) createAnew(h *handle, by *named, old *held) (l *held, err error) {
	if by == nil || by.id == "" {
		var b birth
		if old != nil && m.store != nil {
			b.instead = old.leased()
		}
		return m.createInstead(h, by, b)
	}
	for range maxLogins {
		if l, err = m.supplant(h, by); !overtaken(err) {
			return l, err
		}
	}
	return nil, err
}

// supplant makes a principal's session in place of the one that it has, if there is
// one. Where a store cannot do that at once, that one ends before.
func (m *interceptors) supplant(h *handle, by *named) (*held, error) {
	was, lent, err := m.own.lookup(h.base, by.id)
	if isNotFound(err, by.id) {
		return m.create(h, by, false)
	}
	if err != nil {
		return nil, m.own.failed(err, by.id)
	}
	defer lent.Release()
	ours, ok := lent.(*lease)
	if !ok {
		if err := m.remove(&held{session: was, other: lent}); err != nil {
			return nil, err
		}
		return m.create(h, by, false)
	}
	l, err := m.createInstead(h, by, birth{instead: &ours.Lease})
	if err != nil {
		return nil, err
	}
	if err := m.remove(&held{session: was, other: lent}); err != nil {
		return nil, errors.Join(err, m.remove(l), l.release())
	}
	return l, nil
}

// End ends the session of the call that ctx belongs to, as a logout handler
// does, and has the client drop its cookie. Without a session it does nothing.
func End(ctx context.Context) error {
	if h := handleFrom(ctx); h != nil {
		if err := h.Close(); err != nil {
			return h.m.refusal(h.base, err)
		}
	}
	return nil
}
