// Package grpc carries out grpc probes: the call Check of the service
// grpc.health.v1.Health, without TLS (PROBE-20).
//
// It speaks just enough HTTP/2 for one unary call on one connection: no goroutine,
// no state that outlives the call, and at most a few KiB of what a hostile server
// sends.
package grpc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

// userAgent is that of the kubelet whose behaviour this is.
const userAgent = "kube-probe/1.36"

// Dial makes a connection, as net.Dialer.DialContext does.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// Target is what to ask.
type Target struct {
	Action *corev1.GRPCAction
	PodIP  string
}

// Probe makes one attempt, for which it has until the deadline of ctx. A server
// that cannot be connected to is tried again until then, as gRPC does. output is
// the text of the event. The error is not nil only if ctx was cancelled.
func Probe(ctx context.Context, dial Dial, target Target) (result probes.Result, output string, err error) {
	timeout := timeLeft(ctx)
	address := net.JoinHostPort(target.PodIP, strconv.Itoa(int(target.Action.Port)))
	service := ""
	if target.Action.Service != nil {
		service = *target.Action.Service
	}
	c, err := connect(ctx, dial, address)
	if err != nil {
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return probes.Unknown, "", context.Cause(ctx)
		}
		return probes.Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", address, timeout, ctx.Err()), nil
	}
	defer c.close()
	status, err := c.check(address, service)
	var rpc *rpcError
	switch {
	case err == nil && status == serving:
		return probes.Success, "service healthy", nil
	case err == nil:
		return probes.Failure, fmt.Sprintf("service unhealthy (responded with %q)", status), nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &rpc) && rpc.code == codeDeadlineExceeded:
		return probes.Failure, fmt.Sprintf("timeout: health rpc did not complete within %v", timeout), nil
	case ctx.Err() != nil:
		return probes.Unknown, "", context.Cause(ctx)
	case rpc != nil && rpc.code == codeUnimplemented:
		return probes.Failure, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): " + rpc.message, nil
	}
	return probes.Failure, fmt.Sprintf("error: health rpc probe failed: %v", err), nil
}

// timeLeft is the timeout that ctx was given just now, in whole seconds as
// probes have them.
func timeLeft(ctx context.Context) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return (time.Until(deadline) + time.Second - 1).Truncate(time.Second)
}

// connect makes a connection that has seen the server's preface, trying again
// with gRPC's delays, but without their jitter. The error is that of ctx.
func connect(ctx context.Context, dial Dial, address string) (*conn, error) {
	for delay := time.Second; ; delay = min(delay*8/5, 120*time.Second) {
		nc, err := dial(ctx, "tcp", address)
		if err == nil {
			c, err := handshake(ctx, nc)
			if err == nil {
				return c, nil
			}
			_ = nc.Close()
		}
		wait := time.NewTimer(delay)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return nil, ctx.Err()
		}
	}
}
