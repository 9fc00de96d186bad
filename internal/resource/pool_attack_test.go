// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover/internal/resource"
)

// Two opens that ask for each other's thing, in two calls, wait for ever.
func TestAttackOpensThatAskForEachOtherDeadlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		open := func(other string) func(context.Context) (any, error) {
			return func(ctx context.Context) (any, error) {
				<-time.After(time.Second)
				l, err := s.Acquire(ctx, w.kind, other, w.opens(other))
				if err == nil {
					l.Release()
				}
				return "x", err
			}
		}
		for _, n := range [][2]string{{"a", "b"}, {"b", "a"}} {
			go func() { _, err := s.Acquire(ctx, w.kind, n[0], open(n[1])); done <- err }()
		}
		<-time.After(24 * time.Hour)
		if len(done) == 0 {
			t.Error("after a day they wait for each other")
		}
		cancel()
		<-done
		<-done
		w.done(s)
	})
}

// Acquire by its own Open is refused, but Opened waits for itself.
func TestAttackOpenedByItsOwnOpenDeadlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := s.Acquire(ctx, w.kind, "x", func(ctx context.Context) (any, error) {
				l, err := s.Opened(ctx, w.kind, "x")
				if l != nil {
					l.Release()
				}
				return nil, errors.Join(err, errors.New("x"))
			})
			done <- err
		}()
		<-time.After(24 * time.Hour)
		if len(done) == 0 {
			t.Error("after a day it waits for itself")
		}
		cancel()
		<-done
		w.done(s)
	})
}

// The context of an Open that has returned is still taken for one of an Open.
func TestAttackTheContextOfAnOpenIsRecursiveForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10)
		s := w.pool.NewSet(nil, "a")
		var kept context.Context
		l, err := s.Acquire(t.Context(), w.kind, "x", func(ctx context.Context) (any, error) {
			kept = context.WithoutCancel(ctx)
			return w.opens("x")(ctx)
		})
		wantErr(t, err, nil)
		l2, err := s.Acquire(kept, w.kind, "x", w.opens("x"))
		wantErr(t, err, nil)
		if l2 != nil {
			l2.Release()
		}
		l.Release()
		w.done(s)
	})
}

// While one closes, a newcomer is refused, although none is in use: after a discard,
// after the idle timeout.
func TestAttackAPlaceThatIsJustBecomingFreeIsARefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		w.closing = func(string) error { <-time.After(time.Second); return nil }
		w.use(s, "x")
		s.Discard(w.kind, "x")
		l, err := s.Acquire(t.Context(), w.kind, "x", w.opens("x"))
		wantErr(t, err, nil)
		if l != nil {
			l.Release()
		}
		<-time.After(time.Minute + 500*time.Millisecond) // x is idle and closing
		l, err = s.Acquire(t.Context(), w.kind, "y", w.opens("y"))
		wantErr(t, err, nil)
		if l != nil {
			l.Release()
		}
		w.done(s)
	})
}

// An owner has ended, and an Open goes on: Wait knows nothing of it.
func TestAttackWaitDoesNotWaitForWhatIsBeingOpened(t *testing.T) {
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
		wantErr(t, s.Close(), resource.ErrHangs)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if left := w.pool.Wait(ctx); left == 0 {
			t.Errorf("nothing is left to wait for, but %+v", w.pool.Stats())
		}
		close(release)
		<-done
		w.done()
	})
}

// Many opens that hang hold up the end of their owner one after the other.
func TestAttackTheEndWaitsForEachHangingOpenAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		s := w.pool.NewSet(nil, "a")
		release := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				_, err := s.Acquire(t.Context(), w.kind, fmt.Sprint(i), func(ctx context.Context) (any, error) { <-release; return nil, errors.New("no") })
				wantErr(t, err, resource.ErrEnded)
			})
		}
		synctest.Wait()
		began := time.Now()
		wantErr(t, s.Close(), resource.ErrHangs)
		if d := time.Since(began); d > w.kind.CloseWithin {
			t.Errorf("it took %s", d)
		}
		close(release)
		wg.Wait()
		w.done()
	})
}

// Ending.Used "of one in use, when it was closed".
func TestAttackOneInUseIsReportedAsIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		l := w.get(s, "x")
		<-time.After(time.Hour)
		wantErr(t, s.Close(), nil)
		if idle := time.Since(w.endings[0].Used); idle != 0 {
			t.Errorf("it was in use, and is said to have been idle for %s", idle)
		}
		l.Release()
		w.done()
	})
}

// An Open that ends its goroutine is "an error", for everybody who waits.
func TestAttackGoexitInOpenIsNoErrorForAnybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		var got atomic.Int32
		var tries atomic.Int32
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				_, err := s.Acquire(t.Context(), w.kind, "x", func(context.Context) (any, error) {
					tries.Add(1)
					<-time.After(time.Second)
					runtime.Goexit()
					return nil, nil
				})
				if err != nil {
					got.Add(1)
				}
			})
		}
		wg.Wait()
		if got.Load() != 5 {
			t.Errorf("%d of 5 got an error, after %d tries", got.Load(), tries.Load())
		}
		w.done(s)
	})
}

// Everything at once.
func TestAttackRandom(t *testing.T) {
	for seed := range uint64(40) {
		for _, lowers := range []bool{false, true} {
			t.Run(fmt.Sprint(seed, lowers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { random(t, seed, lowers) })
			})
		}
	}
}

type item struct {
	closed atomic.Int32
	uses   atomic.Int32
	ended  *atomic.Bool
}

func random(t *testing.T, seed uint64, lowers bool) {
	const max = 4
	pool := resource.NewPool(max)
	var real atomic.Int32
	var opened, closedN, told atomic.Int32
	mk := func(idle time.Duration) *resource.Kind {
		return &resource.Kind{Name: "k", Idle: idle, CloseWithin: time.Minute, Close: func(v any) error {
			x := v.(*item)
			if x.closed.Add(1) != 1 {
				t.Error("closed twice")
			}
			if x.uses.Load() > 0 && !x.ended.Load() {
				t.Error("closed in use")
			}
			time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			real.Add(-1)
			closedN.Add(1)
			switch rand.IntN(10) {
			case 0:
				panic("p")
			case 1:
				runtime.Goexit()
			case 2:
				return errors.New("x")
			}
			return nil
		}, Closed: func(resource.Ending) { told.Add(1) }}
	}
	kinds := []*resource.Kind{mk(50 * time.Millisecond), mk(-1), mk(time.Second)}
	type owner struct {
		*resource.Set
		ended atomic.Bool
	}
	var mu sync.Mutex
	var sets []*owner
	add := func(i int) *owner { return &owner{Set: pool.NewSet(i, fmt.Sprint("s", i%2))} }
	for i := range 4 {
		sets = append(sets, add(i))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		r := rand.New(rand.NewPCG(seed, uint64(g)))
		wg.Go(func() {
			for range 200 {
				mu.Lock()
				i := r.IntN(len(sets))
				s := sets[i]
				mu.Unlock()
				k, name := kinds[r.IntN(3)], fmt.Sprint(r.IntN(3))
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(100))*time.Millisecond)
				switch r.IntN(12) {
				case 0:
					s.Discard(k, name)
				case 1:
					s.Hold(k, name, time.Duration(r.IntN(300)-50)*time.Millisecond)
				case 2:
					if lowers {
						pool.SetMax(1 + r.IntN(6))
					}
				case 3:
					if r.IntN(4) == 0 {
						mu.Lock()
						sets[i] = add(i)
						mu.Unlock()
						s.ended.Store(true)
						_ = s.Close()
					}
				case 4:
					if l, _ := s.Opened(ctx, k, name); l != nil {
						x := l.Value().(*item)
						x.uses.Add(1)
						time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
						x.uses.Add(-1)
						l.Release()
					}
				case 5:
					s.Confirm()
					st := pool.Stats()
					if st.Places < 0 || st.Closing < 0 || st.Hung < 0 || st.Open < st.Busy+st.Held {
						t.Errorf("%+v", st)
					}
				default:
					d, what := time.Duration(r.IntN(40))*time.Millisecond, r.IntN(12)
					l, err := s.Acquire(ctx, k, name, func(ctx context.Context) (any, error) {
						if n := real.Add(1); n > max && !lowers {
							t.Errorf("%d are open", n)
						}
						ok := false
						defer func() {
							if !ok {
								real.Add(-1)
							}
						}()
						select {
						case <-time.After(d):
						case <-ctx.Done():
							return nil, ctx.Err()
						}
						switch what {
						case 0:
							panic("p")
						case 1:
							return nil, errors.New("x")
						}
						ok = true
						opened.Add(1)
						return &item{ended: &s.ended}, nil
					})
					if err == nil {
						x := l.Value().(*item)
						x.uses.Add(1)
						time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
						if x.closed.Load() > 0 && !s.ended.Load() {
							t.Error("closed under its user")
						}
						x.uses.Add(-1)
						l.Release()
						l.Release()
					}
				}
				cancel()
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
			}
		})
	}
	wg.Wait()
	for _, s := range sets {
		s.ended.Store(true)
		_ = s.Close()
	}
	if left := pool.Wait(context.Background()); left != 0 {
		t.Error(left)
	}
	st := pool.Stats()
	if st.Places+st.Open+st.Busy+st.Held+st.Closing+st.Hung != 0 || real.Load() != 0 || opened.Load() != closedN.Load() || st.Opened != uint64(opened.Load()) || told.Load() != opened.Load() ||
		st.EndedIdle+st.Evicted+st.EndedOwner+st.Discarded != st.Opened {
		t.Errorf("%+v, real %d, opened %d, closed %d, told %d", st, real.Load(), opened.Load(), closedN.Load(), told.Load())
	}
}

// What is open keeps the context of the call that opened it, with all that is in it,
// and what was open keeps what it was opened for.
func TestAttackOpenThingsKeepTheContextOfTheirOpener(t *testing.T) {
	w := newWorld(t, 3)
	s := w.pool.NewSet(nil, "a")
	type big struct{ _ [1 << 16]byte }
	type ctxKey struct{}
	gone, outerGone := make(chan struct{}), make(chan struct{})
	kind := &resource.Kind{Name: "k", CloseWithin: time.Second, Close: func(any) error { return nil }}
	func() {
		call := new(big)
		runtime.AddCleanup(call, func(int) { close(gone) }, 0)
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), ctxKey{}, call))
		defer cancel()
		l, err := s.Acquire(ctx, kind, "outer", func(ctx context.Context) (any, error) {
			l, err := s.Acquire(ctx, kind, "inner", w.opens("inner"))
			l.Release()
			value := new(big)
			runtime.AddCleanup(value, func(int) { close(outerGone) }, 0)
			return value, err
		})
		wantErr(t, err, nil)
		l.Release()
		s.Discard(kind, "outer")
	}()
	time.Sleep(10 * time.Millisecond)
	for name, c := range map[string]chan struct{}{"the context of the call": gone, "the closed outer thing": outerGone} {
		ok := false
		for range 20 {
			runtime.GC()
			select {
			case <-c:
				ok = true
			case <-time.After(5 * time.Millisecond):
			}
			if ok {
				break
			}
		}
		if !ok {
			t.Errorf("%s is kept", name)
		}
	}
	runtime.KeepAlive(s)
	_ = s.Close()
}

// To lower the maximum by many takes time that grows with the square, under the mutex.
func TestAttackManyLeaveOneByOne(t *testing.T) {
	const n = 10_000
	pool := resource.NewPool(n)
	s := pool.NewSet(nil, "a")
	kind := &resource.Kind{Name: "k", CloseWithin: time.Minute, Close: func(any) error { return nil }}
	for i := range n {
		l, err := s.Acquire(t.Context(), kind, fmt.Sprint(i), func(context.Context) (any, error) { return i, nil })
		wantErr(t, err, nil)
		l.Release()
	}
	began := time.Now()
	pool.SetMax(1)
	if d := time.Since(began); d > 100*time.Millisecond {
		t.Errorf("nobody gets or releases anything for %s", d)
	}
	_ = s.Close()
	pool.Wait(context.Background())
}

// Never early, and not late.
func TestAttackIdleIsExact(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			pool := resource.NewPool(100)
			s := pool.NewSet(nil, "a")
			var mu sync.Mutex
			var held time.Time
			const idle = time.Second
			kind := &resource.Kind{Name: "k", Idle: idle, CloseWithin: time.Minute, Close: func(any) error { return nil }}
			kind.Closed = func(e resource.Ending) {
				mu.Lock()
				defer mu.Unlock()
				want := e.Used.Add(idle)
				if held.After(want) {
					want = held
				}
				if e.Reason == resource.Idle && !time.Now().Equal(want) {
					t.Errorf("at %s, want %s, used %s", time.Now(), want, e.Used)
				}
				held = time.Time{}
			}
			for range 500 {
				switch r.IntN(4) {
				case 0:
					d := time.Duration(r.IntN(5000)-1500) * time.Millisecond
					mu.Lock()
					if s.Hold(kind, "x", d) {
						if held = time.Now(); d > 0 { // at once, if it has been idle for long enough by then
							held = time.Now().Add(d)
						}
					}
					mu.Unlock()
				default:
					l, err := s.Acquire(t.Context(), kind, "x", func(context.Context) (any, error) { return 1, nil })
					wantErr(t, err, nil)
					time.Sleep(time.Duration(r.IntN(3)) * 500 * time.Millisecond)
					l.Release()
				}
				time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond)
			}
			_ = s.Close()
		})
	}
}
