// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/c8e4ff29/layover"
)

// plotter draws the plots of a run and collects the tracks that they show.
type plotter struct {
	axis
	samples []Sample
	tracks  []track
}

// key returns the entry of a legend for a track.
func (p *plotter) key(class, name, value string, t track, u unit) key {
	p.tracks = append(p.tracks, t)
	return key{Class: class, Name: name, Value: value, Track: len(p.tracks) - 1, Unit: u}
}

// of returns the track of one number.
func (p *plotter) of(number func(Sample) float64) (t track) {
	for _, s := range p.samples {
		t = append(t, number(s))
	}
	return t
}

// mostDrawn is how many intervals a plot has at most. More are thinner than what can
// be told apart.
const mostDrawn = 300

// thin returns samples that can be drawn: not too many, the neighbours merged as in a
// [Recorder], and of intervals of about the same length.
func thin(samples []Sample) []Sample {
	all := even(samples)
	for len(all) > mostDrawn {
		for i := range len(all) / 2 {
			all[i] = merge(all[2*i], all[2*i+1])
		}
		if half := len(all) / 2; len(all)%2 == 1 {
			all[half-1] = merge(all[half-1], all[len(all)-1])
		}
		all = all[:len(all)/2]
	}
	return all
}

// even merges samples with the one before if their interval is much shorter than
// others, as that of the sample after a shutdown is: its rates say nothing.
func even(samples []Sample) (all []Sample) {
	var lengths []time.Duration
	var before time.Duration
	for _, s := range samples {
		lengths = append(lengths, s.At-before)
		before = s.At
	}
	if len(lengths) == 0 {
		return nil
	}
	slices.Sort(lengths)
	least := lengths[len(lengths)/2] / 2
	for _, s := range samples {
		last := len(all) - 1
		if last >= 0 && (s.At-all[last].At < least || last == 0 && all[0].At < least) {
			all[last] = merge(all[last], s)
		} else {
			all = append(all, s)
		}
	}
	return all
}

// rate returns the track of how much a total has grown in a second. An interval that
// took no time is part of the next one.
func (p *plotter) rate(total func(Sample) uint64) track {
	t := make(track, len(p.samples))
	var at time.Duration
	var before uint64
	for i, s := range p.samples {
		t[i] = 0
		now := total(s)
		if s.At <= at || now < before {
			continue
		}
		t[i] = float64(now-before) / (s.At - at).Seconds()
		at, before = s.At, now
	}
	return t
}

// wide returns the plots that have the whole width.
func (p *plotter) wide() []plot {
	return p.drawn(p.sessions(), p.ends(), p.latency(), p.lag())
}

// small returns the others.
func (p *plotter) small() []plot {
	return p.drawn(p.calls(), p.closing(), p.heap(), p.goroutines())
}

// drawn returns the plots, without what cannot be drawn if there are no samples.
func (p *plotter) drawn(all ...plot) []plot {
	if len(p.samples) == 0 {
		for i := range all {
			all[i].Empty = "No sample was taken."
		}
	}
	return all
}

// script is what the page's script works with.
type script struct {
	Span   float64  `json:"span"` // of the axis, in seconds
	Ends   track    `json:"ends"` // of the intervals, from 0 to 1
	Tracks []track  `json:"tracks"`
	Marks  track    `json:"marks"` // from 0 to 1
	Texts  []string `json:"texts"` // of the marks
}

// script returns it for the plots that were drawn.
func (p *plotter) script(marks []Mark) script {
	s := script{Span: p.span.Seconds(), Tracks: p.tracks, Texts: []string{}}
	for _, at := range p.at {
		s.Ends = append(s.Ends, p.axis.of(at))
	}
	for _, m := range marks {
		s.Marks, s.Texts = append(s.Marks, p.axis.of(m.At)), append(s.Texts, m.Text)
	}
	return s
}

// sessions stacks the retired ones on the live ones: both take places.
func (p *plotter) sessions() plot {
	live := p.of(func(s Sample) float64 { return float64(s.Live) })
	retired := p.of(func(s Sample) float64 { return float64(s.Retired) })
	both := p.of(func(s Sample) float64 { return float64(s.Live + s.Retired) })
	bound := p.of(func(s Sample) float64 {
		if s.Max <= 0 {
			return math.NaN()
		}
		return float64(s.Max)
	})
	y := linear(max(both.peak(), zeroIfNone(bound.peak())), 5, true)
	return plot{
		Title:   "Sessions",
		Says:    "Live ones can be found; retired ones have ended but are still used by a call, so they keep their places.",
		Label:   fmt.Sprintf("Sessions over time. Live: at most %s. Retired: at most %s. Maximum: %s.", pieces.text(live.peak()), pieces.text(retired.peak()), pieces.text(bound.peak())),
		Summary: "peak values",
		Layers:  []layer{{"fill retired", p.area(both, y)}, {"fill live", p.area(live, y)}, {"line bound", p.steps(bound, y)}},
		Legend: []key{
			p.key("line bound", "maximum", pieces.text(bound.peak()), bound, pieces),
			p.key("fill live", "live", pieces.text(live.peak()), live, pieces),
			p.key("fill retired", "retired", pieces.text(retired.peak()), retired, pieces),
		},
		Ticks: y.labels(pieces),
		Grid:  y.grid(),
	}
}

func zeroIfNone(v float64) float64 {
	if math.IsNaN(v) {
		return 0
	}
	return v
}

// ends stacks the reasons in their order. What lies on top is painted first, down to
// the bottom, so that the others cover the rest of it.
func (p *plotter) ends() plot {
	d := plot{Title: "Ends a second, by reason", Says: "Stacked: the height is how many sessions ended in a second, for any reason.", Summary: "totals"}
	if len(p.samples) == 0 {
		return d
	}
	totals := p.samples[len(p.samples)-1].Ended
	if totals.Total() == 0 {
		d.Empty = "No session has ended."
		return d
	}
	y := linear(p.rate(func(s Sample) uint64 { return s.Ended.Total() }).peak(), 5, false)
	for r, n := range totals {
		if n == 0 {
			continue
		}
		reason := layover.Reason(r)
		class := "fill ended-" + reason.String()
		stack := p.rate(func(s Sample) (sum uint64) {
			for _, n := range s.Ended[:r+1] {
				sum += n
			}
			return sum
		})
		d.Layers = append([]layer{{class, p.area(stack, y)}}, d.Layers...)
		d.Legend = append(d.Legend, p.key(class, reason.String(), count(n), p.rate(func(s Sample) uint64 { return s.Ended[r] }), rate))
		d.Label += fmt.Sprintf(" %s: %s.", reason, count(n))
	}
	d.Label = "Ends of sessions in a second over time, by reason. In total:" + d.Label
	d.Ticks, d.Grid = y.labels(pieces), y.grid()
	return d
}

func (p *plotter) latency() plot {
	return p.spread("Latency of calls", "Of the calls that ended in each interval, on a logarithmic scale.", "No call was made.",
		func(s Sample) Spread { return s.Latency })
}

func (p *plotter) lag() plot {
	return p.spread("Lag between deadline and Close", "How long after its deadline the Close of an expired session began, on a logarithmic scale.", "No session expired.",
		func(s Sample) Spread { return s.Lag })
}

// spread draws percentiles, the highest first, so that the others lie on it.
func (p *plotter) spread(title, says, empty string, of func(Sample) Spread) plot {
	d := plot{Title: title, Says: says, Summary: "peak values", Label: title + " over time, at most:"}
	parts := []struct {
		class, name string
		of          func(Spread) time.Duration
	}{
		{"line longest", "longest", func(s Spread) time.Duration { return s.Max }},
		{"line p999", "99.9 %", func(s Spread) time.Duration { return s.P999 }},
		{"line p99", "99 %", func(s Spread) time.Duration { return s.P99 }},
		{"line p50", "median", func(s Spread) time.Duration { return s.P50 }},
	}
	var tracks []track
	for _, part := range parts {
		tracks = append(tracks, p.of(func(s Sample) float64 {
			if of(s).N == 0 {
				return math.NaN()
			}
			return part.of(of(s)).Seconds()
		}))
	}
	if !tracks[0].known() {
		d.Empty = empty
		return d
	}
	y := logarithmic(tracks...)
	for i, part := range parts {
		value := seconds.text(tracks[i].peak())
		d.Layers = append(d.Layers, layer{part.class, p.line(tracks[i], y)})
		d.Legend = append(d.Legend, p.key(part.class, part.name, value, tracks[i], seconds))
		d.Label += fmt.Sprintf(" %s %s.", part.name, value)
	}
	d.Ticks, d.Grid = y.labels(seconds), y.grid()
	return d
}

func (p *plotter) calls() plot {
	all := p.rate(func(s Sample) uint64 { return s.Calls })
	failed := p.rate(func(s Sample) uint64 { return s.Errors })
	y := linear(max(all.peak(), failed.peak()), 4, false)
	d := p.areas("Calls a second", "Those that failed are among them, whether or not they should.", y, y.labels(pieces), rate,
		shown{"calls", "all", all}, shown{"errors", "failed", failed})
	if n := len(p.samples); n > 0 && p.samples[n-1].Calls == 0 {
		d.Empty = "No call was made."
	}
	return d
}

func (p *plotter) closing() plot {
	closing := p.of(func(s Sample) float64 { return float64(s.Closing) })
	y := linear(closing.peak(), 4, true)
	return p.areas("Sessions to be closed", "Their Close is due or runs.", y, y.labels(pieces), pieces, shown{"closing", "closing", closing})
}

func (p *plotter) goroutines() plot {
	all := p.of(func(s Sample) float64 { return float64(s.Goroutines) })
	y := linear(all.peak(), 4, true)
	return p.areas("Goroutines", "Of the whole process.", y, y.labels(pieces), pieces, shown{"goroutines", "goroutines", all})
}

// heap has ticks that are round in the unit in which they are written.
func (p *plotter) heap() plot {
	heap := p.of(func(s Sample) float64 { return float64(s.Heap) })
	names, factor := []string{" B", " KiB", " MiB", " GiB", " TiB"}, 1.0
	for heap.peak() >= 1024*factor && len(names) > 1 {
		names, factor = names[1:], 1024*factor
	}
	y := linear(heap.peak()/factor, 4, factor == 1)
	ticks := y.labels(pieces)
	for i := range ticks {
		ticks[i].Text += names[0]
	}
	y.high *= factor
	return p.areas("Heap", "Of the whole process: objects that are in use, or dead and not swept yet.", y, ticks, size, shown{"heap", "heap", heap})
}

// shown is a track with the class and the name that it has in a small plot.
type shown struct {
	class, name string
	track       track
}

// areas returns a plot of areas, the later ones before the earlier.
func (p *plotter) areas(title, says string, y scale, ticks []tick, u unit, all ...shown) plot {
	d := plot{Title: title, Says: says, Summary: "peak values", Label: title + " over time, at most:", Ticks: ticks, Grid: y.grid()}
	for _, a := range all {
		class, value := "fill "+a.class, u.text(a.track.peak())
		d.Layers = append(d.Layers, layer{class, p.area(a.track, y)})
		d.Legend = append(d.Legend, p.key(class, a.name, value, a.track, u))
		d.Label += fmt.Sprintf(" %s %s.", a.name, value)
	}
	return d
}
