// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func addSized(t *testing.T, s *Store[*conn], id string, o Origin) *Lease[*conn] {
	t.Helper()
	l, err := s.Add(id, new(conn), o)
	must(t, err)
	return &l
}

func TestInvariant01BoundOfBytes(t *testing.T) {
	const maximum = 500
	s := open(t, WithMaxBytes(maximum), WithMaxSessions(50))
	stop := watch(func() bool {
		n := s.Stats().Bytes
		ok := n >= 0 && n <= maximum
		if !ok {
			t.Errorf("%d bytes, maximum %d", n, maximum)
		}
		return ok
	})
	var wg sync.WaitGroup
	var grown, refused atomic.Int64
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(w)))
			for i := range 2000 {
				id := fmt.Sprint(w, "/", i%20)
				if i%3 == 0 {
					_ = s.Put(id, new(conn), Origin{Size: r.Int64N(300)})
					continue
				}
				l, err := s.Acquire(id)
				if err != nil {
					continue
				}
				switch err := l.SetSize(r.Int64N(600)); {
				case err == nil:
					grown.Add(1)
				case errors.Is(err, ErrFull):
					refused.Add(1)
				default:
					t.Error(err)
				}
				l.Release()
			}
		})
	}
	wg.Wait()
	stop()
	if grown.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d grew, %d were refused: the test did not fill the store", grown.Load(), refused.Load())
	}
}

func TestGrowthEvictsOnlyIdleOnesThatTakeBytes(t *testing.T) {
	s := open(t, WithMaxBytes(100))
	addSized(t, s, "none", Origin{}).Release()
	addSized(t, s, "idle", Origin{Size: 40}).Release()
	busy := addSized(t, s, "busy", Origin{Size: 40})
	l := addSized(t, s, "grows", Origin{Size: 10})
	must(t, l.SetSize(20))
	wantLive(t, s, "idle")
	must(t, l.SetSize(60))
	wantGone(t, s, "idle", ReasonCapacity)
	wantLive(t, s, "none", "busy")
	wantErr(t, l.SetSize(61), ErrFull)
	wantErr(t, l.SetSize(-1), ErrInvalid)
	if l.Size() != 60 || s.Stats().Bytes != 100 {
		t.Errorf("size %d, in all %d, want 60 and 100", l.Size(), s.Stats().Bytes)
	}
	must(t, l.SetSize(0))
	busy.Release()
	l.Release()
	if n := s.Stats().Bytes; n != 40 {
		t.Errorf("%d bytes, want 40", n)
	}
}

func TestWhatCannotFitEvictsNobody(t *testing.T) {
	s := open(t, WithMaxBytes(100))
	addSized(t, s, "a", Origin{Size: 50}).Release()
	wantErr(t, s.Put("b", new(conn), Origin{Size: 101}), ErrFull)
	wantErr(t, s.Put("b", new(conn), Origin{Size: 1 << 40}), ErrFull)
	wantErr(t, s.Put("b", new(conn), Origin{Size: 1<<40 + 1}), ErrInvalid)
	wantErr(t, s.Put("b", new(conn), Origin{Size: -1}), ErrInvalid)
	wantLive(t, s, "a")
}

func TestBytesOfThoseThatAreReplacedOrRetired(t *testing.T) {
	s := open(t, WithMaxBytes(100))
	addSized(t, s, "a", Origin{Size: 70}).Release()
	must(t, s.Put("a", new(conn), Origin{Size: 90})) // in the place of the old one
	if n := s.Stats().Bytes; n != 90 {
		t.Errorf("%d bytes, want 90", n)
	}
	l := acquire(t, s, "a")
	must(t, s.Remove("a"))
	wantErr(t, s.Put("b", new(conn), Origin{Size: 20}), ErrFull) // still there
	must(t, l.SetSize(80))
	must(t, s.Put("b", new(conn), Origin{Size: 20}))
	l.Release()
	if n := s.Stats().Bytes; n != 20 {
		t.Errorf("%d bytes, want 20", n)
	}
	l = acquire(t, s, "b")
	s.Kill(s.Fingerprint("b"))
	must(t, l.SetSize(50)) // nothing that counts
	if n := s.Stats().Bytes; n != 0 {
		t.Errorf("%d bytes, want 0", n)
	}
	l.Release()
}

func TestAPutThatFailsLeavesTheOldSessionThere(t *testing.T) {
	s := open(t, WithMaxBytes(100))
	addSized(t, s, "a", Origin{Size: 60}).Release()
	busy := addSized(t, s, "b", Origin{Size: 30})
	wantErr(t, s.Put("a", new(conn), Origin{Size: 75}), ErrFull)
	wantErr(t, s.Put("a", new(conn), Origin{Size: 101}), ErrFull)
	wantLive(t, s, "a", "b")
	must(t, s.Put("a", new(conn), Origin{Size: 70}))
	busy.Release()
}

func TestASessionThatGrowsMakesNoRoomItself(t *testing.T) {
	s := open(t, WithMaxBytes(100))
	l := addSized(t, s, "a", Origin{Size: 60})
	busy := addSized(t, s, "b", Origin{Size: 40})
	e := l.entry
	l.Release() // while it asks for more
	wantErr(t, s.setSize(e, 61), ErrFull)
	wantLive(t, s, "a", "b")
	if n := s.Stats().Bytes; n != 100 {
		t.Errorf("%d bytes, want 100", n)
	}
	busy.Release()
}

func TestGrowthInOneStepPushesOutNoLighterSource(t *testing.T) {
	s := open(t, WithMaxBytes(100))
	addSized(t, s, "light", Origin{Size: 10, Source: "light"}).Release()
	wantErr(t, s.Put("heavy", new(conn), Origin{Size: 91, Source: "heavy"}), ErrFull)
	wantLive(t, s, "light")
}

func TestSourcesAreToldHeaviestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		if got := s.Sources(10); len(got) > 0 {
			t.Errorf("an empty store tells of %v", got)
		}
		var leases []*Lease[*conn]
		for i, o := range []Origin{
			{Source: "one"}, {Source: "sized", Size: 1}, {Source: "three"}, {Source: "three", Size: 3}, {Source: "three", Size: 4}, {}, {}, {Source: "gone"},
		} {
			leases = append(leases, addSized(t, s, fmt.Sprint(i), o))
		}
		must(t, s.Remove("2")) // retired
		s.Kill(s.Fingerprint("7"))
		all := []SourceInfo{{"three", 3, 7}, {"", 2, 0}, {"sized", 1, 1}, {"one", 1, 0}}
		for n := -1; n <= 5; n++ {
			if got, want := s.Sources(n), all[:min(max(n, 0), len(all))]; !slices.Equal(got, want) {
				t.Errorf("the first %d: got %v, want %v", n, got, want)
			}
		}
		for _, l := range leases {
			l.Release()
		}
	})
}

// wantFull checks that err tells why there was no room.
func wantFull(t *testing.T, err error, want FullError) {
	t.Helper()
	wantErr(t, err, ErrFull)
	var full *FullError
	if !errors.As(err, &full) || *full != want {
		t.Errorf("got %v, want %v", err, &want)
	}
}

func TestWhoeverFindsNoRoomIsToldWhatIsLacking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithMaxSessions(4), WithMaxBytes(100), WithSourceShare(0))
		a := addSized(t, s, "a1", Origin{Source: "a", Size: 40})
		a2 := addSized(t, s, "a2", Origin{Source: "a"})
		b := addSized(t, s, "b", Origin{Source: "b", Size: 40})
		must(t, s.Remove("a2")) // retired: takes its place
		from := func(source string, size int64) Origin { return Origin{Source: source, Size: size} }

		wantFull(t, s.Put("x", new(conn), from("a", 30)), FullError{Max: 4, Own: 2, Lacking: LackingBytes})
		wantFull(t, s.Put("x", new(conn), from("c", 101)), FullError{Max: 4, Own: 0, Lacking: LackingBytes})
		wantFull(t, b.SetSize(70), FullError{Max: 4, Own: 1, Lacking: LackingBytes})
		wantFull(t, b.SetSize(110), FullError{Max: 4, Own: 1, Lacking: LackingBytes})
		d := addSized(t, s, "d", Origin{})
		wantFull(t, s.Put("x", new(conn), from("a", 0)), FullError{Max: 4, Own: 2})
		wantFull(t, s.Put("x", new(conn), from("c", 30)), FullError{Max: 4})
		wantFull(t, second(s.Add("x", new(conn), Origin{})), FullError{Max: 4, Own: 1})
		wantFull(t, s.Put("b", new(conn), from("b", 0)), FullError{Max: 4, Own: 1}) // whom it would replace is in use
		d.Release()
		wantFull(t, s.Put("d", new(conn), from("", 101)), FullError{Max: 4, Own: 1, Lacking: LackingBytes})
		wantFull(t, s.Put("d", new(conn), from("", 30)), FullError{Max: 4, Own: 1, Lacking: LackingBytes})
		if got := s.Stats().Refused; got != 10 {
			t.Errorf("%d refused, want 10", got)
		}
		must(t, s.Reconfigure(WithMaxSessions(0)))
		wantFull(t, s.Put("x", new(conn), from("a", 30)), FullError{Own: 2, Lacking: LackingBytes})
		for _, l := range []*Lease[*conn]{a, a2, b} {
			l.Release()
		}
	})
}

// A store that is above its maximum lacks what that is of.
func TestAboveALoweredMaximumItIsToldWhatIsLacking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		a := addSized(t, s, "a", Origin{Size: 50})
		b := addSized(t, s, "b", Origin{Size: 50})
		must(t, s.Reconfigure(WithMaxSessions(1)))
		wantFull(t, s.Put("x", new(conn), Origin{}), FullError{Max: 1, Own: 2})
		must(t, s.Reconfigure(WithMaxSessions(10), WithMaxBytes(60)))
		wantFull(t, s.Put("x", new(conn), Origin{Size: 1}), FullError{Max: 10, Own: 2, Lacking: LackingBytes})
		must(t, s.Put("x", new(conn), Origin{}))
		a.Release()
		b.Release()
	})
}

func TestALowerMaximumOfBytesTrims(t *testing.T) {
	s := open(t)
	addSized(t, s, "none", Origin{}).Release()
	for i := range 10 {
		addSized(t, s, fmt.Sprint(i), Origin{Size: 10}).Release()
	}
	busy := addSized(t, s, "busy", Origin{Size: 30})
	must(t, s.Reconfigure(WithMaxBytes(50)))
	if st := s.Stats(); st.Bytes != 50 || st.Live != 4 {
		t.Errorf("%+v", st)
	}
	wantLive(t, s, "none", "busy")
	must(t, s.Reconfigure(WithMaxBytes(20)))
	wantErr(t, s.Put("x", new(conn), Origin{Size: 1}), ErrFull)
	must(t, s.Put("y", new(conn), Origin{}))
	busy.Release()
	wantGone(t, s, "busy", ReasonCapacity)
}

func TestNobodyPushesOutTheBytesOfALighterSource(t *testing.T) {
	s := open(t, WithMaxBytes(100))
	for i := range 3 {
		addSized(t, s, fmt.Sprint("light", i), Origin{Size: 10, Source: "light"}).Release()
	}
	hog := addSized(t, s, "hog", Origin{Size: 60, Source: "hog"})
	wantErr(t, hog.SetSize(90), ErrFull)
	wantLive(t, s, "light0", "light1", "light2")
	hog.Release()
	must(t, s.Put("light3", new(conn), Origin{Size: 20, Source: "light"})) // in the place of one of its own
	wantGone(t, s, "light0", ReasonCapacity)
	wantLive(t, s, "light1", "light2", "hog")
}

func TestASessionHasNoMoreLeasesThanAllowed(t *testing.T) {
	s := open(t, WithMaxLeases(3))
	_, first := addLeased(t, s, "a")
	second, third := acquire(t, s, "a"), acquire(t, s, "a")
	wantErr(t, func() error { _, err := s.Acquire("a"); return err }(), ErrLeaseLimit)
	if n := s.Stats().LeasesRefused; n != 1 {
		t.Errorf("%d refusals are counted", n)
	}
	second.Release()
	acquire(t, s, "a").Release()
	must(t, s.Touch("a"))
	first.Release()
	third.Release()
}

func TestASourceUsesItsShareAndNoMore(t *testing.T) {
	const maximum, share = 40, 10
	s := open(t, WithMaxSessions(maximum), WithSourceShare(0.25), WithLifetime(time.Hour))
	for i := range 30 {
		must(t, s.Put(fmt.Sprint(i), new(conn), Origin{Source: "a"}))
	}
	var refused atomic.Int64
	var mu sync.Mutex // sessions and those who use them change at one moment
	var inUse, most int
	users := make([]int, 30)
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(w)))
			for range 500 {
				i := r.IntN(30)
				l, err := s.Acquire(fmt.Sprint(i))
				if err != nil {
					wantErr(t, err, ErrLeaseLimit)
					refused.Add(1)
					continue
				}
				mu.Lock()
				if users[i]++; users[i] == 1 {
					inUse++
					most = max(most, inUse)
				}
				mu.Unlock()
				for range 4 * shareTries { // longer than anybody waits for a share
					runtime.Gosched()
				}
				mu.Lock()
				if users[i]--; users[i] == 0 {
					inUse--
				}
				mu.Unlock()
				l.Release()
			}
		})
	}
	wg.Wait()
	if most > share || refused.Load() == 0 {
		t.Errorf("%d in use at once, share %d; %d were refused", most, share, refused.Load())
	}
	if n := s.index.find("0").source.busy.Load(); n != 0 {
		t.Errorf("%d count as in use", n)
	}
}

func TestTheShareIsGivenBack(t *testing.T) {
	s := open(t, WithMaxSessions(20), WithSourceShare(0.1)) // two of a source
	a := func(id string) *Lease[*conn] { return addSized(t, s, id, Origin{Source: "a"}) }
	full := func() {
		t.Helper()
		_, err := s.Add("x", new(conn), Origin{Source: "a"})
		wantErr(t, err, ErrLeaseLimit)
	}
	one, two := a("1"), a("2")
	full()
	addSized(t, s, "other", Origin{Source: "b"}).Release()
	addSized(t, s, "unnamed", Origin{}).Release()
	again := acquire(t, s, "1") // in use already
	again.Release()
	must(t, s.Remove("1")) // retired: in use still
	full()
	one.Release()
	three := a("3")
	full()
	s.Kill(s.Fingerprint("2")) // gets its place back at once
	four := a("4")
	full()
	two.Release() // too late to matter
	full()
	three.Release()
	four.Release()
	a("5").Release()
	must(t, s.Reconfigure(WithSourceShare(1)))
	five, six, seven := a("5'"), a("6"), a("7")
	must(t, s.Reconfigure(WithSourceShare(0.1)))
	five.Release()
	full()
	six.Release()
	a("8").Release()
	seven.Release()
}

func TestALeaseThatIsKeptForTooLongCostsItsSession(t *testing.T) {
	const age = time.Hour
	for name, retire := range map[string]func(*Store[*conn]){
		"live":          func(*Store[*conn]) {},
		"retired":       func(s *Store[*conn]) { must(t, s.Remove("a")) },
		"shutting down": func(s *Store[*conn]) { go func() { _ = s.Shutdown(context.Background()) }() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := newLines()
				s := open(t, WithIdleTimeout(10*time.Minute), WithMaxLeaseAge(age), WithLogger(slog.New(log)), WithLeaseTraces(true))
				c, l := addLeased(t, s, "a-secret-id")
				must(t, s.Put("a", new(conn), Origin{}))
				l2 := acquire(t, s, "a")
				retire(s)
				ctx := l2.Context()
				pass(age - 1)
				if ctx.Err() != nil || c.closed.Load() > 0 {
					t.Error("killed early")
				}
				pass(age + Tick)
				var ended *EndedError
				if !errors.As(context.Cause(ctx), &ended) || c.closed.Load() != 1 {
					t.Errorf("the session lives on: %v", context.Cause(ctx))
				}
				if n := s.Stats().LeasesExpired; n != 2 {
					t.Errorf("%d sessions were killed for their leases, want 2", n)
				}
				l.Release()
				l2.Release()
				told := strings.Join(log.take(), "\n")
				if !strings.Contains(told, "TestALeaseThatIsKeptForTooLong") || strings.Contains(told, "a-secret-id") {
					t.Errorf("log: %s", told)
				}
			})
		})
	}
}

func TestReconfigureDoesNotPutOffTheEndOfALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour), WithMaxLeaseAge(time.Hour))
		c, l := addLeased(t, s, "a")
		for i := range 5 {
			pass(30 * time.Minute)
			must(t, s.Reconfigure(WithIdleTimeout(time.Hour-time.Duration(i+1)*time.Minute)))
		}
		if !c.isClosed(t) {
			t.Error("a lease of an hour is two and a half hours old")
		}
		l.Release()
	})
}

func TestManyShortLeasesInARowAreNoLongOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute), WithMaxLeaseAge(5*time.Minute))
		c, l := addLeased(t, s, "a")
		for range 200 { // in use all the time, for an hour and forty minutes
			next := acquire(t, s, "a")
			pass(15 * time.Second)
			l.Release()
			pass(15 * time.Second)
			l = next
		}
		l.Release()
		wantLive(t, s, "a")
		if c.isClosed(t) {
			t.Error("closed")
		}
	})
}

func TestShutdownPastItsDeadlineTellsWhoKeptALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLines()
		s := open(t, WithLogger(slog.New(log)), WithLeaseTraces(true))
		_, l := addLeased(t, s, "a")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		var failed *ShutdownError
		if err := s.Shutdown(ctx); !errors.As(err, &failed) || failed.Killed != 1 {
			t.Errorf("got %v", err)
		}
		must(t, s.Shutdown(context.Background()))
		l.Release()
		if told := strings.Join(log.take(), "\n"); !strings.Contains(told, "TestShutdownPastItsDeadlineTells") {
			t.Errorf("log: %s", told)
		}
	})
}
