// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"
)

// With the index this makes 145 bytes for a session and its ID, see the
// benchmarks.
func TestAnEntryIsPacked(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return // the sizes are those of 64-bit machines
	}
	if p, i := unsafe.Sizeof(entry[*conn]{}), unsafe.Sizeof(entry[Session]{}); p > 128 || i > 128 {
		t.Errorf("an entry takes %d bytes, with an interface %d, want 128 at most: the next size that is allocated is 144", p, i)
	}
	if end := unsafe.Offsetof(entry[*conn]{}.value) + unsafe.Sizeof((*conn)(nil)); end > 64 {
		t.Errorf("what a hit reads ends after %d bytes, want 64: one cache line", end)
	}
	for range 100 {
		if at := uintptr(unsafe.Pointer(newEntry[*conn]("a", nil))); at%64 != 0 {
			t.Fatalf("an entry begins at %#x, in the middle of a cache line", at)
		}
	}
}

// An ID is itself, whatever its length: it lies in the entry or elsewhere.
func TestIDsOfAnyLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		var ids []string
		for n := 1; n <= 300; n++ {
			ids = append(ids, strings.Repeat("a", n), strings.Repeat("a", n-1)+"b")
		}
		for _, id := range ids {
			add(t, s, id)
		}
		for _, id := range ids {
			e := s.index.find(id)
			if e == nil || e.id() != id || e.hash() != s.index.hash(id) {
				t.Fatalf("%d bytes: not found, or wrong", len(id))
			}
			must(t, s.Remove(id))
			wantErr(t, second(s.Peek(id)), ErrNotFound)
			if ev, ok := s.Explain(s.Fingerprint(id)); !ok || ev.Reason != ReasonClosed {
				t.Fatalf("%d bytes: explained as %v", len(id), ev)
			}
			var nf *NotFoundError
			if err := second(s.Peek(id)); !errors.As(err, &nf) || nf.Reason != ReasonClosed || nf.Fingerprint() != s.Fingerprint(id) {
				t.Fatalf("%d bytes: %v", len(id), err)
			}
		}
	})
}

// comeAndGo has sessions end in all ways, and returns weak pointers to them.
func comeAndGo(t *testing.T, s *Store[*conn], n int) (all []weak.Pointer[conn]) {
	for i := range n {
		id := fmt.Sprint(i)
		c, l := addLeased(t, s, id)
		all = append(all, weak.Make(c))
		switch i % 6 {
		case 0:
			must(t, s.Remove(id)) // retired
		case 1:
			s.Kill(s.Fingerprint(id))
		case 2:
			l.Confirm()
			must(t, l.SetSize(10))
			must(t, s.Put(id, new(conn), Origin{Source: id}))
		case 3:
			_ = l.Context()
		}
		l.Release()
		if i%6 == 4 {
			must(t, s.Remove(id))
		}
	}
	return all // the others are evicted, or expire
}

func TestNothingRetainsASessionThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(500), WithRemembered(0))
		all := comeAndGo(t, s, 3000)
		pass(2 * time.Hour)
		if n := s.Len(); n != 0 {
			t.Fatalf("%d sessions are left", n)
		}
		runtime.GC()
		kept := 0
		for _, p := range all {
			if p.Value() != nil {
				kept++
			}
		}
		if kept > 0 {
			t.Errorf("%d of %d sessions are kept by something", kept, len(all))
		}
		runtime.KeepAlive(s)
	})
}
