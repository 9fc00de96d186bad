// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover"
)

// handleKey finds the handle of a call in whose context there is no session.
type handleKey struct{}

// handleFrom returns the handle of the call that ctx belongs to, nil if there is
// none.
func handleFrom(ctx context.Context) *handle {
	if s, err := fromContext(ctx); err == nil {
		if h, ok := s.(*handle); ok {
			return h
		}
	}
	h, _ := ctx.Value(handleKey{}).(*handle)
	return h
}

// open finds the session that the call means, if it is live. In a handshake, a
// client greets, and has proved nothing yet.
func (h *handle) open(ctx context.Context, greets bool) (err error) {
	defer contain(&err)
	switch {
	case h.m.stateless != nil:
		return h.openStateless(ctx, greets)
	case h.m.own == nil:
		return h.openForeign(ctx)
	}
	var by *named
	if len(h.m.derived) > 0 {
		if by, err = h.m.name(ctx); err != nil {
			return err
		}
		if by != nil {
			h.more().by = by // nobody else has h yet
			if err := h.openNamed(by); err != nil {
				return err
			}
		}
	}
	sent := by != nil
	if h.m.cookie != "" {
		cookies, err := h.openCookie(ctx, by != nil, greets)
		if err != nil {
			return err
		}
		sent = sent || cookies
	}
	if h.m.config.requireTLS && sent {
		return requireTLS(ctx)
	}
	return nil
}

// openNamed finds the session of the call's principal.
func (h *handle) openNamed(by *named) error {
	err := h.m.acquire(h.base, by.id, nil, &h.first)
	if err == nil {
		h.first.expire(by.who.Expires)
		h.live.Store(&h.first)
		return nil
	}
	if !isNotFound(err, by.id) {
		return err
	}
	if d, dead := h.m.deadNamed(by, err); dead {
		h.bring(d)
	}
	return nil
}

// bring notes a token of a session that has ended.
func (h *handle) bring(d deadToken) {
	r := h.more() // nobody else has h yet
	r.dead = append(r.dead, d)
}

// brought returns what bring has noted.
func (h *handle) brought() []deadToken {
	if r := h.rare.Load(); r != nil {
		return r.dead
	}
	return nil
}

// openCookie finds the session of the first known cookie. It reports whether
// there were any. If the call names the session of a principal, no other one may
// be live.
func (h *handle) openCookie(ctx context.Context, named, greets bool) (sent bool, _ error) {
	lines := metadata.ValueFromIncomingContext(ctx, "cookie")
	if lines == nil {
		return false, nil
	}
	var c candidates
	c.scan(lines, h.m.cookie)
	if c.n == 0 {
		return false, nil
	}
	who, err := h.caller()
	if err != nil {
		return true, err
	}
	for _, token := range c.values() {
		if token == "" || isDerived(token) {
			continue
		}
		l := &h.first
		if named {
			l = new(held)
		}
		by := owner{name: who.Name}
		err := h.m.acquire(ctx, token, &by, l)
		switch {
		case err == nil && named:
			return true, errors.Join(errCarriers, l.release())
		case err == nil:
			l.cookie = true
			l.expire(who.Expires)
			h.live.Store(l)
			return true, nil
		case !isNotFound(err, token):
			return true, err
		}
		if by.found {
			err = layover.ErrNotFound
			if !greets { // clients that log in again send their cookies with the handshake
				h.m.alarm(ctx, SecurityEvent{Kind: ForeignToken, Session: h.m.fingerprint(token), Owner: by.other, Caller: by.name})
			}
		}
		if !named {
			h.bring(h.m.deadCookie(token, who.Name, err))
		}
	}
	return true, nil
}

// openForeign asks a manager that is not ours.
func (h *handle) openForeign(ctx context.Context) error {
	ctx, rec := newCall(ctx)
	h.more().rec = rec // nobody else has h yet
	s, err := h.m.manager.GetSession(ctx)
	if err == nil && isNil(s) {
		return errors.New("session: the manager found a session that is nil")
	}
	sent := len(incomingCookies(ctx, StatefulSessionCookieName))+len(incomingCookies(ctx, StatelessSessionCookieName)) > 0
	if h.m.config.requireTLS && sent {
		if err := requireTLS(ctx); err != nil {
			return err
		}
	}
	if err == nil {
		h.first.session, h.first.other = s, (*unleased)(nil)
		h.live.Store(&h.first)
		return nil
	}
	if !errors.Is(err, ErrNoSession) {
		return err
	}
	for _, c := range incomingCookies(ctx, StatefulSessionCookieName) {
		who, _ := PrincipalFunc(DefaultPrincipal).name(ctx)
		h.bring(h.m.deadCookie(c.Value, who, nil))
	}
	return nil
}

// decide judges what has ended. The type is that of a DoAction.
func (h *handle) decide(action string) error {
	if h.live.Load() != nil {
		return nil
	}
	var refusal error
	for _, d := range h.brought() { // all of them: one window must do for all
		if action == flight.CloseSessionActionType {
			h.forgo(d)
			continue
		}
		if err := h.m.judge(h.base, d, action == flight.SetSessionOptionsActionType); refusal == nil {
			refusal = err
		}
	}
	return refusal
}

// forgo lets a client close a session that has ended.
func (h *handle) forgo(d deadToken) {
	switch h.m.config.policy {
	case RenewDead:
	case TellDead:
		h.m.tellings.tell(d, true, time.Now())
	case StrictDead:
		if d.cookie && h.m.tellings.deleting(d.key, time.Now()) {
			h.setCookie(deletionOf(h.m.cookie))
		}
	}
}

// context returns the context that the handler sees, after having made the
// session where handlers expect one at once.
func (h *handle) context(ctx context.Context, action string) (context.Context, error) {
	if !h.m.eager {
		return h.share(ctx), nil
	}
	if action == flight.CloseSessionActionType || action == flight.GetSessionOptionsActionType {
		h.mu.Lock()
		h.more().brief = true
		h.mu.Unlock()
	}
	s, err := h.ensure(false)
	if err != nil {
		return ctx, err
	}
	if isOwn(s) { // nobody expects this type, and the handle can have the call fail if an option is refused
		return h.share(ctx), nil
	}
	return NewSessionContext(context.WithValue(h.strip(h.cancelable(ctx)), handleKey{}, h), s), nil
}

// share puts the handle into a context.
func (h *handle) share(ctx context.Context) context.Context {
	return NewSessionContext(h.strip(h.cancelable(ctx)), h)
}

// strip takes tokens out of the metadata of a context, if that is wanted.
func (h *handle) strip(ctx context.Context) context.Context {
	if !h.m.config.strip {
		return ctx
	}
	md, _ := metadata.FromIncomingContext(ctx) // a copy
	for _, c := range h.m.derived {
		if c.kind == headerCarrier {
			md.Delete(c.name)
		}
	}
	var kept []string
	for _, line := range md.Get("cookie") {
		if line = withoutCookies(line, h.m.reporter.cookies); line != "" {
			kept = append(kept, line)
		}
	}
	md.Delete("cookie")
	if kept != nil {
		md.Set("cookie", kept...)
	}
	return metadata.NewIncomingContext(ctx, md)
}

// withoutCookies takes the cookies with these names out of a header. What that
// allocates is no more than the header: clients can send megabytes of ";".
func withoutCookies(line string, names []string) string {
	var kept strings.Builder
	kept.Grow(len(line))
	first := true
	for part := range strings.SplitSeq(line, ";") {
		name, _, _ := strings.Cut(part, "=")
		if slices.Contains(names, strings.TrimSpace(name)) {
			continue
		}
		if !first {
			kept.WriteByte(';')
		}
		first = false
		kept.WriteString(part)
	}
	return strings.TrimSpace(kept.String())
}

// unleased is the lease of a session whose manager keeps what leases there are.
type unleased struct{}

func (*unleased) Session() ServerSession { return nil }

func (*unleased) Confirm() {}

func (*unleased) Hold() {}

func (*unleased) Release() {}
