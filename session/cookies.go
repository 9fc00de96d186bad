// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc/metadata"
)

// Names of the cookies in which tokens travel.
const (
	// StatefulSessionCookieName names the cookie that holds the ID of a session
	// which the server keeps.
	StatefulSessionCookieName string = "arrow_flight_session_id"
	// StatelessSessionCookieName names the cookie that holds a whole session.
	StatelessSessionCookieName string = "arrow_flight_session"
)

// maxCandidates is how many cookies of one name are looked at in a call. A
// client that is in order sends one, one behind a confused jar two.
const maxCandidates = 4

// GetIncomingCookieByName returns the first cookie of that name that the client
// sent, or [http.ErrNoCookie]. It reads them as [http.Request.Cookie] does:
// joined by ";" with or without a blank, spread over several headers, in double
// quotes or not; what is malformed is passed over.
func GetIncomingCookieByName(ctx context.Context, name string) (http.Cookie, error) {
	if all := incomingCookies(ctx, name); len(all) > 0 {
		return *all[0], nil
	}
	return http.Cookie{}, http.ErrNoCookie
}

// incomingCookies returns the first few cookies of that name.
func incomingCookies(ctx context.Context, name string) []*http.Cookie {
	all := cookiesNamed(ctx, name)
	return all[:min(len(all), maxCandidates)]
}

func cookiesNamed(ctx context.Context, name string) []*http.Cookie {
	lines := metadata.ValueFromIncomingContext(ctx, "cookie")
	if len(lines) == 0 {
		return nil
	}
	return (&http.Request{Header: http.Header{"Cookie": lines}}).CookiesNamed(name)
}

// CreateCookieForSession returns the cookie that brings the session back: its
// token under [StatelessSessionCookieName] for a stateless session of this
// package's or Apache's, under [StatefulSessionCookieName] for every other one.
// It is an error if the token is empty (but for a stateless one) or would not
// survive the way as a cookie's value (RFC 6265, section 4.1.1, but blanks and
// commas do, in quotes). A nil session is [ErrNoSession].
func CreateCookieForSession(session ServerSession) (_ http.Cookie, err error) {
	if h, ok := session.(*handle); ok && h != nil {
		if session, err = h.ensure(false); err != nil {
			return http.Cookie{}, h.m.refusal(h.base, err)
		}
	}
	if isNil(session) {
		return http.Cookie{}, ErrNoSession
	}
	defer contain(&err) // Apache's stateless session panics if it cannot be encoded
	name := cookieName(session)
	var token string
	if s, ok := session.(*StatelessServerSession); ok {
		if token, err = s.encode(); err != nil {
			return http.Cookie{}, err
		}
	} else if token = session.Token(); token == "" && name == StatefulSessionCookieName {
		return http.Cookie{}, errors.New("session: the session's token is empty")
	}
	if !isCookieValue(token) {
		return http.Cookie{}, fmt.Errorf("session: the token of a %T is no valid cookie value", session)
	}
	return http.Cookie{Name: name, Value: token}, nil
}

// isCookieValue reports whether a token can travel in a cookie as it is.
func isCookieValue(token string) bool {
	back, err := http.ParseCookie("token=" + token)
	return err == nil && len(back) == 1 && back[0].Value == token
}

func cookieName(session ServerSession) string {
	switch s := session.(type) {
	case *statefulServerSession:
		return StatefulSessionCookieName
	case *StatelessServerSession:
		if s.manager != nil {
			return s.manager.cookie
		}
		return StatelessSessionCookieName
	}
	// Only Apache's package can tell its own types.
	if c, err := apache.CreateCookieForSession(session); err == nil {
		return c.Name
	}
	return StatefulSessionCookieName
}

// hasCookie reports whether the client, who sent these, has the session's
// current cookie: whether its next call would find the session as it is now.
func hasCookie(sent []*http.Cookie, current http.Cookie) bool {
	for _, old := range sent {
		if current.Name != StatelessSessionCookieName {
			if old.Value == current.Value {
				return true
			}
			continue
		}
		// The first readable one is what the session is read from. Apache
		// encodes options in random order.
		if was, err := decodeStatelessToken(old.Value); err == nil {
			is, err := decodeStatelessToken(current.Value)
			return err == nil && was.Token() == is.Token()
		}
	}
	return false
}
