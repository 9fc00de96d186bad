// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"slices"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// BaseServer is [flightsql.BaseServer] with the three session actions of Flight; embed
// it in its place, under [NewServerMiddleware]. Its fields are set before the server
// starts.
//
// It also works where calls get their sessions at once, see [WithLazySessions]; there a
// request all of whose options are refused leaves a session all the same. So it does
// under [NewServerSessionMiddleware], where CloseSession of a session that has ended
// says CLOSED, whoever still uses it.
type BaseServer struct {
	flightsql.BaseServer
	// Options are those that clients can set. nil: any, each stored as it is.
	Options *Schema
	// Closeable says whether the client may close its session; if not it gets
	// NOT_CLOSEABLE, and the session stays. A panic fails the call. nil: it may.
	Closeable func(ctx context.Context, s ServerSession) bool
}

// SetSessionOptions sets options, each by itself: an option that is not in the
// result's errors was set. A value without content unsets: the default holds again.
//
//	INVALID_NAME   the option is not declared
//	INVALID_VALUE  it cannot be converted, or is not allowed: see [ErrInvalidOption]
//	ERROR          it is read-only, is beyond the [OptionLimits], was sent under
//	               two of its names with different values, or its OnChange refused
//
// The declared options are set first, in the order of their declaration, then others by
// name. If there is no session it is made, also by a request without options, but not
// by one of whose options none can be set, as far as that is known before. If the
// session itself fails, as that the store is full or it has ended, the call does, with
// the error of [SetOption]; options that were set before that stay.
func (b BaseServer) SetSessionOptions(ctx context.Context, req *flight.SetSessionOptionsRequest) (*flight.SetSessionOptionsResult, error) {
	r := setting{ctx: ctx, schema: b.Options, asked: req.GetSessionOptions()}
	if err := r.run(); err != nil {
		return nil, answer(ctx, err)
	}
	return &r.result, nil
}

// GetSessionOptions lists the options that are set, and the defaults of those that are
// not, under their declared names. Without a session it is an error, NOT_FOUND with
// the reason SESSION_NONE. It makes none.
func (b BaseServer) GetSessionOptions(ctx context.Context, _ *flight.GetSessionOptionsRequest) (*flight.GetSessionOptionsResult, error) {
	all, err := b.list(ctx)
	if err != nil {
		return nil, answer(ctx, err)
	}
	return &flight.GetSessionOptionsResult{SessionOptions: all}, nil
}

// CloseSession ends the session. The status is CLOSED if nobody else uses it, or there
// is none; CLOSING if other calls still do, or goroutines by [Acquire]: these go on, and
// it is CLOSING until they have ended also if its client asks again; and NOT_CLOSEABLE
// if Closeable says so. In a store that is not of this package it is not known who uses
// a session, and the status is CLOSED; of a sealed one, who does by other replicas.
func (b BaseServer) CloseSession(ctx context.Context, _ *flight.CloseSessionRequest) (*flight.CloseSessionResult, error) {
	st, err := b.end(ctx)
	if err != nil {
		return nil, answer(ctx, err)
	}
	return &flight.CloseSessionResult{Status: st}, nil
}

var errNone = &callError{code: codes.NotFound, reason: "SESSION_NONE", text: "the call has no session", sentinel: ErrNoSession}

// answer returns what the client learns of an error.
func answer(ctx context.Context, err error) error {
	h, c := handleFrom(ctx), callFrom(ctx)
	switch e := (*callError)(nil); {
	//nolint:errorlint // What wraps it says more.
	case err == ErrNoSession:
		return errNone
	case errors.As(err, &e):
		return e
	case h != nil:
		return h.m.refusal(h.base, err)
	case c != nil && c.reporter != nil:
		return c.reporter.report(ctx, c.session, "layover: a session action failed", err)
	}
	return translate(err)
}

// present returns the session of the call, if it came with one or was given one: not
// one that only the middleware has made. That one ends, if it is empty.
func present(ctx context.Context) (ServerSession, error) {
	s, err := Lookup(ctx)
	if err != nil {
		return nil, err
	}
	h, c := handleFrom(ctx), callFrom(ctx)
	switch {
	case h != nil:
		if l := h.live.Load(); l != nil && l.fresh && h.isBrief() {
			return nil, ErrNoSession // it ends with the call
		}
	case c != nil && c.fresh && len(s.GetSessionOptions()) == 0:
		if err := s.Close(); err != nil {
			return nil, err
		}
		return nil, ErrNoSession
	}
	return s, nil
}

func (b BaseServer) list(ctx context.Context) (_ map[string]*flight.SessionOptionValue, err error) {
	defer contain(&err)
	s, err := present(ctx)
	if err != nil {
		return nil, err
	}
	all := make(map[string]*flight.SessionOptionValue)
	for name, v := range s.GetSessionOptions() { // which may be its own map
		if v.GetOptionValue() != nil {
			all[name] = v
		}
	}
	for i, o := range b.Options.declared() {
		name := b.Options.infos[i].Name
		if v := o.listed(all[name]); v != nil {
			all[name] = v
		} else {
			delete(all, name)
		}
	}
	return all, nil
}

func (b BaseServer) end(ctx context.Context) (_ gen.CloseSessionResult_Status, err error) {
	defer contain(&err)
	s, err := present(ctx)
	//nolint:errorlint // What wraps it says that the session is hidden.
	switch {
	case err == ErrNoSession && lingers(ctx):
		return flight.CloseSessionResultClosing, nil
	case err == ErrNoSession:
		return flight.CloseSessionResultClosed, nil
	case err != nil:
		return 0, err
	case b.Closeable != nil && !b.Closeable(ctx, s):
		return flight.CloseSessionResultNotCloseable, nil
	}
	if handleFrom(ctx) != nil {
		err = End(ctx)
	} else if travels, ok := s.(*StatelessServerSession); ok && travels.manager.seals() {
		_, err = travels.manager.end(ctx, travels, whyClosed)
	} else if !s.Closed() {
		err = s.Close() // the rest is done by the middleware
	}
	switch {
	case err != nil:
		return 0, err
	case shared(ctx, s):
		return flight.CloseSessionResultClosing, nil
	}
	return flight.CloseSessionResultClosed, nil
}

// shared reports whether other calls use the session of the call, as far as the store
// can tell.
func shared(ctx context.Context, s ServerSession) bool {
	if travels, ok := unwrap(s).(*StatelessServerSession); ok {
		return travels.isShared()
	}
	if h := handleFrom(ctx); h != nil {
		l := h.live.Load()
		return l != nil && h.m.store != nil && l.leased().Shared()
	}
	own, ok := s.(*statefulServerSession)
	if !ok {
		return false
	}
	l := callFrom(ctx).leaseOn(own)
	return l != nil && l.Shared()
}

// lingers reports whether the call means a session that has ended, but which other
// calls still use.
func lingers(ctx context.Context) bool {
	h := handleFrom(ctx)
	switch {
	case h == nil:
		return false
	case h.m.stateless != nil:
		return slices.ContainsFunc(h.brought(), func(d deadToken) bool { return d.lingers })
	case h.m.store == nil:
		return false
	}
	who, err := h.caller()
	if err != nil {
		return false
	}
	by := owner{name: who.Name}
	for _, d := range h.brought() {
		if d.token != "" && h.m.store.store.Retired(d.token, by.owns) {
			return true
		}
	}
	named := h.principal()
	return named != nil && h.m.store.store.Retired(named.id, by.owns)
}

// setting is one SetSessionOptions.
type setting struct {
	ctx    context.Context
	schema *Schema
	asked  map[string]*flight.SessionOptionValue
	result flight.SetSessionOptionsResult
}

// Why an option is not set.
var (
	errUnknown  = errors.New("session: there is no such option")
	errReadOnly = errors.New("session: clients cannot set this option")
	errConflict = errors.New("session: two names of one option have different values")
)

// run fulfils what it can. Everything is looked at before anything is made: a client
// that is only told what is wrong needs no session.
func (r *setting) run() (err error) {
	defer contain(&err)
	if _, err := GetSessionFromContext(r.ctx); err != nil {
		return err
	}
	set := len(r.asked) == 0
	for _, w := range r.valid() {
		if err := r.ctx.Err(); err != nil {
			return classify(err) // nobody waits for the others
		}
		switch err := w.fulfil(r.ctx); {
		case err == nil:
			set = true
		case errors.Is(err, ErrOptionLimit), errors.As(err, new(*observerError)):
			r.refuse(w.names, err)
		default:
			return err
		}
	}
	if set {
		_, err = Ensure(r.ctx)
	}
	return err
}

// valid returns which wishes can be fulfilled, as far as that can be known before.
func (r *setting) valid() []wish {
	all := r.schema.wishes(r.asked)
	valid := all[:0]
	for _, w := range all {
		if v, ok := r.agree(&w); ok {
			w.value = v
			valid = append(valid, w)
		}
	}
	return valid
}

// agree returns what an option would be set to, if it can be, by all names that the
// client has used for it.
func (r *setting) agree(w *wish) (_ *flight.SessionOptionValue, ok bool) {
	first, err := r.look(w, w.names[0])
	if len(w.names) == 1 {
		if err != nil {
			r.refuse(w.names, err)
		}
		return first, err == nil
	}
	errs, refused, agree := []error{err}, 0, true
	for _, name := range w.names[1:] {
		v, err := r.look(w, name)
		errs, agree = append(errs, err), agree && proto.Equal(v, first)
	}
	for _, err := range errs {
		if err != nil {
			refused++
		}
	}
	if refused == 0 && agree {
		return first, true
	}
	for i := range w.names {
		if refused < len(w.names) { // a value stands against another one, or against what is none
			errs[i] = errConflict
		}
		r.refuse(w.names[i:i+1], errs[i])
	}
	return nil, false
}

// look returns what an option would be set to, nil: unset.
func (r *setting) look(w *wish, name string) (*flight.SessionOptionValue, error) {
	v := r.asked[name]
	if w.option == nil {
		if err := r.schema.acceptUnknown(name, v); err != nil || v.GetOptionValue() != nil {
			return v, err
		}
		return nil, nil
	}
	switch {
	case w.readOnly:
		return nil, errReadOnly
	case v.GetOptionValue() == nil:
		return nil, nil
	}
	return w.option.accept(v)
}

// refuse notes why an option is not set, under the names that the client has used.
func (r *setting) refuse(names []string, err error) {
	value := flight.SetSessionOptionsResultErrorError
	switch {
	case errors.Is(err, errUnknown):
		value = flight.SetSessionOptionsResultErrorInvalidName
	case errors.Is(err, ErrInvalidOption):
		value = flight.SetSessionOptionsResultErrorInvalidValue
	case errors.Is(err, errReadOnly), errors.Is(err, errConflict), errors.As(err, new(*callError)), r.ctx.Err() != nil:
	default:
		_ = broken(r.ctx, names[0], err) // the client does not learn why
	}
	if r.result.Errors == nil {
		r.result.Errors = make(map[string]*flight.SetSessionOptionsResultError)
	}
	for _, name := range names {
		r.result.Errors[name] = &flight.SetSessionOptionsResultError{Value: value}
	}
}
