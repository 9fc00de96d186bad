// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/session"
)

// outcome is what becomes of a value for an option: what is stored, or why not.
type outcome struct {
	stored  any // nil: unset
	verdict gen.SetSessionOptionsResult_ErrorValue
	late    bool // it is refused only when it is about to change
}

// The model knows what becomes of each value, by option. Unset, n is 1 and s is not
// listed; x is not declared.
var outcomes = map[string]map[any]outcome{
	"n": {nil: {}, "3": {stored: int64(3)}, int64(5): {verdict: refused, late: true, stored: int64(5)}, 4.0: {stored: int64(4)}, 4.5: {verdict: invalidValue},
		true: {verdict: invalidValue}, int64(1): {stored: int64(1)}, int64(99): {verdict: invalidValue}},
	"s": {nil: {}, "3": {stored: "3"}, int64(5): {verdict: invalidValue}, 4.0: {verdict: invalidValue}, 4.5: {verdict: invalidValue},
		true: {verdict: invalidValue}, int64(1): {verdict: invalidValue}, int64(99): {verdict: invalidValue}},
	"r": {}, "x": {},
}

// options are what the model's session has.
type options map[string]any

// set does what SetSessionOptions is to do.
func (o options) set(request map[string]any) (told verdicts) {
	told = verdicts{}
	var ns []string // n, by two names
	for name, value := range request {
		switch name {
		case "x":
			told[name] = invalidName
		case "r":
			told[name] = refused
		case "s":
			o.become("s", outcomes["s"][value], told, name)
		default:
			ns = append(ns, name)
		}
	}
	if len(ns) == 1 || len(ns) == 2 && outcomes["n"][request[ns[0]]] == outcomes["n"][request[ns[1]]] {
		o.become("n", outcomes["n"][request[ns[0]]], told, ns...)
	} else if len(ns) == 2 {
		for _, name := range ns {
			told[name] = refused
		}
	}
	return told
}

// become sets one option, or tells why not.
func (o options) become(option string, is outcome, told verdicts, names ...string) {
	switch {
	case is.verdict != 0:
		for _, name := range names {
			told[name] = is.verdict
		}
	case is.stored == nil:
		delete(o, option)
	default:
		o[option] = is.stored
	}
}

// list does what GetSessionOptions is to do.
func (o options) list() options {
	all := maps.Clone(o)
	if _, set := all["n"]; !set {
		all["n"] = int64(1)
	}
	return all
}

// Whatever clients set, in whatever order, the base server does what a simple model
// does: it tells the same of each option, has a session when the model has one, and
// lists the same.
func TestTheBaseServerDoesWhatTheModelDoes(t *testing.T) {
	schema := session.MustSchema(
		&session.Option[int64]{Name: "n", Aliases: []string{"m"}, Default: 1, Check: session.Range[int64](0, 9), OnChange: func(_ context.Context, _, to int64) error {
			if to == 5 {
				return errors.New("on purpose")
			}
			return nil
		}},
		&session.Option[string]{Name: "s", NoDefault: true},
		&session.Option[bool]{Name: "r", NoDefault: true, ReadOnly: true})
	base := session.BaseServer{Options: schema}
	middleware := edge(newStore(t))
	values := rapid.SampledFrom(slices.SortedFunc(maps.Keys(outcomes["n"]), func(a, b any) int {
		return slices.Compare([]byte(fmt.Sprintf("%T%v", a, a)), []byte(fmt.Sprintf("%T%v", b, b)))
	}))
	requests := rapid.SliceOfN(rapid.MapOfN(rapid.SampledFrom([]string{"n", "m", "s", "r", "x"}), values, 0, 5), 1, 6)
	rapid.Check(t, func(t *rapid.T) {
		want, token, made := options{}, "", false
		for _, request := range requests.Draw(t, "requests") {
			told := want.set(request)
			made = made || len(request) == 0 || len(told) < len(request) || anyLate(request, told)
			_, err := middleware.Unary(incoming(token, 0), nil, getFlightInfo, func(ctx context.Context, _ any) (any, error) {
				all, _ := flight.NewSessionOptionValues(request)
				r, err := base.SetSessionOptions(ctx, &flight.SetSessionOptionsRequest{SessionOptions: all})
				got := verdicts{}
				for name, e := range r.GetErrors() {
					got[name] = e.GetValue()
				}
				if err != nil || !maps.Equal(got, told) {
					t.Fatalf("%v: told %v, %v, want %v", request, got, err, told)
				}
				s, err := session.Lookup(ctx)
				if (err == nil) != made {
					t.Fatalf("%v: a session: %v, want %v", request, err, made)
				}
				if !made {
					return nil, nil
				}
				token = s.Token()
				list, err := base.GetSessionOptions(ctx, nil)
				if got := asGo(list.GetSessionOptions()); err != nil || !maps.Equal(got, want.list()) {
					t.Fatalf("%v: lists %v, %v, want %v", request, got, err, want.list())
				}
				return nil, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// anyLate reports whether an option was refused only after its session was made.
func anyLate(request map[string]any, told verdicts) bool {
	late := func(name string) bool { _, asked := request[name]; return asked && outcomes["n"][request[name]].late }
	if told["n"] == refused && told["m"] == refused { // unless they contradict each other
		return late("n") && late("m")
	}
	return late("n") || late("m")
}

// asGo returns values as Go has them.
func asGo(all map[string]*flight.SessionOptionValue) options {
	o := options{}
	for name, v := range all {
		switch v := v.GetOptionValue().(type) {
		case *gen.SessionOptionValue_StringValue:
			o[name] = v.StringValue
		case *gen.SessionOptionValue_Int64Value:
			o[name] = v.Int64Value
		default:
			o[name] = fmt.Sprint(v)
		}
	}
	return o
}
