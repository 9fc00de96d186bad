// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/internal/revocation"
	"github.com/c8e4ff29/layover/internal/token"
)

// bearer is what one call knows of the stateless session that it has. It is the call's
// lease.
type bearer struct {
	m       *StatelessServerSessionManager
	ctx     context.Context // of the call
	session *StatelessServerSession
	known   string      // the token that its client has, as far as the call knows; guarded by the session's writes
	knows   bool        // it has one; likewise
	spoke   bool        // this call has sent it; likewise
	ends    string      // why the call ends it; empty: it is closed
	gone    atomic.Bool // it was released
	changes uint64      // of a session that is not sealed, when the call began
}

var _ SessionLease = (*bearer)(nil)

// Session returns the session.
func (b *bearer) Session() ServerSession { return b.session }

// Confirm does nothing: the token says who has it.
func (b *bearer) Confirm() {}

// Hold does nothing: the token says what there is.
func (b *bearer) Hold() {}

// Release has other calls not find the session any more, if this is the last one that
// uses it.
func (b *bearer) Release() {
	if b.m.seals() && !b.gone.Swap(true) {
		b.m.inUse.leave(b.session)
	}
}

// supplanted notes that another session takes the place of the one that the call has.
func (b *bearer) supplanted(by *held) {
	b.ends = whyReplaced
	known, knows := b.client()
	if is, ok := by.other.(*bearer); ok {
		is.session.writes.Lock()
		defer is.session.writes.Unlock()
		is.known, is.knows = known, knows // a cookie that the new one replaces, or deletes
	}
}

// client returns the token that the client has.
func (b *bearer) client() (known string, knows bool) {
	b.session.writes.Lock()
	defer b.session.writes.Unlock()
	return b.known, b.knows
}

// Format prints nothing of the token.
func (b *bearer) Format(f fmt.State, _ rune) { fmt.Fprint(f, "lease of a stateless session") }

// again returns one more lease.
func (b *bearer) again() (*bearer, error) {
	s := b.session
	if !b.m.seals() {
		return &bearer{m: b.m, ctx: b.ctx, session: s}, nil
	}
	s.writes.Lock()
	over := b.gone.Load() || s.Closed() || b.m.hasRevoked(s)
	s.writes.Unlock()
	if over {
		return nil, ErrNoSession
	}
	b.m.inUse.add(s)
	return &bearer{m: b.m, ctx: b.ctx, session: s}, nil
}

// verdict says why a token names no live session of its caller.
type verdict struct {
	why   string // whyGarbage: there is nothing to tell
	held  bool
	name  string // stands for the session, or the token
	owner string // another principal, or nobody, whose it is
	found bool   // there is such an owner
	id    token.ID
	more  string // for the log
}

// What becomes of tokens beside the reasons of a store, see lostTexts.
var (
	whyClosed   = layover.ReasonClosed.String()
	whyRenamed  = layover.ReasonRenamed.String()
	whyIdle     = layover.ReasonIdle.String()
	whyReplaced = layover.ReasonReplaced.String()
)

const whyUnsealed = "unsealed"

// choose returns the first session of the caller that the values of cookies hold, and
// tells of those before it why they do not. Sealed tokens come before others, which
// anybody can have put into a jar.
func (m *StatelessServerSessionManager) choose(ctx context.Context, texts []string, who Principal, now time.Time, tell func(*verdict)) *bearer {
	var plain []string
	for _, text := range texts {
		if text == "" && m.seals() {
			continue
		}
		switch b, v := m.find(ctx, text, who, now); {
		case b != nil:
			return b
		case v.why == whyUnsealed:
			plain = append(plain, text)
		default:
			tell(v)
		}
	}
	for _, text := range plain {
		b, v := m.findPlain(ctx, text, who, now)
		if b != nil {
			return b
		}
		tell(v)
	}
	return nil
}

// find returns the session that a token holds, if it is the caller's, or why not.
func (m *StatelessServerSessionManager) find(ctx context.Context, text string, who Principal, now time.Time) (*bearer, *verdict) {
	if len(text) > m.maxCookie-len(m.cookie)-len("=") {
		return nil, &verdict{why: whyUnknown, held: true, name: text, more: "the cookie is larger than WithMaxCookie allows"}
	}
	if !m.seals() {
		return m.findOpen(ctx, text)
	}
	c, err := m.open(text)
	switch {
	case errors.Is(err, token.ErrForm):
		return nil, &verdict{why: whyUnsealed}
	case errors.Is(err, token.ErrKey): // its form must do; who makes one up deceives nobody but itself
		m.unknownKey.Add(1)
		return nil, &verdict{why: whyUnknown, held: true, name: text, more: "its key is not in the ring"}
	case err != nil:
		m.forged.Add(1)
		return nil, &verdict{why: whyGarbage, name: text}
	}
	if subtle.ConstantTimeCompare([]byte(c.Principal), []byte(who.Name)) == 0 {
		return nil, &verdict{why: whyGarbage, name: c.ID.String(), owner: sourceOfOwner(c.Principal), found: true}
	}
	why, more := m.over(c, now)
	var s *StatelessServerSession
	switch why {
	case "":
		if s = m.inUse.join(c, m); s == nil {
			why = whyClosed
		}
	case whyIdle:
		s = m.inUse.rejoin(c)
	}
	if s == nil {
		return nil, &verdict{why: why, held: c.Held || len(c.values) > 0, name: c.ID.String(), id: c.ID, more: more}
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	if m.hasRevoked(s) { // since it was looked at
		defer m.inUse.leave(s)
		return nil, &verdict{why: whyClosed, held: c.Held || len(c.values) > 0, name: c.ID.String(), id: c.ID}
	}
	if who.Name != "" {
		s.prove(who.Expires)
	}
	return &bearer{m: m, ctx: ctx, session: s, known: text, knows: true}, nil
}

// findOpen is find for sessions without keys.
func (m *StatelessServerSessionManager) findOpen(ctx context.Context, text string) (*bearer, *verdict) {
	s, err := decodeStatelessToken(text)
	switch {
	case err != nil && token.HasForm(text): // as before keys were taken away
		return nil, &verdict{why: whyUnknown, held: true, name: text, more: "it is sealed, and there are no keys"}
	case err != nil:
		return nil, &verdict{why: whyGarbage, name: text}
	}
	s.manager = m
	return &bearer{m: m, ctx: ctx, session: s, known: text, knows: true}, nil
}

// sourceOfOwner returns the source that a principal is; empty: none.
func sourceOfOwner(name string) string {
	if name == "" {
		return ""
	}
	return principalSource + name
}

// over returns the reason why the session of a token has ended, and what the log has
// beside it; empty: it has not.
func (m *StatelessServerSessionManager) over(c *content, now time.Time) (why, more string) {
	passed := func(t time.Time, d time.Duration) bool { return now.Sub(t) > d+m.skew }
	if most := m.skew + time.Millisecond; c.Issued.Sub(now) > most || c.Used.Sub(now) > most { // tokens count milliseconds
		m.future.Add(1)
		return whyUnknown, "it is from the future: clocks differ by more than WithClockSkew allows"
	}
	if why, yes := m.revoked.Revoked(revocation.ID(c.ID), c.Principal, c.Issued); yes {
		return reasonOf(why), ""
	}
	switch {
	case m.lifetime > 0 && passed(c.Issued, m.lifetime),
		!c.Expires.IsZero() && passed(c.Expires, m.refresh): // a later proof may not be in it yet
		return layover.ReasonLifetime.String(), ""
	case m.idle > 0 && passed(c.Used, m.idle+m.refresh): // nor a later use
		return whyIdle, ""
	}
	return "", ""
}

// open returns what a sealed token says.
func (m *StatelessServerSessionManager) open(text string) (*content, error) {
	if m.cache != nil {
		if c, ok := m.cache.Get(text); ok {
			if m.keys.Has(c.key) {
				return c, nil
			}
			m.cache.Remove(text)
			return nil, token.ErrKey
		}
	}
	m.opened.Add(1)
	claims, key, err := m.sealer.Open(text)
	if err != nil {
		return nil, err
	}
	c := &content{Claims: claims, key: key, text: text}
	if c.values, err = parseOptions(claims.Options); err != nil {
		return nil, err // nobody has sealed that
	}
	c.Options = nil
	if m.cache != nil {
		c.text = strings.Clone(text) // it may be a piece of a long header
		m.cache.Put(c.text, c, int64(contentOverhead+len(c.Principal)+len(claims.Options)+optionOverhead*len(c.values)))
	}
	return c, nil
}

// contentOverhead is what a content takes beside its options, about.
const contentOverhead = 384 // bytes

// findPlain returns a session that begins with the options of a token that is not
// sealed, as long as these are taken.
func (m *StatelessServerSessionManager) findPlain(ctx context.Context, text string, who Principal, now time.Time) (*bearer, *verdict) {
	old, err := decodeStatelessToken(text)
	if err != nil || len(old.values) == 0 {
		return nil, &verdict{why: whyGarbage, name: text}
	}
	if m.plain == nil || !now.Before(m.plainUntil) {
		return nil, &verdict{why: whyUnsealed, held: true, name: text}
	}
	b, err := m.create(ctx, who)
	if err != nil {
		return nil, &verdict{why: whyUnknown, held: true, name: text, more: err.Error()}
	}
	b.known, b.knows = text, true
	asked := setting{ctx: ctx, schema: m.plain, asked: old.values}
	for _, w := range asked.valid() {
		if w.option != nil {
			_ = b.session.keep(w.option.info().Name, w.value) // what does not fit is left behind
		}
	}
	return b, nil
}

// isUTF8 reports whether an option can be encoded.
func isUTF8(name string, value *flight.SessionOptionValue) bool {
	_, text := stringOf(value)
	_, list := listOf(value)
	return utf8.ValidString(name) && !errors.Is(text, errUTF8) && !errors.Is(list, errUTF8)
}
