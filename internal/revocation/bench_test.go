// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package revocation_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/c8e4ff29/layover/internal/revocation"
)

const benchSize = 1 << 16

// filled returns a full list. Everybody of principals has as many entries.
func filled(b *testing.B, size int, principals []string) (*revocation.List, time.Time) {
	l, now := revocation.New(size), time.Now()
	for i := range size {
		e := revocation.Entry{ID: id(i), Principal: principals[i%len(principals)], Issued: now, Until: now.Add(time.Hour), Why: "closed"}
		if _, err := l.Add(e); err != nil {
			b.Fatal(err)
		}
	}
	return l, now
}

func names(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint("principal", i)
	}
	return names
}

// BenchmarkRevoked asks of a session that lives, but for "closed". Of "collapsed",
// somebody else has a not-before record, and of "since" its own principal.
func BenchmarkRevoked(b *testing.B) {
	none := revocation.New(benchSize)
	full, now := filled(b, benchSize, names(1000))
	collapsed, _ := filled(b, benchSize, names(1000))
	if _, err := collapsed.Add(revocation.Entry{Principal: "alice", Issued: now, Until: now.Add(time.Hour)}); err != nil {
		b.Fatal(err)
	}
	for _, x := range []struct {
		name      string
		list      *revocation.List
		session   int
		principal string
	}{
		{"empty", none, benchSize, "bob"},
		{"65536", full, benchSize, "bob"},
		{"collapsed", collapsed, benchSize, "bob"},
		{"since", collapsed, benchSize, "alice"},
		{"closed", full, 1, "bob"},
	} {
		session, later := id(x.session), now.Add(time.Second)
		b.Run(x.name, func(b *testing.B) {
			for b.Loop() {
				x.list.Revoked(session, x.principal, later)
			}
		})
		b.Run(x.name+"/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					x.list.Revoked(session, x.principal, later)
				}
			})
		})
	}
}

// BenchmarkAddFull closes sessions of so many principals in turn on a full list, where
// the heaviest has to be collapsed again and again.
func BenchmarkAddFull(b *testing.B) {
	for _, size := range []int{1 << 10, benchSize} {
		for _, principals := range []int{1, 100, size / 2, size} {
			b.Run(fmt.Sprintf("size=%d/principals=%d", size, principals), func(b *testing.B) {
				names := names(principals)
				l, now := filled(b, size, names)
				n := size
				for b.Loop() {
					issued := now.Add(time.Duration(n))
					e := revocation.Entry{ID: id(n), Principal: names[n%principals], Issued: issued, Until: now.Add(time.Hour), Why: "closed"}
					if _, err := l.Add(e); err != nil {
						b.Fatal(err)
					}
					n++
				}
				b.ReportMetric(float64(l.Stats().Collapsed)/float64(n-size), "collapses/op")
			})
		}
	}
}
