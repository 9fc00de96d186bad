// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"hash/maphash"
	"sync"
)

// shards is how many parts the index has. Readers of different shards share
// nothing.
const shards = 64

// index finds entries by ID.
type index[S Session] struct {
	seed  maphash.Seed
	parts [shards]shard[S]
}

type shard[S Session] struct {
	sync.RWMutex
	entries map[string]*entry[S]
	_       [128 - 32]byte // a pair of cache lines each, so that neighbors do not slow each other
}

func newIndex[S Session]() *index[S] {
	x := &index[S]{seed: maphash.MakeSeed()}
	for i := range x.parts {
		x.parts[i].entries = make(map[string]*entry[S])
	}
	return x
}

func (x *index[S]) shard(id string) *shard[S] {
	return &x.parts[maphash.String(x.seed, id)%shards]
}

func (x *index[S]) get(id string) *entry[S] {
	sh := x.shard(id)
	sh.RLock()
	defer sh.RUnlock()
	return sh.entries[id]
}

// remove takes e out, unless another entry has its ID by now.
func (x *index[S]) remove(e *entry[S]) {
	sh := x.shard(e.id)
	sh.Lock()
	defer sh.Unlock()
	if sh.entries[e.id] == e {
		delete(sh.entries, e.id)
	}
}

// each calls f with the entries of one shard after another, copied, under no
// lock, until f returns false.
func (x *index[S]) each(f func([]*entry[S]) bool) {
	var batch []*entry[S]
	for i := range x.parts {
		sh := &x.parts[i]
		sh.RLock()
		batch = batch[:0]
		for _, e := range sh.entries {
			batch = append(batch, e)
		}
		sh.RUnlock()
		if len(batch) > 0 && !f(batch) {
			return
		}
	}
}
