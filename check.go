// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"fmt"
	"time"
)

// Check looks at every session and compares what the parts of the store have of
// it: index, places, classes, sources, eviction order, wheel and states. It
// returns what does not fit together, which would be a bug in this package. It
// is for tests: nobody gets in or out while it looks.
func (s *Store[S]) Check() error {
	s.reconf.Lock() // in the middle of a change, nothing need fit
	defer s.reconf.Unlock()
	l := &s.ledger
	s.spin()
	defer s.unlock()
	t := tally[S]{store: s, taken: make(map[*source[S]]int), takenBytes: make(map[*source[S]]int64)}
	t.expect(len(l.closing) == 0, "%d ended ones were not handed to the closers", len(l.closing))
	s.settleDeparted()
	for e := range s.index.all() {
		t.entry(e)
	}
	for e := range l.retired {
		t.retired(e)
	}
	t.totals()
	return errors.Join(t.wrong...)
}

// tally counts again what the ledger has counted.
type tally[S Session] struct {
	store       *Store[S]
	live, sized int
	filed       int
	bytes       int64
	classes     [3]int
	taken       map[*source[S]]int
	takenBytes  map[*source[S]]int64
	wrong       []error
}

func (t *tally[S]) expect(ok bool, format string, args ...any) {
	if !ok {
		t.wrong = append(t.wrong, fmt.Errorf("layover: "+format, args...))
	}
}

// entry looks at one that is in the index.
func (t *tally[S]) entry(e *entry[S]) {
	f := t.store.Fingerprint(e.id())
	t.live++
	t.classes[e.counted()]++
	t.expect(t.store.index.find(e.id()) == e, "session %s is in the index but not found there", f)
	t.expect(e.flag(listed) && e.flag(placed), "session %s is in the index but counts as %#x", f, e.node.Spare)
	t.expect(e.node.Linked(), "session %s is in the index but not in the order of eviction", f)
	if e.size() > 0 {
		t.sized++
		t.expect(e.extra.Load().sized.Linked(), "session %s takes bytes but is not in their order of eviction", f)
	}
	t.expect(!e.ident.ownEnd() || e.extra.Load() != nil, "session %s has an end of its own, but it is not noted when", f)
	if st := e.load(); st.phase() == live {
		ends := e.deadline(t.store.config.Load(), st)
		t.expect(ends == never || e.timer.Filed(), "session %s ends, but the janitor will not look", f)
	}
	ahead := e.load().used().duration() - t.store.clock.now()
	t.expect(ahead <= time.Second+time.Millisecond, "session %s was used %v in the future", f, ahead)
	t.placed(e)
}

// retired looks at one that is out of the index, but takes its place.
func (t *tally[S]) retired(e *entry[S]) {
	f := t.store.Fingerprint(e.id())
	t.expect(e.load().phase() != live, "session %s is live and retired", f)
	t.expect(t.store.index.find(e.id()) != e, "session %s is retired and in the index", f)
	t.expect(!e.flag(listed) && e.flag(placed), "session %s is retired but counts as %#x", f, e.node.Spare)
	t.expect(!e.node.Linked(), "session %s is retired but in the order of eviction", f)
	t.placed(e)
}

// placed looks at one that takes a place.
func (t *tally[S]) placed(e *entry[S]) {
	t.bytes += e.size()
	t.taken[e.source]++
	t.takenBytes[e.source] += e.size()
	if e.timer.Filed() {
		t.filed++
	}
	st := e.load()
	t.expect(st&parkedBit == 0 || st.busy(), "session %s is parked but idle", t.store.Fingerprint(e.id()))
}

// totals compares the sums.
func (t *tally[S]) totals() {
	l, c := &t.store.ledger, t.store.config.Load()
	retired := len(l.retired)
	t.expect(l.live == t.live, "%d live ones counted, %d in the index", l.live, t.live)
	t.expect(l.places == t.live+retired, "%d places taken, by %d live and %d retired ones", l.places, t.live, retired)
	t.expect(l.bytes == t.bytes, "%d bytes counted, %d taken", l.bytes, t.bytes)
	t.expect(l.classes == t.classes, "classes are counted as %v, are %v", l.classes, t.classes)
	t.expect(l.over.Load() == l.exceeds(c), "over is %v with %d places and %d bytes", l.over.Load(), l.places, l.bytes)
	t.expect(l.policy.Len() == t.live, "%d are in the order of eviction, %d live", l.policy.Len(), t.live)
	t.expect(l.sized.Len() == t.sized, "%d are in the order of eviction for bytes, %d take any", l.sized.Len(), t.sized)
	t.expect(l.wheel.Len() == t.filed, "%d are on the wheel, %d have a place and a timer", l.wheel.Len(), t.filed)
	for f, n := range t.taken {
		t.expect(f.taken() == n, "a source counts %d places, takes %d", f.taken(), n)
		t.expect(f.size() == t.takenBytes[f], "a source counts %d bytes, takes %d", f.size(), t.takenBytes[f])
		t.expect(l.sources.find(f.name) == f, "a source with %d sessions is forgotten", n)
	}
	t.expect(l.sources.count() == len(t.taken), "%d sources are kept, %d have sessions", l.sources.count(), len(t.taken))
	for _, p := range []any{l.policy, l.sized} {
		if p, ok := p.(interface{ Check() error }); ok {
			if err := p.Check(); err != nil {
				t.wrong = append(t.wrong, err)
			}
		}
	}
	t.index()
}

// index compares the parts of the index with what is in them.
func (t *tally[S]) index() {
	for i := range t.store.index.parts {
		p := &t.store.index.parts[i]
		live := 0
		for range p.entries() {
			live++
		}
		t.expect(live == p.live, "part %d of the index counts %d, has %d", i, p.live, live)
	}
}
