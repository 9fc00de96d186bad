// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// An Open that ends its goroutine is "contained: ... an error, and so is
// runtime.Goexit": the client gets an answer.
func TestAttackGoexitInOpenLeavesTheClientWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		w.opens = func(context.Context) error { runtime.Goexit(); return nil }
		c := serveEdgeInBubble(t, edge(newStore(t)), w.server()).client()
		err := c.do(func(ctx context.Context, cl *flightsql.Client, opts ...grpc.CallOption) error {
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			return info("use")(ctx, cl, opts...)
		}).err
		if status.Code(err) == codes.DeadlineExceeded {
			t.Error("after an hour there is no answer")
		}
	})
}

// A principal that cannot be told.
func TestAttackHandlesAndBrokenPrincipals(t *testing.T) {
	n := newCounter()
	c := serveEdge(t, edge(newStore(t), session.WithPrincipal(who)), n.sqlServer).client()
	handle, _ := n.begin(c, "x-user", "alice")
	for _, user := range []string{"panicking", "failing", "refused"} {
		err := c.do(with(presenting(info("use"), handle), "x-user", user)).err
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "who is that") {
			t.Errorf("%s: %v", user, err)
		}
	}
	c.must(with(presenting(info("use"), handle), "x-user", "alice"))
}

// Handles while their session is renewed, closed, killed and begun anew by its
// principal all the time: whatever a handle opens is the session it was made in.
func TestAttackHandlesRaceWithEverything(t *testing.T) {
	for _, named := range []bool{false, true} {
		n := newCounter()
		store := newStore(t)
		opt := session.WithPrincipal(who)
		if named {
			opt = session.WithCarriers(session.ByPrincipal(who))
		}
		var mu sync.Mutex
		made := make(map[string]string) // the schema of the session of a handle
		n.statements["make"] = func(ctx context.Context, s session.ServerSession) error {
			id := time.Now().Format(time.RFC3339Nano)
			s, err := session.Begin(ctx)
			if err != nil {
				return err
			}
			if err := session.SetOption(ctx, "mine", text(id)); err != nil {
				return err
			}
			h, err := session.NewHandle(ctx, "k", []byte(id))
			mu.Lock()
			defer mu.Unlock()
			made[string(h)] = id
			return err
		}
		wrong := 0
		n.statements["resolve"] = func(ctx context.Context, _ session.ServerSession) error {
			mu.Lock()
			var h string
			for h = range made {
				break
			}
			mu.Unlock()
			object, err := session.ResolveHandle(ctx, "k", []byte(h))
			if err != nil {
				return err
			}
			s, _ := session.GetSessionFromContext(ctx)
			if got := s.GetSessionOption("mine").GetStringValue(); got != string(object) {
				mu.Lock()
				wrong++
				mu.Unlock()
			}
			return nil
		}
		e := serveEdge(t, edge(store, opt), n.sqlServer)
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				c, cookie := e.client(), ""
				for range 150 {
					f := with(info("make"), "x-user", "alice")
					if i > 1 {
						f = with(info("resolve"), "x-user", "alice")
					}
					r := c.do(f, cookie)
					if len(r.header) == 1 {
						cookie = r.header[0]
					}
					if i == 0 && !named {
						for j := range store.All() {
							store.Kill(j.Fingerprint)
							break
						}
					}
				}
			})
		}
		wg.Wait()
		if wrong > 0 {
			t.Errorf("by principal: %t: %d handles have opened another session than theirs", named, wrong)
		}
		for i := range store.All() {
			if i.Leases != 0 {
				t.Errorf("%d leases", i.Leases)
			}
		}
	}
}
