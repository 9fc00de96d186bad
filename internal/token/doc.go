// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package token seals what a stateless session is into a token that its client keeps,
// and opens it again.
//
// A [Ring] has the keys, a [Sealer] uses them for the tokens of one cookie and
// audience, [Claims] is what a token says, and a [Cache] remembers what tokens were
// opened to.
//
// # Format
//
// A token is the base64url without padding (RFC 4648, section 5, with zero bits at its
// end) of
//
//	version  1 byte: 1
//	key id   4 bytes: says which key of the ring to open it with
//	salt    16 bytes, random
//	nonce   12 bytes, random
//	sealed: the payload, encrypted; and a tag of 16 bytes
//
// It is sealed by AES-256-GCM (NIST SP 800-38D) under a key of its own, so that random
// nonces do not run out. The keys are derived by HKDF-Expand (RFC 5869) with SHA-256.
// Its Extract is skipped, as section 3.3 allows, because the keys of a ring are
// uniformly random:
//
//	key id           = first 4 bytes of HKDF-Expand(key, "layover token key id", 32)
//	key of the token = HKDF-Expand(key, "layover token 1" | 0x00 | key id | salt, 32)
//
// Associated data are
//
//	version, key id
//	length of the cookie's name, the name
//	length of the audience, the audience
//
// and the payload is
//
//	flags      1 byte: bit 0 is Held, the others are zero
//	issued     Unix time in milliseconds
//	used       milliseconds since issued
//	expires    Unix time in milliseconds; 0: never
//	change
//	id         16 bytes
//	length of the principal, the principal
//	options    all the rest
//
// Numbers are unsigned varints as in Protocol Buffers, in their shortest form, so all
// claims have exactly one payload. No time is later than the year 9999.
package token
