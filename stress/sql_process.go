// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// sqlProcess is the Flight SQL server of another module, built and run as a child
// process: what it promises is seen from outside.
type sqlProcess struct {
	cmd     *exec.Cmd
	folder  string // of the binary
	temp    string // where it may leave temporary files
	addr    string
	numbers string // URL
	exited  chan struct{}
	err     error // of its end

	mu  sync.Mutex
	log []string // its last lines
}

// startSQL builds the server in a folder, with the race detector if this process has
// it, and starts it with these flags.
func startSQL(ctx context.Context, module string, flags ...string) (_ *sqlProcess, err error) {
	p := &sqlProcess{exited: make(chan struct{})}
	if p.folder, err = os.MkdirTemp("", "stress"); err != nil {
		return nil, err
	}
	p.temp = filepath.Join(p.folder, "temp")
	if err := os.Mkdir(p.temp, 0o700); err != nil {
		return nil, err
	}
	binary := filepath.Join(p.folder, "sqlserver")
	build := []string{"build", "-o", binary}
	if raceDetector {
		build = append(build, "-race")
	}
	b := exec.CommandContext(ctx, "go", append(build, ".")...)
	b.Dir = module
	if out, err := b.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("go build in %s: %w\n%s", module, err, out), os.RemoveAll(p.folder))
	}
	if err := p.start(binary, flags); err != nil {
		return nil, errors.Join(err, os.RemoveAll(p.folder))
	}
	return p, nil
}

// start starts the process, and waits until it says where it listens.
func (p *sqlProcess) start(binary string, flags []string) error {
	p.cmd = exec.Command(binary, append(flags, "-addr", "127.0.0.1:0", "-debug", "127.0.0.1:0")...)
	p.cmd.Env = append(os.Environ(), "TMPDIR="+p.temp, "GORACE=halt_on_error=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	ready := make(chan struct{})
	go func() {
		defer close(p.exited)
		p.read(stderr, ready)
		p.err = p.cmd.Wait()
	}()
	select {
	case <-ready:
		return nil
	case <-p.exited:
		return fmt.Errorf("the server ends at once: %w\n%s", p.err, p.tail())
	case <-time.After(answerTime):
		_ = p.cmd.Process.Kill()
		<-p.exited
		return fmt.Errorf("the server does not say within %s where it listens:\n%s", answerTime, p.tail())
	}
}

// Where the server says that it listens.
var (
	addrLine    = regexp.MustCompile(`serving Flight SQL"? address=(\S+)`)
	numbersLine = regexp.MustCompile(`serving numbers"? url=(\S+)`)
)

// read reads the log of the process to its end.
func (p *sqlProcess) read(log io.Reader, ready chan struct{}) {
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		p.mu.Lock()
		if p.log = append(p.log, line); len(p.log) > 200 {
			p.log = p.log[1:]
		}
		p.mu.Unlock()
		if m := numbersLine.FindStringSubmatch(line); m != nil {
			p.numbers = m[1]
		}
		if m := addrLine.FindStringSubmatch(line); m != nil && p.addr == "" {
			p.addr = m[1]
			close(ready)
		}
	}
	_, _ = io.Copy(io.Discard, log) // a line that is too long must not block it
}

// tail returns the last lines of the log.
func (p *sqlProcess) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.log, "\n")
}

// sqlNumbers are what the server says of itself at one moment, more or less: it does
// not stop to count.
type sqlNumbers struct {
	Connections int64 `json:"connections"`       // really open
	Alone       int64 `json:"connections_alone"` // of these, for calls without a session
	Open        int64 `json:"resources_open"`
	Places      int64 `json:"resources_places"` // open, being opened, and closing
	Hung        int64 `json:"resources_hung"`
	Sessions    int64 `json:"sessions"`
	Retired     int64 `json:"sessions_retired"`
	Closing     int64 `json:"sessions_closing"`
	Created     int64 `json:"sessions_created"`
}

// poll asks the server for its numbers.
func (p *sqlProcess) poll(ctx context.Context) (n sqlNumbers, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.numbers, http.NoBody)
	if err != nil {
		return n, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return n, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return n, fmt.Errorf("the server's numbers: %s", res.Status)
	}
	return n, json.NewDecoder(res.Body).Decode(&n)
}

// stop asks the process to end, as an operator does, and returns how it did. What it
// leaves behind is in left.
func (p *sqlProcess) stop(patience time.Duration) (left []string, err error) {
	defer func() { _ = os.RemoveAll(p.folder) }()
	http.DefaultClient.CloseIdleConnections()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.exited
		return nil, fmt.Errorf("it does not end within %s of SIGTERM", patience)
	}
	entries, err := os.ReadDir(p.temp)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	return left, errors.Join(p.err, err)
}
