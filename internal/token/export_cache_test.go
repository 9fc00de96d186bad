// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token

// SetHash has a cache hash tokens by f, before anything is put.
func (c *Cache[V]) SetHash(f func(token string) uint64) { c.hash = f }

// Wait waits until all that was put is kept, or is not.
func (c *Cache[V]) Wait() {
	c.gates[0].RLock()
	defer c.gates[0].RUnlock()
	if c.kept != nil {
		c.kept.Wait()
	}
}

// Occupy has a cost wait that nothing was put for.
func (c *Cache[V]) Occupy(cost int64) { c.waiting.Add(cost) }

// Waiting returns the cost of what was put, but is neither kept nor refused.
func (c *Cache[V]) Waiting() int64 { return c.waiting.Load() }
