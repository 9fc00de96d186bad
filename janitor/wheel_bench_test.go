// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package janitor

import (
	"testing"
	"time"
)

const million = 1_000_000

func BenchmarkWheelFileCancel(b *testing.B) {
	w := newWheel(time.Millisecond)
	items := make([]item, 1000)
	n := 0
	for b.Loop() {
		i := &items[n%len(items)]
		i.file(w, time.Duration(n%3_600_000)*time.Millisecond)
		w.Cancel(i)
		n++
	}
}

func BenchmarkWheelRefile(b *testing.B) {
	w := newWheel(time.Millisecond)
	items := make([]item, million)
	n := 0
	for b.Loop() {
		items[n%million].file(w, time.Duration(n)*time.Millisecond)
		n += 7919
	}
}

// A million elements leave: spread over an hour, or all in the same slot.
func BenchmarkWheelDue(b *testing.B) {
	for name, step := range map[string]time.Duration{"spread": time.Hour / million, "together": 0} {
		b.Run(name, func(b *testing.B) {
			items := make([]item, million)
			due := make([]*item, 0, 256)
			for range b.N {
				b.StopTimer()
				w := newWheel(time.Millisecond)
				for n := range items {
					items[n].file(w, time.Hour+time.Duration(n)*7919%million*step)
				}
				b.StartTimer()
				for w.Len() > 0 {
					now, _ := w.Next()
					due, _ = w.Due(now, 256, due[:0])
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/million, "ns/elem")
		})
	}
}
