// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover/internal/resource"
)

// belongings are what few sessions have beside options. They are made when first
// needed, and go with their session.
type belongings struct {
	things   *resource.Set
	reporter *reporter // of the middleware under which they were made
	ref      handleRef // names the session in its handles, whatever its token is
	seals    *sealer   // of its handles
}

// errNoBelongings says that a session cannot have resources, handles or a context.
var errNoBelongings = &callError{code: codes.Internal, text: noSession, reason: "SESSION_FAILED", sentinel: errors.ErrUnsupported,
	cause: errors.New("session: resources, handles and contexts need NewServerMiddleware with a manager and a store of this package, and its own type of sessions")}

// belonging returns the session of a call and what belongs to it. If the call has no
// session, one is made. The error is fit for the client.
func belonging(ctx context.Context) (*handle, *statefulServerSession, *belongings, error) {
	h := handleFrom(ctx)
	switch {
	case h == nil && callFrom(ctx) == nil:
		return nil, nil, nil, ErrNoSession
	case h == nil || h.m.store == nil:
		return nil, nil, nil, errNoBelongings
	}
	if err := h.seen(ctx, nil); err != nil {
		return nil, nil, nil, err
	}
	if h.isOver() {
		return nil, nil, nil, h.m.refusal(h.base, ErrCallEnded)
	}
	s, err := h.ensure(true)
	if err != nil {
		return nil, nil, nil, h.overOr(err)
	}
	own, ok := s.(*statefulServerSession)
	switch {
	case !ok:
		return nil, nil, nil, errNoBelongings
	case h.closed.Load(): // by this call; others go on until they have ended
		return nil, nil, nil, errOver
	}
	b := own.belongings.Load()
	if b == nil {
		if b, err = own.acquireBelongings(h); err != nil {
			return nil, nil, nil, err
		}
	}
	return h, own, b, nil
}

// isOver reports whether the call has ended.
func (h *handle) isOver() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ended
}

// overOr returns the refusal for an error of ensure.
func (h *handle) overOr(err error) error {
	if errors.Is(err, errClosed) {
		return errOver
	}
	return h.m.refusal(h.base, err)
}

// existing is belonging for those who make nothing: ok is false if the call's session
// has nothing, or there is none.
func existing(ctx context.Context) (h *handle, b *belongings, ok bool, _ error) {
	if h = handleFrom(ctx); h == nil {
		return nil, nil, false, nil
	}
	if err := h.seen(ctx, nil); err != nil {
		return nil, nil, false, err
	}
	if own, isOwn := unwrap(h).(*statefulServerSession); isOwn {
		b = own.belongings.Load()
	}
	return h, b, b != nil, nil
}

// acquireBelongings makes them for a session that a call has. From then on it holds
// something.
func (s *statefulServerSession) acquireBelongings(h *handle) (*belongings, error) {
	lease, home := h.leaseOn(s), s.home.Load()
	if home == nil {
		return nil, errOver
	}
	fresh := &belongings{things: home.things.NewSet(s, lease.Source()), reporter: h.m.reporter, ref: newHandleRef()}
	fresh.seals = home.handles.sealer(fresh.ref)
	home.handles.add(fresh.ref, s) // lest the session ends before it is there
	b, mine := s.adopt(fresh)
	if !mine {
		home.handles.remove(fresh.ref)
	}
	switch {
	case b == nil:
		return nil, errOver // it has ended under the call
	case mine:
		lease.Hold()
	}
	return b, nil
}

// adopt gives the session its belongings, unless it has some, or has ended.
func (s *statefulServerSession) adopt(fresh *belongings) (b *belongings, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b = s.belongings.Load(); b != nil || s.sealed {
		return b, false
	}
	s.belongings.Store(fresh)
	s.held = true
	return fresh, true
}

// release closes what belongs to a session that has ended.
func (s *statefulServerSession) release() error {
	b := s.belongings.Load()
	if b == nil {
		return nil
	}
	s.home.Load().handles.remove(b.ref)
	return b.things.Close()
}
