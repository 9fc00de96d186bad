// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"math"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/flight"
	"github.com/apache/arrow-go/v18/arrow/flight/flightsql"
	pb "github.com/apache/arrow-go/v18/arrow/flight/gen/flight"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	flatbuffers "github.com/google/flatbuffers/go"
	"google.golang.org/grpc/codes"
)

// spawned is the command as a process of its own.
type spawned struct {
	process
	command *osexec.Cmd
	log     strings.Builder
	ended   chan error
}

func spawn(t *testing.T, args ...string) *spawned {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "sqlserver")
	if out, err := osexec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s := &spawned{command: osexec.Command(binary, append([]string{"-addr", "127.0.0.1:0"}, args...)...), ended: make(chan error, 1)}
	stderr, err := s.command.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.command.Process.Kill() }) // if it has not ended
	serving := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if _, rest, ok := strings.Cut(lines.Text(), "address="); ok {
				serving <- strings.Fields(rest)[0]
			}
			if s.log.Len() < 4096 {
				s.log.WriteString(lines.Text() + "\n")
			}
		}
		s.ended <- s.command.Wait()
	}()
	select {
	case s.addr = <-serving:
	case err := <-s.ended:
		t.Fatalf("%v: %s", err, s.log.String())
	}
	return s
}

// stop tells the process to end, which it must do well.
func (s *spawned) stop(t *testing.T) {
	t.Helper()
	_ = s.command.Process.Signal(syscall.SIGTERM)
	if err := <-s.ended; err != nil {
		t.Errorf("the process ended with %v: %s", err, s.log.String())
	}
}

// messages collects what a writer sends.
type messages []*flight.FlightData

func (m *messages) Send(d *flight.FlightData) error {
	*m = append(*m, &flight.FlightData{FlightDescriptor: d.FlightDescriptor, DataHeader: append([]byte(nil), d.DataHeader...), DataBody: append([]byte(nil), d.DataBody...)})
	return nil
}

// messagesOf returns a thousand parameters as messages.
func messagesOf(t testing.TB, d *flight.FlightDescriptor, opts ...ipc.Option) messages {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.PrimitiveTypes.Int64}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	b.Field(0).(*array.Int64Builder).AppendValues(make([]int64, 1000), nil)
	batch := b.NewRecordBatch()
	defer batch.Release()
	var sent messages
	w := flight.NewRecordWriter(&sent, append(opts, ipc.WithSchema(schema))...)
	w.SetFlightDescriptor(d)
	if err := errors.Join(w.Write(batch), w.Close()); err != nil {
		t.Fatal(err)
	}
	return sent
}

func TestAForgedMessageOfParametersDoesNotEndTheProcess(t *testing.T) {
	p := spawn(t)
	c := p.connect(t)
	prepared := must[*flightsql.PreparedStatement](t)(c.Prepare(c.ctx, "SELECT ?"))
	for name, handle := range map[string][]byte{"of a statement": prepared.Handle(), "made up": []byte("x")} {
		stream, err := c.Client.Client.DoPut(c.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range messagesOf(t, commandOf(t, &pb.CommandPreparedStatementUpdate{PreparedStatementHandle: handle}), ipc.WithZstd()) {
			for i := 0; i+8 <= len(d.DataBody); i += 8 {
				if binary.LittleEndian.Uint64(d.DataBody[i:]) == 8000 { // the length that it is said to have
					binary.LittleEndian.PutUint64(d.DataBody[i:], 1<<44)
				}
			}
			_ = stream.Send(d)
		}
		want := map[string]codes.Code{"of a statement": codes.InvalidArgument, "made up": codes.NotFound}[name]
		_, err = stream.Recv()
		wantCode(t, err, want, "parameters of a terabyte, the handle is "+name)
	}
	c.query("SELECT 1")
	_ = c.Close()
	p.stop(t)
}

func TestParametersThatStandForMoreThanTheyAreAreRefused(t *testing.T) {
	p := serve(t)
	c := p.connect(t)
	prepared := must[*flightsql.PreparedStatement](t)(c.Prepare(c.ctx, "SELECT ?, ?, ?, ?"))
	null := array.NewNull(1 << 62)
	defer null.Release()
	long := []string{strings.Repeat("x", 1<<20)}
	dictionary := array.NewDictionaryArray(&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}, indices(10), values(long))
	defer dictionary.Release()
	for name, column := range map[string]arrow.Array{"rows of no value": null, "one value, again and again": dictionary} {
		fields, columns := make([]arrow.Field, 4), []arrow.Array{column, column, column, column}
		for i := range fields {
			fields[i] = arrow.Field{Name: "a", Type: column.DataType(), Nullable: true}
		}
		b := array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, int64(column.Len()))
		prepared.SetParameters(b)
		b.Release()
		_, err := prepared.Execute(c.ctx)
		wantCode(t, err, codes.InvalidArgument, name)
	}
}

func indices(n int) arrow.Array {
	b := array.NewInt8Builder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(make([]int8, n), nil)
	return b.NewArray()
}

func values(v []string) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.AppendValues(v, nil)
	return b.NewArray()
}

// tableOf builds a table of a header, with offsets in the slots that are named.
func tableOf(b *flatbuffers.Builder, slots map[flatbuffers.VOffsetT]flatbuffers.UOffsetT) flatbuffers.UOffsetT {
	b.StartObject(8)
	for slot, to := range slots {
		b.PrependUOffsetTSlot(int(slot-4)/2, to, 0)
	}
	return b.EndObject()
}

// twice builds a vector that has a table two times.
func twice(b *flatbuffers.Builder, t flatbuffers.UOffsetT) flatbuffers.UOffsetT {
	b.StartVector(4, 2, 4)
	b.PrependUOffsetT(t)
	b.PrependUOffsetT(t)
	return b.EndVector(2)
}

// headerOf builds the header of a message.
func headerOf(b *flatbuffers.Builder, kind byte, body flatbuffers.UOffsetT) []byte {
	b.StartObject(5)
	b.PrependByteSlot((messageKind-4)/2, kind, 0)
	b.PrependUOffsetTSlot((messageHeader-4)/2, body, 0)
	b.Finish(b.EndObject())
	return b.FinishedBytes()
}

// nested is a schema of two fields, each of which has the same two, and so on.
func nested(depth int, name string) []byte {
	b := flatbuffers.NewBuilder(0)
	field := tableOf(b, map[flatbuffers.VOffsetT]flatbuffers.UOffsetT{fieldName: b.CreateString(name)})
	for range depth {
		field = tableOf(b, map[flatbuffers.VOffsetT]flatbuffers.UOffsetT{fieldChildren: twice(b, field)})
	}
	return headerOf(b, headerSchema, tableOf(b, map[flatbuffers.VOffsetT]flatbuffers.UOffsetT{schemaFields: twice(b, field)}))
}

// shared is a schema whose many fields are all the same one.
func shared(n int) []byte {
	b := flatbuffers.NewBuilder(0)
	field := tableOf(b, map[flatbuffers.VOffsetT]flatbuffers.UOffsetT{fieldName: b.CreateString(strings.Repeat("x", 10*n))})
	b.StartVector(4, n, 4)
	for range n {
		b.PrependUOffsetT(field)
	}
	return headerOf(b, headerSchema, tableOf(b, map[flatbuffers.VOffsetT]flatbuffers.UOffsetT{schemaFields: b.EndVector(n)}))
}

// variadic is a batch that says that it has so many buffers.
func variadic(n int64) []byte {
	b := flatbuffers.NewBuilder(0)
	b.StartVector(8, 1, 8)
	b.PrependInt64(n)
	return headerOf(b, headerBatch, tableOf(b, map[flatbuffers.VOffsetT]flatbuffers.UOffsetT{batchVariadicBuffers: b.EndVector(1)}))
}

func TestAHeaderThatTakesMoreMemoryThanItHasIsRefused(t *testing.T) {
	for name, header := range map[string][]byte{
		"fields without end":     nested(40, "a"),
		"one name, a lot":        shared(1000),
		"buffers that are none":  variadic(1 << 40),
		"buffers less than none": variadic(-1),
		"garbage":                []byte("\xff\xff\xff\xff"),
		"too short":              {1},
	} {
		if err := checkHeader(header); !errors.Is(err, errHeader) {
			t.Errorf("%s: %v, expected %v", name, err, errHeader)
		}
	}
	compressed := messagesOf(t, nil, ipc.WithZstd())
	if err := checkHeader(compressed[1].DataHeader); !errors.Is(err, errCompressed) {
		t.Errorf("a compressed batch: %v", err)
	}
	honest := map[string][]byte{"nothing": nil, "a union": nested(1, "a"), "no buffers": variadic(0)}
	for i, m := range messagesOf(t, nil) {
		honest[string(rune('0'+i))] = m.DataHeader
	}
	for name, header := range honest {
		if err := checkHeader(header); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever the header, whoever lets it pass can read it.
func FuzzCheckHeader(f *testing.F) {
	for _, m := range append(messagesOf(f, nil), messagesOf(f, nil, ipc.WithLZ4())...) {
		f.Add(m.DataHeader, m.DataBody)
	}
	for _, header := range [][]byte{nested(2, "a"), shared(3), variadic(1), variadic(math.MaxInt64)} {
		f.Add(header, []byte("body"))
	}
	schema := messagesOf(f, nil)[0]
	f.Fuzz(func(_ *testing.T, header, body []byte) {
		if checkHeader(header) != nil {
			return
		}
		for _, stream := range []messages{{{DataHeader: header, DataBody: body}}, {schema, {DataHeader: header, DataBody: body}}} {
			if r, err := flight.NewRecordReader(&stream, ipc.WithDelayReadSchema(true)); err == nil {
				_, _ = parameters(r)
				r.Release()
			}
		}
	})
}

// Recv returns what is left, as the stream of a client does.
func (m *messages) Recv() (*flight.FlightData, error) {
	if len(*m) == 0 {
		return nil, errors.New("that was all")
	}
	first := (*m)[0]
	*m = (*m)[1:]
	return first, nil
}
