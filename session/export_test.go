// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

// InUse returns how many sessions of a store that is not of this package's calls
// use.
func (m *StatefulServerSessionManager) InUse() int {
	m.usages.mu.Lock()
	defer m.usages.mu.Unlock()
	return len(m.usages.used)
}

// Named returns how many sessions of the store can be found by handles.
func (s *ExpiringSessionStore) Named() int {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	return len(s.handles.all)
}
