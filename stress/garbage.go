// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// garble sends cookies that are malformed, unknown, foreign or too large; every
// call must be answered. Among them may be its own one, in whatever shape:
// then it must find its session.
func (c *client) garble(ctx context.Context, rng *rand.Rand) {
	if !c.hasSchema() && !c.set(ctx, fmt.Sprint("garbage", rng.IntN(1000))) {
		return
	}
	const name = session.StatefulSessionCookieName
	id, unknown := c.jar.value(name), fmt.Sprintf("%08x-0000-4000-8000-%012x", rng.Uint32(), rng.Uint32())
	choice := rng.IntN(12)
	lines, mine := [][]string{
		0:  {name + `="` + id + `"`},
		1:  {"AWSALB=a/b+c==;" + name + "=" + id + ";x=y"},
		2:  {`$Version=1; ` + name + `="` + id + `"; $Path="/"`},
		3:  {name + "=" + unknown + "; " + name + "=" + id},
		4:  {"AWSALB=x", name + "=" + id},
		5:  {name + "=" + unknown},
		6:  {name + `="` + unknown},
		7:  {name, name + "=", "=" + id, ";;;==,", name + `="";` + name + "= "},
		8:  {name + "=" + strings.Repeat("x", 4<<10)},
		9:  {strings.Repeat(name+"="+unknown+"; ", 50)},
		10: {noise(rng, 200), noise(rng, 20) + ";" + noise(rng, 20), name + "=" + noise(rng, 40)},
		11: {"big=" + strings.Repeat("x", 2*maxHeaderBytes)},
	}[choice], choice < 5
	var allowed []codes.Code
	if choice == 11 { // gRPC itself refuses so long a header
		allowed = []codes.Code{codes.Internal}
	}
	if c.garbled(ctx, lines, mine, allowed...) && c.query(ctx) {
		await.Pause(ctx, upTo(rng, c.idle/16))
	}
}

// garbled runs a query with these cookies instead of those in the jar. mine
// says that they name the client's own session; allowed are the errors that may come.
// It reports whether the client can go on.
func (c *client) garbled(ctx context.Context, lines []string, mine bool, allowed ...codes.Code) bool {
	schemas, ok := c.execute(withCookies(ctx, lines), showSchema, func(r reply, s span, err error) bool {
		switch {
		case r.lost != nil && r.lost.mark != c.own.mark:
			// Of sessions that have IDs of their own, anything may be one.
			c.watch.Expect(promise.Explained, c.mixed && r.lost.reason == "SESSION_UNKNOWN", "a client was told of session %s (%s), which never was, for the cookies %.200q", r.lost.mark, r.lost.reason, lines)
			if mine && c.own.told == nil { // it was told of the first one, for all
				c.own.told = &s
			}
		case mine:
			return c.heard(r, s, err)
		default:
			c.watch.Expect(promise.Own, r.session == "" && r.lost == nil, "a client was handed session %s for the cookies %.200q, expected none", r.session, lines)
		}
		return err == nil
	}, allowed...)
	switch {
	case mine && ok:
		return c.sees(schemas)
	case ok:
		c.watch.Expect(promise.Own, !sawOptions(schemas), "a query without a session saw the schemas %q", schemas)
	}
	return c.over(ctx) == nil && c.own.told == nil
}

// noise returns printable characters.
func noise(rng *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = ' ' + byte(rng.IntN('~'-' '+1))
	}
	return string(b)
}
