// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// A handle is
//
//	version  1 byte
//	ref     16 bytes: names the session, whatever its token is
//	nonce   12 bytes
//	sealed: length of the token, token, object; and a tag of 16 bytes
//
// under AES-256-GCM with a key per session, so that random nonces do not run out, and
// with version, ref and kind as associated data. The token is the one that the session
// had, to tell why it has ended.
const (
	handleVersion  = 1
	handleRefSize  = 16
	handleHeadSize = 1 + handleRefSize
)

// handleRef names a session in its handles.
type handleRef [handleRefSize]byte

func newHandleRef() (r handleRef) {
	_, _ = rand.Read(r[:]) // never fails, see crypto/rand
	return r
}

// sealer seals the handles of one session.
type sealer struct {
	aead cipher.AEAD
	head [handleHeadSize]byte
}

// seal returns the handle of an object.
func (s *sealer) seal(kind, token string, object []byte) []byte {
	plain := binary.AppendUvarint(make([]byte, 0, binary.MaxVarintLen64+len(token)+len(object)), uint64(len(token)))
	plain = append(append(plain, token...), object...)
	return s.aead.Seal(s.head[:], nil, plain, s.associated(kind))
}

// open returns what is in a handle of this session.
func (s *sealer) open(kind string, handle []byte) (token string, object []byte, ok bool) {
	plain, err := s.aead.Open(nil, nil, handle[handleHeadSize:], s.associated(kind))
	if err != nil {
		return "", nil, false
	}
	length, n := binary.Uvarint(plain)
	if n <= 0 || length > uint64(len(plain)-n) {
		return "", nil, false
	}
	rest := plain[n:]
	return string(rest[:length]), rest[length:], true
}

func (s *sealer) associated(kind string) []byte {
	return append(s.head[:handleHeadSize:handleHeadSize], kind...)
}

// handles opens the handles of all sessions of a store, and finds these.
type handles struct {
	key [sha256.Size]byte // from which those of the sessions are derived; it dies with the store

	mu  sync.Mutex
	all map[handleRef]*statefulServerSession
}

func newHandles() *handles {
	h := &handles{all: make(map[handleRef]*statefulServerSession)}
	_, _ = rand.Read(h.key[:])
	return h
}

// sealer returns that of a session.
func (h *handles) sealer(ref handleRef) *sealer {
	key, err := hkdf.Key(sha256.New, h.key[:], ref[:], "layover handle", sha256.Size)
	if err != nil {
		panic(err) // only if too much is asked for
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // only of keys that have another size
	}
	s := new(sealer)
	if s.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		panic(err) // only of other ciphers
	}
	s.head[0] = handleVersion
	copy(s.head[1:], ref[:])
	return s
}

// open returns what is in a handle, if it was made by this store and is of this kind.
func (h *handles) open(kind string, handle []byte) (ref handleRef, token string, object []byte, ok bool) {
	if len(handle) < handleHeadSize || handle[0] != handleVersion {
		return ref, "", nil, false
	}
	copy(ref[:], handle[1:])
	var s *sealer
	if own := h.find(ref); own != nil {
		s = own.belongings.Load().seals
	} else {
		s = h.sealer(ref)
	}
	token, object, ok = s.open(kind, handle)
	return ref, token, object, ok
}

// find returns the session that a ref names, nil: it has ended, or never was.
func (h *handles) find(ref handleRef) *statefulServerSession {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[ref]
}

func (h *handles) add(ref handleRef, own *statefulServerSession) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all[ref] = own
}

func (h *handles) remove(ref handleRef) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if delete(h.all, ref); len(h.all) == 0 {
		h.all = make(map[handleRef]*statefulServerSession) // maps do not shrink
	}
}
