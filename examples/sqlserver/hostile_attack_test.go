// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// README: "SQL reaches nothing but the database ... virtual tables ... are
// PERMISSION_DENIED". sqlite_dbpage is compiled in and eponymous: no CREATE needed.
func TestAttackSqliteDbpageRewritesTheRawFile(t *testing.T) {
	p := serve(t)
	a := p.connect(t)
	a.update("CREATE TABLE t (n INTEGER)")
	a.update("INSERT INTO t VALUES (1)")
	_, err := p.connect(t).ExecuteUpdate(a.ctx, "UPDATE sqlite_dbpage SET data = randomblob(4096) WHERE pgno > 1")
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("an UPDATE of raw pages by a client without a session: %v, expected PERMISSION_DENIED", err)
	}
	rows, err := p.connect(t).tryQuery("SELECT n FROM t")
	t.Logf("everybody else's table is now: %v, %v", rows, err)
	if err != nil {
		t.Errorf("the table that another client had: %v", err)
	}
	_, err = p.connect(t).tryQuery("SELECT hex(data) FROM sqlite_dbpage LIMIT 1")
	wantCode(t, err, codes.PermissionDenied, "a SELECT of raw pages")
}

// A client that has vanished frees its connection "at once" (README, One call at a
// time), whatever it ran. One LIKE is one opcode, which nothing interrupts.
const slowLike = `SELECT replace(hex(zeroblob(45000)),'0','a') LIKE '%'||replace(hex(zeroblob(24000)),'0','a')||'b'`

func freedWithin(t *testing.T, sql string, limit time.Duration) {
	t.Helper()
	p := serve(t)
	c := p.connect(t)
	ctx, cancel := context.WithTimeout(c.ctx, 300*time.Millisecond)
	defer cancel()
	c.ctx = ctx
	_, err := c.tryQuery(sql)
	start := time.Now()
	eventuallyLong(t, func() bool { return p.database.open.Load() == 0 })
	if took := time.Since(start); took > limit {
		t.Errorf("the client left (%v), and its connection and CPU were busy for %v more", status.Code(err), took)
	}
}

func eventuallyLong(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never")
		}
	}
}

func TestAttackALikeCannotBeInterrupted(t *testing.T) { freedWithin(t, slowLike, 2*time.Second) }

// cteBomb has SQLite expand 2^n subqueries while it compiles.
func cteBomb(n int) string {
	var b strings.Builder
	b.WriteString("WITH a0 AS (SELECT 1 x)")
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, ", a%d AS (SELECT a.x FROM a%d a, a%d b)", i, i-1, i-1)
	}
	fmt.Fprintf(&b, " SELECT count(*) FROM a%d", n)
	return b.String()
}

func TestAttackPreparingCannotBeInterrupted(t *testing.T) {
	freedWithin(t, cteBomb(15), 2*time.Second)
}

// "SIGTERM ends it in time with exit 0": with a statement that cannot be interrupted.
func TestAttackTheShutdownFailsBehindAStatementThatCannotBeInterrupted(t *testing.T) {
	c, err := parse([]string{"-addr", "127.0.0.1:0", "-drain-timeout", "500ms"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p, err := start(c)
	if err != nil {
		t.Fatal(err)
	}
	one := p.connect(t)
	done := make(chan struct{})
	go func() { defer close(done); _, _ = one.tryQuery(slowLike) }()
	eventually(t, "it runs", func() bool { return p.database.open.Load() == 1 })
	time.Sleep(200 * time.Millisecond)
	if err := p.stop(); err != nil {
		t.Errorf("the server ends with: %v", err)
	}
	<-done
	eventuallyLong(t, func() bool { return p.database.open.Load() == 0 })
	<-p.failed
}

// A row has up to 2000 values of 4 MiB each: 8 GB for one statement of 36 KB, of a
// client without a session. maxValue and batchBytes promise to bound that.
func TestAttackOneWideRowTakesGigabytes(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := c.tryQuery("SELECT " + strings.TrimSuffix(strings.Repeat("zeroblob(4194304),", 50), ","))
	runtime.ReadMemStats(&after)
	if mb := (after.TotalAlloc - before.TotalAlloc) >> 20; mb > 64 {
		t.Errorf("one row of 50 columns allocates %d MB (%v); 2000 columns: %d MB", mb, err, mb*40)
	}
}

func rss() int {
	b, _ := os.ReadFile("/proc/self/status")
	for l := range strings.Lines(string(b)) {
		var n int
		if _, err := fmt.Sscanf(l, "VmRSS: %d kB", &n); err == nil {
			return n >> 10
		}
	}
	return 0
}

// maxTempPages bounds temporary tables, but not what SQLite itself materializes in
// memory, because of temp_store = MEMORY.
func TestAttackARecursiveQueryTakesAllMemory(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	ctx, cancel := context.WithTimeout(c.ctx, 4*time.Second)
	defer cancel()
	c.ctx = ctx
	before := rss()
	most := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.tryQuery("WITH RECURSIVE c(x,y) AS (SELECT 1,zeroblob(100000) UNION SELECT x+1,zeroblob(100000) FROM c) SELECT count(*) FROM c")
	}()
	for ctx.Err() == nil {
		most = max(most, rss()-before)
		time.Sleep(10 * time.Millisecond)
	}
	<-done
	if limit := maxTempPages * 4096 >> 20; most > 2*limit {
		t.Errorf("one query took %d MB in 4 s, and more if it goes on; a session's temporary tables may take %d", most, limit)
	}
}

// Tables that one client makes in main take the place of pragma_table_list and
// pragma_table_info in the server's own queries, for every client.
func TestAttackATableInMainBreaksTheMetadataOfAll(t *testing.T) {
	p := serve(t)
	p.connect(t).update("CREATE TABLE honest (n INTEGER)")
	_, _ = p.connect(t).ExecuteUpdate(t.Context(), "CREATE VIEW pragma_table_list AS SELECT 'main' AS schema, 1 AS name, 'table' AS type")
	victim := p.connect(t)
	info := must[*flight.FlightInfo](t)(victim.GetTables(victim.ctx, &flightsql.GetTablesOpts{}))
	rows, err := victim.fetch(info)
	if err != nil || len(rows) != 1 || rows[0][2] != "honest" {
		t.Errorf("GetTables of everybody else: %v, %v, expected the table honest", rows, err)
	}
	info = must[*flight.FlightInfo](t)(victim.GetTables(victim.ctx, &flightsql.GetTablesOpts{IncludeSchema: true}))
	if rows, err := victim.fetch(info); err != nil {
		t.Errorf("with schemas: %v, %v", rows, err)
	}
}

// A client that stalls, without a session, in the middle of INSERT ... RETURNING has
// the write lock for as long as it likes: no -transaction-timeout, no -idle-timeout.
// README: "Transactions do not stay open forever".
func TestAttackAStalledStreamKeepsTheWriteLockForever(t *testing.T) {
	p := serve(t, "-transaction-timeout", "300ms", "-connection-idle-timeout", "300ms", "-idle-timeout", "1s", "-lifetime", "2s", "-turn-timeout", "500ms")
	a := p.connect(t)
	a.update("CREATE TABLE t (n, b)")
	stalled := p.connect(t)
	info := must[*flight.FlightInfo](t)(stalled.Execute(stalled.ctx, `WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 200)
		INSERT INTO t SELECT x, zeroblob(100000) FROM c RETURNING n, b`))
	r := must[*flight.Reader](t)(stalled.DoGet(stalled.ctx, info.Endpoint[0].Ticket))
	defer r.Release()
	if !r.Next() {
		t.Fatal(r.Err())
	}
	time.Sleep(5 * time.Second) // longer than all the timeouts
	_, err := p.connect(t).ExecuteUpdate(a.ctx, "INSERT INTO t VALUES (0, NULL)")
	if err != nil {
		t.Errorf("5 s and busy_timeout later, past every timeout, another client writes: %v", err)
	}
	t.Logf("%v", numbers(p.database, p.store))
}

// The shutdown in mid-stream, of clients that do not read and have no session.
func TestAttackTheShutdownWithStalledStreams(t *testing.T) {
	for round := range 5 {
		c, err := parse([]string{"-addr", "127.0.0.1:0", "-drain-timeout", "200ms"}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		p, err := start(c)
		if err != nil {
			t.Fatal(err)
		}
		p.connect(t).update("CREATE TABLE t (n, b)")
		p.connect(t).update("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x < 300) INSERT INTO t SELECT x, zeroblob(100000) FROM c")
		for range 60 {
			s := p.connect(t)
			info := must[*flight.FlightInfo](t)(s.Execute(s.ctx, "SELECT n, b FROM t"))
			r := must[*flight.Reader](t)(s.DoGet(s.ctx, info.Endpoint[0].Ticket))
			defer r.Release()
			r.Next()
		}
		if err := p.stop(); err != nil {
			t.Errorf("round %d: the server ends with: %v", round, err)
		}
		eventuallyLong(t, func() bool { return p.database.open.Load() == 0 })
		<-p.failed
	}
}

// -max-connections is "how many connections to the database there may be".
func TestAttackMoreConnectionsThanThereMayBe(t *testing.T) {
	p := serve(t, "-max-connections", "1")
	stalled := p.connect(t)
	info := must[*flight.FlightInfo](t)(stalled.Execute(stalled.ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT x, zeroblob(100000) FROM c"))
	eventually(t, "it is closed", func() bool { return p.database.open.Load() == 0 })
	r := must[*flight.Reader](t)(stalled.DoGet(stalled.ctx, info.Endpoint[0].Ticket))
	r.Next()
	_, err := p.connect(t).ExecuteUpdate(stalled.ctx, "CREATE TEMP TABLE x (n)")
	if n := p.database.open.Load(); n > 1 {
		t.Errorf("%d connections are open (%v), expected 1 at most", n, err)
	}
	r.Release()
}

type capture struct{ data []*flight.FlightData }

func (c *capture) Send(d *flight.FlightData) error {
	c.data = append(c.data, &flight.FlightData{FlightDescriptor: d.FlightDescriptor, DataHeader: append([]byte(nil), d.DataHeader...), DataBody: append([]byte(nil), d.DataBody...)})
	return nil
}

// bomb is a stream of parameters whose compressed buffer says that it has so many bytes.
func bomb(t *testing.T, descriptor *flight.FlightDescriptor, size uint64) []*flight.FlightData {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int64}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for range 1000 {
		b.Field(0).(*array.Int64Builder).Append(7)
	}
	batch := b.NewRecordBatch()
	defer batch.Release()
	var to capture
	w := flight.NewRecordWriter(&to, ipc.WithSchema(schema), ipc.WithZstd())
	w.SetFlightDescriptor(descriptor)
	if err := w.Write(batch); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	forged := false
	for _, d := range to.data {
		for i := 0; i+8 <= len(d.DataBody); i += 8 {
			if binary.LittleEndian.Uint64(d.DataBody[i:]) == 8000 {
				binary.LittleEndian.PutUint64(d.DataBody[i:], size)
				forged = true
			}
		}
	}
	if !forged {
		t.Fatal("nothing was forged")
	}
	return to.data
}

// spawn runs the command as a process of its own.
func spawn(t *testing.T, args ...string) (addr string, cmd *osexec.Cmd, exited chan error, log *strings.Builder) {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "sqlserver")
	if out, err := osexec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd = osexec.Command(bin, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addrs := make(chan string, 1)
	exited = make(chan error, 1)
	log = new(strings.Builder)
	go func() {
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if _, rest, ok := strings.Cut(lines.Text(), "address="); ok {
				addrs <- strings.Fields(rest)[0]
			}
			if log.Len() < 1<<14 {
				log.WriteString(lines.Text() + "\n")
			}
		}
		exited <- cmd.Wait()
	}()
	select {
	case addr = <-addrs:
	case err := <-exited:
		t.Fatalf("%v: %s", err, log)
	}
	return addr, cmd, exited, log
}

// One message of a few hundred bytes, of a client without a session, ends the process:
// the parameters are read, and decompressed, before anybody looks at their handle.
func TestAttackAForgedParameterMessageKillsTheProcess(t *testing.T) {
	addr, cmd, exited, log := spawn(t)
	defer func() { _ = cmd.Process.Kill() }()
	c := (&process{addr: addr}).connect(t)
	descriptor := commandOf(t, &pb.CommandPreparedStatementUpdate{PreparedStatementHandle: []byte("whatever")})
	stream, err := c.Client.Client.DoPut(c.ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range bomb(t, descriptor, 1<<44) {
		_ = stream.Send(d)
	}
	_, err = stream.Recv()
	t.Logf("the client is told: %v", err)
	select {
	case err := <-exited:
		t.Errorf("the process ended with %v: %.300s", err, log)
	case <-time.After(3 * time.Second):
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-exited; err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	}
}

// Errors keep their text: this one is wrapped by errors.Join, and gRPC puts its own
// rendering into the text.
func TestAttackAnErrorIsToldTwiceOver(t *testing.T) {
	p := serve(t)
	_, err := p.connect(t).tryQuery("SELECT 1; SELECT 2")
	if text := status.Convert(err).Message(); strings.Contains(text, "rpc error") {
		t.Errorf("the message is %q", text)
	}
}
