// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

const idle = time.Minute

// shortLived returns a store whose sessions idle out after a minute.
func shortLived(t testing.TB, opts ...layover.Option) *session.ExpiringSessionStore {
	return newStore(t, append([]layover.Option{layover.WithIdleTimeout(idle), layover.WithUnconfirmedTimeouts(idle, idle)}, opts...)...)
}

// makesSession is a server that has a statement which makes a session that
// holds nothing.
func makesSession() *sqlServer {
	return &sqlServer{statements: map[string]statement{"ensure": func(ctx context.Context, _ session.ServerSession) error {
		_, err := session.Ensure(ctx)
		return err
	}}}
}

// reason returns the reason of an error's ErrorInfo, empty if it has none, and
// the fingerprint.
func reason(err error) (reason, mark string) {
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok && i.GetDomain() == session.ErrorDomain {
			return i.GetReason(), i.GetMetadata()["session"]
		}
	}
	return "", ""
}

// token is the value of a cookie as clients send it.
func token(cookie string) string {
	_, value, _ := strings.Cut(cookie, "=")
	return value
}

// wantLost checks that a call was told that its session is lost.
func wantLost(t *testing.T, store *session.ExpiringSessionStore, cookie string, r reply, why string) {
	t.Helper()
	got, mark := reason(r.err)
	if status.Code(r.err) != codes.NotFound || got != "SESSION_"+why || !strings.HasPrefix(status.Convert(r.err).Message(), session.LostPrefix) {
		t.Errorf("answered with %v, reason %q, want a lost session, reason SESSION_%s", r.err, got, why)
		return
	}
	if want := store.Fingerprint(token(cookie)).String(); mark != want || !strings.Contains(r.err.Error(), want) {
		t.Errorf("the error names session %q (%v), want %s", mark, r.err, want)
	}
	if strings.Contains(fmt.Sprintf("%+v", r.err), token(cookie)) {
		t.Error("the error contains the token")
	}
	if r.header != nil || r.trailer != nil {
		t.Errorf("told with cookies: header %q, trailer %q; a blind retry must not lose the warning", r.header, r.trailer)
	}
}

// Every call with the token of a session that had an option is told, for a
// while after the first telling, however often and in parallel; then calls start
// clean.
func TestEveryCallIsToldForAWhileAndThenStartsClean(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		e := serveEdgeInBubble(t, edge(store), nil)
		c := e.client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		wait(idle + late)
		const window = session.DefaultTellWindow
		for range 3 {
			var all sync.WaitGroup
			for _, do := range []call{info(""), scan(""), getOptions(nil)} {
				all.Go(func() { wantLost(t, store, cookie, c.do(do, cookie), "UNCONFIRMED") })
			}
			all.Wait()
			wait(window/3 - time.Millisecond)
		}
		wait(time.Second)
		for range 2 {
			for _, do := range []call{info(""), scan(""), getOptions(nil), closeSession} {
				if r := c.must(do, cookie); r.header != nil || r.trailer != nil {
					t.Errorf("header %q, trailer %q", r.header, r.trailer)
				}
			}
			wait(2 * time.Hour)
		}
		if c.must(setOption("schema", "prod"), cookie).cookie(t) == cookie {
			t.Error("a dead token lives again")
		}
	})
}

// A client that shows that it knows is not told again: by setting options, by
// closing its session, which succeeds, or by a handshake.
func TestAnAcknowledgementEndsTheTelling(t *testing.T) {
	for _, told := range []bool{true, false} {
		for name, acknowledge := range map[string]call{
			"SetSessionOptions": setOption("schema", "prod"),
			"CloseSession":      closeSession,
			"Handshake":         handshake,
		} {
			t.Run(fmt.Sprint(name, ", told before ", told), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := shortLived(t)
					c := serveEdgeInBubble(t, edge(store), nil).client()
					cookie := c.must(setOption("schema", "prod")).cookie(t)
					c.must(info(""), cookie)
					wait(idle + late)
					if told {
						wantLost(t, store, cookie, c.do(info(""), cookie), "IDLE")
					}
					r := c.must(acknowledge, cookie)
					if name == "SetSessionOptions" && r.cookie(t) == cookie {
						t.Error("a dead token lives again")
					}
					for _, do := range []call{info(""), scan(""), getOptions(nil)} {
						c.must(do, cookie)
					}
				})
			})
		}
	}
}

// handshake is a handshake without authentication, which the server of these
// tests refuses.
func handshake(ctx context.Context, c *flightsql.Client, opts ...grpc.CallOption) error {
	h, err := c.Client.Handshake(ctx, opts...)
	if err != nil {
		return err
	}
	_ = h.CloseSend()
	for err == nil {
		_, err = h.Recv()
	}
	return nil
}

// If a session never held anything, nothing is lost: it is renewed without a
// word.
func TestASessionThatHeldNothingIsRenewedSilently(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		c := serveEdgeInBubble(t, edge(store), makesSession()).client()
		cookie := c.must(info("ensure")).cookie(t)
		wait(idle + late)
		for _, do := range []call{info(""), scan(""), getOptions(nil)} {
			if r := c.must(do, cookie); r.header != nil || r.trailer != nil {
				t.Errorf("header %q, trailer %q", r.header, r.trailer)
			}
		}
		if fresh := c.must(info("ensure"), cookie).cookie(t); fresh == cookie {
			t.Error("a dead token lives again")
		}
	})
}

// The client learns why its session has ended.
func TestTheReasonIsTold(t *testing.T) {
	for why, end := range map[string]func(*testing.T, *session.ExpiringSessionStore, *client, string){
		"IDLE": func(_ *testing.T, _ *session.ExpiringSessionStore, c *client, cookie string) {
			c.must(info(""), cookie)
			wait(idle + late)
		},
		"UNCONFIRMED": func(*testing.T, *session.ExpiringSessionStore, *client, string) { wait(idle + late) },
		"LIFETIME": func(_ *testing.T, _ *session.ExpiringSessionStore, c *client, cookie string) {
			for range 10 {
				c.do(setOption("schema", "x"), cookie)
				wait(30 * time.Second)
			}
		},
		"CAPACITY": func(_ *testing.T, _ *session.ExpiringSessionStore, c *client, _ string) {
			c.must(setOption("schema", "other"))
			c.must(setOption("schema", "other"))
		},
		"KILLED": func(t *testing.T, store *session.ExpiringSessionStore, _ *client, cookie string) {
			if !store.Kill(store.Fingerprint(token(cookie))) {
				t.Error("nothing was killed")
			}
		},
		"CLOSED": func(t *testing.T, store *session.ExpiringSessionStore, _ *client, cookie string) {
			if err := store.Remove(token(cookie)); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(why, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := []layover.Option{layover.WithMaxSessions(2), layover.WithSourceShare(1)}
				if why == "LIFETIME" {
					opts = append(opts, layover.WithLifetime(2*time.Minute))
				}
				store := shortLived(t, opts...)
				c := serveEdgeInBubble(t, edge(store), nil).client()
				cookie := c.must(setOption("schema", "prod")).cookie(t)
				synctest.Wait()
				if why == "LIFETIME" {
					for range 6 {
						if r := c.do(info(""), cookie); r.err != nil {
							wantLost(t, store, cookie, r, why)
							return
						}
						wait(30 * time.Second)
					}
					t.Fatal("it outlived its lifetime")
				}
				end(t, store, c, cookie)
				synctest.Wait()
				wantLost(t, store, cookie, c.do(info(""), cookie), why)
			})
		})
	}
}

// After a restart the server knows its tokens: with a key of the owner's beyond
// doubt, with a random one by their form. What it never made is no token, and
// is not remembered.
func TestARestartedServerSaysSo(t *testing.T) {
	key := []byte("sixteen bytes or more")
	for name, opts := range map[string][]session.MiddlewareOption{"random key": nil, "own key": {session.WithTokenKey(key)}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := serveEdgeInBubble(t, edge(shortLived(t), opts...), nil).client()
				cookie := before.must(setOption("schema", "prod")).cookie(t)
				wait(5 * time.Second)
				store := shortLived(t)
				c := serveEdgeInBubble(t, edge(store, opts...), nil).client()
				for range 2 {
					wantLost(t, store, cookie, c.do(info(""), cookie), "RESTARTED")
				}
				wait(session.DefaultTellWindow)
				c.must(info(""), cookie)

				forged := []byte(token(cookie))
				forged[len(forged)-2] ^= 1
				garbage := []string{"", "x", uuid.NewString(), strings.Repeat("_", 39), strings.Repeat("a", 4000)}
				if opts != nil {
					garbage = append(garbage, string(forged), strings.Repeat("A", 39))
				}
				for _, g := range garbage {
					c.must(info(""), session.StatefulSessionCookieName+"="+g)
				}
			})
		})
	}
}

// What the store has forgotten is still told of, since its token is genuine.
func TestAForgottenSessionIsToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t, layover.WithRemembered(0))
		c := serveEdgeInBubble(t, edge(store), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		wait(idle + late)
		wantLost(t, store, cookie, c.do(info(""), cookie), "UNKNOWN")
	})
}

// Under RenewDead, a dead token is like none.
func TestRenewDeadTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		c := serveEdgeInBubble(t, edge(store, session.WithDeadTokens(session.RenewDead)), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		wait(idle + late)
		c.must(info(""), cookie)
		second := c.must(setOption("schema", "prod"), cookie).cookie(t)
		c.must(closeSession, second)
		c.must(info(""), second)
		if third := c.must(setOption("schema", "prod"), second).cookie(t); third == second {
			t.Error("a dead token lives again")
		}
	})
}

// Under StrictDead, every call with a token of no live session is refused, as
// long as it comes, but for CloseSession, which has the client drop it.
func TestStrictDeadRefusesUntilTheClientDropsTheToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		c := serveEdgeInBubble(t, edge(store, session.WithDeadTokens(session.StrictDead)), makesSession()).client()
		cookie := c.must(info("ensure")).cookie(t)
		wait(idle + late)
		for range 3 {
			for _, do := range []call{info(""), scan(""), getOptions(nil), setOption("schema", "x"), info("ensure")} {
				wantLost(t, store, cookie, c.do(do, cookie), "UNCONFIRMED")
			}
			wait(time.Hour)
		}
		r := c.must(closeSession, cookie)
		if all := append(r.header, r.trailer...); len(all) != 1 || !strings.HasSuffix(all[0], "; Max-Age=0") {
			t.Errorf("CloseSession: %q", all)
		}
		wantLost(t, store, "x=garbage", c.do(info(""), session.StatefulSessionCookieName+"=garbage"), "GARBAGE")
		c.must(setOption("schema", "x"))
	})
}

// The owner chooses the code, and for how long it is told.
func TestCodeAndWindowOfTheTelling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		c := serveEdgeInBubble(t, edge(store, session.WithDeadTokenCode(codes.Unauthenticated), session.WithTellWindow(time.Hour)), nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		wait(idle + late)
		for range 2 {
			r := c.do(info(""), cookie)
			if why, _ := reason(r.err); status.Code(r.err) != codes.Unauthenticated || why != "SESSION_UNCONFIRMED" {
				t.Errorf("%v, reason %q", r.err, why)
			}
			wait(time.Hour - time.Second)
		}
		wait(2 * time.Second)
		c.must(info(""), cookie)
	})
}

// A live session beside a dead one, in one call's cookies, is the one that
// counts.
func TestALiveTokenCountsBesideADeadOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		e := serveEdgeInBubble(t, edge(store), nil)
		c := e.client()
		dead := c.must(setOption("schema", "old")).cookie(t)
		wait(idle + late)
		alive := c.must(setOption("schema", "prod")).cookie(t)
		for _, lines := range [][]string{{dead + "; " + alive}, {dead, alive}, {alive + ";" + dead}} {
			var options map[string]*flight.SessionOptionValue
			c.must(getOptions(&options), lines...)
			if got := options["schema"].GetStringValue(); got != "prod" {
				t.Errorf("%q: schema %q", lines, got)
			}
		}
	})
}

// A retry that a client makes by itself does not run in the default schema: the
// statement runs only where its options are.
func TestNoStatementRunsInTheDefaultSchemaByABlindRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		var ran []string
		e := serveEdgeInBubble(t, edge(store), &sqlServer{statements: map[string]statement{
			"DELETE": func(_ context.Context, s session.ServerSession) error {
				ran = append(ran, s.GetSessionOption("schema").GetStringValue())
				return nil
			},
		}})
		cookies := new(jar)
		c := cookies.client(e)
		c.must(setOption("schema", "test"))
		c.must(info("DELETE"))
		wait(idle + late)
		for range 20 {
			if r := c.do(info("DELETE")); r.err == nil {
				t.Fatal("a retry went through")
			}
			wait(time.Second)
		}
		c.must(setOption("schema", "test"))
		c.must(info("DELETE"))
		if len(ran) != 2 || ran[0] != "test" || ran[1] != "test" {
			t.Errorf("it ran in the schemas %q", ran)
		}
	})
}

// An option that comes too late, into a session that has ended under the call and
// of which nobody would be told, since it held nothing, fails the call. Whatever
// it held before is told of by the next call, as always.
func TestAnOptionThatComesAfterTheEndOfItsSessionIsNotLostSilently(t *testing.T) {
	for why, end := range map[string]func(*session.ExpiringSessionStore, session.ServerSession){
		"LIFETIME": func(*session.ExpiringSessionStore, session.ServerSession) { wait(2 * time.Hour) },
		"KILLED": func(store *session.ExpiringSessionStore, s session.ServerSession) {
			store.Kill(store.Fingerprint(s.Token()))
			synctest.Wait()
		},
	} {
		for _, held := range []bool{false, true} {
			t.Run(fmt.Sprint(why, ", held something ", held), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					store := newStore(t, layover.WithIdleTimeout(time.Hour), layover.WithLifetime(time.Hour), layover.WithMaxLeaseAge(0))
					server := makesSession()
					server.statements["late"] = func(_ context.Context, s session.ServerSession) error {
						end(store, s)
						s.SetSessionOption("schema", text("prod"))
						return nil
					}
					server.statements["late, and asks"] = func(ctx context.Context, s session.ServerSession) error {
						end(store, s)
						return session.SetOption(ctx, "schema", text("prod"))
					}
					c := serveEdgeInBubble(t, edge(store), server).client()
					for _, statement := range []string{"late", "late, and asks"} {
						cookie := c.must(info("ensure")).cookie(t)
						if held {
							c.must(setOption("a", "b"), cookie)
						}
						r := c.do(info(statement), cookie)
						got, _ := reason(r.err)
						switch {
						case !held && got != "SESSION_NOT_SAVED" && (got != "SESSION_CLOSED" || statement == "late"):
							t.Errorf("%s: %v", statement, r.err)
						case held && got != "" && why == "LIFETIME":
							t.Errorf("%s: %v", statement, r.err)
						}
						if held {
							wantLost(t, store, cookie, c.do(info(""), cookie), why)
						}
					}
				})
			})
		}
	}
}

// A call under which its session is killed goes on with the options that it had,
// and not with the defaults.
func TestNoStatementRunsInTheDefaultSchemaByAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		var read string
		c := serveEdgeInBubble(t, edge(store), &sqlServer{statements: map[string]statement{
			"killed": func(_ context.Context, s session.ServerSession) error {
				if !store.Kill(store.Fingerprint(s.Token())) {
					t.Error("nothing was killed")
				}
				synctest.Wait()
				read = s.GetSessionOption("schema").GetStringValue()
				return nil
			},
		}}).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		c.must(info("killed"), cookie)
		if read != "prod" {
			t.Errorf("after the kill the schema is %q", read)
		}
		wantLost(t, store, cookie, c.do(info(""), cookie), "KILLED")
	})
}

// A session of a principal that came and went while a call ran is not hidden by
// one that this call makes.
func TestALongCallDoesNotHideTheEndOfAPrincipalsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		gate := make(chan struct{})
		c := serveEdgeInBubble(t, edge(store, session.WithCarriers(session.ByPrincipal(who))), &sqlServer{statements: map[string]statement{
			"late": func(_ context.Context, s session.ServerSession) error {
				<-gate
				s.SetSessionOption("timezone", text("UTC"))
				return nil
			},
		}}).client()
		alice := []string{"x-user", "alice"}
		long := c.start(with(info("late"), alice...))
		synctest.Wait()
		c.must(with(setOption("schema", "prod"), alice...))
		for in := range store.All() {
			store.Kill(in.Fingerprint)
		}
		close(gate)
		for _, r := range []reply{<-long, c.do(with(info(""), alice...))} {
			if why, _ := reason(r.err); why != "SESSION_KILLED" {
				t.Errorf("answered with %v", r.err)
			}
		}
		c.must(with(setOption("schema", "prod"), alice...)) // which shows that the client knows
		if got := c.schema(alice...); got != "prod" {
			t.Errorf("schema %q", got)
		}
	})
}

// An interceptor within this one that needs the session of an action before that
// was read makes none in place of one that its client is to be told of.
func TestAnInnerInterceptorDoesNotHideTheEndOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := shortLived(t)
		mw := edge(store)
		within := mw.Stream
		mw.Stream = func(srv any, s grpc.ServerStream, i *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			return within(srv, s, i, func(srv any, s grpc.ServerStream) error {
				if cur, err := session.GetSessionFromContext(s.Context()); err == nil {
					_ = cur.Token()
				}
				return h(srv, s)
			})
		}
		c := serveEdgeInBubble(t, mw, nil).client()
		cookie := c.must(setOption("schema", "prod")).cookie(t)
		c.must(getOptions(nil), cookie)
		wait(idle + late)
		wantLost(t, store, cookie, c.do(getOptions(nil), cookie), "IDLE")
		wait(session.DefaultTellWindow)
		c.must(getOptions(nil), cookie).cookie(t)
	})
}
