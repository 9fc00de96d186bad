// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"crypto/rand"
	"fmt"

	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover/session"
)

// Two replicas with the same keys serve one client, while the keys are rotated. When the
// client closes its session, the other replica is told.
func ExampleWithKeyring() {
	first, second := make([]byte, 32), make([]byte, 32) // from where your secrets are
	_, _ = rand.Read(first)
	_, _ = rand.Read(second)
	keys, err := session.NewKeyring(first)
	if err != nil {
		fmt.Println(err)
		return
	}
	there := session.NewStatelessServerSessionManager(session.WithKeyring(keys))
	defer func() { _ = there.Close() }()
	here := session.NewStatelessServerSessionManager(session.WithKeyring(keys),
		session.WithRevocation(session.DefaultMaxRevoked, func(_ context.Context, r session.Revocation) error {
			return there.Revoke(r) // over the network, as a rule
		}))
	defer func() { _ = here.Close() }()

	s, err := here.CreateSession(context.Background()) // a middleware does this
	if err != nil {
		fmt.Println(err)
		return
	}
	s.SetSessionOption("schema", text("sales"))
	cookie, _ := session.CreateCookieForSession(s)
	call := metadata.NewIncomingContext(context.Background(), metadata.Pairs("cookie", cookie.String()))

	if err := keys.Set(second, first); err != nil {
		fmt.Println(err)
		return
	}
	found, err := there.GetSession(call)
	fmt.Println(found.GetSessionOption("schema").GetStringValue(), err)
	fmt.Println("sealed anew:", found.Token() != cookie.Value)

	fmt.Println("closed:", here.CloseSession(s))
	_, err = there.GetSession(call)
	fmt.Println(err)

	// Output:
	// sales <nil>
	// sealed anew: true
	// closed: <nil>
	// flight: server session not present
}
