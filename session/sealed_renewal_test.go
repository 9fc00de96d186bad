// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover/session"
)

// What a call under way with the old ID sets is not in the renewed session, also while the
// call that has renewed it goes on.
func TestARenewedSessionSharesNothingWithWhatItWas(t *testing.T) {
	renewed, proceed := make(chan struct{}), make(chan struct{})
	opened, attack := make(chan struct{}), make(chan struct{})
	var evil string
	s := &sqlServer{statements: map[string]statement{
		"RENEW": func(ctx context.Context, cur session.ServerSession) error {
			if err := session.Renew(ctx, session.Principal{Name: "alice"}); err != nil {
				return err
			}
			close(renewed)
			<-proceed
			evil = cur.GetSessionOption("evil").GetStringValue()
			return nil
		},
		"ATTACK": func(_ context.Context, cur session.ServerSession) error {
			close(opened)
			<-attack
			cur.SetSessionOption("evil", text("x"))
			return nil
		},
	}}
	c := serveEdge(t, over(sealing(t), session.WithPrincipal(who)), s).client()
	planted := c.must(setOption("schema", "prod")).cookie(t)
	thief, victim := make(chan reply), make(chan reply)
	go func() { thief <- c.do(info("ATTACK"), planted) }()
	<-opened
	go func() { victim <- c.do(info("RENEW"), planted) }()
	<-renewed
	close(attack)
	if r := <-thief; r.err == nil || r.header != nil || r.trailer != nil {
		t.Errorf("the thief is told %v, header %q", r.err, r.header)
	}
	close(proceed)
	cookie := (<-victim).cookie(t)
	if got := c.as("alice", "evil", cookie); got != "" || evil != "" {
		t.Errorf("her session has evil = %q, while her call ran %q", got, evil)
	}
	if got := c.as("alice", "schema", cookie); got != "prod" {
		t.Errorf("schema %q", got)
	}
}

// A close that began before a renewal, and is done after it, closes what the session was
// renewed to, unless that is somebody else's by then: who planted the token cannot close
// the session of who has logged in.
func TestACloseBesideARenewalClosesItsOwnOnly(t *testing.T) {
	for name, login := range map[string][]session.Principal{"renewed": nil, "logged in": {{Name: "alice"}}} {
		t.Run(name, func(t *testing.T) {
			h := newHook()
			h.by = []chan error{make(chan error), make(chan error)}
			c := serveEdge(t, over(sealing(t, session.WithRevocation(10, func(ctx context.Context, r session.Revocation) error {
				if int(h.n.Load()) >= len(h.by) {
					return nil
				}
				return h.share(ctx, r)
			})), session.WithPrincipal(who)), renewing(login...)).client()
			cookie := c.must(setOption("schema", "prod")).cookie(t)
			closing, renewal := make(chan reply), make(chan reply)
			go func() { closing <- c.do(closeSession, cookie) }()
			<-h.begun
			go func() { renewal <- c.do(info("RENEW"), cookie) }()
			select {
			case <-h.begun:
				h.by[1] <- nil
			case r := <-renewal: // the close came first
				close(h.by[0])
				if <-closing; r.err == nil {
					t.Errorf("renewed: %v", r)
				}
				return
			}
			r := <-renewal
			h.by[0] <- nil
			if done := <-closing; done.err != nil || r.err != nil {
				t.Fatalf("closed: %v, renewed: %v", done.err, r.err)
			}
			want, user := "", ""
			if login != nil {
				want, user = "prod", "alice"
			}
			if got := c.as(user, "schema", r.cookie(t)); got != want {
				t.Errorf("the renewed session has schema %q, want %q", got, want)
			}
			if got := c.option("schema", cookie); got != "" {
				t.Errorf("the old token has schema %q", got)
			}
		})
	}
}

// A later proof is in the next answer's token, also if that is not due for the time of the
// last use.
func TestALaterProofIsInTheNextToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends time.Time
		by := func(context.Context) (session.Principal, error) {
			return session.Principal{Name: "alice", Expires: ends}, nil
		}
		c := serveEdgeInBubble(t, over(sealing(t, short()), session.WithPrincipal(by)), nil).client()
		ends = time.Now().Add(time.Minute)
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		ends = ends.Add(30 * time.Second)
		quiet(t, c.must(info(""), cookie)) // as precise as the time of the last use
		ends = ends.Add(10 * time.Minute)
		later := c.must(info(""), cookie).cookie(t)
		wait(8 * time.Minute)
		if got := c.option("schema", later); got != "prod" {
			t.Errorf("schema %q", got)
		}
		wantGone(t, c.do(info(""), cookie), "LIFETIME")
	})
}
