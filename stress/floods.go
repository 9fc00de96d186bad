// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// allotment is how many sessions each principal at an address may have.
type allotment struct {
	most int
	over session.WhenOver
}

// allot returns how many sessions a principal may have where that is limited.
func (c config) allot() int { return max(1, min(4, c.max/16)) }

// mobWidth is how many sessions a client wants at once beside its own.
const mobWidth = 4

// mob is one of many clients of one principal, who all want sessions at once, far
// more than the principal may have. Where the newest are refused, the session that
// it has got must stay; where the oldest leave, it may be told that it is gone. Its
// neighbours, of principals of their own, behave.
func (c *client) mob(ctx context.Context, rng *rand.Rand) {
	schema, closes := fmt.Sprint("mob", rng.IntN(1000)), rng.IntN(2) == 0
	got := c.hasSchema() || c.set(ctx, schema)
	var all sync.WaitGroup
	for range mobWidth {
		all.Go(func() { _, _, _ = c.call(withCookies(ctx, nil), setOptions, c.askSet("crowd")) })
	}
	all.Wait()
	switch {
	case !got || !c.query(ctx):
		await.Pause(ctx, upTo(rng, c.idle/8))
	case closes:
		c.close(ctx)
	default:
		await.Pause(ctx, upTo(rng, c.idle/16))
	}
}

// reserve notes whose a session is.
func (w *watch) reserve(r *record) {
	if r.reserved() {
		w.named++
		w.mostNamed = max(w.mostNamed, w.named)
	}
	if r.owner != "" {
		w.owned[r.owner] = append(w.owned[r.owner], r)
		w.withinQuota(r.owner)
	}
}

// disown forgets whose a session was.
func (w *watch) disown(r *record) {
	if r.owner == "" {
		return
	}
	w.owned[r.owner] = slices.DeleteFunc(w.owned[r.owner], func(old *record) bool { return old == r })
	if len(w.owned[r.owner]) == 0 {
		delete(w.owned, r.owner)
	}
}

// withinQuota checks that a principal never had more sessions than it may have: at
// the creation of each, by the order of the events. Of whom a session is, calls
// tell, before or after that.
func (w *watch) withinQuota(owner string) {
	for _, r := range w.owned[owner] {
		if !r.created || r.ended {
			continue
		}
		live := 0
		for _, other := range w.owned[owner] {
			if other.created && other.born <= r.born && (!other.ended || other.died > r.born) {
				live++
			}
		}
		w.Expect(promise.Allotted, live <= r.allot.most, "principal %s had %d sessions at once, expected at most %d", owner, live, r.allot.most)
	}
}

// mayHave returns how many places a principal may have had at some time since then:
// those of sessions that were there, of those that were still in use, and of calls
// that are getting one.
func (w *watch) mayHave(owner string, since time.Time) (places int) {
	for _, r := range w.owned[owner] {
		if !r.ended || r.running > 0 || later(r.endedAt, r.lastDone).Add(most(w, since, config.resolution)).After(since) {
			places++
		}
	}
	for c := range w.waiting {
		if c.owner == owner && !c.asked.IsZero() {
			places++
		}
	}
	return places
}

// outnumbered checks the end of a session for the quota of its principal.
func (w *watch) outnumbered(r *record, ev layover.Event) {
	if !w.Expect(promise.Allotted, r.allot != nil && r.allot.over == session.EvictOldest, "session %s of principal %q left for a quota, expected never of this one", r.mark, r.owner) {
		return
	}
	places := w.mayHave(r.owner, ev.At)
	w.Expect(promise.Allotted, places >= r.allot.most, "session %s left since principal %s had %d sessions at most, expected only for the maximum of %d", r.mark, r.owner, places, r.allot.most)
}

// outOfQuota reports whether a call was refused since its principal has as many
// sessions as it may have, and checks that it has.
func (w *watch) outOfQuota(c *call, err error) bool {
	info := detailOf(err)
	if info.GetMetadata()["lacking"] != layover.LackingQuota.String() {
		return false
	}
	places := w.mayHave(c.owner, c.asked)
	w.Expect(promise.Allotted, places >= c.allot.most, "principal %s was refused a session with %d at most, expected only with %d", c.owner, places, c.allot.most)
	w.Expect(promise.Allotted, codeOf(err) == codes.ResourceExhausted && info.GetReason() == "SESSION_STORE_FULL" && info.GetMetadata()["places"] == fmt.Sprint(c.allot.most),
		"principal %s, who may have %d sessions, was refused another one with %s, %v", c.owner, c.allot.most, codeOf(err), info)
	return true
}
