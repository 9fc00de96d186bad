// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover/internal/resource"
)

// What a goroutine acquires that a failed Open has left behind is not in use for ever.
func TestAFailedOpenKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		s := w.pool.NewSet(nil, "a")
		w.use(s, "inner")
		left := make(chan struct{})
		_, err := s.Acquire(t.Context(), w.kind, "outer", func(ctx context.Context) (any, error) {
			go func() {
				defer close(left)
				<-time.After(time.Second)
				l, err := s.Acquire(ctx, w.kind, "inner", w.opens("inner"))
				if err == nil {
					l.Release()
				}
			}()
			return nil, errors.New("fails")
		})
		if err == nil {
			t.Fatal("no error")
		}
		<-left
		if st := w.pool.Stats(); st.Busy != 0 {
			t.Errorf("in use, though nobody has a lease: %+v", st)
		}
		<-time.After(time.Hour)
		w.wantClosed("inner") // idle
		w.done(s)
	})
}

// As before, but the one that is asked for must be opened.
func TestAFailedOpenKeepsNothingThatIsOpenedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		s := w.pool.NewSet(nil, "a")
		left := make(chan struct{})
		_, _ = s.Acquire(t.Context(), w.kind, "outer", func(ctx context.Context) (any, error) {
			go func() {
				defer close(left)
				<-time.After(time.Second)
				l, err := s.Acquire(ctx, w.kind, "inner", w.opens("inner"))
				if err == nil {
					l.Release()
				}
			}()
			return nil, errors.New("fails")
		})
		<-left
		// Another owner must be able to have the only place: nothing is in use.
		o := w.pool.NewSet(nil, "b")
		l, err := o.Acquire(t.Context(), w.kind, "other", w.opens("other"))
		if err != nil {
			t.Errorf("the place leaks: %v", err)
		} else {
			l.Release()
		}
		w.done(s, o)
	})
}

// The error of Set.Close tells of a Close that has failed, also of what was being
// opened when the owner ended.
func TestTheEndTellsOfTheCloseOfWhatWasOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		s := w.pool.NewSet(nil, "a")
		bad := errors.New("bad close")
		w.closing = func(string) error { return bad }
		opens := make(chan struct{})
		go func() {
			_, _ = s.Acquire(context.Background(), w.kind, "x", func(ctx context.Context) (any, error) {
				close(opens)
				<-time.After(time.Second)
				return w.opens("x")(ctx)
			})
		}()
		<-opens
		if err := s.Close(); !errors.Is(err, bad) {
			t.Errorf("Set.Close: %v, though a Close has failed; closed %q", err, w.closed)
		}
	})
}

// One Open that hangs does not have those that have returned be said to hang.
func TestOfSeveralOpensOnlyTheOneThatHangsIsSaidTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 100)
		s := w.pool.NewSet(nil, "a")
		gate := make(chan struct{})
		for i := range 40 {
			go func() {
				_, _ = s.Acquire(context.Background(), w.kind, fmt.Sprint(i), func(ctx context.Context) (any, error) {
					if i == 0 {
						<-gate
					} else {
						<-ctx.Done()
					}
					return nil, errors.New("fails")
				})
			}()
		}
		synctest.Wait()
		err := s.Close()
		if n := strings.Count(fmt.Sprint(err), "its Open"); n != 1 {
			t.Errorf("%d are said to hang, 1 does", n)
		}
		close(gate)
		synctest.Wait()
	})
}

// Who waits for a place that becomes free has one as soon as there is any.
func TestWhoWaitsForAPlaceSeesAnotherOne(t *testing.T) {
	for name, makeRoom := range map[string]func(w *world, y *resource.Lease){
		"SetMax":  func(w *world, _ *resource.Lease) { w.pool.SetMax(10) },
		"Release": func(_ *world, y *resource.Lease) { y.Release() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 2)
				s := w.pool.NewSet(nil, "a")
				w.closing = func(name string) error {
					if name == "x" {
						<-time.After(9 * time.Second)
					}
					return nil
				}
				y := w.get(s, "y")
				w.use(s, "x")
				s.Discard(w.kind, "x") // closes for nine seconds
				synctest.Wait()
				began := time.Now()
				done := make(chan time.Duration, 2)
				go func() {
					w.use(s, "z")
					done <- time.Since(began)
				}()
				synctest.Wait()
				<-time.After(time.Second)
				makeRoom(w, y)
				if took := <-done; took > 2*time.Second {
					t.Errorf("waited for %v, though there was room after one second", took)
				}
				y.Release()
				w.done(s)
			})
		})
	}
}

// Who waits for a place does not wait on when its own owner ends.
func TestWhoWaitsForAPlaceIsToldOfTheEndOfItsOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a, b := w.pool.NewSet(nil, "a"), w.pool.NewSet(nil, "b")
		w.closing = func(string) error { <-time.After(9 * time.Second); return nil }
		w.use(a, "x")
		a.Discard(w.kind, "x")
		began := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			_, err := b.Acquire(context.Background(), w.kind, "y", w.opens("y"))
			if !errors.Is(err, resource.ErrEnded) {
				t.Errorf("%v", err)
			}
			done <- time.Since(began)
		}()
		synctest.Wait()
		_ = b.Close()
		if took := <-done; took > time.Second {
			t.Errorf("the call goes on for %v after its owner has ended", took)
		}
		w.done(a, b)
	})
}

// A caller whose context has ended before it asks evicts nothing, and opens nothing.
func TestNobodyLeavesForACallerThatIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		a, b := w.pool.NewSet(nil, "a"), w.pool.NewSet(nil, "b")
		w.use(a, "x")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := b.Acquire(ctx, w.kind, "y", w.opens("y"))
		wantErr(t, err, context.Canceled)
		synctest.Wait()
		if st := w.pool.Stats(); st.Evicted != 0 {
			t.Errorf("a caller that is gone has evicted somebody's: %v", err)
		}
		w.done(a, b)
	})
}
