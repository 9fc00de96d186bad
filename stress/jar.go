// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover/session"
)

// jar keeps the cookies of one client. arrow-go's own cookie middleware can
// lose those of a call that succeeded, since it races with the end of the call,
// and takes none from a call that failed. This one is fed with the header and
// the trailer of every call after its stream has ended. It is safe for
// concurrent use; a nil jar keeps nothing.
type jar struct {
	mu      sync.Mutex
	cookies map[string]string
}

func newJar() *jar { return &jar{cookies: make(map[string]string)} }

// has reports whether there is the cookie of a session.
func (j *jar) has() bool { return j != nil && j.value(session.StatefulSessionCookieName) != "" }

// value returns a cookie's value.
func (j *jar) value(name string) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.cookies[name]
}

func (j *jar) apply(ctx context.Context) context.Context {
	r, _ := ctx.Value(replyKey{}).(*reply)
	if r == nil {
		r = new(reply) // nobody asked
	}
	if lines, ok := ctx.Value(cookiesKey{}).([]string); ok {
		r.brought = true
		var all []string
		for _, line := range lines {
			all = append(all, "cookie", line)
		}
		return metadata.AppendToOutgoingContext(ctx, all...)
	}
	if j == nil {
		return ctx
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	r.brought = j.cookies[session.StatefulSessionCookieName] != ""
	var all []string
	for name, value := range j.cookies {
		all = append(all, name+"="+value)
	}
	if len(all) == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "cookie", strings.Join(all, "; "))
}

func (j *jar) feed(md metadata.MD) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range (&http.Response{Header: http.Header{"Set-Cookie": md.Get("set-cookie")}}).Cookies() {
		if c.MaxAge < 0 {
			delete(j.cookies, c.Name)
		} else {
			j.cookies[c.Name] = c.Value
		}
	}
}

// reply is what the metadata of one call's answer said.
type reply struct {
	op      op
	session string    // fingerprint of the session that served the call; empty: none did
	made    bool      // for this call
	brought bool      // the call brought a session cookie
	renewed string    // what it is since the call renewed it; empty: it did not
	cookies []string  // that the client was told to set, or to drop
	lost    *loss     // the call was refused
	first   time.Time // when the first message came, of a stream
}

type (
	replyKey   struct{}
	cookiesKey struct{}
	begunKey   struct{}
)

// withCookies returns a context for calls that send these cookie headers and
// leave the jar alone.
func withCookies(ctx context.Context, lines []string) context.Context {
	return context.WithValue(ctx, cookiesKey{}, lines)
}

// withBegun returns a context for a stream, of which f is told when its first
// message has come.
func withBegun(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, begunKey{}, f)
}

// withReply returns a context for one call, whose reply is filled in when the
// call has ended.
func withReply(ctx context.Context) (context.Context, *reply) {
	r := new(reply)
	return context.WithValue(ctx, replyKey{}, r), r
}

func (j *jar) ended(ctx context.Context, md metadata.MD) {
	if ctx.Value(cookiesKey{}) == nil {
		j.feed(md)
	}
	if r, ok := ctx.Value(replyKey{}).(*reply); ok {
		r.session, r.made = strings.Join(md.Get(fingerprintHeader), ", "), md.Get(madeHeader) != nil
		r.renewed, r.cookies = strings.Join(md.Get(renewedHeader), ", "), md.Get("set-cookie")
	}
}

// middleware returns the interceptors of a client with this jar, which sends
// these headers with every call.
func (j *jar) middleware(headers ...string) flight.ClientMiddleware {
	send := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(j.apply(ctx), headers...)
	}
	return flight.ClientMiddleware{
		Unary: func(ctx context.Context, method string, req, res any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			var header, trailer metadata.MD
			err := invoke(send(ctx), method, req, res, cc, append(opts, grpc.Header(&header), grpc.Trailer(&trailer))...)
			j.ended(ctx, metadata.Join(header, trailer))
			return err
		},
		Stream: func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(send(ctx), desc, cc, method, opts...)
			if err != nil {
				return nil, err
			}
			return &clientStream{s, j, ctx}, nil
		},
	}
}

// clientStream notes how a stream begins and ends.
type clientStream struct {
	grpc.ClientStream
	jar *jar
	ctx context.Context
}

// RecvMsg receives the next message. Any error, io.EOF too, is the end.
func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		header, _ := s.Header()
		s.jar.ended(s.ctx, metadata.Join(header, s.Trailer()))
	} else if r, ok := s.ctx.Value(replyKey{}).(*reply); ok && r.first.IsZero() {
		r.first = time.Now()
		if begun, ok := s.ctx.Value(begunKey{}).(func()); ok {
			begun()
		}
	}
	return err
}
