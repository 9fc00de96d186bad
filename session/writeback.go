// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/protobuf/proto"

	"github.com/c8e4ff29/layover"
)

// Updater is a [SessionStore] that can store a session again only if it is still
// there. Stores that keep their sessions elsewhere, and hand out copies, should be
// one: see [WithStore].
type Updater interface {
	SessionStore
	// Update stores the options of a session that was stored before. If it has been
	// removed since, by whatever process, Update must not bring it back: it returns
	// an error that says that there is no such session, see [SessionStore], which is
	// no failure. ctx does not end with the call, but after [UpdateTimeout].
	Update(ctx context.Context, session ServerSession) error
}

// UpdateTimeout is how long [Updater].Update may take, and for how long closing a
// session waits for one that is under way.
const UpdateTimeout = 10 * time.Second

// copied is the lease of a session from a store that is not of this package's, and
// whose sessions may be copies: what a call changes is written back at its end.
type copied struct {
	m        *StatefulServerSessionManager
	id       string
	use      *usage
	session  ServerSession
	before   map[string]*flight.SessionOptionValue // as the store has them
	inner    SessionLease                          // nil: the store has none
	released atomic.Bool
}

func (c *copied) Session() ServerSession { return c.session }

func (c *copied) Confirm() {
	if c.inner != nil {
		c.inner.Confirm()
	}
}

func (c *copied) Hold() {
	if c.inner != nil {
		c.inner.Hold()
	}
}

func (c *copied) Release() {
	if c.released.Swap(true) {
		return
	}
	c.m.usages.leave(c.id, c.use)
	if c.inner != nil {
		c.inner.Release()
	}
}

// Format prints a fingerprint under every verb.
func (c *copied) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "lease of session %s", c.m.Fingerprint(c.id))
}

// optionsOf returns a session's options, which nobody else changes.
func optionsOf(s ServerSession) map[string]*flight.SessionOptionValue {
	if own, ok := s.(*statefulServerSession); ok {
		own.mu.RLock()
		defer own.mu.RUnlock()
		return maps.Clone(own.values) // values never change
	}
	all := make(map[string]*flight.SessionOptionValue)
	for name, v := range s.GetSessionOptions() {
		all[name] = proto.CloneOf(v)
	}
	return all
}

// changes returns what has become of options: nil for those that were erased.
func changes(before, after map[string]*flight.SessionOptionValue) map[string]*flight.SessionOptionValue {
	diff := make(map[string]*flight.SessionOptionValue)
	for name := range before {
		if after[name] == nil {
			diff[name] = nil
		}
	}
	for name, v := range after {
		if was := before[name]; was != v && !proto.Equal(was, v) {
			diff[name] = v
		}
	}
	return diff
}

// save writes back what the call has changed, if it has, and nobody has ended the
// session. It must not be called by several goroutines.
func (c *copied) save(ctx context.Context) (err error) {
	defer contain(&err)
	after := optionsOf(c.session)
	diff := changes(c.before, after)
	if len(diff) == 0 || c.session.Closed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), UpdateTimeout)
	defer cancel()
	for wrote := false; !wrote; {
		if wrote, err = c.merge(ctx, diff); err != nil && !isNotFound(err, c.id) {
			return c.m.failed(err, c.id)
		}
		if !wrote && !c.follow() {
			return nil // it has ended
		}
	}
	c.before = after
	return nil
}

// follow reports whether the session was renewed by another call, and goes on to
// its new token.
func (c *copied) follow() bool {
	next := c.use.renewed.Load()
	if next == nil {
		return false
	}
	c.m.usages.leave(c.id, c.use)
	c.id, c.use = *next, c.m.usages.join(*next, false)
	return true
}

// merge changes these options of the session as the store has it by now: other
// calls may have changed others. It reports whether it has, as it does not if the
// session has ended.
func (c *copied) merge(ctx context.Context, diff map[string]*flight.SessionOptionValue) (wrote bool, _ error) {
	done, err := c.use.write(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	if c.use.over() {
		return false, nil
	}
	s, err := c.m.store.Get(c.id)
	if err != nil || isNil(s) {
		return false, err
	}
	if !same(s, c.session) {
		apply(s, diff)
	}
	if s.Closed() || c.use.over() {
		return false, nil
	}
	if store, ok := c.m.store.(Updater); ok {
		err = store.Update(ctx, s)
	} else {
		err = c.m.store.Put(s)
	}
	if c.use.removed.Load() { // by somebody who did not wait any longer
		err = errors.Join(err, c.m.store.Remove(c.id))
	}
	return err == nil, err
}

// apply changes options beyond all limits, which were heeded when the call set them.
func apply(s ServerSession, diff map[string]*flight.SessionOptionValue) {
	set := s.SetSessionOption
	if own, ok := s.(*statefulServerSession); ok {
		set = func(name string, v *flight.SessionOptionValue) { own.set(name, v) }
	}
	for name, v := range diff {
		if v == nil {
			s.EraseSessionOption(name)
		} else {
			set(name, v)
		}
	}
}

// usages are the sessions that calls use, by token. They keep what a call writes
// late from bringing back a session that was ended by this manager meanwhile.
type usages struct {
	mu   sync.Mutex
	used map[string]*usage
}

// usage is a session that calls use.
type usage struct {
	turn    chan struct{}          // full while somebody writes it, or ends it
	ended   atomic.Bool            // nobody writes it any more
	removed atomic.Bool            // while somebody hung who writes it
	renewed atomic.Pointer[string] // its new token
	users   int                    // under the mutex of usages
}

func (u *usage) over() bool { return u.ended.Load() }

// write waits until nobody else writes or ends the session. Then others wait until
// done is called.
func (u *usage) write(ctx context.Context) (done func(), _ error) {
	select {
	case u.turn <- struct{}{}:
		return func() { <-u.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// join notes that a call uses the session with this token, before it looks for it.
// A new one may have the token of one that has ended, but is not that one.
func (a *usages) join(id string, isNew bool) *usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.used[id]
	if u == nil || isNew && u.over() {
		if a.used == nil {
			a.used = make(map[string]*usage)
		}
		u = &usage{turn: make(chan struct{}, 1)}
		a.used[id] = u
	}
	u.users++
	return u
}

// is reports whether u is the usage of the session that has this token by now, and
// has not ended.
func (a *usages) is(id string, u *usage) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used[id] == u && !u.over()
}

// leave undoes join.
func (a *usages) leave(id string, u *usage) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if u.users--; u.users == 0 && a.used[id] == u {
		delete(a.used, id)
	}
}

// end removes a session, which nobody writes any more from then on. It waits for
// who does at this moment.
func (a *usages) end(id string, remove func() error) error {
	a.mu.Lock()
	u := a.used[id]
	a.mu.Unlock()
	if u == nil {
		return remove()
	}
	first := u.ended.CompareAndSwap(false, true)
	ctx, cancel := context.WithTimeout(context.Background(), UpdateTimeout)
	defer cancel()
	done, err := u.write(ctx)
	if err != nil {
		u.removed.Store(true) // should that one ever have written it, it removes it
	} else {
		defer done()
	}
	err = remove()
	if err != nil && first {
		u.ended.Store(false)
	}
	return err
}

// saved is a lease that outlives its call, see [Acquire].
type saved struct {
	*copied
	m    *interceptors
	once atomic.Bool
}

func (l *saved) Release() {
	if l.once.Swap(true) {
		return
	}
	if err := l.save(context.Background()); err != nil {
		_ = l.m.reporter.report(context.Background(), l.session, "layover: what was set in a session after its call could not be saved", err)
	}
	l.copied.Release()
}

// lookupCopy is lookup in a store that is not of this package's.
func (m *StatefulServerSessionManager) lookupCopy(ctx context.Context, id string) (ServerSession, SessionLease, error) {
	for {
		u := m.usages.join(id, false)
		c, err := m.fetchCopy(ctx, id, u)
		switch {
		case err != nil:
			m.usages.leave(id, u)
			return nil, nil, err
		case m.usages.is(id, u):
			return c.session, c, nil
		}
		c.Release()
		if u.over() { // it is about to be removed
			return nil, nil, layover.ErrNotFound
		}
	}
}

// fetchCopy returns the lease of a session for a call that has joined.
func (m *StatefulServerSessionManager) fetchCopy(ctx context.Context, id string, u *usage) (_ *copied, err error) {
	s, inner, err := m.fetch(ctx, id)
	if err != nil {
		return nil, err
	}
	c := &copied{m: m, id: id, use: u, session: s, inner: inner}
	good := false
	defer func() { // also if the session panics
		if !good && inner != nil {
			inner.Release()
		}
	}()
	if s.Closed() { // outside of a call, or it would be gone
		if err = layover.ErrNotFound; inner != nil {
			err = cmp.Or(m.CloseSession(s), err)
		}
		return nil, err
	}
	c.before = optionsOf(s)
	good = true
	return c, nil
}

// addCopy is add to a store that is not of this package's.
func (m *StatefulServerSessionManager) addCopy(ctx context.Context, s ServerSession, origin layover.Origin) (_ *copied, err error) {
	id := s.Token()
	c := &copied{m: m, id: id, session: s, before: optionsOf(s), use: m.usages.join(id, true)}
	good := false
	defer func() { // also if the store panics
		if !good {
			m.usages.leave(id, c.use)
		}
	}()
	if store, ok := m.store.(LeaseStore); !ok {
		// A plain store replaces what it has: look first.
		if old, err := m.store.Get(id); err == nil && old != nil {
			return nil, layover.ErrExists
		}
		err = m.store.Put(s)
	} else if c.inner, err = store.Add(ctx, s, origin); err == nil && c.inner == nil {
		err = errors.New("the store returned no lease")
	}
	good = err == nil
	return c, err
}
