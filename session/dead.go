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
	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
)

// deadToken is a token that a call brought and that names no live session.
type deadToken struct {
	token   string // empty: of a principal, or nobody's
	mark    layover.Fingerprint
	key     layover.Fingerprint // under which it is remembered who was told
	why     string              // the name of a reason
	held    bool                // the session held something, or may have
	cookie  bool                // it came in one, so that the client can be told to drop it
	more    string              // for the log
	lingers bool                // other calls use the session; of stores it is asked when that matters
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
	whyUnsealed:                        "the server takes only sealed ones now",
}

// deadCookie judges a cookie's token that names no live session of this caller,
// from what the store says of it.
func (m *interceptors) deadCookie(token, caller string, err error) deadToken {
	d := deadToken{cookie: true, token: token}
	n := (*layover.NotFoundError)(nil)
	if errors.As(err, &n) && n.Reason != 0 && !m.isElses(token, caller) {
		d.why, d.held = n.Reason.String(), n.Held
	} else if d.why = m.whence(token, caller); d.why != whyGarbage {
		d.held = true // as far as anybody knows
	}
	if d.why == whyGarbage && m.isElses(token, caller) && m.tellings.deleted(m.tellingOf(token, caller), time.Now()) {
		d.why, d.held = whyRenamed, true // to this caller, a moment ago: its cookie is on its way
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
	return m.lost(ctx, d, m.config.deadCode)
}

// lost returns what a client is told of a session that has ended.
func (m *interceptors) lost(ctx context.Context, d deadToken, code codes.Code) error {
	e := &callError{code: code, prefix: LostPrefix, text: lostTexts[d.why] +
		"; its options and resources are gone (session " + d.mark.String() + ")",
		sentinel: ErrNoSession, reason: "SESSION_" + strings.ToUpper(d.why), metadata: map[string]string{"session": d.mark.String()}}
	attrs := []slog.Attr{slog.String("session", d.mark.String()), slog.String("reason", d.why), slog.String("source", sourceOf(ctx))}
	if d.more != "" {
		attrs = append(attrs, slog.String("detail", d.more))
	}
	m.reporter.log(ctx, slog.LevelInfo, e.code, "layover: a call is told that its session is lost", attrs...)
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
	drop         drop
	closers      int  // calls that are about to end the session; once it is dropped, not counted
	over         bool // if it is replaced: one of them has ended the session
}

// drop says why the client will not have the cookie any more.
type drop uint8

const (
	kept     drop = iota
	mayDrop       // calls that end the session may tell it to drop the cookie
	dropped       // it was told to drop it, or is about to be
	replaced      // it gets another one in its place, which a deletion could take along
)

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
	case was.drop != kept:
		return now.Before(was.since.Add(t.window))
	case acknowledges && !was.acknowledged:
		t.set(d.key, telling{since: was.since, acknowledged: true})
		return false
	}
	return !was.acknowledged && now.Before(was.since.Add(t.window))
}

// deleting notes that the client is about to be told to drop the cookie of a
// session that has ended. False: it was a short while ago. From now on, nothing that
// comes with that cookie may get a session, whose cookie the deletion would take
// along, until every reply that is under way has arrived.
func (t *tellings) deleting(mark layover.Fingerprint, now time.Time) (first bool) {
	return t.drop(mark, dropped, now)
}

// replacing is deleting for a cookie in whose place the client is about to get
// another one. It is undone by keeping.
func (t *tellings) replacing(mark layover.Fingerprint, now time.Time) (first bool) {
	return t.drop(mark, replaced, now)
}

func (t *tellings) drop(mark layover.Fingerprint, why drop, now time.Time) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drops(mark, now) != nil {
		return false
	}
	t.set(mark, telling{since: now, drop: why})
	return true
}

// closing notes that a call is about to end a session, and may then have the client
// drop the cookie. It is followed by closed or by withdraw.
func (t *tellings) closing(mark layover.Fingerprint, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := telling{since: now, drop: mayDrop}
	if was := t.drops(mark, now); was != nil {
		next = *was
	}
	next.closers++
	t.set(mark, next)
}

// closed notes that a call has ended the session, and reports whether it is to have
// the client drop the cookie: not if another one does, or another cookie comes in its
// place, which the deletion could take along.
func (t *tellings) closed(mark layover.Fingerprint, now time.Time) (deletes bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.get(mark)
	if was == nil {
		was = new(telling) // it was forgotten in a flood
	}
	switch was.drop {
	case dropped:
		return false
	case replaced:
		was.over = true
		was.closers--
		t.set(mark, *was)
		return false
	case kept, mayDrop:
	}
	t.set(mark, telling{since: now, drop: dropped})
	return true
}

// withdraw is for a call that has not ended the session after all: that lives on, or
// had ended before. The last of several decides: there is nothing to know, or the
// client, which wanted to close it, knows.
func (t *tellings) withdraw(mark layover.Fingerprint, lives bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.get(mark)
	switch {
	case was == nil || was.drop == kept || was.drop == dropped:
	case was.drop == replaced || was.closers > 1:
		was.closers--
		t.set(mark, *was)
	case lives:
		t.known.Delete(mark)
	default:
		t.set(mark, telling{since: now, acknowledged: true})
	}
}

// keeping undoes replacing: the client keeps its cookie. If its session was closed
// meanwhile, it knows.
func (t *tellings) keeping(mark layover.Fingerprint, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.get(mark)
	switch {
	case was == nil || was.drop != replaced:
	case was.over:
		t.set(mark, telling{since: now, acknowledged: true})
	case was.closers > 0:
		t.set(mark, telling{since: was.since, drop: mayDrop, closers: was.closers})
	default:
		t.known.Delete(mark)
	}
}

// knows reports whether anybody was told of this token.
func (t *tellings) knows(mark layover.Fingerprint) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.get(mark) != nil
}

// deleted reports whether the client is losing this cookie.
func (t *tellings) deleted(mark layover.Fingerprint, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.drops(mark, now) != nil
}

// drops returns what is known of a cookie that the client is losing, else nil.
func (t *tellings) drops(mark layover.Fingerprint, now time.Time) *telling {
	if was := t.get(mark); was != nil && was.drop != kept && now.Before(was.since.Add(t.window)) {
		return was
	}
	return nil
}

// acknowledge notes that the client knows of the end of its session.
func (t *tellings) acknowledge(mark layover.Fingerprint, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if was := t.get(mark); was == nil || was.drop == kept {
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
