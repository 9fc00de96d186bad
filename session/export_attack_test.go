// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"reflect"
)

// AttackSources returns the source of what belongs to the session of a call, and that of
// the session.
func AttackSources(ctx context.Context) (things, session string) {
	l := handleFrom(ctx).live.Load()
	b := l.session.(*statefulServerSession).belongings.Load()
	return reflect.ValueOf(b.things).Elem().FieldByName("source").String(), l.leased().Source()
}
