// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
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

// owned is what a call needs of its session to use what belongs to it.
type owned struct {
	h *handle
	l *held
	*belongings
}

// belonging returns what belongs to the session of a call, with that. If the call has
// none, one is made. The error is fit for the client.
func belonging(ctx context.Context) (o owned, err error) {
	h, err := usable(ctx)
	if err != nil {
		return o, err
	}
	if _, err = h.ensure(true); err != nil {
		return o, h.overOr(err)
	}
	l := h.live.Load()
	own, ok := l.session.(*statefulServerSession)
	switch {
	case !ok:
		return o, errNoBelongings
	case h.closed.Load(): // by this call; others go on until they have ended
		return o, errOver
	}
	b := own.belongings.Load()
	if b == nil {
		b, err = own.acquireBelongings(h, l)
	} else if own.isSealed() { // it was killed
		err = errOver
	}
	return owned{h, l, b}, err
}

// usable returns the handle of a call that goes on, if its session can have anything,
// and the session is not hidden from whoever the handler knows to call.
func usable(ctx context.Context) (*handle, error) {
	h := handleFrom(ctx)
	switch {
	case h == nil && callFrom(ctx) == nil:
		return nil, ErrNoSession
	case h == nil || h.m.store == nil:
		return nil, errNoBelongings
	case h.isOver():
		return nil, h.m.refusal(h.base, ErrCallEnded)
	case h.isGreeting():
		return nil, ErrNoSession
	}
	return h, h.seen(ctx, nil)
}

// isGreeting reports whether the call is a handshake that has begun no session. It has
// none then, whatever its cookies say.
func (h *handle) isGreeting() bool {
	return h.is(func(r *rare) bool { return r.greets })
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
func existing(ctx context.Context) (o owned, ok bool, _ error) {
	h, err := usable(ctx)
	if err != nil {
		return o, false, err
	}
	l := h.live.Load()
	if l == nil || h.closed.Load() {
		return o, false, nil
	}
	own, ok := l.session.(*statefulServerSession)
	if !ok {
		return o, false, errNoBelongings
	}
	b := own.belongings.Load()
	return owned{h, l, b}, b != nil, nil
}

// acquireBelongings makes them for a session that a call has. From then on it holds
// something.
func (s *statefulServerSession) acquireBelongings(h *handle, l *held) (*belongings, error) {
	lease, home := l.leased(), s.home.Load()
	if home == nil {
		return nil, errOver
	}
	fresh := &belongings{things: home.things.NewSet(s, lease.Source()), reporter: h.m.reporter, ref: newHandleRef()}
	fresh.seals = home.handles.sealer(fresh.ref)
	home.handles.add(fresh.ref, s) // lest the session ends before it is there
	b, mine := s.adopt(fresh, lease)
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
func (s *statefulServerSession) adopt(fresh *belongings, lease *layover.Lease[resident]) (b *belongings, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b = s.belongings.Load(); b != nil || s.sealed {
		return b, false
	}
	s.belongings.Store(fresh)
	s.held = true
	fresh.things.SetSource(lease.Source()) // it may have been given to somebody since they were made
	return fresh, true
}

// isSealed reports whether the session is torn down.
func (s *statefulServerSession) isSealed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.sealed
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
