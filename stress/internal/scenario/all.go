// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package scenario

import "time"

// Default is the scenario that a run has if nobody says otherwise.
const Default = "mix"

// All are the scenarios, in the order in which they are listed. To add one, add it
// to each: the mix has it then, too.
var All = func() []Scenario {
	all := named(append(each, soak))
	mixed := mix(all...)
	mixed.Name, mixed.Time = Default, 20*time.Second
	mixed.Sentence = "A bit of each of the others, one after the other."
	return append([]Scenario{mixed}, all...)
}()

const usual = 10 * time.Second

// each are the scenarios that are about one thing.
var each = []Scenario{{
	Name:     "steady",
	Sentence: "Honest clients, some with calls that outlast the idle timeout; nothing goes wrong.",
	Time:     usual,
	Phases: []Phase{{
		Share:  1,
		Store:  []Crowd{{"callers", 6}, {"holders", 2}, {"sharers", 2}, {"keys", 1}, {"lookers", 1}},
		Flight: []Crowd{{"well-behaved", 8}, {"slow streams", 4}, {"header keys", 2}, {"principals", 2}, {"cookie-less", 2}, {"concurrent", 2}},
	}},
}, {
	Name:     "flood",
	Sentence: "Clients that never come back pour in; those who do must keep their sessions.",
	Time:     usual,
	Phases: []Phase{{
		Share:  3,
		Store:  []Crowd{{"flooders", 6}, {"callers", 4}, {"heavies", 2}, {"mobs", 1}, {"newcomers", 1}, {"keys", 1}},
		Flight: []Crowd{{"flooding", 10}, {"well-behaved", 6}, {"mobs", 4}, {"mobs' neighbours", 2}, {"cookie-less", 2}},
		Faults: CallingObserver,
	}},
}, {
	Name:     "storm-of-expiry",
	Sentence: "Everybody leaves at once, again and again, and all sessions expire together.",
	Time:     usual,
	Phases: []Phase{
		{Share: 1, Store: []Crowd{{"vanishers", 8}, {"flooders", 2}}, Flight: []Crowd{{"vanishing", 8}, {"flooding", 2}}, End: Idles},
		{Share: 1, Store: []Crowd{{"vanishers", 8}, {"callers", 2}}, Flight: []Crowd{{"vanishing", 8}, {"well-behaved", 2}}, End: Idles},
	},
}, {
	Name:     "vanishing-clients",
	Sentence: "Clients are cut off in the middle of a stream, and retry from nowhere.",
	Time:     usual,
	Phases: []Phase{{
		Share:  1,
		Store:  []Crowd{{"vanishers", 6}, {"callers", 2}, {"holders", 2}, {"keys", 1}},
		Flight: []Crowd{{"vanishing", 8}, {"retrying", 4}, {"closing streams", 4}, {"well-behaved", 2}},
	}},
}, {
	Name:     "slow-closers",
	Sentence: "Close is slow, fails, panics, hangs and calls back into the store.",
	Time:     usual,
	Phases: []Phase{
		{
			Share:  1,
			Store:  []Crowd{{"callers", 4}, {"vanishers", 4}, {"replacers", 2}, {"flooders", 2}},
			Flight: []Crowd{{"well-behaved", 4}, {"vanishing", 4}, {"closing streams", 4}, {"flooding", 2}},
			Faults: FailingClosers | PanickingClosers | SlowClosers | CallingClosers | CallingObserver,
		}, {
			Share:  1,
			Store:  []Crowd{{"callers", 4}, {"vanishers", 4}, {"replacers", 2}, {"flooders", 2}},
			Flight: []Crowd{{"well-behaved", 4}, {"vanishing", 4}, {"closing streams", 4}, {"flooding", 2}},
			Faults: HangingClosers | PanickingObserver,
		},
	},
}, {
	Name:     "reconfiguration",
	Sentence: "Timeouts and limits change under running calls, with little memory and few processors.",
	Time:     usual,
	Phases: []Phase{{
		Share:  1,
		Store:  []Crowd{{"callers", 4}, {"flooders", 2}, {"holders", 2}, {"heavies", 2}, {"sharers", 1}, {"keys", 1}},
		Flight: []Crowd{{"well-behaved", 6}, {"flooding", 4}, {"slow streams", 4}, {"vanishing", 2}},
		Faults: Reconfigured | LittleMemory | FewProcessors | CallingObserver,
	}},
}, {
	Name:     "restart",
	Sentence: "The server is shut down in the middle, with and without enough time, and starts anew.",
	Time:     usual,
	Phases: []Phase{
		{
			Share:  1,
			Store:  []Crowd{{"callers", 6}, {"holders", 3}, {"sharers", 2}},
			Flight: []Crowd{{"well-behaved", 6}, {"slow streams", 4}, {"principals", 2}},
			End:    Stops,
		}, {
			Share:  1,
			Store:  []Crowd{{"callers", 6}, {"holders", 3}, {"sharers", 2}},
			Flight: []Crowd{{"well-behaved", 6}, {"slow streams", 4}, {"principals", 2}},
			Faults: SlowClosers,
			End:    Cut,
		}, {
			Share:  1,
			Store:  []Crowd{{"callers", 6}, {"holders", 3}, {"sharers", 2}},
			Flight: []Crowd{{"well-behaved", 6}, {"slow streams", 4}, {"principals", 2}},
			End:    Cut,
		},
	},
}, {
	Name:     "hostile",
	Sentence: "Nonsense, stale and stolen IDs; sessions killed, replaced and renewed under their calls.",
	Time:     usual,
	Phases: []Phase{{
		Share:  1,
		Store:  []Crowd{{"strangers", 4}, {"killers", 2}, {"replacers", 4}, {"sharers", 4}, {"callers", 2}, {"keys", 1}, {"lookers", 1}},
		Flight: []Crowd{{"garbage", 4}, {"thieves", 4}, {"renewing", 4}, {"retrying", 2}, {"mobs", 2}, {"well-behaved", 2}},
		Faults: CallingObserver | PanickingObserver,
	}},
}}

// everybody at the store and at Flight.
var (
	everybody = []Crowd{
		{"callers", 12}, {"flooders", 6}, {"vanishers", 4}, {"holders", 4}, {"sharers", 4}, {"replacers", 4},
		{"heavies", 2}, {"mobs", 1}, {"killers", 1}, {"strangers", 2}, {"newcomers", 1}, {"keys", 1}, {"lookers", 1},
	}
	everyClient = []Crowd{
		{"well-behaved", 12}, {"flooding", 10}, {"cookie-less", 2}, {"vanishing", 4}, {"slow streams", 4}, {"garbage", 2},
		{"concurrent", 2}, {"header keys", 2}, {"principals", 2}, {"retrying", 4}, {"thieves", 2}, {"renewing", 4},
		{"closing streams", 4}, {"mobs", 4}, {"mobs' neighbours", 2},
	}
)

var soak = Scenario{
	Name:     "soak",
	Sentence: "Everybody at once for ten minutes, with much that can go wrong: heap and goroutines stay flat.",
	Time:     10 * time.Minute,
	Phases: []Phase{{
		Share:  4,
		Store:  everybody,
		Flight: everyClient,
		Faults: FailingClosers | SlowClosers | CallingClosers | CallingObserver,
	}, {
		Share:  1,
		Store:  everybody,
		Flight: everyClient,
		Faults: Reconfigured | FewProcessors | PanickingClosers,
	}},
}
