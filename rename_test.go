// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A session that is renamed is what it was, under another ID: the old one finds
// nothing, leases on it stay good, and its Close runs once, when it ends.
func TestARenamedSessionLivesOnUnderItsNewID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour), WithLifetime(3*time.Hour), WithMaxBytes(100))
		c := new(conn)
		l, err := s.Add("old", c, Origin{Source: "alice", Size: 60})
		must(t, err)
		l.Confirm()
		<-time.After(time.Minute)
		ctx := l.Context()
		must(t, l.Rename("new", Origin{Source: "alice"}))
		for _, err := range []error{s.Touch("old"), s.Remove("old"), s.Confirm("old")} {
			if why := (*NotFoundError)(nil); !errors.As(err, &why) || why.Reason != ReasonRenamed {
				t.Errorf("the old ID: %v", err)
			}
		}
		l.Hold()
		must(t, l.SetSize(80))
		if got, err := s.Peek("new"); err != nil || got != c || l.Session() != c {
			t.Errorf("the new ID: %v", err)
		}
		if l.Fingerprint() != s.Fingerprint("new") || l.Source() != "alice" || l.Size() != 80 {
			t.Errorf("the lease is of %s of %s, %d bytes", l.Fingerprint(), l.Source(), l.Size())
		}
		st := s.Stats()
		if st.Live != 1 || st.Retired != 0 || st.Confirmed != 1 || st.Bytes != 80 || st.Created != 2 || st.Ended[ReasonRenamed] != 1 || st.Peak != 1 {
			t.Errorf("%+v", st)
		}
		for in := range s.All() {
			if !in.Created.Equal(time.Now().Add(-time.Minute)) || in.Leases != 1 || !in.Holds {
				t.Errorf("%+v", in)
			}
		}
		must(t, s.Check())
		<-time.After(2 * time.Hour) // leased: no idle clock
		l.Release()
		must(t, s.Check())
		<-time.After(30 * time.Minute) // not yet, whatever its random part
		must(t, s.Touch("new"))
		<-time.After(29 * time.Minute) // three hours since it was made
		wantErr(t, s.Touch("new"), ErrNotFound)
		synctest.Wait()
		if !c.isClosed(t) || ctx.Err() == nil {
			t.Error("its lifetime did not end with that of the old one")
		}
		if st := s.Stats(); st.Closed != 1 || st.Created != st.Ended.Total() {
			t.Errorf("%+v", st)
		}
	})
}

// While calls use it that came with an old ID, a renamed session is in use: it
// neither idles out nor is evicted, and it is closed after the last of them.
func TestLeasesOnOldIDsKeepARenamedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour), WithMaxSessions(1))
		c := new(conn)
		first, err := s.Add("0", c, Origin{})
		must(t, err)
		second, err := s.Acquire("0")
		must(t, err)
		must(t, first.Rename("1", Origin{}))
		third, err := s.Acquire("1")
		must(t, err)
		must(t, second.Rename("2", Origin{Source: "alice"})) // by a lease on the ID before the last
		<-time.After(5 * time.Hour)
		_, err = s.Add("other", new(conn), Origin{})
		wantErr(t, err, ErrFull)
		must(t, s.Remove("2"))
		for i, l := range []*Lease[*conn]{&third, &first, &second} {
			if synctest.Wait(); c.isClosed(t) {
				t.Fatalf("closed before release %d", i)
			}
			l.Release()
			must(t, s.Check())
		}
		if synctest.Wait(); !c.isClosed(t) {
			t.Error("was not closed after the last release")
		}
		wantErr(t, first.Rename("3", Origin{}), ErrNotFound)
	})
}

// A session is renamed in a store that is full or draining. Where it cannot be,
// nothing changes.
func TestRenamingTakesNoPlace(t *testing.T) {
	s := open(t, WithMaxSessions(3), WithWhenFull(KeepConfirmed))
	var leases []*Lease[*conn]
	for i := range 3 {
		l, err := s.Add(fmt.Sprint(i), new(conn), Origin{Source: fmt.Sprint("source ", i)})
		must(t, err)
		l.Confirm()
		leases = append(leases, &l)
	}
	must(t, leases[0].Rename("a", Origin{Source: "source 0", Quota: 1}))
	wantErr(t, leases[0].Rename("1", Origin{}), ErrExists)
	wantErr(t, leases[0].Rename("a", Origin{}), ErrExists)
	wantErr(t, leases[0].Rename("", Origin{}), ErrInvalid)
	wantErr(t, leases[0].Rename("b", Origin{Quota: -1}), ErrInvalid)
	wantErr(t, leases[0].Rename("b", Origin{Expires: time.Now().Add(-time.Second)}), ErrInvalid)
	wantFull(t, leases[0].Rename("b", Origin{Source: "source 1", Quota: 1}), FullError{Max: 1, Own: 1, Lacking: LackingQuota})
	wantLive(t, s, "a", "1", "2")
	leases[1].Release()
	must(t, leases[0].Rename("b", Origin{Source: "source 2", Quota: 2}))
	s.Drain()
	must(t, leases[0].Rename("c", Origin{Source: "source 2", Quota: 1}))
	wantLive(t, s, "c", "1", "2")
	must(t, s.Check())
	for _, l := range leases {
		l.Release()
	}
	must(t, s.Check())
}

// Whose quota is full makes room for a session that becomes its own, if that is
// asked for.
func TestARenamedSessionCountsForItsNewSource(t *testing.T) {
	s := open(t, WithUnconfirmedTimeouts(0, 0))
	l, err := s.Add("alice's", new(conn), ofAlice(1, true))
	must(t, err)
	l.Release()
	l, err = s.Add("anonymous", new(conn), Origin{Source: "host"})
	must(t, err)
	must(t, l.Rename("also alice's", ofAlice(1, true)))
	wantLive(t, s, "also alice's")
	if st := s.Stats(); st.Ended[ReasonQuota] != 1 || st.Sources != 1 {
		t.Errorf("%+v", st)
	}
	must(t, s.Check())
	l.Release()
}

// An end of its own can come with the new ID, and stays if none does.
func TestARenamedSessionKeepsItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithLifetime(10*time.Hour))
		_, l := addEnding(t, s, "x", time.Now().Add(time.Hour))
		must(t, l.Rename("y", Origin{}))
		<-time.After(time.Hour - 1)
		must(t, s.Touch("y"))
		<-time.After(1)
		wantErr(t, s.Touch("y"), ErrNotFound)
		l.Release()
		c, l := addEnding(t, s, "a", time.Now().Add(time.Hour))
		must(t, l.Rename("b", Origin{}))
		must(t, l.Rename("c", Origin{Expires: time.Now().Add(time.Hour)}))
		if !l.SetExpires(time.Now().Add(2 * time.Hour)) {
			t.Error("the end cannot be moved by a lease on the old ID")
		}
		<-time.After(2*time.Hour - 1)
		must(t, s.Touch("c"))
		<-time.After(1)
		wantErr(t, s.Touch("c"), ErrNotFound)
		l.Release()
		if synctest.Wait(); !c.isClosed(t) {
			t.Error("not closed")
		}
	})
}

// Whatever else happens to sessions while they are renamed, each is closed once,
// and nothing of them is left.
func TestRenamingUnderConcurrency(t *testing.T) {
	s := open(t, WithMaxSessions(8), WithIdleTimeout(20*time.Millisecond), WithLifetime(50*time.Millisecond), WithMaxBytes(1000))
	id := func() string { return fmt.Sprint("id", rand.IntN(12)) }
	source := func() Origin {
		return Origin{Source: fmt.Sprint(rand.IntN(3)), Quota: 6, EvictOwn: true, Size: rand.Int64N(100)}
	}
	var made []*conn
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			for range 3000 {
				c := new(conn)
				l, err := s.Add(id(), c, source())
				if err == nil {
					mu.Lock()
					made = append(made, c)
					mu.Unlock()
				} else if l, err = s.Acquire(id()); err != nil {
					continue
				}
				held := l.Session()
				switch rand.IntN(5) {
				case 0:
					_ = l.Rename(id(), source())
					l.Confirm()
					_ = l.SetSize(rand.Int64N(100))
				case 1:
					_ = l.Rename(id(), source())
					l.Hold()
				case 2:
					_ = s.Remove(id())
				case 3:
					s.Kill(l.Fingerprint())
				}
				if l.Session() != held {
					t.Error("a lease is of another session")
				}
				l.Release()
			}
		})
	}
	all.Wait()
	must(t, s.Check())
	must(t, s.Shutdown(t.Context()))
	for _, c := range made {
		if !c.isClosed(t) {
			t.Error("a session was not closed")
		}
	}
	st := s.Stats()
	if st.Created != st.Ended.Total() || st.Closed != uint64(len(made)) || st.Ended[ReasonRenamed] == 0 || st.Live+st.Retired != 0 || st.Bytes != 0 {
		t.Errorf("%d made, %+v", len(made), st)
	}
	must(t, s.Check())
}

// Nobody makes room for a session that has ended: it cannot be renamed.
func TestNobodyLeavesForASessionThatHasEnded(t *testing.T) {
	s := open(t)
	l, err := s.Add("alice's", new(conn), ofAlice(1, true))
	must(t, err)
	l.Release()
	l, err = s.Add("anonymous", new(conn), Origin{Source: "host"})
	must(t, err)
	must(t, s.Remove("anonymous"))
	wantErr(t, l.Rename("also alice's", ofAlice(1, true)), ErrNotFound)
	wantErr(t, l.Rename("also alice's", ofAlice(1, false)), ErrNotFound)
	wantLive(t, s, "alice's")
	if n := s.Stats().Refused; n != 0 {
		t.Errorf("%d were refused for want of room", n)
	}
	l.Release()
}

// A quota holds for who is renamed also when nobody would be let in.
func TestTheQuotaHoldsForARenamedSession(t *testing.T) {
	for name, x := range map[string]struct {
		origin Origin
		opts   []Option
	}{
		"size that does not matter":   {Origin{Source: "alice", Quota: 1, Size: 1000}, []Option{WithMaxBytes(100)}},
		"store above its new maximum": {ofAlice(1, false), []Option{WithMaxSessions(1)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			for _, id := range []string{"alice's", "anonymous"} {
				l, err := s.Add(id, new(conn), Origin{Source: strings.TrimSuffix(id, "'s")})
				must(t, err)
				defer l.Release()
			}
			must(t, s.Reconfigure(x.opts...))
			l := acquire(t, s, "anonymous")
			defer l.Release()
			wantFull(t, l.Rename("also alice's", x.origin), FullError{Max: 1, Own: 1, Lacking: LackingQuota})
			wantLive(t, s, "alice's", "anonymous")
		})
	}
}

// Who has looked for a session before it was renamed, and comes to end it after
// that, leaves it alone.
func TestARenamedSessionIsNotEndedUnderItsOldID(t *testing.T) {
	for name, end := range map[string]func(*Store[*conn], *entry[*conn]) bool{
		"Kill": func(s *Store[*conn], e *entry[*conn]) bool { return s.kill(e, ReasonKilled) },
		"a lookup past its own end": func(s *Store[*conn], e *entry[*conn]) bool {
			s.expire(e, e.load(), ReasonLifetime)
			return false
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, WithMaxSessions(4), WithSourceShare(0.25), WithMaxLeaseAge(time.Hour))
				c := new(conn)
				l, err := s.Add("old", c, Origin{Source: "host", Expires: time.Now().Add(time.Minute)})
				must(t, err)
				pass(time.Minute - 1)
				e := s.index.find("old")
				must(t, l.Rename("new", Origin{Source: "host", Expires: time.Now().Add(100 * time.Hour)}))
				if end(s, e) {
					t.Error("says that it was ended")
				}
				must(t, s.Check())
				l.Release()
				heir := s.index.find("new")
				if leases, busy := heir.load().leases(), heir.source.busy.Load(); leases != 0 || busy != 0 {
					t.Errorf("%d leases are left, its source counts %d in use", leases, busy)
				}
				must(t, s.Remove("new"))
				if synctest.Wait(); !c.isClosed(t) {
					t.Error("was not closed after its end")
				}
			})
		})
	}
}

// A context that is asked for late, when its lease was released already, does
// not end that of the session, which lives on.
func TestTheContextOfARenamedSessionStays(t *testing.T) {
	s := open(t)
	_, first := addLeased(t, s, "old")
	must(t, first.Rename("new", Origin{}))
	second := acquire(t, s, "new")
	ctx := second.Context()
	old := first.entry
	first.Release()
	s.context(old) // what first.Context does that has looked at it before
	if ctx.Err() != nil {
		t.Error("the context of a live session was canceled")
	}
	must(t, s.Remove("new"))
	second.Release()
	if s.context(old).Err() == nil {
		t.Error("the context of a closed session was not canceled")
	}
}

// Who holds a lease for too long is told, also if it was taken under an earlier ID.
func TestLeasesOnOldIDsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := newLines()
		s := open(t, WithIdleTimeout(10*time.Minute), WithMaxLeaseAge(time.Hour), WithLogger(slog.New(log)), WithLeaseTraces(true))
		c, l := addLeased(t, s, "old")
		must(t, l.Rename("new", Origin{}))
		pass(2*time.Hour + Tick)
		if !c.isClosed(t) {
			t.Error("a lease of an hour is two hours old")
		}
		l.Release()
		if told := strings.Join(log.take(), "\n"); !strings.Contains(told, "TestLeasesOnOldIDsAreTold") {
			t.Errorf("log: %s", told)
		}
	})
}

func TestRenamingDoesNotPutOffTheEndOfALease(t *testing.T) {
	for name, id := range map[string]func(int) string{
		"to its own ID, which fails": func(int) string { return "a" },
		"to another ID":              func(i int) string { return fmt.Sprint("a", i) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := open(t, WithMaxLeaseAge(time.Hour))
				c, l := addLeased(t, s, "a")
				for i := range 5 {
					pass(30 * time.Minute)
					_ = l.Rename(id(i), Origin{})
				}
				if !c.isClosed(t) {
					t.Error("a lease of an hour is two and a half hours old")
				}
				l.Release()
			})
		})
	}
}

// Settings change, leases grow too old and others kill while sessions are renamed
// and in the end all is shut down, past its deadline. A session is closed once,
// its context canceled before; who is not killed is not closed in use, and no
// source has any in use in the end.
func TestRenamingWhileAllElseHappens(t *testing.T) {
	for name, x := range map[string]struct {
		kills bool
		opts  []Option
	}{
		"nobody kills":          {false, []Option{WithMaxLeaseAge(0)}},
		"some kill":             {true, []Option{WithMaxLeaseAge(0)}},
		"leases grow too old":   {true, []Option{WithMaxLeaseAge(3 * time.Millisecond), WithLeaseTraces(true)}},
		"and take their shares": {false, []Option{WithMaxLeaseAge(0), WithSourceShare(0.5)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openOf[*used](t, append(x.opts, WithMaxSessions(8), WithMaxBytes(1000))...)
			h := &renamers{t: t, store: s, kills: x.kills, sources: make(map[*source[*used]]bool)}
			var all sync.WaitGroup
			for i := range 6 {
				all.Go(func() { h.work(rand.New(rand.NewPCG(uint64(i), 7)), 2500) })
			}
			all.Go(func() {
				ms := func(n int) time.Duration { return time.Duration(1+rand.IntN(n)) * time.Millisecond }
				for range 300 {
					must(t, s.Reconfigure(WithMaxSessions(2+rand.IntN(7)), WithIdleTimeout(ms(3)), WithLifetime(3*time.Millisecond+ms(5)),
						WithUnconfirmedTimeouts(ms(1), ms(1)), WithWhenFull(WhenFull(rand.IntN(3)))))
					must(t, s.Check())
				}
			})
			all.Wait()
			must(t, s.Check())
			h.idle()
			for range 3 {
				all.Go(func() { h.work(rand.New(rand.NewPCG(1, 2)), 100_000) }) // until it is shut down
			}
			<-time.After(5 * time.Millisecond)
			if x.kills {
				ctx, cancel := context.WithCancel(t.Context())
				cancel()
				_ = s.Shutdown(ctx)
			}
			must(t, s.Shutdown(t.Context()))
			all.Wait()
			h.idle()
			must(t, s.Check())
			for _, u := range h.made {
				if n := u.closed.Load(); n != 1 || u.inUse.Load() && !x.kills {
					t.Errorf("a session was closed %d times, in use: %v", n, u.inUse.Load())
				}
			}
			st := s.Stats()
			if st.Created != st.Ended.Total() || st.Closed != uint64(len(h.made)) || st.Created != st.Closed+st.Ended[ReasonRenamed] || st.Live+st.Retired != 0 || st.Bytes != 0 || st.Sources != 0 {
				t.Errorf("%d made, %+v", len(h.made), st)
			}
		})
	}
}

// renamers are many who rename the sessions of one store.
type renamers struct {
	t     *testing.T
	store *Store[*used]
	kills bool

	mu      sync.Mutex
	made    []*used
	sources map[*source[*used]]bool // all that ever were
}

// work does n things at random, or until the store is shut down.
func (h *renamers) work(r *rand.Rand, n int) {
	s := h.store
	id := func() string { return fmt.Sprint("id", r.IntN(12)) }
	origin := func() (o Origin) {
		o = Origin{Source: []string{"", "a", "b"}[r.IntN(3)], Quota: r.IntN(7), EvictOwn: true, Size: r.Int64N(100)}
		if r.IntN(3) == 0 {
			o.Expires = time.Now().Add(time.Duration(1+r.IntN(2000)) * time.Microsecond)
		}
		return o
	}
	for range n {
		u := new(used)
		l, err := s.Add(id(), u, origin())
		if errors.Is(err, ErrShutdown) {
			return
		}
		if err == nil {
			h.mu.Lock()
			h.made = append(h.made, u)
			h.mu.Unlock()
		} else if l, err = s.Acquire(id()); err != nil {
			continue
		}
		h.use(r, &l, id, origin)
	}
}

func (h *renamers) use(r *rand.Rand, l *Lease[*used], id func() string, origin func() Origin) {
	s, u := h.store, l.Session()
	u.leases.Add(1)
	if r.IntN(2) == 0 {
		for e := l.entry; e != nil; e = e.heir() {
			h.mu.Lock()
			h.sources[e.source] = true
			h.mu.Unlock()
		}
	}
	switch r.IntN(8) {
	case 0, 1, 2:
		_ = l.Rename(id(), origin())
		l.Confirm()
		_ = l.SetSize(r.Int64N(100))
	case 3:
		_ = l.Rename(id(), origin())
		l.SetExpires(time.Now().Add(time.Duration(r.IntN(1000)) * time.Microsecond))
		_ = l.Rename(id(), origin())
		l.Hold()
	case 4:
		_ = s.Remove(id())
	case 5:
		if h.kills {
			s.Kill(l.Fingerprint())
		} else {
			_, _ = s.Peek(id())
		}
	case 6:
		for range s.All() {
		}
		if st := s.Stats(); st.Created != uint64(st.Live)+st.Ended.Total() {
			h.t.Errorf("live and ended ones are not those that were created: %+v", st)
		}
	case 7:
		_ = s.Confirm(id())
	}
	// Closed means canceled before, and not canceled without need.
	if closed := u.closed.Load() > 0; closed && l.Context().Err() == nil {
		h.t.Error("a session was closed under its user, and its context was not canceled first")
	}
	if err := l.Context().Err(); err != nil && !h.kills {
		h.t.Error("a context was canceled in use, and nobody kills")
	}
	u.leases.Add(-1)
	if r.IntN(2) == 0 {
		l.Release()
		return
	}
	other := make(chan struct{})
	go func() { // who still asks when it is released
		_ = l.Context()
		_, _ = l.Fingerprint(), l.Source()
		l.Confirm()
		_ = l.Rename(id(), Origin{})
		close(other)
	}()
	l.Release()
	<-other
}

// idle complains about sources that count sessions in use.
func (h *renamers) idle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for f := range h.sources {
		if n := f.busy.Load(); n != 0 {
			h.t.Errorf("source %q counts %d in use, and there are none", f.name, n)
		}
	}
}
