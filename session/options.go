// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
)

// MiddlewareOption changes a setting of [NewServerMiddleware]. Of
// [NewServerSessionMiddleware] only [WithLogger] does.
type MiddlewareOption func(*middlewareConfig)

type middlewareConfig struct {
	logger           *slog.Logger
	carriers         []Carrier
	policy           DeadTokenPolicy
	window           time.Duration
	deadCode         codes.Code
	key              []byte
	requireTLS       bool
	strip            bool
	lazy             bool
	cancels          bool
	principal        PrincipalFunc
	binds            bool // principal is the owner's
	alarm            func(SecurityEvent)
	quota            int
	whenOver         WhenOver
	interceptorsOnly []string // options that were given
}

func newMiddlewareConfig(opts []MiddlewareOption) *middlewareConfig {
	c := &middlewareConfig{
		logger:   slog.Default(),
		carriers: []Carrier{Cookie("")},
		policy:   TellDead,
		window:   DefaultTellWindow,
		deadCode: codes.NotFound,

		principal: DefaultPrincipal,
	}
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	return c
}

// DefaultTellWindow is the default of [WithTellWindow].
const DefaultTellWindow = 30 * time.Second

// minKey is how long a key is at least, in bytes.
const minKey = 16

func (c *middlewareConfig) check() error {
	errs := []error{checkCarriers(c.carriers)}
	if c.policy > StrictDead {
		errs = append(errs, fmt.Errorf("%s is no policy for dead tokens", c.policy))
	}
	if c.window <= 0 {
		errs = append(errs, fmt.Errorf("a tell window of %s: use more than zero, or RenewDead to tell nothing", c.window))
	}
	if c.deadCode == codes.OK || c.deadCode > codes.Unauthenticated {
		errs = append(errs, fmt.Errorf("the code %s for dead tokens is no error", c.deadCode))
	}
	if c.key != nil && len(c.key) < minKey {
		errs = append(errs, fmt.Errorf("a token key of %d bytes: use %d random ones or more", len(c.key), minKey))
	}
	if c.quota < 0 || c.whenOver > EvictOldest {
		errs = append(errs, fmt.Errorf("a maximum of %d sessions of a principal, %s: use zero for none", c.quota, c.whenOver))
	}
	return errors.Join(errs...)
}

// WithLogger sets where failures are logged, with everything that is kept from
// clients, at level Error, and dead tokens, at level Info; at most one line a
// second for each gRPC code. The handler runs on the call's goroutine. Default:
// [slog.Default]; nil: nowhere.
func WithLogger(l *slog.Logger) MiddlewareOption {
	return func(c *middlewareConfig) {
		if l == nil {
			l = slog.New(slog.DiscardHandler)
		}
		c.logger = l
	}
}

// interceptorOption is an option that only interceptors can fulfil.
func interceptorOption(name string, set func(*middlewareConfig)) MiddlewareOption {
	return func(c *middlewareConfig) {
		c.interceptorsOnly = append(c.interceptorsOnly, name)
		set(c)
	}
}

// WithCarriers sets how calls say which session they mean, the preferred way
// first: a new session gets the first carrier that the call can use. A call that
// names different sessions, by different carriers, is refused with
// INVALID_ARGUMENT. Default: [Cookie] alone. All but the default need a
// [StatefulServerSessionManager], and all but [Cookie] one whose sessions are of
// this package's own type.
func WithCarriers(c ...Carrier) MiddlewareOption {
	return interceptorOption("WithCarriers", func(m *middlewareConfig) { m.carriers = c })
}

// DeadTokenPolicy says what becomes of a call with the token of a session that
// has ended.
type DeadTokenPolicy uint8

const (
	// TellDead refuses calls whose session held something that is gone now, an
	// option or a resource: NOT_FOUND (see [WithDeadTokenCode]), a message that
	// begins with [LostPrefix] and an [errdetails.ErrorInfo]. Otherwise the next
	// statement of a client that had set a schema would run in the default one.
	//
	// Every call is refused, for a while after the first one (see
	// [WithTellWindow]): retries and background calls must not use up the only
	// warning. SetSessionOptions, CloseSession and a handshake show that the
	// client knows, and are let through; so is whatever comes after them (but a
	// handshake that an interceptor outside of this one answers is not seen). Without
	// them, the first call after that while starts clean, since many clients
	// never drop a cookie. When the client has closed the session itself, only
	// time counts: its cookie was deleted, and whoever still sends it was under
	// way when that happened.
	//
	// If the session never held anything, nothing is lost, and nothing is said.
	TellDead DeadTokenPolicy = iota
	// RenewDead treats a dead token like none, as Apache's package does. Cookies
	// of closed sessions are not deleted, as the deletion might meet their
	// successor.
	RenewDead
	// StrictDead refuses every call with a token that names no live session,
	// garbage included, for as long as the client sends it. Only CloseSession
	// succeeds, and has the client delete its cookie. Clients that keep a dead
	// cookie are locked out until they connect anew.
	StrictDead
)

// String returns "tell", "renew" or "strict".
func (p DeadTokenPolicy) String() string {
	switch p {
	case TellDead:
		return "tell"
	case RenewDead:
		return "renew"
	case StrictDead:
		return "strict"
	}
	return fmt.Sprintf("DeadTokenPolicy(%d)", uint8(p))
}

// WithDeadTokens sets what becomes of calls with a dead token. Default:
// [TellDead].
func WithDeadTokens(p DeadTokenPolicy) MiddlewareOption {
	return interceptorOption("WithDeadTokens", func(c *middlewareConfig) { c.policy = p })
}

// WithTellWindow sets for how long [TellDead] refuses calls after the first
// telling. Default: [DefaultTellWindow]; it must be above zero.
func WithTellWindow(d time.Duration) MiddlewareOption {
	return interceptorOption("WithTellWindow", func(c *middlewareConfig) { c.window = d })
}

// WithDeadTokenCode sets the gRPC code that tells of a dead token. Default:
// NOT_FOUND, as Flight.proto has it after CloseSession. Servers whose clients
// know how to log in again use UNAUTHENTICATED.
func WithDeadTokenCode(code codes.Code) MiddlewareOption {
	return interceptorOption("WithDeadTokenCode", func(c *middlewareConfig) { c.deadCode = code })
}

// WithTokenKey sets the key, of 16 random bytes or more, under which tokens are
// authenticated and the IDs of principals' sessions are made. With the same key
// in all processes, a server recognises the tokens of the others and of itself
// before a restart beyond doubt. Default, and nil: a random key; then a token of
// an earlier process is recognised by its form alone.
func WithTokenKey(key []byte) MiddlewareOption {
	return interceptorOption("WithTokenKey", func(c *middlewareConfig) { c.key = bytes.Clone(key) })
}

// WithPrincipal sets who makes a call, of which sessions by [Cookie] are made
// the property: for any other principal, and for an anonymous caller, the token
// is one that never was, and a session that an anonymous caller made is not a
// principal's. Sessions of one principal count as of one source, see
// [layover.Origin], and end no later than the proof. An error refuses the calls
// that bring a cookie or need a session. Default, and nil: [DefaultPrincipal].
//
// The binding is kept by stores of this package, and by the tokens where this
// package makes them, see [WithTokenKey]; if both the store and the IDs are
// somebody else's, it is theirs to keep.
func WithPrincipal(who PrincipalFunc) MiddlewareOption {
	return interceptorOption("WithPrincipal", func(c *middlewareConfig) {
		if c.principal, c.binds = who, who != nil; who == nil {
			c.principal = DefaultPrincipal
		}
	})
}

// WhenOver says what becomes of a new session of a principal that has as many as
// it may have.
type WhenOver uint8

const (
	// RefuseNewest refuses the call that needs another session:
	// RESOURCE_EXHAUSTED, SESSION_STORE_FULL.
	RefuseNewest WhenOver = iota
	// EvictOldest ends the principal's session that would be the first to leave:
	// those that nobody has come back to before others, the least recently used
	// first. If all are in use, the newest is refused.
	EvictOldest
)

// String returns "refuse newest" or "evict oldest".
func (w WhenOver) String() string {
	switch w {
	case RefuseNewest:
		return "refuse newest"
	case EvictOldest:
		return "evict oldest"
	}
	return fmt.Sprintf("WhenOver(%d)", uint8(w))
}

// WithMaxPerPrincipal sets how many sessions one principal may have at a time, and
// what becomes of one more. They are counted in the store, see
// [layover.Origin].Quota, so that nothing can be left of those that have ended.
// Anonymous callers have no such maximum. It needs a [LeaseStore] that heeds the
// quota, as those of this package do. Default, and zero: no maximum.
func WithMaxPerPrincipal(n int, w WhenOver) MiddlewareOption {
	return interceptorOption("WithMaxPerPrincipal", func(c *middlewareConfig) { c.quota, c.whenOver = n, w })
}

// WithSecurityEvents sets a function that is told of each [SecurityEvent]. It
// runs on the goroutine of the call, which waits for it. Default, and nil: nobody
// but the log is told, at level Warn.
func WithSecurityEvents(tell func(SecurityEvent)) MiddlewareOption {
	return interceptorOption("WithSecurityEvents", func(c *middlewareConfig) { c.alarm = tell })
}

// WithTLSRequired refuses calls that bring a session's token, or need one, over
// a connection that is not encrypted: FAILED_PRECONDITION. What counts is
// [credentials.CheckSecurityLevel]; a proxy that ends TLS before the server does
// not. Default: one warning in the log when a token leaves for another host in
// the clear.
func WithTLSRequired() MiddlewareOption {
	return interceptorOption("WithTLSRequired", func(c *middlewareConfig) { c.requireTLS = true })
}

// WithTokensStripped takes session cookies and the headers of [Header] out of
// the incoming metadata that handlers see, so that a handler which forwards it
// does not hand out its clients' sessions. Other cookies stay. Interceptors
// outside of this one see all of it.
func WithTokensStripped() MiddlewareOption {
	return interceptorOption("WithTokensStripped", func(c *middlewareConfig) { c.strip = true })
}

// WithLazySessions promises that handlers do not expect sessions of a type of
// their own in the context, but ask [As] for them. Then a session is made only
// when something is put into it, as it is anyway if all are of this package's
// types.
func WithLazySessions() MiddlewareOption {
	return interceptorOption("WithLazySessions", func(c *middlewareConfig) { c.lazy = true })
}

// WithCancelOnKill has the context of a handler be canceled when the session of its
// call is killed, see [ExpiringSessionStore.Kill], or is closed under it by a shutdown
// that runs out of time. Its cause is a [*layover.EndedError]. The client of a call that
// fails for that is told that its session is lost. Other ends let calls go on. What
// produces the batches of a DoGet must send the error of its context before it closes
// its channel: arrow-go takes a channel that is closed for the end of the result.
//
// Default: calls go on. It costs each call about a microsecond. Only sessions in an
// [ExpiringSessionStore] have contexts.
func WithCancelOnKill() MiddlewareOption {
	return interceptorOption("WithCancelOnKill", func(c *middlewareConfig) { c.cancels = true })
}
