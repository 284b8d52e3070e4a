package podnet

import (
	"net"
	"net/netip"
	"os"
	"syscall"
)

// PacketConn is a UDP socket as package net has it: a net.PacketConn, and if it
// was dialed a net.Conn.
type PacketConn struct{ endpoint }

// Read implements net.Conn: one datagram, and what of it does not fit is lost.
func (c *PacketConn) Read(p []byte) (int, error) {
	n, _, err := c.recv(p)
	if err != nil {
		return 0, c.error("read", err, nil)
	}
	return n, nil
}

// ReadFrom implements net.PacketConn.
func (c *PacketConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromAddrPort(p)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// ReadFromAddrPort is ReadFrom without allocation.
func (c *PacketConn) ReadFromAddrPort(p []byte) (int, netip.AddrPort, error) {
	n, from, err := c.recv(p)
	if err != nil {
		return 0, netip.AddrPort{}, c.sysError("read", "recvfrom", err, nil)
	}
	return n, unmap(from), nil
}

func (c *PacketConn) recv(p []byte) (int, netip.AddrPort, error) {
	if c.rd.expired.Load() {
		return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
	}
	bufs := [1][]byte{p}
	n, from, _, err := c.s.RecvFrom(bufs[:], 0)
	if err != syscall.EAGAIN {
		return n, from, err
	}
	w := c.watch()
	defer c.unwatch(w)
	for {
		n, from, _, err := c.s.RecvFrom(bufs[:], 0)
		if err != syscall.EAGAIN {
			return n, from, err
		}
		if !c.wait(&c.rd, w) {
			return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
		}
	}
}

// Write implements net.Conn.
func (c *PacketConn) Write(p []byte) (int, error) {
	if c.wr.expired.Load() {
		return 0, c.error("write", os.ErrDeadlineExceeded, nil)
	}
	bufs := [1][]byte{p}
	n, err := c.s.Send(bufs[:])
	if err != nil {
		return n, c.error("write", err, nil)
	}
	return n, nil
}

// WriteTo implements net.PacketConn.
func (c *PacketConn) WriteTo(p []byte, to net.Addr) (int, error) {
	a, ok := to.(*net.UDPAddr)
	if !ok || a == nil {
		return 0, c.error("write", syscall.EINVAL, to)
	}
	return c.WriteToAddrPort(p, a.AddrPort())
}

// WriteToAddrPort is WriteTo without allocation.
func (c *PacketConn) WriteToAddrPort(p []byte, to netip.AddrPort) (int, error) {
	if c.wr.expired.Load() {
		return 0, c.error("write", os.ErrDeadlineExceeded, net.UDPAddrFromAddrPort(to))
	}
	if c.s.family == IPv6 && to.Addr().Is4() {
		to = netip.AddrPortFrom(netip.AddrFrom16(to.Addr().As16()), to.Port())
	} else if c.s.family == IPv4 {
		to = unmap(to)
	}
	bufs := [1][]byte{p}
	n, err := c.s.SendTo(bufs[:], to)
	if err != nil {
		return n, c.sysError("write", "sendto", err, net.UDPAddrFromAddrPort(to))
	}
	return n, nil
}
