// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/internal/resource"
)

// handle is the session of one call under the interceptors. While the call has
// none it reads as empty, and comes to life with the first thing that is put
// into it. It is safe for concurrent use. It is small, as every call makes one:
// what few calls need is elsewhere.
type handle struct {
	m    *interceptors
	base context.Context // of the call: replies go out by it
	live atomic.Pointer[held]

	mu      sync.Mutex
	rare    atomic.Pointer[rare]
	closed  atomic.Bool // the handler closed it; set under the mutex
	ended   bool        // the call has
	runs    bool        // the handler does, or it has not returned but panicked
	replied bool        // the header of a stream leaves; set under the mutex

	first held // here, so that it needs no memory of its own
}

// rare is what few calls need, under the mutex.
type rare struct {
	// What the call came with. Set before the handler starts.
	by    *named      // whose session it names; nil: no principal's
	dead  []deadToken // what it brought
	rec   *call       // of managers that are not ours
	brief bool        // a session that is made ends with the call, which needs none

	making   chan struct{} // closed when whoever makes or renews the session is done
	renewing bool          // it is renewed
	failure  error         // why something could not be put into it
	former   []*held       // which Begin has replaced
	greets   bool          // it is a handshake that has begun no session
	early    bool          // the call is not decided about, as its action was not read yet
	said     string        // the last cookie that was announced, of managers that are not ours
	spoke    bool          // one was
	given    string        // the principal whose this call has made its session; empty: none
	tally    *tally        // of the options in sessions of a foreign type

	uses    []*resource.Lease       // of the call
	adopted ServerSession           // which a handle has named
	ctx     context.Context         // of the handler, if the end of its session cancels it
	cancel  context.CancelCauseFunc // of ctx
	unwatch func() bool             // has the end of the session that the call has cancel nothing
}

// more returns what few calls need. The caller holds the mutex.
func (h *handle) more() *rare {
	if h.rare.Load() == nil {
		h.rare.Store(new(rare))
	}
	return h.rare.Load()
}

// isBrief reports whether a session that is made ends with the call.
func (h *handle) isBrief() bool { return h.is(func(r *rare) bool { return r.brief }) }

// is reports what few calls are.
func (h *handle) is(it func(*rare) bool) bool {
	if h.rare.Load() == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return it(h.more())
}

var _ ServerSession = (*handle)(nil)

// held is a session that a call has.
type held struct {
	session ServerSession
	lease   layover.Lease[resident] // in a store of this package's
	other   SessionLease            // in another one that has leases
	cookie  bool                    // the client knows it by one
	fresh   bool                    // made by this call
	dropped atomic.Bool             // the client was told to drop its cookie, by this call
}

// leased returns the lease in a store of this package's; one that is none.
func (l *held) leased() *layover.Lease[resident] {
	other := l.other
	if c, copies := other.(*copied); copies { // its store may be one of this package's behind another
		other = c.inner
	}
	if ours, ok := other.(*lease); ok {
		return &ours.Lease
	}
	return &l.lease
}

// release gives the lease back, after having told the store what a session of a
// foreign type holds.
func (l *held) release() (err error) {
	if b, ok := l.other.(*bearer); ok { // nothing foreign that could panic
		b.Release()
		return nil
	}
	if l.other != nil {
		return release(l.other)
	}
	if isOwn(l.session) { // nothing foreign that could panic
		l.lease.Release()
		return nil
	}
	defer contain(&err)
	defer l.lease.Release()
	if holdsUnsaid(l.session) {
		l.lease.Hold()
	}
	return nil
}

// principal returns whose session the call names, nil if no principal's.
func (h *handle) principal() *named {
	if r := h.rare.Load(); r != nil {
		return r.by
	}
	return nil
}

// unwrap returns the session behind a handle, nil if there is none, and any
// other session as it is.
func unwrap(s ServerSession) ServerSession {
	h, ok := s.(*handle)
	if !ok {
		return s
	}
	if h == nil {
		return nil
	}
	if l := h.live.Load(); l != nil {
		return l.session
	}
	return nil
}

// Token returns the session's token, for which there must be one. It is empty if
// there can be none; the call then fails, unless it has closed its session
// itself.
func (h *handle) Token() string {
	s, err := h.ensure(false)
	if err != nil {
		h.fail(err)
		return ""
	}
	return s.Token()
}

// GetSessionOption returns a copy of the value of an option, nil if it is not
// set.
func (h *handle) GetSessionOption(name string) *flight.SessionOptionValue {
	if s := unwrap(h); s != nil {
		return s.GetSessionOption(name)
	}
	return nil
}

// GetSessionOptions returns a copy of all options.
func (h *handle) GetSessionOptions() map[string]*flight.SessionOptionValue {
	if s := unwrap(h); s != nil {
		return s.GetSessionOptions()
	}
	return make(map[string]*flight.SessionOptionValue)
}

// SetSessionOption sets an option to a copy of value, for which there must be a
// session. If there can be none the call fails, see [SetOption].
func (h *handle) SetSessionOption(name string, value *flight.SessionOptionValue) {
	if value.GetOptionValue() == nil {
		h.EraseSessionOption(name)
		return
	}
	if err := h.put(name, value); err != nil {
		h.fail(err)
	}
}

// EraseSessionOption removes an option. It is idempotent.
func (h *handle) EraseSessionOption(name string) {
	if s := unwrap(h); s != nil {
		h.erase(s, name)
	}
}

// Closed reports whether the session was closed, by whomever.
func (h *handle) Closed() bool {
	if h.closed.Load() {
		return true
	}
	s := unwrap(h)
	return s != nil && s.Closed()
}

// Format prints a fingerprint under every verb: the ID is a secret.
func (h *handle) Format(f fmt.State, _ rune) {
	l := h.live.Load()
	if l == nil {
		fmt.Fprint(f, "no session yet")
		return
	}
	if b, ok := l.other.(*bearer); ok {
		fmt.Fprintf(f, "session %s", h.m.fingerprint(b.session.name()))
		return
	}
	fmt.Fprintf(f, "session %s", h.m.fingerprint(tokenOf(l.session)))
}

// Close ends the session: no later call finds it. Calls that use it now keep
// its options until they have ended. Without a session there is nothing to do.
func (h *handle) Close() error {
	h.mu.Lock()
	again := h.closed.Swap(true)
	l := h.live.Load()
	h.mu.Unlock()
	if again || l == nil {
		return nil
	}
	err := h.discard(l)
	if err != nil { // the handler may try again
		h.mu.Lock()
		h.closed.Store(false)
		h.mu.Unlock()
	}
	return err
}

// discard ends a session, and has the client drop its cookie. If it was over
// already, the client may have a newer cookie, and nothing is said.
func (h *handle) discard(l *held) (err error) {
	defer contain(&err)
	line, unique, deletes := h.deletion(l)
	if deletes && unique {
		if deletes, err = h.endMarked(l); err != nil {
			return err
		}
	} else if err := h.m.remove(l); err != nil {
		return harmless(err)
	}
	if deletes {
		h.m.warnOfPlaintext(h.base)
		h.mu.Lock()
		defer h.mu.Unlock()
		if l.dropped.Store(true); h.live.Load() == l { // or Begin has announced another one since
			h.sendCookie(line)
		}
	}
	return nil
}

// endMarked ends a session that its client knows by a cookie, and reports whether
// that is to be dropped.
func (h *handle) endMarked(l *held) (deletes bool, err error) {
	m := h.m
	if m.store != nil && isOwn(l.session) { // no foreign code
		m.closes.Lock() // lest it is renewed meanwhile
		defer m.closes.Unlock()
	}
	mark := h.telling(l)
	// First this: what comes with that cookie from now on gets no new one, which
	// the deletion would take along. A store that is not ours cannot tell whether
	// the session was over already; then somebody may have been told so.
	if m.store == nil && !m.stateless.seals() && m.tellings.knows(mark) && !m.tellings.deleted(mark, time.Now()) {
		return false, harmless(m.remove(l))
	}
	m.tellings.closing(mark, time.Now())
	ended, err := m.end(l)
	if err = harmless(err); err != nil || !ended {
		m.tellings.withdraw(mark, err != nil, time.Now())
		return false, err
	}
	return m.tellings.closed(mark, time.Now()), nil
}

// fail has the call fail, for the first of several reasons. That the handler has
// closed the session is none: what comes after that does nothing.
func (h *handle) fail(err error) {
	if errors.Is(err, errClosed) {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.more(); r.failure == nil {
		r.failure = err
	}
}

// ensure returns the session, which is made if there is none. It holds something
// from the start if holds is true.
func (h *handle) ensure(holds bool) (ServerSession, error) {
	for {
		if l := h.live.Load(); l != nil {
			return l.session, nil
		}
		if h.early() { // an interceptor within this one is at it: a new session would hide the old one's end
			if err := h.decide(""); err != nil {
				return nil, err
			}
		}
		mine, wait, err := h.begin(false)
		if err != nil {
			return nil, err
		}
		if wait != nil {
			<-wait
		}
		if mine == nil {
			continue
		}
		return h.make(mine, func() (*held, error) { return h.m.share(h, h.principal(), holds) })
	}
}

// early reports whether the call brought tokens of sessions that have ended, and
// was not decided about.
func (h *handle) early() bool { return h.is(func(r *rare) bool { return r.early }) }

// undecided notes whether the call is yet to be decided about. It need not be
// known of one that brought nothing to decide about.
func (h *handle) undecided(early bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rare.Load(); r != nil {
		r.early = early
	}
}

// claim lets one goroutine at a time make, replace or renew the call's session: for
// that one, mine is not nil, and it yields; the others wait, if wait is not nil. The
// caller holds the mutex.
func (h *handle) claim() (mine, wait chan struct{}, _ error) {
	r := h.more()
	switch {
	case h.ended:
		return nil, nil, ErrCallEnded
	case r.renewing: // perhaps by who is asking
		return nil, nil, errRenews
	case r.making != nil:
		return nil, r.making, nil
	}
	r.making = make(chan struct{})
	return r.making, nil, nil
}

// yield undoes claim.
func (h *handle) yield(mine chan struct{}) {
	h.mu.Lock()
	r := h.more()
	r.making, r.renewing = nil, false
	h.mu.Unlock()
	close(mine)
}

// begin is claim for a session that is to be made.
func (h *handle) begin(anew bool) (mine, wait chan struct{}, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if mine, wait, err = h.claim(); mine == nil {
		return nil, wait, err
	}
	if closed := h.closed.Load(); !anew && (closed || h.live.Load() != nil) {
		h.more().making = nil // nobody waits yet
		if closed {
			return nil, nil, errClosed
		}
		return nil, nil, nil // somebody has made one since we looked
	}
	h.closed.Store(false)
	return mine, nil, nil
}

// make has a session made, outside of every lock.
func (h *handle) make(mine chan struct{}, create func() (*held, error)) (ServerSession, error) {
	defer h.yield(mine) // also if a factory ends its goroutine
	l, err := create()
	if err != nil {
		return nil, harmless(err)
	}
	line, err := h.newCookie(l)
	if err != nil { // a session whose client cannot find it
		return nil, errors.Join(err, h.m.remove(l), l.release())
	}
	if line != "" {
		h.m.warnOfPlaintext(h.base)
	}
	h.mu.Lock()
	var late error
	switch {
	case h.ended:
		late = ErrCallEnded
	case h.closed.Load():
		late = errClosed
	default:
		if old := h.live.Load(); old != nil {
			h.more().former = append(h.more().former, old)
		}
		h.live.Store(l)
		h.watch(l)
		if line != "" { // under the mutex, lest the call ends or the session is closed in between
			h.sendCookie(line)
		}
	}
	h.mu.Unlock()
	if late != nil { // nobody will ever have it
		return nil, errors.Join(late, h.m.remove(l), l.release())
	}
	return l.session, nil
}
