// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// unit is what a number counts. The page's script knows the same ones.
type unit string

const (
	pieces  unit = "n"
	rate    unit = "/s"
	seconds unit = "s"
	size    unit = "B"
)

// text writes a value with three significant digits, or more if that is shorter than
// a power of ten.
func (u unit) text(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "none"
	}
	switch u {
	case seconds:
		if v == 0 {
			return "0 s"
		}
		return scaled(v, 1e-9, []string{"ns", "µs", "ms", "s"}, 1000)
	case size:
		return scaled(v, 1, []string{"B", "KiB", "MiB", "GiB", "TiB"}, 1024)
	case rate:
		return number(v) + "/s"
	default:
		return number(v)
	}
}

// scaled writes a value in the largest unit of which it is at least one.
func scaled(v, least float64, names []string, factor float64) string {
	v /= least
	i := 0
	for v >= factor*(1-1e-9) && i < len(names)-1 {
		v /= factor
		i++
	}
	return number(v) + " " + names[i]
}

// number writes a number with separators, and with decimals only if it is small.
func number(v float64) string {
	if v >= 100 {
		return count(uint64(math.Round(min(v, 1e18))))
	}
	return strconv.FormatFloat(roundTo(v, 3), 'f', -1, 64)
}

// roundTo rounds to so many significant digits.
func roundTo(v float64, digits int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil {
		return v
	}
	return r
}

// count writes a number with separators.
func count(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// several writes a number of things, of which there may be one.
func several(n uint64, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return count(n) + " " + more
}

// clockText writes a moment on the axis of time, for ticks that are a step apart.
func clockText(at, step time.Duration) string {
	switch {
	case at == 0:
		return "0"
	case step >= time.Hour:
		return fmt.Sprintf("%d h", at/time.Hour)
	case step >= time.Minute:
		return fmt.Sprintf("%d min", at/time.Minute)
	case step >= time.Second:
		return fmt.Sprintf("%d s", at/time.Second)
	default:
		return seconds.text(at.Seconds())
	}
}

// took writes how long a run took, or how far it was.
func took(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return number(d.Round(10*time.Millisecond).Seconds()) + " s"
	case d < time.Hour:
		d = d.Round(time.Second)
		return strings.TrimSuffix(fmt.Sprintf("%d min %d s", d/time.Minute, d%time.Minute/time.Second), " 0 s")
	default:
		d = d.Round(time.Minute)
		return strings.TrimSuffix(fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute), " 0 min")
	}
}
