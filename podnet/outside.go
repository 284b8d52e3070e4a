package podnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Connections to the outside have goroutines, as somebody has to wait for the
// host's sockets. The pod's end is an ordinary connection.

// dialOutside has s, which is connecting, connected to p.to by Config.Outside.
func (s *Socket) dialOutside(p path) {
	if s.acct != nil && !s.acct.Charge(outsideCharge) {
		s.fail(nil, syscall.ENOBUFS)
		return
	}
	ctx, cancel := context.WithCancel(s.ns.ctx)
	a := &attempt{client: s, cancel: cancel}
	s.await(a)
	go func() {
		defer func() {
			cancel()
			if s.acct != nil {
				s.acct.Release(outsideCharge)
			}
		}()
		far, err := s.ns.network.cfg.Outside.DialContext(ctx, s.ns, "tcp", p.to.String())
		if err != nil {
			s.fail(a, dialErrno(err))
			return
		}
		near := newSocket(nil, s.family, Stream, s.acct)
		near.state = connected
		s.mu.Lock()
		if s.attempt != a || s.closed != none { // has given up
			s.mu.Unlock()
			far.Close()
			return
		}
		pair(s, near)
		s.mu.Unlock()
		s.established()
		splice(newConn(near, "tcp"), far)
	}()
}

// dialErrno is what a guest gets to see of a dial's error.
func dialErrno(err error) syscall.Errno {
	var errno syscall.Errno
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &errno) && errno != none:
		return errno
	case errors.As(err, &timeout) && timeout.Timeout():
		return syscall.ETIMEDOUT
	}
	return syscall.ENETUNREACH
}

// splice copies between the two until both directions have ended, and closes
// them. A direction that ends in order shuts down the half it went to; an error
// resets both.
func splice(near *Conn, far net.Conn) {
	var both sync.WaitGroup
	var broken atomic.Bool
	one := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
			if errors.Is(err, syscall.ENOTCONN) {
				err = nil // the other direction has ended as well
			}
		} else if err == nil {
			err = net.ErrClosed
		}
		if err != nil && !broken.Swap(true) {
			for _, c := range []net.Conn{to, from} {
				if l, ok := c.(interface{ SetLinger(int) error }); ok {
					l.SetLinger(0)
				}
				c.Close()
			}
		}
	}
	both.Go(func() { one(near, far) })
	one(far, near)
	both.Wait()
	near.Close()
	far.Close()
}

// outsideIdle is when a flow of datagrams to the outside is forgotten.
const outsideIdle = time.Minute

// outsideQueue is how many datagrams wait for a flow's dial or for the host.
const outsideQueue = 64

// outsideFlow carries datagrams of one socket to one address outside.
type outsideFlow struct {
	queue  chan *chunk
	cancel context.CancelFunc
	ctx    context.Context
	used   atomic.Int64 // time of the last datagram, UnixNano
}

func (f *outsideFlow) stop() { f.cancel() }

// startOutside starts a flow. s.mu is held.
func (s *Socket) startOutside(to netip.AddrPort, p path) *outsideFlow {
	ctx, cancel := context.WithCancel(s.ns.ctx)
	f := &outsideFlow{queue: make(chan *chunk, outsideQueue), cancel: cancel, ctx: ctx}
	go f.run(s, to, p)
	return f
}

// sendOutside hands a datagram to a flow; it is dropped if too many wait.
func (s *Socket) sendOutside(f *outsideFlow, bufs [][]byte, n int) syscall.Errno {
	c := newChunk(n, s.acct)
	if c == nil {
		return syscall.ENOBUFS
	}
	v := vec{bufs: bufs}
	v.skipEmpty()
	c.w = v.copyTo(c.buf)
	if f == nil || f.ctx.Err() != nil {
		c.free()
		return none
	}
	select {
	case f.queue <- c:
		count(s.ns, nil, n)
		if f.ctx.Err() != nil {
			f.drain() // run has perhaps done so before this one came
		}
	default:
		c.free()
	}
	return none
}

func (f *outsideFlow) drain() {
	for {
		select {
		case c := <-f.queue:
			c.free()
		default:
			return
		}
	}
}

func (f *outsideFlow) run(s *Socket, to netip.AddrPort, p path) {
	defer f.drain()
	defer s.endOutside(to, f)
	defer f.cancel()
	far, err := s.ns.network.cfg.Outside.DialContext(f.ctx, s.ns, "udp", p.to.String())
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) {
			s.refuseDatagramFrom(to)
		}
		return
	}
	var reader sync.WaitGroup
	defer reader.Wait()
	defer far.Close()
	defer context.AfterFunc(f.ctx, func() { far.Close() })() // also in the midst of a Write
	f.used.Store(time.Now().UnixNano())
	reader.Go(func() { f.read(s, to, far) })
	for {
		select {
		case <-f.ctx.Done():
			return
		case c := <-f.queue:
			_, err := far.Write(c.buf[:c.w])
			c.free()
			f.used.Store(time.Now().UnixNano())
			if errors.Is(err, syscall.ECONNREFUSED) {
				s.refuseDatagramFrom(to)
			} else if err != nil {
				return
			}
		}
	}
}

// read delivers what comes back until nothing has gone either way for a while.
func (f *outsideFlow) read(s *Socket, to netip.AddrPort, far net.Conn) {
	defer f.cancel()
	c := newChunk(1<<maxChunkShift, s.acct)
	if c == nil {
		return
	}
	defer c.free()
	for {
		idle := time.Since(time.Unix(0, f.used.Load()))
		if idle >= outsideIdle {
			return
		}
		far.SetReadDeadline(time.Now().Add(outsideIdle - idle))
		n, err := far.Read(c.buf)
		switch {
		case err == nil:
			f.used.Store(time.Now().UnixNano())
			s.deliver(nil, to, [][]byte{c.buf[:n]}, n)
		case errors.Is(err, syscall.ECONNREFUSED):
			s.refuseDatagramFrom(to)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return
		}
	}
}

// endOutside forgets a flow that has ended by itself.
func (s *Socket) endOutside(to netip.AddrPort, f *outsideFlow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.dgram.flows[to]; have != nil && have.outside == f {
		have.outside = nil
	}
}

func (s *Socket) refuseDatagramFrom(to netip.AddrPort) {
	s.mu.Lock()
	connected := s.peer == to
	s.mu.Unlock()
	if connected {
		s.refuseDatagram()
	}
}
