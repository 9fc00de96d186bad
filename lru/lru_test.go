// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package lru_test

import (
	"container/list"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/lru"
)

type item struct {
	hook lru.Hook[item]
	id   int
}

func pushNew(l *lru.List[item], n int) []*item {
	items := make([]*item, n)
	for i := range items {
		items[i] = &item{id: i}
		l.Push(&items[i].hook, items[i])
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
	var oldest, newest *item
	if len(want) > 0 {
		oldest, newest = want[0], want[len(want)-1]
	}
	if l.Oldest() != oldest || l.Newest() != newest {
		t.Fatalf("the ends are wrong, order is %v", ids(want))
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
		for range lists {
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
				lists[l].Push(&it.hook, it)
				ref.push(l, it)
			},
			"touch": func(t *rapid.T) {
				l, it := drawList(t), drawItem(t)
				want := ref.places[it].list == ref.lists[l]
				if got := lists[l].Touch(&it.hook); got != want {
					t.Fatalf("Touch = %v, want %v", got, want)
				}
				if want {
					ref.push(l, it)
				}
			},
			"remove": func(t *rapid.T) {
				l, it := drawList(t), drawItem(t)
				want := ref.places[it].list == ref.lists[l]
				if got := lists[l].Remove(&it.hook); got != want {
					t.Fatalf("Remove = %v, want %v", got, want)
				}
				if want {
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
					if got := it.hook.Elem(); linked && got != it || !linked && got != nil {
						t.Fatalf("Elem() = %v of an item with Linked() = %v", got, linked)
					}
				}
			},
		})
	})
}

func TestRemovedHookKeepsNoPointer(t *testing.T) {
	var l lru.List[item]
	items := pushNew(&l, 4)
	l.Remove(&items[1].hook) // from the middle
	l.Remove(&items[3].hook) // the newest
	l.RemoveOldest()
	l.Remove(&items[2].hook) // the last one
	for _, it := range items {
		if it.hook != (lru.Hook[item]{}) {
			t.Errorf("item %d: the hook is not zero after Remove", it.id)
		}
	}
	if l != (lru.List[item]{}) {
		t.Error("the emptied list is not zero")
	}
}

func TestPushReplacesTheElement(t *testing.T) {
	var l lru.List[item]
	var h lru.Hook[item]
	a, b := &item{id: 1}, &item{id: 2}
	l.Push(&h, a)
	l.Push(&h, b)
	expectOrder(t, &l, []*item{b})
}

func TestAllLetsTheYieldedElementGo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l, other lru.List[item]
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
				l.Touch(&it.hook)
				moved = append(moved, it)
			case "remove":
				l.Remove(&it.hook)
			case "move away":
				other.Push(&it.hook, it)
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
	var l lru.List[item]
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
	var l, other lru.List[item]
	items := make([]item, 8)
	allocs := testing.AllocsPerRun(100, func() {
		for i := range items {
			l.Push(&items[i].hook, &items[i])
		}
		for i := range items {
			l.Touch(&items[i].hook)
		}
		l.Rotate()
		other.Push(&items[0].hook, &items[0])
		for i := range items {
			l.Remove(&items[i].hook)
		}
		other.RemoveOldest()
	})
	if allocs != 0 {
		t.Fatalf("%v allocations, want none", allocs)
	}
}
