package grpc

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers one call: what a script does with the framer once the call has
// come. test/upstream asks grpc-go's own server.
func server(script func(*http2.Framer, func(...string) []byte)) Dial {
	return func(context.Context, string, string) (net.Conn, error) {
		client, nc := net.Pipe()
		go func() {
			defer nc.Close()
			preface := make([]byte, len(http2.ClientPreface))
			if _, err := io.ReadFull(nc, preface); err != nil || string(preface) != http2.ClientPreface {
				return
			}
			f := http2.NewFramer(nc, nc)
			called := make(chan struct{})
			go func() { // net.Pipe has no buffer: reading must not wait for writing
				calls := sync.OnceFunc(func() { close(called) })
				defer calls()
				for {
					frame, err := f.ReadFrame()
					if err != nil {
						return
					}
					if _, ok := frame.(*http2.DataFrame); ok {
						calls()
					}
				}
			}()
			if f.WriteSettings() != nil {
				return
			}
			<-called
			var block bytes.Buffer
			encoder := hpack.NewEncoder(&block)
			script(f, func(fields ...string) []byte {
				block.Reset()
				for i := 0; i < len(fields); i += 2 {
					encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
				}
				return block.Bytes()
			})
		}()
		return client, nil
	}
}

var header = []string{":status", "200", "content-type", "application/grpc"}

// reply sends a complete answer.
func reply(f *http2.Framer, encode func(...string) []byte, message []byte, trailer ...string) {
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(header...), EndHeaders: true})
	f.WriteData(1, false, message)
	f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(trailer...), EndHeaders: true, EndStream: true})
}

func trailersOnly(fields ...string) func(*http2.Framer, func(...string) []byte) {
	return func(f *http2.Framer, encode func(...string) []byte) {
		f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(fields...), EndHeaders: true, EndStream: true})
	}
}

func message(b ...byte) func(*http2.Framer, func(...string) []byte) {
	return func(f *http2.Framer, encode func(...string) []byte) {
		reply(f, encode, append([]byte{0, 0, 0, 0, byte(len(b))}, b...), "grpc-status", "0")
	}
}

func TestPROBE20(t *testing.T) {
	hang := func(f *http2.Framer, _ func(...string) []byte) {
		for f.WritePing(false, [8]byte{}) == nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, tt := range map[string]struct {
		dial   Dial
		want   probes.Result
		output string
	}{
		"serving":              {server(message(8, 1)), probes.Success, "service healthy"},
		"not serving":          {server(message(8, 2)), probes.Failure, `service unhealthy (responded with "NOT_SERVING")`},
		"unknown status":       {server(message(8, 9)), probes.Failure, `service unhealthy (responded with "9")`},
		"empty message":        {server(message()), probes.Failure, `service unhealthy (responded with "UNKNOWN")`},
		"unknown fields":       {server(message(18, 1, 'x', 8, 1)), probes.Success, "service healthy"},
		"not implemented":      {server(trailersOnly(":status", "200", "content-type", "application/grpc", "grpc-status", "12", "grpc-message", "unknown service grpc.health.v1.Health")), probes.Failure, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unknown service grpc.health.v1.Health"},
		"unknown service":      {server(trailersOnly(":status", "200", "content-type", "application/grpc", "grpc-status", "5", "grpc-message", "unknown%20service")), probes.Failure, "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"},
		"no gRPC":              {server(trailersOnly(":status", "404", "content-type", "text/plain")), probes.Failure, `error: this server does not implement the grpc health protocol (grpc.health.v1.Health): unexpected HTTP status code received from server: 404 (Not Found); transport: received unexpected content-type "text/plain"`},
		"no answer":            {server(hang), probes.Failure, "timeout: health rpc did not complete within 2s"},
		"closes":               {server(func(*http2.Framer, func(...string) []byte) {}), probes.Failure, "error: health rpc probe failed: rpc error: code = Unavailable desc = error reading from server: EOF"},
		"message does not fit": {server(message(8)), probes.Failure, "error: health rpc probe failed: rpc error: code = Internal desc = grpc: error unmarshalling request: proto: cannot parse invalid wire-format data"},
		"reset":                {server(func(f *http2.Framer, _ func(...string) []byte) { f.WriteRSTStream(1, http2.ErrCodeProtocol) }), probes.Failure, "error: health rpc probe failed: rpc error: code = Internal desc = stream terminated by RST_STREAM with error code: PROTOCOL_ERROR"},
		"flood of frames": {server(func(f *http2.Framer, _ func(...string) []byte) {
			for f.WritePing(false, [8]byte{}) == nil {
			}
		}), probes.Failure, "error: health rpc probe failed: rpc error: code = Unavailable desc = error reading from server: too many frames"},
		"flood of data": {server(func(f *http2.Framer, encode func(...string) []byte) {
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: encode(header...), EndHeaders: true})
			for f.WriteData(1, false, make([]byte, 1000)) == nil {
			}
		}), probes.Failure, "error: health rpc probe failed: rpc error: code = ResourceExhausted desc = received message larger than max (4096)"},
		"refuses": {func(context.Context, string, string) (net.Conn, error) { return nil, syscall.ECONNREFUSED }, probes.Failure, `timeout: failed to connect service "127.128.0.1:50051" within 2s: context deadline exceeded`},
		"does not speak HTTP/2": {func(context.Context, string, string) (net.Conn, error) {
			c, s := net.Pipe()
			go func() { io.CopyN(io.Discard, s, 40); io.WriteString(s, "HTTP/1.1 400 Bad Request\r\n\r\n"); s.Close() }()
			return c, nil
		}, probes.Failure, `timeout: failed to connect service "127.128.0.1:50051" within 2s: context deadline exceeded`},
		"says nothing": {func(context.Context, string, string) (net.Conn, error) {
			c, s := net.Pipe()
			go func() { io.Copy(io.Discard, s); s.Close() }()
			return c, nil
		}, probes.Failure, `timeout: failed to connect service "127.128.0.1:50051" within 2s: context deadline exceeded`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				begin := time.Now()
				service := "s"
				result, output, err := Probe(ctx, tt.dial, Target{Action: &corev1.GRPCAction{Port: 50051, Service: &service}, PodIP: "127.128.0.1"})
				if result != tt.want || output != tt.output || err != nil {
					t.Errorf("%v %s %v\nwant %v %s", result, output, err, tt.want, tt.output)
				}
				if time.Since(begin) > 2*time.Second {
					t.Errorf("took %v", time.Since(begin))
				}
				time.Sleep(time.Second) // until the server has noticed
			})
		})
	}
}

// A server that comes up within the timeout is met by a second try.
func TestPROBE20ComesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		up := server(message(8, 1))
		begin := time.Now()
		result, output, err := Probe(ctx, func(ctx context.Context, network, address string) (net.Conn, error) {
			if time.Since(begin) < time.Second {
				return nil, syscall.ECONNREFUSED
			}
			return up(ctx, network, address)
		}, Target{Action: &corev1.GRPCAction{Port: 1}, PodIP: "::1"})
		if result != probes.Success || err != nil || time.Since(begin) != time.Second {
			t.Errorf("%v %s %v after %v", result, output, err, time.Since(begin))
		}
	})
}

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		result, _, err := Probe(ctx, func(context.Context, string, string) (net.Conn, error) {
			return nil, syscall.ECONNREFUSED
		}, Target{Action: &corev1.GRPCAction{Port: 1}, PodIP: "::1"})
		if result != probes.Unknown || err == nil {
			t.Errorf("%v %v", result, err)
		}
	})
}

// FuzzProbe: whatever a server sends, a probe ends, and says no more than a line.
func FuzzProbe(f *testing.F) {
	var seed bytes.Buffer
	framer := http2.NewFramer(&seed, nil)
	framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	framer.WriteWindowUpdate(1, 1000)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	reply(framer, func(fields ...string) []byte {
		block.Reset()
		for i := 0; i < len(fields); i += 2 {
			encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return block.Bytes()
	}, []byte{0, 0, 0, 0, 2, 8, 1}, "grpc-status", "0")
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, answer []byte) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, output, _ := Probe(ctx, func(context.Context, string, string) (net.Conn, error) {
				c, s := net.Pipe()
				go func() {
					go io.Copy(io.Discard, s)
					s.Write(answer)
					s.Close()
				}()
				return c, nil
			}, Target{Action: &corev1.GRPCAction{Port: 1}, PodIP: "::1"})
			if len(output) > 4096 || strings.Contains(output, "\x00") && !strings.Contains(string(answer), "\x00") {
				t.Errorf("output %.100q", output)
			}
		})
	})
}
