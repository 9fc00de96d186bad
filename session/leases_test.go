// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// lasting returns a statement that takes as long as d.
func lasting(d time.Duration) statement {
	return func(ctx context.Context, _ session.ServerSession) error {
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// start makes a call in the background. The channel gets its reply.
func (c *client) start(f call, cookies ...string) <-chan reply {
	done := make(chan reply, 1)
	go func() { done <- c.do(f, cookies...) }()
	return done
}

// A call that takes longer than the idle timeout keeps its session. The idle
// clock starts when the call has ended, on the first call as on later ones.
func TestBusyIsNotIdle(t *testing.T) {
	for name, do := range map[string]func(string) call{"stream": scan, "unary": info} {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", first call ", first), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { busyIsNotIdle(t, do("ten minutes"), first) })
			})
		}
	}
}

func busyIsNotIdle(t *testing.T, long call, first bool) {
	const idle = time.Minute
	store := newStore(t, layover.WithIdleTimeout(idle), layover.WithUnconfirmedTimeouts(idle, idle))
	e := serveInBubble(t, stateful(store), &sqlServer{statements: map[string]statement{"ten minutes": lasting(10 * time.Minute)}})
	cookies := new(jar)
	c := cookies.client(e)
	if !first {
		c.must(info(""))
		wait(idle / 2)
	}
	done := c.start(long)
	for range 9 {
		wait(time.Minute)
		if n := store.Len(); n != 1 {
			t.Fatalf("%d sessions while the call runs", n)
		}
	}
	if r := <-done; r.err != nil {
		t.Fatal(r.err)
	}
	wait(idle - time.Second)
	if n := store.Len(); n != 1 {
		t.Errorf("the session ended before the idle timeout had passed since the call")
	}
	wait(time.Second + layover.Tick)
	if st := store.Stats(); st.Live != 0 || st.Closed != 1 || st.Created != 1 {
		t.Errorf("an idle timeout after the call: %+v", st)
	}
}

// CloseSession during another call of the same client retires the session: no
// later call finds it, the other call still reads its options, and it is torn
// down once, when that call has ended.
func TestCloseSessionDuringAnotherCallRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends []layover.Event
		store := newStore(t, layover.WithObserver(func(ev layover.Event) {
			if ev.Kind == layover.EventEnded {
				ends = append(ends, ev)
			}
		}))
		closed := make(chan struct{})
		var read string
		e := serveInBubble(t, stateful(store), &sqlServer{statements: map[string]statement{
			"read when closed": func(_ context.Context, s session.ServerSession) error {
				<-closed
				read = s.GetSessionOption("schema").GetStringValue()
				return nil
			},
		}})
		c := e.client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		done := c.start(scan("read when closed"), cookie)
		synctest.Wait()
		c.must(closeSession, cookie)
		synctest.Wait()
		if st := store.Stats(); st.Live != 0 || st.Retired != 1 || st.Closed != 0 {
			t.Errorf("after CloseSession, while the other call runs: %+v", st)
		}
		if next := c.must(info(""), cookie).cookie(t); next == cookie {
			t.Error("a later call found the closed session")
		}
		close(closed)
		if r := <-done; r.err != nil || read != "prod" {
			t.Errorf("the other call read %q, error %v", read, r.err)
		}
		synctest.Wait()
		if st := store.Stats(); st.Retired != 0 || st.Closed != 1 {
			t.Errorf("after the other call: %+v", st)
		}
		if len(ends) != 1 || ends[0].Reason != layover.ReasonClosed || !ends[0].InUse {
			t.Errorf("reported ends: %v", ends)
		}
	})
}

// A session whose lifetime ends during a call serves that call to its end, and
// no later one.
func TestLifetimeRetires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t, layover.WithIdleTimeout(time.Hour), layover.WithLifetime(time.Hour), layover.WithMaxLeaseAge(0))
		var read string
		e := serveInBubble(t, stateful(store), &sqlServer{statements: map[string]statement{
			"two hours": func(ctx context.Context, s session.ServerSession) error {
				err := lasting(2*time.Hour)(ctx, s)
				read = s.GetSessionOption("schema").GetStringValue()
				return err
			},
		}})
		c := e.client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		done := c.start(scan("two hours"), cookie)
		wait(time.Hour + layover.Tick)
		if st := store.Stats(); st.Live != 0 || st.Retired != 1 || st.Closed != 0 {
			t.Errorf("at the end of the lifetime: %+v", st)
		}
		if next := c.must(info(""), cookie).cookie(t); next == cookie {
			t.Error("a later call found the session")
		}
		if r := <-done; r.err != nil || read != "prod" {
			t.Errorf("the call read %q, error %v", read, r.err)
		}
		synctest.Wait()
		if st := store.Stats(); st.Retired != 0 || st.Ended[layover.ReasonLifetime] != 1 || st.Closed < 1 {
			t.Errorf("after the call: %+v", st)
		}
	})
}

// A call's session is not evicted: a newcomer is told that there is no room.
func TestCallsKeepTheirPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t, layover.WithMaxSessions(2))
		e := serveInBubble(t, stateful(store), &sqlServer{statements: map[string]statement{"a minute": lasting(time.Minute)}})
		c := e.client()
		one, two := c.start(scan("a minute")), c.start(info("a minute"))
		wait(time.Second)
		if r := c.do(info("")); status.Code(r.err) != codes.ResourceExhausted {
			t.Errorf("a third client got %v", r.err)
		}
		for _, done := range []<-chan reply{one, two} {
			if r := <-done; r.err != nil {
				t.Error(r.err)
			}
		}
		synctest.Wait()
		c.must(info("")).cookie(t)
		if st := store.Stats(); st.Peak != 2 || st.Ended[layover.ReasonCapacity] != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// A handler that panics under a recovering interceptor never gets to
// CallCompleted. Its lease is given back when the call is garbage.
func TestPanickingHandlerGivesItsLeaseBack(t *testing.T) {
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprint("first call ", first), func(t *testing.T) {
			store := newStore(t)
			e := serve(t, stateful(store), &sqlServer{statements: map[string]statement{
				"panic": func(context.Context, session.ServerSession) error { panic(plannedPanic) },
			}})
			cookies := new(jar)
			c := cookies.client(e)
			if !first {
				c.must(info(""))
			}
			if r := c.do(info("panic")); r.err == nil {
				t.Error("the handler did not panic")
			}
			for range 200 {
				runtime.GC()
				if leases(store) == 0 {
					break
				}
			}
			if n := leases(store); n != 0 {
				t.Errorf("%d leases are out after the collector ran", n)
			}
			c.must(closeSession)
			if st := store.Stats(); st.Live != 0 || st.Retired != 0 || st.Created != 1 {
				t.Errorf("after CloseSession: %+v", st)
			}
		})
	}
}

// leases returns how many leases on live sessions are out.
func leases(store *session.ExpiringSessionStore) (n int) {
	for in := range store.All() {
		n += in.Leases
	}
	return n
}

// The collector does not take the lease of a call that runs, however little of
// its context the handler keeps.
func TestCollectorLeavesRunningCallsAlone(t *testing.T) {
	store := newStore(t)
	e := serve(t, stateful(store), &sqlServer{statements: map[string]statement{
		"collect": func(context.Context, session.ServerSession) error {
			for range 10 {
				runtime.GC()
			}
			if n := leases(store); n != 1 {
				return fmt.Errorf("%d leases are out", n)
			}
			return nil
		},
	}})
	c := e.client()
	c.must(info("collect"))
	c.must(scan("collect"), c.must(setOption("a", "b")).cookie(t))
}

// A call that its client cancels gives its lease back.
func TestCanceledCallGivesItsLeaseBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		e := serveInBubble(t, stateful(store), &sqlServer{statements: map[string]statement{"an hour": lasting(time.Hour)}})
		c := e.client()
		for _, do := range []call{info("an hour"), scan("an hour")} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := do(ctx, c.Client); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("got %v", err)
			}
			cancel()
			synctest.Wait()
			if n := leases(store); n != 0 {
				t.Errorf("%d leases are out", n)
			}
		}
		wait(layover.DefaultEmptyTimeout + late)
		if st := store.Stats(); st.Live != 0 || st.Closed != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// The call that creates a session does not confirm it, whatever it does; the
// next one that brings its cookie does.
func TestSecondCallConfirms(t *testing.T) {
	store := newStore(t)
	manager := session.NewStatefulServerSessionManager(session.WithStore(store))
	e := serve(t, session.NewServerSessionMiddleware(manager, session.WithLogger(nil)), &sqlServer{statements: map[string]statement{
		"ask the manager": func(ctx context.Context, s session.ServerSession) error {
			if again, err := manager.GetSession(ctx); err != nil || again != s {
				return errors.New("the manager has another session")
			}
			return nil
		},
	}})
	c := e.client()
	cookie := c.must(info("ask the manager")).cookie(t)
	if st := store.Stats(); st.Unconfirmed != 1 || st.Confirmed != 0 {
		t.Errorf("after the first call: %+v", st)
	}
	c.must(info(""), cookie)
	c.must(info(""), cookie)
	if st := store.Stats(); st.Unconfirmed != 0 || st.Confirmed != 1 || st.EverConfirmed != 1 {
		t.Errorf("after the second and third: %+v", st)
	}
}

// Of the sessions that a client's concurrent first calls make, only the one
// that it comes back with is confirmed; the others leave soon.
func TestConcurrentFirstCallsLeaveOneSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		e := serveInBubble(t, stateful(store), &sqlServer{statements: map[string]statement{"a second": lasting(time.Second)}})
		cookies := new(jar)
		c := cookies.client(e)
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() { c.do(info("a second")) })
		}
		wg.Wait()
		c.must(info(""))
		if st := store.Stats(); st.Live != 16 || st.Confirmed != 1 {
			t.Errorf("after 16 first calls and a second one: %+v", st)
		}
		wait(layover.DefaultEmptyTimeout + late)
		if st := store.Stats(); st.Live != 1 || st.Confirmed != 1 || st.Ended[layover.ReasonUnconfirmed] != 15 {
			t.Errorf("after the unconfirmed timeout: %+v", st)
		}
	})
}

// A session is marked as holding something with its first option, and stays so.
// One that was given nothing but erasures holds nothing.
func TestSetSessionOptionsMarksAsHolding(t *testing.T) {
	for name, factory := range map[string]session.SessionFactory{
		"own": nil,
		"of a user's type": fakeFactory(func() (session.ServerSession, error) {
			return &userSession{id: freshID()}, nil
		}),
	} {
		t.Run(name, func(t *testing.T) {
			store := newStore(t)
			c := serve(t, stateful(store, session.WithFactory(factory)), nil).client()
			check := func(what string, want bool) {
				t.Helper()
				for in := range store.All() {
					if in.Holds != want {
						t.Errorf("%s: holds is %v", what, in.Holds)
					}
				}
			}
			cookie := c.must(info("")).cookie(t)
			check("after a call that sets nothing", false)
			if name == "own" {
				c.must(setOption("a", nil), cookie)
				check("after a value without content", false)
			}
			c.must(setOption("a", "b"), cookie)
			check("after an option", true)
			c.must(setOption("a", nil), cookie)
			check("after it was erased", true)
		})
	}
}

var idCount struct {
	sync.Mutex
	n int
}

// freshID returns a new ID.
func freshID() string {
	idCount.Lock()
	defer idCount.Unlock()
	idCount.n++
	return fmt.Sprint("user-", idCount.n)
}

// A session whose options were set by its first call, and whose client then
// waits for 20 minutes, is still there; one that holds nothing is not.
func TestSessionWithOptionsWaitsForItsClient(t *testing.T) {
	for name, foreign := range map[string]bool{"own": false, "of a user's type": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opts []session.StatefulSessionManagerOption
				if foreign {
					opts = append(opts, session.WithFactory(fakeFactory(func() (session.ServerSession, error) {
						return &userSession{id: freshID()}, nil
					})))
				}
				store := newStore(t)
				c := serveInBubble(t, stateful(store, opts...), nil).client()
				empty := c.must(info("")).cookie(t)
				set := c.must(setOption("schema", "prod")).cookie(t)
				wait(20 * time.Minute)
				c.must(info(""), empty).cookie(t) // a new one: the old one has left
				var got map[string]*flight.SessionOptionValue
				if r := c.must(getOptions(&got), set); r.header != nil || got["schema"].GetStringValue() != "prod" {
					t.Errorf("after 20 minutes: %v, header %q", got, r.header)
				}
				wait(layover.DefaultIdleTimeout - time.Second) // it is confirmed now
				c.must(getOptions(&got), set)
				if got["schema"].GetStringValue() != "prod" {
					t.Errorf("before the idle timeout: %v", got)
				}
			})
		})
	}
}

// noStream is a transport that sends nothing.
type noStream struct{}

func (noStream) Method() string               { return "/none" }
func (noStream) SetHeader(metadata.MD) error  { return nil }
func (noStream) SendHeader(metadata.MD) error { return nil }
func (noStream) SetTrailer(metadata.MD) error { return nil }

// Calls without cookies, however many, leave no more sessions than the maximum,
// and none after the unconfirmed timeout.
func TestHundredThousandCallsWithoutCookies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, calls = 1000, 100_000
		store := newStore(t, layover.WithMaxSessions(most))
		middleware := stateful(store)
		in := grpc.NewContextWithServerTransportStream(metadata.NewIncomingContext(t.Context(), metadata.MD{}), noStream{})
		for range calls {
			ctx := middleware.StartCall(in)
			if _, err := session.GetSessionFromContext(ctx); err != nil {
				t.Fatal(err)
			}
			middleware.CallCompleted(ctx, nil)
		}
		if st := store.Stats(); st.Live > most || st.Peak > most || st.Created != calls {
			t.Errorf("after the calls: %+v", st)
		}
		wait(layover.DefaultEmptyTimeout + late)
		if st := store.Stats(); st.Live != 0 || st.Closed != calls {
			t.Errorf("after the unconfirmed timeout: %+v", st)
		}
	})
}

// The same over gRPC, from several clients at a time, of every kind of call.
func TestThousandsOfCallsWithoutCookiesOverGRPC(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, clients, each = 100, 4, 500
		store := newStore(t, layover.WithMaxSessions(most))
		e := serveInBubble(t, stateful(store), nil)
		calls := []call{info(""), scan(""), getOptions(nil), setOption("a", "b"), closeSession}
		var wg sync.WaitGroup
		for range clients {
			c := e.client()
			wg.Go(func() {
				for i := range each {
					if r := c.do(calls[i%len(calls)]); r.err != nil {
						t.Errorf("a call failed: %v", r.err)
					}
					if n := store.Len(); n > most {
						t.Errorf("%d sessions", n)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if st := store.Stats(); st.Created != clients*each || st.Peak > most || leases(store) != 0 {
			t.Errorf("after the calls: %+v", st)
		}
		wait(layover.DefaultHoldingTimeout + late)
		if st := store.Stats(); st.Live != 0 || st.Closed != clients*each {
			t.Errorf("after the longer unconfirmed timeout: %+v", st)
		}
	})
}

// A shutdown that runs out of time closes a session under its call. The call is
// not hurt, and nobody is closed twice.
func TestShutdownDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		e := serveInBubble(t, stateful(store), &sqlServer{statements: map[string]statement{
			"an hour": func(ctx context.Context, s session.ServerSession) error {
				err := lasting(time.Hour)(ctx, s)
				s.SetSessionOption("a", text("b"))
				return errors.Join(err, s.Close())
			},
		}})
		c := e.client()
		done := c.start(scan("an hour"))
		wait(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var failed *layover.ShutdownError
		if err := store.Shutdown(ctx); !errors.As(err, &failed) || failed.Killed != 1 {
			t.Errorf("Shutdown: %v", err)
		}
		if r := c.do(info("")); status.Code(r.err) != codes.Unavailable {
			t.Errorf("a call after the shutdown: %v", r.err)
		}
		if r := <-done; r.err != nil {
			t.Errorf("the call that ran: %v", r.err)
		}
		synctest.Wait()
		if st := store.Stats(); st.Closed != 1 || st.Retired != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// A graceful shutdown waits for the call.
func TestShutdownWaitsForCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newStore(t)
		e := serveInBubble(t, stateful(store), &sqlServer{statements: map[string]statement{"an hour": lasting(time.Hour)}})
		began := time.Now()
		done := e.client().start(scan("an hour"))
		wait(time.Second)
		if err := store.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < time.Hour {
			t.Errorf("the shutdown took %v", took)
		}
		if r := <-done; r.err != nil {
			t.Error(r.err)
		}
	})
}

// A stream that outlives its session, which another call has closed, does not
// take away the cookie of the session that the client has by then: jars key
// cookies by name, whatever their value.
func TestLateTrailerSparesTheNewCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := serveInBubble(t, stateful(newStore(t)), &sqlServer{statements: map[string]statement{"a minute": lasting(time.Minute)}})
		cookies := new(jar)
		c := cookies.client(e)
		c.must(info(""))
		done := c.start(scan("a minute"))
		wait(time.Second)
		c.must(closeSession)
		c.must(setOption("schema", "prod"))
		want := cookies.get(session.StatefulSessionCookieName)
		if r := <-done; r.err != nil {
			t.Fatal(r.err)
		}
		if got := cookies.get(session.StatefulSessionCookieName); got != want {
			t.Errorf("the client has the cookie %q, its session is %q", got, want)
		}
	})
}
