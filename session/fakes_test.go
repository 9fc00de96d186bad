// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"maps"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// userSession is a session of a user's own type. It is an error of the caller's
// to close it twice; closes counts.
type userSession struct {
	id       string
	onClosed func() // runs in Closed
	onClose  func() // runs in Close

	mu      sync.Mutex
	options map[string]*flight.SessionOptionValue
	closes  int
}

func (s *userSession) Token() string { return s.id }

func (s *userSession) GetSessionOption(name string) *flight.SessionOptionValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options[name]
}

func (s *userSession) GetSessionOptions() map[string]*flight.SessionOptionValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.options)
}

func (s *userSession) SetSessionOption(name string, v *flight.SessionOptionValue) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.options == nil {
		s.options = make(map[string]*flight.SessionOptionValue)
	}
	s.options[name] = v
}

func (s *userSession) EraseSessionOption(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.options, name)
}

func (s *userSession) Close() error {
	if s.onClose != nil {
		s.onClose()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closes++
	return nil
}

func (s *userSession) Closed() bool {
	if s.onClosed != nil {
		s.onClosed()
	}
	return s.closeCount() > 0
}

func (s *userSession) closeCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closes
}

// valueSession is a session of a user's own type that cannot be compared.
type valueSession struct {
	session.ServerSession
	tags map[string]string
}

// fakeFactory is a SessionFactory that does what the test says.
type fakeFactory func() (session.ServerSession, error)

func (f fakeFactory) CreateSession() (session.ServerSession, error) { return f() }

// fakeStore is a plain SessionStore that does what the test says; what the test
// does not say succeeds and finds nothing.
type fakeStore struct {
	get    func(string) (session.ServerSession, error)
	put    func(session.ServerSession) error
	remove func(string) error
}

func (s *fakeStore) Get(id string) (session.ServerSession, error) {
	if s.get == nil {
		return nil, session.ErrNoSession
	}
	return s.get(id)
}

func (s *fakeStore) Put(v session.ServerSession) error {
	if s.put == nil {
		return nil
	}
	return s.put(v)
}

func (s *fakeStore) Remove(id string) error {
	if s.remove == nil {
		return nil
	}
	return s.remove(id)
}

// fakeLeaseStore is a LeaseStore that does what the test says.
type fakeLeaseStore struct {
	fakeStore
	add     func(session.ServerSession) (session.SessionLease, error)
	acquire func(string) (session.SessionLease, error)
}

func (s *fakeLeaseStore) Add(_ context.Context, v session.ServerSession, _ layover.Origin) (session.SessionLease, error) {
	if s.add == nil {
		return &fakeLease{session: v}, nil
	}
	return s.add(v)
}

func (s *fakeLeaseStore) Acquire(_ context.Context, id string) (session.SessionLease, error) {
	if s.acquire == nil {
		return nil, layover.ErrNotFound
	}
	return s.acquire(id)
}

// fakeLease is a lease that counts.
type fakeLease struct {
	session session.ServerSession

	mu                         sync.Mutex
	confirmed, holds, released int
}

func (l *fakeLease) Session() session.ServerSession { return l.session }
func (l *fakeLease) Confirm()                       { l.count(&l.confirmed) }
func (l *fakeLease) Hold()                          { l.count(&l.holds) }
func (l *fakeLease) Release()                       { l.count(&l.released) }

func (l *fakeLease) count(n *int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*n++
}

func (l *fakeLease) counts() (confirmed, holds, released int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.confirmed, l.holds, l.released
}

// fakeManager is a ServerSessionManager that does what the test says; what the
// test does not say finds nothing, makes a session and succeeds.
type fakeManager struct {
	get    func(context.Context) (session.ServerSession, error)
	create func(context.Context) (session.ServerSession, error)
	close  func(session.ServerSession) error
}

func (m *fakeManager) GetSession(ctx context.Context) (session.ServerSession, error) {
	if m.get == nil {
		return nil, session.ErrNoSession
	}
	return m.get(ctx)
}

func (m *fakeManager) CreateSession(ctx context.Context) (session.ServerSession, error) {
	if m.create == nil {
		return &userSession{id: "made"}, nil
	}
	return m.create(ctx)
}

func (m *fakeManager) CloseSession(s session.ServerSession) error {
	if m.close == nil {
		return nil
	}
	return m.close(s)
}
