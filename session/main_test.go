// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind. Stores that a test does not configure log
// to the default logger, which is silent here.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	if os.Getenv(childEnv) != "" {
		os.Exit(childMain())
	}
	goleak.VerifyTestMain(m)
}
