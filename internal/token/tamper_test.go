// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/internal/token"
)

// wantShut checks that a token is not opened, for whatever reason.
func wantShut(t rapid.TB, s *token.Sealer, text, how string) {
	t.Helper()
	_, _, err := s.Open(text)
	if !errors.Is(err, token.ErrForm) && !errors.Is(err, token.ErrKey) && !errors.Is(err, token.ErrForged) {
		t.Fatalf("%s: %q: %v", how, text, err)
	}
}

func decode(t rapid.TB, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fewClaims are such that all that can be done to their token can be tried.
var fewClaims = rapid.Custom(func(t *rapid.T) token.Claims {
	c := someClaims.Draw(t, "claims")
	c.Principal, c.Options = c.Principal[:min(len(c.Principal), 10)], c.Options[:min(len(c.Options), 30)]
	return c
})

// No bit of a token can be changed.
func TestNoBitOfATokenCanBeChanged(t *testing.T) {
	s := newSealer(t, "a", "b")
	rapid.Check(t, func(t *rapid.T) {
		c := fewClaims.Draw(t, "claims")
		b := decode(t, seal(s, &c))
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			wantShut(t, s, base64.RawURLEncoding.EncodeToString(b), "a bit is flipped")
			b[i/8] ^= 1 << (i % 8)
		}
	})
}

// alphabet has what a token is written in, and what decoders of base64 are lenient
// about.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=\r\n \x00\xff"

// No character of a token can be changed, added or left out: there are no two texts of
// one token.
func TestNoCharacterOfATokenCanBeChanged(t *testing.T) {
	s := newSealer(t, "a", "b")
	rapid.Check(t, func(t *rapid.T) {
		c := fewClaims.Draw(t, "claims")
		text := seal(s, &c)
		for i := range len(text) + 1 {
			x := string(alphabet[rapid.IntRange(0, len(alphabet)-1).Draw(t, "character")])
			wantShut(t, s, text[:i]+x+text[i:], "a character is inserted")
			if i == len(text) {
				break
			}
			wantShut(t, s, text[:i], "it is cut off")
			wantShut(t, s, text[i+1:], "its head is missing")
			wantShut(t, s, text[:i]+text[i+1:], "a character is missing")
			if x != text[i:i+1] {
				wantShut(t, s, text[:i]+x+text[i+1:], "a character is changed")
			}
		}
		// The last character has bits that mean nothing.
		for _, x := range alphabet {
			if last := len(text) - 1; string(x) != text[last:] {
				wantShut(t, s, text[:last]+string(x), "the last character is changed")
			}
		}
		for _, x := range []string{"=", "==", "\n", "\r\n", "A", "AA", "AAA", "AAAA", "\n\n\n\n", text} {
			wantShut(t, s, text+x, "it is longer")
			wantShut(t, s, x+text, "it begins earlier")
		}
	})
}

// Two tokens cannot be made into a third one.
func TestTokensCannotBeSpliced(t *testing.T) {
	s := newSealer(t, "a")
	rapid.Check(t, func(t *rapid.T) {
		c := fewClaims.Draw(t, "claims")
		other := c
		if rapid.Bool().Draw(t, "others") {
			other = fewClaims.Draw(t, "other claims")
		}
		texts := []string{seal(s, &c), seal(s, &other)}
		a, b := decode(t, texts[0]), decode(t, texts[1])
		for i := range min(len(a), len(b)) + 1 {
			// From the front and, since they may differ in length, from the end.
			for _, tail := range [][]byte{b[i:], b[max(0, len(b)-(len(a)-i)):]} {
				text := base64.RawURLEncoding.EncodeToString(slices.Concat(a[:i], tail))
				if !slices.Contains(texts, text) {
					wantShut(t, s, text, "two are spliced")
				}
			}
		}
		for i := range min(len(texts[0]), len(texts[1])) + 1 {
			if text := texts[0][:i] + texts[1][i:]; !slices.Contains(texts, text) {
				wantShut(t, s, text, "two texts are spliced")
			}
		}
	})
}

// What has not the form of a token is told from one that is forged, and one of a later
// version has another form.
func TestWhatIsNoTokenHasNotItsForm(t *testing.T) {
	s := newSealer(t, "a")
	text := seal(s, &token.Claims{})
	later := decode(t, text)
	later[0] = token.Version + 1
	for _, text := range []string{
		"", "A", "AQ", "\n", "=", "9b2d2a5e-2c1c-4ad2-9c50-0f4f4d0e6a4d", strings.Repeat("\n", 100),
		strings.Repeat("A", 1000), strings.Repeat("\x00", 1000), text + "=", text[:40] + "\r" + text[40:], "\n" + text,
		text + "\n", text[:64], base64.RawURLEncoding.EncodeToString(later), base64.URLEncoding.EncodeToString(later),
	} {
		wantErr(t, s, text, token.ErrForm)
	}
	b := decode(t, text)
	wantErr(t, s, base64.RawURLEncoding.EncodeToString(b[:len(b)-1]), token.ErrForged)
	wantErr(t, s, base64.RawURLEncoding.EncodeToString(append(b, 0)), token.ErrForged)
}
