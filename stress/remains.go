// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// remains checks that a shutdown which has returned has left nobody a session, had it
// enough time or not; and that what it has not closed is in its error.
func (w *watch) remains(s layover.Stats, err error) {
	w.Expect(promise.Clean, s.Live+s.Retired == 0, "%d sessions are live and %d in use after their end although Shutdown has returned, expected none: %v", s.Live, s.Retired, err)
	w.Expect(promise.Clean, err != nil || s.Closing == 0, "%d sessions are still being closed although Shutdown has returned without an error, expected none", s.Closing)
}
