// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql/driver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func TestTheServerStopsWhenItIsToldTo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, []string{"-addr", "127.0.0.1:0"}, io.Discard) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheDemonstrationInTheREADMEIsWhatTheCommandPrints(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), []string{"demo"}, &out); err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	marks := regexp.MustCompile(`session [0-9a-f]{16}`)
	got := marks.ReplaceAllString(out.String(), "session")
	if !strings.Contains(marks.ReplaceAllString(string(readme), "session"), got) {
		t.Errorf("README.md does not have what the command prints:\n%s", got)
	}
}

func TestMistakesInTheFlagsAreErrors(t *testing.T) {
	for args, want := range map[string]string{
		"-no-such-flag":                "not defined",
		"extra":                        "unexpected argument",
		"-carrier principal":           "nobody authenticates",
		"-carrier x -token a:b":        "expected cookie",
		"-tls-cert x":                  "need each other",
		"-user alice":                  "NAME:SECRET",
		"-users /does/not/exist":       "no such file",
		"-max-sessions -1":             "is negative",
		"-addr 300.0.0.1:1":            "300.0.0.1",
		"-debug 0.0.0.0:0":             "loopback",
		"-db /does/not/exist/a.db":     "unable to open",
		"-tls-cert a -tls-key b":       "no such file",
		"-max-streams 0":               "must be positive",
		"-connection-idle-timeout -1s": "negative",
	} {
		err := run(t.Context(), strings.Fields(args), io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", args, err, want)
		}
	}
}

func TestATransactionIsRolledBackAtShutdownAndCallsMayFinish(t *testing.T) {
	file := filepath.Join(t.TempDir(), "a.db")
	c, err := parse([]string{"-addr", "127.0.0.1:0", "-db", file, "-drain-timeout", "300ms"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(c)
	if err != nil {
		t.Fatal(err)
	}
	one := p.connectJar(t)
	one.update("CREATE TABLE t (n)")
	one.update("BEGIN")
	one.update("INSERT INTO t VALUES (1)")
	stuck := p.connect(t)
	info := must[*flight.FlightInfo](t)(stuck.Execute(stuck.ctx, endless))
	r := must[*flight.Reader](t)(stuck.DoGet(stuck.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	if err := p.stop(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	if err := <-p.failed; err != nil {
		t.Error(err)
	}
	if n := p.database.open.Load(); n != 0 {
		t.Errorf("%d connections are open, expected none", n)
	}
	if got := serve(t, "-db", file).connect(t).query("SELECT count(*) FROM t"); got[0][0] != "0" {
		t.Errorf("there are %v rows, expected none", got)
	}
}

func TestWhileItDrainsTheServerIsNotServingAndCallsUnderWayGoOn(t *testing.T) {
	c, err := parse([]string{"-addr", "127.0.0.1:0", "-drain-timeout", "20s"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(c)
	if err != nil {
		t.Fatal(err)
	}
	one := p.connectJar(t)
	info := must[*flight.FlightInfo](t)(one.Execute(one.ctx, endless))
	ctx, cancel := context.WithCancel(one.ctx)
	defer cancel()
	r := must[*flight.Reader](t)(one.DoGet(ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	conn := must[*grpc.ClientConn](t)(grpc.NewClient(p.addr, insecureDial))
	defer func() { _ = conn.Close() }()
	watch, err := healthpb.NewHealthClient(conn).Watch(one.ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if state, err := watch.Recv(); err != nil || state.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("before: %v, %v", state, err)
	}
	done := make(chan error, 1)
	go func() { done <- p.stop() }()
	if state, err := watch.Recv(); err != nil || state.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Fatalf("while it drains: %v, %v", state, err)
	}
	for range 10 {
		if !r.Next() {
			t.Fatalf("the stream has ended: %v", r.Err())
		}
	}
	cancel() // and so its end is no matter of the server
	_ = one.Close()
	_ = conn.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := <-p.failed; err != nil {
		t.Error(err)
	}
}

func TestTheTemporaryDatabaseIsRemoved(t *testing.T) {
	c, err := parse([]string{"-addr", "127.0.0.1:0"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(c)
	if err != nil {
		t.Fatal(err)
	}
	p.connectJar(t).update("CREATE TABLE t (n)")
	if err := p.stop(); err != nil {
		t.Error(err)
	}
	<-p.failed
	if _, err := os.Stat(p.database.scratch); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestHealthNeedsNoAuthenticationAndNumbersTellTheTruth(t *testing.T) {
	p := serve(t, "-token", "alice:secret", "-debug", "127.0.0.1:0")
	conn, err := grpc.NewClient(p.addr, insecureDial)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	r, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", r, err)
	}
	alice := p.connectAs(t, "secret")
	if _, err := alice.BeginTransaction(alice.ctx); err != nil {
		t.Fatal(err)
	}
	got := fetchNumbers(t, p)
	for name, want := range map[string]int64{"connections": 1, "sessions": 1, "sessions_busy": 0, "connections_held": 1, "sessions_closing": 0} {
		if got[name] != want {
			t.Errorf("%s is %d, expected %d: %v", name, got[name], want, got)
		}
	}
}

func fetchNumbers(t *testing.T, p *process) (numbers map[string]int64) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.numbers+"/debug/vars", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	if err := json.NewDecoder(reply.Body).Decode(&numbers); err != nil {
		t.Fatal(err)
	}
	return numbers
}

func TestALoginGetsATokenWhoseSessionIsItsOwn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(file, []byte("# users\n\nalice:pass:word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := serve(t, "-carrier", "principal", "-users", file)
	login := func(password string) (*client, error) {
		c := p.connect(t)
		ctx, err := c.Client.Client.AuthenticateBasicToken(c.ctx, "alice", password)
		if err == nil {
			c.ctx = ctx
		}
		return c, err
	}
	if _, err := login("wrong"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a wrong password: %v", err)
	}
	a, err := login("pass:word")
	if err != nil {
		t.Fatal(err)
	}
	b, err := login("pass:word")
	if err != nil {
		t.Fatal(err)
	}
	a.update("CREATE TEMP TABLE mine (n)")
	a.update("INSERT INTO mine VALUES (1)") // no cookie needed
	if _, err := b.tryQuery("SELECT * FROM mine"); status.Code(err) != codes.InvalidArgument {
		t.Errorf("another login of the same user: %v, expected that it has another session", err)
	}
	if _, err := p.connectAs(t, "made.up.token.x").tryQuery("SELECT 1"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a token that is made up: %v", err)
	}
}

func TestItServesWithTLS(t *testing.T) {
	folder := t.TempDir()
	cert, key, pool := selfSigned(t, folder)
	p := serve(t, "-tls-cert", cert, "-tls-key", key, "-token", "alice:secret")
	db := sql.OpenDB(connector(t, &driver.DriverConfig{Address: p.addr, Token: "secret", Timeout: 30 * time.Second,
		TLSEnabled: true, TLSConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}))
	defer func() { _ = db.Close() }()
	useDriver(t, db)
}

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T, folder string) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, private.Public(), private))
	pool = x509.NewCertPool()
	pool.AddCert(must[*x509.Certificate](t)(x509.ParseCertificate(der)))
	write := func(name, kind string, der []byte) string {
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", must[[]byte](t)(x509.MarshalPKCS8PrivateKey(private))), pool
}

func TestNoSecretIsPrinted(t *testing.T) {
	i := identity{name: "alice", token: "secret"}
	if strings.Contains(i.String(), "secret") {
		t.Error("an identity prints its token")
	}
	var out bytes.Buffer
	if _, err := parse([]string{"-user", "secret"}, &out); err == nil || strings.Contains(err.Error()+out.String(), "alice:") {
		t.Errorf("%v\n%s", err, out.String())
	}
}
