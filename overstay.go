// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Leases are not timed one by one, which would cost every call. When the
// janitor comes by a session in use, it turns over the generation bit: the
// leases that exist are old from then on, and each one tells on its release
// that it was one of them. If any of them is left when the maximum age of a
// lease has passed, it is at least so old, and the session is killed. It is
// looked at again once they are released. So a lease ends at the latest at twice
// the maximum age.

// ageLeases begins a generation of leases on a session in use, if the one
// before has ended.
func (s *Store[S]) ageLeases(e *entry[S], now time.Duration) {
	if s.config.Load().longestLease() == never {
		return
	}
	for {
		st := e.load()
		if !st.busy() || st.phase() == gone {
			return
		}
		x := e.extras()
		if x.old > 0 {
			return
		}
		if e.swap(st, st^generationBit) {
			x.old, x.since = st.leases(), now
			return
		}
	}
}

// leaseEnd is when the leases on e must be looked at next.
func (e *entry[S]) leaseEnd(c *config, now time.Duration) time.Duration {
	if x := e.extra.Load(); x != nil && x.old > 0 {
		return later(x.since, c.longestLease())
	}
	return later(now, c.longestLease())
}

// overstayed reports whether a lease on e is older than allowed.
func (s *Store[S]) overstayed(c *config, e *entry[S], st state, now time.Duration) bool {
	x := e.extra.Load()
	return st.busy() && x != nil && x.old > 0 && now >= e.leaseEnd(c, now)
}

// retireLease notes the release of a lease of the generation before.
func (s *Store[S]) retireLease(e *entry[S]) {
	s.lock()
	defer s.unlock()
	x := e.extra.Load()
	if x == nil || x.old == 0 {
		return
	}
	if x.old--; x.old > 0 {
		return
	}
	for h := e.heir(); h != nil; h = h.heir() {
		y := h.extra.Load()
		y.since = max(y.since, x.moved)
	}
}

// inheritAge has the heir count e's leases as one that is as old as the oldest.
func (e *entry[S]) inheritAge(heir *entry[S], now time.Duration) {
	x, y := e.extras(), heir.extras()
	x.moved = now
	if y.old, y.since = min(x.old, 1), x.since; y.old > 0 {
		heir.state.Store(uint64(heir.load() | generationBit))
	}
}

// tellOverstayed reports that e is killed for a lease that was not released.
func (s *Store[S]) tellOverstayed(c *config, e *entry[S]) {
	s.ledger.counts.leasesExpired++
	s.tellLeases(c, e)
}

// tellLeases logs who holds leases on e.
func (s *Store[S]) tellLeases(c *config, e *entry[S]) {
	taken := "unknown, see WithLeaseTraces"
	if x := e.extra.Load(); x != nil && c.leaseTraces {
		taken = x.leaseTraces().tell(s.clock.now())
	}
	s.journal.leak(c.logger, e.id(), taken)
}

// leaseTrace is where and when a lease was taken.
type leaseTrace struct {
	at      time.Duration
	callers [16]uintptr
}

// trace notes where a lease on e is taken.
func (s *Store[S]) trace(e *entry[S]) *leaseTrace {
	t := &leaseTrace{at: s.clock.now()}
	runtime.Callers(3, t.callers[:]) // without Callers, trace and Add or Acquire
	x := e.extras().leaseTraces()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held[t] = struct{}{}
	return t
}

// leaseTraces are those of the leases on a session.
type leaseTraces struct {
	mu   sync.Mutex
	held map[*leaseTrace]struct{}
}

// leaseTraces returns x.traces, made on first use.
func (x *extra[S]) leaseTraces() *leaseTraces {
	if t := x.traces.Load(); t != nil {
		return t
	}
	x.traces.CompareAndSwap(nil, &leaseTraces{held: make(map[*leaseTrace]struct{})})
	return x.traces.Load()
}

func (x *leaseTraces) remove(t *leaseTrace) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.held, t)
}

// tell lists where the leases were taken that are still held.
func (x *leaseTraces) tell(now time.Duration) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var b strings.Builder
	for t := range x.held {
		fmt.Fprintf(&b, "%s ago:\n", (now - t.at).Round(time.Millisecond))
		frames := runtime.CallersFrames(t.callers[:])
		for {
			f, more := frames.Next()
			if f.PC != 0 {
				fmt.Fprintf(&b, "\t%s\n\t\t%s:%d\n", f.Function, f.File, f.Line)
			}
			if !more {
				break
			}
		}
	}
	return b.String()
}
