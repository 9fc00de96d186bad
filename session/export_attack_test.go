// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

// HandlesIn returns how many sessions of a store have handles.
func HandlesIn(s *ExpiringSessionStore) int {
	s.handles.mu.Lock()
	defer s.handles.mu.Unlock()
	return len(s.handles.all)
}
