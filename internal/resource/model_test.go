// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/internal/resource"
)

// step is one that is done to a pool and to its model.
type step struct {
	do    string
	owner int
	name  string
	n     int
	d     time.Duration
}

const owners = 5

var someStep = rapid.Custom(func(t *rapid.T) step {
	return step{
		do: rapid.SampledFrom([]string{"acquire", "acquire", "acquire", "acquire", "release", "release", "release",
			"hold", "discard", "wait", "max", "confirm", "move", "end"}).Draw(t, "do"),
		owner: rapid.IntRange(0, owners-1).Draw(t, "owner"),
		name:  rapid.SampledFrom([]string{"x", "y"}).Draw(t, "name"),
		n:     rapid.IntRange(0, 7).Draw(t, "n"),
		d:     time.Duration(rapid.OneOf(rapid.IntRange(-1, 5), rapid.IntRange(0, 200)).Draw(t, "d")) * time.Second,
	}
})

// modelIdle is the idle timeout of the model's things.
const modelIdle = time.Minute

// modelThing is one that is open.
type modelThing struct {
	id        int
	owner     *modelOwner
	name      string
	leases    []*resource.Lease
	used      time.Time
	held      time.Time
	discarded bool
}

// modelOwner is an owner. There is always another one in the place of one that has
// ended.
type modelOwner struct {
	set       *resource.Set
	source    string
	confirmed bool
}

// model is the pool's obvious counterpart: it looks at everything all the time.
type model struct {
	pool   *resource.Pool
	kind   *resource.Kind
	max    int
	owners [owners]*modelOwner
	things []*modelThing // open, as they were opened
	ids    int

	mu     sync.Mutex // of what Close notes; between steps nobody runs
	really []int      // that are open
	closed []int      // in this order
}

// mismatch is what a model panics with.
type mismatch string

func (m *model) failf(format string, args ...any) { panic(mismatch(fmt.Sprintf(format, args...))) }

// Whatever happens to a pool, it does what the model does.
func TestThePoolDoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		most := rapid.IntRange(1, 6).Draw(rt, "max")
		history := slices.Concat(rapid.SliceOf(rapid.SliceOfN(someStep, 1, 20)).Draw(rt, "history")...)
		done := 0
		var failure any
		synctest.Test(t, func(t *testing.T) {
			m := newModel(most)
			defer func() {
				failure = recover()
				m.end()
			}()
			for i, x := range history {
				done = i
				<-time.After(time.Millisecond) // no two things are used at the same time
				m.expire()
				m.do(t.Context(), x)
				m.check()
			}
		})
		if failure != nil {
			rt.Fatalf("step %d, %+v: %v", done, history[done], failure)
		}
	})
}

func newModel(most int) *model {
	m := &model{pool: resource.NewPool(most), max: most}
	m.kind = &resource.Kind{Name: "thing", Idle: modelIdle, CloseWithin: time.Hour, Close: func(v any) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.really = slices.DeleteFunc(m.really, func(id int) bool { return id == v.(int) })
		m.closed = append(m.closed, v.(int))
		return nil
	}}
	for i := range m.owners {
		m.renew(i)
	}
	return m
}

func (m *model) renew(i int) {
	source := fmt.Sprint("source", i%3)
	m.owners[i] = &modelOwner{set: m.pool.NewSet(i, source), source: source}
}

func (m *model) do(ctx context.Context, x step) {
	o := m.owners[x.owner]
	switch x.do {
	case "acquire":
		m.acquire(ctx, o, x.name)
	case "release":
		m.release(x.n)
	case "hold":
		t := m.find(o, x.name)
		if got := o.set.Hold(m.kind, x.name, x.d); got != (t != nil) {
			m.failf("held: %t", got)
		}
		if t != nil {
			t.held = time.Time{}
			if x.d > 0 {
				t.held = time.Now().Add(x.d)
			}
		}
		m.expire()
	case "discard":
		o.set.Discard(m.kind, x.name)
		if t := m.find(o, x.name); t != nil {
			t.discarded = true
			m.settle(t)
		}
	case "wait":
		<-time.After(max(0, x.d))
		m.expire()
	case "max":
		m.max = 1 + x.n
		m.pool.SetMax(m.max)
		for len(m.things) > m.max {
			t := m.victim("", true)
			if t == nil {
				break
			}
			m.drop(t)
		}
	case "confirm":
		o.set.Confirm()
		o.confirmed = true
	case "move":
		o.source = fmt.Sprint("source", x.n%3)
		o.set.SetSource(o.source)
	case "end":
		m.endOwner(x.owner)
	}
}

func (m *model) find(o *modelOwner, name string) *modelThing {
	for _, t := range m.things {
		if t.owner == o && t.name == name && !t.discarded {
			return t
		}
	}
	return nil
}

func (m *model) acquire(ctx context.Context, o *modelOwner, name string) {
	id := m.ids + 1
	l, err := o.set.Acquire(ctx, m.kind, name, func(context.Context) (any, error) {
		m.ids++
		m.really = append(m.really, m.ids)
		return m.ids, nil
	})
	if t := m.find(o, name); t != nil {
		if err != nil || l.Value() != t.id {
			m.failf("got %v, %v, want %d, which is open", l, err, t.id)
		}
		t.leases = append(t.leases, l)
		return
	}
	var leaves *modelThing
	full := len(m.things) > m.max
	if len(m.things) == m.max {
		leaves = m.victim(o.source, false)
		full = leaves == nil
	}
	if full {
		if !errors.Is(err, resource.ErrFull) {
			m.failf("got %v, want ErrFull", err)
		}
		return
	}
	if err != nil {
		m.failf("got %v", err)
	}
	if leaves != nil {
		m.drop(leaves)
	}
	m.things = append(m.things, &modelThing{id: id, owner: o, name: name, leases: []*resource.Lease{l}, used: time.Now()})
}

// victim returns who leaves for a thing from a source, or for anybody's.
func (m *model) victim(source string, anybody bool) *modelThing {
	weights := make(map[string]int)
	for _, t := range m.things {
		weights[t.owner.source]++
	}
	var idle []*modelThing
	for _, t := range m.things {
		if len(t.leases) == 0 && (anybody || weights[t.owner.source] >= weights[source]) {
			idle = append(idle, t)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	rank := func(yes bool) int {
		if yes {
			return 1
		}
		return 0
	}
	return slices.MinFunc(idle, func(a, b *modelThing) int {
		return cmp.Or(
			cmp.Compare(rank(time.Now().Before(a.held)), rank(time.Now().Before(b.held))),
			cmp.Compare(rank(a.owner.confirmed), rank(b.owner.confirmed)),
			-cmp.Compare(weights[a.owner.source], weights[b.owner.source]),
			a.used.Compare(b.used))
	})
}

// release releases the nth lease that there is, twice.
func (m *model) release(n int) {
	for _, t := range m.things {
		if n >= len(t.leases) {
			n -= len(t.leases)
			continue
		}
		l := t.leases[n]
		l.Release()
		l.Release()
		if t.leases = slices.Delete(t.leases, n, n+1); len(t.leases) == 0 {
			t.used = time.Now()
			m.settle(t)
		}
		return
	}
}

// settle drops a thing that nobody uses or wants.
func (m *model) settle(t *modelThing) {
	if len(t.leases) == 0 && (t.discarded || len(m.things) > m.max) {
		m.drop(t)
	}
}

// expire drops what has been idle for too long.
func (m *model) expire() {
	synctest.Wait()
	now := time.Now()
	for _, t := range slices.Clone(m.things) {
		if len(t.leases) == 0 && !now.Before(t.used.Add(modelIdle)) && !now.Before(t.held) {
			m.drop(t)
		}
	}
}

func (m *model) drop(t *modelThing) {
	m.things = slices.DeleteFunc(m.things, func(x *modelThing) bool { return x == t })
}

// endOwner ends an owner, whose things are closed in reverse order.
func (m *model) endOwner(i int) {
	o := m.owners[i]
	var want []int
	for _, t := range slices.Clone(m.things) {
		if t.owner == o {
			want = append(want, t.id)
			m.drop(t)
		}
	}
	slices.Reverse(want)
	synctest.Wait()
	before := len(m.closed)
	if err := o.set.Close(); err != nil {
		m.failf("Close: %v", err)
	}
	if got := m.closed[before:]; !slices.Equal(got, want) {
		m.failf("closed were %v, want %v", got, want)
	}
	m.renew(i)
}

// check compares.
func (m *model) check() {
	synctest.Wait()
	var want []int
	busy, held := 0, 0
	for _, t := range m.things {
		want = append(want, t.id)
		switch {
		case len(t.leases) > 0:
			busy++
		case time.Now().Before(t.held):
			held++
		}
	}
	if slices.Sort(m.closed); len(slices.Compact(slices.Clone(m.closed))) != len(m.closed) {
		m.failf("closed twice: %v", m.closed)
	}
	got := slices.Clone(m.really)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.failf("open are %v, want %v", got, want)
	}
	s := m.pool.Stats()
	if s.Open != len(want) || s.Places != len(want) || s.Busy != busy || s.Held != held || s.Closing+s.Hung != 0 || s.Max != m.max {
		m.failf("%+v, want %d open, %d busy, %d held, at most %d", s, len(want), busy, held, m.max)
	}
	if ended := s.EndedIdle + s.Evicted + s.EndedOwner + s.Discarded; int(s.Opened-ended) != len(want) {
		m.failf("%d were opened and %d ended", s.Opened, ended)
	}
}

func (m *model) end() {
	for _, o := range m.owners {
		_ = o.set.Close()
	}
	synctest.Wait()
}
