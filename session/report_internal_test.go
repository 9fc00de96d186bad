// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/metadata"
)

// costly counts how often somebody wants its text.
type costly struct{ texts int }

func (e *costly) Error() string {
	e.texts++
	return "failed"
}

// An error for which no line is written costs nothing but being counted.
func TestErrorsThatAreNotLoggedHaveNoText(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		r, err := newReporter(slog.New(slog.NewTextHandler(&log, nil))), new(costly)
		for range 2 {
			for range 1000 {
				_ = r.report(t.Context(), nil, "what", err)
			}
			<-time.After(time.Second)
		}
		if lines := strings.Count(log.String(), "\n"); err.texts != 2 || lines != 2 {
			t.Errorf("%d texts, %d lines: %s", err.texts, lines, log.String())
		}
	})
}

// What a client sends makes no line expensive: no text, no number of headers.
func TestScrubbingIsBounded(t *testing.T) {
	md := metadata.MD{}
	for i := range 10_000 {
		md.Append("authorization", fmt.Sprintf("k%08d", i))
	}
	text := errors.New(strings.Repeat("k", 1<<20))
	for name, n := range map[string]int{"few": maxSecrets / 2, "many": 10_000} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.MD{"authorization": md["authorization"][:n]})
		begin := time.Now()
		got := newReporter(nil).scrub(ctx, nil, text)
		if took := time.Since(begin); took > time.Second || len(got) > maxText+100 {
			t.Errorf("%s: %s for %d bytes", name, took, len(got))
		}
	}
}

// No token of the call is in the log, nor a part of one: not of a call with more
// cookies than net/http reads, or more keys than are looked for, nor where the text
// is cut, nor where another token is a part of it.
func TestNoPartOfATokenIsInTheLog(t *testing.T) {
	const token = `7"Zq-Xy,WvjKmNpHgQ_`
	cookie := StatefulSessionCookieName + "=" + strings.ReplaceAll(token, `"`, "")
	bare := strings.TrimPrefix(cookie, StatefulSessionCookieName+"=")
	for name, c := range map[string]struct {
		text    string
		headers []string
	}{
		"many cookies":           {"in " + bare, []string{"cookie", cookie + strings.Repeat("; a=b", 3001)}},
		"many cookies before it": {"in " + bare, []string{"cookie", strings.Repeat("a=b;", 3001) + cookie}},
		"many of its name":       {"in " + bare, []string{"cookie", strings.Repeat(StatefulSessionCookieName+"=another;", 3001) + cookie}},
		"a part before it":       {"in " + bare, []string{"cookie", StatefulSessionCookieName + "=" + bare[3:12] + ";" + cookie}},
		"a header":               {"in " + token, []string{"authorization", token}},
		"a credential":           {"in " + token, []string{"authorization", "Bearer " + token}},
		"quoted":                 {fmt.Sprintf("in %q", token), []string{"authorization", token}},
		"many keys":              {"in " + token, append(manyKeys(1000), "authorization", token)},
	} {
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs(c.headers...))
		got := newReporter(nil).scrub(ctx, nil, errors.New(c.text))
		if partOf(got, token, 4) || partOf(got, bare, 4) {
			t.Errorf("%s: %q", name, got)
		}
	}
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", token))
	for before := range 2 * len(token) { // how much of it is within the maximum
		for _, quoted := range []string{token, fmt.Sprintf("%q", token)} {
			text := strings.Repeat(".", maxText-before) + quoted + strings.Repeat(".", 100)
			got := newReporter(nil).scrub(ctx, nil, errors.New(text))
			if partOf(got, token, 2) || len(got) < maxText-100 || !strings.HasSuffix(got, "[cut]") {
				t.Errorf("%d bytes before the end: %d bytes, ... %q", before, len(got), got[max(0, len(got)-50):])
			}
		}
	}
}

func manyKeys(n int) (headers []string) {
	for i := range n {
		headers = append(headers, "authorization", fmt.Sprintf("another-%d", i))
	}
	return headers
}

// partOf reports whether n bytes in a row of the token are in the text.
func partOf(text, token string, n int) bool {
	for i := range len(token) - n + 1 {
		if strings.Contains(text, token[i:i+n]) {
			return true
		}
	}
	return false
}
