// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"strings"
	"time"
)

// A minted token is the base64 of
//
//	boot    5 bytes: when the process that minted it began, in seconds, and a random byte
//	random 16 bytes: 128 bits that nobody can guess
//	mac     8 bytes: of the others and the principal, under the key
//
// in 39 characters, which a store keeps in place. The MAC tells tokens from garbage
// without a memory of all that were ever minted, and what was minted for one
// principal is garbage to the others. The boot tells those that died with another
// process.
const (
	bootSize   = 5
	randomSize = 16
	macSize    = 8
	tokenSize  = bootSize + randomSize + macSize
)

// mint makes tokens, and recognises them.
type mint struct {
	boot   [bootSize]byte
	key    []byte
	shared bool // other processes have the key, too
}

// newMint returns a mint with a copy of the key; nil: a random one, which dies
// with the process.
func newMint(key []byte, now time.Time) *mint {
	m := &mint{key: bytes.Clone(key), shared: key != nil}
	if !m.shared {
		m.key = make([]byte, sha256.Size)
		_, _ = rand.Read(m.key) // never fails, see crypto/rand
	}
	binary.BigEndian.PutUint32(m.boot[:4], uint32(now.Unix()))
	_, _ = rand.Read(m.boot[4:])
	return m
}

// new returns a token that there never was before, for a principal; empty: for
// anonymous callers.
func (m *mint) new(principal string) string {
	var t [tokenSize]byte
	copy(t[:], m.boot[:])
	_, _ = rand.Read(t[bootSize : bootSize+randomSize])
	m.sign(&t, principal)
	return base64.RawURLEncoding.EncodeToString(t[:])
}

func (m *mint) sign(t *[tokenSize]byte, principal string) {
	mac := m.mac("token")
	mac.Write(t[:tokenSize-macSize])
	mac.Write([]byte(principal))
	copy(t[tokenSize-macSize:], mac.Sum(nil))
}

// mac returns a MAC for one purpose.
func (m *mint) mac(purpose string) hash.Hash {
	mac := hmac.New(sha256.New, m.key)
	mac.Write([]byte("layover " + purpose + "\x00"))
	return mac
}

// origin says where a token that the store does not know comes from.
type origin uint8

const (
	garbage   origin = iota // nobody minted it
	ownBoot                 // this process did
	otherBoot               // another one, as a rule the same server before it was restarted
)

// recognise tells where a token comes from, for the caller who brought it: one
// that was minted for another principal is garbage to it. Without a shared key the
// MAC of another process cannot be checked; then its form must do, and that its
// boot is not of the future, beyond what clocks may differ by. Who makes one up
// deceives nobody but itself.
func (m *mint) recognise(token, caller string) origin {
	t, ok := parseToken(token)
	if !ok {
		return garbage
	}
	own := bytes.Equal(t[:bootSize], m.boot[:])
	switch genuine := m.genuine(t, caller); {
	case genuine && own:
		return ownBoot
	case genuine:
		return otherBoot
	case m.shared || own:
		return garbage
	}
	if boot := int64(binary.BigEndian.Uint32(t[:])); boot <= int64(binary.BigEndian.Uint32(m.boot[:]))+maxClockSkew {
		return otherBoot
	}
	return garbage
}

// isElses reports whether a token looks minted and cannot have been for this
// caller.
func (m *mint) isElses(token, caller string) bool {
	t, ok := parseToken(token)
	return ok && (m.shared || bytes.Equal(t[:bootSize], m.boot[:])) && !m.genuine(t, caller)
}

// isElses is that of the mint, if the tokens are its own.
func (m *interceptors) isElses(token, caller string) bool {
	return m.mints && m.mint.isElses(token, caller)
}

func (m *mint) genuine(t [tokenSize]byte, caller string) bool {
	signed := t
	m.sign(&signed, caller)
	return hmac.Equal(signed[:], t[:])
}

func parseToken(token string) (t [tokenSize]byte, ok bool) {
	if len(token) != base64.RawURLEncoding.EncodedLen(tokenSize) {
		return t, false
	}
	n, err := base64.RawURLEncoding.Strict().Decode(t[:], []byte(token))
	return t, err == nil && n == tokenSize
}

// maxClockSkew is by how much the clock of an earlier process may have been
// ahead, in seconds.
const maxClockSkew = 24 * 60 * 60

// derivedPrefix begins the IDs of sessions that belong to a principal. They are
// found by what a call proves, never by who knows them.
const derivedPrefix = "p:"

// derivedSize keeps such an ID within what a store keeps in place.
const derivedSize = 27 // bytes, 36 characters

// derive returns the ID of a principal's session: a keyed hash, from which
// nobody gets the key of the session back.
func (m *mint) derive(kind, principal, key string) string {
	mac := m.mac(kind)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(principal)))
	mac.Write(n[:])
	mac.Write([]byte(principal))
	mac.Write([]byte(key))
	return derivedPrefix + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:derivedSize])
}

func isDerived(id string) bool { return strings.HasPrefix(id, derivedPrefix) }
