// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"expvar"
	"net"
	"net/http"
	"time"

	"github.com/c8e4ff29/layover/session"
)

// numbers are what an operator wants to know, and a test of the server.
func numbers(d *database, store *session.ExpiringSessionStore) map[string]int64 {
	stats, resources := store.Stats(), store.Resources()
	busy := int64(0)
	for info := range store.All() {
		if info.Leases > 0 {
			busy++
		}
	}
	return map[string]int64{
		"sqlite_bytes":       memoryUsed(),
		"connections":        d.open.Load(),
		"connections_opened": d.opened.Load(),
		"connections_busy":   int64(resources.Busy),
		"connections_held":   int64(resources.Held),
		"connections_alone":  d.alone.Load(),
		"resources_open":     int64(resources.Open),
		"resources_places":   int64(resources.Places),
		"resources_hung":     int64(resources.Hung),
		"sessions":           int64(stats.Live),
		"sessions_retired":   int64(stats.Retired),
		"sessions_busy":      busy,
		"sessions_closing":   int64(stats.Closing),
		"sessions_created":   int64(stats.Created),
		"sessions_ended":     int64(stats.Ended.Total()),
	}
}

// errNotLoopback says that the numbers are nobody else's business.
var errNotLoopback = errors.New("-debug: the address must be one of loopback")

// serveNumbers serves them over HTTP at /debug/vars, until it is told to stop.
func serveNumbers(addr string, f func() map[string]int64) (at string, stop func(), _ error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", nil, err
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", nil, errNotLoopback
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return "", nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/vars", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		_, _ = w.Write([]byte(expvar.Func(func() any { return f() }).String()))
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(listener)
	}()
	return listener.Addr().String(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			_ = s.Close()
		}
		<-done
	}, nil
}
