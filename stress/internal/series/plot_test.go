// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/c8e4ff29/layover"
)

func newPlotter(r Run) *plotter {
	samples := thin(r.Samples)
	return &plotter{axis: newAxis(r.Took, samples, r.Marks), samples: samples}
}

var command = regexp.MustCompile(`([MHVLZ])(\d*) ?(\d*)`)

// below returns how much of a plot is below a path of steps, from 0 to 1.
func below(path string) (area float64) {
	var x, y int
	for _, c := range command.FindAllStringSubmatch(path, -1) {
		first, _ := strconv.Atoi(c[2])
		second, _ := strconv.Atoi(c[3])
		switch c[1] {
		case "M":
			x, y = first, second
		case "V":
			y = first
		case "H":
			area += float64(first-x) * float64(plotHeight-y)
			x = first
		}
	}
	return area / plotWidth / plotHeight
}

// The area of each colour is the number of sessions that ended for that reason.
func TestEveryReasonIsDrawn(t *testing.T) {
	p := newPlotter(busy(40))
	last := p.samples[len(p.samples)-1]
	d := p.ends()
	if len(d.Layers) != len(last.Ended) || len(d.Legend) != len(last.Ended) {
		t.Fatalf("%d layers and %d keys, want one for each of the %d reasons", len(d.Layers), len(d.Legend), len(last.Ended))
	}
	high, err := strconv.ParseFloat(strings.ReplaceAll(d.Ticks[len(d.Ticks)-1].Text, ",", ""), 64)
	if err != nil {
		t.Fatal(err)
	}
	under := 0.0
	for r, n := range last.Ended {
		reason := layover.Reason(r)
		class := "fill ended-" + reason.String()
		if got := d.Legend[r]; got.Class != class || got.Name != reason.String() || got.Value != count(n) {
			t.Errorf("the legend has %+v for %s, of which there are %d", got, reason, n)
		}
		l := d.Layers[len(d.Layers)-1-r]
		if l.Class != class {
			t.Errorf("layer %d is of class %s, want %s", r, l.Class, class)
		}
		all := below(l.Path) * high * p.span.Seconds()
		if got := all - under; math.Abs(got-float64(n)) > 0.02*float64(n) {
			t.Errorf("the area of %s stands for %.0f sessions, want %d", reason, got, n)
		}
		under = all
		if !strings.Contains(pageText, ".ended-"+reason.String()+" {") && !strings.Contains(pageText, ".ended-"+reason.String()+",") {
			t.Errorf("%s has no colour", reason)
		}
	}
}

func TestReasonsForWhichNoneEndedAreNotInTheLegend(t *testing.T) {
	s := Sample{At: time.Second}
	s.Ended[layover.ReasonKilled] = 1
	d := newPlotter(Run{Samples: []Sample{s}}).ends()
	if len(d.Legend) != 1 || d.Legend[0].Name != "killed" || len(d.Layers) != 1 {
		t.Errorf("%v, want one reason", d.Legend)
	}
}

// No plot may look as if the bound were exceeded when it is not.
func TestLiveAndRetiredStayUnderTheBoundHoweverManySamplesAreMerged(t *testing.T) {
	for _, n := range []int{1, 5, limit} {
		p := newPlotter(busy(n))
		for _, s := range p.samples {
			if s.Live+s.Retired > s.Max {
				t.Fatalf("of %d samples: %d live and %d retired, at most 64 were there at once", n, s.Live, s.Retired)
			}
		}
		d := p.sessions()
		bound, both := below(d.Layers[2].Path), below(d.Layers[0].Path)
		if live := below(d.Layers[1].Path); !(0 < live && live <= both && both <= bound) {
			t.Errorf("live %f, with the retired ones %f, bound %f: want them in this order", live, both, bound)
		}
	}
}

func TestWhatIsDrawnHasThePeaksAndTotalsOfAll(t *testing.T) {
	for _, n := range []int{1, 2, mostDrawn, mostDrawn + 1, limit - 1, limit} {
		run := busy(n)
		// As after a shutdown: a moment after the last regular sample.
		last := run.Samples[n-1]
		last.At += time.Millisecond
		last.Ended[layover.ReasonShutdown] += 50
		run.Samples = append(run.Samples, last)
		drawn := thin(run.Samples)
		if len(drawn) > mostDrawn || len(drawn) < min(n, mostDrawn/2) {
			t.Errorf("%d of %d samples are drawn", len(drawn), n)
		}
		if got, want := summary(drawn), summary(run.Samples); got != want {
			t.Errorf("of %d samples\n%+v is drawn, want\n%+v", n, got, want)
		}
		for i := 1; i < len(drawn); i++ {
			if drawn[i].At-drawn[i-1].At < time.Second {
				t.Errorf("an interval of %s is drawn", drawn[i].At-drawn[i-1].At)
			}
		}
	}
}

func TestWithoutABoundThereIsNoLineForIt(t *testing.T) {
	d := newPlotter(Run{Samples: []Sample{{At: time.Second, Live: 3}}}).sessions()
	if l := d.Layers[2]; l.Class != "line bound" || l.Path != "" || d.Legend[0].Value != "none" {
		t.Errorf("%+v and %+v for no bound", l, d.Legend[0])
	}
}

func TestRatesAreOfWhatIsNewInAnInterval(t *testing.T) {
	p := &plotter{}
	for _, s := range [][2]int{{1, 10}, {3, 20}, {3, 24}, {4, 30}, {5, 0}, {6, 50}} {
		p.samples = append(p.samples, Sample{At: time.Duration(s[0]) * time.Second, Calls: uint64(s[1])})
	}
	// The third interval takes no time, in the fifth the total goes back.
	if got, want := p.rate(func(s Sample) uint64 { return s.Calls }), (track{10, 5, 0, 10, 0, 10}); !slices.Equal(got, want) {
		t.Errorf("rates %v, want %v", got, want)
	}
}

func TestPercentilesHaveGapsWhereNothingHappened(t *testing.T) {
	var run Run
	for i, n := range []uint64{1, 1, 0, 1, 0, 0, 1, 1} {
		run.Samples = append(run.Samples, Sample{At: time.Duration(i+1) * time.Second, Latency: Spread{n, 1000, 2000, 3000, 4000}})
	}
	d := newPlotter(run).latency()
	if len(d.Layers) != 4 {
		t.Fatalf("%d lines, want 4", len(d.Layers))
	}
	for _, l := range d.Layers {
		if n := strings.Count(l.Path, "M"); n != 3 {
			t.Errorf("%s consists of %d pieces, want 3: %s", l.Class, n, l.Path)
		}
		if !strings.Contains(l.Path, "M3750 ") || !strings.Contains(l.Path, "H5000M") {
			t.Errorf("the value that is alone is not as long as its interval: %s", l.Path)
		}
	}
}

func TestEveryMarkHasALineAndALabelThatOverlapsNone(t *testing.T) {
	for _, n := range []int{0, 1, 2, 12, 100} {
		run := Run{Took: time.Minute}
		for i := range n {
			run.Marks = append(run.Marks, Mark{time.Minute * time.Duration(i*i) / time.Duration(n*n), fmt.Sprint("mark ", i)})
		}
		run.Marks = append(run.Marks, Mark{time.Minute, "the end"})
		a := newAxis(run.Took, nil, run.Marks)
		if got := strings.Count(a.lines(run.Marks), "M"); got != n+1 {
			t.Errorf("%d lines for %d marks", got, n+1)
		}
		labels := a.labels(run.Marks)
		end, texts := 0.0, ""
		for _, l := range labels {
			if l.At < end-0.01 || l.Width < labelWidth-0.01 || l.At+l.Width > 100.01 {
				t.Errorf("of %d marks: %+v begins before the end of the one before, at %f, or has not enough place", n, l, end)
			}
			end = l.At + l.Width
			texts += l.Text + ", "
		}
		for _, m := range run.Marks {
			if !strings.Contains(texts, m.Text+", ") {
				t.Errorf("no label for %s", m.Text)
			}
		}
	}
}

func TestTheUnitsAreThoseThatTheScriptKnows(t *testing.T) {
	for _, u := range []unit{pieces, rate, seconds, size} {
		if !strings.Contains(pageText, fmt.Sprintf("  %q: ", u)) {
			t.Errorf("the script does not know %s", u)
		}
	}
	p := newPlotter(busy(3))
	for _, d := range slices.Concat(p.wide(), p.small()) {
		for _, k := range d.Legend {
			if k.Track >= len(p.tracks) || len(p.tracks[k.Track]) != len(p.samples) {
				t.Errorf("%s of %s has no value for each sample", k.Name, d.Title)
			}
		}
	}
}
