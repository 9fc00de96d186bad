// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Whatever happens at the same time, no place and no weight is left or negative.
func TestAttackPlacesUnderStress(t *testing.T) {
	for round := range 30 {
		p := NewPool(6)
		var there atomic.Int64
		kind := &Kind{Name: "k", Idle: time.Millisecond, CloseWithin: 20 * time.Millisecond, Close: func(any) error {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			there.Add(-1)
			return nil
		}}
		var sets []*Set
		for i := range 6 {
			sets = append(sets, p.NewSet(nil, fmt.Sprint(i%3)))
		}
		var all sync.WaitGroup
		var left sync.WaitGroup
		for range 12 {
			all.Go(func() {
				for range 150 {
					s := sets[rand.IntN(len(sets))]
					name := fmt.Sprint(rand.IntN(4))
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(1500))*time.Microsecond)
					switch rand.IntN(12) {
					case 0:
						s.SetSource(fmt.Sprint(rand.IntN(3)))
					case 1:
						p.SetMax(3 + rand.IntN(6))
					case 2:
						s.Discard(kind, name)
					case 3:
						s.Hold(kind, name, time.Duration(rand.IntN(3)-1)*time.Millisecond)
					case 4:
						if rand.IntN(40) == 0 {
							_ = s.Close()
						}
					case 5:
						if l, _ := s.Opened(ctx, kind, name); l != nil {
							l.Discard()
							l.Release()
						}
					default:
						l, err := s.Acquire(ctx, kind, name, func(ctx context.Context) (any, error) {
							time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
							if rand.IntN(2) == 0 {
								inner := sets[rand.IntN(len(sets))]
								l, err := inner.Acquire(ctx, kind, fmt.Sprint(rand.IntN(4)), func(context.Context) (any, error) { there.Add(1); return 1, nil })
								if err != nil {
									return nil, err
								}
								defer l.Release()
							}
							if rand.IntN(5) == 0 {
								return nil, errors.New("fails")
							}
							there.Add(1)
							return 1, nil
						})
						if err == nil {
							time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
							l.Release()
						}
					}
					cancel()
					p.mu.Lock()
					sum := 0
					for src, n := range p.sources {
						if n < 0 {
							t.Errorf("source %s: %d", src, n)
						}
						sum += n
					}
					if p.places < 0 || p.leaving < 0 || p.leaving > p.places || sum != p.places-p.leaving || p.opening < 0 {
						t.Errorf("places %d, leaving %d, sources %v", p.places, p.leaving, p.sources)
					}
					p.mu.Unlock()
				}
			})
		}
		all.Wait()
		left.Wait()
		p.SetMax(10)
		time.Sleep(5 * time.Millisecond)
		p.mu.Lock()
		for x := range p.open {
			if x.uses > 0 {
				holders := 0
				for y := range p.open {
					for _, k := range y.kept {
						if k == x {
							holders++
						}
					}
				}
				if holders != x.uses {
					t.Errorf("%d uses, kept by %d", x.uses, holders)
				}
			}
		}
		p.mu.Unlock()
		for _, s := range sets {
			_ = s.Close()
		}
		p.Wait(context.Background())
		if st := p.Stats(); st.Places != 0 || st.Open != 0 || len(p.sources) != 0 || p.leaving != 0 || there.Load() != 0 {
			t.Fatalf("round %d: %+v, sources %v, leaving %d, there %d", round, st, p.sources, p.leaving, there.Load())
		}
	}
}
