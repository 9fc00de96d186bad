// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover/internal/resource"
)

// A place that is just becoming free is waited for, whyever it is: nobody is refused
// while none is in use. That takes no longer than the caller's context.
func TestAPlaceThatIsBecomingFreeIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		w.closing = func(string) error { <-time.After(time.Second); return nil }
		w.use(s, "x")
		s.Discard(w.kind, "x")
		w.use(s, "x")
		<-time.After(time.Minute + 500*time.Millisecond) // x is idle, and closing
		w.use(s, "y")
		s.Discard(w.kind, "y")
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := s.Acquire(ctx, w.kind, "z", w.opens("z"))
		wantErr(t, err, context.DeadlineExceeded)
		w.done(s)
		w.wantClosed("x", "x", "y")
		if w.most != 1 || w.pool.Stats().Refused != 0 {
			t.Errorf("%d were open at a time, %+v", w.most, w.pool.Stats())
		}
	})
}

// To lower the maximum by many leaves exactly as many as there may be, and those in
// use untouched.
func TestFarFewerPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 200)
		var sets []*resource.Set
		var busy []*resource.Lease
		var inUse []string
		for i := range 5 {
			sets = append(sets, w.pool.NewSet(nil, fmt.Sprint(i)))
		}
		for i := range 200 {
			l := w.get(sets[min(i%7, 4)], fmt.Sprint(i))
			if i%20 == 0 {
				busy, inUse = append(busy, l), append(inUse, fmt.Sprint(i))
				continue
			}
			l.Release()
		}
		for _, places := range []int{199, 120, 30, 11} {
			w.pool.SetMax(places)
			synctest.Wait()
			if st := w.pool.Stats(); st.Open != places || st.Places != places || st.Busy != len(busy) || st.Evicted != uint64(200-places) {
				t.Errorf("of %d places: %+v", places, st)
			}
		}
		slices.Sort(inUse)
		w.pool.SetMax(1)
		w.wantOpen(inUse...)
		for _, l := range busy {
			l.Release()
		}
		synctest.Wait()
		if st := w.pool.Stats(); st.Open != 1 {
			t.Errorf("%+v", st)
		}
		w.done(sets...)
	})
}

// An owner that comes from another source from now on takes along all places that it
// has, be they of things that are open, or are being opened or closed.
func TestAnOwnerThatMovesTakesItsPlacesAlong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 5)
		moves, light := w.pool.NewSet(nil, "before"), w.pool.NewSet(nil, "before")
		gate := make(chan struct{})
		w.closing = func(name string) error {
			if name == "closing" {
				<-gate
			}
			return nil
		}
		w.use(moves, "closing")
		moves.Discard(w.kind, "closing")
		go func() {
			l, err := moves.Acquire(t.Context(), w.kind, "opening", func(ctx context.Context) (any, error) { <-gate; return w.opens("opening")(ctx) })
			wantErr(t, err, nil)
			l.Release()
		}()
		synctest.Wait()
		w.use(light, "light")
		<-time.After(time.Second)
		w.use(moves, "open")
		moves.SetSource("after")
		// After has three places, before has one, and the newcomer comes from where two are.
		two := w.pool.NewSet(nil, "two")
		w.use(two, "1")
		two.Hold(w.kind, "1", time.Hour)
		w.use(two, "2") // not in place of the one that is lighter, although idle for longer
		w.wantOpen("1", "2", "closing", "light")
		close(gate)
		synctest.Wait()
		w.done(moves, light, two)
	})
}

// Of one in use it is said that it was used to the end.
func TestOneInUseIsNotSaidToBeIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		l := w.get(s, "x")
		<-time.After(time.Hour)
		wantErr(t, s.Close(), nil)
		if idle := time.Since(w.endings[0].Used); idle != 0 {
			t.Errorf("it is said to have been idle for %s", idle)
		}
		l.Release()
		w.done()
	})
}

// Whatever uses and holds come in between, a thing is closed at the moment when it
// has been idle for long enough, and is not held.
func TestNothingIdlesOutEarlyOrLate(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) { idlesOutOnTime(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

func idlesOutOnTime(t *testing.T, r *rand.Rand) {
	w := newWorld(t, 10)
	s := w.pool.NewSet(nil, "a")
	var mu sync.Mutex
	var held time.Time
	w.kind.Closed = func(e resource.Ending) {
		mu.Lock()
		defer mu.Unlock()
		want := e.Used.Add(w.kind.Idle)
		if held.After(want) {
			want = held
		}
		if e.Reason == resource.Idle && !time.Now().Equal(want) {
			t.Errorf("at %s, want %s, used %s", time.Now(), want, e.Used)
		}
		held = time.Time{}
	}
	for range 500 {
		if r.IntN(4) == 0 {
			d := time.Duration(r.IntN(300)-90) * time.Second
			mu.Lock()
			if s.Hold(w.kind, "x", d) {
				held = time.Now().Add(max(0, d)) // at once, if it has been idle for long enough by then
			}
			mu.Unlock()
		} else {
			l := w.get(s, "x")
			<-time.After(time.Duration(r.IntN(3)) * 30 * time.Second)
			l.Release()
		}
		<-time.After(time.Duration(r.IntN(90)) * time.Second)
	}
	w.done(s)
}

// Whoever does whatever at the same time: nothing is closed twice, or under who uses
// it, there are never more than may be, and all that was opened is closed.
func TestACrowdLeavesNothingBehind(t *testing.T) {
	for seed := range uint64(4) {
		for _, lowers := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t, lowers)
				var wg sync.WaitGroup
				for member := range uint64(8) {
					r := rand.New(rand.NewPCG(seed, member))
					wg.Go(func() {
						for range 200 {
							c.step(r)
							<-time.After(millis(r.IntN(20)))
						}
					})
				}
				wg.Wait()
				c.end()
			})
		}
	}
}

const crowdPlaces = 4

// crowd are many who use the same few things of the same few owners.
type crowd struct {
	t      *testing.T
	pool   *resource.Pool
	kinds  []*resource.Kind
	lowers bool // the maximum changes

	open, opened, closed, told atomic.Int32 // really

	mu     sync.Mutex
	owners []*crowdOwner
}

type crowdOwner struct {
	*resource.Set
	ended atomic.Bool
}

type crowdThing struct {
	owner        *crowdOwner
	uses, closed atomic.Int32
}

func millis(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func newCrowd(t *testing.T, lowers bool) *crowd {
	c := &crowd{t: t, pool: resource.NewPool(crowdPlaces), lowers: lowers}
	for _, idle := range []time.Duration{millis(50), -1, time.Second} {
		c.kinds = append(c.kinds, &resource.Kind{Name: "thing", Idle: idle, CloseWithin: time.Minute, Close: c.close,
			Closed: func(resource.Ending) { c.told.Add(1) }})
	}
	for i := range 4 {
		c.owners = append(c.owners, c.owner(i))
	}
	return c
}

func (c *crowd) owner(i int) *crowdOwner {
	return &crowdOwner{Set: c.pool.NewSet(i, fmt.Sprint("source", i%2))}
}

func (c *crowd) close(v any) error {
	x := v.(*crowdThing)
	if x.closed.Add(1) != 1 {
		c.t.Error("closed twice")
	}
	if x.uses.Load() > 0 && !x.owner.ended.Load() {
		c.t.Error("closed in use")
	}
	<-time.After(millis(rand.IntN(20)))
	c.open.Add(-1)
	c.closed.Add(1)
	switch rand.IntN(10) {
	case 0:
		panic("planned")
	case 1:
		runtime.Goexit()
	case 2:
		return errors.New("planned")
	}
	return nil
}

// opens returns an Open that takes a while, and may fail.
func (c *crowd) opens(o *crowdOwner, takes time.Duration, outcome int) func(context.Context) (any, error) {
	return func(ctx context.Context) (_ any, err error) {
		if n := c.open.Add(1); n > crowdPlaces && !c.lowers {
			c.t.Errorf("%d are open", n)
		}
		fine := false
		defer func() {
			if !fine {
				c.open.Add(-1)
			}
		}()
		select {
		case <-time.After(takes):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		switch outcome {
		case 0:
			panic("planned")
		case 1:
			return nil, errors.New("planned")
		}
		fine = true
		c.opened.Add(1)
		return &crowdThing{owner: o}, nil
	}
}

// use uses what a lease is on, if it is not nil, and gives it back.
func (c *crowd) use(l *resource.Lease, takes time.Duration) {
	if l == nil {
		return
	}
	x := l.Value().(*crowdThing)
	x.uses.Add(1)
	<-time.After(takes)
	if x.closed.Load() > 0 && !x.owner.ended.Load() {
		c.t.Error("closed under its user")
	}
	x.uses.Add(-1)
	l.Release()
	l.Release()
}

// step does something.
func (c *crowd) step(r *rand.Rand) {
	i := r.IntN(len(c.owners))
	c.mu.Lock()
	o := c.owners[i]
	c.mu.Unlock()
	kind, name := c.kinds[r.IntN(len(c.kinds))], fmt.Sprint(r.IntN(3))
	ctx, cancel := context.WithTimeout(c.t.Context(), millis(r.IntN(100)))
	defer cancel()
	switch what := r.IntN(48); {
	case what < 4:
		o.Discard(kind, name)
	case what < 8:
		o.Hold(kind, name, millis(r.IntN(300)-50))
	case what < 12:
		if c.lowers {
			c.pool.SetMax(1 + r.IntN(6))
		}
	case what < 13:
		c.replace(i, o)
	case what < 17:
		l, _ := o.Opened(ctx, kind, name)
		c.use(l, millis(r.IntN(30)))
	case what < 19:
		o.SetSource(fmt.Sprint("source", r.IntN(3)))
	case what < 21:
		o.Confirm()
		if st := c.pool.Stats(); st.Places < 0 || st.Closing < 0 || st.Hung < 0 || st.Opening < 0 || st.Open < st.Busy+st.Held {
			c.t.Errorf("%+v", st)
		}
	default:
		l, _ := o.Acquire(ctx, kind, name, c.opens(o, millis(r.IntN(40)), r.IntN(12)))
		c.use(l, millis(r.IntN(60)))
	}
}

// replace ends an owner, and has another one be there instead.
func (c *crowd) replace(i int, o *crowdOwner) {
	c.mu.Lock()
	c.owners[i] = c.owner(i)
	c.mu.Unlock()
	o.ended.Store(true)
	_ = o.Close() // some of these fail on purpose
}

// end ends all owners, and checks what is left.
func (c *crowd) end() {
	for i, o := range slices.Clone(c.owners) {
		c.replace(i, o)
	}
	if left := c.pool.Wait(c.t.Context()); left != 0 {
		c.t.Errorf("%d are left", left)
	}
	st := c.pool.Stats()
	opened := uint64(c.opened.Load())
	if st.Places+st.Opening+st.Open+st.Busy+st.Held+st.Closing+st.Hung != 0 || st.Opened != opened ||
		st.EndedIdle+st.Evicted+st.EndedOwner+st.Discarded != opened {
		c.t.Errorf("%d were opened, %+v", opened, st)
	}
	if c.open.Load() != 0 || c.closed.Load() != c.opened.Load() || c.told.Load() != c.opened.Load() {
		c.t.Errorf("opened %d, closed %d, told of %d, open %d", opened, c.closed.Load(), c.told.Load(), c.open.Load())
	}
}
