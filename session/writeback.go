// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	c.m.usages.leave(c.use)
	if c.inner != nil {
		c.inner.Release()
	}
}

// resident reports whether the session lives in a store of this package's, behind
// another one: it is no copy.
func (c *copied) resident() bool {
	own, ok := c.session.(*statefulServerSession)
	_, leased := c.inner.(*lease)
	return leased || ok && own.home.Load() != nil
}

// token returns the token that the session has by now.
func (c *copied) token() string {
	id, _ := c.m.usages.of(c.use)
	return id
}

// Format prints a fingerprint under every verb.
func (c *copied) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "lease of session %s", c.m.Fingerprint(c.token()))
}

// lookupCopy is lookup in a store that is not of this package's.
func (m *StatefulServerSessionManager) lookupCopy(ctx context.Context, id string) (ServerSession, SessionLease, error) {
	c := &copied{m: m, use: m.usages.join(id, false)}
	good := false
	defer func() { // also if the store panics
		if !good {
			c.Release()
		}
	}()
	err := c.fetch(ctx, id)
	if isNotFound(err, id) && m.usages.contended(c.use) {
		// Another call may be giving it another token, and fail; or it hangs where it
		// writes, and what comes of that would get into the next session with this token.
		if c.inner != nil {
			c.inner.Release()
			c.inner = nil
		}
		var done func()
		if done, err = c.use.write(ctx); err == nil {
			done()
			err = c.fetch(ctx, id)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if token, live := m.usages.of(c.use); token != id || !live { // about to be removed
		return nil, nil, layover.ErrNotFound
	}
	m.usages.found(c.use)
	good = true
	return c.session, c, nil
}

// fetch gets the session with this token for a call that has joined.
func (c *copied) fetch(ctx context.Context, id string) (err error) {
	if c.session, c.inner, err = c.m.fetch(ctx, id); err != nil {
		return err
	}
	if c.session.Closed() { // outside of a call, or it would be gone
		if err = layover.ErrNotFound; c.inner != nil {
			err = cmp.Or(c.end(), err)
		}
		return err
	}
	if own, ok := c.session.(*statefulServerSession); ok {
		own.limit(c.m.limits)
	}
	c.before = optionsOf(c.session)
	return nil
}

// addCopy is add to a store that is not of this package's.
func (m *StatefulServerSessionManager) addCopy(ctx context.Context, s ServerSession, origin layover.Origin) (c *copied, err error) {
	for err = errOtherUsage; errors.Is(err, errOtherUsage); {
		c = &copied{m: m, session: s, before: optionsOf(s), use: m.usages.join(s.Token(), true)}
		err = c.add(ctx, origin)
	}
	return c, err
}

var errOtherUsage = errors.New("session: the token is of another session by now")

// add stores a new session, for a call that has joined. Its token may be one that
// another session has had, which calls still use.
func (c *copied) add(ctx context.Context, origin layover.Origin) (err error) {
	good, a := false, c.m.usages
	defer func() { // also if the store panics
		if !good {
			c.Release()
		}
	}()
	done, err := c.use.write(ctx)
	if err != nil {
		return err
	}
	defer done()
	if _, live := a.of(c.use); !live {
		return errOtherUsage
	}
	if err := c.put(ctx, origin); err != nil {
		return err
	}
	if a.found(c.use) { // by others, of a session that is gone: what they write is not for this one
		a.finish(c.use, true)
		next := a.join(c.token(), true)
		a.leave(c.use)
		a.found(next)
		c.use = next
	}
	good = true
	return nil
}

// put has the store take a session that is new.
func (c *copied) put(ctx context.Context, origin layover.Origin) (err error) {
	store, leases := c.m.store.(LeaseStore)
	if !leases {
		// A plain store replaces what it has: look first.
		if old, err := c.m.store.Get(c.token()); err == nil && old != nil {
			return layover.ErrExists
		}
		return c.m.store.Put(c.session)
	}
	if c.inner, err = store.Add(ctx, c.session, origin); err == nil && c.inner == nil {
		err = errors.New("the store returned no lease")
	}
	return err
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
	if c.resident() {
		return nil
	}
	after := optionsOf(c.session)
	diff := changes(c.before, after)
	if len(diff) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), UpdateTimeout)
	defer cancel()
	done, err := c.use.write(ctx)
	if err != nil {
		return c.m.failed(err, c.token())
	}
	defer done()
	id, live := c.m.usages.of(c.use)
	if !live {
		return nil
	}
	if err := c.merge(ctx, id, diff); err != nil && !isNotFound(err, id) {
		return c.m.failed(err, id)
	}
	c.before = after
	return nil
}

// merge changes these options of the session as the store has it by now: other
// calls may have changed others.
func (c *copied) merge(ctx context.Context, id string, diff map[string]*flight.SessionOptionValue) error {
	s, err := c.m.store.Get(id)
	if err != nil || isNil(s) || s.Closed() {
		return err
	}
	if !same(s, c.session) {
		if err := c.m.apply(s, diff); err != nil {
			return err
		}
	}
	if store, ok := c.m.store.(Updater); ok {
		err = store.Update(ctx, s)
	} else {
		err = c.m.store.Put(s)
	}
	if c.m.usages.removedMeanwhile(c.use) { // by somebody who did not wait any longer
		err = errors.Join(err, c.m.store.Remove(id))
	}
	return err
}

// apply changes options. Several calls may each be within the limits, and not all of
// them together.
func (m *StatefulServerSessionManager) apply(s ServerSession, diff map[string]*flight.SessionOptionValue) error {
	for name, v := range diff {
		if v == nil {
			s.EraseSessionOption(name)
		}
	}
	for name, v := range diff {
		own, ok := s.(*statefulServerSession)
		switch {
		case v == nil:
		case !ok:
			s.SetSessionOption(name, v)
		default:
			if _, err := own.keep(name, v, &m.limits, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// end removes the session, which nobody writes any more from then on. It waits for
// who does at this moment.
func (c *copied) end() error { return c.m.endUsed(c.use) }

// endUsed is end of a session that calls use.
func (m *StatefulServerSessionManager) endUsed(u *usage) (err error) {
	done, err := u.write(context.Background())
	hangs := err != nil // should that one ever have written it, it removes it
	if !hangs {
		defer done()
	}
	id, live := m.usages.of(u)
	if !live {
		return nil
	}
	m.usages.finish(u, !hangs)
	if err = m.removeContained(id); err != nil {
		m.usages.unfinish(u)
		return m.failed(err, id)
	}
	return nil
}

// closeCopy removes a session, which calls may use, from a store that is not of this
// package's.
func (m *StatefulServerSessionManager) closeCopy(s ServerSession) error {
	id := s.Token()
	u := m.usages.using(id)
	if u == nil {
		return m.store.Remove(id)
	}
	defer m.usages.leave(u)
	return m.endUsed(u)
}

func (m *StatefulServerSessionManager) removeContained(id string) (err error) {
	defer contain(&err)
	return m.store.Remove(id)
}

// rename has the store have the session under another token. What other calls have
// written since this one got its copy comes along.
func (c *copied) rename(r *renewal) error {
	done, err := c.use.write(context.Background())
	if err != nil {
		return err
	}
	defer done()
	id, live := c.m.usages.of(c.use)
	if !live || !c.m.usages.keeps(c.use, r.caller) {
		return errClosed
	}
	c.m.usages.alias(c.use, r.token) // who ends it by its new token waits
	if err := c.move(id, r); err != nil {
		return err
	}
	c.m.usages.renamed(c.use, r)
	if _, live := c.m.usages.of(c.use); !live { // somebody has ended it, and did not wait any longer
		return errors.Join(errClosed, c.m.removeContained(r.token))
	}
	return nil
}

// move is rename by who has the turn. Whatever happens, the store has the session
// under one of the two tokens.
func (c *copied) move(old string, r *renewal) (err error) {
	store, token, after := c.m.store, r.token, optionsOf(c.session)
	both := []ServerSession{c.session}
	put, good := false, false
	defer func() {
		if good {
			return
		}
		if put {
			err = errors.Join(err, c.m.removeContained(token))
		}
		for _, s := range both {
			err = errors.Join(err, setToken(s, old))
		}
	}()
	defer contain(&err)
	if taken, err := store.Get(token); token == old || err == nil && taken != nil {
		return layover.ErrExists
	}
	s, err := store.Get(old)
	if err != nil || isNil(s) || s.Closed() {
		return cmp.Or(err, layover.ErrNotFound)
	}
	if !same(s, c.session) {
		if err := c.m.apply(s, changes(c.before, after)); err != nil {
			return err
		}
		both = append(both, s)
	}
	for _, s := range both {
		if err := setToken(s, token); err != nil {
			return err
		}
	}
	put = true
	if err := store.Put(s); err != nil {
		return err
	}
	if there, err := store.Get(old); err != nil || there == nil { // another process has removed it
		return cmp.Or(err, layover.ErrNotFound)
	}
	if err := store.Remove(old); err != nil {
		return err
	}
	good, c.before = true, after
	for _, s := range both {
		if own, ok := s.(*statefulServerSession); ok {
			own.mu.Lock()
			r.hand(own)
			own.mu.Unlock()
		}
	}
	return nil
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
	if err := l.settle(context.Background()); err != nil {
		_ = l.m.reporter.report(context.Background(), l.session, "layover: what was set in a session after its call could not be saved", err)
	}
	l.copied.Release()
}

// settle saves the session, or ends it, if it was closed.
func (c *copied) settle(ctx context.Context) (err error) {
	defer contain(&err)
	if c.session.Closed() {
		return c.end()
	}
	return c.save(ctx)
}
