// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// renews has a call renew session a, which is b from then on.
func (s *story) renews(c *call) *story {
	s.renewing(c, 1)
	was := s.record(a, anything).confirmed
	s.observe(layover.Event{Kind: layover.EventCreated, Fingerprint: b, At: s.now, Confirmed: was})
	s.ended(a, layover.ReasonRenamed).renamed(a, s.now)
	return s
}

// makesFor has a session made for a principal that may have one.
func (s *story) makesFor(owner string, over session.WhenOver, f layover.Fingerprint) *story {
	c := &call{start: s.now, owner: owner, allot: &allotment{1, over}}
	s.begin(c)
	return s.created(f).ends(s.makes(c, f))
}

// A call that brings a former ID may take long to tell which session it got.
func TestTheWatchRemembersFormerIDsOfASessionInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory()
		late, c := s.used(a).confirmed(a).begins(a), s.begins(a)
		s.renews(c).ends(c)
		for range 40 {
			s.after(100 * time.Millisecond).forget(s.now)
		}
		if _, ok := s.follows(late, func() layover.Fingerprint { return b }, []layover.Fingerprint{a}); !ok {
			t.Error("the former ID is forgotten, and a call still uses the session")
		}
		s.ends(late).ended(b, layover.ReasonLifetime)
		for range 40 {
			s.after(100 * time.Millisecond).forget(s.now)
		}
		if len(s.sessions) > 0 {
			t.Errorf("%d sessions are remembered", len(s.sessions))
		}
	})
}

func TestTheWatchFollowsWhatIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStory()
		s.opened(a)
		late, c := s.used(a).confirmed(a).begins(a), s.begins(a)
		early := &call{start: s.now}
		s.begin(early)
		s.renews(c).after(time.Millisecond)
		got, ok := s.follows(early, func() layover.Fingerprint { return b }, []layover.Fingerprint{a})
		if !ok || got != b {
			t.Errorf("session %s, %t, want %s", got, ok, b)
		}
		s.enter(early, b, ok)
		s.ends(c).ends(early).call(b).after(time.Minute/20).ends(late).after(time.Second).ended(b, layover.ReasonIdle)
		s.closed(b, false, s.now)
		s.stopping()
		s.settle(layover.Stats{Created: 2, Ended: layover.Ends{2}, Closed: 1}, newMeter(storyLimits))
		if err := s.Verdict(); err != nil {
			t.Error(err)
		}
	})
}

func TestTheWatchTellsWhatIsWrongWithRenewalsAndMaxima(t *testing.T) {
	full := status.Error(codes.ResourceExhausted, "full")
	for name, c := range map[string]struct {
		promise promise.Promise
		tell    func(*story)
		want    string
	}{
		"renamed though nobody asked": {promise.NotEarly, func(s *story) {
			s.used(a).created(b).ended(a, layover.ReasonRenamed)
		}, "ended as renamed, but no call renewed it"},
		"renamed twice for one call": {promise.NotEarly, func(s *story) {
			s.renews(s.used(a).begins(a)).created(layover.Fingerprint{0xc}).ended(b, layover.ReasonRenamed)
		}, "ended as renamed, but no call renewed it"},
		"renamed without an heir": {promise.Renewed, func(s *story) {
			c := s.used(a).begins(a)
			s.renewing(c, 1)
			s.ended(a, layover.ReasonRenamed)
		}, "no other one was created in its place"},
		"found by its old ID": {promise.Renewed, func(s *story) {
			s.renews(s.used(a).begins(a)).after(1).enter(&call{start: s.now}, a, true)
		}, "a call with the ID of session 0a00000000000000 was handed session 0b00000000000000, 0s after that was renewed"},
		"found by its old ID, with the new one in it": {promise.Renewed, func(s *story) {
			s.renews(s.used(a).begins(a)).after(1)
			s.follows(&call{start: s.now}, func() layover.Fingerprint { return b }, []layover.Fingerprint{a})
		}, "a call with the ID of session 0a00000000000000 was handed session 0b00000000000000"},
		"closed under a call with the old ID": {promise.NotInUse, func(s *story) {
			s.opened(a)
			s.renews(s.used(a).begins(a)).closed(b, false, s.now)
		}, "session 0b00000000000000 was closed under calls that use it: 1"},
		"closed by both IDs": {promise.ClosedOnce, func(s *story) {
			s.opened(a)
			s.ends(s.begins(a)).renews(s.begins(a))
			s.closed(b, false, s.now)
			s.closed(b, false, s.now)
		}, "was closed 2 times, expected once"},
		"older than its lifetime by both IDs": {promise.NotStale, func(s *story) {
			s.used(a).confirmed(a)
			s.renews(s.begins(a)).after(5*time.Second + storyResolution).call(b)
		}, "was handed out at the age of 5.001s"},
		"a stream that is cut short": {promise.Outlasts, func(s *story) {
			u := s.client().underWay(ownSession{mark: a.String(), schema: "mine"})
			u.ended = []showing{{shot{reply: reply{session: a.String()}}, []string{"mine"}}}
			u.judge()
		}, "ended after 1 batches, expected 6"},
		"a stream that loses its options": {promise.Outlasts, func(s *story) {
			u := s.client().underWay(ownSession{mark: a.String(), schema: "mine"})
			u.ended = []showing{{shot{reply: reply{session: a.String()}}, []string{"mine", "mine", "default", "mine", "mine", "mine"}}}
			u.judge()
		}, `batch 2 of a stream saw schema "default"`},
		"a stream that does not see what was set since": {promise.Outlasts, func(s *story) {
			u := s.client().underWay(ownSession{mark: a.String(), schema: "mine"})
			u.ended = []showing{{shot{reply{session: a.String()}, span{start: s.now}}, []string{"mine", "mine", "mine", "mine", "mine", "mine"}}}
			u.changes("next", s.now)
			u.judge()
		}, "did not see what was set since"},

		"more than a principal may have": {promise.Allotted, func(s *story) {
			s.makesFor("mob", session.RefuseNewest, a).makesFor("mob", session.RefuseNewest, b)
		}, "principal mob had 2 sessions at once, expected at most 1"},
		"another one's left for a quota": {promise.Allotted, func(s *story) { s.used(a).ended(a, layover.ReasonQuota) },
			`of principal "" left for a quota, expected never of this one`},
		"left where the newest are refused": {promise.Allotted, func(s *story) {
			s.makesFor("mob", session.RefuseNewest, a).ended(a, layover.ReasonQuota)
		}, `of principal "mob" left for a quota, expected never of this one`},
		"left below the maximum": {promise.Allotted, func(s *story) {
			s.makesFor("mob", session.EvictOldest, a).record(a, anything).allot.most = 2
			s.ended(a, layover.ReasonQuota)
		}, "had 1 sessions at most, expected only for the maximum of 2"},
		"refused below the maximum": {promise.Allotted, func(s *story) {
			s.refused(&call{owner: "mob", allot: &allotment{1, session.RefuseNewest}}, lacksQuota("1"))
		}, "principal mob was refused a session with 0 at most, expected only with 1"},
		"refused for another maximum": {promise.Allotted, func(s *story) {
			s.makesFor("mob", session.RefuseNewest, a)
			s.refused(&call{owner: "mob", asked: s.now, allot: &allotment{1, session.RefuseNewest}}, lacksQuota("2"))
		}, "principal mob, who may have 1 sessions, was refused another one with ResourceExhausted"},
		"refused for no quota": {promise.Answered, func(s *story) {
			s.refused(&call{owner: "mob", allot: &allotment{1, session.RefuseNewest}}, full)
		}, "a call got no session, expected one"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory()
			c.tell(s)
			if got := s.Broken(c.promise); !strings.Contains(got, c.want) {
				t.Errorf("the watch says %q, want something with %q", got, c.want)
			}
		})
	}
}

// lacksQuota is the refusal of a principal that has so many sessions at most.
func lacksQuota(places string) error {
	st, err := status.New(codes.ResourceExhausted, "full").WithDetails(quotaInfo(places))
	if err != nil {
		panic(fmt.Sprint(err))
	}
	return st.Err()
}

func TestTheWatchFindsNothingWrongAtAMaximum(t *testing.T) {
	s := newStory()
	s.makesFor("mob", session.EvictOldest, a)
	s.refused(&call{owner: "mob", asked: s.now, allot: &allotment{1, session.RefuseNewest}}, lacksQuota("1"))
	s.ended(a, layover.ReasonQuota).makesFor("mob", session.EvictOldest, b)
	if err := s.Verdict(); err != nil {
		t.Error(err)
	}
	if s.named != 1 || len(s.owned["mob"]) != 2 {
		t.Errorf("%d are of principals, and the books have %d, want 1 and 2", s.named, len(s.owned["mob"]))
	}
	if s.after(time.Minute).poll(layover.Stats{}); len(s.owned["mob"]) != 1 {
		t.Errorf("the books have %d, want one", len(s.owned["mob"]))
	}
}

func quotaInfo(places string) *errdetails.ErrorInfo {
	return &errdetails.ErrorInfo{Reason: "SESSION_STORE_FULL", Domain: session.ErrorDomain, Metadata: map[string]string{"lacking": "quota", "places": places}}
}
