// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"

	"github.com/c8e4ff29/layover"
)

// call is what the middleware knows of one call. Managers find it in the
// context, and leave leases with it.
type call struct {
	session ServerSession // set before the handler starts, like err
	err     error         // why there is no session
	limits  *OptionLimits // of the manager; nil: it is not ours

	reporter *reporter // of the middleware in Apache's shape, else nil
	fresh    bool      // that middleware has made the session for this call

	mu      sync.Mutex
	tally   *tally // of the options in a session of a foreign type
	ended   bool
	leases  []SessionLease
	cleanup []runtime.Cleanup
}

type callKey struct{}

func newCall(ctx context.Context) (context.Context, *call) {
	c := new(call)
	return context.WithValue(ctx, callKey{}, c), c
}

// callFrom returns the call that ctx belongs to, nil if there is none.
func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// keep holds a lease until the call has ended. Without a call, or after its
// end, the lease is given back at once: a touch.
//
// Apache's shape of middleware is not told when a handler panics. A call whose
// end nobody reports becomes garbage; its leases are given back then.
func (c *call) keep(l SessionLease) {
	if c == nil {
		l.Release()
		return
	}
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		l.Release()
		return
	}
	defer c.mu.Unlock()
	c.leases = append(c.leases, l)
	c.cleanup = append(c.cleanup, runtime.AddCleanup(c, abandon, l))
}

// abandon settles and gives back a lease of a call whose end nobody has reported.
func abandon(l SessionLease) {
	c, copies := l.(*copied)
	if !copies {
		_ = release(l)
		return
	}
	go func() { // not on the goroutine of all cleanups: the store may hang
		_ = c.settle(context.Background()) // nobody is left to be told
		_ = release(c)
	}()
}

// save writes back what was changed in copies. There may be no call.
func (c *call) save(ctx context.Context) (err error) {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	leases := slices.Clone(c.leases)
	c.mu.Unlock()
	for _, l := range leases {
		if l, ok := l.(*copied); ok {
			err = errors.Join(err, l.save(ctx))
		}
	}
	return err
}

// leaseOn returns the call's lease on a session in a store of this package's; nil:
// it has none.
func (c *call) leaseOn(own *statefulServerSession) *layover.Lease[resident] {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.leases {
		if ours, ok := l.(*lease); ok && isOn(&ours.Lease, own) {
			return &ours.Lease
		}
	}
	return nil
}

// hasToken reports whether the client of a stateless session has this token.
func (c *call) hasToken(s ServerSession, text string) bool {
	c.mu.Lock()
	leases := slices.Clone(c.leases)
	c.mu.Unlock()
	for _, l := range leases {
		if b, ok := l.(*bearer); ok && same(b.session, s) {
			return b.clientHas(text)
		}
	}
	return false
}

// end gives the leases back. Before, it tells the store of sessions of foreign
// types that hold something: those do not tell it themselves.
func (c *call) end() (err error) {
	c.mu.Lock()
	leases := c.leases
	c.leases, c.ended = nil, true
	for _, cl := range c.cleanup {
		cl.Stop()
	}
	c.mu.Unlock()
	for _, l := range leases {
		err = errors.Join(err, release(l))
	}
	return err
}

// release runs code of foreign stores and sessions.
func release(l SessionLease) (err error) {
	defer contain(&err)
	defer l.Release()
	if holdsUnsaid(l.Session()) {
		l.Hold()
	}
	return nil
}

// isOwn reports whether a session is kept on the server and of this package's
// type.
func isOwn(s ServerSession) bool {
	_, own := s.(*statefulServerSession)
	return own
}

// holdsUnsaid reports whether a session of a foreign type, or in a foreign store,
// holds something, of which it does not tell the store itself.
func holdsUnsaid(s ServerSession) bool {
	if own, ok := s.(*statefulServerSession); ok {
		return own != nil && own.home.Load() == nil && own.holds()
	}
	if _, travels := s.(*StatelessServerSession); travels {
		return false // nobody asks
	}
	return s != nil && !s.Closed() && len(s.GetSessionOptions()) > 0
}
