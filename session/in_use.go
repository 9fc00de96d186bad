// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"maps"
	"slices"
	"sync"

	"github.com/c8e4ff29/layover/internal/token"
)

// inUse has the sealed sessions that calls of this process use at this moment. Calls
// that come with tokens of one session share it, as they do a stateful one: otherwise
// the answer to one would take back what another one has changed meanwhile. It holds
// nothing longer than the calls last.
type inUse struct {
	mu    sync.Mutex
	all   map[token.ID]*StatelessServerSession
	forks map[*StatelessServerSession]bool // that are of one call alone
}

func newInUse() *inUse {
	return &inUse{all: make(map[token.ID]*StatelessServerSession), forks: make(map[*StatelessServerSession]bool)}
}

// join returns the session that a token names; nil: it is closed. It is followed by
// leave.
func (u *inUse) join(c *content, m *StatelessServerSessionManager) *StatelessServerSession {
	u.mu.Lock()
	s := u.all[c.ID]
	if s == nil {
		defer u.mu.Unlock()
		s = c.session(m)
		u.all[c.ID], s.users = s, 1
		return s
	}
	s.users++
	u.mu.Unlock()
	switch joins, closed := s.catchUp(c, false); {
	case joins:
		return s
	case closed:
		u.leave(s)
		return nil
	}
	u.leave(s)
	s = c.session(m) // what the token says is not what that session does: it is for this call alone
	s.users = 1
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forks[s] = true
	return s
}

// rejoin is join for a token that is too old by itself, but of a session that is in use:
// busy is not idle. nil: it is not, or does not say what the token does.
func (u *inUse) rejoin(c *content) *StatelessServerSession {
	s := u.enter(c.ID)
	if s == nil {
		return nil
	}
	if joins, _ := s.catchUp(c, true); joins {
		return s
	}
	u.leave(s)
	return nil
}

// enter returns the session that calls use under this ID; nil: there is none. It is
// followed by leave.
func (u *inUse) enter(id token.ID) *StatelessServerSession {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.all[id]
	if s != nil {
		s.users++
	}
	return s
}

// shared reports whether other calls use a session.
func (u *inUse) shared(s *StatelessServerSession) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return s.users > 1
}

// add has calls that come with a token of a session share it with the one that has made
// it, or that outlives its call. It is followed by leave.
func (u *inUse) add(s *StatelessServerSession) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.users++; s.users == 1 && u.all[s.id] == nil {
		u.all[s.id] = s
	}
}

// replace has a session that was renewed be found in place of what it was, by its own
// ID alone. It is followed by leave of both.
func (u *inUse) replace(was, is *StatelessServerSession) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.remove(was)
	u.all[is.id] = is
	is.users++
}

// get returns the session with this ID; nil: no call uses it.
func (u *inUse) get(id token.ID) *StatelessServerSession {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.all[id]
}

// named returns the sessions that calls use, with this ID or of which that is not known,
// or everybody's.
func (u *inUse) named(id token.ID, everybody bool) []*StatelessServerSession {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := slices.Collect(maps.Keys(u.forks))
	if everybody {
		return slices.AppendSeq(all, maps.Values(u.all))
	}
	if s := u.all[id]; s != nil {
		all = append(all, s)
	}
	return all
}

func (u *inUse) leave(s *StatelessServerSession) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if s.users--; s.users == 0 {
		u.remove(s)
	}
}

func (u *inUse) remove(s *StatelessServerSession) {
	if u.all[s.id] == s {
		delete(u.all, s.id)
	}
	delete(u.forks, s)
}

// len returns how many there are.
func (u *inUse) len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.all) + len(u.forks)
}
