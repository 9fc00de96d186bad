// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// StatelessSessionManagerOption changes a setting of
// [NewStatelessServerSessionManager].
type StatelessSessionManagerOption func(*statelessConfig)

type statelessConfig struct {
	keys       *Keyring
	protects   bool // keys were given
	audience   string
	cookie     string
	idle       time.Duration
	lifetime   time.Duration
	skew       time.Duration
	maxCookie  int
	limits     OptionLimits
	plainUntil time.Time
	plain      *Schema
	revoked    int
	share      func(context.Context, Revocation) error
	cache      int64
	sealedOnly []string // options that were given and need keys
}

// The defaults of [NewStatelessServerSessionManager].
const (
	// DefaultClockSkew is that of [WithClockSkew].
	DefaultClockSkew = 10 * time.Second
	// DefaultMaxCookie is that of [WithMaxCookie], in bytes.
	DefaultMaxCookie = 4096
	// DefaultMaxRevoked is that of [WithRevocation].
	DefaultMaxRevoked = 1 << 16
	// DefaultTokenCache is that of [WithTokenCache], in bytes.
	DefaultTokenCache = 16 << 20

	defaultIdle     = time.Hour
	defaultLifetime = 24 * time.Hour
)

func newStatelessConfig(opts []StatelessSessionManagerOption) *statelessConfig {
	c := &statelessConfig{
		cookie:    StatelessSessionCookieName,
		idle:      defaultIdle,
		lifetime:  defaultLifetime,
		skew:      DefaultClockSkew,
		maxCookie: DefaultMaxCookie,
		revoked:   DefaultMaxRevoked,
		cache:     DefaultTokenCache,
	}
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
	return c
}

// minCookie is the least that [WithMaxCookie] takes: an empty session of a principal
// with a long name must fit.
const minCookie = 512 // bytes

func (c *statelessConfig) check() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch {
	case c.protects && (c.keys == nil || c.keys.ring.Empty()):
		refuse("a ring without keys: make one with NewKeyring, and look at its error")
	case c.keys == nil && len(c.sealedOnly) > 0:
		refuse("%s: these need WithKeyring", strings.Join(c.sealedOnly, ", "))
	}
	if !isToken(c.cookie) || c.cookie == StatefulSessionCookieName {
		refuse("%q cannot be the name of the cookie", c.cookie)
	}
	if c.idle < 0 || c.lifetime < 0 || c.skew < 0 {
		refuse("an idle timeout of %s, a lifetime of %s and a clock skew of %s: none may be below zero", c.idle, c.lifetime, c.skew)
	}
	if c.idle == 0 && c.lifetime == 0 {
		refuse("neither an idle timeout nor a lifetime: a token would be good for ever")
	}
	if c.maxCookie < minCookie {
		refuse("cookies of %d bytes at most: use %d or more", c.maxCookie, minCookie)
	}
	if !c.plainUntil.IsZero() && c.plain == nil {
		refuse("tokens that are not sealed, of any options: say which by a Schema")
	}
	if c.revoked < 1 {
		refuse("at most %d sessions that were closed: use one or more, or nothing that is closed would be", c.revoked)
	}
	if c.cache < 0 {
		refuse("a cache of %d bytes: use zero for none", c.cache)
	}
	return errors.Join(errs...)
}

func sealedOption(name string, set func(*statelessConfig)) StatelessSessionManagerOption {
	return func(c *statelessConfig) {
		c.sealedOnly = append(c.sealedOnly, name)
		set(c)
	}
}

// WithKeyring has sessions be sealed: their tokens are encrypted and authenticated
// (AES-256-GCM, a key for each token derived from the current one of the ring by HKDF,
// RFC 5869), belong to a principal, and end. Tokens that are not sealed are refused, see
// [WithPlainTokensUntil]. Default: no keys, and Apache's format. A ring that is nil or
// has no keys is refused, lest tokens are not protected that should be.
func WithKeyring(k *Keyring) StatelessSessionManagerOption {
	return func(c *statelessConfig) { c.keys, c.protects = k, true }
}

// WithAudience names the service that the tokens are for. What was sealed for one
// audience is worth nothing to another one that has the same keys. Default: empty.
func WithAudience(name string) StatelessSessionManagerOption {
	return sealedOption("WithAudience", func(c *statelessConfig) { c.audience = name })
}

// WithTokenCookie names the cookie of stateless sessions. A sealed token is worth
// something only in the cookie for which it was sealed. Of another name the interceptors
// know only if the manager is not wrapped in one that is not of this package. Default, and
// empty: [StatelessSessionCookieName].
func WithTokenCookie(name string) StatelessSessionManagerOption {
	return func(c *statelessConfig) { c.cookie = cmp.Or(name, StatelessSessionCookieName) }
}

// WithTokenTimeouts sets when sealed sessions end: unused for the idle timeout, counted
// from the end of the last call, and at the lifetime, counted from the session's
// beginning. Zero: no such end; one of them must be. Default: an hour, a day.
//
// They never end early. The client is sent a token with the time of its last use at most
// once in a sixteenth of the idle timeout (if there is none, of the lifetime): so much, and
// the [WithClockSkew], late they may idle out, or end with the proof of their principal. A
// call that takes longer than the idle timeout keeps its session if the client reads
// trailers of calls, see the package's documentation.
func WithTokenTimeouts(idle, lifetime time.Duration) StatelessSessionManagerOption {
	return sealedOption("WithTokenTimeouts", func(c *statelessConfig) { c.idle, c.lifetime = idle, lifetime })
}

// WithClockSkew sets by how much the clocks of replicas may differ. So much later do
// tokens end, and a token from further in the future is refused. Default:
// [DefaultClockSkew].
func WithClockSkew(d time.Duration) StatelessSessionManagerOption {
	return sealedOption("WithClockSkew", func(c *statelessConfig) { c.skew = d })
}

// WithMaxCookie sets how many bytes the cookie of a session has at most, its name
// counted. An option beyond that is not set: the error wraps [ErrOptionLimit], and names
// the option. A cookie that is larger counts as none that the server knows. Default:
// [DefaultMaxCookie], which is what RFC 6265 (section 6.1) has clients support, what
// .NET takes, and half of the 8 KiB that C++ and Java take of all headers together. It
// must be at least 512.
func WithMaxCookie(bytes int) StatelessSessionManagerOption {
	return func(c *statelessConfig) { c.maxCookie = bytes }
}

// WithTokenOptions bounds the options of each session, as [WithOptionLimits] does for
// stateful ones. As a rule [WithMaxCookie] comes first. Default: see [OptionLimits].
func WithTokenOptions(l OptionLimits) StatelessSessionManagerOption {
	return func(c *statelessConfig) { c.limits = l }
}

// WithPlainTokensUntil has tokens of Apache's format be taken until then, as the
// beginning of a session: for a server that had none but those. Of their options those
// count that are declared by the schema, not read-only, and of which it accepts the
// value, as if the client had set them; OnChange is not asked. The session is the
// caller's, and sealed by the answer.
//
// Anybody can make up such a token, and until then replay it, also after its session
// was closed. Default: they are refused.
func WithPlainTokensUntil(t time.Time, s *Schema) StatelessSessionManagerOption {
	return sealedOption("WithPlainTokensUntil", func(c *statelessConfig) { c.plainUntil, c.plain = t, s })
}

// WithRevocation sets how many closed sessions are remembered at most, each for as long
// as its tokens could live, and who else is told. When there are as many, those of the
// principal that has closed most are put together: all sessions of that principal that
// had begun by then are closed. Anonymous sessions, which would all be of one, take at
// most half of the places. If there is no place, CloseSession fails, with
// RESOURCE_EXHAUSTED, and the session stays; but no login fails for the anonymous session
// before it.
//
// share, if it is not nil, has other replicas learn that a session is closed; they pass
// it to [StatelessServerSessionManager.Revoke]. It is called with the context of the
// call that closes the session, which waits for it, or if that is closed when its call
// has ended, see CloseSession of the manager, without one that ends. If it fails, so does
// that call, and the session stays. Default: [DefaultMaxRevoked], nobody.
func WithRevocation(maximum int, share func(context.Context, Revocation) error) StatelessSessionManagerOption {
	return sealedOption("WithRevocation", func(c *statelessConfig) { c.revoked, c.share = maximum, share })
}

// WithTokenCache sets how many bytes of memory the server uses, about, to remember what
// tokens say. What it remembers is worth nothing once the token is. Zero: it opens each
// token on each call. Default: [DefaultTokenCache].
//
// The first token starts two goroutines, which [StatelessServerSessionManager.Close]
// ends.
func WithTokenCache(bytes int64) StatelessSessionManagerOption {
	return sealedOption("WithTokenCache", func(c *statelessConfig) { c.cache = bytes })
}
