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

// Plots are drawn in units of their own, which the page stretches to the place that
// there is. They have no text, which would be stretched, too: that is HTML around them.
const (
	plotWidth  = 10000
	plotHeight = 1000
)

// track is one number of all samples. NaN means that a sample has none.
type track []float64

// MarshalJSON writes four significant digits, and null where there is no number.
func (t track) MarshalJSON() ([]byte, error) {
	out := []byte{'['}
	for i, v := range t {
		if i > 0 {
			out = append(out, ',')
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			out = append(out, "null"...)
		} else {
			out = strconv.AppendFloat(out, v, 'g', 4, 64)
		}
	}
	return append(out, ']'), nil
}

// peak returns the largest number; NaN if there is none.
func (t track) peak() float64 {
	most := math.NaN()
	for _, v := range t {
		if !math.IsNaN(v) && !(v <= most) {
			most = v
		}
	}
	return most
}

// known reports whether there is any number.
func (t track) known() bool { return !math.IsNaN(t.peak()) }

// plot is what the page shows of some tracks.
type plot struct {
	Title, Says string
	Label       string // what there is to be seen, for those who do not see it
	Empty       string // why there is nothing to be drawn; empty: there is
	Summary     string // of what the values in the legend are
	Layers      []layer
	Legend      []key
	Ticks       []tick // of the values
	Grid        string // the lines at the ticks
}

// layer is one shape of a plot. The later ones lie on the earlier.
type layer struct{ Class, Path string }

// key explains a layer. Value stands for all of the run; the script puts that of one
// moment in its place, from the tracks of the page.
type key struct {
	Class, Name, Value string
	Track              int
	Unit               unit
}

// tick is a label at a distance from the bottom or from the left, in percent.
type tick struct {
	At   float64
	Text string
}

// percent returns a fraction in percent, with as many digits as matter.
func percent(f float64) float64 { return math.Round(min(max(f, 0), 1)*10000) / 100 }

func (s scale) labels(u unit) (all []tick) {
	for _, v := range s.ticks {
		all = append(all, tick{percent(s.at(v)), u.text(v)})
	}
	return all
}

// grid draws a line at each tick.
func (s scale) grid() string {
	var path strings.Builder
	for _, v := range s.ticks {
		fmt.Fprintf(&path, "M0 %dH%d", y(s, v), plotWidth)
	}
	return path.String()
}

// axis is the time of all plots.
type axis struct {
	span time.Duration
	at   []time.Duration // of the samples
}

func newAxis(took time.Duration, samples []Sample, marks []Mark) axis {
	a := axis{span: took}
	for _, s := range samples {
		a.at = append(a.at, max(s.At, 0))
		a.span = max(a.span, s.At)
	}
	for _, m := range marks {
		a.span = max(a.span, m.At)
	}
	if a.span <= 0 {
		a.span = time.Second
	}
	return a
}

// of returns where on the axis a moment is, from 0 to 1.
func (a axis) of(at time.Duration) float64 {
	return min(max(float64(at)/float64(a.span), 0), 1)
}

// x returns where a sample's interval ends. That before the first one ends at zero.
func (a axis) x(i int) int {
	if i < 0 {
		return 0
	}
	return int(math.Round(plotWidth * a.of(a.at[i])))
}

func y(s scale, v float64) int { return int(math.Round(plotHeight * (1 - s.at(v)))) }

// ticks returns the labels of the axis. On narrow screens there is place for every
// second one.
func (a axis) ticks() (all []tick) {
	const most = 12
	moments := clock(a.span, most)
	step := a.span
	if len(moments) > 1 {
		step = moments[1]
	}
	for _, at := range moments {
		all = append(all, tick{percent(a.of(at)), clockText(at, step)})
	}
	return all
}

// line connects the values. One without neighbours is as long as its interval.
func (a axis) line(t track, s scale) string {
	var path strings.Builder
	missing := func(i int) bool { return i < 0 || i == len(t) || math.IsNaN(t[i]) }
	for i, v := range t {
		switch {
		case missing(i):
		case !missing(i - 1):
			fmt.Fprintf(&path, "L%d %d", a.x(i), y(s, v))
		case !missing(i + 1):
			fmt.Fprintf(&path, "M%d %d", a.x(i), y(s, v))
		default:
			fmt.Fprintf(&path, "M%d %dH%d", a.x(i-1), y(s, v), a.x(i))
		}
	}
	return path.String()
}

// steps draws each value as long as the interval was that its sample closes: the
// area below is what happened if the values are rates.
func (a axis) steps(t track, s scale) string {
	var path strings.Builder
	from, level := 0, -1
	for i, v := range t {
		if math.IsNaN(v) {
			from, level = a.x(i), -1
			continue
		}
		switch next := y(s, v); {
		case level < 0:
			fmt.Fprintf(&path, "M%d %d", from, next)
			level = next
		case next != level:
			fmt.Fprintf(&path, "V%d", next)
			level = next
		}
		fmt.Fprintf(&path, "H%d", a.x(i))
		from = a.x(i)
	}
	return path.String()
}

// area fills what is below the steps of a track that has no gaps.
func (a axis) area(t track, s scale) string {
	if len(t) == 0 {
		return ""
	}
	return fmt.Sprintf("%sV%dH0Z", a.steps(t, s), plotHeight)
}
