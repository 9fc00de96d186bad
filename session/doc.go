// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// Package session gives every client of an Arrow Flight server a session that
// is sure to end. It is a drop-in superset of Apache's
// [github.com/apache/arrow-go/v18/arrow/flight/session]: a program written for
// that package compiles after its import path is changed, and its interfaces
// are the same types.
//
// # What is different
//
// Sessions of the default manager live in an [ExpiringSessionStore]. They end
// after an idle timeout, at a lifetime, when the store is full, when their
// client closes them, and at shutdown, and are closed exactly once. A call
// leases its session, so a long query neither idles out nor is evicted.
//
// No cookie, store, factory or manager can take the process down. Apache's
// [ServerSessionMiddleware] shape cannot refuse a call; what goes wrong before
// a handler surfaces as the error of [GetSessionFromContext], which carries a
// gRPC status and neither IDs nor the text of a back end.
//
// Three replies differ from Apache's: a cookie that comes back in double quotes
// is the same cookie and is not sent again; of several cookies with the
// session's name, up to four, the first that is known counts; and CloseSession without a
// cookie leaves no session behind, and takes back the cookie that the header of
// the reply announced.
//
// # How it works
//
// [NewServerSessionMiddleware] asks its [ServerSessionManager] for the call's
// session and has it created where there is none. A manager whose store is a
// [LeaseStore] leases the session for the call that its context belongs to; the
// middleware gives the lease back when the call has ended. Managers and stores
// written for Apache's package work as they are, without leases.
//
// The protocol is described at
// https://arrow.apache.org/docs/format/FlightSql.html#flight-server-session-management,
// cookies in RFC 6265.
package session
