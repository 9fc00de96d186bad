// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// Fingerprint stands for a session ID wherever people read: events, logs,
// errors, pages. It is the first 8 bytes of HMAC-SHA-256 (RFC 2104) of the ID
// under the store's fingerprint key, so that it identifies a session without
// giving away the ID or letting anybody test guesses of it.
type Fingerprint [8]byte

// String returns 16 hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText implements [encoding.TextMarshaler] with the form of String.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// ParseFingerprint reads the form that String writes, as found in a log line.
func ParseFingerprint(s string) (Fingerprint, error) {
	var f Fingerprint
	if len(s) != hex.EncodedLen(len(f)) {
		return f, fmt.Errorf("layover: a fingerprint has %d hexadecimal digits, not %d", hex.EncodedLen(len(f)), len(s))
	}
	if _, err := hex.Decode(f[:], []byte(s)); err != nil {
		return Fingerprint{}, fmt.Errorf("layover: not a fingerprint: %w", err)
	}
	return f, nil
}

// FingerprintOf returns the fingerprint of id under key, which should be 16
// random bytes or more. A store with this key gives the same, see
// [WithFingerprintKey].
func FingerprintOf(key []byte, id string) Fingerprint {
	return fingerprint(hmac.New(sha256.New, key), id)
}

// fingerprint uses a mac that has its key, and may have been used before.
func fingerprint(mac hash.Hash, id string) (f Fingerprint) {
	mac.Reset()
	_, _ = io.WriteString(mac, id)
	var sum [sha256.Size]byte
	copy(f[:], mac.Sum(sum[:0]))
	return f
}
