// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package token_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/c8e4ff29/layover/internal/token"
)

var update = flag.Bool("update", false, "write other test vectors, which only a new version of the format may need")

var vectorsFile = filepath.Join("testdata", "v1.json")

// hexBytes are written in hexadecimal.
type hexBytes []byte

func (b hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

func (b *hexBytes) UnmarshalText(text []byte) (err error) {
	*b, err = hex.DecodeString(string(text))
	return err
}

// vector is a token, and what opening it with these keys must give: claims or an error.
type vector struct {
	Name     string        `json:"name"`
	Key      hexBytes      `json:"key"`
	Former   []hexBytes    `json:"former,omitempty"`
	Cookie   string        `json:"cookie"`
	Audience string        `json:"audience"`
	Token    string        `json:"token"`
	Claims   *vectorClaims `json:"claims,omitempty"`
	Error    string        `json:"error,omitempty"`
}

// vectorClaims has times in Unix milliseconds.
type vectorClaims struct {
	ID        hexBytes `json:"id"`
	Issued    int64    `json:"issued"`
	Used      int64    `json:"used"`
	Expires   int64    `json:"expires"` // 0: never
	Principal string   `json:"principal"`
	Held      bool     `json:"held"`
	Change    uint64   `json:"change,string"`
	Options   hexBytes `json:"options"`
}

func (v *vectorClaims) claims() token.Claims {
	c := token.Claims{
		ID: token.ID(v.ID), Issued: time.UnixMilli(v.Issued).UTC(), Used: time.UnixMilli(v.Used).UTC(),
		Principal: v.Principal, Held: v.Held, Change: v.Change, Options: v.Options,
	}
	if v.Expires != 0 {
		c.Expires = time.UnixMilli(v.Expires).UTC()
	}
	return c
}

// sealer returns the one that must open the vector, or must not.
func (v *vector) sealer(t testing.TB) *token.Sealer {
	t.Helper()
	former := make([][]byte, len(v.Former))
	for i := range v.Former {
		former[i] = v.Former[i]
	}
	r, err := token.NewRing(v.Key, former...)
	if err != nil {
		t.Fatal(err)
	}
	return token.NewSealer(r, v.Cookie, v.Audience)
}

func readVectors(t testing.TB) (vectors []vector) {
	t.Helper()
	text, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// Tokens that were sealed once are opened by all releases that know version 1.
func TestTokensOfOtherReleasesAreOpened(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	reasons := map[string]error{"form": token.ErrForm, "key": token.ErrKey, "forged": token.ErrForged}
	missing := map[string]bool{"": true, "form": true, "key": true, "forged": true}
	for _, v := range readVectors(t) {
		delete(missing, v.Error)
		t.Run(v.Name, func(t *testing.T) {
			s := v.sealer(t)
			if v.Claims == nil {
				wantErr(t, s, v.Token, reasons[v.Error])
				return
			}
			c, _, err := s.Open(v.Token)
			if err != nil {
				t.Fatal(err)
			}
			wantClaims(t, c, v.Claims.claims())
			if n := len(seal(s, &c)); n != len(v.Token) {
				t.Errorf("it would have %d characters now, not %d", n, len(v.Token))
			}
		})
	}
	if len(missing) != 0 {
		t.Errorf("no vectors of %v", missing)
	}
}

// The first vector is opened step by step, by nothing but the standard library, as
// other implementations may do it.
func TestTheFormatIsAsDocumented(t *testing.T) {
	v := readVectors(t)[0]
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	b, err := base64.RawURLEncoding.DecodeString(v.Token)
	ok(err)
	version, keyID, salt, nonce, sealed := b[:1], b[1:5], b[5:21], b[21:33], b[33:]
	if version[0] != 1 {
		t.Fatalf("version %d", version[0])
	}

	id, err := hkdf.Expand(sha256.New, v.Key, "layover token key id", 32)
	ok(err)
	if !bytes.Equal(id[:4], keyID) {
		t.Fatalf("key id %x, want %x", keyID, id[:4])
	}
	key, err := hkdf.Expand(sha256.New, v.Key, "layover token 1\x00"+string(keyID)+string(salt), 32)
	ok(err)
	block, err := aes.NewCipher(key)
	ok(err)
	gcm, err := cipher.NewGCM(block)
	ok(err)
	associated := append([]byte{1}, keyID...)
	associated = append(append(associated, byte(len(v.Cookie))), v.Cookie...)
	associated = append(append(associated, byte(len(v.Audience))), v.Audience...)
	payload, err := gcm.Open(nil, nonce, sealed, associated)
	ok(err)

	// Its numbers: 1 is below 128, and each other byte but the last of a number has its
	// highest bit set.
	number := func() (n uint64) {
		for shift := 0; ; shift += 7 {
			x := payload[0]
			payload = payload[1:]
			n |= uint64(x&0x7f) << shift
			if x < 0x80 {
				return n
			}
		}
	}
	flags := payload[0]
	payload = payload[1:]
	issued := number()
	used := issued + number()
	expires, change := number(), number()
	session := payload[:16]
	payload = payload[16:]
	length := number()
	principal, options := payload[:length], payload[length:]

	got := vectorClaims{
		ID: session, Issued: int64(issued), Used: int64(used), Expires: int64(expires), Principal: string(principal),
		Held: flags == 1, Change: change, Options: options,
	}
	wantClaims(t, got.claims(), v.Claims.claims())
}

// writeVectors writes new ones. Tokens differ each time.
func writeVectors(t *testing.T) {
	full := vectorClaims{
		ID: hexBytes(strings.Repeat("id", 8)), Issued: 1_790_000_000_123, Used: 1_790_000_060_456, Expires: 1_790_003_600_000,
		Principal: "CN=somebody", Held: true, Change: 300, Options: hexBytes("options of the session"),
	}
	empty := vectorClaims{ID: make(hexBytes, 16)}
	most := vectorClaims{
		ID: bytes.Repeat(hexBytes{0xff}, 16), Issued: 253402300799999, Used: 253402300799999, Expires: 253402300799999,
		Principal: strings.Repeat("é", 100), Held: true, Change: 1<<64 - 1, Options: bytes.Repeat(hexBytes{0xff}, 300),
	}
	long := full
	long.Principal, long.Options = "", bytes.Repeat(hexBytes("0123456789"), 250)
	odd := full
	odd.Principal, odd.Expires, odd.Held = "\x00\"\\;", 0, false

	base := vector{Key: keyOf("a"), Cookie: cookie, Audience: audience}
	with := func(name string, change func(*vector)) vector {
		v := base
		v.Name = name
		change(&v)
		return v
	}
	says := func(name string, c *vectorClaims, change func(*vector)) vector {
		return with(name, func(v *vector) {
			change(v)
			v.Claims = c
			claims := c.claims()
			v.Token = seal(v.sealer(t), &claims)
		})
	}
	fails := func(name, reason string, change func(*vector)) vector {
		return with(name, func(v *vector) {
			claims := full.claims()
			v.Token, v.Error = seal(v.sealer(t), &claims), reason
			change(v)
		})
	}
	rewrite := func(f func(b []byte) []byte) func(*vector) {
		return func(v *vector) { v.Token = base64.RawURLEncoding.EncodeToString(f(decode(t, v.Token))) }
	}
	as := func(*vector) {}
	former := says("under a former key", &full, as)
	former.Key, former.Former = keyOf("b"), []hexBytes{keyOf("c"), keyOf("a")}

	vectors := []vector{
		says("all claims", &full, as),
		says("no claims", &empty, as),
		says("the most of all", &most, as),
		says("long options, nobody's", &long, as),
		says("no proof that ends, odd principal", &odd, as),
		says("no audience", &full, func(v *vector) { v.Audience = "" }),
		says("long names", &full, func(v *vector) { v.Cookie, v.Audience = strings.Repeat("c", 200), strings.Repeat("a", 300) }),
		former,
		fails("of another cookie", "forged", func(v *vector) { v.Cookie = "other" }),
		fails("of another audience", "forged", func(v *vector) { v.Audience = "other" }),
		fails("cookie and audience divided elsewhere", "forged", func(v *vector) {
			v.Cookie, v.Audience = cookie+audience[:1], audience[1:]
		}),
		fails("a bit of the tag is flipped", "forged", rewrite(func(b []byte) []byte { b[len(b)-1] ^= 1; return b })),
		fails("a bit of the payload is flipped", "forged", rewrite(func(b []byte) []byte { b[33] ^= 1; return b })),
		fails("a bit of the salt is flipped", "forged", rewrite(func(b []byte) []byte { b[5] ^= 0x80; return b })),
		fails("a byte is missing", "forged", rewrite(func(b []byte) []byte { return b[:len(b)-1] })),
		fails("a later version", "form", rewrite(func(b []byte) []byte { b[0] = 2; return b })),
		fails("too short", "form", rewrite(func(b []byte) []byte { return b[:48] })),
		fails("a line break", "form", func(v *vector) { v.Token += "\n" }),
		fails("bits beyond the end", "form", func(v *vector) { v.Token += "AB" }),
		fails("padding", "form", func(v *vector) { v.Token += "=" }),
		fails("empty", "form", func(v *vector) { v.Token = "" }),
		fails("under a removed key", "key", func(v *vector) { v.Key = keyOf("b") }),
		fails("unknown flags", "forged", func(v *vector) { v.Token = v.sealer(t).SealPayload(append([]byte{2}, make([]byte, 21)...)) }),
		fails("a number that is not in its shortest form", "forged", func(v *vector) {
			v.Token = v.sealer(t).SealPayload(append([]byte{0, 0x80, 0}, make([]byte, 20)...))
		}),
	}
	text, err := json.MarshalIndent(vectors, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(vectorsFile, append(text, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
}
