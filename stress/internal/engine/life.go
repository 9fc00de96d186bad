// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// life is one store from its beginning to its end, with the books about it.
type life struct {
	*promise.Book
	run    *run
	store  *layover.Store[*session]
	limits *changes
	events events
	plan   atomic.Pointer[faulty]

	draining, drained atomic.Bool // Drain was called, has returned
	stopping, over    atomic.Bool // Shutdown was called, has returned
	cut               atomic.Bool // without enough time
	deadline          time.Time   // of that shutdown, if not later; set before cut

	held      atomic.Int64 // sessions with a lease for sure
	heldBytes atomic.Int64
	busy      atomic.Int64  // calls that may have a lease
	mostBusy  atomic.Int64  // ever
	begun     atomic.Uint64 // calls that may have had a lease, ever
	added     atomic.Uint64 // sessions
	renamed   atomic.Uint64 // of these, or are about to be
	refusals  atomic.Uint64 // of sessions, and of new names
	closes    atomic.Uint64
	failed    atomic.Uint64 // of these, on purpose

	open [shards]struct { // sessions of which something is still to come
		sync.Mutex
		all map[*session]struct{}
	}
	names [8]*name // shared by everybody
}

const shards = 64

// newLife returns a life whose store is open.
func newLife(r *run) (*life, error) {
	l := &life{Book: r.Book, run: r, limits: newChanges(r.limits, time.Now())}
	l.plan.Store(&faulty{life: l})
	l.events = newEvents(l)
	for i := range l.open {
		l.open[i].all = make(map[*session]struct{})
	}
	store, err := layover.New[*session](append(r.limits.options(),
		layover.WithSourceShare(0),
		layover.WithMaxLeaseAge(0), // nobody is killed for a call that takes long
		layover.WithClosers(closers),
		layover.WithHungClose(hungAfter),
		layover.WithObserver(l.observe),
		layover.WithLogger(slog.New(&lines{l})),
	)...)
	if err != nil {
		return nil, err
	}
	l.store = store
	for i := range l.names {
		l.names[i] = l.name(fmt.Sprint("shared", i))
		l.names[i].shared = true
	}
	return l, nil
}

const closers = 4

// hungAfter is how long a Close may take before another goroutine takes its place.
const hungAfter = 50 * time.Millisecond

func (l *life) faults() *faulty { return l.plan.Load() }

// resolution is how late a deadline may have been since then. A coarse clock ticks,
// and puts deadlines off by as much as it ticks late.
func (l *life) resolution(since time.Time) time.Duration {
	_, most := l.limits.since(since)
	r := most.resolution()
	if r >= coarseFrom {
		r += l.run.late.MostAllowed()
	}
	return r
}

// secret is in every ID, and in nothing else.
const secret = "5ecre7"

// name returns an ID of its own, with something in it to tell it by. Some are
// longer than those that the store keeps in their places.
func (l *life) name(what string) *name {
	n := rand.Uint64()
	id := fmt.Sprintf("%s-%s-%x", secret, what, n)
	if n%8 == 0 {
		id += "-" + strings.Repeat("x", 39)
	}
	return &name{id: id, mark: l.store.Fingerprint(id)}
}

// session returns a new session, and its books.
func (l *life) session(n *name, source string) *session {
	s := &session{life: l, n: l.added.Add(1), name: n, source: source}
	shard := &l.open[s.n%shards]
	shard.Lock()
	defer shard.Unlock()
	shard.all[s] = struct{}{}
	return s
}

// settled forgets a session of which nothing is to come any more.
func (l *life) settled(s *session) {
	s.mu.Lock()
	over := s.using == 0 && (s.refused || s.closed && (s.ended > 0 || s.name.shared))
	s.mu.Unlock()
	if !over {
		return
	}
	shard := &l.open[s.n%shards]
	shard.Lock()
	defer shard.Unlock()
	delete(shard.all, s)
}

// each calls f with every session of which something is still to come.
func (l *life) each(f func(*session)) {
	for i := range l.open {
		shard := &l.open[i]
		shard.Lock()
		all := make([]*session, 0, len(shard.all))
		for s := range shard.all {
			all = append(all, s)
		}
		shard.Unlock()
		for _, s := range all {
			f(s)
		}
	}
}

// leased notes that one more session has a lease for sure, released that it has not.
func (l *life) leased(size int64) {
	l.held.Add(1)
	l.heldBytes.Add(size)
}

func (l *life) released(size int64) {
	l.held.Add(-1)
	l.heldBytes.Add(-size)
}

// begins notes that a call begins that may have a lease until ends.
func (l *life) begins() {
	now := l.busy.Add(1)
	l.begun.Add(1) // afterwards: who reads this one first misses nobody
	for most := l.mostBusy.Load(); now > most && !l.mostBusy.CompareAndSwap(most, now); most = l.mostBusy.Load() {
	}
}

func (l *life) ends() { l.busy.Add(-1) }

// mostDuring returns how many places may be taken while f runs: the maximum, or after
// it was lowered as many as are in use, who stay until they are released, however long
// that takes.
func (l *life) mostDuring(f func()) int {
	now, begun, busy := time.Now(), l.begun.Load(), l.busy.Load()
	f()
	_, most := l.limits.since(now)
	return max(most.max, int(busy)+int(l.begun.Load()-begun))
}

// keepsSecrets checks a text that the store has made.
func (l *life) keepsSecrets(text, what string) {
	if strings.Contains(text, secret) {
		l.Expect(promise.Secret, false, "%s contains an ID: %s", what, strings.ReplaceAll(text, secret, "******"))
		return
	}
	l.Expect(promise.Secret, true, "")
}

// lines is the log that the store writes. It is foreign code: it looks at the store.
type lines struct{ life *life }

// Enabled reports that every line is wanted.
func (*lines) Enabled(context.Context, slog.Level) bool { return true }

// Handle checks that a line contains no ID.
func (h *lines) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += " " + a.String()
		return true
	})
	h.life.keepsSecrets(text, "a log line")
	h.life.store.Stats()
	return nil
}

// WithAttrs and WithGroup return a handler that checks the lines as well.
func (h *lines) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup is like WithAttrs.
func (h *lines) WithGroup(string) slog.Handler { return h }

// stop shuts the store down, which nobody uses any more, and checks what is left.
func (l *life) stop(patience time.Duration) {
	l.stopping.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := l.store.Shutdown(ctx)
	l.Expect(promise.Clean, err == nil, "Shutdown failed, expected success since no call runs: %v", err)
	_, err = l.store.Peek("")
	l.Expect(promise.Answered, errors.Is(err, layover.ErrShutdown) || errors.Is(err, layover.ErrInvalid), "a call after the shutdown got %v, expected that the store is shut down", err)
	l.judgeEnd()
}

// cutOff shuts the store down under its calls, without enough time.
func (l *life) cutOff() {
	l.stopping.Store(true)
	l.deadline = time.Now().Add(cutAfter)
	l.cut.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), cutAfter)
	defer cancel()
	err := l.store.Shutdown(ctx)
	l.over.Store(true)
	if err != nil {
		l.keepsSecrets(fmt.Sprintf("%v %+v", err, err), "the error of a shutdown")
	}
	var late *layover.ShutdownError
	ok := err == nil || errors.As(err, &late) && errors.Is(err, context.DeadlineExceeded)
	l.Expect(promise.Clean, ok, "Shutdown without enough time returned %v, expected a *ShutdownError or none", err)
	stats := l.store.Stats()
	l.Expect(promise.Clean, stats.Live+stats.Retired == 0, "%d sessions are live and %d retired after a shutdown without enough time, expected none", stats.Live, stats.Retired)
	if late != nil {
		most := int(l.mostBusy.Load())
		l.Expect(promise.Clean, late.Killed <= most, "Shutdown says that it has killed %d sessions in use, but at most %d calls ran", late.Killed, most)
	}
}

// cutAfter is how long a shutdown without enough time takes.
const cutAfter = 3 * time.Millisecond

// judgeEnd checks what must be true after the shutdown, of every session.
func (l *life) judgeEnd() {
	stats := l.store.Stats()
	l.Expect(promise.Clean, stats.Live+stats.Retired+stats.Closing == 0, "%d sessions are live, %d retired and %d closing after the shutdown, expected none", stats.Live, stats.Retired, stats.Closing)
	l.Expect(promise.Bounded, stats.Peak <= l.run.limits.max, "the store says that it had %d sessions at once, expected at most %d", stats.Peak, l.run.limits.max)
	l.Expect(promise.ClosedOnce, stats.CloseFailed == l.failed.Load(), "the store counts %d Close calls that failed, expected %d", stats.CloseFailed, l.failed.Load())
	l.Expect(promise.ClosedOnce, stats.Closed == l.closes.Load(), "the store counts %d Close calls, expected %d", stats.Closed, l.closes.Load())
	l.events.judgeEnd(&stats)
	l.each(func(s *session) {
		s.mu.Lock()
		using, closed, ended, shared := s.using, s.closed, s.ended, s.name.shared
		s.mu.Unlock()
		l.Expect(promise.Clean, using == 0, "session %s has %d leases after the end", s, using)
		if !shared {
			l.Expect(promise.ClosedOnce, closed == (ended > 0), "session %s was reported to have ended %d times and was closed: %t, after the shutdown", s, ended, closed)
		}
		l.Expect(promise.ClosedOnce, closed, "session %s was never closed, expected once", s)
	})
}
