// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover"
)

// reporter tells the operator what is kept from the client, at most one line a
// second for each level and gRPC code. It is safe for concurrent use.
type reporter struct {
	logger  *slog.Logger
	cookies []string // names of the cookies whose values are secret
	headers []string // the same of metadata headers

	mu    sync.Mutex
	lines map[lineKey]*logLine
}

// lineKey keeps what clients can bring about from hiding what has failed.
type lineKey struct {
	level slog.Level
	code  codes.Code
}

type logLine struct {
	next    time.Time
	skipped int
}

func newReporter(l *slog.Logger) *reporter {
	return &reporter{logger: l, lines: make(map[lineKey]*logLine),
		cookies: []string{StatefulSessionCookieName, StatelessSessionCookieName},
		headers: []string{"authorization", "auth-token-bin"}}
}

// contain turns a panic of foreign code into an error.
func contain(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("session: panic in a manager, store, factory or session: %v\n%s", v, debug.Stack())
	}
}

// report logs an error of foreign code and returns what the client may know of
// it. s is the call's session, if it has one.
func (r *reporter) report(ctx context.Context, s ServerSession, what string, err error, attrs ...slog.Attr) (e *callError) {
	text := "an error whose own methods panic"
	defer func() {
		if recover() != nil {
			e = &callError{code: codes.Internal, text: noSession, reason: "SESSION_FAILED"}
		}
		r.log(ctx, slog.LevelError, e.code, what, append(attrs, slog.String("error", text))...)
	}()
	text = r.scrub(ctx, s, err)
	return newCallError(harmless(err))
}

// scrub returns the error's text without the tokens of the call: foreign code
// may quote them.
func (r *reporter) scrub(ctx context.Context, s ServerSession, err error) string {
	text := err.Error()
	if e := (*callError)(nil); errors.As(err, &e) && e.cause != nil {
		text += ": " + e.cause.Error()
	}
	for _, name := range r.cookies {
		for _, c := range cookiesNamed(ctx, name) {
			text = withoutToken(text, c.Value, "[token]")
		}
	}
	for _, name := range r.headers {
		for _, v := range metadata.ValueFromIncomingContext(ctx, name) {
			text = withoutToken(text, v, "[key]")
			_, credential, _ := strings.Cut(v, " ") // of an authorization
			text = withoutToken(text, credential, "[key]")
		}
	}
	if s != nil {
		text = withoutToken(text, tokenOf(s), "[token]")
	}
	return text
}

func tokenOf(s ServerSession) (token string) {
	defer func() { _ = recover() }()
	return s.Token()
}

// withoutToken replaces a token, also where it is quoted as %q has it. What is
// too short to be a secret stays: a client could rewrite the log with it.
func withoutToken(text, token, by string) string {
	if len(token) < minSecret {
		return text
	}
	quoted := strconv.Quote(token)
	text = strings.ReplaceAll(text, token, by)
	return strings.ReplaceAll(text, quoted[1:len(quoted)-1], by)
}

const minSecret = 8 // bytes

// log writes at most one line a second for each code.
func (r *reporter) log(ctx context.Context, level slog.Level, code codes.Code, what string, attrs ...slog.Attr) {
	n := r.count(lineKey{level, code})
	if n == 0 {
		return
	}
	defer func() { _ = recover() }() // a log handler is foreign code, too
	r.logger.LogAttrs(ctx, level, what, append([]slog.Attr{slog.String("code", code.String()), slog.Int("calls", n)}, attrs...)...)
}

// count returns for how many occurrences a line now stands, zero if one was
// written less than a second ago.
func (r *reporter) count(key lineKey) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lines[key]
	if l == nil {
		l = new(logLine)
		r.lines[key] = l
	}
	l.skipped++
	n, now := l.skipped, time.Now()
	if now.Before(l.next) {
		return 0
	}
	l.next, l.skipped = now.Add(time.Second), 0
	return n
}

// refusal returns what the client learns of an error, and logs what it does not.
func (m *interceptors) refusal(ctx context.Context, err error) error {
	err = harmless(err)
	if e := (*callError)(nil); errors.As(err, &e) && e.cause == nil {
		return e // all of it is meant for the client
	}
	var attrs []slog.Attr
	if m.store != nil && errors.Is(err, layover.ErrFull) {
		attrs = append(attrs, slog.Any("sources", holders{m.store}))
	}
	return m.reporter.report(ctx, nil, "layover: a call gets no session", err, attrs...)
}

// harmless returns err, or another error if its own methods panic when somebody
// looks for a cause in it.
func harmless(err error) (safe error) {
	defer func() {
		if recover() != nil {
			safe = errors.New("session: an error whose own methods panic")
		}
	}()
	_, _ = errors.Is(err, errNowhere), errors.As(err, new(*callError))
	return err
}

var errNowhere = errors.New("session: no error is this one")

// holders are who has most of a store. They are looked for only if a line is
// written, as that looks at every source.
type holders struct{ store *ExpiringSessionStore }

// heaviest is how many sources a log line about a full store names.
const heaviest = 5

// LogValue lists them.
func (h holders) LogValue() slog.Value {
	var attrs []slog.Attr
	for _, s := range h.store.Sources(heaviest) {
		attrs = append(attrs, slog.Int(cmp.Or(s.Name, "unnamed"), s.Sessions))
	}
	return slog.GroupValue(attrs...)
}
