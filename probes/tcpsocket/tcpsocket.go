// Package tcpsocket carries out tcpSocket probes (PROBE-19).
package tcpsocket

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/wasmpod/wasmpod/probes"
)

// Dial makes a connection, as net.Dialer.DialContext does.
type Dial = func(ctx context.Context, network, address string) (net.Conn, error)

// Target is what to connect to.
type Target struct {
	Action *corev1.TCPSocketAction
	// Ports are those of the container, which the action's may name (PROBE-24).
	Ports []corev1.ContainerPort
	PodIP string // the host, unless the action has one
}

// Probe makes one attempt, for which it has until the deadline of ctx: that a
// connection is accepted is a success, and it is closed at once. output is the
// text of the event. An error means that the attempt could not be made (PROBE-09).
func Probe(ctx context.Context, dial Dial, target Target) (result probes.Result, output string, err error) {
	port, err := probes.Port(target.Action.Port, target.Ports)
	if err != nil {
		return probes.Unknown, "", err
	}
	host := target.Action.Host
	if host == "" {
		host = target.PodIP
	}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
			return probes.Failure, "dial tcp " + address + ": i/o timeout", nil
		}
		return probes.Failure, err.Error(), nil
	}
	_ = conn.Close() // that it was made is all that matters
	return probes.Success, "", nil
}
