// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A store full of idle sessions whose Close is instant refuses nobody, however
// fast newcomers come and whoever has the CPU.
func TestNewcomersWaitForClosersThatWork(t *testing.T) {
	s := open(t, WithMaxSessions(100))
	var refused atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				l, err := s.Add(fmt.Sprint(w, " ", i), new(conn), Origin{})
				if err != nil {
					refused.Add(1)
				}
				l.Release()
			}
		})
	}
	wg.Wait()
	if n := refused.Load(); n > 0 {
		t.Errorf("%d of 40000 were refused: %+v", n, s.Stats())
	}
}

// Who is refused for another reason than closers that hang is told that reason,
// and does not wait for them.
func TestHangingClosersHideNoOtherAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(2), WithClosers(1), WithHungClose(0))
		hang := make(chan struct{})
		add(t, s, "stays")
		for i := range minClosing {
			must(t, s.Put(fmt.Sprint(i), &conn{close: func() error { <-hang; return nil }}, Origin{}))
			must(t, s.Remove(fmt.Sprint(i)))
		}
		began := time.Now()
		wantErr(t, second(s.Add("stays", new(conn), Origin{})), ErrExists)
		s.Drain()
		wantErr(t, second(s.Add("b", new(conn), Origin{})), ErrDraining)
		if waited := time.Since(began); waited > 0 {
			t.Errorf("they waited %s", waited)
		}
		close(hang)
	})
}

// Expired sessions leave before others, also where many must first be filed
// again and no sweep has come.
func TestExpiredLeaveBeforeOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const last = batch + 43
		s := open(t, WithMaxSessions(last+1), WithIdleTimeout(time.Minute))
		for i := range last + 1 {
			add(t, s, fmt.Sprint(i))
			must(t, s.Confirm(fmt.Sprint(i)))
		}
		pass(10 * time.Millisecond)
		must(t, s.Touch(fmt.Sprint(last))) // the first to expire, the last to be looked at
		pass(30 * time.Second)
		for i := range last {
			must(t, s.Touch(fmt.Sprint(i)))
		}
		s.lock()
		if s.ledger.timer.Stop() { // a sweep that does not come
			s.ledger.sweeps.Done()
		}
		s.unlock()
		pass(30*time.Second + time.Second/2)
		add(t, s, "new")
		for i := range last {
			if _, err := s.Peek(fmt.Sprint(i)); err != nil {
				t.Fatalf("%d left although another one is expired: %v", i, err)
			}
		}
	})
}

// Sessions that were busy when the maximum was lowered leave as they are
// released, whenever that is.
func TestNoReleaseSlipsThroughALoweredMaximum(t *testing.T) {
	for round := range 200 {
		s := open(t, WithMaxSessions(8))
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range 8 {
			_, l := addLeased(t, s, fmt.Sprint(i))
			wg.Go(func() {
				<-start
				l.Release()
			})
		}
		wg.Go(func() {
			<-start
			if err := s.Reconfigure(WithMaxSessions(1)); err != nil {
				t.Error(err)
			}
		})
		close(start)
		wg.Wait()
		if n := s.Len(); n > 1 {
			t.Fatalf("round %d: %d sessions are live, the maximum is 1, and all are idle", round, n)
		}
	}
}

// A lease that was copied, against the documentation, costs the session that
// lease; it does not wedge the store.
func TestReleasingTooOftenHarmsNoOther(t *testing.T) {
	s := open(t)
	c, l := addLeased(t, s, "a")
	e := l.entry
	l.Release()
	s.release(e, false) // what the copy does
	must(t, s.Remove("a"))
	must(t, s.Shutdown(t.Context()))
	if n := c.closed.Load(); n != 1 {
		t.Errorf("closed %d times", n)
	}
}

// After a shutdown nothing can be changed.
func TestReconfigureAfterShutdown(t *testing.T) {
	s := open(t)
	must(t, s.Shutdown(t.Context()))
	if err := s.Reconfigure(WithMaxSessions(1)); !errors.Is(err, ErrShutdown) {
		t.Errorf("got %v", err)
	}
}
