// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"strconv"
	"time"
)

// flood is one source that makes a great many sessions, while honest clients go
// on with theirs. In a round every honest session is used once, evenly spread;
// so is the flood. Some honest newcomers, each from a source of its own, come in
// the middle of it and come back a tenth of a round later.
//
//   - survived: share of the honest sessions that were there in all rounds
//   - newcomers: share of the honest newcomers that were there when they came
//     back, so that they could be confirmed
//   - lost: share of the flood's puts that were accepted but not found right
//     after, in percent; only where the flood comes back
//   - refused: share of the flood's puts that were refused, in percent
//   - us: microseconds that a newcomer of the flood took, with all that the round
//     did beside it: shows a peer whose work grows with the flood
//   - peak: most entries seen, in percent of the maximum
//   - never closed, closed again: values, once everything was removed
//
// All of it is done by one goroutine, so that only the policy of the peer
// matters.
type flood struct {
	name   string
	echoes bool // every newcomer comes back at once, and is confirmed
	holds  bool // and holds something
	keeps  bool // newcomers keep their leases to the end of the round
}

var floods = []flood{
	{name: "silent"},
	{name: "echoing", echoes: true},
	{name: "holding", echoes: true, holds: true},
	{name: "slow-reading", keeps: true},
}

// needsLeases tells whether the flood is one that only layover can suffer.
func (f flood) needsLeases() bool { return f.holds || f.keeps }

func (f flood) run(s *subject, j job) (metrics, error) {
	z := j.Sizes
	p, err := s.open(z.Capacity, hour)
	if err != nil {
		return nil, err
	}
	g := &siege{flood: f, peer: p, sizes: z, books: newBooks(),
		honest: uuids(z.Honest), senders: sources(z.Honest, z.PerSource), gone: make([]bool, z.Honest)}
	g.settleDown()
	began := time.Now()
	for round := range z.Rounds {
		g.round(round)
	}
	g.took = time.Since(began)
	for i := range g.honest {
		g.touch(i)
	}
	return g.finish()
}

// siege is a flood under way.
type siege struct {
	flood
	peer
	sizes   sizes
	books   *books
	honest  []string
	senders []string
	gone    []bool // honest sessions that were missed once
	fresh   []string

	created, refused, lost, found int64
	peak                          int
	took                          time.Duration
	leases                        []interface{ Release() }
}

// settleDown brings the honest sessions in.
func (g *siege) settleDown() {
	for i, k := range g.honest {
		g.add(k, g.senders[i], false, false)
		g.settle()
		g.use(k)
	}
	rand.New(rand.NewPCG(5, 6)).Shuffle(len(g.honest), func(a, b int) {
		g.honest[a], g.honest[b] = g.honest[b], g.honest[a]
	})
}

// add brings in a session with its first call, and reports whether it was
// accepted.
func (g *siege) add(key, source string, holds, keeps bool) bool {
	v := g.books.value()
	g.created++
	var ok bool
	if p, isLayover := g.peer.(layoverPeer); isLayover {
		lease, accepted := p.add(key, source, holds, v)
		ok = accepted
		switch {
		case ok && keeps:
			g.leases = append(g.leases, lease)
		case ok:
			lease.Release()
		}
	} else {
		ok = g.put(key, source, v)
	}
	if !ok {
		_ = v.Close()
	}
	return ok
}

func (g *siege) touch(i int) {
	if !g.use(g.honest[i]) {
		g.gone[i] = true
	}
}

func (g *siege) round(round int) {
	z := g.sizes
	touched := 0
	newcomers := uuids(z.Newcomers)
	g.fresh = append(g.fresh, newcomers...)
	for i := range z.Flood {
		for ; touched*z.Flood <= i*z.Honest && touched < z.Honest; touched++ {
			g.touch(touched)
		}
		if n, due := newcomer(z, i-4*z.Flood/10); due {
			g.add(newcomers[n], "newcomer-"+strconv.Itoa(round*z.Newcomers+n), false, false)
		}
		if n, due := newcomer(z, i-5*z.Flood/10); due && g.use(newcomers[n]) {
			g.found++
		}
		g.attack(round, i)
		if i%1000 == 0 {
			g.peak = max(g.peak, g.size())
		}
	}
	for ; touched < z.Honest; touched++ {
		g.touch(touched)
	}
	for _, l := range g.leases {
		l.Release()
	}
	g.leases = nil
}

// newcomer tells which honest newcomer is due at step i of the tenth of a round
// in which they come.
func newcomer(z sizes, i int) (int, bool) {
	every := max(1, z.Flood/10/z.Newcomers)
	return i / every, i >= 0 && i%every == 0 && i/every < z.Newcomers
}

// attack is what one newcomer of the flood does.
func (g *siege) attack(round, i int) {
	key := floodKey(round, i)
	if !g.add(key, "flood", g.holds, g.keeps) {
		g.refused++
		return
	}
	if !g.echoes {
		return
	}
	if !g.use(key) {
		g.lost++
		return
	}
	if p, ok := g.peer.(layoverPeer); ok && g.holds {
		p.hold(key)
	}
}

// finish removes everything and sums up.
func (g *siege) finish() (metrics, error) {
	survivors := int64(0)
	for _, gone := range g.gone {
		if !gone {
			survivors++
		}
	}
	z := g.sizes
	attacks := int64(z.Flood) * int64(z.Rounds)
	m := metrics{
		"survived":  percent(survivors, int64(z.Honest)),
		"newcomers": percent(g.found, int64(len(g.fresh))),
		"refused":   percent(g.refused, attacks),
		"us":        g.took.Seconds() * 1e6 / float64(attacks),
	}
	if g.echoes {
		m["lost"] = percent(g.lost, attacks-g.refused)
	}
	if p, ok := g.peer.(layoverPeer); ok {
		g.peak = p.peak()
	} else {
		g.removeAll()
	}
	m["peak"] = percent(int64(g.peak), int64(z.Capacity))
	if err := g.close(); err != nil {
		return nil, err
	}
	g.books.verdict(g.created, m)
	return m, nil
}

// removeAll removes by key what may be left, since no peer closes it at the end.
func (g *siege) removeAll() {
	z := g.sizes
	for _, keys := range [][]string{g.honest, g.fresh} {
		for _, k := range keys {
			g.remove(k)
		}
	}
	for round := range z.Rounds {
		for i := range z.Flood {
			g.remove(floodKey(round, i))
		}
	}
	g.settle()
	g.books.wait(g.created, 300*time.Millisecond, 10*time.Second)
}
