// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"zombiezen.com/go/sqlite"
)

// failed returns the status for an error of SQLite: its message is for the client,
// who has written the statement. Errors that have a status keep it, and lose what is
// wrapped around it: that would have the status in its text once more.
func failed(err error) error {
	if err == nil {
		return nil
	}
	var has interface{ GRPCStatus() *status.Status }
	if errors.As(err, &has) {
		return has.GRPCStatus().Err()
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	code := codeOf(sqlite.ErrCode(err))
	if code == codes.Internal { // nothing that the client could mend, and it may name files
		slog.Error("SQLite failed", "error", err)
		return status.Error(code, "the database failed")
	}
	text := err.Error()
	for _, prefix := range []string{"sqlite: prepare: ", "sqlite: step: "} { // whose words these are
		text = strings.TrimPrefix(text, prefix)
	}
	return status.Error(code, text)
}

// codeOf says whose fault an error is, and whether it may go away.
func codeOf(r sqlite.ResultCode) codes.Code {
	switch r {
	case sqlite.ResultConstraintUnique, sqlite.ResultConstraintPrimaryKey, sqlite.ResultConstraintRowID:
		return codes.AlreadyExists
	default:
	}
	switch r.ToPrimary() {
	case sqlite.ResultInterrupt:
		return codes.Canceled
	case sqlite.ResultBusy, sqlite.ResultLocked:
		return codes.Unavailable
	case sqlite.ResultAuth:
		return codes.PermissionDenied
	case sqlite.ResultReadOnly: // the option query_only
		return codes.FailedPrecondition
	case sqlite.ResultFull, sqlite.ResultNoMem, sqlite.ResultTooBig:
		return codes.ResourceExhausted
	case sqlite.ResultIOErr, sqlite.ResultCorrupt, sqlite.ResultNotADB, sqlite.ResultCantOpen, sqlite.ResultInternal, sqlite.ResultMisuse:
		return codes.Internal
	default:
		return codes.InvalidArgument
	}
}

// invalid says what is wrong with a request.
func invalid(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}
