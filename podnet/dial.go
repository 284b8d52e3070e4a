package podnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// parse reads network and address. Names are not resolved, but for localhost; a
// missing host is the wildcard.
func parse(network, address string) (kind Kind, family Family, any bool, addr netip.AddrPort, err error) {
	switch network {
	case "tcp", "tcp4", "tcp6":
		kind = Stream
	case "udp", "udp4", "udp6":
		kind = Datagram
	default:
		return 0, 0, false, addr, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return 0, 0, false, addr, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil && service != "" {
		return 0, 0, false, addr, &net.AddrError{Err: "invalid port", Addr: address}
	}
	six := strings.HasSuffix(network, "6")
	var ip netip.Addr
	switch {
	case host == "" && (six || !strings.HasSuffix(network, "4")):
		ip, any = any6, !six
	case host == "":
		ip = any4
	case host == "localhost" && six:
		ip = loopback6
	case host == "localhost":
		ip = loopback4
	default:
		if ip, err = netip.ParseAddr(host); err != nil {
			return 0, 0, false, addr, &net.AddrError{Err: "not an IP address", Addr: address}
		}
		ip = ip.Unmap().WithZone("")
	}
	family = IPv6
	if ip.Is4() {
		family = IPv4
	}
	if six && family == IPv4 || strings.HasSuffix(network, "4") && family == IPv6 {
		return 0, 0, false, addr, &net.AddrError{Err: "no suitable address found", Addr: host}
	}
	return kind, family, any, netip.AddrPortFrom(ip, uint16(port)), nil
}

func opError(op, network string, kind Kind, addr netip.AddrPort, call string, err error) error {
	if errno, ok := err.(syscall.Errno); ok {
		if errno == syscall.ENETDOWN {
			err = net.ErrClosed
		} else {
			err = os.NewSyscallError(call, errno)
		}
	}
	oe := &net.OpError{Op: op, Net: network, Err: err}
	if addr.IsValid() && kind == Stream {
		oe.Addr = net.TCPAddrFromAddrPort(addr)
	} else if addr.IsValid() {
		oe.Addr = net.UDPAddrFromAddrPort(addr)
	}
	return oe
}

// Listen listens on a TCP address, as net.Listen does; with no host, on all of
// both families. Several listeners never share a port. Errors are *net.OpError.
func (ns *Namespace) Listen(network, address string) (net.Listener, error) {
	s, network, err := ns.open(network, address, Stream)
	if err != nil {
		return nil, err
	}
	if err := s.Listen(maxBacklog); err != nil {
		addr := s.local4in6()
		s.Close()
		return nil, opError("listen", network, Stream, addr, "listen", err)
	}
	return &Listener{endpoint{s: s, network: network}}, nil
}

// ListenPacket opens a UDP socket, as net.ListenPacket does. The result is a
// *PacketConn.
func (ns *Namespace) ListenPacket(network, address string) (net.PacketConn, error) {
	s, network, err := ns.open(network, address, Datagram)
	if err != nil {
		return nil, err
	}
	return &PacketConn{endpoint{s: s, network: network}}, nil
}

// open returns a bound socket.
func (ns *Namespace) open(network, address string, want Kind) (*Socket, string, error) {
	kind, family, any, addr, err := parse(network, address)
	if err == nil && kind != want {
		err = &net.AddrError{Err: "unexpected address type", Addr: address}
	}
	if err != nil {
		return nil, "", opError("listen", network, want, netip.AddrPort{}, "", err)
	}
	s, err := ns.Socket(family, kind, nil)
	if err != nil {
		return nil, "", opError("listen", network, kind, addr, "socket", err)
	}
	if family == IPv6 && !any {
		s.SetOption(V6Only, 1)
	}
	if kind == Stream {
		s.SetOption(ReuseAddr, 1) // as package net: connections of a predecessor do not matter
	}
	if err := s.Bind(addr); err != nil {
		s.Close()
		return nil, "", opError("listen", network, kind, addr, "bind", err)
	}
	return s, network, nil
}

// DialContext connects to an address as a process in the pod does: with "tcp"
// the result is a *Conn, with "udp" a *PacketConn. Errors are *net.OpError with
// the texts of package net, such as "connect: connection refused" or "i/o
// timeout" when ctx ran out of time.
func (ns *Namespace) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return ns.DialFrom(ctx, netip.AddrPort{}, network, address)
}

// DialFrom is DialContext for a client at the edge of the pod, whose own
// address is source: the pod sees it as the peer. It reaches only addresses of
// the pod. What a pod's socket sends to source by UDP comes here until the
// connection is closed; two UDP clients cannot have the same source at once
// (EADDRINUSE).
func (ns *Namespace) DialFrom(ctx context.Context, source netip.AddrPort, network, address string) (net.Conn, error) {
	kind, family, _, addr, err := parse(network, address)
	if err != nil {
		return nil, opError("dial", network, kind, netip.AddrPort{}, "", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, opError("dial", network, kind, addr, "", contextError(err))
	}
	if addr.Addr().IsUnspecified() {
		addr = netip.AddrPortFrom(loopback4, addr.Port())
		if family = IPv4; strings.HasSuffix(network, "6") {
			addr, family = netip.AddrPortFrom(loopback6, addr.Port()), IPv6
		}
	}
	s, err := ns.Socket(family, kind, nil)
	if err != nil {
		return nil, opError("dial", network, kind, addr, "socket", err)
	}
	if source.IsValid() {
		err = toError(s.becomeOutsider(unmap(source), addr))
	}
	if err == nil && (kind == Stream || !source.IsValid()) {
		err = s.Connect(addr)
	}
	if err == syscall.EINPROGRESS {
		err = s.waitConnect(ctx)
	}
	if err != nil {
		s.Close()
		return nil, opError("dial", network, kind, addr, "connect", err)
	}
	if kind == Stream {
		return newConn(s, network), nil
	}
	return &PacketConn{endpoint{s: s, network: network}}, nil
}

// becomeOutsider gives a new socket an address that is not the pod's.
func (s *Socket) becomeOutsider(source, to netip.AddrPort) syscall.Errno {
	if source.Addr().Is4() != to.Addr().Is4() {
		return syscall.EAFNOSUPPORT
	}
	if !s.ns.isLocal(to.Addr()) {
		return syscall.EHOSTUNREACH
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outsider, s.local = true, source
	if s.kind == Stream {
		return none
	}
	s.peer = to
	return s.ns.udp.addForeigner(s)
}

// waitConnect waits until a connect has ended.
func (s *Socket) waitConnect(ctx context.Context) error {
	if s.conn.Load() == nil {
		w := &waiter{ch: make(chan struct{}, 1)}
		s.Watch(w)
		defer s.Unwatch(w)
		stop := context.AfterFunc(ctx, w.Wake)
		defer stop()
		for {
			if _, writable, _, _ := s.Ready(); writable {
				break
			}
			if err := ctx.Err(); err != nil {
				return contextError(err)
			}
			<-w.ch
		}
	}
	if err := s.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = false
	return toError(s.closed)
}

// contextError is what package net makes of a context's error.
func contextError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return timeoutError{}
	}
	return canceledError{}
}

type timeoutError struct{}

func (timeoutError) Error() string        { return "i/o timeout" }
func (timeoutError) Timeout() bool        { return true }
func (timeoutError) Temporary() bool      { return true }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

type canceledError struct{}

func (canceledError) Error() string        { return "operation was canceled" }
func (canceledError) Is(target error) bool { return target == context.Canceled }
