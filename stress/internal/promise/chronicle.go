// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package promise

import (
	"fmt"
	"strings"
	"time"

	"github.com/c8e4ff29/layover"
)

// chronicle knows what has happened to the latest sessions. The mutex is its
// owner's.
type chronicle struct {
	pasts map[layover.Fingerprint]*past
	order []layover.Fingerprint // in which they were first heard of, a ring
	first int                   // in the ring, once it is full
}

// So much is remembered: the latest happenings of the latest sessions.
const (
	maxHappenings = 24
	maxPasts      = 4096
)

// past is what has happened to one session.
type past struct {
	happenings []happening // once they are maxHappenings, a ring
	next       int         // where the next one goes in the ring
	forgotten  int
}

type happening struct {
	at   time.Time
	what string
}

func (c *chronicle) note(f layover.Fingerprint, at time.Time, what string) {
	p := c.pasts[f]
	if p == nil {
		p = c.add(f)
	}
	h := happening{at, what}
	if len(p.happenings) < maxHappenings {
		p.happenings = append(p.happenings, h)
		return
	}
	p.happenings[p.next] = h
	p.next = (p.next + 1) % maxHappenings
	p.forgotten++
}

// add makes room for one more session.
func (c *chronicle) add(f layover.Fingerprint) *past {
	if c.pasts == nil {
		c.pasts = make(map[layover.Fingerprint]*past)
	}
	if len(c.order) < maxPasts {
		c.order = append(c.order, f)
	} else {
		delete(c.pasts, c.order[c.first])
		c.order[c.first] = f
		c.first = (c.first + 1) % maxPasts
	}
	p := new(past)
	c.pasts[f] = p
	return p
}

// of returns what is known of a session, a line a happening, with the time since
// the run began; empty: nothing.
func (c *chronicle) of(f layover.Fingerprint, began time.Time) string {
	p := c.pasts[f]
	if p == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "session %s", f)
	if p.forgotten > 0 {
		fmt.Fprintf(&b, "\n  %12s  %d earlier ones are forgotten", "", p.forgotten)
	}
	for i := range p.happenings {
		h := p.happenings[(p.next+i)%len(p.happenings)]
		fmt.Fprintf(&b, "\n  %12s  %s", h.at.Sub(began).Round(time.Microsecond), h.what)
	}
	return b.String()
}

// about returns what is known of the session that an argument of a sentence names;
// empty: it names none, or nothing is known.
func (c *chronicle) about(arg any, began time.Time) string {
	switch arg := arg.(type) {
	case layover.Fingerprint:
		return c.of(arg, began)
	case string:
		if f, err := layover.ParseFingerprint(arg); err == nil {
			return c.of(f, began)
		}
	}
	return ""
}
