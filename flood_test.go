// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// siege is a store with honest clients in which one source makes a great many
// sessions.
type siege struct {
	t      *testing.T
	store  *Store[*conn]
	honest []string
}

const (
	siegeMaximum   = 500
	siegeHonest    = 400 // of 40 sources
	siegeRounds    = 5
	siegeFlood     = 3000 // a round
	siegePatient   = 200  // newcomers of the flood until an honest one comes back
	siegeNewcomers = 7    // honest ones a round: few, see EvictUnconfirmed
)

func besiege(t *testing.T, newcomer func(*siege, string)) {
	synctest.Test(t, func(t *testing.T) {
		g := &siege{t: t, store: open(t, WithMaxSessions(siegeMaximum))}
		for i := range siegeHonest {
			id := fmt.Sprint("honest", i)
			g.honest = append(g.honest, id)
			l, err := g.store.Add(id, new(conn), Origin{Source: fmt.Sprint("host", i%40)})
			must(t, err)
			l.Confirm()
			l.Release()
		}
		for round := range siegeRounds {
			g.round(round, newcomer)
			pass(5 * time.Second)
		}
		if n := g.store.Stats().Created; n < siegeHonest+siegeFlood {
			t.Errorf("%d sessions: there was no flood", n)
		}
	})
}

// round is one round of the flood, during which every honest session is used,
// and some honest newcomers come and come back.
func (g *siege) round(round int, newcomer func(*siege, string)) {
	var back []string
	for i := range siegeFlood {
		newcomer(g, fmt.Sprint("flood", round, "/", i))
		if i%(siegeFlood/siegeHonest) == 0 && i/(siegeFlood/siegeHonest) < len(g.honest) {
			g.use(g.honest[i/(siegeFlood/siegeHonest)])
		}
		if i >= siegeFlood/2 && i < siegeFlood/2+siegeNewcomers {
			id := fmt.Sprint("newcomer", round, "/", i)
			l, err := g.store.Add(id, new(conn), Origin{Source: id})
			if err != nil {
				g.t.Fatalf("round %d: an honest newcomer does not get in: %v", round, err)
			}
			l.Release()
			back = append(back, id)
		}
		if i == siegeFlood/2+siegeNewcomers+siegePatient {
			for _, id := range back {
				g.use(id)
			}
		}
	}
}

// use is a call of an honest client.
func (g *siege) use(id string) {
	l, err := g.store.Acquire(id)
	if err != nil {
		g.t.Fatalf("%s: %v", id, err)
	}
	l.Confirm()
	l.Release()
}

// come is one of the flood. It may be refused.
func (g *siege) come(id string, o Origin) (*Lease[*conn], bool) {
	o.Source = "flood"
	l, err := g.store.Add(id, new(conn), o)
	if err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrLeaseLimit) {
		g.t.Fatal(err)
	}
	return &l, err == nil
}

func TestInvariant07AssuredAgainstASilentFlood(t *testing.T) {
	besiege(t, func(g *siege, id string) {
		l, _ := g.come(id, Origin{})
		l.Release()
	})
}

func TestInvariant07AssuredAgainstAnEchoingFlood(t *testing.T) {
	besiege(t, func(g *siege, id string) {
		l, in := g.come(id, Origin{})
		l.Release()
		if in {
			g.use(id)
		}
	})
}

func TestInvariant07AssuredAgainstAHoldingFlood(t *testing.T) {
	besiege(t, func(g *siege, id string) {
		l, in := g.come(id, Origin{Holds: true})
		l.Release()
		if in {
			g.use(id)
		}
	})
}

// Sessions that are read slowly cannot be evicted. Their source gets what is
// free, and no more.
func TestInvariant07AssuredAgainstASlowReadingFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &siege{t: t, store: open(t, WithMaxSessions(siegeMaximum))}
		for i := range siegeHonest {
			l, err := g.store.Add(fmt.Sprint("honest", i), new(conn), Origin{Source: fmt.Sprint("host", i%40)})
			must(t, err)
			l.Confirm()
			l.Release()
		}
		var held []*Lease[*conn]
		for i := range 10 * siegeMaximum {
			if l, in := g.come(fmt.Sprint("flood", i), Origin{}); in {
				held = append(held, l)
			}
		}
		if len(held) != siegeMaximum-siegeHonest {
			t.Errorf("the flood has %d places, want the %d that were free", len(held), siegeMaximum-siegeHonest)
		}
		for i := range siegeHonest {
			g.use(fmt.Sprint("honest", i))
		}
		// Honest newcomers get in at the expense of honest ones, since the others
		// cannot leave; but not of each other, so that they can come back.
		for i := range siegeNewcomers {
			id := fmt.Sprint("newcomer", i)
			l, err := g.store.Add(id, new(conn), Origin{Source: id})
			must(t, err)
			l.Release()
		}
		for i := range siegeNewcomers {
			g.use(fmt.Sprint("newcomer", i))
		}
		for _, l := range held {
			l.Release()
		}
	})
}

func TestASilentFloodWithoutSourcesPushesOutNobodyWhoCameBack(t *testing.T) {
	s := open(t, WithMaxSessions(100))
	for i := range 90 {
		addConfirmed(t, s, fmt.Sprint("honest", i))
	}
	for i := range 5000 {
		add(t, s, fmt.Sprint("flood", i))
	}
	for i := range 90 {
		wantLive(t, s, fmt.Sprint("honest", i))
	}
}

func TestANewcomerStaysUntilItsFirstCallHasEnded(t *testing.T) {
	s := open(t, WithMaxSessions(10))
	_, first := addLeased(t, s, "first")
	for i := range 100 {
		add(t, s, fmt.Sprint(i))
	}
	wantLive(t, s, "first")
	first.Release()
}

func TestAFullStoreOfBusySessionsRefusesWithoutASearch(t *testing.T) {
	s := open(t, WithMaxSessions(1000))
	var held []*Lease[*conn]
	for i := range 1000 {
		_, l := addLeased(t, s, fmt.Sprint(i))
		held = append(held, l)
	}
	wantErr(t, s.Put("one too many", new(conn), Origin{}), ErrFull) // finds out that all are busy
	looks := 0
	for _, l := range held {
		if l.entry.load()&parkedBit != 0 {
			looks++
		}
	}
	if looks != len(held) {
		t.Errorf("%d of %d busy sessions are parked", looks, len(held))
	}
	held[500].Release()
	must(t, s.Put("one too many", new(conn), Origin{}))
	wantGone(t, s, "500", ReasonCapacity)
	for _, l := range held {
		l.Release()
	}
}

func TestSourcesDoNotPileUp(t *testing.T) {
	s := open(t, WithMaxSessions(100))
	for i := range 10_000 {
		must(t, s.Put(fmt.Sprint(i), new(conn), Origin{Source: fmt.Sprint("host", i)}))
	}
	if n := s.Stats().Sources; n != 100 {
		t.Errorf("%d sources of 100 sessions", n)
	}
	must(t, s.Reconfigure(WithMaxSessions(1)))
	if m := &s.ledger.sources; len(m.named) != 1 || m.most > minSources {
		t.Errorf("%d sources in a map that has had %d", len(m.named), m.most)
	}
}
