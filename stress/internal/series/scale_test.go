// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// nice reports whether a number is 1, 2 or 5 times a power of ten.
func nice(v float64) bool {
	digit := v / math.Pow10(int(math.Floor(math.Log10(v*(1+1e-9)))))
	for _, want := range []float64{1, 2, 5} {
		if math.Abs(digit-want) < 1e-6 {
			return true
		}
	}
	return false
}

func TestLinearTicksAreFewAndRound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		top, most := math.Pow(10, rng.Float64()*24-6), 3+rng.IntN(5)
		s := linear(top, most, top > 1)
		if s.high < top*(1-1e-6) || len(s.ticks) < 2 || len(s.ticks) > most+1 {
			t.Fatalf("up to %g there are %d ticks up to %g, want at most %d", top, len(s.ticks), s.high, most+1)
		}
		if step := s.ticks[1]; !nice(step) || top > 1 && step < 1 {
			t.Fatalf("up to %g the ticks are %g apart", top, step)
		}
		if s.ticks[0] != 0 || math.Abs(s.ticks[len(s.ticks)-1]/s.high-1) > 1e-9 {
			t.Fatalf("ticks %v, want them from 0 to %g", s.ticks, s.high)
		}
	}
	for _, odd := range []float64{0, -1, math.NaN(), math.Inf(1)} {
		if s := linear(odd, 5, true); s.high != 1 {
			t.Errorf("a scale up to %g goes up to %g, want 1", odd, s.high)
		}
	}
}

func TestLogarithmicTicksAreFewAndRound(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		low := math.Pow(10, rng.Float64()*12-9)
		high := low * math.Pow(10, rng.Float64()*8)
		s := logarithmic(track{math.NaN(), high}, track{low, 0})
		if s.low > low*(1+1e-6) || s.high < high*(1-1e-6) || s.low <= 0 || !nice(s.low) || !nice(s.high) {
			t.Fatalf("the scale of %g to %g goes from %g to %g", low, high, s.low, s.high)
		}
		if n := len(s.ticks); n < 2 || n > 11 {
			t.Fatalf("from %g to %g there are %d ticks: %v", low, high, n, s.ticks)
		}
		for _, v := range s.ticks {
			if !nice(v) || v < s.low*(1-1e-6) || v > s.high*(1+1e-6) {
				t.Fatalf("from %g to %g there is a tick at %g", low, high, v)
			}
		}
		if s.at(0) != 0 || s.at(low) > s.at(high) || s.at(2*s.high) != 1 {
			t.Fatalf("%g is at %g, %g at %g", low, s.at(low), high, s.at(high))
		}
	}
	if s := logarithmic(track{0, math.NaN()}); !(s.low > 0 && s.high > s.low) {
		t.Errorf("a scale of nothing goes from %g to %g", s.low, s.high)
	}
}

func TestTicksOfTimeAreThoseOfAClock(t *testing.T) {
	for span, want := range map[time.Duration]string{
		20 * time.Second:       "2 s",
		10 * time.Minute:       "1 min",
		90 * time.Second:       "10 s",
		time.Hour:              "5 min",
		24 * time.Hour:         "2 h",
		300 * time.Millisecond: "50 ms",
		5 * time.Second:        "500 ms",
	} {
		ticks := newAxis(span, nil, nil).ticks()
		if ticks[0].Text != "0" || ticks[1].Text != want {
			t.Errorf("the axis of %s begins with %v, want the second one to be %s", span, ticks[:2], want)
		}
	}
	rng := rand.New(rand.NewPCG(1, 3))
	for range 10_000 {
		span := time.Duration(math.Pow(10, rng.Float64()*18))
		ticks := newAxis(span, nil, nil).ticks()
		if n := len(ticks); n < 2 && span > 1 || n > 13 {
			t.Fatalf("the axis of %s has %d ticks", span, n)
		}
		for i := 1; i < len(ticks); i++ {
			if ticks[i].At <= ticks[i-1].At || ticks[i].At > 100 {
				t.Fatalf("the axis of %s has these ticks: %v", span, ticks)
			}
		}
	}
}

func TestNumbersAreShortAndHaveUnits(t *testing.T) {
	for _, c := range []struct {
		unit unit
		v    float64
		want string
	}{
		{pieces, 0, "0"},
		{pieces, 0.25, "0.25"},
		{pieces, 12.345, "12.3"},
		{pieces, 1234567.8, "1,234,568"},
		{pieces, math.NaN(), "none"},
		{rate, 12.345, "12.3/s"},
		{seconds, 0, "0 s"},
		{seconds, 0.0000012, "1.2 µs"},
		{seconds, 0.001, "1 ms"},
		{seconds, 0.9994, "999 ms"},
		{seconds, 3600, "3,600 s"},
		{size, 0, "0 B"},
		{size, 1024, "1 KiB"},
		{size, 5 << 29, "2.5 GiB"},
	} {
		if got := c.unit.text(c.v); got != c.want {
			t.Errorf("%g in %s is %q, want %q", c.v, c.unit, got, c.want)
		}
	}
	for d, want := range map[time.Duration]string{
		0:                       "0 s",
		-time.Second:            "0 s",
		time.Millisecond:        "0 s",
		300 * time.Millisecond:  "0.3 s",
		7312 * time.Millisecond: "7.31 s",
		time.Minute:             "1 min",
		90 * time.Second:        "1 min 30 s",
		3*time.Hour + 5*time.Minute + time.Second: "3 h 5 min",
		2 * time.Hour: "2 h",
	} {
		if got := took(d); got != want {
			t.Errorf("%s is written as %q, want %q", d, got, want)
		}
	}
}
