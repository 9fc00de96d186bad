// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/Yiling-J/theine-go"
	"github.com/dgraph-io/ristretto/v2"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/jellydator/ttlcache/v3"
	"github.com/maypok86/otter/v2"
)

// baseline is the peer that the others are compared with.
const baseline = "otter"

// hour is how long a session may go unused.
const hour = time.Hour

// peer is what can be compared. All of its values are closed by what reports
// their end, or by the caller who could not put them.
type peer interface {
	get(key string) bool
	// use is a call that needs its session: a lease where there are any.
	use(key string) bool
	// put tells whether the peer took v. Not all that it took can be found.
	put(key, source string, v *value) bool
	remove(key string)
	size() int
	// settle returns when all puts are applied.
	settle()
	close() error
}

// ttlPeer has entries with a time to live of their own.
type ttlPeer interface {
	peer
	putFor(key string, v *value, ttl time.Duration) bool
}

// kind says what a peer is and can.
type kind struct {
	name    string
	module  string
	open    func(maximum int, idle time.Duration) (peer, error)
	openLRU func(maximum int, idle time.Duration) (peer, error) // where it must be asked to be one
	bounded bool                                                // evicts
	expires bool                                                // removes what has expired by itself, keys with different deadlines
	leases  bool
	keyless bool // keeps hashes of keys
}

var kinds = []kind{
	{name: "layover", module: "github.com/c8e4ff29/layover", open: openLayover, openLRU: openLayoverLRU, bounded: true, expires: true, leases: true},
	{name: "otter", module: "github.com/maypok86/otter/v2", open: openOtter, bounded: true, expires: true},
	{name: "theine", module: "github.com/Yiling-J/theine-go", open: openTheine, bounded: true, expires: true},
	{name: "golang-lru", module: "github.com/hashicorp/golang-lru/v2", open: openLRU, bounded: true},
	{name: "ttlcache", module: "github.com/jellydator/ttlcache/v3", open: openTTLCache, bounded: true, expires: true},
	{name: "ristretto", module: "github.com/dgraph-io/ristretto/v2", open: openRistretto, bounded: true, expires: true, keyless: true},
	{name: "xsync", module: "github.com/puzpuzpuz/xsync/v4", open: openXsync},
	{name: "sync.Map", open: openSyncMap},
	{name: "map+RWMutex", open: openMutexMap},
}

func findKind(name string) (kind, error) {
	for _, k := range kinds {
		if k.name == name {
			return k, nil
		}
	}
	return kind{}, fmt.Errorf("no peer %q", name)
}

// otterPeer has sliding expiry. OnAtomicDeletion runs under the lock of a bucket,
// which is no place for the Close of a session that takes time; but OnDeletion
// runs on a goroutine of its own for each value, which makes churn about half as
// slow again. The baseline is the faster one.
type otterPeer struct {
	*otter.Cache[string, *value]
}

func openOtter(maximum int, idle time.Duration) (peer, error) {
	c, err := otter.New(&otter.Options[string, *value]{
		MaximumSize:      maximum,
		ExpiryCalculator: otter.ExpiryAccessing[string, *value](idle),
		OnAtomicDeletion: func(e otter.DeletionEvent[string, *value]) { _ = e.Value.Close() },
	})
	return otterPeer{c}, err
}

func (p otterPeer) get(key string) bool { _, ok := p.GetIfPresent(key); return ok }
func (p otterPeer) use(key string) bool { return p.get(key) }
func (p otterPeer) put(key, _ string, v *value) bool {
	p.Set(key, v)
	return true
}

func (p otterPeer) putFor(key string, v *value, ttl time.Duration) bool {
	p.Set(key, v)
	p.SetExpiresAfter(key, ttl)
	return true
}
func (p otterPeer) remove(key string) { p.Invalidate(key) }
func (p otterPeer) size() int         { return p.EstimatedSize() }
func (p otterPeer) settle()           { p.CleanUp() }
func (p otterPeer) close() error      { p.StopAllGoroutines(); return nil }

// theinePeer has no sliding expiry.
type theinePeer struct {
	*theine.Cache[string, *value]
	ttl time.Duration
}

func openTheine(maximum int, idle time.Duration) (peer, error) {
	c, err := theine.NewBuilder[string, *value](int64(maximum)).
		RemovalListener(func(_ string, v *value, _ theine.RemoveReason) { _ = v.Close() }).Build()
	return theinePeer{c, idle}, err
}

func (p theinePeer) get(key string) bool              { _, ok := p.Get(key); return ok }
func (p theinePeer) use(key string) bool              { return p.get(key) }
func (p theinePeer) put(key, _ string, v *value) bool { return p.SetWithTTL(key, v, 1, p.ttl) }
func (p theinePeer) putFor(key string, v *value, ttl time.Duration) bool {
	return p.SetWithTTL(key, v, 1, ttl)
}
func (p theinePeer) remove(key string) { p.Delete(key) }
func (p theinePeer) size() int         { return p.EstimatedSize() }
func (p theinePeer) settle()           { p.Wait() }
func (p theinePeer) close() error      { p.Close(); return nil }

// lruPeer has one time to live, counted from the put.
type lruPeer struct {
	*expirable.LRU[string, *value]
}

func openLRU(maximum int, idle time.Duration) (peer, error) {
	return lruPeer{expirable.NewLRU(maximum, func(_ string, v *value) { _ = v.Close() }, idle)}, nil
}

func (p lruPeer) get(key string) bool { _, ok := p.Get(key); return ok }
func (p lruPeer) use(key string) bool { return p.get(key) }
func (p lruPeer) put(key, _ string, v *value) bool {
	p.Add(key, v)
	return true
}
func (p lruPeer) remove(key string) { p.Remove(key) }
func (p lruPeer) size() int         { return p.Len() }
func (p lruPeer) settle()           {}
func (p lruPeer) close() error      { return nil } // its goroutine cannot be stopped

// ttlcachePeer has sliding expiry, its default. Evictions are reported on
// goroutines of their own.
type ttlcachePeer struct {
	*ttlcache.Cache[string, *value]
}

func openTTLCache(maximum int, idle time.Duration) (peer, error) {
	c := ttlcache.New(ttlcache.WithTTL[string, *value](idle), ttlcache.WithCapacity[string, *value](uint64(maximum)))
	c.OnEviction(func(_ context.Context, _ ttlcache.EvictionReason, i *ttlcache.Item[string, *value]) {
		_ = i.Value().Close()
	})
	go c.Start()
	return ttlcachePeer{c}, nil
}

func (p ttlcachePeer) get(key string) bool { return p.Get(key) != nil }
func (p ttlcachePeer) use(key string) bool { return p.get(key) }
func (p ttlcachePeer) put(key, _ string, v *value) bool {
	return p.putFor(key, v, ttlcache.DefaultTTL)
}

func (p ttlcachePeer) putFor(key string, v *value, ttl time.Duration) bool {
	p.Set(key, v, ttl)
	return true
}
func (p ttlcachePeer) remove(key string) { p.Delete(key) }
func (p ttlcachePeer) size() int         { return p.Len() }
func (p ttlcachePeer) settle()           {}
func (p ttlcachePeer) close() error      { p.Stop(); return nil }

// ristrettoPeer has no sliding expiry, and ten counters for each entry, as its
// documentation recommends.
type ristrettoPeer struct {
	*ristretto.Cache[string, *value]
	ttl time.Duration
}

func openRistretto(maximum int, idle time.Duration) (peer, error) {
	c, err := ristretto.NewCache(&ristretto.Config[string, *value]{
		NumCounters: 10 * int64(maximum), MaxCost: int64(maximum), BufferItems: 64, IgnoreInternalCost: true,
		OnExit: func(v *value) {
			if v != nil { // it also reports what was not there
				_ = v.Close()
			}
		},
	})
	return ristrettoPeer{c, idle}, err
}

func (p ristrettoPeer) get(key string) bool              { _, ok := p.Get(key); return ok }
func (p ristrettoPeer) use(key string) bool              { return p.get(key) }
func (p ristrettoPeer) put(key, _ string, v *value) bool { return p.putFor(key, v, p.ttl) }
func (p ristrettoPeer) putFor(key string, v *value, ttl time.Duration) bool {
	return p.SetWithTTL(key, v, 1, ttl)
}
func (p ristrettoPeer) remove(key string) { p.Del(key) }
func (p ristrettoPeer) size() int         { return int(p.MaxCost() - p.RemainingCost()) }
func (p ristrettoPeer) settle()           { p.Wait() }
func (p ristrettoPeer) close() error      { p.Close(); return nil }
