// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/session"
)

// decode returns the session that a stateless token stands for.
func decode(t interface{ Fatalf(string, ...any) }, token string) session.ServerSession {
	s, err := session.NewStatelessServerSessionManager(session.WithMaxCookie(1 << 20)).GetSession(withCookies(session.StatelessSessionCookieName + "=" + token))
	if err != nil {
		t.Fatalf("a good token is not read: %v", err)
	}
	return s
}

// What goes into a token comes out of it, in our package and in Apache's, and
// the same options always make the same token.
func TestStatelessTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, again := session.NewStatelessServerSession(nil), session.NewStatelessServerSession(nil)
		theirs := apache.NewStatelessServerSession(nil)
		values := rapid.MapOfN(rapid.String(), optionValues(), 0, 12).Draw(t, "options")
		for name, v := range values {
			s.SetSessionOption(name, v)
			theirs.SetSessionOption(name, v)
		}
		for name, v := range maps.All(values) { // in another order
			again.SetSessionOption(name, v)
		}
		if s.Token() != again.Token() {
			t.Fatalf("two sessions with the same options have the tokens %q and %q", s.Token(), again.Token())
		}
		equal := func(a, b *flight.SessionOptionValue) bool { return proto.Equal(a, b) }
		for from, token := range map[string]string{"ours": s.Token(), "Apache's": theirs.Token()} {
			back := decode(t, token)
			if !maps.EqualFunc(back.GetSessionOptions(), s.GetSessionOptions(), equal) {
				t.Fatalf("%s token came back as %v, went out as %v", from, back.GetSessionOptions(), s.GetSessionOptions())
			}
			if back.Token() != s.Token() {
				t.Fatalf("%s token came back as %q, ours is %q", from, back.Token(), s.Token())
			}
		}
		if theirs, err := apache.NewStatelessServerSessionManager().GetSession(
			withCookies(session.StatelessSessionCookieName + "=" + s.Token())); err != nil ||
			!maps.EqualFunc(theirs.GetSessionOptions(), s.GetSessionOptions(), equal) {
			t.Fatalf("Apache's package reads our token otherwise, error %v", err)
		}
	})
}

// The first cookie that is a token counts, and none is ErrNoSession.
func TestStatelessManagerTakesTheFirstToken(t *testing.T) {
	name := session.StatelessSessionCookieName
	manager := session.NewStatelessServerSessionManager()
	for lines, want := range map[string]string{
		name + "=" + helloToken:                                          helloToken,
		name + "=*; " + name + "=" + helloToken:                          helloToken,
		name + "=" + otherToken + "; " + name + "=" + helloToken:         otherToken,
		name + "=; " + name + "=" + helloToken:                           "",
		"a=b; " + name + `="` + helloToken + `"; AWSALB=x`:               helloToken,
		session.StatefulSessionCookieName + "=x; " + name + "=*; a=b":    "none",
		session.StatefulSessionCookieName + "=" + helloToken + "; x=*":   "none",
		strings.ToUpper(name) + "=" + helloToken:                         "none",
		name + " =" + helloToken + "; " + name + "_2=" + otherToken:      helloToken,
		name + "=" + helloToken + " ; " + name + "\x00=" + otherToken:    helloToken,
		name + "=" + helloToken[:4] + " " + helloToken[4:] + "; ignored": "none",
	} {
		s, err := manager.GetSession(withCookies(lines))
		if want == "none" {
			if err != session.ErrNoSession { //nolint:errorlint // Apache compares with !=
				t.Errorf("%q: %v", lines, err)
			}
		} else if err != nil || s.Token() != want {
			t.Errorf("%q: %v", lines, err)
		}
	}
}

// A new stateless session is empty, takes over the options that it is given,
// and is empty again once it is closed.
func TestStatelessSession(t *testing.T) {
	made, err := session.NewStatelessServerSessionManager().CreateSession(t.Context())
	if err != nil || made.Token() != "" || len(made.GetSessionOptions()) != 0 || made.Closed() {
		t.Errorf("CreateSession: %v, %v", made, err)
	}
	s := session.NewStatelessServerSession(map[string]*flight.SessionOptionValue{"hello": text("world")})
	if s.Token() != helloToken || s.GetSessionOption("hello").GetStringValue() != "world" {
		t.Errorf("the token is %q", s.Token())
	}
	for range 2 {
		if err := s.Close(); err != nil || !s.Closed() {
			t.Errorf("Close: %v, closed %v", err, s.Closed())
		}
	}
	s.SetSessionOption("late", text("x"))
	s.EraseSessionOption("late")
	if s.Token() != "" || len(s.GetSessionOptions()) != 0 || s.GetSessionOption("hello") != nil {
		t.Errorf("a closed session has the token %q", s.Token())
	}
	if err := session.NewStatelessServerSessionManager().CloseSession(s); err != nil {
		t.Error(err)
	}
}

// Options that a caller passes in without a value are harmless.
func TestStatelessSessionWithNilValues(t *testing.T) {
	s := session.NewStatelessServerSession(map[string]*flight.SessionOptionValue{"nil": nil, "empty": {}, "hello": text("world")})
	back := decode(t, s.Token())
	if got := back.GetSessionOptions(); len(got) != 1 || back.Token() != helloToken {
		t.Errorf("came back as %v", got)
	}
	if _, err := session.CreateCookieForSession(s); err != nil {
		t.Error(err)
	}
	_, _ = s.GetSessionOption("nil"), s.GetSessionOptions()
}

// Printing a stateless session does not spill what is in it.
func TestStatelessSessionPrintsNoOptions(t *testing.T) {
	s := session.NewStatelessServerSession(map[string]*flight.SessionOptionValue{"password": text("hunter2")})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d"} {
		if got := fmt.Sprintf(verb, s); strings.Contains(got, "hunter2") || strings.Contains(got, s.Token()) {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}
