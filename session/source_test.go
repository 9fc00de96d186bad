// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"net"
	"testing"

	"google.golang.org/grpc/peer"
)

func TestASourceIsTheHostOfThePeer(t *testing.T) {
	tcp := func(s string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", s)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for name, x := range map[string]struct {
		addr net.Addr
		want string
	}{
		"IPv4":                  {tcp("192.0.2.7:1234"), "192.0.2.7"},
		"IPv4 in IPv6":          {tcp("[::ffff:192.0.2.7]:1234"), "192.0.2.7"},
		"IPv6, by /64":          {tcp("[2001:db8:1:2:3:4:5:6]:1234"), "2001:db8:1:2::/64"},
		"IPv6 with a zone":      {tcp("[fe80::1%25lo]:1234"), "fe80::/64"},
		"a socket in the files": {&net.UnixAddr{Name: "/run/flight.sock", Net: "unix"}, ""},
		"none":                  {nil, ""},
	} {
		if got := sourceOf(peer.NewContext(context.Background(), &peer.Peer{Addr: x.addr})); got != x.want {
			t.Errorf("%s: got %q, want %q", name, got, x.want)
		}
	}
	if got := sourceOf(context.Background()); got != "" {
		t.Errorf("without a call: got %q", got)
	}
}
