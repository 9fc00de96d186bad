// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// tables writes Markdown: what was run and on what, then a table for speed, one
// for memory, expiry and idle, and one for floods.
func tables(ws []workload, ps []kind, r results, c config) string {
	var b strings.Builder
	header(&b, ps)
	speedTable(&b, ws, ps, r)
	heavyTable(&b, ps, r, c.sizes)
	floodTable(&b, ps, r, c.sizes)
	return b.String()
}

func header(b *strings.Builder, ps []kind) {
	fmt.Fprintf(b, "%s, %d procs", runtime.Version(), runtime.GOMAXPROCS(0))
	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			versions[d.Path] = d.Version
		}
	}
	for _, k := range ps {
		if v := versions[k.module]; v != "" && k.name != "layover" {
			fmt.Fprintf(b, ", %s %s", k.name, strings.TrimPrefix(v, "v"))
		}
	}
	b.WriteString(".\n")
}

// row writes cells of a table.
func row(b *strings.Builder, first string, cells []string) {
	fmt.Fprintf(b, "| %s | %s |\n", first, strings.Join(cells, " | "))
}

func head(b *strings.Builder, first string, columns []string) {
	b.WriteString("\n")
	row(b, first, columns)
	b.WriteString("|---|" + strings.Repeat("--:|", len(columns)) + "\n")
}

func names(ps []kind) (n []string) {
	for _, k := range ps {
		n = append(n, k.name)
	}
	return n
}

// median returns the median of a metric over the passes, of those that have it.
func (r results) median(workload, peer, metric string) (float64, bool) {
	var v []float64
	for _, m := range r[workload][peer] {
		if x, ok := m[metric]; ok {
			v = append(v, x)
		}
	}
	return middle(v)
}

// ratio returns the median over the passes of a peer's metric to that of the
// baseline.
func (r results) ratio(workload, peer, metric string) (float64, bool) {
	var v []float64
	base := r[workload][baseline]
	for pass, m := range r[workload][peer] {
		if x, ok := m[metric]; ok && pass < len(base) && base[pass][metric] > 0 {
			v = append(v, x/base[pass][metric])
		}
	}
	return middle(v)
}

func middle(v []float64) (float64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2, true
}

// sum adds a metric up over all passes of the workloads whose name begins with
// prefix.
func (r results) sum(prefix, peer, metric string) (total float64, ok bool) {
	for w, peers := range r {
		if !strings.HasPrefix(w, prefix) {
			continue
		}
		for _, m := range peers[peer] {
			x, has := m[metric]
			total, ok = total+x, ok || has
		}
	}
	return total, ok
}

func (r results) has(prefix string) bool {
	for w := range r {
		if strings.HasPrefix(w, prefix) {
			return true
		}
	}
	return false
}

// number shows about three digits.
func number(x float64, ok bool) string {
	switch a := math.Abs(x); {
	case !ok:
		return "-"
	case a >= 100 || a == math.Trunc(a):
		return fmt.Sprintf("%.0f", x)
	case a >= 10:
		return fmt.Sprintf("%.1f", x)
	case a >= 0.1:
		return fmt.Sprintf("%.2f", x)
	default:
		return fmt.Sprintf("%.2g", x)
	}
}

// fixed shows a ratio.
func fixed(x float64, ok bool) string {
	switch {
	case !ok:
		return "-"
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2f", x)
	}
}

func speedTable(b *strings.Builder, ws []workload, ps []kind, r results) {
	if !slices.ContainsFunc(ws, func(w workload) bool { return !w.heavy }) {
		return
	}
	columns := names(ps)
	columns[slices.Index(columns, baseline)] = baseline + " (ns)"
	head(b, "time, in that of "+baseline+"; procs, goroutines", columns)
	missed := false
	for _, w := range ws {
		if w.heavy {
			continue
		}
		cells := make([]string, len(ps))
		for i, k := range ps {
			cells[i] = fixed(r.ratio(w.name, k.name, "ns"))
			if k.name == baseline {
				ns, ok := r.median(w.name, k.name, "ns")
				cells[i] = fmt.Sprintf("1 (%s)", number(ns, ok))
			}
			if hits, ok := r.median(w.name, k.name, "hits"); ok && hits < 99.95 && w.group == "hits" {
				cells[i] += fmt.Sprintf(" (%.1f %% hits)", hits)
				missed = true
			}
		}
		row(b, w.title, cells)
	}
	derivedRows(b, ws, ps, r)
	if missed {
		b.WriteString("\nPercentages: the peer had not kept all that was put, though there was room.\n")
	}
}

// derivedRows tells what else was seen in the speed workloads.
func derivedRows(b *strings.Builder, ws []workload, ps []kind, r results) {
	each := func(title string, cell func(peer string) string) {
		cells := make([]string, len(ps))
		for i, k := range ps {
			cells[i] = cell(k.name)
		}
		row(b, title, cells)
	}
	for _, w := range ws {
		if w.group == "evict" {
			each("hits in percent, "+w.title, func(p string) string { return number(r.median(w.name, p, "hits")) })
		}
	}
	for _, w := range ws {
		if w.group == "churn" {
			each("allocations, "+w.title, func(p string) string {
				x, ok := r.median(w.name, p, "allocs")
				return number(math.Round(10*x)/10, ok)
			})
			break
		}
	}
	if r.has("churn") {
		each("add + remove: puts refused, in percent", func(p string) string {
			var v []float64
			for _, w := range ws {
				if x, ok := r.median(w.name, p, "refused"); ok && w.group == "churn" {
					v = append(v, x)
				}
			}
			return number(middle(v))
		})
		each("add + remove: not closed exactly once, in a million", func(p string) string { return r.wrongCloses("churn", p) })
	}
}

// wrongCloses returns how many of a million values were closed never, or more
// than once.
func (r results) wrongCloses(prefix, peer string) string {
	never, ok := r.sum(prefix, peer, "never closed")
	again, _ := r.sum(prefix, peer, "closed again")
	created, _ := r.sum(prefix, peer, "created")
	return number((math.Abs(never)+again)/max(1, created)*1e6, ok)
}

func heavyTable(b *strings.Builder, ps []kind, r results, z sizes) {
	if !r.has("memory") && !r.has("expiry") && !r.has("idle") {
		return
	}
	head(b, fmt.Sprintf("at %d entries", z.Million), names(ps))
	for _, x := range []struct{ title, workload, metric string }{
		{"an entry and its key, bytes", "memory", "whole"},
		{"overhead: without the key, bytes", "memory", "overhead"},
		{"kept once all were removed, bytes an entry", "memory", "kept"},
		{"full GC, ms over values alone", "memory", "gc"},
		{"found again after the filling, percent", "memory", "live"},
		{"all expire at once: seconds until the last Close", "expiry", "seconds"},
		{"closed before that instant, percent", "expiry", "early"},
		{"a reader beside it: p99, µs", "expiry", "p99"},
		{"longest stall, ms", "expiry", "stall"},
		{"the reader in the second before: p99, µs", "expiry", "p99 before"},
		{"longest stall, ms", "expiry", "stall before"},
		{"idle: percent of one core", "idle", "cpu"},
		{"goroutines of an empty one", "idle", "goroutines"},
	} {
		if !r.has(x.workload) {
			continue
		}
		cells := make([]string, len(ps))
		for i, k := range ps {
			cells[i] = number(r.median(x.workload, k.name, x.metric))
			if x.metric == "seconds" && cells[i] == "-" && len(r[x.workload][k.name]) > 0 {
				cells[i] = fmt.Sprintf("> %.0f", z.Limit.Seconds())
			}
		}
		row(b, x.title, cells)
	}
}

func floodTable(b *strings.Builder, ps []kind, r results, z sizes) {
	if !r.has("flood/") {
		return
	}
	ps = slices.DeleteFunc(slices.Clone(ps), func(k kind) bool { return !k.bounded })
	head(b, fmt.Sprintf("percent, but for µs; %d newcomers a round, %d rounds, room for %d", z.Flood, z.Rounds, z.Capacity), names(ps))
	for _, f := range floods {
		w := "flood/" + f.name
		if !r.has(w) {
			continue
		}
		for _, x := range []struct{ title, metric string }{
			{"honest sessions that survived", "survived"},
			{"honest newcomers that could be confirmed", "newcomers"},
			{"puts refused", "refused"},
			{"puts lost before their first get", "lost"},
			{"most entries seen, of the maximum", "peak"},
			{"µs for each put of it, all included", "us"},
		} {
			if x.metric == "lost" && !f.echoes {
				continue
			}
			cells := make([]string, len(ps))
			for i, k := range ps {
				cells[i] = number(r.median(w, k.name, x.metric))
			}
			row(b, f.name+" flood: "+x.title, cells)
		}
	}
	cells := make([]string, len(ps))
	for i, k := range ps {
		cells[i] = r.wrongCloses("flood/", k.name)
	}
	row(b, "all floods: not closed exactly once, in a million", cells)
}
