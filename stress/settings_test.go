// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// adopts has the store get other settings within a second.
func (s *story) adopts(idle time.Duration, most int) *story {
	c := s.config
	c.idle, c.max = idle, most
	s.changing(c)
	s.after(time.Second).changed(s.now)
	return s
}

func TestTheWatchGoesByTheMostLenientSettingsInForce(t *testing.T) {
	for name, tell := range map[string]func(*story){
		"handed out by a longer timeout": func(s *story) { s.used(a).back(a).adopts(4*time.Second, 2).after(2 * time.Second).call(a) },
		"idled out by a shorter one":     func(s *story) { s.used(a).back(a).adopts(time.Second/2, 2).ended(a, layover.ReasonIdle) },
		"handed out by the one before": func(s *story) {
			s.adopts(4*time.Second, 2).used(a).back(a).adopts(time.Second, 2).after(2 * time.Second).call(a)
		},
		"there by a longer one": func(s *story) {
			s.adopts(4*time.Second, 2).used(a).back(a).after(4 * time.Second).poll(layover.Stats{})
		},
		"lifetime over by a shorter timeout": func(s *story) {
			s.adopts(time.Second/2, 2).used(a).back(a).begins(a)
			s.after(5*time.Second/2).ended(a, layover.ReasonLifetime)
		},
		"evicted since there are fewer": func(s *story) { s.adopts(time.Second, 1).used(a).ended(a, layover.ReasonCapacity) },
		"refused since there are fewer": func(s *story) {
			s.adopts(time.Second, 1).after(1).begins(a)
			c := &call{start: s.now}
			s.begin(c)
			s.asks(c, s.now)
			s.refused(c, layover.ErrFull)
		},
		"lost since the timeout was shorter": func(s *story) {
			s.says(layover.ReasonIdle)
			s.adopts(time.Second/2, 2).loses(a.String(), time.Second/2)
		},
		"lost by a shorter timeout, and judged long after": func(s *story) {
			s.says(layover.ReasonIdle)
			s.adopts(time.Second/2, 2)
			told := s.now
			s.adopts(time.Second, 2).after(time.Second)
			s.lost(a.String(), "", span{told.Add(-time.Second / 2), told})
		},
		"its client has it longer": func(s *story) {
			s.adopts(4*time.Second, 2)
			at := s.now.Add(2 * time.Second)
			s.client().follow(reply{session: a.String()}, span{at, at})
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

func TestTheWatchForgetsSettingsThatAreNotInForce(t *testing.T) {
	for name, c := range map[string]struct {
		promise promise.Promise
		tell    func(*story)
	}{
		"handed out by a timeout that was longer once": {promise.NotStale, func(s *story) {
			s.adopts(4*time.Second, 2).adopts(time.Second, 2).after(1).used(a).back(a).after(2 * time.Second).call(a)
		}},
		"idled out by one that was shorter once": {promise.NotEarly, func(s *story) {
			s.adopts(time.Second/2, 2).adopts(time.Second, 2).after(1).used(a).back(a).after(time.Second/2).ended(a, layover.ReasonIdle)
		}},
		"there by one that was longer once": {promise.Prompt, func(s *story) {
			s.adopts(time.Hour, 2).adopts(time.Second, 2).after(1).used(a).back(a).after(time.Minute).poll(layover.Stats{})
		}},
		"refused while they become fewer, and nobody is there": {promise.Answered, func(s *story) {
			c := &call{start: s.now}
			s.begin(c)
			s.asks(c, s.now)
			s.adopts(time.Second, 1).refused(c, layover.ErrFull)
		}},
		"refused when there was room again": {promise.Answered, func(s *story) {
			c := &call{start: s.now}
			s.begin(c)
			s.adopts(time.Second, 1).adopts(time.Second, 2).after(1).asks(c, s.now)
			s.refused(c, layover.ErrFull)
		}},
		"evicted when there was room again": {promise.NotEarly, func(s *story) {
			s.adopts(time.Second, 1).adopts(time.Second, 2).used(a).after(2*promise.Grace).ended(a, layover.ReasonCapacity)
		}},
	} {
		s := newStory()
		c.tell(s)
		if s.Broken(c.promise) == "" {
			t.Errorf("%s: the watch says nothing", name)
		}
	}
}

func TestSettingsDoNotPileUp(t *testing.T) {
	s := newStory()
	for range 1000 {
		s.adopts(2*time.Second, 2)
	}
	if n := len(s.settings); n > 20 {
		t.Errorf("%d settings are remembered", n)
	}
}

func TestOtherSettingsAreWithinAFactorOfTwo(t *testing.T) {
	c, rng := config{idle: time.Second, max: 9}, rand.New(rand.NewPCG(1, 2))
	idles, maxima := make(map[time.Duration]bool), make(map[int]bool)
	for range 100 {
		o := c.other(rng)
		idles[o.idle], maxima[o.max] = true, true
		if o.idle < 3*c.idle/4 || o.idle > 3*c.idle/2 || o.max != 9 && o.max != 4 {
			t.Fatalf("idle timeout %s, at most %d", o.idle, o.max)
		}
	}
	if len(idles) < 3 || len(maxima) != 2 {
		t.Errorf("only the timeouts %v and the maxima %v", idles, maxima)
	}
}

func TestSettingsChangeUnderTheStoreAndAreNoted(t *testing.T) {
	w := newWatch(storyLimits, promise.NewBook(), baseline{})
	store, err := layoverStore(storyLimits)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{store: store, watch: w}
	wrong := storyLimits
	wrong.idle = -1
	s.adopt(storyLimits)
	if err := w.Verdict(); err != nil || len(w.settings) != 2 || w.settings[0].till.IsZero() {
		t.Fatalf("%v, with the settings %v", err, w.settings)
	}
	s.adopt(wrong)
	if got := w.Broken(promise.Answered); !strings.Contains(got, "Reconfigure failed") {
		t.Errorf("the watch says %q of settings that make no sense", got)
	}
	if err := store.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
