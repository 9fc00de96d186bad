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
	byUse := lru.New(func(p *page) *lru.Hook[page] { return &p.hook })

	visit := func(name string) {
		if p, ok := pages[name]; ok {
			byUse.Touch(p)
			return
		}
		if byUse.Len() == 2 {
			old := byUse.RemoveOldest()
			delete(pages, old.name)
			fmt.Println(old.name, "leaves")
		}
		p := &page{name: name}
		pages[name] = p
		byUse.Push(p)
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
	jobs := lru.New(func(j *job) *lru.Hook[job] { return &j.hook })
	for id := range 6 {
		jobs.Push(&job{id: id})
	}
	for j := range jobs.All() {
		if j.id%2 == 0 {
			jobs.Remove(j)
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
