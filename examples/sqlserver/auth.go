// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/c8e4ff29/layover/session"
)

// tokenLifetime is for how long the token of a login counts.
const tokenLifetime = 24 * time.Hour

// users are those who may call, by password or by a token that is agreed upon. A
// login with a password gets a token, which needs no memory here: it is signed.
type users struct {
	passwords map[string]string            // by name
	tokens    map[[sha256.Size]byte]string // names, by the hash of the token: a look-up tells nothing of it
	key       []byte                       // of this process
}

func newUsers() *users {
	u := &users{passwords: make(map[string]string), tokens: make(map[[sha256.Size]byte]string), key: make([]byte, 32)}
	_, _ = rand.Read(u.key) // it never fails
	return u
}

// any reports whether anybody must authenticate.
func (u *users) any() bool { return len(u.passwords)+len(u.tokens) > 0 }

// add adds a user, "name:password", as the flag -user has it.
func (u *users) add(s string) error {
	return pair(s, func(name, password string) { u.passwords[name] = password })
}

// addToken adds a user with a token, "name:token", as the flag -token has it.
func (u *users) addToken(s string) error {
	return pair(s, func(name, token string) { u.tokens[sha256.Sum256([]byte(token))] = name })
}

func pair(s string, add func(name, secret string)) error {
	name, secret, ok := strings.Cut(s, ":")
	if !ok || name == "" || secret == "" {
		return errors.New("expected NAME:SECRET") // and no word of what was given
	}
	add(name, secret)
	return nil
}

// read adds the users of a file, one "name:password" a line.
func (u *users) read(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := u.add(line); err != nil {
			return fmt.Errorf("%s:%d: %w", file, n, err)
		}
	}
	return lines.Err()
}

var errCredentials = status.Error(codes.Unauthenticated, "unknown user, or wrong password")

// Validate returns a token for a user with the right password, as
// [flight.BasicAuthValidator] has it.
func (u *users) Validate(name, password string) (string, error) {
	want, known := u.passwords[name]
	given, right := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(given[:], right[:]) != 1 || !known {
		return "", errCredentials
	}
	claim := strings.Join([]string{
		base64.RawURLEncoding.EncodeToString([]byte(name)),
		strconv.FormatInt(time.Now().Add(tokenLifetime).Unix(), 10),
		rand.Text(), // so that logins of a user are different principals' keys
	}, ".")
	return claim + "." + u.sign(claim), nil
}

func (u *users) sign(claim string) string {
	mac := hmac.New(sha256.New, u.key)
	mac.Write([]byte(claim))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// identity is what authentication proves about a call. Its name is the principal.
type identity struct {
	name    string
	token   string
	expires time.Time
}

// String returns the name, which is all that anybody prints.
func (i identity) String() string { return i.name }

// IsValid returns whose token it is, as [flight.BasicAuthValidator] has it.
func (u *users) IsValid(token string) (any, error) {
	if name, ok := u.tokens[sha256.Sum256([]byte(token))]; ok {
		return identity{name: name, token: token}, nil
	}
	claim, mac := token, ""
	if i := strings.LastIndexByte(token, '.'); i >= 0 {
		claim, mac = token[:i], token[i+1:]
	}
	parts := strings.Split(claim, ".")
	if len(parts) != 3 || !hmac.Equal([]byte(mac), []byte(u.sign(claim))) {
		return nil, status.Error(codes.Unauthenticated, "unknown token")
	}
	name, err := base64.RawURLEncoding.DecodeString(parts[0])
	unix, err2 := strconv.ParseInt(parts[1], 10, 64)
	expires := time.Unix(unix, 0)
	if err != nil || err2 != nil || !time.Now().Before(expires) {
		return nil, status.Error(codes.Unauthenticated, "the token has expired: log in again")
	}
	return identity{name: string(name), token: token, expires: expires}, nil
}

// principal tells package session who calls. Each token has sessions of its own, so
// that two logins of one user do not meet in one transaction.
func principal(ctx context.Context) (session.Principal, error) {
	if i, ok := flight.AuthFromContext(ctx).(identity); ok {
		return session.Principal{Name: i.name, Key: i.token, Expires: i.expires}, nil
	}
	return session.Principal{}, nil
}
