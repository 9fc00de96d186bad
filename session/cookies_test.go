// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// implementation is a pair of middlewares that must answer alike, but for what
// the tables mark as a defect of Apache's.
type implementation struct {
	name      string
	defects   bool // answers as Apache's does, defects included
	stateful  func(testing.TB, session.SessionFactory) (flight.CustomServerMiddleware, *session.ExpiringSessionStore)
	stateless func() flight.CustomServerMiddleware
	current   func(context.Context) (session.ServerSession, error)
}

var implementations = []implementation{
	{
		name: "Layover",
		stateful: func(t testing.TB, f session.SessionFactory) (flight.CustomServerMiddleware, *session.ExpiringSessionStore) {
			store := newStore(t)
			return stateful(store, session.WithFactory(f)), store
		},
		stateless: func() flight.CustomServerMiddleware {
			return session.NewServerSessionMiddleware(session.NewStatelessServerSessionManager(), session.WithLogger(nil))
		},
		current: session.GetSessionFromContext,
	},
	{
		name: "Layover, handlers use Apache's GetSessionFromContext",
		stateful: func(t testing.TB, f session.SessionFactory) (flight.CustomServerMiddleware, *session.ExpiringSessionStore) {
			store := newStore(t)
			return stateful(store, session.WithFactory(f)), store
		},
		stateless: func() flight.CustomServerMiddleware {
			return session.NewServerSessionMiddleware(session.NewStatelessServerSessionManager(), session.WithLogger(nil))
		},
		current: apache.GetSessionFromContext,
	},
	{
		name: "Layover over Apache's store",
		stateful: func(_ testing.TB, f session.SessionFactory) (flight.CustomServerMiddleware, *session.ExpiringSessionStore) {
			return stateful(apache.NewSessionStore(), session.WithFactory(f)), nil
		},
		current: session.GetSessionFromContext,
	},
	{
		name:    "Apache",
		defects: true,
		stateful: func(_ testing.TB, f session.SessionFactory) (flight.CustomServerMiddleware, *session.ExpiringSessionStore) {
			return apache.NewServerSessionMiddleware(apache.NewStatefulServerSessionManager(apache.WithFactory(f))), nil
		},
		stateless: func() flight.CustomServerMiddleware {
			return apache.NewServerSessionMiddleware(apache.NewStatelessServerSessionManager())
		},
		current: apache.GetSessionFromContext,
	},
	{
		name:    "Apache over Layover's store",
		defects: true,
		stateful: func(t testing.TB, f session.SessionFactory) (flight.CustomServerMiddleware, *session.ExpiringSessionStore) {
			store := newStore(t)
			return apache.NewServerSessionMiddleware(apache.NewStatefulServerSessionManager(
				apache.WithFactory(f), apache.WithStore(store))), store
		},
		current: apache.GetSessionFromContext,
	},
}

// factory makes sessions of the type that the implementation knows.
func (impl implementation) factory(generate func() string) session.SessionFactory {
	if impl.defects {
		return apache.NewSessionFactory(generate)
	}
	return session.NewSessionFactory(generate)
}

// numbered returns a generator of the IDs 1-known, 2-new and so on: the first
// is the one that a test makes for itself, the second what a call may make.
func numbered() func() string {
	names := []string{"1-known", "2-new", "3-more", "4-more", "5-more", "6-more"}
	return func() string {
		name := names[0]
		names = names[1:]
		return name
	}
}

// cookieRow is a row of the table of which cookies go out. In what is sent and
// expected, KNOWN and NEW stand for the values of cookies.
type cookieRow struct {
	name    string
	sent    []string // cookie headers
	calls   []string // of those in the test
	before  call     // made with the known cookie first
	header  string   // "" is no Set-Cookie
	trailer string
	sees    string // the session that the handler gets, before it changes it
	// defect is the header and trailer of Apache's middleware, and the session
	// that its handler gets, if they differ.
	defect *[3]string
	empty  bool // no session is left in the store
}

var statefulRows = []cookieRow{
	{
		name: "no cookie", calls: []string{"info", "failing info", "get", "set", "scan", "failing scan"},
		header: "NEW", trailer: "NEW", sees: "NEW",
	},
	{
		name: "known", sent: []string{"$=KNOWN"}, calls: []string{"info", "failing info", "get", "set", "scan", "failing scan"},
		sees: "KNOWN",
	},
	{
		name: "known, in double quotes", sent: []string{`$="KNOWN"`}, calls: []string{"info", "failing info", "set", "scan"},
		sees: "KNOWN", defect: &[3]string{"", "KNOWN", "KNOWN"},
	},
	{
		name: "unknown", sent: []string{"$=nobody"}, calls: []string{"info", "failing info", "set", "scan"},
		header: "NEW", trailer: "NEW", sees: "NEW",
	},
	{
		name: "closed", sent: []string{"$=KNOWN"}, before: closeSession, calls: []string{"info", "failing info", "set", "scan"},
		header: "NEW", trailer: "NEW", sees: "NEW",
	},
	{
		name: "empty", sent: []string{"$="}, calls: []string{"info", "failing info", "set", "scan"},
		header: "NEW", trailer: "NEW", sees: "NEW",
	},
	{
		name: "known, CloseSession", sent: []string{"$=KNOWN"}, calls: []string{"close"},
		trailer: "KNOWN; Max-Age=0", sees: "KNOWN", empty: true,
	},
	{
		name: "known, in double quotes, CloseSession", sent: []string{`$="KNOWN"`}, calls: []string{"close"},
		trailer: "KNOWN; Max-Age=0", sees: "KNOWN", empty: true, defect: &[3]string{"", `"KNOWN"; Max-Age=0`, "KNOWN"},
	},
	{
		name: "unknown, CloseSession", sent: []string{"$=nobody"}, calls: []string{"close"},
		header: "NEW", trailer: "nobody; Max-Age=0", sees: "NEW",
	},
	{
		name: "no cookie, CloseSession", calls: []string{"close"},
		header: "NEW", trailer: "NEW; Max-Age=0", sees: "NEW", defect: &[3]string{"NEW", "NEW", "NEW"},
	},
	{
		name: "unknown first and known second in one header", sent: []string{"$=nobody; $=KNOWN"}, calls: []string{"info", "failing info", "set", "scan"},
		sees: "KNOWN", defect: &[3]string{"NEW", "NEW", "NEW"},
	},
	{
		name: "known first and unknown second", sent: []string{"$=KNOWN; $=nobody"}, calls: []string{"info", "set", "scan"},
		sees: "KNOWN",
	},
	{
		name: "unknown first and known second, CloseSession", sent: []string{"$=nobody; $=KNOWN"}, calls: []string{"close"},
		trailer: "KNOWN; Max-Age=0", sees: "KNOWN", empty: true, defect: &[3]string{"NEW", "nobody; Max-Age=0", "NEW"},
	},
}

var tableCalls = map[string]call{
	"info":         info(""),
	"failing info": info("fail"),
	"get":          getOptions(nil),
	"set":          setOption("hello", "world"),
	"scan":         scan(""),
	"failing scan": scan("fail"),
	"close":        closeSession,
}

// tableServer is a server whose statement "fail" fails.
func tableServer(impl implementation) *sqlServer {
	return &sqlServer{
		fromContext: impl.current,
		statements: map[string]statement{"fail": func(context.Context, session.ServerSession) error {
			return status.Error(codes.InvalidArgument, "no such table")
		}},
	}
}

// The cookies that go out with a stateful manager are those of the table, in
// both implementations, but for the rows where Apache's has a defect.
func TestStatefulCookiesAreThoseOfTheTable(t *testing.T) {
	for _, impl := range implementations {
		t.Run(impl.name, func(t *testing.T) {
			for _, row := range statefulRows {
				for _, name := range row.calls {
					t.Run(row.name+", "+name, func(t *testing.T) {
						middleware, store := impl.stateful(t, impl.factory(numbered()))
						e := serve(t, middleware, tableServer(impl))
						c := e.client()
						c.must(info("")).cookie(t)
						if row.before != nil {
							c.must(row.before, session.StatefulSessionCookieName+"=1-known")
						}
						fill := strings.NewReplacer("$", session.StatefulSessionCookieName, "KNOWN", "1-known", "NEW", "2-new")
						checkRow(t, impl, e, c, row, name, fill)
						if row.empty && store != nil && !impl.defects && store.Len() != 0 {
							t.Errorf("%d sessions are left", store.Len())
						}
					})
				}
			}
		})
	}
}

func checkRow(t *testing.T, impl implementation, e *endpoint, c *client, row cookieRow, name string, fill *strings.Replacer) {
	t.Helper()
	var sent []string
	for _, line := range row.sent {
		sent = append(sent, fill.Replace(line))
	}
	r := c.do(tableCalls[name], sent...)
	if failed, want := r.err != nil, strings.HasPrefix(name, "failing"); failed != want {
		t.Errorf("the call ended with %v", r.err)
	}
	header, trailer, sees := row.header, row.trailer, row.sees
	if impl.defects && row.defect != nil {
		header, trailer, sees = row.defect[0], row.defect[1], row.defect[2]
	}
	lines := func(value string) []string {
		if value == "" {
			return nil
		}
		return []string{fill.Replace("$=" + value)}
	}
	if want := lines(header); !slices.Equal(r.header, want) {
		t.Errorf("the header has %q, want %q", r.header, want)
	}
	if want := lines(trailer); !slices.Equal(r.trailer, want) {
		t.Errorf("the trailer has %q, want %q", r.trailer, want)
	}
	if saw, err := e.last(); saw != fill.Replace(sees) {
		t.Errorf("the handler got the session %q (error %v), want %q", saw, err, fill.Replace(sees))
	}
}

// CloseSession without a cookie is what ADBC sends at every close.
func TestCloseSessionWithoutCookieLeavesNothing(t *testing.T) {
	store := newStore(t)
	c := serve(t, stateful(store), nil).client()
	for range 20 {
		c.must(closeSession)
	}
	if st := store.Stats(); st.Live != 0 || st.Retired != 0 || st.Created != 20 || st.Ended[layover.ReasonClosed] != 20 {
		t.Errorf("after 20 calls: %+v", st)
	}
}

// Values of stateless cookies.
const (
	emptyToken = ""
	helloToken = "ChAKBWhlbGxvEgcKBXdvcmxk" // {"hello": "world"}
	otherToken = "ChAKBW90aGVyEgcKBXdvcmxk" // {"other": "world"}
)

// BOTH stands for the token of hello and other together.
var bothToken = base64.StdEncoding.EncodeToString(append(unbase64(helloToken), unbase64(otherToken)...))

func unbase64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// In these rows KNOWN is a session with the option other, and "set" sets the
// option hello. An empty token is written as EMPTY.
var statelessRows = []cookieRow{
	{
		name: "no cookie, unchanged", calls: []string{"info", "failing info", "get", "scan", "failing scan"},
		header: "EMPTY", trailer: "EMPTY",
	},
	{
		name: "no cookie, changed", calls: []string{"set"},
		header: "EMPTY", trailer: "HELLO",
	},
	{
		name: "known, unchanged", sent: []string{"$=KNOWN"}, calls: []string{"info", "failing info", "get", "scan", "failing scan"},
		sees: "KNOWN",
	},
	{
		name: "known, set to what it is", sent: []string{"$=HELLO"}, calls: []string{"set"},
		sees: "HELLO",
	},
	{
		name: "empty, unchanged", sent: []string{"$="}, calls: []string{"info", "get", "scan"},
	},
	{
		name: "empty, changed", sent: []string{"$="}, calls: []string{"set"},
		trailer: "HELLO",
	},
	{
		name: "known, changed", sent: []string{"$=KNOWN"}, calls: []string{"set"},
		trailer: "BOTH", sees: "KNOWN",
	},
	{
		name: "known, in double quotes", sent: []string{`$="KNOWN"`}, calls: []string{"info", "failing info", "get", "scan"},
		sees: "KNOWN", defect: &[3]string{"", "KNOWN", "KNOWN"},
	},
	{
		name: "known, CloseSession", sent: []string{"$=KNOWN"}, calls: []string{"close"},
		trailer: "KNOWN; Max-Age=0", sees: "KNOWN",
	},
	{
		name: "no cookie, CloseSession", calls: []string{"close"},
		header: "EMPTY", trailer: "; Max-Age=0", defect: &[3]string{"EMPTY", "EMPTY", ""},
	},
}

// The cookies that go out with a stateless manager are those of the table.
func TestStatelessCookiesAreThoseOfTheTable(t *testing.T) {
	fill := strings.NewReplacer("$", session.StatelessSessionCookieName, "KNOWN", otherToken, "HELLO", helloToken,
		"EMPTY", emptyToken, "BOTH", bothToken)
	for _, impl := range implementations {
		if impl.stateless == nil {
			continue
		}
		t.Run(impl.name, func(t *testing.T) {
			for _, row := range statelessRows {
				for _, name := range row.calls {
					if impl.defects && fill.Replace(row.trailer) == bothToken {
						continue // Apache's order of two options is random
					}
					t.Run(row.name+", "+name, func(t *testing.T) {
						e := serve(t, impl.stateless(), tableServer(impl))
						checkRow(t, impl, e, e.client(), row, name, fill)
					})
				}
			}
		})
	}
}

// An unchanged stateless session is not sent again, in whatever order its token
// has the options.
func TestStatelessTokenInAnyOrderIsTheSameToken(t *testing.T) {
	c := serve(t, implementations[0].stateless(), nil).client()
	shuffled := apache.NewStatelessServerSession(nil)
	for i := range 10 {
		shuffled.SetSessionOption(fmt.Sprint("option ", i), text("value"))
	}
	different := make(map[string]bool)
	for range 20 {
		token := shuffled.Token() // in map order
		different[token] = true
		if r := c.must(info(""), session.StatelessSessionCookieName+"="+token); r.header != nil || r.trailer != nil {
			t.Fatalf("header %q, trailer %q", r.header, r.trailer)
		}
	}
	if len(different) < 2 {
		t.Error("the test has tried one order only")
	}
}

// A client that sends two stateless cookies, as one behind a confused jar does,
// is told of every change: what it sends second is not what the session was
// read from.
func TestStatelessChangeReachesAClientWithTwoCookies(t *testing.T) {
	c := serve(t, implementations[0].stateless(), nil).client()
	name := session.StatelessSessionCookieName
	r := c.must(setOption("hello", "world"), name+"=; "+name+"="+helloToken)
	if want := []string{name + "=" + helloToken}; !slices.Equal(r.trailer, want) {
		t.Errorf("the session was read from the first cookie, then changed: the trailer has %q, want %q", r.trailer, want)
	}
}

// Dialects in which clients and what stands between send a cookie back. NAME is
// the session's cookie, ID its value.
var dialects = []struct {
	name  string
	lines []string
}{
	{"alone", []string{"NAME=ID"}},
	{"arrow-go and ADBC: joined by ; without a blank", []string{"a=b;NAME=ID;c=d"}},
	{"C++, Java, .NET: joined by ; and a blank", []string{"a=b; NAME=ID; c=d"}},
	{"several headers", []string{"a=b", "NAME=ID", "c=d"}},
	{"beside a load balancer's, first", []string{"AWSALB=cJ2vQ+T7/x9Zk3==; AWSALBCORS=cJ2vQ+T7/x9Zk3==; NAME=ID"}},
	{"beside a load balancer's, last", []string{"NAME=ID; AWSALB=cJ2vQ+T7/x9Zk3=="}},
	{"beside a load balancer's, in another header", []string{"AWSALB=cJ2vQ+T7/x9Zk3==", "NAME=ID"}},
	{"quoted", []string{`NAME="ID"`}},
	{"quoted, between others, without blanks", []string{`a="b";NAME="ID";c=d`}},
	{"Java: with $Version and $Path", []string{`$Version="1"; NAME="ID";$Path="/"`}},
	{"Java: with unquoted $Version, $Path and $Domain", []string{`$Version=1; NAME=ID; $Path=/; $Domain=example.com`}},
	{"given twice, the same", []string{"NAME=ID; NAME=ID"}},
	{"given twice, unknown first", []string{"NAME=gone; NAME=ID"}},
	{"given twice, unknown first, without a blank", []string{"NAME=gone;NAME=ID"}},
	{"given twice, in two headers", []string{"NAME=gone", "NAME=ID"}},
	{"given twice, empty first", []string{"NAME=; NAME=ID"}},
	{"given twice, malformed first", []string{`NAME="; NAME=ID`}},
	{"beside one whose name only begins like it", []string{"NAME_2=gone; NAME=ID; my_NAME=gone"}},
	{"beside malformed ones", []string{"; ;=;b ad=1;" + `c="` + ";NAME=ID;=x"}},
	{"with blanks around", []string{"  NAME=ID  ;  a=b"}},
	{"with a separator at the end", []string{"NAME=ID;"}},
}

// A known cookie is found in every dialect, and is not sent again.
func TestKnownCookieIsFoundInEveryDialect(t *testing.T) {
	store := newStore(t)
	e := serve(t, stateful(store), nil)
	c := e.client()
	id := strings.TrimPrefix(c.must(info("")).cookie(t), session.StatefulSessionCookieName+"=")
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			fill := strings.NewReplacer("NAME", session.StatefulSessionCookieName, "ID", id)
			for _, name := range []string{"info", "set", "scan"} {
				var lines []string
				for _, l := range d.lines {
					lines = append(lines, fill.Replace(l))
				}
				r := c.must(tableCalls[name], lines...)
				if saw, err := e.last(); saw != id {
					t.Errorf("%s: the handler got another session, error %v", name, err)
				}
				if r.header != nil || r.trailer != nil {
					t.Errorf("%s: sent cookies: header %q, trailer %q", name, r.header, r.trailer)
				}
			}
		})
	}
	if n := store.Stats().Created; n != 1 {
		t.Errorf("%d sessions were made for one client", n)
	}
}

// A stateless token is found in every dialect, and an unchanged one is not sent
// again. Those dialects where another token comes first are read as that.
func TestStatelessTokenIsFoundInEveryDialect(t *testing.T) {
	e := serve(t, implementations[0].stateless(), nil)
	c := e.client()
	for _, d := range dialects {
		if strings.Contains(d.name, "empty first") {
			continue // the empty token is a session without options
		}
		t.Run(d.name, func(t *testing.T) {
			fill := strings.NewReplacer("NAME", session.StatelessSessionCookieName, "ID", helloToken, "gone", "*")
			var lines []string
			for _, l := range d.lines {
				lines = append(lines, fill.Replace(l))
			}
			r := c.must(info(""), lines...)
			if saw, err := e.last(); saw != helloToken {
				t.Errorf("the handler got the session %q, error %v", saw, err)
			}
			if r.header != nil || r.trailer != nil {
				t.Errorf("sent cookies: header %q, trailer %q", r.header, r.trailer)
			}
		})
	}
}

// Only a few cookies of one name cost the server a look.
func TestOnlyAFewCookiesOfOneNameAreTried(t *testing.T) {
	var looks int
	store := &fakeStore{get: func(string) (session.ServerSession, error) {
		looks++
		return nil, session.ErrNoSession
	}}
	ctx := withCookies(strings.Repeat(session.StatefulSessionCookieName+"=x; ", 1000))
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	if _, err := manager.GetSession(ctx); err != session.ErrNoSession { //nolint:errorlint // Apache compares with !=
		t.Errorf("got %v, want ErrNoSession itself", err)
	}
	if looks == 0 || looks > 10 {
		t.Errorf("%d looks", looks)
	}
}

// withCookies returns the context of an incoming call with these cookie headers.
func withCookies(lines ...string) context.Context {
	return metadata.NewIncomingContext(context.Background(), metadata.MD{"cookie": lines})
}

// GetIncomingCookieByName finds what the client sent, else http.ErrNoCookie.
func TestGetIncomingCookieByName(t *testing.T) {
	for _, tt := range []struct {
		name  string
		ctx   context.Context
		value string
		err   error
	}{
		{"no metadata", context.Background(), "", http.ErrNoCookie},
		{"no cookies", metadata.NewIncomingContext(context.Background(), metadata.MD{}), "", http.ErrNoCookie},
		{"another cookie", withCookies("other=1"), "", http.ErrNoCookie},
		{"there", withCookies("other=1; name=2"), "2", nil},
		{"quoted", withCookies(`name="2"`), "2", nil},
		{"empty", withCookies("name="), "", nil},
		{"the first of two", withCookies("name=1", "name=2"), "1", nil},
		{"in capitals in the metadata", metadata.NewIncomingContext(context.Background(), metadata.MD{"Cookie": {"name=2"}}), "2", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := session.GetIncomingCookieByName(tt.ctx, "name")
			if !errors.Is(err, tt.err) || c.Value != tt.value {
				t.Errorf("got %q, error %v", c.Value, err)
			}
			if _, err := session.GetIncomingCookieByName(tt.ctx, ""); !errors.Is(err, http.ErrNoCookie) {
				t.Errorf("a cookie without a name: error %v", err)
			}
		})
	}
}

// A live cookie has a name and a value and nothing else: Java would send one
// with a path back quoted, Go clients would file it under another key.
func TestCreateCookieForSessionIsBare(t *testing.T) {
	own, err := session.NewSessionFactory(nil).CreateSession()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := uuid.Parse(own.Token()); err != nil {
		t.Errorf("the default ID is no UUID: %v", err)
	}
	hello := session.NewStatelessServerSession(map[string]*flight.SessionOptionValue{"hello": text("world")})
	for _, tt := range []struct {
		name string
		s    session.ServerSession
		want string
	}{
		{"stateful", own, session.StatefulSessionCookieName + "=" + own.Token()},
		{"stateless and empty", session.NewStatelessServerSession(nil), session.StatelessSessionCookieName + "="},
		{"stateless", hello, session.StatelessSessionCookieName + "=" + helloToken},
		{"of a user's type", &userSession{id: "mine"}, session.StatefulSessionCookieName + "=mine"},
	} {
		c, err := session.CreateCookieForSession(tt.s)
		if err != nil || c.String() != tt.want {
			t.Errorf("%s: got %q, error %v, want %q", tt.name, c.String(), err, tt.want)
		}
	}
	if _, err := session.CreateCookieForSession(nil); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("a nil session: %v", err)
	}
}

// A token that would not come back as it went out is refused, and the error
// does not quote it.
func TestCreateCookieForSessionRefusesWhatWouldNotComeBack(t *testing.T) {
	for _, id := range []string{"", "a;b", "a; Max-Age=0", "a ", "\ta", "a\tb", "a\nb", "a\r\nSet-Cookie: x=y", "a\x00b",
		"a\x7fb", "schl\u00fcssel", "\xff\xfe", `"quoted"`, `a"b`, `a\b`} {
		c, err := session.CreateCookieForSession(&userSession{id: id})
		if err == nil {
			t.Errorf("%q: got the cookie %q", id, c.String())
		} else if len(id) > 3 && strings.Contains(err.Error(), id) {
			t.Errorf("%q: the error quotes it: %v", id, err)
		}
	}
	bad := session.NewStatelessServerSession(nil)
	bad.SetSessionOption("\xff", text("value"))
	if _, err := session.CreateCookieForSession(bad); err == nil {
		t.Error("a stateless session with an option name that is no UTF-8 has a cookie")
	}
	if bad.Token() != "" {
		t.Errorf("and the token %q", bad.Token())
	}
}

// What is not refused comes back as it was, whatever characters are in it.
func TestCookiesThatAreNotRefusedComeBack(t *testing.T) {
	for b := range 256 {
		id := "a" + string([]byte{byte(b)}) + "b"
		c, err := session.CreateCookieForSession(&userSession{id: id})
		if err != nil {
			continue
		}
		for _, line := range []string{c.String(), c.Name + `="` + id + `"`, "x=y;" + c.String() + ";z=1"} {
			if back, err := session.GetIncomingCookieByName(withCookies(line), c.Name); err != nil || back.Value != id {
				t.Errorf("%q went out as %q and came back as %q, error %v", id, line, back.Value, err)
			}
		}
	}
}

// An empty option value in a token counts as not set.
func TestStatelessTokenWithAnEmptyValue(t *testing.T) {
	b, err := proto.Marshal(&flight.GetSessionOptionsResult{SessionOptions: map[string]*flight.SessionOptionValue{
		"empty": {}, "hello": text("world")}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := session.NewStatelessServerSessionManager().GetSession(
		withCookies(session.StatelessSessionCookieName + "=" + base64.StdEncoding.EncodeToString(b)))
	if err != nil {
		t.Fatal(err)
	}
	if all := s.GetSessionOptions(); len(all) != 1 || all["hello"].GetStringValue() != "world" {
		t.Errorf("got %v", all)
	}
}
