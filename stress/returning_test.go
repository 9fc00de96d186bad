// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

func TestClientsOfALaterServerGetWhatWasLeft(t *testing.T) {
	var l luggage
	for i := range maxLuggage + 1 {
		l.leave(cookieOf{server: 1, mixed: i%2 == 0, schema: string(rune(i))})
	}
	if len(l.all) != maxLuggage || l.all[0].schema != string(rune(1)) {
		t.Errorf("%d cookies are left, from %q on, want the last %d", len(l.all), l.all[0].schema, maxLuggage)
	}
	if _, left := l.take(1, true); left {
		t.Error("a cookie is taken for one of another server on its own one")
	}
	first, left := l.take(2, true)
	if again, _ := l.take(2, true); !left || !first.mixed || again.schema == first.schema {
		t.Errorf("took %v, and then %v, want others of the mixed", first, again)
	}
}

// returns has a client leave a session with a schema, and another one bring its
// cookie, to the same server or to the next one. It returns what broke.
func returns(t *testing.T, restarts bool) error {
	t.Helper()
	r := newCourse(tiny, &progress{out: io.Discard})
	if !r.startServer() {
		t.Fatal(r.Verdict())
	}
	before := r.witness(r.populate(all(t)[0]))
	if !before.connect() || !before.set(t.Context(), "secret") {
		t.Fatal(r.Verdict())
	}
	before.keep()
	before.disconnect()
	if restarts {
		r.shutDown()
		r.startServer()
	} else {
		r.server.number = 7 // which is a lie
	}
	after := r.witness(r.populate(all(t)[0]))
	after.id += (after.id + before.id) % 2 // of those who have sessions of both types, or not
	if after.connect() {
		after.bringBack(t.Context(), decisions(1, 2, 3))
		after.disconnect()
	}
	if len(r.luggage.all) > 0 {
		t.Error("what was left was not taken")
	}
	r.shutDown()
	return r.Verdict()
}

func TestNothingIsFoundByACookieOfAnotherServer(t *testing.T) {
	if err := returns(t, true); err != nil {
		t.Error(err)
	}
	if err := returns(t, false); err == nil || !strings.Contains(err.Error(), "was handed out for the cookie of a session on another server") {
		t.Errorf("the watch says %v when a session is found", err)
	}
}

// refusedWith returns the error of a call that was refused for a reason.
func refusedWith(code codes.Code, reason string) error {
	st, _ := status.New(code, "no").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: session.ErrorDomain})
	return st.Err()
}

func TestCallsMayFailForTheEndOfTheirStoreOnlyThen(t *testing.T) {
	unavailable := refusedWith(codes.Unavailable, "SESSION_STORE_DRAINING")
	notSaved := refusedWith(codes.Internal, "SESSION_NOT_SAVED")
	for name, c := range map[string]struct {
		err  error
		when func(*story)
		may  bool
	}{
		"drained":                        {unavailable, func(s *story) { s.draining() }, true},
		"not drained":                    {unavailable, func(*story) {}, false},
		"another reason":                 {refusedWith(codes.Unavailable, "SESSION_STORE_FAILED"), func(s *story) { s.draining() }, false},
		"not saved since it was too old": {notSaved, func(s *story) { s.says(layover.ReasonLifetime) }, true},
		"not saved since it was idle":    {notSaved, func(s *story) { s.says(layover.ReasonIdle) }, false},
		"shut down under it":             {refusedWith(codes.Unavailable, "SESSION_STORE_SHUTDOWN"), func(s *story) { s.cuts() }, true},
		"failed under it":                {status.Error(codes.Unknown, "no"), func(s *story) { s.cuts() }, false},
	} {
		s := newStory()
		c.when(s)
		who := s.client()
		who.secrets, who.meter, who.tally = newSecrets(s.Book), newMeter(storyLimits), newTally()
		_, _, _ = who.call(t.Context(), getInfo, func(context.Context) error { return c.err })
		if held := s.Broken(promise.Answered) == ""; held != c.may {
			t.Errorf("%s: allowed: %t, want %t", name, held, c.may)
		}
	}
}

func TestAClientIsOverWhenItsServerIs(t *testing.T) {
	s := newStory()
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.client().over(ctx); err != nil {
		t.Errorf("over at the start: %v", err)
	}
	if err := s.cuts().client().over(ctx); err == nil {
		t.Error("its server is shut down under its calls, and it is not over")
	}
	if cancel(); newStory().client().over(ctx) == nil {
		t.Error("its phase is over, and it is not")
	}
}
