// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"maps"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// What is read quickly is what package proto reads, and nothing that it refuses.
func FuzzOptionParser(f *testing.F) {
	all := make(map[string]*flight.SessionOptionValue)
	for name, v := range map[string]any{"text": "value", "empty": "", "": "x", "yes": true, "no": false, "int": int64(-7), "nan": math.NaN(),
		"list": []string{"a", ""}, "long": strings.Repeat("x", 300), strings.Repeat("n", 200): "y"} {
		value, err := flight.NewSessionOptionValue(v)
		if err != nil {
			f.Fatal(err)
		}
		all[name] = &value
		add(f, map[string]*flight.SessionOptionValue{name: &value})
	}
	add(f, all)
	delete(all, "list")
	add(f, all)
	add(f, map[string]*flight.SessionOptionValue{"a": {}, "b": nil})
	f.Add([]byte("\n\x06\n\x01a\x12\x01\n"))                                                 // a value that is cut off
	f.Add([]byte("\n\x0a\n\x03abc\x12\x03\x99\x06\x01"))                                     // a field that is not known
	f.Add([]byte("\n\x08\n\x01a\x12\x03\n\x01x\n\x08\n\x01a\x12\x03\n\x01y"))                // a name twice
	f.Add([]byte("\n\x08\n\x01\xff\x12\x03\n\x01x"))                                         // no UTF-8
	f.Add(protowire.AppendBytes([]byte("\n"), []byte("\x12\x03\n\x01x\n\x01a")))             // the value before its name
	f.Add(protowire.AppendBytes([]byte("\n"), []byte("\n\x81\x00a\x12\x03\n\x01x")))         // a length that is too long
	f.Add(protowire.AppendBytes([]byte("\n"), []byte("\n\x01a\x12\x06\n\x01x\n\x01y")))      // two values
	f.Add(protowire.AppendBytes([]byte("\n"), []byte("\n\x01a\x12\x05\x10\x01\n\x01y")))     // of two kinds
	f.Add(protowire.AppendBytes([]byte("\n"), []byte("\n\xff\xff\xff\xff\xff\xff\xff\xff"))) // a length beyond all
	f.Fuzz(func(t *testing.T, b []byte) {
		quick, ok := parseQuickly(b)
		if !ok {
			return
		}
		var want flight.GetSessionOptionsResult
		if err := proto.Unmarshal(b, &want); err != nil {
			t.Fatalf("package proto refuses it: %v", err)
		}
		if !maps.EqualFunc(quick, want.SessionOptions, func(a, b *flight.SessionOptionValue) bool { return proto.Equal(a, b) }) {
			t.Errorf("%v, of which package proto makes %v", quick, want.SessionOptions)
		}
	})
}

func add(f *testing.F, options map[string]*flight.SessionOptionValue) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&flight.GetSessionOptionsResult{SessionOptions: options})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
}

// The options that clients set as a rule are read quickly.
func TestUsualOptionsAreReadQuickly(t *testing.T) {
	options := make(map[string]*flight.SessionOptionValue)
	for name, v := range map[string]any{"text": "value", "flag": true, "number": int64(7), "ratio": 0.5, strings.Repeat("n", 200): strings.Repeat("v", 300)} {
		value, err := flight.NewSessionOptionValue(v)
		if err != nil {
			t.Fatal(err)
		}
		options[name] = &value
	}
	b, err := proto.Marshal(&flight.GetSessionOptionsResult{SessionOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := parseQuickly(b); !ok || len(got) != len(options) {
		t.Errorf("%d of %d options, ok %v", len(got), len(options), ok)
	}
	for name, v := range options {
		one, err := proto.Marshal(&flight.GetSessionOptionsResult{SessionOptions: map[string]*flight.SessionOptionValue{name: v}})
		if size := entrySize(name, v); err != nil || size != len(one) {
			t.Errorf("%.8s has %d bytes, counted as %d: %v", name, len(one), size, err)
		}
	}
}
