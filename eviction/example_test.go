// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction_test

import (
	"fmt"

	"github.com/c8e4ff29/layover/eviction"
)

// A session as a store would keep it. In a real store, used and leased are
// atomic, and the policy is under a lock.
type session struct {
	node   eviction.Node[session]
	name   string
	used   bool
	leased bool
}

func wasUsed(s *session) bool {
	was := s.used
	s.used = false
	return was
}

func take(s *session) bool { return !s.leased }

func insert(p eviction.Policy[session], name string, c eviction.Class) *session {
	s := &session{name: name}
	p.Insert(&s.node, s, c)
	return s
}

func ExampleLRU() {
	policy := eviction.NewLRU[session]()
	ann := insert(policy, "ann", eviction.Empty)
	bob := insert(policy, "bob", eviction.Empty)
	insert(policy, "cid", eviction.Empty)

	ann.used = true // a hit sets a bit, nothing more
	bob.leased = true

	fmt.Println(policy.Victim(wasUsed, take).name)
	fmt.Println(policy.Victim(wasUsed, take).name)
	fmt.Println(policy.Victim(wasUsed, take)) // bob is busy
	// Output:
	// cid
	// ann
	// <nil>
}

func ExampleAssured() {
	policy := eviction.NewAssured[session](2, false)
	ann := insert(policy, "ann", eviction.Empty)
	policy.Reclass(&ann.node, eviction.Confirmed) // ann came back
	bob := insert(policy, "bob", eviction.Empty)
	policy.Reclass(&bob.node, eviction.Holding) // bob has an option
	insert(policy, "cid", eviction.Empty)
	insert(policy, "dan", eviction.Empty)

	for range 4 {
		fmt.Println(policy.Victim(wasUsed, take).name)
	}
	// Output:
	// cid
	// dan
	// ann
	// bob
}

// The owner would rather refuse newcomers than lose a confirmed session.
func ExampleNewAssured_keepConfirmed() {
	policy := eviction.NewAssured[session](2, true)
	insert(policy, "ann", eviction.Confirmed)

	if policy.Victim(wasUsed, take) == nil {
		fmt.Println("the store is full")
	}
	// Output:
	// the store is full
}
