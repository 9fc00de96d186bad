// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"sync"
)

// What keys are derived for, see RFC 5869, section 3.2.
const (
	keyIDLabel = "layover token key id"
	tokenLabel = "layover token 1\x00"
)

// key is one of a ring.
type key struct {
	secret  [KeySize]byte
	id      KeyID
	label   string    // of the keys that are derived from it
	workers sync.Pool // of *worker
}

func newKey(secret []byte) (*key, error) {
	if len(secret) != KeySize {
		return nil, fmt.Errorf("token: a key has %d bytes, not %d", len(secret), KeySize)
	}
	k := &key{secret: [KeySize]byte(secret)}
	if k.secret == allOf(secret[0]) {
		return nil, errors.New("token: a key is the same byte over and over")
	}
	w := k.worker()
	defer k.release(w)
	k.id = KeyID(w.expand(keyIDLabel, nil)[:len(k.id)])
	k.label = tokenLabel + string(k.id[:])
	return k, nil
}

func allOf(b byte) (secret [KeySize]byte) {
	for i := range secret {
		secret[i] = b
	}
	return secret
}

// worker is what takes longer to make than to use.
type worker struct {
	mac        hash.Hash // HMAC-SHA256 under the key, which remembers its pads
	info       []byte
	derived    [sha256.Size]byte
	associated []byte
	sealed     []byte
	text       []byte
}

// maxKept is how long a buffer of an idle worker may be.
const maxKept = 16 << 10

// worker returns one, to be released.
func (k *key) worker() *worker {
	if w, ok := k.workers.Get().(*worker); ok {
		return w
	}
	return &worker{mac: hmac.New(sha256.New, k.secret[:])}
}

func (k *key) release(w *worker) {
	if cap(w.text) <= maxKept { // no other buffer is longer
		k.workers.Put(w)
	}
}

// expand returns HKDF-Expand(key, label | salt, 32), until it is called again: the
// first block of RFC 5869, section 2.3. That of crypto/hkdf computes the pads of the
// key each time.
func (w *worker) expand(label string, salt []byte) []byte {
	w.info = append(append(append(w.info[:0], label...), salt...), 1)
	w.mac.Reset()
	w.mac.Write(w.info)
	return w.mac.Sum(w.derived[:0])
}

// aead returns what seals and opens the token of that salt.
func (k *key) aead(w *worker, salt []byte) cipher.AEAD {
	block, err := aes.NewCipher(w.expand(k.label, salt))
	if err != nil {
		panic(err) // only of keys that have another size
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // only of other ciphers
	}
	return aead
}
