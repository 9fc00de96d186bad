// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	_ "embed" // the page's template
	"fmt"
	"html/template"
	"io"
	"strings"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// document is what the template shows.
type document struct {
	Title   string
	Runs    []page
	Scripts []script
}

// page is what it shows of one run.
type page struct {
	Run
	ID            string
	BeganText     string
	Verdict       verdict
	Numbers       []figure
	Moments       []moment
	Width, Height int    // of the plots
	Lines         string // of the marks, in all plots
	Labels        []label
	Times         []tick
	Groups        []group
	Rows          []row
	Columns       []describedColumn
}

// group is some plots that have the same size.
type group struct {
	Class string
	Plots []plot
}

// verdict is what became of all promises together.
type verdict struct{ Class, Sentence, Detail string }

// figure is a number that says something of the whole run.
type figure struct{ Name, Value, Says string }

// moment is a mark in the list of them.
type moment struct {
	Number   int
	At, Text string
}

// row is one promise.
type row struct{ Class, Verdict, Times, Promise, Broken string }

// describedColumn is a column of the file beside the page.
type describedColumn struct{ Name, Says string }

// WritePage writes the report about one or more runs: one HTML file that needs no
// other one and no network. Of each it has a verdict, what the samples show, what
// became of each promise, and how to do it again. To be drawn, samples are merged
// until there are some hundreds at most, and so are those of much shorter intervals
// than the others'.
func WritePage(w io.Writer, runs ...Run) error {
	var d document
	var titles []string
	for i, r := range runs {
		view, script := r.page()
		view.ID = fmt.Sprint("run", i+1)
		d.Runs, d.Scripts = append(d.Runs, view), append(d.Scripts, script)
		titles = append(titles, r.Title)
	}
	d.Title = strings.Join(titles, ", ")
	if err := pageTemplate.Execute(w, d); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	return nil
}

// page returns what the page shows of a run.
func (r Run) page() (page, script) {
	samples := thin(r.Samples)
	p := &plotter{axis: newAxis(r.Took, samples, r.Marks), samples: samples}
	view := page{
		Run:       r,
		BeganText: r.Began.UTC().Format("2 Jan 2006, 15:04:05 UTC"),
		Verdict:   r.verdict(),
		Numbers:   r.numbers(),
		Width:     plotWidth,
		Height:    plotHeight,
		Lines:     p.lines(r.Marks),
		Labels:    p.labels(r.Marks),
		Times:     p.ticks(),
		Groups:    []group{{"wide", p.wide()}, {"small", p.small()}},
		Rows:      r.rows(),
	}
	for _, c := range columns {
		view.Columns = append(view.Columns, describedColumn{c.name, c.says})
	}
	for i, m := range r.Marks {
		view.Moments = append(view.Moments, moment{i + 1, took(m.At), m.Text})
	}
	return view, p.script(r.Marks)
}

func (r Run) verdict() verdict {
	sentence := r.Broken
	var tested, times, untested uint64
	for _, c := range r.Checks {
		times += c.Times
		if c.Times > 0 || c.Broken != "" {
			tested++
		} else {
			untested++
		}
		if sentence == "" {
			sentence = c.Broken
		}
	}
	detail := fmt.Sprintf("%s put to the test %s in %s.", several(tested, "promise was", "promises were"), several(times, "time", "times"), took(r.Took))
	if untested > 0 {
		detail += fmt.Sprintf(" %s not tested.", several(untested, "was", "were"))
	}
	switch {
	case sentence != "":
		return verdict{"broken", "BROKEN: " + sentence, detail}
	case tested == 0:
		return verdict{"untested", "No promise was put to the test", ""}
	default:
		return verdict{"held", "Every promise held", detail}
	}
}

// rows are the promises, the broken ones first.
func (r Run) rows() []row {
	var broken, others []row
	for _, c := range r.Checks {
		one := row{"held", "held", count(c.Times), c.Promise, c.Broken}
		switch {
		case c.Broken != "":
			one.Class, one.Verdict = "broken", "BROKEN"
			broken = append(broken, one)
			continue
		case c.Times == 0:
			one.Class, one.Verdict = "untested", "not tested"
		}
		others = append(others, one)
	}
	return append(broken, others...)
}

// numbers are those that stand for the whole run.
func (r Run) numbers() []figure {
	all := []figure{{"Took", took(r.Took), several(uint64(len(r.Samples)), "sample", "samples")}}
	if len(r.Samples) == 0 {
		return all
	}
	s := r.Samples[0]
	for _, next := range r.Samples[1:] {
		s = merge(s, next)
	}
	perSecond := ""
	if s.At > 0 {
		perSecond = rate.text(float64(s.Calls)/s.At.Seconds()) + ", "
	}
	lag := figure{"Longest lag", "none", "no session expired"}
	if s.Lag.N > 0 {
		lag = figure{"Longest lag", seconds.text(s.Lag.Max.Seconds()), "of " + several(s.Lag.N, "session", "sessions") + " that expired"}
	}
	return append(all,
		figure{"Calls", count(s.Calls), perSecond + count(s.Errors) + " failed"},
		figure{"Sessions", count(s.Created), count(s.Ended.Total()) + " ended"},
		figure{"Most places taken", pieces.text(float64(s.Live + s.Retired)), "of " + pieces.text(float64(s.Max))},
		lag,
		figure{"Peak of the heap", size.text(float64(s.Heap)), several(uint64(s.Goroutines), "goroutine", "goroutines") + " at most"},
	)
}
