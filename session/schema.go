// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow/flight"
)

// Declared is an [*Option] of any type.
type Declared interface {
	validate() error
	info() OptionInfo
	accept(*flight.SessionOptionValue) (*flight.SessionOptionValue, error)
	listed(*flight.SessionOptionValue) *flight.SessionOptionValue
	change(context.Context, *flight.SessionOptionValue) error
}

// OptionInfo describes an option to people.
type OptionInfo struct {
	Name    string
	Aliases []string
	// Type is the name of the Go type: "string", "bool", "int64", "float64" or
	// "[]string".
	Type string
	// Default is of that type; nil: there is none.
	Default     any
	ReadOnly    bool
	Description string
}

func (o *Option[T]) info() OptionInfo {
	in := OptionInfo{Name: o.Name, Aliases: slices.Clone(o.Aliases), Type: fmt.Sprintf("%T", o.Default), ReadOnly: o.ReadOnly, Description: o.Description}
	if !o.NoDefault {
		in.Default = o.fallback()
	}
	return in
}

// validate returns what is wrong with the declaration.
func (o *Option[T]) validate() error {
	if o == nil {
		return errors.New("it is nil")
	}
	for _, name := range append([]string{o.Name}, o.Aliases...) {
		if name == "" || !utf8.ValidString(name) {
			return fmt.Errorf("%q: a name must not be empty, and must be valid UTF-8", name)
		}
	}
	if o.NoDefault {
		if !equal(o.Default, *new(T)) {
			return fmt.Errorf("%q: it has a default, and NoDefault", o.Name)
		}
		return nil
	}
	if _, err := o.accept(encode(o.Default)); err != nil {
		return fmt.Errorf("%q: its default is refused: %w", o.Name, err)
	}
	return nil
}

// Schema is which options clients can set. It does not change, and is safe for
// concurrent use.
type Schema struct {
	options []Declared     // in the order of their declaration
	infos   []OptionInfo   // of them
	ranks   map[string]int // where they are there, by name and alias
	unknown bool           // others are accepted
}

// NewSchema returns a schema of these options, [*Option] of any types. The error says
// which declaration is wrong: one that is nil, a name that is empty, not valid UTF-8
// or taken by another option, a default that its own Check refuses, NoDefault
// together with a default.
func NewSchema(options ...Declared) (*Schema, error) {
	s := &Schema{options: slices.Clone(options), ranks: make(map[string]int)}
	for i, o := range s.options {
		if o == nil {
			return nil, fmt.Errorf("session: NewSchema: option %d: it is nil", i)
		}
		if err := o.validate(); err != nil {
			return nil, fmt.Errorf("session: NewSchema: option %d: %w", i, err)
		}
		in := o.info()
		for _, name := range append(in.Aliases, in.Name) {
			if _, taken := s.ranks[name]; taken {
				return nil, fmt.Errorf("session: NewSchema: option %d: the name %q is taken", i, name)
			}
			s.ranks[name] = i
		}
		s.infos = append(s.infos, in)
	}
	return s, nil
}

// MustSchema is [NewSchema], but panics if a declaration is wrong. It is for variables
// of a package.
func MustSchema(options ...Declared) *Schema {
	s, err := NewSchema(options...)
	if err != nil {
		panic(err)
	}
	return s
}

// AcceptUnknown returns a copy of s under which clients can also set options that are
// not declared. They are stored as they are, within the [OptionLimits].
func (s *Schema) AcceptUnknown() *Schema {
	if s == nil {
		return nil // it does already
	}
	with := *s
	with.unknown = true
	return &with
}

// All describes the declared options, in the order of their declaration, for pages and
// command lines.
func (s *Schema) All() iter.Seq[OptionInfo] {
	return func(yield func(OptionInfo) bool) {
		for _, o := range s.declared() {
			if !yield(o.info()) {
				return
			}
		}
	}
}

func (s *Schema) declared() []Declared {
	if s == nil {
		return nil
	}
	return s.options
}

// rank returns where an option is in the order of declaration, by one of its names.
func (s *Schema) rank(name string) int {
	if s != nil {
		if rank, ok := s.ranks[name]; ok {
			return rank
		}
	}
	return undeclared
}

const undeclared = math.MaxInt // comes last

// acceptUnknown returns why an option that is not declared is not set.
func (s *Schema) acceptUnknown(name string, v *flight.SessionOptionValue) error {
	if s != nil && !s.unknown || !utf8.ValidString(name) {
		return errUnknown
	}
	_, isText := stringOf(v)
	_, isList := listOf(v)
	if errors.Is(isText, errUTF8) || errors.Is(isList, errUTF8) {
		return ErrInvalidOption
	}
	return nil
}

// wish is what a client wants of one option.
type wish struct {
	option   Declared // nil: it is not declared
	readOnly bool
	names    []string                   // that the client has used for it, sorted
	value    *flight.SessionOptionValue // nil: unset it
}

// wishes groups a request by option, in the order in which they are to be fulfilled.
func (s *Schema) wishes(asked map[string]*flight.SessionOptionValue) []wish {
	type named struct {
		rank int
		name string
	}
	sorted := make([]named, 0, len(asked))
	for name := range asked {
		sorted = append(sorted, named{s.rank(name), name})
	}
	slices.SortFunc(sorted, func(a, b named) int {
		if a.rank != b.rank {
			return cmp.Compare(a.rank, b.rank)
		}
		return strings.Compare(a.name, b.name)
	})
	all, names := make([]wish, 0, len(sorted)), make([]string, 0, len(sorted))
	for i, n := range sorted {
		names = append(names, n.name)
		switch {
		case n.rank == undeclared:
			all = append(all, wish{names: names[i:]})
		case i > 0 && sorted[i-1].rank == n.rank:
			w := &all[len(all)-1]
			w.names = names[i-len(w.names):]
		default:
			all = append(all, wish{option: s.options[n.rank], readOnly: s.infos[n.rank].ReadOnly, names: names[i:]})
		}
	}
	return all
}

// fulfil does what the client wants.
func (w *wish) fulfil(ctx context.Context) error {
	if w.option != nil {
		return w.option.change(ctx, w.value)
	}
	return SetOption(ctx, w.names[0], w.value)
}
