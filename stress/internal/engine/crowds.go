// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// kind is a way to treat a store. A client of it goes round and round.
type kind struct {
	name  string
	round func(*client, context.Context)
}

// kinds are all of them, which scenarios name. To add one, add a line here and in
// the scenarios.
var kinds = []kind{
	{"callers", (*client).call},
	{"holders", (*client).hold},
	{"vanishers", (*client).vanish},
	{"flooders", (*client).flood},
	{"mobs", (*client).mob},
	{"heavies", (*client).weigh},
	{"sharers", (*client).share},
	{"replacers", (*client).replace},
	{"killers", (*client).kill},
	{"strangers", (*client).stray},
	{"lookers", (*client).look},
	{"newcomers", (*client).newcomers},
	{"keys", (*client).keys},
}

// call is the honest client: it comes back before its session idles out, for some
// time, and then removes it or is never seen again.
func (c *client) call(ctx context.Context) {
	l := c.add(layover.Origin{Source: c.source, Holds: c.rng.IntN(2) == 0})
	if l == nil {
		await.Pause(ctx, time.Millisecond)
		return
	}
	s := l.session
	l.release()
	calls := 1 + c.rng.IntN(64)
	waits := c.rng.IntN(4) == 0
	for i := range calls {
		switch c.rng.IntN(8) {
		case 0:
			c.looks(s, "Touch", true, c.store.Touch)
		case 1:
			c.looks(s, "Get", true, func(id string) error { _, err := c.store.Get(id); return err })
		case 2:
			c.looks(s, "Peek", false, func(id string) error { _, err := c.store.Peek(id); return err })
		}
		l := c.acquire(s)
		if l == nil {
			return
		}
		if i == 0 {
			l.confirms()
		} else if c.rng.IntN(8) == 0 {
			l.puts()
		}
		l.release()
		if waits && !await.Pause(ctx, time.Duration(c.rng.Int64N(int64(c.run.limits.idle/8)))) {
			return
		}
	}
	switch c.rng.IntN(8) {
	case 0: // it stays until it idles out
	case 1: // and somebody asks for it all the time, about when it does
		c.lieInWait(ctx, s)
	default:
		c.removes(s)
	}
}

// lieInWait looks for a session that nobody uses until it is gone, without a touch,
// and tries to get it about when its time is over.
func (c *client) lieInWait(ctx context.Context, s *session) {
	peek := func(id string) error { _, err := c.store.Peek(id); return err }
	for c.looks(s, "Peek", false, peek) {
		if !await.Pause(ctx, time.Duration(c.rng.Int64N(int64(c.run.limits.idle/16)))) {
			return
		}
	}
	if l := c.acquire(s); l != nil {
		l.release() // which was noted as wrong
	}
}

// hold has calls that last longer than the idle timeout, during which the session
// stays; some are removed under their calls, and stay for those.
func (c *client) hold(ctx context.Context) {
	l := c.add(layover.Origin{Source: c.source})
	if l == nil {
		await.Pause(ctx, time.Millisecond)
		return
	}
	s := l.session
	l.release()
	if l = c.acquire(s); l == nil {
		return
	}
	l.confirms()
	idle := c.run.limits.idle
	ways := c.rng.IntN(4)
	await.Pause(ctx, idle+time.Duration(c.rng.Int64N(int64(idle/2))))
	// It may be past its lifetime, or killed by a shutdown; it never idles out.
	c.looks(s, "Peek", false, func(id string) error { _, err := c.store.Peek(id); return err })
	if ways == 0 {
		c.removes(s)
		await.Pause(ctx, time.Millisecond)
	}
	c.Expect(promise.NotInUse, l.Context().Err() == nil || c.cut.Load() || s.wasKilled(), "the context of session %s was canceled under its lease", s)
	l.release()
	if ways == 1 {
		await.Pause(ctx, idle/2)
	}
}

func (s *session) wasKilled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killed
}

// vanish has a session that is never seen again: at once, or after it was confirmed.
func (c *client) vanish(ctx context.Context) {
	o := layover.Origin{Source: c.source, Holds: c.rng.IntN(2) == 0}
	if c.rng.IntN(8) == 0 {
		o.Expires = time.Now().Add(c.run.limits.idle/4 + time.Duration(c.rng.Int64N(int64(c.run.limits.idle))))
	}
	l := c.add(o)
	if l == nil {
		await.Pause(ctx, time.Millisecond)
		return
	}
	s := l.session
	l.release()
	if c.rng.IntN(2) == 0 {
		if l = c.acquire(s); l != nil {
			l.confirms()
			l.release()
		}
	}
	if c.rng.IntN(64) == 0 {
		c.lieInWait(ctx, s)
	}
	await.Pause(ctx, time.Duration(c.rng.Int64N(int64(c.run.limits.idle/64+1))))
}

// flood has sessions made as fast as it can, all from one source, and never brings
// one back.
func (c *client) flood(ctx context.Context) {
	for range 32 {
		if l := c.add(layover.Origin{Source: floodSource, Holds: c.rng.IntN(4) == 0}); l != nil {
			l.release()
		} else if !await.Pause(ctx, time.Millisecond) {
			return
		}
	}
	if c.rng.IntN(16) == 0 {
		await.Pause(ctx, time.Millisecond)
	}
}

const (
	floodSource = "flood"
	mobSource   = "mob"
	mobQuota    = 3
	sharers     = "sharers"
)

// mob wants more sessions than its source may have.
func (c *client) mob(ctx context.Context) {
	for range 2 * mobQuota {
		l := c.add(layover.Origin{Source: mobSource, Quota: mobQuota, EvictOwn: c.id%2 == 0})
		if l == nil {
			continue
		}
		if s := l.session; c.rng.IntN(4) == 0 {
			l.release()
			c.removes(s)
		} else {
			l.release()
		}
	}
	await.Pause(ctx, time.Millisecond)
}

// weigh has sessions that take bytes.
func (c *client) weigh(ctx context.Context) {
	most := c.run.limits.bytes
	l := c.add(layover.Origin{Source: c.source, Size: c.rng.Int64N(most / 4)})
	if l == nil {
		await.Pause(ctx, time.Millisecond)
		return
	}
	l.confirms()
	await.Pause(ctx, time.Duration(c.rng.Int64N(int64(time.Millisecond))))
	s := l.session
	l.release()
	if c.rng.IntN(2) == 0 {
		c.removes(s)
	}
}

// share uses and ends what goes by a few names, beside others who do the same.
func (c *client) share(ctx context.Context) {
	for range 16 {
		n := c.names[c.rng.IntN(len(c.names))]
		switch c.rng.IntN(8) {
		case 0:
			l := c.addAs(c.session(n, sharers), n, layover.Origin{Source: sharers}, func(s *session) (layover.Lease[*session], error) {
				return c.store.Add(n.id, s, layover.Origin{Source: sharers})
			})
			if l != nil {
				l.release()
			}
		case 1:
			if l := c.acquireShared(n); l != nil {
				c.removesShared(l)
				l.release()
			}
		default:
			if l := c.acquireShared(n); l != nil {
				if c.rng.IntN(8) == 0 {
					l.confirms()
				}
				l.release()
			}
		}
	}
	await.Pause(ctx, time.Duration(c.rng.Int64N(int64(time.Millisecond))))
}

// removesShared ends a session that it has a lease on, if it still goes by its name.
// It stays for those who have leases.
func (c *client) removesShared(l *lease) {
	s, n := l.session, l.session.name
	s.endsFor(layover.ReasonClosed, c.id)
	c.starts()
	err := c.store.CompareAndRemove(n.id, s)
	if now := c.stopped(err); err == nil {
		s.endedBy(now)
	}
	ok := err == nil || errors.Is(err, layover.ErrNotFound) || errors.Is(err, layover.ErrShutdown) && c.stopping.Load()
	c.Expect(promise.Answered, ok, "CompareAndRemove failed with %v", err)
	if c.rng.IntN(4) == 0 {
		time.Sleep(time.Duration(c.rng.Int64N(int64(100 * time.Microsecond))))
	}
	c.Expect(promise.NotInUse, s.closes.Load() == 0 || c.cut.Load() || s.wasKilled(), "session %s was closed under its lease", s)
}

// replace gives its session another ID, and others its place.
func (c *client) replace(ctx context.Context) {
	l := c.add(layover.Origin{Source: c.source})
	if l == nil {
		await.Pause(ctx, time.Millisecond)
		return
	}
	for range 4 {
		if c.rng.IntN(2) == 0 {
			if !c.renames(l) {
				break
			}
		} else if next := c.instead(l); next != nil {
			l.release()
			l = next
		}
	}
	s := l.session
	l.release()
	switch c.rng.IntN(16) {
	case 0:
		c.growsOld(ctx, s)
	case 1, 2, 3, 4, 5, 6, 7:
		if l = c.acquire(s); l != nil {
			l.release()
			c.removes(s)
		}
	}
	await.Pause(ctx, time.Duration(c.rng.Int64N(int64(time.Millisecond))))
}

// growsOld uses a session until its lifetime is over, which another ID that it gets
// late does not put off.
func (c *client) growsOld(ctx context.Context, s *session) {
	l, renamed := c.acquire(s), false
	for l != nil {
		l.confirms()
		if old := time.Since(l.session.added) > c.run.limits.lifetime/2; old && !renamed {
			renamed = c.renames(l)
		}
		l.release()
		if !await.Pause(ctx, c.run.limits.idle/8) {
			return
		}
		l = c.acquire(s)
	}
}

// renames gives the session another ID. The old one finds nothing from then on.
func (c *client) renames(l *lease) bool {
	s, next := l.session, c.name(fmt.Sprint("renamed", c.id))
	s.mu.Lock()
	old := s.name
	s.renaming++
	s.mu.Unlock()
	c.renamed.Add(1)
	c.events.expect(next, s)
	c.starts()
	err := l.Rename(next.id, layover.Origin{Source: s.source})
	c.stopped(err)
	if err != nil {
		c.refusals.Add(1)
		c.events.forget(next)
		ok := errors.Is(err, layover.ErrNotFound) || errors.Is(err, layover.ErrShutdown) && c.stopping.Load()
		c.Expect(promise.Renewed, ok, "session %s could not be renamed: %v", s, err)
		return false
	}
	s.mu.Lock()
	s.name = next
	s.history.note("renamed, was "+old.mark.String(), c.id)
	s.mu.Unlock()
	_, err = c.store.Peek(old.id)
	c.Expect(promise.Renewed, err != nil, "session %s was found by the ID that it had before it was renamed", s)
	var nf *layover.NotFoundError
	if errors.As(err, &nf) && nf.Reason != 0 {
		c.Expect(promise.Renewed, nf.Reason == layover.ReasonRenamed, "the former ID of session %s is explained as %s, expected renamed", s, nf.Reason)
	}
	found, err := c.store.Peek(next.id)
	gone := errors.Is(err, layover.ErrNotFound) || errors.Is(err, layover.ErrShutdown)
	c.Expect(promise.Renewed, gone || err == nil && found == s, "session %s is not found by its new ID: %v", s, err)
	return true
}

// instead has another session stored in the place of one that it has a lease on.
func (c *client) instead(l *lease) *lease {
	old, n := l.session, c.name(fmt.Sprint("instead", c.id))
	old.mu.Lock()
	before := old.ending
	old.mu.Unlock()
	if before.reason == layover.ReasonKilled {
		return nil
	}
	old.endsFor(layover.ReasonReplaced, c.id)
	o := layover.Origin{Source: c.source}
	next := c.addAs(c.session(n, o.Source), n, o, func(s *session) (layover.Lease[*session], error) {
		return c.store.AddInstead(&l.Lease, n.id, s, o)
	})
	if next == nil {
		return nil
	}
	old.endedBy(time.Now())
	c.Expect(promise.NotInUse, old.closes.Load() == 0 || c.cut.Load() || old.wasKilled(), "session %s was closed under the lease of the one who replaced it", old)
	return next
}

// kill ends sessions under their calls, its own ones.
func (c *client) kill(ctx context.Context) {
	l := c.add(layover.Origin{Source: c.source})
	if l == nil {
		await.Pause(ctx, time.Millisecond)
		return
	}
	s, inUse := l.session, c.rng.IntN(2) == 0
	lease := l.Context()
	s.mu.Lock()
	s.ctx = lease
	mark := s.name.mark
	s.mu.Unlock()
	if !inUse {
		l.release()
	}
	s.endsFor(layover.ReasonKilled, c.id)
	c.starts()
	was := c.store.Kill(mark)
	c.stopped(nil)
	c.Expect(promise.Answered, was || !inUse || c.stopping.Load(), "Kill did not find session %s, which is leased", s)
	if was {
		s.endedBy(time.Now())
		if inUse {
			c.canceled(lease, s)
		}
		_, err := c.store.Peek(s.name.id)
		c.Expect(promise.NotStale, err != nil, "session %s was found after Kill", s)
	}
	if inUse {
		l.release()
	}
	await.Pause(ctx, time.Duration(c.rng.Int64N(int64(5*time.Millisecond))))
}

// canceled checks that the context of a session which was killed ends, and says why.
func (c *client) canceled(lease context.Context, s *session) {
	select {
	case <-lease.Done():
	case <-time.After(c.run.answerTime()):
	}
	var why *layover.EndedError
	c.keepsSecrets(fmt.Sprintf("%v %+v", context.Cause(lease), context.Cause(lease)), "the cause of a context")
	c.Expect(promise.NotInUse, errors.As(context.Cause(lease), &why), "the context of session %s was not canceled after Kill, expected that it says why: %v", s, context.Cause(lease))
}

// stray comes with what no well-meaning client does: nothing of it may go in, nor
// anything of others come out.
func (c *client) stray(ctx context.Context) {
	store := c.store
	nonsense := []string{"", "\x00", "\xff\xfe", strings.Repeat("x", 1<<16), c.names[0].id + " ", c.names[0].id[:8], fmt.Sprint(c.rng.Uint64())}
	id := nonsense[c.rng.IntN(len(nonsense))]
	wrong := func(what string, err error) {
		c.Expect(promise.Answered, err != nil, "%s with nonsense succeeded", what)
		if err != nil {
			c.keepsSecrets(err.Error(), "an error")
		}
	}
	c.starts()
	_, err := store.Acquire(id)
	wrong("Acquire", err)
	_, err = store.AcquireFrom(c.names[c.rng.IntN(len(c.names))].id, func(string) bool { return store.Len() < 0 }) // foreign code, that uses the store
	wrong("AcquireFrom for nobody", err)
	_, err = store.Peek(id)
	wrong("Peek", err)
	wrong("Remove", store.Remove(id))
	wrong("Confirm", store.Confirm(id))
	wrong("Hold", store.Hold(id))
	_, err = store.Add("", &session{life: c.life}, layover.Origin{})
	wrong("Add without an ID", err)
	_, err = store.Add(secret+"nil", nil, layover.Origin{})
	wrong("Add of nil", err)
	_, err = store.Add(secret+"size", &session{life: c.life}, layover.Origin{Size: -1})
	wrong("Add of a negative size", err)
	_, err = store.Add(secret+"past", &session{life: c.life}, layover.Origin{Expires: time.Unix(1, 0)})
	wrong("Add of what has expired", err)
	c.Expect(promise.Answered, !store.Kill(layover.Fingerprint{byte(c.id)}), "Kill found a session that nobody stored")
	c.stopped(err)
	if l := c.add(layover.Origin{Source: c.source}); l != nil {
		c.overdo(l)
	}
	await.Pause(ctx, time.Duration(c.rng.Int64N(int64(time.Millisecond))))
}

// overdo uses a lease after its release, which must change nothing for others.
func (c *client) overdo(l *lease) {
	s := l.session
	c.keepsSecrets(fmt.Sprintf("%v %+v %#v", &l.Lease, &l.Lease, c.store), "a printed lease or store")
	l.release()
	other := c.acquire(s)
	l.Release()
	l.Confirm()
	l.Hold()
	_ = l.SetSize(1 << 30)
	c.Expect(promise.Answered, l.Context().Err() != nil, "the context of a lease that was given back goes on")
	if other != nil {
		c.Expect(promise.NotInUse, s.closes.Load() == 0 || c.cut.Load(), "session %s was closed under its lease, after another one was given back twice", s)
		other.release()
	}
}

// look looks at all there is.
func (c *client) look(ctx context.Context) {
	c.starts()
	seen := 0
	for info, s := range c.store.All() {
		seen++
		if seen%64 == 0 {
			c.keepsSecrets(fmt.Sprintf("%+v", info), "what All tells")
			c.Expect(promise.Own, s != nil, "All returned no session")
		}
	}
	for _, source := range c.store.Sources(4) {
		c.Expect(promise.Sound, source.Sessions > 0, "source %q is listed with %d sessions", source.Name, source.Sessions)
	}
	var n int
	most := c.mostDuring(func() { n = c.store.Len() })
	c.stopped(nil)
	c.Expect(promise.Bounded, n <= most, "Len is %d, expected at most %d", n, most)
	await.Pause(ctx, 5*time.Millisecond)
}
