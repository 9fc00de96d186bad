// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jellydator/ttlcache/v3"

	"github.com/c8e4ff29/layover"
)

// deadToken is a token that a call brought and that names no live session.
type deadToken struct {
	mark   layover.Fingerprint
	key    layover.Fingerprint // under which it is remembered who was told
	why    string              // the name of a reason
	held   bool                // the session held something, or may have
	cookie bool                // it came in one, so that the client can be told to drop it
}

// What is known of a dead token beside the reasons of a store.
const (
	whyUnknown   = "unknown"
	whyRestarted = "restarted"
	whyGarbage   = "garbage"
)

// lostTexts say what happened, in words for the client's user.
var lostTexts = map[string]string{
	layover.ReasonIdle.String():        "it was not used for too long",
	layover.ReasonUnconfirmed.String(): "it was not used for too long",
	layover.ReasonLifetime.String():    "it had reached its maximum age",
	layover.ReasonCapacity.String():    "the server had no place left for it",
	layover.ReasonClosed.String():      "it was closed",
	layover.ReasonReplaced.String():    "another one took its place",
	layover.ReasonKilled.String():      "the server's operator ended it",
	layover.ReasonShutdown.String():    "the server was shut down",
	layover.ReasonQuota.String():       "its user had too many, and it was the first to leave",
	layover.ReasonRenamed.String():     "it was given a new ID",
	whyRestarted:                       "the server was restarted",
	whyUnknown:                         "the server does not know it any more",
	whyGarbage:                         "the server never had it",
}

// deadCookie judges a cookie's token that names no live session of this caller,
// from what the store says of it.
func (m *interceptors) deadCookie(token, caller string, err error) deadToken {
	d := deadToken{cookie: true}
	n := (*layover.NotFoundError)(nil)
	if errors.As(err, &n) && n.Reason != 0 && !m.isElses(token, caller) {
		d.why, d.held = n.Reason.String(), n.Held
	} else if d.why = m.whence(token, caller); d.why != whyGarbage {
		d.held = true // as far as anybody knows
	}
	if d.why == whyGarbage && m.isElses(token, caller) && m.tellings.deleted(m.tellingOf(token, caller), time.Now()) {
		d.why, d.held = layover.ReasonRenamed.String(), true // to this caller, a moment ago: its cookie is on its way
	}
	if d.why != whyGarbage || m.config.policy == StrictDead {
		d.mark, d.key = m.fingerprint(token), m.tellingOf(token, caller)
	}
	return d
}

// tellingOf returns under which key it is remembered who was told of a token:
// what one principal is told and acknowledges is not another one's business.
func (m *interceptors) tellingOf(token, caller string) layover.Fingerprint {
	if caller == "" {
		return m.fingerprint(token)
	}
	return m.fingerprint(principalSource + caller + "\x00" + token)
}

// telling is tellingOf the session that the call has.
func (h *handle) telling(l *held) layover.Fingerprint {
	return h.m.tellingOf(h.m.tokenOf(l), h.ownerOf(l))
}

// ownerOf returns whose the session that the call has is; empty: nobody's.
func (h *handle) ownerOf(l *held) string {
	name := l.owner()
	if name == "" && h.m.store == nil { // a copy does not know whose it is
		who, _ := h.caller() // which was known when the call began
		name = who.Name
	}
	return name
}

// deadNamed judges the session of a principal, from what the store says of it, as
// there is nothing else to be known. It reports whether there is anything to tell:
// not of what its client has closed itself.
func (m *interceptors) deadNamed(by *named, err error) (_ deadToken, dead bool) {
	n := (*layover.NotFoundError)(nil)
	if !errors.As(err, &n) || !n.Held || n.Reason == 0 || n.Reason == layover.ReasonClosed {
		return deadToken{}, false
	}
	mark := m.fingerprint(by.id)
	return deadToken{mark: mark, key: mark, why: n.Reason.String(), held: true}, true
}

// whence says what is known of a token that the store knows nothing of.
func (m *interceptors) whence(token, caller string) string {
	if !m.mints {
		if token == "" || isDerived(token) {
			return whyGarbage
		}
		return whyUnknown
	}
	switch m.mint.recognise(token, caller) {
	case ownBoot:
		return whyUnknown // forgotten since
	case otherBoot:
		if m.remembers {
			return whyRestarted
		}
		return whyUnknown // a store that outlives the process has lost it, or ended it
	case garbage:
	}
	return whyGarbage
}

// judge returns the refusal of a call that brought d, nil if it may go on
// without a session. acknowledges says that the call shows that its client
// knows.
func (m *interceptors) judge(ctx context.Context, d deadToken, acknowledges bool) error {
	switch {
	case m.config.policy == RenewDead:
		return nil
	case m.config.policy == TellDead && !m.tellings.tell(d, acknowledges, time.Now()):
		return nil
	}
	e := &callError{code: m.config.deadCode, prefix: LostPrefix, text: lostTexts[d.why] +
		"; its options and resources are gone (session " + d.mark.String() + ")",
		sentinel: ErrNoSession, reason: "SESSION_" + strings.ToUpper(d.why), metadata: map[string]string{"session": d.mark.String()}}
	m.reporter.log(ctx, slog.LevelInfo, e.code, "layover: a call is told that its session is lost",
		slog.String("session", d.mark.String()), slog.String("reason", d.why), slog.String("source", sourceOf(ctx)))
	return e
}

// tellings remember which dead tokens somebody was told of. A flood of dead
// tokens makes it forget the oldest, who are then told anew: a warning too many,
// never one too few. It is safe for concurrent use.
type tellings struct {
	window time.Duration
	mu     sync.Mutex
	known  *ttlcache.Cache[layover.Fingerprint, telling]
}

type telling struct {
	since        time.Time
	acknowledged bool
	deleted      bool // the client was told to drop the cookie, or got another one in its place
	sure         bool // it was, or will be; else one of the closers may
	closers      int  // calls that are about to end the session, and may have been the first
}

const (
	maxTellings   = 1 << 16
	tellingExpiry = 24 * time.Hour // since anybody last brought the token, at least
)

func newTellings(window time.Duration) *tellings {
	return &tellings{window: window, known: ttlcache.New(
		ttlcache.WithCapacity[layover.Fingerprint, telling](maxTellings),
		ttlcache.WithTTL[layover.Fingerprint, telling](max(tellingExpiry, 2*window)))}
}

// tell reports whether a call that brought d is to be refused.
func (t *tellings) tell(d deadToken, acknowledges bool, now time.Time) bool {
	if d.why == whyGarbage {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.get(d.key)
	switch {
	case was == nil && !d.held:
		return false
	case was == nil:
		t.set(d.key, telling{since: now, acknowledged: acknowledges})
		return !acknowledges
	case was.deleted:
		return now.Before(was.since.Add(t.window))
	case acknowledges && !was.acknowledged:
		t.set(d.key, telling{since: was.since, acknowledged: true})
		return false
	}
	return !was.acknowledged && now.Before(was.since.Add(t.window))
}

// deleting notes that the client is about to be told to drop the cookie of a
// session that it has closed. False: it was a short while ago. From now on,
// nothing that comes with that cookie may get a session, whose cookie the
// deletion would take along, until every reply that is under way has arrived.
func (t *tellings) deleting(mark layover.Fingerprint, now time.Time) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deletes(mark, now) {
		return false
	}
	t.set(mark, telling{since: now, deleted: true, sure: true})
	return true
}

// closing is deleting for a call that is about to end the session, and has the
// client drop the cookie only if it was the one that did. It is to be followed by
// closed or withdraw.
func (t *tellings) closing(mark layover.Fingerprint, now time.Time) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := telling{since: now, deleted: true}
	if first = !t.deletes(mark, now); !first {
		next = *t.get(mark)
	}
	next.closers++
	t.set(mark, next)
	return first
}

// closed notes that the client is told to drop the cookie of a session that it has
// closed.
func (t *tellings) closed(mark layover.Fingerprint, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.set(mark, telling{since: now, deleted: true, sure: true})
}

// withdraw undoes closing. Unless others are at it, or were, the client knows of the
// end of its session; if that lives on, there is nothing to know.
func (t *tellings) withdraw(mark layover.Fingerprint, lives bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.get(mark)
	switch {
	case was != nil && was.deleted && (was.sure || was.closers > 1):
		was.closers--
		t.set(mark, *was)
	case lives:
		t.known.Delete(mark)
	default:
		t.set(mark, telling{since: now, acknowledged: true})
	}
}

// knows reports whether anybody was told of this token.
func (t *tellings) knows(mark layover.Fingerprint) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(mark) != nil
}

// deleted is deletes for who has not the mutex.
func (t *tellings) deleted(mark layover.Fingerprint, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deletes(mark, now)
}

func (t *tellings) deletes(mark layover.Fingerprint, now time.Time) bool {
	was := t.get(mark)
	return was != nil && was.deleted && now.Before(was.since.Add(t.window))
}

// acknowledge notes that the client knows of the end of its session.
func (t *tellings) acknowledge(mark layover.Fingerprint, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if was := t.get(mark); was == nil || !was.deleted {
		t.set(mark, telling{since: now, acknowledged: true})
	}
}

// forget is for an ID that has a session again.
func (t *tellings) forget(mark layover.Fingerprint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known.Delete(mark)
}

func (t *tellings) get(mark layover.Fingerprint) *telling {
	item := t.known.Get(mark)
	if item == nil {
		return nil
	}
	was := item.Value()
	return &was
}

func (t *tellings) set(mark layover.Fingerprint, now telling) {
	t.known.DeleteExpired()
	t.known.Set(mark, now, ttlcache.DefaultTTL)
}
