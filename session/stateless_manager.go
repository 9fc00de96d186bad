// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover/internal/revocation"
	"github.com/c8e4ff29/layover/internal/token"
)

// StatelessServerSessionManager keeps sessions in the cookies of their clients. It is
// safe for concurrent use. Use [NewStatelessServerSessionManager].
type StatelessServerSessionManager struct {
	cookie     string
	maxCookie  int
	limits     OptionLimits
	plainUntil time.Time
	plain      *Schema

	// Of sealed sessions.
	keys     *token.Ring
	sealer   *token.Sealer // nil: they are not sealed
	idle     time.Duration
	lifetime time.Duration
	skew     time.Duration
	refresh  time.Duration // how old the time of the last use in a token may be
	inUse    *inUse
	revoked  *revocation.List
	share    func(context.Context, Revocation) error
	cache    *token.Cache[*content] // nil: none

	opened, future, unknownKey, forged atomic.Uint64
}

// longest is what a timeout is taken for that is longer: sums of some must not overflow.
const longest = 50 * 365 * 24 * time.Hour

// refreshes is how many times in an idle timeout a session gets a token at most, only
// because it was used.
const refreshes = 16

// NewStatelessServerSessionManager returns a manager of sessions that travel whole in
// their cookies, so that any replica can serve any client, and none has to keep
// anything. It panics on options that make no sense.
//
// Without options the tokens are those of Apache's package. They are NOT protected:
// clients can read, change and replay them. A cookie that is no token counts as no
// cookie. Unlike Apache's, a cookie has 4 KiB at most, see [WithMaxCookie]: larger ones
// are not taken, and an option that would make one is refused, or under Apache's shape of
// middleware, which cannot, is not set, and logged.
//
// [WithKeyring] has them be sealed. Such sessions belong to a principal, idle out, and
// can be closed, as stateful ones. A token that was good once stays so until the session
// ends, and restores the options that it has: do not keep in them what a client may do.
// Call Close when the server has stopped.
func NewStatelessServerSessionManager(opts ...StatelessSessionManagerOption) *StatelessServerSessionManager {
	c := newStatelessConfig(opts)
	if err := c.check(); err != nil {
		panic(fmt.Sprintf("session: NewStatelessServerSessionManager: %v", err))
	}
	m := &StatelessServerSessionManager{cookie: c.cookie, maxCookie: c.maxCookie, limits: c.limits}
	if c.keys == nil {
		return m
	}
	m.plainUntil, m.plain = c.plainUntil, c.plain
	m.keys, m.sealer = &c.keys.ring, token.NewSealer(&c.keys.ring, c.cookie, c.audience)
	m.idle, m.lifetime, m.skew = min(c.idle, longest), min(c.lifetime, longest), min(c.skew, longest)
	if m.refresh = m.idle / refreshes; m.idle == 0 {
		m.refresh = m.lifetime / refreshes
	}
	m.inUse, m.revoked, m.share = newInUse(), revocation.New(c.revoked), c.share
	if c.cache > 0 {
		m.cache = token.NewCache[*content](c.cache)
	}
	return m
}

// seals reports whether the manager has keys. There may be no manager.
func (m *StatelessServerSessionManager) seals() bool { return m != nil && m.sealer != nil }

// CreateSession returns a new, empty session. A sealed one belongs to the
// [DefaultPrincipal] of ctx; if that cannot be told, it is an error.
func (m *StatelessServerSessionManager) CreateSession(ctx context.Context) (ServerSession, error) {
	var who Principal
	if m.seals() {
		name, err := authenticated(ctx)
		if err != nil {
			return nil, err
		}
		who.Name = name
	}
	b, err := m.create(ctx, who)
	if err != nil {
		return nil, err
	}
	callFrom(ctx).keep(b)
	return b.session, nil
}

// create makes a session of a principal.
func (m *StatelessServerSessionManager) create(ctx context.Context, who Principal) (*bearer, error) {
	s := &StatelessServerSession{manager: m}
	if !m.seals() {
		return &bearer{m: m, ctx: ctx, session: s}, nil
	}
	if err := m.admitsOwner(who.Name, 0); err != nil {
		return nil, err
	}
	now := time.Now()
	s.id, s.owner, s.expires = token.NewID(), who.Name, who.Expires
	s.said = &content{Claims: token.Claims{Issued: now, Used: now, Expires: who.Expires}}
	m.inUse.add(s) // its first answer may be under way when its second call comes
	return &bearer{m: m, ctx: ctx, session: s}, nil
}

// GetSession returns the session of the context, else the first that a cookie
// holds, else [ErrNoSession]. A sealed one must be of the [DefaultPrincipal] of ctx; if
// there are cookies, and that cannot be told, it is an error. Under a middleware of this
// package the call that ctx belongs to shares a sealed session with all that use it.
func (m *StatelessServerSessionManager) GetSession(ctx context.Context) (ServerSession, error) {
	//nolint:errorlint // Apache compares with != as well, so it is the bare variable.
	if s, err := GetSessionFromContext(ctx); err != ErrNoSession {
		return s, err
	}
	cookies := incomingCookies(ctx, m.cookie)
	if len(cookies) == 0 {
		return nil, ErrNoSession
	}
	var caller string
	if m.seals() {
		var err error
		if caller, err = authenticated(ctx); err != nil {
			return nil, err
		}
	}
	texts := make([]string, len(cookies))
	for i, c := range cookies {
		texts[i] = c.Value
	}
	b := m.choose(ctx, texts, Principal{Name: caller}, time.Now(), func(*verdict) {})
	if b == nil {
		return nil, ErrNoSession
	}
	c := callFrom(ctx)
	c.keep(b)
	if c == nil { // nobody tells when it is not used any more
		return b.session.apart(), nil
	}
	return b.session, nil
}

// CloseSession revokes the tokens of a sealed session, see [WithRevocation], which can
// fail. Of others there is nothing to remove. It is called when a call has ended, under
// Apache's shape of middleware and under a manager that wraps this one; handlers that want
// to know use [End], or that of [BaseServer].
func (m *StatelessServerSessionManager) CloseSession(session ServerSession) error {
	if h, ok := session.(*handle); ok {
		return h.Close()
	}
	if isNil(session) {
		return ErrNoSession
	}
	s, ok := session.(*StatelessServerSession)
	if !ok || s.manager != m || !m.seals() {
		return nil
	}
	_, err := m.end(context.Background(), s, whyClosed)
	return err
}

// Close ends what the manager does in the background. Sessions can be found after that,
// but nothing is remembered about their tokens. It is idempotent.
func (m *StatelessServerSessionManager) Close() error {
	if m.cache != nil {
		m.cache.Close()
	}
	return nil
}

// Format prints nothing of the manager's keys and sessions.
func (m *StatelessServerSessionManager) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, "session.StatelessServerSessionManager")
}

// StatelessStats counts what a manager of sealed sessions has seen since it was made.
type StatelessStats struct {
	Opened      uint64 // tokens that were opened, rather than remembered
	Remembered  uint64 // tokens that were not, as they are remembered: see [WithTokenCache]
	CacheBytes  int64  // what they take in memory, about
	InUse       int    // sessions that calls use at this moment
	Revoked     int    // sessions that are remembered as closed: see [WithRevocation]
	Principals  int    // principals whose closed sessions were put together
	Collapsed   uint64 // how often that was done
	Refused     uint64 // sessions that could not be closed, as there was no place
	UnknownKeys uint64 // tokens under keys that are not in the ring
	Forged      uint64 // tokens that no key of the ring has sealed, for this cookie and audience
	Future      uint64 // tokens from further in the future than the clock skew
}

// Stats returns the counts. Without keys there are none.
func (m *StatelessServerSessionManager) Stats() StatelessStats {
	if !m.seals() {
		return StatelessStats{}
	}
	r := m.revoked.Stats()
	all := StatelessStats{Opened: m.opened.Load(), InUse: m.inUse.len(), Revoked: r.Sessions, Principals: r.Principals,
		Collapsed: r.Collapsed, Refused: r.Refused, UnknownKeys: m.unknownKey.Load(), Forged: m.forged.Load(), Future: m.future.Load()}
	if m.cache != nil {
		c := m.cache.Stats()
		all.Remembered, all.CacheBytes = c.Hits, c.Bytes
	}
	return all
}

// admits returns why an option cannot be set in a session, whose options would then be
// encoded in so many bytes. The caller holds the session's writes.
func (m *StatelessServerSessionManager) admits(s *StatelessServerSession, name string, value *flight.SessionOptionValue, encoded int) error {
	if _, err := s.fits(name, value, &m.limits, false); err != nil {
		return err
	}
	if !isUTF8(name, value) {
		return &callError{code: codes.InvalidArgument, reason: "SESSION_OPTION_INVALID", sentinel: ErrInvalidOption,
			text: fmt.Sprintf("the option %q is no valid UTF-8, and cannot travel", name)}
	}
	if size := max(m.cookieSize(s.owner, encoded), m.cookieSize(s.future, encoded)); size > m.maxCookie && encoded > s.encoded {
		return &callError{code: codes.ResourceExhausted, reason: "SESSION_OPTION_LIMIT", sentinel: ErrOptionLimit,
			text: fmt.Sprintf("with the option %q the session's cookie would have %d bytes, and may have %d", name, size, m.maxCookie)}
	}
	return nil
}

// admitsFirst is admits for the first option of a session that is not there yet.
func (m *StatelessServerSessionManager) admitsFirst(owner, name string, value *flight.SessionOptionValue) error {
	if err := m.admitsOwner(owner, 0); err != nil {
		return err
	}
	s := &StatelessServerSession{manager: m}
	s.owner = owner
	return m.admits(s, name, value, entrySize(name, value))
}

// admitsOwner returns why a session with so many bytes of options cannot be a
// principal's.
func (m *StatelessServerSessionManager) admitsOwner(name string, encoded int) error {
	if size := m.cookieSize(name, encoded); size > m.maxCookie {
		return &callError{code: codes.ResourceExhausted, reason: "SESSION_OPTION_LIMIT", sentinel: ErrOptionLimit,
			text: fmt.Sprintf("with the name of its principal the session's cookie would have %d bytes, and may have %d", size, m.maxCookie)}
	}
	return nil
}

// cookieSize returns how many bytes the cookie of a session has at most.
func (m *StatelessServerSessionManager) cookieSize(owner string, encoded int) int {
	size := len(m.cookie) + len("=")
	if m.seals() {
		return size + m.sealer.Size(owner, encoded)
	}
	return size + base64.StdEncoding.EncodedLen(encoded)
}

// end revokes a session, unless there is no token of it. It reports whether that was not
// over before.
func (m *StatelessServerSessionManager) end(ctx context.Context, s *StatelessServerSession, why string) (ended bool, err error) {
	if !m.seals() {
		return !s.Closed(), s.Close()
	}
	s.writes.Lock()
	e := revocation.Entry{ID: revocation.ID(s.id), Principal: s.owner, Issued: s.said.Issued, Why: why}
	if over := s.over; over || s.said.text == "" {
		s.over = true
		s.writes.Unlock()
		return !s.closed.Swap(true) && !over, nil
	}
	s.begin()
	s.writes.Unlock()
	defer func() {
		s.writes.Lock()
		defer s.writes.Unlock()
		if s.finish(); err != nil && !s.over {
			s.closed.Store(false) // its own Close may have closed it
		}
	}()
	if ended, err = m.revoke(ctx, e); err != nil {
		return false, err
	}
	next := s.done()
	for next != nil && err == nil && next.ownerName() == e.Principal { // it was renewed meanwhile, not given to somebody else
		if _, err = m.end(ctx, next, why); err == nil {
			next = next.done()
		}
	}
	return ended && err == nil, err
}

// done notes that a session is over, and returns what it was renewed to.
func (s *StatelessServerSession) done() *StatelessServerSession {
	s.writes.Lock()
	defer s.writes.Unlock()
	s.over = true
	s.closed.Store(true)
	return s.next
}
