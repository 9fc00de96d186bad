// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
)

// NewHandle returns a handle: an opaque reference to an object of the server's in the
// session of the call, such as a prepared statement, a transaction or a result, to
// be given to the client in its place. A later call that presents it to
// [ResolveHandle] has that session, also without a cookie. A call without a session
// gets one.
//
// The kind says what the object is, such as "transaction", so that a handle is not
// taken for one of another kind; errors name it. The object is what the server finds
// it by, or all of it: it is encrypted, and a handle is 100 bytes longer, or less. Who has a
// handle can use the session as its owner, or if that is anonymous, as anybody: it is
// as secret as a cookie. It is good as long as the session, across renewals.
//
// The errors are fit for the client: those of [Ensure], and that the session has
// ended. It needs what [Resource] needs.
func NewHandle(ctx context.Context, kind string, object []byte) ([]byte, error) {
	o, err := belonging(ctx)
	if err != nil {
		return nil, err
	}
	return o.seals.seal(kind, o.l.session.Token(), object), nil
}

// ResolveHandle returns the object of a handle that a client presents, and gives the
// call the session in which it was made, with a lease until its handler has returned.
// That session also is the call's if the client has sent the cookie of another one,
// as one that has made several at the same time may. Call it first: what was done in
// another session before stays there.
//
// The errors are fit for the client. A handle that is of another kind, was not made
// by this store, or is somebody else's, is NOT_FOUND with the reason
// SESSION_HANDLE_UNKNOWN; one whose session has ended is NOT_FOUND as a dead token is,
// see [LostPrefix], every time. Two handles of different sessions in one call are
// INVALID_ARGUMENT with the reason SESSION_AMBIGUOUS.
func ResolveHandle(ctx context.Context, kind string, handle []byte) (object []byte, _ error) {
	h, err := usable(ctx)
	if err != nil {
		return nil, err
	}
	ref, token, object, ok := h.m.store.handles.open(kind, handle)
	if !ok {
		return nil, unknownHandle(kind)
	}
	if err := h.adopt(ctx, kind, ref, token); err != nil {
		return nil, err
	}
	return object, nil
}

func unknownHandle(kind string) error {
	return &callError{code: codes.NotFound, reason: "SESSION_HANDLE_UNKNOWN", text: "there is no such " + kind + ", or not any more"}
}

// errHandles says that a call presents handles of several sessions.
var errHandles = &callError{code: codes.InvalidArgument, reason: "SESSION_AMBIGUOUS", text: "the call names handles of more than one session"}

// adopt gives the call the session that a handle names.
func (h *handle) adopt(ctx context.Context, kind string, ref handleRef, token string) error {
	own := h.m.store.handles.find(ref)
	for {
		if h.has(own) {
			return h.stay(own)
		}
		mine, wait, err := h.exchange()
		if err != nil {
			return h.overOr(err)
		}
		if wait != nil {
			<-wait
			continue
		}
		return h.take(ctx, mine, kind, own, token)
	}
}

// has reports whether the call has this session already, and it was not closed.
func (h *handle) has(own *statefulServerSession) bool {
	l := h.live.Load()
	return own != nil && l != nil && l.session == ServerSession(own) && !h.closed.Load() && !own.Closed()
}

// exchange is claim for another session than the call has, unless it has closed that.
func (h *handle) exchange() (mine, wait chan struct{}, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed.Load() {
		return nil, nil, errClosed
	}
	return h.claim()
}

// stay is for a handle of the session that the call has.
func (h *handle) stay(own *statefulServerSession) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.agree(own)
}

// take leases a session, nil: it has ended, and has the call have it.
func (h *handle) take(ctx context.Context, mine chan struct{}, kind string, own *statefulServerSession, token string) error {
	defer h.yield(mine)
	if h.m.config.requireTLS {
		if err := requireTLS(ctx); err != nil {
			return h.m.refusal(h.base, err)
		}
	}
	l, who, err := h.leaseOwn(ctx, own, token)
	if err != nil {
		return h.refuseHandle(ctx, kind, who, token, err)
	}
	l.expire(who.Expires)
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		err = h.m.refusal(h.base, ErrCallEnded)
	case h.closed.Load():
		err = errOver
	default:
		err = h.agree(l.session)
	}
	if err != nil {
		_ = l.release() // of a session of this package's
		return err
	}
	r := h.more()
	if old := h.live.Load(); old != nil {
		r.former = append(r.former, old)
	}
	r.given = ""
	h.live.Store(l)
	h.watch(l)
	return nil
}

// byHandle reports whether the call has its session by a handle alone, and its client
// could have a cookie of it.
func (h *handle) byHandle(l *held) bool {
	h.mu.Lock()
	adopted := h.more().adopted
	h.mu.Unlock()
	return adopted == l.session && adopted != nil && h.m.cookie != "" && !isDerived(h.m.tokenOf(l))
}

// agree notes which session the handles of the call are of. The caller holds the
// mutex.
func (h *handle) agree(s ServerSession) error {
	r := h.more()
	if r.adopted != nil && r.adopted != s {
		return errHandles
	}
	r.adopted = s
	return nil
}

// leaseOwn leases the session that a handle names, for the caller.
func (h *handle) leaseOwn(ctx context.Context, own *statefulServerSession, token string) (l *held, who Principal, err error) {
	if who, err = h.caller(); err != nil {
		return nil, who, err
	}
	if own == nil {
		return nil, who, h.whyEnded(token, who)
	}
	l = new(held)
	for range maxRenewals {
		token = own.Token()
		by := owner{name: who.Name}
		err = h.m.acquire(ctx, token, &by, l)
		switch {
		case by.found:
			h.m.alarm(ctx, SecurityEvent{Kind: ForeignToken, Session: h.m.fingerprint(token), Owner: by.other, Caller: by.name})
			return nil, who, errForeignHandle
		case err == nil && l.session == ServerSession(own):
			return l, who, nil
		case err == nil: // the next one of its principal
			_ = l.release()
			return nil, who, layover.ErrNotFound
		case own.Token() == token:
			return nil, who, err
		}
	}
	return nil, who, err
}

// whyEnded returns the error that says why a session has ended, as far as it is known
// and the caller's business. One that has its token by now is another one.
func (h *handle) whyEnded(token string, who Principal) error {
	if h.m.store.peek(token) != nil {
		return layover.ErrNotFound
	}
	by := owner{name: who.Name}
	l, err := h.m.store.store.AcquireFrom(token, by.owns)
	if err == nil { // it has just come
		l.Release()
		return layover.ErrNotFound
	}
	return err
}

// errForeignHandle says that a handle names somebody else's session.
var errForeignHandle = errors.New("session: the handle is somebody else's")

// refuseHandle returns what the client is told of a handle whose session it cannot
// have.
func (h *handle) refuseHandle(ctx context.Context, kind string, who Principal, token string, err error) error {
	if errors.Is(err, errForeignHandle) {
		return unknownHandle(kind)
	}
	if !errors.Is(err, layover.ErrNotFound) {
		return h.m.refusal(h.base, err)
	}
	n := (*layover.NotFoundError)(nil)
	if !errors.As(err, &n) || n.Reason == 0 || h.m.isElses(token, who.Name) {
		return unknownHandle(kind)
	}
	d := deadToken{mark: h.m.fingerprint(token), why: n.Reason.String()}
	if n.Reason == layover.ReasonRenamed { // the token was, since the handle was made; how the session ended is not known by it
		d.why = whyUnknown
	}
	return h.m.lost(ctx, d, codes.NotFound)
}
