// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
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
// under way with it, and for no others; the client gets the new one as a cookie in
// the header of this call's reply.
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
// travels whole in its cookie ([errors.ErrUnsupported]); and [ErrNoSession] outside
// of [NewServerMiddleware].
func Renew(ctx context.Context, who ...Principal) error {
	h := handleFrom(ctx)
	if h == nil {
		return ErrNoSession
	}
	if err := h.renew(who); err != nil {
		return h.m.refusal(h.base, err)
	}
	return nil
}

var errTooLate = &callError{code: codes.FailedPrecondition, reason: "SESSION_RENEWED_TOO_LATE",
	text: "the session cannot be renewed any more: the header of the reply has left"}

// errRenews says that two calls renew one session of a foreign type.
var errRenews = &callError{code: codes.Aborted, text: "another call renews the session at this moment", reason: "SESSION_FAILED"}

// errUnsupported says that a session cannot be renewed, and for the log why.
func errUnsupported(format string, args ...any) error {
	return &callError{code: codes.Internal, text: "the session cannot be renewed", reason: "SESSION_FAILED",
		sentinel: errors.ErrUnsupported, cause: fmt.Errorf("session: Renew: "+format, args...)}
}

func (h *handle) renew(who []Principal) (err error) {
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
	case h.m.own == nil:
		return errUnsupported("it is a %T's", h.m.manager)
	case !l.cookie && len(who) == 0:
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
// done is called.
func (h *handle) alone() (done func(), _ error) {
	for {
		h.mu.Lock()
		wait, ended := h.more().making, h.ended
		if wait == nil && !ended {
			mine := make(chan struct{})
			h.more().making, h.more().renewing = mine, mine
			h.mu.Unlock()
			return func() {
				h.mu.Lock()
				h.more().making, h.more().renewing = nil, nil
				h.mu.Unlock()
				close(mine)
			}, nil
		}
		h.mu.Unlock()
		if ended {
			return nil, ErrCallEnded
		}
		<-wait
	}
}

// headerLeaves is called before the header of a stream does, which waits until what
// it announces holds.
func (h *handle) headerLeaves() {
	h.mu.Lock()
	h.replied = true
	var wait chan struct{}
	if r := h.rare.Load(); r != nil {
		wait = r.renewing
	}
	h.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

// renewal is what becomes of a session that is renewed.
type renewal struct {
	h      *handle
	l      *held
	old    string
	token  string
	owner  string
	moved  bool // it gets another principal
	origin layover.Origin
}

// renewal returns what is to become of the session.
func (h *handle) renewal(l *held, who []Principal) (*renewal, error) {
	m, r := h.m, &renewal{h: h, l: l, owner: h.ownerOf(l)}
	if _, can := l.session.(Renewable); !can && !isOwn(l.session) || !reflect.ValueOf(l.session).Comparable() {
		return nil, errUnsupported("a %T is not Renewable", l.session)
	}
	if c, copies := l.other.(*copied); copies && c.inner != nil {
		return nil, errUnsupported("a %T cannot rename sessions", m.own.store)
	}
	r.origin.Source = l.leased().Source()
	if len(who) > 0 && who[0].Name != "" {
		by, err := m.beginner(h.base, who)
		if err != nil {
			return nil, err
		}
		if by.id != "" || !l.cookie {
			return nil, errUnsupported("sessions of principals do not go by cookie here: use Begin")
		}
		r.owner, r.moved = who[0].Name, true
		m.belongs(&r.origin, who[0])
	}
	return r, nil
}

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

// run renews the session. Of two cookies with one name in a header the last one
// counts, so that the new one can be announced before it holds, when it is not too
// late to find that it cannot be announced.
func (r *renewal) run() error {
	h := r.h
	if h.m.store != nil && isOwn(r.l.session) { // no foreign code
		h.m.closes.Lock() // lest a call that closes it has the client drop the new cookie
		defer h.m.closes.Unlock()
	}
	r.old = r.l.session.Token()
	mark := h.telling(r.l)
	replaces := h.m.config.policy != RenewDead
	if replaces && !h.m.tellings.deleting(mark, time.Now()) {
		return errOver
	}
	err := r.announce(r.token)
	if err == nil {
		if err = r.rename(); err != nil {
			err = errors.Join(err, r.announce(r.old))
		}
	}
	if err != nil && replaces {
		h.m.tellings.forget(mark)
	}
	return err
}

// announce tells the client of its token.
func (r *renewal) announce(token string) error {
	h := r.h
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		return ErrCallEnded
	case h.closed.Load():
		return errOver
	case h.replied && token != r.old:
		return errTooLate
	}
	line := (&http.Cookie{Name: h.m.cookie, Value: token}).String()
	if grpc.SetHeader(h.base, metadata.Pairs("set-cookie", line)) != nil {
		return errTooLate
	}
	return nil
}

// rename has the session found under its new token only.
func (r *renewal) rename() error {
	h, s := r.h, r.l.session
	var err error
	if h.m.store == nil {
		err = r.l.other.(*copied).rename(r.token)
	} else {
		err = h.m.store.rename(r.l.leased(), r.token, r.origin)
	}
	switch own, _ := s.(*statefulServerSession); {
	case errors.Is(err, layover.ErrNotFound) || errors.Is(err, errClosed):
		return errOver
	case err != nil:
		return h.m.own.failed(err, r.token)
	case !r.moved:
	case own != nil:
		own.belongTo(Principal{Name: r.owner, Expires: r.origin.Expires})
		fallthrough
	default:
		r.l.leased().SetExpires(r.origin.Expires)
	}
	return nil
}

// setToken has a session know its new token.
func setToken(s ServerSession, token string) (err error) {
	defer contain(&err)
	own, ok := s.(*statefulServerSession)
	if !ok {
		s.(Renewable).SetToken(token)
		return nil
	}
	own.mu.Lock()
	defer own.mu.Unlock()
	own.id = token
	return nil
}

// rename files a session of a store that knows no leases under another token. What
// other calls have written since this one got its copy comes along.
func (c *copied) rename(token string) error {
	old, use := c.id, c.use
	err := c.m.usages.end(old, func() (err error) {
		defer contain(&err)
		if use.renewed.Load() != nil {
			return errRenews
		}
		if err := c.move(token); err != nil {
			return err
		}
		use.renewed.Store(&token)
		return nil
	})
	if err != nil {
		return err
	}
	c.follow()
	if c.session.Closed() { // meanwhile, by somebody who knew its old token
		return errors.Join(errClosed, c.m.CloseSession(c.session))
	}
	return nil
}

// move has the store have the session under another token.
func (c *copied) move(token string) error {
	store, old, after := c.m.store, c.id, optionsOf(c.session)
	s, err := store.Get(old)
	if err != nil || isNil(s) || s.Closed() {
		return cmp.Or(err, layover.ErrNotFound)
	}
	both := []ServerSession{s}
	if !same(s, c.session) {
		apply(s, changes(c.before, after))
		both = append(both, c.session)
	}
	back := func() (err error) {
		for _, s := range both {
			err = errors.Join(err, setToken(s, old))
		}
		return err
	}
	for _, s := range both {
		if err := setToken(s, token); err != nil {
			return errors.Join(err, back())
		}
	}
	if err := store.Put(s); err != nil {
		return errors.Join(err, back())
	}
	if err := store.Remove(old); err != nil {
		return errors.Join(err, store.Remove(token), back())
	}
	c.before = after
	return nil
}
