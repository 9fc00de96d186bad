// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/internal/token"
)

const (
	cookie   = "session"
	audience = "reports"
)

// keyOf returns a key that looks random, another one for each name.
func keyOf(name string) []byte {
	sum := sha256.Sum256([]byte(name))
	return sum[:]
}

func newRing(t testing.TB, current string, former ...string) *token.Ring {
	t.Helper()
	keys := make([][]byte, len(former))
	for i, name := range former {
		keys[i] = keyOf(name)
	}
	r, err := token.NewRing(keyOf(current), keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newSealer(t testing.TB, current string, former ...string) *token.Sealer {
	t.Helper()
	return token.NewSealer(newRing(t, current, former...), cookie, audience)
}

// someTime is one that a token can say exactly.
var someTime = rapid.Custom(func(t *rapid.T) time.Time {
	return time.UnixMilli(rapid.OneOf(
		rapid.Int64Range(1, 10), rapid.Int64Range(1.7e12, 1.9e12), rapid.Int64Range(1, 253402300799999),
	).Draw(t, "ms")).UTC()
})

// someClaims are such that a token can say exactly.
var someClaims = rapid.Custom(func(t *rapid.T) token.Claims {
	c := token.Claims{
		Issued:    someTime.Draw(t, "issued"),
		Used:      someTime.Draw(t, "used"),
		Principal: rapid.String().Draw(t, "principal"),
		Held:      rapid.Bool().Draw(t, "held"),
		Change:    rapid.Uint64().Draw(t, "change"),
		Options:   rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "options"),
	}
	copy(c.ID[:], rapid.SliceOfN(rapid.Byte(), len(c.ID), len(c.ID)).Draw(t, "id"))
	if rapid.Bool().Draw(t, "expires") {
		c.Expires = someTime.Draw(t, "when")
	}
	if c.Used.Before(c.Issued) {
		c.Issued, c.Used = c.Used, c.Issued
	}
	return c
})

// wantClaims checks that two claims say the same.
func wantClaims(t rapid.TB, got, want token.Claims) {
	t.Helper()
	if !bytes.Equal(got.Options, want.Options) {
		t.Fatalf("options: %x, want %x", got.Options, want.Options)
	}
	got.Options, want.Options = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, want %+v", got, want)
	}
}

// wantErr checks that a token is not opened, and why.
func wantErr(t rapid.TB, s *token.Sealer, text string, want error) {
	t.Helper()
	c, _, err := s.Open(text)
	if !errors.Is(err, want) {
		t.Fatalf("%q: %v, want %v", text, err, want)
	}
	if !reflect.DeepEqual(c, token.Claims{}) {
		t.Fatalf("%q: there are claims beside an error: %+v", text, c)
	}
}

// What was sealed is what is opened.
func TestATokenSaysWhatWasSealed(t *testing.T) {
	s := newSealer(t, "a")
	rapid.Check(t, func(t *rapid.T) {
		c := someClaims.Draw(t, "claims")
		got, _, err := s.Open(s.Seal(&c))
		if err != nil {
			t.Fatal(err)
		}
		wantClaims(t, got, c)
	})
}

// A token opens for the cookie and the audience that it was sealed for, nowhere else.
func TestATokenIsBoundToItsCookieAndAudience(t *testing.T) {
	r := newRing(t, "a")
	s := token.NewSealer(r, "ab", "c")
	text := s.Seal(&token.Claims{Principal: "p"})
	for _, other := range [][2]string{{"a", "bc"}, {"abc", ""}, {"", "abc"}, {"ab", "d"}, {"ab", ""}, {"b", "c"}, {"AB", "c"}, {"c", "ab"}, {"ab\x01c", ""}} {
		wantErr(t, token.NewSealer(r, other[0], other[1]), text, token.ErrForged)
	}
	if _, _, err := token.NewSealer(newRing(t, "a"), "ab", "c").Open(text); err != nil {
		t.Errorf("the same key in another ring: %v", err)
	}
}

// The keys are those of HKDF-Expand.
func TestDerivationIsThatOfHKDF(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), token.KeySize, token.KeySize).Draw(t, "key")
		label := rapid.String().Draw(t, "label")
		salt := rapid.SliceOfN(rapid.Byte(), 0, 100).Draw(t, "salt")
		if bytes.Count(secret, secret[:1]) == len(secret) {
			secret[0]++ // would be refused
		}
		want, err := hkdf.Expand(sha256.New, secret, label+string(salt), sha256.Size)
		if err != nil {
			t.Fatal(err)
		}
		got, err := token.Expand(secret, label, salt)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%x, want %x", got, want)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	benchmark(b, func(s *token.Sealer, _ *token.Claims, text string) { _, _, _ = s.Open(text) })
}

func BenchmarkSeal(b *testing.B) {
	benchmark(b, func(s *token.Sealer, c *token.Claims, _ string) { s.Seal(c) })
}

func benchmark(b *testing.B, do func(*token.Sealer, *token.Claims, string)) {
	s := newSealer(b, "a", "b", "c")
	for name, size := range map[string]int{"20": 20, "300": 300, "2500": 2500} {
		c := token.Claims{
			ID: token.NewID(), Issued: time.Now(), Used: time.Now().Add(time.Minute), Expires: time.Now().Add(time.Hour),
			Principal: "somebody@example.com", Held: true, Change: 3, Options: []byte(strings.Repeat("x", size)),
		}
		text := s.Seal(&c)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do(s, &c, text)
			}
		})
	}
}
