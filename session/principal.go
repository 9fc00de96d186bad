// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"
	"weak"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/c8e4ff29/layover"
)

// DefaultPrincipal returns who calls, as far as it can tell by itself: what
// arrow-go's authentication has put into the context ([flight.AuthFromContext]),
// if that is a string or a [fmt.Stringer]; else whom the client's TLS certificate
// names, if the server has verified it; else nobody. Anything else that
// authentication has put there is an error: say who that is by [WithPrincipal].
//
// Names of certificates say what they are, and are those of no other kind:
//
//	x509 URI spiffe://cluster/ns/a
//	x509 subject CN=alice,OU=Sales,O=Example
//	x509 URI https://example.com/a
//	x509 DNS a.example
//	x509 email alice@example.com
//	x509 serial 7 of CN=Authority,O=Example
//
// The first that a certificate has counts: its SPIFFE ID, if its first URI is one, as
// workloads share their subject; the whole subject, the last part first (RFC 4514);
// of alternative names the first one. A subject or an issuer that has
// no unambiguous text is "#" and its DER in hexadecimal. It is an error if
// authentication puts a name there that begins with "x509 ".
func DefaultPrincipal(ctx context.Context) (who Principal, _ error) {
	switch auth := flight.AuthFromContext(ctx).(type) {
	case nil:
	case string:
		who.Name = auth
	case fmt.Stringer:
		who.Name = auth.String()
	default:
		return who, &callError{code: codes.Internal, text: noSession, reason: "SESSION_FAILED",
			cause: fmt.Errorf("session: authentication has put a %T into the context, which names nobody by itself: use WithPrincipal", auth)}
	}
	switch {
	case who.Name == "":
		who.Name = certified(ctx)
	case strings.HasPrefix(who.Name, certificateName): // somebody may have chosen it
		return Principal{}, &callError{code: codes.Internal, text: noSession, reason: "SESSION_FAILED",
			cause: errors.New("session: authentication has put a name into the context that begins as those of certificates do: use WithPrincipal")}
	}
	return who, nil
}

// certificateName begins the names of principals that are named by certificates.
const certificateName = "x509 "

// certified returns the name in the client's certificate, empty if there is none
// that was verified.
func certified(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	tls, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(tls.State.VerifiedChains) == 0 || len(tls.State.VerifiedChains[0]) == 0 {
		return ""
	}
	return nameOfCertificate(tls.State.VerifiedChains[0][0])
}

// certificateNames are the names of the certificates that there are: every call of
// a connection asks for the same one several times.
var certificateNames sync.Map // weak pointers to strings

// nameOfCertificate is nameIn, at once for a certificate that it knows.
func nameOfCertificate(leaf *x509.Certificate) string {
	key := weak.Make(leaf)
	if name, ok := certificateNames.Load(key); ok {
		return name.(string)
	}
	name := nameIn(leaf)
	if _, known := certificateNames.LoadOrStore(key, name); !known {
		runtime.AddCleanup(leaf, func(key weak.Pointer[x509.Certificate]) { certificateNames.Delete(key) }, key)
	}
	return name
}

// nameIn returns the name of a certificate. Each kind has a prefix of its own, lest
// one is taken for another one, or for a user.
func nameIn(leaf *x509.Certificate) string {
	uris := urisOf(leaf)
	if len(uris) > 0 && strings.HasPrefix(uris[0], "spiffe://") { // where subjects are alike
		return certificateName + "URI " + uris[0]
	}
	if subject := distinguished(leaf.RawSubject, leaf.Subject); subject != "" {
		return certificateName + "subject " + subject
	}
	switch {
	case len(uris) > 0:
		return certificateName + "URI " + uris[0]
	case len(leaf.DNSNames) > 0:
		return certificateName + "DNS " + leaf.DNSNames[0]
	case len(leaf.EmailAddresses) > 0:
		return certificateName + "email " + leaf.EmailAddresses[0]
	}
	return certificateName + "serial " + leaf.SerialNumber.String() + " of " + distinguished(leaf.RawIssuer, leaf.Issuer)
}

// urisOf returns the URIs of a certificate as it has them: what was parsed of them
// lacks an empty fragment, for one.
func urisOf(leaf *x509.Certificate) (uris []string) {
	for _, extension := range leaf.Extensions {
		if !extension.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) { // subjectAltName, RFC 5280, section 4.2.1.6
			continue
		}
		var names []asn1.RawValue
		if _, err := asn1.Unmarshal(extension.Value, &names); err != nil {
			continue
		}
		for _, name := range names {
			if name.Class == asn1.ClassContextSpecific && name.Tag == 6 {
				uris = append(uris, string(name.Bytes))
			}
		}
	}
	for _, parsed := range leaf.URIs {
		if len(leaf.Extensions) == 0 { // it never was in a certificate
			uris = append(uris, parsed.String())
		}
	}
	return uris
}

// distinguished returns the text of a name, from its DER if there is any: what was
// parsed of it lacks the order, and all but the last of several CNs.
func distinguished(der []byte, parsed pkix.Name) string {
	if len(der) == 0 { // it never was in a certificate
		return parsed.ToRDNSequence().String()
	}
	var all pkix.RDNSequence
	rest, err := asn1.Unmarshal(der, &all)
	if again, marshals := asn1.Marshal(all); err != nil || len(rest) > 0 || !isText(all) || marshals == nil && len(again) != len(der) {
		return "#" + hex.EncodeToString(der) // there is more in it than was understood
	}
	return all.String()
}

// isText reports whether two names with the same text are one: nothing in it is
// without a text, or was replaced by one.
func isText(all pkix.RDNSequence) bool {
	for _, several := range all {
		for _, one := range several {
			if text, ok := one.Value.(string); !ok || strings.ContainsRune(text, utf8.RuneError) {
				return false
			}
		}
	}
	return true
}

// caller returns who makes the call, by the carrier that named it or by
// [WithPrincipal].
func (h *handle) caller() (Principal, error) {
	if by := h.principal(); by != nil {
		return by.who, nil
	}
	return h.m.config.principal.ask(h.base)
}

// name is ask for those who need not know why it is not known.
func (f PrincipalFunc) name(ctx context.Context) (name string, known bool) {
	who, err := f.ask(ctx)
	return who.Name, err == nil
}

// authenticated returns the name of the DefaultPrincipal; empty if there is none.
// That it cannot be told is an error: whose name is not known is not nobody.
func authenticated(ctx context.Context) (string, error) {
	who, err := PrincipalFunc(DefaultPrincipal).ask(ctx)
	return who.Name, err
}

// owner is who a session must belong to.
type owner struct {
	name  string // empty: nobody, as of sessions of anonymous callers
	other string // the source of a session that is somebody else's
	found bool   // there is such a session
}

// principalSource begins the names of sources that are principals.
const principalSource = "principal "

// principalOf returns the principal that is a source; empty: that is none.
func principalOf(source string) string {
	name, named := strings.CutPrefix(source, principalSource)
	if !named {
		return ""
	}
	return name
}

// owns reports whether a session from a source is the owner's; of nil, any is. How
// long that takes tells nothing of the name that it is compared with, but for its
// length.
func (o *owner) owns(source string) bool {
	if o == nil {
		return true
	}
	name := principalOf(source)
	if subtle.ConstantTimeCompare([]byte(name), []byte(o.name)) == 1 {
		return true
	}
	o.other, o.found = source, true
	return false
}

// owner returns whose session it is; empty: of anonymous callers.
func (l *held) owner() string {
	switch s := l.session.(type) {
	case *statefulServerSession:
		name, _ := s.belongsTo()
		return name
	case *StatelessServerSession:
		return s.ownerName()
	}
	return principalOf(l.leased().Source())
}

// ownsHome is owns for a session from a store that is not of this package's: one
// that was made here knows whose it is; a copy does not, for which its token must
// do.
func (o *owner) ownsHome(s ServerSession) bool {
	own, ok := s.(*statefulServerSession)
	if !ok {
		return true
	}
	switch name, bound := own.belongsTo(); {
	case !bound:
		return true
	case name == "":
		return o.owns("")
	default:
		return o.owns(principalSource + name)
	}
}

// ownsLeased is owns for a session with its lease.
func (o *owner) ownsLeased(s ServerSession, l SessionLease) bool {
	if c, ok := l.(*copied); ok { // its store may be one of this package's behind another
		l = c.inner
	}
	if ours, ok := l.(*lease); ok {
		return o.owns(ours.Source())
	}
	return o.ownsHome(s)
}

// SecurityEventKind says what a [SecurityEvent] is about.
type SecurityEventKind uint8

// The kinds of security events.
const (
	// ForeignToken: a call brought the token of a session that belongs to another
	// principal, or to one while the caller is anonymous, or did so before it ended,
	// as far as that is remembered. It was treated like a token that never was. The
	// token may be stolen, or planted.
	ForeignToken SecurityEventKind = iota + 1
	// PrincipalHidden: a handler knows who calls, but the session interceptor knew
	// nobody, or somebody else, such as a gateway by its certificate: the one that
	// authenticates comes after it, where it must come before. The call gets no
	// session, or where sessions are made at once, one of nobody's that its handler
	// does not see.
	PrincipalHidden
)

// String returns "foreign token" or "principal hidden".
func (k SecurityEventKind) String() string {
	switch k {
	case ForeignToken:
		return "foreign token"
	case PrincipalHidden:
		return "principal hidden"
	}
	return fmt.Sprintf("SecurityEventKind(%d)", uint8(k))
}

// SecurityEvent tells of a call that may be an attack, or of a server that is
// open to one. It contains no token.
type SecurityEvent struct {
	Kind SecurityEventKind
	// Session is the session that the token names; zero if there is none.
	Session layover.Fingerprint
	// Owner is the source of that session: "principal " and a name, or the host
	// from which an anonymous caller made it.
	Owner string
	// Caller is the name of the call's principal; empty: an anonymous one.
	Caller string
	// Host is where the call came from, of an IPv6 address the /64.
	Host string
	// Count is how many events of this kind there were, with this one.
	Count uint64
}

// alarm reports a security event: to the owner's function and to the log.
func (m *interceptors) alarm(ctx context.Context, e SecurityEvent) {
	e.Count, e.Host = m.alarms[e.Kind].Add(1), sourceOf(ctx)
	key := lineKey{slog.LevelWarn, codes.PermissionDenied, e.Kind} // a flood of one kind must not hide another one
	if n := m.reporter.count(key); n > 0 {
		m.reporter.write(ctx, key, n, "layover: security: "+e.Kind.String(),
			slog.String("session", e.Session.String()), slog.String("owner", e.Owner), slog.String("caller", e.Caller),
			slog.String("host", e.Host), slog.Uint64("total", e.Count))
	}
	if m.config.alarm == nil {
		return
	}
	defer func() { _ = recover() }() // it is foreign code
	m.config.alarm(e)
}

// errHidden says that the session interceptor could not see who calls.
var errHidden = &callError{code: codes.Internal, reason: "SESSION_PRINCIPAL_HIDDEN",
	text: "the server looks for sessions before it authenticates; its owner must put authentication first"}

// seen is hidden, unless the handler says who calls.
func (h *handle) seen(ctx context.Context, who []Principal) error {
	if names(who) {
		return nil
	}
	return h.hidden(ctx)
}

// hidden returns errHidden if the handler's context names a principal, and that
// of the interceptor named nobody or somebody else, such as a gateway: all whom it
// takes for that one would share their sessions.
func (h *handle) hidden(ctx context.Context) error {
	if !h.m.binds() {
		return nil
	}
	who, by := h.m.config.principal, h.principal()
	if by != nil {
		who = by.ask
	}
	inside, known := who.name(ctx)
	if !known || inside == "" || by != nil && by.who.Name == inside {
		return nil
	}
	if l := h.live.Load(); by == nil && l != nil && l.owner() == inside {
		return nil // the session is whose it must be
	}
	if outside, known := who.name(h.base); !known || outside == inside {
		return nil
	}
	h.m.alarm(h.base, SecurityEvent{Kind: PrincipalHidden, Caller: inside})
	return errHidden
}
