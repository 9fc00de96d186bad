// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

// The benchmarks show the store beside its peers, on the same keys (UUIDs, looked
// up by other copies of the strings) and with 100,000 entries:
//
//	go test -run '^$' -bench . -benchmem
//	go test -run '^$' -bench 'Get/zipf/goroutines=16' -count 10 | benchstat -col /peer -
//
// Compare ratios between peers of one run only; nanoseconds are those of one
// machine on one day. None of the peers does the same work:
//
//   - ttlcache has a sliding time to live for each entry and evicts the least
//     recently used one. It closes nothing.
//   - ristretto has no sliding expiry, may refuse a put and applies it later. It
//     closes nothing.
//   - rwmutex is a map behind a read-write lock, as in the store of Apache's
//     flight/session. It never forgets anything.
//   - layover's get is a touch, or a lease where the benchmark says so. Its
//     sessions are closed.

package layover_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/google/uuid"
	"github.com/jellydator/ttlcache/v3"

	"github.com/c8e4ff29/layover"
)

const (
	benchEntries = 100_000
	benchLookups = 1 << 17 // drawn once; each goroutine starts somewhere else
)

// nothing is a session that owns nothing.
type nothing struct{ _ int }

func (*nothing) Close() error { return nil }

// peer is what can be compared.
type peer interface {
	get(key string) bool
	put(key string, v *nothing) bool
	remove(key string)
	close()
}

var peers = []struct {
	name string
	open func(tb testing.TB, maximum int) peer
}{
	{"layover", func(tb testing.TB, n int) peer { return touching{openLayover(tb, n)} }},
	{"ttlcache", openTTLCache},
	{"ristretto", openRistretto},
	{"rwmutex", func(testing.TB, int) peer { return &mapPeer{m: make(map[string]*nothing)} }},
}

type touching struct {
	*layover.Store[*nothing]
}

func openLayover(tb testing.TB, maximum int, opts ...layover.Option) *layover.Store[*nothing] {
	s, err := layover.New[*nothing](append([]layover.Option{layover.WithMaxSessions(maximum), layover.WithUnconfirmedTimeouts(0, 0),
		layover.WithRemembered(0), layover.WithLogger(nil)}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func (p touching) get(key string) bool             { _, err := p.Get(key); return err == nil }
func (p touching) put(key string, v *nothing) bool { return p.Put(key, v, layover.Origin{}) == nil }
func (p touching) remove(key string)               { _ = p.Remove(key) }
func (p touching) close()                          { _ = p.Shutdown(context.Background()) }

// leasing is a call as a server makes it: its key has come back, it uses the
// session under a lease.
type leasing struct{ touching }

func (p leasing) get(key string) bool {
	l, err := p.Acquire(key)
	if err != nil {
		return false
	}
	l.Confirm()
	l.Release()
	return true
}

type ttlPeer struct {
	*ttlcache.Cache[string, *nothing]
}

func openTTLCache(_ testing.TB, maximum int) peer {
	return ttlPeer{ttlcache.New(ttlcache.WithTTL[string, *nothing](time.Hour), ttlcache.WithCapacity[string, *nothing](uint64(maximum)))}
}

func (p ttlPeer) get(key string) bool { return p.Get(key) != nil }
func (p ttlPeer) put(key string, v *nothing) bool {
	p.Set(key, v, ttlcache.DefaultTTL)
	return true
}
func (p ttlPeer) remove(key string) { p.Delete(key) }
func (p ttlPeer) close()            {}

type ristrettoPeer struct {
	*ristretto.Cache[string, *nothing]
}

func openRistretto(tb testing.TB, maximum int) peer {
	c, err := ristretto.NewCache(&ristretto.Config[string, *nothing]{
		NumCounters: 10 * int64(maximum), MaxCost: int64(maximum), BufferItems: 64, IgnoreInternalCost: true,
	})
	if err != nil {
		tb.Fatal(err)
	}
	return ristrettoPeer{c}
}

func (p ristrettoPeer) get(key string) bool             { _, ok := p.Get(key); return ok }
func (p ristrettoPeer) put(key string, v *nothing) bool { return p.SetWithTTL(key, v, 1, time.Hour) }
func (p ristrettoPeer) remove(key string)               { p.Del(key) }
func (p ristrettoPeer) close()                          { p.Close() }

type mapPeer struct {
	mu sync.RWMutex
	m  map[string]*nothing
}

func (p *mapPeer) get(key string) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m[key] != nil
}

func (p *mapPeer) put(key string, v *nothing) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.m[key] = v
	return true
}

func (p *mapPeer) remove(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.m, key)
}

func (p *mapPeer) close() {}

func uuids(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = uuid.NewString()
	}
	return keys
}

// lookups draws keys, and returns copies: a request brings a string of its own.
func lookups(keys []string, draw func() uint64) []string {
	drawn := make([]string, benchLookups)
	for i := range drawn {
		drawn[i] = strings.Clone(keys[draw()])
	}
	return drawn
}

func zipf(keys []string) []string {
	return lookups(keys, rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 1, uint64(len(keys)-1)).Uint64)
}

func uniform(keys []string) []string {
	r := rand.New(rand.NewPCG(3, 4))
	return lookups(keys, func() uint64 { return r.Uint64N(uint64(len(keys))) })
}

// parallel runs op on about so many goroutines, one after the other for one.
// Each gets numbers of its own.
func parallel(b *testing.B, goroutines int, op func(worker, i int)) {
	b.Helper()
	b.ReportAllocs()
	b.ResetTimer()
	if goroutines == 1 {
		for i := range b.N {
			op(0, i)
		}
		return
	}
	b.SetParallelism(max(1, goroutines/runtime.GOMAXPROCS(0)))
	var workers atomic.Int32
	b.RunParallel(func(pb *testing.PB) {
		w := int(workers.Add(1))
		for i := 0; pb.Next(); i++ {
			op(w, i)
		}
	})
}

// fill puts all keys into p, and waits until a peer that takes its time has
// them.
func fill(p peer, keys []string) {
	for _, k := range keys {
		for range 100 {
			if p.put(k, new(nothing)) {
				break
			}
			runtime.Gosched()
		}
	}
	if r, ok := p.(ristrettoPeer); ok {
		r.Wait()
	}
}

// BenchmarkGet looks up sessions that exist, and starts their idle clocks again
// where there are any.
func BenchmarkGet(b *testing.B) { benchmarkGet(b, false) }

// BenchmarkAcquireRelease is the same, but layover's sessions are leased,
// confirmed and released. The peers have nothing like it and show their get.
func BenchmarkAcquireRelease(b *testing.B) { benchmarkGet(b, true) }

func benchmarkGet(b *testing.B, leases bool) {
	keys := uuids(benchEntries)
	drawn := map[string][]string{"zipf": zipf(keys), "uniform": uniform(keys)}
	for _, x := range peers {
		p := x.open(b, benchEntries)
		if ours, ok := p.(touching); ok && leases {
			p = leasing{ours}
		}
		fill(p, keys)
		for _, order := range []string{"zipf", "uniform"} {
			lookups := drawn[order]
			for _, goroutines := range []int{1, 16, 128} {
				b.Run(fmt.Sprintf("%s/goroutines=%d/peer=%s", order, goroutines, x.name), func(b *testing.B) {
					var misses atomic.Int64
					parallel(b, goroutines, func(w, i int) {
						if !p.get(lookups[(w*7919+i)%benchLookups]) {
							misses.Add(1)
						}
					})
					b.ReportMetric(100-100*float64(misses.Load())/float64(b.N), "hit%")
				})
			}
		}
		p.close()
	}
}

// BenchmarkPutWithEviction is a store that is full with a tenth of the keys: nine
// of ten operations get a key, every tenth puts one. A miss is no reason to put,
// so the hit ratio tells whom the peer keeps. All have the same time to learn.
func BenchmarkPutWithEviction(b *testing.B) {
	const maximum = benchEntries / 10
	keys := uuids(benchEntries)
	lookups := zipf(keys)
	for _, x := range []struct {
		name string
		open func(testing.TB) peer
	}{
		{"layover", func(tb testing.TB) peer { return leasing{touching{openLayover(tb, maximum)}} }},
		{"layover-lru", func(tb testing.TB) peer {
			return leasing{touching{openLayover(tb, maximum, layover.WithWhenFull(layover.EvictLRU))}}
		}},
		{"ttlcache", func(tb testing.TB) peer { return openTTLCache(tb, maximum) }},
		{"ristretto", func(tb testing.TB) peer { return openRistretto(tb, maximum) }},
	} {
		p := x.open(b)
		var gets, hits, refused atomic.Int64
		op := func(w, i int) {
			key := lookups[(w*7919+i)%benchLookups]
			if i%10 != 0 {
				gets.Add(1)
				if p.get(key) {
					hits.Add(1)
				}
			} else if !p.put(key, new(nothing)) {
				refused.Add(1)
			}
		}
		fill(p, keys[benchEntries-maximum:]) // with the rarest
		for i := range 2 * benchLookups {
			op(0, i)
		}
		for _, goroutines := range []int{1, 16} {
			b.Run(fmt.Sprintf("goroutines=%d/peer=%s", goroutines, x.name), func(b *testing.B) {
				gets.Store(0)
				hits.Store(0)
				refused.Store(0)
				parallel(b, goroutines, op)
				b.ReportMetric(100*float64(hits.Load())/float64(max(1, gets.Load())), "hit%")
				b.ReportMetric(100*float64(refused.Load())/float64(b.N), "refused%")
			})
		}
		p.close()
	}
}

// BenchmarkPutRemove makes and ends sessions beside 100,000 others. Those of
// layover are closed.
func BenchmarkPutRemove(b *testing.B) {
	const fresh = 1 << 12 // keys of one goroutine
	others, keys := uuids(benchEntries), uuids(64*fresh)
	for _, x := range peers {
		p := x.open(b, 2*benchEntries)
		fill(p, others)
		for _, goroutines := range []int{1, 16} {
			b.Run(fmt.Sprintf("goroutines=%d/peer=%s", goroutines, x.name), func(b *testing.B) {
				var refused atomic.Int64
				parallel(b, goroutines, func(w, i int) {
					key := keys[w%64*fresh+i%fresh]
					if !p.put(key, new(nothing)) {
						refused.Add(1)
					}
					p.remove(key)
				})
				b.ReportMetric(100*float64(refused.Load())/float64(b.N), "refused%")
			})
		}
		p.close()
	}
}
