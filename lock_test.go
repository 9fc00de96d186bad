// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// Whoever ends a session does not wait for the ledger, but whoever looks next
// finds it settled.
func TestWhoHasTheLedgerSettlesWhoDepartsMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		c := add(t, s, "a")
		s.lock()
		must(t, s.Remove("a")) // returns although the mutex is taken
		if s.ledger.live != 1 || s.ledger.departed.none() {
			t.Fatal("it did not depart under the mutex")
		}
		s.unlock()
		if n := s.Len(); n != 0 {
			t.Errorf("%d sessions are live", n)
		}
		synctest.Wait()
		if !c.isClosed(t) {
			t.Error("it was not closed")
		}
	})
}

// Somebody departs after the last look of who has the ledger, and finds it taken.
func TestWhoUnlocksTheLedgerLooksOnceMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		c := add(t, s, "a")
		s.lock()
		s.ledger.testHook = func(m moment) {
			if m == beforeUnlock {
				s.ledger.testHook = nil
				must(t, s.Remove("a"))
			}
		}
		s.unlock()
		synctest.Wait()
		if !c.isClosed(t) {
			t.Error("it was not closed")
		}
	})
}

// Somebody finds the ledger taken, and departs when it is not any more.
func TestWhoDepartsLooksOnceMore(t *testing.T) {
	for range 20 { // in most of them, the one who departs has come so far
		s := open(t)
		c := add(t, s, "a")
		e := s.index.find("a")
		l := &s.ledger
		l.mu.Lock()
		l.departed.mu.Lock()
		var wg sync.WaitGroup
		wg.Go(func() { must(t, s.Remove("a")) })
		for e.load().phase() != gone {
			runtime.Gosched()
		}
		for range 1000 {
			runtime.Gosched()
		}
		l.mu.Unlock() // without a look
		l.departed.mu.Unlock()
		wg.Wait()
		for n := 0; c.closed.Load() == 0; n++ {
			if n == 1_000_000 {
				t.Fatal("it was not closed")
			}
			runtime.Gosched()
		}
	}
}

// Whoever unlocks the ledger does not work for others for ever: the janitor does.
func TestTheJanitorSettlesThoseWhomNobodyElseDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		var all []*conn
		for i := range mostServed + 3 {
			all = append(all, add(t, s, fmt.Sprint(i)))
		}
		s.lock()
		leaving := 0
		s.ledger.testHook = func(m moment) {
			if m == beforeUnlock && leaving <= mostServed {
				leaving++ // one more, whenever the last one was settled
				must(t, s.Remove(fmt.Sprint(leaving)))
			}
		}
		s.unlock()
		if leaving != mostServed+1 || s.ledger.departed.none() {
			t.Fatalf("%d have departed, and nobody waits", leaving)
		}
		pass(1)
		for i, c := range all[1 : leaving+1] {
			if !c.isClosed(t) {
				t.Errorf("%d was not closed", i+1)
			}
		}
	})
}

// A session that has ended is on its way to the closers, nobody has it.
func TestShutdownWaitsForThoseOnTheirWayToTheClosers(t *testing.T) {
	s := open(t)
	c := add(t, s, "a")
	onTheWay, goOn := make(chan struct{}), make(chan struct{})
	var met atomic.Bool
	s.lock()
	s.ledger.testHook = func(m moment) {
		if m == afterUnlock && s.ledger.handing.Load() > 0 && met.CompareAndSwap(false, true) {
			close(onTheWay)
			<-goOn
		}
	}
	s.unlock()
	var wg sync.WaitGroup
	wg.Go(func() { must(t, s.Remove("a")) })
	<-onTheWay
	if n := s.Stats().Closing; n != 1 {
		t.Errorf("%d are closing, want the one on its way", n)
	}
	done := make(chan error)
	go func() { done <- s.Shutdown(t.Context()) }()
	for range 10_000 { // time for a Shutdown that does not wait
		runtime.Gosched()
	}
	select {
	case <-done:
		t.Error("Shutdown returned before the session was closed")
		close(goOn)
	default:
		close(goOn)
		must(t, <-done)
	}
	wg.Wait()
	if c.closed.Load() == 0 {
		t.Error("Shutdown returned before the session was closed")
	}
}

func TestWhoHasDepartedIsExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		add(t, s, "a")
		s.lock()
		must(t, s.Remove("a"))
		s.ledger.mu.Unlock() // without a look
		if ev, ok := s.Explain(s.Fingerprint("a")); !ok || ev.Reason != ReasonClosed {
			t.Errorf("explained as %v, %v", ev, ok)
		}
	})
}

// Whoever ends a session when too many are waiting waits for the ledger himself.
func TestDeparturesDoNotPileUp(t *testing.T) {
	s := open(t)
	const n = 2 * mostDeparted
	for i := range n {
		add(t, s, fmt.Sprint(i))
	}
	s.lock()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range n {
			must(t, s.Remove(fmt.Sprint(i)))
		}
	})
	d := &s.ledger.departed
	for range 100_000 {
		if d.n.Load() > mostDeparted {
			break
		}
		runtime.Gosched()
	}
	if got := d.n.Load(); got != mostDeparted {
		t.Errorf("%d are waiting, want %d", got, mostDeparted)
	}
	s.unlock()
	wg.Wait()
	if live := s.Len(); live != 0 {
		t.Errorf("%d are live", live)
	}
}

// Many end sessions at the same time, and none is forgotten.
func TestNobodyWhoDepartsIsForgotten(t *testing.T) {
	const workers, each = 8, 2000
	s := open(t)
	for w := range workers {
		for i := range each {
			add(t, s, fmt.Sprint(w, "/", i))
		}
	}
	stop := watch(func() bool {
		n := s.ledger.departed.n.Load()
		if n > mostDeparted+workers {
			t.Errorf("%d have departed and are not settled", n)
		}
		return n <= mostDeparted+workers
	})
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				if err := s.Remove(fmt.Sprint(w, "/", i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	stop()
	must(t, s.Check())
	if st := s.Stats(); st.Live != 0 || st.Ended[ReasonClosed] != workers*each {
		t.Errorf("%d are live, %d were closed", st.Live, st.Ended[ReasonClosed])
	}
}

// Somebody has just ended a session, and has not yet come to telling the ledger,
// when a shutdown runs out of time.
func TestShutdownPastItsDeadlineFindsThoseWhoHaveJustEnded(t *testing.T) {
	for name, used := range map[string]bool{"idle": false, "in use": true} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			c := new(conn)
			l, err := s.Add("a", c, Origin{})
			must(t, err)
			if !used {
				l.Release()
			}
			e := s.index.find("a")
			if st := e.load(); !e.swap(st, st.ended(ReasonClosed)) {
				t.Fatal("it has changed")
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			killed := 0
			if se := (*ShutdownError)(nil); errors.As(s.Shutdown(ctx), &se) {
				killed = se.Killed
			}
			if st := s.Stats(); st.Live+st.Retired != 0 || (killed == 1) != used {
				t.Errorf("%d were killed, %d are live, %d retired", killed, st.Live, st.Retired)
			}
			s.depart(e)
			must(t, s.Shutdown(t.Context()))
			if n := c.closed.Load(); n != 1 {
				t.Errorf("it was closed %d times", n)
			}
		})
	}
}
