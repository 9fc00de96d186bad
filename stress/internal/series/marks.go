// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"fmt"
	"math"
	"strings"
)

// label stands over the line of a mark, and has the place up to the next one, in
// percent of the plot. Marks that are too close to each other share one, with the
// number of the first.
type label struct {
	At, Width float64
	Number    int
	Text      string
}

// labelWidth is the least that a label needs, also on a narrow screen.
const labelWidth = 6

// labels returns those of the marks. The numbers are those of the list of marks.
func (a axis) labels(marks []Mark) (all []label) {
	for i, m := range marks {
		at := min(percent(a.of(m.At)), 100-labelWidth)
		if n := len(all); n > 0 && at-all[n-1].At < labelWidth {
			all[n-1].Text += ", " + m.Text
			continue
		}
		all = append(all, label{At: at, Number: i + 1, Text: m.Text})
	}
	for i := range all {
		next := 100.0
		if i+1 < len(all) {
			next = all[i+1].At
		}
		all[i].Width = math.Round(100*(next-all[i].At)) / 100
	}
	return all
}

// lines draws the marks from the top of a plot to the bottom.
func (a axis) lines(marks []Mark) string {
	var path strings.Builder
	for _, m := range marks {
		fmt.Fprintf(&path, "M%d 0V%d", int(math.Round(plotWidth*a.of(m.At))), plotHeight)
	}
	return path.String()
}
