// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The tests in this file run real goroutines in real time. They end after a
// number of operations, and wait for no clock.

// crowd is many who do anything to one store, and what they know of it.
type crowd struct {
	t     *testing.T
	store *Store[*used]
	kills bool // some end sessions that others use

	mu       sync.Mutex
	stored   []*used
	rejected []*used
}

// used is a session that knows whether somebody uses it.
type used struct {
	leases, closed atomic.Int32
	inUse          atomic.Bool // when it was closed
}

func (u *used) Close() error {
	if u.leases.Load() != 0 {
		u.inUse.Store(true)
	}
	u.closed.Add(1)
	runtime.Gosched()
	return nil
}

const crowdKeys = 6

// work does n things at random.
func (c *crowd) work(seed uint64, n int) {
	r := rand.New(rand.NewPCG(seed, 1))
	for range n {
		c.act(r, fmt.Sprint("key", r.IntN(crowdKeys)))
	}
}

func (c *crowd) act(r *rand.Rand, id string) {
	s := c.store
	switch r.IntN(16) {
	case 0, 1:
		u := new(used)
		l, err := s.Add(id, u, Origin{Holds: r.IntN(2) == 0})
		if c.entered(u, err, ErrExists) {
			c.use(r, &l)
		}
	case 2:
		u := new(used)
		c.entered(u, s.Put(id, u, Origin{}), nil)
	case 3: // the same again
		if u, err := s.Peek(id); err == nil {
			_ = s.Touch(id)
			_ = u.closed.Load() // no lease: it may be closed at any time
		}
	case 4, 5, 6, 7:
		if l, err := s.Acquire(id); err == nil {
			c.use(r, &l)
		} else if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrShutdown) {
			c.t.Errorf("Acquire: %v", err)
		}
	case 8:
		_ = s.Remove(id)
	case 9:
		_ = s.Confirm(id)
	case 10:
		_ = s.Hold(id)
	case 11:
		_, _ = s.Get(id)
	case 12:
		if c.kills {
			s.Kill(s.Fingerprint(id))
		}
	case 13:
		for range s.All() {
		}
		if st := s.Stats(); st.Created != uint64(st.Live)+st.Ended.Total() {
			c.t.Errorf("live and ended ones are not those that were created: %+v", st)
		}
	case 14:
		_, _ = s.Explain(s.Fingerprint(id))
	case 15:
		ms := func(n int) time.Duration { return time.Duration(1+r.IntN(n)) * time.Millisecond }
		if err := s.Reconfigure(WithMaxSessions(2+r.IntN(7)), WithIdleTimeout(ms(3)), WithLifetime(3*time.Millisecond+ms(5)),
			WithUnconfirmedTimeouts(ms(1), ms(1)), WithWhenFull(WhenFull(r.IntN(3)))); err != nil && !errors.Is(err, ErrShutdown) {
			c.t.Errorf("Reconfigure: %v", err)
		}
	}
}

// entered notes what became of u.
func (c *crowd) entered(u *used, err, mayBe error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.stored = append(c.stored, u)
		return true
	}
	c.rejected = append(c.rejected, u)
	if !errors.Is(err, ErrFull) && !errors.Is(err, ErrShutdown) && (mayBe == nil || !errors.Is(err, mayBe)) {
		c.t.Errorf("insert: %v", err)
	}
	return false
}

// use is a call that runs under a lease.
func (c *crowd) use(r *rand.Rand, l *Lease[*used]) {
	u := l.Session()
	u.leases.Add(1)
	for range r.IntN(20) {
		runtime.Gosched()
		// Closed means canceled before. So the order of these two matters.
		if u.closed.Load() > 0 && l.Context().Err() == nil {
			c.t.Error("a session was closed under its user, and its context was not canceled first")
		}
	}
	if r.IntN(3) == 0 {
		l.Confirm()
	}
	if r.IntN(3) == 0 {
		l.Hold()
	}
	u.leases.Add(-1)
	l.Release()
}

// check checks what must hold after a shutdown that returned nil.
func (c *crowd) check() {
	st := c.store.Stats()
	if n := uint64(len(c.stored)); st.Created != n || st.Ended.Total() != n || st.Closed != n || st.Live+st.Retired+st.Closing != 0 || st.CloseFailed != 0 {
		c.t.Errorf("%d were stored: %+v", n, st)
	}
	for _, u := range c.stored {
		if n := u.closed.Load(); n != 1 {
			c.t.Errorf("a stored session was closed %d times", n)
		}
		if u.inUse.Load() && !c.kills {
			c.t.Error("a session was closed while it was in use")
		}
	}
	for _, u := range c.rejected {
		if u.closed.Load() != 0 {
			c.t.Error("a session that was not stored was closed")
		}
	}
}

func newCrowd(t *testing.T, kills bool, r *recorder) *crowd {
	return &crowd{t: t, kills: kills, store: openOf[*used](t, WithMaxSessions(4), WithIdleTimeout(2*time.Millisecond), WithLifetime(5*time.Millisecond),
		WithUnconfirmedTimeouts(time.Millisecond, time.Millisecond), WithClosers(2), WithMaxLeaseAge(0), WithObserver(r.observe))}
}

func TestRaceEverySessionIsClosedOnceAndNotInUse(t *testing.T) {
	for name, kills := range map[string]bool{"without kills": false, "with kills": true} {
		t.Run(name, func(t *testing.T) {
			r := new(recorder)
			c := newCrowd(t, kills, r)
			var wg sync.WaitGroup
			for w := range 10 {
				wg.Go(func() { c.work(uint64(w), 3000) })
			}
			for range 100 { // in the middle of it
				must(t, c.store.Check())
				runtime.Gosched()
			}
			wg.Wait()
			must(t, c.store.Shutdown(t.Context()))
			c.check()
			checkStories(t, r.all())
			if st := c.store.Stats(); st.Refused == 0 || st.EverConfirmed == 0 ||
				st.Ended[ReasonCapacity] == 0 || st.Ended[ReasonClosed] == 0 || st.Ended[ReasonReplaced] == 0 {
				t.Errorf("the crowd was too lame: %+v", st)
			}
		})
	}
}

// A shutdown comes in the middle of everything. When it returns nil, all is
// closed, though others are still busy with what they were doing.
func TestRaceShutdownInTheMiddle(t *testing.T) {
	for round := range 100 {
		r := new(recorder)
		c := newCrowd(t, round%2 == 0, r)
		var started, wg sync.WaitGroup
		started.Add(4)
		for w := range 4 {
			wg.Go(func() {
				c.work(uint64(round*4+w), 20)
				started.Done()
				c.work(uint64(round*4+w), 200)
			})
		}
		started.Wait()
		err := c.store.Shutdown(context.Background())
		st := c.store.Stats()
		wg.Wait()
		if err != nil || st.Closed != st.Created || st.Closing+st.Live+st.Retired != 0 {
			t.Errorf("after the shutdown (%v): %+v", err, st)
		}
		c.check()
		checkStories(t, r.all())
		if t.Failed() {
			return
		}
	}
}

// The same, but the shutdown's time is up at once. What it says is true, and
// the next one finishes what it left.
func TestRaceShutdownPastItsDeadline(t *testing.T) {
	for round := range 100 {
		r := new(recorder)
		c := newCrowd(t, true, r)
		var started, wg sync.WaitGroup
		started.Add(4)
		for w := range 4 {
			wg.Go(func() {
				c.work(uint64(round*4+w), 20)
				started.Done()
				c.work(uint64(round*4+w), 200)
			})
		}
		started.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := c.store.Shutdown(ctx)
		st := c.store.Stats()
		if se := (*ShutdownError)(nil); err != nil && (!errors.As(err, &se) || !errors.Is(err, context.Canceled)) {
			t.Errorf("shutdown: %v", err)
		}
		if st.Live+st.Retired != 0 {
			t.Errorf("a shutdown that is out of time left some in use: %+v", st)
		}
		wg.Wait()
		must(t, c.store.Shutdown(t.Context()))
		c.check()
		checkStories(t, r.all())
		if t.Failed() {
			return
		}
	}
}

// Readers take no lock that others hold for long: a sweep of many does not keep
// them from their sessions.
func TestRaceReadersDuringAMassExpiry(t *testing.T) {
	const dying, living, workers = 20_000, 100, 4
	s := open(t, WithIdleTimeout(time.Hour), WithMaxSessions(0), WithUnconfirmedTimeouts(time.Hour, time.Hour))
	for i := range living {
		addConfirmed(t, s, fmt.Sprint("living", i))
	}
	for i := range dying {
		must(t, s.Put(fmt.Sprint("dying", i), new(conn), Origin{}))
	}
	must(t, s.Reconfigure(WithUnconfirmedTimeouts(time.Millisecond, time.Hour)))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; s.Len() > living; i++ {
				l, err := s.Acquire(fmt.Sprint("living", (i+w)%living))
				if err != nil {
					t.Errorf("a living one is lost: %v", err)
					return
				}
				l.Release()
			}
		})
	}
	wg.Wait()
	if st := s.Stats(); st.Live != living || st.Ended[ReasonUnconfirmed] != dying {
		t.Errorf("live %d, ended %v", st.Live, st.Ended)
	}
}
