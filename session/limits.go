// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

// ErrOptionLimit says that an option was not set since it is beyond the
// [OptionLimits]. What was there before stays.
var ErrOptionLimit = errors.New("session: an option is beyond the limits")

// OptionLimits bound what a client can make the server hold as options of one
// session. Zero means the default, [math.MaxInt] that there is no limit.
type OptionLimits struct {
	// Options is how many options a session has at most. Default 256.
	Options int
	// Name is how many bytes the name of an option has at most. Default 256.
	Name int
	// Value is how many bytes a value takes at most, encoded as the protobuf
	// message SessionOptionValue. Default 64 KiB.
	Value int
	// Session is how many bytes the options of a session take at most, all together:
	// the names, the encoded values, and for what the server needs to keep them 128
	// more for each option and 16 for each element of a list. That is about what they
	// take in memory. Default 256 KiB.
	Session int
}

// WithOptionLimits bounds the options of each session. An option beyond the
// limits is not set: [SetOption] returns an error that wraps [ErrOptionLimit],
// with the status INVALID_ARGUMENT or RESOURCE_EXHAUSTED; SetSessionOption of the
// call's session has the call fail with it, under [NewServerMiddleware], and does
// nothing under Apache's shape of middleware, which cannot refuse a call. There, what
// is set by SetSessionOption in a session that this manager has not made is held
// against the defaults.
//
// In a store of this package's, options count as bytes of the session, as for
// [OptionLimits].Session, see [layover.WithMaxBytes]. Sessions of a type of the
// server's own tell the store by themselves what they take. They are checked where
// their options are set by SetOption, or with [WithLazySessions] through the call's
// session. A call asks such a session once for what it has, and counts from there:
// calls that set options in one session at the same time may together go beyond the
// limits by what they set. What a handler sets directly in such a session, as it finds
// it in the context or gets it from [As], cannot be checked: have the session's own
// SetSessionOption do that. Under a manager that wraps this one, only sessions of this
// package's type are checked. Default: see [OptionLimits].
func WithOptionLimits(l OptionLimits) StatefulSessionManagerOption {
	return func(m *StatefulServerSessionManager) { m.limits = l }
}

// limits returns those of the manager; nil: it is not ours.
func (m *interceptors) limits() *OptionLimits {
	switch {
	case m.own != nil:
		return &m.own.limits
	case m.stateless != nil:
		return &m.stateless.limits
	}
	return nil
}

// orDefault fills in the defaults.
func (l OptionLimits) orDefault() OptionLimits {
	return OptionLimits{cmp.Or(l.Options, 256), cmp.Or(l.Name, 256), cmp.Or(l.Value, 64<<10), cmp.Or(l.Session, 256<<10)}
}

// weight is what the options of a session take.
type weight struct{ options, bytes int }

// What an option takes beside its name and its encoded value, as measured: the
// messages, their place in a map, and what the allocator rounds up. Without it a
// client could have the server hold thirty times what is counted, by small options,
// or eight times, by lists of empty strings.
const (
	optionOverhead  = 128
	elementOverhead = 16 // of a list: the header of a string
)

// weigh returns what an option takes in memory, about.
func weigh(name string, value *flight.SessionOptionValue) int {
	return optionOverhead + len(name) + proto.Size(value) + elementOverhead*len(value.GetStringListValue().GetValues())
}

// add returns the weight when an option has a value instead of another one, nil
// for none.
func (w weight) add(name string, was, is *flight.SessionOptionValue) weight {
	if was != nil {
		w.options, w.bytes = w.options-1, w.bytes-weigh(name, was)
	}
	if is != nil {
		w.options, w.bytes = w.options+1, w.bytes+weigh(name, is)
	}
	return w
}

// check returns why an option cannot be set, after which the session would weigh
// so much.
func (l OptionLimits) check(name string, value *flight.SessionOptionValue, was, then weight) error {
	most := l.orDefault()
	refuse := func(code codes.Code, format string, args ...any) error {
		return &callError{code: code, reason: "SESSION_OPTION_LIMIT", sentinel: ErrOptionLimit, text: fmt.Sprintf(format, args...)}
	}
	switch size := proto.Size(value); {
	case len(name) > most.Name:
		return refuse(codes.InvalidArgument, "the name of the option %q has %d bytes, and may have %d", name[:min(len(name), most.Name, 64)]+"...", len(name), most.Name)
	case size > most.Value:
		return refuse(codes.InvalidArgument, "the value of the option %q has %d bytes, and may have %d", name, size, most.Value)
	case then.options > most.Options && then.options > was.options:
		return refuse(codes.ResourceExhausted, "with the option %q the session would have %d options, and may have %d", name, then.options, most.Options)
	case then.bytes > most.Session && then.bytes > was.bytes:
		return refuse(codes.ResourceExhausted, "with the option %q the session's options would take %d bytes, and may take %d", name, then.bytes, most.Session)
	}
	return nil
}

// checkFirst is check for the first option of a session.
func (l OptionLimits) checkFirst(name string, value *flight.SessionOptionValue) error {
	return l.check(name, value, weight{}, weight{}.add(name, nil, value))
}

// tally is what the options of a session of a foreign type take, as far as one call
// knows. It asks the session once: to get all options for each one that is set would
// take a time that grows with the square of what a client sends.
type tally struct {
	mu    sync.Mutex    // no foreign code runs under it
	of    ServerSession // whom it has asked
	bytes map[string]int
	all   weight
}

// put sets an option in a session of a foreign type. Goroutines of one call keep
// within the limits together.
func (t *tally) put(l *OptionLimits, s ServerSession, name string, value *flight.SessionOptionValue) error {
	if !t.knows(s) {
		t.learn(s, s.GetSessionOptions())
	}
	if err := t.reserve(l, name, value); err != nil {
		return err
	}
	s.SetSessionOption(name, value)
	return nil
}

func (t *tally) knows(of ServerSession) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bytes != nil && same(t.of, of)
}

// learn counts what a session has, unless another goroutine did, and has kept that
// up to date.
func (t *tally) learn(of ServerSession, options map[string]*flight.SessionOptionValue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bytes != nil && same(t.of, of) {
		return
	}
	t.of, t.bytes, t.all = of, make(map[string]int, len(options)), weight{}
	for name, v := range options {
		t.bytes[name] = weigh(name, v)
		t.all.options, t.all.bytes = t.all.options+1, t.all.bytes+t.bytes[name]
	}
}

// reserve counts an option that is about to be set, unless it is beyond the limits.
func (t *tally) reserve(l *OptionLimits, name string, value *flight.SessionOptionValue) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := weigh(name, value)
	then := t.without(name)
	then.options, then.bytes = then.options+1, then.bytes+size
	if err := l.check(name, value, t.all, then); err != nil {
		return err
	}
	t.all, t.bytes[name] = then, size
	return nil
}

// without returns what all options but one take.
func (t *tally) without(name string) weight {
	size, ok := t.bytes[name]
	if !ok {
		return t.all
	}
	return weight{t.all.options - 1, t.all.bytes - size}
}

// put sets an option in the session of a call in Apache's shape; nil: of none that
// is known. A value without content erases it.
func (c *call) put(s ServerSession, name string, value *flight.SessionOptionValue) error {
	var most *OptionLimits
	if c != nil {
		most = c.limits
	}
	own, ok := s.(*statefulServerSession)
	if travels, ok := s.(*StatelessServerSession); ok {
		return travels.keep(name, value)
	}
	switch {
	case ok && value.GetOptionValue() == nil:
		own.erase(name, c.leaseOn(own))
	case ok:
		_, err := own.keep(name, value, most, c.leaseOn(own))
		return err
	case most == nil:
		s.SetSessionOption(name, value)
	case value.GetOptionValue() == nil:
		c.counts().erase(s, name)
	default:
		return c.counts().put(most, s, name, value)
	}
	return nil
}

// counts returns what the call knows of options in a session of a foreign type.
func (c *call) counts() *tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tally == nil {
		c.tally = new(tally)
	}
	return c.tally
}

// erase removes an option of a session of a foreign type.
func (t *tally) erase(s ServerSession, name string) {
	s.EraseSessionOption(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	if same(t.of, s) {
		t.all = t.without(name)
		delete(t.bytes, name)
	}
}
