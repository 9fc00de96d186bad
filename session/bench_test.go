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
	for _, foreign := range []int{0, 20} {
		for _, m := range contestants {
			b.Run(fmt.Sprintf("%s/headers=%d", m.name, foreign), func(b *testing.B) {
				middleware, token := m.make(b)
				ctx := incoming(token, foreign)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := middleware.Unary(ctx, nil, getFlightInfo, m.handler); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// contestant is what is compared.
type contestant struct {
	name    string
	make    func(testing.TB) (_ flight.ServerMiddleware, token string)
	handler grpc.UnaryHandler
}

// contestants come with the token of a session each.
var contestants = []contestant{
	{"layover", func(b testing.TB) (flight.ServerMiddleware, string) {
		store := newStore(b)
		middleware := edge(store)
		return middleware, firstToken(b, middleware, session.GetSessionFromContext)
	}, looking(session.GetSessionFromContext)},
	{"apache", func(b testing.TB) (flight.ServerMiddleware, string) {
		manager := apache.NewStatefulServerSessionManager(apache.WithStore(apache.NewSessionStore()))
		middleware := flight.CreateServerMiddleware(apache.NewServerSessionMiddleware(manager))
		return middleware, firstToken(b, middleware, apache.GetSessionFromContext)
	}, looking(apache.GetSessionFromContext)},
}

// looking returns a handler that looks at its session.
func looking(get func(context.Context) (session.ServerSession, error)) grpc.UnaryHandler {
	return func(ctx context.Context, _ any) (any, error) {
		s, err := get(ctx)
		if err == nil && s.Closed() {
			err = session.ErrNoSession
		}
		return nil, err
	}
}

// firstToken makes a session by a call that sets an option.
func firstToken(b testing.TB, m flight.ServerMiddleware, get func(context.Context) (session.ServerSession, error)) (token string) {
	_, err := m.Unary(incoming("", 0), nil, getFlightInfo, func(ctx context.Context, _ any) (any, error) {
		s, err := get(ctx)
		if err == nil {
			s.SetSessionOption("schema", text("prod"))
			token = s.Token()
		}
		return nil, err
	})
	if err != nil {
		b.Fatal(err)
	}
	return token
}

// BenchmarkLoopback is a whole call over gRPC on loopback, with a known cookie,
// beside a server without sessions.
//
//	go test -run '^$' -bench '^BenchmarkLoopback$' -benchmem ./session
func BenchmarkLoopback(b *testing.B) {
	for _, m := range append(contestants, contestant{"none", func(testing.TB) (flight.ServerMiddleware, string) {
		return flight.ServerMiddleware{
			Unary: func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
				return h(ctx, req)
			},
			Stream: func(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) error {
				return h(srv, s)
			},
		}, "x"
	}, func(context.Context, any) (any, error) { return nil, nil }}) {
		b.Run(m.name, func(b *testing.B) {
			middleware, token := m.make(b)
			e := serveEdge(b, middleware, &sqlServer{fromContext: func(ctx context.Context) (session.ServerSession, error) {
				_, err := m.handler(ctx, nil)
				return &userSession{}, err
			}})
			c := e.client()
			do := info("")
			ctx := metadata.AppendToOutgoingContext(b.Context(), "cookie", session.StatefulSessionCookieName+"="+token)
			b.ReportAllocs()
			for b.Loop() {
				if err := do(ctx, c.Client); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStateless is one call with a known stateless cookie, without a network, as
// BenchmarkCall is; the session does not change. "opened" opens the token on each call,
// "remembered" finds it in the cache.
//
//	go test -run '^$' -bench '^BenchmarkStateless$' -benchmem ./session
func BenchmarkStateless(b *testing.B) {
	open, remember := sealing(b, session.WithTokenCache(0)), sealing(b)
	for _, options := range []int{1, 10, 50} {
		for _, c := range []struct {
			name       string
			middleware flight.ServerMiddleware
			get        func(context.Context) (session.ServerSession, error)
		}{
			{"apache", flight.CreateServerMiddleware(apache.NewServerSessionMiddleware(apache.NewStatelessServerSessionManager())), apache.GetSessionFromContext},
			{"plain", over(session.NewStatelessServerSessionManager()), session.GetSessionFromContext},
			{"opened", over(open), session.GetSessionFromContext},
			{"remembered", over(remember), session.GetSessionFromContext},
		} {
			b.Run(fmt.Sprintf("options=%d/%s", options, c.name), func(b *testing.B) {
				ctx := carrying(b, c.middleware, c.get, options)
				b.ReportAllocs()
				for b.Loop() {
					if _, err := c.middleware.Unary(ctx, nil, getFlightInfo, looking(c.get)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// carrying returns the context of a call with the stateless cookie of a session with so
// many options.
func carrying(b *testing.B, m flight.ServerMiddleware, get func(context.Context) (session.ServerSession, error), options int) context.Context {
	var token string
	_, err := m.Unary(incoming("", 0), nil, getFlightInfo, func(ctx context.Context, _ any) (any, error) {
		s, err := get(ctx)
		if err != nil {
			return nil, err
		}
		for i := range options {
			s.SetSessionOption(fmt.Sprintf("option-%d", i), text(fmt.Sprintf("value-%d", i)))
		}
		token = s.Token()
		return nil, nil
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(":authority", "localhost:8815", "content-type", "application/grpc",
		"user-agent", "grpc-go/1.84.0", "cookie", session.StatelessSessionCookieName+"="+token))
	for range 1000 { // until it is remembered
		_, _ = m.Unary(ctx, nil, getFlightInfo, looking(get))
	}
	return ctx
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

// BenchmarkBelongings is what a call costs that uses something of its session's, with
// the cookie or without one, by a handle. "nothing" is a call that only has a session.
//
//	go test -run '^$' -bench '^BenchmarkBelongings$' -benchmem ./session
func BenchmarkBelongings(b *testing.B) {
	w := newWires()
	middleware := edge(newStore(b))
	token := firstToken(b, middleware, session.GetSessionFromContext)
	var handle []byte
	call := func(ctx context.Context, handler grpc.UnaryHandler) {
		if _, err := middleware.Unary(ctx, nil, getFlightInfo, handler); err != nil {
			b.Fatal(err)
		}
	}
	mint := func(ctx context.Context, _ any) (_ any, err error) {
		handle, err = session.NewHandle(ctx, "statement", []byte("object"))
		return nil, err
	}
	call(incoming(token, 0), mint)
	for _, c := range []struct {
		name    string
		token   string
		handler grpc.UnaryHandler
	}{
		{"nothing", token, looking(session.GetSessionFromContext)},
		{"resource", token, func(ctx context.Context, _ any) (any, error) { return w.Get(ctx, "") }},
		{"new handle", token, mint},
		{"handle and cookie", token, func(ctx context.Context, _ any) (any, error) {
			return session.ResolveHandle(ctx, "statement", handle)
		}},
		{"handle alone", "", func(ctx context.Context, _ any) (any, error) {
			return session.ResolveHandle(ctx, "statement", handle)
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			ctx := incoming(c.token, 0)
			b.ReportAllocs()
			for b.Loop() {
				call(ctx, c.handler)
			}
		})
	}
}
