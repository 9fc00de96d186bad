// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// Carrier is a way in which a call says which session it means. Make one with
// [Cookie], [ByPrincipal] or [Header], and hand them to [WithCarriers].
type Carrier struct {
	name string // of the cookie or the metadata header
	kind carrierKind
	who  PrincipalFunc
}

type carrierKind uint8

const (
	cookieCarrier carrierKind = iota + 1
	principalCarrier
	headerCarrier
)

// Principal is what authentication has proved about a call.
type Principal struct {
	// Name is who calls: a user, a service. Empty: nobody in particular, and the
	// carrier finds no session. Sessions of one principal count as of one source,
	// "principal " and the name, see [layover.Origin].
	Name string

	// Key tells apart the sessions of one principal: a bearer token, the ID of a
	// JWT (its claim jti), of a login. Empty: the principal has one session. It
	// may be secret: the store gets a keyed hash of it.
	Key string

	// Expires is when the proof ends, and the session with it. Zero: never.
	Expires time.Time
}

// Format prints the name under every verb: the key may be secret.
func (p Principal) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "principal %q", p.Name) }

// MarshalText keeps the key out of structured logs, too.
func (p Principal) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "principal %q", p.Name), nil
}

// PrincipalFunc returns what authentication has proved about the call that ctx
// belongs to. It reads what an interceptor outside of this one has put into ctx,
// such as [flight.AuthFromContext]; what it reads from metadata it must verify
// itself. An error refuses the call: with its gRPC status if it has one, else
// with UNAUTHENTICATED and a text of ours. It is called on every Flight call, and
// with the context of the handler whenever that asks for its session, on several
// goroutines.
type PrincipalFunc func(ctx context.Context) (Principal, error)

// Cookie carries tokens in a cookie (RFC 6265): the server makes up a token and
// sets it in the reply's header, and the client brings it back. An empty name is
// [StatefulSessionCookieName].
//
// It suits clients that keep cookies, which most do not by default, see the
// README.
func Cookie(name string) Carrier {
	if name == "" {
		name = StatefulSessionCookieName
	}
	return Carrier{name: name, kind: cookieCarrier}
}

// ByPrincipal gives a session to what authentication has proved. No token
// travels: the session is found by the principal's name and key, is confirmed as
// soon as it exists, and ends no later than the proof.
//
// It suits clients that authenticate on every call, with or without cookies.
func ByPrincipal(who PrincipalFunc) Carrier {
	return Carrier{kind: principalCarrier, who: who}
}

// Header lets clients choose the key of their session in a metadata header, such
// as "x-session": those that can send a fixed header but keep no cookies
// (pyarrow, Rust, ADBC's rpc.call_header). The key is worth something only
// together with the principal that sends it: for another one it names another
// session. A session is confirmed as soon as it exists, and ends no later than
// the proof. The key has 1 to 256 bytes.
func Header(name string, who PrincipalFunc) Carrier {
	return Carrier{name: strings.ToLower(name), kind: headerCarrier, who: who}
}

const maxHeaderKey = 256 // bytes

// check returns what is wrong with a carrier.
func (c *Carrier) check() error {
	switch {
	case c.kind == 0:
		return errors.New("a zero Carrier: use Cookie, ByPrincipal or Header")
	case c.kind != cookieCarrier && c.who == nil:
		return errors.New("a carrier without a PrincipalFunc: nobody would be bound to the session")
	case c.kind != principalCarrier && !isToken(c.name):
		return fmt.Errorf("%q is no name of a cookie or a header", c.name)
	case c.kind == headerCarrier && (c.name == "cookie" || strings.HasPrefix(c.name, "grpc-") || strings.HasSuffix(c.name, "-bin")):
		return fmt.Errorf("the header %q has a meaning of its own", c.name)
	}
	return nil
}

// isToken reports whether s is a token of RFC 9110, section 5.6.2, as names of
// cookies and headers are.
func isToken(s string) bool { return (&http.Cookie{Name: s}).Valid() == nil }

// checkCarriers returns what is wrong with several carriers together.
func checkCarriers(all []Carrier) error {
	if len(all) == 0 {
		return errors.New("no carrier: no call could say which session it means")
	}
	cookies, principals := 0, 0
	for i := range all {
		c := &all[i]
		if err := c.check(); err != nil {
			return err
		}
		switch c.kind {
		case cookieCarrier:
			cookies++
		case principalCarrier:
			principals++
		case headerCarrier:
			if principals > 0 {
				return errors.New("Header after ByPrincipal: every principal has a session of its own, and the header would never be asked")
			}
		}
	}
	if cookies > 1 || principals > 1 {
		return errors.New("two carriers of one kind, of which the second would never be asked")
	}
	return nil
}

// named is the session that a call means by a principal of its own.
type named struct {
	id  string
	who Principal
	ask PrincipalFunc // that named it; nil: Begin did
}

// name returns the principal's; empty: there is none.
func (n *named) name() string {
	if n == nil {
		return ""
	}
	return n.who.Name
}

// errCarriers says that a call names several sessions.
var errCarriers = &callError{code: codes.InvalidArgument, reason: "SESSION_AMBIGUOUS",
	text: "the call names more than one session: send one of cookie, header and principal"}

// name asks the carriers that go by principal, in order. The first that a call
// presents counts; nil: none does.
func (m *interceptors) name(ctx context.Context) (*named, error) {
	for i := range m.derived {
		c := &m.derived[i]
		key, sent, err := c.key(ctx)
		if err != nil {
			return nil, err
		}
		if c.kind == headerCarrier && !sent {
			continue
		}
		who, err := c.who.ask(ctx)
		if err != nil {
			return nil, err
		}
		if who.Name == "" {
			if c.kind == headerCarrier {
				return nil, &callError{code: codes.Unauthenticated, text: "a session key counts only together with a principal", reason: "SESSION_KEY_WITHOUT_PRINCIPAL"}
			}
			continue
		}
		by := m.nameOf(c.kind, who, key)
		by.ask = c.who
		return by, nil
	}
	return nil, nil
}

// nameOf returns the session of a principal.
func (m *interceptors) nameOf(kind carrierKind, who Principal, header string) *named {
	if kind == headerCarrier {
		return &named{id: m.mint.derive("header", who.Name, header), who: who}
	}
	return &named{id: m.mint.derive("principal", who.Name, who.Key), who: who}
}

// key returns the key that the client chose.
func (c *Carrier) key(ctx context.Context) (key string, sent bool, _ error) {
	if c.kind != headerCarrier {
		return "", false, nil
	}
	values := metadata.ValueFromIncomingContext(ctx, c.name)
	if len(values) == 0 {
		return "", false, nil
	}
	key = textproto.TrimString(values[0])
	for _, other := range values[1:] {
		if textproto.TrimString(other) != key {
			return "", false, errCarriers
		}
	}
	if key == "" || len(key) > maxHeaderKey {
		return "", false, &callError{code: codes.InvalidArgument, reason: "SESSION_KEY_INVALID",
			text: fmt.Sprintf("a session key has 1 to %d bytes", maxHeaderKey)}
	}
	return key, true, nil
}

// ask runs the owner's function.
func (f PrincipalFunc) ask(ctx context.Context) (who Principal, err error) {
	defer contain(&err)
	who, err = f(ctx)
	if err == nil {
		return who, expired(who)
	}
	if ours := (*callError)(nil); errors.As(err, &ours) {
		return who, ours
	}
	if e := inOwnWords(err); e != nil {
		return who, e
	}
	return who, &callError{code: codes.Unauthenticated, text: "the call could not be authenticated", reason: "SESSION_UNAUTHENTICATED", cause: err}
}

func expired(who Principal) error {
	if who.Expires.IsZero() || time.Now().Before(who.Expires) {
		return nil
	}
	return &callError{code: codes.Unauthenticated, text: "what authenticates the call has expired", reason: "SESSION_UNAUTHENTICATED"}
}
