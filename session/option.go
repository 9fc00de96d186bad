// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
)

// ErrInvalidOption says that an option cannot have this value: it cannot be
// converted to the option's type, or its Check refuses it. An OnChange that wraps it
// has the client get INVALID_VALUE.
var ErrInvalidOption = errors.New("session: an option cannot have this value")

// Option declares one session option of a server: its type, its default, and what
// happens when it changes. Handlers read it with [Option.Get]; clients can set it if it
// is in the [Schema] of the [BaseServer]. Declare it once, in a variable of the
// package, and do not change it or copy it later. Its methods are safe for concurrent
// use, and its functions must be.
//
// Clients may send a value of another type, as the documentation of Flight SQL
// recommends. It is converted, and stored as a T:
//
//   - A string becomes a number as strconv reads it, an int64 in base 10; a bool, if
//     it is one of 1, t, true, on and yes, or of 0, f, false, off and no, in any case;
//     a list, if its elements are separated by commas, those that contain commas or
//     quotes in double quotes, as in CSV. Blanks around all of these do not matter, the
//     empty string is the empty list.
//   - An int64 becomes a float64, and the other way round, if nothing is lost.
//   - Nothing else is converted. NaN is no value, nor is a string that is not valid
//     UTF-8, which no reply could carry.
type Option[T OptionType] struct {
	// Name is what the option is listed as. It must not be empty.
	Name string
	// Aliases are other names that clients may set it by.
	Aliases []string
	// Default is its value as long as it is not set. It must pass Check.
	Default T
	// NoDefault says that there is none: until it is set, Get returns the zero T,
	// and GetSessionOptions does not list it.
	NoDefault bool
	// ReadOnly says that clients cannot set it. The server can, with Set.
	ReadOnly bool
	// Description is for people, see [Schema.All].
	Description string
	// Check returns why a value is not allowed, see [Range] and [OneOf]. Its client
	// gets INVALID_VALUE. It may be called before there is a session. nil: all are.
	Check func(T) error
	// OnChange is told when the value of a session changes, as Get returns it, after
	// it was stored: whatever the session opens meanwhile sees the new one. An error,
	// or a panic, refuses the change: the old value is put back, and the client gets
	// ERROR, or INVALID_VALUE for an error that wraps [ErrInvalidOption]. Other options
	// that it has set stay set. The change also is refused if OnChange gives its call
	// another session, as [Begin] does. It is not told when a session ends, when a
	// handler changes the option by SetSessionOption, or when a store that hands out
	// copies fails to store what it was told of.
	//
	// In one session such changes are made one at a time: the others wait, no longer
	// than their contexts. With the context that OnChange is given it may set other
	// options of the session, but not this one; with another context that would wait
	// for itself. What it sets so is part of the change, and does not wait: if it does
	// that on goroutines, it must wait for them. In a store that hands out copies of its
	// sessions all that is so for each copy, and for sessions of a type that cannot be
	// compared not at all. nil: nobody is told, and nobody waits.
	OnChange func(ctx context.Context, from, to T) error
}

// Get returns the option's value in the session of the call that ctx belongs to; its
// default, if it is not set, if the call has no session, and outside of a call. A
// value that was stored with another type is converted; if that is impossible, the
// default holds. It makes no session. The caller owns what it returns.
//
// The errors are those of [GetSessionFromContext], but for [ErrNoSession]: a call that
// could not get its session must not go on with the default.
func (o *Option[T]) Get(ctx context.Context) (t T, _ error) {
	s, err := GetSessionFromContext(ctx)
	//nolint:errorlint // What wraps it says that the call's session is lost.
	if err != nil && err != ErrNoSession {
		return t, err
	}
	return o.Of(s), nil
}

// Of returns the option's value in a session, as Get does; nil: the default.
func (o *Option[T]) Of(s ServerSession) T { return o.valueOf(stored(s, o.Name)) }

// Set sets the option in the session of the call that ctx belongs to, which is made if
// there is none, also if the option is read-only for clients. Errors, after which the
// option is what it was: those of [SetOption]; those that wrap [ErrInvalidOption], if
// the value is not allowed; that of OnChange; that the context has ended while another
// change was waited for.
func (o *Option[T]) Set(ctx context.Context, v T) error {
	value, err := o.accept(encode(v))
	if err != nil {
		return broken(ctx, o.Name, err)
	}
	return o.change(ctx, value)
}

// Unset has the option be its default again, in the session of the call that ctx
// belongs to, if there is one. The errors are those of Set.
func (o *Option[T]) Unset(ctx context.Context) error { return o.change(ctx, nil) }

// Range returns a Check for numbers from least to most, both included.
func Range[T int64 | float64](least, most T) func(T) error {
	return func(v T) error {
		if v >= least && v <= most {
			return nil
		}
		return fmt.Errorf("%v is not from %v to %v", v, least, most)
	}
}

// OneOf returns a Check for these strings, in their case.
func OneOf(values ...string) func(string) error {
	values = slices.Clone(values)
	return func(v string) error {
		if slices.Contains(values, v) {
			return nil
		}
		return fmt.Errorf("%.100q is none of %q", v, values)
	}
}

// stored returns the value of an option in a session, which may be nil. It is not to be
// changed. A copy is made only of sessions of foreign types.
func stored(s ServerSession, name string) *flight.SessionOptionValue {
	if s == nil {
		return nil
	}
	switch s := unwrap(s).(type) {
	case nil:
		return nil
	case *statefulServerSession:
		return s.value(name)
	case *StatelessServerSession:
		return s.value(name)
	default:
		return s.GetSessionOption(name)
	}
}

// valueOf returns what Get does if this is stored; nil: nothing is.
func (o *Option[T]) valueOf(v *flight.SessionOptionValue) T {
	if v.GetOptionValue() != nil {
		if t, err := decode[T](v); err == nil {
			return t
		}
	}
	return o.fallback()
}

// fallback returns the default.
func (o *Option[T]) fallback() T {
	if list, ok := any(o.Default).([]string); ok {
		return any(slices.Clone(list)).(T)
	}
	return o.Default
}

// listed returns what GetSessionOptions lists if this is stored; nil: nothing.
func (o *Option[T]) listed(v *flight.SessionOptionValue) *flight.SessionOptionValue {
	if v.GetOptionValue() != nil {
		if t, err := decode[T](v); err == nil {
			return encode(t)
		}
	}
	if o.NoDefault {
		return nil
	}
	return encode(o.fallback())
}

// accept returns what is stored for a value that was sent. Errors wrap
// [ErrInvalidOption], but for a panic of Check.
func (o *Option[T]) accept(v *flight.SessionOptionValue) (*flight.SessionOptionValue, error) {
	t, err := decode[T](v)
	if err != nil {
		return nil, o.invalid(err)
	}
	if err := o.check(t); err != nil {
		return nil, err
	}
	if isA[T](v) {
		return v, nil
	}
	return encode(t), nil
}

// check asks Check.
func (o *Option[T]) check(t T) (err error) {
	if o.Check == nil {
		return nil
	}
	defer contain(&err)
	if list, ok := any(t).([]string); ok {
		t = any(slices.Clone(list)).(T) // what was checked is stored
	}
	if err := harmless(o.Check(t)); err != nil {
		return o.invalid(err)
	}
	return nil
}

func (o *Option[T]) invalid(err error) error {
	return fmt.Errorf("%w: %s: %w", ErrInvalidOption, o.Name, err)
}

// broken returns an error of an option's own functions as its server may know it: one
// that is not about the value is logged, and its text kept from the client.
func broken(ctx context.Context, name string, err error) error {
	if errors.Is(err, ErrInvalidOption) {
		return err
	}
	var r *reporter
	h, c := handleFrom(ctx), callFrom(ctx)
	switch {
	case h != nil:
		r = h.m.reporter
	case c != nil:
		r = c.reporter
	}
	if r != nil {
		s, _ := fromContext(ctx)
		_ = r.report(ctx, unwrap(s), "layover: a session option could not be set", err, slog.String("option", name))
	}
	return &callError{code: codes.Internal, reason: "SESSION_FAILED", text: "an option could not be set", cause: err}
}
