// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

func layoverStore(c config, more ...layover.Option) (*session.ExpiringSessionStore, error) {
	return session.OpenSessionStore(append(c.options(), append([]layover.Option{layover.WithLogger(nil)}, more...)...)...)
}

// idle returns mishaps on a server that nobody uses.
func idle(t *testing.T) *mishaps {
	t.Helper()
	store, err := layoverStore(storyLimits)
	if err != nil {
		t.Fatal(err)
	}
	b := promise.NewBook()
	s := &server{store: store, watch: newWatch(storyLimits, b, baseline{}), secrets: newSecrets(b)}
	return &mishaps{server: s}
}

// ways counts how calls of a function end.
type ways struct{ well, failed, panicked, exited int }

func (w *ways) of(f func() error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		returned := false
		defer func() {
			switch v := recover(); {
			case v != nil:
				w.panicked++
			case !returned:
				w.exited++
			}
		}()
		err := f()
		if returned = true; err != nil {
			w.failed++
		} else {
			w.well++
		}
	}()
	<-done
}

func TestEveryFailureOfCloseIsCounted(t *testing.T) {
	for f, want := range map[scenario.Faults]ways{
		0:                          {well: 64},
		scenario.FailingClosers:    {well: 56, failed: 8},
		scenario.PanickingClosers:  {well: 48, panicked: 8, exited: 8},
		scenario.CallingClosers:    {well: 64},
		scenario.PanickingObserver: {well: 64},
		scenario.FailingClosers | scenario.PanickingClosers | scenario.SlowClosers: {well: 40, failed: 8, panicked: 8, exited: 8},
	} {
		m, got := idle(t), ways{}
		m.begin(f)
		for range 64 {
			got.of(func() error { return m.closing("some-id") })
		}
		if got != want || m.failed.Load() != uint64(64-want.well) {
			t.Errorf("%s: %+v and %d counted, want %+v", f, got, m.failed.Load(), want)
		}
		if err := m.server.watch.Verdict(); err != nil {
			t.Error(err)
		}
	}
}

func TestClosersHangUntilThePhaseIsOver(t *testing.T) {
	m := idle(t)
	m.begin(scenario.HangingClosers)
	done := make(chan error)
	const calls = hangingCloses * (maxHanging + 2)
	for range calls {
		go func() { done <- m.closing("some-id") }()
	}
	for range calls - maxHanging {
		<-done
	}
	if !await.True(5*time.Second, func() bool { return m.hung() == maxHanging }) {
		t.Errorf("%d calls of Close hang, want %d", m.hung(), maxHanging)
	}
	m.end()
	for range maxHanging {
		<-done
	}
	if m.hang(); m.hung() != 0 {
		t.Errorf("%d calls of Close hang when the phase is over", m.hung())
	}
}

func TestACloserThatFindsItsSessionBreaksAPromise(t *testing.T) {
	m := idle(t)
	manager := session.NewStatefulServerSessionManager(session.WithStore(m.server.store))
	own, err := manager.CreateSession(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.callFromClose(own.Token())
	for _, p := range []promise.Promise{promise.NotStale} {
		if m.server.watch.Broken(p) == "" {
			t.Errorf("it is live when it is closed, and it is not said that this is wrong: %s", p)
		}
	}
}

func TestTheObserverPanicsAfterTheWatchWasTold(t *testing.T) {
	m := idle(t)
	m.server.mishaps = m
	m.begin(scenario.PanickingObserver | scenario.CallingObserver)
	var got ways
	for i := range byte(2 * panickedEvents) {
		got.of(func() error {
			m.server.observe(layover.Event{Kind: layover.EventCreated, Fingerprint: layover.Fingerprint{i}, At: time.Now()})
			return nil
		})
	}
	if want := (ways{well: 2*panickedEvents - 2, panicked: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if n := m.server.watch.counts.created; n != 2*panickedEvents {
		t.Errorf("the watch was told of %d sessions, want %d", n, 2*panickedEvents)
	}
}

func TestIDsAreFoundWhereNoneMayBe(t *testing.T) {
	const uuid, minted, other = "0b5e7a3c-41de-4a1c-9f06-3d5b5a9e1c11", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxw", "11111111-2222-4333-8444-555555555555"
	s := newSecrets(promise.NewBook())
	s.learn(uuid)
	s.learn(minted)
	for text, want := range map[string]string{
		"":                               "",
		"no ID: " + other:                "",
		"half of it: " + uuid[:20]:       "",
		uuid:                             uuid,
		`the Close of "` + uuid + `"`:    uuid,
		"päth/" + minted + "/x":          minted,
		"token-" + minted + "-and-more_": minted,
		"stack:\nx " + other + "\ny=" + uuid + "\n": uuid,
	} {
		if got := s.in(text); got != want {
			t.Errorf("%q contains %q, want %q", text, got, want)
		}
	}
}

func TestALogLineWithAnIDBreaksAPromise(t *testing.T) {
	b := promise.NewBook()
	s := newSecrets(b)
	s.learn("secret-session-id")
	s.logger().Info("fine", "session", layover.Fingerprint{1})
	if err := b.Verdict(); err != nil || b.Checks(promise.Secret) != 1 {
		t.Fatalf("%v after %d lines", err, b.Checks(promise.Secret))
	}
	s.logger().Error("a failure", "error", errors.New(`no "secret-session-id" there`))
	got := b.Broken(promise.Secret)
	if !strings.Contains(got, "a log line contains the ID") || strings.Contains(got, "secret-session-id") {
		t.Errorf("the verdict is %q, want one that says so, without the ID", got)
	}
}

func TestKnownIDsAreBounded(t *testing.T) {
	s := newSecrets(promise.NewBook())
	for i := range 3 * maxSecrets {
		s.learn(strings.Repeat("x", 8) + string(rune('a'+i%26)) + strings.Repeat("y", i/26%50) + string(rune('a'+i/1300)))
	}
	s.learn("the-last-one")
	if len(s.known) > maxSecrets || len(s.order) > maxSecrets || s.in("the-last-one") == "" {
		t.Errorf("%d IDs are known, in an order of %d; the last one: %q", len(s.known), len(s.order), s.in("the-last-one"))
	}
}

func TestTheReportTellsTheHistoryAboveTheVerdict(t *testing.T) {
	s, m, out := newStory(), newMeter(storyLimits), new(bytes.Buffer)
	s.created(a).confirmed(a).confirmed(a)
	m.took = time.Second
	m.report(out, storyLimits, s.Book, s.before, layover.Stats{}, newTally())
	_, end, found := strings.Cut(out.String(), "\nsession "+a.String()+"\n")
	lines := strings.Split(strings.TrimSpace(end), "\n")
	if !found || len(lines) != 5 || !strings.HasSuffix(lines[0], "  created") || !strings.HasSuffix(lines[1], "  confirmed") ||
		lines[3] != "repeat with: "+storyLimits.command() || !strings.HasPrefix(lines[4], "FAILED: ") {
		t.Errorf("the end of the report is %q", lines)
	}
}
