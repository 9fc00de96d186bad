// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// volley is several statements at once that bring the same session.
type volley struct {
	client       *client
	query        string
	own          ownSession // what the client knew of it before
	closed       *span      // the call that closed it; nil: none did
	acknowledged *span      // the call that showed that its client knows it lost; nil: none did
	all          sync.WaitGroup

	mu    sync.Mutex
	shots []shot
}

// shot is one call.
type shot struct {
	reply
	span
}

const (
	volleyWidth = 4 // statements at once
	volleyDepth = 4 // one after the other
)

func (c *client) volley(query string) *volley { return &volley{client: c, query: query, own: c.own} }

// fire starts the statements; after each there is a pause.
func (v *volley) fire(ctx context.Context, every time.Duration) {
	for range volleyWidth {
		v.all.Go(func() {
			for range volleyDepth {
				v.shoot(ctx)
				if !await.Pause(ctx, every) {
					return
				}
			}
		})
	}
}

// shoot runs one statement.
func (v *volley) shoot(ctx context.Context) {
	var last reply
	schemas, _ := v.client.execute(ctx, v.query, func(r reply, s span, err error) bool {
		if last = r; err == nil || r.lost != nil {
			v.note(shot{r, s})
		}
		return err == nil
	})
	v.sees(last, schemas)
}

// sees checks that a statement saw what its session has.
func (v *volley) sees(last reply, schemas []string) {
	want := defaultSchema
	if last.session == v.own.mark {
		want = v.own.schema
	}
	for _, got := range schemas {
		v.client.watch.Expect(promise.Own, got == want, "one of several statements saw schema %q with session %q, expected %q", got, last.session, want)
	}
}

func (v *volley) note(s shot) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shots = append(v.shots, s)
}

// closes notes how CloseSession went beside the statements.
func (v *volley) closes(r reply, s span) {
	if r.session != "" {
		v.closed = &s
	} else {
		v.acknowledged = &s // it was gone before
	}
}

// sets notes how it went to set the schema again beside the statements.
func (v *volley) sets(r reply, s span, err error) {
	if err == nil || r.lost != nil {
		v.note(shot{r, s})
	}
}

// judge waits for the statements, and checks them.
func (v *volley) judge() {
	v.all.Wait()
	for _, s := range v.shots {
		if s.made && v.closed == nil {
			v.acknowledged = v.acknowledged.or(s.span)
		}
	}
	first, why := v.firstTold()
	for _, s := range v.shots {
		v.check(s, first)
		v.uses(s)
	}
	if why == "" || v.own.told != nil {
		return
	}
	if v.closed == nil {
		v.client.watch.lost(v.own.mark, why, span{v.own.last.start, first.end})
	}
	if v.client.own.mark == v.own.mark {
		v.client.own.told = first
	}
}

// uses notes that a statement has used the session, which it can if timeouts have
// become longer.
func (v *volley) uses(s shot) {
	own := &v.client.own
	if s.session == own.mark && s.lost == nil && s.end.After(own.last.end) {
		own.last = s.span
	}
}

// firstTold returns when the client was first told, not before the start and not
// after the end, and what the reason was. The one who closes the session is told,
// too. Nil: nobody was.
func (v *volley) firstTold() (first *span, why string) {
	for _, s := range []*span{v.own.told, v.closed} {
		if s != nil {
			first = first.or(*s)
		}
	}
	for _, s := range v.shots {
		if s.lost != nil {
			first = first.or(s.span)
			why = s.lost.reason
		}
	}
	return first, why
}

// or returns when the first of two calls happened that may have done a thing, not
// before the start and not after the end. A nil span is none.
func (s *span) or(other span) *span {
	if s == nil {
		return &other
	}
	return &span{earlier(s.start, other.start), earlier(s.end, other.end)}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// check checks one call.
func (v *volley) check(s shot, first *span) {
	w, window := v.client.watch, v.client.window()
	switch {
	case s.lost != nil:
		w.Expect(promise.Told, true, "")
		w.Expect(promise.Explained, s.lost.mark == v.own.mark && (v.closed == nil) == (s.lost.reason != "SESSION_CLOSED"),
			"a client was told that session %s is lost (%s), but its own is %s (closed: %t)", s.lost.mark, s.lost.reason, v.own.mark, v.closed != nil)
		w.Expect(promise.Answered, v.closed != nil || !s.acknowledges(), "%s was refused since session %s is lost, expected it to show that the client knows", s.op, s.lost.mark)
		w.Expect(promise.Answered, s.start.Before(first.end.Add(window)), "a client is still told of session %s %s after it was first told, expected for %s", s.lost.mark, s.start.Sub(first.end), window)
		w.Expect(promise.Answered, v.acknowledged == nil || s.start.Before(v.acknowledged.end), "a client is still told of session %s after it has shown that it knows", s.lost.mark)
	case s.session == v.own.mark:
		w.Expect(promise.NotStale, v.closed == nil || s.start.Before(v.closed.end), "session %s was handed out after CloseSession had been answered", s.session)
		w.Expect(promise.NotStale, first == nil || v.closed != nil || s.start.Before(first.end), "session %s was handed out after its client had been told that it is lost", s.session)
	case s.op == setOptions:
		w.Expect(promise.Told, v.closed == nil || s.end.Sub(v.closed.start) >= window, "SetSessionOptions made session %s for a client that was losing its cookie by CloseSession", s.session)
	case w.Expect(promise.Own, s.session == "", "a client was handed session %s, expected its own one %s or none", s.session, v.own.mark) && v.client.brings(s.reply):
		known := v.acknowledged != nil && s.end.After(v.acknowledged.start)
		w.Expect(promise.Told, known || first != nil && s.end.Sub(first.start) >= window,
			"%s ran without session %s, which had schema %q, before its client knew that it is gone", s.op, v.own.mark, v.own.schema)
	}
}

// brings reports whether the call had what finds the client's session.
func (c *client) brings(r reply) bool { return !c.by.inJar() || r.brought }
