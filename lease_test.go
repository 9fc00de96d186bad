// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"sync"
	"testing"
)

// A lease says whether others use its session, as long as it is held.
func TestALeaseSaysWhetherItIsShared(t *testing.T) {
	s := open(t)
	first, err := s.Add("a", new(conn), Origin{})
	must(t, err)
	if first.Shared() {
		t.Error("the only lease")
	}
	second, err := s.Acquire("a")
	must(t, err)
	must(t, s.Remove("a"))
	if !first.Shared() || !second.Shared() {
		t.Error("of two leases, after the end")
	}
	second.Release()
	if first.Shared() || second.Shared() {
		t.Error("one was released")
	}
	first.Release()
	if first.Shared() || new(Lease[*conn]).Shared() {
		t.Error("without a lease")
	}
}

// Leases under former IDs are leases on the session, whichever of them looks, and
// whichever is the last.
func TestALeaseIsSharedAcrossNewIDs(t *testing.T) {
	for last := range 3 {
		s := open(t)
		oldest, err := s.Add("0", new(conn), Origin{})
		must(t, err)
		must(t, oldest.Rename("1", Origin{}))
		middle, err := s.Acquire("1")
		must(t, err)
		must(t, middle.Rename("2", Origin{}))
		newest, err := s.Acquire("2")
		must(t, err)
		all := []*Lease[*conn]{&oldest, &middle, &newest}
		for i, l := range all {
			if i != last {
				if !l.Shared() || !all[last].Shared() {
					t.Errorf("leases %d and %d", i, last)
				}
				l.Release()
			}
		}
		if all[last].Shared() {
			t.Errorf("lease %d is the last", last)
		}
		all[last].Release()
	}
}

// A session that has ended is known as retired until the last call that uses it has
// ended; one that is killed is closed at once, and no session is retired under an ID
// that it had before.
func TestASessionIsRetiredUntilItsLastRelease(t *testing.T) {
	s := open(t)
	is := func(id string) bool { return s.Retired(id, nil) }
	l, err := s.Add("a", new(conn), Origin{})
	must(t, err)
	must(t, l.Rename("b", Origin{}))
	if is("a") || is("b") || is("never") {
		t.Error("one that lives")
	}
	must(t, s.Remove("b"))
	if !is("b") || is("a") {
		t.Error("while it is leased")
	}
	l.Release()
	if is("b") {
		t.Error("after the last release")
	}
	killed, err := s.Add("c", new(conn), Origin{})
	must(t, err)
	s.Kill(s.Fingerprint("c"))
	if is("c") {
		t.Error("one that was killed")
	}
	killed.Release()
}

// Shared and Retired may be asked while sessions are renamed, ended and released.
func TestWhoLooksAtLeasesRacesWithNobody(t *testing.T) {
	s := open(t)
	for range 100 {
		l, err := s.Add("a", new(conn), Origin{})
		must(t, err)
		other, err := s.Acquire("a")
		must(t, err)
		var all sync.WaitGroup
		all.Go(func() { _ = l.Rename("b", Origin{}); _ = l.Shared(); l.Release() })
		all.Go(func() { _ = other.Shared(); _ = s.Remove("b"); other.Release() })
		all.Go(func() { _ = s.Retired("b", nil) })
		all.Wait()
		_, _ = s.Remove("a"), s.Remove("b")
	}
}
