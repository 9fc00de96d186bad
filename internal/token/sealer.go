// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
)

// Version is that of the format, and the first byte of a token.
const Version = 1

// Sizes of the parts of a token, and where they begin, in bytes.
const (
	saltSize  = 16
	nonceSize = 12
	tagSize   = 16

	saltAt   = 1 + len(KeyID{})
	sealedAt = saltAt + saltSize
	minToken = sealedAt + nonceSize + tagSize
)

// encoding accepts one text for each token, but for line breaks, which it skips.
var encoding = base64.RawURLEncoding.Strict()

// Errors of [Sealer.Open].
var (
	// ErrForm says that it is no token of this version's form.
	ErrForm = errors.New("token: it has not the form of a token of this version")
	// ErrKey says that it was sealed under a key that is not in the ring.
	ErrKey = errors.New("token: it was sealed under a key that is not in use")
	// ErrForged says that it was not sealed by this ring for this cookie and audience.
	ErrForged = errors.New("token: it was not sealed by these keys for this cookie and audience")
)

// Sealer seals and opens the tokens of one cookie and audience. It is safe for
// concurrent use. [NewSealer] makes one.
type Sealer struct {
	ring   *Ring
	bounds []byte // what tokens are bound to: the cookie and the audience
}

// NewSealer returns one with the keys of r, as they are at each call. A token is bound
// to the names of its cookie and of its audience: no other sealer opens it.
func NewSealer(r *Ring, cookie, audience string) *Sealer {
	var bounds []byte
	for _, name := range []string{cookie, audience} {
		bounds = append(binary.AppendUvarint(bounds, uint64(len(name))), name...)
	}
	return &Sealer{ring: r, bounds: bounds}
}

// Seal returns a token that says c, and the id of the current key, under which it is
// sealed. No two are the same.
func (s *Sealer) Seal(c *Claims) (string, KeyID) {
	k := s.ring.current()
	w := k.worker()
	defer k.release(w)
	return s.seal(k, w, func(b []byte) []byte { return appendPayload(b, c) }), k.id
}

// seal returns a token with the payload that is appended.
func (s *Sealer) seal(k *key, w *worker, appendPayload func([]byte) []byte) string {
	b := append(append(w.sealed[:0], Version), k.id[:]...)
	b = append(b, make([]byte, saltSize)...)
	_, _ = rand.Read(b[saltAt:sealedAt]) // never fails, see crypto/rand
	b = appendPayload(b)
	// It is sealed where it is, but for the nonce, which pushes it forward.
	w.sealed = k.aead(w, b[saltAt:sealedAt]).Seal(b[:sealedAt], nil, b[sealedAt:], s.associated(w, b))
	w.text = encoding.AppendEncode(w.text[:0], w.sealed)
	return string(w.text)
}

// Open returns what a token says, and the id of the key that it was sealed under, if
// it has the form of a token. The options are of a buffer of their own, which nobody
// else has.
//
// Errors: ErrForm, ErrKey, ErrForged.
func (s *Sealer) Open(token string) (Claims, KeyID, error) {
	b, ok := decode(token)
	if !ok {
		return Claims{}, KeyID{}, ErrForm
	}
	id := KeyID(b[1:saltAt])
	k := s.ring.find(id)
	if k == nil {
		return Claims{}, id, ErrKey
	}
	w := k.worker()
	defer k.release(w)
	sealed := b[sealedAt:]
	payload, err := k.aead(w, b[saltAt:sealedAt]).Open(sealed[:0], nil, sealed, s.associated(w, b))
	if err != nil {
		return Claims{}, id, ErrForged
	}
	c, ok := parsePayload(payload)
	if !ok {
		return Claims{}, id, ErrForged
	}
	return c, id, nil
}

// Size returns how long the token of a session may become that has this principal and
// so many bytes of options. Only the times and Change can make it shorter.
func (s *Sealer) Size(principal string, options int) int {
	return encoding.EncodedLen(minToken + maxPayload(principal, options))
}

// associated returns the associated data of a token.
func (s *Sealer) associated(w *worker, token []byte) []byte {
	w.associated = append(append(w.associated[:0], token[:saltAt]...), s.bounds...)
	return w.associated
}

// decode returns the bytes of a token.
func decode(token string) ([]byte, bool) {
	b, err := encoding.DecodeString(token)
	return b, err == nil && encoding.EncodedLen(len(b)) == len(token) && len(b) >= minToken && b[0] == Version
}

// HasForm reports whether a text has the form of a token of this version.
func HasForm(token string) bool {
	_, ok := decode(token)
	return ok
}
