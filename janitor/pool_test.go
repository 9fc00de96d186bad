// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var errFailed = errors.New("failed")

// How a dump of goroutines names the bubble that one is in, and a call of a pool.
var (
	bubble   = regexp.MustCompile(`synctest bubble \d+`)
	poolCall = regexp.MustCompile(`janitor\.\(\*(Pool|worker)\[`)
)

// goroutines waits until the other goroutines in the caller's bubble are blocked
// or gone, and counts those of pools that are left.
func goroutines() int {
	synctest.Wait()
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	ours := bubble.Find(buf) // the caller comes first
	n := 0
	for stack := range bytes.SplitSeq(buf, []byte("\n\n")) {
		header, calls, _ := bytes.Cut(stack, []byte("\n"))
		if bytes.Equal(bubble.Find(header), ours) && poolCall.Match(calls) {
			n++
		}
	}
	return n
}

// pass lets the time of a bubble pass.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // only called in bubbles of testing/synctest
}

// drain waits for the end of all that p has to do. In a bubble a day is over as
// soon as nothing else happens.
func drain(t *testing.T, p interface{ Drain(context.Context) int }) {
	t.Helper()
	drainWithin(t, p, 24*time.Hour)
}

func drainWithin(t *testing.T, p interface{ Drain(context.Context) int }, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if n := p.Drain(ctx); n != 0 {
		t.Errorf("%d are unfinished", n)
	}
}

// journal records what a pool did with its values.
type journal struct {
	mu   sync.Mutex
	log  []string
	errs map[string]error
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.log = append(j.log, fmt.Sprintf(format, args...))
}

func (j *journal) done(v string, err error) {
	j.add("done %s", v)
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.errs == nil {
		j.errs = map[string]error{}
	}
	j.errs[v] = err
}

func (j *journal) expect(t *testing.T, want ...string) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !slices.Equal(j.log, want) {
		t.Errorf("got %q\nwant %q", j.log, want)
	}
}

func TestQuietWhenEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hung atomic.Int32
		p := NewPool(PoolConfig[int]{
			Workers: 4, HungAfter: time.Minute, MaxHung: 1,
			Run:  func(int) error { pass(time.Second); return nil },
			Hung: func(int) { hung.Add(1) },
		})
		for range 3 {
			if n := goroutines(); n != 0 {
				t.Fatalf("%d goroutines with nothing to do", n)
			}
			for n := range 10 {
				p.Submit(n)
			}
			if n := goroutines(); n != 4 {
				t.Errorf("%d goroutines for 10 values, want 4", n)
			}
			drain(t, p)
			if n := goroutines(); n != 0 {
				t.Errorf("%d goroutines were left", n)
			}
			p.mu.Lock()
			if p.patrols {
				t.Error("the watchdog was left")
			}
			p.mu.Unlock()
			pass(time.Hour) // late reports would come now
		}
		if hung.Load() != 0 {
			t.Errorf("%d were called hung that were not", hung.Load())
		}
	})
}

func TestNeverMoreThanWorkersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		p := NewPool(PoolConfig[int]{
			Workers: 3,
			Run: func(n int) error {
				if v := now.Add(1); v > most.Load() {
					most.Store(v)
				}
				pass(time.Duration(n%5) * time.Second)
				now.Add(-1)
				return nil
			},
		})
		for n := range 500 {
			p.Submit(n)
		}
		drain(t, p)
		if most.Load() != 3 {
			t.Errorf("%d ran at a time, want 3", most.Load())
		}
	})
}

func TestStartsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int
		p := NewPool(PoolConfig[int]{Run: func(n int) error { got = append(got, n); return nil }}) // one worker
		want := make([]int, 1000)
		for n := range want {
			want[n] = n
			p.Submit(n)
		}
		drain(t, p)
		if !slices.Equal(got, want) {
			t.Errorf("started out of order: %v", got)
		}
	})
}

func TestSetWorkersTakesEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(PoolConfig[int]{
			Workers: 2,
			Run:     func(int) error { pass(time.Second); return nil },
		})
		for n := range 20 {
			p.Submit(n)
		}
		for _, step := range []struct{ workers, pending int }{{2, 18}, {5, 13}, {1, 8}, {0, 7}, {3, 4}} {
			p.SetWorkers(step.workers)
			pass(time.Second)
			synctest.Wait()
			if got := p.Pending(); got != step.pending {
				t.Errorf("after a second with %d workers %d are pending, want %d", step.workers, got, step.pending)
			}
		}
		drain(t, p)
	})
}

// It takes effect for a worker, too, that is on its way to the queue.
func TestSetWorkersIsNotTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var started atomic.Int32
		p := NewPool(PoolConfig[int]{
			Workers: 2,
			Run:     func(int) error { started.Add(1); pass(time.Second); return nil },
		})
		p.Submit(0)
		synctest.Wait()
		p.mu.Lock()
		p.queue.push(0) // as Submit does
		p.pending.Add(1)
		p.start()
		p.config.Workers = 1 // as SetWorkers does
		p.mu.Unlock()
		synctest.Wait()
		if started.Load() != 1 {
			t.Errorf("%d were started", started.Load())
		}
		drain(t, p)
	})
}

func TestErrorsAreReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		p := NewPool(PoolConfig[string]{
			Run: func(v string) error {
				if v == "bad" {
					return errFailed
				}
				return nil
			},
			Done: j.done,
		})
		p.Submit("bad")
		p.Submit("good")
		drain(t, p)
		if !errors.Is(j.errs["bad"], errFailed) || j.errs["good"] != nil || len(j.errs) != 2 {
			t.Errorf("reported %v", j.errs)
		}
	})
}

func TestPanicIsContainedAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const secret = "token-7f3a"
		var j journal
		p := NewPool(PoolConfig[string]{
			Run: func(v string) error {
				switch v {
				case "value":
					panic(secret)
				case "error":
					panic(errors.New(secret))
				case "nil":
					panic(map[string]any{}[v]) // plainly, vet objects
				case "runtime":
					_ = []int{}[len(v)]
				}
				return nil
			},
			Done: j.done,
		})
		for _, v := range []string{"value", "error", "nil", "runtime", "after"} {
			p.Submit(v)
		}
		drain(t, p)
		j.expect(t, "done value", "done error", "done nil", "done runtime", "done after")
		for v, text := range map[string]string{
			"value":   "panic: string",
			"error":   "panic: *errors.errorString",
			"nil":     "panic: panic called with nil argument",
			"runtime": "panic: runtime error: index out of range [7] with length 0",
		} {
			var e *PanicError
			if !errors.As(j.errs[v], &e) {
				t.Errorf("%s: error is %T", v, j.errs[v])
				continue
			}
			if !strings.HasPrefix(e.Error(), text) {
				t.Errorf("%s: error says %q, want %q", v, e, text)
			}
			if !strings.Contains(string(e.Stack), "TestPanicIsContainedAndReported") {
				t.Errorf("%s: the stack does not show where: %s", v, e.Stack)
			}
			if all := fmt.Sprintf("%v %+v %#v %s %q", e, e, e, e.Stack, e); strings.Contains(all, secret) {
				t.Errorf("%s: the secret shows in %s", v, all)
			}
		}
		var e *PanicError
		if errors.As(j.errs["value"], &e) && e.Value != secret {
			t.Errorf("the value is %v", e.Value)
		}
	})
}

func TestGoexitIsContainedAndReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		p := NewPool(PoolConfig[string]{
			Run: func(v string) error {
				if v == "exit" {
					runtime.Goexit()
				}
				return nil
			},
			Done: j.done,
		})
		p.Submit("exit")
		p.Submit("after")
		drain(t, p)
		j.expect(t, "done exit", "done after")
		if !errors.Is(j.errs["exit"], ErrGoexit) || j.errs["after"] != nil {
			t.Errorf("reported %v", j.errs)
		}
	})
}

func TestPanicAndGoexitInDoneAreContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		p := NewPool(PoolConfig[string]{
			Run: func(v string) error { j.add("run %s", v); return nil },
			Done: func(v string, err error) {
				j.done(v, err)
				switch v {
				case "panic":
					panic(v)
				case "exit":
					runtime.Goexit()
				}
			},
		})
		p.Submit("panic")
		p.Submit("exit")
		p.Submit("after")
		drain(t, p)
		j.expect(t, "run panic", "done panic", "run exit", "done exit", "run after", "done after")
	})
}

func TestPanicAndGoexitInHungAreContained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		p := NewPool(PoolConfig[string]{
			HungAfter: time.Second,
			Run:       func(string) error { pass(2 * time.Second); return nil },
			Done:      j.done,
			Hung: func(v string) {
				j.add("hung %s", v)
				if v == "panic" {
					panic(v)
				}
				runtime.Goexit()
			},
		})
		p.Submit("panic")
		p.Submit("exit")
		drain(t, p)
		j.expect(t, "hung panic", "done panic", "hung exit", "done exit")
	})
}

func TestHungRunDoesNotStopTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		release := make(chan struct{})
		p := NewPool(PoolConfig[string]{
			HungAfter: time.Minute, MaxHung: 1,
			Run: func(v string) error {
				j.add("run %s", v)
				if v == "stuck" {
					<-release
					return errFailed
				}
				return nil
			},
			Done: j.done,
			Hung: func(v string) { j.add("hung %s", v) },
		})
		p.Submit("stuck")
		p.Submit("next")
		pass(time.Minute - 1)
		synctest.Wait()
		j.expect(t, "run stuck")
		if p.Hung() != 0 || p.Pending() != 2 {
			t.Errorf("before the minute: %d hung, %d pending", p.Hung(), p.Pending())
		}
		pass(time.Minute/4 + time.Nanosecond)
		synctest.Wait()
		slices.Sort(j.log[1:]) // the report and the next one do not wait for each other
		j.expect(t, "run stuck", "done next", "hung stuck", "run next")
		if p.Hung() != 1 || p.Pending() != 1 {
			t.Errorf("after the minute: %d hung, %d pending", p.Hung(), p.Pending())
		}
		pass(time.Hour)
		p.Submit("later")
		synctest.Wait()
		close(release)
		drain(t, p)
		j.expect(t, "run stuck", "done next", "hung stuck", "run next", "run later", "done later", "done stuck")
		if !errors.Is(j.errs["stuck"], errFailed) || p.Hung() != 0 {
			t.Errorf("stuck ended with %v, %d are hung", j.errs["stuck"], p.Hung())
		}
	})
}

// A hung Run that returns must not add a place to those that there are.
func TestReturnOfHungRunDoesNotExceedWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		p := NewPool(PoolConfig[time.Duration]{
			Workers: 2, HungAfter: time.Minute, MaxHung: 2,
			Run: func(d time.Duration) error {
				if d > time.Minute {
					pass(d)
					return nil
				}
				most.Store(max(most.Load(), now.Add(1)))
				pass(d)
				now.Add(-1)
				return nil
			},
		})
		p.Submit(90 * time.Second)
		p.Submit(90 * time.Second)
		for range 20 {
			p.Submit(7 * time.Second)
		}
		drain(t, p)
		if most.Load() != 2 {
			t.Errorf("%d ran at a time, want 2", most.Load())
		}
	})
}

func TestNoMoreThanMaxHungAreReplaced(t *testing.T) {
	for maxHung := -1; maxHung < 4; maxHung++ {
		synctest.Test(t, func(t *testing.T) {
			var started, hung atomic.Int32
			one, all := make(chan struct{}), make(chan struct{})
			p := NewPool(PoolConfig[int]{
				Workers: 2, HungAfter: time.Second, MaxHung: maxHung,
				Run: func(int) error {
					started.Add(1)
					select {
					case <-one:
					case <-all:
					}
					return nil
				},
				Hung: func(int) { hung.Add(1) },
			})
			for n := range 20 {
				p.Submit(n)
			}
			pass(time.Minute)
			want := int32(2 + max(maxHung, 0))
			if started.Load() != want || hung.Load() != want || p.Hung() != int(want) {
				t.Errorf("MaxHung %d: %d started, %d reported, %d hung, want %d", maxHung, started.Load(), hung.Load(), p.Hung(), want)
			}
			one <- struct{}{} // one returns, one more can hang
			pass(time.Minute)
			if want++; started.Load() != want || hung.Load() != want || p.Hung() != int(want)-1 {
				t.Errorf("MaxHung %d, one back: %d started, %d reported, %d hung, want %d", maxHung, started.Load(), hung.Load(), p.Hung(), want)
			}
			close(all)
			drain(t, p)
			if p.Hung() != 0 {
				t.Errorf("%d are hung in the end", p.Hung())
			}
		})
	}
}

func TestHungDoneDoesNotStopTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		release := make(chan struct{})
		p := NewPool(PoolConfig[string]{
			HungAfter: time.Minute, MaxHung: 1,
			Run: func(string) error { return nil },
			Done: func(v string, err error) {
				j.done(v, err)
				if v == "stuck" {
					<-release
				}
			},
			Hung: func(v string) { j.add("hung %s", v) },
		})
		p.Submit("stuck")
		p.Submit("next")
		pass(time.Minute * 5 / 4)
		synctest.Wait()
		j.expect(t, "done stuck", "done next") // its Run was not hung
		if p.Hung() != 1 || p.Pending() != 1 {
			t.Errorf("%d hung, %d pending", p.Hung(), p.Pending())
		}
		close(release)
		drain(t, p)
	})
}

func TestDoneComesAfterHung(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		p := NewPool(PoolConfig[string]{
			HungAfter: time.Second, MaxHung: 1,
			Run:  func(string) error { pass(2 * time.Second); j.add("returned"); return errFailed },
			Done: j.done,
			Hung: func(string) { pass(time.Hour); j.add("hung") },
		})
		p.Submit("slow")
		pass(time.Minute)
		j.expect(t, "returned")
		if p.Pending() != 1 {
			t.Error("not pending, though it was not reported")
		}
		drain(t, p)
		j.expect(t, "returned", "hung", "done slow")
		if !errors.Is(j.errs["slow"], errFailed) {
			t.Errorf("reported %v", j.errs["slow"])
		}
	})
}

// What a report of one value leaves behind must not disturb the next one.
func TestHungValuesOneAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		takes := map[string]time.Duration{"first": 2 * time.Second, "second": time.Hour, "third": 2 * time.Second}
		p := NewPool(PoolConfig[string]{
			HungAfter: time.Second,
			Run:       func(v string) error { pass(takes[v]); j.add("returned %s", v); return nil },
			Done:      j.done,
			Hung: func(v string) {
				if v != "second" {
					pass(time.Minute)
				}
				j.add("hung %s", v)
			},
		})
		p.SubmitAll([]string{"first", "second", "third"})
		drain(t, p)
		j.expect(t, "returned first", "hung first", "done first",
			"hung second", "returned second", "done second",
			"returned third", "hung third", "done third")
	})
}

func TestDrainCountsWhatIsUnfinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(PoolConfig[int]{
			Workers: 2,
			Run:     func(int) error { pass(time.Second); return nil },
		})
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if n := p.Drain(ended); n != 0 {
			t.Errorf("%d unfinished of none", n)
		}
		for n := range 10 {
			p.Submit(n)
		}
		if n := p.Drain(ended); n != 10 {
			t.Errorf("%d unfinished, want all 10", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		defer cancel()
		start := time.Now()
		if n := p.Drain(ctx); n != 6 || time.Since(start) != 2500*time.Millisecond {
			t.Errorf("%d unfinished after %v, want 6", n, time.Since(start))
		}
		p.Submit(10) // Drain does not stop Submit
		if drain(t, p); time.Since(start) != 6*time.Second {
			t.Errorf("drained after %v", time.Since(start))
		}
	})
}

func TestHurryStartsWhateverIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const values = 1000
		var started, done, hung atomic.Int32
		release := make(chan struct{})
		p := NewPool(PoolConfig[int]{
			Workers: 2, HungAfter: time.Hour, MaxHung: 1,
			Run:  func(int) error { started.Add(1); <-release; return nil },
			Done: func(int, error) { done.Add(1) },
			Hung: func(int) { hung.Add(1) },
		})
		for n := range values {
			p.Submit(n)
		}
		synctest.Wait()
		if started.Load() != 2 || p.Hung() != 0 {
			t.Errorf("before: %d started, %d hung", started.Load(), p.Hung())
		}
		p.Hurry()
		synctest.Wait()
		if started.Load() != values || p.Hung() != values || p.Pending() != values {
			t.Errorf("after: %d started, %d hung, %d pending", started.Load(), p.Hung(), p.Pending())
		}
		p.Hurry()
		p.Submit(values)
		synctest.Wait()
		if started.Load() != values+1 {
			t.Errorf("what was submitted afterwards has to wait")
		}
		if hung.Load() != 0 {
			t.Errorf("Hurry reported %d", hung.Load())
		}
		pass(2 * time.Hour)
		if hung.Load() != values+1 {
			t.Errorf("%d were reported after HungAfter", hung.Load())
		}
		close(release)
		drain(t, p)
		if done.Load() != values+1 || p.Hung() != 0 {
			t.Errorf("%d done, %d hung", done.Load(), p.Hung())
		}
	})
}

// A million quick ones must not become a million goroutines.
func TestWorkersStartOneAfterTheOther(t *testing.T) {
	var p *Pool[int]
	waiting := 0
	look := func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		idle := 0
		for w := p.workers; w != nil; w = w.next {
			if !w.busy {
				idle++
			}
		}
		waiting = max(waiting, idle)
	}
	p = NewPool(PoolConfig[int]{
		Workers: 100,
		Run: func(n int) error {
			if n < 0 {
				p.Hurry()
			}
			look()
			return nil
		},
	})
	for n := range 10_000 {
		p.Submit(n)
		look()
		if n == 5000 {
			p.Submit(-1)
		}
	}
	drainWithin(t, p, time.Minute)
	if look(); waiting > 1 {
		t.Errorf("%d goroutines were there without a value", waiting)
	}
}

func TestSubmitAllKeepsOrderAndNothingOfTheSlice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []int
		p := NewPool(PoolConfig[int]{Run: func(n int) error { got = append(got, n); return nil }})
		p.SubmitAll(nil)
		if n := goroutines(); n != 0 || p.Pending() != 0 {
			t.Errorf("%d goroutines, %d pending after nothing was submitted", n, p.Pending())
		}
		var want, vs []int
		for n := range 1000 {
			vs = vs[:0]
			for range n % 150 {
				vs = append(vs, len(want))
				want = append(want, len(want))
			}
			p.SubmitAll(vs)
			clear(vs) // the caller may reuse it
		}
		drain(t, p)
		if !slices.Equal(got, want) {
			t.Errorf("got %d values %v", len(got), got)
		}
	})
}

func TestSubmitAllUsesAllWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(PoolConfig[int]{Workers: 3, Run: func(int) error { pass(time.Second); return nil }})
		start := time.Now()
		p.SubmitAll(make([]int, 10))
		if p.Pending() != 10 {
			t.Errorf("%d pending", p.Pending())
		}
		if drain(t, p); time.Since(start) != 4*time.Second {
			t.Errorf("10 values on 3 workers took %v", time.Since(start))
		}
	})
}

func TestPendingAndHungTakeNoLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := NewPool(PoolConfig[int]{
			HungAfter: time.Second, MaxHung: 1,
			Run: func(int) error { <-release; return nil },
		})
		p.SubmitAll(make([]int, 3))
		pass(time.Minute)
		p.mu.Lock()
		pending, hung := p.Pending(), p.Hung() // would wait for ever
		p.mu.Unlock()
		if pending != 3 || hung != 2 {
			t.Errorf("%d pending, %d hung", pending, hung)
		}
		close(release)
		drain(t, p)
	})
}

// A value is hung not before HungAfter, and not later than a quarter after that,
// whenever it starts and whatever runs besides.
func TestHungIsNoticedInTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			after := time.Duration(rapid.Int64Range(1000, int64(time.Minute)).Draw(t, "hung after"))
			values := rapid.IntRange(1, 10).Draw(t, "values")
			starts, reports := make([]time.Time, values), make([]time.Time, values)
			release := make(chan struct{})
			p := NewPool(PoolConfig[int]{
				Workers: values + 1, HungAfter: after,
				Run: func(n int) error {
					if n >= 0 {
						starts[n] = time.Now()
						<-release
					}
					return nil
				},
				Hung: func(n int) { reports[n] = time.Now() },
			})
			gap := rapid.Map(rapid.Int64Range(0, 2*int64(after)), func(n int64) time.Duration { return time.Duration(n) })
			for n := range values {
				pass(gap.Draw(t, "gap"))
				p.Submit(-1) // quick ones in between
				p.Submit(n)
			}
			pass(2 * after)
			synctest.Wait()
			for n := range values {
				took := reports[n].Sub(starts[n])
				if took < after || took > after+after/4 {
					t.Errorf("value %d: reported after %v, HungAfter is %v", n, took, after)
				}
			}
			p.mu.Lock()
			if p.patrols {
				t.Error("the watchdog still comes by, though all are reported")
			}
			p.mu.Unlock()
			close(release)
			p.Drain(context.Background())
		})
	})
}

// HungAfter may be the longest duration that there is.
func TestHungAfterMayBeForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(PoolConfig[int]{
			HungAfter: math.MaxInt64,
			Run:       func(int) error { pass(time.Hour); return nil },
			Hung:      func(int) { t.Error("called hung") },
		})
		p.Submit(0)
		drain(t, p)
	})
}

// A stream of single values must not start a goroutine for each.
func TestSubmitUsesTheWorkerThatLingers(t *testing.T) {
	p := NewPool(PoolConfig[int]{Workers: 4, Run: func(int) error { return nil }})
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		p.Submit(0)
		for p.Pending() > 0 {
			runtime.Gosched()
		}
		p.mu.Lock()
		if !p.lingering { // not yet, or not any more
			p.mu.Unlock()
			continue
		}
		lingerer := p.workers
		p.queue.push(0) // as Submit does
		p.pending.Add(1)
		p.start()
		if p.workers != lingerer || lingerer.next != nil {
			t.Error("a further goroutine was started")
		}
		if !p.called.Load() {
			t.Error("the worker that lingers was not called")
		}
		p.mu.Unlock()
		drainWithin(t, p, time.Minute)
		if p.called.Load() {
			t.Error("the next one that lingers would not even start to")
		}
		return
	}
	t.Error("no worker ever lingers")
}

func TestSubmitFromRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var p *Pool[string]
		p = NewPool(PoolConfig[string]{
			HungAfter: time.Minute, MaxHung: 1,
			Run: func(v string) error {
				if v == "root" {
					p.Submit("by run")
					p.SetWorkers(1)
					pass(time.Hour)
				}
				return nil
			},
			Done: func(v string, err error) {
				j.done(v, err)
				if v == "root" {
					p.Submit(fmt.Sprintf("by done, %d pending, %d hung", p.Pending(), p.Hung()))
				}
			},
			Hung: func(string) { p.Submit("by hung") },
		})
		p.Submit("root")
		drain(t, p)
		j.expect(t, "done by run", "done by hung", "done root", "done by done, 1 pending, 1 hung")
	})
}

func TestRunAllocatesNothing(t *testing.T) {
	const values = 10_000
	gate := make(chan struct{})
	p := NewPool(PoolConfig[int]{
		HungAfter: time.Hour, MaxHung: 1,
		Run: func(n int) error {
			if n == 0 {
				<-gate // so that the queue is not empty until the last one
			}
			return nil
		},
		Done: func(int, error) {},
	})
	got := testing.AllocsPerRun(5, func() {
		for n := range values {
			p.Submit(n)
		}
		gate <- struct{}{}
		drainWithin(t, p, time.Minute)
	})
	if limit := float64(values/chunkSize + 50); got > limit {
		t.Errorf("%v allocations for %d values, want at most %v, for chunks of the queue", got, values, limit)
	}
}

func TestQueueIsFirstInFirstOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue[int]
		var want []int
		next := 1
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if q.length != len(want) {
					t.Fatalf("length %d, want %d", q.length, len(want))
				}
			},
			"push": func(t *rapid.T) {
				for range rapid.IntRange(1, 3*chunkSize).Draw(t, "n") {
					q.push(next)
					want = append(want, next)
					next++
				}
			},
			"pop": func(t *rapid.T) {
				for range min(rapid.IntRange(1, 4*chunkSize).Draw(t, "n"), len(want)) {
					if got := q.pop(); got != want[0] {
						t.Fatalf("got %d, want %d", got, want[0])
					}
					want = want[1:]
				}
			},
		})
	})
}

func TestQueueGivesItsMemoryBack(t *testing.T) {
	var q queue[*int]
	for n := range 100 * chunkSize {
		q.push(&n)
	}
	for left := 100*chunkSize - 1; left >= 0; left-- {
		q.pop()
		chunks, values := 0, 0
		for c := q.head; c != nil; c = c.next {
			chunks++
			for _, v := range c.values {
				if v != nil {
					values++
				}
			}
		}
		if values != left || chunks > left/chunkSize+2 {
			t.Fatalf("with %d left the queue keeps %d values in %d chunks", left, values, chunks)
		}
	}
	if q.head != q.tail {
		t.Error("an empty queue keeps more than one chunk")
	}
}

func TestPoolNeedsSomethingToRun(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a pool without Run was accepted")
		}
	}()
	NewPool(PoolConfig[int]{})
}

// job is a value of the property test: what its foreign code does, and what
// happened to it.
type job struct {
	id              int
	runs            int    // 0 or more seconds; -1: until released
	run, done, hung string // "return", "fail", "panic", "exit" or "slow"
	child           *job   // submitted by Run

	started, returned, dones, hungs int
	start, end                      time.Time
	inHung                          bool
	err                             error
}

// misbehave does what foreign code does.
func misbehave(how string) error {
	switch how {
	case "fail":
		return errFailed
	case "panic":
		panic(how)
	case "exit":
		runtime.Goexit()
	case "slow":
		pass(1500 * time.Millisecond)
	}
	return nil
}

// check says what is wrong with the end of a job.
func (j *job) check(hungAfter time.Duration) error {
	if j.started != 1 || j.returned != 1 || j.dones != 1 {
		return fmt.Errorf("job %d: started %d times, returned %d times, done %d times", j.id, j.started, j.returned, j.dones)
	}
	var p *PanicError
	switch {
	case j.run == "fail" && !errors.Is(j.err, errFailed),
		j.run == "exit" && !errors.Is(j.err, ErrGoexit),
		j.run == "panic" && !errors.As(j.err, &p),
		j.run == "return" && j.err != nil:
		return fmt.Errorf("job %d: %s reported as %w", j.id, j.run, j.err)
	}
	took := j.end.Sub(j.start)
	atLeast, atMost := 0, 0
	if hungAfter > 0 && took > hungAfter*5/4 {
		atLeast = 1
	}
	if hungAfter > 0 && took >= hungAfter {
		atMost = 1
	}
	if j.hungs < atLeast || j.hungs > atMost {
		return fmt.Errorf("job %d: took %v, reported as hung %d times", j.id, took, j.hungs)
	}
	return nil
}

// trial is one run of the property test.
type trial struct {
	config   PoolConfig[*job]
	pool     *Pool[*job]
	release  chan struct{}
	released sync.Once

	mu      sync.Mutex
	jobs    []*job
	workers int
	hurried bool
	wrong   []string
}

func (r *trial) note(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f()
}

func (r *trial) complain(format string, args ...any) {
	r.wrong = append(r.wrong, fmt.Sprintf(format, args...))
}

func (r *trial) run(j *job) error {
	r.note(func() {
		j.started++
		j.start = time.Now()
		fresh, old := 0, 0
		for _, o := range r.jobs {
			switch {
			case o.started == o.returned:
			case r.config.HungAfter > 0 && time.Since(o.start) >= r.config.HungAfter:
				old++
			default:
				fresh++
			}
		}
		if n := fresh + max(old-r.config.MaxHung, 0); n > r.workers && !r.hurried {
			r.complain("%d places are in use, %d are allowed", n, r.workers)
		}
	})
	defer r.note(func() { j.returned++; j.end = time.Now() })
	if j.child != nil {
		r.pool.Submit(j.child)
	}
	if j.runs < 0 {
		<-r.release
	}
	pass(time.Duration(j.runs) * time.Second)
	return misbehave(j.run)
}

func (r *trial) done(j *job, err error) {
	r.note(func() {
		j.dones++
		j.err = err
		if j.inHung || j.returned != 1 {
			r.complain("job %d: done before its Run or Hung has ended", j.id)
		}
	})
	_ = misbehave(j.done)
}

func (r *trial) hung(j *job) {
	r.note(func() {
		j.hungs++
		j.inHung = true
		if j.dones != 0 {
			r.complain("job %d: hung after done", j.id)
		}
	})
	defer r.note(func() { j.inHung = false })
	_ = misbehave(j.hung)
}

// end lets all jobs end and returns how many do not.
func (r *trial) end() int {
	r.released.Do(func() { close(r.release) })
	ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
	defer cancel()
	return r.pool.Drain(ctx)
}

// newJob draws a job, and perhaps one that it submits.
func (r *trial) newJob(t *rapid.T) *job {
	how := func(name string) string {
		return rapid.SampledFrom([]string{"return", "fail", "panic", "exit", "slow"}).Draw(t, name)
	}
	j := &job{
		id:   len(r.jobs),
		runs: rapid.SampledFrom([]int{0, 0, 1, 2, 3, -1}).Draw(t, "runs"),
		run:  rapid.SampledFrom([]string{"return", "fail", "panic", "exit"}).Draw(t, "run"),
		done: how("done"), hung: how("hung"),
	}
	r.jobs = append(r.jobs, j)
	if rapid.IntRange(0, 5).Draw(t, "child") == 0 {
		j.child = r.newJob(t)
	}
	return j
}

// Every value is run once and reported once, and no more run than may, whatever
// Run, Done and Hung do.
func TestEveryValueIsRunAndReportedExactlyOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rapid.SyncTest(t, func(t *rapid.T) {
			r := &trial{release: make(chan struct{})}
			r.config = PoolConfig[*job]{
				Workers:   rapid.IntRange(1, 4).Draw(t, "workers"),
				HungAfter: time.Duration(rapid.IntRange(0, 2).Draw(t, "hung after")) * time.Second,
				MaxHung:   rapid.IntRange(0, 3).Draw(t, "max hung"),
				Run:       r.run, Done: r.done, Hung: r.hung,
			}
			r.workers = r.config.Workers
			r.pool = NewPool(r.config)
			defer r.end() // a bubble must be empty in the end, even if the test fails
			t.Repeat(map[string]func(*rapid.T){
				"submit": func(t *rapid.T) {
					var j *job
					synctest.Wait()
					r.note(func() { j = r.newJob(t) })
					r.pool.Submit(j)
				},
				"submit all": func(t *rapid.T) {
					jobs := make([]*job, rapid.IntRange(0, 5).Draw(t, "jobs"))
					synctest.Wait()
					r.note(func() {
						for n := range jobs {
							jobs[n] = r.newJob(t)
						}
					})
					r.pool.SubmitAll(jobs)
				},
				"time passes": func(t *rapid.T) {
					pass(time.Duration(rapid.IntRange(1, 6).Draw(t, "half seconds")) * 500 * time.Millisecond)
				},
				"set workers": func(t *rapid.T) {
					synctest.Wait()
					n := rapid.IntRange(1, 4).Draw(t, "workers")
					r.note(func() { r.workers = n })
					r.pool.SetWorkers(n)
				},
				"hurry": func(t *rapid.T) {
					if rapid.IntRange(0, 9).Draw(t, "really") > 0 {
						return
					}
					r.note(func() { r.hurried = true })
					r.pool.Hurry()
					synctest.Wait()
					r.note(func() {
						for _, j := range r.jobs {
							if j.child != nil && j.started > 0 && j.child.started == 0 || r.pool.Pending() != r.pool.Hung() {
								t.Fatalf("something waits after Hurry")
							}
						}
					})
				},
			})
			if n := r.end(); n != 0 {
				t.Fatalf("%d are unfinished", n)
			}
			if n := goroutines(); n != 0 {
				t.Fatalf("%d goroutines are left", n)
			}
			if len(r.wrong) > 0 {
				t.Fatal(r.wrong)
			}
			for _, j := range r.jobs {
				if err := j.check(r.config.HungAfter); err != nil {
					t.Fatal(err)
				}
			}
			if r.pool.Hung() != 0 || r.pool.Pending() != 0 {
				t.Fatalf("%d hung, %d pending in the end", r.pool.Hung(), r.pool.Pending())
			}
		})
	})
}

// The same with real threads, for the race detector.
func TestConcurrentUseLosesNothing(t *testing.T) {
	const submitters, each = 8, 500
	var ran, done [submitters * each]atomic.Int32
	p := NewPool(PoolConfig[int]{
		Workers: 2, HungAfter: 50 * time.Microsecond, MaxHung: 2,
		Run: func(n int) error {
			ran[n].Add(1)
			switch n % 50 {
			case 0:
				for start := time.Now(); time.Since(start) < 50*time.Microsecond; { // about as long as the watch
					runtime.Gosched()
				}
			case 1:
				runtime.Goexit()
			case 2:
				panic(n)
			}
			return nil
		},
		Done: func(n int, _ error) { done[n].Add(1) },
		Hung: func(int) { runtime.Gosched() },
	})
	var wg sync.WaitGroup
	for s := range submitters {
		wg.Go(func() {
			for n := range each {
				if s%2 == 0 {
					p.Submit(s*each + n)
				} else {
					p.SubmitAll([]int{s*each + n})
				}
				switch {
				case n%100 == 0:
					p.SetWorkers(1 + n/100)
				case n == each-10 && s == 0:
					p.Hurry()
				}
			}
		})
	}
	wg.Wait()
	drainWithin(t, p, time.Minute)
	for n := range ran {
		if ran[n].Load() != 1 || done[n].Load() != 1 {
			t.Fatalf("value %d: run %d times, done %d times", n, ran[n].Load(), done[n].Load())
		}
	}
}
