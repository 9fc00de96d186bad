// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package planted

import "github.com/c8e4ff29/layover/stress/internal/promise"

// sqlServer has a run drive the server whose sessions have resources.
var sqlServer = []string{"-sqlserver", "examples/sqlserver", "-clients", "40", "-duration", "3s"}

// ofParts are the bugs in what the store and the sessions are made of: the order
// of eviction, the janitor, and what sessions have open.
var ofParts = []Bug{{
	Name:   "confirmed-leave-first",
	What:   "confirmed sessions make room before unconfirmed ones do",
	Breaks: []promise.Promise{promise.Assured},
	Edits: []Edit{{
		File: "eviction/assured.go",
		Old:  "	if p.candidates[unconfirmed] >= p.few || p.keepConfirmed {\n",
		New:  "	if !planted(\"confirmed-leave-first\") && p.candidates[unconfirmed] >= p.few || p.keepConfirmed {\n",
	}},
}, {
	Name:   "newcomers-starve",
	What:   "newcomers make room for each other, however few they are",
	Breaks: []promise.Promise{promise.Assured},
	Edits: []Edit{{
		File: "eviction/assured.go",
		Old:  "	first, second := p.order()\n	s := p.payer(first, from)\n",
		New: `	first, second := p.order()
	if planted("newcomers-starve") {
		first, second = unconfirmed, confirmed
	}
	s := p.payer(first, from)
`,
	}},
}, {
	Name: "panic-kills",
	What: "a Close that panics is not contained",
	Says: "the process was taken down: panic:",
	Edits: []Edit{{
		File: "janitor/worker.go",
		Old:  "func (w *worker[T]) run() (err error) {\n	defer func() {\n",
		New:  "func (w *worker[T]) run() (err error) {\n	defer func() {\n		if planted(\"panic-kills\") {\n			return\n		}\n",
	}},
}, {
	Name:   "wheel-loses-one",
	What:   "one session in fifty that the wheel would file again is filed nowhere",
	Breaks: []promise.Promise{promise.Prompt, promise.Sound},
	Edits: []Edit{{
		File: "janitor/wheel.go",
		Old:  "			if at > now {\n",
		New:  "			if at > now && plantedNth(\"wheel-loses-one\", 50) {\n				continue\n			}\n			if at > now {\n",
	}},
}, {
	Name:   "resource-close-skipped",
	What:   "one resource in ten is not closed with its session",
	Breaks: []promise.Promise{promise.Connected, promise.Clean},
	Flags:  sqlServer,
	Edits: []Edit{{
		File: "internal/resource/pool.go",
		Old:  "	e.Err = within(t.key.kind.CloseWithin, func() error { return t.key.kind.Close(t.value) }, func() {\n",
		New: `	e.Err = within(t.key.kind.CloseWithin, func() error {
		if plantedNth("resource-close-skipped", 10) {
			return nil
		}
		return t.key.kind.Close(t.value)
	}, func() {
`,
	}},
}, {
	Name:   "resource-place-lost",
	What:   "one resource in ten keeps its place for good",
	Breaks: []promise.Promise{promise.Clean},
	Flags:  sqlServer,
	Edits: []Edit{{
		File: "internal/resource/pool.go",
		Old:  "	if !t.placed {\n		return\n	}\n",
		New:  "	if !t.placed || plantedNth(\"resource-place-lost\", 10) {\n		return\n	}\n",
	}},
}, {
	Name:   "hung-keeps-its-place",
	What:   "a Close that hangs keeps its place among the closers",
	Breaks: []promise.Promise{promise.Prompt},
	Flags:  []string{"-level", "store", "-scenario", "slow-closers"},
	Edits: []Edit{{
		File: "janitor/pool.go",
		Old:  "	return p.hurried || p.running-min(p.hung, p.config.MaxHung) < p.config.Workers\n",
		New:  "	if planted(\"hung-keeps-its-place\") {\n		return p.running < p.config.Workers\n	}\n	return p.hurried || p.running-min(p.hung, p.config.MaxHung) < p.config.Workers\n",
	}},
}}
