// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/session"
)

// bothKinds are managers of stateless sessions, sealed and plain.
func bothKinds(t testing.TB, opts ...session.StatelessSessionManagerOption) map[string]*session.StatelessServerSessionManager {
	return map[string]*session.StatelessServerSessionManager{
		"sealed": sealing(t, opts...),
		"plain":  session.NewStatelessServerSessionManager(opts...),
	}
}

// An option that would make the cookie larger than a client can receive is refused, by
// its name, and the session stays what it was.
func TestAnOptionThatDoesNotFitTheCookieIsRefusedByItsName(t *testing.T) {
	for kind, m := range bothKinds(t) {
		t.Run(kind, func(t *testing.T) {
			s := &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
				"error": func(ctx context.Context, _ session.ServerSession) error {
					return session.SetOption(ctx, "too_long", text(strings.Repeat("x", 4000)))
				},
				"fail": func(_ context.Context, s session.ServerSession) error {
					s.SetSessionOption("too_long", text(strings.Repeat("x", 4000)))
					return nil
				},
			}}
			c := serveEdge(t, over(m), s).client()
			for _, do := range []call{info("error"), info("fail"), scan("direct:fail")} {
				r := c.do(do)
				if why, _ := reason(r.err); status.Code(r.err) != codes.ResourceExhausted || why != "SESSION_OPTION_LIMIT" || !strings.Contains(r.err.Error(), `"too_long"`) {
					t.Errorf("error %v", r.err)
				}
				if r.header != nil || r.trailer != nil {
					t.Errorf("header %q, trailer %q", r.header, r.trailer)
				}
			}
			cookie, n := "", 0
			for ; ; n++ {
				options, err := flight.NewSessionOptionValues(map[string]any{fmt.Sprintf("option-%03d", n): strings.Repeat("v", 50)})
				if err != nil {
					t.Fatal(err)
				}
				var result *flight.SetSessionOptionsResult
				r := c.must(sets(options, &result), cookie)
				if len(result.GetErrors()) > 0 {
					if result.GetErrors()[fmt.Sprintf("option-%03d", n)].GetValue() != flight.SetSessionOptionsResultErrorError || len(result.GetErrors()) != 1 || r.header != nil {
						t.Errorf("errors %v, header %q", result.GetErrors(), r.header)
					}
					break
				}
				cookie = r.cookie(t)
			}
			if len(cookie) > session.DefaultMaxCookie || len(cookie) < session.DefaultMaxCookie-150 || n < 30 {
				t.Errorf("the cookie has %d bytes, with %d options", len(cookie), n)
			}
			var options map[string]*flight.SessionOptionValue
			if c.must(getOptions(&options), cookie); len(options) != n {
				t.Errorf("%d options, want %d", len(options), n)
			}
			smaller := c.must(setOption("option-000", ""), cookie).cookie(t)
			if c.must(getOptions(&options), smaller); len(options) != n {
				t.Errorf("%d options, want %d", len(options), n)
			}
		})
	}
}

// sets is SetSessionOptions with its result.
func sets(options map[string]*flight.SessionOptionValue, into **flight.SetSessionOptionsResult) call {
	return func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) (err error) {
		*into, err = c.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: options}, opts...)
		return err
	}
}

// A token that is known before the first message goes in the header, which some
// clients read alone; else in the trailer. Nothing is sent twice.
func TestATokenGoesInTheHeaderWhereItIsKnownInTime(t *testing.T) {
	for kind := range bothKinds(t) {
		synctest.Test(t, func(t *testing.T) {
			m := bothKinds(t)[kind]
			set := func(ctx context.Context, _ session.ServerSession) error {
				return session.SetOption(ctx, "a", text("b"))
			}
			s := &sqlServer{statements: map[string]statement{"set": set, "late": func(ctx context.Context, cur session.ServerSession) error {
				<-time.After(time.Second) // until the header has left
				return set(ctx, cur)
			}}}
			c := serveEdgeInBubble(t, over(m), s).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			for how, do := range map[string]call{"action": setOption("a", "b"), "unary": info("set"), "stream, before": scan("direct:set")} {
				r := c.must(do, cookie)
				if changed := r.cookie(t); r.trailer != nil || c.option("a", changed) != "b" || c.option("schema", changed) != "prod" {
					t.Errorf("%s %s: header %q, trailer %q", kind, how, r.header, r.trailer)
				}
			}
			r := c.must(scan("late"), cookie)
			if r.header != nil || len(r.trailer) != 1 || c.option("a", r.trailer[0]) != "b" {
				t.Errorf("%s stream, after: header %q, trailer %q", kind, r.header, r.trailer)
			}
		})
	}
}

// For any other principal, and for an anonymous caller, a sealed token is one that
// never was: it gives no session, ends none, and the reply is that to garbage.
func TestASealedTokenIsWorthNothingToAnybodyElse(t *testing.T) {
	var seen alarms
	m := sealing(t)
	c := serveEdge(t, over(m, session.WithPrincipal(who), session.WithSecurityEvents(seen.tell)), nil).client()
	cookie := c.must(with(setOption("schema", "prod"), "x-user", "alice")).cookie(t)
	anonymous := c.must(setOption("schema", "prod")).cookie(t)
	garbage := cookie[:len(cookie)-8] + "AAAAAAAA"
	for _, thief := range []string{"bob", "alic", "Alice", "alice ", ""} {
		for what, f := range map[string]call{"get": getOptions(nil), "query": info(""), "stream": scan(""), "close": closeSession} {
			stolen, made := c.do(with(f, "x-user", thief), cookie), c.do(with(f, "x-user", thief), garbage)
			if fmt.Sprint(stolen) != fmt.Sprint(made) || stolen.err != nil || stolen.header != nil || stolen.trailer != nil {
				t.Errorf("%s by %q: stolen %v, garbage %v", what, thief, stolen, made)
			}
		}
		if got := c.as(thief, "schema", cookie); got != "" {
			t.Errorf("%q has schema %q", thief, got)
		}
	}
	events := seen.take()
	if len(events) != 25 {
		t.Errorf("%d events, want 25", len(events))
	}
	for _, e := range events {
		if e.Kind != session.ForeignToken || e.Owner != "principal alice" || e.Host != "127.0.0.1" || strings.Contains(fmt.Sprintf("%+v", e), token(cookie)) {
			t.Errorf("event %+v", e)
		}
	}
	if got := c.as("alice", "schema", cookie); got != "prod" {
		t.Errorf("alice has schema %q", got)
	}
	if got := c.as("alice", "schema", anonymous); got != "" { // somebody may have planted it
		t.Errorf("alice has the schema %q of an anonymous session", got)
	}
}

// A session ends with the proof of its principal, or a later one that it was used
// with.
func TestASealedSessionEndsWithTheProofOfItsPrincipal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends time.Time
		by := func(context.Context) (session.Principal, error) {
			return session.Principal{Name: "alice", Expires: ends}, nil
		}
		c := serveEdgeInBubble(t, over(sealing(t, short(), session.WithClockSkew(0)), session.WithPrincipal(by)), nil).client()
		ends = time.Now().Add(10 * time.Minute)
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		wait(9 * time.Minute)
		ends = time.Now().Add(10 * time.Minute)
		later := c.must(info(""), cookie).cookie(t) // it has proved itself anew
		wait(9 * time.Minute)
		if got := c.option("schema", later); got != "prod" {
			t.Errorf("schema %q", got)
		}
		ends = time.Now().Add(time.Hour)
		wantGone(t, c.do(info(""), cookie), "LIFETIME")
	})
}

// Renew gives a sealed session a new ID, in the header; the old tokens are revoked,
// and whoever comes with one is told. A login gives it an owner.
func TestARenewedSealedSessionLivesOnUnderANewID(t *testing.T) {
	for how, f := range map[string]call{"unary": info("RENEW"), "stream": scan("direct:RENEW")} {
		t.Run(how, func(t *testing.T) {
			c := serveEdge(t, over(sealing(t), session.WithPrincipal(who)), renewing(session.Principal{Name: "alice"})).client()
			planted := c.must(setOption("schema", "prod")).cookie(t)
			r := c.must(f, planted)
			renewed := r.cookie(t)
			if r.trailer != nil {
				t.Errorf("trailer %q", r.trailer)
			}
			if got := c.as("alice", "schema", renewed); got != "prod" {
				t.Errorf("alice has schema %q", got)
			}
			if got := c.as("", "schema", renewed); got != "" {
				t.Errorf("nobody has schema %q", got)
			}
			for _, user := range []string{"", "alice"} {
				wantGone(t, c.do(with(info(""), "x-user", user), planted), "RENAMED")
			}
		})
	}
}

// Who planted the token of a session, and has a call under way with it, gets none of
// the one that its victim has by then.
func TestAPlantedTokenDoesNotLeadToTheRenewedOne(t *testing.T) {
	started, proceed := make(chan struct{}), make(chan struct{})
	s := renewing(session.Principal{Name: "alice"})
	s.statements["slow"] = func(context.Context, session.ServerSession) error {
		close(started)
		<-proceed
		return nil
	}
	c := serveEdge(t, over(sealing(t), session.WithPrincipal(who)), s).client()
	planted := c.must(setOption("schema", "prod")).cookie(t)
	thief := make(chan reply)
	go func() { thief <- c.do(scan("slow"), planted) }()
	<-started
	renewed := c.must(info("RENEW"), planted).cookie(t)
	changed := c.must(with(setOption("schema", "hers"), "x-user", "alice"), renewed).cookie(t)
	close(proceed)
	quiet(t, <-thief)
	if got := c.as("alice", "schema", changed); got != "hers" {
		t.Errorf("alice has schema %q", got)
	}
}

// Begin, as a login handler calls it, makes a session of the principal, and revokes
// the one that there was; End closes it.
func TestALoginBeginsASealedSession(t *testing.T) {
	s := &sqlServer{statements: map[string]statement{
		"LOGIN": func(ctx context.Context, _ session.ServerSession) error {
			if _, err := session.Begin(ctx, session.Principal{Name: "alice"}); err != nil {
				return err
			}
			return session.SetOption(ctx, "schema", text("hers"))
		},
		"LOGOUT": func(ctx context.Context, _ session.ServerSession) error { return session.End(ctx) },
	}}
	c := serveEdge(t, over(sealing(t), session.WithPrincipal(who)), s).client()
	before := c.must(setOption("schema", "prod")).cookie(t)
	for _, f := range []call{info("LOGIN"), scan("direct:LOGIN")} {
		hers := c.must(f, before).cookie(t)
		if got := c.as("alice", "schema", hers); got != "hers" {
			t.Errorf("alice has schema %q", got)
		}
		if got := c.option("schema", before); got != "" {
			t.Errorf("the session before has schema %q", got)
		}
		r := c.must(with(info("LOGOUT"), "x-user", "alice"), hers)
		if len(r.header) != 1 || !strings.HasSuffix(r.header[0], "; Max-Age=0") {
			t.Errorf("header %q", r.header)
		}
		if got := c.as("alice", "schema", hers); got != "" {
			t.Errorf("after the logout: schema %q", got)
		}
		before = c.must(setOption("schema", "prod")).cookie(t)
	}
}

// Calls of one process share a session: the answer to one does not take back what
// another one has set meanwhile.
func TestCallsAtTheSameTimeTakeBackNothing(t *testing.T) {
	started, proceed := make(chan struct{}), make(chan struct{})
	s := &sqlServer{statements: map[string]statement{"slow": func(ctx context.Context, cur session.ServerSession) error {
		close(started)
		<-proceed
		if got := cur.GetSessionOption("schema").GetStringValue(); got != "new" {
			return fmt.Errorf("schema %q", got)
		}
		return session.SetOption(ctx, "other", text("x"))
	}}}
	var cookies jar
	m := sealing(t)
	e := serveEdge(t, over(m), s)
	c := cookies.client(e)
	c.must(setOption("schema", "old"))
	slow := make(chan reply)
	go func() { slow <- c.do(scan("slow")) }()
	<-started
	c.must(setOption("schema", "new"))
	close(proceed)
	if r := <-slow; r.err != nil {
		t.Error(r.err)
	}
	if c.option("schema") != "new" || c.option("other") != "x" {
		t.Errorf("schema %q, other %q", c.option("schema"), c.option("other"))
	}
	if got := m.Stats().InUse; got != 0 {
		t.Errorf("%d sessions are in use", got)
	}
}

// A call that ends after its session was closed says nothing of a cookie: that could
// take the place of the next one's.
func TestAStreamOfAClosedSealedSessionSetsNoCookie(t *testing.T) {
	started, proceed := make(chan struct{}), make(chan struct{})
	s := &sqlServer{statements: map[string]statement{"slow": func(ctx context.Context, cur session.ServerSession) error {
		close(started)
		<-proceed
		cur.SetSessionOption("late", text("x"))
		return nil
	}}}
	c := serveEdge(t, over(sealing(t)), s).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	slow := make(chan reply)
	go func() { slow <- c.do(scan("slow"), cookie) }()
	<-started
	c.must(closeSession, cookie)
	close(proceed)
	if r := <-slow; r.header != nil || r.trailer != nil {
		t.Errorf("header %q, trailer %q", r.header, r.trailer)
	}
}

// Policies for dead tokens hold for sealed ones.
func TestPoliciesForDeadSealedTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := sealing(t, short())
		made := serveEdgeInBubble(t, over(m), nil).client()
		cookie := made.must(setOption("schema", "prod")).cookie(t)
		closed := made.must(setOption("schema", "prod")).cookie(t)
		renew := serveEdgeInBubble(t, over(m, session.WithDeadTokens(session.RenewDead)), nil).client()
		strict := serveEdgeInBubble(t, over(m, session.WithDeadTokens(session.StrictDead), session.WithDeadTokenCode(codes.Unauthenticated)), nil).client()
		if r := renew.must(closeSession, closed); r.header != nil || r.trailer != nil { // it might meet its successor
			t.Errorf("header %q, trailer %q", r.header, r.trailer)
		}
		wait(time.Hour)
		quiet(t, renew.must(info(""), cookie))
		garbage := session.StatelessSessionCookieName + "=AAAA"
		for range 3 {
			for _, dead := range []string{cookie, closed, garbage} {
				if r := strict.do(info(""), dead); status.Code(r.err) != codes.Unauthenticated {
					t.Errorf("%q: %v", dead, r.err)
				}
			}
		}
		r := strict.must(closeSession, cookie)
		if len(r.header) != 1 || !strings.HasSuffix(r.header[0], "; Max-Age=0") {
			t.Errorf("header %q", r.header)
		}
	})
}

// What a stateless session cannot have is refused at once, or with ErrUnsupported.
func TestWhatStatelessSessionsCannotHave(t *testing.T) {
	for kind, m := range bothKinds(t) {
		for name, opts := range map[string][]session.MiddlewareOption{
			"carriers":     {session.WithCarriers(session.ByPrincipal(who))},
			"quota":        {session.WithMaxPerPrincipal(1, session.EvictOldest)},
			"cancellation": {session.WithCancelOnKill()},
			"principal":    {session.WithPrincipal(who)},
			"events":       {session.WithSecurityEvents(func(session.SecurityEvent) {})},
		} {
			if kind == "sealed" && (name == "principal" || name == "events") {
				continue
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s, %s: accepted", kind, name)
					}
				}()
				over(m, opts...)
			}()
		}
		s := &sqlServer{statements: map[string]statement{"try": func(ctx context.Context, _ session.ServerSession) error {
			if err := session.SetOption(ctx, "a", text("b")); err != nil {
				return err
			}
			_, noHandle := session.NewHandle(ctx, "statement", nil)
			_, noContext := session.Context(ctx)
			_, noResource := newWires().Get(ctx, "")
			for _, err := range []error{noHandle, noContext, noResource} {
				if !errors.Is(err, errors.ErrUnsupported) {
					return fmt.Errorf("got %w", err)
				}
			}
			if err := session.Renew(ctx); kind == "plain" && !errors.Is(err, errors.ErrUnsupported) {
				return fmt.Errorf("renewed: %w", err)
			}
			return nil
		}}}
		if r := serveEdge(t, over(m), s).client().do(info("try")); r.err != nil {
			t.Errorf("%s: %v", kind, r.err)
		}
	}
}

// Options of the manager that make no sense are refused with what to change.
func TestStatelessOptionsThatMakeNoSense(t *testing.T) {
	keys := session.WithKeyring(ring(t, aKey()))
	for name, opts := range map[string][]session.StatelessSessionManagerOption{
		"audience without keys": {session.WithAudience("a")},
		"timeouts without keys": {session.WithTokenTimeouts(time.Hour, 0)},
		"no end":                {keys, session.WithTokenTimeouts(0, 0)},
		"negative":              {keys, session.WithTokenTimeouts(-1, time.Hour)},
		"skew":                  {keys, session.WithClockSkew(-1)},
		"cookie":                {session.WithTokenCookie("a b")},
		"stateful cookie":       {session.WithTokenCookie(session.StatefulSessionCookieName)},
		"small":                 {session.WithMaxCookie(511)},
		"no revocations":        {keys, session.WithRevocation(0, nil)},
		"cache":                 {keys, session.WithTokenCache(-1)},
		"any plain token":       {keys, session.WithPlainTokensUntil(time.Now(), nil)},
	} {
		func() {
			defer func() {
				if v := recover(); v == nil || !strings.HasPrefix(fmt.Sprint(v), "session: NewStatelessServerSessionManager: ") {
					t.Errorf("%s: %v", name, v)
				}
			}()
			session.NewStatelessServerSessionManager(opts...)
		}()
	}
}

// Under Apache's shape of middleware a sealed session is found, kept from others, changed
// and closed as well.
func TestSealedSessionsUnderApachesShape(t *testing.T) {
	m := sealing(t)
	c := serve(t, session.NewServerSessionMiddleware(m, session.WithLogger(nil)), nil).client()
	r := c.must(setOption("schema", "prod"))
	if len(r.header) != 1 || len(r.trailer) != 1 {
		t.Fatalf("header %q, trailer %q", r.header, r.trailer)
	}
	cookie := r.trailer[0]
	quiet(t, c.must(info(""), cookie))
	if got := c.option("schema", cookie); got != "prod" {
		t.Errorf("schema %q", got)
	}
	changed := c.must(setOption("schema", "test"), cookie).trailer[0]
	if got := c.option("schema", changed); got != "test" {
		t.Errorf("schema %q", got)
	}
	if r := c.must(closeSession, changed); len(r.trailer) != 1 || !strings.HasSuffix(r.trailer[0], "; Max-Age=0") {
		t.Errorf("trailer %q", r.trailer)
	}
	for _, dead := range []string{cookie, changed} {
		if got := c.option("schema", dead); got != "" {
			t.Errorf("closed: schema %q", got)
		}
	}
	if got := m.Stats().InUse; got != 0 {
		t.Errorf("%d sessions are in use", got)
	}
}

// No error, log line, event, page or %+v of anything contains a token or a key.
func TestSealedTokensAreNeverPrinted(t *testing.T) {
	var log logBuffer
	var printed strings.Builder
	var mu sync.Mutex
	key := aKey()
	m := sealingBy(t, ring(t, key), session.WithRevocation(1, func(_ context.Context, r session.Revocation) error {
		return fmt.Errorf("down: %+v", r)
	}))
	s := &sqlServer{statements: map[string]statement{"print": func(ctx context.Context, cur session.ServerSession) error {
		l, err := session.Acquire(ctx)
		if err != nil {
			return err
		}
		defer l.Release()
		inner, err := session.As[*session.StatelessServerSession](ctx)
		mu.Lock()
		defer mu.Unlock()
		for _, v := range []any{cur, l, inner, m, ctx} {
			fmt.Fprintf(&printed, "%v %+v %#v %s", v, v, v, v)
		}
		return err
	}}}
	c := serveEdge(t, over(m, session.WithLogger(log.logger())), s).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	c.must(info("print"), cookie)
	r := c.do(closeSession, cookie)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "manager", m, "stats", m.Stats())
	all := printed.String() + log.String() + fmt.Sprintf("%+v", r.err)
	if r.err == nil || strings.Contains(strings.ReplaceAll(all, cookie, "(the context's own header)"), token(cookie)) || strings.Contains(all, string(key)) {
		t.Errorf("printed: %s", all)
	}
}

// No token is taken but those that were made: not with a bit flipped, cut off,
// lengthened, spliced of two, nor a plain one; nor one of another cookie, audience,
// principal or key.
func TestNoOtherTokenIsTaken(t *testing.T) {
	keys := ring(t, aKey())
	m := sealingBy(t, keys, session.WithAudience("a"))
	token := func(m *session.StatelessServerSessionManager, value string) string {
		s, err := m.CreateSession(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.SetSessionOption("schema", text(value))
		return s.Token()
	}
	first, second := token(m, "one"), token(m, strings.Repeat("two", 9))
	others := []string{token(sealingBy(t, keys, session.WithAudience("b")), "x"), token(sealingBy(t, keys, session.WithAudience("a"), session.WithTokenCookie("c")), "x"),
		token(sealing(t, session.WithAudience("a")), "x"), helloToken, bothToken}
	taken := func(text string) bool {
		_, err := m.GetSession(withCookies(session.StatelessSessionCookieName + "=" + text))
		return err == nil
	}
	if !taken(first) || !taken(second) {
		t.Fatal("a good token is refused")
	}
	encoding := base64.RawURLEncoding
	a, _ := encoding.DecodeString(first)
	b, _ := encoding.DecodeString(second)
	rapid.Check(t, func(t *rapid.T) {
		var text string
		switch rapid.IntRange(0, 4).Draw(t, "what") {
		case 0:
			flipped := append([]byte(nil), a...)
			i := rapid.IntRange(0, 8*len(a)-1).Draw(t, "bit")
			flipped[i/8] ^= 1 << (i % 8)
			text = encoding.EncodeToString(flipped)
		case 1:
			text = first[:rapid.IntRange(0, len(first)-1).Draw(t, "length")]
		case 2:
			text = first + rapid.StringMatching(`[A-Za-z0-9_=-]{1,20}`).Draw(t, "more")
		case 3:
			text = encoding.EncodeToString(append(append([]byte(nil), a[:rapid.IntRange(0, len(a)).Draw(t, "head")]...), b[rapid.IntRange(1, len(b)).Draw(t, "tail"):]...))
		case 4:
			text = rapid.SampledFrom(others).Draw(t, "other")
		}
		if text != first && text != second && taken(text) {
			t.Fatalf("taken: %q", text)
		}
	})
	if err := keys.Set(aKey()); err != nil {
		t.Fatal(err)
	}
	if taken(first) {
		t.Error("taken: one whose key was removed")
	}
}
