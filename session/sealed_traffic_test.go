// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// Users of two replicas set options, renew, close and log in again, each with calls at
// the same time, while keys are rotated: each sees its own options and nobody else's, no
// session that was closed comes back, and at the end nothing is in use.
func TestTrafficOfSealedSessions(t *testing.T) {
	const users, rounds = 8, 60
	first := aKey()
	keys := ring(t, first)
	var here, there *session.StatelessServerSessionManager
	here = sealingBy(t, keys, session.WithRevocation(10_000, func(_ context.Context, r session.Revocation) error { return there.Revoke(r) }))
	there = sealingBy(t, keys, session.WithRevocation(10_000, func(_ context.Context, r session.Revocation) error { return here.Revoke(r) }))
	var alarmed alarms
	var replicas []*endpoint
	for _, m := range []*session.StatelessServerSessionManager{here, there} {
		s := &sqlServer{base: new(session.BaseServer), statements: map[string]statement{
			"RENEW": func(ctx context.Context, _ session.ServerSession) error { return session.Renew(ctx) },
		}}
		replicas = append(replicas, serveEdge(t, over(m, session.WithPrincipal(who), session.WithSecurityEvents(alarmed.tell)), s))
	}
	current := [][]byte{first}
	rotate := func() { // by one user
		current = append([][]byte{aKey()}, current...)
		if err := keys.Set(current[0], current[1:]...); err != nil {
			t.Error(err)
		}
	}
	var wg sync.WaitGroup
	for n := range users {
		u := &sealedUser{t: t, name: fmt.Sprint("user-", n), replicas: replicas, rotate: func() {}}
		if n == 0 {
			u.rotate = rotate
		}
		wg.Go(func() { u.run(rounds) })
	}
	wg.Wait()
	if events := alarmed.take(); len(events) > 0 {
		t.Errorf("%d tokens were taken for somebody else's, such as %+v", len(events), events[0])
	}
	for i, m := range []*session.StatelessServerSessionManager{here, there} {
		if got := m.Stats(); got.InUse != 0 || got.Forged != 0 || got.Future != 0 || got.Refused != 0 {
			t.Errorf("replica %d: %+v", i, got)
		}
	}
}

// sealedUser is one user of the traffic.
type sealedUser struct {
	t        *testing.T
	name     string
	replicas []*endpoint
	rotate   func()
	closed   []string // cookies of sessions that were closed
}

func (u *sealedUser) run(rounds int) {
	var cookies jar
	var all []*client
	for _, e := range u.replicas {
		all = append(all, cookies.client(e))
	}
	bare := u.replicas[0].client()
	set := ""
	for i := range rounds {
		c := all[rand.IntN(len(all))]
		as := func(f call) reply {
			r := c.do(with(f, "x-user", u.name))
			if r.err != nil {
				u.t.Errorf("%s: %v", u.name, r.err)
			}
			return r
		}
		switch rand.IntN(6) {
		case 0, 1:
			set = fmt.Sprint(u.name, "/", i)
			as(setOption("mine", set))
		case 2:
			as(info("RENEW"))
		case 3:
			before := session.StatelessSessionCookieName + "=" + cookies.get(session.StatelessSessionCookieName)
			if as(closeSession); set != "" {
				u.closed = append(u.closed, before)
			}
			set = ""
		case 4:
			var wg sync.WaitGroup
			for range 3 {
				wg.Go(func() { as(scan("")) })
			}
			wg.Wait()
		case 5:
			u.rotate()
			for _, cookie := range u.closed {
				if got := bare.as(u.name, "mine", cookie); got != "" {
					u.t.Errorf("%s: a closed session has %q", u.name, got)
				}
			}
		}
		var options map[string]*flight.SessionOptionValue
		r := c.do(with(getOptions(&options), "x-user", u.name))
		switch got := options["mine"].GetStringValue(); {
		case status.Code(r.err) == codes.NotFound && got == "":
			if why, _ := reason(r.err); set != "" && why == "SESSION_NONE" {
				u.t.Errorf("%s has no session, and was told nothing", u.name)
			}
		case r.err != nil:
			u.t.Errorf("%s: %v", u.name, r.err)
		case got != set:
			u.t.Errorf("%s has %q, want %q", u.name, got, set)
		}
	}
}
