// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/protobuf/proto"

	"github.com/c8e4ff29/layover/session"
)

// No cookie header does harm, and a cookie that CreateCookieForSession wrote is
// found again whatever surrounds it, as long as it stands by itself.
func FuzzIncomingCookies(f *testing.F) {
	for _, seed := range []struct{ before, id, after string }{
		{"", "x", ""},
		{"a=b; ", "9b2d2a5e-2c1c-4ad2-9c50-0f4f4d0e6a4d", "; c=d"},
		{"a=b;", "id", ";c=d"},
		{`$Version=1; a="b"; `, "id", `; $Path="/"`},
		{"AWSALB=cJ2vQ+T7/x9Zk3==; ", "a b", ";;;"},
		{"a; =; ;b=\x00;", "a,b", "; \"; \xff=\xff"},
		{"arrow_flight_session_id=other; ", "id", "; arrow_flight_session_id=\"other"},
		{strings.Repeat("a=b; ", 100), "id", strings.Repeat("; a=b", 100)},
	} {
		f.Add(seed.before, seed.id, seed.after)
	}
	name := session.StatefulSessionCookieName
	f.Fuzz(func(t *testing.T, before, id, after string) {
		if len(before)+len(after) > 4096 {
			return // more than a few thousand cookies are refused by net/http
		}
		_, _ = session.GetIncomingCookieByName(withCookies(before+id+after), name)
		_, _ = session.GetIncomingCookieByName(withCookies(before, id, after), id)
		store := newStore(t)
		manager := session.NewStatefulServerSessionManager(session.WithStore(store))
		if _, err := manager.GetSession(withCookies(before, id, after)); !errors.Is(err, session.ErrNoSession) {
			t.Errorf("an empty store: %v", err)
		}

		s := &userSession{id: id}
		cookie, err := session.CreateCookieForSession(s)
		if err != nil {
			return
		}
		put(t, store, s)
		if strings.Count(before+after, name) >= 3 {
			return // only the first few cookies of a name are tried
		}
		for _, lines := range [][]string{
			{before + ";" + cookie.String() + ";" + after},
			{before + "; " + cookie.String() + "; " + after},
			{before, cookie.String(), after},
			{before + `;` + name + `="` + id + `"; ` + after},
		} {
			if got, err := manager.GetSession(withCookies(lines...)); err != nil || got != session.ServerSession(s) {
				t.Errorf("the session is not found in %q: %v", lines, err)
			}
			if strings.Contains(before, name) {
				continue
			}
			if back, err := session.GetIncomingCookieByName(withCookies(lines...), name); err != nil || back.Value != id {
				t.Errorf("the cookie is read as %q in %q: %v", back.Value, lines, err)
			}
		}
	})
}

// No token does harm, and one that is read is read again from what it is
// written as, to the byte.
func FuzzStatelessToken(f *testing.F) {
	f.Add("")
	f.Add("!!!")
	f.Add(helloToken)
	f.Add(bothToken)
	f.Add(helloToken[:len(helloToken)-2])
	for _, raw := range []string{
		"\n\x05\n\x03abc", "\n\x00", "\xff\xff\xff\xff\x0f", strings.Repeat("\x0b", 50),
		"\n\x0b\n\x03abc\x12\x04\n\x02\xff\xfe", "\n\x0d\n\x03abc\x12\x06*\x04\n\x02hi", "\n\x0a\n\x03abc\x12\x03\x99\x06\x01",
	} {
		f.Add(base64.StdEncoding.EncodeToString([]byte(raw)))
	}
	manager := session.NewStatelessServerSessionManager()
	f.Fuzz(func(t *testing.T, token string) {
		s, err := manager.GetSession(withCookies(session.StatelessSessionCookieName + "=" + token))
		if err != nil {
			if err != session.ErrNoSession { //nolint:errorlint // Apache compares with !=
				t.Errorf("got %v", err)
			}
			return
		}
		cookie, err := session.CreateCookieForSession(s)
		if err != nil {
			t.Fatalf("a token that was read cannot be written: %v", err)
		}
		back := decode(t, cookie.Value)
		if back.Token() != s.Token() || s.Token() != cookie.Value {
			t.Errorf("read, written, read and written: %q, then %q", s.Token(), back.Token())
		}
		if !proto.Equal(result(s), result(back)) {
			t.Errorf("the options were %v, then %v", s.GetSessionOptions(), back.GetSessionOptions())
		}
		for name, v := range s.GetSessionOptions() {
			if v.GetOptionValue() == nil {
				t.Errorf("option %q has no value", name)
			}
		}
	})
}

func result(s session.ServerSession) *flight.GetSessionOptionsResult {
	return &flight.GetSessionOptionsResult{SessionOptions: s.GetSessionOptions()}
}

// Options travel in a stateless cookie as they are, or not at all: then the
// session has no cookie, and says so.
func FuzzSessionOptionsThroughStatelessCookie(f *testing.F) {
	f.Add("hello", "world", int64(1), true)
	f.Add("", "", int64(0), false)
	f.Add("\xff", "x", int64(-1), true)
	f.Add("x", "\xff", int64(1)<<62, false)
	f.Add("a;b=c", "\x00\r\n;", int64(7), true)
	f.Add(strings.Repeat("n", 300), strings.Repeat("v", 3000), int64(9), false)
	f.Fuzz(func(t *testing.T, name, value string, number int64, flag bool) {
		s := session.NewStatelessServerSession(nil)
		list, _ := flight.NewSessionOptionValue([]string{value, name, ""})
		count, _ := flight.NewSessionOptionValue(number)
		truth, _ := flight.NewSessionOptionValue(flag)
		s.SetSessionOption(name, text(value))
		s.SetSessionOption(name+"/list", &list)
		s.SetSessionOption(name+"/count", &count)
		s.SetSessionOption(name+"/flag", &truth)
		s.SetSessionOption(fmt.Sprint(number), text(value))
		cookie, err := session.CreateCookieForSession(s)
		if valid := utf8.ValidString(name) && utf8.ValidString(value); (err == nil) != valid {
			t.Fatalf("text that is UTF-8: %v, error %v", valid, err)
		}
		if err != nil {
			if s.Token() != "" {
				t.Errorf("a session without a cookie has the token %q", s.Token())
			}
			return
		}
		line, err := http.ParseSetCookie(cookie.String())
		if err != nil || line.Value != s.Token() || line.Path != "" || line.MaxAge != 0 {
			t.Fatalf("the cookie %q is read as %v, error %v", cookie.String(), line, err)
		}
		if back := decode(t, line.Value); !proto.Equal(result(s), result(back)) {
			t.Errorf("the options %v came back as %v", s.GetSessionOptions(), back.GetSessionOptions())
		}
	})
}
