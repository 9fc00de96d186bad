// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"time"

	"github.com/puzpuzpuz/xsync/v4"
)

// The maps are floors: no bound, no expiry. Whoever removes or overwrites a
// value closes it.

type xsyncPeer struct {
	*xsync.Map[string, *value]
}

func openXsync(int, time.Duration) (peer, error) {
	return xsyncPeer{xsync.NewMap[string, *value]()}, nil
}

func (p xsyncPeer) get(key string) bool { _, ok := p.Load(key); return ok }
func (p xsyncPeer) use(key string) bool { return p.get(key) }

func (p xsyncPeer) put(key, _ string, v *value) bool {
	if old, ok := p.LoadAndStore(key, v); ok {
		_ = old.Close()
	}
	return true
}

func (p xsyncPeer) remove(key string) {
	if v, ok := p.LoadAndDelete(key); ok {
		_ = v.Close()
	}
}

func (p xsyncPeer) size() int    { return p.Size() }
func (p xsyncPeer) settle()      {}
func (p xsyncPeer) close() error { return nil }

type syncMapPeer struct {
	sync.Map
}

func openSyncMap(int, time.Duration) (peer, error) { return &syncMapPeer{}, nil }

func (p *syncMapPeer) get(key string) bool { _, ok := p.Load(key); return ok }
func (p *syncMapPeer) use(key string) bool { return p.get(key) }

func (p *syncMapPeer) put(key, _ string, v *value) bool {
	if old, ok := p.Swap(key, v); ok {
		_ = old.(*value).Close()
	}
	return true
}

func (p *syncMapPeer) remove(key string) {
	if v, ok := p.LoadAndDelete(key); ok {
		_ = v.(*value).Close()
	}
}

func (p *syncMapPeer) size() (n int) {
	p.Range(func(any, any) bool { n++; return true })
	return n
}
func (p *syncMapPeer) settle()      {}
func (p *syncMapPeer) close() error { return nil }

// mutexPeer is the shape of the store in Apache's flight/session.
type mutexPeer struct {
	mu sync.RWMutex
	m  map[string]*value
}

func openMutexMap(int, time.Duration) (peer, error) {
	return &mutexPeer{m: make(map[string]*value)}, nil
}

func (p *mutexPeer) get(key string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m[key] != nil
}

func (p *mutexPeer) use(key string) bool { return p.get(key) }

func (p *mutexPeer) put(key, _ string, v *value) bool {
	p.mu.Lock()
	old := p.m[key]
	p.m[key] = v
	p.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
	return true
}

func (p *mutexPeer) remove(key string) {
	p.mu.Lock()
	old := p.m[key]
	delete(p.m, key)
	p.mu.Unlock()
	if old != nil {
		_ = old.Close()
	}
}

func (p *mutexPeer) size() int {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return len(p.m)
}
func (p *mutexPeer) settle()      {}
func (p *mutexPeer) close() error { return nil }
