package podnet

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// endpoint is what Conn, PacketConn and Listener share: a socket, and waiting
// for it until a deadline.
type endpoint struct {
	s       *Socket
	network string // for errors: tcp, udp
	rd, wr  deadline
	idle    waiters
}

// wait waits with w, which watches, until it is woken, and says whether to try
// again.
func (e *endpoint) wait(d *deadline, w *waiter) bool {
	if d.expired.Load() {
		return false
	}
	<-w.ch
	return !d.expired.Load()
}

func (e *endpoint) watch() *waiter {
	w := e.idle.get()
	e.s.watch(&w.self)
	return w
}

func (e *endpoint) unwatch(w *waiter) {
	e.s.Unwatch(w)
	e.idle.put(w)
}

// Close closes the socket: whoever waits gets net.ErrClosed.
func (e *endpoint) Close() error {
	err := e.s.Close()
	e.rd.stop()
	e.wr.stop()
	if err != nil {
		return e.error("close", err, nil)
	}
	return nil
}

// LocalAddr is a *net.TCPAddr or *net.UDPAddr.
func (e *endpoint) LocalAddr() net.Addr { return e.addr(e.s.local4in6()) }

// RemoteAddr is nil for what is not connected.
func (e *endpoint) RemoteAddr() net.Addr { return e.addr(e.s.remote()) }

func (e *endpoint) addr(a netip.AddrPort) net.Addr {
	if !a.IsValid() {
		return nil
	}
	a = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	if e.s.kind == Stream {
		return net.TCPAddrFromAddrPort(a)
	}
	return net.UDPAddrFromAddrPort(a)
}

func (s *Socket) local4in6() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.local
}

// SetDeadline implements net.Conn.
func (e *endpoint) SetDeadline(t time.Time) error {
	return errors.Join(e.SetReadDeadline(t), e.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (e *endpoint) SetReadDeadline(t time.Time) error { return e.setDeadline(&e.rd, t) }

// SetWriteDeadline implements net.Conn.
func (e *endpoint) SetWriteDeadline(t time.Time) error { return e.setDeadline(&e.wr, t) }

func (e *endpoint) setDeadline(d *deadline, t time.Time) error {
	if errno := e.s.closedErr(); errno != none {
		return e.error("set", errno, nil)
	}
	d.set(t, e.s.wake)
	return nil
}

func (s *Socket) closedErr() syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// SetReadBuffer sets SO_RCVBUF.
func (e *endpoint) SetReadBuffer(bytes int) error { return e.setOption(RecvBuffer, bytes) }

// SetWriteBuffer sets SO_SNDBUF.
func (e *endpoint) SetWriteBuffer(bytes int) error { return e.setOption(SendBuffer, bytes) }

func (e *endpoint) setOption(o Option, value int) error {
	if err := e.s.SetOption(o, value); err != nil {
		return e.sysError("set", "setsockopt", err, nil)
	}
	return nil
}

// error makes err, of a socket, what package net would return.
func (e *endpoint) error(op string, err error, to net.Addr) error {
	return e.sysError(op, op, err, to)
}

func (e *endpoint) sysError(op, call string, err error, to net.Addr) error {
	if errno, ok := err.(syscall.Errno); ok {
		if e.s.closedErr() != none && (errno == syscall.EBADF || errno == syscall.ENETDOWN) {
			err = net.ErrClosed
		} else {
			err = os.NewSyscallError(call, errno)
		}
	}
	oe := &net.OpError{Op: op, Net: e.network, Err: err}
	local := e.LocalAddr()
	switch remote := e.RemoteAddr(); {
	case to != nil:
		oe.Source, oe.Addr = local, to
	case remote != nil:
		oe.Source, oe.Addr = local, remote
	default:
		oe.Addr = local
	}
	return oe
}
