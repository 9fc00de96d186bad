// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"iter"
	"net/textproto"
	"strings"
)

// candidates are the values of the first few cookies of one name. They need no
// memory of their own: the interceptors read cookies on every call.
type candidates struct {
	all [maxCandidates]string
	n   int
}

// scan adds what the lines of cookie headers have under name, which is a token
// (RFC 9110, section 5.6.2). It takes and passes over exactly what
// [http.Request.CookiesNamed] does, but allocates nothing.
func (c *candidates) scan(lines []string, name string) {
	for _, line := range lines {
		for line != "" && c.n < len(c.all) {
			value, rest, ok := nextCookie(line, name)
			if ok {
				c.all[c.n] = value
				c.n++
			}
			line = rest
		}
	}
}

// cookieValues yields what scan takes, however many there are.
func cookieValues(lines []string, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, line := range lines {
			for line != "" {
				value, rest, ok := nextCookie(line, name)
				if ok && !yield(value) {
					return
				}
				line = rest
			}
		}
	}
}

// nextCookie takes the first cookie off a line. It is ok if it has this name and
// its value is valid.
func nextCookie(line, name string) (value, rest string, ok bool) {
	part := line
	if end := strings.IndexByte(line, ';'); end >= 0 {
		part, rest = line[:end], line[end+1:]
	}
	value, found := strings.CutPrefix(textproto.TrimString(part), name)
	if !found {
		return "", rest, false
	}
	if value = textproto.TrimString(value); value != "" && value[0] != '=' {
		return "", rest, false // a longer name
	}
	value, ok = cookieValue(strings.TrimPrefix(value, "="))
	return value, rest, ok
}

// values returns the values that were found, in order.
func (c *candidates) values() []string { return c.all[:c.n] }

// cookieValue takes the quotes off a value and reports whether it is valid.
func cookieValue(raw string) (string, bool) {
	if len(raw) > 1 && raw[0] == '"' && raw[len(raw)-1] == '"' {
		raw = raw[1 : len(raw)-1]
	}
	for i := range len(raw) {
		if !cookieByte[raw[i]] {
			return "", false
		}
	}
	return raw, true
}

// cookieByte says which bytes net/http takes in a cookie's value. Looking them up
// takes half the time of comparing.
var cookieByte = func() (valid [256]bool) {
	for b := 0x20; b < 0x7f; b++ {
		valid[b] = b != '"' && b != ';' && b != '\\'
	}
	return valid
}()
