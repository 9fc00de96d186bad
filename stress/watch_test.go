// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover"
)

// The sessions of the stories.
var a, b = layover.Fingerprint{0xa}, layover.Fingerprint{0xb}

// story is a history that the watch is told, in a time of its own.
type story struct {
	*watch
	now   time.Time
	began map[layover.Fingerprint]time.Time
}

var storyLimits = config{idle: time.Second, max: 2} // empty 500ms, lifetime 5s

// storyResolution is how late deadlines may be in the stories.
const storyResolution = time.Millisecond

func newStory() *story {
	return &story{watch: newWatch(storyLimits), now: time.Now(), began: map[layover.Fingerprint]time.Time{}}
}

func (s *story) after(d time.Duration) *story {
	s.now = s.now.Add(d)
	return s
}

func (s *story) event(f layover.Fingerprint, k layover.EventKind, r layover.Reason) *story {
	s.observe(layover.Event{Kind: k, Fingerprint: f, At: s.now, Reason: r})
	return s
}

func (s *story) created(f layover.Fingerprint) *story { return s.event(f, layover.EventCreated, 0) }

func (s *story) confirmed(f layover.Fingerprint) *story { return s.event(f, layover.EventConfirmed, 0) }

func (s *story) ended(f layover.Fingerprint, r layover.Reason) *story {
	return s.event(f, layover.EventEnded, r)
}

// begins has a call get a session.
func (s *story) begins(f layover.Fingerprint) *call {
	c := &call{start: s.now}
	s.begin(c)
	s.enter(c, f, s.calls(f) > 0, s.now)
	return c
}

func (s *story) calls(f layover.Fingerprint) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record(f).calls
}

// ends has a call give its session back.
func (s *story) ends(c *call) *story {
	s.leave(c, s.now)
	s.done(c, s.now)
	return s
}

// call is a whole call.
func (s *story) call(f layover.Fingerprint) *story { return s.ends(s.begins(f)) }

// used tells of a session that was created and used once.
func (s *story) used(f layover.Fingerprint) *story { return s.created(f).call(f) }

// back tells of the call that confirms a session.
func (s *story) back(f layover.Fingerprint) *story { return s.confirmed(f).call(f) }

func (s *story) poll(stats layover.Stats) *story {
	s.watch.poll(stats, s.now)
	return s
}

// settled is the end of a story in which n sessions were created.
func (s *story) settled(n uint64) {
	s.stopping()
	s.settle(layover.Stats{Created: n, Ended: layover.Ends{n}, Closed: n}, newMeter(storyLimits))
}

func TestTheWatchFindsNothingInATrueHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory()
		s.explain = func(layover.Fingerprint) (layover.Event, bool) {
			return layover.Event{Reason: layover.ReasonIdle}, true
		}
		s.opened(a)
		s.used(a).after(499 * time.Millisecond).back(a).after(999 * time.Millisecond).call(a)
		s.after(time.Second).ended(a, layover.ReasonIdle)
		s.closed(a, s.now)
		s.lost(a.String(), time.Second)
		s.used(b).after(500*time.Millisecond).ended(b, layover.ReasonUnconfirmed)
		c, d := layover.Fingerprint{0xc}, layover.Fingerprint{0xd}
		s.used(c).back(c)
		for range 5 {
			s.after(900 * time.Millisecond).call(c)
		}
		s.ended(c, layover.ReasonLifetime)
		s.used(d).closing(s.record(d), s.now)
		s.ended(d, layover.ReasonClosed)
		e, f, g := layover.Fingerprint{0xe}, layover.Fingerprint{0xf}, layover.Fingerprint{0x1}
		s.used(e).used(f).ended(e, layover.ReasonCapacity).used(g)
		s.poll(layover.Stats{Live: 2, Unconfirmed: 2, Created: 7, Ended: layover.Ends{5}})
		s.stopping()
		s.ended(f, layover.ReasonShutdown).ended(g, layover.ReasonShutdown).settled(7)
		if err := s.verdict(); err != nil {
			t.Error(err)
		}
	})
}

func TestTheWatchTellsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		promise promise
		tell    func(*story)
		want    string
	}{
		"above the maximum": {bounded, func(s *story) {
			s.created(a).created(b).created(layover.Fingerprint{0xc})
		}, "3 sessions were live at once, expected at most 2"},
		"above the maximum as the store counts": {bounded, func(s *story) {
			s.poll(layover.Stats{Live: 2, Retired: 1, Unconfirmed: 2, Created: 2})
		}, "the store counts 2 live and 1 retired sessions"},
		"peak above the maximum": {bounded, func(s *story) { s.poll(layover.Stats{Peak: 3}) }, "a peak of 3, expected at most 2"},

		"created after ended": {ordered, func(s *story) {
			s.used(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed).created(a)
		}, "was created after it had ended"},
		"created twice": {ordered, func(s *story) { s.created(a).created(a) }, "was created twice"},
		"confirmed before created": {ordered, func(s *story) { s.confirmed(a) },
			"was confirmed when it was not created yet"},
		"confirmed twice": {ordered, func(s *story) { s.created(a).confirmed(a).confirmed(a) },
			"was confirmed when it was confirmed already"},
		"confirmed after ended": {ordered, func(s *story) {
			s.used(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed).confirmed(a)
		}, "was confirmed when it had ended already"},
		"ended before created": {ordered, func(s *story) { s.ended(a, layover.ReasonIdle) },
			"ended (idle) when it was not created yet"},
		"ended twice": {ordered, func(s *story) {
			s.used(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed).ended(a, layover.ReasonUnconfirmed)
		}, "ended (unconfirmed) when it had ended already"},
		"never confirmed": {ordered, func(s *story) {
			s.used(a).call(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed)
		}, "expected it to be confirmed by the second"},
		"a wrong reason": {ordered, func(s *story) {
			s.used(a).after(time.Minute).ended(a, layover.ReasonIdle)
		}, "ended as idle when it was created"},
		"counters that do not add up": {ordered, func(s *story) { s.poll(layover.Stats{Live: 1, Confirmed: 1}) },
			"which do not add up"},
		"events that were never delivered": {ordered, func(s *story) { s.settled(1) },
			"0 sessions were reported as created and 0 as ended (the store counts 1 and 1)"},

		"closed twice": {closedOnce, func(s *story) {
			s.opened(a)
			s.closed(a, s.now)
			s.closed(a, s.now)
		}, "was closed 2 times, expected once"},
		"never closed": {closedOnce, func(s *story) {
			s.opened(a)
			s.used(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed).settled(1)
		}, "was never closed"},
		"refused and never closed": {closedOnce, func(s *story) {
			s.opened(a)
			s.settled(0)
		}, "refused by the store, and then nobody closed it"},
		"closed by count without having ended": {closedOnce, func(s *story) { s.poll(layover.Stats{Closed: 1}) },
			"1 closed sessions (0 with errors) of 0 ended ones"},
		"never closed by count": {closedOnce, func(s *story) {
			s.settle(layover.Stats{Created: 2, Ended: layover.Ends{2}, Closed: 1}, newMeter(storyLimits))
		}, "the store closed 1 sessions of 2"},

		"closed while leased": {notInUse, func(s *story) {
			s.opened(a)
			s.created(a).begins(a)
			s.closed(a, s.now)
		}, "was closed under calls that use it: 1"},
		"idled out while leased": {notInUse, func(s *story) {
			s.used(a).back(a).begins(a)
			s.after(time.Minute).ended(a, layover.ReasonIdle)
		}, "ended (idle) under calls that use it: 1"},
		"evicted in use as the store says": {notInUse, func(s *story) {
			s.used(b).used(a)
			s.observe(layover.Event{Kind: layover.EventEnded, Fingerprint: a, At: s.now, Reason: layover.ReasonCapacity, InUse: true})
		}, "ended (capacity) although it was leased, expected never"},
		"evicted while leased": {notInUse, func(s *story) {
			s.used(b).created(a).begins(a)
			s.ended(a, layover.ReasonCapacity)
		}, "ended (capacity) under calls that use it: 1"},

		"handed out after its idle timeout": {notStale, func(s *story) {
			s.used(a).back(a).after(time.Second + storyResolution).call(a)
		}, "was handed out 1.001s after its last use, expected less than 1.001s"},
		"handed out after its timeout as an unconfirmed one": {notStale, func(s *story) {
			s.used(a).after(500*time.Millisecond + storyResolution).call(a)
		}, "was handed out 501ms after its last use, expected less than 501ms"},
		"handed out after its lifetime": {notStale, func(s *story) {
			s.used(a).begins(a)
			s.after(5*time.Second + storyResolution).call(a)
		}, "was handed out at the age of 5.001s, expected less than 5.001s"},
		"handed out after its end": {notStale, func(s *story) {
			s.used(a).back(a).after(time.Second).ended(a, layover.ReasonIdle).after(2 * time.Second).call(a)
		}, "was handed out"},
		"handed out after its end, which was reported late": {notStale, func(s *story) {
			c := s.used(a).begins(a)
			s.closing(c.used, s.now)
			s.after(3*time.Second).call(a).ends(c).after(-2*time.Second).ended(a, layover.ReasonClosed)
		}, "was handed out 2s after it had ended"},

		"idled out early": {notEarly, func(s *story) {
			s.used(a).back(a).after(999*time.Millisecond).ended(a, layover.ReasonIdle)
		}, "ended (idle) 999ms after its last use, expected at least 1s"},
		"unconfirmed one that holds something expires early": {notEarly, func(s *story) {
			s.used(a).holds(s.record(a))
			s.after(999*time.Millisecond).ended(a, layover.ReasonUnconfirmed)
		}, "999ms after its last use, expected at least 1s"},
		"lifetime over early": {notEarly, func(s *story) {
			s.used(a).after(4499*time.Millisecond).ended(a, layover.ReasonLifetime)
		}, "at the age of 4.499s, expected at least 4.5s"},
		"evicted from a store with room": {notEarly, func(s *story) { s.used(a).ended(a, layover.ReasonCapacity) },
			"was evicted with 1 live sessions and at most 0 retired ones"},
		"closed although nobody asked": {notEarly, func(s *story) { s.used(a).ended(a, layover.ReasonClosed) },
			"but no client had closed it"},
		"shut down too early": {notEarly, func(s *story) { s.used(a).ended(a, layover.ReasonShutdown) },
			"but there was none yet"},
		"killed": {notEarly, func(s *story) { s.used(a).ended(a, layover.ReasonKilled) },
			`ended for the reason "killed", which nobody gave`},

		"does not idle out": {prompt, func(s *story) {
			s.used(a).after(1500*time.Millisecond + storyResolution).poll(layover.Stats{})
		}, "was there 1.001s after its idle deadline, expected less than 1.001s"},
		"outlives its lifetime": {prompt, func(s *story) {
			s.created(a).begins(a)
			s.after(6*time.Second + storyResolution).poll(layover.Stats{})
		}, "was there 1.001s after the end of its lifetime"},
		"closed by its client and still there": {prompt, func(s *story) {
			s.used(a).back(a).closing(s.record(a), s.now)
			s.after(time.Second).call(a).poll(layover.Stats{})
		}, "was there 1s after its client had closed it"},
		"ended but not closed": {prompt, func(s *story) {
			s.opened(a)
			s.used(a).after(time.Second).ended(a, layover.ReasonUnconfirmed).after(time.Second).poll(layover.Stats{})
		}, "ended 1s ago and was not closed yet"},

		"confirmed one evicted": {assured, func(s *story) {
			s.max = 10
			s.used(a).back(a)
			for i := range byte(9) {
				s.used(layover.Fingerprint{1, i})
			}
			s.ended(a, layover.ReasonCapacity)
		}, "was evicted while 9 unconfirmed ones were there, expected only with fewer than 9"},

		"somebody else's session": {own, func(s *story) {
			s.used(a).enter(&call{start: s.now}, a, false, s.now)
		}, "was handed to a call that did not bring its cookie"},
		"an ID that the client made up": {own, func(s *story) { s.enter(&call{start: s.now}, a, true, s.now) },
			"that its client had made up"},
		"wrong schema seen": {own, func(s *story) {
			c := s.client()
			c.own.schema = "mine"
			c.sees([]string{"mine", defaultSchema})
		}, `batch 1 of a query in session 0a00000000000000 saw schema "default", expected "mine"`},
		"no cookie, old session": {own, func(s *story) {
			c := s.client()
			c.jar = nil
			c.follow(reply{session: a.String()}, span{})
		}, "a client without cookies was handed session 0a00000000000000 twice"},
		"handed out after CloseSession": {notStale, func(s *story) {
			c := s.client()
			c.own.closed = true
			c.follow(reply{session: a.String()}, span{s.now, s.now})
		}, "was handed out after its client had closed it"},
		"handed out after a long pause": {notStale, func(s *story) {
			at := s.now.Add(time.Second + storyResolution)
			s.client().follow(reply{session: a.String()}, span{at, at})
		}, "after its client had not used it for 1.001s, expected less than 1.001s"},

		"lost without a reason": {explained, func(s *story) {
			s.client().follow(reply{session: b.String()}, span{s.now, s.now})
		}, "session 0a00000000000000 of a client is gone, and the store cannot explain why"},
		"lost as idle although in use": {explained, func(s *story) {
			s.says(layover.ReasonIdle)
			s.used(a).back(a).client().follow(reply{session: b.String()}, span{s.now, s.now.Add(999 * time.Millisecond)})
		}, "(idle) although it had used it in the last 999ms, expected only after 1s"},
		"explained otherwise than reported": {explained, func(s *story) {
			s.says(layover.ReasonCapacity)
			s.used(a).after(time.Second).ended(a, layover.ReasonUnconfirmed).lost(a.String(), time.Second)
		}, "to have ended for the reason unconfirmed, but the store explains capacity"},
		"lost as closed": {explained, func(s *story) {
			s.says(layover.ReasonClosed)
			s.client().follow(reply{session: b.String()}, span{s.now, s.now})
		}, "(closed), but had not closed it"},
		"a session without a name": {explained, func(s *story) { s.lost("?", 0) }, "the server named no session"},

		"no session for another reason than a full store": {answered, func(s *story) { s.refused(&call{}, errors.New("oops")) },
			"a call got no session, expected one, or that the store is full: oops"},
		"full although it cannot be": {answered, func(s *story) { s.refused(&call{}, layover.ErrFull) },
			"at most 0 calls ran at once on 2 places"},

		"sessions left": {clean, func(s *story) { s.created(a).settled(1) },
			"1 sessions are live after the shutdown"},
		"goroutines left": {clean, func(s *story) {
			s.before.goroutines = 0
			s.settled(0)
		}, "goroutines are left after the shutdown, expected at most 0"},
		"memory left": {clean, func(s *story) {
			left := make([]byte, 2*s.leftHeap())
			s.settled(0)
			left[0]++
		}, "the heap grew from"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStory()
				c.tell(s)
				if got := s.broken[c.promise]; !strings.Contains(got, c.want) {
					t.Errorf("the watch says %q, want something with %q", got, c.want)
				}
				select {
				case <-s.failed:
				default:
					t.Error("the run goes on")
				}
			})
		})
	}
}

// client returns one that has session a and used it just now.
func (s *story) client() *client {
	p := &population{config: s.config, watch: s.watch}
	return &client{population: p, jar: newJar(), own: ownSession{mark: a.String(), last: span{s.now, s.now}}}
}

// says has the store explain every end with this reason.
func (s *story) says(r layover.Reason) {
	s.explain = func(layover.Fingerprint) (layover.Event, bool) { return layover.Event{Reason: r}, true }
}

// What comes just within the resolution is right, what comes a nanosecond later
// is not.
func TestADeadlineIsLateByOneResolutionAtMost(t *testing.T) {
	for idle, resolution := range map[time.Duration]time.Duration{
		100 * time.Millisecond: time.Millisecond,
		32 * time.Second:       time.Second / 16, // a 256th of what empty ones have
		time.Hour:              time.Second,
	} {
		for name, c := range map[string]struct {
			promise promise
			tell    func(s *story, late time.Duration)
		}{
			"idle": {notStale, func(s *story, late time.Duration) {
				s.used(a).back(a).after(idle + late).call(a)
			}},
			"unconfirmed": {notStale, func(s *story, late time.Duration) {
				s.used(a).after(idle/2 + late).call(a)
			}},
			"unconfirmed, holds something": {notStale, func(s *story, late time.Duration) {
				s.used(a).holds(s.record(a))
				s.after(idle + late).call(a)
			}},
			"lifetime": {notStale, func(s *story, late time.Duration) {
				s.used(a).begins(a)
				s.after(5*idle + late).call(a)
			}},
			"its client": {notStale, func(s *story, late time.Duration) {
				at := s.now.Add(idle + late)
				s.client().follow(reply{session: a.String()}, span{at, at})
			}},
			"a call that may have got it": {notStale, func(s *story, late time.Duration) {
				s.used(a).after(idle/2 + late).begin(&call{start: s.now})
				s.after(idle).call(a)
			}},
			"still there when idle": {prompt, func(s *story, late time.Duration) {
				s.used(a).after(idle/2 + late + grace).poll(layover.Stats{})
			}},
			"still there at the end of its lifetime": {prompt, func(s *story, late time.Duration) {
				s.used(a).begins(a)
				s.after(5*idle + late + grace).poll(layover.Stats{})
			}},
		} {
			for _, late := range []time.Duration{resolution - 1, resolution} {
				s := newStory()
				s.config = config{idle: idle, max: 2}
				c.tell(s, late)
				if broken := s.broken[c.promise]; (broken != "") != (late == resolution) {
					t.Errorf("%s, idle timeout %s: %s after the deadline the watch says %q", name, idle, late, broken)
				}
			}
		}
	}
}

func TestTheWatchMakesAllowanceForASlowMachine(t *testing.T) {
	for name, slow := range map[string]func(*story){
		"a poll is late":       func(s *story) { s.poll(layover.Stats{}).after(10 * time.Second) },
		"a probe is not back":  func(s *story) { s.probe(); s.after(10 * time.Second) },
		"a probe came in late": func(s *story) { s.late = 10 * time.Second; s.after(10 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStory().used(a)
				slow(s)
				if err := s.poll(layover.Stats{}).verdict(); err != nil {
					t.Error(err)
				}
				<-time.After(time.Second) // the probe comes in
				synctest.Wait()
				for range 200 {
					s.after(pollEvery).poll(layover.Stats{})
				}
				if s.verdict() == nil {
					t.Error("it still does long after")
				}
			})
		})
	}
}

func TestTheWatchKnowsThatASessionMayBeInUseOrHaveLeft(t *testing.T) {
	waits := newStory()
	waits.used(a).begin(&call{start: waits.now})
	waits.after(time.Minute).poll(layover.Stats{})
	if err := waits.call(a).verdict(); err == nil || !strings.Contains(err.Error(), "at the age of") {
		t.Errorf("with a call that may have got it: %v, want only that it is too old", err)
	}
	gone := newStory()
	gone.says(layover.ReasonUnconfirmed)
	if err := gone.used(a).after(time.Minute).poll(layover.Stats{}).verdict(); err != nil {
		t.Errorf("with an event on its way: %v", err)
	}
}

func TestTheWatchKnowsThatTheStoreForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory()
		s.used(a).back(a).after(time.Second).ended(a, layover.ReasonIdle)
		s.used(b).back(b)
		s.counts.ended += layover.DefaultRemembered / 2
		s.lost(a.String(), time.Second)
		if err := s.verdict(); err != nil {
			t.Errorf("of a session that ended long ago: %v", err)
		}
		s.after(time.Second).ended(b, layover.ReasonIdle).lost(b.String(), time.Second)
		if s.verdict() == nil {
			t.Error("of one that has just ended nothing must be known")
		}
	})
}

func TestTheWatchForgetsWhatIsOver(t *testing.T) {
	s := newStory()
	for i := range byte(200) {
		f, refused := layover.Fingerprint{1, i}, layover.Fingerprint{2, i}
		s.opened(refused)
		s.closed(refused, s.now)
		s.used(f).after(500*time.Millisecond).ended(f, layover.ReasonUnconfirmed).poll(layover.Stats{})
	}
	if len(s.sessions) > 20 || len(s.watch.ends) > 20 {
		t.Errorf("%d sessions and %d ends are remembered", len(s.sessions), len(s.watch.ends))
	}
	if err := s.verdict(); err != nil {
		t.Error(err)
	}
}

func TestTheReportNamesABrokenPromiseLast(t *testing.T) {
	s, m, out := newStory(), newMeter(storyLimits), new(bytes.Buffer)
	s.created(a).created(a)
	s.says(layover.ReasonKilled)
	s.lost(a.String(), 0)
	m.took = time.Second
	m.report(out, storyLimits, s.watch, layover.Stats{}, newPopulation(config{clients: 6}, "", s.watch, m, s.now))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last, want := lines[len(lines)-1], "FAILED: "+s.verdict().Error(); last != want {
		t.Errorf("last line %q, want %q", last, want)
	}
	if !strings.Contains(out.String(), "also broken: a client lost session") || !strings.Contains(out.String(), "BROKEN") {
		t.Errorf("not all is told in\n%s", out)
	}
}
