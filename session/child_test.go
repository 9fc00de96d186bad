// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package session_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/c8e4ff29/layover"
	"github.com/c8e4ff29/layover/session"
)

// childEnv makes the test binary the server of the test below.
const childEnv = "LAYOVER_TEST_CHILD_SERVER"

// childReport is what the child says of a store after its shutdown.
type childReport struct {
	Live            int
	Created, Closed uint64
	Check, Shutdown string
}

// The ports of the child. On the faulty ones the store and the factory fail as
// the parent orders.
const (
	portInterceptors = "interceptors"
	portStateful     = "Apache's shape, stateful"
	portStateless    = "Apache's shape, stateless"
	faultyLeases     = "faulty lease store, interceptors"
	faultyLeasesOld  = "faulty lease store, Apache's shape"
	faultyPlain      = "faulty plain store, interceptors"
	faultyPlainOld   = "faulty plain store, Apache's shape"
)

var (
	mainPorts   = []string{portInterceptors, portStateful, portStateless}
	faultyPorts = []string{faultyLeases, faultyLeasesOld, faultyPlain, faultyPlainOld}
)

// childMain is the server process of the test below, and returns its exit status.
// There is nothing in it that recovers from panics.
func childMain() int {
	if err := runChild(); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		return 3
	}
	return 0
}

func runChild() error {
	order := new(atomic.Value) // the fault that the parent wants
	order.Store("")
	stores, middleware := childServices(func(fault string) bool { return order.Load() == fault })

	out := json.NewEncoder(os.Stdout)
	addresses := make(map[string]string)
	var servers []flight.Server
	for name, mw := range middleware {
		srv := flight.NewServerWithMiddleware([]flight.ServerMiddleware{mw})
		srv.RegisterFlightService(flightsql.NewFlightServer(&sqlServer{statements: childStatements}))
		if err := srv.Init("127.0.0.1:0"); err != nil {
			return err
		}
		go func() { _ = srv.Serve() }() // a server that does not serve is missed by the parent
		addresses[name] = srv.Addr().String()
		servers = append(servers, srv)
	}
	if err := out.Encode(addresses); err != nil {
		return err
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		order.Store(in.Text())
		if err := out.Encode(in.Text()); err != nil {
			return err
		}
	}

	order.Store("")
	for _, srv := range servers {
		srv.Shutdown()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	reports := make(map[string]childReport)
	for name, store := range stores {
		down, check := store.Shutdown(ctx), store.Check()
		st := store.Stats()
		r := childReport{Live: st.Live, Created: st.Created, Closed: st.Closed}
		if down != nil {
			r.Shutdown = down.Error()
		}
		if check != nil {
			r.Check = check.Error()
		}
		reports[name] = r
	}
	return out.Encode(reports)
}

// childServices returns the stores and middlewares of the child, by port.
func childServices(ordered func(string) bool) (map[string]*session.ExpiringSessionStore, map[string]flight.ServerMiddleware) {
	silent := session.WithLogger(nil)
	stores := make(map[string]*session.ExpiringSessionStore)
	store := func(port string) *session.ExpiringSessionStore {
		stores[port] = session.NewSessionStore(layover.WithLogger(nil))
		return stores[port]
	}
	manager := func(s session.SessionStore, opts ...session.StatefulSessionManagerOption) session.ServerSessionManager {
		return session.NewStatefulServerSessionManager(append(opts, session.WithStore(s))...)
	}
	factory := func() session.StatefulSessionManagerOption { return session.WithFactory(faultyFactory(ordered)) }
	shaped := func(m session.ServerSessionManager) flight.ServerMiddleware {
		return flight.CreateServerMiddleware(session.NewServerSessionMiddleware(m, silent))
	}
	return stores, map[string]flight.ServerMiddleware{
		portInterceptors: session.NewServerMiddleware(manager(store(portInterceptors)), silent),
		portStateful:     shaped(manager(store(portStateful))),
		portStateless:    shaped(session.NewStatelessServerSessionManager()),
		faultyLeases:     session.NewServerMiddleware(manager(leaseFaults(store(faultyLeases), ordered), factory()), silent),
		faultyLeasesOld:  shaped(manager(leaseFaults(store(faultyLeasesOld), ordered), factory())),
		faultyPlain:      session.NewServerMiddleware(manager(plainFaults(store(faultyPlain), ordered), factory()), silent),
		faultyPlainOld:   shaped(manager(plainFaults(store(faultyPlainOld), ordered), factory())),
	}
}

var childStatements = map[string]statement{
	"block": func(ctx context.Context, _ session.ServerSession) error {
		<-ctx.Done()
		return ctx.Err()
	},
	"close, then use": func(_ context.Context, s session.ServerSession) error {
		err := s.Close()
		s.SetSessionOption("a", text("b"))
		s.EraseSessionOption("a")
		_, _, _ = s.GetSessionOption("a"), s.GetSessionOptions(), s.Token()
		return errors.Join(err, s.Close())
	},
}

// The faults that the parent can order.
var childFaults = []string{
	"look up: error", "look up: nil", "look up: typed nil", "look up: panic", "look up: error that is a typed nil",
	"file: error", "file: panic", "file: nil", "file: full", "remove: error", "remove: panic",
	"factory: error", "factory: nil", "factory: typed nil", "factory: panic", "factory: closed session",
	"factory: empty ID", "factory: unprintable ID", "factory: ID that ends the cookie", "factory: colliding IDs",
}

// errorOf returns the error that an order for this part wants, or panics.
func errorOf(ordered func(string) bool, part string) error {
	switch {
	case ordered(part + ": error"):
		return errBackEnd
	case ordered(part + ": error that is a typed nil"):
		return (*userError)(nil)
	case ordered(part + ": full"):
		return layover.ErrFull
	case ordered(part + ": panic"):
		panic(errBackEnd)
	}
	return nil
}

func plainFaults(s *session.ExpiringSessionStore, ordered func(string) bool) session.SessionStore {
	return &fakeStore{
		get: func(id string) (session.ServerSession, error) {
			switch {
			case ordered("look up: nil"):
				return nil, nil
			case ordered("look up: typed nil"):
				return (*userSession)(nil), nil
			}
			if err := errorOf(ordered, "look up"); err != nil {
				return nil, err
			}
			return s.Get(id)
		},
		put: func(v session.ServerSession) error {
			if err := errorOf(ordered, "file"); err != nil {
				return err
			}
			return s.Put(v)
		},
		remove: func(id string) error {
			if err := errorOf(ordered, "remove"); err != nil {
				return err
			}
			return s.Remove(id)
		},
	}
}

func leaseFaults(s *session.ExpiringSessionStore, ordered func(string) bool) session.SessionStore {
	plain, _ := plainFaults(s, ordered).(*fakeStore)
	return &fakeLeaseStore{
		fakeStore: *plain,
		add: func(v session.ServerSession) (session.SessionLease, error) {
			if ordered("file: nil") {
				return nil, nil
			}
			if err := errorOf(ordered, "file"); err != nil {
				return nil, err
			}
			return s.Add(context.Background(), v, layover.Origin{})
		},
		acquire: func(id string) (session.SessionLease, error) {
			switch {
			case ordered("look up: nil"):
				return nil, nil
			case ordered("look up: typed nil"):
				return (*fakeLease)(nil), nil
			}
			if err := errorOf(ordered, "look up"); err != nil {
				return nil, err
			}
			return s.Acquire(context.Background(), id)
		},
	}
}

func faultyFactory(ordered func(string) bool) session.SessionFactory {
	var n atomic.Int64
	ids := session.NewSessionFactory(func() string {
		switch {
		case ordered("factory: empty ID"):
			return ""
		case ordered("factory: unprintable ID"):
			return "\x00\xff\r\n"
		case ordered("factory: ID that ends the cookie"):
			return "a; Max-Age=0"
		case ordered("factory: colliding IDs"):
			return "id-1" // of the first honest client
		}
		return fmt.Sprint("id-", n.Add(1))
	})
	return fakeFactory(func() (session.ServerSession, error) {
		switch {
		case ordered("factory: nil"):
			return nil, nil
		case ordered("factory: typed nil"):
			return (*userSession)(nil), nil
		case ordered("factory: closed session"):
			return &userSession{id: "closed", closes: 1}, nil
		}
		if err := errorOf(ordered, "factory"); err != nil {
			return nil, err
		}
		return ids.CreateSession()
	})
}

// child is the server process, as the parent sees it.
type child struct {
	cmd       *exec.Cmd
	stdin     io.WriteCloser
	stdout    *bufio.Reader
	stderr    bytes.Buffer // to be read when it is dead
	dead      chan struct{}
	err       error // of the process; to be read when it is dead
	addresses map[string]string
}

func startChild(t *testing.T) *child {
	t.Helper()
	c := &child{dead: make(chan struct{}), cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), childEnv+"=1")
	c.cmd.Stderr = &c.stderr
	in, inErr := c.cmd.StdinPipe()
	// Not StdoutPipe, which Wait would close before all is read.
	out, write, outErr := os.Pipe()
	if err := errors.Join(inErr, outErr); err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdout = write
	c.stdin, c.stdout = in, bufio.NewReader(out)
	if err := errors.Join(c.cmd.Start(), write.Close()); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.dead)
		c.err = c.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill() // mostly it is gone
		<-c.dead
		_ = out.Close()
	})
	c.read(t, &c.addresses)
	return c
}

// read reads a line that the child prints.
func (c *child) read(t *testing.T, into any) {
	t.Helper()
	line, err := c.stdout.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, into)
	}
	if err != nil {
		c.mourn(t)
		t.Fatalf("the child said %q: %v", line, err)
	}
}

// order has the child break a part, "" mends all.
func (c *child) order(t *testing.T, fault string) {
	t.Helper()
	if _, err := fmt.Fprintln(c.stdin, fault); err != nil {
		t.Errorf("the child takes no orders: %v", err)
	}
	var heard string
	if c.read(t, &heard); heard != fault {
		t.Fatalf("the child heard %q", heard)
	}
}

// alive reports whether the process runs.
func (c *child) alive() bool {
	select {
	case <-c.dead:
		return false
	default:
		return true
	}
}

// mourn says of what the child has died, if it has. One that is dying is given
// a moment.
func (c *child) mourn(t *testing.T) {
	t.Helper()
	select {
	case <-c.dead:
		said := c.stderr.String()
		if i := strings.Index(said, "panic:"); i >= 0 {
			said = said[i:]
		}
		t.Fatalf("the server process is dead, %v:\n%.3000s", c.err, said)
	case <-time.After(time.Second):
	}
}

// endpoint returns a port of the child.
func (c *child) endpoint(t *testing.T, port string) *endpoint {
	return &endpoint{new(sqlServer), t, func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", c.addresses[port])
	}}
}

// childHonest checks the promise: the process lives, a client that has a cookie
// still finds its option, and another one can begin a session.
func childHonest(t *testing.T, c *child, port string, old *client) {
	t.Helper()
	ask := func(who string, from *client, do call) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := do(ctx, from.Client); err != nil {
			c.mourn(t)
			t.Fatalf("the call of %s failed: %v", who, err)
		}
	}
	check := func(who string, from *client, want string) {
		t.Helper()
		var got map[string]*flight.SessionOptionValue
		ask(who, from, getOptions(&got))
		if len(got) != 1 || got["honest"].GetStringValue() != want {
			t.Errorf("%s finds %d options, %q instead of %q", who, len(got), got["honest"].GetStringValue(), want)
		}
	}
	check("the client with a cookie", old, port)
	fresh := new(jar).client(c.endpoint(t, port))
	ask("a new client", fresh, setOption("honest", "fresh"))
	check("a new client", fresh, "fresh")
	ask("a new client that closes", fresh, closeSession)
	if !c.alive() {
		c.mourn(t)
	}
}

// hostileInput is something that no decent client does.
type hostileInput struct {
	name  string
	ports []string // default: the main ones
	fault string
	send  func(*attacker)
}

// attacker is a client that means harm. What it gets for an answer does not
// matter, but for what a test asks for; it does have to get one.
type attacker struct {
	*client
	e    *endpoint
	port string
	conn *grpc.ClientConn
	name string // of the session's cookie
	own  string // a good cookie of its own, of another session than the honest one's
}

func newAttacker(t *testing.T, c *child, port string) *attacker {
	t.Helper()
	e := c.endpoint(t, port)
	a := &attacker{client: e.client(), e: e, port: port, name: session.StatefulSessionCookieName}
	if port == portStateless {
		a.name = session.StatelessSessionCookieName
	}
	conn, err := grpc.NewClient("passthrough:///server", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(e.dial))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	a.conn = conn
	mine := new(jar)
	if err := setOption("hello", "evil")(t.Context(), mine.client(e).Client); err != nil {
		c.mourn(t)
		t.Fatalf("the attacker gets no session: %v", err)
	}
	a.own = a.name + "=" + mine.get(a.name)
	return a
}

// all sends every kind of call with these cookie headers.
func (a *attacker) all(lines ...string) {
	for _, do := range []call{info(""), scan(""), setOption("a", "b"), getOptions(nil), closeSession} {
		a.bounded(do, lines...)
	}
}

// bounded makes a call, which must be answered.
func (a *attacker) bounded(do call, lines ...string) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 5*time.Second)
	defer cancel()
	for _, line := range lines {
		ctx = metadata.AppendToOutgoingContext(ctx, "cookie", line)
	}
	if err := do(ctx, a.Client); status.Code(err) == codes.DeadlineExceeded {
		a.t.Errorf("a call was not answered: %v", err)
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T", v)
	}
	return b, nil
}

func (rawCodec) Unmarshal(b []byte, v any) error {
	into, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("%T", v)
	}
	*into = bytes.Clone(b)
	return nil
}

// rawCall sends messages as they are to a method, and returns what it ended
// with, nil for a good end, and the messages of the answer.
func rawCall(ctx context.Context, conn *grpc.ClientConn, method string, messages [][]byte, opts ...grpc.CallOption) (answer [][]byte, err error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, append(opts, grpc.ForceCodec(rawCodec{}))...)
	if err != nil {
		return nil, err
	}
	for _, m := range messages {
		if err := stream.SendMsg(m); err != nil {
			break // RecvMsg says why
		}
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	for {
		var m []byte
		if err := stream.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return answer, err
		}
		answer = append(answer, m)
	}
}

const (
	flightPrefix = "/arrow.flight.protocol.FlightService/"
	doAction     = flightPrefix + "DoAction"
)

// rawAction is the message of an action.
func rawAction(kind string, body []byte) []byte {
	var b []byte
	if kind != "" {
		b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), kind)
	}
	return protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), body)
}

// rawOption is the body of SetSessionOptions with one option.
func rawOption(name, value string) []byte {
	v := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), value)
	entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), v)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), entry)
}

// raw sends messages as they are, without and with a good cookie.
func (a *attacker) raw(method string, messages ...[]byte) (last error) {
	a.t.Helper()
	for _, line := range []string{"", a.own} {
		ctx, cancel := context.WithTimeout(a.t.Context(), 5*time.Second)
		if line != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "cookie", line)
		}
		if _, last = rawCall(ctx, a.conn, method, messages); status.Code(last) == codes.DeadlineExceeded {
			a.t.Errorf("a call was not answered: %v", last)
		}
		cancel()
	}
	return last
}

// cut opens streams of these bytes, or of a real call if there are none, and
// cuts the connection in the middle.
func (a *attacker) cut(bytesFirst string) {
	a.t.Helper()
	if bytesFirst != "" {
		conn, err := a.e.dial(a.t.Context(), "")
		if err != nil {
			a.t.Fatal(err)
		}
		_, _ = io.WriteString(conn, bytesFirst)
		_ = conn.Close()
		return
	}
	var mu sync.Mutex
	var conns []net.Conn
	e := &endpoint{a.e.sqlServer, a.t, func(ctx context.Context, s string) (net.Conn, error) {
		conn, err := a.e.dial(ctx, s)
		mu.Lock()
		defer mu.Unlock()
		conns = append(conns, conn)
		return conn, err
	}}
	ticket, err := flightsql.CreateStatementQueryTicket([]byte("block"))
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(a.t.Context(), "cookie", a.own), 5*time.Second)
	defer cancel()
	stream, err := e.client().Client.Client.DoGet(ctx, &flight.Ticket{Ticket: ticket})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		a.t.Errorf("the stream did not begin: %v", err)
	}
	mu.Lock()
	for _, conn := range conns {
		_ = conn.Close()
	}
	mu.Unlock()
	for err == nil {
		_, err = stream.Recv()
	}
}

// cookieInput is a hostile value of a cookie, sent with every kind of call.
func cookieInput(name, value string) hostileInput {
	return hostileInput{name: "cookie: " + name, send: func(a *attacker) {
		if len(value) > 1<<20 { // which take long under the race detector
			a.bounded(setOption("a", "b"), a.name+"="+value)
			return
		}
		a.all(a.name + "=" + value)
	}}
}

// linesInput are hostile cookie headers, in which NAME is the cookie's name and
// OWN a good cookie.
func linesInput(name string, lines ...string) hostileInput {
	return hostileInput{name: "headers: " + name, send: func(a *attacker) {
		fill := strings.NewReplacer("NAME", a.name, "OWN", a.own)
		var filled []string
		for _, line := range lines {
			filled = append(filled, fill.Replace(line))
		}
		a.all(filled...)
	}}
}

// bodyInput is a hostile body of all three session actions.
func bodyInput(name string, body []byte) hostileInput {
	return hostileInput{name: "body: " + name, send: func(a *attacker) {
		for _, kind := range []string{flight.SetSessionOptionsActionType, flight.GetSessionOptionsActionType, flight.CloseSessionActionType} {
			_ = a.raw(doAction, rawAction(kind, body)) // any status will do
		}
	}}
}

// hostileInputs is the list of shared/UPSTREAM.md and more.
func hostileInputs() []hostileInput {
	encode := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	inputs := []hostileInput{
		cookieInput("no base64", "!!!"),
		cookieInput("base64 of the URL kind", "_-_-"),
		cookieInput("base64 cut short", helloToken[:len(helloToken)-1]),
		cookieInput("no protobuf", encode("\xff\xff\xff\xff")),
		cookieInput("protobuf cut short", encode(string(unbase64(helloToken)[:8]))),
		cookieInput("option name of invalid UTF-8", encode("\n\x0b\n\x02\xff\xfe\x12\x05\n\x03abc")),
		cookieInput("option value of invalid UTF-8", encode("\n\x0b\n\x03abc\x12\x04\n\x02\xff\xfe")),
		cookieInput("list value of invalid UTF-8", encode("\n\x0d\n\x03abc\x12\x06*\x04\n\x02\xff\xfe")),
		cookieInput("nested groups without end", encode(strings.Repeat("\x0b", 100_000))),
		cookieInput("a length that is a lie", encode("\n\xff\xff\xff\xff\x0f")),
		cookieInput("a length below zero", encode("\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")),
		cookieInput("an option without a value", encode("\n\x05\n\x03abc")),
		cookieInput("an empty option", encode("\n\x00")),
		cookieInput("empty", ""),
		cookieInput("unknown ID", "00000000-0000-4000-8000-000000000000"),
		cookieInput("the ID of a principal", "p:abc"),
		cookieInput("megabytes of no base64", strings.Repeat("*", 2<<20)),
		cookieInput("megabytes of no protobuf", strings.Repeat("/", 2<<20)),
		linesInput("thousands of cookies of the session's name", strings.Repeat("NAME=x; ", 5000)),
		linesInput("a thousand headers", slices.Repeat([]string{"NAME=x"}, 1000)...),
		linesInput("thousands of empty cookies, then a good one", strings.Repeat("NAME=; ", 5000)+"OWN"),
		linesInput("a good one, then thousands of foreign ones", "OWN; "+strings.Repeat("a=b; ", 5000)),
		linesInput("empty", ""),
		linesInput("only separators", ";;;; ; ;"),
		linesInput("no name", "=x; =; OWN"),
		linesInput("no value and no =", "NAME; OWN"),
		linesInput("a quote that does not close", `NAME="x; OWN`),
		linesInput("quotes alone", `NAME="; NAME=""; NAME="""`),
		linesInput("backslashes", `NAME=\"\\; OWN`),
		linesInput("commas and blanks", "NAME=a,b c , OWN"),
		linesInput("attributes of Set-Cookie", "OWN; Max-Age=0; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
		linesInput("attributes alone", "$Version=1; $Path=/; $Domain=x"),
		linesInput("twice the good one", "OWN; OWN", "OWN"),
		linesInput("tabs", "\tNAME\t=\tx\t; OWN"),

		bodyInput("empty", nil),
		bodyInput("no protobuf", []byte("\xff\xff\xff\xff")),
		bodyInput("a length that is a lie", []byte("\n\xff\xff\xff\xff\x0f")),
		bodyInput("nested groups without end", bytes.Repeat([]byte{0x0b}, 100_000)),
		bodyInput("an empty option", []byte("\n\x00")),
		bodyInput("an option without a value", []byte("\n\x05\n\x03abc")),
		bodyInput("an option without a name", []byte("\n\x07\x12\x05\n\x03abc")),
		bodyInput("unknown fields", []byte("\x9a\x06\x03abc\x98\x06\x01")),
		bodyInput("option name of invalid UTF-8", rawOption("\xff\xfe", "x")),
		bodyInput("option value of invalid UTF-8", rawOption("evil", "\xff\xfe")),
		bodyInput("option with NUL and line ends", rawOption("\x00\r\n;", "\x00\r\n;=\"")),
		bodyInput("more than gRPC takes", rawOption("big", strings.Repeat("x", 5<<20))),
		bodyInput("ten thousand times the same option", bytes.Repeat(rawOption("same", "x"), 10_000)),
	}
	for kind, action := range map[string][]byte{
		"of an unknown type": rawAction("no such action", []byte("x")), "without a type": rawAction("", []byte("x")),
		"that is empty": {}, "that is no protobuf": []byte("\xff\xff\xff"), "with a type of invalid UTF-8": rawAction("\xff\xfe", nil),
		"with a type of a megabyte": rawAction(strings.Repeat("x", 1<<20), nil),
		"of another kind":           rawAction(flightsql.CreatePreparedStatementActionType, []byte("\xff")),
	} {
		inputs = append(inputs, hostileInput{name: "action " + kind, send: func(a *attacker) {
			if a.raw(doAction, action) == nil {
				a.t.Error("it succeeded")
			}
		}})
	}
	for _, method := range []string{"Handshake", "ListFlights", "GetFlightInfo", "PollFlightInfo", "GetSchema", "DoGet", "DoPut", "DoExchange", "ListActions", "NoSuchMethod"} {
		inputs = append(inputs, hostileInput{name: method + " with garbage", send: func(a *attacker) {
			_ = a.raw(flightPrefix+method, []byte("\xff\xff\xff"), []byte{}, []byte("\n\xff\xff\xff\xff\x0f"))
			_ = a.raw(flightPrefix + method) // no message at all
		}})
	}
	return append(append(inputs, otherInputs()...), faultInputs()...)
}

func otherInputs() []hostileInput {
	return []hostileInput{
		{name: "DoAction without an action", send: func(a *attacker) { _ = a.raw(doAction) }},
		{name: "two actions in one call", send: func(a *attacker) {
			_ = a.raw(doAction, rawAction(flight.CloseSessionActionType, nil), rawAction(flight.SetSessionOptionsActionType, rawOption("a", "b")))
		}},
		{name: "another service", send: func(a *attacker) {
			if err := a.raw("/grpc.health.v1.Health/Check", nil); status.Code(err) != codes.Unimplemented {
				a.t.Errorf("health checks, which are not registered: %v", err)
			}
		}},
		{name: "a value of 3 MiB", send: func(a *attacker) {
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(a.t.Context(), "cookie", a.own), 30*time.Second)
			defer cancel()
			m := rawAction(flight.SetSessionOptionsActionType, rawOption("big", strings.Repeat("x", 3<<20)))
			if _, err := rawCall(ctx, a.conn, doAction, [][]byte{m}); status.Code(err) == codes.DeadlineExceeded {
				a.t.Errorf("a call was not answered: %v", err)
			}
		}},
		{name: "a hundred thousand options", send: func(a *attacker) {
			var body []byte
			n := 100_000
			if a.port != portInterceptors {
				n = 10_000 // the race detector takes its time
			}
			for i := range n {
				body = append(body, rawOption(fmt.Sprint("n", i), "v")...)
			}
			ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(a.t.Context(), "cookie", a.own), 30*time.Second)
			defer cancel()
			for _, m := range [][]byte{
				rawAction(flight.SetSessionOptionsActionType, body),
				rawAction(flight.GetSessionOptionsActionType, nil),
				rawAction(flight.CloseSessionActionType, nil),
			} {
				if _, err := rawCall(ctx, a.conn, doAction, [][]byte{m}); status.Code(err) == codes.DeadlineExceeded {
					a.t.Errorf("a call was not answered: %v", err)
				}
			}
		}},
		{name: "CloseSession races SetSessionOptions", send: func(a *attacker) {
			mine := new(jar)
			calls := []call{setOption("a", "b"), closeSession, getOptions(nil), scan("")}
			var wg sync.WaitGroup
			for g := range 8 {
				c := &attacker{client: mine.client(a.e), e: a.e}
				wg.Go(func() {
					for i := range 20 {
						c.bounded(calls[(g+i)%len(calls)])
					}
				})
			}
			wg.Wait()
		}},
		{name: "a session that is used after Close", send: func(a *attacker) {
			a.bounded(info("close, then use"))
			a.bounded(scan("close, then use"), a.own)
			a.bounded(setOption("a", "b"), a.own)
			a.bounded(closeSession, a.own)
			a.bounded(closeSession, a.own)
		}},
		{name: "cancelled calls", send: func(a *attacker) {
			for _, do := range []call{info("block"), scan("block"), scan("direct:block"), setOption("a", "b"), closeSession} {
				ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(a.t.Context(), "cookie", a.own))
				cancel()
				_ = do(ctx, a.Client)
				ctx, cancel = context.WithTimeout(metadata.AppendToOutgoingContext(a.t.Context(), "cookie", a.own), 20*time.Millisecond)
				_ = do(ctx, a.Client)
				cancel()
			}
		}},
		{name: "a connection cut in mid-stream", send: func(a *attacker) { a.cut("") }},
		{name: "a connection that sends nothing", send: func(a *attacker) { a.cut("\n") }},
		{name: "HTTP/1.1", send: func(a *attacker) { a.cut("GET / HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\n\r\n") }},
		{name: "HTTP/2 cut after the preface", send: func(a *attacker) { a.cut("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") }},
		{name: "HTTP/2 with headers that are garbage", send: func(a *attacker) {
			a.cut("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x05\x01\x04\x00\x00\x00\x01\xff\xff\xff\xff\xff")
		}},
		{name: "metadata with strange names", send: func(a *attacker) {
			ctx := metadata.AppendToOutgoingContext(a.t.Context(), "cookie-bin", "\x00\xff", "set-cookie", a.own, "x-bin", "\xff", "Cookie", a.own, "authorization", "Basic !!!")
			_ = setOption("a", "b")(ctx, a.Client)
			_ = scan("")(ctx, a.Client)
		}},
	}
}

func faultInputs() (inputs []hostileInput) {
	for _, fault := range childFaults {
		inputs = append(inputs, hostileInput{name: "fault, " + fault, ports: faultyPorts, fault: fault, send: func(a *attacker) {
			a.all()
			a.all(a.own)
			a.all(a.name + "=unknown")
		}})
	}
	return inputs
}

// A server in a process of its own, in which nothing recovers from panics,
// outlives whatever hostile clients send and whatever its back end does. After
// every input a client that has a session still finds what it set, and another
// one can begin a session. When all is over, no session is left.
func TestAServerInAChildProcessSurvivesEveryHostileInput(t *testing.T) {
	c := startChild(t)
	honest := make(map[string]*client)
	for port := range c.addresses {
		honest[port] = new(jar).client(c.endpoint(t, port))
		honest[port].must(setOption("honest", port))
	}
	for _, in := range hostileInputs() {
		ports := in.ports
		if ports == nil {
			ports = mainPorts
		}
		for _, port := range ports {
			t.Run(in.name+"/"+port, func(t *testing.T) {
				a := newAttacker(t, c, port)
				if in.fault != "" {
					c.order(t, in.fault)
				}
				in.send(a)
				if in.fault != "" {
					c.order(t, "")
				}
				childHonest(t, c, port, honest[port])
			})
			if !c.alive() {
				t.Fatalf("the server process did not survive the input %q on the port %q", in.name, port)
			}
		}
	}
	if err := c.stdin.Close(); err != nil {
		t.Error(err)
	}
	var reports map[string]childReport
	c.read(t, &reports)
	if len(reports) != len(c.addresses)-1 {
		t.Errorf("%d reports of %d ports", len(reports), len(c.addresses))
	}
	for port, r := range reports {
		if r.Live != 0 || r.Created != r.Closed || r.Created == 0 || r.Check != "" || r.Shutdown != "" {
			t.Errorf("%s: %+v", port, r)
		}
	}
	if <-c.dead; c.err != nil {
		t.Errorf("the child ended with %v: %s", c.err, c.stderr.String())
	}
}
