package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Defaults of Config.
const (
	DefaultMaxConns = 1024
	DefaultTimeout  = 30 * time.Second
)

// Config of a Dialer. The zero value denies everything.
type Config struct {
	Policy Policy
	// Ceiling, if not nil, is a second policy that must allow a destination too: what
	// nobody's wishes get past.
	Ceiling *Policy
	// MaxConns bounds connections and flows at a time; default DefaultMaxConns.
	MaxConns int
	// Timeout bounds a dial; default DefaultTimeout.
	Timeout time.Duration
	// Mark, if not nil, is told of every socket before it is connected: the kernel can
	// be given it to check. Its error is the dial's, and what the kernel then refuses
	// (EPERM) is EACCES.
	Mark func(fd uintptr) error
}

// Dialer dials for one pod. It is safe for concurrent use.
type Dialer struct {
	cfg    Config
	dialer net.Dialer
	slots  chan struct{}

	mu     sync.Mutex
	closed bool
	conns  map[*conn]struct{}

	denied atomic.Uint64
}

// New returns a Dialer. Close it.
func New(cfg Config) *Dialer {
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	d := &Dialer{cfg: cfg, slots: make(chan struct{}, cfg.MaxConns), conns: make(map[*conn]struct{})}
	d.dialer = net.Dialer{Timeout: cfg.Timeout, Control: d.control}
	d.dialer.SetMultipathTCP(false) // the kernel opens sockets for that which nobody has marked
	return d
}

// Allows says whether a destination may be reached.
func (d *Dialer) Allows(network string, to netip.AddrPort) bool {
	return d.cfg.Policy.Allows(network, to) && (d.cfg.Ceiling == nil || d.cfg.Ceiling.Allows(network, to))
}

// AllowsDNS says whether the host's resolver may be asked for names outside.
func (d *Dialer) AllowsDNS() bool {
	return d.cfg.Policy.dns && (d.cfg.Ceiling == nil || d.cfg.Ceiling.dns)
}

// Denied returns how many dials the policy has refused.
func (d *Dialer) Denied() uint64 { return d.denied.Load() }

// DialContext connects to an IP address and port; names are not resolved here.
// network is tcp or udp. What the policy does not allow is EACCES, more
// connections than there may be is ENOBUFS, and after Close it is net.ErrClosed.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%w: %w", syscall.EINVAL, err)}
	}
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addrOf(network, to), Err: err}
	}
	if network != "tcp" && network != "udp" {
		return fail(syscall.EPROTONOSUPPORT)
	}
	to = netip.AddrPortFrom(to.Addr().Unmap().WithZone(""), to.Port())
	if !d.Allows(network, to) {
		d.denied.Add(1)
		return fail(syscall.EACCES)
	}
	select {
	case d.slots <- struct{}{}:
	default:
		return fail(syscall.ENOBUFS)
	}
	real, err := d.dialer.DialContext(ctx, network, to.String())
	if err != nil {
		<-d.slots
		if d.cfg.Mark != nil && errors.Is(err, syscall.EPERM) {
			d.denied.Add(1)
			return fail(syscall.EACCES)
		}
		return nil, err
	}
	c := &conn{Conn: real, dialer: d}
	d.mu.Lock()
	closed := d.closed
	if !closed {
		d.conns[c] = struct{}{}
	}
	d.mu.Unlock()
	if closed {
		<-d.slots
		return fail(errors.Join(net.ErrClosed, real.Close()))
	}
	return c, nil
}

// control looks at the address once more at the last moment: whatever path led
// there, nothing else is connected to.
func (d *Dialer) control(network, address string, c syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !d.Allows(network[:3], to) {
		d.denied.Add(1)
		return syscall.EACCES
	}
	if d.cfg.Mark == nil {
		return nil
	}
	failed := c.Control(func(fd uintptr) { err = d.cfg.Mark(fd) })
	return errors.Join(failed, err)
}

// Close closes every connection.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	conns := make([]*conn, 0, len(d.conns))
	for c := range d.conns {
		conns = append(conns, c)
	}
	d.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
	return nil
}

// conn gives its place back when it is closed.
type conn struct {
	net.Conn
	dialer *Dialer
	once   sync.Once
}

func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.dialer.mu.Lock()
		delete(c.dialer.conns, c)
		c.dialer.mu.Unlock()
		<-c.dialer.slots
	})
	return err
}

// CloseWrite ends what is sent, and leaves the other half open.
func (c *conn) CloseWrite() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return syscall.EOPNOTSUPP
}

func addrOf(network string, to netip.AddrPort) net.Addr {
	if network == "udp" {
		return net.UDPAddrFromAddrPort(to)
	}
	return net.TCPAddrFromAddrPort(to)
}
