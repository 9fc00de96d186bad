// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover"
)

// Renewable is a session of a type of the server's own that [Renew] can give a new
// token. It must be comparable, as pointers are.
type Renewable interface {
	ServerSession
	// SetToken has Token return this one from now on. Calls that use the session
	// may ask for its token at the same time.
	SetToken(token string)
}

// Renew gives the session of the call that ctx belongs to a new ID, so that nobody
// who knew the old one has a part in what comes after it: at a login, at a change
// of privileges (OWASP: session fixation). The session stays what it is, with its
// options, its resources and its age. The old ID is good for the calls that are
// under way with it, and for no others (if it travels in its cookie, they keep what there
// was, and cannot set anything any more); the client gets the new one as a cookie in
// the header of this call's reply. A client that cancels the call, runs into its
// deadline or loses the connection before it has that header does not have its
// session any more.
//
// With a principal, whom the handler has just authenticated, the session belongs
// to that one from now on; else to whom it did. A call that has no session has
// nothing to renew, nor one whose client finds it by principal, which has no ID
// that travels: Renew does nothing then.
//
// Errors, all fit for the client, after which the old ID holds as before: that the
// header has left, so that the client would never learn of the new ID
// (FAILED_PRECONDITION, SESSION_RENEWED_TOO_LATE); that the session has ended
// (SESSION_CLOSED), or the call has ([ErrCallEnded]); that its new principal has as
// many as it may have; that it cannot be renewed, as it is of a type of the server's
// own and not [Renewable], in a [LeaseStore] that is not of this package, or
// travels whole in its cookie and is not sealed ([errors.ErrUnsupported]); that the old
// ID of a sealed one cannot be revoked, see [WithRevocation], unless it was nobody's and
// becomes the principal's, or that it would not fit its cookie with the name of its new
// principal ([ErrOptionLimit]); and [ErrNoSession] outside
// of [NewServerMiddleware].
func Renew(ctx context.Context, who ...Principal) error {
	h := handleFrom(ctx)
	if h == nil {
		return ErrNoSession
	}
	if err := h.seen(ctx, who); err != nil {
		return err
	}
	if err := h.renew(ctx, who); err != nil {
		return h.m.refusal(h.base, err)
	}
	return nil
}

var errTooLate = &callError{code: codes.FailedPrecondition, reason: "SESSION_RENEWED_TOO_LATE",
	text: "the session cannot be renewed any more: the header of the reply has left"}

// errRenews says that the call renews its session already.
var errRenews = &callError{code: codes.Aborted, text: "the call renews its session at this moment", reason: "SESSION_FAILED"}

// errUnsupported says that a session cannot be renewed, and for the log why.
func errUnsupported(format string, args ...any) error {
	return &callError{code: codes.Internal, text: "the session cannot be renewed or replaced", reason: "SESSION_FAILED",
		sentinel: errors.ErrUnsupported, cause: fmt.Errorf("session: Renew: "+format, args...)}
}

func (h *handle) renew(ctx context.Context, who []Principal) (err error) {
	defer contain(&err)
	done, err := h.alone()
	if err != nil {
		return err
	}
	defer done()
	l := h.live.Load()
	switch {
	case h.Closed():
		return errOver
	case l == nil:
		return nil
	case h.m.stateless != nil:
		return h.renewStateless(ctx, l.other.(*bearer), who)
	case h.m.own == nil:
		return errUnsupported("it is a %T's", h.m.manager)
	case !l.cookie && !h.byHandle(l) && !names(who), h.isBrief() && l.fresh:
		return nil
	}
	r, err := h.renewal(l, who)
	if err != nil {
		return err
	}
	h.m.warnOfPlaintext(h.base)
	for range attempts {
		if r.token, err = h.m.newToken(r.owner); err != nil {
			return err
		}
		if err = r.run(); !errors.Is(err, layover.ErrExists) {
			return err
		}
	}
	return errTaken
}

// alone keeps others from making, replacing or renewing the call's session until
// done is called. It does not wait for another renewal, which may be the caller's own.
func (h *handle) alone() (done func(), _ error) {
	for {
		h.mu.Lock()
		mine, wait, err := h.claim()
		if mine != nil {
			h.more().renewing = true
		}
		h.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case mine != nil:
			return func() { h.yield(mine) }, nil
		}
		<-wait
	}
}

// renewal returns what is closed when the session was renewed; nil: it is not
// renewed at this moment.
func (r *rare) renewal() chan struct{} {
	if r.renewing {
		return r.making
	}
	return nil
}

// headerLeaves is called before the header of a stream does, which waits until what
// it announces holds.
func (h *handle) headerLeaves() {
	for {
		h.mu.Lock()
		var wait chan struct{}
		if r := h.rare.Load(); r != nil {
			wait = r.renewal()
		}
		h.replied = wait == nil
		h.mu.Unlock()
		if wait == nil {
			return
		}
		<-wait
	}
}

// renewal is what becomes of a session that is renewed.
type renewal struct {
	h      *handle
	l      *held
	token  string
	caller string    // whose the session must still be
	owner  string    // whose it will be
	moved  bool      // it gets another principal
	ends   time.Time // if it is moved: when the proof of its new owner ends
	origin layover.Origin

	// What it was, to be compared, or restored.
	old   string
	was   string    // its source
	ended time.Time // when the proof of its owner did, if it is of this package's type
}

// renewal returns what is to become of the session.
func (h *handle) renewal(l *held, who []Principal) (*renewal, error) {
	if _, can := l.session.(Renewable); !can && !isOwn(l.session) || !reflect.ValueOf(l.session).Comparable() {
		return nil, errUnsupported("a %T is not Renewable", l.session)
	}
	if c, copies := l.other.(*copied); copies && (c.inner != nil || c.resident()) {
		return nil, errUnsupported("a %T cannot rename sessions", h.m.own.store)
	}
	caller, err := h.keeper()
	if err != nil {
		return nil, err
	}
	r := &renewal{h: h, l: l, caller: caller, owner: caller}
	if !names(who) {
		return r, nil
	}
	by, err := h.m.beginner(h.base, who)
	if err != nil {
		return nil, err
	}
	if by.id != "" || !l.cookie && !h.byHandle(l) {
		return nil, errUnsupported("sessions of principals do not go by cookie here: use Begin")
	}
	r.owner, r.moved = who[0].Name, true
	h.m.belongs(&r.origin, who[0])
	r.ends, r.origin.Expires = r.origin.Expires, time.Time{} // not before it is done
	return r, nil
}

// announce sends the new cookie, unless the client has that of another session, which
// it would replace: it finds this one by handles.
func (r *renewal) announce() error {
	if !r.l.cookie && r.h.hasCookieOfAnother() {
		return nil
	}
	return r.h.header("set-cookie", (&http.Cookie{Name: r.h.m.cookie, Value: r.token}).String())
}

// hasCookieOfAnother reports whether the call has come with the cookie of a session
// that it had before it was given another one.
func (h *handle) hasCookieOfAnother() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.more().former, func(l *held) bool { return l.cookie && !l.dropped.Load() })
}

// keeper returns whose the call's session must be: the caller's, or whose this call
// has made it.
func (h *handle) keeper() (string, error) {
	h.mu.Lock()
	given := h.more().given
	h.mu.Unlock()
	if given != "" {
		return given, nil
	}
	who, err := h.caller()
	return who.Name, err
}

// begun is give for a session that Begin has made, which a handshake has none before.
func (h *handle) begun(owner string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.more()
	r.given, r.greets = owner, false
}

// give notes whose this call has made its session.
func (h *handle) give(owner string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.more().given = owner
}

// names reports whether a principal is named.
func names(who []Principal) bool { return len(who) > 0 && who[0].Name != "" }

// newToken returns a token for a principal's session that is there already.
func (m *interceptors) newToken(owner string) (token string, _ error) {
	switch factory, ours := m.own.factory.(*sessionFactory); {
	case m.mints:
		return m.mint.new(owner), nil
	case ours:
		token = factory.generateID()
	default:
		token = uuid.NewString()
	}
	if !isCookieValue(token) || isDerived(token) {
		return "", errors.New("session: the ID generator returned an ID that cannot travel in a cookie")
	}
	return token, nil
}

// run renews the session. Should the handler have the header leave in the middle of
// it, the session gets its old token back.
func (r *renewal) run() error {
	h := r.h
	switch {
	case h.m.store == nil:
	case isOwn(r.l.session): // no foreign code
		h.m.closes.Lock() // lest a call that closes it has the client drop the new cookie
		defer h.m.closes.Unlock()
	default:
		done, err := h.m.store.takeTurn(h.base, r.l.session)
		if err != nil {
			return err
		}
		defer done()
	}
	r.was = r.l.leased().Source()
	if h.m.store != nil && principalOf(r.was) != r.caller { // another call has given it to somebody else
		return errOver
	}
	if err := h.header("cache-control", `no-cache="set-cookie"`); err != nil { // as OWASP advises
		return err
	}
	r.old = h.m.tokenOf(r.l)
	if own, ok := r.l.session.(*statefulServerSession); ok {
		r.ended = timeOf(own.expires.Load())
	}
	if !r.moved {
		r.origin.Source = r.was
	}
	undo, first := h.retire(r.l, r.old, r.owner)
	if !first {
		return errOver
	}
	err := r.rename()
	if err == nil {
		err = r.announce()
		switch {
		case err == nil:
		case h.base.Err() != nil && errors.Is(err, errTooLate): // as if the client had left when it was done
			err = nil
		default:
			err = errors.Join(err, r.back().rename())
		}
	}
	if err != nil {
		undo()
		return err
	}
	if r.moved {
		h.give(r.owner)
		r.l.leased().SetExpires(r.ends)
	}
	return nil
}

// retire notes that the token of the call's session will be good for nothing: who
// comes with it, be it the owner or the next one, gets no new session, whose cookie
// would take the place of the one that the client is about to get. It reports whether
// no other call has had the client drop the cookie.
func (h *handle) retire(l *held, token, next string) (undo func(), first bool) {
	if h.m.config.policy == RenewDead {
		return func() {}, true
	}
	t, now := h.m.tellings, time.Now()
	mark, other := h.m.tellingOf(token, h.ownerOf(l)), h.m.tellingOf(token, next)
	if !t.replacing(mark, now) {
		return nil, false
	}
	both := other != mark && t.replacing(other, now)
	return func() {
		t.keeping(mark, time.Now())
		if both {
			t.keeping(other, time.Now())
		}
	}, true
}

// header puts something into the header of the reply, or says why that is not
// possible any more.
func (h *handle) header(name, value string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed.Load() {
		return errOver
	}
	if h.replied || grpc.SetHeader(h.base, metadata.Pairs(name, value)) != nil {
		return errTooLate
	}
	return nil
}

// back returns the renewal that undoes r.
func (r *renewal) back() *renewal {
	return &renewal{h: r.h, l: r.l, token: r.old, caller: r.owner, owner: r.caller, moved: r.moved, origin: layover.Origin{Source: r.was},
		old: r.token, was: r.origin.Source, ends: r.ended}
}

// rename has the session found under its new token only.
func (r *renewal) rename() error {
	m := r.h.m
	var err error
	if c, copies := r.l.other.(*copied); copies {
		err = c.rename(r)
	} else {
		err = m.store.rename(r.l.leased(), r)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, layover.ErrNotFound) || errors.Is(err, errClosed):
		return errOver
	}
	return m.own.failed(m.own.redact(err, r.old), r.token)
}

// hand gives a session of this package's type, whose mutex the caller has, to its
// new owner.
func (r *renewal) hand(own *statefulServerSession) {
	if !r.moved {
		return
	}
	own.bound, own.owner = true, r.owner
	own.expires.Store(endOf(r.ends))
	if b := own.belongings.Load(); b != nil {
		b.things.SetSource(r.origin.Source)
	}
}

// setToken has a session know its new token.
func setToken(s ServerSession, token string) (err error) {
	defer contain(&err)
	own, ok := s.(*statefulServerSession)
	if !ok {
		if s.(Renewable).SetToken(token); s.Token() != token {
			return fmt.Errorf("session: SetToken of a %T has not set the token", s)
		}
		return nil
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	own.id = token
	return nil
}
