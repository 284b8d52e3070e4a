package podnet

import (
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Conn is a TCP connection as package net has it: a net.Conn.
type Conn struct{ endpoint }

var (
	_ net.Conn       = (*Conn)(nil)
	_ net.Conn       = (*PacketConn)(nil)
	_ net.PacketConn = (*PacketConn)(nil)
	_ net.Listener   = (*Listener)(nil)
)

func newConn(s *Socket, network string) *Conn {
	return &Conn{endpoint{s: s, network: network}}
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	if c.rd.expired.Load() {
		return 0, c.error("read", os.ErrDeadlineExceeded, nil)
	}
	n, err := c.read(p)
	if err == syscall.EAGAIN {
		n, err = c.waitRead(p)
	}
	if err != nil {
		return 0, c.error("read", err, nil)
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (c *Conn) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, toError(c.s.closedErr())
	}
	bufs := [1][]byte{p}
	return c.s.Recv(bufs[:], 0)
}

func (c *Conn) waitRead(p []byte) (int, error) {
	w := c.watch()
	defer c.unwatch(w)
	for {
		n, err := c.read(p)
		if err != syscall.EAGAIN {
			return n, err
		}
		if !c.wait(&c.rd, w) {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	if c.wr.expired.Load() {
		return 0, c.error("write", os.ErrDeadlineExceeded, nil)
	}
	n, err := c.write(p)
	if err == nil && n < len(p) || err == syscall.EAGAIN {
		n, err = c.waitWrite(p, n)
	}
	if err != nil {
		return n, c.error("write", err, nil)
	}
	return n, nil
}

func (c *Conn) write(p []byte) (int, error) {
	bufs := [1][]byte{p}
	return c.s.Send(bufs[:])
}

func (c *Conn) waitWrite(p []byte, n int) (int, error) {
	w := c.watch()
	defer c.unwatch(w)
	for {
		k, err := c.write(p[n:])
		n += k
		switch {
		case err == syscall.EAGAIN:
			if !c.wait(&c.wr, w) {
				return n, os.ErrDeadlineExceeded
			}
		case err != nil || n == len(p):
			return n, err
		}
	}
}

// CloseRead shuts down the reading half.
func (c *Conn) CloseRead() error { return c.shutdown(ShutRead) }

// CloseWrite shuts down the writing half: the peer reads io.EOF.
func (c *Conn) CloseWrite() error { return c.shutdown(ShutWrite) }

func (c *Conn) shutdown(how How) error {
	if err := c.s.Shutdown(how); err != nil {
		return c.sysError("close", "shutdown", err, nil)
	}
	return nil
}

// SetLinger: with 0, Close resets the connection.
func (c *Conn) SetLinger(seconds int) error { return c.setOption(Linger, seconds) }

// SetNoDelay is always on in effect.
func (c *Conn) SetNoDelay(on bool) error { return c.setOption(NoDelay, toInt(on)) }

// SetKeepAlive has no effect: a peer cannot vanish without a reset.
func (c *Conn) SetKeepAlive(on bool) error { return c.setOption(KeepAlive, toInt(on)) }

// SetKeepAlivePeriod has no effect.
func (c *Conn) SetKeepAlivePeriod(time.Duration) error { return nil }

func toInt(on bool) int {
	if on {
		return 1
	}
	return 0
}

// Listener is a net.Listener.
type Listener struct{ endpoint }

// Accept implements net.Listener. The connection is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	s, err := l.accept()
	if err != nil {
		return nil, l.error("accept", err, nil)
	}
	return newConn(s, l.network), nil
}

func (l *Listener) accept() (*Socket, error) {
	if l.rd.expired.Load() {
		return nil, os.ErrDeadlineExceeded
	}
	s, err := l.s.Accept()
	if err != syscall.EAGAIN {
		return s, err
	}
	w := l.watch()
	defer l.unwatch(w)
	for {
		if s, err := l.s.Accept(); err != syscall.EAGAIN {
			return s, err
		}
		if !l.wait(&l.rd, w) {
			return nil, os.ErrDeadlineExceeded
		}
	}
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.LocalAddr() }

// Socket returns the guest's face of the listener: the two share everything.
func (e *endpoint) Socket() *Socket { return e.s }
