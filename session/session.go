// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"

	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
)

// The interfaces are Apache's own types, so that sessions, stores, factories
// and managers written for either package fit both.
type (
	// ServerSession is a container of named option values. See
	// [apache.ServerSession].
	ServerSession = apache.ServerSession
	// ServerSessionManager creates, finds and closes the sessions of calls. See
	// [apache.ServerSessionManager].
	//
	// GetSession says that there is none with [ErrNoSession]; the middleware
	// then asks CreateSession. Any other error fails the call's session.
	ServerSessionManager = apache.ServerSessionManager
	// SessionFactory makes new, empty sessions. See [apache.SessionFactory].
	SessionFactory = apache.SessionFactory
	// SessionStore keeps sessions under their tokens. See
	// [apache.SessionStore].
	//
	// A store says that it has no such session with a nil session, with an
	// error that wraps [ErrNoSession] or [layover.ErrNotFound], with the gRPC
	// status NotFound, or with the words of Apache's own store. Any other error
	// is a failure, and never silently replaces the client's session.
	SessionStore = apache.SessionStore
)

// ErrNoSession says that a call has no session. It is Apache's variable.
var ErrNoSession = apache.ErrNoSession

// NewSessionContext returns ctx with the session in it. Apache's
// GetSessionFromContext finds it there, too.
func NewSessionContext(ctx context.Context, session ServerSession) context.Context {
	return apache.NewSessionContext(ctx, session)
}

// fromContext returns what is in the context.
func fromContext(ctx context.Context) (ServerSession, error) {
	return apache.GetSessionFromContext(ctx)
}

// GetSessionFromContext returns the session of the call that ctx belongs to.
// Under [NewServerMiddleware] that may be one that does not exist yet, and comes
// to life when something is put into it; see [Lookup] and [Ensure].
//
// The error is [ErrNoSession] itself outside the middleware. Inside, it says
// why the call could get no session: it carries a gRPC status, fit to be
// returned to the client, and matches [layover.ErrFull], [layover.ErrLeaseLimit],
// [layover.ErrDraining] or [layover.ErrShutdown] where that is the cause.
func GetSessionFromContext(ctx context.Context) (ServerSession, error) {
	if s, err := fromContext(ctx); err == nil {
		if h := handleFrom(ctx); h != nil {
			if err := h.hidden(ctx); err != nil {
				return nil, err
			}
			if l := h.live.Load(); l != nil && s != ServerSession(h) {
				return l.session, nil // Begin may have replaced what the context has
			}
		}
		return s, nil
	}
	if c := callFrom(ctx); c != nil && c.err != nil {
		return nil, c.err
	}
	if h := handleFrom(ctx); h != nil && h.live.Load() != nil && !h.isGreeting() { // Begin has made it, in a handshake
		return h, h.hidden(ctx)
	}
	return nil, ErrNoSession
}
