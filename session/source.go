// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"net/netip"

	"google.golang.org/grpc/peer"
)

// sourceOf returns where a call comes from, for [layover.Origin]: the host of
// its peer, of an IPv6 address the /64, since one host has that many. It is
// empty if there is no address of the Internet.
func sourceOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	at, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return ""
	}
	host := at.Addr().Unmap().WithZone("")
	if host.Is4() {
		return host.String()
	}
	net, err := host.Prefix(64)
	if err != nil {
		return ""
	}
	return net.String()
}
