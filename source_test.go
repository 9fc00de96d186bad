// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Who is turned away for the source of a session gets the answer of an ID that
// never was, and leaves no trace: no lease, no touch.
func TestAcquireFromLeavesNoTraceWhereItIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, WithIdleTimeout(time.Minute), WithUnconfirmedTimeouts(0, 0))
		must(t, s.Put("x", new(conn), Origin{Source: "alice"}))
		from := func(want string) func(string) bool {
			return func(source string) bool { return source == want }
		}
		for range 5 {
			<-time.After(10 * time.Second)
			l, err := s.AcquireFrom("x", from("bob"))
			why := (*NotFoundError)(nil)
			if !errors.As(err, &why) || why.Reason != 0 || why.Held || l.Session() != nil {
				t.Fatalf("%v, %v", l.Session(), err)
			}
		}
		l, err := s.AcquireFrom("x", from("alice"))
		must(t, err)
		if l.Source() != "alice" {
			t.Errorf("source %q", l.Source())
		}
		l.Release()
		if l.Source() != "" {
			t.Errorf("source %q after Release", l.Source())
		}
		<-time.After(55 * time.Second)
		_, err = s.AcquireFrom("x", from("bob"))
		if err == nil {
			t.Error("it was handed out")
		}
		<-time.After(5*time.Second + 2*time.Second)
		if s.Len() != 0 {
			t.Error("a refusal has kept it alive")
		}
	})
}

// Without a lease, too, a session's size is told of that very session, and only
// while it is live.
func TestCompareAndSetSizeIsOfThatSession(t *testing.T) {
	s := open(t, WithMaxBytes(100))
	v := new(conn)
	must(t, s.Put("x", v, Origin{Size: 10}))
	must(t, s.CompareAndSetSize("x", v, 60))
	if b := s.Stats().Bytes; b != 60 {
		t.Errorf("%d bytes", b)
	}
	for _, c := range []struct {
		id   string
		v    *conn
		n    int64
		want error
	}{{"x", new(conn), 1, ErrNotFound}, {"y", v, 1, ErrNotFound}, {"x", v, -1, ErrInvalid}, {"x", v, 101, ErrFull}} {
		if err := s.CompareAndSetSize(c.id, c.v, c.n); !errors.Is(err, c.want) {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
	must(t, s.Remove("x"))
	if err := s.CompareAndSetSize("x", v, 1); !errors.Is(err, ErrNotFound) || s.Stats().Bytes != 0 {
		t.Errorf("after its end: %v, %d bytes", err, s.Stats().Bytes)
	}
	must(t, s.Check())
}

// Who does not accept the source of a session that has ended learns nothing of it;
// the others do.
func TestWhyASessionEndedIsItsSourcesBusiness(t *testing.T) {
	s := open(t)
	must(t, s.Put("x", new(conn), Origin{Source: "alice", Holds: true}))
	must(t, s.Remove("x"))
	for _, who := range []string{"alice", "bob"} {
		_, err := s.AcquireFrom("x", func(source string) bool { return source == who })
		why := (*NotFoundError)(nil)
		if !errors.As(err, &why) || (why.Reason == ReasonClosed) != (who == "alice") || why.Held != (who == "alice") {
			t.Errorf("%s: %v", who, err)
		}
	}
	_, err := s.AcquireFrom("never", func(string) bool { t.Error("asked about nothing"); return true })
	wantErr(t, err, ErrNotFound)
}
