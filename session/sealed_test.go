// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	sealedtoken "github.com/c8e4ff29/layover/internal/token"
	"github.com/c8e4ff29/layover/session"
)

// aKey returns 32 random bytes.
func aKey() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return key
}

func ring(t testing.TB, current []byte, former ...[]byte) *session.Keyring {
	t.Helper()
	k, err := session.NewKeyring(current, former...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// sealing returns a manager of sealed sessions, with a key of its own.
func sealing(t testing.TB, opts ...session.StatelessSessionManagerOption) *session.StatelessServerSessionManager {
	t.Helper()
	return sealingBy(t, ring(t, aKey()), opts...)
}

// sealingBy returns a manager of sealed sessions: a replica of all that have these keys.
func sealingBy(t testing.TB, k *session.Keyring, opts ...session.StatelessSessionManagerOption) *session.StatelessServerSessionManager {
	t.Helper()
	m := session.NewStatelessServerSessionManager(append([]session.StatelessSessionManagerOption{session.WithKeyring(k)}, opts...)...)
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// over returns silent interceptors over a manager.
func over(m session.ServerSessionManager, opts ...session.MiddlewareOption) flight.ServerMiddleware {
	return session.NewServerMiddleware(m, append([]session.MiddlewareOption{session.WithLogger(nil)}, opts...)...)
}

// short has sealed sessions idle out after 16 minutes, of which one is a refresh, and
// end after a day.
func short() session.StatelessSessionManagerOption {
	return session.WithTokenTimeouts(16*time.Minute, 24*time.Hour)
}

// wantGone checks that a call was told that its session is lost.
func wantGone(t *testing.T, r reply, why string) {
	t.Helper()
	got, mark := reason(r.err)
	if status.Code(r.err) != codes.NotFound || got != "SESSION_"+why || mark == "" || !strings.HasPrefix(status.Convert(r.err).Message(), session.LostPrefix) {
		t.Errorf("answered with %v, reason %q, want a lost session, reason SESSION_%s", r.err, got, why)
	}
	if r.header != nil || r.trailer != nil {
		t.Errorf("told with cookies: header %q, trailer %q; a blind retry must not lose the warning", r.header, r.trailer)
	}
}

// as returns what GetSessionOptions tells a user of an option; empty: nothing, or the
// call was refused.
func (c *client) as(user, name, cookie string) string {
	var options map[string]*flight.SessionOptionValue
	_ = c.do(with(getOptions(&options), "x-user", user), cookie)
	return options[name].GetStringValue()
}

// quiet checks that an answer carries no cookie.
func quiet(t *testing.T, r reply) {
	t.Helper()
	if r.err != nil || r.header != nil || r.trailer != nil {
		t.Errorf("error %v, header %q, trailer %q", r.err, r.header, r.trailer)
	}
}

// Any replica with the keys serves any client; the token tells nothing of what is in
// it, and nothing is sent as long as nothing changes.
func TestASealedSessionIsFoundByEveryReplica(t *testing.T) {
	keys := ring(t, aKey())
	var all []*client
	for range 3 {
		all = append(all, serveEdge(t, over(sealingBy(t, keys)), nil).client())
	}
	quiet(t, all[0].must(info("")))
	cookie := all[0].must(setOption("schema", "secret-schema")).cookie(t)
	if strings.Contains(cookie, helloToken) || strings.Contains(cookie, "secret") || len(cookie) > 300 {
		t.Errorf("the cookie is %q", cookie)
	}
	for i, c := range all {
		for range 2 {
			if got := c.option("schema", cookie); got != "secret-schema" {
				t.Errorf("replica %d: schema %q", i, got)
			}
			for _, f := range []call{info(""), scan(""), setOption("schema", "secret-schema")} {
				quiet(t, c.must(f, cookie))
			}
		}
	}
	changed := all[1].must(setOption("catalog", "c"), cookie).cookie(t)
	if got := all[2].option("catalog", changed); got != "c" || all[2].option("schema", changed) != "secret-schema" {
		t.Errorf("catalog %q", got)
	}
}

// A token dies with its key, and is worth nothing in another cookie, for another
// audience or under other keys, nor is one that is not sealed.
func TestASealedTokenIsWorthSomethingOnlyWhereItWasSealed(t *testing.T) {
	key := aKey()
	keys := ring(t, key)
	home := serveEdge(t, over(sealingBy(t, keys, session.WithAudience("a"))), nil).client()
	cookie := home.must(setOption("schema", "prod")).cookie(t)
	for name, m := range map[string]*session.StatelessServerSessionManager{
		"another audience": sealingBy(t, keys, session.WithAudience("b")),
		"no audience":      sealingBy(t, keys),
		"another cookie":   sealingBy(t, keys, session.WithAudience("a"), session.WithTokenCookie("other")),
		"no keys":          session.NewStatelessServerSessionManager(),
	} {
		c := serveEdge(t, over(m), nil).client()
		name2 := session.StatelessSessionCookieName
		if name == "another cookie" {
			name2 = "other"
		}
		if got := c.option("schema", name2+"="+token(cookie)); got != "" {
			t.Errorf("%s: schema %q", name, got)
		}
		r := c.do(info(""), name2+"="+token(cookie))
		if name == "no keys" {
			wantGone(t, r, "UNKNOWN") // as after keys were taken away
		} else {
			quiet(t, r)
		}
	}
	elsewhere := serveEdge(t, over(sealing(t, session.WithAudience("a"))), nil).client()
	wantGone(t, elsewhere.do(info(""), cookie), "UNKNOWN") // its form says that it may have been good
	if got := home.option("schema", cookie); got != "prod" {
		t.Errorf("schema %q", got)
	}
	if err := keys.Set(aKey()); err != nil {
		t.Fatal(err)
	}
	wantGone(t, home.do(info(""), cookie), "UNKNOWN") // not remembered either
	wantGone(t, home.do(getOptions(nil), cookie), "UNKNOWN")
}

// When the key is rotated, what was sealed under the former one is good, and sealed
// anew by the next answer.
func TestRotationSealsAnewOnTheNextAnswer(t *testing.T) {
	first, second := aKey(), aKey()
	keys := ring(t, first)
	c := serveEdge(t, over(sealingBy(t, keys)), nil).client()
	old := c.must(setOption("schema", "prod")).cookie(t)
	quiet(t, c.must(info(""), old))
	if err := keys.Set(first, second); err != nil { // the first step: replicas learn of the new key
		t.Fatal(err)
	}
	quiet(t, c.must(info(""), old))
	if err := keys.Set(second, first); err != nil {
		t.Fatal(err)
	}
	anew := c.must(info(""), old).cookie(t)
	quiet(t, c.must(scan(""), anew))
	if err := keys.Set(second); err != nil {
		t.Fatal(err)
	}
	wantGone(t, c.do(info(""), old), "UNKNOWN")
	if got := c.option("schema", anew); got != "prod" {
		t.Errorf("schema %q", got)
	}
	if err := keys.Set([]byte("short")); err == nil {
		t.Error("a short key was taken")
	}
	if got := c.option("schema", anew); got != "prod" {
		t.Errorf("after a change that failed: schema %q", got)
	}
}

// Keys have exactly 32 bytes that somebody has set.
func TestKeysAreExactly32Bytes(t *testing.T) {
	good := aKey()
	for name, f := range map[string]func() error{
		"nil":         func() error { _, err := session.NewKeyring(nil); return err },
		"31 bytes":    func() error { _, err := session.NewKeyring(good[:31]); return err },
		"33 bytes":    func() error { _, err := session.NewKeyring(append(aKey(), 1)); return err },
		"unset":       func() error { _, err := session.NewKeyring(make([]byte, 32)); return err },
		"twice":       func() error { _, err := session.NewKeyring(good, good); return err },
		"former nil":  func() error { _, err := session.NewKeyring(good, nil); return err },
		"set, short":  func() error { return ring(t, good).Set(good[:16]) },
		"set, former": func() error { return ring(t, good).Set(good, good[:16]) },
	} {
		err := f()
		if err == nil || strings.Contains(err.Error(), string(good)) || strings.Contains(fmt.Sprintf("%x", err.Error()), fmt.Sprintf("%x", good[:8])) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	k := ring(t, good, aKey())
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if got := fmt.Sprintf(verb, k) + fmt.Sprintf(verb, sealingBy(t, k)); strings.Contains(got, fmt.Sprintf("%x", good[:4])) || bytes.Contains([]byte(got), good[:4]) {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}

// A sealed session idles out, never early, and at most a sixteenth and the clock skew
// late.
func TestASealedSessionIdlesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serveEdgeInBubble(t, over(sealing(t, short())), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		wait(30 * time.Second)
		quiet(t, c.must(info(""), cookie)) // the last use, of which the token knows nothing
		wait(16 * time.Minute)
		if got := c.option("schema", cookie); got != "prod" {
			t.Errorf("it has idled out early: schema %q", got)
		}
		wait(17*time.Minute + session.DefaultClockSkew) // but this was another token
		for range 3 {
			wantGone(t, c.do(info(""), cookie), "IDLE")
		}
		fresh := c.must(setOption("schema", "test"), cookie).cookie(t) // the client shows that it knows
		quiet(t, c.must(info(""), fresh))
	})
}

// Only to refresh the time of its last use, a session gets a token at most once in a
// sixteenth of the idle timeout; and so it lives on.
func TestAUsedSessionGetsATokenOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serveEdgeInBubble(t, over(sealing(t, short())), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		answers, cookies := 0, 0
		for range 20 * 6 * 16 { // twenty idle timeouts
			wait(10 * time.Second)
			r := c.must(info(""), cookie)
			answers++
			if len(r.header)+len(r.trailer) > 0 {
				cookie = r.cookie(t)
				cookies++
			}
		}
		if cookies > answers/6 || cookies < answers/7 {
			t.Errorf("%d of %d answers carried a cookie", cookies, answers)
		}
		if got := c.option("schema", cookie); got != "prod" {
			t.Errorf("schema %q", got)
		}
	})
}

// A sealed session ends at its lifetime, however busy.
func TestASealedSessionEndsAtItsLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serveEdgeInBubble(t, over(sealing(t, session.WithTokenTimeouts(time.Hour, 3*time.Hour))), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		for range 18 {
			if r := c.must(info(""), cookie); r.header != nil {
				cookie = r.cookie(t)
			}
			wait(10 * time.Minute)
		}
		if got := c.option("schema", cookie); got != "prod" {
			t.Errorf("it has ended early: schema %q", got)
		}
		wait(session.DefaultClockSkew + time.Second)
		wantGone(t, c.do(info(""), cookie), "LIFETIME")
	})
}

// Busy is not idle: a stream that takes longer than the idle timeout brings a new
// token in its trailer.
func TestALongStreamDoesNotIdleOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sqlServer{statements: map[string]statement{"long": func(context.Context, session.ServerSession) error {
			<-time.After(time.Hour)
			return nil
		}}}
		c := serveEdgeInBubble(t, over(sealing(t, short())), s).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		r := c.must(scan("long"), cookie)
		if r.header != nil || len(r.trailer) != 1 {
			t.Fatalf("header %q, trailer %q", r.header, r.trailer)
		}
		if got := c.option("schema", r.trailer[0]); got != "prod" {
			t.Errorf("schema %q", got)
		}
		wantGone(t, c.do(info(""), cookie), "IDLE")
	})
}

// The clocks of replicas may differ by the skew. A token from further in the future
// is refused, as it would live longer than it may, and the log says why.
func TestClocksMayDifferByTheSkew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := aKey()
		var log logBuffer
		m := sealingBy(t, ring(t, key), session.WithClockSkew(time.Minute), session.WithTokenTimeouts(16*time.Minute, time.Hour))
		c := serveEdgeInBubble(t, over(m, session.WithLogger(log.logger())), nil).client()
		from := func(issued, used time.Duration) string { return elsewhere(t, key, issued, used) }
		for name, cookie := range map[string]string{
			"ahead by the skew":      from(time.Minute, time.Minute),
			"behind by the skew":     from(-19*time.Minute, -18*time.Minute),
			"behind at the lifetime": from(-61*time.Minute, 0),
		} {
			if got := c.option("schema", cookie); got != "prod" {
				t.Errorf("%s: schema %q", name, got)
			}
		}
		wantGone(t, c.do(info(""), from(-19*time.Minute, -18*time.Minute-time.Second)), "IDLE")
		wantGone(t, c.do(info(""), from(-61*time.Minute-time.Second, 0)), "LIFETIME")
		wait(2 * time.Second) // the log has a line a second
		for _, future := range []string{from(0, time.Minute+time.Second), from(time.Minute+time.Second, time.Minute+time.Second)} {
			wantGone(t, c.do(info(""), future), "UNKNOWN")
		}
		if got := m.Stats().Future; got != 2 || !strings.Contains(log.String(), "clocks differ") {
			t.Errorf("%d from the future; the log: %s", got, log.String())
		}
	})
}

// elsewhere returns the cookie of a session with a schema, as a replica has sealed it
// whose clock differs.
func elsewhere(t *testing.T, key []byte, issued, used time.Duration) string {
	t.Helper()
	r, err := sealedtoken.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	options, err := proto.Marshal(&flight.GetSessionOptionsResult{SessionOptions: map[string]*flight.SessionOptionValue{"schema": text("prod")}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	sealed, _ := sealedtoken.NewSealer(r, session.StatelessSessionCookieName, "").Seal(&sealedtoken.Claims{
		ID: sealedtoken.NewID(), Issued: now.Add(issued), Used: now.Add(used), Held: true, Options: options})
	return session.StatelessSessionCookieName + "=" + sealed
}

// With keys, tokens of Apache's format are refused, and their clients told if they
// held anything.
func TestPlainTokensAreRefused(t *testing.T) {
	for name, opts := range map[string][]session.StatelessSessionManagerOption{
		"as it is":           nil,
		"the window is over": {session.WithPlainTokensUntil(time.Now().Add(-time.Second), session.MustSchema(&session.Option[string]{Name: "hello"}))},
	} {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, over(sealing(t, opts...)), nil).client()
			wantGone(t, c.do(info(""), session.StatelessSessionCookieName+"="+helloToken), "UNSEALED")
			for _, empty := range []string{"", "%%%", "AAAA"} {
				quiet(t, c.must(info(""), session.StatelessSessionCookieName+"="+empty))
			}
		})
	}
}

// A migration window takes plain tokens until a stated time, for declared options
// only, as the client could have set them; the answer seals the session.
func TestTheWindowTakesDeclaredOptionsOfPlainTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		schema := session.MustSchema(
			&session.Option[string]{Name: "schema", Aliases: []string{"currentSchema"}},
			&session.Option[int64]{Name: "limit", NoDefault: true, Check: session.Range[int64](1, 10)},
			&session.Option[string]{Name: "role", ReadOnly: true},
		).AcceptUnknown()
		m := sealing(t, session.WithPlainTokensUntil(time.Now().Add(time.Hour), schema))
		c := serveEdgeInBubble(t, over(m, session.WithPrincipal(who)), nil).client()
		plain := session.NewStatelessServerSession(map[string]*flight.SessionOptionValue{
			"currentSchema": text("prod"), "limit": text("99"), "role": text("admin"), "unknown": text("x")})
		old := session.StatelessSessionCookieName + "=" + plain.Token()
		cookie := c.must(with(info(""), "x-user", "alice"), old).cookie(t)
		var options map[string]*flight.SessionOptionValue
		c.must(with(getOptions(&options), "x-user", "alice"), cookie)
		if len(options) != 1 || options["schema"].GetStringValue() != "prod" {
			t.Errorf("the options are %v", options)
		}
		if got := c.schema("x-user", "bob", "cookie", cookie); got != "" {
			t.Errorf("bob has schema %q", got)
		}
		wait(time.Hour)
		if got := c.as("alice", "schema", cookie); got != "prod" {
			t.Errorf("after the window: schema %q", got)
		}
		wantGone(t, c.do(with(info(""), "x-user", "alice"), old), "UNSEALED")
	})
}

// CloseSession revokes all tokens of the session, for as long as one could live.
func TestAClosedSessionStaysClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sealing(t, short())
		c := serveEdgeInBubble(t, over(m), nil).client()
		first := c.must(setOption("schema", "prod")).cookie(t)
		second := c.must(setOption("schema", "test"), first).cookie(t)
		r := c.must(closeSession, first)
		if len(r.header) != 1 || !strings.HasSuffix(r.header[0], "; Max-Age=0") {
			t.Errorf("header %q", r.header)
		}
		if got := m.Stats().Revoked; got != 1 {
			t.Errorf("%d are revoked", got)
		}
		for range 20 {
			for _, cookie := range []string{first, second} {
				if got := c.option("schema", cookie); got != "" {
					t.Fatalf("it lives again: schema %q", got)
				}
			}
			wait(time.Minute)
		}
		wait(time.Hour)
		c.must(closeSession, c.must(setOption("a", "b")).cookie(t))
		if got := m.Stats().Revoked; got != 1 {
			t.Errorf("%d are revoked, of which one could still live", got)
		}
		if got := c.option("schema", second); got != "" {
			t.Errorf("schema %q", got)
		}
	})
}

// When there is no place for another closed session, none is closed that lives again,
// nobody else is logged out, and the client learns that it is not closed.
func TestASessionThatCannotBeRevokedIsNotClosed(t *testing.T) {
	told := 0
	m := sealing(t, session.WithRevocation(2, func(context.Context, session.Revocation) error { told++; return nil }))
	c := serveEdge(t, over(m), nil).client()
	var open []string
	for i := range 4 {
		open = append(open, c.must(setOption("n", fmt.Sprint(i))).cookie(t))
	}
	c.must(closeSession, open[0]) // anonymous ones get half of the places
	r := c.do(closeSession, open[1])
	if why, _ := reason(r.err); status.Code(r.err) != codes.ResourceExhausted || why != "SESSION_NOT_CLOSED" {
		t.Errorf("error %v", r.err)
	}
	for i, cookie := range open[1:] {
		if got := c.option("n", cookie); got != fmt.Sprint(i+1) {
			t.Errorf("session %d has n = %q", i+1, got)
		}
	}
	if got := m.Stats(); got.Refused != 1 || got.Revoked != 1 || told != 1 {
		t.Errorf("%+v, %d times others were told", got, told)
	}
}

// A flood of anonymous callers that close sessions keeps nobody from logging in.
func TestAFloodOfAnonymousCallersKeepsNobodyFromLoggingIn(t *testing.T) {
	s := renewing(session.Principal{Name: "alice"})
	s.statements["LOGIN"] = func(ctx context.Context, _ session.ServerSession) error {
		_, err := session.Begin(ctx, session.Principal{Name: "alice"})
		return err
	}
	c := serveEdge(t, over(sealing(t, session.WithRevocation(2, nil)), session.WithPrincipal(who)), s).client()
	before := map[string]string{}
	for _, how := range []string{"RENEW", "LOGIN", "flood"} {
		before[how] = c.must(setOption("schema", "planted")).cookie(t)
	}
	c.must(closeSession, before["flood"])
	for _, how := range []string{"RENEW", "LOGIN"} {
		hers := c.must(info(how), before[how]).cookie(t)
		hers = c.must(with(setOption("schema", "hers"), "x-user", "alice"), hers).cookie(t)
		if got := c.as("alice", "schema", hers); got != "hers" {
			t.Errorf("%s: alice has schema %q", how, got)
		}
		if got := c.option("schema", before[how]); got != "planted" && got != "" {
			t.Errorf("%s: the planted token has schema %q", how, got)
		}
	}
}

// A session of which there never was a token takes no place among those that were
// closed.
func TestASessionThatNobodyHasATokenOfIsClosedWithoutAPlace(t *testing.T) {
	m := sealing(t, session.WithRevocation(1, nil))
	s := &sqlServer{statements: map[string]statement{"all at once": func(ctx context.Context, cur session.ServerSession) error {
		if err := session.SetOption(ctx, "a", text("b")); err != nil {
			return err
		}
		return cur.Close()
	}}}
	c := serveEdge(t, over(m), s).client()
	for range 3 {
		quiet(t, c.must(info("all at once")))
	}
	if got := m.Stats(); got.Revoked != 0 || got.Refused != 0 {
		t.Errorf("%+v", got)
	}
}

// A session whose client was told of an old token can be closed by a new one.
func TestAnOldTokenInTheWayOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serveEdgeInBubble(t, over(sealing(t, short())), nil).client()
		old := c.must(setOption("schema", "prod")).cookie(t)
		wait(10 * time.Minute)
		fresh := c.must(info(""), old).cookie(t)
		wait(10 * time.Minute)
		wantGone(t, c.do(info(""), old), "IDLE")
		if r := c.must(closeSession, fresh); len(r.header) != 1 || !strings.HasSuffix(r.header[0], "; Max-Age=0") {
			t.Errorf("header %q", r.header)
		}
	})
}

// A flood of one principal costs that one its other sessions, and nobody else.
func TestAFloodOfClosedSessionsCostsItsPrincipalAlone(t *testing.T) {
	m := sealing(t, session.WithRevocation(8, nil))
	c := serveEdge(t, over(m, session.WithPrincipal(who)), nil).client()
	as := func(name string, f call) call { return with(f, "x-user", name) }
	before := map[string]string{}
	for _, name := range []string{"alice", "bob", "mallory"} {
		before[name] = c.must(as(name, setOption("schema", name))).cookie(t)
	}
	closed := c.must(as("bob", setOption("schema", "x"))).cookie(t)
	c.must(as("bob", closeSession), closed)
	var all []string
	for range 50 {
		cookie := c.must(as("mallory", setOption("schema", "x"))).cookie(t)
		c.must(as("mallory", closeSession), cookie)
		all = append(all, cookie)
	}
	for _, name := range []string{"alice", "bob"} {
		if got := c.schema("x-user", name, "cookie", before[name]); got != name {
			t.Errorf("%s has schema %q", name, got)
		}
	}
	if got := c.as("bob", "schema", closed); got != "" {
		t.Errorf("bob's closed session has schema %q", got)
	}
	for _, cookie := range all {
		if got := c.as("mallory", "schema", cookie); got != "" {
			t.Errorf("a closed session has schema %q", got)
		}
	}
	if got := m.Stats(); got.Collapsed == 0 || got.Revoked > 8 || got.Principals != 1 {
		t.Errorf("%+v", got)
	}
	fresh := c.must(as("mallory", setOption("schema", "fresh"))).cookie(t)
	if got := c.schema("x-user", "mallory", "cookie", fresh); got != "fresh" {
		t.Errorf("a session that began later has schema %q", got)
	}
}

// Replicas share what is closed; if they cannot be told, the session is not closed.
func TestReplicasShareRevocations(t *testing.T) {
	keys := ring(t, aKey())
	var other *session.StatelessServerSessionManager
	var fails error
	var told []session.Revocation
	m := sealingBy(t, keys, session.WithRevocation(100, func(_ context.Context, r session.Revocation) error {
		if fails == nil {
			told = append(told, r)
			return other.Revoke(r)
		}
		return fails
	}))
	other = sealingBy(t, keys)
	here, there := serveEdge(t, over(m), nil).client(), serveEdge(t, over(other), nil).client()
	cookie := here.must(setOption("schema", "prod")).cookie(t)
	fails = errors.New("the bus is down: " + cookie)
	r := here.do(closeSession, cookie)
	if why, _ := reason(r.err); status.Code(r.err) != codes.Unavailable || why != "SESSION_NOT_CLOSED" || strings.Contains(r.err.Error(), "bus") {
		t.Errorf("error %v", r.err)
	}
	for _, c := range []*client{here, there} {
		if got := c.option("schema", cookie); got != "prod" {
			t.Errorf("schema %q", got)
		}
	}
	fails = nil
	here.must(closeSession, cookie)
	for _, c := range []*client{here, there} {
		if got := c.option("schema", cookie); got != "" {
			t.Errorf("schema %q", got)
		}
	}
	wantGone(t, there.do(info(""), cookie), "CLOSED")
	if len(told) != 1 || strings.Contains(fmt.Sprintf("%+v", told), token(cookie)) {
		t.Errorf("told %+v", told)
	}
	restarted := sealingBy(t, keys)
	for r := range m.Revocations() {
		if err := restarted.Revoke(r); err != nil {
			t.Error(err)
		}
	}
	wantGone(t, serveEdge(t, over(restarted), nil).client().do(info(""), cookie), "CLOSED")
}

// What is remembered of a token ends with its key, its session and its time, and
// never is another token's.
func TestTheCacheOutlivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := aKey()
		keys := ring(t, key)
		m := sealingBy(t, keys, short())
		c := serveEdgeInBubble(t, over(m), nil).client()
		remembered := func() string {
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			for before := m.Stats().Remembered; m.Stats().Remembered == before; {
				if got := c.option("schema", cookie); got != "prod" {
					t.Fatalf("schema %q", got)
				}
				wait(time.Millisecond)
			}
			return cookie
		}
		closed := remembered()
		c.must(closeSession, closed)
		if got := c.option("schema", closed); got != "" {
			t.Errorf("it was closed: schema %q", got)
		}
		idle := remembered()
		wait(18 * time.Minute)
		wantGone(t, c.do(info(""), idle), "IDLE")
		rotated := remembered()
		for i := range rotated { // no other token is taken for this one
			if i > len(session.StatelessSessionCookieName) && i%16 == 0 {
				other := []byte(rotated)
				other[i] = map[bool]byte{true: 'B', false: 'A'}[other[i] == 'A']
				if got := c.option("schema", string(other)); got != "" {
					t.Fatalf("another token has schema %q", got)
				}
			}
		}
		if err := keys.Set(aKey()); err != nil {
			t.Fatal(err)
		}
		if got := c.option("schema", rotated); got != "" {
			t.Errorf("its key was removed: schema %q", got)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		after := c.must(setOption("schema", "prod")).cookie(t)
		if got := c.option("schema", after); got != "prod" {
			t.Errorf("after Close: schema %q", got)
		}
	})
}
