// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// childVariable names the peer that a process serves, and makes it a child.
const childVariable = "LAYOVER_BENCHMARKS_PEER"

// A job is what the parent asks of a child, one line of JSON.
type job struct {
	Workload string
	Pass     int
	Time     time.Duration
	Sizes    sizes
}

// An answer is what the child returns, one line of JSON.
type answer struct {
	Metrics metrics
	Error   string `json:",omitempty"`
}

// metrics are numbers by name. What a peer cannot do is missing.
type metrics map[string]float64

// sizes say how large the workloads are.
type sizes struct {
	Entries int // live ones in the speed workloads
	Lookups int // drawn beforehand, a power of two
	Fresh   int // keys of each goroutine in churn, a power of two

	Million int           // entries in memory, expiry and idle
	Ahead   time.Duration // filling is done before so much has passed
	Limit   time.Duration // how long expiry may take
	Idle    time.Duration // how long idle is watched

	Capacity  int // in flood
	Honest    int // sessions that live through the flood
	PerSource int // honest sessions of one source
	Newcomers int // honest newcomers in a round
	Flood     int // newcomers of the flood in a round
	Rounds    int
}

var fullSizes = sizes{
	Entries: 100_000, Lookups: 1 << 17, Fresh: 1 << 10,
	Million: 1_000_000, Ahead: 3 * time.Second, Limit: 30 * time.Second, Idle: 5 * time.Second,
	Capacity: 10_000, Honest: 8_000, PerSource: 20, Newcomers: 100, Flood: 1_000_000, Rounds: 3,
}

// child is a process that serves one peer.
type child struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	enc *json.Encoder
	dec *json.Decoder
}

func start(peer string) (*child, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), childVariable+"="+peer)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd: cmd, in: in, enc: json.NewEncoder(in), dec: json.NewDecoder(out)}, nil
}

func (c *child) do(j job) (metrics, error) {
	var a answer
	if err := c.enc.Encode(j); err != nil {
		return nil, err
	}
	if err := c.dec.Decode(&a); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, errors.New(a.Error)
	}
	return a.Metrics, nil
}

// stop ends the process by ending its input.
func (c *child) stop() {
	_ = c.in.Close()
	_ = c.cmd.Wait()
}

func isChild() bool { return os.Getenv(childVariable) != "" }

// serve does jobs until there are none. What a group of workloads has built up
// stays for the next job.
func serve(r io.Reader, w io.Writer) error {
	k, err := findKind(os.Getenv(childVariable))
	if err != nil {
		return err
	}
	dec, enc := json.NewDecoder(r), json.NewEncoder(w)
	s := &subject{kind: k}
	for {
		var j job
		if err := dec.Decode(&j); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		var a answer
		a.Metrics, err = s.do(j)
		if err != nil {
			a.Error = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
}

// subject is one peer in its process, with what the workloads keep of it.
type subject struct {
	kind
	hits  *hits
	evict map[bool]*evict // by whether hits are leases
	churn *churn
}

func (s *subject) do(j job) (metrics, error) {
	for _, w := range workloads() {
		if w.name == j.Workload {
			return w.run(s, j)
		}
	}
	return nil, fmt.Errorf("no workload %q", j.Workload)
}
