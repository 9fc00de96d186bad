// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// steal has a thief use the client's cookie under a name of its own. It must find
// no session, see none of the options, and end nothing; and the client's next
// query goes on as if nothing had been.
func (c *client) steal(ctx context.Context, rng *rand.Rand) {
	if !c.hasSchema() && !c.set(ctx, fmt.Sprint("stolen", rng.IntN(1000))) {
		return
	}
	thief := metadata.AppendToOutgoingContext(withCookies(ctx, c.cookie()), userHeader, fmt.Sprint("thief", c.id))
	seen := func(r reply, _ span, err error) bool {
		c.watch.Expect(promise.Own, r.session == "", "a thief was handed session %s", r.session)
		c.watch.Expect(promise.Own, r.lost == nil || r.lost.reason == "SESSION_UNKNOWN", "a thief was told what became of session %s: %v", c.own.mark, r.lost)
		return err == nil
	}
	// Where a named caller has a session of its own, a cookie from before the login
	// contradicts it.
	schemas, ok := c.execute(thief, showSchema, seen, codes.InvalidArgument)
	c.watch.Expect(promise.Own, !ok || !sawOptions(schemas), "a thief saw the schemas %q of session %s", schemas, c.own.mark)
	if rng.IntN(2) == 0 {
		seen(c.call(thief, closeSession, c.askClose, codes.InvalidArgument))
	}
	if c.query(ctx) {
		await.Pause(ctx, upTo(rng, c.idle/16))
	}
}
