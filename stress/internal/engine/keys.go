// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/stress/internal/await"
	"github.com/c8e4ff29/layover/stress/internal/promise"
)

// What calls see of one ID is as if they came one after the other, each at some
// moment between its start and its end (Herlihy and Wing, "Linearizability: A
// Correctness Condition for Concurrent Objects", 1990). The histories are those of a
// store in which nothing ends on its own, so that there is one right answer to each
// call.

// visit is what a call does, visited what it got: whether it went well, and the
// session that it found, by a number.
type visit struct {
	do    string
	id    int
	value int
}

type visited struct {
	value int
	ok    bool
}

// filed is the sequential store of one ID: which session goes by it, zero for none.
var filed = porcupine.Model{
	Init: func() any { return 0 },
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		parts := make([][]porcupine.Operation, idsOfKeys)
		for _, op := range history {
			id := op.Input.(visit).id //nolint:forcetypeassert // what was put in
			parts[id] = append(parts[id], op)
		}
		return parts
	},
	Step: func(state, input, output any) (bool, any) {
		return step(state.(int), input.(visit), output.(visited)) //nolint:forcetypeassert // what was put in
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(visit), output.(visited) //nolint:forcetypeassert // what was put in
		if !out.ok {
			return fmt.Sprintf("%s(%d) fails", in.do, in.value)
		}
		return fmt.Sprintf("%s(%d) = %d", in.do, in.value, out.value)
	},
	DescribeState: func(state any) string { return fmt.Sprint("session ", state) },
}

// step reports whether a call may answer this when so is filed, and what is then.
func step(before int, in visit, out visited) (ok bool, after int) {
	switch in.do {
	case "add":
		if before != 0 {
			return !out.ok, before
		}
		return out.ok, in.value
	case "put":
		return out.ok, in.value
	case "remove":
		return out.ok == (before != 0), 0
	}
	return out.ok == (before != 0) && (!out.ok || out.value == before), before
}

var visits = []string{"add", "put", "remove", "acquire", "get", "peek"}

const (
	idsOfKeys    = 2
	clientsOfIDs = 5
	callsOfEach  = 30
)

// keyed is a session that is told from others by a number.
type keyed struct{ n int }

// Close does nothing.
func (*keyed) Close() error { return nil }

// keys has a few clients use two IDs at once, and checks the history of what they
// saw.
func (c *client) keys(ctx context.Context) {
	store, err := layover.New[*keyed](layover.WithLogger(nil))
	if !c.Expect(promise.Linear, err == nil, "a store cannot be made: %v", err) {
		return
	}
	defer func() { _ = store.Shutdown(context.Background()) }()
	var (
		all     sync.WaitGroup
		mu      sync.Mutex
		history []porcupine.Operation
		began   = time.Now()
	)
	for who := range clientsOfIDs {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), uint64(who)))
		all.Go(func() {
			for i := range callsOfEach {
				in := visit{visits[rng.IntN(len(visits))], rng.IntN(idsOfKeys), who*1000 + i + 1}
				start := time.Since(began)
				out, err := in.call(store)
				end := time.Since(began)
				c.Expect(promise.Linear, err == nil, "%s failed: %v", in.do, err)
				c.run.calls.Add(1)
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: who, Input: in, Call: int64(start), Output: out, Return: int64(end)})
				mu.Unlock()
			}
		})
	}
	all.Wait()
	c.linear(history)
	await.Pause(ctx, 5*time.Millisecond)
}

// call does what a visit is.
func (in visit) call(s *layover.Store[*keyed]) (visited, error) {
	id := fmt.Sprint("key", in.id)
	var v *keyed
	var err error
	switch in.do {
	case "add":
		var l layover.Lease[*keyed]
		l, err = s.Add(id, &keyed{in.value}, layover.Origin{})
		l.Release()
	case "put":
		err = s.Put(id, &keyed{in.value}, layover.Origin{})
	case "remove":
		err = s.Remove(id)
	case "acquire":
		var l layover.Lease[*keyed]
		l, err = s.Acquire(id)
		v = l.Session()
		l.Release()
	case "get":
		v, err = s.Get(id)
	case "peek":
		v, err = s.Peek(id)
	}
	switch {
	case errors.Is(err, layover.ErrNotFound), errors.Is(err, layover.ErrExists):
		return visited{}, nil
	case err != nil:
		return visited{}, err
	case v != nil:
		return visited{v.n, true}, nil
	}
	return visited{ok: true}, nil
}

// linear checks a history, and has a picture made of one that is not linearizable.
func (c *client) linear(history []porcupine.Operation) {
	slices.SortFunc(history, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	result, info := porcupine.CheckOperationsVerbose(filed, history, 10*time.Second)
	if result != porcupine.Illegal {
		c.Expect(promise.Linear, true, "")
		return
	}
	picture, err := draw(c.run.Pictures, info)
	if err != nil {
		picture = fmt.Sprintf("(not written: %v)", err)
	}
	c.Expect(promise.Linear, false, "no order of %d calls on %d IDs explains what they returned, see the picture %s", len(history), idsOfKeys, picture)
}

// draw writes the picture of a history into a folder, or one for temporary files.
func draw(folder string, info porcupine.LinearizationInfo) (string, error) {
	f, err := os.CreateTemp(folder, "history-*.html")
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(porcupine.Visualize(filed, info, f), f.Close())
}
