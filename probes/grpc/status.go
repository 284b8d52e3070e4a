package grpc

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/net/http2"
)

// Codes of gRPC.
const (
	codeCanceled          uint32 = 1
	codeUnknown           uint32 = 2
	codeDeadlineExceeded  uint32 = 4
	codePermissionDenied  uint32 = 7
	codeResourceExhausted uint32 = 8
	codeUnimplemented     uint32 = 12
	codeInternal          uint32 = 13
	codeUnavailable       uint32 = 14
	codeUnauthenticated   uint32 = 16
)

var codeNames = [...]string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
	"DataLoss", "Unauthenticated",
}

// rpcError is a call that has failed.
type rpcError struct {
	code    uint32
	message string
}

func (e *rpcError) Error() string {
	name := fmt.Sprintf("Code(%d)", e.code)
	if e.code < uint32(len(codeNames)) {
		name = codeNames[e.code]
	}
	return fmt.Sprintf("rpc error: code = %s desc = %s", name, e.message)
}

func unavailable(message string) error { return &rpcError{codeUnavailable, message} }

// codeOfReset is what the reset of a stream means.
func codeOfReset(code http2.ErrCode) uint32 {
	switch code {
	case http2.ErrCodeRefusedStream:
		return codeUnavailable
	case http2.ErrCodeCancel:
		return codeCanceled
	case http2.ErrCodeFlowControl, http2.ErrCodeEnhanceYourCalm:
		return codeResourceExhausted
	case http2.ErrCodeInadequateSecurity:
		return codePermissionDenied
	}
	return codeInternal
}

// servingStatus is HealthCheckResponse.ServingStatus.
type servingStatus uint64

const serving servingStatus = 1

func (s servingStatus) String() string {
	names := [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	if s < servingStatus(len(names)) {
		return names[s]
	}
	return fmt.Sprint(uint64(s))
}

// decode reads the one message of an answer: five bytes that say how long it is,
// and a HealthCheckResponse, whose only field is number 1, an enumeration.
func decode(body []byte) (servingStatus, error) {
	if len(body) < 5 {
		return 0, &rpcError{codeInternal, "the answer has no message"}
	}
	if body[0] != 0 {
		return 0, &rpcError{codeInternal, "grpc: compressed flag set with identity or empty encoding"}
	}
	if n := binary.BigEndian.Uint32(body[1:]); uint64(n) != uint64(len(body)-5) {
		return 0, &rpcError{codeInternal, "the message is not as long as it says"}
	}
	status, err := decodeMessage(body[5:])
	if err != nil {
		return 0, &rpcError{codeInternal, fmt.Sprintf("grpc: error unmarshalling request: %v", err)}
	}
	return status, nil
}

var errWire = errors.New("proto: cannot parse invalid wire-format data")

func decodeMessage(b []byte) (status servingStatus, _ error) {
	varint := func() (uint64, bool) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	for len(b) > 0 {
		tag, ok := varint()
		if !ok || tag>>3 == 0 {
			return 0, errWire
		}
		var skip uint64
		switch tag & 7 {
		case 0:
			v, ok := varint()
			if !ok {
				return 0, errWire
			}
			if tag>>3 == 1 {
				status = servingStatus(int32(v))
			}
		case 1:
			skip = 8
		case 2:
			if skip, ok = varint(); !ok {
				return 0, errWire
			}
		case 5:
			skip = 4
		default:
			return 0, errWire // groups are no part of proto3
		}
		if skip > uint64(len(b)) {
			return 0, errWire
		}
		b = b[skip:]
	}
	return status, nil
}
