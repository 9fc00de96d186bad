// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package lru_test

import (
	"container/list"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/lru"
)

type item struct {
	hook lru.Hook[item]
	id   int
}

func hookOf(it *item) *lru.Hook[item] { return &it.hook }

func pushNew(l *lru.List[item], n int) []*item {
	items := make([]*item, n)
	for i := range items {
		items[i] = &item{id: i}
		l.Push(items[i])
	}
	return items
}

// ids makes failures readable.
func ids(items []*item) []int {
	out := make([]int, len(items))
	for i, it := range items {
		out[i] = it.id
	}
	return out
}

func expectOrder(t interface {
	Helper()
	Fatalf(string, ...any)
}, l *lru.List[item], want []*item) {
	t.Helper()
	if got := slices.Collect(l.All()); !slices.Equal(got, want) {
		t.Fatalf("order is %v, want %v", ids(got), ids(want))
	}
	if l.Len() != len(want) {
		t.Fatalf("Len() = %d, want %d", l.Len(), len(want))
	}
	var oldest *item
	if len(want) > 0 {
		oldest = want[0]
	}
	if l.Oldest() != oldest {
		t.Fatalf("the oldest is wrong, order is %v", ids(want))
	}
}

// reference is container/list under the same operations: the back is the
// newest, and places says where every item is.
type reference struct {
	lists  []*list.List
	places map[*item]place
}

type place struct {
	list *list.List
	elem *list.Element
}

func (r *reference) remove(it *item) {
	p := r.places[it]
	p.list.Remove(p.elem)
	delete(r.places, it)
}

func (r *reference) push(l int, it *item) {
	if r.places[it].list != nil {
		r.remove(it)
	}
	r.places[it] = place{r.lists[l], r.lists[l].PushBack(it)}
}

func (r *reference) oldest(l int) *item {
	if front := r.lists[l].Front(); front != nil {
		return front.Value.(*item)
	}
	return nil
}

func (r *reference) order(l int) []*item {
	var out []*item
	for e := r.lists[l].Front(); e != nil; e = e.Next() {
		out = append(out, e.Value.(*item))
	}
	return out
}

func TestListDoesWhatContainerListDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const nLists = 3
		lists := make([]lru.List[item], nLists)
		ref := reference{places: make(map[*item]place)}
		for l := range lists {
			lists[l] = lru.New(hookOf)
			ref.lists = append(ref.lists, list.New())
		}
		items := make([]*item, rapid.IntRange(1, 8).Draw(t, "items"))
		for i := range items {
			items[i] = &item{id: i}
		}
		drawList := func(t *rapid.T) int { return rapid.IntRange(0, nLists-1).Draw(t, "list") }
		drawItem := func(t *rapid.T) *item { return items[rapid.IntRange(0, len(items)-1).Draw(t, "item")] }

		t.Repeat(map[string]func(*rapid.T){
			"push": func(t *rapid.T) {
				l, it := drawList(t), drawItem(t)
				for was := range lists {
					if ref.places[it].list == ref.lists[was] {
						lists[was].Remove(it)
					}
				}
				lists[l].Push(it)
				ref.push(l, it)
			},
			"touch": func(t *rapid.T) {
				l, it := drawList(t), drawItem(t)
				if ref.places[it].list == ref.lists[l] {
					lists[l].Touch(it)
					ref.push(l, it)
				}
			},
			"remove": func(t *rapid.T) {
				l, it := drawList(t), drawItem(t)
				if ref.places[it].list == ref.lists[l] {
					lists[l].Remove(it)
					ref.remove(it)
				}
			},
			"remove oldest": func(t *rapid.T) {
				l := drawList(t)
				want := ref.oldest(l)
				if got := lists[l].RemoveOldest(); got != want {
					t.Fatalf("RemoveOldest = %v, want %v", got, want)
				}
				if want != nil {
					ref.remove(want)
				}
			},
			"rotate": func(t *rapid.T) {
				l := drawList(t)
				lists[l].Rotate()
				if it := ref.oldest(l); it != nil {
					ref.push(l, it)
				}
			},
			"": func(t *rapid.T) {
				for l := range lists {
					expectOrder(t, &lists[l], ref.order(l))
				}
				for _, it := range items {
					_, linked := ref.places[it]
					if it.hook.Linked() != linked {
						t.Fatalf("Linked() = %v, want %v", it.hook.Linked(), linked)
					}
					if !linked && it.hook != (lru.Hook[item]{}) {
						t.Fatal("a hook that is in no list holds a pointer")
					}
				}
			},
		})
	})
}

func TestRemovedHookKeepsNoPointer(t *testing.T) {
	l := lru.New(hookOf)
	items := pushNew(&l, 4)
	l.Remove(items[1]) // from the middle
	l.Remove(items[3]) // the newest
	l.RemoveOldest()
	l.Remove(items[2]) // the last one
	for _, it := range items {
		if it.hook != (lru.Hook[item]{}) {
			t.Errorf("item %d: the hook is not zero after Remove", it.id)
		}
	}
	if l.Oldest() != nil || l.Len() != 0 {
		t.Error("the emptied list holds something")
	}
}

func TestLinkedTellsALoneElement(t *testing.T) {
	l := lru.New(hookOf)
	it := pushNew(&l, 1)[0]
	if !it.hook.Linked() {
		t.Error("Linked() = false of the only element of a list")
	}
	l.Remove(it)
	if it.hook.Linked() {
		t.Error("Linked() = true of an element that was removed")
	}
}

func TestHookIsTwoWords(t *testing.T) {
	if got, want := unsafe.Sizeof(lru.Hook[item]{}), 2*unsafe.Sizeof(uintptr(0)); got != want {
		t.Errorf("a Hook takes %d bytes, want %d", got, want)
	}
}

func TestAllLetsTheYieldedElementGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, other := lru.New(hookOf), lru.New(hookOf)
		want := pushNew(&l, rapid.IntRange(0, 8).Draw(t, "items"))
		var seen, stayed, moved []*item // moved: to the newest end, or pushed there
		for it := range l.All() {
			if len(seen) == len(want) {
				t.Fatal("All yields more than there was when the loop began")
			}
			seen = append(seen, it)
			switch rapid.SampledFrom([]string{"keep", "touch", "remove", "move away", "push a new one"}).Draw(t, "do") {
			case "keep":
				stayed = append(stayed, it)
			case "touch":
				l.Touch(it)
				moved = append(moved, it)
			case "remove":
				l.Remove(it)
			case "move away":
				l.Remove(it)
				other.Push(it)
			case "push a new one":
				stayed = append(stayed, it)
				moved = append(moved, pushNew(&l, 1)...)
			}
		}
		if !slices.Equal(seen, want) {
			t.Fatalf("All yielded %v, want %v", ids(seen), ids(want))
		}
		expectOrder(t, &l, append(stayed, moved...))
	})
}

func TestAllStopsWhenTheLoopDoes(t *testing.T) {
	l := lru.New(hookOf)
	items := pushNew(&l, 3)
	var seen []*item
	for it := range l.All() {
		seen = append(seen, it)
		if it == items[1] {
			break
		}
	}
	if !slices.Equal(seen, items[:2]) {
		t.Fatalf("saw %v, want the first two", ids(seen))
	}
}

func TestNothingIsAllocated(t *testing.T) {
	l, other := lru.New(hookOf), lru.New(hookOf)
	items := make([]item, 8)
	allocs := testing.AllocsPerRun(100, func() {
		for i := range items {
			l.Push(&items[i])
		}
		for i := range items {
			l.Touch(&items[i])
		}
		l.Rotate()
		l.Remove(&items[0])
		other.Push(&items[0])
		for i := range items[1:] {
			l.Remove(&items[i+1])
		}
		other.RemoveOldest()
	})
	if allocs != 0 {
		t.Fatalf("%v allocations, want none", allocs)
	}
}
