// Copyright 2026 The Layover Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/apache/arrow-go/v18/arrow/flight"
	flatbuffers "github.com/google/flatbuffers/go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// What clients put is read by arrow-go, which takes its word for everything: a few
// hundred bytes can say that they become a terabyte, and no server survives being out
// of memory. So each message is looked at before, whatever comes of it then.

var (
	errNoCommand  = errors.New("the first message does not say what it is for")
	errTooLarge   = errors.New("there are too many bytes of parameters")
	errCompressed = errors.New("parameters must not be compressed")
	errHeader     = errors.New("the header of a message is not well formed")
)

// checkMessages checks all that a client puts in a call.
func checkMessages(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, &checkedStream{ServerStream: stream})
}

type checkedStream struct {
	grpc.ServerStream
	size int // of all messages: dictionaries grow with each
}

// RecvMsg fails for messages that arrow-go must not see.
func (s *checkedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	data, ok := m.(*flight.FlightData)
	if !ok {
		return nil
	}
	if s.size == 0 && data.GetFlightDescriptor() == nil {
		return errNoCommand
	}
	if s.size += proto.Size(data); s.size > 2*maxParameterBytes {
		return errTooLarge
	}
	return checkHeader(data.GetDataHeader())
}

// The kinds of headers, and of types, and the slots of the tables that matter here
// (https://github.com/apache/arrow/tree/main/format: Message.fbs, Schema.fbs).
const (
	headerSchema, headerDictionary, headerBatch          = 1, 2, 3
	typeTimestamp, typeUnion                             = 10, 14
	messageKind, messageHeader, messageMetadata          = 6, 8, 12
	schemaFields, schemaMetadata                         = 6, 8
	fieldName, fieldKind, fieldType                      = 4, 8, 10
	fieldChildren, fieldMetadata                         = 14, 16
	typeVector                                           = 6 // of a timestamp or a union
	pairKey, pairValue                                   = 4, 6
	dictionaryBatch                                      = 6
	batchBuffers, batchCompression, batchVariadicBuffers = 8, 10, 12
)

// maxFieldDepth is how deep fields nest: those of a union of values do once.
const maxFieldDepth = 4

// checkHeader refuses the header of a message that would have its reader take more
// memory than the message has: compressed bodies, which say how large they become,
// counts of buffers that are not there, and tables that are referred to again and
// again. The header is that of Arrow's IPC format, or empty.
func checkHeader(header []byte) (err error) {
	if len(header) == 0 {
		return nil
	}
	defer func() { // an offset points outside
		if recover() != nil {
			err = errHeader
		}
	}()
	message := flatbuffers.Table{Bytes: header, Pos: flatbuffers.GetUOffsetT(header)}
	// An honest header is a tree, so that whoever walks it meets each of its bytes
	// once; some writers share what is the same.
	w := walk{left: 4*len(header) + 1024}
	w.pairs(message, messageMetadata)
	at := message.Offset(messageKind)
	if at == 0 || message.Offset(messageHeader) == 0 {
		return nil // the reader misses it, too
	}
	kind := message.GetByte(message.Pos + flatbuffers.UOffsetT(at))
	var body flatbuffers.Table
	message.Union(&body, flatbuffers.UOffsetT(message.Offset(messageHeader)))
	switch kind {
	case headerSchema:
		w.pairs(body, schemaMetadata)
		w.fields(body, schemaFields, 1)
	case headerDictionary:
		if data := body.Offset(dictionaryBatch); data != 0 {
			w.batch(flatbuffers.Table{Bytes: header, Pos: body.Indirect(body.Pos + flatbuffers.UOffsetT(data))})
		}
	case headerBatch:
		w.batch(body)
	}
	return w.err
}

// walk is a walk through a header as its reader does it.
type walk struct {
	left int // how many bytes it may still meet
	err  error
}

// take notes that the walk meets so many bytes, and reports whether it may go on.
func (w *walk) take(n int) bool {
	if w.left -= n; w.left < 0 || n < 0 {
		w.fail(errHeader)
	}
	return w.err == nil
}

func (w *walk) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// vector meets a vector, or text, whose elements have such a size, and returns how
// many there are.
func (w *walk) vector(t flatbuffers.Table, slot flatbuffers.VOffsetT, size int) (n int) {
	at := flatbuffers.UOffsetT(t.Offset(slot))
	if at == 0 {
		return 0
	}
	if n = t.VectorLen(at); !w.take(n * size) {
		return 0
	}
	return n
}

// tables calls f with each table of a vector, while the walk may go on.
func (w *walk) tables(t flatbuffers.Table, slot flatbuffers.VOffsetT, f func(flatbuffers.Table)) {
	for i := range w.vector(t, slot, flatbuffers.SizeUOffsetT) {
		if !w.take(flatbuffers.SizeSOffsetT) {
			return
		}
		at := t.Vector(flatbuffers.UOffsetT(t.Offset(slot))) + flatbuffers.UOffsetT(i*flatbuffers.SizeUOffsetT)
		f(flatbuffers.Table{Bytes: t.Bytes, Pos: t.Indirect(at)})
	}
}

func (w *walk) pairs(t flatbuffers.Table, slot flatbuffers.VOffsetT) {
	w.tables(t, slot, func(pair flatbuffers.Table) {
		w.vector(pair, pairKey, 1)
		w.vector(pair, pairValue, 1)
	})
}

func (w *walk) fields(t flatbuffers.Table, slot flatbuffers.VOffsetT, depth int) {
	if depth > maxFieldDepth {
		w.fail(errHeader)
		return
	}
	w.tables(t, slot, func(field flatbuffers.Table) {
		w.vector(field, fieldName, 1)
		w.pairs(field, fieldMetadata)
		w.typeOf(field)
		w.fields(field, fieldChildren, depth+1)
	})
}

// typeOf meets the type of a field. Those of a fixed size do not matter.
func (w *walk) typeOf(field flatbuffers.Table) {
	kind, at := field.Offset(fieldKind), field.Offset(fieldType)
	if kind == 0 || at == 0 {
		return
	}
	var t flatbuffers.Table
	field.Union(&t, flatbuffers.UOffsetT(at))
	switch field.GetByte(field.Pos + flatbuffers.UOffsetT(kind)) {
	case typeTimestamp: // its zone
		w.vector(t, typeVector, 1)
	case typeUnion: // the codes of its types
		w.vector(t, typeVector, 4)
	}
}

// batch meets the header of a record batch.
func (w *walk) batch(t flatbuffers.Table) {
	if t.Offset(batchCompression) != 0 {
		w.fail(errCompressed)
		return
	}
	const bufferSize, countSize = 16, 8
	left := int64(w.vector(t, batchBuffers, bufferSize))
	for i := range w.vector(t, batchVariadicBuffers, countSize) {
		at := t.Vector(flatbuffers.UOffsetT(t.Offset(batchVariadicBuffers))) + flatbuffers.UOffsetT(i*countSize)
		n := t.GetInt64(at)
		if left -= n; n < 0 || left < 0 {
			w.fail(errHeader)
			return
		}
	}
}
