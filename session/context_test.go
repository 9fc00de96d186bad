// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// The context of a session ends with it, not with a call, also when it was renewed.
func TestTheContextOfASessionEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t, layover.WithIdleTimeout(time.Hour), layover.WithUnconfirmedTimeouts(time.Hour, time.Hour))
		var within context.Context
		srv := renewing()
		srv.statements["context"] = func(ctx context.Context, _ session.ServerSession) (err error) {
			within, err = session.Context(ctx)
			return err
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		if err := c.do(info("context")).err; err == nil || store.Len() != 0 {
			t.Errorf("a call without a session: %v, %d sessions", err, store.Len())
		}
		cookie := c.must(setOption("a", "b")).cookie(t)
		c.must(info("context"), cookie)
		cookie = c.must(info("RENEW"), cookie).cookie(t)
		wait(time.Hour - late)
		if within.Err() != nil {
			t.Error("it has ended before the session")
		}
		wait(2 * late)
		ended := (*layover.EndedError)(nil)
		if !errors.As(context.Cause(within), &ended) || ended.Reason != layover.ReasonIdle || ended.Fingerprint != store.Fingerprint(token(cookie)) {
			t.Errorf("the cause is %v", context.Cause(within))
		}
	})
}

// With WithCancelOnKill, calls under way end with their session if it is killed, and
// their client is told; without it they go on. Closing it cancels nothing.
func TestCallsAreCanceledByAKillIfWanted(t *testing.T) {
	for name, do := range map[string]call{"unary": info("long"), "stream": directScan("long")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { canceledByAKill(t, do) })
		})
	}
}

func canceledByAKill(t *testing.T, do call) {
	store := newStore(t)
	makes := false
	gate := make(chan struct{})
	srv := &sqlServer{statements: map[string]statement{"long": func(ctx context.Context, _ session.ServerSession) error {
		if makes {
			if _, err := session.Ensure(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-gate:
			return nil
		}
	}}}
	start := func(c *client, cookies ...string) chan reply {
		done := make(chan reply, 1)
		go func() { done <- c.do(do, cookies...) }()
		synctest.Wait()
		return done
	}
	kill := func() (n int) {
		for info := range store.All() {
			store.Kill(info.Fingerprint)
			n++
		}
		synctest.Wait()
		return n
	}
	canceling := serveEdgeInBubble(t, edge(store, session.WithCancelOnKill()), srv).client()
	going := serveEdgeInBubble(t, edge(store), srv).client()

	cookie := canceling.must(setOption("a", "b")).cookie(t)
	done := start(canceling, cookie)
	other := start(going, cookie)
	kill()
	wantLost(t, store, cookie, <-done, "KILLED")
	gate <- struct{}{}
	if err := (<-other).err; err != nil {
		t.Errorf("without the option: %v", err)
	}

	makes = true
	done = start(canceling)
	if n := kill(); n != 1 {
		t.Fatalf("%d sessions", n)
	}
	err := (<-done).err
	if got, _ := reason(err); status.Code(err) != codes.NotFound || got != "SESSION_KILLED" {
		t.Errorf("of a session that the call has made: %v", err)
	}

	makes = false
	cookie = canceling.must(setOption("a", "b")).cookie(t)
	done = start(canceling, cookie)
	canceling.must(closeSession, cookie)
	wait(time.Minute)
	gate <- struct{}{}
	if err := (<-done).err; err != nil {
		t.Errorf("after CloseSession: %v", err)
	}
}

// A shutdown that runs out of time cancels calls, which are told to come back later.
func TestCallsAreCanceledByALateShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := session.NewSessionStore(layover.WithLogger(nil))
		srv := &sqlServer{statements: map[string]statement{"long": func(ctx context.Context, _ session.ServerSession) error {
			<-ctx.Done()
			return ctx.Err()
		}}}
		c := serveEdgeInBubble(t, edge(store, session.WithCancelOnKill()), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		done := make(chan reply, 1)
		go func() { done <- c.do(info("long"), cookie) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := store.Shutdown(ctx); err == nil {
			t.Error("it was not late")
		}
		err := (<-done).err
		if got, _ := reason(err); status.Code(err) != codes.Unavailable || got != "SESSION_SHUTDOWN" {
			t.Errorf("got %v", err)
		}
		_ = store.Shutdown(t.Context())
	})
}

func TestCancelOnKillNeedsContexts(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("it is taken for a store without contexts")
		}
	}()
	session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(&fakeStore{})), session.WithCancelOnKill())
}
