// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import "errors"

// complete settles the session when the handler has returned, and returns the
// error of the call.
func (h *handle) complete(err error) error {
	h.runs = false
	err = h.killed(err)
	failure := h.end()
	if failure != nil {
		e := h.m.refusal(h.base, failure)
		if err == nil {
			err = e
		}
	}
	settle := h.settle
	if h.isBrief() {
		settle = h.dismiss
	}
	if unsaved := settle(); unsaved != nil {
		e := h.m.reporter.report(h.base, unwrap(h), "layover: a call's session could not be saved", notSaved(unsaved))
		if err == nil {
			err = e
		}
	}
	return err
}

// end has nobody change anything about the call's session any more, and returns why
// the call fails by itself.
func (h *handle) end() (failure error) {
	h.mu.Lock()
	h.ended = true
	r := h.rare.Load()
	if r == nil {
		h.mu.Unlock()
		return nil
	}
	failure = r.failure
	wait := r.renewal()
	h.mu.Unlock()
	if wait != nil { // by a goroutine that the handler has not waited for
		<-wait
	}
	return failure
}

// dismiss ends a session that only the handler's expectations have called for.
func (h *handle) dismiss() (err error) {
	defer contain(&err)
	if l := h.live.Load(); l != nil && l.fresh {
		return h.m.remove(l)
	}
	return h.settle()
}

// settle does what is left to do about sessions that the handler may have
// changed or closed without the handle.
func (h *handle) settle() (err error) {
	defer contain(&err)
	l := h.live.Load()
	if l == nil || h.m.store != nil && isOwn(l.session) {
		return nil
	}
	c, copies := l.other.(*copied)
	switch {
	case h.closed.Load():
		return nil
	case l.session.Closed():
		if h.m.store != nil && !h.m.store.has(l.session) || h.m.stateless.seals() && h.m.stateless.isOver(l.session) {
			return nil // somebody else ended it
		}
		return h.discard(l)
	case copies:
		return c.save(h.base)
	case h.m.stateless != nil:
		return h.announce()
	case h.m.own == nil:
		return errors.Join(h.rare.Load().rec.save(h.base), h.announce())
	}
	return nil
}

// release gives all leases back. It is the last that is done for a call, however
// that ends.
func (h *handle) release() {
	if h.runs { // nobody gets the error of a call that panics, but its session is settled
		_ = h.complete(nil)
	}
	var err error
	r := h.rare.Load() // nobody adds to it any more
	if r != nil {
		h.leave(r)
	}
	if l := h.live.Load(); l != nil {
		err = l.release()
	}
	if r != nil {
		err = errors.Join(err, r.release())
	}
	if err != nil {
		_ = h.m.reporter.report(h.base, unwrap(h), "layover: a call's session could not be released", err) // too late for the client
	}
}

// leave gives back what the call uses of its sessions, before these themselves.
func (h *handle) leave(r *rare) {
	h.mu.Lock() // goroutines that the handler has left behind may look
	uses := r.uses
	r.uses = nil
	h.mu.Unlock()
	for _, l := range uses {
		l.Release()
	}
	r.disconnect()
}

// release gives back what only few calls have.
func (r *rare) release() (err error) {
	for _, l := range r.former {
		err = errors.Join(err, l.release())
	}
	r.former = nil
	if r.rec != nil {
		err = errors.Join(err, r.rec.end())
	}
	return err
}
