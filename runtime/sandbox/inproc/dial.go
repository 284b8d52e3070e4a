package inproc

import (
	"context"
	"net"

	"github.com/wasmpod/wasmpod/runtime/container"
)

// DialContext implements sandbox.Sandbox.
func (s *podSandbox) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if s.network == nil { // the host's
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if host == "localhost" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	return s.network.Namespace.DialContext(ctx, network, address)
}

// DNSWarnings implements sandbox.Sandbox.
func (s *podSandbox) DNSWarnings() []string {
	_, warnings := container.PodDNS(s.pod, s.cfg.ResolvConf, s.cfg.ClusterDNS)
	return warnings
}
