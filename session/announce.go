// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// newCookie returns the cookie by which the client finds a new session; empty: it
// needs none, or not yet.
func (h *handle) newCookie(l *held) (line string, err error) {
	defer contain(&err)
	if h.isBrief() || h.m.own == nil || !l.cookie { // other managers' may change until the header leaves
		return "", nil
	}
	return (&http.Cookie{Name: h.m.cookie, Value: l.session.Token()}).String(), nil
}

// deletionOf returns the cookie that has clients drop the one of this name.
func deletionOf(name string) string { return (&http.Cookie{Name: name, MaxAge: -1}).String() }

// announce tells the client of a session of a foreign manager: whatever its
// next call would not say by itself.
func (h *handle) announce() (err error) {
	defer contain(&err)
	l := h.live.Load()
	if l == nil || l.session.Closed() {
		return nil
	}
	if b, ok := l.other.(*bearer); ok {
		return h.announceStateless(b)
	}
	c, err := CreateCookieForSession(l.session)
	if err != nil {
		return err
	}
	has := h.rare.Load().rec.hasToken(l.session, c.Value)
	h.mu.Lock()
	r := h.more()
	known := r.spoke && r.said == c.Value || !r.spoke && (has || hasCookie(incomingCookies(h.base, c.Name), c))
	if !known {
		r.spoke, r.said = true, c.Value
	}
	h.mu.Unlock()
	if !known {
		h.setCookie(c.String())
	}
	return nil
}

// deletion returns the cookie that has the client drop its one, if there is any
// need. It is unique if no other session has the same.
func (h *handle) deletion(l *held) (line string, unique, needed bool) {
	if b, ok := l.other.(*bearer); ok {
		return deletionOf(h.m.cookie), b.m.seals(), h.deletesStateless(b)
	}
	if h.m.own != nil {
		if h.m.config.policy == RenewDead {
			return "", true, false // its successors may have cookies already
		}
		return deletionOf(h.m.cookie), true, l.cookie
	}
	c, err := CreateCookieForSession(l.session)
	if err != nil {
		return "", false, false
	}
	sent := incomingCookies(h.base, c.Name)
	line = deletionOf(c.Name)
	if c.Name == StatelessSessionCookieName { // the token of a session that is closed is not what it was
		return line, false, len(sent) > 0 || l.fresh
	}
	return line, true, hasCookie(sent, c) || l.fresh
}

// setCookie sends a cookie in the header, or in the trailer if the header has
// left. Outside a real call there is no stream to send it on, which is no error.
func (h *handle) setCookie(line string) {
	h.m.warnOfPlaintext(h.base)
	h.sendCookie(line)
}

// sendCookie is setCookie without the warning. Java and .NET clients read no
// trailers of calls that succeed, so it prefers the header.
func (h *handle) sendCookie(line string) {
	md := metadata.Pairs("set-cookie", line)
	if grpc.SetHeader(h.base, md) != nil {
		_ = grpc.SetTrailer(h.base, md)
	}
}
