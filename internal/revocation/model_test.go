// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/internal/revocation"
)

// step is one that is done to a list and to its model.
type step struct {
	do      string
	session int
	minutes int
}

const modelSessions = 40

var someStep = rapid.Custom(func(t *rapid.T) step {
	return step{
		do:      rapid.SampledFrom([]string{"add", "add", "add", "add", "add", "add", "remove", "wait", "principal"}).Draw(t, "do"),
		session: rapid.IntRange(0, modelSessions-1).Draw(t, "session"),
		minutes: rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(-1, 40)).Draw(t, "minutes"),
	}
})

// model knows every session that was closed, and never forgets one. Which principals
// are collapsed it asks the list, and then looks whether that was theirs to suffer.
type model struct {
	began time.Time
	max   int
	list  *revocation.List

	closed map[revocation.ID]time.Time // until when that is to be known
	latest map[string]time.Time        // when the latest session that was ever closed began
	marked map[string]bool             // had a not-before record at any time
	stats  revocation.Stats            // but the sizes
}

// mismatch is what a model panics with.
type mismatch string

func failf(format string, args ...any) { panic(mismatch(fmt.Sprintf(format, args...))) }

// session returns an entry of the nth session. Some principals have more than others.
func (m *model) session(n int) revocation.Entry {
	principals := []string{"", "alice", "", "bob", "alice", "carol", "alice", "dave", "bob", "erin"}
	return revocation.Entry{ID: id(n), Principal: principals[n%len(principals)], Why: "closed",
		Issued: m.began.Add(time.Duration(n*17%modelSessions) * time.Second)}
}

// Whatever happens to a list, a closed session is revoked for as long as it has to be,
// and nobody suffers for the sessions of others.
func TestTheListKnowsWhatTheModelKnows(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		most := rapid.OneOf(rapid.IntRange(0, 4), rapid.IntRange(5, 30)).Draw(rt, "max")
		history := slices.Concat(rapid.SliceOf(rapid.SliceOfN(someStep, 1, 20)).Draw(rt, "history")...)
		done := 0
		var failure any
		synctest.Test(t, func(*testing.T) {
			m := &model{began: time.Now(), max: most, list: revocation.New(most),
				closed: make(map[revocation.ID]time.Time), latest: make(map[string]time.Time), marked: make(map[string]bool)}
			defer func() { failure = recover() }()
			for i, x := range history {
				done = i
				<-time.After(time.Millisecond) // no time is that at which anything expires
				m.do(x)
				m.check()
			}
		})
		if failure != nil {
			rt.Fatalf("step %d, %+v: %v", done, history[done], failure)
		}
	})
}

func (m *model) do(x step) {
	e := m.session(x.session)
	e.Until = time.Now().Add(time.Duration(x.minutes) * time.Minute)
	switch x.do {
	case "add":
		m.add(e)
	case "principal":
		m.addNotBefore(e)
	case "remove":
		m.list.Remove(e.ID)
		delete(m.closed, e.ID)
	case "wait":
		<-time.After(time.Duration(max(0, x.minutes)) * time.Minute)
	}
}

func (m *model) add(e revocation.Entry) {
	before := m.contents()
	_, was := m.list.Revoked(e.ID, e.Principal, e.Issued)
	added, err := m.list.Add(e)
	m.justify(e, before, err)
	if err != nil {
		if added {
			failf("added, and %v", err)
		}
		return
	}
	if added == was {
		failf("added %t, but revoked before: %t", added, was)
	}
	m.note(e)
}

// note notes that all sessions that e names are closed.
func (m *model) note(e revocation.Entry) {
	if e.Issued.After(m.latest[e.Principal]) {
		m.latest[e.Principal] = e.Issued
	}
	for n := range modelSessions {
		s := m.session(n)
		if s.ID != e.ID && (e.ID != revocation.ID{} || s.Principal != e.Principal || s.Issued.After(e.Issued)) {
			continue
		}
		if e.Until.After(m.closed[s.ID]) {
			m.closed[s.ID] = e.Until
		}
	}
}

func (m *model) addNotBefore(e revocation.Entry) {
	e.ID = revocation.ID{}
	if e.Principal == "" {
		if added, err := m.list.Add(e); added || err == nil || errors.Is(err, revocation.ErrFull) {
			failf("nobody's not-before record: %t, %v", added, err)
		}
		return
	}
	before := m.contents()
	_, known := before.marks[e.Principal]
	_, err := m.list.Add(e)
	full := e.Until.After(time.Now()) && !known && len(before.marks) >= m.max
	if full != errors.Is(err, revocation.ErrFull) || !full && err != nil {
		failf("got %v", err)
	}
	if full {
		m.stats.Refused++
		return
	}
	m.note(e)
}

// contents is what a list has.
type contents struct {
	entries map[revocation.ID]revocation.Entry
	marks   map[string]revocation.Entry
	weights map[string]int
}

func (m *model) contents() contents {
	c := contents{make(map[revocation.ID]revocation.Entry), make(map[string]revocation.Entry), make(map[string]int)}
	for e := range m.list.All() {
		if (e.ID == revocation.ID{}) {
			c.marks[e.Principal] = e
			continue
		}
		c.entries[e.ID] = e
		c.weights[e.Principal]++
	}
	return c
}

// most returns the weight of the heaviest who has a name.
func (c contents) most() (most int) {
	for principal, n := range c.weights {
		if principal != "" {
			most = max(most, n)
		}
	}
	return most
}

// justify looks whether it was right who was collapsed or refused.
func (m *model) justify(e revocation.Entry, before contents, err error) {
	after := m.contents()
	_, stored := before.entries[e.ID]
	mark, marked := before.marks[e.Principal]
	needless := !e.Until.After(time.Now()) || marked && !mark.Issued.Before(e.Issued) && !mark.Until.Before(e.Until)
	own, most := before.weights[e.Principal], before.most()
	suffers := "" // nobody
	refused := false
	switch {
	case stored || needless:
	case e.Principal == "" && own >= m.max/2:
		refused = true
	case len(before.entries) < m.max:
	case e.Principal != "" && (own >= most || most < 2):
		suffers = e.Principal
	case most < 2:
		refused = true
	default:
		suffers = m.suffered(before, after, most)
		if refused = suffers == ""; refused && len(before.marks) < m.max {
			failf("none of the heaviest was collapsed: %v", err)
		}
	}
	if suffers != "" && !refused {
		if _, marked := before.marks[suffers]; !marked && len(before.marks) >= m.max {
			refused = true
		}
	}
	if refused != errors.Is(err, revocation.ErrFull) || !refused && err != nil {
		failf("got %v, full %t", err, refused)
	}
	if refused {
		suffers = ""
		m.stats.Refused++
	}
	if suffers != "" {
		m.stats.Collapsed++
	}
	m.untouched(before, after, suffers)
}

// suffered returns which of the heaviest has no entries any more, empty: none.
func (m *model) suffered(before, after contents, most int) string {
	for principal, n := range before.weights {
		if principal != "" && n == most && after.weights[principal] == 0 {
			return principal
		}
	}
	return ""
}

// untouched wants that of those who do not suffer, everything is still there.
func (m *model) untouched(before, after contents, suffers string) {
	for id, e := range before.entries {
		if _, there := after.entries[id]; there == (e.Principal == suffers && suffers != "") {
			failf("after %q was collapsed, there is %+v: %t", suffers, e, there)
		}
	}
	for principal := range after.marks {
		if _, there := before.marks[principal]; !there && principal != suffers {
			failf("%q has a not-before record, collapsed was %q", principal, suffers)
		}
	}
}

func (m *model) check() {
	now := m.contents()
	for principal := range now.marks {
		m.marked[principal] = true
	}
	if most := max(0, m.max); len(now.entries) > most || len(now.marks) > most || now.weights[""] > most/2 {
		failf("at most %d: %d entries, %d of nobody, %d not-before records", m.max, len(now.entries), now.weights[""], len(now.marks))
	}
	m.stats.Sessions, m.stats.Principals = len(now.entries), len(now.marks)
	if got := m.list.Stats(); got != m.stats {
		failf("got %+v, want %+v", got, m.stats)
	}
	again := revocation.New(m.max)
	for e := range m.list.All() {
		if _, err := again.Add(e); err != nil {
			failf("of %+v, another list says %v", e, err)
		}
	}
	for n := range modelSessions {
		m.checkSession(m.session(n), again)
	}
}

func (m *model) checkSession(s revocation.Entry, again *revocation.List) {
	why, yes := m.list.Revoked(s.ID, s.Principal, s.Issued)
	if whyAgain, yesAgain := again.Revoked(s.ID, s.Principal, s.Issued); yesAgain != yes || whyAgain != why {
		failf("%+v is revoked: %t, %q, in another list %t, %q", s, yes, why, yesAgain, whyAgain)
	}
	closed := time.Now().Before(m.closed[s.ID])
	if closed && !yes {
		failf("%+v lives again", s)
	}
	if suffers := m.marked[s.Principal] && !s.Issued.After(m.latest[s.Principal]); yes && !closed && !suffers {
		failf("%+v is revoked, %q, and was not closed", s, why)
	}
}
