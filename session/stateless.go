// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/protobuf/proto"
)

// StatelessServerSession is a session that travels whole in its token: the
// standard base64 of the protobuf message GetSessionOptionsResult, in
// deterministic order. The token is neither signed nor encrypted: a client can
// read it and make up its own.
type StatelessServerSession struct{ optionSet }

// NewStatelessServerSession returns a session with these options, which it
// takes over; nil: none.
func NewStatelessServerSession(options map[string]*flight.SessionOptionValue) *StatelessServerSession {
	s := new(StatelessServerSession)
	s.values = options
	s.held = len(options) > 0
	return s
}

// Token returns the encoded session, or the empty string if an option cannot be
// encoded because its name or text is no valid UTF-8.
// [CreateCookieForSession] tells the two apart.
func (s *StatelessServerSession) Token() string {
	token, _ := s.encode()
	return token
}

func (s *StatelessServerSession) encode() (string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&flight.GetSessionOptionsResult{SessionOptions: s.values})
	if err != nil {
		return "", fmt.Errorf("session: an option cannot be encoded: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b), nil
}

// Close ends the session and drops its options.
func (s *StatelessServerSession) Close() error {
	s.tearDown()
	return nil
}

// Format prints the number of options under every verb.
func (s *StatelessServerSession) Format(f fmt.State, _ rune) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	fmt.Fprintf(f, "stateless session of %d options", len(s.values))
}

func decodeStatelessToken(token string) (*StatelessServerSession, error) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return nil, err
	}
	var parsed flight.GetSessionOptionsResult
	if err := proto.Unmarshal(b, &parsed); err != nil {
		return nil, err
	}
	for name, v := range parsed.SessionOptions {
		if v.GetOptionValue() == nil { // as if it had been set to nothing
			delete(parsed.SessionOptions, name)
		}
	}
	return NewStatelessServerSession(parsed.SessionOptions), nil
}

// StatelessServerSessionManager keeps nothing on the server. Use
// [NewStatelessServerSessionManager].
type StatelessServerSessionManager struct{}

// NewStatelessServerSessionManager returns a manager of sessions that travel
// whole in their cookies, in Apache's format, so that any replica can serve any
// client.
//
// The tokens are NOT protected: clients can read, change and replay them. A
// cookie that is no token counts as no cookie.
func NewStatelessServerSessionManager() *StatelessServerSessionManager {
	return &StatelessServerSessionManager{}
}

// CreateSession returns a new, empty session.
func (*StatelessServerSessionManager) CreateSession(context.Context) (ServerSession, error) {
	return NewStatelessServerSession(nil), nil
}

// GetSession returns the session of the context, else the first that a cookie
// holds, else [ErrNoSession].
func (*StatelessServerSessionManager) GetSession(ctx context.Context) (ServerSession, error) {
	//nolint:errorlint // Apache compares with != as well, so it is the bare variable.
	if s, err := GetSessionFromContext(ctx); err != ErrNoSession {
		return s, err
	}
	for _, c := range incomingCookies(ctx, StatelessSessionCookieName) {
		if s, err := decodeStatelessToken(c.Value); err == nil {
			return s, nil
		}
	}
	return nil, ErrNoSession
}

// CloseSession does nothing: there is nothing to remove.
func (*StatelessServerSessionManager) CloseSession(ServerSession) error { return nil }
