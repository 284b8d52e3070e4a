package upstream

import (
	"context"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	corev1 "k8s.io/api/core/v1"
	kubelet "k8s.io/kubernetes/pkg/probe/grpc"

	"github.com/wasmpod/wasmpod/probes"
	prober "github.com/wasmpod/wasmpod/probes/grpc"
)

// TestPROBE20GRPC has our prober and the kubelet's ask grpc-go's own server.
func TestPROBE20GRPC(t *testing.T) {
	serve := func(t *testing.T, register func(*grpc.Server)) int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		register(s)
		go s.Serve(l)
		t.Cleanup(s.Stop)
		return l.Addr().(*net.TCPAddr).Port
	}
	with := func(t *testing.T) int {
		return serve(t, func(s *grpc.Server) {
			h := health.NewServer()
			h.SetServingStatus("up", healthpb.HealthCheckResponse_SERVING)
			h.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
			healthpb.RegisterHealthServer(s, h)
		})
	}
	without := func(t *testing.T) int { return serve(t, func(*grpc.Server) {}) }
	nobody := func(t *testing.T) int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().(*net.TCPAddr).Port
	}
	plain := func(t *testing.T) int {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
				c.Close()
			}
		}()
		return l.Addr().(*net.TCPAddr).Port
	}
	for name, tt := range map[string]struct {
		server  func(*testing.T) int
		service string
	}{
		"serving": {with, ""}, "service serving": {with, "up"}, "not serving": {with, "down"}, "unknown service": {with, "nothing"},
		"not implemented": {without, ""}, "nobody listens": {nobody, ""}, "HTTP/1": {plain, ""},
	} {
		t.Run(name, func(t *testing.T) {
			port := tt.server(t)
			wantResult, want, wantErr := kubelet.New().Probe("127.0.0.1", tt.service, port, time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			result, output, err := prober.Probe(ctx, new(net.Dialer).DialContext, prober.Target{Action: &corev1.GRPCAction{Port: int32(port), Service: &tt.service}, PodIP: "127.0.0.1"})
			if output != want || (err == nil) != (wantErr == nil) || (result == probes.Success) != (string(wantResult) == "success") {
				t.Errorf("%v %s %v\nupstream: %v %s %v", result, output, err, wantResult, want, wantErr)
			}
			if !strings.Contains(output, strconv.Itoa(port)) && strings.Contains(want, strconv.Itoa(port)) {
				t.Error("no address")
			}
		})
	}
}
