// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover/internal/resource"
	"github.com/c8e4ff29/layover/janitor"
)

// world is a pool whose things are strings. It notes what happens to them.
type world struct {
	t    *testing.T
	pool *resource.Pool
	kind *resource.Kind

	mu      sync.Mutex
	opened  []string
	closed  []string
	endings []resource.Ending
	open    int // really
	most    int
	closing func(name string) error // what Close does besides
}

func newWorld(t *testing.T, places int) *world {
	w := &world{t: t, pool: resource.NewPool(places)}
	w.kind = &resource.Kind{Name: "thing", Idle: time.Minute, CloseWithin: 10 * time.Second,
		Close: func(v any) error {
			w.mu.Lock()
			closing := w.closing
			w.mu.Unlock()
			defer func() {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.closed = append(w.closed, v.(string))
				w.open--
			}()
			if closing != nil {
				return closing(v.(string))
			}
			return nil
		},
		Closed: func(e resource.Ending) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.endings = append(w.endings, e)
		}}
	return w
}

// opens returns an Open that takes no time.
func (w *world) opens(name string) func(context.Context) (any, error) {
	return func(context.Context) (any, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.opened = append(w.opened, name)
		w.open++
		w.most = max(w.most, w.open)
		return name, nil
	}
}

func (w *world) get(s *resource.Set, name string) *resource.Lease {
	w.t.Helper()
	l, err := s.Acquire(w.t.Context(), w.kind, name, w.opens(name))
	if err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	if l.Value() != name {
		w.t.Fatalf("%s: got %v", name, l.Value())
	}
	return l
}

// use is get of somebody who needs it but for a moment.
func (w *world) use(s *resource.Set, name string) {
	w.t.Helper()
	w.get(s, name).Release()
}

func (w *world) wantOpen(names ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	left := slices.Clone(w.opened)
	for _, name := range w.closed {
		i := slices.Index(left, name)
		if i < 0 {
			w.t.Fatalf("%s was closed more often than opened", name)
		}
		left = slices.Delete(left, i, i+1)
	}
	slices.Sort(left)
	if !slices.Equal(left, names) {
		w.t.Errorf("open are %q, want %q", left, names)
	}
}

func (w *world) wantClosed(names ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.closed, names) {
		w.t.Errorf("closed were %q, want %q", w.closed, names)
	}
}

// done checks that nothing is left.
func (w *world) done(sets ...*resource.Set) {
	w.t.Helper()
	for _, s := range sets {
		_ = s.Close()
	}
	if left := w.pool.Wait(w.t.Context()); left != 0 {
		w.t.Errorf("%d closes are left", left)
	}
	s := w.pool.Stats()
	if s.Places+s.Open+s.Busy+s.Held+s.Closing+s.Hung != 0 {
		w.t.Errorf("something is left: %+v", s)
	}
	if ended := s.EndedIdle + s.Evicted + s.EndedOwner + s.Discarded; ended != s.Opened {
		w.t.Errorf("%d were opened and %d ended", s.Opened, ended)
	}
}

func wantErr(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOpenedOnceHoweverManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				l, err := s.Acquire(t.Context(), w.kind, "x", func(ctx context.Context) (any, error) {
					<-time.After(time.Second)
					return w.opens("x")(ctx)
				})
				if err != nil {
					t.Error(err)
					return
				}
				l.Release()
				l.Release()
			})
		}
		wg.Wait()
		w.wantOpen("x")
		w.done(s)
		w.wantClosed("x")
	})
}

func TestAFailedOpenIsSharedAndNotRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		broken, tries := errors.New("broken"), 0
		fails := func(context.Context) (any, error) {
			tries++
			<-time.After(time.Second)
			return nil, broken
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := s.Acquire(t.Context(), w.kind, "x", fails)
				wantErr(t, err, broken)
			})
		}
		wg.Wait()
		if tries != 1 {
			t.Errorf("it was tried %d times", tries)
		}
		w.use(s, "x") // there is only one place
		w.done(s)
	})
}

// Who waits for an opener whose own call ends opens it in its place.
func TestAnOpenerThatLeavesFailsNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := s.Acquire(ctx, w.kind, "x", func(ctx context.Context) (any, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			})
			wantErr(t, err, context.Canceled)
		}()
		synctest.Wait()
		go w.use(s, "x")
		synctest.Wait()
		cancel()
		w.wantOpen("x")
		w.done(s)
	})
}

func TestWhoWaitsForAnOpenWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		release := make(chan struct{})
		go func() {
			l, err := s.Acquire(t.Context(), w.kind, "x", func(ctx context.Context) (any, error) { <-release; return w.opens("x")(ctx) })
			wantErr(t, err, nil)
			l.Release()
		}()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Acquire(ctx, w.kind, "x", w.opens("x"))
		wantErr(t, err, context.DeadlineExceeded)
		_, err = s.Opened(ctx, w.kind, "x")
		wantErr(t, err, context.DeadlineExceeded)
		close(release)
		synctest.Wait()
		w.done(s)
	})
}

func TestForeignCodeThatPanicsOrExitsIsContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		_, err := s.Acquire(t.Context(), w.kind, "x", func(context.Context) (any, error) { panic("secret") })
		if p := (*janitor.PanicError)(nil); !errors.As(err, &p) || p.Value != "secret" {
			t.Errorf("got %v", err)
		}
		exited := make(chan struct{})
		go func() {
			defer close(exited)
			_, _ = s.Acquire(t.Context(), w.kind, "x", func(context.Context) (any, error) { runtime.Goexit(); return nil, nil })
		}()
		synctest.Wait()
		<-exited
		w.use(s, "x")
		w.closing = func(string) error { panic("secret") }
		err = s.Close()
		if p := (*janitor.PanicError)(nil); !errors.As(err, &p) {
			t.Errorf("got %v", err)
		}
		s = w.pool.NewSet(nil, "a")
		w.use(s, "y")
		w.closing = func(string) error { runtime.Goexit(); return nil }
		wantErr(t, s.Close(), janitor.ErrGoexit)
		w.kind.Closed = func(resource.Ending) { panic("observer") }
		w.closing = nil
		s = w.pool.NewSet(nil, "a")
		w.use(s, "z")
		wantErr(t, s.Close(), nil)
		w.done()
		w.wantClosed("x", "y", "z")
	})
}

func TestClosedInReverseOrderOfOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		s := w.pool.NewSet(nil, "a")
		for i := range 9 {
			w.use(s, fmt.Sprint(i))
		}
		// One that asks for another one is opened after that.
		l, err := s.Acquire(t.Context(), w.kind, "outer", func(ctx context.Context) (any, error) {
			inner, err := s.Acquire(ctx, w.kind, "inner", w.opens("inner"))
			wantErr(t, err, nil)
			inner.Release()
			return w.opens("outer")(ctx)
		})
		wantErr(t, err, nil)
		l.Release()
		wantErr(t, s.Close(), nil)
		w.wantClosed("outer", "inner", "8", "7", "6", "5", "4", "3", "2", "1", "0")
		_, err = s.Acquire(t.Context(), w.kind, "x", w.opens("x"))
		wantErr(t, err, resource.ErrEnded)
		w.done()
	})
}

func TestAnOpenThatAsksForItselfIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		s := w.pool.NewSet(nil, "a")
		_, err := s.Acquire(t.Context(), w.kind, "x", func(ctx context.Context) (any, error) {
			l, err := s.Acquire(ctx, w.kind, "y", func(ctx context.Context) (any, error) {
				_, err := s.Acquire(ctx, w.kind, "x", w.opens("x"))
				return nil, err
			})
			if err == nil {
				l.Release()
			}
			return nil, err
		})
		wantErr(t, err, resource.ErrRecursive)
		w.done(s)
	})
}

// Idle is counted from the end of the last use, never early, and what is in use is
// not idle.
func TestIdleOnesAreClosedOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		l := w.get(s, "x")
		<-time.After(time.Hour)
		w.wantOpen("x")
		l.Release()
		for range 10 {
			<-time.After(time.Minute - 1)
			w.wantOpen("x")
			w.use(s, "x")
		}
		<-time.After(time.Minute - 1)
		w.wantOpen("x")
		<-time.After(1)
		w.wantOpen()
		if e := w.endings[0]; e.Reason != resource.Idle || e.Name != "x" || e.Err != nil {
			t.Errorf("it is said to have ended so: %+v", e)
		}
		w.use(s, "x") // the owner goes on
		w.done(s)
		w.wantClosed("x", "x")
	})
}

func TestWithoutAnIdleTimeoutItLivesAsLongAsItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		w.kind.Idle = -1
		s := w.pool.NewSet(nil, "a")
		w.use(s, "x")
		<-time.After(1000 * time.Hour)
		w.wantOpen("x")
		w.done(s)
	})
}

func TestHeldOnesAreNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		if s.Hold(w.kind, "x", time.Hour) {
			t.Error("what is not open cannot be held")
		}
		w.use(s, "x")
		if !s.Hold(w.kind, "x", 5*time.Minute) {
			t.Error("it is not held")
		}
		<-time.After(5*time.Minute - 1)
		w.wantOpen("x")
		<-time.After(1)
		w.wantOpen()
		// Held no longer, it has been idle since its last use.
		w.use(s, "x")
		s.Hold(w.kind, "x", time.Hour)
		<-time.After(2 * time.Minute)
		w.wantOpen("x")
		s.Hold(w.kind, "x", 0)
		w.wantOpen()
		// A hold that is shorter than the idle timeout shortens nothing.
		w.use(s, "x")
		s.Hold(w.kind, "x", time.Second)
		<-time.After(time.Minute - 1)
		w.wantOpen("x")
		<-time.After(1)
		w.wantOpen()
		w.done(s)
	})
}

// Who leaves: never what is in use; of owners that nobody has confirmed before
// others; of the source that has most; least recently used; held ones last.
func TestVictims(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		sets := make(map[string]*resource.Set)
		set := func(source string, confirmed bool) *resource.Set {
			s := w.pool.NewSet(nil, source)
			if confirmed {
				s.Confirm()
			}
			return s
		}
		for _, name := range []string{"a", "b", "c"} {
			sets[name] = set(name, true)
			<-time.After(time.Second)
			w.use(sets[name], name+"1")
		}
		<-time.After(time.Second)
		w.use(sets["b"], "b2")
		sets["d"] = set("d", false)
		<-time.After(time.Second)
		w.use(sets["d"], "d1")
		busy := w.get(sets["a"], "a2")
		newcomer := set("new", true)
		use := func(s *resource.Set, name string) {
			t.Helper()
			<-time.After(time.Second)
			w.use(s, name)
		}
		w.wantOpen("a1", "a2", "b1", "b2", "c1", "d1")
		sets["b"].Hold(w.kind, "b1", time.Hour)

		use(newcomer, "n1") // d1: nobody has confirmed its owner
		w.wantOpen("a1", "a2", "b1", "b2", "c1", "n1")
		use(newcomer, "n2") // a and b have two each, and a1 is the oldest
		w.wantOpen("a2", "b1", "b2", "c1", "n1", "n2")
		use(newcomer, "n3") // b2, as b1 is held; not of a, which is lighter by now
		w.wantOpen("a2", "b1", "c1", "n1", "n2", "n3")
		use(newcomer, "n4") // one of its own: the others have less
		w.wantOpen("a2", "b1", "c1", "n2", "n3", "n4")
		other := set("other", true)
		use(other, "o1")
		w.wantOpen("a2", "b1", "c1", "n3", "n4", "o1")
		for _, s := range []string{"n3", "n4"} {
			newcomer.Hold(w.kind, s, time.Hour)
		}
		use(other, "o2") // c1: neither held nor in use
		w.wantOpen("a2", "b1", "n3", "n4", "o1", "o2")
		busy.Release()
		w.done(sets["a"], sets["b"], sets["c"], sets["d"], newcomer, other)
		if w.most > 6 {
			t.Errorf("%d were open", w.most)
		}
	})
}

func TestAllInUseIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		s := w.pool.NewSet(nil, "a")
		x, y := w.get(s, "x"), w.get(s, "y")
		_, err := s.Acquire(t.Context(), w.kind, "z", w.opens("z"))
		wantErr(t, err, resource.ErrFull)
		x.Release()
		w.use(s, "z")
		w.wantOpen("y", "z")
		y.Release()
		w.done(s)
	})
}

// A newcomer opens only when the one that leaves for it is closed; if it does not
// wait, that one keeps its place.
func TestThePlaceIsFreeOnceTheThingIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a, b, c := w.pool.NewSet(nil, "a"), w.pool.NewSet(nil, "b"), w.pool.NewSet(nil, "c")
		w.use(a, "a")
		release := make(chan struct{})
		w.closing = func(string) error { <-release; return nil }
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			_, err := b.Acquire(ctx, w.kind, "b", w.opens("b"))
			wantErr(t, err, context.Canceled)
		}()
		synctest.Wait()
		w.wantOpen("a")
		cancel()
		synctest.Wait()
		_, err := c.Acquire(t.Context(), w.kind, "c", w.opens("c"))
		wantErr(t, err, resource.ErrFull)
		close(release)
		synctest.Wait()
		w.use(c, "c")
		w.wantOpen("c")
		w.done(a, b, c)
		if w.most != 1 {
			t.Errorf("%d were open at a time", w.most)
		}
	})
}

// A Close that hangs is given up on: others go on, and its place is free, but not
// without bound.
func TestACloseThatHangsIsGivenUpOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		release := make(chan struct{})
		w.closing = func(name string) error {
			if name[0] == 'h' {
				<-release
			}
			return nil
		}
		s := w.pool.NewSet(nil, "a")
		w.use(s, "x")
		w.use(s, "h")
		began := time.Now()
		wantErr(t, s.Close(), resource.ErrHangs)
		if d := time.Since(began); d != w.kind.CloseWithin {
			t.Errorf("it took %s", d)
		}
		w.wantClosed("x")
		if s := w.pool.Stats(); s.Hung != 1 || s.Places != 0 || s.CloseErrors != 1 {
			t.Errorf("%+v", s)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if left := w.pool.Wait(ctx); left != 1 {
			t.Errorf("%d are left", left)
		}
		cancel()
		other := w.pool.NewSet(nil, "a")
		w.use(other, "y")
		w.use(other, "h")
		other.Discard(w.kind, "h")
		<-time.After(w.kind.CloseWithin)
		synctest.Wait()
		_, err := other.Acquire(t.Context(), w.kind, "z", w.opens("z")) // as many hang as there are places
		wantErr(t, err, resource.ErrFull)
		close(release)
		synctest.Wait()
		w.use(other, "z")
		w.done(other)
	})
}

func TestAnOwnerThatEndsClosesWhatIsBeingOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		w.use(s, "x")
		outcome := make(chan error, 2)
		go func() {
			_, err := s.Acquire(t.Context(), w.kind, "y", func(ctx context.Context) (any, error) {
				<-ctx.Done() // it is told
				wantErr(t, context.Cause(ctx), resource.ErrEnded)
				<-time.After(time.Second)
				return w.opens("y")(ctx)
			})
			outcome <- err
		}()
		synctest.Wait()
		go func() {
			_, err := s.Acquire(t.Context(), w.kind, "y", w.opens("y"))
			outcome <- err
		}()
		synctest.Wait()
		wantErr(t, s.Close(), nil)
		w.wantClosed("y", "x")
		wantErr(t, <-outcome, resource.ErrEnded)
		wantErr(t, <-outcome, resource.ErrEnded)
		w.done()

		// One that takes too long is closed by whoever opens it.
		s = w.pool.NewSet(nil, "a")
		go func() {
			_, err := s.Acquire(t.Context(), w.kind, "z", func(ctx context.Context) (any, error) {
				<-time.After(time.Minute)
				return w.opens("z")(ctx)
			})
			outcome <- err
		}()
		synctest.Wait()
		wantErr(t, s.Close(), resource.ErrHangs)
		wantErr(t, <-outcome, resource.ErrEnded)
		w.done()
		w.wantClosed("y", "x", "z")
	})
}

// What is in use is closed under its users by the end of their owner alone.
func TestTheEndOfTheOwnerClosesWhatIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		l := w.get(s, "x")
		w.pool.SetMax(1)
		s.Discard(w.kind, "x")
		w.wantOpen("x")
		wantErr(t, s.Close(), nil)
		w.wantOpen()
		l.Release()
		w.done(s)
		w.wantClosed("x")
	})
}

func TestADiscardedOneIsClosedByItsLastUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		s := w.pool.NewSet(nil, "a")
		s.Discard(w.kind, "x")
		one, two := w.get(s, "x"), w.get(s, "x")
		s.Discard(w.kind, "x")
		if l, err := s.Opened(t.Context(), w.kind, "x"); l != nil || err != nil {
			t.Errorf("it is found: %v, %v", l, err)
		}
		next := w.get(s, "x")
		w.wantOpen("x", "x")
		one.Release()
		w.wantOpen("x", "x")
		two.Release()
		w.wantOpen("x")
		if e := w.endings[0]; e.Reason != resource.Discarded {
			t.Errorf("%+v", e)
		}
		next.Release()
		w.done(s)
	})
}

func TestFewerPlacesWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		s := w.pool.NewSet(nil, "a")
		a, b := w.get(s, "a"), w.get(s, "b")
		for _, name := range []string{"c", "d", "e", "f"} {
			w.use(s, name)
			<-time.After(time.Second)
		}
		s.Hold(w.kind, "c", time.Hour)
		w.pool.SetMax(3)
		w.wantOpen("a", "b", "c")
		w.pool.SetMax(1)
		w.wantOpen("a", "b")
		_, err := s.Acquire(t.Context(), w.kind, "x", w.opens("x"))
		wantErr(t, err, resource.ErrFull)
		a.Release()
		w.wantOpen("b")
		b.Release()
		w.wantOpen("b")
		w.use(s, "x")
		w.wantOpen("x")
		w.done(s)
	})
}

// What is about to be closed already is not made room for once more.
func TestFewerPlacesToldTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		s := w.pool.NewSet(nil, "a")
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			w.use(s, name)
			<-time.After(time.Second)
		}
		release := make(chan struct{})
		w.closing = func(string) error { <-release; return nil }
		w.pool.SetMax(4)
		w.pool.SetMax(4)
		synctest.Wait()
		close(release)
		w.wantOpen("c", "d", "e", "f")
		w.done(s)
	})
}
