// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEventsTellWhatHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(recorder)
		s := open(t, WithIdleTimeout(time.Minute), WithObserver(r.observe))
		start := time.Now()
		_, l := addLeased(t, s, "a")
		pass(time.Second)
		l.Hold()
		l.Confirm()
		l.Confirm()
		l.Release()
		pass(time.Second)
		must(t, s.Touch("a"))
		l = acquire(t, s, "a")
		pass(time.Second)
		must(t, s.Remove("a"))
		pass(time.Second)
		l.Release()
		synctest.Wait()
		f := s.Fingerprint("a")
		at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
		want := []Event{
			{Kind: EventCreated, Fingerprint: f, At: at(0), Created: at(0), LastUsed: at(0)},
			{Kind: EventConfirmed, Fingerprint: f, At: at(1), Created: at(0), LastUsed: at(0), Confirmed: true, Holds: true},
			{Kind: EventEnded, Fingerprint: f, At: at(3), Created: at(0), LastUsed: at(2), Reason: ReasonClosed, Confirmed: true, Holds: true, InUse: true},
		}
		got := r.all()
		for i := range got {
			got[i].At, got[i].Created, got[i].LastUsed = got[i].At.Round(0), got[i].Created.Round(0), got[i].LastUsed.Round(0)
		}
		for i := range want {
			want[i].At, want[i].Created, want[i].LastUsed = want[i].At.Round(0), want[i].Created.Round(0), want[i].LastUsed.Round(0)
		}
		if !slices.Equal(got, want) {
			t.Errorf("\n got %+v\nwant %+v", got, want)
		}
		if text := got[2].String(); text != "session "+f.String()+" ended: closed, age 3s, unused for 1s" {
			t.Errorf("reads %q", text)
		}
		if text := got[0].String(); text != "session "+f.String()+" created" {
			t.Errorf("reads %q", text)
		}
	})
}

func TestTheObserverRunsOneAtATimeAndAfterTheFact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Store[*conn]
		var running, calls atomic.Int32
		s = open(t, WithObserver(func(e Event) {
			if running.Add(1) != 1 {
				t.Error("two calls at a time")
			}
			<-time.After(time.Second)
			running.Add(-1)
			calls.Add(1)
			if e.Reason == ReasonClosed {
				_, err := s.Peek("a")
				wantErr(t, err, ErrNotFound)
			}
		}))
		start := time.Now()
		add(t, s, "a")
		must(t, s.Confirm("a"))
		must(t, s.Remove("a"))
		add(t, s, "b")
		if time.Since(start) != 0 {
			t.Error("somebody waited for the observer")
		}
		pass(4 * time.Second)
		if calls.Load() != 4 {
			t.Errorf("%d calls", calls.Load())
		}
	})
}

func TestTheObserverCanBeChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := new(recorder), new(recorder)
		s := open(t, WithObserver(a.observe))
		add(t, s, "x")
		must(t, s.Reconfigure(WithObserver(b.observe)))
		must(t, s.Confirm("x"))
		must(t, s.Reconfigure(WithObserver(nil)))
		must(t, s.Remove("x"))
		synctest.Wait()
		f := s.Fingerprint("x")
		if a.story(f) != "created" || b.story(f) != "confirmed" {
			t.Errorf("the first heard %q, the second %q", a.story(f), b.story(f))
		}
	})
}

// Times that are told are those of what happened, to the last bit, so that they
// are in its order.
func TestEventsTellWhenItHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(recorder)
		s := open(t, WithObserver(r.observe), WithMaxSessions(1))
		var want []time.Time
		for i := range 5 {
			pass(1234567 * time.Nanosecond)
			add(t, s, fmt.Sprint(i))
			if i > 0 { // the one before has made room
				want = append(want, time.Now())
			}
			want = append(want, time.Now())
		}
		must(t, s.Remove("4"))
		want = append(want, time.Now())
		synctest.Wait()
		all := r.all()
		if len(all) != len(want) {
			t.Fatalf("%d events, want %d: %v", len(all), len(want), all)
		}
		for i, ev := range all {
			if !ev.At.Equal(want[i]) || ev.Created.After(ev.At) {
				t.Errorf("event %d: %v at %v, created %v, want it at %v", i, ev, ev.At, ev.Created, want[i])
			}
		}
	})
}

func TestWhatASlowObserverMissesIsCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const missed = 7
		hang := make(chan struct{})
		var seen atomic.Int64
		s := open(t, WithObserver(func(Event) {
			<-hang
			seen.Add(1)
		}))
		for range maxQueuedEvents + missed {
			s.journal.submit(delivery{observe: s.config.Load().observer, event: Event{Kind: EventCreated}})
		}
		c := add(t, s, "a") // the store goes on, and its sessions end
		must(t, s.Remove("a"))
		synctest.Wait()
		if !c.isClosed(t) {
			t.Error("closing waits for the observer")
		}
		if got := s.Stats().EventsDropped; got < missed+2 || got > missed+3 {
			t.Errorf("%d dropped, want %d events and perhaps a line", got, missed+2)
		}
		close(hang)
		synctest.Wait()
		if got := seen.Load(); got != maxQueuedEvents {
			t.Errorf("%d delivered, want %d", got, maxQueuedEvents)
		}
	})
}

// lines is a log handler that notes lines as "LEVEL message key=value ...",
// without times.
type lines struct {
	*syncBuffer
	slog.Handler
}

func newLines() lines {
	b := new(syncBuffer)
	return lines{b, slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "session" {
			return slog.Attr{}
		}
		return a
	}})}
}

// take returns the lines so far, and forgets them.
func (l lines) take() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimSpace(l.buf.String()), "\n")
	l.buf.Reset()
	if all[0] == "" {
		return nil
	}
	return all
}

func (l lines) want(t *testing.T, parts ...string) {
	t.Helper()
	got := l.take()
	if len(got) != len(parts) {
		t.Errorf("%d lines, want %d:\n%s", len(got), len(parts), strings.Join(got, "\n"))
		return
	}
	for i, want := range parts {
		if !strings.HasPrefix(got[i], want) {
			t.Errorf("line %q, want %q", got[i], want)
		}
	}
}

func TestLogLinesOfEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLines()
		s := open(t, WithLogger(slog.New(log)), WithMaxSessions(1), WithIdleTimeout(time.Minute), WithLifetime(10*time.Minute))
		addConfirmed(t, s, "a")
		must(t, s.Hold("a"))
		pass(time.Minute)
		log.want(t, `level=INFO msg="layover: session ended" reason=idle sessions=1 age=1m0s unused=1m0s confirmed=true held=true`)
		add(t, s, "a")
		add(t, s, "b")
		log.want(t, `level=WARN msg="layover: session ended" reason=capacity sessions=1 age=0s unused=0s confirmed=false held=false`)
		s.Kill(s.Fingerprint("b"))
		log.want(t, `level=WARN msg="layover: session ended" reason=killed`)
		add(t, s, "c")
		pass(time.Minute)
		log.want(t, `level=INFO msg="layover: session ended" reason=unconfirmed`)
		_, l := addLeased(t, s, "d")
		pass(10 * time.Minute)
		log.want(t, `level=INFO msg="layover: session ended" reason=lifetime`)
		l.Release()
		add(t, s, "e")
		must(t, s.Put("e", new(conn), Origin{}))
		must(t, s.Remove("e"))
		log.want(t, `level=INFO msg="layover: session ended" reason=replaced`, `level=INFO msg="layover: session ended" reason=closed`)
		add(t, s, "f")
		must(t, s.Shutdown(t.Context()))
		log.want(t, `level=INFO msg="layover: session ended" reason=shutdown`)
	})
}

func TestLogLinesAreAtMostOneASecondForEachReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLines()
		s := open(t, WithLogger(slog.New(log)))
		const ended = `level=INFO msg="layover: session ended" `
		remove := func(n int) {
			for range n {
				add(t, s, "a")
				must(t, s.Remove("a"))
			}
		}
		remove(5)
		log.want(t, ended+"reason=closed sessions=1")
		add(t, s, "b") // another reason has a line of its own
		must(t, s.Put("b", new(conn), Origin{}))
		log.want(t, ended+"reason=replaced sessions=1")
		pass(time.Second - 1)
		remove(1)
		log.want(t)
		pass(1)
		remove(2)
		log.want(t, ended+"reason=closed sessions=6") // five without a line, and this one
		must(t, s.Put("b", new(conn), Origin{}))
		log.want(t, ended+"reason=replaced sessions=1")
		remove(3)
		must(t, s.Shutdown(t.Context()))
		log.want(t, ended+"reason=shutdown sessions=1", `level=INFO msg="layover: more sessions ended" reason=closed sessions=4`)
		must(t, s.Shutdown(t.Context()))
		log.want(t)
	})
}

func TestLogLinesOfFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLines()
		s := open(t, WithLogger(slog.New(log)), WithHungClose(time.Second), WithObserver(func(e Event) {
			if e.Kind == EventCreated {
				panic("observer")
			}
		}))
		closed := func(f func() error) {
			t.Helper()
			must(t, s.Put("some-long-id", &conn{close: f}, Origin{}))
			must(t, s.Remove("some-long-id"))
			pass(time.Minute)
		}
		const prefix, observer, ended = `level=ERROR msg="layover: `, `level=ERROR msg="layover: observer failed" error="panic: string" panic=observer stack=`, `level=INFO msg="layover: session ended" reason=`
		sorted := func(want ...string) {
			t.Helper()
			got := log.take()
			slices.Sort(got)
			slices.Sort(want)
			if len(got) != len(want) {
				t.Errorf("%d lines, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
				return
			}
			for i := range want {
				if !strings.HasPrefix(got[i], want[i]) {
					t.Errorf("line %q, want %q", got[i], want[i])
				}
			}
		}
		closed(func() error { return errors.New("lost") })
		sorted(observer, ended, prefix+`closing a session failed" error=lost times=1`)
		closed(func() error { panic("worse") })
		sorted(observer, ended, prefix+`closing a session failed" error="panic: string" panic=worse stack=`)
		closed(func() error { <-time.After(2 * time.Second); return nil })
		sorted(observer, ended, prefix+`closing a session hangs" times=1`)

		for range 4 {
			must(t, s.Put("some-long-id", &conn{close: func() error { return errors.New("lost") }}, Origin{}))
			must(t, s.Remove("some-long-id"))
			synctest.Wait()
		}
		must(t, s.Shutdown(t.Context()))
		sorted(observer, ended, prefix+`closing a session failed" error=lost times=1`,
			`level=INFO msg="layover: more sessions ended" reason=closed sessions=3`,
			prefix+`more failures" of=close times=3`, prefix+`more failures" of=observer times=3`)
	})
}

func TestALogHandlerThatHangsHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		s := open(t, WithLogger(slog.New(handler{slog.DiscardHandler, func() { <-hang }})))
		for i := range 100 {
			c := add(t, s, fmt.Sprint(i))
			must(t, s.Remove(fmt.Sprint(i)))
			synctest.Wait()
			if !c.isClosed(t) {
				t.Fatal("closing waits for the log")
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantErr(t, s.Shutdown(ctx), context.DeadlineExceeded)
		close(hang)
	})
}

func TestExplain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		start := time.Now()
		add(t, s, "a")
		f := s.Fingerprint("a")
		if ev, ok := s.Explain(f); ok || ev != (Event{}) {
			t.Errorf("explains the end of a live session: %v", ev)
		}
		if _, ok := s.Explain(s.Fingerprint("never")); ok {
			t.Error("explains what never was")
		}
		pass(time.Second)
		must(t, s.Remove("a"))
		ev, ok := s.Explain(f)
		if !ok || ev.Kind != EventEnded || ev.Reason != ReasonClosed || !ev.Created.Equal(start) ||
			!ev.At.Equal(start.Add(time.Second)) || !ev.LastUsed.Equal(start) || ev.InUse || ev.Fingerprint != f {
			t.Errorf("got %+v", ev)
		}

		// Of several with the same ID, the one that ended last, in whichever
		// ring it is.
		for i, confirmed := range []bool{true, false, false, true, true, false} { // and if the clock stands still
			add(t, s, "a")
			if confirmed {
				must(t, s.Confirm("a"))
			}
			must(t, s.Remove("a"))
			if ev, ok := s.Explain(f); !ok || ev.Confirmed != confirmed || !ev.At.Equal(time.Now()) {
				t.Errorf("session %d: got %+v", i, ev)
			}
		}
		add(t, s, "a") // it tells of the last one while the next one is live
		if _, ok := s.Explain(f); !ok {
			t.Error("forgot the former one since there is a new one")
		}
	})
}

// What was explained before is explained for as long as it is remembered, and its
// place is not taken for that of who comes after.
func TestExplainAfterEveryEnd(t *testing.T) {
	s := open(t, WithRemembered(6)) // three of them
	for i := range 20 {
		add(t, s, fmt.Sprint(i))
		must(t, s.Confirm(fmt.Sprint(i)))
		must(t, s.Remove(fmt.Sprint(i)))
		for j := range 20 {
			f := s.Fingerprint(fmt.Sprint(j))
			if ev, ok := s.Explain(f); ok != (j <= i && j > i-3) || ok && (ev.Fingerprint != f || ev.Reason != ReasonClosed) {
				t.Errorf("after %d sessions number %d: %t, %v", i+1, j, ok, ev)
			}
		}
	}
	if _, ok := s.Explain(Fingerprint{}); ok {
		t.Error("explains nothing")
	}
}

func TestExplainIsBoundedAndFloodsWashOutOnlyEachOther(t *testing.T) {
	s := open(t, WithRemembered(11))
	end := func(id string, confirm bool) {
		add(t, s, id)
		if confirm {
			must(t, s.Confirm(id))
		}
		must(t, s.Remove(id))
	}
	known := func(name string, n int) (ids []int) {
		for i := range n {
			if _, ok := s.Explain(s.Fingerprint(fmt.Sprint(name, i))); ok {
				ids = append(ids, i)
			}
		}
		return ids
	}
	for i := range 4 {
		end(fmt.Sprint("honest", i), true)
	}
	l, err := s.Add("honest4", new(conn), Origin{Holds: true})
	must(t, err)
	must(t, s.Remove("honest4"))
	l.Release()
	for i := range 1000 {
		end(fmt.Sprint("flood", i), false)
	}
	if got := known("honest", 5); len(got) != 5 {
		t.Errorf("a flood washed out honest ones, left are %v", got)
	}
	if got := known("flood", 1000); !slices.Equal(got, []int{995, 996, 997, 998, 999}) {
		t.Errorf("remembered are %v, want the last 5", got)
	}
	for i := range 7 {
		end(fmt.Sprint("later", i), true)
	}
	if got := known("later", 7); !slices.Equal(got, []int{1, 2, 3, 4, 5, 6}) || len(known("honest", 5)) > 0 {
		t.Errorf("remembered are %v, want the last 6", got)
	}
	for range 20 { // one ID fills a ring, and is washed out as a whole
		end("same", true)
	}
	for i := range 6 {
		end(fmt.Sprint("again", i), true)
	}
	if _, ok := s.Explain(s.Fingerprint("same")); ok || len(known("again", 6)) != 6 {
		t.Error("an ID that was used again stays for ever, or takes others with it")
	}
	for i := range s.memory.rings {
		if r := &s.memory.rings[i]; len(r.ends) > r.size || len(r.heads) > r.size {
			t.Errorf("ring %d holds %d ends and %d fingerprints, its size is %d", i, len(r.ends), len(r.heads), r.size)
		}
	}
}

func TestRememberingNothing(t *testing.T) {
	for n, want := range map[int]bool{0: false, 1: true} {
		s := open(t, WithRemembered(n))
		addConfirmed(t, s, "a")
		add(t, s, "b")
		must(t, s.Remove("a"))
		must(t, s.Remove("b"))
		if _, ok := s.Explain(s.Fingerprint("a")); ok != want {
			t.Errorf("with %d remembered, a confirmed one is known: %v", n, ok)
		}
		if _, ok := s.Explain(s.Fingerprint("b")); ok {
			t.Errorf("with %d remembered, an unconfirmed one is known", n)
		}
		wantErr(t, s.Touch("b"), ErrNotFound)
	}
}

// Who ends a session need not be who settles it. An inserter that has looked at the
// clock before must not date the end back, perhaps to before the session's deadline.
func TestAnEndIsNeverReportedAsEarlierThanItWas(t *testing.T) {
	for name, settle := range map[string]func(s *Store[*conn], before time.Duration){
		"a victim": func(s *Store[*conn], before time.Duration) {
			s.evict(s.config.Load(), before, s.ledger.policy.Victim(nil))
		},
		"one whose ID is taken": func(s *Store[*conn], before time.Duration) {
			n := &newcomer[*conn]{now: before, id: "a", entry: newEntry("a", new(conn))}
			_, _, err := s.displace(s.config.Load(), n, s.index.find("a"))
			must(t, err)
		},
		"one that is replaced": func(s *Store[*conn], before time.Duration) {
			n := &newcomer[*conn]{now: before, id: "b", entry: newEntry("b", new(conn))}
			n.instead = s.index.find("a")
			s.giveWay(s.config.Load(), n)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := new(recorder)
				s := open(t, WithIdleTimeout(time.Hour), WithObserver(r.observe))
				add(t, s, "a")
				s.lock()
				before := s.clock.now()
				pass(time.Second)
				e, ended := s.index.find("a"), time.Now()
				if st := e.load(); !e.swap(st, st.ended(ReasonClosed)) { // by somebody who has yet to settle it
					t.Fatal("it had ended before")
				}
				settle(s, before)
				s.unlock()
				synctest.Wait()
				all := r.all()
				if last := all[len(all)-1]; last.Kind != EventEnded || last.At.Before(ended) {
					t.Errorf("%v %s before its end", last, ended.Sub(last.At))
				}
			})
		})
	}
}
