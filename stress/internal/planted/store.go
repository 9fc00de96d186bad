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
	Name:   "bytes-given-back-twice",
	What:   "the bytes of a session that leaves are taken off twice, so that too many are let in",
	Breaks: []promise.Promise{promise.Sound, promise.Bounded},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	l.bytes -= e.size()\n",
		New:  "	l.bytes -= e.size()\n	if planted(\"bytes-given-back-twice\") {\n		l.bytes -= e.size()\n	}\n",
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
	Name:   "never-quiet",
	What:   "a goroutine looks after the store until it is shut down, also while that is empty",
	Breaks: []promise.Promise{promise.Clean},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	l.counts.peak = max(l.counts.peak, l.places)\n",
		New: `	l.counts.peak = max(l.counts.peak, l.places)
	if planted("never-quiet") && l.counts.created == 1 {
		go func() {
			for !s.stopped.Load() {
				time.Sleep(100 * time.Millisecond)
			}
		}()
	}
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
	Name:   "same-id-twice",
	What:   "Add does not see that there is a session under the ID",
	Breaks: []promise.Promise{promise.Sound, promise.Linear},
	Edits: []Edit{{
		File: "insert.go",
		Old:  "	if old != nil && old != n.instead {\n",
		New:  "	if old != nil && old != n.instead && !planted(\"same-id-twice\") {\n",
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
	What:   "what idled out is remembered as having made room for others",
	Breaks: []promise.Promise{promise.Explained},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	turn := s.remember(e, st, now) ",
		New: `	noted := st
	if planted("explained-wrongly") && st.reason() == ReasonIdle {
		noted = st&^(reasonMask<<reasonShift) | state(ReasonCapacity)<<reasonShift
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
	Name:   "close-under-mutex",
	What:   "Close runs under the store's mutex",
	Breaks: []promise.Promise{promise.Answered},
	Edits: []Edit{{
		File: "lock.go",
		Old:  "	if len(l.closing) > 0 {\n",
		New: `	if planted("close-under-mutex") {
		for _, e := range l.closing {
			s.closeDone(e, e.value.Close())
		}
		clear(l.closing)
		l.closing = l.closing[:0]
	}
	if len(l.closing) > 0 {
`,
	}},
}, {
	Name:   "observer-under-mutex",
	What:   "the observer runs under the store's mutex",
	Breaks: []promise.Promise{promise.Answered},
	Edits: []Edit{{
		File: "journal.go",
		Old:  "		j.submit(delivery{observe: c.observer,",
		New: `		if planted("observer-under-mutex") {
			ev := s.event(kind, e.record(st, now))
			ev.Fingerprint = s.Fingerprint(e.id())
			c.observer(ev)
			return
		}
		j.submit(delivery{observe: c.observer,`,
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
	Name:   "id-in-error",
	What:   "the error of a lookup quotes the ID",
	Breaks: []promise.Promise{promise.Secret},
	Edits: []Edit{{
		File: "errors.go",
		Old:  "	mark func() Fingerprint\n",
		New:  "	mark func() Fingerprint\n	id   string\n",
	}, {
		File: "explain.go",
		Old:  "	return &NotFoundError{st.reason(), st.holds(), func() Fingerprint { return s.Fingerprint(id) }}\n",
		New:  "	return &NotFoundError{st.reason(), st.holds(), func() Fingerprint { return s.Fingerprint(id) }, id}\n",
	}, {
		File: "errors.go",
		Old:  "	return fmt.Sprintf(\"layover: session %s has ended: %s\", e.Fingerprint(), e.Reason)\n",
		New: `	if planted("id-in-error") {
		return fmt.Sprintf("layover: session %s has ended: %s", e.id, e.Reason)
	}
	return fmt.Sprintf("layover: session %s has ended: %s", e.Fingerprint(), e.Reason)
`,
	}},
}, {
	Name:   "id-in-log",
	What:   "the line about a session that has ended quotes its ID",
	Breaks: []promise.Promise{promise.Secret},
	Edits: []Edit{{
		File: "journal.go",
		Old:  "	level := slog.LevelInfo\n	if ev.Reason",
		New: `	if planted("id-in-log") {
		j.submit(delivery{logger: l, level: slog.LevelInfo, text: "layover: session ended", attrs: []slog.Attr{slog.String("session", id)}})
		return
	}
	level := slog.LevelInfo
	if ev.Reason`,
	}},
}, {
	Name:   "retired-forgotten",
	What:   "Shutdown does not wait for those who are in use after their end",
	Breaks: []promise.Promise{promise.Clean},
	Edits: []Edit{{
		File: "lock.go",
		Old:  "	if l.places == 0 {\n		s.clock.park()\n",
		New:  "	if l.places == 0 || planted(\"retired-forgotten\") && l.shut && l.live == 0 {\n		s.clock.park()\n",
	}, {
		File: "lifecycle.go",
		Old:  "	s.ledger.sweeps.Wait()\n",
		New:  "	if !planted(\"retired-forgotten\") {\n		s.ledger.sweeps.Wait()\n	}\n",
	}},
}, {
	Name:   "killed-uncanceled",
	What:   "the context of a session is canceled after its Close",
	Breaks: []promise.Promise{promise.NotInUse},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	l.sources.drop(e.source)\n	s.cancel(e)\n",
		New:  "	l.sources.drop(e.source)\n	if !planted(\"killed-uncanceled\") {\n		s.cancel(e)\n	}\n",
	}, {
		File: "store.go",
		Old:  "	s.closed.Add(1)\n",
		New:  "	s.closed.Add(1)\n	if planted(\"killed-uncanceled\") {\n		s.cancel(e)\n	}\n",
	}},
}, {
	Name:   "lowered-maximum-ignored",
	What:   "nobody leaves when the maximum is lowered",
	Breaks: []promise.Promise{promise.Bounded, promise.Sound},
	Edits: []Edit{{
		File: "lifecycle.go",
		Old:  "	if l.exceeds(c) {\n",
		New:  "	if l.exceeds(c) && !planted(\"lowered-maximum-ignored\") {\n",
	}},
}, {
	Name:   "maximum-known-early",
	What:   "a lowered maximum holds before the idle ones have left, so that those who are released leave",
	Breaks: []promise.Promise{promise.Assured},
	Edits: []Edit{{
		File: "lifecycle.go",
		Old:  "	s.lock()\n	defer s.unlock()\n	s.config.Store(c)\n",
		New:  "	if planted(\"maximum-known-early\") {\n		s.config.Store(c)\n		for e := range s.index.all() {\n			_ = s.Fingerprint(e.id())\n		}\n	}\n	s.lock()\n	defer s.unlock()\n	s.config.Store(c)\n",
	}},
}, {
	Name:   "timeout-change-ignored",
	What:   "what follows from the timeouts is computed once, and not when they change",
	Breaks: []promise.Promise{promise.NotEarly, promise.NotStale, promise.Prompt},
	Edits: []Edit{{
		File: "options.go",
		Old:  "	c.longestIdle = 0\n	for i, own := range",
		New:  "	if planted(\"timeout-change-ignored\") && c.unused[0] != 0 {\n		return\n	}\n	c.longestIdle = 0\n	for i, own := range",
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
}, {
	Name:   "timeouts-not-refiled",
	What:   "when the timeouts change, the janitor still looks at each session when it was to by the former ones",
	Breaks: []promise.Promise{promise.Prompt},
	Flags:  []string{"-level", "store", "-scenario", "reconfiguration"},
	Edits: []Edit{{
		File: "lifecycle.go",
		Old:  "		s.refile()\n",
		New:  "		if !planted(\"timeouts-not-refiled\") {\n			s.refile()\n		}\n",
	}},
}, {
	Name:   "renamed-begins-anew",
	What:   "the lifetime of a session that is renamed begins anew",
	Breaks: []promise.Promise{promise.NotStale, promise.Prompt},
	Edits: []Edit{{
		File: "rename.go",
		Old:  "	heir.birth = e.birth&^(1<<hashBits-1) | uint64(hash)\n",
		New:  "	heir.birth = e.birth&^(1<<hashBits-1) | uint64(hash)\n	if planted(\"renamed-begins-anew\") {\n		heir.birth = uint64(stampOf(now))<<hashBits | uint64(hash)\n	}\n",
	}},
}, {
	Name:   "bytes-unchecked",
	What:   "what comes is let in as long as the bytes before it fit",
	Breaks: []promise.Promise{promise.Bounded},
	Edits: []Edit{{
		File: "ledger.go",
		Old:  "	return n <= 0 || c.maxBytes == 0 || n <= c.maxBytes-l.bytes\n",
		New:  "	return n <= 0 || c.maxBytes == 0 || n <= c.maxBytes-l.bytes || planted(\"bytes-unchecked\") && l.bytes < c.maxBytes\n",
	}},
}}
