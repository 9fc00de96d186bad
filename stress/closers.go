// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

const closingBatches = 6 // of each stream

// closeUnder closes the session while streams of it are under way, by several
// calls at once now and then. They go on to their end. Meanwhile it has a new
// session made, whose cookie no late deletion may take along.
func (c *client) closeUnder(ctx context.Context, rng *rand.Rand) {
	defer c.disconnect()
	schema, next := fmt.Sprint("closing", rng.IntN(1000)), fmt.Sprint("since", rng.IntN(1000))
	width, closers, patient := 1+rng.IntN(3), 1+rng.IntN(4), rng.IntN(4) == 0
	if !c.set(ctx, schema) {
		return
	}
	was, old := c.own, c.cookie()
	u := c.underWay(was)
	defer u.judge()
	if !u.begin(ctx, width) {
		return
	}
	start := time.Now()
	rest, ok := c.closeAtOnce(ctx, closers, patient)
	defer rest()
	if !ok {
		return
	}
	c.own.closed = true
	made := c.setSince(ctx, next, was, closers == 1 || patient)
	c.spent(ctx, rng, old, was, start)
	rest()
	if made && c.query(ctx) {
		u.all.Wait() // whatever they say of cookies
		c.watch.Expect(promise.Renewed, c.over(ctx) != nil || c.jar.has(),
			"the cookie of session %s was deleted by the end of a stream of session %s", c.own.mark, was.mark)
		c.query(ctx)
	}
}

// closeAtOnce has so many calls close the session, and returns when the first one
// is answered, or all of them. rest waits for the others.
func (c *client) closeAtOnce(ctx context.Context, closers int, patient bool) (rest func(), ok bool) {
	var all sync.WaitGroup
	answers := make(chan error, closers)
	late := metadata.AppendToOutgoingContext(ctx, lateHeader, "1")
	for range closers {
		all.Go(func() {
			_, _, err := c.call(late, closeSession, c.askClose)
			answers <- err
		})
	}
	if err := <-answers; err != nil {
		return all.Wait, false
	}
	if patient {
		all.Wait()
	}
	if ev, gone := c.watch.explain(c.own.fingerprint()); c.over(ctx) != nil || !c.watch.Expect(promise.Prompt, gone, "session %s is live after CloseSession was answered", c.own.mark) || ev.Reason != layover.ReasonClosed {
		return all.Wait, false // its lifetime was over before
	}
	if patient && c.over(ctx) == nil {
		ok = !c.jar.has()
		return all.Wait, c.watch.Expect(promise.Answered, ok, "CloseSession, %d times at once, left the client its cookie", closers)
	}
	return all.Wait, true
}

// setSince has a new session made after the answer to CloseSession, and reports
// whether it was. Only while other calls may be having the cookie deleted, it may
// be refused.
func (c *client) setSince(ctx context.Context, schema string, was ownSession, alone bool) bool {
	r, s, err := c.call(ctx, setOptions, c.askSet(schema))
	if r.lost != nil {
		return !c.watch.Expect(promise.Told, !alone && r.lost.mark == was.mark && r.lost.reason == "SESSION_CLOSED",
			"a client that has closed session %s cannot set its schema: session %s is lost (%s)", was.mark, r.lost.mark, r.lost.reason)
	}
	if !c.heard(r, s, err) {
		return false
	}
	if c.own.schema = schema; r.brought { // so long after that nobody had it deleted
		return false
	}
	return c.watch.Expect(promise.Needed, r.made && r.session != was.mark, "SetSessionOptions after CloseSession was served by session %s, expected a new one", r.session)
}

// underWay are streams of one session, to whose end its client looks.
type underWay struct {
	client *client
	was    ownSession
	every  time.Duration // a message comes
	next   string        // the schema that it has since
	since  time.Time     // then at the latest
	all    sync.WaitGroup

	mu    sync.Mutex
	left  int // that have not ended
	ended []showing
}

// showing is what a stream has shown.
type showing struct {
	shot
	schemas []string
}

func (c *client) underWay(was ownSession) *underWay {
	return &underWay{client: c, was: was, every: c.idle / 16}
}

// begin starts so many streams, and returns when the first message of each has
// come. False: the session is lost, as the client is told.
func (u *underWay) begin(ctx context.Context, width int) bool {
	for range width {
		begun, failed := make(chan struct{}), make(chan *shot, 1)
		u.mu.Lock()
		u.left++
		u.mu.Unlock()
		u.all.Go(func() {
			if lost := u.run(withBegun(ctx, sync.OnceFunc(func() { close(begun) }))); lost != nil {
				failed <- lost
			}
		})
		select {
		case <-begun:
			u.client.own.last.end = time.Now() // it is in use
		case lost := <-failed:
			if lost.lost != nil {
				u.client.told(lost.reply, lost.span)
			}
			return false
		}
	}
	return true
}

// run reads one stream, and returns how it went if it did not.
func (u *underWay) run(ctx context.Context) *shot {
	var last shot
	query := fmt.Sprintf(streamSchema, closingBatches, u.every)
	schemas, ok := u.client.execute(ctx, query, func(r reply, s span, err error) bool {
		last = shot{r, s}
		return err == nil
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	u.left--
	if !ok && (last.first.IsZero() || u.client.over(ctx) != nil) {
		return &last
	}
	u.ended = append(u.ended, showing{last, schemas})
	return nil
}

// uses notes until when the streams have used the session.
func (u *underWay) uses() {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := &u.client.own.last.end
	for _, e := range u.ended {
		*last = later(*last, e.end)
	}
	if u.left > 0 {
		*last = time.Now()
	}
}

// changes notes that the session has another schema, since then at the latest.
func (u *underWay) changes(next string, since time.Time) { u.next, u.since = next, since }

// judge waits for the streams, and checks that they went on to their end with the
// options of their session.
func (u *underWay) judge() {
	u.all.Wait()
	u.uses()
	w := u.client.watch
	for _, e := range u.ended {
		w.Expect(promise.Outlasts, len(e.schemas) == closingBatches, "a stream in session %s, which was closed or renewed under it, ended after %d batches, expected %d", u.was.mark, len(e.schemas), closingBatches)
		w.Expect(promise.Outlasts, e.session == u.was.mark, "a stream of session %s was served by session %q", u.was.mark, e.session)
		changed := slices.Index(e.schemas, u.next)
		for i, got := range e.schemas {
			want := u.was.schema
			if changed >= 0 && i >= changed {
				want = u.next
			}
			w.Expect(promise.Outlasts, got == want, "batch %d of a stream saw schema %q in session %s, which was closed or renewed under it, expected %q", i, got, u.was.mark, want)
		}
		if last := e.start.Add((closingBatches - 1) * u.every); u.next != "" && last.After(u.since) {
			w.Expect(promise.Outlasts, changed >= 0, "a stream in session %s, which was renewed under it, did not see what was set since", u.was.mark)
		}
	}
}
