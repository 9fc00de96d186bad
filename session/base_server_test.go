// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// What clients are told of an option.
const (
	invalidName  = flight.SetSessionOptionsResultErrorInvalidName
	invalidValue = flight.SetSessionOptionsResultErrorInvalidValue
	refused      = flight.SetSessionOptionsResultErrorError
)

type verdicts = map[string]gen.SetSessionOptionsResult_ErrorValue

// set is SetSessionOptions, which tells what became of each option.
func set(into *verdicts, values map[string]any) call {
	return func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
		options, err := flight.NewSessionOptionValues(values)
		if err != nil {
			return err
		}
		r, err := c.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: options}, opts...)
		*into = verdicts{}
		for name, e := range r.GetErrors() {
			(*into)[name] = e.GetValue()
		}
		return err
	}
}

// closing is CloseSession, which tells the status.
func closing(into *gen.CloseSessionResult_Status) call {
	return func(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
		r, err := c.CloseSession(ctx, &flight.CloseSessionRequest{}, opts...)
		*into = r.GetStatus()
		return err
	}
}

// baseServer serves a BaseServer with these options on loopback.
func baseServer(t testing.TB, store session.SessionStore, options ...session.Declared) *endpoint {
	return serveEdge(t, edge(store), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(options...)}})
}

// wantVerdicts makes a call that sets options, and compares.
func (c *client) wantVerdicts(want verdicts, values map[string]any, cookies ...string) reply {
	c.t.Helper()
	var got verdicts
	r := c.must(set(&got, values), cookies...)
	if !maps.Equal(got, want) {
		c.t.Errorf("%.200v: got %.200v, want %.200v", fmt.Sprint(values), fmt.Sprint(got), fmt.Sprint(want))
	}
	return r
}

// wantOptions compares what the session has, as text.
func (c *client) wantOptions(want string, cookies ...string) {
	c.t.Helper()
	var got map[string]*flight.SessionOptionValue
	c.must(getOptions(&got), cookies...)
	plain := make(map[string]any)
	for name, v := range got {
		switch v := v.GetOptionValue().(type) {
		case *gen.SessionOptionValue_StringListValue_:
			plain[name] = v.StringListValue.GetValues()
		case *gen.SessionOptionValue_StringValue:
			plain[name] = v.StringValue
		case *gen.SessionOptionValue_Int64Value:
			plain[name] = v.Int64Value
		default:
			plain[name] = fmt.Sprint(v)
		}
	}
	if got := fmt.Sprint(plain); got != want {
		c.t.Errorf("got %s, want %s", got, want)
	}
}

// Each option is set by itself, and is told about by itself: one that is absent from
// the errors was set, as its declared type and under its declared name.
func TestEachOptionIsSetByItself(t *testing.T) {
	c := baseServer(t, newStore(t),
		&session.Option[int64]{Name: "limit", Aliases: []string{"max"}, Default: 7, Check: session.Range[int64](0, 100)},
		&session.Option[string]{Name: "user", NoDefault: true, ReadOnly: true},
		&session.Option[[]string]{Name: "path", NoDefault: true},
		&session.Option[string]{Name: "schema", Default: "public"}).client()
	cookie := c.wantVerdicts(verdicts{"no": invalidName, "user": refused, "schema": invalidValue},
		map[string]any{"no": "x", "user": "root", "schema": int64(1), "max": " 8 ", "path": "a, b"}).cookie(t)
	c.wantOptions("map[limit:8 path:[a b] schema:public]", cookie)
	c.wantVerdicts(verdicts{"limit": invalidValue}, map[string]any{"limit": 101.0, "schema": "prod"}, cookie)
	c.wantOptions("map[limit:8 path:[a b] schema:prod]", cookie)
	c.wantVerdicts(verdicts{"user": refused, "no": invalidName}, map[string]any{"user": nil, "no": nil, "limit": nil, "path": nil}, cookie)
	c.wantOptions("map[limit:7 schema:prod]", cookie)
}

// Two names of one option in one request must agree, or none of them is set.
func TestTwoNamesOfOneOptionMustAgree(t *testing.T) {
	c := baseServer(t, newStore(t), &session.Option[int64]{Name: "limit", Aliases: []string{"max", "rows"}, Default: 7}).client()
	cookie := c.wantVerdicts(nil, map[string]any{"limit": "8", "max": 8.0, "rows": int64(8)}).cookie(t)
	c.wantVerdicts(verdicts{"limit": refused, "max": refused}, map[string]any{"limit": "8", "max": "9"}, cookie)
	c.wantVerdicts(verdicts{"limit": refused, "max": refused}, map[string]any{"limit": nil, "max": "9"}, cookie)
	c.wantVerdicts(verdicts{"limit": refused, "max": refused}, map[string]any{"limit": "x", "max": "9"}, cookie)
	c.wantVerdicts(verdicts{"limit": invalidValue, "max": invalidValue}, map[string]any{"limit": "x", "max": "y"}, cookie)
	c.wantOptions("map[limit:8]", cookie)
	c.wantVerdicts(nil, map[string]any{"limit": nil, "max": nil}, cookie)
	c.wantOptions("map[limit:7]", cookie)
}

// A session is made by a request that sets something, or that has nothing to set, but
// not by one whose options are all refused.
func TestASessionIsMadeUnlessEveryOptionIsRefused(t *testing.T) {
	for _, tt := range []struct {
		values map[string]any
		made   bool
	}{
		{map[string]any{}, true},
		{map[string]any{"watched": nil}, true},
		{map[string]any{"plain": "x", "no": "x"}, true},
		{map[string]any{"watched": "x"}, true},
		{map[string]any{"no": "x", "limit": "x", "user": "x"}, false},
		{map[string]any{"plain": strings.Repeat("x", 65<<10)}, false},
		{map[string]any{"watched": strings.Repeat("x", 65<<10)}, false},
	} {
		store := newStore(t)
		c := baseServer(t, store,
			&session.Option[int64]{Name: "limit"}, &session.Option[string]{Name: "plain"}, &session.Option[string]{Name: "user", ReadOnly: true},
			&session.Option[string]{Name: "watched", OnChange: func(context.Context, string, string) error { return nil }}).client()
		var got verdicts
		r := c.must(set(&got, tt.values))
		if made := store.Len() == 1; made != tt.made || made != (len(r.header) == 1) || !made && len(got) != len(tt.values) {
			t.Errorf("%.50v: made: %v, header %q, %v", fmt.Sprint(tt.values), made, r.header, got)
		}
	}
}

// Without a schema every option is stored as it is; with one that accepts unknown
// options, those that it does not declare.
func TestUnknownOptionsAreStoredAsTheyAre(t *testing.T) {
	for name, base := range map[string]*session.BaseServer{
		"nil": {}, "unknown": {Options: session.MustSchema(&session.Option[int64]{Name: "limit", NoDefault: true}).AcceptUnknown()}} {
		t.Run(name, func(t *testing.T) {
			c := serveEdge(t, edge(newStore(t)), &sqlServer{base: base}).client()
			cookie := c.wantVerdicts(nil, map[string]any{"limit": int64(3), "any": "x", "": "y"}).cookie(t)
			c.wantOptions("map[:y any:x limit:3]", cookie)
			c.wantVerdicts(nil, map[string]any{"any": nil, "never": nil}, cookie)
			c.wantOptions("map[:y limit:3]", cookie)
		})
	}
}

// What a handler has set by itself is listed, as the declared type if there is one.
func TestWhatHandlersSetIsListed(t *testing.T) {
	e := serveEdge(t, edge(newStore(t)), &sqlServer{
		base: &session.BaseServer{Options: session.MustSchema(&session.Option[int64]{Name: "limit", Default: 7}, &session.Option[int64]{Name: "max", Default: 7})},
		statements: map[string]statement{"set": func(_ context.Context, s session.ServerSession) error {
			s.SetSessionOption("limit", text("8"))
			s.SetSessionOption("max", text("many"))
			s.SetSessionOption("other", text("x"))
			return nil
		}}})
	c := e.client()
	c.wantOptions("map[limit:8 max:7 other:x]", c.must(info("set")).cookie(t))
}

// Options are an error without a session, whatever the reason, and none is made.
func TestWithoutASessionThereAreNoOptions(t *testing.T) {
	store := newStore(t)
	for name, m := range map[string]flight.ServerMiddleware{"ours": edge(store),
		"at once": session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store), session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
			return &userSession{id: "made"}, nil
		}))), session.WithLogger(nil))} {
		c := serveEdge(t, m, &sqlServer{base: new(session.BaseServer)}).client()
		r := c.do(getOptions(nil))
		if status.Code(r.err) != codes.NotFound || reasonOf(t, r.err) != "SESSION_NONE" || r.header != nil || store.Len() != 0 {
			t.Errorf("%s: %v, header %q, %d sessions", name, r.err, r.header, store.Len())
		}
		var st gen.CloseSessionResult_Status
		if r := c.must(closing(&st)); st != flight.CloseSessionResultClosed || r.header != nil || r.trailer != nil || store.Len() != 0 {
			t.Errorf("%s: %v, header %q, %d sessions", name, st, r.header, store.Len())
		}
	}
	if st := store.Stats(); st.Live != 0 {
		t.Errorf("%+v", st)
	}
}

// A failure of the session itself fails the call, with its reason.
func TestAFailureOfTheSessionFailsTheCall(t *testing.T) {
	store := newStore(t)
	c := baseServer(t, store, &session.Option[string]{Name: "schema"}).client()
	store.Drain()
	if r := c.do(setOption("schema", "x")); status.Code(r.err) != codes.Unavailable || reasonOf(t, r.err) != "SESSION_STORE_DRAINING" {
		t.Errorf("%v", r.err)
	}
	ctx := t.Context()
	_, err := session.BaseServer{}.SetSessionOptions(ctx, nil)
	_, err2 := session.BaseServer{}.GetSessionOptions(ctx, nil)
	for _, err := range []error{err, err2} {
		if reasonOf(t, err) != "SESSION_NONE" || !errors.Is(err, session.ErrNoSession) {
			t.Errorf("without a middleware: %v", err)
		}
	}
	if r, err := (session.BaseServer{}).CloseSession(ctx, nil); err != nil || r.GetStatus() != flight.CloseSessionResultClosed {
		t.Errorf("%v, %v", r, err)
	}
}

// An OnChange is told of what changes, as handlers read it, when it is stored already.
func TestOnChangeIsToldOfWhatChanges(t *testing.T) {
	var told []string
	var schema *session.Option[string]
	schema = &session.Option[string]{Name: "schema", Default: "public", OnChange: func(ctx context.Context, from, to string) error {
		now, err := schema.Get(ctx)
		told = append(told, from+">"+to+"="+now)
		return err
	}}
	c := baseServer(t, newStore(t), schema).client()
	cookie := c.wantVerdicts(nil, map[string]any{"schema": "public"}).cookie(t)
	for _, v := range []any{"prod", "prod", "test", nil, nil} {
		c.wantVerdicts(nil, map[string]any{"schema": v}, cookie)
	}
	if got := fmt.Sprint(told); got != "[public>prod=prod prod>test=test test>public=public]" {
		t.Error(got)
	}
}

// An OnChange that refuses or panics leaves the old value, and stops no other option.
func TestAnOnChangeThatRefusesLeavesTheOldValue(t *testing.T) {
	var log logBuffer
	store := newStore(t)
	m := session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store)), session.WithLogger(log.logger()))
	option := func(name string) session.Declared {
		return &session.Option[string]{Name: name, Default: "old", OnChange: func(_ context.Context, _, to string) error {
			switch to {
			case "away":
				return errors.New("the database is away")
			case "invalid":
				return fmt.Errorf("no such schema: %w", session.ErrInvalidOption)
			case "panic":
				panic("an observer that panics")
			}
			return nil
		}}
	}
	c := serveEdge(t, m, &sqlServer{base: &session.BaseServer{Options: session.MustSchema(option("a"), option("b"), option("c"), option("d"))}}).client()
	cookie := c.wantVerdicts(verdicts{"a": refused, "b": invalidValue, "c": refused},
		map[string]any{"a": "away", "b": "invalid", "c": "panic", "d": "new"}).cookie(t)
	c.wantOptions("map[a:old b:old c:old d:new]", cookie)
	c.wantVerdicts(nil, map[string]any{"a": "set"}, cookie)
	c.wantVerdicts(verdicts{"a": refused, "d": refused}, map[string]any{"a": "panic", "d": "away"}, cookie)
	c.wantOptions("map[a:set b:old c:old d:new]", cookie)
	if got := log.String(); !strings.Contains(got, "option=a") || !strings.Contains(got, "the database is away") {
		t.Errorf("the operator does not learn why: %s", got)
	}
}

// An OnChange may set other options of its session, but not its own.
func TestAnOnChangeMaySetOtherOptions(t *testing.T) {
	var again error
	var a, b *session.Option[int64]
	a = &session.Option[int64]{Name: "a", OnChange: func(ctx context.Context, _, to int64) error { return b.Set(ctx, to+1) }}
	b = &session.Option[int64]{Name: "b", OnChange: func(ctx context.Context, _, to int64) error {
		if to > 5 {
			return errors.New("too much")
		}
		if to == 2 {
			again = a.Set(ctx, 9)
		}
		return nil
	}}
	c := baseServer(t, newStore(t), a, b).client()
	cookie := c.wantVerdicts(nil, map[string]any{"a": int64(1)}).cookie(t)
	c.wantOptions("map[a:1 b:2]", cookie)
	if again == nil {
		t.Error("an option was set in its own OnChange")
	}
	c.wantVerdicts(verdicts{"a": refused}, map[string]any{"a": int64(5)}, cookie)
	c.wantOptions("map[a:1 b:2]", cookie)
}

// An OnChange may end the session; the options that come after it are not set.
func TestAnOnChangeMayEndTheSession(t *testing.T) {
	store := newStore(t)
	end := func(ctx context.Context, _, _ bool) error { return session.End(ctx) }
	c := baseServer(t, store, &session.Option[bool]{Name: "bye", OnChange: end}, &session.Option[string]{Name: "after"}).client()
	cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
	if r := c.do(setOptions(map[string]any{"bye": true, "after": "x"}), cookie); reasonOf(t, r.err) != "SESSION_CLOSED" {
		t.Errorf("%v", r.err)
	}
	c.wantVerdicts(nil, map[string]any{"bye": true})
	if store.Len() != 0 {
		t.Errorf("%d sessions", store.Len())
	}
}

// Changes that are observed are made one at a time in a session, and not in others.
// Those that wait do so no longer than their context, and those that are not observed
// do not wait.
func TestChangesOfASessionAreMadeOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		slow := &session.Option[string]{Name: "slow", OnChange: func(ctx context.Context, _, to string) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			if to == "hang" {
				<-ctx.Done()
				return ctx.Err()
			}
			<-time.After(time.Second)
			return nil
		}}
		e := serveEdgeInBubble(t, edge(newStore(t)), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(slow, &session.Option[string]{Name: "quick"})}})
		c := e.client()
		cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
		start := time.Now()
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() { c.must(setOption("slow", fmt.Sprint(i)), cookie) })
		}
		all.Go(func() { c.must(setOption("slow", "elsewhere")) })
		all.Wait()
		if took := time.Since(start); took < 5*time.Second || took >= 6*time.Second || most.Load() != 2 {
			t.Errorf("it took %v, at most %d at once", took, most.Load())
		}
		within := func(d time.Duration, value string) error {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "cookie", cookie), d)
			defer cancel()
			return setOption("slow", value)(ctx, c.Client)
		}
		all.Go(func() {
			if err := within(time.Hour, "hang"); status.Code(err) != codes.DeadlineExceeded {
				t.Error(err)
			}
		})
		synctest.Wait()
		if err := within(time.Second, "x"); status.Code(err) != codes.DeadlineExceeded {
			t.Error(err)
		}
		c.wantVerdicts(nil, map[string]any{"quick": "x"}, cookie)
		all.Wait()
		synctest.Wait()
		before := time.Now()
		c.wantVerdicts(nil, map[string]any{"slow": "y"}, cookie)
		if took := time.Since(before); took > 2*time.Second {
			t.Errorf("a turn was not given back: %v", took)
		}
		c.wantOptions("map[quick:x slow:y]", cookie)
	})
}

// Clients that set options of one session at the same time get what one of them has
// set, and nobody panics.
func TestOptionsOfOneSessionCanBeSetByMany(t *testing.T) {
	var now atomic.Int64
	a := &session.Option[int64]{Name: "a", OnChange: func(_ context.Context, from, to int64) error {
		if !now.CompareAndSwap(from, to) {
			return errors.New("changes overlap")
		}
		return nil
	}}
	c := baseServer(t, newStore(t), a, &session.Option[int64]{Name: "b"}).client()
	cookie := c.wantVerdicts(nil, map[string]any{}).cookie(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 10 {
				c.wantVerdicts(nil, map[string]any{"a": int64(10*i + j), "b": int64(i)}, cookie)
			}
		})
	}
	all.Wait()
	var got map[string]*flight.SessionOptionValue
	if c.must(getOptions(&got), cookie); got["a"].GetInt64Value() != now.Load() {
		t.Errorf("the session has %v, its observer %d", got["a"], now.Load())
	}
}

// Options are set in the order of their declaration, whatever that of the request.
func TestOptionsAreSetInTheOrderOfTheirDeclaration(t *testing.T) {
	var order []string
	option := func(name string) session.Declared {
		return &session.Option[bool]{Name: name, Aliases: []string{"the " + name}, OnChange: func(context.Context, bool, bool) error {
			order = append(order, name)
			return nil
		}}
	}
	c := baseServer(t, newStore(t), option("z"), option("m"), option("a"), option("k")).client()
	c.wantVerdicts(nil, map[string]any{"a": true, "k": true, "the m": true, "z": true})
	if got := fmt.Sprint(order); got != "[z m a k]" {
		t.Error(got)
	}
}

// Hostile requests are answered, and harm nobody.
func TestHostileOptionsAreAnswered(t *testing.T) {
	store := newStore(t)
	e := serveEdge(t, edge(store), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(&session.Option[string]{Name: "schema", Default: "public"}).AcceptUnknown()}})
	c := e.client()
	cookie := c.wantVerdicts(nil, map[string]any{"schema": "prod"}).cookie(t)
	huge := strings.Repeat("n", 1<<20)
	c.wantVerdicts(verdicts{huge: refused}, map[string]any{huge: "x"}, cookie)
	many := make(map[string]any)
	for i := range 1000 {
		many[fmt.Sprintf("n%03d", i)] = "v"
	}
	var got verdicts
	if c.must(set(&got, many), cookie); len(got) != 1000-255 || got["n000"] != 0 || got["n999"] != refused {
		t.Errorf("%d of 1000 are refused", len(got))
	}
	field := func(n protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
	}
	entry := func(name string, value []byte) []byte {
		return field(1, append(field(1, []byte(name)), field(2, value)...))
	}
	for what, body := range map[string][]byte{
		"no message":           []byte("\xff\xff\xff"),
		"a name with bytes":    entry("\xff\xfe", field(1, []byte("x"))),
		"a value with bytes":   entry("schema", field(1, []byte("\xff\xfe"))),
		"a list with bytes":    entry("schema", field(5, field(1, []byte("\xff")))),
		"an entry of no value": field(1, field(1, []byte("schema"))),
		"an empty entry":       field(1, nil),
		"an unknown field":     entry("schema", field(99, []byte("x"))),
		"nothing":              nil,
	} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "cookie", cookie)
		stream, err := c.Client.Client.DoAction(ctx, &flight.Action{Type: flight.SetSessionOptionsActionType, Body: body})
		for err == nil {
			_, err = stream.Recv()
		}
		if code := status.Code(err); code == codes.Internal || code == codes.Unavailable {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := store.Check(); err != nil || store.Len() != 1 {
		t.Errorf("%v, %d sessions", err, store.Len())
	}
}

// What cannot come by gRPC, but from a server's own tests, is answered, too.
func TestRequestsThatGRPCWouldNotLetInAreAnswered(t *testing.T) {
	base := session.BaseServer{Options: session.MustSchema(&session.Option[string]{Name: "schema"}).AcceptUnknown()}
	err := handling(t, edge(newStore(t)).Unary, "", func(ctx context.Context) {
		r, err := base.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: map[string]*flight.SessionOptionValue{
			"schema": text("\xff"), "other": text("\xff"), "\xff": text("x"), "none": nil}})
		if err != nil || r.GetErrors()["schema"].GetValue() != invalidValue || r.GetErrors()["other"].GetValue() != invalidValue || r.GetErrors()["\xff"].GetValue() != invalidName || len(r.GetErrors()) != 3 {
			t.Errorf("%v, %v", r, err)
		}
		hole := &flight.SessionOptionValue{OptionValue: (*gen.SessionOptionValue_StringValue)(nil)}
		if _, err := base.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: map[string]*flight.SessionOptionValue{"schema": hole}}); status.Code(err) != codes.Internal || strings.Contains(err.Error(), "goroutine") {
			t.Errorf("%v", err)
		}
		if r, err := base.SetSessionOptions(ctx, nil); err != nil || len(r.GetErrors()) != 0 {
			t.Errorf("%v, %v", r, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// CloseSession tells whether others still use the session, also one that comes again.
func TestCloseSessionSaysClosingWhileOthersUseIt(t *testing.T) {
	for name, token := range map[string]bool{"cookie": true, "principal": false} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			var opts []session.MiddlewareOption
			if !token {
				opts = append(opts, session.WithCarriers(session.ByPrincipal(func(context.Context) (session.Principal, error) {
					return session.Principal{Name: "ada"}, nil
				})))
			}
			started, gate := make(chan struct{}), make(chan struct{})
			e := serveEdge(t, edge(store, opts...), &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
				"wait": func(context.Context, session.ServerSession) error { close(started); <-gate; return nil }}})
			c := e.client()
			var cookies []string
			if r := c.must(setOption("schema", "prod")); token {
				cookies = append(cookies, r.cookie(t))
			}
			var all sync.WaitGroup
			all.Go(func() { c.must(info("wait"), cookies...) })
			<-started
			for i := range 3 {
				var st gen.CloseSessionResult_Status
				if r := c.must(closing(&st), cookies...); st != flight.CloseSessionResultClosing || token && i == 0 && len(r.header) != 1 {
					t.Errorf("close %d: %v, header %q", i, st, r.header)
				}
			}
			close(gate)
			all.Wait()
			for i := range 3 {
				var st gen.CloseSessionResult_Status
				if c.must(closing(&st), cookies...); st != flight.CloseSessionResultClosed {
					t.Errorf("afterwards, close %d: %v", i, st)
				}
			}
			if st := store.Stats(); st.Live != 0 || st.Created != 1 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// A session that nobody else uses is closed at once, and CloseSession is never an
// error, however long ago that was.
func TestCloseSessionIsNeverAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t, layover.WithIdleTimeout(time.Hour))
		c := serveEdgeInBubble(t, edge(store), &sqlServer{base: new(session.BaseServer)}).client()
		first := c.must(setOption("schema", "prod")).cookie(t)
		idle := c.must(setOption("schema", "prod")).cookie(t)
		c.must(info(""), first)
		garbage := session.StatefulSessionCookieName + "=garbage"
		for _, after := range []time.Duration{0, time.Minute, 3 * time.Hour, 48 * time.Hour} {
			wait(after)
			for _, cookie := range []string{first, idle, garbage} {
				var st gen.CloseSessionResult_Status
				if cookie == idle && after < 3*time.Hour {
					continue
				}
				if c.must(closing(&st), cookie); st != flight.CloseSessionResultClosed {
					t.Errorf("after %v: %v", after, st)
				}
			}
		}
	})
}

// A session that is not closeable stays.
func TestASessionThatIsNotCloseableStays(t *testing.T) {
	store := newStore(t)
	var answer func() bool
	e := serveEdge(t, edge(store), &sqlServer{base: &session.BaseServer{Closeable: func(_ context.Context, s session.ServerSession) bool {
		return answer() || s.GetSessionOption("schema").GetStringValue() != "prod"
	}}})
	c := e.client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	answer = func() bool { return false }
	var st gen.CloseSessionResult_Status
	if r := c.must(closing(&st), cookie); st != flight.CloseSessionResultNotCloseable || r.header != nil {
		t.Errorf("%v, header %q", st, r.header)
	}
	answer = func() bool { panic("on purpose") }
	if r := c.do(closing(&st), cookie); status.Code(r.err) != codes.Internal || strings.Contains(r.err.Error(), "purpose") {
		t.Errorf("%v", r.err)
	}
	c.wantOptions("map[schema:prod]", cookie)
	answer = func() bool { return true }
	if c.must(closing(&st), cookie); st != flight.CloseSessionResultClosed || store.Len() != 0 {
		t.Errorf("%v, %d sessions", st, store.Len())
	}
	if c.must(closing(&st)); st != flight.CloseSessionResultClosed {
		t.Errorf("without a session: %v", st)
	}
}

// Under Apache's shape of middleware all of it works, as far as that can be.
func TestABaseServerWorksUnderApachesShape(t *testing.T) {
	store := newStore(t)
	var log logBuffer
	m := session.NewServerSessionMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store)), session.WithLogger(log.logger()))
	limit := &session.Option[int64]{Name: "limit", Default: 7, OnChange: func(_ context.Context, _, to int64) error {
		if to == 13 {
			panic("on purpose")
		}
		return nil
	}}
	started, gate := make(chan struct{}), make(chan struct{})
	c := serve(t, m, &sqlServer{base: &session.BaseServer{Options: session.MustSchema(limit)}, statements: map[string]statement{
		"wait": func(context.Context, session.ServerSession) error { close(started); <-gate; return nil }}}).client()
	if r := c.do(getOptions(nil)); reasonOf(t, r.err) != "SESSION_NONE" || store.Len() != 0 {
		t.Errorf("%v, %d sessions", r.err, store.Len())
	}
	cookie := c.wantVerdicts(verdicts{"no": invalidName}, map[string]any{"limit": "8", "no": "x"}).cookie(t)
	c.wantVerdicts(verdicts{"limit": refused}, map[string]any{"limit": int64(13)}, cookie)
	c.wantOptions("map[limit:8]", cookie)
	if !strings.Contains(log.String(), "on purpose") {
		t.Error("the operator does not learn of a panic")
	}
	var all sync.WaitGroup
	all.Go(func() { c.must(info("wait"), cookie) })
	<-started
	var st gen.CloseSessionResult_Status
	if c.must(closing(&st), cookie); st != flight.CloseSessionResultClosing {
		t.Errorf("%v", st)
	}
	close(gate)
	all.Wait()
	if c.must(closing(&st), cookie); st != flight.CloseSessionResultClosed || store.Len() != 0 {
		t.Errorf("%v, %d sessions", st, store.Len())
	}
}

// Managers and stores of the server's own work, too: with sessions of foreign types,
// with copies, and with sessions that travel.
func TestABaseServerWorksWithForeignSessions(t *testing.T) {
	limit := &session.Option[int64]{Name: "limit", Default: 7, OnChange: func(_ context.Context, _, to int64) error {
		if to == 13 {
			return errors.New("on purpose")
		}
		return nil
	}}
	var kept sync.Map
	copies := &fakeStore{
		put:    func(s session.ServerSession) error { kept.Store(s.Token(), s); return nil },
		remove: func(id string) error { kept.Delete(id); return nil },
		get: func(id string) (session.ServerSession, error) {
			if s, ok := kept.Load(id); ok {
				return s.(session.ServerSession), nil
			}
			return nil, session.ErrNoSession
		}}
	var n atomic.Int32
	foreign := session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
		return &userSession{id: fmt.Sprint("user", n.Add(1))}, nil
	}))
	for name, manager := range map[string]session.ServerSessionManager{
		"foreign type": session.NewStatefulServerSessionManager(session.WithStore(newStore(t)), foreign),
		"copies":       session.NewStatefulServerSessionManager(session.WithStore(copies)),
		"stateless":    session.NewStatelessServerSessionManager(),
	} {
		t.Run(name, func(t *testing.T) {
			jar := new(jar)
			c := jar.client(serveEdge(t, session.NewServerMiddleware(manager, session.WithLogger(nil)), &sqlServer{base: &session.BaseServer{Options: session.MustSchema(limit)}}))
			c.wantVerdicts(nil, map[string]any{"limit": "8"})
			c.wantVerdicts(verdicts{"limit": refused}, map[string]any{"limit": "13"})
			c.wantOptions("map[limit:8]")
			c.wantVerdicts(nil, map[string]any{"limit": nil})
			c.wantOptions("map[limit:7]")
			var st gen.CloseSessionResult_Status
			if c.must(closing(&st)); st != flight.CloseSessionResultClosed {
				t.Errorf("%v", st)
			}
			if r := c.do(getOptions(nil)); status.Code(r.err) != codes.NotFound {
				t.Errorf("after the end: %v", r.err)
			}
		})
	}
}
