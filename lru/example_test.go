// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package lru_test

import (
	"fmt"

	"github.com/c8e4ff29/layover/lru"
)

// A cache of two pages: a map to find them, a list to know which one leaves.
func Example() {
	type page struct {
		hook lru.Hook[page]
		name string
	}
	pages := make(map[string]*page)
	var byUse lru.List[page]

	visit := func(name string) {
		p, ok := pages[name]
		if !ok {
			if byUse.Len() == 2 {
				old := byUse.RemoveOldest()
				delete(pages, old.name)
				fmt.Println(old.name, "leaves")
			}
			p = &page{name: name}
			pages[name] = p
		}
		byUse.Push(&p.hook, p)
	}

	visit("home")
	visit("news")
	visit("home")
	visit("help")
	for p := range byUse.All() {
		fmt.Println(p.name, "stays")
	}
	// Output:
	// news leaves
	// home stays
	// help stays
}

// The element that a loop is looking at may leave.
func ExampleList_All() {
	type job struct {
		hook lru.Hook[job]
		id   int
	}
	var jobs lru.List[job]
	for id := range 6 {
		j := &job{id: id}
		jobs.Push(&j.hook, j)
	}
	for j := range jobs.All() {
		if j.id%2 == 0 {
			jobs.Remove(&j.hook)
		}
	}
	for j := range jobs.All() {
		fmt.Println(j.id)
	}
	// Output:
	// 1
	// 3
	// 5
}
