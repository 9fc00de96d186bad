// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package promise

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/c8e4ff29/layover"
)

// Book is what became of the promises. Use [NewBook]. Safe for concurrent use.
type Book struct {
	checks [promises]atomic.Uint64

	mu      sync.Mutex
	broken  [promises]string // the first sentence of each
	first   string
	history string // of the session that the first sentence is about
	failed  chan struct{}
	began   time.Time
	pasts   chronicle
}

// NewBook returns an empty book of a run that begins now.
func NewBook() *Book { return &Book{failed: make(chan struct{}), began: time.Now()} }

// Note keeps what happened to a session, to be told if a promise is broken on it. A
// bounded number of the latest is kept.
func (b *Book) Note(f layover.Fingerprint, at time.Time, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pasts.note(f, at, what)
}

// Historian is what a sentence is about and can tell what had happened to it.
type Historian interface{ History() string }

// Forget drops what was noted of sessions, which takes some megabytes.
func (b *Book) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pasts = chronicle{}
}

// Expect notes one check of a promise and returns ok. The sentence is for when
// it is not: what was expected, and what was found. Durations in it are rounded. If
// it is the first one, a history is kept with it: what the first [Historian] of the
// arguments tells, who must not wait for whoever calls Expect, or what was noted, see
// [Book.Note], of a session that an argument is the [layover.Fingerprint] of, also as
// a string.
func (b *Book) Expect(p Promise, ok bool, sentence string, args ...any) bool {
	b.checks[p].Add(1)
	if ok {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken[p] != "" {
		return false
	}
	for i, arg := range args {
		if d, ok := arg.(time.Duration); ok {
			args[i] = d.Round(time.Microsecond)
		}
	}
	b.broken[p] = fmt.Sprintf(sentence, args...)
	if b.first == "" {
		b.first, b.history = b.broken[p], b.historyOf(args)
		close(b.failed)
	}
	return false
}

// historyOf returns what is known of the first session that the arguments are about.
func (b *Book) historyOf(args []any) (history string) {
	for _, arg := range args {
		if h, ok := arg.(Historian); ok {
			history = h.History()
		} else {
			history = b.pasts.about(arg, b.began)
		}
		if history != "" {
			break
		}
	}
	return history
}

// Failed returns a channel that is closed with the first broken promise.
func (b *Book) Failed() <-chan struct{} { return b.failed }

// Patience returns how long to wait for what should be over: less when there is
// a broken promise to be told.
func (b *Book) Patience() time.Duration {
	if b.Verdict() != nil {
		return 2 * time.Second
	}
	return 15 * time.Second
}

// Verdict returns the first broken promise as an error.
func (b *Book) Verdict() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.first == "" {
		return nil
	}
	return errors.New(b.first)
}

// History returns what is known of the session on which the first promise was
// broken, a line an event; empty if it is about none.
func (b *Book) History() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.history
}

// Checks returns how often a promise was put to the test.
func (b *Book) Checks(p Promise) uint64 { return b.checks[p].Load() }

// Broken returns the first sentence about a broken promise; empty: it held.
func (b *Book) Broken(p Promise) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken[p]
}
