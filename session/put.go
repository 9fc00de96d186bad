// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
)

// put sets an option to a copy of value, which is not nil.
func (h *handle) put(name string, value *flight.SessionOptionValue) error {
	if err := h.foresee(name, value); err != nil {
		return err
	}
	s, err := h.ensure(true)
	if err != nil {
		return err
	}
	if err := h.late(); err != nil {
		return err
	}
	return h.putInto(s, name, value)
}

// foresee returns why an option would be refused as the first one of a session:
// before there is a session, and a cookie.
func (h *handle) foresee(name string, value *flight.SessionOptionValue) error {
	most := h.m.limits()
	if most == nil || h.live.Load() != nil || h.closed.Load() {
		return nil
	}
	if m := h.m.stateless; m != nil {
		who, _ := h.caller() // if that cannot be told, there is no session either
		return m.admitsFirst(who.Name, name, value)
	}
	return most.checkFirst(name, value)
}

// putIn is put into what the handler's context has: the handle, or a session of a
// foreign type. A value without content erases the option.
func (h *handle) putIn(s ServerSession, name string, value *flight.SessionOptionValue) error {
	_, ours := s.(*handle)
	switch {
	case value.GetOptionValue() != nil && ours:
		return h.put(name, value)
	case value.GetOptionValue() != nil:
		return h.putInto(s, name, value)
	}
	if err := h.late(); err != nil {
		return err
	}
	if ours {
		h.EraseSessionOption(name)
	} else {
		h.erase(s, name)
	}
	if travels, ok := unwrap(s).(*StatelessServerSession); ok && travels.wasRenewed() {
		return errNotKept
	}
	return nil
}

// late returns ErrCallEnded if the call has, and with it what it could write back.
func (h *handle) late() error {
	if h.m.own == nil && h.m.stateless == nil || h.m.store != nil || !h.isOver() {
		return nil
	}
	return ErrCallEnded
}

// putInto is put into a session.
func (h *handle) putInto(s ServerSession, name string, value *flight.SessionOptionValue) error {
	if travels, ok := s.(*StatelessServerSession); ok {
		err := travels.keep(name, value)
		if err == nil && (travels.wasRenewed() || travels.isLost() && !h.closed.Load() && h.m.config.policy != RenewDead) {
			err = errNotKept
		}
		return err
	}
	own, ok := s.(*statefulServerSession)
	if !ok {
		return h.putForeign(s, name, value)
	}
	known, err := own.keep(name, value, h.m.limits(), h.leaseOn(own))
	if err != nil {
		return err
	}
	if !known && !h.closed.Load() && h.m.config.policy != RenewDead {
		return errNotKept // the next call would be told of nothing
	}
	return nil
}

// putForeign is put into a session of a foreign type.
func (h *handle) putForeign(s ServerSession, name string, value *flight.SessionOptionValue) error {
	if most := h.m.limits(); most != nil {
		return h.tally().put(most, s, name, value)
	}
	s.SetSessionOption(name, value)
	return nil
}

// tally returns what the call knows of options in sessions of a foreign type.
func (h *handle) tally() *tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.more()
	if r.tally == nil {
		r.tally = new(tally)
	}
	return r.tally
}

// errNotKept says that an option was set in a session that had ended, and had
// held nothing before.
var errNotKept = &callError{code: codes.Internal, reason: "SESSION_NOT_SAVED", text: "the session has ended, and with it an option that the call has set"}

func (h *handle) erase(s ServerSession, name string) {
	if own, ok := s.(*statefulServerSession); ok {
		own.erase(name, h.leaseOn(own))
		return
	}
	h.tally().erase(s, name)
}

// leaseOn returns the call's lease on a session in a store of this package's; nil:
// it has none.
func (h *handle) leaseOn(own *statefulServerSession) *layover.Lease[resident] {
	l := h.live.Load()
	if l == nil {
		return nil
	}
	if leased := l.leased(); leased != &l.lease || l.other == nil {
		return leased
	}
	if r := h.rare.Load(); r != nil {
		return r.rec.leaseOn(own)
	}
	return nil
}
