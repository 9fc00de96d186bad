// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/c8e4ff29/layover/session"
)

// clientKind is how a client of the field treats cookies.
type clientKind struct {
	name     string
	keeps    bool   // it stores cookies
	header   bool   // it reads Set-Cookie from the header
	trailer  bool   // and from the trailer
	fallback bool   // from the trailer only when the header has none
	joined   string // between two cookies
	byPath   bool   // its jar's key is name and path
	maxAge   bool   // Max-Age=0 deletes
	expires  bool   // so does a past Expires
	empty    bool   // so does an empty value
	closes   bool   // it sends CloseSession when it closes
}

// clientKinds is the table of shared/FIELD.md.
var clientKinds = []clientKind{
	{name: "arrow-go", keeps: true, header: true, trailer: true, joined: ";", byPath: true, maxAge: true, expires: true},
	{name: "arrow-go without cookies"},
	{name: "C++, ODBC", keeps: true, header: true, trailer: true, joined: "; ", maxAge: true, expires: true},
	{name: "pyarrow with cookie code of users", keeps: true, header: true, joined: "; "},
	{name: "pyarrow"},
	{name: "Java, JDBC", keeps: true, header: true, fallback: true, joined: "; ", byPath: true, maxAge: true, expires: true},
	{name: "JDBC with catalog", keeps: true, header: true, fallback: true, joined: "; ", byPath: true, maxAge: true, expires: true, closes: true},
	{name: "ADBC with cookies", keeps: true, header: true, trailer: true, joined: ";", byPath: true, maxAge: true, expires: true, closes: true},
	{name: "ADBC", closes: true},
	{name: ".NET", keeps: true, header: true, joined: "; ", maxAge: true, expires: true, empty: true},
	{name: "Rust"},
}

// clientJar is the jar of such a client.
type clientJar struct {
	clientKind
	cookies []*http.Cookie // in the order of arrival
}

func (j *clientJar) key(c *http.Cookie) string {
	if j.byPath {
		return c.Name + "\x00" + c.Path
	}
	return c.Name
}

// read does what the client does with the Set-Cookie lines of a reply.
func (j *clientJar) read(t *testing.T, r reply) {
	t.Helper()
	if !j.keeps {
		return
	}
	var lines []string
	if j.header {
		lines = append(lines, r.header...)
	}
	if j.trailer || j.fallback && len(r.header) == 0 {
		lines = append(lines, r.trailer...)
	}
	for _, line := range lines {
		c, err := http.ParseSetCookie(line)
		if err != nil {
			t.Fatalf("no client reads the line %q: %v", line, err)
		}
		j.cookies = slices.DeleteFunc(j.cookies, func(old *http.Cookie) bool { return j.key(old) == j.key(c) })
		gone := j.maxAge && c.MaxAge < 0 || j.expires && !c.Expires.IsZero() && c.Expires.Before(time.Now()) || j.empty && c.Value == ""
		if !gone {
			j.cookies = append(j.cookies, c)
		}
	}
}

// pairs is what the client sends of its jar. Java quotes cookies that have a
// path, and adds it.
func (j *clientJar) pairs() (pairs []string) {
	for _, c := range j.cookies {
		pair := c.Name + "=" + c.Value
		if strings.HasPrefix(j.name, "J") && c.Path != "" {
			pair = c.Name + `="` + c.Value + `";$Path="` + c.Path + `"`
		}
		pairs = append(pairs, pair)
	}
	return pairs
}

// session returns the live session cookies in the jar.
func (j *clientJar) session() (n int) {
	for _, c := range j.cookies {
		if c.Name == session.StatefulSessionCookieName {
			n++
		}
	}
	return n
}

const (
	balancer  = "AWSALB=cJ2vQ+T7/x9Zk3=="
	balancer2 = "AWSALBCORS=cJ2vQ+T7/x9Zk3=="
)

// surroundings are what may stand beside a client's cookies on their way, as
// functions from what the client sends to the headers that arrive.
var surroundings = []struct {
	name  string
	lines func(pairs []string, joined string) []string
}{
	{"a load balancer's cookie first", func(pairs []string, joined string) []string {
		return []string{strings.Join(append([]string{balancer}, pairs...), joined)}
	}},
	{"a load balancer's cookie last", func(pairs []string, joined string) []string {
		return []string{strings.Join(append(slices.Clone(pairs), balancer), joined)}
	}},
	{"in the middle of a load balancer's cookies", func(pairs []string, joined string) []string {
		return []string{strings.Join(append(append([]string{balancer}, pairs...), balancer2), joined)}
	}},
	{"quoted", func(pairs []string, joined string) []string {
		lines := []string{balancer}
		for _, p := range pairs {
			name, value, _ := strings.Cut(p, "=")
			lines = append(lines, name+`="`+value+`"`)
		}
		return []string{strings.Join(lines, joined)}
	}},
	{"split over headers", func(pairs []string, _ string) []string {
		return append(append([]string{balancer}, pairs...), balancer2)
	}},
	{"given twice", func(pairs []string, joined string) []string {
		return []string{strings.Join(append(append([]string{balancer}, pairs...), pairs...), joined)}
	}},
}

// Every client of the field, with the cookies that it keeps and in the words in
// which it sends them, finds its session again on the next call, whatever stands
// beside its cookie, and has no live cookie left when it has closed it. A client
// that keeps no cookies finds nothing and leaves only what it made.
func TestEveryClientsDialectFindsItsSession(t *testing.T) {
	for _, kind := range clientKinds {
		for _, around := range surroundings {
			t.Run(kind.name+"/"+around.name, func(t *testing.T) {
				store := newStore(t)
				e := serveEdge(t, edge(store), nil)
				j := &clientJar{clientKind: kind}
				speak(t, e, j, store, around.lines)
			})
		}
	}
}

func speak(t *testing.T, e *endpoint, j *clientJar, store *session.ExpiringSessionStore, around func([]string, string) []string) {
	t.Helper()
	c := e.client()
	say := func(do call) {
		t.Helper()
		joined := j.joined
		if joined == "" {
			joined = "; " // of the load balancer
		}
		r := c.must(do, around(j.pairs(), joined)...)
		j.read(t, r)
	}
	read := func() map[string]*flight.SessionOptionValue {
		t.Helper()
		var got map[string]*flight.SessionOptionValue
		say(getOptions(&got))
		return got
	}
	say(setOption("schema", j.name))
	if !j.keeps {
		if got := read(); len(got) != 0 {
			t.Errorf("a client without a cookie reads %d options", len(got))
		}
		say(closeSession)
		if n := store.Len(); n != 1 {
			t.Errorf("%d sessions, where the client has made one", n)
		}
		return
	}
	first := ""
	if len(j.cookies) == 1 {
		first = j.cookies[0].Value
	}
	for range 2 {
		if got := read(); got["schema"].GetStringValue() != j.name {
			t.Errorf("the client reads %q", got["schema"].GetStringValue())
		}
		if saw, err := e.last(); saw != first || err != nil {
			t.Errorf("the call was in another session, error %v", err)
		}
		say(info(""))
		say(scan(""))
		if n := j.session(); n != 1 {
			t.Errorf("%d session cookies in the jar", n)
		}
	}
	if st := store.Stats(); st.Live != 1 || st.Created != 1 {
		t.Errorf("%d sessions live, of %d", st.Live, st.Created)
	}
	if !j.closes {
		return
	}
	say(closeSession)
	if n := store.Len(); n != 0 {
		t.Errorf("%d sessions are left", n)
	}
	if n := j.session(); n != 0 {
		t.Errorf("%d live cookies are left of a closed session", n)
	}
}
