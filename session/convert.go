// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow/flight"
	gen "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
)

// OptionType are the types that an [Option] can have: those of Flight's
// SessionOptionValue.
type OptionType interface {
	string | bool | int64 | float64 | []string
}

// Why a value cannot be converted.
var (
	errType    = errors.New("it is of another type")
	errInexact = errors.New("the number cannot be converted without loss")
	errNumber  = errors.New("it is not a number")
	errBool    = errors.New("it is neither true nor false")
	errUTF8    = errors.New("it is not valid UTF-8")
	errQuotes  = errors.New("a quote is not closed, or stands within an element")
)

// decode returns a value as a T: converted as the documentation of [Option] says, or
// the error why it cannot be, with the zero T. What it returns shares no memory
// that could be written with the value.
func decode[T OptionType](v *flight.SessionOptionValue) (t T, err error) {
	switch p := any(&t).(type) {
	case *string:
		*p, err = stringOf(v)
	case *bool:
		*p, err = boolOf(v)
	case *int64:
		*p, err = int64Of(v)
	case *float64:
		*p, err = float64Of(v)
	case *[]string:
		*p, err = listOf(v)
	}
	return t, err
}

// encode returns a T as a value, which shares the memory of a list.
func encode[T OptionType](t T) *flight.SessionOptionValue {
	v, _ := flight.NewSessionOptionValue(t) // fails for other types only
	return &v
}

// isA reports whether a value is a T as it is.
func isA[T OptionType](v *flight.SessionOptionValue) (yes bool) {
	switch any(*new(T)).(type) {
	case string:
		_, yes = v.GetOptionValue().(*gen.SessionOptionValue_StringValue)
	case bool:
		_, yes = v.GetOptionValue().(*gen.SessionOptionValue_BoolValue)
	case int64:
		_, yes = v.GetOptionValue().(*gen.SessionOptionValue_Int64Value)
	case float64:
		_, yes = v.GetOptionValue().(*gen.SessionOptionValue_DoubleValue)
	case []string:
		yes = v.GetStringListValue() != nil
	}
	return yes
}

func stringOf(v *flight.SessionOptionValue) (string, error) {
	s, ok := v.GetOptionValue().(*gen.SessionOptionValue_StringValue)
	switch {
	case !ok:
		return "", errType
	case !utf8.ValidString(s.StringValue): // no reply could carry it
		return "", errUTF8
	}
	return s.StringValue, nil
}

func boolOf(v *flight.SessionOptionValue) (bool, error) {
	switch v := v.GetOptionValue().(type) {
	case *gen.SessionOptionValue_BoolValue:
		return v.BoolValue, nil
	case *gen.SessionOptionValue_StringValue:
		return parseBool(v.StringValue)
	}
	return false, errType
}

func parseBool(text string) (bool, error) {
	switch text = strings.ToLower(strings.TrimSpace(text)); text {
	case "on", "yes":
		return true, nil
	case "off", "no":
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, errBool
	}
	return b, nil
}

// beyond is the least float64 that is more than any int64. The conversion of what
// does not fit differs from machine to machine, so it is not tried.
const beyond = 1 << 63

func int64Of(v *flight.SessionOptionValue) (int64, error) {
	switch v := v.GetOptionValue().(type) {
	case *gen.SessionOptionValue_Int64Value:
		return v.Int64Value, nil
	case *gen.SessionOptionValue_DoubleValue:
		if f := v.DoubleValue; f == math.Trunc(f) && f >= -beyond && f < beyond { // and no NaN
			return int64(f), nil
		}
		return 0, errInexact
	case *gen.SessionOptionValue_StringValue:
		n, err := strconv.ParseInt(strings.TrimSpace(v.StringValue), 10, 64)
		if err != nil {
			return 0, errNumber
		}
		return n, nil
	}
	return 0, errType
}

func float64Of(v *flight.SessionOptionValue) (f float64, err error) {
	switch v := v.GetOptionValue().(type) {
	case *gen.SessionOptionValue_DoubleValue:
		f = v.DoubleValue
	case *gen.SessionOptionValue_Int64Value:
		if f = float64(v.Int64Value); f == beyond || int64(f) != v.Int64Value {
			return 0, errInexact
		}
	case *gen.SessionOptionValue_StringValue:
		if f, err = strconv.ParseFloat(strings.TrimSpace(v.StringValue), 64); err != nil {
			return 0, errNumber
		}
	default:
		return 0, errType
	}
	if math.IsNaN(f) {
		return 0, errNumber
	}
	return f, nil
}

func listOf(v *flight.SessionOptionValue) (list []string, err error) {
	switch v := v.GetOptionValue().(type) {
	case *gen.SessionOptionValue_StringListValue_:
		list = slices.Clone(v.StringListValue.GetValues())
	case *gen.SessionOptionValue_StringValue:
		list, err = splitList(v.StringValue)
	default:
		err = errType
	}
	if err == nil && slices.ContainsFunc(list, func(e string) bool { return !utf8.ValidString(e) }) {
		err = errUTF8
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// splitList returns the elements of a list that was written as text: separated by
// commas, without the blanks around them. An element in double quotes is kept as it
// is, with two of them for one (RFC 4180). Package encoding/csv reads no blanks after
// a quote, cannot tell blanks in quotes from others, and changes line breaks.
func splitList(text string) (list []string, _ error) {
	rest := strings.TrimSpace(text)
	if rest == "" {
		return nil, nil
	}
	for more := true; more; {
		var element string
		rest = strings.TrimSpace(rest)
		if quoted, ok := strings.CutPrefix(rest, `"`); ok {
			if element, rest, ok = unquote(quoted); !ok {
				return nil, errQuotes
			}
			var between string
			if between, rest, more = strings.Cut(rest, ","); strings.TrimSpace(between) != "" {
				return nil, errQuotes
			}
		} else {
			element, rest, more = strings.Cut(rest, ",")
			if element = strings.TrimSpace(element); strings.Contains(element, `"`) {
				return nil, errQuotes
			}
		}
		list = append(list, element)
	}
	return list, nil
}

// unquote returns the text up to the closing quote, and what is behind that.
func unquote(text string) (element, rest string, ok bool) {
	var b strings.Builder
	for {
		part, after, closed := strings.Cut(text, `"`)
		b.WriteString(part)
		if !closed {
			return "", "", false
		}
		if text, ok = strings.CutPrefix(after, `"`); !ok {
			return b.String(), after, true
		}
		b.WriteByte('"')
	}
}
