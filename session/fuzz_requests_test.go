// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/c8e4ff29/layover/session"
)

// Whatever bytes the body of a session action is, the call is answered and kills
// nothing, the store stays sound, and the options that the session then has can
// be read.
func FuzzSessionOptionRequests(f *testing.F) {
	hello, err := proto.Marshal(&flight.SetSessionOptionsRequest{SessionOptions: map[string]*flight.SessionOptionValue{"hello": text("world")}})
	if err != nil {
		f.Fatal(err)
	}
	for _, body := range [][]byte{
		nil, hello, hello[:len(hello)-2], rawOption("\xff", "x"), rawOption("x", "\xff"), rawOption("", ""), rawOption("a\x00;", "b\r\n"),
		[]byte("\n\x05\n\x03abc"), []byte("\n\x00"), []byte("\n\xff\xff\xff\xff\x0f"), []byte(strings.Repeat("\x0b", 200)),
		[]byte("\n\x0d\n\x03abc\x12\x06*\x04\n\x02hi"), []byte("\n\x0a\n\x03abc\x12\x03\x99\x06\x01"),
		append(rawOption("same", "x"), rawOption("same", "y")...),
	} {
		for kind := range uint8(3) {
			f.Add(kind, body)
		}
	}
	kinds := []string{flight.SetSessionOptionsActionType, flight.GetSessionOptionsActionType, flight.CloseSessionActionType}

	store := newStore(f)
	var panicked atomic.Value
	e := serveEdgeInBubble(f, panics(&panicked, edge(store)), nil)
	conn, err := grpc.NewClient("passthrough:///server", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(e.dial))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = conn.Close() })
	ask := func(t *testing.T, cookie, kind string, body []byte) (reply [][]byte, set string, err error) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if cookie != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "cookie", cookie)
		}
		var header metadata.MD
		reply, err = rawCall(ctx, conn, doAction, [][]byte{rawAction(kind, body)}, grpc.Header(&header))
		if status.Code(err) == codes.DeadlineExceeded {
			t.Fatalf("%s was not answered", kind)
		}
		if v := panicked.Load(); v != nil {
			t.Fatalf("%s would have killed the server: %v", kind, v)
		}
		return reply, strings.Join(header.Get("set-cookie"), "; "), err
	}
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		if len(body) > 1<<16 {
			return
		}
		_, cookie, err := ask(t, "", flight.SetSessionOptionsActionType, hello)
		if err != nil || cookie == "" {
			t.Fatalf("an honest client gets the cookie %q, error %v", cookie, err)
		}
		_, _, _ = ask(t, "", kinds[kind%3], body) // any status will do
		_, _, setErr := ask(t, cookie, kinds[kind%3], body)
		reply, _, err := ask(t, cookie, flight.GetSessionOptionsActionType, nil)
		closed := kind%3 == 2 && setErr == nil
		if (err != nil) != closed {
			t.Errorf("after %s, which ended with %v, GetSessionOptions ends with %v", kinds[kind%3], setErr, err)
		}
		if err == nil {
			checkOptions(t, reply)
		}
		_, _, _ = ask(t, cookie, flight.CloseSessionActionType, nil)
		if err := store.Check(); err != nil {
			t.Error(err)
		}
	})
}

// checkOptions checks the answer of GetSessionOptions.
func checkOptions(t *testing.T, reply [][]byte) {
	t.Helper()
	var res flight.Result
	var got flight.GetSessionOptionsResult
	if len(reply) != 1 {
		t.Fatalf("GetSessionOptions answers with %d messages", len(reply))
	}
	if err := proto.Unmarshal(reply[0], &res); err != nil {
		t.Fatal(err)
	}
	if err := proto.Unmarshal(res.GetBody(), &got); err != nil {
		t.Fatal(err)
	}
	for name, v := range got.GetSessionOptions() {
		if v.GetOptionValue() == nil {
			t.Errorf("option %q has no value", name)
		}
		if !utf8.ValidString(name) || !utf8.ValidString(v.GetStringValue()) {
			t.Errorf("option %q is no UTF-8", name)
		}
	}
}

// panics contains panics of the middleware and what it wraps, and notes the
// first. A test that fuzzes cannot be told from outside its target.
func panics(noted *atomic.Value, mw flight.ServerMiddleware) flight.ServerMiddleware {
	stream := mw.Stream
	mw.Stream = func(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer func() {
			if v := recover(); v != nil {
				noted.CompareAndSwap(nil, fmt.Sprintf("%v\n%s", v, debug.Stack()))
				err = status.Error(codes.Unknown, "panic")
			}
		}()
		return stream(srv, s, info, handler)
	}
	return mw
}

// A token finds the session that it was minted for and no other: neither a part
// of it, nor one with a bit changed, nor that of another process. Whatever else a
// client sends does no harm, and the only refusal is that there is no such
// session.
func FuzzTokens(f *testing.F) {
	store := newStore(f)
	mw := edge(store)
	begin := func(mw flight.ServerMiddleware) (token string) {
		_, err := mw.Unary(context.Background(), nil, flightInfo, func(ctx context.Context, _ any) (any, error) {
			s, err := session.GetSessionFromContext(ctx)
			if err != nil {
				return nil, err
			}
			s.SetSessionOption("hello", text("world"))
			token = s.Token()
			return nil, nil
		})
		if err != nil || token == "" {
			f.Fatalf("no session begins: %q, %v", token, err)
		}
		return token
	}
	token := begin(mw)
	flip := func(i int, bit byte) string {
		b := []byte(token)
		b[i] ^= bit
		return string(b)
	}
	for _, seed := range []string{
		"", "x", token, `"` + token + `"`, " " + token + " ", token + "; a=b", token[:len(token)-1], token[1:], token + "A", token + "=",
		token + token, strings.ToLower(token), strings.ToUpper(token), flip(0, 1), flip(len(token)/2, 1), flip(len(token)-1, 1), flip(3, 0x20),
		begin(edge(newStore(f))), "p:" + token, "00000000-0000-4000-8000-000000000000", "\x00", "\xff", `"`, token + `"`,
		"x; " + session.StatefulSessionCookieName + "=" + token,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if strings.Count(value, ";") > 1000 {
			return // net/http gives up at a few thousand
		}
		line := session.StatefulSessionCookieName + "=" + value
		sent := (&http.Request{Header: http.Header{"Cookie": {line}}}).CookiesNamed(session.StatefulSessionCookieName)
		means, tries := false, 0
		for _, c := range sent {
			means = means || c.Value == token
			tries++
		}
		found := false
		_, err := mw.Unary(withCookies(line), nil, flightInfo, func(ctx context.Context, _ any) (any, error) {
			s, err := session.Lookup(ctx)
			if err == nil {
				found = s.Token() == token && s.GetSessionOption("hello").GetStringValue() == "world"
				if !found {
					t.Errorf("%q finds another session", value)
				}
			}
			return nil, nil
		})
		if found && !means {
			t.Errorf("%q finds the session of another token", value)
		}
		if !found && means && tries == 1 { // of many only the first few are tried
			t.Errorf("%q does not find its session: %v", value, err)
		}
		if err != nil && status.Code(err) != codes.NotFound {
			t.Errorf("%q is refused with %v", value, err)
		}
		if n := store.Len(); n != 1 {
			t.Errorf("%q leaves %d sessions", value, n)
		}
	})
}

// flightInfo is a call of the Flight service.
var flightInfo = &grpc.UnaryServerInfo{FullMethod: flightPrefix + "GetFlightInfo"}
