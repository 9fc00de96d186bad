// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import (
	"math"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

// item is an element as a user of the wheel would have it, with what the model
// needs to know of it.
type item struct {
	id    int
	at    time.Duration // where the model has it filed
	filed bool
	timer Timer[item]
}

func (i *item) place() *Timer[item] { return &i.timer }

func (i *item) deadline(time.Duration) time.Duration { return i.at }

func newWheel(tick time.Duration) *Wheel[item] {
	return NewWheel(tick, (*item).place, (*item).deadline)
}

// file files i as its user would who keeps the deadline with it.
func (i *item) file(w *Wheel[item], at time.Duration) {
	i.at = at
	w.File(i, at)
}

const year = 365 * 24 * time.Hour

var someTicks = []time.Duration{1, 2, 7, 1000, time.Millisecond, 999_983, time.Second, time.Hour, 3 * year}

// someDuration draws durations of every magnitude, and those around the
// boundaries of slots and levels.
func someDuration(tick time.Duration) *rapid.Generator[time.Duration] {
	return rapid.OneOf(
		fewTicks(tick),
		rapid.Map(rapid.Int64Range(0, int64(sat(tick, 5))), func(n int64) time.Duration { return time.Duration(n) }),
		rapid.Custom(func(t *rapid.T) time.Duration {
			base := int64(1) << rapid.IntRange(0, 62).Draw(t, "bit")
			return max(sat(tick, base)+time.Duration(rapid.IntRange(-2, 2).Draw(t, "off")), 0)
		}),
		rapid.Map(rapid.Int64Range(0, int64(200*year)), func(n int64) time.Duration { return time.Duration(n) }),
	)
}

func fewTicks(tick time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(0, 200), func(n int64) time.Duration { return sat(tick, n) })
}

// sat multiplies without overflow.
func sat(tick time.Duration, n int64) time.Duration {
	if n > int64(math.MaxInt64/tick) {
		return math.MaxInt64
	}
	return tick * time.Duration(n)
}

func plus(a, b time.Duration) time.Duration {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// model is the wheel's obvious counterpart: a slice that is searched.
type model struct {
	tick  time.Duration
	items []*item
	wheel *Wheel[item]
	now   time.Duration
	seen  time.Duration // the latest now that the wheel was told
}

// ticks is the first whole tick not before at.
func (m *model) ticks(at time.Duration) int64 {
	if at <= 0 {
		return 0
	}
	return int64((at-1)/m.tick) + 1
}

// isDue says whether the wheel must hand out i at now.
func (m *model) isDue(i *item, now time.Duration) bool {
	return i.filed && m.ticks(i.at) <= int64(now/m.tick)
}

func (m *model) file(i *item, at time.Duration) {
	i.at, i.filed = at, true
	m.wheel.File(i, at)
}

// due calls Due once and checks what it returns.
func (m *model) due(t *rapid.T, limit int) (due []*item, more bool) {
	m.seen = max(m.seen, m.now)
	before := m.wheel.moves
	due, more = m.wheel.Due(m.now, limit, nil)
	if got := m.wheel.moves - before; got > limit || len(due) > got {
		t.Fatalf("Due with limit %d moved %d and returned %d", limit, got, len(due))
	} else if more && got != limit {
		t.Fatalf("Due has more to do, but moved %d of %d", got, limit)
	}
	for _, i := range due {
		if !i.filed {
			t.Fatalf("item %d came out without being filed, or twice", i.id)
		}
		if i.at > m.seen {
			t.Fatalf("item %d came out early: at %v, now %v", i.id, i.at, m.seen)
		}
		if i.timer != (Timer[item]{}) {
			t.Fatalf("item %d came out with pointers left: %+v", i.id, i.timer)
		}
		i.filed = false
	}
	return due, more
}

// settle calls Due until there is no more, and checks that nothing is late. In
// between others may file, but not for now.
func (m *model) settle(t *rapid.T, limit int, between func()) {
	calls := 3*len(m.items)*levels + 1 // each moves down once per level at most; it may be touched, and filed again
	for more := true; more; calls-- {
		if calls == 0 {
			t.Fatal("Due does not come to an end")
		}
		if _, more = m.due(t, limit); more {
			between()
		}
	}
	for _, i := range m.items {
		if m.isDue(i, m.now) {
			t.Fatalf("item %d was lost or is late: at %v, now %v, tick %v", i.id, i.at, m.now, m.tick)
		}
		if m.tick <= math.MaxInt64-max(i.at, 0) && i.filed && max(i.at, 0)+m.tick <= m.now {
			t.Fatalf("item %d is a tick late: at %v, now %v, tick %v", i.id, i.at, m.now, m.tick)
		}
	}
}

// check compares what can be seen of the wheel with the model.
func (m *model) check(t *rapid.T) {
	filed, earliest := 0, int64(math.MaxInt64)
	for _, i := range m.items {
		if i.timer.Filed() != i.filed {
			t.Fatalf("item %d: Filed is %v, want %v", i.id, i.timer.Filed(), i.filed)
		}
		if i.filed {
			filed++
			earliest = min(earliest, max(m.ticks(i.at), int64(m.seen/m.tick)))
		}
	}
	if m.wheel.Len() != filed {
		t.Fatalf("Len is %d, want %d", m.wheel.Len(), filed)
	}
	next, ok := m.wheel.Next()
	if ok != (filed > 0) {
		t.Fatalf("Next says %v with %d filed", ok, filed)
	}
	if ok && next > sat(m.tick, earliest) {
		t.Fatalf("Next is %v, later than the earliest deadline %v", next, sat(m.tick, earliest))
	}
}

func newModel(t *rapid.T) *model {
	m := &model{tick: rapid.SampledFrom(someTicks).Draw(t, "tick")}
	m.wheel = newWheel(m.tick)
	m.items = make([]*item, rapid.IntRange(1, 40).Draw(t, "items"))
	for n := range m.items {
		m.items[n] = &item{id: n}
	}
	return m
}

func (m *model) draw(t *rapid.T) *item { return rapid.SampledFrom(m.items).Draw(t, "item") }

func TestNeverEarlyAtMostOneTickLateNothingLostNothingTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		durations := someDuration(m.tick)
		soon := fewTicks(m.tick)
		limits := rapid.OneOf(rapid.Just(1), rapid.IntRange(1, 5), rapid.IntRange(1, 100))
		t.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"file": func(t *rapid.T) {
				m.file(m.draw(t), plus(m.now, durations.Draw(t, "in")))
			},
			"file in the past": func(t *rapid.T) {
				m.file(m.draw(t), m.now-durations.Draw(t, "ago"))
			},
			"file never": func(t *rapid.T) { m.file(m.draw(t), math.MaxInt64) },
			"touch without telling": func(t *rapid.T) {
				i := m.draw(t)
				i.at = plus(max(i.at, 0), durations.Draw(t, "by"))
			},
			"touch for ever": func(t *rapid.T) { m.draw(t).at = math.MaxInt64 },
			"touch within the tick of now": func(t *rapid.T) {
				i := m.draw(t)
				i.at = max(i.at, plus(m.now, time.Duration(rapid.Int64Range(0, int64(m.tick)-1).Draw(t, "by"))))
			},
			"file for a look before the deadline": func(t *rapid.T) {
				i := m.draw(t)
				i.filed = true
				m.wheel.File(i, max(i.at, 0)-durations.Draw(t, "early"))
			},
			"cancel": func(t *rapid.T) {
				i := m.draw(t)
				if m.wheel.Cancel(i) != i.filed {
					t.Fatalf("Cancel of item %d says %v", i.id, !i.filed)
				}
				if i.filed = false; i.timer != (Timer[item]{}) {
					t.Fatalf("item %d was cancelled with pointers left: %+v", i.id, i.timer)
				}
			},
			"due once": func(t *rapid.T) { m.due(t, limits.Draw(t, "limit")) },
			"due and file again": func(t *rapid.T) {
				due, _ := m.due(t, limits.Draw(t, "limit"))
				for _, i := range due {
					m.file(i, plus(m.now, durations.Draw(t, "in")))
				}
			},
			"settle": func(t *rapid.T) { m.settle(t, limits.Draw(t, "limit"), func() {}) },
			"settle while others file": func(t *rapid.T) {
				files := rapid.IntRange(0, len(m.items)).Draw(t, "files")
				m.settle(t, limits.Draw(t, "limit"), func() {
					if files--; files >= 0 {
						m.file(m.draw(t), plus(plus(m.now, m.tick), soon.Draw(t, "in")))
					}
				})
			},
			"file all": func(t *rapid.T) {
				for _, i := range m.items {
					m.file(i, plus(m.now, soon.Draw(t, "in")))
				}
			},
			"clock runs": func(t *rapid.T) {
				m.now = plus(m.now, durations.Draw(t, "by"))
			},
			"clock runs to next": func(t *rapid.T) {
				if next, ok := m.wheel.Next(); ok && next < math.MaxInt64 {
					m.now = max(m.now, next-time.Duration(rapid.IntRange(0, 1).Draw(t, "before")))
				}
			},
			"clock goes back": func(t *rapid.T) {
				m.now = max(m.now-durations.Draw(t, "by"), 0)
			},
		})
		m.settle(t, 1, func() {})
		m.check(t)
	})
}

// A store whose earliest deadline is an hour away sleeps for an hour.
func TestNextIsExactUnlessSomethingWasCancelled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		durations := someDuration(m.tick)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				m.check(t)
				earliest := int64(math.MaxInt64)
				for _, i := range m.items {
					if i.filed {
						earliest = min(earliest, max(m.ticks(i.at), int64(m.now/m.tick)))
					}
				}
				if next, ok := m.wheel.Next(); ok && next != sat(m.tick, earliest) {
					t.Fatalf("Next is %v, want exactly %v", next, sat(m.tick, earliest))
				}
			},
			"file": func(t *rapid.T) {
				if i := m.draw(t); !i.filed {
					m.file(i, plus(m.now, durations.Draw(t, "in")))
				}
			},
			"clock runs": func(t *rapid.T) {
				m.now = plus(m.now, durations.Draw(t, "by"))
				m.settle(t, 3, func() {})
			},
		})
	})
}

// Cancelling costs at most one idle wake-up, not one for each tick or level.
func TestNextImprovesAfterAnIdleWakeUp(t *testing.T) {
	w := newWheel(time.Millisecond)
	var gone, stays item
	gone.file(w, time.Hour)
	stays.file(w, time.Hour+time.Minute) // in the same slot
	w.Cancel(&gone)
	if next, _ := w.Next(); next != time.Hour {
		t.Fatalf("the test needs both in one slot, Next is %v", next)
	}
	if due, more := w.Due(time.Hour, 10, nil); len(due) != 0 || more {
		t.Fatalf("Due returned %d, %v", len(due), more)
	}
	if next, ok := w.Next(); next != time.Hour+time.Minute || !ok {
		t.Fatalf("Next is %v, %v", next, ok)
	}
}

func TestWorkIsProportionalToWhatIsDue(t *testing.T) {
	const far, near = 100_000, 10
	w := newWheel(time.Millisecond)
	items := make([]item, far+near)
	for n := range items {
		at := time.Hour + time.Duration(n)*777*time.Microsecond
		if n >= far {
			at = time.Duration(n) * 7 * time.Millisecond % time.Second
		}
		items[n].file(w, at)
	}
	var due []*item
	for now := time.Duration(0); now < time.Hour; now += 10 * time.Millisecond {
		var more bool
		if due, more = w.Due(now, 1000, due); more {
			t.Fatalf("more to do at %v", now)
		}
	}
	if len(due) != near || w.moves != near {
		t.Errorf("%d due before the hour, want %d; moved %d", len(due), near, w.moves)
	}
	wakes := 0
	for {
		next, ok := w.Next()
		if !ok {
			break
		}
		wakes++
		for more := true; more; {
			before := w.moves
			if due, more = w.Due(next, 64, due); w.moves > before+64 {
				t.Fatalf("one batch of 64 moved %d", w.moves-before)
			}
		}
	}
	if len(due) != far+near || w.Len() != 0 {
		t.Errorf("%d came out, %d are left", len(due), w.Len())
	}
	// An hour at 1 ms has four digits: out, and three levels down at most.
	if w.moves > near+4*far {
		t.Errorf("moved %d times for %d elements", w.moves, far)
	}
	if wakes > far {
		t.Errorf("woke %d times for %d deadlines", wakes, far)
	}
}

func TestFilingAllocatesNothing(t *testing.T) {
	w := newWheel(time.Millisecond)
	items := make([]item, 200)
	due := make([]*item, 0, len(items))
	now := time.Duration(0)
	round := func() {
		for n := range items {
			items[n].file(w, now+time.Millisecond<<(n%40))
		}
		for n := 0; n < len(items); n += 3 {
			w.Cancel(&items[n])
		}
		now += 123_457 * time.Microsecond
		due, _ = w.Due(now, len(items), due[:0])
		w.Next()
	}
	for range 100 {
		round() // a level is made when it is first used
	}
	if got := testing.AllocsPerRun(1000, round); got != 0 {
		t.Errorf("%v allocations per round of %d elements", got, len(items))
	}
}

func TestTimerIsTwoWords(t *testing.T) {
	if got, want := unsafe.Sizeof(Timer[item]{}), 2*unsafe.Sizeof(uintptr(0)); got != want {
		t.Errorf("a Timer has %d bytes, want %d", got, want)
	}
}

// An element that is due later in the same tick as now waits for the next tick.
func TestDeadlineLaterInTheTickOfNow(t *testing.T) {
	w := newWheel(time.Second)
	i := item{at: 9700 * time.Millisecond}
	w.File(&i, 0) // for a look
	for _, now := range []time.Duration{9 * time.Second, 9500 * time.Millisecond, 9800 * time.Millisecond} {
		if due, more := w.Due(now, 10, nil); len(due) != 0 || more || w.Len() != 1 {
			t.Fatalf("at %v %d came out, more: %v, %d are left", now, len(due), more, w.Len())
		}
		if next, ok := w.Next(); next != 10*time.Second || !ok {
			t.Fatalf("at %v Next is %v, %v", now, next, ok)
		}
	}
	if due, _ := w.Due(10*time.Second, 10, nil); len(due) != 1 {
		t.Fatalf("%d came out in the end", len(due))
	}
}

func TestNeverIsFarAway(t *testing.T) {
	for _, tick := range someTicks {
		w := newWheel(tick)
		filed, touched := new(item), new(item)
		filed.file(w, math.MaxInt64)
		touched.file(w, time.Hour)
		touched.at = math.MaxInt64
		for _, now := range []time.Duration{time.Hour, 100 * year, 280 * year} {
			if due, more := w.Due(now+tick, 2*levels, nil); len(due) != 0 || more || w.Len() != 2 {
				t.Fatalf("tick %v: at %v %d came out, more: %v, %d are left", tick, now, len(due), more, w.Len())
			}
			if next, ok := w.Next(); next < 285*year || !ok {
				t.Fatalf("tick %v: at %v Next is %v, %v", tick, now, next, ok)
			}
		}
	}
}

// An element that is touched all the time costs moves for each time that it is
// filed, not for each time that it is touched.
func TestTouchingCostsNothing(t *testing.T) {
	const idle, hours = 30 * time.Minute, 10
	w := newWheel(time.Millisecond)
	items := make([]item, 1000)
	for n := range items {
		items[n].file(w, idle+time.Duration(n)*time.Second)
	}
	for now := time.Duration(0); now < hours*time.Hour; now += time.Second {
		for n := range items {
			items[n].at = now + idle
		}
		if due, more := w.Due(now, len(items), nil); len(due) != 0 || more {
			t.Fatalf("at %v %d came out, more: %v", now, len(due), more)
		}
	}
	// Half an hour at 1 ms has four digits.
	if most := len(items) * int(hours*time.Hour/idle) * 4; w.moves > most {
		t.Errorf("moved %d times, want at most %d", w.moves, most)
	}
}

// A million that share a slot do not hold the caller's lock for long, whether
// they are due or were touched.
func TestManyInOneSlotComeInBatches(t *testing.T) {
	const limit = 100
	w := newWheel(time.Millisecond)
	items := make([]item, 100_000)
	for n := range items {
		items[n].file(w, time.Hour)
		if n%2 == 0 {
			items[n].at = 2 * time.Hour
		}
	}
	var due []*item
	for calls, more := 1, true; more; calls++ {
		before := w.moves
		if due, more = w.Due(time.Hour, limit, due); w.moves > before+limit || calls > len(items)/limit {
			t.Fatalf("call %d moved %d", calls, w.moves-before)
		}
	}
	if len(due) != len(items)/2 || w.Len() != len(items)/2 {
		t.Errorf("%d came out, %d are left", len(due), w.Len())
	}
}

func TestPanicOfDeadlineLosesNothing(t *testing.T) {
	w := NewWheel(time.Second, (*item).place, func(i *item, _ time.Duration) time.Duration {
		if i.id == 1 {
			panic("deadline")
		}
		return i.at
	})
	bad, good := &item{id: 1}, &item{id: 2}
	bad.file(w, 0)
	good.file(w, 0)
	due := func() (due []*item) {
		defer func() { _ = recover() }()
		due, _ = w.Due(0, 10, nil)
		return due
	}
	if due(); w.Len() < 1 || !bad.timer.Filed() {
		t.Fatalf("%d are left, the bad one is filed: %v", w.Len(), bad.timer.Filed())
	}
	bad.id = 0
	if due(); w.Len() != 0 {
		t.Errorf("%d are left in the end", w.Len())
	}
}

func TestEveryDurationCanBeFiled(t *testing.T) {
	for _, tick := range someTicks {
		w := newWheel(tick)
		for _, at := range []time.Duration{math.MinInt64, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64} {
			var i item
			i.file(w, at)
			next, ok := w.Next()
			if !ok || next < at || next < 0 {
				t.Errorf("tick %v: filed at %v, Next is %v, %v", tick, at, next, ok)
			}
			w.Cancel(&i)
		}
	}
}

func TestDueMakesProgressWhateverTheLimit(t *testing.T) {
	w := newWheel(time.Second)
	for _, limit := range []int{1, 0, -1, math.MinInt} {
		var i item
		i.file(w, 0)
		if due, more := w.Due(0, limit, nil); len(due) != 1 || due[0] != &i || more {
			t.Errorf("limit %d: %d came out, more: %v", limit, len(due), more)
		}
	}
}

func TestWheelNeedsAPositiveTick(t *testing.T) {
	for _, tick := range []time.Duration{0, -1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("a tick of %v was accepted", tick)
				}
			}()
			newWheel(tick)
		}()
	}
}

func TestWheelNeedsItsFunctions(t *testing.T) {
	for n := range 2 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a wheel without its functions was accepted")
				}
			}()
			if n == 0 {
				NewWheel(time.Second, nil, (*item).deadline)
			} else {
				NewWheel(time.Second, (*item).place, nil)
			}
		}()
	}
}
