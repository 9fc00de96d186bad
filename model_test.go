// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// guest is a session as the model knows it.
type guest struct {
	id               string
	conn             *conn
	leases           []*Lease[*conn]
	ctx              context.Context // once a lease was asked for it
	inherited        int             // of the leases: those taken under earlier IDs, which count as one
	created, used    time.Time
	bornWithEnd      bool
	end              time.Time // of its own; zero: none
	jitter           uint8
	confirmed, holds bool
	source           string
	size             int64
	ended            Reason
	endedAt          time.Time
	closed           bool
}

func (g *guest) busy() bool { return len(g.leases) > 0 }

// taken is how many leases are counted.
func (g *guest) taken() int { return len(g.leases) - max(0, g.inherited-1) }

// lease picks one of them, which is there.
func (g *guest) lease(x step) int { return x.n / 3 % len(g.leases) }

// step is one thing that happens to a store. Which of its fields matter depends
// on what it does.
type step struct {
	do       string
	id       string
	n        int
	yes      bool
	max      int
	whenFull WhenFull
	timeouts timeouts
	limits   limits
	source   string
	size     int64
	end      time.Duration // from now; zero: none
	quota    int
	evictOwn bool
}

// GoString is how a history reads that fails.
func (x step) GoString() string {
	switch x.do {
	case "set max":
		return fmt.Sprint(x.do, " ", x.max)
	case "set whenFull":
		return fmt.Sprint(x.do, " ", x.whenFull)
	case "set timeouts":
		return fmt.Sprint(x.do, " ", x.timeouts)
	case "set limits":
		return fmt.Sprint(x.do, " ", x.limits)
	case "pass":
		return fmt.Sprint(x.do, " ", x.n)
	}
	return fmt.Sprint(x.do, " ", x.id, " ", x.n, " ", x.yes, " ", x.source, " ", x.size, " ", x.end, " ", x.quota, " ", x.evictOwn)
}

type timeouts struct{ idle, lifetime, empty, holding time.Duration }

func (x timeouts) options() []Option {
	return []Option{WithIdleTimeout(x.idle), WithLifetime(x.lifetime), WithUnconfirmedTimeouts(x.empty, x.holding)}
}

// limits are those beside the maximum of sessions.
type limits struct {
	bytes  int64
	leases int
	share  float64
}

func (x limits) options() []Option {
	return []Option{WithMaxBytes(x.bytes), WithMaxLeases(x.leases), WithSourceShare(x.share)}
}

var (
	someLimits = rapid.Custom(func(t *rapid.T) limits {
		return limits{
			bytes:  rapid.SampledFrom([]int64{0, 1000, 300}).Draw(t, "bytes"),
			leases: rapid.SampledFrom([]int{0, 1, 2}).Draw(t, "leases"),
			share:  rapid.SampledFrom([]float64{0, 0.5, 0.1, 1}).Draw(t, "share"),
		}
	})
	someSource = rapid.SampledFrom([]string{"", "", "a", "b", "c"})
	someSize   = rapid.SampledFrom([]int64{0, 0, 0, 1, 100, 250, 900, 2000})
	someEnd    = rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.OneOf(rapid.Just(0), rapid.Just(0), rapid.IntRange(-1000, 20_000), rapid.IntRange(0, 5_000_000)).Draw(t, "end")) * time.Microsecond
	})
	someQuota = rapid.SampledFrom([]int{0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 4, -1})
	someID    = rapid.Custom(func(t *rapid.T) string {
		return fmt.Sprint("id", rapid.IntRange(0, modelIDs-1).Draw(t, "id"))
	})
	someMax      = rapid.SampledFrom([]int{1, 2, 3, 5, 12, 0})
	someWhenFull = rapid.SampledFrom([]WhenFull{EvictUnconfirmed, KeepConfirmed, EvictLRU})
	someTimeouts = rapid.Custom(func(t *rapid.T) (x timeouts) {
		draw := func(name string) time.Duration {
			return time.Duration(rapid.OneOf(rapid.Just(0), rapid.IntRange(1, 10), rapid.IntRange(1, 5000)).Draw(t, name)) * time.Millisecond
		}
		x.idle, x.lifetime, x.empty, x.holding = draw("idle"), draw("lifetime"), draw("empty"), draw("holding")
		if x.lifetime > 0 {
			x.lifetime = max(x.lifetime, x.idle)
		}
		if x.holding > 0 {
			if x.empty == 0 {
				x.empty = x.holding
			}
			x.empty, x.holding = min(x.empty, x.holding), max(x.empty, x.holding)
		}
		return x
	})
	someStep = rapid.Custom(func(t *rapid.T) step {
		return step{
			do: rapid.SampledFrom([]string{
				"add", "add", "add", "put", "put", "acquire", "release", "release", "touch", "confirm", "confirm", "hold", "remove", "kill", "resize", "move end",
				"rename", "rename", "drain",
				"pass", "pass to a deadline", "set max", "set whenFull", "set timeouts", "set limits",
			}).Draw(t, "do"),
			id:       someID.Draw(t, "id"),
			n:        rapid.OneOf(rapid.IntRange(0, 10), rapid.IntRange(0, 10_000)).Draw(t, "n"),
			yes:      rapid.Bool().Draw(t, "yes"),
			max:      someMax.Draw(t, "max"),
			whenFull: someWhenFull.Draw(t, "whenFull"),
			timeouts: someTimeouts.Draw(t, "timeouts"),
			limits:   someLimits.Draw(t, "limits"),
			source:   someSource.Draw(t, "source"),
			size:     someSize.Draw(t, "size"),
			end:      someEnd.Draw(t, "end"),
			quota:    someQuota.Draw(t, "quota"),
			evictOwn: rapid.SampledFrom([]bool{true, true, false}).Draw(t, "evictOwn"),
		}
	})
)

const modelIDs = 14

// model is the store's obvious counterpart: it looks at everybody all the time.
// It does not foretell which of several equals is evicted, but to what class it
// must belong.
type model struct {
	store  *Store[*conn]
	events *recorder
	guests []*guest  // all that ever were
	seen   time.Time // the last look at deadlines

	refused, leasesRefused uint64

	timeouts
	limits
	max      int
	whenFull WhenFull
	draining bool
}

// mismatch is what a model panics with.
type mismatch string

func (m *model) failf(format string, args ...any) { panic(mismatch(fmt.Sprintf(format, args...))) }

// Whatever happens to a store, it does what the model does. The history is
// drawn first, since rapid ends a run by a panic, which must not leave a bubble.
func TestTheStoreDoesWhatTheModelDoes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{
			events:   new(recorder),
			max:      someMax.Draw(rt, "max"),
			whenFull: someWhenFull.Draw(rt, "whenFull"),
			timeouts: someTimeouts.Draw(rt, "timeouts"),
			limits:   someLimits.Draw(rt, "limits"),
		}
		history := slices.Concat(rapid.SliceOf(rapid.SliceOfN(someStep, 1, 20)).Draw(rt, "history")...)
		done := 0
		var failure any
		synctest.Test(t, func(*testing.T) {
			m.open()
			defer func() {
				failure = recover()
				m.leave()
			}()
			for i, x := range history {
				done = i
				m.do(x)
				m.check()
			}
			m.end()
		})
		if failure != nil {
			rt.Fatalf("step %d: %v", done, failure)
		}
	})
}

// open makes the store.
func (m *model) open() {
	if m.whenFull == KeepConfirmed && m.idle == 0 && m.lifetime == 0 {
		m.idle = time.Second
	}
	s, err := New[*conn](append(append(m.timeouts.options(), m.limits.options()...), WithMaxSessions(m.max), WithWhenFull(m.whenFull),
		WithObserver(m.events.observe), WithLogger(nil), WithMaxLeaseAge(0))...)
	if err != nil {
		panic(err)
	}
	m.store = s
}

// leave leaves nothing behind, whatever happened.
func (m *model) leave() {
	for _, g := range m.guests {
		for _, l := range g.leases {
			l.Release()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	_ = m.store.Shutdown(ctx)
}

func (m *model) do(x step) {
	switch x.do {
	case "add":
		m.add(x)
	case "put":
		m.put(x)
	case "acquire":
		m.acquire(x)
	case "release":
		m.release(x)
	case "touch":
		m.touch(x)
	case "confirm":
		m.confirm(x)
	case "hold":
		m.hold(x)
	case "remove":
		if g := m.live(x.id); m.visited(g, m.store.Remove(x.id)) {
			m.ends(g, ReasonClosed, time.Now())
		}
	case "kill":
		m.kill(x)
	case "pass":
		pass(time.Duration(x.n) * time.Millisecond)
		m.expire()
	case "pass to a deadline":
		if g := m.live(x.id); g != nil {
			if at, _, ok := m.deadline(g); ok {
				pass(time.Until(at) - time.Duration(x.n%2)) // or just before
				m.expire()
			}
		}
	case "set max":
		m.max = x.max
		m.wantErr(m.store.Reconfigure(WithMaxSessions(m.max)), nil)
		m.trimmed()
	case "set whenFull":
		m.setWhenFull(x)
	case "set timeouts":
		m.setTimeouts(x)
	case "set limits":
		m.limits = x.limits
		m.wantErr(m.store.Reconfigure(x.limits.options()...), nil)
		m.trimmed()
	case "resize":
		m.resize(x)
	case "move end":
		m.moveEnd(x)
	case "rename":
		m.rename(x)
	case "drain":
		if x.n > 9000 { // seldom: it cannot be undone
			m.store.Drain()
			m.draining = true
		}
	}
}

// timeout is how long g may go unused.
func (m *model) timeout(g *guest) time.Duration {
	d := m.idle
	if !g.confirmed {
		own := m.empty
		if g.holds {
			own = m.holding
		}
		if own > 0 && (d == 0 || own < d) {
			d = own
		}
	}
	return d
}

// deadline is when and why g ends if nothing happens. ok is false: never.
func (m *model) deadline(g *guest) (at time.Time, why Reason, ok bool) {
	if d := m.timeout(g); d > 0 && !g.busy() {
		at, why, ok = g.used.Add(d), ReasonUnconfirmed, true
		if g.confirmed {
			why = ReasonIdle
		}
	}
	if l := m.lifetime; l > 0 {
		end := g.created.Add(l - l/10/256*time.Duration(g.jitter))
		if !ok || !end.After(at) {
			at, why, ok = end, ReasonLifetime, true
		}
	}
	if !g.end.IsZero() && (!ok || !g.end.After(at)) {
		at, why, ok = g.end, ReasonLifetime, true
	}
	return at, why, ok
}

// expire ends who is past a deadline, since then or since it was set.
func (m *model) expire() {
	for _, g := range m.guests {
		if g.ended != 0 {
			continue
		}
		if at, why, ok := m.deadline(g); ok && !at.After(time.Now()) {
			if at.Before(m.seen) {
				at = m.seen
			}
			m.ends(g, why, at)
		}
	}
	m.seen = time.Now()
}

func (m *model) ends(g *guest, why Reason, at time.Time) {
	g.ended, g.endedAt, g.closed = why, at, !g.busy()
}

func (m *model) live(id string) *guest {
	for _, g := range m.guests {
		if g.id == id && g.ended == 0 {
			return g
		}
	}
	return nil
}

// places are the sessions that take a place.
func (m *model) places() (places []*guest) {
	for _, g := range m.guests {
		if g.ended == 0 || g.busy() && !g.closed {
			places = append(places, g)
		}
	}
	return places
}

// class is 0 for one that holds nothing, 1 for one that does, 2 for a confirmed
// one.
func (g *guest) class() int {
	switch {
	case g.confirmed:
		return 2
	case g.holds:
		return 1
	}
	return 0
}

// orders are the classes of which room is made, one after the other. As the
// model does not know of whom the policy has noticed that they are busy, there
// may be two orders.
func (m *model) orders() (orders [][][]int) {
	unconfirmed, idle := 0, 0
	for _, g := range m.guests {
		if g.ended == 0 && !g.confirmed {
			unconfirmed++
			if !g.busy() {
				idle++
			}
		}
	}
	if m.whenFull == KeepConfirmed {
		return [][][]int{{{0, 1}}}
	}
	few := max(8, m.max/64)
	if unconfirmed >= few {
		orders = append(orders, [][]int{{0, 1}, {2}})
	}
	if idle < few {
		orders = append(orders, [][]int{{2}, {0, 1}})
	}
	return orders
}

// victims are those of whom one makes room for a newcomer of a source. As the
// model does not know who comes first of sources that have equally many, there
// may be several. It may also be nobody.
func (m *model) victims(from string) (who []*guest, nobody bool) {
	if m.whenFull == EvictLRU {
		for _, g := range m.guests {
			if g.ended == 0 && !g.busy() {
				who = append(who, g)
			}
		}
		return who, len(who) == 0
	}
	for _, stages := range m.orders() {
		nobody = true
		for i := 0; nobody && i < len(stages); i++ {
			var some []*guest
			some, nobody = m.victimsIn(stages[i], from)
			who = append(who, some...)
		}
	}
	return who, nobody // the same in every order
}

// victimsIn is victims, of some classes only.
func (m *model) victimsIn(classes []int, from string) (who []*guest, nobody bool) {
	idle := make(map[string][]*guest) // of each source, those who would leave
	weight, heaviest := make(map[string]int), 0
	for _, class := range classes {
		some := make(map[string][]*guest)
		for _, g := range m.guests {
			if g.ended != 0 || g.class() != class {
				continue
			}
			weight[g.source]++
			if !g.busy() && len(idle[g.source]) == 0 {
				some[g.source] = append(some[g.source], g)
			}
		}
		for source, all := range some {
			idle[source] = all
		}
	}
	for source := range idle {
		heaviest = max(heaviest, weight[source])
	}
	nobody = len(idle) == 0
	for source := range weight {
		all := idle[source] // none: the policy may not have noticed yet that all are busy
		switch {
		case weight[source] < heaviest:
		case source == from || m.taken(source) >= m.taken(from):
			who = append(who, all...)
		case len(idle[from]) > 0:
			who = append(who, idle[from]...)
		default:
			nobody = true
		}
	}
	return who, nobody
}

// taken is how many places a source has.
func (m *model) taken(source string) (n int) {
	for _, g := range m.places() {
		if g.source == source {
			n++
		}
	}
	return n
}

func (m *model) takenBytes() (n int64) {
	for _, g := range m.places() {
		n += g.size
	}
	return n
}

// room is what the model foretells of an insert.
type room struct {
	from   string   // the source for whom it is
	who    []*guest // one of them leaves, if there is need
	one    bool     // there is
	nobody bool     // or it fails
	bytes  bool     // anybody who takes bytes may leave, and it may fail
	never  bool     // it fails, and nobody leaves
}

func (m *model) excessPlaces() bool { return m.max > 0 && len(m.places()) > m.max }
func (m *model) excessBytes() bool  { return m.bytes > 0 && m.takenBytes() > m.bytes }

// room says who has to leave for so many more.
func (m *model) room(from string, sessions int, size int64) (r room) {
	r.from = from
	r.bytes = m.bytes > 0 && size > 0 && m.takenBytes()+size > m.bytes
	r.never = r.bytes && (m.excessBytes() || size > m.bytes) || sessions > 0 && m.excessPlaces()
	if sessions == 0 || m.max == 0 || len(m.places())+sessions <= m.max {
		return r
	}
	r.one = true
	r.who, r.nobody = m.victims(from)
	return r
}

// made finds out who left so that there is room, and checks the error.
func (m *model) made(r room, err error) {
	left := m.left()
	switch {
	case r.never:
		m.wantNoRoom(r, err)
		if len(left) > 0 {
			m.failf("%d left in vain", len(left))
		}
	case r.bytes: // it may have taken several, which fits is checked later
		if err != nil {
			m.wantNoRoom(r, err)
		}
	case !r.one || r.nobody && err != nil:
		if len(left) > 0 {
			m.failf("%d left without need", len(left))
		}
		if r.nobody {
			m.wantNoRoom(r, err)
		} else {
			m.wantErr(err, nil)
		}
	case err != nil || len(left) != 1 || !slices.Contains(r.who, left[0]):
		m.failf("%d left, want one of %d: %v", len(left), len(r.who), err)
	}
}

// left finds out who was evicted, and notes it.
func (m *model) left() (left []*guest) {
	left = m.missing()
	for _, g := range left {
		m.ends(g, ReasonCapacity, time.Now())
	}
	return left
}

// missing are those whom the store has not any more.
func (m *model) missing() (missing []*guest) {
	for _, g := range m.guests {
		if e := m.store.index.find(g.id); g.ended == 0 && (e == nil || e.value != g.conn) {
			if g.busy() {
				m.failf("session %s left while it was in use", g.id)
			}
			missing = append(missing, g)
		}
	}
	return missing
}

// hopeless reports whether there is no room for the newcomer x, whoever leaves.
func (m *model) hopeless(x step) bool {
	return m.bytes > 0 && x.size > m.bytes || m.excessPlaces() || x.size > 0 && m.excessBytes()
}

// madeInQuota reports whether there is room in the quota of the source that x
// names. If not, it checks the error. It finds out who left for it, who may have
// done so in vain.
func (m *model) madeInQuota(x step, err error) bool {
	if x.quota == 0 || m.taken(x.source) < x.quota {
		return true
	}
	need, own := m.taken(x.source)-x.quota+1, m.ownVictims(x)
	first := own[:min(need, len(own))]
	if need > 1 && x.source != "" && m.idleOf(x.source) < need {
		first = nil
	}
	left := m.leftForQuota()
	for _, g := range left {
		if !slices.Contains(own, g) {
			m.failf("session %s left for a quota of %d, which it must not", g.id, x.quota)
		}
	}
	if slices.CompareFunc(left, first, byClass) != 0 {
		m.failf("%d left for a quota of %d, want %d of %d in the order of their classes", len(left), x.quota, len(first), len(own))
	}
	if m.taken(x.source) < x.quota {
		return true
	}
	m.wantFull(err, x.quota, x.source, LackingQuota)
	if others := m.missing(); len(others) > 0 {
		m.failf("%d others left for a quota", len(others))
	}
	return false
}

func byClass(a, b *guest) int { return a.class() - b.class() }

// idleOf returns how many sessions of a source nobody uses.
func (m *model) idleOf(source string) (n int) {
	for _, g := range m.guests {
		if g.source == source && g.ended == 0 && !g.busy() {
			n++
		}
	}
	return n
}

// ownVictims are those whom the newcomer x may evict to be within its quota, in
// the order of their classes.
func (m *model) ownVictims(x step) (who []*guest) {
	if !x.evictOwn || m.whenFull == EvictLRU {
		return nil
	}
	for _, g := range m.guests {
		if g.source == x.source && g.ended == 0 && !g.busy() && (!g.confirmed || m.whenFull != KeepConfirmed) {
			who = append(who, g)
		}
	}
	slices.SortFunc(who, byClass)
	return who
}

// leftForQuota finds out who was evicted for a quota, and notes it. They are in
// the order of their classes.
func (m *model) leftForQuota() (left []*guest) {
	for _, g := range m.missing() {
		if ev, _ := m.store.Explain(m.store.Fingerprint(g.id)); ev.Reason == ReasonQuota {
			m.ends(g, ReasonQuota, time.Now())
			left = append(left, g)
		}
	}
	slices.SortFunc(left, byClass)
	return left
}

// wantNoRoom checks the error of who found no room in the store.
func (m *model) wantNoRoom(r room, err error) {
	m.wantFull(err, m.max, r.from, LackingPlaces, LackingBytes)
}

func (m *model) wantFull(got error, most int, from string, lacking ...Lacking) {
	m.wantErr(got, ErrFull)
	var full *FullError
	if !errors.As(got, &full) || full.Max != most || full.Own != m.taken(from) || !slices.Contains(lacking, full.Lacking) {
		m.failf("got error %v, want it to lack %v, with %d of at most %d", got, lacking, m.taken(from), most)
	}
}

// tried counts what the store has refused.
func (m *model) tried(err error) {
	switch {
	case errors.Is(err, ErrFull):
		m.refused++
	case errors.Is(err, ErrLeaseLimit):
		m.leasesRefused++
	}
}

func (m *model) wantErr(got, want error) {
	if !errors.Is(got, want) {
		m.failf("got error %v, want %v", got, want)
	}
}

// visited checks the error of a visit to what the model has as g.
func (m *model) visited(g *guest, err error) bool {
	if g == nil {
		m.wantErr(err, ErrNotFound)
		return false
	}
	m.wantErr(err, nil)
	return true
}

func (x step) origin() Origin {
	return Origin{Source: x.source, Quota: x.quota, EvictOwn: x.evictOwn, Size: x.size, Holds: x.yes, Expires: x.ends()}
}

func (x step) invalid() bool { return x.end < 0 || x.quota < 0 }

func (x step) ends() (at time.Time) {
	if x.end != 0 {
		at = time.Now().Add(x.end)
	}
	return at
}

// mayUse says whether one more session of a source may be in use.
func (m *model) mayUse(source string) bool {
	busy := 0
	for _, g := range m.guests {
		if g.source == source && g.busy() && !g.closed {
			busy++
		}
	}
	if source == "" || m.max == 0 || m.share == 0 || m.share == 1 {
		return true
	}
	return busy < max(1, int(m.share*float64(m.max)))
}

func (m *model) add(x step) {
	c, old, mayUse := new(conn), m.live(x.id), m.mayUse(x.source)
	l, err := m.store.Add(x.id, c, x.origin())
	m.tried(err)
	switch {
	case x.invalid():
		m.wantErr(err, ErrInvalid)
	case m.draining:
		m.wantErr(err, ErrDraining)
	case old != nil:
		m.wantErr(err, ErrExists)
	case !mayUse:
		m.wantErr(err, ErrLeaseLimit)
	case m.hopeless(x) || m.madeInQuota(x, err): // nobody leaves for a quota in vain
		m.made(m.room(x.source, 1, x.size), err)
		if err == nil {
			m.insert(x, c, &l)
		}
	}
}

func (m *model) put(x step) {
	old := m.live(x.id)
	if old != nil && x.n%2 == 0 {
		m.wantErr(m.store.Put(x.id, old.conn, x.origin()), nil)
		m.touched(old)
		return
	}
	if x.invalid() {
		m.wantErr(m.store.Put(x.id, new(conn), x.origin()), ErrInvalid)
		return
	}
	if m.draining {
		m.wantErr(m.store.Put(x.id, new(conn), x.origin()), ErrDraining)
		return
	}
	sessions, size := 1, x.size
	if old != nil && !old.busy() { // the new one takes the place of the old one
		size -= old.size
		if !m.excessPlaces() {
			sessions = 0
		}
	}
	r := m.room(x.source, sessions, size)
	c := new(conn)
	err := m.store.Put(x.id, c, x.origin())
	m.tried(err)
	if err == nil && old != nil {
		m.ends(old, ReasonReplaced, time.Now())
	}
	m.made(r, err)
	if err != nil {
		return
	}
	if ev, _ := m.store.Explain(m.store.Fingerprint(x.id)); old != nil {
		old.ended = ev.Reason // to make room for its successor it may have been evicted
	}
	confirmed := old != nil && old.confirmed && old.ended == ReasonReplaced
	m.insert(x, c)
	m.guests[len(m.guests)-1].confirmed = confirmed
}

func (m *model) resize(x step) {
	g := m.someBusy(x)
	if g == nil {
		return
	}
	closed := g.closed
	r := m.room(g.source, 0, x.size-g.size)
	err := g.leases[g.lease(x)].SetSize(x.size)
	m.tried(err)
	if closed {
		m.wantErr(err, nil)
		return
	}
	if m.made(r, err); err == nil {
		g.size = x.size
	}
}

// moveEnd tells when a session ends of its own: at once, if that has passed.
func (m *model) moveEnd(x step) {
	g := m.someBusy(x)
	if g == nil {
		return
	}
	can := g.bornWithEnd && g.ended == 0
	if did := g.leases[g.lease(x)].SetExpires(x.ends()); did != can {
		m.failf("session %s: its end was moved: %v", g.id, did)
	}
	if !can {
		return
	}
	if g.end = x.ends(); x.end < 0 {
		m.ends(g, ReasonLifetime, time.Now())
	}
}

// rename gives a session another ID, perhaps by a lease that was taken under an
// earlier one. It needs no place, and x's size and what it holds do not matter.
func (m *model) rename(x step) {
	g := m.someBusy(x)
	if g == nil {
		return
	}
	err := g.leases[g.lease(x)].Rename(x.id, x.origin())
	m.tried(err)
	switch {
	case x.invalid():
		m.wantErr(err, ErrInvalid)
	case g.ended != 0:
		var nf *NotFoundError
		if !errors.As(err, &nf) || nf.Reason != g.ended {
			m.failf("session %s (%v) is renamed: %v", g.id, g.ended, err)
		}
		if left := m.missing(); len(left) > 0 {
			m.failf("%d left in vain", len(left))
		}
	case m.live(x.id) != nil:
		m.wantErr(err, ErrExists)
	default:
		if err == nil {
			g.ended = ReasonRenamed // so it is not missing
		}
		if x.source == g.source || m.madeInQuota(x, err) {
			m.wantErr(err, nil)
			m.inherit(g, x)
		}
	}
}

// inherit has g live on under another ID. The lifetime's random part is that of
// the ID, so it may end at once.
func (m *model) inherit(g *guest, x step) {
	e := m.store.index.find(x.id)
	if e == nil || e.value != g.conn {
		m.failf("session %s was not stored as %s", g.id, x.id)
	}
	heir := *g
	heir.id, heir.source, heir.jitter, heir.inherited, heir.ended = x.id, x.source, e.jitter(), len(g.leases), 0
	heir.bornWithEnd = true // it can be given one from now on
	if x.end != 0 {
		heir.end = x.ends()
	}
	g.leases = nil
	m.ends(g, ReasonRenamed, time.Now())
	g.closed = false
	m.guests = append(m.guests, &heir)
	m.touched(&heir)
	m.expire()
}

func (m *model) insert(x step, c *conn, leases ...*Lease[*conn]) {
	e := m.store.index.find(x.id)
	if e == nil || e.value != c {
		m.failf("session %s was not stored", x.id)
	}
	g := &guest{id: x.id, conn: c, leases: leases, created: m.store.clock.start.Add(e.created()), jitter: e.jitter(), holds: x.yes, source: x.source, size: x.size,
		bornWithEnd: x.end != 0, end: x.ends()}
	if late := time.Until(g.created); late < 0 || late >= time.Millisecond {
		m.failf("session %s: the lifetime starts %v late", g.id, late)
	}
	m.guests = append(m.guests, g)
	m.touched(g)
}

// touched notes that the idle clock of g has started. The store's may run ahead
// by one resolution, and never lags behind.
func (m *model) touched(g *guest) {
	s := m.store
	before := g.used
	g.used = s.clock.start.Add(s.index.find(g.id).load().used().duration())
	if ahead := time.Until(g.used); g.used.Equal(before) && ahead >= 0 {
		return // the resolution may have been coarser then
	} else if ahead < 0 || ahead > s.config.Load().resolution {
		m.failf("session %s: the idle clock starts %v ahead", g.id, ahead)
	}
}

func (m *model) acquire(x step) {
	g := m.live(x.id)
	limited := g != nil && (m.leases > 0 && g.taken() >= m.leases || !g.busy() && !m.mayUse(g.source))
	l, err := m.store.Acquire(x.id)
	m.tried(err)
	if limited {
		m.wantErr(err, ErrLeaseLimit)
	} else if m.visited(g, err) {
		g.leases = append(g.leases, &l)
	}
}

// about is for times that are told rounded down, and kept rounded up.
func about(told, kept time.Time) bool {
	d := kept.Sub(told)
	return d >= 0 && d < time.Millisecond
}

// someBusy picks one who is in use, perhaps retired or killed; nil: nobody is.
func (m *model) someBusy(x step) *guest {
	busy := slices.DeleteFunc(slices.Clone(m.guests), func(g *guest) bool { return !g.busy() })
	if len(busy) == 0 {
		return nil
	}
	return busy[x.n%len(busy)]
}

func (m *model) release(x step) {
	g := m.someBusy(x)
	if g == nil {
		return
	}
	exceeded := m.excessPlaces() || m.excessBytes()
	i, taken := g.lease(x), g.taken()
	l := g.leases[i]
	if g.leases = slices.Delete(g.leases, i, i+1); i < g.inherited {
		g.inherited--
	}
	l.Release()
	l.Release()
	if g.ended == 0 && m.store.index.find(g.id) != nil && g.taken() < taken { // else it is in use under the earlier ID as before
		m.touched(g)
	}
	if g.busy() {
		return
	}
	if g.ended == 0 && exceeded {
		m.ends(g, ReasonCapacity, time.Now())
	}
	g.closed = g.ended != 0
}

func (m *model) touch(x step) {
	g := m.live(x.id)
	err := m.store.Touch(x.id)
	if x.yes {
		_, err = m.store.Get(x.id)
	}
	if m.visited(g, err) {
		m.touched(g)
	}
}

func (m *model) confirm(x step) {
	g := m.live(x.id)
	if !x.yes {
		if m.visited(g, m.store.Confirm(x.id)) {
			g.confirmed = true
		}
	} else if g := m.someBusy(x); g != nil {
		g.leases[g.lease(x)].Confirm()
		g.confirmed = g.confirmed || g.ended == 0
	}
}

func (m *model) hold(x step) {
	g := m.live(x.id)
	if !x.yes {
		if m.visited(g, m.store.Hold(x.id)) {
			g.holds = true
		}
	} else if g := m.someBusy(x); g != nil {
		g.leases[g.lease(x)].Hold()
		g.holds = g.holds || !g.closed // a retired one is remembered so
	}
}

// kill kills all that have the ID, the live one first.
func (m *model) kill(x step) {
	for range m.guests {
		all := slices.DeleteFunc(m.places(), func(g *guest) bool { return g.id != x.id })
		if found := m.store.Kill(m.store.Fingerprint(x.id)); found != (len(all) > 0) {
			m.failf("Kill says %v, there are %d", found, len(all))
		}
		if len(all) == 0 {
			return
		}
		g := m.live(x.id)
		if g == nil { // one of several retired ones
			synctest.Wait()
			for _, g = range all {
				if g.conn.closed.Load() > 0 {
					break
				}
			}
		}
		if g.ended == 0 {
			m.ends(g, ReasonKilled, time.Now())
		}
		g.closed = true
	}
}

// trimmed notes who left because a maximum was lowered: no more than need be,
// and as many as can.
func (m *model) trimmed() {
	var last *guest
	for _, last = range m.left() {
		continue
	}
	idle := func(g *guest) bool { return g.ended == 0 && !g.busy() }
	if m.max > 0 && len(m.places()) > m.max && slices.ContainsFunc(m.guests, idle) {
		m.failf("%d places are taken, also by idle ones, the maximum is %d", len(m.places()), m.max)
	}
	sized := func(g *guest) bool { return idle(g) && g.size > 0 }
	if m.bytes > 0 && m.takenBytes() > m.bytes && slices.ContainsFunc(m.guests, sized) {
		m.failf("%d bytes are taken, also by idle ones, the maximum is %d", m.takenBytes(), m.bytes)
	}
	if last != nil && (m.max == 0 || len(m.places()) < m.max) && (m.bytes == 0 || last.size == 0 && m.takenBytes() <= m.bytes) {
		m.failf("more have left than need be")
	}
}

func (m *model) setWhenFull(x step) {
	err := m.store.Reconfigure(WithWhenFull(x.whenFull))
	if x.whenFull == KeepConfirmed && m.idle == 0 && m.lifetime == 0 {
		m.wantErr(err, ErrOptions)
		return
	}
	m.wantErr(err, nil)
	m.whenFull = x.whenFull
}

func (m *model) setTimeouts(x step) {
	err := m.store.Reconfigure(x.timeouts.options()...)
	if m.whenFull == KeepConfirmed && x.timeouts.idle == 0 && x.timeouts.lifetime == 0 {
		m.wantErr(err, ErrOptions)
		return
	}
	m.wantErr(err, nil)
	m.timeouts = x.timeouts
	m.takenBack()
	m.expire()
}

// takenBack notes that idle clocks which ran ahead do so no more.
func (m *model) takenBack() {
	now := m.store.clock.now()
	for _, g := range m.guests {
		if g.ended != 0 {
			continue
		}
		used := m.store.index.find(g.id).load().used()
		at := m.store.clock.start.Add(used.duration())
		if !at.Equal(g.used) && (used != stampOf(now) || !g.used.After(at)) {
			m.failf("session %s: its idle clock was set from %v to %v", g.id, g.used, at)
		}
		g.used = at
	}
}

// check compares everything that can be seen.
func (m *model) check() {
	synctest.Wait()
	if live := m.store.Len(); time.Since(m.store.clock.start)%Tick == 0 && live != m.stats().Live {
		m.failf("the janitor left %d live, want %d", live, m.stats().Live)
	}
	for n := range modelIDs { // between ticks, it takes a lookup to end a session
		m.checkID(fmt.Sprint("id", n))
	}
	m.checkAll()
	synctest.Wait()
	for _, g := range m.guests {
		if n := int(g.conn.closed.Load()); g.ended != ReasonRenamed && (n > 1 || (n == 1) != g.closed) {
			m.failf("session %s (%v): closed %d times, want %v", g.id, g.ended, n, g.closed)
		}
		for _, l := range g.leases {
			m.checkLease(g, l)
		}
	}
	if err := m.store.Check(); err != nil {
		m.failf("%v", err)
	}
	m.checkSources()
	m.checkRetired()
	got, want := m.store.Stats(), m.stats()
	want.Peak = got.Peak
	if got != want {
		m.failf("\n got %+v\nwant %+v", got, want)
	}
}

func (m *model) checkLease(g *guest, l *Lease[*conn]) {
	f := m.store.Fingerprint(g.id)
	if l.Session() != g.conn || l.Fingerprint() != f || l.Source() != g.source || l.Size() != g.size {
		m.failf("session %s (%v): a lease is lost, or of %s of %s, %d bytes", g.id, g.ended, l.Fingerprint(), l.Source(), l.Size())
	}
	if l.Shared() != (len(g.leases) > 1) {
		m.failf("session %s (%v): of %d leases one says that it is shared: %v", g.id, g.ended, len(g.leases), l.Shared())
	}
	if g.ctx == nil {
		g.ctx = l.Context()
	}
	var want error
	if g.closed {
		want = &EndedError{f, g.ended}
	}
	if got := context.Cause(g.ctx); l.Context() != g.ctx || !reflect.DeepEqual(got, want) {
		m.failf("session %s (%v): its context ended for %v, want %v", g.id, g.ended, got, want)
	}
}

func (m *model) checkSources() {
	taken := make(map[string]SourceInfo)
	for _, g := range m.places() {
		in := taken[g.source]
		taken[g.source] = SourceInfo{g.source, in.Sessions + 1, in.Bytes + g.size}
	}
	told := m.store.Sources(len(taken) + 1)
	heavier := func(a, b SourceInfo) int { return b.Sessions - a.Sessions }
	if len(told) != len(taken) || !slices.IsSortedFunc(told, heavier) {
		m.failf("sources are told as %+v, are %+v", told, taken)
	}
	for _, in := range told {
		if in != taken[in.Name] {
			m.failf("a source is told as %+v, is %+v", in, taken[in.Name])
		}
	}
}

func (m *model) checkRetired() {
	want := make(map[string]bool)
	for _, g := range m.guests {
		want[g.id] = want[g.id] || g.busy() && g.ended != 0 && g.ended != ReasonRenamed && !g.closed
	}
	for id, want := range want {
		if got := m.store.Retired(id, nil); got != want {
			m.failf("a session %s has ended and is in use: %v, want %v", id, got, want)
		}
	}
}

// stats counts what the model has.
func (m *model) stats() (st Stats) {
	for _, g := range m.guests {
		st.Created++
		if g.confirmed {
			st.EverConfirmed++
		}
		if g.closed {
			st.Closed++
		}
		switch {
		case g.ended != 0:
			st.Ended[g.ended]++
			continue
		case g.confirmed:
			st.Confirmed++
		case g.holds:
			st.Holding++
			fallthrough
		default:
			st.Unconfirmed++
		}
		st.Live++
	}
	st.Retired = len(m.places()) - st.Live
	st.Bytes = m.takenBytes()
	st.Refused, st.LeasesRefused = m.refused, m.leasesRefused
	sources := make(map[string]bool)
	for _, g := range m.places() {
		sources[g.source] = true
	}
	st.Sources = len(sources)
	return st
}

// last returns who ended last of those who had the ID.
func (m *model) last(id string) (last *guest) {
	for _, g := range m.guests {
		if g.id == id && g.ended != 0 {
			last = g
		}
	}
	return last
}

func (m *model) checkID(id string) {
	c, err := m.store.Peek(id)
	if g := m.live(id); g != nil {
		if err != nil || c != g.conn {
			m.failf("session %s: got %v, want it", id, err)
		}
		return
	}
	var nf *NotFoundError
	if !errors.As(err, &nf) {
		m.failf("session %s: got %v, want ErrNotFound", id, err)
	}
	g := m.last(id)
	ev, known := m.store.Explain(nf.Fingerprint())
	if known != (g != nil) || ev.Reason != nf.Reason || nf.Held != (g != nil && g.holds) {
		m.failf("session %s: explained by %+v, but %v", id, ev, nf)
	}
	if g == nil {
		return
	}
	if late := ev.At.Sub(g.endedAt); g.ended != ev.Reason || late < 0 || late >= Tick ||
		!about(ev.Created, g.created) || ev.Confirmed != g.confirmed || ev.Holds != g.holds {
		m.failf("session %s: explained by %+v, want %+v", id, ev, *g)
	}
}

func (m *model) checkAll() {
	n := 0
	for in, c := range m.store.All() {
		n++
		g := m.guests[slices.IndexFunc(m.guests, func(g *guest) bool { return g.conn == c && g.ended != ReasonRenamed })]
		at, _, ok := m.deadline(g)
		if !ok {
			at = time.Time{}
		}
		if g.ended != 0 || in.Leases != g.taken() || in.Confirmed != g.confirmed || in.Holds != g.holds || in.Fingerprint != m.store.Fingerprint(g.id) || in.Source != g.source ||
			!about(in.Created, g.created) || in.LastUsed.Sub(g.used) > 0 || !in.Expires.Equal(at) {
			m.failf("session %s: All tells %+v, want %+v", g.id, in, *g)
		}
	}
	if live := m.store.Len(); n != live {
		m.failf("All yields %d of %d", n, live)
	}
}

// end ends everything, and checks the story of every session.
func (m *model) end() {
	m.leave()
	stories := make(map[Fingerprint]EventKind)
	var created uint64
	var told Ends
	for _, e := range m.events.all() {
		before := stories[e.Fingerprint]
		if e.Kind == EventCreated && before != 0 && before != EventEnded || e.Kind == EventConfirmed && before != EventCreated ||
			e.Kind == EventEnded && before != EventCreated && before != EventConfirmed {
			m.failf("%v after %v", e, before)
		}
		stories[e.Fingerprint] = e.Kind
		switch e.Kind {
		case EventCreated:
			created++
		case EventEnded:
			told[e.Reason]++
		case EventConfirmed:
		}
	}
	st, n := m.store.Stats(), uint64(len(m.guests))
	if told != st.Ended || created != st.Created {
		m.failf("%d are told to be created, to have ended %v: %+v", created, told, st)
	}
	for _, g := range m.guests {
		if n := g.conn.closed.Load(); n != 1 {
			m.failf("session %s: closed %d times", g.id, n)
		}
	}
	if st.Created != n || st.Ended.Total() != n || st.Closed != n-st.Ended[ReasonRenamed] || st.Live+st.Retired+st.Closing != 0 {
		m.failf("after the end: %+v", st)
	}
}
