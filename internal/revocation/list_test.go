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
