// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"weak"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/c8e4ff29/layover/internal/token"
)

// newCache returns a cache that is closed when the test ends.
func newCache(t testing.TB, maxBytes int64) *token.Cache[string] {
	c := token.NewCache[string](maxBytes)
	t.Cleanup(c.Close)
	return c
}

func wantFound(t testing.TB, c *token.Cache[string], text, want string) {
	t.Helper()
	if got, ok := c.Get(text); !ok || got != want {
		t.Errorf("%q: %q, %t, want %q", text, got, ok, want)
	}
}

func wantMiss(t testing.TB, c *token.Cache[string], text string) {
	t.Helper()
	if got, ok := c.Get(text); ok || got != "" {
		t.Errorf("%q: %q, %t, want none", text, got, ok)
	}
}

// What was put is found until it is removed, or all is cleared.
func TestWhatWasPutIsFoundUntilItIsRemoved(t *testing.T) {
	c := newCache(t, 1<<20)
	wantMiss(t, c, "a")
	c.Put("a", "1", 1)
	c.Put("b", "2", 1)
	c.Wait()
	wantFound(t, c, "a", "1")
	wantFound(t, c, "b", "2")
	c.Put("a", "3", 1)
	wantFound(t, c, "a", "3")
	c.Remove("a")
	wantMiss(t, c, "a")
	wantFound(t, c, "b", "2")
	c.Clear()
	wantMiss(t, c, "b")
	c.Put("b", "4", 1)
	c.Wait()
	wantFound(t, c, "b", "4")
}

// Whatever is done to a cache, it finds nothing but what was put for that very token
// last, and what it keeps fits; even if tokens have the same hash.
func TestACacheFindsWhatWasPutLastOrNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.Int64Range(0, 20_000).Draw(t, "most")
		c := token.NewCache[int](most)
		defer c.Close()
		if hashes := rapid.Uint64Range(0, 4).Draw(t, "hashes"); hashes > 0 {
			c.SetHash(func(token string) uint64 { return uint64(token[0]) % hashes })
		}
		waits := rapid.Bool().Draw(t, "waits") // after each step, or never
		could := make(map[string][]int)        // what may be found
		steps := rapid.IntRange(1, 60).Draw(t, "steps")
		for i := range steps {
			text := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "token")
			switch rapid.SampledFrom([]string{"put", "put", "put", "remove", "clear"}).Draw(t, "do") {
			case "put":
				c.Put(text, i, rapid.Int64Range(0, 3000).Draw(t, "bytes"))
				if waits {
					could[text] = nil
				}
				could[text] = append(could[text], i)
			case "remove":
				c.Remove(text)
				delete(could, text)
			case "clear":
				if i%5 == 0 { // now and then
					c.Clear()
					clear(could)
				}
			}
			if waits {
				c.Wait()
			}
			for _, text := range []string{"a", "b", "c", "d", "e", "f"} {
				if got, ok := c.Get(text); ok && !slices.Contains(could[text], got) {
					t.Fatalf("step %d: %q: %d, want one of %v, or none", i, text, got, could[text])
				}
			}
		}
		c.Wait()
		if n := c.Waiting(); n != 0 {
			t.Errorf("a cost of %d waits for nothing", n)
		}
		if s := c.Stats(); s.Bytes < 0 || s.Bytes > most {
			t.Errorf("it keeps %d, more than %d", s.Bytes, most)
		}
	})
}

// Two tokens that have the same hash are not taken for each other.
func TestTokensOfTheSameHashAreNotConfused(t *testing.T) {
	c := newCache(t, 1<<20)
	c.SetHash(func(string) uint64 { return 7 })
	c.Put("a", "of a", 1)
	c.Wait()
	wantFound(t, c, "a", "of a")
	wantMiss(t, c, "b")
	c.Put("b", "of b", 1)
	c.Wait()
	wantMiss(t, c, "a")
	wantFound(t, c, "b", "of b")
}

// However many tokens come, and however fast, what is kept and what waits for it fit
// into the cache.
func TestAFloodOfTokensStaysWithinTheCache(t *testing.T) {
	const most = 1 << 20
	c := newCache(t, most)
	flood := func(n, times int, wait bool) {
		for i := range times {
			c.Put(fmt.Sprint(n, " ", i, strings.Repeat("x", 300)), "flood", int64(i%700))
			if wait {
				c.Wait()
			}
			if s := c.Stats(); s.Bytes < 0 || s.Bytes > most*7/8 {
				t.Errorf("it keeps %d", s.Bytes)
				return
			}
		}
	}
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() { flood(n, 3000, false) })
	}
	wg.Wait()
	flood(5, 2000, true)
	if s := c.Stats(); s.Bytes < most*3/4 {
		t.Errorf("it keeps no more than %d", s.Bytes)
	}
	if n := c.Waiting(); n != 0 {
		t.Errorf("a cost of %d waits for nothing", n)
	}
}

// What waits for being kept is a small part of the cache.
func TestWhatWaitsIsBounded(t *testing.T) {
	const most = 80_000
	c := newCache(t, most)
	for i := range 3000 {
		c.Put(fmt.Sprint(i), "x", 1000)
		if n := c.Waiting(); n < 0 || n > most/8 {
			t.Fatalf("%d waits", n)
		}
	}
}

// If there is no room to wait for a value, the one from before is not found either.
func TestNoOldValueStaysWhenANewOneCannotWait(t *testing.T) {
	const most = 80_000
	c := newCache(t, most)
	c.Put("a", "1", 1)
	c.Put("b", "1", 1)
	c.Wait()
	c.Occupy(most / 8)
	c.Put("a", "2", 1)
	wantMiss(t, c, "a")
	wantFound(t, c, "b", "1")
	c.Occupy(-most / 8)
	c.Put("a", "3", 1)
	c.Wait()
	wantFound(t, c, "a", "3")
}

// A value that grows is room that is made, or it is not kept.
func TestAValueThatGrowsStaysWithinTheCache(t *testing.T) {
	const most = 100_000
	c := newCache(t, most)
	for size := range int64(30) {
		for i := range 100 {
			text := fmt.Sprint(i)
			c.Put(text, fmt.Sprint(size), size*500)
			c.Wait()
			if got, ok := c.Get(text); ok && got != fmt.Sprint(size) {
				t.Fatalf("%q: %q, which was put before", text, got)
			}
			if s := c.Stats(); s.Bytes > most {
				t.Fatalf("it keeps %d", s.Bytes)
			}
		}
	}
}

// What has no room is not kept, and drives out nothing.
func TestWhatIsTooLargeIsNotKept(t *testing.T) {
	c := newCache(t, 80_000)
	c.Put("a", "1", 1)
	c.Wait()
	for _, n := range []int64{10_000, 80_000, 1<<63 - 1} {
		c.Put("b", "2", n)
		c.Wait()
		wantMiss(t, c, "b")
		wantFound(t, c, "a", "1")
	}
	c.Put("c", "3", -1<<63)
	c.Wait()
	if s := c.Stats(); s.Bytes < 0 || s.Bytes > 80_000 {
		t.Errorf("it keeps %d", s.Bytes)
	}
	c.Put("a", "too large now", 1<<40)
	wantMiss(t, c, "a")
	for _, most := range []int64{0, -1, -1 << 63, 1, 100} {
		c := newCache(t, most)
		c.Put("a", "1", 1)
		c.Wait()
		wantMiss(t, c, "a")
	}
}

// A cache that nothing is put into has no goroutines, and need not be closed.
func TestACacheStartsWithTheFirstPut(t *testing.T) {
	c := token.NewCache[string](1 << 20)
	wantMiss(t, c, "a")
	c.Remove("a")
	c.Clear()
	c.Stats()
	goleak.VerifyNone(t)
	before := runtime.NumGoroutine()
	c.Put("a", "1", 1)
	if runtime.NumGoroutine() == before {
		t.Error("there is no goroutine, so this test finds none")
	}
	c.Close()
	goleak.VerifyNone(t)
}

// After Close nothing is found and nothing runs, whatever is put.
func TestAClosedCacheKeepsNothing(t *testing.T) {
	for _, used := range []bool{false, true} {
		c := token.NewCache[string](1 << 20)
		if used {
			c.Put("a", "1", 1)
			c.Wait()
		}
		for range 2 {
			c.Close()
			c.Put("a", "1", 1)
			c.Wait()
			wantMiss(t, c, "a")
			c.Remove("a")
			c.Clear()
			if s := c.Stats(); s.Bytes != 0 {
				t.Errorf("it keeps %d", s.Bytes)
			}
			goleak.VerifyNone(t)
		}
	}
}

// Values are garbage once they are removed, cleared, or the cache is closed.
func TestValuesAreNotHeldAfterwards(t *testing.T) {
	for name, do := range map[string]func(c *token.Cache[*[1000]byte]){
		"removed": func(c *token.Cache[*[1000]byte]) { c.Remove("a"); c.Wait() },
		"cleared": func(c *token.Cache[*[1000]byte]) { c.Clear() },
		"closed":  func(c *token.Cache[*[1000]byte]) { c.Close() },
	} {
		c := token.NewCache[*[1000]byte](1 << 20)
		w := func() weak.Pointer[[1000]byte] {
			v := new([1000]byte)
			c.Put("a", v, 1000)
			c.Wait()
			return weak.Make(v)
		}()
		if got, ok := c.Get("a"); !ok || got != w.Value() {
			t.Errorf("%s: not found before", name)
		}
		do(c)
		runtime.GC()
		if w.Value() != nil {
			t.Errorf("%s: it is held", name)
		}
		c.Close()
	}
}

// A cache counts what it is asked for.
func TestACacheCountsHitsAndMisses(t *testing.T) {
	c := newCache(t, 1<<20)
	c.Put("a", "1", 100)
	c.Wait()
	for range 3 {
		c.Get("a")
		c.Get("b")
		c.Get("c")
	}
	s := c.Stats()
	if s.Hits != 3 || s.Misses != 6 || s.Bytes < 101 || s.Bytes > 1000 {
		t.Errorf("%+v", s)
	}
	c.Close()
	c.Get("a")
	if s := c.Stats(); s.Hits != 3 || s.Misses != 7 || s.Bytes != 0 {
		t.Errorf("%+v", s)
	}
}

// All may be called at any time, Close too, and nobody gets another one's value.
func TestACacheMayBeClosedWhileItIsUsed(t *testing.T) {
	for range 20 {
		c := token.NewCache[string](100_000)
		var wg sync.WaitGroup
		for n := range 4 {
			r := rand.New(rand.NewPCG(uint64(n), 1))
			wg.Go(func() {
				for i := range 1000 {
					text := fmt.Sprint(r.IntN(200))
					switch x := r.IntN(1000); {
					case x < 250:
						c.Put(text, text, 500)
					case x < 300:
						c.Remove(text)
					case x == 300:
						c.Clear()
					case x == 301:
						c.Stats()
					default:
						if got, ok := c.Get(text); ok && got != text {
							t.Errorf("%q: %q", text, got)
						}
					}
					if i == 500+n*100 && n > 1 {
						c.Close()
					}
				}
			})
		}
		wg.Wait()
		c.Close()
		goleak.VerifyNone(t)
	}
}

func BenchmarkCacheGet(b *testing.B) {
	c := newCache(b, 64<<20)
	texts := make([]string, 1000)
	for i := range texts {
		texts[i] = fmt.Sprint(i, strings.Repeat("x", 400))
		c.Put(texts[i], "1", 500)
	}
	c.Wait()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := rand.IntN(len(texts)); pb.Next(); i++ {
			c.Get(texts[i%len(texts)])
		}
	})
}

func BenchmarkCachePut(b *testing.B) {
	c := newCache(b, 64<<20)
	tail := strings.Repeat("x", 400)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Put(fmt.Sprint(i)+tail, "1", 500)
	}
}
