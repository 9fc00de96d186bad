// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// retry is a client whose statements are retried blindly, as some drivers do. It
// loses more than one session under the same login.
func (c *client) retry(ctx context.Context, rng *rand.Rand) {
	defer c.disconnect()
	for range 1 + rng.IntN(3) {
		if !c.lose(ctx, rng) {
			return
		}
	}
}

// lose stays away for longer than the idle timeout, unless the session is evicted
// before, and then runs several statements at once, again and again. Each must be
// refused until the client shows that it knows, or the time for that is over.
func (c *client) lose(ctx context.Context, rng *rand.Rand) bool {
	schema, queries, holds := fmt.Sprint("retried", rng.IntN(1000)), rng.IntN(3), rng.IntN(8) > 0
	every, way, away := upTo(rng, c.window()/2), rng.IntN(6), c.idle+c.resolution()+upTo(rng, c.idle/8)
	if !holds {
		return c.miss(ctx, away)
	}
	if !c.set(ctx, schema) {
		return false
	}
	for range queries {
		if !c.query(ctx) {
			return false
		}
	}
	if !await.Pause(ctx, away) {
		return false
	}
	v := c.volley(showSchema)
	v.fire(ctx, every)
	if v.judge(); c.over(ctx) != nil || !c.recover(ctx, way) {
		return false
	}
	if way > 3 && c.by.inJar() {
		return c.late(ctx, schema)
	}
	return c.set(ctx, schema) && c.query(ctx)
}

// miss lets a session expire that held nothing. Nobody is told.
func (c *client) miss(ctx context.Context, away time.Duration) bool {
	if c.hasSchema() && !c.close(ctx) || !c.run(ctx, makeSession) || !await.Pause(ctx, away) {
		return false
	}
	c.query(ctx)
	return c.watch.Expect(promise.Explained, c.own.told == nil, "a client was told that session %s is lost, which held nothing", c.own.mark)
}

// late sets the schema again while statements with the dead cookie are still
// under way.
func (c *client) late(ctx context.Context, schema string) bool {
	v := c.volley(showSchema)
	v.fire(withCookies(ctx, c.cookie()), time.Millisecond)
	start := time.Now()
	ok := c.set(ctx, schema)
	if c.own.knows || c.own.mark != v.own.mark { // else it was there after all, by a longer timeout
		v.acknowledged = &span{start, time.Now()}
	}
	ok = ok && c.query(ctx)
	v.judge()
	return ok
}
