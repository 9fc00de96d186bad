// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// ID names a session in all of its tokens. It opens nothing.
type ID [16]byte

// NewID returns a random ID.
func NewID() (id ID) {
	_, _ = rand.Read(id[:]) // never fails, see crypto/rand
	return id
}

// String returns the ID in base64url without padding.
func (id ID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// Claims is what a token says. Times have a precision of a millisecond: what is finer
// is cut off. Those before 1970 become its beginning, and those after the year 9999
// its end.
type Claims struct {
	ID        ID
	Issued    time.Time // when the session began
	Used      time.Time // when it was last used, as far as the token knows; never before Issued
	Expires   time.Time // when the proof of its principal ends; zero: never
	Principal string    // whose it is; empty: nobody's
	Held      bool      // it has an option, or ever had one
	Change    uint64    // how many times its options have been changed
	Options   []byte    // whatever the caller makes of it
}

// latest is the last time that a token can say, in Unix milliseconds.
const latest = 253402300799999 // 9999-12-31T23:59:59.999Z

var (
	earliestTime = time.UnixMilli(0)
	latestTime   = time.UnixMilli(latest)
)

// The flags of a payload.
const (
	flagHeld   = 1 << iota
	knownFlags = flagHeld
)

// Sizes in bytes of a time, of any number, and of what else is in every payload.
const (
	maxTime    = 7
	maxNumber  = binary.MaxVarintLen64
	plainFixed = 1 + len(ID{})
)

// maxPayload returns how long the payload of such claims may be.
func maxPayload(principal string, options int) int {
	return plainFixed + 3*maxTime + maxNumber + varintLen(len(principal)) + len(principal) + options
}

func varintLen(n int) (size int) {
	for size = 1; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// appendPayload appends the payload that says c.
func appendPayload(b []byte, c *Claims) []byte {
	issued := millis(c.Issued)
	used := max(millis(c.Used), issued)
	var expires uint64
	if !c.Expires.IsZero() {
		expires = max(millis(c.Expires), 1) // zero would be never
	}
	var flags byte
	if c.Held {
		flags |= flagHeld
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, issued)
	b = binary.AppendUvarint(b, used-issued)
	b = binary.AppendUvarint(b, expires)
	b = binary.AppendUvarint(b, c.Change)
	b = append(b, c.ID[:]...)
	b = binary.AppendUvarint(b, uint64(len(c.Principal)))
	b = append(b, c.Principal...)
	return append(b, c.Options...)
}

// millis returns a time in Unix milliseconds, if a token can say it, else the nearest
// one that it can.
func millis(t time.Time) uint64 {
	switch {
	case t.Before(earliestTime):
		return 0
	case t.After(latestTime):
		return latest
	}
	return uint64(t.UnixMilli())
}

// parsePayload returns what a payload says. The options alias it.
func parsePayload(payload []byte) (c Claims, ok bool) {
	r := reader{rest: payload}
	flags := r.take(1)
	issued, lasted, expires := r.number(latest), r.number(latest), r.number(latest)
	c.Change = r.number(1<<64 - 1)
	copy(c.ID[:], r.take(uint64(len(c.ID))))
	c.Principal = string(r.take(r.number(1<<64 - 1)))
	if r.failed || flags[0]&^knownFlags != 0 || issued+lasted > latest {
		return Claims{}, false
	}
	c.Held = flags[0]&flagHeld != 0
	c.Issued, c.Used = fromMillis(issued), fromMillis(issued+lasted)
	if expires != 0 {
		c.Expires = fromMillis(expires)
	}
	c.Options = r.rest
	return c, true
}

func fromMillis(ms uint64) time.Time { return time.UnixMilli(int64(ms)).UTC() }

// reader takes a payload apart. After a failure there is nothing in it.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) fail() {
	r.rest, r.failed = nil, true
}

// take returns the next n bytes, nil: there are not as many.
func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.fail()
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// number returns the next number, if it is in its shortest form and no more than most.
func (r *reader) number(most uint64) uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || n > 1 && r.rest[n-1] == 0 || v > most {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}
