// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"

	"github.com/c8e4ff29/layover/session"
)

// handling runs what a handler does under NewServerMiddleware, with the session of the
// token, if there is one.
func handling(t testing.TB, m func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error), token string, do func(context.Context)) error {
	t.Helper()
	_, err := m(incoming(token, 0), nil, getFlightInfo, func(ctx context.Context, _ any) (any, error) {
		do(ctx)
		return nil, nil
	})
	return err
}

// An option reads as its default as long as it is not set, also where there is no
// session, and makes none.
func TestAnOptionIsItsDefaultUntilItIsSet(t *testing.T) {
	store := newStore(t)
	limit := &session.Option[int64]{Name: "limit", Default: 7}
	path := &session.Option[[]string]{Name: "path", NoDefault: true}
	look := func(ctx context.Context, want int64) {
		t.Helper()
		if got, err := limit.Get(ctx); got != want || err != nil {
			t.Errorf("got %d, %v", got, err)
		}
		if got, err := path.Get(ctx); got != nil || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
	look(t.Context(), 7)
	if limit.Of(nil) != 7 {
		t.Error("without a session")
	}
	err := handling(t, edge(store).Unary, "", func(ctx context.Context) {
		look(ctx, 7)
		if store.Len() != 0 {
			t.Error("reading has made a session")
		}
		if err := limit.Set(ctx, 8); err != nil {
			t.Error(err)
		}
		look(ctx, 8)
		if s, err := session.GetSessionFromContext(ctx); err != nil || limit.Of(s) != 8 {
			t.Errorf("of the session: %v", err)
		}
		if err := limit.Unset(ctx); err != nil {
			t.Error(err)
		}
		look(ctx, 7)
	})
	if err != nil || store.Len() != 1 {
		t.Errorf("%v, %d sessions", err, store.Len())
	}
}

// A call whose session could not be found must not run with the default.
func TestACallThatHasLostItsSessionGetsNoDefault(t *testing.T) {
	option := &session.Option[string]{Name: "schema", Default: "public"}
	broken := errors.New("the database is away")
	m := session.NewServerSessionMiddleware(&fakeManager{get: func(context.Context) (session.ServerSession, error) { return nil, broken }}, session.WithLogger(nil))
	if got, err := option.Get(m.StartCall(t.Context())); err == nil || got != "" {
		t.Errorf("got %q, %v", got, err)
	}
}

// What a handler has set with another type by itself is converted, and if that cannot
// be, it is as if it were not set.
func TestAValueOfAnotherTypeIsConvertedWhenItIsRead(t *testing.T) {
	limit := &session.Option[int64]{Name: "limit", Default: 7}
	for _, s := range []session.ServerSession{session.NewStatelessServerSession(nil), &userSession{}} {
		for value, want := range map[string]int64{"8": 8, "many": 7} {
			s.SetSessionOption("limit", text(value))
			if got := limit.Of(s); got != want {
				t.Errorf("%T: %q reads as %d", s, value, got)
			}
		}
	}
}

// A server may set what clients may not, but not what Check refuses.
func TestSetChecksAndIgnoresReadOnly(t *testing.T) {
	store := newStore(t)
	level := &session.Option[string]{Name: "level", Default: "low", ReadOnly: true, Check: session.OneOf("low", "high")}
	ratio := &session.Option[float64]{Name: "ratio", Check: session.Range(0, 1.0)}
	torn := &session.Option[bool]{Name: "torn", Check: func(bool) error { panic("a check that panics") }}
	err := handling(t, edge(store).Unary, "", func(ctx context.Context) {
		for _, err := range []error{level.Set(ctx, "middle"), level.Set(ctx, "\xff"), ratio.Set(ctx, 1.1), ratio.Set(ctx, math.NaN())} {
			if !errors.Is(err, session.ErrInvalidOption) {
				t.Error(err)
			}
		}
		if err := torn.Set(ctx, true); err == nil || errors.Is(err, session.ErrInvalidOption) || reasonOf(t, err) != "SESSION_FAILED" {
			t.Error(err)
		}
		if store.Len() != 0 {
			t.Error("a refused option has made a session")
		}
		if err := errors.Join(level.Set(ctx, "high"), ratio.Set(ctx, 1)); err != nil {
			t.Error(err)
		}
		if got, _ := level.Get(ctx); got != "high" {
			t.Errorf("got %q", got)
		}
	})
	if err != nil {
		t.Error(err)
	}
	if err := level.Set(t.Context(), "low"); !errors.Is(err, session.ErrNoSession) {
		t.Errorf("outside of a call: %v", err)
	}
}

// A schema that makes no sense is an error when the server starts.
func TestASchemaThatMakesNoSenseIsAnError(t *testing.T) {
	name := func(s ...string) *session.Option[string] {
		return &session.Option[string]{Name: s[0], Aliases: s[1:]}
	}
	for what, options := range map[string][]session.Declared{
		"nil":                   {nil},
		"a nil option":          {(*session.Option[bool])(nil)},
		"no name":               {name("")},
		"no alias":              {name("a", "")},
		"a name no one can say": {name("\xff")},
		"twice":                 {name("a"), name("a")},
		"a name and an alias":   {name("a"), name("b", "a")},
		"its own alias":         {name("a", "a")},
		"a refused default":     {&session.Option[string]{Name: "a", Check: session.OneOf("x")}},
		"a default that is NaN": {&session.Option[float64]{Name: "a", Default: math.NaN()}},
		"a check that panics":   {&session.Option[bool]{Name: "a", Check: func(bool) error { panic("on purpose") }}},
		"a default and none":    {&session.Option[[]string]{Name: "a", NoDefault: true, Default: []string{"x"}}},
	} {
		if s, err := session.NewSchema(options...); err == nil || s != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("MustSchema accepts it")
		}
	}()
	session.MustSchema(nil)
}

// A schema can be shown to people.
func TestASchemaDescribesItsOptions(t *testing.T) {
	s := session.MustSchema(
		&session.Option[int64]{Name: "limit", Default: 7, Aliases: []string{"max"}, Description: "how many rows"},
		&session.Option[[]string]{Name: "path", NoDefault: true, ReadOnly: true, Check: func([]string) error { return errors.New("none") }})
	all := slices.Collect(s.AcceptUnknown().All())
	if len(all) != 2 || all[0].Type != "int64" || all[0].Default != int64(7) || all[0].Aliases[0] != "max" || all[0].Description != "how many rows" {
		t.Errorf("%+v", all)
	}
	if all[1].Type != "[]string" || all[1].Default != nil || !all[1].ReadOnly {
		t.Errorf("%+v", all[1])
	}
	all[0].Aliases[0] = "x"
	for in := range s.All() {
		if in.Aliases[0] != "max" {
			t.Error("the schema was changed from outside")
		}
		break
	}
	var none *session.Schema
	for range none.AcceptUnknown().All() {
		t.Error("nil has options")
	}
}

// To read an option that is no list takes no memory.
func TestReadingAnOptionDoesNotAllocate(t *testing.T) {
	if err := reading(t, func(read func()) {
		if n := testing.AllocsPerRun(100, read); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}); err != nil {
		t.Error(err)
	}
}

// BenchmarkOptionGet reads a string that is set, under NewServerMiddleware.
//
//	go test -run '^$' -bench '^BenchmarkOptionGet$' -benchmem ./session
func BenchmarkOptionGet(b *testing.B) {
	if err := reading(b, func(read func()) {
		b.ReportAllocs()
		for b.Loop() {
			read()
		}
	}); err != nil {
		b.Error(err)
	}
}

// BenchmarkSetSessionOptions is a request that sets twenty options that nobody observes,
// beside SetOption of the same ones.
//
//	go test -run '^$' -bench '^BenchmarkSetSessionOptions$' -benchmem ./session
func BenchmarkSetSessionOptions(b *testing.B) {
	var declared []session.Declared
	values := make(map[string]*flight.SessionOptionValue)
	for i := range 20 {
		name := fmt.Sprint("option", i)
		declared = append(declared, &session.Option[string]{Name: name})
		values[name] = text("a value")
	}
	base, req := session.BaseServer{Options: session.MustSchema(declared...)}, &flight.SetSessionOptionsRequest{SessionOptions: values}
	for what, set := range map[string]func(context.Context) error{
		"BaseServer": func(ctx context.Context) error {
			_, err := base.SetSessionOptions(ctx, req)
			return err
		},
		"SetOption": func(ctx context.Context) error {
			for name, v := range values {
				if err := session.SetOption(ctx, name, v); err != nil {
					return err
				}
			}
			return nil
		}} {
		b.Run(what, func(b *testing.B) {
			err := handling(b, edge(newStore(b)).Unary, "", func(ctx context.Context) {
				b.ReportAllocs()
				for b.Loop() {
					if err := set(ctx); err != nil {
						b.Fatal(err)
					}
				}
			})
			if err != nil {
				b.Error(err)
			}
		})
	}
}

// reading has do read an option in a call.
func reading(t testing.TB, do func(read func())) error {
	m, schema := edge(newStore(t)), &session.Option[string]{Name: "schema", Default: "public"}
	return handling(t, m.Unary, firstToken(t, m, session.GetSessionFromContext), func(ctx context.Context) {
		do(func() {
			if got, err := schema.Get(ctx); err != nil || got != "prod" {
				t.Fatalf("%q, %v", got, err)
			}
		})
	})
}
