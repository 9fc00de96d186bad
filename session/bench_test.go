// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	apache "github.com/apache/arrow-go/v18/arrow/flight/session"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover/session"
)

// BenchmarkCall is one call with a known cookie, without a network: what a
// middleware costs. Each handler asks for its session. Beside the cookie there
// are the headers that every gRPC call has, and as many others as the name says.
//
//	go test -run '^$' -bench '^BenchmarkCall$' -benchmem ./session
func BenchmarkCall(b *testing.B) {
	info := &grpc.UnaryServerInfo{FullMethod: "/arrow.flight.protocol.FlightService/GetFlightInfo"}
	for _, foreign := range []int{0, 20} {
		b.Run(fmt.Sprintf("interceptors/headers=%d", foreign), func(b *testing.B) {
			store := newStore(b)
			mw := session.NewServerMiddleware(session.NewStatefulServerSessionManager(session.WithStore(store)), session.WithLogger(nil))
			var token string
			handler := func(ctx context.Context, _ any) (any, error) {
				s, err := session.GetSessionFromContext(ctx)
				if err == nil && token == "" {
					token = s.Token()
				}
				return nil, err
			}
			_, _ = mw.Unary(incoming("", foreign), nil, info, handler)
			ctx := incoming(token, foreign)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := mw.Unary(ctx, nil, info, handler); err != nil {
					b.Fatal(err)
				}
			}
			if st := store.Stats(); st.Live != 1 || st.Confirmed != 1 {
				b.Fatalf("not one known session: %+v", st)
			}
		})
		b.Run(fmt.Sprintf("apache/headers=%d", foreign), func(b *testing.B) {
			store := apache.NewSessionStore()
			mw := flight.CreateServerMiddleware(apache.NewServerSessionMiddleware(apache.NewStatefulServerSessionManager(apache.WithStore(store))))
			var token string
			handler := func(ctx context.Context, _ any) (any, error) {
				s, err := apache.GetSessionFromContext(ctx)
				if err == nil && token == "" {
					token = s.Token()
				}
				return nil, err
			}
			_, _ = mw.Unary(incoming("", foreign), nil, info, handler)
			ctx := incoming(token, foreign)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := mw.Unary(ctx, nil, info, handler); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// incoming returns the context of a call with this session cookie and so many
// headers that have nothing to do with it.
func incoming(token string, foreign int) context.Context {
	md := metadata.Pairs(":authority", "localhost:8815", "content-type", "application/grpc", "user-agent", "grpc-go/1.84.0")
	if token != "" {
		md.Set("cookie", session.StatefulSessionCookieName+"="+token)
	}
	for i := range foreign {
		md.Set(fmt.Sprintf("x-header-%d", i), fmt.Sprintf("value-%d", i))
	}
	return metadata.NewIncomingContext(context.Background(), md)
}
