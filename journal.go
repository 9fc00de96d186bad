// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover/janitor"
)

// journal hands events to the observer and lines to the logger, one at a time
// and in order, on a goroutine that exists only while there are any. Nothing of
// it runs foreign code on the caller's goroutine, so it may be called under a
// lock.
type journal struct {
	pool        *janitor.Pool[delivery]
	fingerprint func(id string) Fingerprint
	now         func() time.Duration
	dropped     atomic.Uint64

	mu    sync.Mutex
	lines [reasons + failures]line
}

// delivery is one call of foreign code: of the observer, or of the log handler.
type delivery struct {
	observe func(Event)
	event   Event
	id      string // its fingerprint is computed for the observer, not on anybody's way

	logger *slog.Logger
	level  slog.Level
	text   string
	attrs  []slog.Attr
}

// line limits log lines of one kind to one a second.
type line struct {
	next    time.Duration // not before
	skipped int
}

// Kinds of lines beside one for each reason.
const (
	closeFailed = iota
	closeHangs
	observerFailed
	leaseKept
	failures
)

func newJournal(fingerprint func(string) Fingerprint, now func() time.Duration) *journal {
	j := &journal{fingerprint: fingerprint, now: now}
	j.pool = janitor.NewPool(janitor.PoolConfig[delivery]{
		Workers: 1, // order
		Run: func(d delivery) error {
			if d.observe != nil {
				d.event.Fingerprint = fingerprint(d.id)
				d.observe(d.event)
			} else {
				d.logger.LogAttrs(context.Background(), d.level, d.text, d.attrs...)
			}
			return nil
		},
		Done: func(d delivery, err error) {
			if err != nil && d.observe != nil {
				j.fail(observerFailed, d.logger, "layover: observer failed", d.id, err)
			}
		},
	})
	return j
}

// tell reports what happened to e to whom the config names.
func (s *Store[S]) tell(c *config, kind EventKind, e *entry[S], st state, now time.Duration) {
	j := s.journal
	if c.observer != nil {
		j.submit(delivery{observe: c.observer, event: s.event(kind, e.record(st, now)), id: e.id(), logger: c.logger})
	}
	if c.logger == nil || kind != EventEnded {
		return
	}
	if n := j.count(int(st.reason()), now); n > 0 {
		j.ended(c.logger, n, e.id(), s.event(kind, e.record(st, now)))
	}
}

// ended writes a line about a session with this ID, which stands for n of them.
func (j *journal) ended(l *slog.Logger, n int, id string, ev Event) {
	level := slog.LevelInfo
	if ev.Reason == ReasonCapacity || ev.Reason == ReasonQuota || ev.Reason == ReasonKilled {
		level = slog.LevelWarn
	}
	j.submit(delivery{logger: l, level: level, text: "layover: session ended", attrs: []slog.Attr{
		slog.String("reason", ev.Reason.String()),
		slog.Int("sessions", n),
		slog.String("session", j.fingerprint(id).String()),
		slog.Duration("age", ev.At.Sub(ev.Created)),
		slog.Duration("unused", ev.At.Sub(ev.LastUsed)),
		slog.Bool("confirmed", ev.Confirmed),
		slog.Bool("held", ev.Holds),
	}})
}

// fail reports that foreign code failed.
func (j *journal) fail(kind int, l *slog.Logger, text, id string, err error) {
	if l == nil {
		return
	}
	if n := j.count(reasons+kind, j.now()); n > 0 {
		f := j.fingerprint(id)
		attrs := append(describe(err, id, f), slog.Int("times", n), slog.String("session", f.String()))
		j.submit(delivery{logger: l, level: slog.LevelError, text: text, attrs: attrs})
	}
}

// leak reports leases that were held for too long, and where they were taken.
func (j *journal) leak(l *slog.Logger, id, taken string) {
	if l == nil {
		return
	}
	if n := j.count(reasons+leaseKept, j.now()); n > 0 {
		j.submit(delivery{logger: l, level: slog.LevelError, text: "layover: a lease was not released", attrs: []slog.Attr{
			slog.Int("times", n), slog.String("session", j.fingerprint(id).String()), slog.String("taken", taken)}})
	}
}

// count returns for how many occurrences a line of this kind now stands, zero
// if one was written less than a second ago.
func (j *journal) count(kind int, now time.Duration) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	l := &j.lines[kind]
	l.skipped++
	if now < l.next {
		return 0
	}
	n := l.skipped
	l.next, l.skipped = now+time.Second, 0
	return n
}

// flush writes one line for each kind whose last occurrences had none.
func (j *journal) flush(l *slog.Logger) {
	if l == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.lines {
		n := j.lines[i].skipped
		j.lines[i].skipped = 0
		if n == 0 {
			continue
		}
		d := delivery{logger: l, level: slog.LevelInfo, text: "layover: more sessions ended", attrs: []slog.Attr{
			slog.String("reason", Reason(i).String()), slog.Int("sessions", n)}}
		if i >= reasons {
			d = delivery{logger: l, level: slog.LevelError, text: "layover: more failures", attrs: []slog.Attr{
				slog.String("of", [failures]string{"close", "hanging close", "observer", "lease not released"}[i-reasons]), slog.Int("times", n)}}
		}
		j.submit(d)
	}
}

func (j *journal) submit(d delivery) {
	if j.pool.Pending() >= maxQueuedEvents {
		j.dropped.Add(1)
		return
	}
	j.pool.Submit(d)
}

const minSecret = 8 // bytes

// describe returns what is known of a failure. Foreign text may quote the ID.
func describe(err error, id string, f Fingerprint) []slog.Attr {
	if err == nil {
		return nil
	}
	clean := func(s string) string {
		if len(id) < minSecret { // no secret, but it would shred the text
			return s
		}
		s = strings.ReplaceAll(s, id, f.String())
		quoted := strconv.Quote(id) // as %q has it
		return strings.ReplaceAll(s, quoted[1:len(quoted)-1], f.String())
	}
	attrs := []slog.Attr{slog.String("error", clean(err.Error()))}
	if p := (*janitor.PanicError)(nil); errors.As(err, &p) {
		attrs = append(attrs, slog.String("panic", clean(fmt.Sprint(p.Value))), slog.String("stack", clean(string(p.Stack))))
	}
	return attrs
}
