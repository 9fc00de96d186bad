// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package promise

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover"
)

func TestTheFirstBrokenPromiseIsTheVerdict(t *testing.T) {
	b := NewBook()
	b.Expect(Bounded, true, "")
	if b.Verdict() != nil || b.Checks(Bounded) != 1 {
		t.Errorf("verdict %v after %d checks, want none after 1", b.Verdict(), b.Checks(Bounded))
	}
	b.Expect(Own, false, "%s too late", 1500*time.Nanosecond)
	b.Expect(Own, false, "again")
	b.Expect(Clean, false, "also")
	select {
	case <-b.Failed():
	default:
		t.Error("nobody is told that a promise is broken")
	}
	if got, want := b.Verdict().Error(), "2µs too late"; got != want {
		t.Errorf("verdict %q, want %q", got, want)
	}
	if b.Broken(Own) != "2µs too late" || b.Broken(Clean) != "also" || b.Broken(Bounded) != "" {
		t.Errorf("broken: %q, %q, %q", b.Broken(Own), b.Broken(Clean), b.Broken(Bounded))
	}
}

type teller struct{}

func (teller) History() string { return "as told" }

func TestABrokenPromiseComesWithTheHistoryOfItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mine, other := layover.Fingerprint{1}, layover.Fingerprint{2}
		for name, c := range map[string]struct {
			args []any
			want string
		}{
			"a fingerprint":           {[]any{3, mine}, "session 0100000000000000\n            2s  was created"},
			"its text":                {[]any{mine.String()}, "session 0100000000000000\n            2s  was created"},
			"the first that is known": {[]any{layover.Fingerprint{9}, other, mine}, "session 0200000000000000\n            2s  has ended"},
			"a historian":             {[]any{teller{}, mine}, "as told"},
			"nobody":                  {[]any{"words", layover.Fingerprint{9}}, ""},
		} {
			b := NewBook()
			at := time.Now().Add(2 * time.Second)
			b.Note(mine, at, "was created")
			b.Note(other, at, "has ended")
			b.Expect(Own, false, strings.Repeat("%v ", len(c.args)), c.args...)
			if got := b.History(); got != c.want {
				t.Errorf("%s: history %q, want %q", name, got, c.want)
			}
		}
	})
}

func TestTheChronicleIsBounded(t *testing.T) {
	var c chronicle
	began := time.Now()
	for i := range 3 * maxPasts {
		c.note(layover.Fingerprint{byte(i), byte(i >> 8)}, began, "came")
	}
	if len(c.pasts) != maxPasts || len(c.order) != maxPasts {
		t.Errorf("%d sessions are remembered in an order of %d, want %d", len(c.pasts), len(c.order), maxPasts)
	}
	last := layover.Fingerprint{0xff, 0xff, 1}
	for i := range maxHappenings + 3 {
		c.note(last, began, fmt.Sprint("call ", i))
	}
	lines := strings.Split(c.of(last, began), "\n")
	if len(lines) != maxHappenings+2 || !strings.HasSuffix(lines[1], "3 earlier ones are forgotten") ||
		!strings.HasSuffix(lines[2], "call 3") || !strings.HasSuffix(lines[len(lines)-1], fmt.Sprint("call ", maxHappenings+2)) {
		t.Errorf("the history is\n%s", c.of(last, began))
	}
}
