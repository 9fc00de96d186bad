// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package planted_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

var scenarios = flag.Duration("scenarios", 0, "instead of the tests, run each bug under each scenario for this long at most, and print which found it as a table in Markdown")

func TestMain(m *testing.M) {
	if flag.Parse(); *scenarios == 0 {
		goleak.VerifyTestMain(m)
		return
	}
	if err := tabulate(os.Stdout, *scenarios); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
