// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/lateness"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
	"github.com/c8e4ff29/layover/stress/internal/series"
)

// story is a life whose store does nothing: a test tells the books what happened.
type story struct {
	*life
	c *client
}

var storyLimits = limits{idle: time.Second, lifetime: 10 * time.Second, empty: 250 * time.Millisecond, holding: 500 * time.Millisecond, max: 4, bytes: 1000}

func newStory(t *testing.T) *story {
	t.Helper()
	r := &run{Book: promise.NewBook(), limits: storyLimits, began: time.Now(), late: lateness.New(pollEvery), recorder: series.NewRecorder(time.Second)}
	l, err := newLife(r)
	if err != nil {
		t.Fatal(err)
	}
	return &story{l, &client{life: l, id: 1, source: "one"}}
}

// stored is a session that was added now, and given back.
func (y *story) stored() *session {
	n := y.name("own")
	s := y.session(n, "one")
	s.asked, s.added, s.began, s.done = time.Now(), time.Now(), time.Now(), time.Now()
	s.note("added", 1)
	return s
}

// tells has the observer told of a session.
func (y *story) tells(s *session, kind layover.EventKind, r layover.Reason) {
	if kind == layover.EventCreated {
		y.events.expect(s.name, s)
	}
	y.observe(layover.Event{Kind: kind, Fingerprint: s.name.mark, At: time.Now(), Reason: r})
}

// created is a session that was reported.
func (y *story) created() *session {
	s := y.stored()
	y.tells(s, layover.EventCreated, 0)
	return s
}

// found has a call get a session.
func (s *session) foundNow() {
	s.found(s.look(false, time.Now()), "Acquire")
}

// foundUnderSharedID has a call get a session under an ID that several go by.
func (s *session) foundUnderSharedID() {
	s.found(s.lookBack(time.Now(), s.life.over.Load()), "Acquire")
}

func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // in the time of a bubble

func TestTheBooksTellWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		promise promise.Promise
		tell    func(y *story)
		want    string // empty: nothing is wrong
	}{
		"handed out just in time": {promise.NotStale, func(y *story) {
			s := y.stored()
			pass(250*time.Millisecond + time.Millisecond - 1)
			s.foundNow()
		}, ""},
		"handed out after its deadline": {promise.NotStale, func(y *story) {
			s := y.stored()
			pass(250*time.Millisecond + time.Millisecond)
			s.foundNow()
		}, "251ms after its last use, expected less than 251ms"},
		"handed out late, as a coarse clock has ticked late": {promise.NotStale, func(y *story) {
			y.limits = newChanges(limits{idle: time.Minute, lifetime: time.Hour, empty: 10 * time.Second, holding: time.Minute, max: 4, bytes: 1000}, time.Now())
			s := y.stored()
			pass(10*time.Second + promise.Grace)
			s.foundNow()
		}, ""},
		"handed out later than a coarse clock can have ticked": {promise.NotStale, func(y *story) {
			y.limits = newChanges(limits{idle: time.Minute, lifetime: time.Hour, empty: 10 * time.Second, holding: time.Minute, max: 4, bytes: 1000}, time.Now())
			s := y.stored()
			pass(10*time.Second + promise.Grace + 40*time.Millisecond)
			s.foundNow()
		}, "11.04s after its last use, expected less than 11.039"},
		"a confirmed one may go unused for longer": {promise.NotStale, func(y *story) {
			s := y.stored()
			s.confirming = true
			pass(time.Second)
			s.foundNow()
		}, ""},
		"handed out while another call may have used it": {promise.NotStale, func(y *story) {
			s := y.stored()
			pass(time.Second)
			s.found(s.look(true, time.Now()), "Acquire")
		}, ""},
		"handed out after its lifetime": {promise.NotStale, func(y *story) {
			s := y.stored()
			pass(11 * time.Second)
			s.touched(time.Now(), time.Now())
			s.foundNow()
		}, "at the age of 11s, expected less than 10.001s"},
		"handed out after its own end": {promise.NotStale, func(y *story) {
			s := y.stored()
			s.own = time.Now().Add(time.Millisecond)
			pass(2 * time.Millisecond)
			s.foundNow()
		}, "after its own end"},
		"handed out after it was gone": {promise.NotStale, func(y *story) {
			s := y.stored()
			s.endedBy(time.Now())
			s.foundNow()
		}, "after it was known to be gone"},
		"handed out after the shutdown": {promise.NotStale, func(y *story) {
			s := y.stored()
			y.over.Store(true)
			s.foundNow()
		}, "after the store was shut down"},
		"handed out before a shutdown that was quicker than the books": {promise.NotStale, func(y *story) {
			s := y.stored()
			began, over := time.Now(), y.over.Load()
			y.over.Store(true)
			s.found(s.lookBack(began, over), "Acquire")
		}, ""},
		"handed out under a shared ID after the shutdown": {promise.NotStale, func(y *story) {
			y.over.Store(true)
			y.stored().foundUnderSharedID()
		}, "after the store was shut down"},
		"handed out under a shared ID after it was gone": {promise.NotStale, func(y *story) {
			s := y.stored()
			s.endedBy(time.Now())
			pass(1)
			s.foundUnderSharedID()
		}, "after it was known to be gone"},
		"a raised timeout holds from the change on": {promise.NotStale, func(y *story) {
			s := y.stored()
			next := storyLimits
			next.empty, next.holding = time.Second, time.Second
			y.limits.begin(next, time.Now())
			y.limits.end(time.Now())
			pass(900 * time.Millisecond)
			s.foundNow()
		}, ""},
		"idled out early": {promise.NotEarly, func(y *story) {
			s := y.created()
			pass(250*time.Millisecond - 1)
			y.tells(s, layover.EventEnded, layover.ReasonUnconfirmed)
		}, "ended (unconfirmed) 250ms after its last use, expected at least 250ms"},
		"idled out in time": {promise.NotEarly, func(y *story) {
			s := y.created()
			pass(250 * time.Millisecond)
			y.tells(s, layover.EventEnded, layover.ReasonUnconfirmed)
		}, ""},
		"idled out under a lease": {promise.NotInUse, func(y *story) {
			s := y.created()
			s.uses(time.Now(), 1)
			pass(time.Second)
			y.tells(s, layover.EventEnded, layover.ReasonUnconfirmed)
		}, "although it was leased"},
		"confirmed, and ended as one that was not": {promise.Ordered, func(y *story) {
			s := y.created()
			y.tells(s, layover.EventConfirmed, 0)
			pass(time.Second)
			y.tells(s, layover.EventEnded, layover.ReasonUnconfirmed)
		}, "and it was confirmed: true"},
		"too young for the end of its lifetime": {promise.NotEarly, func(y *story) {
			s := y.created()
			pass(9*time.Second - 1)
			y.tells(s, layover.EventEnded, layover.ReasonLifetime)
		}, "ended (lifetime) at the age of 9s"},
		"closed, though nobody did": {promise.NotEarly, func(y *story) {
			y.tells(y.created(), layover.EventEnded, layover.ReasonClosed)
		}, "ended (closed), but nobody did that"},
		"ended for no shutdown": {promise.NotEarly, func(y *story) {
			y.tells(y.created(), layover.EventEnded, layover.ReasonShutdown)
		}, "ended for a shutdown, but there was none"},
		"renamed, though nobody did": {promise.Renewed, func(y *story) {
			y.tells(y.created(), layover.EventEnded, layover.ReasonRenamed)
		}, "ended (renamed), but nobody did that"},
		"ended before it was created": {promise.Ordered, func(y *story) {
			s := y.stored()
			y.events.expect(s.name, s)
			y.observe(layover.Event{Kind: layover.EventEnded, Fingerprint: s.name.mark, At: time.Now(), Reason: layover.ReasonIdle})
		}, "expected that after its creation"},
		"created twice": {promise.Ordered, func(y *story) {
			s := y.created()
			y.tells(s, layover.EventCreated, 0)
		}, "was created twice"},
		"ended twice": {promise.Ordered, func(y *story) {
			s := y.created()
			s.endsFor(layover.ReasonClosed, 1)
			y.tells(s, layover.EventEnded, layover.ReasonClosed)
			y.tells(s, layover.EventEnded, layover.ReasonClosed)
		}, "that nobody had stored, or that had ended already"},
		"closed twice": {promise.ClosedOnce, func(y *story) {
			s := y.created()
			_, _ = s.Close(), s.Close()
		}, "was closed 2 times, expected once"},
		"closed though it was refused": {promise.ClosedOnce, func(y *story) {
			s := y.stored()
			s.refused = true
			_ = s.Close()
		}, "was closed, but the store had refused it"},
		"closed under a lease": {promise.NotInUse, func(y *story) {
			s := y.created()
			s.uses(time.Now(), 1)
			_ = s.Close()
		}, "was closed under 1 leases"},
		"closed under a lease before a shutdown ran out of time": {promise.NotInUse, func(y *story) {
			s := y.created()
			s.uses(time.Now(), 1)
			y.deadline = time.Now().Add(cutAfter)
			y.cut.Store(true)
			pass(cutAfter - 1)
			_ = s.Close()
		}, "was closed under 1 leases"},
		"closed under a lease after a shutdown ran out of time": {promise.NotInUse, func(y *story) {
			s := y.created()
			s.uses(time.Now(), 1)
			y.deadline = time.Now().Add(cutAfter)
			y.cut.Store(true)
			pass(cutAfter)
			_ = s.Close()
		}, ""},
		"killed under a lease whose context goes on": {promise.NotInUse, func(y *story) {
			s := y.created()
			s.uses(time.Now(), 1)
			s.ctx = context.Background()
			s.endsFor(layover.ReasonKilled, 1)
			_ = s.Close()
		}, "whose context was not canceled before"},
		"never closed": {promise.ClosedOnce, func(y *story) {
			s := y.created()
			s.endsFor(layover.ReasonClosed, 1)
			y.tells(s, layover.EventEnded, layover.ReasonClosed)
			y.judgeEnd()
		}, "0 sessions were closed of 1, expected all"},
		"one too many": {promise.Bounded, func(y *story) {
			for range 5 {
				y.created()
			}
			y.created()
		}, "5 sessions were live at once, expected at most 4"},
		"two IDs for as long as it takes to be renamed": {promise.Bounded, func(y *story) {
			var s *session
			for range 5 {
				s = y.created()
			}
			s.renaming++
			y.tells(s, layover.EventEnded, layover.ReasonRenamed)
		}, ""},
		"above the quota": {promise.Allotted, func(y *story) {
			for range 4 {
				n := y.name("mob")
				s := y.session(n, mobSource)
				y.tells(s, layover.EventCreated, 0)
			}
			y.created()
		}, "a source had 4 sessions, expected at most its quota of 3"},
		"too many leased ones": {promise.Bounded, func(y *story) {
			for range 5 {
				y.stored().uses(time.Now(), 1)
			}
			y.c.within(time.Now())
		}, "5 sessions have leases, expected at most 4"},
		"too many bytes": {promise.Bounded, func(y *story) {
			s := y.stored()
			s.size = 1001
			s.uses(time.Now(), 1)
			y.c.within(time.Now())
		}, "take 1001 bytes, expected at most 1000"},
		"evicted with room": {promise.NotEarly, func(y *story) {
			y.tells(y.created(), layover.EventEnded, layover.ReasonCapacity)
		}, "was evicted with 1 live sessions"},
		"evicted, of a light source": {promise.Assured, func(y *story) {
			s := y.stored()
			s.source = "light"
			y.tells(s, layover.EventCreated, 0)
			for range 3 {
				y.created()
			}
			y.tells(s, layover.EventEnded, layover.ReasonCapacity)
		}, "of a source with 1 sessions, 1 of them unconfirmed, was evicted while another source had 3 and 3"},
		"there after its deadline": {promise.Prompt, func(y *story) {
			s := y.created()
			pass(250*time.Millisecond + time.Millisecond + promise.Grace + 1)
			s.review(time.Now(), promise.Grace)
		}, "is there 1.001s after its idle deadline, expected less than 1.001s"},
		"there after its lifetime, and in use": {promise.Prompt, func(y *story) {
			s := y.created()
			s.uses(time.Now(), 1)
			pass(10*time.Second + time.Millisecond + promise.Grace + 1)
			s.review(time.Now(), promise.Grace)
		}, "is there 1.001s after the end of its lifetime"},
		"there after its own end": {promise.Prompt, func(y *story) {
			s := y.created()
			s.own = time.Now().Add(time.Millisecond)
			pass(2*time.Millisecond + promise.Grace + 1)
			s.review(time.Now(), promise.Grace)
		}, "is there 1.001s after its own end"},
		"ended and not closed": {promise.Prompt, func(y *story) {
			s := y.created()
			s.endsFor(layover.ReasonClosed, 1)
			y.tells(s, layover.EventEnded, layover.ReasonClosed)
			pass(promise.Grace)
			s.review(time.Now(), promise.Grace)
		}, "and was not closed yet"},
		"there after its deadline, and many were refused": {promise.Prompt, func(y *story) {
			s := y.created()
			y.added.Add(backlog)
			y.refusals.Add(backlog)
			pass(2 * promise.Grace)
			s.review(time.Now(), promise.Grace)
		}, "is there 1.75s after its idle deadline"},
		"there after its deadline, for all that is known, as many events are on their way": {promise.Prompt, func(y *story) {
			s := y.created()
			y.added.Add(backlog)
			pass(2 * promise.Grace)
			s.review(time.Now(), promise.Grace)
		}, ""},
		"under a shared ID, and its Close waits for slow ones": {promise.Prompt, func(y *story) {
			y.suffer(scenario.SlowClosers)
			s := y.stored()
			s.name.shared = true
			pass(2 * promise.Grace)
			s.review(time.Now(), promise.Grace)
		}, ""},
		"under a shared ID, and its Close waited for slow ones": {promise.Prompt, func(y *story) {
			s := y.stored()
			s.name.shared = true
			pass(2 * promise.Grace)
			y.suffer(0)
			s.review(time.Now(), promise.Grace)
		}, ""},
		"under a shared ID, there after its deadline": {promise.Prompt, func(y *story) {
			s := y.stored()
			s.name.shared = true
			pass(2 * promise.Grace)
			s.review(time.Now(), promise.Grace)
		}, "is there 1.75s after its idle deadline"},
		"ended while closers were slow, and not closed yet": {promise.Prompt, func(y *story) {
			s := y.created()
			s.endsFor(layover.ReasonClosed, 1)
			y.tells(s, layover.EventEnded, layover.ReasonClosed)
			pass(promise.Grace)
			y.suffer(0)
			s.review(time.Now(), promise.Grace)
		}, ""},
		"an ID in an error": {promise.Secret, func(y *story) {
			y.keepsSecrets("no session "+y.stored().name.id, "an error")
		}, "an error contains an ID: no session ******"},
		"not found for no reason of its client's": {promise.NotEarly, func(y *story) {
			s := y.stored()
			s.lost(s.look(false, time.Now()), &layover.NotFoundError{Reason: layover.ReasonKilled}, "Get")
		}, "ended (killed), but nobody did that"},
		"not found, with an error of another kind": {promise.Explained, func(y *story) {
			s := y.stored()
			s.lost(s.look(false, time.Now()), errors.New("oops"), "Get")
		}, "expected that it is not found"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				y := newStory(t)
				c.tell(y)
				got := y.Broken(c.promise)
				if c.want == "" && got != "" || !strings.Contains(got, c.want) {
					t.Errorf("the book says %q, want %q", got, c.want)
				}
				if strings.HasPrefix(got, "session ") && y.History() == "" && c.want != "that nobody had stored, or that had ended already" {
					t.Errorf("no history with %q", got)
				}
				if strings.Contains(got+y.History(), secret) {
					t.Errorf("an ID is in %q", got+y.History())
				}
			})
		})
	}
}

func TestThoseInUseMayBeMoreThanALoweredMaximum(t *testing.T) {
	y := newStory(t)
	lower := storyLimits
	lower.max = 1
	y.limits.begin(lower, time.Now())
	if most := y.mostDuring(func() {}); most != storyLimits.max {
		t.Errorf("at most %d while the maximum is lowered, want %d", most, storyLimits.max)
	}
	y.limits.end(time.Now().Add(-1))
	y.begins()
	y.begins()
	y.begins()
	if most := y.mostDuring(y.begins); most != 4 {
		t.Errorf("at most %d while four calls run, want 4", most)
	}
	for range 4 {
		y.ends()
	}
	if most := y.mostDuring(func() {}); most != 1 {
		t.Errorf("at most %d while no call runs, want 1", most)
	}
}

func TestThoseWhoComputeStayFew(t *testing.T) {
	y := newStory(t)
	y.run.Clients, y.run.crowds = 400, make(map[string]*Crowd)
	y.run.gather(y.life, 0, []scenario.Crowd{{Kind: "callers", Share: 1}, {Kind: "keys", Share: 1}})
	if got := y.run.crowds["keys"].Clients; got != mostKeys {
		t.Errorf("%d of 400 clients have histories checked, want %d", got, mostKeys)
	}
	if got := y.run.crowds["callers"].Clients; got != 200 {
		t.Errorf("%d of 400 clients call, want 200", got)
	}
}

func TestChangedLimitsAreLimits(t *testing.T) {
	for most := 1; most < 8; most++ {
		usual := storyLimits
		usual.max = most
		rng := rand.New(rand.NewPCG(1, 2))
		for range 100 {
			if got := around(usual, rng); got.max < 1 || got.max > most {
				t.Errorf("a maximum of %d is changed to %d", most, got.max)
			}
		}
	}
}

func TestAHistoryIsBounded(t *testing.T) {
	var h history
	for range 3 * remembered {
		h.note("leased", 3)
	}
	h.note("closed", 0)
	lines := strings.Split(strings.TrimSuffix(h.tell(time.Now()), "\n"), "\n")
	if len(lines) != remembered+1 || lines[0] != "49 earlier events" || !strings.HasSuffix(lines[1], "client 3    leased") || !strings.HasSuffix(lines[remembered], "store       closed") {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}

func TestAHistoryThatIsNotLinearizableIsFoundAndDrawn(t *testing.T) {
	y := newStory(t)
	y.run.Pictures = t.TempDir()
	y.c.linear([]porcupine.Operation{
		{ClientId: 0, Input: visit{"put", 0, 1}, Call: 0, Output: visited{ok: true}, Return: 10},
		{ClientId: 1, Input: visit{"peek", 0, 2}, Call: 20, Output: visited{}, Return: 30},
	})
	said := y.Broken(promise.Linear)
	_, picture, _ := strings.Cut(said, "see the picture ")
	text, err := os.ReadFile(picture)
	if err != nil || !strings.Contains(string(text), "<html") {
		t.Errorf("the book says %q, and the picture is %.20q, %v", said, text, err)
	}
	y = newStory(t)
	y.c.linear([]porcupine.Operation{
		{ClientId: 0, Input: visit{"put", 0, 1}, Call: 0, Output: visited{ok: true}, Return: 10},
		{ClientId: 1, Input: visit{"peek", 0, 2}, Call: 5, Output: visited{}, Return: 30},
	})
	if err := y.Verdict(); err != nil {
		t.Error(err)
	}
}

func TestEveryKindIsInAScenarioAndEveryScenarioHasKinds(t *testing.T) {
	used := make(map[string]bool)
	for _, s := range scenario.All {
		for _, p := range s.Phases {
			for _, c := range p.Store {
				used[c.Kind] = true
			}
		}
	}
	for _, k := range kinds {
		if !used[k.name] {
			t.Errorf("no scenario has %s", k.name)
		}
		delete(used, k.name)
	}
	if len(used) > 0 {
		t.Errorf("scenarios name kinds that there are not: %v", used)
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(200*time.Millisecond, cancel).Stop()
	c := small(scenario.All[0])
	c.Duration = time.Hour
	book := promise.NewBook()
	Run(ctx, c, book, series.NewRecorder(time.Hour))
	if err := book.Verdict(); err != nil {
		t.Error(err)
	}
}

func TestABrokenPromiseEndsARun(t *testing.T) {
	c := small(scenario.All[0])
	c.Duration = time.Hour
	book := promise.NewBook()
	c.Show = func(series.Sample) { book.Expect(promise.Sound, false, "broken on purpose") }
	Run(t.Context(), c, book, series.NewRecorder(time.Hour))
	if err := book.Verdict(); err == nil || err.Error() != "broken on purpose" {
		t.Error(err)
	}
}
