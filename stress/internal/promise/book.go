// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package promise

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Book is what became of the promises. Use [NewBook]. Safe for concurrent use.
type Book struct {
	checks [promises]atomic.Uint64

	mu      sync.Mutex
	broken  [promises]string // the first sentence of each
	first   string
	history string // of the session that the first sentence is about
	failed  chan struct{}
}

// NewBook returns an empty book.
func NewBook() *Book { return &Book{failed: make(chan struct{})} }

// Historian is what a sentence is about and can tell what had happened to it.
type Historian interface{ History() string }

// Expect notes one check of a promise and returns ok. The sentence is for when
// it is not: what was expected, and what was found. Durations in it are rounded. If
// it is the first one, what the first [Historian] of the arguments tells is kept
// with it; that one must not wait for whoever calls Expect.
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
	history := ""
	for i, arg := range args {
		switch arg := arg.(type) {
		case time.Duration:
			args[i] = arg.Round(time.Microsecond)
		case Historian:
			if history == "" {
				history = arg.History()
			}
		}
	}
	b.broken[p] = fmt.Sprintf(sentence, args...)
	if b.first == "" {
		b.first, b.history = b.broken[p], history
		close(b.failed)
	}
	return false
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
