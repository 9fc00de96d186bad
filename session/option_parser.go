// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"math"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// parseOptions returns the options in a message GetSessionOptionsResult. A call may come
// with hundreds of them, which package proto makes one by one: what looks as this package
// and Apache's write it is read here, in a third of the time, and all else by proto.
func parseOptions(b []byte) (map[string]*flight.SessionOptionValue, error) {
	if values, ok := parseQuickly(b); ok {
		return values, nil
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
	return parsed.SessionOptions, nil
}

// The fields of GetSessionOptionsResult, of the entries of its map, and of
// SessionOptionValue, see Flight.proto.
const (
	optionsField protowire.Number = 1
	nameField    protowire.Number = 1
	valueField   protowire.Number = 2
	textField    protowire.Number = 1
	boolField    protowire.Number = 2
	intField     protowire.Number = 3
	doubleField  protowire.Number = 4
)

// parseQuickly is parseOptions for messages without a list, a repeated name, an unknown
// field, or anything that is wrong.
func parseQuickly(b []byte) (values map[string]*flight.SessionOptionValue, ok bool) {
	n, ok := countOptions(b)
	if !ok {
		return nil, false
	}
	text := string(b) // the names and texts are parts of it
	made := make([]gen.SessionOptionValue, n)
	texts := make([]gen.SessionOptionValue_StringValue, n)
	values = make(map[string]*flight.SessionOptionValue, n)
	for i := range n {
		rest, _ := takeBytes(text, optionsField)
		text = text[len(text)-len(rest.after):]
		name, ok := takeBytes(rest.field, nameField)
		if !ok || !utf8.ValidString(name.field) {
			return nil, false
		}
		value, ok := takeBytes(name.after, valueField)
		if !ok || value.after != "" || !parseValue(value.field, &made[i], &texts[i]) {
			return nil, false
		}
		values[name.field] = &made[i]
	}
	return values, len(values) == n
}

// parseValue reads a value that has one field.
func parseValue(text string, v *gen.SessionOptionValue, as *gen.SessionOptionValue_StringValue) bool {
	if s, ok := takeBytes(text, textField); ok {
		as.StringValue, v.OptionValue = s.field, as
		return s.after == "" && utf8.ValidString(s.field)
	}
	b := []byte(text)
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return false
	}
	b = b[n:]
	switch {
	case number == boolField && kind == protowire.VarintType:
		x, n := protowire.ConsumeVarint(b)
		v.OptionValue = &gen.SessionOptionValue_BoolValue{BoolValue: x != 0}
		return n == len(b)
	case number == intField && kind == protowire.Fixed64Type:
		x, n := protowire.ConsumeFixed64(b)
		v.OptionValue = &gen.SessionOptionValue_Int64Value{Int64Value: int64(x)}
		return n == len(b)
	case number == doubleField && kind == protowire.Fixed64Type:
		x, n := protowire.ConsumeFixed64(b)
		v.OptionValue = &gen.SessionOptionValue_DoubleValue{DoubleValue: math.Float64frombits(x)}
		return n == len(b)
	}
	return false
}

// countOptions returns how many options a message has, if it has nothing else.
func countOptions(b []byte) (n int, ok bool) {
	for len(b) > 0 {
		number, kind, tag := protowire.ConsumeTag(b)
		if tag < 0 || number != optionsField || kind != protowire.BytesType {
			return 0, false
		}
		_, size := protowire.ConsumeBytes(b[tag:])
		if size < 0 {
			return 0, false
		}
		b, n = b[tag+size:], n+1
	}
	return n, true
}

// taken is a field, and what comes after it.
type taken struct{ field, after string }

// takeBytes takes a field of this number off a message, if that begins with one.
func takeBytes(text string, number protowire.Number) (t taken, ok bool) {
	const short = 0x80 // a tag or length below it is one byte
	if len(text) < 2 || text[0] != byte(protowire.EncodeTag(number, protowire.BytesType)) {
		return t, false
	}
	size, head := uint64(text[1]), 2
	if size >= short {
		var n int
		if size, n = protowire.ConsumeVarint([]byte(text[1:min(len(text), 11)])); n < 0 {
			return t, false
		}
		head = 1 + n
	}
	if size > uint64(len(text)-head) {
		return t, false
	}
	return taken{text[head : head+int(size)], text[head+int(size):]}, true
}
