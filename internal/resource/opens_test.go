// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"github.com/c8e4ff29/layover/internal/resource"
	"github.com/c8e4ff29/layover/janitor"
)

// asks returns an Open that asks for another thing first.
func (w *world) asks(s *resource.Set, name, other string) func(context.Context) (any, error) {
	return func(ctx context.Context) (any, error) {
		l, err := s.Acquire(ctx, w.kind, other, w.opens(other))
		if err != nil {
			return nil, err
		}
		l.Release()
		return w.opens(name)(ctx)
	}
}

// Opens that wait for each other in a circle would do so for ever: the one that closes
// the circle is refused, and the others get its error.
func TestOpensThatWaitForEachOtherAreRefused(t *testing.T) {
	for n := 2; n <= 4; n++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 10)
			s := w.pool.NewSet(nil, "a")
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					name, next := fmt.Sprint(i), fmt.Sprint((i+1)%n)
					_, err := s.Acquire(ctx, w.kind, name, func(ctx context.Context) (any, error) {
						<-time.After(time.Second) // all are being opened
						return w.asks(s, name, next)(ctx)
					})
					wantErr(t, err, resource.ErrRecursive)
				})
			}
			wg.Wait()
			w.use(s, "0")
			w.done(s)
		})
	}
}

// An Open that looks whether its own thing is open, or one that waits for it, is
// refused, as one that asks for it is.
func TestAnOpenThatLooksForItselfIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		looks := func(ctx context.Context) (any, error) {
			_, err := s.Opened(ctx, w.kind, "x")
			return nil, err
		}
		_, err := s.Acquire(ctx, w.kind, "x", looks)
		wantErr(t, err, resource.ErrRecursive)
		_, err = s.Acquire(ctx, w.kind, "x", func(ctx context.Context) (any, error) {
			_, err := s.Acquire(ctx, w.kind, "y", looks)
			return nil, err
		})
		wantErr(t, err, resource.ErrRecursive)
		w.done(s)
	})
}

// The context of an Open may outlive it, and is anybody's then: what is acquired
// with it is refused to nobody, and in use until it is released.
func TestTheContextOfAnOpenThatHasReturnedIsAnybodys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		var kept context.Context
		l, err := s.Acquire(t.Context(), w.kind, "x", func(ctx context.Context) (any, error) {
			kept = context.WithoutCancel(ctx)
			return w.opens("x")(ctx)
		})
		wantErr(t, err, nil)
		for _, name := range []string{"x", "y"} {
			again, err := s.Acquire(kept, w.kind, name, w.opens(name))
			wantErr(t, err, nil)
			again.Release()
		}
		<-time.After(time.Minute)
		w.wantOpen("x")
		l.Release()
		w.done(s)
	})
}

// What an Open has acquired is in use for as long as the thing is there, whoever has
// opened it.
func TestWhatAnOpenHasAcquiredStaysInUse(t *testing.T) {
	for _, before := range []string{"nothing", "open", "being opened"} {
		t.Run(before, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				s := w.pool.NewSet(nil, "a")
				switch before {
				case "open":
					w.use(s, "inner")
				case "being opened":
					go func() {
						l, err := s.Acquire(t.Context(), w.kind, "inner", func(ctx context.Context) (any, error) {
							<-time.After(time.Second)
							return w.opens("inner")(ctx)
						})
						wantErr(t, err, nil)
						l.Release()
					}()
					synctest.Wait()
				}
				l, err := s.Acquire(t.Context(), w.kind, "outer", w.asks(s, "outer", "inner"))
				wantErr(t, err, nil)
				<-time.After(time.Hour)
				w.wantOpen("inner", "outer")
				l.Release()
				<-time.After(time.Minute)
				w.wantOpen("inner") // it is idle since then
				<-time.After(time.Minute)
				w.wantOpen()
				w.done(s)
			})
		})
	}
}

// It makes no room for another one before what needs it does.
func TestWhatAnOpenHasAcquiredLeavesAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		s, other := w.pool.NewSet(nil, "a"), w.pool.NewSet(nil, "b")
		l, err := s.Acquire(t.Context(), w.kind, "outer", w.asks(s, "outer", "inner"))
		wantErr(t, err, nil)
		l.Release()
		<-time.After(time.Second)
		w.use(s, "outer") // the inner one was used longer ago
		w.use(other, "new")
		w.wantOpen("inner", "new")
		<-time.After(time.Second)
		w.use(other, "new")
		w.pool.SetMax(1)
		w.wantOpen("new")
		w.done(s, other)
	})
}

func TestAnOpenThatFailsLetsGoOfWhatItHasAcquired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		s := w.pool.NewSet(nil, "a")
		broken := errors.New("broken")
		_, err := s.Acquire(t.Context(), w.kind, "outer", func(ctx context.Context) (any, error) {
			l, err := s.Acquire(ctx, w.kind, "inner", w.opens("inner"))
			wantErr(t, err, nil)
			l.Release()
			return nil, broken
		})
		wantErr(t, err, broken)
		<-time.After(time.Minute)
		w.wantOpen()
		w.done(s)
	})
}

// An Open that outlasts its owner is waited for by Wait.
func TestWaitWaitsForWhatIsBeingOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		release, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			_, err := s.Acquire(t.Context(), w.kind, "x", func(ctx context.Context) (any, error) { <-release; return w.opens("x")(ctx) })
			wantErr(t, err, resource.ErrEnded)
		}()
		synctest.Wait()
		if got := w.pool.Stats().Opening; got != 1 {
			t.Errorf("%d are being opened", got)
		}
		wantErr(t, s.Close(), resource.ErrHangs)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if left := w.pool.Wait(ctx); left != 1 {
			t.Errorf("%d are left to wait for, %+v", left, w.pool.Stats())
		}
		close(release)
		<-done
		w.done()
		w.wantClosed("x")
	})
}

// However many Opens hang, the end of their owner waits once for all of them.
func TestTheEndWaitsForAllOpensAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		s := w.pool.NewSet(nil, "a")
		release := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				_, err := s.Acquire(t.Context(), w.kind, fmt.Sprint(i), func(context.Context) (any, error) { <-release; return nil, errors.New("no") })
				wantErr(t, err, resource.ErrEnded)
			})
		}
		synctest.Wait()
		began := time.Now()
		wantErr(t, s.Close(), resource.ErrHangs)
		if d := time.Since(began); d != w.kind.CloseWithin {
			t.Errorf("it took %s", d)
		}
		close(release)
		wg.Wait()
		w.done()
	})
}

// An Open that ends its goroutine does not end that of its caller, and is an error
// for all who wait.
func TestAnOpenThatExitsIsAnErrorForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		var told, tries atomic.Int32
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				_, err := s.Acquire(t.Context(), w.kind, "x", func(context.Context) (any, error) {
					tries.Add(1)
					<-time.After(time.Second)
					runtime.Goexit()
					return nil, nil
				})
				wantErr(t, err, janitor.ErrGoexit)
				told.Add(1)
			})
		}
		wg.Wait()
		if told.Load() != 5 || tries.Load() != 1 {
			t.Errorf("%d of 5 got an error, after %d tries", told.Load(), tries.Load())
		}
		w.use(s, "x")
		w.done(s)
	})
}

// What is open does not keep the context of the call that has opened it in memory,
// nor what it was opened for once that is closed.
func TestWhatIsOpenKeepsNothingOfItsOpener(t *testing.T) {
	type big struct{ _ [1 << 16]byte }
	type callKey struct{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		s := w.pool.NewSet(nil, "a")
		kind := &resource.Kind{Name: "big", CloseWithin: time.Second, Close: func(any) error { return nil }}
		var call, outer weak.Pointer[big]
		func() {
			value := new(big)
			call = weak.Make(value)
			ctx, cancel := context.WithCancel(context.WithValue(t.Context(), callKey{}, value))
			defer cancel()
			l, err := s.Acquire(ctx, kind, "outer", func(ctx context.Context) (any, error) {
				l, err := s.Acquire(ctx, w.kind, "inner", w.opens("inner"))
				l.Release()
				value := new(big)
				outer = weak.Make(value)
				return value, err
			})
			wantErr(t, err, nil)
			l.Release()
			s.Discard(kind, "outer")
		}()
		w.wantOpen("inner")
		runtime.GC()
		if call.Value() != nil {
			t.Error("the context of the call is kept")
		}
		if outer.Value() != nil {
			t.Error("the outer thing is kept")
		}
		w.done(s)
	})
}
