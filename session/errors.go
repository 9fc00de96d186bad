// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/c8e4ff29/layover"
)

// ErrorDomain is the domain of every [errdetails.ErrorInfo] of this package. Its
// reasons are listed in the package's documentation.
const ErrorDomain = "layover"

// LostPrefix begins the message that tells a client that its session has ended.
// Some clients show nothing but the message.
const LostPrefix = "flight session lost: "

const errorPrefix = "flight session: "

// ErrCallEnded says that a session was asked for, or an option set in a call
// that has none, after the call had ended.
var ErrCallEnded = errors.New("session: the call has ended")

// callError is what a handler, and through it the client, learns when its call
// could get no session. It has a gRPC status; neither IDs nor the text of a
// back end are in it.
type callError struct {
	code     codes.Code
	text     string
	sentinel error // for errors.Is; of this module, of package context, or of an Open
	reason   string
	metadata map[string]string
	retry    time.Duration // after which to try again; zero: not said
	prefix   string        // empty: errorPrefix
	status   *status.Status
	cause    error // for the log
}

// Error returns a text that is fit for the client.
func (e *callError) Error() string {
	if e.status != nil {
		return e.status.Message()
	}
	if e.prefix != "" {
		return e.prefix + e.text
	}
	return errorPrefix + e.text
}

// GRPCStatus makes [status.FromError] and with it the server find the status.
func (e *callError) GRPCStatus() *status.Status {
	if e.status != nil {
		return e.status
	}
	s := status.New(e.code, e.Error())
	var details []protoadapt.MessageV1
	if e.reason != "" {
		details = append(details, &errdetails.ErrorInfo{Reason: e.reason, Domain: ErrorDomain, Metadata: e.metadata})
	}
	if e.retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.retry)})
	}
	if with, err := s.WithDetails(details...); err == nil {
		return with
	}
	return s
}

// Unwrap returns the well-known cause, if there is one.
func (e *callError) Unwrap() error { return e.sentinel }

// GoString keeps the cause, which may quote an ID, out of %#v.
func (e *callError) GoString() string { return e.Error() }

const noSession = "the session could not be set up"

// retryFull is when to come back to a store that is full: when the next session
// leaves is not known, and a thousand clients that come back all the time do not
// help.
const retryFull = time.Second

// newCallError translates an error of a manager. The fingerprint in it is the
// one that the server's log has.
func newCallError(err error) *callError {
	if e := (*callError)(nil); errors.As(err, &e) {
		return e
	}
	e := classify(err)
	e.cause = err
	if r := (*redacted)(nil); errors.As(err, &r) {
		e.text += " (session " + r.mark.String() + ")"
		e.note("session", r.mark.String())
	}
	return e
}

// inOwnWords returns an error that the owner has given a gRPC status, nil: it has none.
// The owner's own words are those of the status, not what is wrapped around it.
func inOwnWords(err error) *callError {
	type withStatus interface{ GRPCStatus() *status.Status }
	said := withStatus(nil)
	if !errors.As(err, &said) || said.GRPCStatus().Code() == codes.OK {
		return nil
	}
	e := &callError{code: said.GRPCStatus().Code(), status: said.GRPCStatus()}
	if _, bare := err.(withStatus); !bare { // what is around it is for the log
		e.cause = err
	}
	return e
}

func (e *callError) note(name, value string) {
	if e.metadata == nil {
		e.metadata = make(map[string]string)
	}
	e.metadata[name] = value
}

func classify(err error) *callError {
	for _, known := range []callError{
		{code: codes.ResourceExhausted, text: "no place for another session", sentinel: layover.ErrFull, reason: "SESSION_STORE_FULL", retry: retryFull},
		{code: codes.ResourceExhausted, text: "too many calls use sessions", sentinel: layover.ErrLeaseLimit, reason: "SESSION_CALL_LIMIT", retry: retryFull},
		{code: codes.Unavailable, text: "the server takes no new sessions", sentinel: layover.ErrDraining, reason: "SESSION_STORE_DRAINING"},
		{code: codes.Unavailable, text: "the server is shutting down", sentinel: layover.ErrShutdown, reason: "SESSION_STORE_SHUTDOWN"},
		{code: codes.Unavailable, text: "the session store failed", sentinel: errStore, reason: "SESSION_STORE_FAILED"},
		{code: codes.Canceled, text: "the call was canceled", sentinel: context.Canceled},
		{code: codes.DeadlineExceeded, text: "the call ran out of time", sentinel: context.DeadlineExceeded},
		{code: codes.Internal, text: "the call has ended", sentinel: ErrCallEnded, reason: "SESSION_FAILED"},
	} {
		if errors.Is(err, known.sentinel) {
			if full := (*layover.FullError)(nil); errors.As(err, &full) {
				known.explain(full)
			}
			return &known
		}
	}
	return &callError{code: codes.Internal, text: noSession, reason: "SESSION_FAILED"}
}

// explain tells who has the places of a full store, as far as that is the
// client's business.
func (e *callError) explain(full *layover.FullError) {
	switch {
	case full.Lacking == layover.LackingQuota:
		e.text = fmt.Sprintf("no place for another session: you have %d of at most %d", full.Own, full.Max)
	case full.Lacking != layover.LackingPlaces || full.Max == 0:
		e.text = fmt.Sprintf("no %s for another session: %d are your own", full.Lacking, full.Own)
	default:
		e.text = fmt.Sprintf("no place for another session: %d of all %d are your own", full.Own, full.Max)
	}
	e.note("lacking", full.Lacking.String())
	e.note("places", strconv.Itoa(full.Max))
	e.note("own", strconv.Itoa(full.Own))
}

// notSaved says that what the handler did to the session did not last. It is
// INTERNAL, since UNAVAILABLE would have clients run the statement again.
func notSaved(err error) *callError {
	err = harmless(err)
	e := newCallError(err)
	return &callError{code: codes.Internal, reason: "SESSION_NOT_SAVED", cause: err, sentinel: e.sentinel, metadata: e.metadata,
		text: "the call was carried out, but its session could not be saved"}
}
