// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/metadata"

	"github.com/c8e4ff29/layover/session"
)

// carrier is the way in which a client says which session it means.
type carrier int

const (
	nothing carrier = iota // it keeps no cookies and has no name
	cookie
	header // of its own choice, together with its name
	proof  // of who it is
	inTurn // each connection another one
	crowd  // a cookie, and the name of one user for many
	alone  // a cookie, and a name of its own
)

const (
	// userHeader names the client's user. It stands for authentication.
	userHeader = "x-user"
	// loginHeader is what tells apart the logins of one user, as a bearer token
	// does.
	loginHeader = "x-login"
	keyHeader   = "x-session"
)

// principal returns what authentication has proved.
func principal(ctx context.Context) (session.Principal, error) {
	return session.Principal{Name: first(ctx, userHeader), Key: first(ctx, loginHeader)}, nil
}

func isNamed(ctx context.Context) bool { return first(ctx, userHeader) != "" }

func first(ctx context.Context, name string) string {
	if all := metadata.ValueFromIncomingContext(ctx, name); len(all) > 0 {
		return all[0]
	}
	return ""
}

// inJar reports whether a client keeps cookies.
func (c carrier) inJar() bool { return c == cookie || c == crowd || c == alone }

// cookie returns the cookie header of the client's session.
func (c *client) cookie() []string {
	const name = session.StatefulSessionCookieName
	return []string{name + "=" + c.jar.value(name)}
}

// identity returns the names and values of the headers that a client sends with
// every call. Users choose the same keys as others do, and log in twice at once:
// only both together tell whose session it is.
func (c *client) identity() []string {
	switch c.by {
	case header:
		return []string{userHeader, fmt.Sprint("user", c.id), keyHeader, fmt.Sprint("key", c.logins)}
	case proof:
		return []string{userHeader, fmt.Sprint("user", c.id/2), loginHeader, fmt.Sprintf("login%d.%d", c.id, c.logins)}
	case crowd:
		return []string{userHeader, fmt.Sprint("mob", c.id%2)}
	case alone:
		return []string{userHeader, fmt.Sprint("neighbour", c.id)}
	default:
		return nil
	}
}
