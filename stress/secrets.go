// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"strings"
	"sync"

	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// secrets knows the IDs of the latest sessions, and looks for them where none may
// be. Safe for concurrent use.
type secrets struct {
	book *promise.Book

	mu     sync.Mutex
	known  map[string]struct{}
	order  []string // a ring of them
	oldest int
	sizes  map[int]struct{} // of the IDs; there are few
}

// maxSecrets is how many IDs are known. Who looks for one in vain has not seen all.
const maxSecrets = 8192

func newSecrets(b *promise.Book) *secrets {
	return &secrets{book: b, known: make(map[string]struct{}), sizes: make(map[int]struct{})}
}

// learn notes an ID.
func (s *secrets) learn(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.known[id]; known || id == "" {
		return
	}
	s.known[id], s.sizes[len(id)] = struct{}{}, struct{}{}
	if len(s.order) < maxSecrets {
		s.order = append(s.order, id)
		return
	}
	delete(s.known, s.order[s.oldest])
	s.order[s.oldest] = id
	s.oldest = (s.oldest + 1) % maxSecrets
}

// check looks for IDs in a text that an outsider can read.
func (s *secrets) check(what, text string) {
	id := s.in(text)
	if id != "" {
		text = strings.ReplaceAll(text, id, "[ID]")
	}
	s.book.Expect(promise.Secret, id == "", "%s contains the ID of a session: %.400q", what, text)
}

// in returns an ID that is in the text, empty if none is.
func (s *secrets) in(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(text) > 0 {
		size := strings.IndexFunc(text, isNotOfID)
		if size < 0 {
			size = len(text)
		}
		if id := s.within(text[:size]); id != "" {
			return id
		}
		text = text[min(size+1, len(text)):]
	}
	return ""
}

// within looks at every part of a word.
func (s *secrets) within(word string) string {
	for size := range s.sizes {
		for i := 0; i+size <= len(word); i++ {
			if _, known := s.known[word[i:i+size]]; known {
				return word[i : i+size]
			}
		}
	}
	return ""
}

// isNotOfID reports whether no ID has this character: they are UUIDs, base64url, or
// that after a prefix.
func isNotOfID(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != ':'
}

// Write takes one line of the log.
func (s *secrets) Write(line []byte) (int, error) {
	s.check("a log line", string(line))
	return len(line), nil
}

// logger returns a logger whose lines are looked at, and not kept.
func (s *secrets) logger() *slog.Logger { return slog.New(slog.NewTextHandler(s, nil)) }
