// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// cut has the store be shut down, with a second until then.
func (s *story) cuts() *story {
	s.cutting(s.now.Add(time.Second))
	return s
}

// dies has the shutdown kill session a under a call.
func (s *story) dies(c *call) *story {
	s.ended(a, layover.ReasonShutdown).closed(a, true, s.now)
	s.killed(c, s.now)
	return s.ends(c)
}

// killedSoMany is what the shutdown says.
func (s *story) killedSoMany(killed, closing int) *story {
	s.cutShort(&layover.ShutdownError{Killed: killed, Closing: closing, Cause: context.DeadlineExceeded}, 0)
	return s
}

// gone is the end of a story in which a store was shut down under its calls, and of
// n sessions so many were closed.
func (s *story) gone(n uint64) *story {
	s.settle(layover.Stats{Created: n, Ended: layover.Ends{n}, Closed: n}, newMeter(storyLimits))
	return s
}

func TestTheWatchAllowsWhatAShutdownUnderCallsDoes(t *testing.T) {
	for name, tell := range map[string]func(*story){
		"it kills after its deadline": func(s *story) {
			s.opened(a)
			c := s.created(a).begins(a)
			s.cuts().after(time.Second).dies(c).killedSoMany(1, 0).gone(1)
		},
		"it kills one whose call is not told": func(s *story) {
			s.opened(a)
			c := s.created(a).begins(a)
			s.cuts().after(time.Second).ended(a, layover.ReasonShutdown).closed(a, true, s.now)
			s.ends(c).killedSoMany(1, 0).gone(1)
		},
		"a session is made whose call never hears of it": func(s *story) {
			c := &call{start: s.now}
			s.begin(c)
			s.asks(c, s.now)
			s.created(a).cuts().refused(c, layover.ErrShutdown)
			s.after(time.Second).ended(a, layover.ReasonShutdown).ends(c).killedSoMany(1, 0).gone(1)
		},
		"nobody was there": func(s *story) {
			s.cuts().cutShort(nil, 0)
			s.gone(0)
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStory()
			tell(s)
			if err := s.Verdict(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestTheWatchTellsWhatIsWrongInTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		promise promise.Promise
		tell    func(*story)
		want    string
	}{
		"closed under a call before the deadline": {promise.NotInUse, func(s *story) {
			s.opened(a)
			s.created(a).begins(a)
			s.cuts().after(time.Second-1).closed(a, true, s.now)
		}, "was closed under calls that use it: 1"},
		"closed under a call without a word": {promise.NotInUse, func(s *story) {
			s.opened(a)
			s.created(a).begins(a)
			s.cuts().after(time.Second).closed(a, false, s.now)
		}, "closed before its context was canceled"},
		"closed under a call by a shutdown with enough time": {promise.NotInUse, func(s *story) {
			s.opened(a)
			s.created(a).begins(a)
			s.stopping()
			s.after(time.Hour).closed(a, true, s.now)
		}, "was closed under calls that use it: 1"},
		"killed though nobody asked": {promise.NotInUse, func(s *story) {
			s.killed(s.created(a).begins(a), s.now)
		}, "was killed under a call, and nobody had asked for that"},
		"killed, and not counted": {promise.Clean, func(s *story) {
			c := s.created(a).begins(a)
			s.cuts().after(time.Second).dies(c).killedSoMany(0, 0).gone(1)
		}, "says that it killed 0 sessions in use, but the calls of 1 were told so"},
		"counted, and not in use": {promise.Clean, func(s *story) {
			s.used(a).cuts().after(time.Second).ended(a, layover.ReasonShutdown).killedSoMany(1, 0).gone(1)
		}, "says that it killed 1 sessions in use, but at most 0 were"},
		"another error": {promise.Clean, func(s *story) {
			s.cuts().cutShort(errors.New("no time"), 0)
		}, "failed with no time, expected a ShutdownError"},
		"an error without its cause": {promise.Clean, func(s *story) {
			s.cuts().cutShort(&layover.ShutdownError{Killed: 1}, 0)
		}, "expected a ShutdownError for its deadline"},
		"calls of Close that hang, and are not counted": {promise.Clean, func(s *story) {
			s.cuts().cutShort(&layover.ShutdownError{Closing: 1, Cause: context.DeadlineExceeded}, 2)
		}, "1 calls of Close have not returned, expected at least the 2 that hang"},
		"calls of Close that hang, and no error": {promise.Clean, func(s *story) {
			s.cuts().cutShort(nil, 1)
		}, "0 calls of Close have not returned, expected at least the 1 that hang"},
		"made without a call": {promise.Needed, func(s *story) {
			s.created(a).cuts().after(time.Second).ended(a, layover.ReasonShutdown).gone(1)
		}, "1 sessions were made for 0 calls"},

		"made after it was drained": {promise.Answered, func(s *story) {
			s.draining()
			s.drained(s.now)
			s.after(time.Millisecond).used(a)
		}, "asked for it 1ms after the store had been drained"},
		"drained though nobody asked": {promise.Answered, func(s *story) {
			s.refused(&call{start: s.now}, fmt.Errorf("no: %w", layover.ErrDraining))
		}, "since the store drains, which nobody has told it"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newStory()
			c.tell(s)
			if got := s.Broken(c.promise); !strings.Contains(got, c.want) {
				t.Errorf("%s: the watch says %q, want it to say %q", name, got, c.want)
			}
		})
	}
}

func TestTheWatchAllowsWhatADrainedStoreRefuses(t *testing.T) {
	s := newStory()
	early := &call{start: s.now}
	s.begin(early)
	s.asks(early, s.now)
	s.draining()
	s.refused(&call{start: s.now}, fmt.Errorf("no: %w", layover.ErrDraining))
	s.after(1).drained(s.now)
	s.created(a).makes(early, a) // asked before
	if err := s.Verdict(); err != nil {
		t.Error(err)
	}
}
