package tcpsocket

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/wasmpod/wasmpod/probes"
)

func TestPROBE19(t *testing.T) {
	to := Target{Action: &corev1.TCPSocketAction{Port: intstr.FromString("db")}, Ports: []corev1.ContainerPort{{Name: "db", ContainerPort: 5432}}, PodIP: "127.128.0.1"}
	for name, tt := range map[string]struct {
		dial   Dial
		host   string
		want   probes.Result
		output string
	}{
		"accepts": {func(_ context.Context, _, address string) (net.Conn, error) {
			if address != "127.128.0.1:5432" {
				t.Errorf("dialed %s", address)
			}
			c, _ := net.Pipe()
			return c, nil
		}, "", probes.Success, ""},
		"other host": {func(_ context.Context, _, address string) (net.Conn, error) {
			return nil, fmt.Errorf("dialed %s", address)
		}, "::1", probes.Failure, "dialed [::1]:5432"},
		"refuses": {func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(127, 128, 0, 1), Port: 5432}, Err: fmt.Errorf("connect: %w", syscall.ECONNREFUSED)}
		}, "", probes.Failure, "dial tcp 127.128.0.1:5432: connect: connection refused"},
		"hangs": {func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "", probes.Failure, "dial tcp 127.128.0.1:5432: i/o timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				to := to
				to.Action = &corev1.TCPSocketAction{Port: to.Action.Port, Host: tt.host}
				result, output, err := Probe(ctx, tt.dial, to)
				if result != tt.want || output != tt.output || err != nil {
					t.Errorf("%v %q %v", result, output, err)
				}
			})
		})
	}
	to.Action = &corev1.TCPSocketAction{Port: intstr.FromString("none")}
	if result, _, err := Probe(t.Context(), nil, to); result != probes.Unknown || err == nil {
		t.Errorf("PROBE-24: %v %v", result, err)
	}
}
