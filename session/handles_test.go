// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// counter is a server that gives out handles, and whose calls present them in a
// header, as Flight SQL does in a command.
type counter struct {
	*sqlServer
	mu     sync.Mutex
	handle []byte
	object []byte
}

const handleHeader = "x-handle-bin"

func newCounter() *counter {
	n := &counter{sqlServer: new(sqlServer)}
	n.statements = map[string]statement{
		"begin": func(ctx context.Context, _ session.ServerSession) (err error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.handle, err = session.NewHandle(ctx, "transaction", []byte("object 1"))
			return err
		},
		"use":       n.use("transaction"),
		"statement": n.use("statement"),
		"renew": func(ctx context.Context, _ session.ServerSession) error {
			user := strings.Join(metadata.ValueFromIncomingContext(ctx, "x-login"), "")
			if user == "" {
				return session.Renew(ctx)
			}
			return session.Renew(ctx, session.Principal{Name: user})
		},
	}
	return n
}

// use resolves the handles of the call, and checks what that gives.
func (n *counter) use(kind string) statement {
	return func(ctx context.Context, _ session.ServerSession) error {
		for _, handle := range metadata.ValueFromIncomingContext(ctx, handleHeader) {
			object, err := session.ResolveHandle(ctx, kind, []byte(handle))
			if err != nil {
				return err
			}
			n.mu.Lock()
			n.object = object
			n.mu.Unlock()
			s, err := session.Lookup(ctx)
			if err != nil {
				return errors.Join(err, errors.New("no session after all"))
			}
			if schema := s.GetSessionOption("schema").GetStringValue(); schema != "prod" {
				return fmt.Errorf("the schema is %q", schema)
			}
		}
		return nil
	}
}

// begin returns a handle in a new session with schema "prod", and its cookie.
func (n *counter) begin(c *client, headers ...string) (handle, cookie string) {
	c.t.Helper()
	cookie = c.must(with(setOption("schema", "prod"), headers...)).cookie(c.t)
	c.must(with(info("begin"), headers...), cookie)
	return string(n.handle), cookie
}

func presenting(f call, handles ...string) call {
	var headers []string
	for _, h := range handles {
		headers = append(headers, handleHeader, h)
	}
	return with(f, headers...)
}

func wantUnknown(t *testing.T, what string, err error) {
	t.Helper()
	if got, _ := reason(err); status.Code(err) != codes.NotFound || got != "SESSION_HANDLE_UNKNOWN" {
		t.Errorf("%s: %v, reason %q", what, err, got)
	}
}

// A call without cookies, on any connection, has the session of the handle that it
// presents, and no cookie is set.
func TestAHandleFindsItsSessionWithoutACookie(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	e := serveEdge(t, edge(store), n.sqlServer)
	handle, _ := n.begin(e.client())
	for range 3 {
		c := e.client()
		for _, do := range []call{info("use"), scan("use"), directScan("use")} {
			if r := c.must(presenting(do, handle)); r.header != nil || r.trailer != nil {
				t.Errorf("header %q, trailer %q", r.header, r.trailer)
			}
		}
	}
	if string(n.object) != "object 1" || store.Len() != 1 {
		t.Errorf("the object is %q, there are %d sessions", n.object, store.Len())
	}
	if strings.Contains(handle, "object") {
		t.Error("anybody can read the handle")
	}
}

// A call without a session that needs a handle makes one; the handle that comes back
// confirms it, so that it lives on as others do. A call that uses it is a use.
func TestAHandleThatComesBackConfirmsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newCounter()
		store := newStore(t, layover.WithIdleTimeout(time.Hour), layover.WithUnconfirmedTimeouts(time.Second, time.Minute))
		n.statements["any"] = func(ctx context.Context, _ session.ServerSession) error {
			_, err := session.ResolveHandle(ctx, "transaction", n.handle)
			return err
		}
		c := serveEdgeInBubble(t, edge(store), n.sqlServer).client()
		c.must(info("begin"))
		wait(time.Minute - late)
		for range 3 {
			c.must(info("any"))
			wait(time.Hour - late)
		}
		if store.Len() != 1 {
			t.Error("it is gone")
		}
		wait(2 * late)
		if store.Len() != 0 {
			t.Error("it is there yet")
		}
	})
}

// What is not a handle of this kind, or of this store, is unknown, whatever it is.
func TestAForgedHandleIsUnknown(t *testing.T) {
	n, other := newCounter(), newCounter()
	c := serveEdge(t, edge(newStore(t)), n.sqlServer).client()
	elsewhere := serveEdge(t, edge(newStore(t)), other.sqlServer).client()
	handle, cookie := n.begin(c)
	foreign, _ := other.begin(elsewhere)
	wantUnknown(t, "of another store", c.do(presenting(info("use"), foreign)).err)
	wantUnknown(t, "of another kind", c.do(presenting(info("statement"), handle)).err)
	wantUnknown(t, "of another kind, with the cookie", c.do(presenting(info("statement"), handle), cookie).err)
	for _, forged := range []string{"", "x", handle[:16], handle[:17], handle[:len(handle)-1], handle + "x", strings.Repeat("x", 100), foreign[:17] + handle[17:], handle[:17] + foreign[17:]} {
		wantUnknown(t, fmt.Sprintf("forged %q", forged), c.do(presenting(info("use"), forged), cookie).err)
	}
	for i := range len(handle) {
		flipped := []byte(handle)
		flipped[i] ^= 1
		wantUnknown(t, fmt.Sprint("byte ", i), c.do(presenting(info("use"), string(flipped))).err)
	}
	c.must(presenting(info("use"), handle))
}

// A handle is worth nothing to anybody but its session's owner, and a try is reported.
func TestAHandleIsWorthNothingToAnybodyElse(t *testing.T) {
	n := newCounter()
	var seen alarms
	store := newStore(t)
	c := serveEdge(t, edge(store, session.WithPrincipal(who), session.WithSecurityEvents(seen.tell)), n.sqlServer).client()
	handle, cookie := n.begin(c, "x-user", "alice")
	for _, thief := range []string{"bob", ""} {
		wantUnknown(t, thief, c.do(with(presenting(info("use"), handle), "x-user", thief)).err)
	}
	events := seen.take()
	if len(events) != 2 || events[0].Kind != session.ForeignToken || events[0].Owner != "principal alice" || events[0].Session != store.Fingerprint(token(cookie)) {
		t.Errorf("%+v", events)
	}
	c.must(with(presenting(info("use"), handle), "x-user", "alice"))
	// Not even when it is over.
	c.must(with(closeSession, "x-user", "alice"), cookie)
	err := c.do(with(presenting(info("use"), handle), "x-user", "bob")).err
	if strings.HasPrefix(status.Convert(err).Message(), session.LostPrefix) {
		t.Errorf("somebody else is told why it ended: %v", err)
	}
	wantLost(t, store, cookie, reply{err: c.do(with(presenting(info("use"), handle), "x-user", "alice")).err}, "CLOSED")
}

// Once the session has ended, its handles are refused, every time, and with the reason.
func TestAStaleHandleIsRefusedWithTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newCounter()
		store := newStore(t, layover.WithIdleTimeout(time.Minute))
		c := serveEdgeInBubble(t, edge(store), n.sqlServer).client()
		handle, cookie := n.begin(c)
		wait(time.Minute + late)
		for range 3 {
			for _, do := range []call{info("use"), directScan("use")} {
				wantLost(t, store, cookie, c.do(presenting(do, handle)), "IDLE")
			}
			wait(time.Hour)
		}
		if store.Len() != 0 {
			t.Error("it has made a session")
		}
		handle, cookie = n.begin(c)
		c.must(closeSession, cookie)
		wantLost(t, store, cookie, c.do(presenting(info("use"), handle)), "CLOSED")
	})
}

// A session that got a new ID has its handles yet; to who had them before it got a new
// owner they are worth nothing.
func TestHandlesOutliveARenewal(t *testing.T) {
	n := newCounter()
	store := newStore(t, layover.WithIdleTimeout(time.Minute))
	c := serveEdge(t, edge(store, session.WithPrincipal(who)), n.sqlServer).client()
	handle, cookie := n.begin(c)
	cookie = c.must(info("renew"), cookie).cookie(t)
	c.must(presenting(info("use"), handle))
	cookie = c.must(with(info("renew"), "x-login", "alice"), cookie).cookie(t)
	wantUnknown(t, "who it was before the login", c.do(presenting(info("use"), handle)).err)
	c.must(with(presenting(info("use"), handle), "x-user", "alice"))
	c.must(with(closeSession, "x-user", "alice"), cookie)
	wantUnknown(t, "after the end", c.do(with(presenting(info("use"), handle), "x-user", "alice")).err)
}

// A client that has made several sessions at once may send the cookie of one and the
// handle of another one: the handle counts. Two handles must agree.
func TestAHandleCountsMoreThanACookie(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	c := serveEdge(t, edge(store), n.sqlServer).client()
	other := c.must(setOption("schema", "test")).cookie(t)
	handle, cookie := n.begin(c)
	c.must(presenting(info("use"), handle), other)
	second, _ := n.begin(c)
	err := c.do(presenting(info("use"), handle, second), cookie).err
	if got, _ := reason(err); status.Code(err) != codes.InvalidArgument || got != "SESSION_AMBIGUOUS" {
		t.Errorf("two handles: %v", err)
	}
	c.must(presenting(info("use"), handle, handle))
	for info := range store.All() {
		if info.Leases != 0 {
			t.Errorf("after all calls it has %d leases", info.Leases)
		}
	}
}

// Handles of one session are all different, even of one object.
func TestHandlesTellNothing(t *testing.T) {
	n := newCounter()
	c := serveEdge(t, edge(newStore(t)), n.sqlServer).client()
	handle, cookie := n.begin(c)
	c.must(info("begin"), cookie)
	if bytes.Equal([]byte(handle)[17:], n.handle[17:]) {
		t.Error("they are alike")
	}
	if strings.Contains(handle, token(cookie)) {
		t.Error("the token is in the handle")
	}
}

func TestHandlesNeedTLSWhereTokensDo(t *testing.T) {
	n := newCounter()
	store := newStore(t)
	handle, _ := n.begin(serveEdge(t, edge(store), n.sqlServer).client())
	err := serveEdge(t, edge(store, session.WithTLSRequired()), n.sqlServer).client().do(presenting(info("use"), handle)).err
	if got, _ := reason(err); got != "SESSION_NEEDS_TLS" {
		t.Errorf("got %v", err)
	}
}
