// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"math"
	"slices"
	"time"
)

// scale maps values to the height of a plot. Its ticks are 1, 2 or 5 times a power
// of ten.
type scale struct {
	low, high float64
	log       bool
	ticks     []float64
}

// at returns how far up a value is, from 0 to 1. What is off the scale is at its end.
func (s scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log10(max(v, low)), math.Log10(low), math.Log10(high)
	}
	return min(max((v-low)/(high-low), 0), 1)
}

// linear returns a scale from zero to at least top, with at most so many ticks above
// zero, of whole numbers if that is what the values are.
func linear(top float64, most int, whole bool) scale {
	if !(top > 0) || math.IsInf(top, 0) {
		top = 1
	}
	step := roundUp(top / float64(most))
	if whole {
		step = max(step, 1)
	}
	n := math.Ceil(top / step)
	s := scale{high: n * step}
	for i := range int(n) + 1 {
		s.ticks = append(s.ticks, float64(i)*step)
	}
	return s
}

// logarithmic returns a scale that has all positive values.
func logarithmic(values ...track) scale {
	low, high := math.Inf(1), 0.0
	for _, v := range slices.Concat(values...) {
		if v > 0 && !math.IsInf(v, 0) {
			low, high = min(low, v), max(high, v)
		}
	}
	if high == 0 {
		low, high = 1e-6, 1e-3
	}
	s := scale{low: roundDown(low), high: roundUp(high), log: true}
	if s.low == s.high {
		s.high = roundUp(2 * s.high)
	}
	decades := math.Log10(s.high / s.low)
	for v := s.low; v < s.high*1.01; v = roundUp(1.5 * v) {
		if digit := math.Round(v / math.Pow10(exponent(v))); digit == 1 || decades < 2.5 {
			s.ticks = append(s.ticks, v)
		}
	}
	return s
}

// exponent returns the power of ten of a positive number, which may be a bit less
// than it should for want of precision.
func exponent(v float64) int { return int(math.Floor(math.Log10(v * (1 + 1e-9)))) }

// roundUp returns the next 1, 2 or 5 times a power of ten that is not less than v,
// but for want of precision.
func roundUp(v float64) float64 {
	ten := math.Pow10(exponent(v))
	for _, digit := range []float64{1, 2, 5} {
		if v <= digit*ten*(1+1e-9) {
			return digit * ten
		}
	}
	return 10 * ten
}

// roundDown is its opposite.
func roundDown(v float64) float64 {
	ten := math.Pow10(exponent(v))
	for _, digit := range []float64{5, 2} {
		if v*(1+1e-9) >= digit*ten {
			return digit * ten
		}
	}
	return ten
}

// clockSteps are what ticks of time may be apart from a second on.
var clockSteps = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second,
	time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 30 * time.Minute,
	time.Hour, 2 * time.Hour, 5 * time.Hour,
}

// clock returns at most so many ticks of time after zero.
func clock(span time.Duration, most int) (ticks []time.Duration) {
	least := (span + time.Duration(most) - 1) / time.Duration(most)
	step := time.Duration(roundUp(max(float64(least), 1)))
	if least > time.Second/2 {
		if i, _ := slices.BinarySearch(clockSteps, least); i < len(clockSteps) {
			step = clockSteps[i]
		} else {
			step = time.Duration(roundUp(least.Hours())) * time.Hour
		}
	}
	for at := time.Duration(0); at <= span; at += step {
		ticks = append(ticks, at)
	}
	return ticks
}
