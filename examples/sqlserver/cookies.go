// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
)

// cookieJar is what an arrow-go client needs to keep its session: the middleware for
// cookies, and around it one that has it notice them in time. By itself (v18.8.0) it
// looks at the header of a stream only at its end, which ExecuteUpdate does not wait
// for; and if it finds the context of the stream canceled by then, as it is at any
// end, it does not look at all. Calls that are no streams do not have that problem.
func cookieJar(jar flight.CookieMiddleware) []flight.ClientMiddleware {
	return []flight.ClientMiddleware{{Stream: headersAtOnce}, flight.CreateClientMiddleware(jar)}
}

func headersAtOnce(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &eager{ClientStream: s}, nil
}

// eager is a stream that asks for its header with the first message.
type eager struct {
	grpc.ClientStream
	once sync.Once
}

// RecvMsg receives a message.
func (e *eager) RecvMsg(m any) error {
	err := e.ClientStream.RecvMsg(m)
	if err == nil {
		e.once.Do(func() { _, _ = e.Header() }) // which tells the middleware
	}
	return err
}
