// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package planted

import "github.com/c8e4ff29/layover/stress/internal/promise"

// ofSession are the bugs in package session.
var ofSession = []Bug{{
	Name:   "anothers-session",
	What:   "one call in a hundred gets the session of the call before it",
	Breaks: []promise.Promise{promise.Own},
	Edits: []Edit{{
		File: "session/acquire.go",
		Old:  "// acquireResident is acquire from",
		New:  "var lastID = make(chan string, 1)\n\n// acquireResident is acquire from",
	}, {
		File: "session/acquire.go",
		Old:  "	for {\n		if l.lease, err = m.store.store.AcquireFrom(id, by.owns); err != nil {\n",
		New: `	if planted("anothers-session") {
		was := id
		select {
		case was = <-lastID:
		default:
		}
		select {
		case lastID <- id:
		default:
		}
		if plantedNth("anothers-session", 100) {
			id = was
		}
	}
	for {
		if l.lease, err = m.store.store.AcquireFrom(id, by.owns); err != nil {
`,
	}},
}, {
	Name:   "loss-untold",
	What:   "one call in five whose session is lost goes on without it",
	Breaks: []promise.Promise{promise.Told},
	Edits: []Edit{{
		File: "session/dead.go",
		Old:  "	if d.why == whyGarbage {\n		return false\n	}\n	t.mu.Lock()\n",
		New:  "	if d.why == whyGarbage || plantedNth(\"loss-untold\", 5) {\n		return false\n	}\n	t.mu.Lock()\n",
	}},
}, {
	Name:   "wrong-session-named",
	What:   "a client that has lost its session is told of another one",
	Breaks: []promise.Promise{promise.Explained},
	Edits: []Edit{{
		File: "session/dead.go",
		Old:  "		d.mark, d.key = m.fingerprint(token), m.tellingOf(token, caller)\n",
		New: `		d.mark, d.key = m.fingerprint(token), m.tellingOf(token, caller)
		if planted("wrong-session-named") {
			d.mark = m.fingerprint(caller + token + "/")
		}
`,
	}},
}, {
	Name:   "token-in-refusal",
	What:   "a client that has lost its session is told its token in the error's text",
	Breaks: []promise.Promise{promise.Secret},
	Edits: []Edit{{
		File: "session/dead.go",
		Old:  "		sentinel: ErrNoSession, reason: \"SESSION_\" + strings.ToUpper(d.why), metadata: map[string]string{\"session\": d.mark.String()}}\n",
		New: `		sentinel: ErrNoSession, reason: "SESSION_" + strings.ToUpper(d.why), metadata: map[string]string{"session": d.mark.String()}}
	if planted("token-in-refusal") {
		e.text = lostTexts[d.why] + " (session " + d.token + ")"
	}
`,
	}},
}, {
	Name:   "stream-outlives-lease",
	What:   "a stream gives its session back with its first message",
	Breaks: []promise.Promise{promise.NotInUse},
	Edits: []Edit{{
		File: "session/interceptors.go",
		Old:  "		c.replied = true\n",
		New: `		c.replied = true
		if l := c.handle.live.Load(); l != nil && planted("stream-outlives-lease") {
			_ = l.release()
		}
`,
	}},
}, {
	Name:   "needless-session",
	What:   "a session is made for one call in twenty that needs none",
	Breaks: []promise.Promise{promise.Needed},
	Edits: []Edit{{
		File: "session/open.go",
		Old:  "	if !h.m.eager {\n		return h.share(ctx), nil\n",
		New: `	if !h.m.eager {
		if plantedNth("needless-session", 20) {
			_, _ = h.ensure(false)
		}
		return h.share(ctx), nil
`,
	}},
}, {
	Name:   "old-cookie-lives",
	What:   "Renew hands out a new cookie, and only the old one finds the session",
	Breaks: []promise.Promise{promise.Renewed},
	Edits: []Edit{{
		File: "session/refile.go",
		Old:  "	return l.Rename(r.token, r.origin)\n",
		New:  "	if planted(\"old-cookie-lives\") {\n		return nil\n	}\n	return l.Rename(r.token, r.origin)\n",
	}},
}, {
	Name: "cookie-panics",
	What: "a cookie without a value panics, and that is not contained",
	Says: "the process was taken down: panic:",
	Edits: []Edit{{
		File: "session/candidates.go",
		Old:  "	if value = textproto.TrimString(value); value != \"\" && value[0] != '=' {\n",
		New:  "	if value = textproto.TrimString(value); (value != \"\" || planted(\"cookie-panics\")) && value[0] != '=' {\n",
	}, {
		File: "session/open.go",
		Old:  "func (h *handle) open(ctx context.Context, greets bool) (err error) {\n	defer contain(&err)\n",
		New: `func (h *handle) open(ctx context.Context, greets bool) (err error) {
	if !planted("cookie-panics") {
		defer contain(&err)
	}
`,
	}},
}}
