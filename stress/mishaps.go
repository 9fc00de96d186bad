// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
	"github.com/c8e4ff29/layover/stress/internal/scenario"
)

// mishaps are what goes wrong in the code that the store calls, by turns.
type mishaps struct {
	server *server
	closes atomic.Uint64 // calls of Close
	events atomic.Uint64
	failed atomic.Uint64 // calls of Close that have failed, or are about to

	mu      sync.Mutex
	faults  scenario.Faults
	hanging int
	letGo   chan struct{} // closed when the phase is over
}

// Every so many.
const (
	callingCloses  = 4
	slowCloses     = 3
	hangingCloses  = 5
	failingCloses  = 8
	callingEvents  = 4
	panickedEvents = 16
)

const (
	maxHanging = 8 // of the closers, so that there are others
	maxSlow    = 8 * time.Millisecond
)

// begin has these faults happen from now on.
func (m *mishaps) begin(f scenario.Faults) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults, m.letGo = f, make(chan struct{})
}

// end lets nothing go wrong any more, and lets those go that hang.
func (m *mishaps) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.letGo != nil {
		close(m.letGo)
	}
	m.faults, m.letGo = 0, nil
}

func (m *mishaps) now() scenario.Faults {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.faults
}

// hang returns when the phase is over, at once if enough others do.
func (m *mishaps) hang() {
	m.mu.Lock()
	letGo := m.letGo
	if letGo == nil || m.hanging == maxHanging {
		m.mu.Unlock()
		return
	}
	m.hanging++
	m.mu.Unlock()
	<-letGo
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hanging--
}

// hung returns how many calls of Close hang.
func (m *mishaps) hung() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hanging
}

// closing is what goes wrong when the session with this ID is closed. The ID is in
// what it says, since the code of a server may do that, too.
func (m *mishaps) closing(id string) error {
	f, n := m.now(), m.closes.Add(1)
	if f.Has(scenario.CallingClosers) && n%callingCloses == 0 {
		m.callFromClose(id)
	}
	if f.Has(scenario.SlowClosers) && n%slowCloses == 0 {
		await.Pause(context.Background(), maxSlow*time.Duration(1+n%4)/4)
	}
	if f.Has(scenario.HangingClosers) && n%hangingCloses == 0 {
		m.hang()
	}
	switch turn := n % failingCloses; {
	case f.Has(scenario.FailingClosers) && turn == 1:
		m.failed.Add(1)
		return fmt.Errorf("stress: the Close of %q fails, as it is to", id)
	case f.Has(scenario.PanickingClosers) && turn == 3:
		m.failed.Add(1)
		panic("stress: the Close of " + id + " panics, as it is to")
	case f.Has(scenario.PanickingClosers) && turn == 5:
		m.failed.Add(1)
		runtime.Goexit()
	}
	return nil
}

// callFromClose calls back into the store about a session that is being closed,
// which must not find it.
func (m *mishaps) callFromClose(id string) {
	s, w := m.server.store, m.server.watch
	mark := s.Fingerprint(id)
	_, err := s.Acquire(context.Background(), id)
	w.Expect(promise.NotStale, errors.Is(err, layover.ErrNotFound) || errors.Is(err, layover.ErrShutdown), "session %s was handed out to its own Close: %v", mark, err)
	err = s.Remove(id)
	w.Expect(promise.ClosedOnce, err == nil, "session %s cannot be removed by its own Close, expected no error as it is gone: %v", mark, err)
	w.Expect(promise.ClosedOnce, !s.Kill(mark), "session %s was killed by its own Close, expected it to be gone", mark)
	_, _ = s.Explain(mark)
	m.look()
}

// look looks at the store as anybody may.
func (m *mishaps) look() {
	s := m.server.store
	_, _ = s.Stats(), s.Len()
	for range s.All() {
		break
	}
}

// observed is what goes wrong in the observer, after the watch was told.
func (m *mishaps) observed(ev layover.Event) {
	f, n := m.now(), m.events.Add(1)
	if f.Has(scenario.CallingObserver) && n%callingEvents == 0 {
		_, _ = m.server.store.Explain(ev.Fingerprint)
		_ = m.server.store.Kill(layover.Fingerprint{})
		m.look()
	}
	if f.Has(scenario.PanickingObserver) && n%panickedEvents == 0 {
		panic(fmt.Sprintf("stress: the observer panics on session %s, as it is to", ev.Fingerprint))
	}
}
