// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/c8e4ff29/layover/internal/token"
)

// No text does harm, and none is opened that the ring has not made.
func FuzzOpen(f *testing.F) {
	vectors := readVectors(f)
	s := vectors[0].sealer(f)
	made := make(map[string]bool)
	for _, v := range vectors {
		if _, _, err := s.Open(v.Token); err != nil {
			continue // perhaps one step away from a token that it was, and that would be opened
		}
		made[v.Token] = true
		other := "A"
		if strings.HasPrefix(v.Token[40:], other) {
			other = "B"
		}
		for _, text := range []string{
			v.Token, v.Token + "\n", v.Token + "=", v.Token + "AB", v.Token[:64], v.Token[:len(v.Token)-2], "B" + v.Token[1:],
			v.Token[:40] + other + v.Token[41:], v.Token[:60] + "\r\n" + v.Token[60:],
		} {
			f.Add(text)
		}
	}
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c, id, err := s.Open(text)
		switch {
		case err == nil && !made[text]:
			t.Errorf("opened: %+v", c)
		case errors.Is(err, token.ErrForm) && id != token.KeyID{}:
			t.Errorf("it has no form, but a key: %v", id)
		}
	})
}

// No payload does harm, even if somebody has the key, and each that is accepted is the
// only one of its claims.
func FuzzPayload(f *testing.F) {
	s := newSealer(f, "a")
	for _, c := range []token.Claims{
		{},
		{ID: token.ID{1}, Issued: time.Unix(1e9, 0), Used: time.Unix(2e9, 0), Expires: time.Unix(3e9, 0), Held: true},
		{Principal: strings.Repeat("p", 200), Change: 1<<64 - 1, Options: []byte("options")},
		{Issued: time.UnixMilli(1 << 60), Expires: time.UnixMilli(1 << 60)},
	} {
		payload := token.Payload(&c)
		f.Add(payload)
		f.Add(payload[:len(payload)-1])
		f.Add(append([]byte{0xff}, payload[1:]...))
	}
	// It was used after the last time that there is.
	f.Add(slices.Concat([]byte{0}, binary.AppendUvarint(nil, 253402300799999), []byte{1}, make([]byte, 19)))
	for _, number := range []string{"\x80\x00", "\x80", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		f.Add([]byte("\x01" + number + strings.Repeat("\x00", 30)))                // issued
		f.Add([]byte("\x01\x00" + number + strings.Repeat("\x00", 30)))            // used
		f.Add([]byte("\x01\x00\x00" + number + strings.Repeat("\x00", 30)))        // expires
		f.Add([]byte("\x01\x00\x00\x00" + number + strings.Repeat("\x00", 30)))    // change
		f.Add([]byte("\x01\x00\x00\x00\x00" + strings.Repeat("i", 16) + number))   // the principal's length
		f.Add([]byte("\x01\x00\x00\x00\x00" + strings.Repeat("i", 16) + "\x02pp")) // no options
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, _, err := s.Open(s.SealPayload(payload))
		if err != nil {
			if !errors.Is(err, token.ErrForged) {
				t.Error(err)
			}
			return
		}
		if got := token.Payload(&c); !bytes.Equal(got, payload) {
			t.Errorf("%+v: %x, but it was %x", c, got, payload)
		}
	})
}
