// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token

import (
	"hash/maphash"
	"sync"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

// Cache remembers what tokens were opened to. It is lossy: what is put may never be
// found, or not for long. It is safe for concurrent use. [NewCache] makes one.
//
// Behind it is a TinyLFU cache, which keeps what is asked for often, so a flood of
// tokens that are used once drives out few others.
type Cache[V any] struct {
	// max is that of the cost of what is kept, and of what waits for being so.
	maxKept, maxWaiting int64
	hash                func(token string) uint64
	waiting             atomic.Int64

	// Each call is in the gate of its token, on a cache line that others rarely need.
	// To be in all gates is to be alone.
	gates  [gates]gate
	kept   *ristretto.Cache[uint64, *opened[V]] // nil: nothing was put yet, or it is closed
	closed bool
}

const gates = 64 // a power of two

// gate lets many in, or one alone. Ristretto needs it, because its Close and Clear
// panic or block for ever beside other calls, even beside Get.
type gate struct {
	sync.RWMutex
	hits, misses atomic.Uint64
	_            [128 - 24 - 16]byte // two cache lines, as they are fetched in pairs
}

// opened is what a token was opened to.
type opened[V any] struct {
	token   string
	value   V
	cost    int64
	waiting bool // its cost is part of that of the waiting; of who puts, then of who keeps it
}

// Costs in bytes.
const (
	// overhead is what a value costs beside itself and its token: a little more than
	// the maps were measured to need for it.
	overhead = 256
	// usual is that of a token and its value, by which the sketch is measured.
	usual = 1024
)

// CacheStats are counts of a [Cache] since it was made, and its size.
type CacheStats struct {
	Hits, Misses uint64
	Bytes        int64 // cost of what is kept
}

// NewCache returns a cache that keeps values of up to maxBytes in all, with their
// tokens and some overhead; and one of zero or less that keeps none. It starts
// nothing: the first Put does. That takes some 400 kB for buffers, and about a
// twentieth of maxBytes to learn what is asked for often.
func NewCache[V any](maxBytes int64) *Cache[V] {
	seed := maphash.MakeSeed() // nobody outside can tell which tokens collide
	waiting := maxBytes / 8
	return &Cache[V]{
		maxKept:    maxBytes - waiting,
		maxWaiting: waiting,
		hash:       func(token string) uint64 { return maphash.String(seed, token) },
	}
}

// Get returns what was put for that token.
func (c *Cache[V]) Get(token string) (v V, ok bool) {
	hash := c.hash(token)
	g := &c.gates[hash%gates]
	g.RLock()
	defer g.RUnlock()
	if c.kept != nil {
		// Another token may have the same hash.
		if o, found := c.kept.Get(hash); found && o.token == token {
			g.hits.Add(1)
			return o.value, true
		}
	}
	g.misses.Add(1)
	return v, false
}

// Put remembers a value of that many bytes for a token, if it is worth it, instead of
// one that is remembered already. The token is kept, so what is a piece of a long text
// is to be cloned before; its own bytes are added. The value is found some time later:
// if another one is put before that, either may be found. Nothing is kept that needs
// more than an eighth of the cache.
func (c *Cache[V]) Put(token string, v V, bytes int64) {
	cost := min(max(bytes, 0), c.maxWaiting) + int64(len(token)) + overhead
	if cost > c.maxWaiting {
		c.Remove(token)
		return
	}
	hash := c.hash(token)
	g := &c.gates[hash%gates]
	c.start(g)
	g.RLock()
	defer g.RUnlock()
	if c.kept == nil {
		return // it is closed
	}
	full := c.waiting.Add(cost) > c.maxWaiting // they are put faster than they are kept
	if old, replaces := c.kept.Get(hash); replaces && (full || old.cost < cost) {
		c.kept.Del(hash) // rather none than an old one; and for growth, no room would be made
	}
	if full {
		c.waiting.Add(-cost)
		return
	}
	o := &opened[V]{token: token, value: v, cost: cost, waiting: true}
	// A cost of zero has the cache ask for it when it comes to keeping the value.
	if !c.kept.Set(hash, o, 0) {
		c.waiting.Add(-cost)
	}
}

// Remove forgets what was put for a token. When it returns, that is not found any more,
// so it waits until what was put before is kept.
func (c *Cache[V]) Remove(token string) {
	hash := c.hash(token)
	g := &c.gates[hash%gates]
	g.RLock()
	defer g.RUnlock()
	if c.kept != nil {
		c.kept.Del(hash)
		c.kept.Wait() // else what waits would be found, until its removal follows it
	}
}

// Clear forgets all.
func (c *Cache[V]) Clear() {
	c.lock()
	defer c.unlock()
	if c.kept != nil {
		c.kept.Clear()
		c.waiting.Store(0)
	}
}

// Close forgets all, and ends the goroutines that Put has started. Afterwards nothing
// is found, and Put does nothing. Further calls do nothing.
func (c *Cache[V]) Close() {
	c.lock()
	defer c.unlock()
	if c.kept != nil {
		c.kept.Close()
		c.kept = nil
	}
	c.closed = true
}

// Stats returns the counts. It takes no notice of what happens meanwhile.
func (c *Cache[V]) Stats() (s CacheStats) {
	for i := range c.gates {
		s.Hits += c.gates[i].hits.Load()
		s.Misses += c.gates[i].misses.Load()
	}
	c.gates[0].RLock()
	defer c.gates[0].RUnlock()
	if c.kept != nil {
		s.Bytes = c.kept.MaxCost() - c.kept.RemainingCost()
	}
	return s
}

// start starts the cache, unless it was. Any gate tells.
func (c *Cache[V]) start(g *gate) {
	g.RLock()
	done := c.kept != nil || c.closed
	g.RUnlock()
	if done {
		return
	}
	c.lock()
	defer c.unlock()
	if c.kept == nil && !c.closed {
		c.kept = c.newKept()
	}
}

func (c *Cache[V]) newKept() *ristretto.Cache[uint64, *opened[V]] {
	kept, err := ristretto.NewCache(&ristretto.Config[uint64, *opened[V]]{
		NumCounters: max(10*c.maxKept/usual, 1000), // ten times the values, as it advises
		MaxCost:     c.maxKept,
		BufferItems: 64,
		KeyToHash:   func(hash uint64) (uint64, uint64) { return hash, 0 }, // Get compares the tokens
		Cost: func(o *opened[V]) int64 {
			c.arrived(o)
			return o.cost
		},
		ShouldUpdate: func(o, _ *opened[V]) bool {
			c.arrived(o) // it replaces another one at once
			return true
		},
		IgnoreInternalCost:     true,             // it is in ours
		TtlTickerDurationInSec: 2 * 24 * 60 * 60, // nothing expires, do not look for it
	})
	if err != nil {
		panic(err) // only of sizes that are not above zero
	}
	return kept
}

// arrived notes that a value does not wait any more. It is called before others can
// see it.
func (c *Cache[V]) arrived(o *opened[V]) {
	if o.waiting {
		o.waiting = false
		c.waiting.Add(-o.cost)
	}
}

func (c *Cache[V]) lock() {
	for i := range c.gates {
		c.gates[i].Lock()
	}
}

func (c *Cache[V]) unlock() {
	for i := range c.gates {
		c.gates[i].Unlock()
	}
}
