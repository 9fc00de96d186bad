// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// maxMessage is how large a message of a client may be.
const maxMessage = 16 << 20

// listen returns the gRPC server. The order of the interceptors matters: a panic
// anywhere inside must be caught, and whoever calls must be known before a session
// is looked for.
func listen(c *config, s *server, sessions flight.ServerMiddleware) (*grpc.Server, *health.Server, error) {
	around := []flight.ServerMiddleware{{Unary: recoverUnary, Stream: recoverStream}}
	if c.users.any() {
		around = append(around, butHealth(flight.CreateServerBasicAuthMiddleware(c.users)))
	}
	around = append(around, sessions, flight.ServerMiddleware{Stream: checkMessages})
	var unary []grpc.UnaryServerInterceptor
	var streams []grpc.StreamServerInterceptor
	for _, m := range around {
		if streams = append(streams, m.Stream); m.Unary != nil {
			unary = append(unary, m.Unary)
		}
	}
	opts := []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(unary...),
		grpc.ChainStreamInterceptor(streams...),
		grpc.MaxHeaderListSize(uint32(c.maxHeaderBytes)),
		grpc.MaxConcurrentStreams(uint32(c.maxStreams)),
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: 30 * time.Minute, Time: time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
	}
	if c.tlsCert != "" {
		certificate, err := tls.LoadX509KeyPair(c.tlsCert, c.tlsKey)
		if err != nil {
			return nil, nil, err
		}
		opts = append(opts, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})))
	}
	g := grpc.NewServer(opts...)
	flight.RegisterFlightServiceServer(g, flightsql.NewFlightServer(s))
	h := health.NewServer()
	healthpb.RegisterHealthServer(g, h)
	reflection.Register(g)
	return g, h, nil
}

// butHealth has health checks need no authentication: load balancers have none.
func butHealth(m flight.ServerMiddleware) flight.ServerMiddleware {
	isHealth := func(method string) bool { return strings.HasPrefix(method, "/grpc.health.v1.Health/") }
	return flight.ServerMiddleware{
		Unary: func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if isHealth(info.FullMethod) {
				return handler(ctx, req)
			}
			return m.Unary(ctx, req, info, handler)
		},
		Stream: func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if isHealth(info.FullMethod) {
				return handler(srv, stream)
			}
			return m.Stream(srv, stream, info, handler)
		},
	}
}

func recoverUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
	defer recovered(info.FullMethod, &err)
	return handler(ctx, req)
}

func recoverStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer recovered(info.FullMethod, &err)
	return handler(srv, stream)
}

// recovered turns a panic into the error of its call.
func recovered(method string, err *error) {
	if r := recover(); r != nil {
		slog.Error("a call panicked", "method", method, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error")
	}
}
