// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A mint knows its own tokens, those of another boot with its key, and no
// garbage.
func TestMintKnowsItsTokensFromGarbage(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	key := []byte("0123456789abcdef")
	before, m, other := newMint(key, now.Add(-time.Hour)), newMint(key, now), newMint([]byte("another key of 1"), now)
	random, later := newMint(nil, now), newMint(nil, now.Add(25*time.Hour))
	for name, c := range map[string]struct {
		mint  *mint
		token string
		want  origin
	}{
		"own":                               {m, m.new(""), ownBoot},
		"before":                            {m, before.new(""), otherBoot},
		"another key":                       {m, other.new(""), garbage},
		"random key, own":                   {random, random.new(""), ownBoot},
		"random key, earlier process":       {later, random.new(""), otherBoot},
		"random key, process of the future": {random, later.new(""), garbage},
		"random key, clock set back":        {random, newMint(nil, now.Add(time.Hour)).new(""), otherBoot},
		"empty":                             {m, "", garbage},
		"a principal's":                     {m, m.derive("principal", "a", "b"), garbage},
	} {
		if got := c.mint.recognise(c.token, ""); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		forged := []byte(m.new(""))
		i := rapid.IntRange(0, len(forged)-1).Draw(t, "at")
		forged[i] = rapid.SampledFrom([]byte("ABCxyz019-_=+ ;")).Filter(func(b byte) bool { return b != forged[i] }).Draw(t, "byte")
		if got := m.recognise(string(forged), ""); got != garbage {
			t.Fatalf("a token with byte %d changed is recognised as %d", i, got)
		}
	})
}

// Tokens never repeat, and a store keeps them and principals' IDs in place.
func TestTokensAreShortAndNeverRepeat(t *testing.T) {
	m, seen := newMint(nil, time.Now()), make(map[string]bool)
	for range 10_000 {
		token := m.new("")
		if len(token) != 39 || seen[token] {
			t.Fatalf("token %q", token)
		}
		seen[token] = true
	}
	if id := m.derive("header", "alice", "key"); len(id) > 39 || !isDerived(id) {
		t.Errorf("a principal's ID has %d bytes: %q", len(id), id)
	}
}

// Different principals, keys and carriers have different sessions, wherever one
// part ends and the next begins, and the ID depends on the key of the server.
func TestPrincipalsIDsAreAllDifferent(t *testing.T) {
	m, seen := newMint(nil, time.Now()), make(map[string]string)
	for _, c := range [][3]string{
		{"principal", "a", "bc"}, {"principal", "ab", "c"}, {"principal", "abc", ""}, {"principal", "", "abc"},
		{"header", "a", "bc"}, {"header", "ab", "c"}, {"principal", "a", "b\x00c"}, {"principal", "a\x00b", "c"},
		{"principal", "alice", "k"}, {"principal", "carol", "k"}, {"header", "alice", "k"}, {"header", "carol", "k"}, {"header", "carol", "l"},
	} {
		id := m.derive(c[0], c[1], c[2])
		if was, ok := seen[id]; ok {
			t.Errorf("%q has the session of %s", c, was)
		}
		seen[id] = c[0] + c[1] + c[2]
		if id != m.derive(c[0], c[1], c[2]) || id == newMint(nil, time.Now()).derive(c[0], c[1], c[2]) {
			t.Errorf("%q has another ID every time, or the same under every key", c)
		}
	}
}

// No token does harm, and none is recognised but those that were minted.
func FuzzRecognise(f *testing.F) {
	shared, random := newMint([]byte("0123456789abcdef"), time.Unix(1_700_000_000, 0)), newMint(nil, time.Unix(1_700_000_000, 0))
	for _, seed := range []string{"", "x", newMint(nil, time.Unix(1_900_000_000, 0)).new(""), "p:abc", "00000000-0000-4000-8000-000000000000"} {
		f.Add(seed)
	}
	genuine := shared.new("")
	f.Fuzz(func(t *testing.T, token string) {
		if got := shared.recognise(token, ""); got == otherBoot {
			t.Errorf("a token of no other boot is recognised: %q", token)
		}
		if got := random.recognise(token, ""); got == ownBoot {
			t.Errorf("a token that was not minted is recognised: %q", token)
		}
		if got := shared.recognise(genuine+token, ""); token != "" && got != garbage {
			t.Errorf("a token with %q behind it is recognised", token)
		}
	})
}
