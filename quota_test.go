// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func ofAlice(quota int, evict bool) Origin {
	return Origin{Source: "alice", Quota: quota, EvictOwn: evict}
}

// A source has no more sessions than its quota, those that were retired in use
// included; others are not concerned.
func TestASourceHasNoMoreSessionsThanItsQuota(t *testing.T) {
	s := open(t)
	for i := range 3 {
		l, err := s.Add(fmt.Sprint(i), new(conn), ofAlice(3, false))
		must(t, err)
		defer l.Release()
	}
	must(t, s.Remove("0")) // retired
	for _, evict := range []bool{false, true} {
		_, err := s.Add("more", new(conn), ofAlice(3, evict))
		wantFull(t, err, FullError{Max: 3, Own: 3, Lacking: LackingQuota})
	}
	l, err := s.Add("bob's", new(conn), Origin{Source: "bob", Quota: 1})
	must(t, err)
	l.Release()
	wantLive(t, s, "1", "2", "bob's")
	if n := s.Stats().Refused; n != 2 {
		t.Errorf("%d refused", n)
	}
	_, err = s.Add("x", new(conn), Origin{Quota: -1})
	wantErr(t, err, ErrInvalid)
	must(t, s.Check())
}

// If its own are to make room, those that nobody came back to leave first, then
// the least recently used; never one in use, and never another source's.
func TestAtItsQuotaASourceMakesRoomForItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Hour), WithUnconfirmedTimeouts(0, 0))
		add := func(id string, o Origin) *Lease[*conn] {
			<-time.After(10 * time.Second)
			l, err := s.Add(id, new(conn), o)
			must(t, err)
			return &l
		}
		add("bob's", Origin{Source: "bob"}).Release()
		for _, id := range []string{"a", "b"} {
			l := add(id, ofAlice(4, true))
			l.Confirm()
			l.Release()
		}
		busy := add("busy", ofAlice(4, true))
		add("new", ofAlice(4, true)).Release()
		<-time.After(10 * time.Second)
		must(t, s.Touch("a"))
		for i, left := range [][]string{{"a", "b", "busy", "0"}, {"a", "b", "busy", "1"}, {"a", "b", "busy", "2"}} {
			add(fmt.Sprint(i), ofAlice(4, true)).Release()
			wantLive(t, s, append(left, "bob's")...)
		}
		must(t, s.Confirm("2"))
		add("3", ofAlice(4, true)).Release()
		wantLive(t, s, "bob's", "a", "busy", "2", "3") // b was not used for longest
		if st := s.Stats(); st.Ended[ReasonQuota] != 4 || st.Ended[ReasonCapacity] != 0 {
			t.Errorf("%+v", st.Ended)
		}
		_, err := s.Acquire("b")
		if why := (*NotFoundError)(nil); !errors.As(err, &why) || why.Reason != ReasonQuota {
			t.Errorf("%v", err)
		}
		busy.Release()
		must(t, s.Check())
	})
}

// What has ended takes nothing of a quota, however it ended: the places are counted
// from the sessions that are there.
func TestAQuotaCannotLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute), WithUnconfirmedTimeouts(0, 0), WithMaxSessions(50))
		for name, end := range map[string]func(string, *Lease[*conn]){
			"removed":      func(id string, l *Lease[*conn]) { l.Release(); must(t, s.Remove(id)) },
			"removed busy": func(id string, l *Lease[*conn]) { must(t, s.Remove(id)); l.Release() },
			"killed":       func(id string, l *Lease[*conn]) { s.Kill(s.Fingerprint(id)); l.Release() },
			"idle":         func(_ string, l *Lease[*conn]) { l.Release(); <-time.After(2 * time.Minute) },
			"replaced": func(id string, l *Lease[*conn]) {
				l.Release()
				must(t, s.Put(id, new(conn), Origin{}))
				must(t, s.Remove(id))
			},
			"replaced busy": func(id string, l *Lease[*conn]) {
				must(t, s.Put(id, new(conn), Origin{}))
				l.Release()
				must(t, s.Remove(id))
			},
		} {
			for i := range 100 {
				id := fmt.Sprint(name, i)
				l, err := s.Add(id, new(conn), ofAlice(1, false))
				must(t, err)
				end(id, &l)
			}
		}
		must(t, s.Check())
	})
}

// Sessions that are past their deadline make room before anybody is refused.
func TestAtAQuotaWhatHasExpiredLeavesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute), WithUnconfirmedTimeouts(0, 0))
		for i := range 20 {
			l, err := s.Add(fmt.Sprint(i), new(conn), ofAlice(1, false))
			must(t, err)
			l.Release()
			<-time.After(time.Minute)
		}
	})
}

// However many come at once, a source never has more places than its quota.
func TestAQuotaHoldsUnderConcurrency(t *testing.T) {
	for _, evict := range []bool{false, true} {
		s := open(t)
		var all sync.WaitGroup
		for g := range 16 {
			all.Go(func() {
				for i := range 200 {
					l, err := s.Add(fmt.Sprint(g, "/", i), new(conn), ofAlice(5, evict))
					if err != nil {
						if !errors.Is(err, ErrFull) {
							t.Error(err)
						}
						continue
					}
					if i%3 == 0 {
						_ = s.Remove(fmt.Sprint(g, "/", i))
					}
					l.Release()
				}
			})
		}
		all.Wait()
		if st := s.Stats(); st.Peak > 5 || st.Peak == 0 {
			t.Errorf("peak %d", st.Peak)
		}
		must(t, s.Check())
	}
}

// Under EvictLRU, which knows no order within a source, the newcomer is refused.
func TestUnderEvictLRUAQuotaRefuses(t *testing.T) {
	s := open(t, WithWhenFull(EvictLRU))
	l, err := s.Add("a", new(conn), ofAlice(1, true))
	must(t, err)
	l.Release()
	_, err = s.Add("b", new(conn), ofAlice(1, true))
	wantErr(t, err, ErrFull)
	wantLive(t, s, "a")
}

// A newcomer that the store has no room for, whoever leaves, costs its source
// nothing: it is refused before one of its own makes room in the quota.
func TestNobodyLeavesForAQuotaInVain(t *testing.T) {
	for name, test := range map[string]struct{ most, size int64 }{
		"larger than the store":               {100, 101},
		"the store has more than it may have": {50, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, WithMaxBytes(100), WithMaxSessions(10))
			l, err := s.Add("bob's", new(conn), Origin{Source: "bob", Size: 90})
			must(t, err)
			defer l.Release()
			must(t, s.Put("alice's", new(conn), Origin{Source: "alice"}))
			must(t, s.Reconfigure(WithMaxBytes(test.most)))
			o := ofAlice(1, true)
			o.Size = test.size
			_, err = s.Add("more", new(conn), o)
			wantErr(t, err, ErrFull)
			wantLive(t, s, "bob's", "alice's")
			must(t, s.Check())
		})
	}
}

// A session that comes instead of another one takes no place in the quota; the old
// one ends if and only if the new one is there.
func TestASessionInsteadOfAnother(t *testing.T) {
	for _, id := range []string{"old", "new"} {
		t.Run(id, func(t *testing.T) {
			s := open(t, WithMaxSessions(3))
			was, is := new(conn), new(conn)
			old, err := s.Add("old", was, ofAlice(1, true))
			must(t, err)
			defer old.Release()
			must(t, s.Put("other", new(conn), Origin{Source: "alice"}))
			_, err = s.AddInstead(&old, id, is, ofAlice(1, false)) // she has two by now
			wantFull(t, err, FullError{Max: 1, Own: 2, Lacking: LackingQuota})
			_, err = s.AddInstead(&old, "other", is, ofAlice(2, false))
			wantErr(t, err, ErrExists)
			wantLive(t, s, "old", "other")
			l, err := s.AddInstead(&old, id, is, ofAlice(2, false))
			must(t, err)
			wantLive(t, s, id, "other")
			must(t, s.Check())
			if old.Session() != was || was.isClosed(t) || l.Session() != is {
				t.Error("the old one is not what it was for who uses it")
			}
			old.Release()
			l.Release()
			must(t, s.Check())
			if st := s.Stats(); st.Ended[ReasonReplaced] != 1 || st.Live != 2 || st.Retired != 0 {
				t.Errorf("%+v", st)
			}
			next, err := s.AddInstead(&old, "next", new(conn), ofAlice(3, false)) // there is nothing to replace
			must(t, err)
			next.Release()
			wantLive(t, s, id, "other", "next")
		})
	}
}

// At no moment are both live, or neither, whoever looks.
func TestASessionInsteadOfAnotherUnderConcurrency(t *testing.T) {
	s := open(t)
	first, err := s.Add("x", new(conn), ofAlice(1, false))
	must(t, err)
	last, done := &first, make(chan struct{})
	var all sync.WaitGroup
	for range 2 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				l, err := s.Acquire("x")
				if err != nil {
					t.Error(err)
					return
				}
				if n := s.Stats().Live; n != 1 {
					t.Errorf("%d are live", n)
				}
				l.Release()
			}
		})
	}
	for range 2000 {
		l, err := s.AddInstead(last, "x", new(conn), Origin{Source: "alice"})
		must(t, err)
		last.Release()
		last = &l
	}
	close(done)
	all.Wait()
	last.Release()
	must(t, s.Check())
}

// Nor does anybody if those who could are too few: a source may have more than its
// quota, by Put.
func TestTooFewLeaveForNoQuota(t *testing.T) {
	for _, how := range []string{"add", "rename"} {
		s := open(t)
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			l, err := s.Add(id, new(conn), ofAlice(5, true))
			must(t, err)
			if id > "b" {
				defer l.Release()
			} else {
				l.Release()
			}
		}
		var err error
		if how == "add" {
			_, err = s.Add("f", new(conn), ofAlice(2, true))
		} else {
			l, e := s.Add("f", new(conn), Origin{Source: "host"})
			must(t, e)
			defer l.Release()
			err = l.Rename("g", ofAlice(2, true))
		}
		wantErr(t, err, ErrFull)
		if st := s.Stats(); st.Ended[ReasonQuota] != 0 {
			t.Errorf("%s: %d have left in vain", how, st.Ended[ReasonQuota])
		}
	}
}

// Instead of nobody, a session is added like any other.
func TestAddInsteadOfNil(t *testing.T) {
	s := open(t)
	defer func() {
		if v := recover(); v != nil {
			t.Errorf("panic: %v", v)
		}
	}()
	l, err := s.AddInstead(nil, "a", new(conn), Origin{})
	must(t, err)
	l.Release()
}
