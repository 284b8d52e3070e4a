package grpc

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// maxMessage is the most that an answer may hold; a real one has 2 bytes.
	maxMessage = 4 << 10
	// maxFrames is how many frames are read in one call. A server has no reason
	// for more than a dozen.
	maxFrames = 256
	// maxFrameSize is the least that HTTP/2 allows to ask for.
	maxFrameSize   = 16 << 10
	maxHeaderBytes = 16 << 10
	maxDescription = 1024 // bytes of what the server says is wrong

	streamID      = 1
	initialWindow = 65535
)

// conn is a connection to a gRPC server, for one call.
type conn struct {
	net.Conn
	framer *http2.Framer
	out    bytes.Buffer // what the framer writes, until flush
	frames int
	stop   func() bool

	window       int64 // of the connection
	streamWindow int64
}

// handshake sends the client's preface and waits for the server's: before that it
// may be anything that accepts connections. The connection is closed when ctx
// ends, or by close.
func handshake(ctx context.Context, nc net.Conn) (*conn, error) {
	c := &conn{Conn: nc, window: initialWindow, streamWindow: initialWindow}
	// Not by a deadline of the connection's own, which might come before that of
	// ctx and look like another error.
	c.stop = context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	c.framer = http2.NewFramer(&c.out, bufio.NewReaderSize(nc, 1<<10))
	c.framer.SetMaxReadFrameSize(maxFrameSize)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.framer.MaxHeaderListSize = maxHeaderBytes

	c.out.WriteString(http2.ClientPreface)
	err := c.framer.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderBytes})
	if err == nil {
		err = c.flush()
	}
	if err == nil {
		var f http2.Frame
		if f, err = c.framer.ReadFrame(); err == nil {
			settings, ok := f.(*http2.SettingsFrame)
			if !ok || settings.IsAck() {
				err = errors.New("the server's preface is no SETTINGS frame")
			} else {
				err = c.control(f)
			}
		}
	}
	if err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

func (c *conn) close() {
	c.stop()
	_ = c.Conn.Close()
}

func (c *conn) flush() error {
	_, err := c.Conn.Write(c.out.Bytes())
	c.out.Reset()
	return err
}

// control does what a frame asks for that is about the connection.
func (c *conn) control(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		if size, ok := f.Value(http2.SettingInitialWindowSize); ok {
			if size > 1<<31-1 {
				return errors.New("flow control window too large")
			}
			c.streamWindow += int64(size) - initialWindow
		}
		if err := c.framer.WriteSettingsAck(); err != nil {
			return err
		}
		return c.flush()
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		if err := c.framer.WritePing(true, f.Data); err != nil {
			return err
		}
		return c.flush()
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			c.window += int64(f.Increment)
		} else {
			c.streamWindow += int64(f.Increment)
		}
	case *http2.GoAwayFrame:
		if f.LastStreamID < streamID {
			return unavailable(fmt.Sprintf("the server is going away: %v", f.ErrCode))
		}
	case *http2.RSTStreamFrame:
		if f.StreamID == streamID {
			return &rpcError{codeOfReset(f.ErrCode), fmt.Sprintf("stream terminated by RST_STREAM with error code: %v", f.ErrCode)}
		}
	case *http2.PushPromiseFrame:
		return errors.New("the server pushes, which it was told not to")
	}
	return nil
}

// check makes the call.
func (c *conn) check(authority, service string) (servingStatus, error) {
	if err := c.request(authority, service); err != nil {
		return 0, transportError(err)
	}
	var answer response
	for !answer.ended {
		f, err := c.next()
		if err == nil {
			err = answer.take(f)
		}
		if err != nil {
			return 0, transportError(err)
		}
	}
	return answer.result()
}

// next reads a frame, and does what it asks for.
func (c *conn) next() (http2.Frame, error) {
	if c.frames++; c.frames > maxFrames {
		return nil, errors.New("too many frames")
	}
	f, err := c.framer.ReadFrame()
	if err != nil {
		return nil, err
	}
	return f, c.control(f)
}

// request sends the call's header and message.
func (c *conn) request(authority, service string) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, h := range [...][2]string{
		{":method", http.MethodPost},
		{":scheme", "http"},
		{":path", "/grpc.health.v1.Health/Check"},
		{":authority", authority},
		{"content-type", "application/grpc"},
		{"user-agent", userAgent},
		{"te", "trailers"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	message := []byte{0, 0, 0, 0, 0} // not compressed; length follows
	if service != "" {
		message = append(message, 1<<3|2) // field 1, bytes
		message = binary.AppendUvarint(message, uint64(len(service)))
		message = append(message, service...)
		binary.BigEndian.PutUint32(message[1:], uint32(len(message)-5))
	}
	if len(message) > maxFrameSize {
		return errors.New("the service's name is too long")
	}
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: streamID, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		return err
	}
	for need := int64(len(message)); c.window < need || c.streamWindow < need; {
		if err := c.flush(); err != nil {
			return err
		}
		if _, err := c.next(); err != nil {
			return err
		}
	}
	if err := c.framer.WriteData(streamID, true, message); err != nil {
		return err
	}
	return c.flush()
}

// response is what has come of the answer.
type response struct {
	header  http.Header // pseudo-headers included
	trailer http.Header
	body    []byte
	ended   bool
}

func (r *response) take(f http2.Frame) error {
	if f.Header().StreamID != streamID {
		return nil
	}
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		if f.Truncated {
			return &rpcError{codeInternal, "the header is too long"}
		}
		fields := make(http.Header, len(f.Fields))
		for _, field := range f.Fields {
			fields.Add(field.Name, field.Value)
		}
		switch {
		case r.header == nil && strings.HasPrefix(fields.Get(":status"), "1") && !f.StreamEnded():
			return nil // informational
		case r.header == nil:
			r.header = fields
		case !f.StreamEnded():
			return &rpcError{codeInternal, "a trailer that does not end the stream"}
		}
		if f.StreamEnded() {
			r.trailer, r.ended = fields, true
		}
	case *http2.DataFrame:
		if r.header == nil {
			return &rpcError{codeInternal, "data before the header"}
		}
		if len(r.body)+len(f.Data()) > maxMessage {
			return &rpcError{codeResourceExhausted, fmt.Sprintf("received message larger than max (%d)", maxMessage)}
		}
		r.body = append(r.body, f.Data()...)
		r.ended = f.StreamEnded()
	}
	return nil
}

// result says what the complete answer means.
func (r *response) result() (servingStatus, error) {
	contentType := r.header.Get("Content-Type")
	status := r.header.Get(":status")
	_, hasStatus := r.trailer["Grpc-Status"]
	if !isGRPC(contentType) || status != "200" && !hasStatus {
		return 0, notGRPC(status, contentType)
	}
	if !hasStatus {
		return 0, &rpcError{codeInternal, "server closed the stream without sending trailers"}
	}
	code, err := strconv.ParseUint(r.trailer.Get("Grpc-Status"), 10, 32)
	if err != nil {
		return 0, &rpcError{codeInternal, fmt.Sprintf("transport: malformed grpc-status: %v", err)}
	}
	if code != 0 {
		return 0, &rpcError{uint32(code), description(r.trailer.Get("Grpc-Message"))}
	}
	return decode(r.body)
}

func isGRPC(contentType string) bool {
	rest, ok := strings.CutPrefix(strings.ToLower(contentType), "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

// notGRPC is an answer of a server that speaks HTTP/2 but not gRPC.
func notGRPC(status, contentType string) error {
	code := codeUnknown
	n, err := strconv.Atoi(status)
	if err != nil {
		return &rpcError{codeInternal, "malformed HTTP status " + strconv.Quote(clip(status))}
	}
	switch n {
	case http.StatusBadRequest:
		code = codeInternal
	case http.StatusUnauthorized:
		code = codeUnauthenticated
	case http.StatusForbidden:
		code = codePermissionDenied
	case http.StatusNotFound:
		code = codeUnimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		code = codeUnavailable
	}
	text := fmt.Sprintf("unexpected HTTP status code received from server: %d (%s)", n, http.StatusText(n))
	switch {
	case contentType == "":
		text += "; malformed header: missing HTTP content-type"
	case !isGRPC(contentType):
		text += fmt.Sprintf("; transport: received unexpected content-type %q", clip(contentType))
	}
	return &rpcError{code, text}
}

// description decodes a grpc-message.
func description(s string) string {
	if text, err := url.PathUnescape(s); err == nil {
		s = text
	}
	return clip(s)
}

func clip(s string) string {
	if len(s) > maxDescription {
		s = s[:maxDescription] + "..."
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\ufffd")
	}
	return s
}

// transportError makes an error of the connection one of the call.
func transportError(err error) error {
	var rpc *rpcError
	if errors.As(err, &rpc) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return unavailable("error reading from server: " + clip(err.Error()))
}
