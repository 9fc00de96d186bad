// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

// ident is an ID that is kept in place, if it is short, as every UUID is: whoever
// compares it need not wait for memory once more, and the string that it came in
// can go. A long one is kept elsewhere.
type ident struct {
	short [shortID]byte
	n     uint8 // bytes of short, or longID; endBit
}

const (
	shortID = 39
	longID  = shortID + 1
	lenMask = 0x7f
	// endBit says that the session may end before its lifetime does. It is not
	// about the ID, but stands where a hit looks anyway. It is set at birth.
	endBit = lenMask + 1
)

// identOf returns the ident of id, and id again if it is long.
func identOf(id string) (i ident, long string) {
	if len(id) > shortID {
		return ident{n: longID}, id
	}
	i.n = uint8(copy(i.short[:], id))
	return i, ""
}

func (i *ident) long() bool { return i.n&lenMask == longID }

// ownEnd reports whether the session has an end of its own, see [Origin].
func (i *ident) ownEnd() bool { return i.n >= endBit }

// is reports whether i is id, which is short.
func (i *ident) is(id string) bool {
	return int(i.n&lenMask) == len(id) && string(i.short[:len(id)]) == id
}

// text returns a short ID.
func (i *ident) text() string { return string(i.short[:i.n&lenMask]) }
