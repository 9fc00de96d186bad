// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// wanted are the cookies that net/http finds, of which the first few count.
func wanted(lines []string, name string) (values []string) {
	for _, c := range (&http.Request{Header: http.Header{"Cookie": lines}}).CookiesNamed(name) {
		values = append(values, c.Value)
	}
	return values[:min(len(values), maxCandidates)]
}

func scanned(lines []string, name string) []string {
	var c candidates
	c.scan(lines, name)
	return slices.Clone(c.values())
}

// Every client's dialect is understood.
func TestScanUnderstandsEveryDialect(t *testing.T) {
	for name, c := range map[string]struct {
		lines []string
		want  []string
	}{
		"Go, joined without a blank":   {[]string{"AWSALB=a/b+c==;id=x"}, []string{"x"}},
		"C++, joined with a blank":     {[]string{"AWSALB=a; id=x; other=y"}, []string{"x"}},
		"Java, quoted with attributes": {[]string{`$Version="1"; id="x"; $Path="/"`}, []string{"x"}},
		"spread over headers":          {[]string{"a=b", "id=x", "c=d"}, []string{"x"}},
		"given twice":                  {[]string{"id=x; id=y"}, []string{"x", "y"}},
		"six times":                    {[]string{"id=1; id=2; id=3", "id=4; id=5; id=6"}, []string{"1", "2", "3", "4"}},
		"empty":                        {[]string{"id="}, []string{""}},
		"malformed":                    {[]string{`id="x; id=\x; id; =x; id=` + "\x7f", "; ;id=ok"}, []string{"", "ok"}},
		"another name":                 {[]string{"idx=x; xid=y; ID=z"}, nil},
	} {
		if got := scanned(c.lines, "id"); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if got := wanted(c.lines, "id"); !slices.Equal(got, c.want) {
			t.Errorf("%s: net/http finds %q, want %q", name, got, c.want)
		}
	}
}

// The scan finds what net/http finds, whatever clients send.
func FuzzScan(f *testing.F) {
	for _, seed := range []string{"id=x", `a=b; id="x" ;id=y`, "id", "=", "id=a=b; id = c", " id\t=x", "id=\"", "\x00;id=\xff", "id=a,b; id=a b"} {
		f.Add(seed, "id=z")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if strings.Count(a+b, ";") > 1000 {
			return // net/http gives up at a few thousand
		}
		lines := []string{a, b}
		if got, want := scanned(lines, "id"), wanted(lines, "id"); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", lines, got, want)
		}
	})
}

// Reading cookies allocates nothing.
func TestScanAllocatesNothing(t *testing.T) {
	lines := []string{"AWSALB=x; id=abc; other=y"}
	if n := testing.AllocsPerRun(100, func() {
		var c candidates
		c.scan(lines, "id")
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
