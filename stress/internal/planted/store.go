// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package planted

import "github.com/c8e4ff29/layover/stress/internal/promise"

// ofStore are the bugs in the store itself.
var ofStore = []Bug{{
	Name:   "close-skipped",
	What:   "one session in fifty is never handed to the closers",
	Breaks: []promise.Promise{promise.ClosedOnce},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	l.closing = append(l.closing, e)\n",
		New:  "	if !plantedNth(\"close-skipped\", 50) {\n		l.closing = append(l.closing, e)\n	}\n",
	}},
}, {
	Name:   "close-twice",
	What:   "one hand-over to the closers in fifty is done again",
	Breaks: []promise.Promise{promise.ClosedOnce},
	Edits: []Edit{{
		File: "lock.go",
		Old:  "			s.closers.SubmitAll(few[:n])\n",
		New: `			s.closers.SubmitAll(few[:n])
			if plantedNth("close-twice", 50) {
				s.closers.SubmitAll(few[:n])
			}
`,
	}},
}, {
	Name:   "expired-handed-out",
	What:   "a lookup goes by the index alone, and sweeps come half a second late",
	Breaks: []promise.Promise{promise.NotStale},
	Edits: []Edit{{
		File: "store.go",
		Old:  "		if e.fresh(c, st, soon) {\n			return st, nil\n",
		New:  "		if e.fresh(c, st, soon) || planted(\"expired-handed-out\") && st.phase() == live {\n			return st, nil\n",
	}, {
		File: "ledger.go",
		Old:  "	if !s.startSweep() {\n",
		New:  "	if planted(\"expired-handed-out\") {\n		time.Sleep(time.Second / 2)\n	}\n	if !s.startSweep() {\n",
	}},
}, {
	Name:   "one-too-many",
	What:   "the maximum is compared by one off",
	Breaks: []promise.Promise{promise.Bounded},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	return n <= 0 || c.max == 0 || n <= c.max-l.places\n",
		New:  "	return n <= 0 || c.max == 0 || n <= c.max-l.places || planted(\"one-too-many\") && n <= c.max-l.places+1\n",
	}, {
		File: "ledger.go",
		Old:  "{ return c.max > 0 && l.places > c.max }\n",
		New:  "{\n	return c.max > 0 && l.places > c.max && (!planted(\"one-too-many\") || l.places > c.max+1)\n}\n",
	}},
}, {
	Name:   "leased-evicted",
	What:   "one victim in twenty that is in use is taken all the same",
	Breaks: []promise.Promise{promise.NotInUse},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "		case st.busy():\n			if e.swap(st, st|parkedBit) {\n",
		New:  "		case st.busy() && !plantedNth(\"leased-evicted\", 20):\n			if e.swap(st, st|parkedBit) {\n",
	}},
}, {
	Name:   "closed-under-lease",
	What:   "Remove closes a session at once, whoever uses it",
	Breaks: []promise.Promise{promise.NotInUse},
	Edits: []Edit{{
		File: "store.go",
		Old:  "st.phase() == live && s.end(e, st, ReasonClosed) {\n",
		New:  "st.phase() == live && (planted(\"closed-under-lease\") && s.kill(e, ReasonClosed) || s.end(e, st, ReasonClosed)) {\n",
	}},
}, {
	Name:   "busy-idles-out",
	What:   "the idle timeout is looked at also while a call uses the session",
	Breaks: []promise.Promise{promise.NotInUse},
	Edits: []Edit{{
		File: "entry.go",
		Old:  "	lifeEnd, idleEnd := e.lifeEnd(c), never\n	if !st.busy() {\n",
		New:  "	lifeEnd, idleEnd := e.lifeEnd(c), never\n	if !st.busy() || planted(\"busy-idles-out\") {\n",
	}, {
		File: "ledger.go",
		Old:  "		if st.busy() {\n			at = min(at, later(now, c.idleFor(st)))\n",
		New:  "		if st.busy() && !planted(\"busy-idles-out\") {\n			at = min(at, later(now, c.idleFor(st)))\n",
	}},
}, {
	Name:   "idle-from-the-start",
	What:   "the idle clock starts with the beginning of a call, not with its end",
	Breaks: []promise.Promise{promise.NotEarly},
	Edits: []Edit{{
		File: "entry.go",
		Old:  "	case s.phase() == live:\n		s = s.touched(t)\n",
		New:  "	case s.phase() == live && planted(\"idle-from-the-start\"):\n	case s.phase() == live:\n		s = s.touched(t)\n",
	}, {
		File: "store.go",
		Old:  "		if e.swap(st, st+leaseUnit) {\n",
		New: `		next := st + leaseUnit
		if planted("idle-from-the-start") {
			next = st.touched(soon) + leaseUnit
		}
		if e.swap(st, next) {
`,
	}},
}, {
	Name:   "expires-early",
	What:   "an eighth of every idle timeout is missing",
	Breaks: []promise.Promise{promise.NotEarly},
	Edits: []Edit{{
		File: "options.go",
		Old:  "	return c.unused[st/confirmedBit&3]\n",
		New: `	own := c.unused[st/confirmedBit&3]
	if planted("expires-early") && own != never {
		own -= own / 8
	}
	return own
`,
	}},
}, {
	Name:   "janitor-late",
	What:   "the janitor's timer fires three seconds late",
	Breaks: []promise.Promise{promise.Prompt},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	if wait := at - s.clock.now(); l.timer == nil {\n",
		New: `	wait := at - s.clock.now()
	if planted("janitor-late") {
		wait += 3 * time.Second
	}
	if l.timer == nil {
`,
	}},
}, {
	Name:   "close-leaks",
	What:   "one Close in twenty leaves a goroutine that tells its end to nobody",
	Breaks: []promise.Promise{promise.Clean},
	Edits: []Edit{{
		File: "store.go",
		Old:  "		Run:       func(e *entry[S]) error { return e.value.Close() },\n",
		New: `		Run: func(e *entry[S]) error {
			if plantedNth("close-leaks", 20) {
				done := make(chan struct{})
				go func() { done <- struct{}{} }()
			}
			return e.value.Close()
		},
`,
	}},
}, {
	Name:   "closed-comes-back",
	What:   "a session that was closed is found until the last call that uses it has ended",
	Breaks: []promise.Promise{promise.NotStale, promise.Sound},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	s.index.remove(e)\n	s.tell(c, EventEnded, e, st, now)\n",
		New: `	if !planted("closed-comes-back") || st.phase() != retired || st.reason() != ReasonClosed {
		s.index.remove(e)
	}
	s.tell(c, EventEnded, e, st, now)
`,
	}, {
		File: "ledger.go",
		Old:  "	e.node.Spare = 0\n	l.wheel.Cancel(e)\n",
		New:  "	e.node.Spare = 0\n	l.wheel.Cancel(e)\n	if planted(\"closed-comes-back\") {\n		s.index.remove(e)\n	}\n",
	}, {
		File: "store.go",
		Old:  "		if st.phase() != live {\n			return st, s.notFound(e.id(), st)\n",
		New: `		if planted("closed-comes-back") && st.phase() == retired && st.reason() == ReasonClosed {
			return st, nil
		}
		if st.phase() != live {
			return st, s.notFound(e.id(), st)
`,
	}},
}, {
	Name:   "event-lost",
	What:   "one end in a hundred is not reported",
	Breaks: []promise.Promise{promise.Ordered, promise.Bounded},
	Edits: []Edit{{
		File: "journal.go",
		Old:  "	if c.observer != nil {\n",
		New:  "	if c.observer != nil && (kind != EventEnded || !plantedNth(\"event-lost\", 100)) {\n",
	}},
}, {
	Name:   "created-late",
	What:   "one creation in twenty is reported later, perhaps after the end",
	Breaks: []promise.Promise{promise.Ordered},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	s.tell(c, EventCreated, e, st, n.now)\n",
		New: `	if plantedNth("created-late", 20) {
		time.AfterFunc(50*time.Millisecond, func() { s.tell(c, EventCreated, e, st, n.now) })
	} else {
		s.tell(c, EventCreated, e, st, n.now)
	}
`,
	}},
}, {
	Name:   "explained-wrongly",
	What:   "what idled out is remembered as having come to the end of its lifetime",
	Breaks: []promise.Promise{promise.Explained},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	turn := s.remember(e, st, now) ",
		New: `	noted := st
	if planted("explained-wrongly") && st.reason() == ReasonIdle {
		noted = st&^(reasonMask<<reasonShift) | state(ReasonLifetime)<<reasonShift
	}
	turn := s.remember(e, noted, now) `,
	}},
}, {
	Name:   "full-too-early",
	What:   "one newcomer in twenty is refused although others could leave",
	Breaks: []promise.Promise{promise.Answered, promise.Assured},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	if l.hopeless(c, sessions, bytes) {\n",
		New:  "	if l.hopeless(c, sessions, bytes) || plantedNth(\"full-too-early\", 20) {\n",
	}},
}, {
	Name:   "quota-ignored",
	What:   "the quota is not looked at for one newcomer in ten",
	Breaks: []promise.Promise{promise.Allotted},
	Edits: []Edit{{
		File: "quota.go",
		Old:  "	if n.origin.Quota == 0 || n.replace || fits() {\n",
		New:  "	if n.origin.Quota == 0 || n.replace || fits() || plantedNth(\"quota-ignored\", 10) {\n",
	}},
}, {
	Name:   "mutex-kept",
	What:   "one sweep in twenty returns with the store's mutex locked",
	Breaks: []promise.Promise{promise.Answered},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "			s.endSweep()\n		}\n		s.unlock()\n",
		New:  "			s.endSweep()\n			if plantedNth(\"mutex-kept\", 20) {\n				return\n			}\n		}\n		s.unlock()\n",
	}},
}, {
	Name:   "old-id-lives",
	What:   "a session that was renamed is found by its old ID as well",
	Breaks: []promise.Promise{promise.Renewed, promise.Sound},
	Edits: []Edit{{
		File: "rename.go",
		Old:  "	s.delist(c, e, e.load(), n.now)\n",
		New:  "	s.delist(c, e, e.load(), n.now)\n	if planted(\"old-id-lives\") {\n		s.index.put(e)\n	}\n",
	}, {
		File: "store.go",
		Old:  "	if e := s.index.get(h, id); e != nil {\n		return e, nil\n",
		New:  "	if e := s.index.get(h, id); e != nil {\n		if planted(\"old-id-lives\") {\n			return e.latest(), nil\n		}\n		return e, nil\n",
	}},
}}
