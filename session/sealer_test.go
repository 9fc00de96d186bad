// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"testing"
)

// No bytes of a client's make the parser panic, or open what this store has not
// sealed.
func FuzzHandle(f *testing.F) {
	h := newHandles()
	ref := newHandleRef()
	genuine := h.sealer(ref).seal("transaction", "token", []byte("object"))
	f.Add("transaction", genuine)
	f.Add("statement", genuine)
	f.Add("transaction", genuine[:handleHeadSize])
	f.Add("transaction", []byte{handleVersion})
	f.Add("", []byte{})
	f.Fuzz(func(t *testing.T, kind string, handle []byte) {
		got, token, object, ok := h.open(kind, handle)
		if mine := kind == "transaction" && bytes.Equal(handle, genuine); ok != mine {
			t.Fatalf("opened: %t, want %t", ok, mine)
		}
		if ok && (got != ref || token != "token" || string(object) != "object") {
			t.Fatalf("it holds %x, %q and %q", got, token, object)
		}
	})
}

// What is sealed is opened as it was, whatever it is, and takes 100 bytes more at most
// with a token of this package's.
func TestAHandleHoldsWhatWasSealed(t *testing.T) {
	h := newHandles()
	ref := newHandleRef()
	for _, token := range []string{"", "token", string(make([]byte, 39)), string(make([]byte, 1000))} {
		for _, object := range [][]byte{nil, []byte("object"), make([]byte, 1<<20)} {
			handle := h.sealer(ref).seal("kind", token, object)
			if got, tok, obj, ok := h.open("kind", handle); !ok || got != ref || tok != token || !bytes.Equal(obj, object) {
				t.Errorf("token of %d bytes, object of %d: opened %t", len(token), len(object), ok)
			}
			if more := len(handle) - len(object); len(token) <= 39 && more > 100 {
				t.Errorf("it takes %d bytes more", more)
			}
		}
	}
}
