// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"testing"

	"github.com/c8e4ff29/layover/internal/token"
)

// newCache returns a cache that is closed when the test ends.
func newCache(t testing.TB, maxBytes int64) *token.Cache[string] {
	c := token.NewCache[string](maxBytes)
	t.Cleanup(c.Close)
	return c
}

func wantFound(t testing.TB, c *token.Cache[string], text, want string) {
	t.Helper()
	if got, ok := c.Get(text); !ok || got != want {
		t.Errorf("%q: %q, %t, want %q", text, got, ok, want)
	}
}

func wantMiss(t testing.TB, c *token.Cache[string], text string) {
	t.Helper()
	if got, ok := c.Get(text); ok || got != "" {
		t.Errorf("%q: %q, %t, want none", text, got, ok)
	}
}

// What was put is found until it is removed, or all is cleared.
func TestWhatWasPutIsFoundUntilItIsRemoved(t *testing.T) {
	c := newCache(t, 1<<20)
	wantMiss(t, c, "a")
	c.Put("a", "1", 1)
	c.Put("b", "2", 1)
	c.Wait()
	wantFound(t, c, "a", "1")
	wantFound(t, c, "b", "2")
	c.Put("a", "3", 1)
	wantFound(t, c, "a", "3")
	c.Remove("a")
	wantMiss(t, c, "a")
	wantFound(t, c, "b", "2")
	c.Clear()
	wantMiss(t, c, "b")
	c.Put("b", "4", 1)
	c.Wait()
	wantFound(t, c, "b", "4")
}
