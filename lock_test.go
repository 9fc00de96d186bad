// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"runtime"
	"sync"
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

// Whoever unlocks the ledger does not work for others for ever.
func TestTheJanitorSettlesThoseWhomNobodyElseDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		c := add(t, s, "a")
		s.lock()
		must(t, s.Remove("a"))
		s.wake(s.clock.now())
		s.ledger.mu.Unlock() // as after the last of many looks
		pass(1)
		if !c.isClosed(t) {
			t.Error("it was not closed")
		}
	})
}

// More end than are settled on the way: those who end them lend a hand.
func TestDeparturesAreBounded(t *testing.T) {
	const workers, each = 8, 2000
	s := open(t)
	for w := range workers {
		for i := range each {
			add(t, s, fmt.Sprint(w, "/", i))
		}
	}
	stop := make(chan struct{})
	var watch, wg sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if n := s.ledger.departed.n.Load(); n > mostDeparted+workers {
					t.Errorf("%d have departed and are not settled", n)
					return
				}
				runtime.Gosched()
			}
		}
	})
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
	close(stop)
	watch.Wait()
	must(t, s.Check())
	if st := s.Stats(); st.Live != 0 || st.Ended[ReasonClosed] != workers*each {
		t.Errorf("%d are live, %d were closed", st.Live, st.Ended[ReasonClosed])
	}
}
