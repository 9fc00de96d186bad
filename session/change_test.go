// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// A goroutine that an OnChange leaves behind with its context has no part in its turn:
// it may set options like any other, when it is its turn.
func TestAnOnChangeThatIsOverHoldsNoTurn(t *testing.T) {
	var left context.Context
	a := &session.Option[int64]{Name: "a", OnChange: func(ctx context.Context, from, _ int64) error {
		if from == 0 {
			left = ctx
		}
		return nil
	}}
	err := handling(t, edge(newStore(t)).Unary, "", func(ctx context.Context) {
		if err := errors.Join(a.Set(ctx, 1), a.Set(left, 2), a.Set(ctx, 3)); err != nil {
			t.Error(err)
		}
		if got, err := a.Get(ctx); got != 3 || err != nil {
			t.Errorf("%d, %v", got, err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// An OnChange that ends its goroutine has refused, and gives its turn back.
func TestAnOnChangeThatEndsItsGoroutineHasRefused(t *testing.T) {
	a := &session.Option[int64]{Name: "a", Default: 1, OnChange: func(_ context.Context, _, to int64) error {
		if to == 13 {
			runtime.Goexit()
		}
		return nil
	}}
	err := handling(t, edge(newStore(t)).Unary, "", func(ctx context.Context) {
		over := make(chan struct{})
		go func() {
			defer close(over)
			_ = a.Set(ctx, 13)
		}()
		<-over
		if got, err := a.Get(ctx); got != 1 || err != nil {
			t.Errorf("%d, %v", got, err)
		}
		if err := a.Set(ctx, 2); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Error(err)
	}
}

// If the store has no room for the old value any more, a change that was refused leaves
// the option unset, and not at what was refused.
func TestARefusedValueDoesNotStayForWantOfRoom(t *testing.T) {
	var log logBuffer
	other := &session.Option[string]{Name: "other"}
	text := &session.Option[string]{Name: "text", Default: "none", OnChange: func(ctx context.Context, from, to string) error {
		if to != "short" {
			return nil
		}
		return errors.Join(other.Set(ctx, from), errors.New("on purpose"))
	}}
	manager := session.NewStatefulServerSessionManager(session.WithStore(newStore(t, layover.WithMaxBytes(1500))))
	m := session.NewServerMiddleware(manager, session.WithLogger(log.logger()))
	err := handling(t, m.Unary, "", func(ctx context.Context) {
		if err := text.Set(ctx, strings.Repeat("x", 1000)); err != nil {
			t.Error(err)
		}
		if err := text.Set(ctx, "short"); err == nil {
			t.Error("it was not refused")
		}
		if got, err := text.Get(ctx); got != "none" || err != nil {
			t.Errorf("%.20q, %v", got, err)
		}
	})
	if err != nil || !strings.Contains(log.String(), "bytes") {
		t.Errorf("%v, log %.500q", err, log.String())
	}
}

// An OnChange that panics leaves no turn behind, and its text does not get out.
func TestAnOnChangeThatPanicsLeavesNoTurnBehind(t *testing.T) {
	a := &session.Option[int64]{Name: "a", OnChange: func(_ context.Context, _, to int64) error {
		if to == 13 {
			panic(plannedPanic)
		}
		return nil
	}}
	m := edge(newStore(t))
	token := firstToken(t, m, session.GetSessionFromContext)
	for range 2 {
		err := handling(t, m.Unary, token, func(ctx context.Context) {
			if err := a.Set(ctx, 13); err == nil || strings.Contains(err.Error(), plannedPanic) {
				t.Errorf("%v", err)
			}
			if err := a.Set(ctx, 1); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	}
}
