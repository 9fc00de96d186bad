// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// login is a middleware whose handshakes do f.
func loggingIn(f func(ctx context.Context) error) flight.ServerMiddleware {
	return flight.ServerMiddleware{Unary: func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		return next(ctx, req)
	}, Stream: func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if strings.HasSuffix(info.FullMethod, "/Handshake") {
			return f(stream.Context())
		}
		return next(srv, stream)
	}}
}

// Handshakes get no session but by Begin, whatever cookie the client sends.
func TestAHandshakeWithACookieHasNoSession(t *testing.T) {
	w := newWires()
	var get, lookup, set, res, handle error
	store := newStore(t)
	login := loggingIn(func(ctx context.Context) error {
		_, get = session.GetSessionFromContext(ctx)
		_, lookup = session.Lookup(ctx)
		set = session.SetOption(ctx, "schema", nil)
		_, res = w.Get(ctx, "")
		_, handle = session.NewHandle(ctx, "k", nil)
		return nil
	})
	c := serveEdge(t, chained(edge(store), login), w.server()).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	_ = c.do(handshake, cookie)
	for name, err := range map[string]error{"GetSessionFromContext": get, "Lookup": lookup, "SetOption": set, "Get": res, "NewHandle": handle} {
		if !errors.Is(err, session.ErrNoSession) {
			t.Errorf("%s in a handshake before Begin: %v", name, err)
		}
	}
	if s := c.option("schema", cookie); s != "prod" {
		t.Errorf("the handshake has changed the session: schema %q", s)
	}
}

// As before with ResolveHandle.
func TestAHandshakeGetsNoSessionByAHandle(t *testing.T) {
	n := newCounter()
	var resolve, lookup error
	login := loggingIn(func(ctx context.Context) error {
		_, resolve = session.ResolveHandle(ctx, "transaction", n.handle)
		_, lookup = session.Lookup(ctx)
		return nil
	})
	c := serveEdge(t, chained(edge(newStore(t)), login), n.sqlServer).client()
	n.begin(c)
	_ = c.do(handshake)
	if !errors.Is(resolve, session.ErrNoSession) || !errors.Is(lookup, session.ErrNoSession) {
		t.Errorf("ResolveHandle in a handshake: %v; Lookup after it: %v", resolve, lookup)
	}
}

// The kill of the session whose cookie comes with a login does not cancel the login.
func TestAKillDoesNotCancelALogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		var canceled error
		login := loggingIn(func(ctx context.Context) error {
			killAll(store)
			synctest.Wait()
			canceled = ctx.Err()
			_, err := session.Begin(ctx)
			return err
		})
		c := serveEdgeInBubble(t, chained(edge(store, session.WithCancelOnKill()), login), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		r := c.do(handshake, cookie)
		if canceled != nil {
			t.Errorf("the login was canceled: %v; reply %+v", canceled, r)
		}
	})
}

// A call whose session another call has ended has its resources until it has ended
// itself, by Get as by Acquire; or is told that the session has ended.
func TestNoLeaseOnAResourceOfASessionThatHasEnded(t *testing.T) {
	w := newWires()
	srv := w.server()
	inside, gate := make(chan struct{}), make(chan struct{})
	srv.statements["long"] = func(ctx context.Context, _ session.ServerSession) error {
		if _, err := w.Get(ctx, ""); err != nil {
			return err
		}
		inside <- struct{}{}
		<-gate
		_, get := w.Get(ctx, "")
		l, acquire := w.Acquire(ctx, "")
		if acquire == nil {
			l.Release()
		}
		a, _ := reason(acquire)
		if acquire != nil && a != "SESSION_CLOSED" {
			t.Errorf("Acquire: %v, reason %q; Get: %v", acquire, a, get)
		}
		return nil
	}
	c := serveEdge(t, edge(newStore(t)), srv).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	done := c.start(info("long"), cookie)
	<-inside
	c.must(closeSession, cookie)
	close(gate)
	<-done
}

// What a goroutine of an Open that has failed has got is closed when it is idle.
func TestWhatAFailedOpenHasLeftBehindKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWires()
		store := newStore(t)
		left := make(chan error)
		outer := &session.Resource[int]{Name: "outer", Close: func(int) error { return nil }, Open: func(ctx context.Context, _ string) (int, error) {
			go func() {
				<-time.After(time.Second)
				_, _ = w.Get(ctx, "") // with a context that is over
				left <- nil
			}()
			return 0, errors.New("fails")
		}}
		srv := w.server()
		srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
			if _, err := outer.Get(ctx, ""); err == nil {
				t.Error("no error")
			}
			return <-left
		}
		c := serveEdgeInBubble(t, edge(store), srv).client()
		c.must(info("x"))
		synctest.Wait()
		if st := store.Resources(); st.Busy != 0 {
			t.Errorf("in use by no call: %+v", st)
		}
	})
}

// A call that has begun somebody's session and then has one of its own by a handle
// can renew that.
func TestASessionFoundByAHandleIsRenewedAfterABegin(t *testing.T) {
	n := newCounter()
	var renew error
	n.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		if _, err := session.Begin(ctx, session.Principal{Name: "alice"}); err != nil {
			return err
		}
		if _, err := session.ResolveHandle(ctx, "transaction", presented(ctx)); err != nil {
			return err
		}
		renew = session.Renew(ctx)
		return nil
	}
	c := serveEdge(t, edge(newStore(t)), n.sqlServer).client()
	handle, _ := n.begin(c)
	c.must(presenting(info("x"), handle))
	if renew != nil {
		r, _ := reason(renew)
		t.Errorf("Renew: %v %q, but the session lives", renew, r)
	}
}

// Renew in a session that a handle has named does not take the client's cookie of
// another session away.
func TestARenewalByAHandleLeavesTheOtherCookie(t *testing.T) {
	n := newCounter()
	n.statements["renewed"] = n.after(func(ctx context.Context) error { return session.Renew(ctx) })
	store := newStore(t)
	c := serveEdge(t, edge(store), n.sqlServer).client()
	handle, _ := n.begin(c)
	other := c.must(setOption("schema", "dev")).cookie(t)
	r := c.must(presenting(info("renewed"), handle), other)
	if len(r.header) > 0 {
		t.Errorf("the client, which has the cookie of another session, gets %q in its place: %d sessions live", r.header, store.Len())
	}
}

// What an option takes is counted, also if an OnChange has refused it after a handle
// had given the call another session.
func TestWhatIsPutBackIsCounted(t *testing.T) {
	n := newCounter()
	big := strings.Repeat("x", 1000)
	var fails bool
	opt := &session.Option[string]{Name: "big", OnChange: func(ctx context.Context, _, _ string) error {
		if fails {
			_, err := session.ResolveHandle(ctx, "transaction", presented(ctx))
			return errors.Join(err, errors.New("refused"))
		}
		return nil
	}}
	n.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		fails = true
		if err := opt.Set(ctx, big); err == nil {
			return errors.New("not refused")
		}
		return nil
	}
	store := newStore(t)
	c := serveEdge(t, edge(store), n.sqlServer).client()
	handle, _ := n.begin(c)
	other := c.must(setOption("schema", "dev")).cookie(t)
	before := store.Stats()
	c.must(presenting(info("x"), handle), other)
	after := store.Stats()
	if before.Bytes != after.Bytes {
		t.Errorf("%d bytes before, %d after a refused change", before.Bytes, after.Bytes)
	}
}

type behindKey struct{}

// Whom the interceptor has not seen has no session in a handshake either: all behind a
// gateway would share that of its cookie.
func TestAHandshakeHidesNoPrincipal(t *testing.T) {
	gateway := func(ctx context.Context) (session.Principal, error) {
		if name, ok := ctx.Value(behindKey{}).(string); ok {
			return session.Principal{Name: name}, nil
		}
		return session.Principal{Name: "gateway"}, nil
	}
	store := newStore(t)
	var got, other error
	ours := edge(store, session.WithPrincipal(gateway))
	c := serveEdge(t, chained(ours, loggingIn(func(ctx context.Context) error {
		ctx = context.WithValue(ctx, behindKey{}, "alice")
		_, got = session.GetSessionFromContext(ctx)
		_, other = session.NewHandle(ctx, "k", nil)
		return nil
	})), nil).client()
	cookie := c.must(setOption("schema", "prod")).cookie(t)
	_ = c.do(handshake, cookie)
	if got == nil {
		t.Errorf("alice has the gateway's session in a handshake; NewHandle: %v", other)
	}
}

// The other use of Close: a resource that was being opened when its session was killed,
// and whose Close fails, is reported somewhere.
func TestAFailedCloseOfWhatWasOpeningIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		store := newStore(t, layover.WithLogger(log.logger()))
		opens := make(chan struct{})
		closes := 0
		r := &session.Resource[int]{Name: "file", Open: func(context.Context, string) (int, error) {
			close(opens)
			<-time.After(time.Second)
			return 1, nil
		}, Close: func(int) error { closes++; return errors.New("disk on fire") }}
		srv := makesSession()
		srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
			_, err := r.Get(ctx, "")
			return err
		}
		c := serveEdgeInBubble(t, edge(store, session.WithLogger(log.logger())), srv).client()
		done := c.start(info("x"))
		<-opens
		killAll(store)
		<-done
		<-time.After(time.Minute)
		if closes != 1 || !strings.Contains(log.String(), "disk on fire") {
			t.Errorf("closed %d times; the log: %q; %d errors of Close are counted", closes, log.String(), store.Resources().CloseErrors)
		}
	})
}

// A call that has ended discards nothing, and holds nothing.
func TestACallThatHasEndedDiscardsNothing(t *testing.T) {
	w := newWires()
	srv := w.server()
	ended := make(chan struct{})
	done := make(chan error, 2)
	srv.statements["x"] = func(ctx context.Context, _ session.ServerSession) error {
		_, err := w.Get(ctx, "")
		go func() {
			<-ended
			done <- w.Hold(ctx, "", time.Hour)
			done <- w.Discard(ctx, "")
		}()
		return err
	}
	store := newStore(t)
	c := serveEdge(t, edge(store), srv).client()
	c.must(info("x"))
	close(ended)
	hold, discard := <-done, <-done
	if st := store.Resources(); hold == nil || discard == nil || st.Discarded > 0 {
		t.Errorf("Hold %v, Discard %v, %+v", hold, discard, st)
	}
}
