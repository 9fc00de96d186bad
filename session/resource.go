// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/internal/resource"
)

// Resource is something that each session of a server has of its own: a database
// connection, a folder for temporary files. It is opened when a call first asks for
// it, once per session and key, and closed with the session, or earlier: after an
// idle timeout of its own, or when another one needs its place. The session goes on
// then, and the next call opens another one.
//
//	var connections = &session.Resource[*pgx.Conn]{
//		Name:  "connection",
//		Open:  func(ctx context.Context, _ string) (*pgx.Conn, error) { return pgx.Connect(ctx, url) },
//		Close: func(c *pgx.Conn) error { return c.Close(context.Background()) },
//	}
//
//	c, err := connections.Get(ctx, "") // in a handler
//
// Close must get rid of it: a [database/sql.Conn], for one, goes back to its pool, and
// whatever was set in it, or its temporary tables, come to the next session.
//
// Its fields must not be changed once it is in use, nor may it be copied. Its methods
// are safe for concurrent use. They need [NewServerMiddleware] with a manager, a
// store and sessions of this package; elsewhere their error wraps
// [errors.ErrUnsupported].
//
// The resources of a session are closed in the reverse order in which they were
// opened, so that one whose Open asks for another one is closed before that. A
// resource that a call uses is closed under it only if its session is killed, or a
// shutdown runs out of time.
type Resource[T any] struct {
	// Name is what errors and log lines call it, such as "connection".
	Name string

	// Open opens it, for a key of the server's choice, on a goroutine of its own. ctx is
	// that of the call which asks; it ends when Open has returned, or the session is
	// killed. Of several calls that ask at the same time one has Open run, and the others
	// wait. Resources that Open asks for are in use as long as this one is there. An
	// error is not
	// remembered: the next call tries again. The client gets it if it carries a gRPC
	// status; else UNAVAILABLE, while the error itself is logged, and wrapped by what
	// Get returns.
	Open func(ctx context.Context, key string) (T, error)

	// Close closes it. It is called once for each that was opened, and under no lock.
	// A failure is logged, and with the session also an event. Default: the Close
	// method of T, which must be an [io.Closer] then.
	Close func(T) error

	// IdleTimeout is for how long no call may use it before it is closed. Zero: 10
	// minutes. Negative: as long as its session lives.
	IdleTimeout time.Duration

	// CloseTimeout is how long the others wait for a Close that hangs; it is then
	// reported, and counted, see [ResourceStats]. A session that ends waits as long for
	// an Open. Zero or less: 10 seconds.
	CloseTimeout time.Duration

	// Closed, if it is not nil, is told of each one that was closed, on a goroutine that
	// is waited for no longer than CloseTimeout.
	Closed func(ResourceEnd)

	once sync.Once
	kind resource.Kind
	err  error // what is wrong with the fields
}

const (
	defaultMaxResources  = 1024
	defaultResourceIdle  = 10 * time.Minute
	defaultResourceClose = 10 * time.Second
)

// ErrResourceLimit says that no resource can be opened since the store has as many as
// it may have, see [ExpiringSessionStore.SetMaxResources], and all are in use, or of
// sources that have fewer than the call's.
var ErrResourceLimit = errors.New("session: too many resources are open")

// ResourceEnd tells of a resource that was closed.
type ResourceEnd struct {
	Session layover.Fingerprint
	Name    string // of the Resource
	Key     string
	Reason  ResourceReason
	Age     time.Duration // since it was opened
	Idle    time.Duration // since its last use
	Err     error         // of its Close, if that has failed, panicked or does not return
}

// ResourceReason says why a resource was closed.
type ResourceReason string

// The reasons.
const (
	ResourceIdle      ResourceReason = "idle"      // no call used it for too long
	ResourceCapacity  ResourceReason = "capacity"  // another one needed its place
	ResourceEnded     ResourceReason = "ended"     // its session has ended
	ResourceDiscarded ResourceReason = "discarded" // see Discard
)

// Get returns the session's resource for a key, opened if it is not yet. The call
// uses it until its handler has returned. A call without a session gets one.
//
// The errors are fit for the client: those of [Ensure]; that of Open, see there; that
// the session has ended; [ErrResourceLimit]; and the context's.
func (r *Resource[T]) Get(ctx context.Context, key string) (value T, _ error) {
	o, err := belonging(ctx)
	if err != nil {
		return value, err
	}
	if err = r.prepare(); err != nil {
		return value, o.h.m.refusal(o.h.base, err)
	}
	if l := o.using(&r.kind, key); l != nil {
		return valueOf[T](l), nil
	}
	l, err := r.open(ctx, o, key)
	if err == nil {
		err = o.h.use(l)
	}
	if err != nil {
		return value, o.h.refuseResource(ctx, r.Name, err)
	}
	return valueOf[T](l), nil
}

// Opened is Get if the resource is open; else it reports false, and opens none. One
// that is just being opened is waited for.
func (r *Resource[T]) Opened(ctx context.Context, key string) (value T, open bool, _ error) {
	o, ok, err := existing(ctx)
	if err != nil || !ok {
		return value, false, err
	}
	if l := o.using(&r.kind, key); l != nil {
		return valueOf[T](l), true, nil
	}
	l, err := o.things.Opened(ctx, &r.kind, key)
	if err == nil && l != nil {
		err = o.h.use(l)
	}
	if err != nil {
		return value, false, o.h.refuseResource(ctx, r.Name, err)
	}
	if l == nil {
		return value, false, nil
	}
	return valueOf[T](l), true, nil
}

// Acquire is Get for goroutines of the server that go on after the call, such as
// those which produce the batches of a stream. They must release the lease; as long as
// they have it, neither the resource nor its session idles out, see [Acquire].
func (r *Resource[T]) Acquire(ctx context.Context, key string) (*ResourceLease[T], error) {
	o, err := belonging(ctx)
	if err != nil {
		return nil, err
	}
	if err = r.prepare(); err != nil {
		return nil, o.h.m.refusal(o.h.base, err)
	}
	session, err := o.h.m.again(ctx, o.l) // of that very session: Begin may replace it at any moment
	if err != nil {
		if errors.Is(err, ErrNoSession) { // it has ended under the call
			return nil, errOver
		}
		return nil, o.h.overOr(err)
	}
	l, err := r.open(ctx, o, key)
	if err != nil {
		session.Release()
		return nil, o.h.refuseResource(ctx, r.Name, err)
	}
	return &ResourceLease[T]{session: session, lease: l}, nil
}

// ResourceLease is the right to use a resource. It is safe for concurrent use.
type ResourceLease[T any] struct {
	session SessionLease
	lease   *resource.Lease
}

// Value returns the resource.
func (l *ResourceLease[T]) Value() T { return valueOf[T](l.lease) }

// Hold is that of [Resource], for who has the lease.
func (l *ResourceLease[T]) Hold(d time.Duration) { l.lease.Hold(d) }

// Discard is that of [Resource], for who has the lease, which is yet to be released.
func (l *ResourceLease[T]) Discard() { l.lease.Discard() }

// Release gives the lease back. Further calls do nothing.
func (l *ResourceLease[T]) Release() {
	l.lease.Release()
	l.session.Release()
}

// Hold keeps an open resource from idling out for d from now, although no call uses
// it, and has it make room for others after all that are neither used nor held: for an
// open transaction, or a result that waits to be fetched. Zero or less: it is not held
// any more. The latest Hold counts. The timeouts of its session stay as they are.
//
// The error is fit for the client: that the resource is not open, or those of
// [GetSessionFromContext].
func (r *Resource[T]) Hold(ctx context.Context, key string, d time.Duration) error {
	o, ok, err := existing(ctx)
	if err != nil {
		return err
	}
	if !ok || !o.things.Hold(&r.kind, key, d) {
		return &callError{code: codes.NotFound, reason: "SESSION_RESOURCE_CLOSED", text: fmt.Sprintf("the session has no %s that is open", r.Name)}
	}
	return nil
}

// Discard has an open resource be closed as soon as nobody uses it any more, for one
// that is broken: the one that this call uses, else the session's. This call does not
// use it from now on, and the next Get opens another one. If there is none it does
// nothing. The errors are those of [GetSessionFromContext].
func (r *Resource[T]) Discard(ctx context.Context, key string) error {
	o, ok, err := existing(ctx)
	if err == nil && ok && !o.h.unuse(o.things, &r.kind, key) {
		o.things.Discard(&r.kind, key)
	}
	return err
}

func valueOf[T any](l *resource.Lease) T {
	v, _ := l.Value().(T) // it is not ok for the nil of an interface
	return v
}

// prepare makes the kind, and returns what is wrong with the fields.
func (r *Resource[T]) prepare() error {
	r.once.Do(func() {
		closes := reflect.TypeFor[T]().Implements(reflect.TypeFor[io.Closer]())
		if r.Open == nil || r.Close == nil && !closes {
			r.err = fmt.Errorf("session: a Resource %q without Open or Close", r.Name)
		}
		r.kind = resource.Kind{Name: r.Name, Idle: r.IdleTimeout, CloseWithin: r.CloseTimeout, Closed: r.closed,
			Close: func(value any) error {
				v, _ := value.(T)
				if r.Close != nil {
					return r.Close(v)
				}
				return any(v).(io.Closer).Close()
			}}
		if r.IdleTimeout == 0 {
			r.kind.Idle = defaultResourceIdle
		}
		if r.CloseTimeout <= 0 {
			r.kind.CloseWithin = defaultResourceClose
		}
	})
	return r.err
}

// open leases the resource, opened if need be.
func (r *Resource[T]) open(ctx context.Context, o owned, key string) (*resource.Lease, error) {
	if !o.l.fresh {
		o.things.Confirm()
	}
	return o.things.Acquire(ctx, &r.kind, key, func(ctx context.Context) (any, error) { return r.Open(ctx, key) })
}

// closed tells of one that was closed.
func (r *Resource[T]) closed(e resource.Ending) {
	own := e.Owner.(*statefulServerSession)
	token := own.Token()
	mark := own.home.Load().Fingerprint(token)
	if e.Err != nil && (e.Reason != resource.Ended || e.Late) { // else it is in the error of the session's end
		reporter := own.belongings.Load().reporter
		key := lineKey{level: slog.LevelWarn, code: codes.Unknown}
		if n := reporter.count(key); n > 0 {
			reporter.write(context.Background(), key, n, "layover: a resource could not be closed", slog.String("resource", r.Name),
				slog.String("session", mark.String()), slog.String("error", reporter.scrub(context.Background(), own, e.Err)))
		}
	}
	if e.Err != nil {
		e.Err = &redacted{e.Err, token, mark}
	}
	if r.Closed != nil {
		r.Closed(ResourceEnd{Session: mark, Name: r.Name, Key: e.Name, Reason: ResourceReason(e.Reason.String()),
			Age: e.Closed.Sub(e.Opened), Idle: e.Closed.Sub(e.Used), Err: e.Err})
	}
}

// using returns the lease that the call has on a resource already, nil: none, or that
// is closed, or was discarded.
func (o owned) using(k *resource.Kind, key string) *resource.Lease {
	h := o.h
	if h.rare.Load() == nil {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.more().uses {
		if l.Of(o.things, k, key) && l.Current() {
			return l
		}
	}
	return nil
}

// use keeps a lease until the end of the call, one for each resource.
func (h *handle) use(l *resource.Lease) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.more()
	if h.ended || slices.ContainsFunc(r.uses, l.Same) { // another goroutine was faster
		l.Release()
	} else {
		r.uses = append(r.uses, l)
	}
	if h.ended {
		return ErrCallEnded
	}
	return nil
}

// unuse gives the call's leases on a resource back, which is discarded. It reports
// whether there were any.
func (h *handle) unuse(s *resource.Set, k *resource.Kind, key string) (used bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.more()
	r.uses = slices.DeleteFunc(r.uses, func(l *resource.Lease) bool {
		if !l.Of(s, k, key) {
			return false
		}
		used = true
		l.Discard()
		l.Release()
		return true
	})
	return used
}

// refuseResource returns what the client is told of a resource that it cannot have.
// The context is the one with which it was asked for.
func (h *handle) refuseResource(ctx context.Context, name string, err error) error {
	err = harmless(err)
	e := inOwnWords(err)
	switch {
	case errors.Is(err, resource.ErrEnded):
		return errOver
	case errors.Is(err, resource.ErrFull):
		e = &callError{code: codes.ResourceExhausted, reason: "SESSION_RESOURCE_LIMIT", retry: retryFull, sentinel: ErrResourceLimit,
			text: fmt.Sprintf("no place for another %s", name)}
	case ctx.Err() != nil:
		return h.m.refusal(h.base, ctx.Err())
	case errors.Is(err, ErrCallEnded):
		return h.m.refusal(h.base, err)
	case e != nil:
		e.sentinel = err
	default:
		e = &callError{code: codes.Unavailable, reason: "SESSION_RESOURCE_FAILED", cause: err, sentinel: err,
			text: fmt.Sprintf("the session's %s could not be opened", name)}
	}
	return h.m.refusal(h.base, e)
}
