// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

func uuids(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = uuid.NewString()
	}
	return keys
}

// sources names who sent each of n entries: each sent so many of them.
func sources(n, each int) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = "source-" + strconv.Itoa(i/each)
	}
	return s
}

// draw returns n indexes below size.
func draw(n int, next func() uint64) []int {
	drawn := make([]int, n)
	for i := range drawn {
		drawn[i] = int(next())
	}
	return drawn
}

func zipfIndexes(n, size int) []int {
	return draw(n, rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 1, uint64(size-1)).Uint64)
}

func uniformIndexes(n, size int) []int {
	r := rand.New(rand.NewPCG(3, 4))
	return draw(n, func() uint64 { return r.Uint64N(uint64(size)) })
}

// copies returns keys by their indexes, each in memory of its own: a request
// brings a string of its own.
func copies(keys []string, indexes []int) []string {
	c := make([]string, len(indexes))
	for i, k := range indexes {
		c[i] = strings.Clone(keys[k])
	}
	return c
}

// memoryKey returns the same UUID for the same number.
func memoryKey(i int) string {
	r := rand.NewPCG(7, uint64(i))
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], r.Uint64())
	binary.NativeEndian.PutUint64(id[8:], r.Uint64())
	return id.String()
}

// floodKey returns the same 32 letters for the same numbers, and others for
// others, so that a million of them need not be remembered.
func floodKey(round, i int) string {
	r := rand.NewPCG(uint64(round), uint64(i))
	var b [16]byte
	for j := range 2 {
		x := r.Uint64()
		for k := range 8 {
			b[8*j+k] = byte(x >> (8 * k))
		}
	}
	return hex.EncodeToString(b[:])
}
