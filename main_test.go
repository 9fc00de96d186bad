// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"testing"

	"go.uber.org/goleak"
)

// Whatever a test starts, the store has ended when the tests are over.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
