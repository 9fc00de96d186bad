// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token

// Expand is what derives from a key of a ring.
func Expand(secret []byte, label string, salt []byte) ([]byte, error) {
	k, err := newKey(secret)
	if err != nil {
		return nil, err
	}
	w := k.worker()
	defer k.release(w)
	return append([]byte(nil), w.expand(label, salt)...), nil
}

// SealPayload returns a token with any payload.
func (s *Sealer) SealPayload(payload []byte) string {
	k := s.ring.current()
	w := k.worker()
	defer k.release(w)
	return s.seal(k, w, func(b []byte) []byte { return append(b, payload...) })
}

// Payload returns the one that says c.
func Payload(c *Claims) []byte { return appendPayload(nil, c) }
