// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package scenario

import (
	"slices"
	"strings"
	"testing"
)

func TestEveryScenarioIsFoundByItsName(t *testing.T) {
	seen := make(map[string]bool)
	for _, s := range All {
		if got, ok := Find(s.Name); !ok || got.Name != s.Name || seen[s.Name] {
			t.Errorf("%q: found %q, %t, seen before: %t", s.Name, got.Name, ok, seen[s.Name])
		}
		seen[s.Name] = true
		if !strings.HasSuffix(s.Sentence, ".") || s.Time <= 0 || len(s.Phases) == 0 {
			t.Errorf("%q: no sentence, no time or no phases", s.Name)
		}
		for _, p := range s.Phases {
			if p.Share <= 0 || len(p.Store) == 0 || len(p.Flight) == 0 || p.Name == "" {
				t.Errorf("%q: a phase without a share, a crowd or a name: %+v", s.Name, p)
			}
		}
	}
	if _, ok := Find("nonsense"); ok {
		t.Error("found nonsense")
	}
	if _, ok := Find(Default); !ok {
		t.Error("the default is not there")
	}
}

func TestTheMixTouchesEveryOtherScenarioForTheSameTime(t *testing.T) {
	mixed, _ := Find(Default)
	shares := make(map[string]int)
	var faults Faults
	for _, p := range mixed.Phases {
		name, _, _ := strings.Cut(p.Name, " ")
		shares[name] += p.Share
		faults |= p.Faults
	}
	for _, s := range All {
		if s.Name != Default && shares[s.Name] != shares["steady"] {
			t.Errorf("%s has %d parts of the mix, steady %d", s.Name, shares[s.Name], shares["steady"])
		}
	}
	if faults != 1<<len(faultNames)-1 {
		t.Errorf("the mix has the faults %q, want all", faults)
	}
	for _, end := range []End{GoesOn, Idles, Stops, Cut} {
		if !slices.ContainsFunc(mixed.Phases, func(p Phase) bool { return p.End == end }) {
			t.Errorf("no phase of the mix ends like this: the store %s", end)
		}
	}
}

func TestFaultsAreNamed(t *testing.T) {
	for f, want := range map[Faults]string{
		0:                             "nothing goes wrong",
		HangingClosers:                "closers hang",
		FailingClosers | Reconfigured: "closers fail, options change",
	} {
		if got := f.String(); got != want {
			t.Errorf("%b: %q, want %q", f, got, want)
		}
	}
	if faults != 1<<len(faultNames) {
		t.Errorf("%d names for %b", len(faultNames), faults-1)
	}
}
