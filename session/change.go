// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"math"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
)

// change sets the option to a value that was accepted, nil: unsets it, and asks
// OnChange. It stores first: what opens something by the options while OnChange runs
// must not do so by the old ones.
func (o *Option[T]) change(ctx context.Context, value *flight.SessionOptionValue) error {
	if o.OnChange == nil {
		return SetOption(ctx, o.Name, value)
	}
	s, err := toChange(ctx, o.Name, value)
	if err != nil || s == nil {
		return err
	}
	target := unwrap(s)
	ctx, done, err := takeChange(ctx, target, o.Name)
	if err != nil {
		return err
	}
	defer done()
	kept := false
	if travels, ok := target.(*StatelessServerSession); ok {
		travels.wait(o.Name)
		defer func() { travels.nowIn(s).decide(o.Name) }()
	}
	was := stored(s, o.Name)
	if err := SetOption(ctx, o.Name, value); err != nil {
		return err
	}
	from, to := o.valueOf(was), o.valueOf(value)
	if kept = equal(from, to); kept {
		return nil
	}
	defer func() { // also if OnChange ends its goroutine
		if !kept {
			putBack(ctx, nowIn(s, target), o.Name, was)
		}
	}()
	err = o.tell(ctx, from, to)
	if now := unwrap(s); err == nil && reflect.ValueOf(target).Comparable() && !same(now, nowIn(s, target)) { // by Begin, or a handle: there the option is not set
		err = &observerError{errElsewhereNow}
	}
	if travels, ok := target.(*StatelessServerSession); err == nil && ok && travels.nowIn(s) == travels && travels.wasRenewed() { // by another call
		err = errNotKept
	}
	kept = err == nil
	return err
}

// nowIn returns what a session is by now that a call had when it began to change it: an
// OnChange may have renewed one that travels in its cookie.
func nowIn(s, target ServerSession) ServerSession {
	if travels, ok := target.(*StatelessServerSession); ok {
		return travels.nowIn(s)
	}
	return target
}

// errElsewhereNow says that an OnChange has given its call another session.
var errElsewhereNow = &callError{code: codes.Internal, reason: "SESSION_FAILED", text: "the call got another session while an option was set"}

// tell asks OnChange. The error is a [*observerError].
func (o *Option[T]) tell(ctx context.Context, from, to T) error {
	refusal, err := func() (refusal, err error) {
		defer contain(&err)
		return o.OnChange(ctx, from, to), nil
	}()
	if err != nil {
		return &observerError{broken(ctx, o.Name, err)}
	}
	if refusal = harmless(refusal); refusal != nil {
		return &observerError{refusal}
	}
	return nil
}

// observerError is an error of an OnChange: it is about the option, whatever it wraps.
type observerError struct{ err error }

// Error returns the text of OnChange.
func (e *observerError) Error() string { return e.err.Error() }

// Unwrap returns the error of OnChange.
func (e *observerError) Unwrap() error { return e.err }

// toChange returns the session in which an option is to be set, nil: there is none,
// and nothing to unset.
func toChange(ctx context.Context, name string, value *flight.SessionOptionValue) (ServerSession, error) {
	if value == nil {
		s, err := Lookup(ctx)
		if errors.Is(err, ErrNoSession) {
			_, err = GetSessionFromContext(ctx)
			return nil, err
		}
		return s, err
	}
	if h := handleFrom(ctx); h != nil {
		if err := h.foresee(name, value); err != nil {
			return nil, err
		}
	}
	return Ensure(ctx)
}

// putBack undoes a change that was refused, in the session in which it was made. What
// was there before is within the limits whatever was set meanwhile; if the store has
// no room for it any more, the option is unset, rather than what was refused.
func putBack(ctx context.Context, s ServerSession, name string, was *flight.SessionOptionValue) {
	var err error
	defer func() {
		if err != nil {
			_ = broken(ctx, name, err)
		}
	}()
	defer contain(&err)
	if travels, ok := s.(*StatelessServerSession); ok {
		if err = travels.keep(name, was); err != nil {
			travels.EraseSessionOption(name)
		}
		return
	}
	own, ok := s.(*statefulServerSession)
	switch {
	case !ok && was.GetOptionValue() == nil:
		s.EraseSessionOption(name)
	case !ok:
		s.SetSessionOption(name, was)
	case was == nil:
		own.erase(name, leaseFor(ctx, own))
	default:
		if _, err = own.keep(name, was, &unlimited, leaseFor(ctx, own)); err != nil {
			own.erase(name, leaseFor(ctx, own))
		}
	}
}

// unlimited is for what is within the limits already.
var unlimited = OptionLimits{Options: math.MaxInt, Name: math.MaxInt, Value: math.MaxInt, Session: math.MaxInt}

// leaseFor returns the call's lease on a session in a store of this package's; nil: it
// has none.
func leaseFor(ctx context.Context, own *statefulServerSession) *layover.Lease[resident] {
	if h := handleFrom(ctx); h != nil {
		if l := h.live.Load(); l == nil || l.session != ServerSession(own) {
			return nil
		}
		return h.leaseOn(own)
	}
	return callFrom(ctx).leaseOn(own)
}

// equal compares two values of options.
func equal[T OptionType](a, b T) bool {
	if list, ok := any(a).([]string); ok {
		return slices.Equal(list, any(b).([]string))
	}
	return any(a) == any(b)
}

// observed are the sessions an observed option of which is changed at this moment. They
// are the process's, since an [Option] belongs to no server, nor does each session to
// a store.
var observed turns

// changing is in the context of an OnChange.
type changing struct {
	session ServerSession
	option  string
	outer   *changing   // the one in whose OnChange this change is made
	over    atomic.Bool // a goroutine that OnChange has left behind may still have the context
}

type changeKey struct{}

// isChanging reports whether ctx is that of an OnChange of an option of the session.
func isChanging(ctx context.Context, s ServerSession) bool {
	for c, _ := ctx.Value(changeKey{}).(*changing); c != nil; c = c.outer {
		if !c.over.Load() && same(c.session, s) {
			return true
		}
	}
	return false
}

// errCircular says that an OnChange would have to be told of a change of its own.
var errCircular = &callError{code: codes.Internal, reason: "SESSION_FAILED", text: "an option was set while it was being changed"}

// takeChange waits until nobody else changes an observed option of the session, no
// longer than its context. It returns the context of OnChange. A change in an OnChange
// is part of the one that this is told of.
func takeChange(ctx context.Context, s ServerSession, option string) (_ context.Context, done func(), _ error) {
	outer, _ := ctx.Value(changeKey{}).(*changing)
	mine := &changing{session: s, option: option, outer: outer}
	nested := false
	for c := outer; c != nil; c = c.outer {
		if c.over.Load() || !same(c.session, s) {
			continue
		}
		if nested = true; c.option == option {
			return nil, nil, errCircular
		}
	}
	free := func() {}
	if !nested && reflect.ValueOf(s).Comparable() {
		var err error
		if free, err = observed.take(ctx, s); err != nil {
			return nil, nil, classify(err)
		}
	}
	return context.WithValue(ctx, changeKey{}, mine), func() { mine.over.Store(true); free() }, nil
}
