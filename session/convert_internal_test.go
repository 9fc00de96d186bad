// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
)

// wantDecoded checks what values of any type become as a T; nil: they are refused.
func wantDecoded[T OptionType](t *testing.T, cases map[any]any) {
	t.Helper()
	for from, want := range cases {
		if list, ok := from.([2]string); ok {
			from = list[:]
		}
		v, err := flight.NewSessionOptionValue(from)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode[T](&v)
		if (err != nil) != (want == nil) || err == nil && !reflect.DeepEqual(any(got), want) {
			t.Errorf("%T %.40q (%[1]T) became %T %[3]v, %v; want %v", from, fmt.Sprint(from), got, err, want)
		}
	}
}

// What clients send is converted where its meaning is clear, and refused where it is
// not.
func TestValuesAreConvertedWhereTheirMeaningIsClear(t *testing.T) {
	list := [2]string{"a", "b"}
	wantDecoded[string](t, map[any]any{"": "", " a ": " a ", "\xff": nil, true: nil, int64(1): nil, 1.5: nil, list: nil})
	wantDecoded[bool](t, map[any]any{true: true, false: false, "1": true, " On ": true, "YES": true, "tRUE": true, "t": true,
		"0": false, "off": false, "No": false, "F": false, "": nil, "2": nil, "maybe": nil, int64(1): nil, 1.0: nil, list: nil})
	wantDecoded[int64](t, map[any]any{int64(7): int64(7), " -7\n": int64(-7), "+7": int64(7), "9223372036854775807": int64(math.MaxInt64),
		"9223372036854775808": nil, "1.0": nil, "0x10": nil, "1_000": nil, "": nil, "\xff": nil,
		5.0: int64(5), -0x1p63: int64(math.MinInt64), 0x1p63: nil, 1.5: nil, math.Inf(1): nil, math.NaN(): nil, true: nil, list: nil})
	wantDecoded[float64](t, map[any]any{1.5: 1.5, math.Inf(-1): math.Inf(-1), math.NaN(): nil, int64(1 << 53): float64(1 << 53), int64(1<<53 + 1): nil,
		int64(math.MaxInt64): nil, int64(math.MinInt64): -0x1p63, " 2.5e3 ": 2500.0, "7": 7.0, "NaN": nil, "1e999": nil, "": nil, "x": nil, false: nil, list: nil})
	wantDecoded[[]string](t, map[any]any{list: []string{"a", "b"}, "": []string(nil), "  ": []string(nil), "a": []string{"a"}, " a , b ": []string{"a", "b"},
		"a,,": []string{"a", "", ""}, `""`: []string{""}, `"a,b" , " c "`: []string{"a,b", " c "}, `"say ""no"""`: []string{`say "no"`},
		"\"a\r\nb\"": []string{"a\r\nb"}, `"a`: nil, `"a"b`: nil, `a"b`: nil, `"`: nil, "\xff": nil, `"\xff",a`: []string{`\xff`, "a"}, true: nil, int64(1): nil, 1.0: nil})
}

// A value without content, or with nil where content should be, is no danger.
func TestValuesWithoutContentAreRefused(t *testing.T) {
	for _, v := range []*flight.SessionOptionValue{nil, {}} {
		if _, err := decode[string](v); err == nil {
			t.Errorf("%v is a string", v)
		}
		if _, err := decode[[]string](v); err == nil {
			t.Errorf("%v is a list", v)
		}
	}
	if list, err := decode[[]string](&flight.SessionOptionValue{OptionValue: &gen.SessionOptionValue_StringListValue_{}}); err != nil || len(list) > 0 {
		t.Errorf("an empty list: %v, %v", list, err)
	}
}

// A list that is read shares no memory with the stored one.
func TestAListThatIsReadIsTheCallers(t *testing.T) {
	o := Option[[]string]{Name: "path", Default: []string{"a"}}
	s := NewStatelessServerSession(nil)
	o.Of(s)[0] = "x"
	if got := o.Of(s); got[0] != "a" {
		t.Errorf("the default is now %q", got)
	}
	s.SetSessionOption("path", encode([]string{"b"}))
	o.Of(s)[0] = "x"
	if got := o.Of(s); got[0] != "b" {
		t.Errorf("the value is now %q", got)
	}
}

// FuzzConversions checks that no value panics, that what was converted is converted to
// itself, and that its text is converted to it.
func FuzzConversions(f *testing.F) {
	for i, s := range []string{"", " on ", "1e3", "-9223372036854775808", `a, "b,""c" ,`, "\xff", "NaN"} {
		f.Add(uint8(i), s, int64(math.MaxInt64), math.Float64bits(0x1p63), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, kind uint8, text string, n int64, bits uint64, b bool) {
		values := []*flight.SessionOptionValue{encode(text), encode(n), encode(math.Float64frombits(bits)), encode(b), encode(strings.Split(text, ","))}
		v := values[int(kind)%len(values)]
		stable(t, v, func(s string) string { return s })
		stable(t, v, strconv.FormatBool)
		stable(t, v, func(n int64) string { return strconv.FormatInt(n, 10) })
		stable(t, v, func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) })
		stable(t, v, listText)
	})
}

// listText writes a list as text.
func listText(list []string) string {
	quoted := make([]string, len(list))
	for i, e := range list {
		quoted[i] = `"` + strings.ReplaceAll(e, `"`, `""`) + `"`
	}
	return strings.Join(quoted, ",")
}

// stable checks what a value becomes as a T.
func stable[T OptionType](t *testing.T, v *flight.SessionOptionValue, asText func(T) string) {
	once, err := decode[T](v)
	if err != nil {
		return
	}
	if !isA[T](encode(once)) {
		t.Errorf("%v was converted to %T", v, once)
	}
	if twice, err := decode[T](encode(once)); err != nil || !equal(once, twice) {
		t.Errorf("%v became %v, and that %v, %v", v, once, twice, err)
	}
	if again, err := decode[T](encode(asText(once))); err != nil || !equal(once, again) {
		t.Errorf("%v became %v, and as text %v, %v", v, once, again, err)
	}
}
