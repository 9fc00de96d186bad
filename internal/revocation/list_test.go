// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation_test

import (
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover/internal/revocation"
)

// id returns the nth ID.
func id(n int) (id revocation.ID) {
	binary.BigEndian.PutUint64(id[:], uint64(n)+1)
	return id
}

// world is a list in a bubble.
type world struct {
	*testing.T
	list  *revocation.List
	began time.Time
}

func inWorld(t *testing.T, maximum int, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f(&world{T: t, list: revocation.New(maximum), began: time.Now()})
	})
}

// at returns a time, in minutes since the list was made.
func (w *world) at(minutes int) time.Time { return w.began.Add(time.Duration(minutes) * time.Minute) }

// wait moves the clock.
func (w *world) wait(minutes int) { <-time.After(time.Duration(minutes) * time.Minute) }

// entry returns one of a session that began at a minute, and lives until another.
func (w *world) entry(n int, principal string, issued, until int) revocation.Entry {
	return revocation.Entry{ID: id(n), Principal: principal, Issued: w.at(issued), Until: w.at(until), Why: "closed"}
}

func (w *world) add(e revocation.Entry, wantAdded bool) {
	w.Helper()
	added, err := w.list.Add(e)
	if err != nil || added != wantAdded {
		w.Errorf("Add of %+v: %t, %v", e, added, err)
	}
}

func (w *world) refused(e revocation.Entry) {
	w.Helper()
	before := slices.Collect(w.list.All())
	added, err := w.list.Add(e)
	if added || !errors.Is(err, revocation.ErrFull) {
		w.Errorf("Add of %+v: %t, %v, want ErrFull", e, added, err)
	}
	if after := slices.Collect(w.list.All()); len(after) != len(before) {
		w.Errorf("a refusal has changed the list: %v, before %v", after, before)
	}
}

// revoked wants a session to be revoked for a reason, empty: it is not.
func (w *world) revoked(e revocation.Entry, want string) {
	w.Helper()
	why, yes := w.list.Revoked(e.ID, e.Principal, e.Issued)
	if why != want || yes != (want != "") {
		w.Errorf("%+v: revoked %t, %q, want %q", e, yes, why, want)
	}
}

func (w *world) stats(want revocation.Stats) {
	w.Helper()
	if got := w.list.Stats(); got != want {
		w.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAClosedSessionIsRevokedUntilItsTokensDie(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		e, other := w.entry(1, "alice", 0, 10), w.entry(2, "alice", 0, 10)
		w.revoked(e, "")
		w.add(e, true)
		w.revoked(e, "closed")
		w.revoked(other, "")
		w.wait(10)
		w.revoked(e, "closed")
		w.wait(1)
		w.revoked(e, "")
		w.stats(revocation.Stats{})
	})
}

func TestAskingDoesNotExtendARevocation(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		e, flood := w.entry(1, "alice", 0, 10), w.entry(2, "alice", 1, 10)
		w.add(e, true)
		w.add(flood, true)
		for range 10 {
			w.revoked(e, revocation.Collapsed)
			w.wait(1)
		}
		w.wait(1)
		w.revoked(e, "")
		w.revoked(flood, "")
	})
}

func TestALaterEndOfTheTokensIsKept(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		e := w.entry(1, "alice", 0, 10)
		for _, until := range []int{10, 30, 20} {
			e.Until = w.at(until)
			w.add(e, until == 10)
		}
		w.wait(30)
		w.revoked(e, "closed")
		w.stats(revocation.Stats{Sessions: 1})
		w.wait(1)
		w.revoked(e, "")
		w.add(w.entry(1, "alice", 0, 40), true) // it was forgotten
	})
}

func TestRemoveTakesAnAddBack(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		e, other := w.entry(1, "alice", 0, 10), w.entry(2, "alice", 0, 10)
		w.add(e, true)
		w.add(other, true)
		w.list.Remove(e.ID)
		w.list.Remove(e.ID)
		w.list.Remove(id(3))
		w.revoked(e, "")
		w.revoked(other, "closed")
		w.stats(revocation.Stats{Sessions: 1})
		w.add(e, true)
		w.revoked(e, "closed")
	})
}

// What is revoked with others of its principal is nobody's to take back: who closed
// the others would have a session again.
func TestRemoveLeavesWhatWasCollapsed(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		e, other := w.entry(1, "alice", 0, 10), w.entry(2, "alice", 1, 10)
		w.add(e, true)
		w.add(other, true)
		w.list.Remove(e.ID)
		w.revoked(e, revocation.Collapsed)
		w.revoked(other, revocation.Collapsed)
	})
}

func TestTheTokensOfADeadSessionNeedNoEntry(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		w.wait(20)
		for _, until := range []int{10, 20} {
			w.add(w.entry(1, "alice", 0, until), true)
			w.add(w.entry(1, "alice", 0, until), true)
		}
		w.add(revocation.Entry{ID: id(2)}, true)
		w.add(revocation.Entry{Principal: "alice", Issued: w.at(5), Until: w.at(10)}, true)
		w.revoked(w.entry(1, "alice", 0, 0), "")
		w.stats(revocation.Stats{})
	})
}

// The cache would take a time to live of less than zero for always.
func TestNothingThatIsAlmostDeadLivesForEver(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		for i := range 5 {
			e := w.entry(i, "alice", 0, 0)
			e.Until = e.Until.Add(time.Duration(i))
			w.add(e, true)
		}
		w.wait(1)
		w.stats(revocation.Stats{})
		w.revoked(w.entry(4, "alice", 0, 0), "")
	})
}

func TestAnEntryNamesASessionOrAPrincipal(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		added, err := w.list.Add(revocation.Entry{Issued: w.at(0), Until: w.at(10)})
		if added || err == nil || errors.Is(err, revocation.ErrFull) {
			t.Errorf("%t, %v", added, err)
		}
		w.revoked(w.entry(1, "", 0, 0), "")
		w.stats(revocation.Stats{})
	})
}

func TestANotBeforeRecordRevokesWhatBeganByThen(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		own, long := w.entry(1, "alice", 0, 10), w.entry(2, "alice", 0, 40)
		w.add(own, true)
		w.add(long, true)
		w.add(revocation.Entry{Principal: "alice", Issued: w.at(5), Until: w.at(20), Why: "locked"}, true)
		w.add(revocation.Entry{Principal: "alice", Issued: w.at(4), Until: w.at(30), Why: "less"}, false)
		w.stats(revocation.Stats{Sessions: 1, Principals: 1}) // long outlives the record
		w.revoked(own, "locked")
		w.revoked(long, "closed")
		w.revoked(w.entry(3, "alice", 5, 0), "locked")
		w.revoked(w.entry(4, "alice", 6, 0), "")
		w.revoked(w.entry(5, "bob", 0, 0), "")
		w.revoked(w.entry(6, "", 0, 0), "")
		w.add(w.entry(7, "alice", 5, 30), false)
		w.add(w.entry(8, "alice", 5, 31), false)
		w.add(w.entry(9, "alice", 6, 30), true)
		w.stats(revocation.Stats{Sessions: 3, Principals: 1})
		w.wait(31)
		w.revoked(w.entry(3, "alice", 5, 0), "")
		w.revoked(w.entry(7, "alice", 5, 0), "")
		w.revoked(w.entry(8, "alice", 5, 0), "closed")
		w.revoked(long, "closed")
		w.stats(revocation.Stats{Sessions: 2})
	})
}

func TestAllMakesAnotherListSayTheSame(t *testing.T) {
	inWorld(t, 4, func(w *world) {
		for i, principal := range []string{"alice", "alice", "", "bob", "carol", "dave"} {
			w.add(w.entry(i, principal, i, 10+i), true)
		}
		w.stats(revocation.Stats{Sessions: 4, Principals: 1, Collapsed: 1})
		other := &world{T: t, list: revocation.New(4), began: w.began}
		for e := range w.list.All() {
			other.add(e, true)
		}
		for e := range w.list.All() {
			other.add(e, false)
		}
		other.stats(revocation.Stats{Sessions: 4, Principals: 1})
		for range 20 {
			for i, principal := range []string{"alice", "alice", "", "bob", "carol", "dave"} {
				e := w.entry(i, principal, i, 0)
				why, _ := w.list.Revoked(e.ID, e.Principal, e.Issued)
				other.revoked(e, why)
			}
			w.wait(1)
		}
	})
}

func TestAllMayBeLeftAndCallBack(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		for range w.list.All() {
			t.Error("an empty list has something")
		}
		w.add(revocation.Entry{Principal: "alice", Issued: w.at(0), Until: w.at(10)}, true)
		for i := range 3 {
			w.add(w.entry(i, "bob", 0, 10), true)
		}
		for most := range 4 {
			n := 0
			for e := range w.list.All() {
				w.list.Remove(e.ID)
				w.add(e, e.ID != revocation.ID{})
				if n++; n > most {
					break
				}
			}
		}
		w.stats(revocation.Stats{Sessions: 3, Principals: 1})
	})
}
