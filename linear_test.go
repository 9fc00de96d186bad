// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package layover

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// What calls see of one ID is as if they came one after the other, each at some
// moment between its start and its end (Herlihy and Wing, "Linearizability: A
// Correctness Condition for Concurrent Objects", 1990).

// visit is what a call does, visited what it got: the session, by a number, and
// whether it found or put one.
type visit struct {
	do, id string
	value  int
}

type visited struct {
	value int
	ok    bool
}

// one is the sequential store of one session at most. The state is the number of
// the one that is filed, zero for none.
var one = porcupine.Model{
	Init: func() any { return 0 },
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byID := make(map[string][]porcupine.Operation)
		for _, op := range history {
			id := op.Input.(visit).id //nolint:forcetypeassert // what was put in
			byID[id] = append(byID[id], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byID {
			parts = append(parts, part)
		}
		return parts
	},
	Step: func(state, input, output any) (bool, any) {
		filed, in, out := state.(int), input.(visit), output.(visited) //nolint:forcetypeassert // what was put in
		switch in.do {
		case "add":
			if filed != 0 {
				return !out.ok, filed
			}
			return out.ok, in.value
		case "put":
			return out.ok, in.value
		case "remove":
			return out.ok == (filed != 0), 0
		}
		return out.ok == (filed != 0) && (!out.ok || out.value == filed), filed
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprint(input, " -> ", output) },
}

// numbered is a session that can be told from others.
type numbered struct{ n int }

func (*numbered) Close() error { return nil }

// call does one visit.
func call(s *Store[*numbered], in visit) (visited, error) {
	var v *numbered
	var err error
	var l Lease[*numbered]
	switch in.do {
	case "add":
		l, err = s.Add(in.id, &numbered{in.value}, Origin{})
		l.Release()
	case "put":
		err = s.Put(in.id, &numbered{in.value}, Origin{})
	case "remove":
		err = s.Remove(in.id)
	case "acquire":
		l, err = s.Acquire(in.id)
		v = l.Session()
		l.Release()
	case "peek":
		v, err = s.Peek(in.id)
	}
	if err != nil {
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) {
			err = nil
		}
		return visited{}, err
	}
	if v == nil {
		return visited{ok: true}, nil
	}
	return visited{v.n, true}, nil
}

func TestCallsAreLinearizable(t *testing.T) {
	for round := range 150 {
		s := openOf[*numbered](t)
		var mu sync.Mutex
		var history []porcupine.Operation
		var wg sync.WaitGroup
		start := time.Now()
		for client := range 5 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(round), uint64(client)))
				for i := range 20 {
					in := visit{[]string{"add", "put", "remove", "acquire", "peek"}[r.IntN(5)], fmt.Sprint(r.IntN(2)), client*1000 + i + 1}
					began := time.Since(start)
					out, err := call(s, in)
					ended := time.Since(start)
					if err != nil {
						t.Errorf("%+v: %v", in, err)
					}
					mu.Lock()
					history = append(history, porcupine.Operation{ClientId: client, Input: in, Call: int64(began), Output: out, Return: int64(ended)})
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if result := porcupine.CheckOperationsTimeout(one, history, 10*time.Second); result != porcupine.Ok {
			t.Fatalf("round %d: %v: %v", round, result, history)
		}
	}
}

func TestAHistoryThatIsNotLinearizableIsFound(t *testing.T) {
	put := porcupine.Operation{Input: visit{"put", "a", 1}, Call: 0, Output: visited{ok: true}, Return: 10}
	for name, x := range map[string]struct {
		in  visit
		out visited
	}{
		"not found after it was put": {visit{do: "peek", id: "a"}, visited{}},
		"another one than was put":   {visit{do: "acquire", id: "a"}, visited{2, true}},
		"added though it is there":   {visit{"add", "a", 2}, visited{ok: true}},
		"nothing to remove":          {visit{do: "remove", id: "a"}, visited{}},
	} {
		after := porcupine.Operation{ClientId: 1, Input: x.in, Call: 20, Output: x.out, Return: 30}
		if porcupine.CheckOperations(one, []porcupine.Operation{put, after}) {
			t.Errorf("%s: accepted", name)
		}
		if after.Call = 5; x.in.do != "acquire" && !porcupine.CheckOperations(one, []porcupine.Operation{put, after}) {
			t.Errorf("%s, at the same time: refused", name)
		}
	}
}
