package inproc

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// dialer is a pod network that carries connections.
type dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// DialContext implements sandbox.Sandbox.
func (s *podSandbox) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if host == "localhost" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	if s.network == nil { // the host's
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	if d, ok := any(s.network).(dialer); ok {
		return d.DialContext(ctx, network, address)
	}
	// In a network that carries nothing, nobody listens.
	refused := &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	if to, err := netip.ParseAddrPort(address); err == nil {
		refused.Addr = net.TCPAddrFromAddrPort(to)
	}
	return nil, refused
}
