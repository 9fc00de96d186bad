// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"strings"
	"testing"
)

// What is not one of the cookies stays in the header as it was sent.
func TestWithoutCookiesKeepsAllOthers(t *testing.T) {
	for line, want := range map[string]string{
		"":                        "",
		"id=x":                    "",
		" id = x ; id":            "",
		"a=b; id=x; c=d":          "a=b; c=d",
		"id=x; a=b":               "a=b",
		"a=b;;id=x;":              "a=b;;",
		";;":                      ";;",
		"idx=x; ID=y; a=id; b=\"": "idx=x; ID=y; a=id; b=\"",
	} {
		if got := withoutCookies(line, []string{"id", "other"}); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// Taking cookies out of a header allocates once, and no more than the header,
// whatever that is made of.
func TestStrippingAllocatesNoMoreThanTheHeader(t *testing.T) {
	const size = 1 << 20
	for _, part := range []string{";", "a=b;", "id=x;", "=", " "} {
		line := strings.Repeat(part, size/len(part))
		n := testing.AllocsPerRun(1, func() { withoutCookies(line, []string{"id"}) })
		if kept := withoutCookies(line, []string{"id"}); n > 1 || len(kept) > size {
			t.Errorf("%q: %v allocations, %d bytes kept", part, n, len(kept))
		}
	}
}
