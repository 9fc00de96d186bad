// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// "one whose Open asks for another one is closed before that"
func TestAttackWhatAnOpenAskedForIdlesOutUnderIt(t *testing.T) {
	for _, why := range []string{"idle", "capacity"} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := newWires()
				inner.IdleTimeout = time.Minute
				var needs *wire
				outer := newWires()
				outer.IdleTimeout = time.Minute
				outer.opens = func(ctx context.Context) (err error) { needs, err = inner.Get(ctx, ""); return err }
				store := newStore(t)
				_ = store.SetMaxResources(2)
				srv := outer.server()
				srv.statements["use"] = func(ctx context.Context, _ session.ServerSession) error {
					c, err := outer.Get(ctx, "")
					if err == nil && !c.done && needs.done {
						err = errors.New("a call uses one whose inner one is closed")
					}
					return err
				}
				srv.statements["long"] = func(ctx context.Context, _ session.ServerSession) error {
					_, err := outer.Get(ctx, "")
					<-time.After(10 * time.Minute)
					if needs.done {
						err = errors.New("the inner one was closed under a call that uses the outer one")
					}
					return err
				}
				srv.statements["third"] = func(ctx context.Context, _ session.ServerSession) error { _, err := inner.Get(ctx, "3"); return err }
				c := serveEdgeInBubble(t, edge(store), srv).client()
				cookie := c.must(info("use")).cookie(t)
				if why == "capacity" {
					wait(time.Second)
					c.must(info("use"), cookie)
					c.must(info("third"), c.must(setOption("a", "b")).cookie(t))
					if needs.done && len(outer.closed) == 0 {
						t.Error("the inner one is closed for another one, the outer one is open")
					}
					return
				}
				for range 4 {
					wait(30 * time.Second)
					if err := c.do(info("use"), cookie).err; err != nil {
						t.Error(err)
					}
				}
				cookie = c.must(info("use")).cookie(t)
				if err := c.do(info("long"), cookie).err; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// Whose the session is counts, not where it came from before a login.
func TestAttackALoginDoesNotMoveTheResources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		_ = store.SetMaxResources(3)
		srv := w.server()
		srv.statements["login"] = func(ctx context.Context, _ session.ServerSession) error {
			return session.Renew(ctx, session.Principal{Name: "alice"})
		}
		c := serveEdgeInBubble(t, edge(store, session.WithPrincipal(who)), srv).client()
		alice := func(f call) call { return with(f, "x-user", "alice") }
		// Alice's one connection is from before her login, the other from after it;
		// somebody anonymous at the same host has one.
		before := c.must(info("use")).cookie(t)
		before = c.must(info("login"), before).cookie(t)
		after := c.must(alice(info("use"))).cookie(t)
		anonymous := c.must(info("use")).cookie(t)
		c.must(info("use"), anonymous) // all are confirmed
		wait(time.Second)
		c.must(alice(info("use")), before)
		c.must(alice(info("use")), after)
		w.want(t, 3)
		// Carol, who has none, must push out one of alice's two.
		c.must(with(info("use"), "x-user", "carol"))
		synctest.Wait()
		for _, e := range w.ends {
			if e.Session == store.Fingerprint(token(anonymous)) {
				t.Error("the only one of its source made room, not one of alice's two")
			}
		}
	})
}

// "if all are in use, ErrResourceLimit"
func TestAttackRefusedThoughNotAllAreInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		_ = store.SetMaxResources(3)
		srv := w.server()
		gate := make(chan struct{})
		srv.statements["long"] = func(ctx context.Context, _ session.ServerSession) error {
			_, err := w.Get(ctx, "")
			<-gate
			return err
		}
		c := serveEdgeInBubble(t, edge(store, session.WithPrincipal(who)), srv).client()
		alice := func(f call) call { return with(f, "x-user", "alice") }
		c.must(with(info("use"), "x-user", "bob"))
		done := make(chan reply, 2)
		for range 2 {
			go func() { done <- c.do(alice(info("long"))) }()
		}
		synctest.Wait()
		err := c.do(alice(info("use"))).err
		if err != nil && strings.Contains(err.Error(), "as many as may be are in use") && store.Resources().Busy < 3 {
			t.Errorf("%v, but %d are in use", err, store.Resources().Busy)
		}
		close(gate)
		<-done
		<-done
	})
}

// A Close that fails is reported without secrets, with any logger.
func TestAttackAFailingCloseIsReported(t *testing.T) {
	for _, logs := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var log logBuffer
			tok := ""
			r := &session.Resource[int]{Name: "n", IdleTimeout: time.Second, Open: func(ctx context.Context, _ string) (int, error) {
				s, _ := session.Lookup(ctx)
				tok = s.Token()
				return 1, nil
			}, Close: func(int) error { return fmt.Errorf("closing %s", tok) }}
			srv := &sqlServer{statements: map[string]statement{"x": func(ctx context.Context, _ session.ServerSession) error { _, err := r.Get(ctx, "k"); return err }}}
			opts := []session.MiddlewareOption{}
			if logs {
				opts = append(opts, session.WithLogger(log.logger()))
			}
			store := newStore(t, layover.WithLogger(log.logger()))
			c := serveEdgeInBubble(t, edge(store, opts...), srv).client()
			cookie := c.must(info("x")).cookie(t)
			wait(2 * time.Second)
			if logs != strings.Contains(log.String(), "could not be closed") {
				t.Error(log.String())
			}
			c.must(info("x"), cookie)
			c.must(closeSession, cookie)
			wait(time.Second)
			if strings.Contains(log.String(), tok) {
				t.Error("the token is in the log: " + log.String())
			}
		})
	}
}

// The errors of Opened are "fit for the client", as those of Get.
func TestAttackOpenedsErrorIsRaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		gate := make(chan struct{})
		w.opens = func(context.Context) error { <-gate; return nil }
		srv := w.server()
		srv.statements["opened"] = func(ctx context.Context, _ session.ServerSession) error {
			ctx, cancel := context.WithTimeoutCause(ctx, time.Second, errors.New("secret: hunter2"))
			defer cancel()
			_, get := w.Get(ctx, "")
			_, _, opened := w.Opened(ctx, "")
			if status.Code(get) != codes.DeadlineExceeded {
				t.Errorf("Get: %v", get)
			}
			return opened
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		cookie := c.must(setOption("a", "b")).cookie(t)
		go c.do(info("use"), cookie)
		synctest.Wait()
		if err := c.do(info("opened"), cookie).err; status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("the client gets %v", err)
		}
		close(gate)
		synctest.Wait()
	})
}
