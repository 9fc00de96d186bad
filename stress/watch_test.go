// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// The sessions of the stories.
var a, b = layover.Fingerprint{0xa}, layover.Fingerprint{0xb}

// What clients hear in the stories.
var (
	anew    = reply{op: setOptions, session: b.String(), made: true}
	without = reply{op: doGet, brought: true}
	refusal = reply{op: doGet, brought: true, lost: &loss{a.String(), "SESSION_IDLE"}}
	errLost = errors.New("lost")
)

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
	return &story{watch: newWatch(storyLimits, promise.NewBook(), newBaseline()), now: time.Now(), began: map[layover.Fingerprint]time.Time{}}
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
	if s.calls(f) > 0 {
		s.enter(c, f, true)
		return c
	}
	s.without(c)
	return s.makes(c, f)
}

// makes has a session made for a call.
func (s *story) makes(c *call, f layover.Fingerprint) *call {
	s.asks(c, s.now)
	s.watch.makes(c, f, false, false, s.now)
	return c
}

func (s *story) calls(f layover.Fingerprint) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record(f, anything).calls
}

// ends has a call give its session back.
func (s *story) ends(c *call) *story {
	s.leave(c, c.used != nil, s.now)
	s.done(c, s.now)
	return s
}

// loses has a client hear now that a session is lost which it had used so long before.
func (s *story) loses(mark string, window time.Duration) {
	s.lost(mark, "", span{s.now.Add(-window), s.now})
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
			return layover.Event{At: s.now, Reason: layover.ReasonIdle}, true
		}
		s.opened(a)
		s.used(a).after(499 * time.Millisecond).back(a).after(999 * time.Millisecond).call(a)
		s.after(time.Second).ended(a, layover.ReasonIdle)
		s.closed(a, false, s.now)
		s.loses(a.String(), time.Second)
		s.used(b).after(500*time.Millisecond).ended(b, layover.ReasonUnconfirmed)
		c, d := layover.Fingerprint{0xc}, layover.Fingerprint{0xd}
		s.used(c).back(c)
		for range 5 {
			s.after(900 * time.Millisecond).call(c)
		}
		s.ended(c, layover.ReasonLifetime)
		s.used(d).closing(s.record(d, anything), s.now)
		s.ended(d, layover.ReasonClosed)
		e, f, g := layover.Fingerprint{0xe}, layover.Fingerprint{0xf}, layover.Fingerprint{0x1}
		s.used(e).used(f).ended(e, layover.ReasonCapacity).used(g)
		s.poll(layover.Stats{Live: 2, Unconfirmed: 2, Created: 7, Ended: layover.Ends{5}})
		s.stopping()
		s.ended(f, layover.ReasonShutdown).ended(g, layover.ReasonShutdown).settled(7)
		if err := s.Verdict(); err != nil {
			t.Error(err)
		}
	})
}

func TestTheWatchTellsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		promise promise.Promise
		tell    func(*story)
		want    string
	}{
		"above the maximum": {promise.Bounded, func(s *story) {
			s.created(a).created(b).created(layover.Fingerprint{0xc}).confirmed(a)
		}, "3 sessions were live at once, expected at most 2"},
		"above the maximum as the store counts": {promise.Bounded, func(s *story) {
			s.poll(layover.Stats{Live: 2, Retired: 1, Unconfirmed: 2, Created: 2})
		}, "the store counts 2 live and 1 retired sessions"},
		"peak above the maximum": {promise.Bounded, func(s *story) { s.poll(layover.Stats{Peak: 3}) }, "a peak of 3, expected at most 2"},

		"created after ended": {promise.Ordered, func(s *story) {
			s.used(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed).created(a)
		}, "was created after it had ended"},
		"created twice": {promise.Ordered, func(s *story) { s.created(a).created(a) }, "was created twice"},
		"confirmed before created": {promise.Ordered, func(s *story) { s.confirmed(a) },
			"was confirmed when it was not created yet"},
		"confirmed twice": {promise.Ordered, func(s *story) { s.created(a).confirmed(a).confirmed(a) },
			"was confirmed when it was confirmed already"},
		"confirmed after ended": {promise.Ordered, func(s *story) {
			s.used(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed).confirmed(a)
		}, "was confirmed when it had ended already"},
		"ended before created": {promise.Ordered, func(s *story) { s.ended(a, layover.ReasonIdle) },
			"ended (idle) when it was not created yet"},
		"ended twice": {promise.Ordered, func(s *story) {
			s.used(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed).ended(a, layover.ReasonUnconfirmed)
		}, "ended (unconfirmed) when it had ended already"},
		"never confirmed": {promise.Ordered, func(s *story) {
			s.used(a).call(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed)
		}, "expected it to be confirmed by the second"},
		"a wrong reason": {promise.Ordered, func(s *story) {
			s.used(a).after(time.Minute).ended(a, layover.ReasonIdle)
		}, "ended as idle when it was created"},
		"counters that do not add up": {promise.Ordered, func(s *story) { s.poll(layover.Stats{Live: 1, Confirmed: 1}) },
			"which do not add up"},
		"events that were never delivered": {promise.Ordered, func(s *story) { s.settled(1) },
			"0 sessions were reported as created and 0 as ended (the store counts 1 and 1)"},

		"closed twice": {promise.ClosedOnce, func(s *story) {
			s.opened(a)
			s.closed(a, false, s.now)
			s.closed(a, false, s.now)
		}, "was closed 2 times, expected once"},
		"never closed": {promise.ClosedOnce, func(s *story) {
			s.opened(a)
			s.used(a).after(time.Minute).ended(a, layover.ReasonUnconfirmed).settled(1)
		}, "was never closed"},
		"refused and never closed": {promise.ClosedOnce, func(s *story) {
			s.opened(a)
			s.settled(0)
		}, "refused by the store, and then nobody closed it"},
		"closed by count without having ended": {promise.ClosedOnce, func(s *story) { s.poll(layover.Stats{Closed: 1}) },
			"1 closed sessions (0 with errors) of 0 ended ones"},
		"failed to close though it was not to": {promise.ClosedOnce, func(s *story) { s.poll(layover.Stats{CloseFailed: 1}) },
			"(1 with errors) of 0 ended ones, expected at most as many and at most 0 errors"},
		"failed to close, and not counted": {promise.ClosedOnce, func(s *story) {
			s.planted = func() uint64 { return 2 }
			s.poll(layover.Stats{CloseFailed: 1}).settle(layover.Stats{CloseFailed: 1}, newMeter(storyLimits))
		}, "the store counts 1 calls of Close that failed, expected 2"},
		"never closed by count": {promise.ClosedOnce, func(s *story) {
			s.settle(layover.Stats{Created: 2, Ended: layover.Ends{2}, Closed: 1}, newMeter(storyLimits))
		}, "the store closed 1 sessions of 2"},

		"closed while leased": {promise.NotInUse, func(s *story) {
			s.opened(a)
			s.created(a).begins(a)
			s.closed(a, false, s.now)
		}, "was closed under calls that use it: 1"},
		"idled out while leased": {promise.NotInUse, func(s *story) {
			s.used(a).back(a).begins(a)
			s.after(time.Minute).ended(a, layover.ReasonIdle)
		}, "ended (idle) under calls that use it: 1"},
		"evicted in use as the store says": {promise.NotInUse, func(s *story) {
			s.used(b).used(a)
			s.observe(layover.Event{Kind: layover.EventEnded, Fingerprint: a, At: s.now, Reason: layover.ReasonCapacity, InUse: true})
		}, "ended (capacity) although it was leased, expected never"},
		"evicted while leased": {promise.NotInUse, func(s *story) {
			s.used(b).created(a).begins(a)
			s.ended(a, layover.ReasonCapacity)
		}, "ended (capacity) under calls that use it: 1"},

		"handed out after its idle timeout": {promise.NotStale, func(s *story) {
			s.used(a).back(a).after(time.Second + storyResolution).call(a)
		}, "was handed out 1.001s after its last use, expected less than 1.001s"},
		"handed out after its timeout as an unconfirmed one": {promise.NotStale, func(s *story) {
			s.used(a).after(500*time.Millisecond + storyResolution).call(a)
		}, "was handed out 501ms after its last use, expected less than 501ms"},
		"handed out after its lifetime": {promise.NotStale, func(s *story) {
			s.used(a).begins(a)
			s.after(5*time.Second + storyResolution).call(a)
		}, "was handed out at the age of 5.001s, expected less than 5.001s"},
		"handed out after its end": {promise.NotStale, func(s *story) {
			s.used(a).back(a).after(time.Second).ended(a, layover.ReasonIdle).after(2 * time.Second).call(a)
		}, "was handed out"},
		"handed out after its end, which was reported late": {promise.NotStale, func(s *story) {
			c := s.used(a).begins(a)
			s.closing(c.used, s.now)
			s.after(3*time.Second).call(a).ends(c).after(-2*time.Second).ended(a, layover.ReasonClosed)
		}, "was handed out 2s after it had ended"},

		"idled out early": {promise.NotEarly, func(s *story) {
			s.used(a).back(a).after(999*time.Millisecond).ended(a, layover.ReasonIdle)
		}, "ended (idle) 999ms after its last use, expected at least 1s"},
		"unconfirmed one that holds something expires early": {promise.NotEarly, func(s *story) {
			s.used(a).holds(s.record(a, anything))
			s.after(999*time.Millisecond).ended(a, layover.ReasonUnconfirmed)
		}, "999ms after its last use, expected at least 1s"},
		"lifetime over early": {promise.NotEarly, func(s *story) {
			s.used(a).after(4499*time.Millisecond).ended(a, layover.ReasonLifetime)
		}, "at the age of 4.499s, expected at least 4.5s"},
		"evicted from a store with room": {promise.NotEarly, func(s *story) { s.used(a).ended(a, layover.ReasonCapacity) },
			"was evicted with 1 live sessions and at most 0 retired ones"},
		"closed although nobody asked": {promise.NotEarly, func(s *story) { s.used(a).ended(a, layover.ReasonClosed) },
			"but no client had closed it"},
		"shut down too early": {promise.NotEarly, func(s *story) { s.used(a).ended(a, layover.ReasonShutdown) },
			"but there was none yet"},
		"killed": {promise.NotEarly, func(s *story) { s.used(a).ended(a, layover.ReasonKilled) },
			`ended for the reason "killed", which nobody gave`},

		"does not idle out": {promise.Prompt, func(s *story) {
			s.used(a).after(1500*time.Millisecond + storyResolution).poll(layover.Stats{})
		}, "was there 1.001s after its idle deadline, expected less than 1.001s"},
		"outlives its lifetime": {promise.Prompt, func(s *story) {
			s.created(a).begins(a)
			s.after(6*time.Second + storyResolution).poll(layover.Stats{})
		}, "was there 1.001s after the end of its lifetime"},
		"closed by its client and still there": {promise.Prompt, func(s *story) {
			s.used(a).back(a).closing(s.record(a, anything), s.now)
			s.after(time.Second).call(a).poll(layover.Stats{})
		}, "was there 1s after its client had closed it"},
		"ended but not closed": {promise.Prompt, func(s *story) {
			s.opened(a)
			s.used(a).after(time.Second).ended(a, layover.ReasonUnconfirmed).after(time.Second).poll(layover.Stats{})
		}, "ended 1s ago and was not closed yet"},

		"confirmed one evicted": {promise.Assured, func(s *story) {
			s.max = 10
			s.used(a).back(a)
			for i := range byte(9) {
				s.used(layover.Fingerprint{1, i})
			}
			s.ended(a, layover.ReasonCapacity)
		}, "was evicted while 9 unconfirmed ones were there, expected only with fewer than 9"},

		"somebody else's session": {promise.Own, func(s *story) {
			s.used(a).enter(&call{start: s.now}, a, false)
		}, "was handed to a call that did not bring its cookie"},
		"an ID that the client made up": {promise.Own, func(s *story) { s.watch.makes(&call{start: s.now}, a, false, true, s.now) },
			"that its client had made up"},
		"found before it was made": {promise.Own, func(s *story) { s.enter(&call{start: s.now}, a, true) },
			"was handed out before the call that it was made for had it"},
		"made for a second call": {promise.Own, func(s *story) { s.used(a).makes(&call{start: s.now}, a) },
			"which a call had before, was made for another one"},
		"wrong schema seen": {promise.Own, func(s *story) {
			c := s.client()
			c.sees([]string{"mine", defaultSchema})
		}, `batch 1 of a query in session 0a00000000000000 saw schema "default", expected "mine"`},
		"no cookie, old session": {promise.Own, func(s *story) {
			c := s.client()
			c.by = nothing
			c.heard(reply{session: a.String(), made: true}, span{}, nil)
		}, "a client without cookies was handed session 0a00000000000000 twice"},
		"no cookie, a session": {promise.Own, func(s *story) {
			c := s.client()
			c.by = nothing
			c.heard(reply{session: b.String()}, span{}, nil)
		}, "a client without cookies was handed session 0b00000000000000, which was not made for it"},
		"somebody else's session, as its client sees": {promise.Own, func(s *story) {
			s.client().heard(reply{session: b.String()}, span{}, nil)
		}, "a client was handed session 0b00000000000000, expected its own one 0a00000000000000"},
		"wrong schema of one of several statements": {promise.Own, func(s *story) {
			v := s.client().volley(showSchema)
			v.sees(reply{session: a.String()}, []string{defaultSchema})
		}, `one of several statements saw schema "default" with session "0a00000000000000", expected "mine"`},

		"made though nobody asked": {promise.Needed, func(s *story) { s.watch.makes(&call{start: s.now}, a, false, false, s.now) },
			"was made for a call that needs none"},
		"made unnoticed": {promise.Needed, func(s *story) {
			c := &call{start: s.now}
			s.begin(c)
			s.without(c)
			s.leave(c, true, s.now)
		}, "a call that had asked for a session (false) ended with one (true)"},
		"made for no call": {promise.Needed, func(s *story) {
			s.created(a).closing(s.record(a, anything), s.now)
			s.ended(a, layover.ReasonClosed).settled(1)
		}, "1 sessions were made for 0 calls that asked for one"},

		"a statement without its session, untold": {promise.Told, func(s *story) {
			s.client().heard(without, span{s.now, s.now.Add(time.Hour)}, nil)
		}, `DoGet ran without session 0a00000000000000, which had schema "mine", and nobody had been told`},
		"a retry without its session, told just before": {promise.Told, func(s *story) {
			c := s.toldClient()
			at := s.now.Add(750*time.Millisecond - 1)
			c.heard(without, span{s.now, at}, nil)
		}, `DoGet ran without session 0a00000000000000, which had schema "mine", 750ms after that was first told, expected at least 750ms`},
		"a statement in another new session, told just before": {promise.Told, func(s *story) {
			c := s.toldClient()
			c.heard(reply{op: doGet, session: b.String(), made: true}, span{s.now, s.now}, nil)
		}, "DoGet ran without session 0a00000000000000"},
		"one of several untold": {promise.Told, func(s *story) {
			v := s.client().volley(showSchema)
			v.note(shot{without, span{s.now, s.now.Add(time.Hour)}})
			v.judge()
		}, "DoGet ran without session 0a00000000000000"},
		"one of several told, the next one not": {promise.Told, func(s *story) {
			s.says(layover.ReasonIdle)
			v := s.client().volley(showSchema)
			v.note(shot{refusal, span{s.now, s.now}})
			v.note(shot{without, span{s.now, s.now.Add(750*time.Millisecond - 1)}})
			v.judge()
		}, "DoGet ran without session 0a00000000000000"},
		"a retry before its client has shown that it knows": {promise.Told, func(s *story) {
			v := s.toldClient().volley(showSchema)
			v.acknowledged = &span{s.now.Add(2), s.now.Add(3)}
			v.note(shot{without, span{s.now, s.now.Add(1)}})
			v.judge()
		}, "DoGet ran without session 0a00000000000000"},
		"beside CloseSession with the cookie": {promise.Told, func(s *story) {
			v := s.client().volley(showSchema)
			v.closes(reply{session: a.String()}, span{s.now, s.now})
			v.note(shot{without, span{s.now, s.now.Add(time.Millisecond)}})
			v.judge()
		}, "DoGet ran without session 0a00000000000000"},

		"the schema set again beside CloseSession": {promise.Told, func(s *story) {
			v := s.client().volley(showSchema)
			v.closes(reply{session: a.String()}, span{s.now, s.now})
			v.sets(anew, span{s.now, s.now}, nil)
			v.judge()
		}, "SetSessionOptions made session 0b00000000000000 for a client that was losing its cookie"},

		"handed out after the telling": {promise.NotStale, func(s *story) {
			s.toldClient().heard(reply{session: a.String()}, span{s.now, s.now}, nil)
		}, "was handed out after its client had been told that it is lost"},
		"one of several handed out after CloseSession": {promise.NotStale, func(s *story) {
			v := s.client().volley(showSchema)
			v.closes(reply{session: a.String()}, span{s.now, s.now})
			v.note(shot{reply{session: a.String()}, span{s.now, s.now}})
			v.judge()
		}, "was handed out after CloseSession had been answered"},
		"one of several handed out after the telling": {promise.NotStale, func(s *story) {
			v := s.toldClient().volley(showSchema)
			v.note(shot{reply{session: a.String()}, span{s.now, s.now}})
			v.judge()
		}, "was handed out after its client had been told that it is lost"},
		"handed out after CloseSession": {promise.NotStale, func(s *story) {
			c := s.client()
			c.own.closed = true
			c.follow(reply{session: a.String()}, span{s.now, s.now})
		}, "was handed out after its client had closed it"},
		"handed out after a long pause": {promise.NotStale, func(s *story) {
			at := s.now.Add(time.Second + storyResolution)
			s.client().follow(reply{session: a.String()}, span{at, at})
		}, "after its client had not used it for 1.001s, expected less than 1.001s"},

		"lost without a reason": {promise.Explained, func(s *story) {
			s.client().follow(anew, span{s.now, s.now})
		}, "session 0a00000000000000 of a client is gone, and the store cannot explain why"},
		"lost as idle although in use": {promise.Explained, func(s *story) {
			s.says(layover.ReasonIdle)
			s.used(a).back(a).client().follow(anew, span{s.now, s.now.Add(999 * time.Millisecond)})
		}, "(idle) although it had used it in the last 999ms, expected only after 1s"},
		"explained otherwise than reported": {promise.Explained, func(s *story) {
			s.says(layover.ReasonCapacity)
			s.used(a).after(time.Second).ended(a, layover.ReasonUnconfirmed).loses(a.String(), time.Second)
		}, "to have ended for the reason unconfirmed, but the store explains capacity"},
		"lost as closed": {promise.Explained, func(s *story) {
			s.says(layover.ReasonClosed)
			s.client().follow(anew, span{s.now, s.now})
		}, "(closed), but had not closed it"},
		"told of somebody else's session": {promise.Explained, func(s *story) {
			c := s.client()
			c.own.mark = b.String()
			c.heard(refusal, span{s.now, s.now}, errLost)
		}, `a client was told that session 0a00000000000000 is lost (SESSION_IDLE), but its own is "0b00000000000000" (closed: false)`},
		"told of a session that held nothing": {promise.Explained, func(s *story) {
			c := s.client()
			c.own.schema = defaultSchema
			c.heard(refusal, span{s.now, s.now}, errLost)
		}, "which held nothing"},
		"told another reason": {promise.Explained, func(s *story) {
			s.says(layover.ReasonCapacity)
			s.client().heard(refusal, span{s.now, s.now}, errLost)
		}, "is lost for the reason SESSION_IDLE, but the store explains capacity"},
		"several told that it is closed, though it is not": {promise.Explained, func(s *story) {
			v := s.client().volley(showSchema)
			v.note(shot{reply{lost: &loss{a.String(), "SESSION_CLOSED"}}, span{s.now, s.now}})
			v.check(v.shots[0], &v.shots[0].span)
		}, "is lost (SESSION_CLOSED), but its own is 0a00000000000000 (closed: false)"},
		"a session without a name": {promise.Explained, func(s *story) { s.loses("?", 0) }, "the server named no session"},

		"no session for another reason than a full store": {promise.Answered, func(s *story) { s.refused(&call{}, errors.New("oops")) },
			"a call got no session, expected one, or that the store is full: oops"},
		"full although it cannot be": {promise.Answered, func(s *story) { s.refused(&call{}, layover.ErrFull) },
			"at most 0 calls ran at once on 2 places"},
		"told for too long": {promise.Answered, func(s *story) {
			at := s.now.Add(750 * time.Millisecond)
			s.toldClient().heard(refusal, span{at, at}, errLost)
		}, "is still told of session 0a00000000000000 750ms after it was first told, expected for 750ms"},
		"told though it sets its schema again": {promise.Answered, func(s *story) {
			again := refusal
			again.op = setOptions
			s.toldClient().heard(again, span{s.now, s.now}, errLost)
		}, "SetSessionOptions was refused since session 0a00000000000000 is lost"},
		"told though it knows": {promise.Answered, func(s *story) {
			c := s.toldClient()
			c.own.knows = true
			c.heard(refusal, span{s.now, s.now}, errLost)
		}, "is still told of session 0a00000000000000 after it has shown that it knows"},
		"several told for too long": {promise.Answered, func(s *story) {
			at := s.now.Add(750 * time.Millisecond)
			v := s.toldClient().volley(showSchema)
			v.note(shot{refusal, span{at, at}})
			v.judge()
		}, "750ms after it was first told, expected for 750ms"},
		"one of several told though it sets the schema": {promise.Answered, func(s *story) {
			again := refusal
			again.op = setOptions
			v := s.toldClient().volley(showSchema)
			v.sets(again, span{s.now, s.now}, errLost)
			v.judge()
		}, "SetSessionOptions was refused since session 0a00000000000000 is lost"},
		"several told though their client knows": {promise.Answered, func(s *story) {
			v := s.toldClient().volley(showSchema)
			v.acknowledged = &span{s.now, s.now}
			v.note(shot{refusal, span{s.now, s.now}})
			v.judge()
		}, "after it has shown that it knows"},

		"sessions left": {promise.Clean, func(s *story) { s.created(a).settled(1) },
			"1 sessions are live after the shutdown"},
		"goroutines left": {promise.Clean, func(s *story) {
			s.before.goroutines = 0
			s.settled(0)
		}, "goroutines are left after the shutdown, expected at most 0"},
		"memory left": {promise.Clean, func(s *story) {
			left := make([]byte, 2*s.leftHeap())
			s.settled(0)
			left[0]++
		}, "the heap grew from"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStory()
				c.tell(s)
				if got := s.Broken(c.promise); !strings.Contains(got, c.want) {
					t.Errorf("the watch says %q, want something with %q", got, c.want)
				}
				select {
				case <-s.Failed():
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
	return &client{population: p, by: cookie, jar: newJar(), own: ownSession{mark: a.String(), schema: "mine", last: span{s.now, s.now}}}
}

// toldClient returns one that has just been told that session a is lost.
func (s *story) toldClient() *client {
	c := s.client()
	c.own.told = &span{s.now, s.now}
	return c
}

// says has the store explain every end with this reason.
func (s *story) says(r layover.Reason) {
	s.explain = func(layover.Fingerprint) (layover.Event, bool) { return layover.Event{At: s.now, Reason: r}, true }
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
			promise promise.Promise
			tell    func(s *story, late time.Duration)
		}{
			"idle": {promise.NotStale, func(s *story, late time.Duration) {
				s.used(a).back(a).after(idle + late).call(a)
			}},
			"unconfirmed": {promise.NotStale, func(s *story, late time.Duration) {
				s.used(a).after(idle/2 + late).call(a)
			}},
			"unconfirmed, holds something": {promise.NotStale, func(s *story, late time.Duration) {
				s.used(a).holds(s.record(a, anything))
				s.after(idle + late).call(a)
			}},
			"lifetime": {promise.NotStale, func(s *story, late time.Duration) {
				s.used(a).begins(a)
				s.after(5*idle + late).call(a)
			}},
			"its client": {promise.NotStale, func(s *story, late time.Duration) {
				at := s.now.Add(idle + late)
				s.client().follow(reply{session: a.String()}, span{at, at})
			}},
			"a call that may have got it": {promise.NotStale, func(s *story, late time.Duration) {
				s.used(a).after(idle/2 + late).begin(&call{start: s.now})
				s.after(idle).call(a)
			}},
			"still there when idle": {promise.Prompt, func(s *story, late time.Duration) {
				s.used(a).after(idle/2 + late + promise.Grace).poll(layover.Stats{})
			}},
			"still there at the end of its lifetime": {promise.Prompt, func(s *story, late time.Duration) {
				s.used(a).begins(a)
				s.after(5*idle + late + promise.Grace).poll(layover.Stats{})
			}},
		} {
			most := resolution
			if c.promise == promise.NotStale && resolution > exact { // such a clock may tick late
				most += promise.Grace
			}
			for _, late := range []time.Duration{most - 1, most} {
				s := newStory()
				s.config = config{idle: idle, max: 2}
				s.settings = []setting{{config: s.config}}
				c.tell(s, late)
				if broken := s.Broken(c.promise); (broken != "") != (late == most) {
					t.Errorf("%s, idle timeout %s: %s after the deadline the watch says %q", name, idle, late, broken)
				}
			}
		}
	}
}

func TestTheWatchMakesAllowanceForASlowMachine(t *testing.T) {
	for name, slow := range map[string]func(*story){
		"a poll is late":      func(s *story) { s.poll(layover.Stats{}).after(10 * time.Second) },
		"a probe is not back": func(s *story) { s.probe(); s.after(10 * time.Second) },
		"a probe came in late": func(s *story) {
			s.late.Probe(func() { <-time.After(10 * time.Second) })
			<-time.After(11 * time.Second)
			s.after(11 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStory().used(a)
				slow(s)
				if err := s.poll(layover.Stats{}).Verdict(); err != nil {
					t.Error(err)
				}
				<-time.After(time.Second) // the probe comes in
				synctest.Wait()
				for range 200 {
					s.after(pollEvery).poll(layover.Stats{})
				}
				if s.Verdict() == nil {
					t.Error("it still does long after")
				}
			})
		})
	}
}

// The store explains no ID under which a session is live.
func TestTheWatchKnowsThatAPrincipalsSessionHasLeftByTheNextOne(t *testing.T) {
	for name, next := range map[string]bool{"there is a next one": true, "there is none": false} {
		synctest.Test(t, func(t *testing.T) {
			s := newStory()
			c := &call{start: s.now, named: true}
			s.begin(c)
			s.created(a).ends(s.makes(c, a)).after(time.Minute)
			if next {
				c := &call{start: s.now, named: true}
				s.begin(c)
				s.makes(c, a)
			}
			if err := s.poll(layover.Stats{}).Verdict(); (err == nil) != next {
				t.Errorf("%s: the watch says %v", name, err)
			}
		})
	}
}

func TestTheWatchKnowsThatASessionMayBeInUseOrHaveLeft(t *testing.T) {
	waits := newStory()
	waits.used(a).begin(&call{start: waits.now})
	waits.after(time.Minute).poll(layover.Stats{})
	if err := waits.call(a).Verdict(); err == nil || !strings.Contains(err.Error(), "at the age of") {
		t.Errorf("with a call that may have got it: %v, want only that it is too old", err)
	}
	gone := newStory()
	gone.says(layover.ReasonUnconfirmed)
	if err := gone.used(a).after(time.Minute).poll(layover.Stats{}).Verdict(); err != nil {
		t.Errorf("with an event on its way: %v", err)
	}
}

// A principal's next session has the ID, and so the mark, of the last one.
func TestTheWatchTellsThePrincipalsSessionsApart(t *testing.T) {
	s := newStory()
	named := func() *call {
		c := &call{start: s.now, named: true}
		s.begin(c)
		s.makes(c, a)
		return c
	}
	s.created(a).ends(named()).confirmed(a).after(time.Second).ended(a, layover.ReasonIdle)
	next := s.after(time.Millisecond).created(a).confirmed(a) // before the call tells
	next.ends(named()).call(a).after(time.Second).ended(a, layover.ReasonIdle)
	late := s.after(time.Millisecond).ends(named()) // before the events arrive
	late.created(a).confirmed(a).after(999 * time.Millisecond).call(a)
	if err := s.Verdict(); err != nil {
		t.Error(err)
	}
	if s.after(time.Second-1).ended(a, layover.ReasonIdle); s.Broken(promise.NotEarly) == "" {
		t.Error("the third one may end early")
	}
	if s.named != 0 || s.mostNamed != 1 {
		t.Errorf("%d of principals are live and %d were, want 0 and 1", s.named, s.mostNamed)
	}
	s.used(b).after(time.Second).ended(b, layover.ReasonUnconfirmed).created(b)
	if s.Broken(promise.Ordered) == "" {
		t.Error("those of cookies have successors, too")
	}
}

func TestAClientMayBeGivenACleanStart(t *testing.T) {
	for name, tell := range map[string]func(*story){
		"when it sets its schema again": func(s *story) { s.toldClient().heard(anew, span{s.now, s.now}, nil) },
		"when it closes the session": func(s *story) {
			s.toldClient().heard(reply{op: closeSession, brought: true}, span{s.now, s.now}, nil)
		},
		"when it has shown that it knows": func(s *story) {
			c := s.toldClient()
			c.own.knows = true
			c.heard(without, span{s.now, s.now}, nil)
		},
		"when it was told for long enough": func(s *story) {
			s.toldClient().heard(without, span{s.now, s.now.Add(750 * time.Millisecond)}, nil)
		},
		"when its session held nothing": func(s *story) {
			s.says(layover.ReasonCapacity)
			c := s.client()
			c.own.schema = defaultSchema
			c.heard(without, span{s.now, s.now}, nil)
		},
		"in one of several statements, after the first told": func(s *story) {
			s.says(layover.ReasonCapacity)
			v := s.client().volley(showSchema)
			lost := refusal
			lost.lost = &loss{a.String(), "SESSION_CAPACITY"}
			v.note(shot{lost, span{s.now.Add(9), s.now.Add(9)}})
			v.note(shot{lost, span{s.now, s.now.Add(1)}})
			v.note(shot{without, span{s.now, s.now.Add(750 * time.Millisecond)}})
			v.judge()
		},
		"beside CloseSession, without the cookie": func(s *story) {
			v := s.client().volley(showSchema)
			v.closes(reply{session: a.String()}, span{s.now, s.now})
			v.note(shot{reply{op: doGet}, span{s.now, s.now}})
			v.judge()
		},
		"when the schema was set beside it, before CloseSession": func(s *story) {
			v := s.client().volley(showSchema)
			v.closes(reply{}, span{s.now.Add(2), s.now.Add(3)})
			v.sets(anew, span{s.now, s.now.Add(2)}, nil)
			v.note(shot{without, span{s.now, s.now.Add(1)}})
			v.judge()
		},
		"after CloseSession of what was lost before": func(s *story) {
			v := s.client().volley(showSchema)
			v.closes(reply{}, span{s.now, s.now})
			v.note(shot{without, span{s.now, s.now.Add(1)}})
			v.judge()
		},
	} {
		s := newStory()
		tell(s)
		if err := s.Verdict(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheWatchKnowsThatTheStoreForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory()
		s.used(a).back(a).after(time.Second).ended(a, layover.ReasonIdle)
		s.used(b).back(b)
		s.counts.ended += layover.DefaultRemembered / 2
		s.loses(a.String(), time.Second)
		if err := s.Verdict(); err != nil {
			t.Errorf("of a session that ended long ago: %v", err)
		}
		s.after(time.Second).ended(b, layover.ReasonIdle).loses(b.String(), time.Second)
		if s.Verdict() == nil {
			t.Error("of one that has just ended nothing must be known")
		}
	})
}

func TestTheWatchForgetsWhatIsOver(t *testing.T) {
	s := newStory()
	for i := range byte(200) {
		f, refused := layover.Fingerprint{1, i}, layover.Fingerprint{2, i}
		s.opened(refused)
		s.closed(refused, false, s.now)
		s.used(f).after(500*time.Millisecond).ended(f, layover.ReasonUnconfirmed).poll(layover.Stats{})
	}
	if len(s.sessions) > 20 || len(s.watch.ends) > 20 {
		t.Errorf("%d sessions and %d ends are remembered", len(s.sessions), len(s.watch.ends))
	}
	if err := s.Verdict(); err != nil {
		t.Error(err)
	}
}

func TestTheWatchRemembersWhatItsEventsAreLateOf(t *testing.T) {
	for name, closes := range map[string]func(*story){
		"of a session that a call has had": func(s *story) { s.makes(&call{start: s.now}, a) },
		"of one that has only begun":       func(*story) {},
	} {
		s := newStory()
		s.opened(a)
		closes(s)
		s.after(time.Second).closed(a, false, s.now)
		s.created(a).after(time.Hour).poll(layover.Stats{})
		if len(s.sessions[a]) != 1 || !s.sessions[a][0].created {
			t.Errorf("%s: it is forgotten before its end was reported", name)
		}
	}
}

func TestTheWatchKnowsThatAPrincipalsSessionsHaveOneMark(t *testing.T) {
	for ended, held := range map[layover.Reason]bool{layover.ReasonIdle: true, layover.ReasonUnconfirmed: false} {
		s := newStory()
		s.says(layover.ReasonIdle)
		made := func() {
			c := &call{start: s.now, named: true}
			s.begin(c)
			s.ends(s.makes(c, a))
		}
		s.observe(layover.Event{Kind: layover.EventCreated, Fingerprint: a, At: s.now, Confirmed: true})
		made()
		s.after(5*time.Second).ended(a, layover.ReasonLifetime)
		made() // of which the events are late
		if s.after(time.Second).loses(a.String(), time.Second); s.Verdict() != nil {
			t.Errorf("before it is reported: %v", s.Verdict())
		}
		s.observe(layover.Event{Kind: layover.EventCreated, Fingerprint: a, At: s.now, Confirmed: true})
		s.ended(a, ended).loses(a.String(), time.Second)
		if got := s.Broken(promise.Explained); (got == "") != held {
			t.Errorf("when it is reported to have ended (%s), and explained as idle, the watch says %q", ended, got)
		}
	}
}

func TestStatementsAtOnceUseTheirSession(t *testing.T) {
	s := newStory()
	c := s.client()
	v := c.volley(showSchema)
	last := span{s.now.Add(900), s.now.Add(time.Second - 1)}
	v.note(shot{reply{session: a.String()}, last})
	v.note(shot{reply{session: a.String()}, span{s.now, s.now.Add(1)}})
	v.note(shot{reply{op: doGet}, span{s.now.Add(time.Hour), s.now.Add(time.Hour)}})
	if v.judge(); c.own.last != last {
		t.Errorf("the last use was %v, want %v", c.own.last, last)
	}
}

func TestTheWatchTellsHowLateACloseIs(t *testing.T) {
	for name, c := range map[string]struct {
		tell func(*story)
		want []time.Duration
	}{
		"after the end was reported": {func(s *story) {
			s.after(time.Second/2+3).ended(a, layover.ReasonUnconfirmed)
			s.after(4).closed(a, false, s.now)
		}, []time.Duration{7}},
		"before the end was reported": {func(s *story) {
			s.after(time.Second/2+3).closed(a, false, s.now)
			s.ended(a, layover.ReasonUnconfirmed)
		}, []time.Duration{3}},
		"not of one that was closed by its client": {func(s *story) {
			s.closing(s.record(a, anything), s.now)
			s.after(time.Second).ended(a, layover.ReasonClosed).closed(a, false, s.now)
		}, nil},
	} {
		var got []time.Duration
		s := newStory()
		s.lagged = func(d time.Duration) { got = append(got, d) }
		s.opened(a)
		c.tell(s.used(a))
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestTheWatchRemembersWhatItWasToldLate(t *testing.T) {
	s := newStory()
	s.after(-time.Minute).used(a).back(a).ended(a, layover.ReasonLifetime)
	if s.after(time.Minute).poll(layover.Stats{}); len(s.sessions[a]) == 0 {
		t.Error("a session that has ended a minute ago is forgotten, of which the watch was told just now")
	}
	if s.after(time.Minute).poll(layover.Stats{}); len(s.sessions[a]) > 0 {
		t.Error("a session is remembered a minute after the watch was told of its end")
	}
}

func TestTheReportNamesABrokenPromiseLast(t *testing.T) {
	s, m, out := newStory(), newMeter(storyLimits), new(bytes.Buffer)
	s.created(a).created(a)
	s.says(layover.ReasonKilled)
	s.loses(a.String(), 0)
	m.took = time.Second
	m.report(out, storyLimits, s.Book, s.before, layover.Stats{}, newTally())
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if last, want := lines[len(lines)-1], "FAILED: "+s.Verdict().Error(); last != want {
		t.Errorf("last line %q, want %q", last, want)
	}
	if !strings.Contains(out.String(), "also broken: a client lost session") || !strings.Contains(out.String(), "BROKEN") {
		t.Errorf("not all is told in\n%s", out)
	}
}

// A session that left only after a poll had begun was late all the same, however long
// the store takes to explain it.
func TestTheWatchIsNotDeceivedByItsOwnSlowness(t *testing.T) {
	s := newStory()
	s.used(a).after(time.Minute)
	left := s.now.Add(time.Hour)
	s.explain = func(layover.Fingerprint) (layover.Event, bool) {
		return layover.Event{At: left, Reason: layover.ReasonUnconfirmed}, true
	}
	if s.poll(layover.Stats{}).Verdict() == nil {
		t.Error("it left an hour after the poll, and is taken to have been in time")
	}
}
