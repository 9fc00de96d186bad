// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"strings"
	"time"
)

// history is what has happened to a session of late. The zero one is empty.
type history struct {
	all [remembered]happening
	n   int
}

const remembered = 24

type happening struct {
	at   time.Time
	what string
	by   int // the client; 0: the store
}

// note adds what has happened now.
func (h *history) note(what string, by int) {
	h.all[h.n%remembered] = happening{time.Now(), what, by}
	h.n++
}

// tell returns a line for each event, with times since the run began.
func (h *history) tell(began time.Time) string {
	var b strings.Builder
	if h.n > remembered {
		fmt.Fprintf(&b, "%d earlier events\n", h.n-remembered)
	}
	for i := max(0, h.n-remembered); i < h.n; i++ {
		e := h.all[i%remembered]
		who := "store"
		if e.by > 0 {
			who = fmt.Sprint("client ", e.by)
		}
		fmt.Fprintf(&b, "%12.6fs  %-10s  %s\n", e.at.Sub(began).Seconds(), who, e.what)
	}
	return b.String()
}
