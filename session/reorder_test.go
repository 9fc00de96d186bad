// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/metadata"
	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/session"
)

// browser is a client whose replies arrive in any order: each call goes out
// with the cookie of that moment, and what comes back waits for its delivery.
type browser struct {
	jar
	c *client
}

// send makes a call with the present cookie and returns its reply, which has yet
// to arrive.
func (b *browser) send(f call) reply {
	if id := b.get(session.StatefulSessionCookieName); id != "" {
		return b.c.do(f, session.StatefulSessionCookieName+"="+id)
	}
	return b.c.do(f)
}

// arrive delivers a reply.
func (b *browser) arrive(r reply) {
	b.feed(metadata.MD{"set-cookie": r.header}, metadata.MD{"set-cookie": r.trailer})
}

// has returns the token in the jar.
func (b *browser) has() string { return b.get(session.StatefulSessionCookieName) }

// A stream that outlives its session says nothing of cookies when it ends: by
// then the client may have a new one.
func TestALateDeletionNeverKillsANewerCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		gate := make(chan struct{})
		e := serveEdgeInBubble(t, edge(store), &sqlServer{statements: map[string]statement{
			"wait": func(context.Context, session.ServerSession) error { <-gate; return nil },
		}})
		b := &browser{c: e.client()}
		b.arrive(b.send(setOption("schema", "old")))
		old := b.has()
		stream := b.c.start(scan("wait"), session.StatefulSessionCookieName+"="+old)
		synctest.Wait()
		b.arrive(b.send(closeSession))
		if b.has() != "" {
			t.Fatal("CloseSession did not delete the cookie")
		}
		b.arrive(b.send(setOption("schema", "new")))
		fresh := b.has()
		close(gate)
		b.arrive(<-stream)
		if b.has() != fresh || fresh == "" || fresh == old {
			t.Error("the end of an old stream took the new cookie along")
		}
	})
}

// Calls that come with a cookie after its session was closed get no new one,
// which the deletion would take along if it arrived later: they are told, until
// every reply that was under way has arrived.
func TestAFreshCookieIsNeverUndoneByTheDeletionOfAParallelCall(t *testing.T) {
	for _, holds := range []bool{true, false} {
		t.Run(fmt.Sprint("holds ", holds), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := shortLived(t)
				b := &browser{c: serveEdgeInBubble(t, edge(store), makesSession()).client()}
				first := info("ensure")
				if holds {
					first = setOption("schema", "prod")
				}
				b.arrive(b.send(first))
				old := session.StatefulSessionCookieName + "=" + b.has()
				closing := b.send(closeSession) // its reply is under way
				parallel := []reply{b.send(info("ensure")), b.send(setOption("schema", "new")), b.send(scan("")), b.send(closeSession)}
				for i, r := range parallel {
					if i < 3 {
						wantLost(t, store, old, r, "CLOSED")
					} else if r.err != nil || r.header != nil || r.trailer != nil {
						t.Errorf("the second CloseSession: %+v", r)
					}
					b.arrive(r)
				}
				b.arrive(closing)
				if b.has() != "" || closing.err != nil {
					t.Errorf("the cookie was not deleted: %v", closing.err)
				}
				b.arrive(b.send(setOption("schema", "new")))
				if b.has() == "" {
					t.Error("no new session")
				}
				// A client that has missed the deletion is not locked out.
				wait(session.DefaultTellWindow)
				b.c.must(setOption("schema", "new"), old).cookie(t)
			})
		})
	}
}

// Under RenewDead, where calls with a dead cookie get a new session at once,
// there are no deletions that could meet it.
func TestUnderRenewDeadNothingIsDeleted(t *testing.T) {
	store := newStore(t)
	b := &browser{c: serveEdge(t, edge(store, session.WithDeadTokens(session.RenewDead)), nil).client()}
	b.arrive(b.send(setOption("schema", "old")))
	closing := b.send(closeSession)
	renewed := b.send(setOption("schema", "new"))
	for _, order := range [][]reply{{closing, renewed}, {renewed, closing}} {
		for _, r := range order {
			b.arrive(r)
		}
		if got := session.StatefulSessionCookieName + "=" + b.has(); got != renewed.cookie(t) {
			t.Error("the new cookie is gone")
		}
	}
}

// In whatever order replies arrive, a deletion takes no cookie along but that of
// a session which its client has closed.
func TestDeletionsTakeOnlyClosedSessionsAlong(t *testing.T) {
	store := newStore(t)
	e := serveEdge(t, edge(store), makesSession())
	c := e.client()
	rapid.Check(t, func(t *rapid.T) {
		b := &browser{c: c}
		var underWay []reply
		arrive := func(i int) {
			r := underWay[i]
			underWay = slices.Delete(underWay, i, i+1)
			deletes := strings.Contains(fmt.Sprint(r.header, r.trailer), "Max-Age=0")
			had := b.has()
			b.arrive(r)
			if had != "" && b.has() == "" && deletes {
				if _, err := store.Acquire(context.Background(), had); err == nil {
					t.Fatalf("a deletion took a live cookie along")
				}
			}
		}
		// One session to begin with: without a cookie, no call can be told from one
		// of another client.
		underWay = append(underWay, b.send(setOption("schema", "x")))
		arrive(0)
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			if len(underWay) > 0 && (b.has() == "" || rapid.Bool().Draw(t, "deliver")) {
				arrive(rapid.IntRange(0, len(underWay)-1).Draw(t, "which"))
				continue
			}
			if b.has() == "" {
				underWay = append(underWay, b.send(setOption("schema", "x")))
				arrive(len(underWay) - 1)
				continue
			}
			f := rapid.SampledFrom([]call{setOption("schema", "x"), closeSession, info(""), info("ensure"), scan("")}).Draw(t, "call")
			underWay = append(underWay, b.send(f))
		}
		for len(underWay) > 0 {
			arrive(rapid.IntRange(0, len(underWay)-1).Draw(t, "which"))
		}
	})
}

// Of two calls that close a session at the same time, one has the client drop its
// cookie, whatever else comes with it meanwhile, and nothing that comes with it
// afterwards gets through.
func TestClosingTwiceAtOnceIsClosing(t *testing.T) {
	store := newStore(t)
	e := serveEdge(t, edge(store), nil)
	clients, other := []*client{e.client(), e.client()}, e.client()
	for range 1000 {
		cookie := clients[0].must(setOption("schema", "prod")).cookie(t)
		var both sync.WaitGroup
		var deletions atomic.Int32
		both.Go(func() { other.do(info(""), cookie) }) // came in time or is told
		for _, c := range clients {
			both.Go(func() {
				r := c.do(closeSession, cookie)
				deletions.Add(int32(len(r.header) + len(r.trailer)))
			})
		}
		both.Wait()
		if n := deletions.Load(); n > 1 || n == 0 {
			t.Fatalf("%d deletions", n)
		}
		wantLost(t, store, cookie, clients[0].do(info(""), cookie), "CLOSED")
	}
}
