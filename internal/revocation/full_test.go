// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/internal/revocation"
)

func TestAFloodOfOnePrincipalCostsNobodyElse(t *testing.T) {
	inWorld(t, 1000, func(w *world) {
		const others = 200
		for i := range others {
			w.add(w.entry(i, fmt.Sprint("other", i%50), 0, 60), true)
			w.add(w.entry(others+i, "", 0, 60), true)
		}
		for i := range 100_000 {
			e := w.entry(2*others+i, "mallory", 0, 60)
			e.Issued = e.Issued.Add(time.Duration(i) * time.Millisecond)
			w.add(e, true)
			if i%1000 == 0 {
				w.revoked(w.entry(2*others, "mallory", 0, 60), map[bool]string{true: "closed", false: revocation.Collapsed}[i == 0])
			}
		}
		for i := range others {
			w.revoked(w.entry(i, fmt.Sprint("other", i%50), 0, 60), "closed")
			w.revoked(w.entry(others+i, "", 0, 60), "closed")
			w.revoked(w.entry(1_000_000+i, fmt.Sprint("other", i%50), 0, 60), "")
			w.revoked(w.entry(1_000_000+i, "", 0, 60), "")
		}
		for i := range 100_000 {
			e := w.entry(2*others+i, "mallory", 0, 60)
			e.Issued = e.Issued.Add(time.Duration(i) * time.Millisecond)
			if _, yes := w.list.Revoked(e.ID, e.Principal, e.Issued); !yes {
				t.Fatalf("%+v lives again", e)
			}
		}
		w.revoked(w.entry(1_000_000, "mallory", 5, 60), "") // it began later
		if s := w.list.Stats(); s.Principals != 1 || s.Sessions > 1000 || s.Refused != 0 || s.Collapsed > 200 {
			t.Errorf("%+v", s)
		}
	})
}

func TestAFloodOfNobodyLeavesRoomForPrincipals(t *testing.T) {
	inWorld(t, 1000, func(w *world) {
		for i := range 10_000 {
			if e := w.entry(i, "", 0, 60); i < 500 {
				w.add(e, true)
			} else if _, err := w.list.Add(e); err == nil {
				t.Fatalf("the session no. %d of nobody has an entry", i)
			}
		}
		w.refused(w.entry(10_000, "", 0, 60))
		for i := range 500 {
			w.add(w.entry(20_000+i, fmt.Sprint(i), 0, 60), true)
		}
		for i := range 500 {
			w.revoked(w.entry(i, "", 0, 60), "closed")
			w.revoked(w.entry(20_000+i, fmt.Sprint(i), 0, 60), "closed")
			w.revoked(w.entry(30_000+i, fmt.Sprint(i), 0, 60), "")
		}
		w.revoked(w.entry(10_000, "", 0, 60), "")
		w.stats(revocation.Stats{Sessions: 1000, Refused: 9501})
		w.add(w.entry(5, "", 0, 70), false) // who has an entry needs no room
	})
}

func TestAmongManyPrincipalsWhoClosesPaysItself(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		for i := range 10 {
			w.add(w.entry(i, fmt.Sprint(i), 0, 60), true)
		}
		for i := 10; i < 20; i++ {
			w.add(w.entry(i, fmt.Sprint(i), 0, 60), true)
		}
		for i := range 20 {
			want, other := "closed", ""
			if i >= 10 {
				want, other = revocation.Collapsed, revocation.Collapsed
			}
			w.revoked(w.entry(i, fmt.Sprint(i), 0, 60), want)
			w.revoked(w.entry(100+i, fmt.Sprint(i), 0, 60), other)
			w.revoked(w.entry(200+i, fmt.Sprint(i), 1, 60), "")
		}
		w.stats(revocation.Stats{Sessions: 10, Principals: 10, Collapsed: 10})
		w.refused(w.entry(20, "20", 0, 60)) // there are no more not-before records
		w.add(w.entry(21, "15", 1, 60), true)
		w.revoked(w.entry(21, "15", 1, 60), revocation.Collapsed)
		w.stats(revocation.Stats{Sessions: 10, Principals: 10, Collapsed: 11, Refused: 1})
	})
}

func TestTheHeaviestMakesRoomForOthers(t *testing.T) {
	inWorld(t, 10, func(w *world) {
		for i := range 10 {
			w.add(w.entry(i, []string{"alice", "alice", "bob", "bob", "bob"}[i%5], i, 60), true)
		}
		w.add(w.entry(10, "alice", 0, 60), true)
		for i := range 10 {
			want := []string{"closed", "closed", revocation.Collapsed, revocation.Collapsed, revocation.Collapsed}[i%5]
			w.revoked(w.entry(i, []string{"alice", "alice", "bob", "bob", "bob"}[i%5], i, 60), want)
		}
		w.revoked(w.entry(11, "bob", 10, 60), "") // the last one that bob has closed began at 9
		w.revoked(w.entry(11, "alice", 0, 60), "")
		w.stats(revocation.Stats{Sessions: 5, Principals: 1, Collapsed: 1})
	})
}

func TestWhoIsAsHeavyAsTheHeaviestMakesRoomItself(t *testing.T) {
	for _, closer := range []string{"alice", "bob"} {
		inWorld(t, 4, func(w *world) {
			for i := range 4 {
				w.add(w.entry(i, []string{"alice", "bob"}[i%2], 0, 60), true)
			}
			w.add(w.entry(4, closer, 7, 90), true)
			for i := range 4 {
				e := w.entry(i, []string{"alice", "bob"}[i%2], 0, 60)
				want := "closed"
				if e.Principal == closer {
					want = revocation.Collapsed
				}
				w.revoked(e, want)
			}
			w.stats(revocation.Stats{Sessions: 2, Principals: 1, Collapsed: 1})
			w.wait(90)
			w.revoked(w.entry(4, closer, 7, 90), revocation.Collapsed)
			w.revoked(w.entry(5, closer, 8, 90), "")
		})
	}
}

// Who is anonymous makes nobody pay who floods nothing.
func TestNobodyIsLoggedOutForOneEntry(t *testing.T) {
	inWorld(t, 4, func(w *world) {
		for i := range 4 {
			w.add(w.entry(i, fmt.Sprint(i), 0, 60), true)
		}
		w.refused(w.entry(4, "", 0, 60))
		w.list.Remove(id(3))
		w.add(w.entry(3, "2", 0, 60), true)
		w.add(w.entry(4, "", 0, 60), true)
		w.revoked(w.entry(5, "2", 0, 60), revocation.Collapsed)
		w.stats(revocation.Stats{Sessions: 3, Principals: 1, Collapsed: 1, Refused: 1})
	})
}

func TestWhatHasExpiredMakesRoom(t *testing.T) {
	inWorld(t, 4, func(w *world) {
		for round := range 5 {
			for i := range 4 {
				w.add(w.entry(10*round+i, []string{"", "alice"}[i%2], 0, 10*round+9), true)
			}
			w.stats(revocation.Stats{Sessions: 4})
			w.wait(10)
			w.stats(revocation.Stats{})
		}
		for i := range 4 { // as many not-before records
			w.add(revocation.Entry{Principal: fmt.Sprint(i), Issued: w.at(0), Until: w.at(60)}, true)
		}
		w.refused(revocation.Entry{Principal: "4", Issued: w.at(0), Until: w.at(70)})
		w.wait(11)
		w.add(revocation.Entry{Principal: "4", Issued: w.at(0), Until: w.at(70)}, true)
		w.stats(revocation.Stats{Principals: 1, Refused: 1})
	})
}

func TestAListWithoutRoomRefusesAll(t *testing.T) {
	for _, maximum := range []int{-1, 0} {
		inWorld(t, maximum, func(w *world) {
			w.refused(w.entry(1, "alice", 0, 10))
			w.refused(w.entry(1, "", 0, 10))
			w.refused(revocation.Entry{Principal: "alice", Issued: w.at(0), Until: w.at(10)})
			w.stats(revocation.Stats{Refused: 3})
		})
	}
}

// What goes from the entries to a not-before record, or gets a later Until, is
// revoked meanwhile.
func TestNoReaderMissesWhatIsCollapsed(t *testing.T) {
	const rounds, size = 300, 20
	now := time.Now()
	entry := func(n int) revocation.Entry {
		return revocation.Entry{ID: id(n), Principal: "alice", Issued: now.Add(time.Duration(n)), Until: now.Add(time.Hour), Why: "closed"}
	}
	for round := range rounds {
		l := revocation.New(size)
		first := entry(0)
		if _, err := l.Add(first); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		done := make(chan struct{})
		for range 2 {
			wg.Go(func() {
				for over := false; !over; {
					select {
					case <-done:
						over = true
					default:
					}
					if _, yes := l.Revoked(first.ID, first.Principal, first.Issued); !yes {
						t.Errorf("round %d: it lives again", round)
						return
					}
				}
			})
		}
		wg.Go(func() {
			for l.Stats().Collapsed == 0 {
				found := false
				for e := range l.All() {
					found = found || e.ID == first.ID || (e.ID == revocation.ID{})
				}
				if !found {
					t.Errorf("round %d: All misses it", round)
				}
			}
		})
		for n := 1; n <= size; n++ {
			first.Until = first.Until.Add(time.Second)
			for _, e := range []revocation.Entry{first, entry(n)} {
				if _, err := l.Add(e); err != nil {
					t.Error(err)
				}
			}
		}
		close(done)
		wg.Wait()
	}
}

// Admit says beforehand what Add does.
func TestAdmitForetellsAdd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := revocation.New(rapid.IntRange(0, 6).Draw(t, "max"))
		names := rapid.SampledFrom([]string{"", "", "a", "b", "c", "d", "e", "f"})
		now := time.Now()
		for i := range rapid.IntRange(1, 40).Draw(t, "adds") {
			e := revocation.Entry{ID: revocation.ID{byte(i + 1)}, Principal: names.Draw(t, "principal"),
				Issued: now.Add(time.Duration(rapid.IntRange(0, 3).Draw(t, "issued")) * time.Second), Until: now.Add(time.Hour)}
			admitted := l.Admit(e.Principal)
			_, revoked := l.Revoked(e.ID, e.Principal, e.Issued)
			if _, err := l.Add(e); err != nil && admitted == nil || err == nil && admitted != nil && !revoked {
				t.Fatalf("admitted: %v, added: %v", admitted, err)
			}
		}
	})
}
