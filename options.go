// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"
)

// Defaults of the options.
const (
	DefaultIdleTimeout         = time.Hour
	DefaultLifetime            = 24 * time.Hour
	DefaultMaxSessions         = 65536
	DefaultEmptyTimeout        = time.Minute      // unconfirmed, holds nothing
	DefaultHoldingTimeout      = 30 * time.Minute // unconfirmed, holds something
	DefaultMaxBytes            = 256 << 20
	DefaultMaxLeases           = 256 // of one session
	DefaultSourceShare         = 0.5
	DefaultClosers             = 16
	DefaultHungClose           = 30 * time.Second
	DefaultRemembered          = 16384
	maxHungClosers             = 1024    // hung Close calls whose goroutines are replaced
	maxQueuedEvents            = 1 << 18 // about 30 MB when full
	never                      = time.Duration(math.MaxInt64)
	jitterShare                = 10 // the lifetime ends up to 1/jitterShare early
	minFingerprintKey          = 16
	fewUnconfirmed, fewDivisor = 8, 64
	resolutionShare            = 256                   // the clock's part of the shortest timeout
	coarseFrom                 = 32 * time.Millisecond // a finer clock would tick too often, and often too late
	maxResolution              = time.Second
	marginShare                = 8
	mostRemembered             = 1 << 30
	asLifetime                 = time.Duration(math.MinInt64)
)

// WhenFull says what an insert does when the store holds its maximum.
type WhenFull uint8

// What an insert does when the store is full. Expired sessions always leave
// first, and a session with a lease never does. If nobody may leave, the
// insert fails with [ErrFull].
const (
	// EvictUnconfirmed, the default, evicts unconfirmed sessions first, those
	// that hold nothing before those that do, oldest first; then confirmed ones,
	// least recently used first. While hardly any unconfirmed ones could leave
	// (fewer than the larger of 8 and a 64th of the maximum, those found in use
	// not counted), room is made among the confirmed, so that newcomers do not
	// merely push out each other.
	EvictUnconfirmed WhenFull = iota
	// KeepConfirmed evicts only unconfirmed sessions and fails with [ErrFull]
	// when all are confirmed or busy.
	KeepConfirmed
	// EvictLRU evicts the least recently used session, confirmed or not. A
	// flood of clients that never come back pushes everybody else out. Here as
	// for confirmed sessions the order is approximate: one that was used since
	// it was last passed over gets a second chance.
	EvictLRU
)

// String returns the name of the constant.
func (w WhenFull) String() string {
	switch w {
	case EvictUnconfirmed:
		return "EvictUnconfirmed"
	case KeepConfirmed:
		return "KeepConfirmed"
	case EvictLRU:
		return "EvictLRU"
	}
	return fmt.Sprintf("WhenFull(%d)", uint8(w))
}

// Option changes one setting of a store, in [New] or, while the store runs, in
// [Store.Reconfigure]. Settings are checked together, after all options have
// been applied. Of two options for one setting, the later one holds.
type Option func(*config)

// WithIdleTimeout sets how long a session may go unused before it ends. The
// clock starts when its last lease is released, and again at every touch.
// Default [DefaultIdleTimeout]; zero: sessions do not idle out.
func WithIdleTimeout(d time.Duration) Option { return func(c *config) { c.idle = d } }

// WithLifetime sets how long after its creation a session ends, however much
// it is used. Each session's lifetime is shortened by a random part of up to a
// tenth, so that sessions that were created together do not end together.
// Default [DefaultLifetime]; zero: no such end. It must not be shorter than the
// idle timeout.
func WithLifetime(d time.Duration) Option { return func(c *config) { c.lifetime = d } }

// WithUnconfirmedTimeouts sets the idle timeouts of sessions whose ID no later
// call has brought back: of those that hold nothing (empty), and of those that
// hold something (holding), see [Store.Hold]. Like the idle timeout they count
// from the last release, and neither extends beyond it. Defaults
// [DefaultEmptyTimeout] and [DefaultHoldingTimeout]; zero: the idle timeout
// alone applies. empty must not be longer than holding.
func WithUnconfirmedTimeouts(empty, holding time.Duration) Option {
	return func(c *config) { c.empty, c.holding = empty, holding }
}

// WithMaxSessions sets how many sessions the store holds at most. Sessions
// that were retired while in use count until their last release. Beside them,
// as many again (but at least 1024) may wait for their Close to return. Beyond
// that newcomers wait for the closers, for up to a second, and then get
// [ErrFull], so that closers which hang push back instead of piling up. Default
// [DefaultMaxSessions]; zero: no maximum.
func WithMaxSessions(n int) Option { return func(c *config) { c.max = n } }

// WithMaxBytes sets how many bytes the sessions in the store take at most, as
// [Origin].Size and [Lease.SetSize] tell it; the store does not measure. To make
// room, sessions leave that take any, in the same order as for places; a source
// never pushes out the sessions of one that takes less. Default
// [DefaultMaxBytes]; zero: no maximum.
func WithMaxBytes(n int64) Option { return func(c *config) { c.maxBytes = n } }

// WithMaxLeases sets how many leases one session has at most at a time. Further
// ones fail with [ErrLeaseLimit]. Default [DefaultMaxLeases]; the most, and what
// zero means, is 65535.
func WithMaxLeases(n int) Option { return func(c *config) { c.maxLeases = n } }

// WithSourceShare sets which part of the maximum of sessions one source may
// have in use at a time, so that nobody can fill the store with sessions that
// cannot be evicted. Leases beyond it fail with [ErrLeaseLimit]. Sessions without
// a source are not counted. Default [DefaultSourceShare]; zero or 1: no such
// limit.
func WithSourceShare(share float64) Option { return func(c *config) { c.sourceShare = share } }

// WithMaxLeaseAge sets for how long a lease may be held. A session with an older
// one is killed, also if it is retired: its context is canceled and it is
// closed, so that a call that hangs does not hold a place for ever. Leases are
// not timed one by one, so it may take twice as long. Default: the lifetime;
// zero: no limit.
func WithMaxLeaseAge(d time.Duration) Option { return func(c *config) { c.leaseAge = d } }

// WithLeaseTraces has the store note where each lease is taken, and log that at
// level Error when a session is killed because one was held for too long, or
// held past the deadline of Shutdown. It makes every lease slower by about a
// microsecond. Default false.
func WithLeaseTraces(on bool) Option { return func(c *config) { c.leaseTraces = on } }

// WithWhenFull sets what an insert does when the store is full. Default
// [EvictUnconfirmed]. [KeepConfirmed] needs an idle timeout or a lifetime,
// since otherwise a full store would stay full for ever.
func WithWhenFull(w WhenFull) Option { return func(c *config) { c.whenFull = w } }

// WithClosers sets how many sessions are closed at the same time, at most.
// Default [DefaultClosers]; it must be at least 1. Goroutines exist only while
// there is something to close.
func WithClosers(n int) Option { return func(c *config) { c.closers = n } }

// WithHungClose sets after how long a Close that has not returned is logged and
// no longer holds up the sessions behind it: another goroutine takes its place,
// for at most 1024 such Close calls at a time. Default [DefaultHungClose]; zero:
// never. It can be set in [New] only.
func WithHungClose(d time.Duration) Option { return func(c *config) { c.hungClose = d } }

// WithObserver sets a function that is told every [Event]. Default, and nil:
// nobody.
//
// Events are delivered one at a time, in the order in which they happened, on a
// goroutine of the store's that exists only while there are events, shortly
// after they happened. The function runs under no lock and may call back into
// the store, but for Shutdown, which would wait for it. If it panics, that is
// logged and the next event is delivered. If it is slow, events queue up; when
// 262,144 are queued, further ones are dropped and counted in
// [Stats].EventsDropped. Nothing else in the store waits for it.
func WithObserver(f func(Event)) Option { return func(c *config) { c.observer = f } }

// WithLogger sets where the store explains itself: the ends of sessions at
// level Info (those evicted or killed at Warn), at most one line a second for
// each reason with the number of sessions that it stands for; and what fails in
// closers and observers, and leases that nobody gave back, at Error, limited
// alike. Lines contain fingerprints, never IDs. Default [slog.Default]; nil: no
// log.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) { c.logger = l }
}

// WithFingerprintKey sets the key of the store's fingerprints, at least 16
// bytes, so that several stores, or one store after a restart, give the same ID
// the same [Fingerprint]. Default: random. It can be set in [New] only.
func WithFingerprintKey(key []byte) Option {
	return func(c *config) { c.key = string(key) }
}

// WithRemembered sets how many ended sessions [Store.Explain] remembers, about
// 140 bytes each; half of them are for sessions that were confirmed or held
// something, so that a flood of others does not wash them out. Default
// [DefaultRemembered]; zero: none. It can be set in [New] only.
func WithRemembered(n int) Option { return func(c *config) { c.remembered = n } }

// config is one complete, immutable setting of a store.
type config struct {
	idle, lifetime, empty, holding time.Duration
	max                            int
	maxBytes                       int64
	maxLeases                      int
	sourceShare                    float64
	leaseAge                       time.Duration
	leaseTraces                    bool
	whenFull                       WhenFull
	closers                        int
	hungClose                      time.Duration
	observer                       func(Event)
	logger                         *slog.Logger
	key                            string
	remembered                     int

	// Derived from the others.
	unused      [4]time.Duration // idle timeouts by confirmed | holds<<1
	longestIdle time.Duration
	resolution  time.Duration // of the clock that hits read
	margin      time.Duration // how near to a deadline they do not rely on it
	share       int           // how many sessions of one source may be in use; zero: any number
}

func newConfig(opts []Option) (*config, error) {
	c := &config{
		idle:     DefaultIdleTimeout,
		lifetime: DefaultLifetime,
		empty:    DefaultEmptyTimeout,
		holding:  DefaultHoldingTimeout,
		max:      DefaultMaxSessions,
		closers:  DefaultClosers,

		maxBytes:    DefaultMaxBytes,
		maxLeases:   DefaultMaxLeases,
		sourceShare: DefaultSourceShare,
		leaseAge:    asLifetime,
		hungClose:   DefaultHungClose,
		logger:      slog.Default(),
		remembered:  DefaultRemembered,
	}
	c.apply(opts)
	c.derive()
	if c.key == "" {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails, see crypto/rand
		c.key = string(key)
	}
	return c, c.check()
}

func (c *config) apply(opts []Option) {
	for _, o := range opts {
		if o != nil {
			o(c)
		}
	}
}

// with returns c changed by opts, or an error that leaves c in force.
func (c *config) with(opts []Option) (*config, error) {
	n := *c
	n.apply(opts)
	n.derive()
	err := n.check()
	if n.key != c.key || n.hungClose != c.hungClose || n.remembered != c.remembered {
		err = errors.Join(err, optionError("the fingerprint key, the hung-close time and the number of remembered sessions are fixed when the store is made: leave them out"))
	}
	return &n, err
}

// check reports everything that is wrong at once, and what to change.
func (c *config) check() error {
	var errs []error
	wrong := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, optionError(format, args...))
		}
	}
	leaseAge := c.leaseAge
	if leaseAge == asLifetime {
		leaseAge = 0
	}
	for _, t := range []struct {
		name string
		d    time.Duration
	}{
		{"idle timeout", c.idle}, {"lifetime", c.lifetime}, {"timeout of empty unconfirmed sessions", c.empty},
		{"timeout of holding unconfirmed sessions", c.holding}, {"hung-close time", c.hungClose},
		{"maximum age of a lease", leaseAge},
	} {
		wrong(t.d < 0, "%s %s is negative: use zero for none", t.name, t.d)
		wrong(t.d > 0 && t.d < Tick, "%s %s is below the resolution of %s: did you forget the unit?", t.name, t.d, Tick)
	}
	wrong(c.idle > 0 && c.lifetime > 0 && c.lifetime < c.idle,
		"lifetime %s is shorter than idle timeout %s: raise the lifetime or lower the idle timeout", c.lifetime, c.idle)
	empty, holding := c.idleFor(0), c.idleFor(holdsBit)
	wrong(empty > holding,
		"unconfirmed sessions that hold nothing would outlive (%s) those that hold something (%s): swap the two", empty, holding)
	wrong(c.max < 0, "maximum of %d sessions is negative: use zero for no maximum", c.max)
	wrong(c.maxBytes < 0, "maximum of %d bytes is negative: use zero for no maximum", c.maxBytes)
	wrong(c.maxLeases < 0 || c.maxLeases > mostLeases, "a session cannot have %d leases: use 1 to %d", c.maxLeases, mostLeases)
	wrong(!(c.sourceShare >= 0 && c.sourceShare <= 1), "a source cannot have %v of the places: use 0 to 1", c.sourceShare)
	wrong(c.whenFull > EvictLRU, "%s is not a way to make room", c.whenFull)
	wrong(c.whenFull == KeepConfirmed && c.idle == 0 && c.lifetime == 0,
		"KeepConfirmed without idle timeout and lifetime would stay full for ever: set one of them, or use EvictUnconfirmed")
	wrong(c.closers < 1, "%d closers cannot close anything: use at least 1", c.closers)
	wrong(c.remembered < 0, "cannot remember %d sessions: use zero for none", c.remembered)
	wrong(c.remembered > mostRemembered, "cannot remember %d sessions: use at most %d", c.remembered, mostRemembered)
	wrong(len(c.key) < minFingerprintKey, "fingerprint key has %d bytes: use at least %d random ones", len(c.key), minFingerprintKey)
	return errors.Join(errs...)
}

func optionError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrOptions, fmt.Sprintf(format, args...))
}

// derive computes what follows from the settings.
func (c *config) derive() {
	if c.maxLeases == 0 {
		c.maxLeases = mostLeases
	}
	shortest := never
	for _, d := range []time.Duration{c.idle, c.lifetime, c.empty, c.holding} {
		if d > 0 {
			shortest = min(shortest, d)
		}
	}
	if c.resolution = min(shortest/resolutionShare, maxResolution); c.resolution < coarseFrom {
		c.resolution = exact
	}
	c.share = c.busyShare()
	if shortest == never { // sessions may still have ends of their own
		shortest = resolutionShare * maxResolution
	}
	c.margin = max(2*c.resolution, shortest/marginShare)
	c.longestIdle = 0
	for i, own := range [4]time.Duration{c.empty, 0, c.holding, 0} {
		if own == 0 || (c.idle > 0 && c.idle < own) {
			own = c.idle
		}
		if own == 0 {
			own = never
		} else {
			c.longestIdle = max(c.longestIdle, own)
		}
		c.unused[i] = own
	}
}

// idleFor returns how long a session in state st may go unused.
func (c *config) idleFor(st state) time.Duration {
	return c.unused[st/confirmedBit&3]
}

// longestLease returns how long a lease may be held.
func (c *config) longestLease() time.Duration {
	age := c.leaseAge
	if age == asLifetime {
		age = c.lifetime
	}
	if age == 0 {
		return never
	}
	return age
}

// busyShare returns how many sessions of one source may be in use, zero if that
// is not limited.
func (c *config) busyShare() int {
	if c.sourceShare == 0 || c.sourceShare == 1 || c.max == 0 {
		return 0
	}
	return max(1, int(c.sourceShare*float64(c.max)))
}

// lifetimeFor returns the lifetime of a session with the given random part.
func (c *config) lifetimeFor(jitter uint8) time.Duration {
	if c.lifetime == 0 {
		return never
	}
	return c.lifetime - c.lifetime/jitterShare/256*time.Duration(jitter)
}

// few returns below how many unconfirmed sessions that could leave room is made
// among the confirmed ones.
func (c *config) few() int { return max(fewUnconfirmed, c.max/fewDivisor) }

// later returns t+d without overflow.
func later(t, d time.Duration) time.Duration {
	if d > never-t {
		return never
	}
	return t + d
}
