// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/protobuf/proto"
)

// optionSet is what every session of this package is made of. Values are
// cloned on the way in and out.
type optionSet struct {
	closed  atomic.Bool // by whomever; calls look at it without the mutex
	mu      sync.RWMutex
	values  map[string]*flight.SessionOptionValue
	weight  weight
	most    int          // options that the map had to hold so far: it gives no room back
	limits  OptionLimits // of who made it, for those who know no others; zero: the defaults
	limited bool         // they are a manager's
	held    bool         // has, or ever had, a value
	shared  bool         // the map is not this session's alone, and is copied before it changes
	sealed  bool         // takes no more values
}

// GetSessionOption returns a copy of the value of an option, nil if it is not
// set.
func (o *optionSet) GetSessionOption(name string) *flight.SessionOptionValue {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if v, ok := o.values[name]; ok {
		return proto.CloneOf(v)
	}
	return nil
}

// value returns the value of an option itself, nil if it is not set. Values that are
// stored are never changed, but replaced; nor may the caller change it.
func (o *optionSet) value(name string) *flight.SessionOptionValue {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.values[name]
}

// equals reports whether the options are these.
func (o *optionSet) equals(values map[string]*flight.SessionOptionValue) bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return maps.EqualFunc(o.values, values, equalValues)
}

// GetSessionOptions returns a copy of all options.
func (o *optionSet) GetSessionOptions() map[string]*flight.SessionOptionValue {
	o.mu.RLock()
	defer o.mu.RUnlock()
	all := make(map[string]*flight.SessionOptionValue, len(o.values))
	for name, v := range o.values {
		all[name] = proto.CloneOf(v)
	}
	return all
}

// SetSessionOption sets an option to a copy of value. A value without content,
// or nil, erases it. After the session's end it does nothing.
func (o *optionSet) SetSessionOption(name string, value *flight.SessionOptionValue) {
	o.set(name, value)
}

// set reports whether this is the first value that the session ever held.
func (o *optionSet) set(name string, value *flight.SessionOptionValue) (first bool) {
	if value.GetOptionValue() == nil {
		o.EraseSessionOption(name)
		return false
	}
	value = proto.CloneOf(value)
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return false
	}
	o.own()
	if o.values == nil {
		o.values = make(map[string]*flight.SessionOptionValue)
	}
	o.weight = o.weight.add(name, o.values[name], value)
	o.values[name] = value
	o.most = max(o.most, len(o.values))
	first = !o.held
	o.held = true
	return first
}

// EraseSessionOption removes an option. It is idempotent.
func (o *optionSet) EraseSessionOption(name string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, there := o.values[name]; !there {
		return
	}
	o.own()
	o.weight = o.weight.add(name, o.values[name], nil)
	delete(o.values, name)
	if len(o.values) < o.most/2 {
		o.values, o.most = maps.Collect(maps.All(o.values)), len(o.values)
	}
}

// own has the map be this session's alone. The caller holds the mutex.
func (o *optionSet) own() {
	if o.shared {
		o.values, o.shared = maps.Clone(o.values), false
	}
}

// Closed reports whether the session was closed, by whomever.
func (o *optionSet) Closed() bool { return o.closed.Load() }

// close marks the session as closed; calls that still use it keep its options.
func (o *optionSet) close() { o.closed.Store(true) }

// tearDown closes the session and drops its options.
func (o *optionSet) tearDown() {
	o.seal()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.values, o.weight = nil, weight{}
}

// seal closes the session and takes no more options. Those that it has stay for
// the calls under which it was killed: their statements must not run as if they
// had never been set.
func (o *optionSet) seal() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed.Store(true)
	o.sealed = true
}

// fits returns what the session would weigh if an option was set, and why it may
// not be set. The limits are the call's, nil: the session's own, which it has once it
// is limited by a manager, or at home in a store.
func (o *optionSet) fits(name string, value *flight.SessionOptionValue, limits *OptionLimits, home bool) (then weight, _ error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	then = o.weight.add(name, o.values[name], value)
	switch {
	case limits != nil:
	case o.limited || home:
		limits = &o.limits
	default:
		return then, nil
	}
	return then, limits.check(name, value, o.weight, then)
}

// bytes returns what the options take.
func (o *optionSet) bytes() int {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.weight.bytes
}

func (o *optionSet) holds() bool {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.held
}
