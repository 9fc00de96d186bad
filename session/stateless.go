// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// StatelessServerSession is a session that travels whole in its token. It is safe for
// concurrent use.
//
// Those of [NewStatelessServerSession], and of a manager without keys, have the token of
// Apache's package: the standard base64 of the protobuf message
// GetSessionOptionsResult, in deterministic order. It is neither signed nor encrypted: a
// client can read it and make up its own. Those of a manager with keys are sealed, see
// [WithKeyring].
type StatelessServerSession struct {
	optionSet
	manager   *StatelessServerSessionManager        // that made it; nil: none
	writes    sync.Mutex                            // held while it changes, or is written into a token
	changes   uint64                                // how often its options were
	encoded   int                                   // bytes of its options, as they travel, if it is measured
	undecided map[string]*flight.SessionOptionValue // what options had whose observers are being asked; nil: nothing
	unset     error                                 // why an option was not set, if nobody was told
	measured  bool                                  // what its options take is known: before the first change nobody asks
	identity                                        // what it has if its manager has keys
}

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
// [CreateCookieForSession] tells the two apart. It is the same until the session
// changes, but that a sealed one gets another token when the time of its last use or its
// key is to be renewed.
func (s *StatelessServerSession) Token() string {
	token, _ := s.encode()
	return token
}

func (s *StatelessServerSession) encode() (string, error) {
	s.writes.Lock()
	defer s.writes.Unlock()
	return s.current(time.Now())
}

// current is encode for who holds writes.
func (s *StatelessServerSession) current(now time.Time) (string, error) {
	if s.manager.seals() {
		return s.currentSealed(now)
	}
	b, err := s.marshal()
	if err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(b), nil
}

// marshal returns the options as they travel. The caller holds writes.
func (s *StatelessServerSession) marshal() ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	values := s.values
	if len(s.undecided) > 0 {
		values = s.decided(maps.Clone(values))
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&flight.GetSessionOptionsResult{SessionOptions: values})
	if err != nil {
		return nil, fmt.Errorf("session: an option cannot be encoded: %w", err)
	}
	return b, nil
}

// decided returns the values, which it changes, without what is not decided about. The
// caller holds writes.
func (s *StatelessServerSession) decided(values map[string]*flight.SessionOptionValue) map[string]*flight.SessionOptionValue {
	for name, was := range s.undecided {
		if was == nil {
			delete(values, name)
		} else {
			values[name] = was
		}
	}
	return values
}

// SetSessionOption sets an option to a copy of value. A value without content,
// or nil, erases it. It does nothing beyond the limits of its manager, see
// [WithMaxCookie]. After the session's end no token says it.
func (s *StatelessServerSession) SetSessionOption(name string, value *flight.SessionOptionValue) {
	if err := s.keep(name, value); err != nil {
		s.writes.Lock()
		defer s.writes.Unlock()
		s.unset = err
	}
}

// takeUnset returns why an option was not set of late, of which nobody was told.
func (s *StatelessServerSession) takeUnset() error {
	s.writes.Lock()
	defer s.writes.Unlock()
	err := s.unset
	s.unset = nil
	return err
}

// EraseSessionOption removes an option. It is idempotent.
func (s *StatelessServerSession) EraseSessionOption(name string) {
	s.writes.Lock()
	defer s.writes.Unlock()
	s.measure()
	was := s.value(name)
	s.optionSet.EraseSessionOption(name)
	if was != nil {
		s.changed(name)
		s.encoded -= entrySize(name, was)
	}
}

// keep sets an option to a copy of value, and returns why it was not set. That it has
// this value already is no change, lest its client gets a token for nothing.
func (s *StatelessServerSession) keep(name string, value *flight.SessionOptionValue) error {
	if value.GetOptionValue() == nil {
		s.EraseSessionOption(name)
		return nil
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	was := s.value(name)
	if equalValues(was, value) {
		return nil
	}
	s.measure()
	encoded := s.encoded + entrySize(name, value)
	if was != nil {
		encoded -= entrySize(name, was)
	}
	if s.manager != nil {
		if err := s.manager.admits(s, name, value, encoded+s.reserved(name)); err != nil {
			return err
		}
	}
	s.set(name, value)
	s.changed(name)
	s.encoded = encoded
	return nil
}

// reserved returns how much longer than now the options may travel, if what is not decided
// about is undone. The caller holds writes.
func (s *StatelessServerSession) reserved(but string) (n int) {
	for name, was := range s.undecided {
		if is := s.value(name); name != but && was != nil {
			n += entrySize(name, was)
			if is != nil {
				n -= min(entrySize(name, is), entrySize(name, was))
			}
		}
	}
	return n
}

// changed counts a change, unless it is not decided about. The caller holds writes.
func (s *StatelessServerSession) changed(name string) {
	if _, wait := s.undecided[name]; !wait {
		s.changes++
	}
}

// equalValues reports whether two values travel as the same bytes; nil is like none.
func equalValues(a, b *flight.SessionOptionValue) bool {
	if a == nil || b == nil {
		return a == b
	}
	first, err := proto.Marshal(a)
	second, err2 := proto.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(first, second)
}

// wait has tokens say what an option has now until decide is called: its observer may
// refuse a change that is about to be made, and a token that says otherwise would be
// good for good.
func (s *StatelessServerSession) wait(name string) {
	s.writes.Lock()
	defer s.writes.Unlock()
	if s.undecided == nil {
		s.undecided = make(map[string]*flight.SessionOptionValue)
	}
	s.undecided[name] = s.value(name)
}

// decide is called when a change was accepted, or was undone as far as that was possible.
func (s *StatelessServerSession) decide(name string) {
	s.writes.Lock()
	defer s.writes.Unlock()
	was := s.undecided[name]
	if delete(s.undecided, name); !equalValues(was, s.value(name)) {
		s.changes++
	}
}

// entrySize returns how many bytes an option takes in the message
// GetSessionOptionsResult: an entry of a map, whose fields are 1 and 2.
func entrySize(name string, value *flight.SessionOptionValue) int {
	tag := protowire.SizeTag(1)
	entry := 2*tag + protowire.SizeBytes(len(name)) + protowire.SizeBytes(proto.Size(value))
	return tag + protowire.SizeBytes(entry)
}

// Close ends the session. One that is sealed keeps its options for the calls that use
// it, and its middleware, or CloseSession of its manager, revokes its tokens; the others
// drop their options.
func (s *StatelessServerSession) Close() error {
	if s.manager.seals() {
		s.close()
		return nil
	}
	s.tearDown()
	return nil
}

// Format prints the number of options under every verb.
func (s *StatelessServerSession) Format(f fmt.State, _ rune) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	fmt.Fprintf(f, "stateless session of %d options", len(s.values))
}

// decodeStatelessToken returns the session that a token of Apache's format holds.
func decodeStatelessToken(token string) (*StatelessServerSession, error) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return nil, err
	}
	values, err := parseOptions(b)
	if err != nil {
		return nil, err
	}
	return NewStatelessServerSession(values), nil
}

// measure counts what the options take. The caller holds writes.
func (s *StatelessServerSession) measure() {
	if s.measured {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.measured, s.most, s.weight, s.encoded = true, len(s.values), weight{}, 0
	for name, v := range s.values {
		s.weight = s.weight.add(name, nil, v)
		s.encoded += entrySize(name, v)
	}
}
