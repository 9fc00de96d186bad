// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
)

// callError is what a handler, and through it the client, learns when its call
// could get no session. It has a gRPC status; neither IDs nor the text of a
// back end are in it.
type callError struct {
	code     codes.Code
	text     string
	sentinel error // for errors.Is; of this module or of package context
}

// Error returns a text that is fit for the client.
func (e *callError) Error() string { return "flight session: " + e.text }

// GRPCStatus makes [status.FromError] and with it the server find the status.
func (e *callError) GRPCStatus() *status.Status { return status.New(e.code, e.Error()) }

// Unwrap returns the well-known cause, if there is one.
func (e *callError) Unwrap() error { return e.sentinel }

const noSession = "the session could not be set up"

// newCallError translates an error of a manager. The fingerprint in it is the
// one that the server's log has.
func newCallError(err error) *callError {
	e := classify(err)
	if r := (*redacted)(nil); errors.As(err, &r) {
		e.text += " (session " + r.mark.String() + ")"
	}
	return e
}

func classify(err error) *callError {
	for _, known := range []callError{
		{codes.ResourceExhausted, "no place for another session", layover.ErrFull},
		{codes.ResourceExhausted, "too many calls use sessions", layover.ErrLeaseLimit},
		{codes.Unavailable, "the server takes no new sessions", layover.ErrDraining},
		{codes.Unavailable, "the server is shutting down", layover.ErrShutdown},
		{codes.Unavailable, "the session store failed", errStore},
		{codes.Canceled, "the call was canceled", context.Canceled},
		{codes.DeadlineExceeded, "the call ran out of time", context.DeadlineExceeded},
	} {
		if errors.Is(err, known.sentinel) {
			return &known
		}
	}
	return &callError{codes.Internal, noSession, nil}
}
