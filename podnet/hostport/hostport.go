// Package hostport joins real sockets of the host to the network of a pod: what
// connects to a listener of the host is connected to the pod. It knows neither
// WebAssembly nor Kubernetes.
package hostport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Defaults of Config.
const (
	DefaultMaxConns    = 1024
	DefaultDialTimeout = 10 * time.Second
	DefaultIdle        = 60 * time.Second
)

const (
	streamBuffer = 32 << 10
	maxDatagram  = 64 << 10
)

// Dial connects to the pod on behalf of a client outside. network is tcp or udp.
type Dial func(ctx context.Context, network string, client netip.AddrPort) (net.Conn, error)

// Limit bounds the connections and flows of several Forwarders together: those
// of one pod.
type Limit struct{ slots chan struct{} }

// NewLimit returns a Limit of n connections; 0 means DefaultMaxConns.
func NewLimit(n int) *Limit {
	if n <= 0 {
		n = DefaultMaxConns
	}
	return &Limit{make(chan struct{}, n)}
}

// Config of a Forwarder.
type Config struct {
	Dial Dial
	// Limit may be shared; nil: one of its own, of DefaultMaxConns. Streams over the
	// limit wait in the kernel's backlog, datagrams of new clients are dropped.
	Limit *Limit
	// DialTimeout bounds Dial; default DefaultDialTimeout.
	DialTimeout time.Duration
	// Idle is for how long a client that sends datagrams is remembered; default
	// DefaultIdle.
	Idle time.Duration
	// Mark, if not nil, is told of the socket before it is bound, and where that will
	// be: the kernel can be given it to check. Its error is Listen's.
	Mark func(fd uintptr, at netip.AddrPort) error
	Log  *slog.Logger // may be nil
}

// Forwarder is one listener of the host. Close it.
type Forwarder struct {
	cfg    Config
	addr   netip.AddrPort
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	closer io.Closer // the listening socket

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]struct{}
	flows  map[netip.AddrPort]*flow
}

// Listen binds a socket of the host; network is tcp or udp. The error is that of
// bind, such as EADDRINUSE or, for a port below 1024, EACCES.
func Listen(ctx context.Context, network string, at netip.AddrPort, cfg Config) (*Forwarder, error) {
	if cfg.Limit == nil {
		cfg.Limit = NewLimit(0)
	}
	if cfg.DialTimeout <= 0 {
		cfg.DialTimeout = DefaultDialTimeout
	}
	if cfg.Idle <= 0 {
		cfg.Idle = DefaultIdle
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Forwarder{cfg: cfg, conns: make(map[net.Conn]struct{}), flows: make(map[netip.AddrPort]*flow)}
	f.ctx, f.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var lc net.ListenConfig
	if cfg.Mark != nil {
		lc.SetMultipathTCP(false) // the kernel opens sockets for that which nobody has marked
		lc.Control = func(family, _ string, c syscall.RawConn) (err error) {
			failed := c.Control(func(fd uintptr) { err = cfg.Mark(fd, boundAt(family, at)) })
			return errors.Join(failed, err)
		}
	}
	switch network {
	case "tcp":
		l, err := lc.Listen(ctx, "tcp", at.String())
		if err != nil {
			f.cancel()
			return nil, err
		}
		f.addr, f.closer = l.Addr().(*net.TCPAddr).AddrPort(), l
		f.tasks.Go(func() { f.accept(l) })
	case "udp":
		pc, err := lc.ListenPacket(ctx, "udp", at.String())
		if err != nil {
			f.cancel()
			return nil, err
		}
		c := pc.(*net.UDPConn)
		f.addr, f.closer = c.LocalAddr().(*net.UDPAddr).AddrPort(), c
		f.tasks.Go(func() { f.receive(c) })
	default:
		f.cancel()
		return nil, net.UnknownNetworkError(network)
	}
	return f, nil
}

// boundAt is where package net binds a socket: to listen at all addresses of IPv4
// it takes one of IPv6, and all of its.
func boundAt(family string, at netip.AddrPort) netip.AddrPort {
	if strings.HasSuffix(family, "6") && at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port())
	}
	return at
}

// Addr is the address that is bound.
func (f *Forwarder) Addr() netip.AddrPort { return f.addr }

// Close unbinds the address, ends every connection and waits for all of it.
func (f *Forwarder) Close() error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		f.tasks.Wait()
		return nil
	}
	f.closed = true
	conns := make([]net.Conn, 0, len(f.conns))
	for c := range f.conns {
		conns = append(conns, c)
	}
	f.mu.Unlock()
	f.cancel()
	err := f.closer.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // Unbind has closed it
	}
	for _, c := range conns {
		c.Close()
	}
	f.tasks.Wait()
	return err
}

// Unbind unbinds the address and leaves connections alone: they end by
// themselves, or with Close. Flows of datagrams, which have no end, end with it.
func (f *Forwarder) Unbind() error { return f.closer.Close() }

// Wait waits until the address is unbound and every connection has ended.
func (f *Forwarder) Wait() { f.tasks.Wait() }

// track has Close close c; false means that it is too late.
func (f *Forwarder) track(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.conns[c] = struct{}{}
	return true
}

func (f *Forwarder) release(c net.Conn) {
	c.Close()
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
}

func (f *Forwarder) accept(l net.Listener) {
	for delay := time.Duration(0); ; {
		c, err := l.Accept()
		if err != nil {
			if f.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, say. That passes.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			f.cfg.Log.Warn("accepting a connection", "address", f.addr, "error", err, "next", delay)
			select {
			case <-time.After(delay):
				continue
			case <-f.ctx.Done():
				return
			}
		}
		delay = 0
		// Not before accept: an idle listener holds no place.
		select {
		case f.cfg.Limit.slots <- struct{}{}:
		case <-f.ctx.Done():
			c.Close()
			return
		}
		f.tasks.Go(func() {
			defer func() { <-f.cfg.Limit.slots }()
			f.serve(c)
		})
	}
}

// serve joins a client to the pod.
func (f *Forwarder) serve(client net.Conn) {
	if !f.track(client) {
		client.Close()
		return
	}
	defer f.release(client)
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.DialTimeout)
	pod, err := f.cfg.Dial(ctx, "tcp", client.RemoteAddr().(*net.TCPAddr).AddrPort())
	cancel()
	if err != nil {
		abort(client) // a reset is what a port without a listener answers
		return
	}
	if !f.track(pod) {
		pod.Close()
		return
	}
	defer f.release(pod)
	done := make(chan error, 2)
	f.tasks.Go(func() { done <- pump(pod, client) })
	f.tasks.Go(func() { done <- pump(client, pod) })
	for range 2 {
		if err := <-done; err != nil {
			// One side was reset: so is the other, and both pumps end.
			abort(client)
			abort(pod)
		}
	}
}

var buffers = sync.Pool{New: func() any {
	b := make([]byte, streamBuffer)
	return &b
}}

// pump copies until src ends, and then ends that half of dst: a slow reader of
// dst holds up src, and with it who writes to it.
func pump(dst, src net.Conn) error {
	b := buffers.Get().(*[]byte)
	defer buffers.Put(b)
	// Without their ReadFrom and WriteTo: those would bring buffers of their own.
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *b)
	if err != nil {
		return err
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		// The other side may have closed it already.
		_ = half.CloseWrite()
		return nil
	}
	return dst.Close()
}

// abort closes with a reset where there is such a thing.
func abort(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	c.Close()
}

// flow is the datagrams of one client.
type flow struct {
	conn net.Conn
	last atomic.Int64 // UnixNano of the last datagram either way
}

func (f *Forwarder) receive(c *net.UDPConn) {
	b := make([]byte, maxDatagram)
	for {
		n, client, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			if f.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier reply
		}
		client = netip.AddrPortFrom(client.Addr().Unmap(), client.Port())
		if fl := f.flowOf(c, client); fl != nil {
			fl.last.Store(time.Now().UnixNano())
			_, _ = fl.conn.Write(b[:n]) // datagrams may be lost
		}
	}
}

// flowOf finds or makes the flow of a client; nil if there is no room, or nobody
// takes it.
func (f *Forwarder) flowOf(c *net.UDPConn, client netip.AddrPort) *flow {
	f.mu.Lock()
	fl := f.flows[client]
	f.mu.Unlock()
	if fl != nil {
		return fl
	}
	select {
	case f.cfg.Limit.slots <- struct{}{}:
	default:
		return nil
	}
	ctx, cancel := context.WithTimeout(f.ctx, f.cfg.DialTimeout)
	pod, err := f.cfg.Dial(ctx, "udp", client)
	cancel()
	if err != nil || !f.track(pod) {
		if err == nil {
			pod.Close()
		}
		<-f.cfg.Limit.slots
		return nil
	}
	fl = &flow{conn: pod}
	fl.last.Store(time.Now().UnixNano())
	f.mu.Lock()
	f.flows[client] = fl
	f.mu.Unlock()
	f.tasks.Go(func() { f.reply(c, client, fl) })
	return fl
}

// reply sends a client what the pod answers, until both have been silent.
func (f *Forwarder) reply(c *net.UDPConn, client netip.AddrPort, fl *flow) {
	defer func() {
		f.mu.Lock()
		delete(f.flows, client)
		f.mu.Unlock()
		f.release(fl.conn)
		<-f.cfg.Limit.slots
	}()
	b := make([]byte, maxDatagram)
	for {
		idle := time.Unix(0, fl.last.Load()).Add(f.cfg.Idle)
		if err := fl.conn.SetReadDeadline(idle); err != nil {
			return
		}
		n, err := fl.conn.Read(b)
		var timeout net.Error
		switch {
		case err == nil:
			fl.last.Store(time.Now().UnixNano())
			_, _ = c.WriteToUDPAddrPort(b[:n], client)
		case errors.As(err, &timeout) && timeout.Timeout():
			if time.Since(time.Unix(0, fl.last.Load())) >= f.cfg.Idle {
				return
			}
		default:
			return
		}
	}
}
