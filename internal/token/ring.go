// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
)

// KeySize is the length of a key in bytes.
const KeySize = 32

// KeyID says which key a token was sealed under. It tells nothing of the key.
type KeyID [4]byte

// Ring has the keys of tokens: the current one, which seals, and former ones, which
// still open. It is safe for concurrent use, and takes no lock. [NewRing] makes one.
type Ring struct {
	keys atomic.Pointer[[]*key] // the current one is the first; never changed, but replaced
}

// NewRing returns a ring of these keys, of which it keeps copies. Each must have
// [KeySize] bytes that are uniformly random: it does not stretch passwords.
//
// Errors: a key has another size, or is the same byte over and over, as a buffer is
// that nobody has filled; two keys are the same, or happen to have the same [KeyID].
func NewRing(current []byte, former ...[]byte) (*Ring, error) {
	r := new(Ring)
	if err := r.Set(current, former...); err != nil {
		return nil, err
	}
	return r, nil
}

// Set replaces all keys at once. The errors are those of [NewRing]; nothing changes
// then.
func (r *Ring) Set(current []byte, former ...[]byte) error {
	keys := make([]*key, 0, 1+len(former))
	for _, secret := range append([][]byte{current}, former...) {
		k, err := newKey(secret)
		if err != nil {
			return err
		}
		for _, other := range keys {
			if bytes.Equal(k.secret[:], other.secret[:]) {
				return errors.New("token: a key is given twice")
			}
			if k.id == other.id {
				return errors.New("token: two keys have the same id, one of them cannot be used")
			}
		}
		keys = append(keys, k)
	}
	r.keys.Store(&keys)
	return nil
}

// Has reports whether tokens under that key are opened.
func (r *Ring) Has(id KeyID) bool { return r.find(id) != nil }

// IsCurrent reports whether tokens are sealed under that key.
func (r *Ring) IsCurrent(id KeyID) bool {
	keys := r.all()
	return len(keys) > 0 && keys[0].id == id
}

// Format prints how many keys there are, whatever the verb is, and nothing of them.
func (r *Ring) Format(f fmt.State, _ rune) {
	n := 0
	if r != nil {
		n = len(r.all())
	}
	if n == 1 {
		fmt.Fprint(f, "ring of 1 key")
		return
	}
	fmt.Fprintf(f, "ring of %d keys", n)
}

func (r *Ring) all() []*key {
	if keys := r.keys.Load(); keys != nil {
		return *keys
	}
	return nil
}

func (r *Ring) current() *key { return r.all()[0] }

// find returns the key of that id, nil: there is none.
func (r *Ring) find(id KeyID) *key {
	for _, k := range r.all() {
		if k.id == id {
			return k
		}
	}
	return nil
}

// Empty reports whether there are no keys yet, as in a zero ring.
func (r *Ring) Empty() bool { return len(r.all()) == 0 }
