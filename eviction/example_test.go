// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package eviction_test

import (
	"fmt"

	"github.com/c8e4ff29/layover/eviction"
)

// A session as a store would keep it. In a real store, uses and leased are
// atomic, and the policy is under a lock.
type session struct {
	node   eviction.Node[session]
	source *eviction.Source[session]
	name   string
	uses   uint32
	leased bool
}

var access = eviction.Access[session]{
	Node:   func(s *session) *eviction.Node[session] { return &s.node },
	Source: func(s *session) *eviction.Source[session] { return s.source },
	Used:   func(s *session) uint32 { return s.uses },
	Take:   func(s *session) bool { return !s.leased },
}

func insert(p eviction.Policy[session], from *eviction.Source[session], name string, c eviction.Class) *session {
	s := &session{source: from, name: name}
	p.Insert(s, c)
	return s
}

func ExampleLRU() {
	policy := eviction.NewLRU(access)
	var host eviction.Source[session]
	ann := insert(policy, &host, "ann", eviction.Empty)
	bob := insert(policy, &host, "bob", eviction.Empty)
	insert(policy, &host, "cid", eviction.Empty)

	ann.uses++ // a hit changes a stamp, nothing more
	bob.leased = true

	fmt.Println(policy.Victim(&host).name)
	fmt.Println(policy.Victim(&host).name)
	fmt.Println(policy.Victim(&host)) // bob is busy
	bob.leased = false
	policy.Idle(bob)
	fmt.Println(policy.Victim(&host).name)
	// Output:
	// cid
	// ann
	// <nil>
	// bob
}

func ExampleAssured() {
	policy := eviction.NewAssured(access, 2, false)
	var host eviction.Source[session]
	ann := insert(policy, &host, "ann", eviction.Empty)
	policy.Reclass(ann, eviction.Confirmed) // ann came back
	bob := insert(policy, &host, "bob", eviction.Empty)
	policy.Reclass(bob, eviction.Holding) // bob has an option
	insert(policy, &host, "cid", eviction.Empty)
	insert(policy, &host, "dan", eviction.Empty)

	for range 4 {
		fmt.Println(policy.Victim(&host).name)
	}
	// Output:
	// cid
	// dan
	// ann
	// bob
}

// Whoever takes most room makes room, and cannot take that of others by being
// busy.
func ExampleSource() {
	policy := eviction.NewAssured(access, 0, false)
	var crowd, ann eviction.Source[session]
	insert(policy, &ann, "ann", eviction.Empty)
	insert(policy, &crowd, "one", eviction.Empty)
	two := insert(policy, &crowd, "two", eviction.Empty)

	fmt.Println(policy.Victim(&ann).name)
	two.leased = true
	insert(policy, &crowd, "three", eviction.Empty).leased = true
	fmt.Println(policy.Victim(&crowd))
	fmt.Println(crowd.Len(), ann.Len())
	// Output:
	// one
	// <nil>
	// 2 1
}

// The owner would rather refuse newcomers than lose a confirmed session.
func ExampleNewAssured_keepConfirmed() {
	policy := eviction.NewAssured(access, 2, true)
	var host eviction.Source[session]
	insert(policy, &host, "ann", eviction.Confirmed)

	if policy.Victim(&host) == nil {
		fmt.Println("the store is full")
	}
	// Output:
	// the store is full
}
