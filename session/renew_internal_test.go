// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/c8e4ff29/layover"
)

type plainUser struct {
	token  atomic.Pointer[string]
	closed atomic.Int32
}

func (s *plainUser) Token() string                                            { return *s.token.Load() }
func (s *plainUser) SetToken(t string)                                        { s.token.Store(&t) }
func (s *plainUser) GetSessionOption(string) *flight.SessionOptionValue       { return nil }
func (s *plainUser) GetSessionOptions() map[string]*flight.SessionOptionValue { return nil }
func (s *plainUser) SetSessionOption(string, *flight.SessionOptionValue)      {}
func (s *plainUser) EraseSessionOption(string)                                {}
func (s *plainUser) Close() error                                             { s.closed.Add(1); return nil }
func (s *plainUser) Closed() bool                                             { return s.closed.Load() > 0 }

// A session that is removed at any moment of its renewal is gone.
func TestRemovedAtAnyMomentOfARenewal(t *testing.T) {
	store := NewSessionStore(layover.WithLogger(nil), layover.WithMaxSessions(0))
	begun := time.Now()
	lost, n := 0, 0
	for ; time.Since(begun) < time.Second && lost == 0; n++ {
		s := new(plainUser)
		s.SetToken(fmt.Sprint("old-", n))
		l, err := store.Add(t.Context(), s, layover.Origin{})
		if err != nil {
			t.Fatal(err)
		}
		var ready atomic.Int32
		var all sync.WaitGroup
		barrier := func(spin int) {
			ready.Add(1)
			for ready.Load() < 2 {
			}
			for range spin {
				ready.Load()
			}
		}
		all.Go(func() {
			barrier(0)
			done, err := store.takeTurn(t.Context(), s)
			if err != nil {
				t.Error(err)
				return
			}
			defer done()
			_ = store.rename(&l.(*lease).Lease, &renewal{token: fmt.Sprint("new-", n)})
		})
		all.Go(func() {
			barrier(n % 3000)
			if err := store.removeSession(s); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		l.Release()
		if store.Len() != 0 {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("a session that was removed while it was renewed is live, at round %d", n)
	}
	t.Log(n, "rounds")
}
