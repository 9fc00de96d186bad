// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package scenario says what a run of stress does: which crowds are there, what goes
// wrong meanwhile, and how it ends. Who the crowds are is said where they are: in
// package engine for the store alone, in the command for a Flight server.
package scenario

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Scenario is a few phases, one after the other.
type Scenario struct {
	Name     string
	Sentence string        // what it is about
	Time     time.Duration // that it takes if nobody says otherwise
	Phases   []Phase
}

// Phase is a part of a scenario.
type Phase struct {
	Name   string  // of the scenario that it is of, with its number there
	Share  int     // of the scenario's time
	Store  []Crowd // who is there if the store is driven alone
	Flight []Crowd // who is there if a Flight server is driven
	Faults Faults
	End    End
}

// String says what is special about the phase.
func (p Phase) String() string {
	text := p.Name + ": " + p.Faults.String()
	if p.End != GoesOn {
		text += "; then the store " + p.End.String()
	}
	return text
}

// Crowd is a share of the clients, who are all of one kind.
type Crowd struct {
	Kind  string
	Share int
}

// Faults is what goes wrong during a phase.
type Faults uint

// The faults.
const (
	FailingClosers    Faults = 1 << iota // Close returns an error, now and then
	PanickingClosers                     // Close panics or ends its goroutine, now and then
	SlowClosers                          // Close takes its time
	HangingClosers                       // Close does not return before the phase is over, now and then
	CallingClosers                       // Close calls back into the store
	CallingObserver                      // the observer calls back into the store
	PanickingObserver                    // the observer panics, now and then
	Reconfigured                         // options change
	LittleMemory                         // the garbage collector runs all the time
	FewProcessors                        // GOMAXPROCS changes
	faults
)

var faultNames = []string{
	"closers fail", "closers panic", "closers are slow", "closers hang", "closers call back",
	"the observer calls back", "the observer panics", "options change", "little memory", "few processors",
}

// Has reports whether one of these faults is among them.
func (f Faults) Has(these Faults) bool { return f&these != 0 }

// String lists the faults.
func (f Faults) String() string {
	var all []string
	for i, name := range faultNames {
		if f.Has(1 << i) {
			all = append(all, name)
		}
	}
	if len(all) == 0 {
		return "nothing goes wrong"
	}
	return strings.Join(all, ", ")
}

// End is what becomes of the store when a phase is over. After the last one it is
// always shut down.
type End int

// The ends.
const (
	GoesOn End = iota // the next phase has the same one
	Idles             // everybody leaves; in the end there is nothing left in the store, which goes on
	Stops             // it is drained, then shut down with enough time; the next phase has another one
	Cut               // it is shut down in the middle of calls, without enough time
)

// String says it in words.
func (e End) String() string {
	return [...]string{"goes on", "idles", "is drained and shut down", "is shut down in the middle"}[e]
}

// Find returns the scenario of this name.
func Find(name string) (Scenario, bool) {
	i := slices.IndexFunc(All, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		return Scenario{}, false
	}
	return All[i], true
}

// named returns the scenarios with names for their phases.
func named(all []Scenario) []Scenario {
	for _, s := range all {
		for i := range s.Phases {
			p := &s.Phases[i]
			if p.Name = s.Name; len(s.Phases) > 1 {
				p.Name = fmt.Sprint(s.Name, " ", i+1)
			}
		}
	}
	return all
}

// mix returns a scenario that has the phases of all others, each in the same time.
func mix(all ...Scenario) (m Scenario) {
	const each = 60
	for _, s := range all {
		total := 0
		for _, p := range s.Phases {
			total += p.Share
		}
		for _, p := range s.Phases {
			p.Share = each * p.Share / total
			m.Phases = append(m.Phases, p)
		}
	}
	return m
}
