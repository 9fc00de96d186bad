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
		got, _, err := s.Open(seal(s, &c))
		if err != nil {
			t.Fatal(err)
		}
		wantClaims(t, got, c)
	})
}

// Whatever a time is, it is sealed, as the nearest one that a token can say; and a
// proof that has ended never becomes one that does not.
func TestAbsurdTimesAreSealedAsTheNearest(t *testing.T) {
	s := newSealer(t, "a")
	first, last := time.UnixMilli(0).UTC(), time.UnixMilli(253402300799999).UTC()
	soon := time.Date(2030, 1, 2, 3, 4, 5, 678_900_000, time.FixedZone("", 3600))
	cut := time.Date(2030, 1, 2, 2, 4, 5, 678_000_000, time.UTC)
	for _, x := range []struct{ time, want time.Time }{
		{soon, cut},
		{time.Time{}, first},
		{first.Add(-1), first},
		{first, first},
		{last, last},
		{last.Add(time.Millisecond - 1), last},
		{last.Add(time.Millisecond), last},
		{time.Unix(1<<62, 0), last},
		{time.Unix(-1<<62, 999_999_999), first},
		{time.Unix(-1<<63, 0), first},
	} {
		for _, other := range []time.Time{{}, first, soon, last, time.Unix(1<<62, 0)} {
			c, _, err := s.Open(seal(s, &token.Claims{Issued: x.time, Used: other, Expires: x.time}))
			if err != nil {
				t.Fatalf("%v, %v: %v", x.time, other, err)
			}
			if !c.Issued.Equal(x.want) || c.Used.Before(c.Issued) || c.Used.After(last) {
				t.Errorf("%v, %v: issued %v, used %v", x.time, other, c.Issued, c.Used)
			}
			if expires := c.Expires; x.time.IsZero() != expires.IsZero() {
				t.Errorf("%v: expires %v", x.time, expires)
			} else if !expires.IsZero() && expires.Sub(x.want) > time.Millisecond {
				t.Errorf("%v: expires %v, want %v", x.time, expires, x.want)
			}
		}
	}
	c, _, err := s.Open(seal(s, &token.Claims{Issued: soon, Used: soon.Add(-time.Hour)}))
	if err != nil || !c.Used.Equal(cut) {
		t.Errorf("used before it was issued: %v, %v", c.Used, err)
	}
}

// No two tokens are the same, nor are any two salts or nonces.
func TestNoTwoTokensAreTheSame(t *testing.T) {
	s := newSealer(t, "a")
	seen := make(map[string]bool)
	for range 100 {
		b := decode(t, seal(s, &token.Claims{}))
		for _, part := range []string{string(b[5:21]), string(b[21:33])} {
			if seen[part] {
				t.Fatalf("%x is used again", part)
			}
			seen[part] = true
		}
	}
}

// Size is never below what a token has, and of tokens as they are in our days not far
// above: they differ by what their numbers could grow.
func TestSizeIsAnUpperBoundNearTheTruth(t *testing.T) {
	s := newSealer(t, "a")
	farthest := token.Claims{Issued: time.UnixMilli(1 << 43), Used: time.Unix(1<<50, 0), Expires: time.Unix(1<<50, 0), Change: 1<<64 - 1}
	rapid.Check(t, func(t *rapid.T) {
		c := someClaims.Draw(t, "claims")
		c.Principal = strings.Repeat("p", rapid.SampledFrom([]int{0, 1, 127, 128, 129, 16383, 16384}).Draw(t, "principal"))
		size := s.Size(c.Principal, len(c.Options))
		if n := len(seal(s, &c)); n > size {
			t.Fatalf("%d, but it is %d", size, n)
		}
		now := time.UnixMilli(rapid.Int64Range(1.7e12, 4e12).Draw(t, "now"))
		c.Issued, c.Used, c.Expires, c.Change = now, now.Add(time.Hour), now.Add(time.Hour), 1
		if n := len(seal(s, &c)); n > size || n < size-20 {
			t.Fatalf("%d, but it is %d in our days", size, n)
		}
		c.Used, c.Expires, c.Change = now, time.Time{}, 0
		if n := len(seal(s, &c)); n > size || n < size-30 {
			t.Fatalf("%d, but it is %d of a new session", size, n)
		}
		c.Issued, c.Used, c.Expires, c.Change = farthest.Issued, farthest.Used, farthest.Expires, farthest.Change
		if n := len(seal(s, &c)); n != size {
			t.Fatalf("%d, but it is %d at the most", size, n)
		}
	})
}

// The options of a token that was opened are the caller's: it may change and append to
// them.
func TestOptionsAreTheCallers(t *testing.T) {
	s := newSealer(t, "a")
	text := seal(s, &token.Claims{Options: []byte("options")})
	for range 3 {
		c, _, err := s.Open(text)
		if err != nil || string(c.Options) != "options" {
			t.Fatalf("%q, %v", c.Options, err)
		}
		clear(append(c.Options, "longer than what was there before, and than the tag"...))
		clear(c.Options)
		seal(s, &token.Claims{Options: []byte("other")})
	}
}

// An ID is written as base64url, and no two are the same.
func TestIDsDiffer(t *testing.T) {
	if got := (token.ID{0xfb, 0xff}).String(); got != "-_8AAAAAAAAAAAAAAAAAAA" {
		t.Error(got)
	}
	if a, b := token.NewID(), token.NewID(); a == b || a.String() == b.String() {
		t.Errorf("%v, %v", a, b)
	}
}

// A token opens for the cookie and the audience that it was sealed for, nowhere else.
func TestATokenIsBoundToItsCookieAndAudience(t *testing.T) {
	r := newRing(t, "a")
	s := token.NewSealer(r, "ab", "c")
	text := seal(s, &token.Claims{Principal: "p"})
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
	benchmark(b, func(s *token.Sealer, c *token.Claims, _ string) { seal(s, c) })
}

func benchmark(b *testing.B, do func(*token.Sealer, *token.Claims, string)) {
	s := newSealer(b, "a", "b", "c")
	for name, size := range map[string]int{"20": 20, "300": 300, "2500": 2500} {
		c := token.Claims{
			ID: token.NewID(), Issued: time.Now(), Used: time.Now().Add(time.Minute), Expires: time.Now().Add(time.Hour),
			Principal: "somebody@example.com", Held: true, Change: 3, Options: []byte(strings.Repeat("x", size)),
		}
		text := seal(s, &c)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				do(s, &c, text)
			}
		})
	}
}

// seal returns a token that says c.
func seal(s *token.Sealer, c *token.Claims) string {
	text, _ := s.Seal(c)
	return text
}

// Seal says under which key it did, and a token has the form of one also for those who
// have not the key.
func TestTheKeyOfATokenIsKnown(t *testing.T) {
	ring := new(token.Ring)
	if !ring.Empty() {
		t.Error("a ring without keys is not empty")
	}
	r := newRing(t, "a")
	text, id := token.NewSealer(r, cookie, audience).Seal(&token.Claims{})
	if r.Empty() || !r.IsCurrent(id) || !token.HasForm(text) {
		t.Errorf("sealed under %x, has the form: %v", id, token.HasForm(text))
	}
	for _, other := range []string{"", text[:20], "B" + text[1:], text + "=", "ChAKBWhlbGxvEgcKBXdvcmxk"} {
		if token.HasForm(other) {
			t.Errorf("%q has the form of a token", other)
		}
	}
}
