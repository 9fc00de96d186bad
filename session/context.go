// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
)

// Context returns the context of the session of the call that ctx belongs to: for
// what goes on as long as the session does, such as a transaction of database/sql.
// It is canceled before the session is closed, with a [*layover.EndedError] as its
// cause, which says why. It is made when it is first asked for, and has no values.
//
// Errors: [ErrNoSession] if the call has none; that the principal is not the
// session's; and one that wraps [errors.ErrUnsupported] where [Resource] has it.
func Context(ctx context.Context) (context.Context, error) {
	h, err := usable(ctx)
	if err != nil {
		return nil, err
	}
	l := h.live.Load()
	if l == nil {
		return nil, ErrNoSession
	}
	return l.leased().Context(), nil
}

// cancelable returns the context of the handler, which the end of its session
// cancels, if that is wanted.
func (h *handle) cancelable(ctx context.Context) context.Context {
	if !h.m.config.cancels {
		return ctx
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.more()
	if r.ctx == nil {
		r.ctx, r.cancel = context.WithCancelCause(ctx)
		if l := h.live.Load(); l != nil && !r.greets {
			h.watch(l)
		}
	}
	return r.ctx
}

// watch has the end of a session cancel the call that has it by now. The caller holds
// the mutex.
func (h *handle) watch(l *held) {
	r := h.rare.Load()
	if r == nil || r.cancel == nil {
		return
	}
	if r.unwatch != nil {
		r.unwatch()
	}
	end, cancel := l.leased().Context(), r.cancel
	r.unwatch = context.AfterFunc(end, func() { cancel(context.Cause(end)) })
}

// disconnect undoes cancelable, once the handler has returned.
func (r *rare) disconnect() {
	if r.cancel != nil {
		if r.unwatch != nil {
			r.unwatch()
		}
		r.cancel(nil)
	}
}

// killed returns what the client is told if the end of its session has canceled a call
// that fails; else err.
func (h *handle) killed(err error) error {
	r := h.rare.Load()
	if err == nil || r == nil || r.cancel == nil || h.isGreeting() {
		return err
	}
	l, ended := h.live.Load(), (*layover.EndedError)(nil)
	if l == nil || !errors.As(context.Cause(l.leased().Context()), &ended) { // which may not have been passed on yet
		return err
	}
	code := h.m.config.deadCode
	if ended.Reason == layover.ReasonShutdown {
		code = codes.Unavailable
	}
	return h.m.lost(h.base, deadToken{mark: ended.Fingerprint, why: ended.Reason.String()}, code)
}
