// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/session"
)

// optionValues draws values of every kind, without content among them.
func optionValues() *rapid.Generator[*flight.SessionOptionValue] {
	return rapid.Custom(func(t *rapid.T) *flight.SessionOptionValue {
		var v any
		switch rapid.IntRange(0, 6).Draw(t, "kind") {
		case 0:
			return nil
		case 1: // without content
		case 2:
			v = rapid.String().Draw(t, "string")
		case 3:
			v = rapid.Bool().Draw(t, "bool")
		case 4:
			v = rapid.Int64().Draw(t, "int64")
		case 5:
			v = rapid.Float64().Draw(t, "float64")
		case 6:
			v = rapid.SliceOf(rapid.String()).Draw(t, "list")
		}
		value, err := flight.NewSessionOptionValue(v)
		if err != nil {
			t.Fatal(err)
		}
		return &value
	})
}

// A session's options are a map: whatever is done to them, and to the values
// that went in and came out, every kind of session agrees with the model.
func TestOptionsAreAMap(t *testing.T) {
	kinds := map[string]func(testing.TB) session.ServerSession{
		"stateful":           func(t testing.TB) session.ServerSession { return newSession(t, "x") },
		"stateful, in store": inStore,
		"stateless":          func(testing.TB) session.ServerSession { return session.NewStatelessServerSession(nil) },
	}
	for kind, newOne := range kinds {
		t.Run(kind, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				s := newOne(t)
				model := make(map[string]*flight.SessionOptionValue)
				names := rapid.SampledFrom([]string{"", "a", "b", "c", "\xff"})
				rt.Repeat(map[string]func(*rapid.T){
					"set": func(rt *rapid.T) {
						name, v := names.Draw(rt, "name"), optionValues().Draw(rt, "value")
						s.SetSessionOption(name, v)
						if v.GetOptionValue() == nil {
							delete(model, name)
							return
						}
						model[name] = proto.CloneOf(v)
						proto.Reset(v) // what went in is the caller's
					},
					"erase": func(rt *rapid.T) {
						name := names.Draw(rt, "name")
						s.EraseSessionOption(name)
						delete(model, name)
					},
					"spoil what came out": func(*rapid.T) {
						all := s.GetSessionOptions()
						for _, v := range all {
							proto.Reset(v)
						}
						clear(all)
					},
					"": func(rt *rapid.T) {
						equal := func(a, b *flight.SessionOptionValue) bool { return proto.Equal(a, b) }
						if got := s.GetSessionOptions(); !maps.EqualFunc(got, model, equal) {
							rt.Fatalf("options %v, want %v", got, model)
						}
						for _, name := range []string{"", "a", "b", "c", "\xff"} {
							got := s.GetSessionOption(name)
							if want := model[name]; !equal(got, want) || (got == nil) != (want == nil) {
								rt.Fatalf("option %q is %v, want %v", name, got, want)
							}
						}
					},
				})
			})
		})
	}
}

// inStore returns a session in a store of its own.
func inStore(t testing.TB) session.ServerSession {
	s := newSession(t, "x")
	put(t, newStore(t), s)
	return s
}

// The default generator makes random UUIDs, nil stands for it, and an empty ID
// is an error.
func TestSessionFactory(t *testing.T) {
	seen := make(map[string]bool)
	factory := session.NewSessionFactory(nil)
	for range 100 {
		s, err := factory.CreateSession()
		if err != nil {
			t.Fatal(err)
		}
		if id, err := uuid.Parse(s.Token()); err != nil || id.Version() != 4 || seen[s.Token()] {
			t.Errorf("the ID %d is no new random UUID, error %v", len(seen), err)
		}
		seen[s.Token()] = true
		if len(s.GetSessionOptions()) != 0 || s.Closed() {
			t.Error("a new session has options or is closed")
		}
	}
	if s, err := session.NewSessionFactory(func() string { return "" }).CreateSession(); err == nil || s != nil {
		t.Errorf("an empty ID: %v, error %v", s, err)
	}
}

// Close takes a session out of its store, whoever calls it and however often;
// until a store has it, it just closes it.
func TestCloseOfStatefulSession(t *testing.T) {
	store := newStore(t)
	loose, stored := newSession(t, "loose"), newSession(t, "stored")
	put(t, store, stored)
	for _, s := range []session.ServerSession{loose, stored} {
		s.SetSessionOption("a", text("b"))
		for range 3 {
			if err := s.Close(); err != nil || !s.Closed() {
				t.Errorf("Close: %v, closed %v", err, s.Closed())
			}
		}
	}
	if store.Len() != 0 {
		t.Errorf("%d sessions are in the store", store.Len())
	}
	if len(loose.GetSessionOptions()) != 0 {
		t.Errorf("a closed session of no store has the options %v", loose.GetSessionOptions())
	}
}

// The factory may be used by many goroutines.
func TestSessionFactoryConcurrently(t *testing.T) {
	factory := session.NewSessionFactory(nil)
	ids := make(chan string, 400)
	for range 4 {
		go func() {
			for range 100 {
				s, err := factory.CreateSession()
				if err != nil {
					ids <- fmt.Sprint("error ", err)
					continue
				}
				ids <- s.Token()
			}
		}()
	}
	var all []string
	for range 400 {
		all = append(all, <-ids)
	}
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != 400 {
		t.Errorf("%d different IDs of 400", n)
	}
}
