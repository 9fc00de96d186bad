// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package series

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/c8e4ff29/layover"
)

// write returns the page of a run.
func write(t *testing.T, r Run) string {
	t.Helper()
	var out strings.Builder
	if err := WritePage(&out, r); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

var scripts = regexp.MustCompile(`(?s)<(script|style)>.*?</(script|style)>`)

// elements returns how many there are of each kind, and all text between them.
func elements(t *testing.T, page string) (map[string]int, string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(scripts.ReplaceAllString(page, "<$1></$1>")))
	decoder.Strict, decoder.AutoClose, decoder.Entity = false, []string{"meta"}, xml.HTMLEntity
	all, text := make(map[string]int), new(strings.Builder)
	var open []string
	for {
		token, err := decoder.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.StartElement:
			all[token.Name.Local]++
			if token.Name.Local != "meta" {
				open = append(open, token.Name.Local)
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != token.Name.Local {
				t.Fatalf("</%s> closes what is open: %v", token.Name.Local, open)
			}
			open = open[:len(open)-1]
		case xml.CharData:
			text.Write(token)
		}
	}
	if len(open) > 0 {
		t.Fatalf("%v stay open", open)
	}
	return all, text.String()
}

// busy returns a run in which sessions end for every reason.
func busy(samples int) Run {
	rng := rand.New(rand.NewPCG(1, uint64(samples)))
	r := Run{Title: "busy", Data: "run.arrow", Command: "go run ./stress", Took: time.Duration(samples) * time.Second}
	var s Sample
	for i := range samples {
		s.At = time.Duration(i+1) * time.Second
		s.Max, s.Live, s.Retired, s.Closing = 64, rng.IntN(50), rng.IntN(15), rng.IntN(100)
		s.Goroutines, s.Heap = rng.IntN(1000), rng.Uint64N(1<<30)
		s.Calls, s.Errors, s.Created = s.Calls+rng.Uint64N(1e6), s.Errors+rng.Uint64N(1e4), s.Created+rng.Uint64N(1e4)
		for reason := range s.Ended {
			s.Ended[reason] += rng.Uint64N(1000)
		}
		b := time.Duration(rng.IntN(1e9))
		s.Latency = Spread{rng.Uint64N(9) + 1, b, 2 * b, 3 * b, 4 * b}
		s.Lag = Spread{rng.Uint64N(2), b, 2 * b, 3 * b, 4 * b}
		r.Samples = append(r.Samples, s)
	}
	for i := range 40 {
		r.Marks = append(r.Marks, Mark{r.Took * time.Duration(i) / 40, fmt.Sprintf("phase %d: closers fail, the observer calls back", i)})
		r.Checks = append(r.Checks, Check{Promise: fmt.Sprintf("promise %d", i), Times: uint64(i)})
	}
	return r
}

func TestAPageOfAnyRunIsWellFormed(t *testing.T) {
	once := Sample{At: time.Second, Max: 3, Live: 2, Calls: 1, Latency: Spread{N: 1}, Lag: Spread{N: 1}}
	for name, run := range map[string]Run{
		"of nothing":               {},
		"without samples":          {Took: time.Second, Marks: []Mark{{0, "begins"}, {0, ""}}, Checks: []Check{{Promise: "p", Times: 1}}},
		"with one sample":          {Samples: []Sample{once}},
		"with one that is empty":   {Samples: []Sample{{}}},
		"with two of one moment":   {Samples: []Sample{once, once}},
		"with no bound":            {Samples: []Sample{{At: time.Second, Live: 5}, {At: 2 * time.Second, Live: 6}}},
		"with times before it":     {Took: -time.Second, Marks: []Mark{{-time.Second, "early"}}, Samples: []Sample{{At: -time.Second}, {At: 0}}},
		"with totals that go back": {Samples: []Sample{{At: 1, Calls: 9, Created: 9}, {At: 2, Calls: 3, Created: 1}, {At: 3, Calls: 4}}},
		"of a day":                 {Took: 24 * time.Hour, Samples: []Sample{{At: 24 * time.Hour, Heap: 1 << 62, Calls: 1 << 63, Ended: layover.Ends{1 << 63}}}},
		"of two":                   busy(2),
		"of many":                  busy(limit),
	} {
		page := write(t, run)
		all, text := elements(t, page)
		if all["html"] != 1 || all["h1"] != 1 || all["figure"] != 8 || all["script"] != 1 || all["style"] != 1 {
			t.Errorf("the page of a run %s has these elements: %v", name, all)
		}
		if drawn := all["svg"] + strings.Count(page, `class="empty"`); drawn != 8 {
			t.Errorf("the page of a run %s has %d plots that are drawn or say why not, want 8", name, drawn)
		}
		for _, wrong := range []string{"NaN", "Inf", "ZgotmplZ", "%!"} {
			if strings.Contains(page, wrong) {
				t.Errorf("the page of a run %s has %s in it", name, wrong)
			}
		}
		if len(run.Samples) == 0 && strings.Count(text, "No sample was taken.") != 8 {
			t.Errorf("the page of a run %s does not say that there is no sample", name)
		}
		if len(page) > 1_000_000 {
			t.Errorf("the page of a run %s has %d bytes, want less than a million", name, len(page))
		}
	}
}

func TestAPageNeedsNoNetwork(t *testing.T) {
	page := write(t, busy(50))
	for _, wrong := range []string{"http", "//", "src=", "url(", "@import", "<link", "<iframe", "<img"} {
		if i := strings.Index(page, wrong); i >= 0 {
			t.Errorf("the page has %s in it: %s", wrong, page[max(0, i-50):i+50])
		}
	}
	if n := strings.Count(page, "href="); n != 1 || !strings.Contains(page, `href="run.arrow"`) {
		t.Errorf("%d links, want one, to the data", n)
	}
}

func TestWhatARunSaysCannotBreakThePage(t *testing.T) {
	const evil = `</title></style></script></pre><script>alert("1")</script><b x='`
	run := busy(3)
	run.Title, run.Command, run.Broken, run.History, run.Data = evil, evil, evil, evil, evil
	run.Facts = [][2]string{{evil, evil}}
	run.Marks = []Mark{{time.Second, evil}}
	run.Checks = []Check{{evil, 1, evil}}
	page := write(t, run)
	all, text := elements(t, page)
	if all["script"] != 1 || strings.Contains(page, "<script>alert") {
		t.Errorf("%d scripts, want that of the page only", all["script"])
	}
	// The title of the window, the heading, two of a fact, the command, the verdict,
	// the history, the mark in the list and over four and four plots, the promise and
	// its sentence, the name of the file.
	if n := strings.Count(text, evil); n != 19 {
		t.Errorf("it can be read %d times, want 19", n)
	}
}

func TestTheVerdict(t *testing.T) {
	held, untested, broken := Check{"holds", 1200, ""}, Check{"is not tested", 0, ""}, Check{"breaks", 7, "session 1 was lost"}
	for _, c := range []struct {
		run    Run
		want   string
		detail string
	}{
		{Run{Checks: []Check{held}}, "Every promise held", "1 promise was put to the test 1,200 times in 0 s."},
		{Run{Took: time.Second, Checks: []Check{held, held, untested}}, "Every promise held", "2 promises were put to the test 2,400 times in 1 s. 1 was not tested."},
		{Run{Checks: []Check{held, broken}}, "BROKEN: session 1 was lost", "2 promises were put to the test 1,207 times in 0 s."},
		{Run{Checks: []Check{untested, {"breaks at once", 0, "at once"}}}, "BROKEN: at once", "1 promise was put to the test 0 times in 0 s. 1 was not tested."},
		{Run{Broken: "the process hangs", Checks: []Check{held}}, "BROKEN: the process hangs", ""},
		{Run{Checks: []Check{untested}}, "No promise was put to the test", ""},
		{Run{}, "No promise was put to the test", ""},
	} {
		_, text := elements(t, write(t, c.run))
		if !strings.Contains(text, c.want) || !strings.Contains(text, c.detail) {
			t.Errorf("the page of %+v does not say: %s %s", c.run, c.want, c.detail)
		}
		if !strings.HasPrefix(c.want, "BROKEN") && strings.Contains(text, "BROKEN") {
			t.Errorf("the page of %+v says that something is broken", c.run)
		}
	}
}

func TestEveryPromiseIsInTheTableBrokenOnesFirst(t *testing.T) {
	run := Run{Checks: []Check{{"holds", 1200, ""}, {"is not tested", 0, ""}, {"breaks", 7, "it broke"}, {"breaks at once", 0, "at once"}}}
	want := []row{
		{"broken", "BROKEN", "7", "breaks", "it broke"},
		{"broken", "BROKEN", "0", "breaks at once", "at once"},
		{"held", "held", "1,200", "holds", ""},
		{"untested", "not tested", "0", "is not tested", ""},
	}
	_, text := elements(t, write(t, run))
	words := strings.Join(strings.Fields(text), " ")
	at := 0
	for _, r := range want {
		i := strings.Index(words[at:], strings.Join([]string{r.Verdict, r.Times, r.Promise + r.Broken}, ""))
		if i < 0 {
			t.Fatalf("%+v is missing or not in its place in %s", r, words[at:])
		}
		at += i
	}
}

func TestThePageTellsHowToDoItAgainAndWhatHadHappened(t *testing.T) {
	run := busy(5)
	run.Command = "go run ./stress -seed 17"
	run.Broken, run.History = "session 1 was lost", "0.1s created\n0.2s lost"
	run.Facts = [][2]string{{"seed", "17"}}
	run.Began = time.Date(2026, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600))
	page := write(t, run)
	for _, want := range []string{
		`<pre class="command">go run ./stress -seed 17</pre>`,
		"<pre class=\"history\">0.1s created\n0.2s lost</pre>",
		"<dt>seed</dt><dd>17</dd>",
		"3 Feb 2026, 03:05:06 UTC",
		"heap_bytes",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(write(t, Run{}), "<pre") {
		t.Error("a run without command and history has a place for them")
	}
}

// The script has the values of every sample, and null where there is none.
func TestTheScriptHasAllValues(t *testing.T) {
	run := busy(40)
	page := write(t, run)
	data := regexp.MustCompile(`const runs = (.*);\n`).FindStringSubmatch(page)
	if data == nil {
		t.Fatal("the script has no values")
	}
	var all []struct {
		Span   float64
		Ends   []*float64
		Tracks [][]*float64
		Marks  []float64
		Texts  []string
	}
	if err := json.Unmarshal([]byte(data[1]), &all); err != nil || len(all) != 1 {
		t.Fatalf("%d runs, %v in %s", len(all), err, data[1])
	}
	got := all[0]
	if got.Span != 40 || len(got.Ends) != 40 || len(got.Marks) != 40 || len(got.Texts) != 40 || got.Texts[7] != run.Marks[7].Text {
		t.Errorf("span %g, %d samples, %d marks, want 40 of each", got.Span, len(got.Ends), len(got.Marks))
	}
	if len(got.Tracks) != strings.Count(page, "data-track=") {
		t.Errorf("%d tracks for %d values", len(got.Tracks), strings.Count(page, "data-track="))
	}
	missing := 0
	for _, values := range got.Tracks {
		if len(values) != 40 {
			t.Errorf("a track has %d values, want 40", len(values))
		}
		for _, v := range values {
			if v == nil {
				missing++
			}
		}
	}
	want := 0
	for _, s := range run.Samples {
		if s.Lag.N == 0 {
			want += 4
		}
	}
	if missing != want || want == 0 {
		t.Errorf("%d values are missing, want %d: the percentiles of nothing", missing, want)
	}
}

func TestAPageOfSeveralRunsBeginsWithTheirVerdicts(t *testing.T) {
	first, second := busy(3), busy(4)
	first.Title, second.Title, second.Broken = "the first", "the second", "it broke"
	var out strings.Builder
	if err := WritePage(&out, first, second); err != nil {
		t.Fatal(err)
	}
	page := out.String()
	for _, want := range []string{
		"<title>the first, the second</title>", `href="#run1"><b>the first</b> Every promise held`, `href="#run2"><b>the second</b> BROKEN: it broke`,
		`<article class="run" id="run1">`, `<article class="run" id="run2">`,
	} {
		if strings.Count(page, want) != 1 {
			t.Errorf("%d times %s, want once", strings.Count(page, want), want)
		}
	}
	if strings.Contains(write(t, first), "<nav>") {
		t.Error("a page of one run leads to others")
	}
}

func TestThePlotsCanBeReadAloud(t *testing.T) {
	page := write(t, busy(5))
	svgs := regexp.MustCompile(`<svg [^>]*>`).FindAllString(page, -1)
	for _, svg := range svgs {
		if !strings.Contains(svg, `role="img"`) || !regexp.MustCompile(`aria-label="[^"]{20,}"`).MatchString(svg) {
			t.Errorf("no words for %s", svg)
		}
	}
	if n := strings.Count(page, "<thead>"); n != strings.Count(page, "<table>") || n != 2 {
		t.Errorf("%d headers for %d tables, want 2", n, strings.Count(page, "<table>"))
	}
}

func TestAPageThatCannotBeWrittenIsAnError(t *testing.T) {
	err := WritePage(&failing{0}, Run{})
	if !errors.Is(err, errFull) || !strings.HasPrefix(err.Error(), "write the page: ") {
		t.Errorf("error %v, want one that says the disk is full", err)
	}
}

func BenchmarkWritePage(b *testing.B) {
	run := busy(limit)
	for b.Loop() {
		if err := WritePage(io.Discard, run); err != nil {
			b.Fatal(err)
		}
	}
}
