// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package session gives every client of an Arrow Flight server a session that
// is sure to end. It is a drop-in superset of Apache's
// [github.com/apache/arrow-go/v18/arrow/flight/session]: a program written for
// that package compiles after its import path is changed, and its interfaces
// are the same types.
//
// # Two middlewares
//
// [NewServerMiddleware] is the one to use. Its interceptors lease the session
// of each Flight call until the handler has returned, make a session only when
// something is put into one, can refuse a call, and tell a client whose session
// is gone instead of running its next statement in the default schema.
//
// [NewServerSessionMiddleware] has Apache's shape and, but for its defects,
// Apache's behaviour: every call of every kind has a session, which is made if
// need be, and a token that is not known counts as none. It cannot refuse a
// call; what goes wrong before a handler surfaces as the error of
// [GetSessionFromContext], which carries a gRPC status.
//
// Under both, handlers find their session with GetSessionFromContext, this
// package's or Apache's.
//
// # In a handler
//
// [GetSessionFromContext] always returns a session under NewServerMiddleware,
// one that may not exist yet: it reads as empty, and comes to life with the
// first option that is set, or when its token is asked for. [Lookup] returns
// only one that exists, [Ensure] makes it, [SetOption] sets an option and
// returns why it could not, where SetSessionOption has the call fail. [As]
// returns a session of the server's own type. [Begin] and [End] are for login
// and logout handlers, [Acquire] for goroutines that outlive their call.
//
// # Options
//
// An [Option] declares a session option: its name, type, default and check. Handlers
// read it by [Option.Get], as a Go value. [BaseServer], embedded in place of
// [flightsql.BaseServer], lets clients set those of a [Schema], converts what they
// send, lists them, and closes sessions, to the letter of Flight.proto.
//
// # What a session owns
//
// A [Resource] is something that is opened once per session and key, such as a
// database connection, and is closed with the session, or earlier. [NewHandle] makes
// the opaque references that clients get to statements, transactions and results, and
// [ResolveHandle] finds the session of one that comes back, also from a client that
// keeps no cookies. [Context] is for what lasts as long as the session.
//
// # Carriers
//
// How a call says which session it means: by a [Cookie] that the server has
// set, the default, which few clients keep; [ByPrincipal], by what
// authentication has proved, as most Flight servers do; or by a [Header] whose
// value the client chooses, for its principal alone. See [WithCarriers].
//
// # Stateless sessions
//
// The sessions of [NewStatelessServerSessionManager] travel whole in their cookies: no
// replica keeps them, and any can serve their clients. Without keys their format is that
// of Apache's package, which protects nothing. With a [Keyring] they are sealed, and all
// that clients see is as with stateful sessions, but for this:
//
//	                  stateful                      sealed
//	carriers          cookie, header, principal     a cookie
//	holds             options, resources, handles,  options, of some 3 KiB in all; for the
//	                  a context, a type of its own  rest errors.ErrUnsupported
//	idle timeout      to the resolution of a clock  up to a sixteenth of it, and the clock
//	                                                skew, late; nothing idles out sooner
//	                                                because its cookie never came back
//	a call longer     keeps its session             keeps it if its client reads trailers,
//	than that                                       as Java and .NET do not after data
//	what is set after is kept                       is kept by such clients alone, and by
//	the first message                               none that drops the cookies of a stream
//	                                                that fails, as arrow-go's does
//	the proof of its  is its end                    is its end, up to a sixteenth of the
//	principal                                       idle timeout and the clock skew late
//	lifetime          a tenth shorter, at random    to the clock skew
//	options           are the same for all calls    are for calls of one process that use it
//	                                                at the same time; on several replicas,
//	                                                or of answers that cross on their way,
//	                                                the last cookie wins
//	an old token      is the same session           restores the options that it has, while
//	                                                no other call of the process uses the
//	                                                session: what a client may do is not
//	                                                to be kept in it
//	a call under way  goes on with the session      keeps what there was; what it sets fails
//	beside Renew                                    with SESSION_NOT_SAVED
//	CloseSession      CLOSED, or CLOSING while      likewise, of calls of this process; it
//	                  other calls use it            may fail with SESSION_NOT_CLOSED, see
//	                                                WithRevocation
//	after a restart   it is gone, and its client    it goes on; what was closed is forgotten,
//	                  told                          see Revocations of the manager
//	a full server     somebody's session leaves     there is none
//	kills, quotas,    yes                           no: an operator can remove a key
//	Explain
//
// Choose stateless sessions for replicas without a shared store, whose sessions are a
// few options; stateful ones for all else. Clients that keep no cookies cannot have
// stateless ones.
//
// Token version 1 is the unpadded base64url of
//
//	version  1 byte, of value 1
//	key id   4 bytes: HKDF-Expand(key, "layover token key id")
//	salt    16 bytes, random
//	nonce   12 bytes, random
//	sealed: flags, times, count of changes, ID, principal, options; and a tag of 16 bytes
//
// under AES-256-GCM with the key HKDF-Expand(key, "layover token 1" 0x00 key-id salt),
// by SHA-256, and with version, key id, and the names of cookie and audience, each after
// its length as a varint, as associated data. internal/token/testdata has test vectors.
//
// # What clients are told
//
// Every error of its making, but for those of a call that was canceled or ran out
// of time, has an [errdetails.ErrorInfo] of the domain [ErrorDomain]. Its metadata
// "session" is the fingerprint that the server's log has, if it is about one
// session. Neither IDs nor the text of a back end are in it.
//
//	code                reason
//	NOT_FOUND           SESSION_IDLE, _UNCONFIRMED, _LIFETIME, _CAPACITY, _CLOSED,
//	                    _REPLACED, _RENAMED, _KILLED, _QUOTA, _SHUTDOWN,
//	                    _RESTARTED, _UNKNOWN, _UNSEALED, _GARBAGE: the session is
//	                    gone, see [TellDead]; the message begins with [LostPrefix];
//	                    SESSION_NONE: the call has no session whose options could
//	                    be listed, see [BaseServer];
//	                    SESSION_HANDLE_UNKNOWN: see [ResolveHandle];
//	                    SESSION_RESOURCE_CLOSED: see Hold of [Resource]
//	RESOURCE_EXHAUSTED  SESSION_STORE_FULL (metadata: places, own, lacking),
//	                    SESSION_CALL_LIMIT, SESSION_RESOURCE_LIMIT,
//	                    SESSION_NOT_CLOSED: see [WithRevocation]; all with a RetryInfo
//	UNAVAILABLE         SESSION_STORE_FAILED, _STORE_DRAINING, _STORE_SHUTDOWN;
//	                    SESSION_SHUTDOWN: see [WithCancelOnKill];
//	                    SESSION_NOT_CLOSED: other replicas could not be told;
//	                    SESSION_RESOURCE_FAILED: see Open of [Resource]
//	INTERNAL            SESSION_NOT_SAVED: the handler has done its work, but what
//	                    became of its session is lost, so do not simply repeat it;
//	                    SESSION_PRINCIPAL_HIDDEN: the server looks for sessions
//	                    before it authenticates; SESSION_FAILED: anything else
//	INVALID_ARGUMENT    SESSION_AMBIGUOUS: carriers, or handles, disagree;
//	                    SESSION_KEY_INVALID; SESSION_OPTION_LIMIT: see
//	                    [WithOptionLimits], [WithMaxCookie], also as
//	                    RESOURCE_EXHAUSTED; SESSION_OPTION_INVALID: it cannot travel
//	UNAUTHENTICATED     SESSION_UNAUTHENTICATED, SESSION_ANONYMOUS,
//	                    SESSION_KEY_WITHOUT_PRINCIPAL
//	FAILED_PRECONDITION SESSION_NEEDS_TLS, see [WithTLSRequired];
//	                    SESSION_RENEWED_TOO_LATE, see [Renew]
//
// # Sessions and stores
//
// Sessions of the default manager live in an [ExpiringSessionStore]. They end
// after an idle timeout, at a lifetime, when the store is full, when their
// client closes them, and at shutdown, and are closed exactly once. A manager
// whose store is a [LeaseStore] leases the session for the call. Managers and
// stores written for Apache's package work as they are, without leases.
//
// No cookie, store, factory or manager can take the process down.
//
// # What differs from Apache's replies
//
// Under [NewServerSessionMiddleware]: a cookie that comes back in double quotes
// is the same cookie and is not sent again; of several cookies with the
// session's name, up to four, the first that is known counts; and CloseSession
// without a cookie leaves no session behind, and takes back the cookie that the
// header of the reply announced.
//
// Under [NewServerMiddleware] also: a cookie is set only for a session that
// exists, once, in the header unless that has left; and CloseSession deletes the
// cookie in the header, once, so that no later reply can delete its successor.
//
// The protocol is described at
// https://arrow.apache.org/docs/format/FlightSql.html#flight-server-session-management,
// cookies in RFC 6265.
package session
