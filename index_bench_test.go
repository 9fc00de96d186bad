// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The candidates for the index, which decided for the table. Run them with
//
//	go test -run '^$' -bench 'Index|Clock' -cpu 1,2,4 -count 5 .

// candidate is what an index must do.
type candidate interface {
	get(id string) *entry[*conn]
	put(id string, e *entry[*conn])
	remove(id string, e *entry[*conn])
}

// ownTable is the index of the store.
type ownTable struct {
	mu sync.Mutex // the ledger's
	*index[*conn]
}

func (x *ownTable) get(id string) *entry[*conn] { return x.find(id) }

func (x *ownTable) put(id string, e *entry[*conn]) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.born(0, x.hash(id))
	x.index.put(e)
}

func (x *ownTable) remove(_ string, e *entry[*conn]) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.index.remove(e)
}

// shardedMaps are 64 maps behind read-write locks.
type shardedMaps struct {
	index *index[*conn] // for its hash
	parts [64]struct {
		sync.RWMutex
		entries map[string]*entry[*conn]
		_       [96]byte
	}
}

func newShardedMaps() *shardedMaps {
	x := &shardedMaps{index: newIndex[*conn]()}
	for i := range x.parts {
		x.parts[i].entries = make(map[string]*entry[*conn])
	}
	return x
}

func (x *shardedMaps) get(id string) *entry[*conn] {
	p := &x.parts[x.index.hash(id)%64]
	p.RLock()
	defer p.RUnlock()
	return p.entries[id]
}

func (x *shardedMaps) put(id string, e *entry[*conn]) {
	p := &x.parts[x.index.hash(id)%64]
	p.Lock()
	defer p.Unlock()
	p.entries[id] = e
}

func (x *shardedMaps) remove(id string, _ *entry[*conn]) {
	p := &x.parts[x.index.hash(id)%64]
	p.Lock()
	defer p.Unlock()
	delete(p.entries, id)
}

// syncMap is a sync.Map.
type syncMap struct{ sync.Map }

func (x *syncMap) get(id string) *entry[*conn] {
	e, _ := x.Load(id)
	found, _ := e.(*entry[*conn])
	return found
}

func (x *syncMap) put(id string, e *entry[*conn])    { x.Store(id, e) }
func (x *syncMap) remove(id string, _ *entry[*conn]) { x.Delete(id) }

var candidates = []struct {
	name string
	open func() candidate
}{
	{"table", func() candidate { return &ownTable{index: newIndex[*conn]()} }},
	{"shardedMaps", func() candidate { return newShardedMaps() }},
	{"syncMap", func() candidate { return new(syncMap) }},
}

// fillCandidate returns IDs that are in, and copies of them in random order.
func fillCandidate(x candidate, n int) (ids, lookups []string) {
	for i := range n {
		id := fmt.Sprintf("%016x-%016x", rand.Uint64(), i)
		e := newEntry[*conn](id, nil)
		x.put(id, e)
		ids = append(ids, id)
	}
	for _, i := range rand.Perm(n) {
		lookups = append(lookups, strings.Clone(ids[i]))
	}
	return ids, lookups
}

// BenchmarkIndexGet looks up 100,000 entries, alone and beside a writer.
func BenchmarkIndexGet(b *testing.B) {
	for _, c := range candidates {
		x := c.open()
		_, lookups := fillCandidate(x, 1<<17)
		for _, writer := range []bool{false, true} {
			for _, goroutines := range []int{1, 16, 128} {
				b.Run(fmt.Sprintf("writer=%v/goroutines=%d/index=%s", writer, goroutines, c.name), func(b *testing.B) {
					if writer {
						defer churn(x)()
					}
					if goroutines == 1 {
						for i := range b.N {
							if x.get(lookups[i&(len(lookups)-1)]) == nil {
								b.Error("lost")
							}
						}
						return
					}
					b.SetParallelism(max(1, goroutines/runtime.GOMAXPROCS(0)))
					var workers atomic.Int64
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						for i := int(workers.Add(7919)); pb.Next(); i++ {
							if x.get(lookups[i&(len(lookups)-1)]) == nil {
								b.Error("lost")
							}
						}
					})
				})
			}
		}
	}
}

// churn adds and removes entries until it is told to stop.
func churn(x candidate) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			e := newEntry[*conn](fmt.Sprint("churn", i), nil)
			x.put(e.id(), e)
			x.remove(e.id(), e)
		}
	})
	return func() { close(done); wg.Wait() }
}

// BenchmarkIndexMemory reports what a million entries take beside themselves and
// their IDs, and what is kept once all were removed.
func BenchmarkIndexMemory(b *testing.B) {
	const n = 1 << 20
	for _, c := range candidates {
		b.Run("index="+c.name, func(b *testing.B) {
			for range b.N {
				entries, ids := make([]*entry[*conn], n), make([]string, n)
				for i := range entries {
					ids[i] = fmt.Sprintf("%032x", i)
					entries[i] = newEntry[*conn](ids[i], nil)
				}
				before := heapInUse()
				x := c.open()
				for i := range entries {
					x.put(ids[i], entries[i])
				}
				full := heapInUse()
				for i := range entries {
					x.remove(ids[i], entries[i])
				}
				b.ReportMetric((full-before)/n, "B/entry")
				b.ReportMetric((heapInUse()-before)/n, "B/entry-kept")
				runtime.KeepAlive(entries)
				runtime.KeepAlive(x)
			}
		})
	}
}

func heapInUse() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkClock compares the clock that hits read with the machine's.
func BenchmarkClock(b *testing.B) {
	var c clock
	cfg, err := newConfig(nil)
	if err != nil {
		b.Fatal(err)
	}
	c.init(cfg)
	defer c.park()
	b.Run("coarse", func(b *testing.B) {
		for b.Loop() {
			c.soon()
		}
	})
	b.Run("machine", func(b *testing.B) {
		for b.Loop() {
			time.Since(c.start)
		}
	})
}
