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
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover"
)

// reporter tells the operator what is kept from the client, at most one line a
// second for each level, gRPC code and kind of security event. It is safe for concurrent use.
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
	kind  SecurityEventKind // zero: none
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
		*err = fmt.Errorf("session: panic in a manager, store, factory, session or option: %v\n%s", v, debug.Stack())
	}
}

// report logs an error of foreign code and returns what the client may know of
// it. s is the call's session, if it has one.
func (r *reporter) report(ctx context.Context, s ServerSession, what string, err error, attrs ...slog.Attr) *callError {
	e := translate(err)
	key := lineKey{level: slog.LevelError, code: e.code}
	if n := r.count(key); n > 0 { // the text takes time, which a flood of errors must not
		r.write(ctx, key, n, what, append(attrs, slog.String("error", r.scrub(ctx, s, err)))...)
	}
	return e
}

// translate is newCallError for errors whose own methods may panic.
func translate(err error) (e *callError) {
	defer func() {
		if recover() != nil {
			e = &callError{code: codes.Internal, text: noSession, reason: "SESSION_FAILED"}
		}
	}()
	return newCallError(harmless(err))
}

// What scrub looks at, lest a client has the server look for thousands of values
// in a text that quotes megabytes.
const (
	maxText    = 64 << 10 // bytes
	maxSecrets = 100
)

// scrub returns the error's text without the tokens of the call: foreign code
// may quote them. What it does not look at is not in it.
func (r *reporter) scrub(ctx context.Context, s ServerSession, err error) (text string) {
	defer func() {
		if recover() != nil {
			text = "an error whose own methods panic"
		}
	}()
	text = err.Error()
	if e := (*callError)(nil); errors.As(err, &e) && e.cause != nil {
		text += ": " + e.cause.Error()
	}
	all := r.secrets(ctx, s)
	if len(all) > maxSecrets {
		return fmt.Sprintf("withheld: the call has more than %d tokens and keys that could be in the error's text", maxSecrets)
	}
	if len(text) <= maxText {
		return without(text, all)
	}
	text = without(text[:maxText], all)
	end := len(text)
	// At the end there may be a part of a secret, which was not found.
	for _, secret := range all {
		part := min(len(strconv.Quote(secret.value[:min(len(secret.value), maxText)])), len(text))
		end = min(end, len(text)-part)
	}
	return text[:end] + "[cut]"
}

// secret is what must not be in the log, and what is there in its place.
type secret struct{ value, by string }

// without replaces secrets.
func without(text string, all []secret) string {
	for _, secret := range all {
		if len(secret.value) <= len(text) {
			text = withoutToken(text, secret.value, secret.by)
		}
	}
	return text
}

// secrets returns the tokens and keys of the call and its session, the longest
// ones first: one may be a part of another one. There may be maxSecrets and one.
func (r *reporter) secrets(ctx context.Context, s ServerSession) (all []secret) {
	known := make(map[secret]bool)
	add := func(value, by string) bool {
		if one := (secret{value, by}); len(value) >= minSecret && !known[one] {
			known[one] = true
			all = append(all, one)
		}
		return len(all) <= maxSecrets
	}
	defer func() {
		slices.SortStableFunc(all, func(a, b secret) int { return len(b.value) - len(a.value) })
	}()
	if s != nil {
		add(tokenOf(s), "[token]")
	}
	for _, name := range r.cookies {
		for value := range cookieValues(metadata.ValueFromIncomingContext(ctx, "cookie"), name) {
			if !add(value, "[token]") {
				return all
			}
		}
	}
	for _, name := range r.headers {
		for _, v := range metadata.ValueFromIncomingContext(ctx, name) {
			_, credential, _ := strings.Cut(v, " ") // of an authorization
			if !add(v, "[key]") || !add(credential, "[key]") {
				return all
			}
		}
	}
	return all
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
	key := lineKey{level: level, code: code}
	if n := r.count(key); n > 0 {
		r.write(ctx, key, n, what, attrs...)
	}
}

// write writes a line that stands for n occurrences.
func (r *reporter) write(ctx context.Context, key lineKey, n int, what string, attrs ...slog.Attr) {
	defer func() { _ = recover() }() // a log handler is foreign code, too
	r.logger.LogAttrs(ctx, key.level, what, append([]slog.Attr{slog.String("code", key.code.String()), slog.Int("calls", n)}, attrs...)...)
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
