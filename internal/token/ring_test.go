// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/c8e4ff29/layover/internal/token"
)

// A token is opened as long as its key is in the ring, and new ones are sealed under
// the current key.
func TestAnOldTokenIsOpenedUntilItsKeyIsRemoved(t *testing.T) {
	r := newRing(t, "a")
	s := token.NewSealer(r, cookie, audience)
	old := seal(s, &token.Claims{Change: 1})
	_, a, err := s.Open(old)
	if err != nil || !r.Has(a) || !r.IsCurrent(a) {
		t.Fatalf("before: %v, has %t, current %t", err, r.Has(a), r.IsCurrent(a))
	}

	if err := r.Set(keyOf("b"), keyOf("a")); err != nil {
		t.Fatal(err)
	}
	c, id, err := s.Open(old)
	if err != nil || id != a || c.Change != 1 || !r.Has(a) || r.IsCurrent(a) {
		t.Errorf("under the former key: %v, has %t, current %t", err, r.Has(a), r.IsCurrent(a))
	}
	young := seal(s, &token.Claims{Change: 2})
	_, b, err := s.Open(young)
	if err != nil || b == a || !r.Has(b) || !r.IsCurrent(b) {
		t.Errorf("under the current key: %v, has %t, current %t", err, r.Has(b), r.IsCurrent(b))
	}

	if err := r.Set(keyOf("b")); err != nil {
		t.Fatal(err)
	}
	wantErr(t, s, old, token.ErrKey)
	if r.Has(a) || r.IsCurrent(a) {
		t.Error("a removed key is in the ring")
	}
	if _, _, err := s.Open(young); err != nil {
		t.Errorf("after the other key was removed: %v", err)
	}
}

// A former key opens, wherever in the ring it is; another ring opens nothing.
func TestATokenIsOpenedByItsKeyOnly(t *testing.T) {
	text := seal(newSealer(t, "a"), &token.Claims{})
	for _, names := range [][]string{{"a"}, {"b", "a"}, {"b", "c", "a"}, {"b", "a", "c"}} {
		if _, _, err := newSealer(t, names[0], names[1:]...).Open(text); err != nil {
			t.Errorf("%v: %v", names, err)
		}
	}
	wantErr(t, newSealer(t, "b"), text, token.ErrKey)
	wantErr(t, newSealer(t, "b", "c"), text, token.ErrKey)
}

// Two keys that have the same id, as about one pair in four thousand million does.
const twin, otherTwin = "61192", "146500"

// An id is a hint, not a proof: a key that happens to have the same one opens nothing.
func TestAKeyWithTheSameIDOpensNothing(t *testing.T) {
	text := seal(newSealer(t, twin), &token.Claims{})
	wantErr(t, newSealer(t, otherTwin), text, token.ErrForged)
}

// Keys that cannot be ones are refused, nothing changes then, and the error does not
// tell them.
func TestBadKeysAreRefused(t *testing.T) {
	good := keyOf("good")
	for name, keys := range map[string][][]byte{
		"nil":            {nil},
		"short":          {good[:31]},
		"long":           {append(good[:32:32], 0)},
		"unset":          {make([]byte, token.KeySize)},
		"all one byte":   {[]byte(strings.Repeat("x", token.KeySize))},
		"former short":   {good, keyOf("b")[:16]},
		"former unset":   {good, keyOf("b"), make([]byte, token.KeySize)},
		"given twice":    {good, good},
		"former twice":   {good, keyOf("b"), keyOf("c"), keyOf("b")},
		"the same id":    {keyOf(twin), keyOf(otherTwin)},
		"former same id": {good, keyOf(otherTwin), keyOf("b"), keyOf(twin)},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := token.NewRing(keys[0], keys[1:]...)
			if err == nil || r != nil {
				t.Fatalf("accepted: %v, %v", r, err)
			}
			wantNoKey(t, err.Error(), keys...)
			r = newRing(t, "a", "b")
			s := token.NewSealer(r, cookie, audience)
			text := seal(s, &token.Claims{})
			if r.Set(keys[0], keys[1:]...) == nil {
				t.Error("Set accepts them")
			}
			if _, id, err := s.Open(text); err != nil || !r.IsCurrent(id) || fmt.Sprint(r) != "ring of 2 keys" {
				t.Errorf("the ring has changed: %v, %v", r, err)
			}
		})
	}
}

// A ring has copies of its keys: who gave them may wipe them.
func TestKeysMayBeWiped(t *testing.T) {
	key := keyOf("a")
	r, err := token.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	clear(key)
	text := seal(token.NewSealer(r, cookie, audience), &token.Claims{})
	if _, _, err := newSealer(t, "a").Open(text); err != nil {
		t.Error(err)
	}
}

// Keys may change at any time: what is sealed is opened as long as its key is there,
// and each call uses the keys from before or from after.
func TestKeysMayChangeWhileTokensAreSealed(t *testing.T) {
	r := newRing(t, "a", "b")
	s := token.NewSealer(r, cookie, audience)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		wg.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				c, id, err := s.Open(seal(s, &token.Claims{Change: i}))
				if err != nil || c.Change != i || !r.Has(id) {
					t.Errorf("%d: %d, %v, has %t", i, c.Change, err, r.Has(id))
					return
				}
				r.IsCurrent(id)
			}
		})
	}
	for i := range 500 {
		keys := [][]byte{keyOf("a"), keyOf("b"), keyOf(fmt.Sprint(i))}
		if i%2 == 0 {
			keys[0], keys[1] = keys[1], keys[0]
		}
		if err := r.Set(keys[0], keys[1:]...); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// A ring that was never given keys has none, and says so.
func TestARingWithoutKeysHasNone(t *testing.T) {
	var r token.Ring
	if r.Has(token.KeyID{}) || r.IsCurrent(token.KeyID{}) {
		t.Error("it has a key")
	}
	for _, text := range []string{fmt.Sprint(&r), fmt.Sprint((*token.Ring)(nil))} {
		if text != "ring of 0 keys" {
			t.Error(text)
		}
	}
}

// However a ring or a sealer is printed, no key is.
func TestNoKeyIsPrinted(t *testing.T) {
	r := newRing(t, "a", "b")
	s := token.NewSealer(r, cookie, audience)
	seal(s, &token.Claims{})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%c", "%U", "%p", "%T", "%08b", "%!"} {
		if text := fmt.Sprintf(verb, r); text != "ring of 2 keys" && verb != "%p" && verb != "%T" && verb != "%!" {
			t.Errorf("%s: %s", verb, text)
		}
		for _, v := range []any{
			r, s, *s, &r, []any{r, s}, map[string]any{"r": r}, struct{ R *token.Ring }{r}, struct{ r *token.Ring }{r},
			struct{ *token.Sealer }{s}, fmt.Errorf("%w: "+verb, errors.ErrUnsupported, r),
		} {
			wantNoKey(t, fmt.Sprintf(verb, v), keyOf("a"), keyOf("b"))
		}
	}
	for _, v := range []any{r, s} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		wantNoKey(t, string(text), keyOf("a"), keyOf("b"))
	}
}

// wantNoKey checks that not even four bytes of any of the keys are in a text.
func wantNoKey(t *testing.T, text string, keys ...[]byte) {
	t.Helper()
	lower := strings.ToLower(text)
	for _, key := range keys {
		for i := 0; i+4 <= len(key); i++ {
			part := key[i : i+4]
			numbers := strings.Trim(fmt.Sprintf("%d", part), "[]")
			for _, form := range []string{
				string(part), numbers, strings.ReplaceAll(numbers, " ", ", "), hex.EncodeToString(part),
				fmt.Sprintf("% x", part), strings.TrimPrefix(strings.TrimSuffix(fmt.Sprintf("%#v", part), "}"), "[]byte{"),
				base64.StdEncoding.EncodeToString(key[i:min(i+6, len(key))])[:5],
			} {
				if strings.Contains(text, form) || strings.Contains(lower, form) {
					t.Fatalf("%q has a part of a key: %q", text, form)
				}
			}
		}
	}
}
