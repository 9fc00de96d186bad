// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
	"weak"
)

// With the index this makes 113 bytes for a session, see the benchmarks.
func TestAnEntryIsPacked(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 8 && unsafe.Sizeof(entry[*conn]{}) != 96 {
		t.Errorf("an entry takes %d bytes, want 96: the next size that is allocated is 112", unsafe.Sizeof(entry[*conn]{}))
	}
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
