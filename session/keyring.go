// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"

	"github.com/c8e4ff29/layover/internal/token"
)

// Keyring is the keys under which stateless sessions are sealed, see [WithKeyring]: a
// current one, and former ones whose tokens are still good. All replicas have the same.
// It is safe for concurrent use. Make one with [NewKeyring].
//
// A key is rotated in two steps, lest one replica gets what another one has sealed under
// a key that it does not have yet: first the new key is made a former one everywhere,
// then the current one. From then on each session is sealed anew by the answer to its
// next call. The old key can be removed when what was sealed under it has ended by
// itself: after the idle timeout, or if there is none, after the lifetime. Removed
// before, as when it has leaked, it takes the sessions along.
type Keyring struct{ ring token.Ring }

// NewKeyring returns a ring with these keys, each of exactly 32 random bytes, such as
// from crypto/rand; never a password. The error says which key is refused: one of
// another length, of 32 times the same byte, or that is there already.
func NewKeyring(current []byte, former ...[]byte) (*Keyring, error) {
	k := new(Keyring)
	if err := k.ring.Set(current, former...); err != nil {
		return nil, fmt.Errorf("session: NewKeyring: %w", err)
	}
	return k, nil
}

// Set replaces all keys, at once, while the ring is in use. If there is an error, which
// is as for [NewKeyring], nothing changes.
func (k *Keyring) Set(current []byte, former ...[]byte) error {
	if err := k.ring.Set(current, former...); err != nil {
		return fmt.Errorf("session: Keyring.Set: %w", err)
	}
	return nil
}

// Format prints how many keys there are under every verb: they are secret.
func (k *Keyring) Format(f fmt.State, verb rune) { k.ring.Format(f, verb) }
