// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
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
	created, used    time.Time
	jitter           uint8
	confirmed, holds bool
	ended            Reason
	endedAt          time.Time
	closed           bool
}

func (g *guest) busy() bool { return len(g.leases) > 0 }

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
	case "pass":
		return fmt.Sprint(x.do, " ", x.n)
	}
	return fmt.Sprint(x.do, " ", x.id, " ", x.n, " ", x.yes)
}

type timeouts struct{ idle, lifetime, empty, holding time.Duration }

func (x timeouts) options() []Option {
	return []Option{WithIdleTimeout(x.idle), WithLifetime(x.lifetime), WithUnconfirmedTimeouts(x.empty, x.holding)}
}

var (
	someID = rapid.Custom(func(t *rapid.T) string {
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
				"add", "add", "put", "put", "acquire", "release", "release", "touch", "confirm", "confirm", "hold", "remove", "kill",
				"pass", "pass to a deadline", "set max", "set whenFull", "set timeouts",
			}).Draw(t, "do"),
			id:       someID.Draw(t, "id"),
			n:        rapid.OneOf(rapid.IntRange(0, 10), rapid.IntRange(0, 10_000)).Draw(t, "n"),
			yes:      rapid.Bool().Draw(t, "yes"),
			max:      someMax.Draw(t, "max"),
			whenFull: someWhenFull.Draw(t, "whenFull"),
			timeouts: someTimeouts.Draw(t, "timeouts"),
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

	timeouts
	max      int
	whenFull WhenFull
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
	s, err := New[*conn](append(m.options(), WithMaxSessions(m.max), WithWhenFull(m.whenFull),
		WithObserver(m.events.observe), WithLogger(nil))...)
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

// victims are those of whom one may make room.
func (m *model) victims() []*guest {
	var idle [3][]*guest
	var all []*guest
	unconfirmed := 0
	for _, g := range m.guests {
		if g.ended != 0 {
			continue
		}
		class := 0
		if g.holds {
			class = 1
		}
		if g.confirmed {
			class = 2
		} else {
			unconfirmed++
		}
		if !g.busy() {
			idle[class] = append(idle[class], g)
			all = append(all, g)
		}
	}
	order := []int{0, 1, 2}
	switch {
	case m.whenFull == EvictLRU:
		return all
	case m.whenFull == KeepConfirmed:
		order = order[:2]
	case unconfirmed < max(8, m.max/64):
		order = []int{2, 0, 1}
	}
	for _, class := range order {
		if len(idle[class]) > 0 {
			return idle[class]
		}
	}
	return nil
}

// room says whether one more has room, and of whom one must leave for it.
func (m *model) room() (victims []*guest, ok bool) {
	switch n := len(m.places()); {
	case m.max == 0 || n < m.max:
		return nil, true
	case n == m.max:
		victims = m.victims()
		return victims, len(victims) > 0
	}
	return nil, false
}

// evicted finds out who of victims left, and notes it.
func (m *model) evicted(victims []*guest) {
	if len(victims) == 0 {
		return
	}
	left := 0
	for _, g := range victims {
		if e := m.store.index.get(g.id); e == nil || e.value != g.conn {
			m.ends(g, ReasonCapacity, time.Now())
			left++
		}
	}
	if left != 1 {
		m.failf("%d of %d possible victims left, want one", left, len(victims))
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

func (m *model) add(x step) {
	c, old := new(conn), m.live(x.id)
	victims, ok := m.room()
	l, err := m.store.Add(x.id, c, Origin{Holds: x.yes})
	switch {
	case old != nil:
		m.wantErr(err, ErrExists)
	case !ok:
		m.wantErr(err, ErrFull)
	default:
		m.wantErr(err, nil)
		m.evicted(victims)
		m.insert(x, c, &l)
	}
}

func (m *model) put(x step) {
	old := m.live(x.id)
	if old != nil && x.n%2 == 0 {
		m.wantErr(m.store.Put(x.id, old.conn, Origin{}), nil)
		old.used = time.Now()
		return
	}
	victims, ok := m.room()
	if idle := old != nil && !old.busy(); idle && (m.max == 0 || len(m.places()) <= m.max) {
		victims, ok = nil, true // the new one takes the place of the old one
	}
	c := new(conn)
	err := m.store.Put(x.id, c, Origin{Holds: x.yes})
	if !ok {
		m.wantErr(err, ErrFull)
		return
	}
	m.wantErr(err, nil)
	if old != nil {
		m.ends(old, ReasonReplaced, time.Now())
	}
	m.evicted(victims)
	m.insert(x, c)
}

func (m *model) insert(x step, c *conn, leases ...*Lease[*conn]) {
	e := m.store.index.get(x.id)
	if e == nil || e.value != c {
		m.failf("session %s was not stored", x.id)
	}
	jitter := uint8(x.n)
	m.store.setJitter(e, jitter)
	m.guests = append(m.guests, &guest{id: x.id, conn: c, leases: leases,
		created: time.Now(), used: time.Now(), jitter: jitter, holds: x.yes})
}

// setJitter makes what is random repeatable.
func (s *Store[S]) setJitter(e *entry[S], jitter uint8) {
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	e.jitter = jitter
	s.ledger.wheel.File(&e.timer, e, e.lookAt(s.config.Load(), e.load(), s.now()))
	s.arm()
}

func (m *model) acquire(x step) {
	g := m.live(x.id)
	l, err := m.store.Acquire(x.id)
	if m.visited(g, err) {
		g.leases = append(g.leases, &l)
	}
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
	places := len(m.places())
	l := g.leases[0]
	g.leases = g.leases[1:]
	l.Release()
	l.Release()
	if g.ended == 0 {
		g.used = time.Now()
	}
	if g.busy() {
		return
	}
	if g.ended == 0 && m.max > 0 && places > m.max {
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
		g.used = time.Now()
	}
}

func (m *model) confirm(x step) {
	g := m.live(x.id)
	if !x.yes {
		if m.visited(g, m.store.Confirm(x.id)) {
			g.confirmed = true
		}
	} else if g := m.someBusy(x); g != nil {
		g.leases[0].Confirm()
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
		g.leases[0].Hold()
		g.holds = g.holds || g.ended == 0
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

// trimmed notes who left because the maximum was lowered.
func (m *model) trimmed() {
	idle := 0
	for _, g := range m.guests {
		if g.ended == 0 && !g.busy() {
			idle++
		}
	}
	want := 0
	if m.max > 0 {
		want = min(idle, max(0, len(m.places())-m.max))
	}
	left := 0
	for _, g := range m.guests {
		if g.ended != 0 || m.store.index.get(g.id) != nil {
			continue
		}
		if g.busy() {
			m.failf("session %s left while it was in use", g.id)
		}
		m.ends(g, ReasonCapacity, time.Now())
		left++
	}
	if left != want {
		m.failf("%d left for a lower maximum, want %d", left, want)
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
	m.expire()
}

// check compares everything that can be seen.
func (m *model) check() {
	synctest.Wait()
	if live := m.store.Len(); time.Since(m.store.start)%Tick == 0 && live != m.stats().Live {
		m.failf("the janitor left %d live, want %d", live, m.stats().Live)
	}
	for n := range modelIDs { // between ticks, it takes a lookup to end a session
		m.checkID(fmt.Sprint("id", n))
	}
	m.checkAll()
	synctest.Wait()
	for _, g := range m.guests {
		if n := int(g.conn.closed.Load()); n > 1 || (n == 1) != g.closed {
			m.failf("session %s (%v): closed %d times, want %v", g.id, g.ended, n, g.closed)
		}
		for _, l := range g.leases {
			if ended := l.Context().Err() != nil; l.Session() != g.conn || ended != (g.ended != 0 && g.closed) {
				m.failf("session %s (%v): a lease is lost, or its context not right: %v", g.id, g.ended, ended)
			}
		}
	}
	got, want := m.store.Stats(), m.stats()
	want.Peak, want.Refused = got.Peak, got.Refused
	if got != want {
		m.failf("\n got %+v\nwant %+v", got, want)
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
	ev, known := m.store.Explain(nf.Fingerprint)
	if known != (g != nil) || ev.Reason != nf.Reason {
		m.failf("session %s: explained by %+v, but %v", id, ev, nf)
	}
	if g == nil {
		return
	}
	if late := ev.At.Sub(g.endedAt); g.ended != ev.Reason || late < 0 || late >= Tick ||
		!ev.Created.Equal(g.created) || ev.Confirmed != g.confirmed || ev.Holds != g.holds {
		m.failf("session %s: explained by %+v, want %+v", id, ev, *g)
	}
}

func (m *model) checkAll() {
	n := 0
	for in, c := range m.store.All() {
		n++
		g := m.guests[slices.IndexFunc(m.guests, func(g *guest) bool { return g.conn == c })]
		at, _, ok := m.deadline(g)
		if !ok {
			at = time.Time{}
		}
		if g.ended != 0 || in.Leases != len(g.leases) || in.Confirmed != g.confirmed || in.Holds != g.holds || in.Fingerprint != m.store.Fingerprint(g.id) ||
			!in.Created.Equal(g.created) || !in.LastUsed.Equal(g.used) || !in.Expires.Equal(at) {
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
	for _, e := range m.events.all() {
		before := stories[e.Fingerprint]
		if e.Kind == EventCreated && before != 0 && before != EventEnded || e.Kind == EventConfirmed && before != EventCreated ||
			e.Kind == EventEnded && before != EventCreated && before != EventConfirmed {
			m.failf("%v after %v", e, before)
		}
		stories[e.Fingerprint] = e.Kind
	}
	for _, g := range m.guests {
		if n := g.conn.closed.Load(); n != 1 {
			m.failf("session %s: closed %d times", g.id, n)
		}
	}
	if st, n := m.store.Stats(), uint64(len(m.guests)); st.Created != n || st.Ended.Total() != n || st.Closed != n || st.Live+st.Retired+st.Closing != 0 {
		m.failf("after the end: %+v", st)
	}
}
