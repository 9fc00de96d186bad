// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"log/slog"
	"net"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// errPlaintext says that a token would travel in the clear.
var errPlaintext = &callError{code: codes.FailedPrecondition, reason: "SESSION_NEEDS_TLS",

	text: "sessions need an encrypted connection here"}

func requireTLS(ctx context.Context) error {
	p, ok := peer.FromContext(ctx)
	if !ok || p.AuthInfo == nil || credentials.CheckSecurityLevel(p.AuthInfo, credentials.PrivacyAndIntegrity) != nil {
		return errPlaintext
	}
	return nil
}

// warnOfPlaintext warns once if a token leaves for another host in the clear.
func (m *interceptors) warnOfPlaintext(ctx context.Context) {
	if m.warned.Load() || !inTheClear(ctx) || !m.warned.CompareAndSwap(false, true) {
		return
	}
	defer func() { _ = recover() }() // a log handler is foreign code
	m.config.logger.LogAttrs(ctx, slog.LevelWarn,
		"layover: a session token leaves over an unencrypted connection, where anybody on the way can take it; use TLS, and WithTLSRequired to be sure")
}

func inTheClear(ctx context.Context) bool {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil || requireTLS(ctx) == nil {
		return false
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return false // no address of the Internet
	}
	ip := net.ParseIP(host)
	return ip != nil && !ip.IsLoopback()
}
