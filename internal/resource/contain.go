// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package resource

import (
	"runtime/debug"
	"time"

	"github.com/c8e4ff29/layover/janitor"
)

// within runs foreign code on a goroutine of its own, and waits for it for at most
// d: beyond that the error is ErrHangs, and the goroutine stays until the code
// returns. Whenever it does, returned is called, if it is not nil, before within
// knows.
func within(d time.Duration, f func() error, returned func()) error {
	done := start(f, returned)
	patience := time.NewTimer(d)
	defer patience.Stop()
	select {
	case err := <-done:
		return err
	case <-patience.C:
		return ErrHangs
	}
}

// apart runs foreign code on a goroutine of its own, and waits for it.
func apart(f func() error) error { return <-start(f, nil) }

// start runs foreign code on a goroutine of its own, which tells how it has ended.
func start(f func() error, returned func()) <-chan error {
	done := make(chan error, 1)
	go func() {
		err := janitor.ErrGoexit
		defer func() {
			if returned != nil {
				returned()
			}
			done <- err
		}()
		err = contained(f)
	}()
	return done
}

// contained turns a panic of foreign code into an error.
func contained(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &janitor.PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}
