// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"

	"github.com/c8e4ff29/layover"
)

func numbered(i int) deadToken {
	d := deadToken{why: "IDLE", held: true}
	binary.BigEndian.PutUint64(d.key[:], uint64(i))
	return d
}

// What is remembered of dead tokens is bounded and expires; whom it has
// forgotten is told anew.
func TestTellingsAreBoundedAndExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newTellings(DefaultTellWindow)
		for i := range maxTellings + 1000 {
			if all.tell(numbered(i), true, time.Now()) {
				t.Fatal("an acknowledgement was refused")
			}
		}
		if n := all.known.Len(); n != maxTellings {
			t.Errorf("%d are remembered, want %d", n, maxTellings)
		}
		if all.tell(numbered(maxTellings+999), false, time.Now()) {
			t.Error("the latest is told although it has acknowledged")
		}
		if !all.tell(numbered(0), false, time.Now()) {
			t.Error("one that was forgotten is not told")
		}
		<-time.After(tellingExpiry + time.Second)
		all.acknowledge(layover.Fingerprint{1}, time.Now())
		if n := all.known.Len(); n != 1 {
			t.Errorf("%d are remembered after their time", n)
		}
	})
}

// Tokens that the server never made are not remembered at all.
func TestGarbageIsNotRemembered(t *testing.T) {
	all := newTellings(DefaultTellWindow)
	if all.tell(deadToken{why: whyGarbage}, false, time.Now()) || all.known.Len() != 0 {
		t.Error("garbage was told of, or remembered")
	}
}

// Who comes with the cookie of a session that calls are closing gets nothing until
// all of them have found that it had ended by itself.
func TestTheLastCloserSaysWhatBecomesOfTheCookie(t *testing.T) {
	now := time.Now()
	dead := numbered(1)
	begin := func() *tellings {
		all := newTellings(DefaultTellWindow)
		all.closing(dead.key, now)
		all.closing(dead.key, now)
		return all
	}
	refuses := func(all *tellings, want bool) {
		t.Helper()
		if all.deleted(dead.key, now) != want || all.tell(dead, true, now) != want {
			t.Errorf("want that it is being dropped: %t", want)
		}
	}
	drops := func(all *tellings, want bool) {
		t.Helper()
		if all.closed(dead.key, now) != want {
			t.Errorf("want that it is to be dropped: %t", want)
		}
	}
	t.Run("one has ended it", func(t *testing.T) {
		all := begin()
		drops(all, true)
		all.withdraw(dead.key, false, now)
		refuses(all, true)
	})
	t.Run("both have, for all that they know", func(t *testing.T) {
		all := begin()
		drops(all, true)
		drops(all, false)
		refuses(all, true)
	})
	t.Run("the other one has", func(t *testing.T) {
		all := begin()
		all.withdraw(dead.key, false, now)
		refuses(all, true)
		drops(all, true)
		refuses(all, true)
	})
	t.Run("neither has", func(t *testing.T) {
		all := begin()
		all.withdraw(dead.key, false, now)
		all.withdraw(dead.key, false, now)
		refuses(all, false)
	})
	t.Run("it lives", func(t *testing.T) {
		all := begin()
		all.withdraw(dead.key, true, now)
		all.withdraw(dead.key, true, now)
		if all.knows(dead.key) {
			t.Error("it is remembered")
		}
	})
	// A login or a renewal has another cookie come in its place.
	replaced := func() *tellings {
		all := newTellings(DefaultTellWindow)
		if !all.replacing(dead.key, now) || all.replacing(dead.key, now) {
			t.Fatal("not the first of two is the first")
		}
		all.closing(dead.key, now)
		return all
	}
	t.Run("it was renewed", func(t *testing.T) {
		all := replaced()
		all.withdraw(dead.key, false, now)
		refuses(all, true)
	})
	t.Run("it was closed while it was renewed", func(t *testing.T) {
		all := replaced()
		drops(all, false)
		refuses(all, true)
		all.keeping(dead.key, now) // it failed
		if all.tell(dead, false, now) {
			t.Error("who has closed it is told of its end")
		}
		refuses(all, false)
	})
	t.Run("it is closed since its renewal has failed", func(t *testing.T) {
		all := replaced()
		all.keeping(dead.key, now)
		refuses(all, true)
		drops(all, true)
		refuses(all, true)
	})
	t.Run("its renewal has failed", func(t *testing.T) {
		all := replaced()
		all.withdraw(dead.key, true, now)
		all.keeping(dead.key, now)
		if all.knows(dead.key) {
			t.Error("it is remembered")
		}
	})
}
