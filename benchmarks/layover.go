// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/c8e4ff29/layover"
)

// layoverPeer has the idle timeout alone, for all sessions, and remembers no
// ended ones, as the peers do. Its lifetime is the default.
type layoverPeer struct {
	*layover.Store[*value]
}

func openLayover(maximum int, idle time.Duration) (peer, error) {
	return openLayoverWith(layover.EvictUnconfirmed, maximum, idle)
}

// openLayoverLRU has whoever was not used for longest leave, like most peers.
func openLayoverLRU(maximum int, idle time.Duration) (peer, error) {
	return openLayoverWith(layover.EvictLRU, maximum, idle)
}

func openLayoverWith(w layover.WhenFull, maximum int, idle time.Duration) (peer, error) {
	s, err := layover.New[*value](layover.WithMaxSessions(maximum), layover.WithIdleTimeout(idle), layover.WithWhenFull(w),
		layover.WithUnconfirmedTimeouts(0, 0), layover.WithRemembered(0), layover.WithLogger(nil))
	return layoverPeer{s}, err
}

// origin says what the store is told about a newcomer.
func origin(source string, holds bool) layover.Origin {
	return layover.Origin{Source: source, Holds: holds}
}

func (p layoverPeer) get(key string) bool {
	_, err := p.Get(key)
	return err == nil
}

// use is a call as a server makes it: its key has come back, and it uses the
// session under a lease.
func (p layoverPeer) use(key string) bool {
	l, err := p.Acquire(key)
	if err != nil {
		return false
	}
	l.Confirm()
	l.Release()
	return true
}

func (p layoverPeer) hold(key string) bool { return p.Hold(key) == nil }

func (p layoverPeer) put(key, source string, v *value) bool {
	return p.Put(key, v, origin(source, false)) == nil
}

// add returns the first lease.
func (p layoverPeer) add(key, source string, holds bool, v *value) (*layover.Lease[*value], bool) {
	l, err := p.Add(key, v, origin(source, holds))
	return &l, err == nil
}

func (p layoverPeer) remove(key string) { _ = p.Remove(key) }
func (p layoverPeer) size() int         { return p.Len() }
func (p layoverPeer) peak() int         { return p.Stats().Peak }
func (p layoverPeer) settle()           {}

func (p layoverPeer) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Shutdown(ctx); err != nil {
		return fmt.Errorf("shutdown: %w", err)
	}
	return nil
}
