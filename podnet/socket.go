package podnet

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
)

// Socket is a socket as guests have it: no operation blocks, and errors are
// always a syscall.Errno. To wait, Watch, look at Ready, and wait for a Wake.
// Errors, the order of their checks, and readiness are those of Linux; the
// package comment lists the differences. It is safe for concurrent use.
//
// IPv4 peers of an IPv6 socket are given and returned as mapped addresses.
type Socket struct {
	ns     *Namespace // nil: the far end of a connection to the outside
	acct   Account
	family Family
	kind   Kind
	side   uint8 // of conn

	opts                   atomic.Uint32
	rcvbuf, sndbuf, linger atomic.Int32

	// Guarded by ns.mu.
	nextSock, prevSock *Socket // in ns.all
	payer              Account // of socketCharge

	// Written with mu and the mutex of ns's ports held: either is enough to read.
	bucket      *bucket // nil while there is no port
	index       int     // in bucket.socks
	listening   bool
	kid         bool // accepted: the port is the listener's
	kidReuse    bool
	via         netip.AddrPort // of a connected datagram socket: what Route made of peer; guarded by ports.mu
	tupled      bool           // has an entry in ports.tuples
	userPort    bool           // the user chose the port
	userAddr    bool           // and the address
	local, peer netip.AddrPort // never mapped

	conn atomic.Pointer[conn] // of a stream, once connected

	mu       sync.Mutex
	state    state
	closed   syscall.Errno // what operations fail with once closed
	err      syscall.Errno // SO_ERROR, while there is no conn
	shut     How           // while there is no conn
	fresh    bool          // connected, and connect has not said so yet
	accepts  *acceptQueue  // of a listener
	attempt  *attempt      // while connecting and something has to be waited for
	dgram    *datagrams    // of a datagram socket
	outsider bool          // ports are not ours: see DialFrom

	// Who watches: mostly one, a guest.
	sole     atomic.Pointer[Waker]
	watchMu  sync.Mutex
	watchers []Waker // others
	watched  atomic.Int32
}

type state uint8

const (
	idle state = iota
	listening
	connecting
	connected
	failed // connect failed, and nobody has been told by connect yet
	broken // and then shut down: it never connects again
)

// Socket opens a socket that is paid for, with its buffers, by acct, which may be
// nil. The error is ENFILE if the namespace has too many, ENOBUFS if acct
// refuses, ENETDOWN after Close, EAFNOSUPPORT or EPROTONOSUPPORT for what there is not.
func (ns *Namespace) Socket(family Family, kind Kind, acct Account) (*Socket, error) {
	if family != IPv4 && family != IPv6 {
		return nil, syscall.EAFNOSUPPORT
	}
	if kind != Stream && kind != Datagram {
		return nil, syscall.EPROTONOSUPPORT
	}
	s := newSocket(ns, family, kind, acct)
	if errno := ns.add(s, acct); errno != none {
		return nil, errno
	}
	return s, nil
}

func newSocket(ns *Namespace, family Family, kind Kind, acct Account) *Socket {
	s := &Socket{ns: ns, acct: acct, family: family, kind: kind}
	s.local = netip.AddrPortFrom(s.wildcard(), 0)
	s.rcvbuf.Store(defaultBuffer)
	s.sndbuf.Store(defaultBuffer)
	s.linger.Store(-1)
	if kind == Datagram {
		s.dgram = new(datagrams)
	}
	return s
}

func (s *Socket) wildcard() netip.Addr {
	if s.family == IPv6 {
		return any6
	}
	return any4
}

func (s *Socket) ports() *ports {
	if s.kind == Stream {
		return &s.ns.tcp
	}
	return &s.ns.udp
}

// userForm is an address as the socket's user sees it.
func (s *Socket) userForm(a netip.AddrPort) netip.AddrPort {
	if s.family == IPv6 && a.Addr().Is4() {
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
	}
	return a
}

// unmap is the address that the user means, without mapping and zone.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// checkFamily refuses addresses of another family.
func (s *Socket) checkFamily(a netip.Addr) syscall.Errno {
	switch {
	case s.family == IPv4 && !a.Is4():
		return syscall.EAFNOSUPPORT
	case s.family == IPv6 && !a.Is6(): // its sockaddr is too short
		return syscall.EINVAL
	}
	return none
}

// Bind gives the socket an address; port 0 takes a free one.
func (s *Socket) Bind(addr netip.AddrPort) error {
	errno := s.bind(addr)
	if errno == none && s.kind == Datagram && addr.Port() != 0 {
		if errno = s.ns.changed(UDP, addr.Port()); errno != none {
			s.mu.Lock()
			s.ns.udp.unbind(s)
			s.ns.udp.disconnect(s, netip.AddrPortFrom(s.wildcard(), 0))
			s.userPort, s.userAddr = false, false
			s.mu.Unlock()
		}
	}
	return toError(errno)
}

func (s *Socket) bind(user netip.AddrPort) syscall.Errno {
	if errno := s.checkFamily(user.Addr()); errno != none {
		return errno
	}
	addr := unmap(user)
	mapped := user.Addr().Is4In6()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed != none:
		return s.closed
	case mapped && s.has(optV6Only):
		return syscall.EINVAL
	case s.family == IPv6 && s.kind == Stream && addr.Addr().IsMulticast():
		return syscall.EINVAL
	case !addr.Addr().IsUnspecified() && !s.ns.isLocal(addr.Addr()):
		return syscall.EADDRNOTAVAIL
	case s.bucket != nil || s.state != idle && s.state < failed || s.outsider:
		return syscall.EINVAL
	}
	had := s.has(optV6Only)
	if addr.Addr().Is6() && !addr.Addr().IsUnspecified() { // who has such an address has none of IPv4
		s.setFlag(optV6Only, true)
	}
	if errno := s.ports().bind(s, addr, syscall.EADDRINUSE); errno != none {
		s.setFlag(optV6Only, had)
		s.userAddr = false // of an earlier bind, whose port a failed connect has taken
		s.ports().disconnect(s, netip.AddrPortFrom(s.wildcard(), s.local.Port()))
		return errno
	}
	s.userPort = addr.Port() != 0
	s.userAddr = !addr.Addr().IsUnspecified() || mapped
	return none
}

// LocalAddr is the address that the socket has, unspecified and port 0 if none.
func (s *Socket) LocalAddr() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.userForm(s.local)
}

// RemoteAddr is the peer's address; invalid if the socket is not connected.
func (s *Socket) RemoteAddr() netip.AddrPort {
	if s.kind == Stream {
		c := s.conn.Load()
		if c == nil || c.isDead(s.side) {
			return netip.AddrPort{}
		}
	}
	return s.remote()
}

// remote is the peer's address, also when the connection has ended.
func (s *Socket) remote() netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.peer.IsValid() {
		return netip.AddrPort{}
	}
	return s.userForm(s.peer)
}

// Err returns the pending error and clears it (SO_ERROR).
func (s *Socket) Err() error {
	if c := s.conn.Load(); c != nil {
		return toError(c.takeErr(s.side))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return toError(s.takeErr())
}

func (s *Socket) takeErr() syscall.Errno {
	errno := s.err
	s.err = none
	return errno
}

// Recv reads into bufs, in order. 0 bytes of a stream are its end, where there
// was room. Linux does not say so of a datagram socket whose reading half is
// shut down and that does not block; here it returns 0 as well.
func (s *Socket) Recv(bufs [][]byte, flags Flags) (int, error) {
	if s.kind == Datagram {
		n, _, _, err := s.recvDatagram(bufs, flags)
		return n, err
	}
	if c := s.conn.Load(); c != nil {
		n, errno := c.recv(s.side, bufs, flags)
		if errno != none {
			return 0, errno
		}
		return n, nil
	}
	return 0, toError(s.recvUnconnected())
}

// RecvFrom is Recv that tells whose datagram it is and whether the rest of it
// did not fit and is lost. A stream has no such address.
func (s *Socket) RecvFrom(bufs [][]byte, flags Flags) (n int, from netip.AddrPort, truncated bool, err error) {
	if s.kind == Datagram {
		return s.recvDatagram(bufs, flags)
	}
	n, err = s.Recv(bufs, flags)
	return n, netip.AddrPort{}, false, err
}

// Send writes bufs, in order. Of a stream it may take a part, and EAGAIN means
// that there is no room; a datagram goes as a whole. When the account refuses
// memory, Send takes what there was memory for; if that is nothing it is EAGAIN
// as long as the peer still has something to read, which gives memory back, and
// else ENOBUFS. There is no SIGPIPE: that is the caller's.
func (s *Socket) Send(bufs [][]byte) (int, error) {
	if s.kind == Datagram {
		return s.sendDatagram(bufs, netip.AddrPort{})
	}
	if c := s.conn.Load(); c != nil {
		n, errno := c.send(s.side, bufs)
		if errno != none {
			return 0, errno
		}
		return n, nil
	}
	return 0, toError(s.sendUnconnected())
}

// SendTo sends a datagram to an address. A stream ignores the address.
func (s *Socket) SendTo(bufs [][]byte, to netip.AddrPort) (int, error) {
	if s.kind == Datagram && to.IsValid() {
		return s.sendDatagram(bufs, to)
	}
	return s.Send(bufs)
}

// Ready says what would not block: readable is a read, an accept, or a pending
// error; writable a write, or a connect that has ended; hangup is that both
// halves of a stream are shut down, or that it was never connected (POLLHUP).
// nbytes is how much can be read: of a stream all, of datagrams the first.
func (s *Socket) Ready() (readable, writable bool, nbytes int, hangup bool) {
	if c := s.conn.Load(); c != nil {
		return c.ready(s.side)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != none {
		return true, true, 0, true
	}
	if s.kind == Datagram {
		return s.readyDatagram()
	}
	switch s.state {
	case listening:
		return s.accepts.len() > 0, false, 0, false
	case connecting:
		// It may have just been connected: whoever did that will wake.
		return false, false, 0, false
	}
	return s.err != none || s.shut&ShutRead != 0, true, 0, true
}

// Watch has w woken whenever Ready's answer may have changed, until Unwatch.
// Look at Ready after Watch, not before. A waker that is watching already is
// watching twice.
func (s *Socket) Watch(w Waker) {
	s.watch(&w)
}

// watch is Watch by who has a place to remember w at.
func (s *Socket) watch(w *Waker) {
	if s.sole.CompareAndSwap(nil, w) {
		return
	}
	s.watchMu.Lock()
	s.watchers = append(s.watchers, *w)
	s.watched.Store(int32(len(s.watchers)))
	s.watchMu.Unlock()
}

// Unwatch undoes one Watch.
func (s *Socket) Unwatch(w Waker) {
	if sole := s.sole.Load(); sole != nil && *sole == w && s.sole.CompareAndSwap(sole, nil) {
		return
	}
	s.watchMu.Lock()
	defer s.watchMu.Unlock()
	for i, o := range s.watchers {
		if o != w {
			continue
		}
		last := len(s.watchers) - 1
		s.watchers[i] = s.watchers[last]
		s.watchers[last] = nil
		s.watchers = s.watchers[:last]
		s.watched.Store(int32(last))
		return
	}
}

// wake wakes the watchers. It must be called without locks.
func (s *Socket) wake() {
	// Whoever watches after these loads will see the change that was made before.
	if sole := s.sole.Load(); sole != nil {
		(*sole).Wake()
	}
	if s.watched.Load() == 0 {
		return
	}
	var few [4]Waker
	s.watchMu.Lock()
	all := append(few[:0], s.watchers...)
	s.watchMu.Unlock()
	for _, w := range all {
		w.Wake()
	}
}

// Close closes the socket: later operations return EBADF. Of a stream, unread
// data or a linger of 0 make it a reset, and what was sent and not read yet can
// still be read. Connections of a listener that were not accepted are reset.
func (s *Socket) Close() error {
	return toError(s.end(syscall.EBADF))
}

func (s *Socket) end(why syscall.Errno) syscall.Errno {
	s.mu.Lock()
	if s.closed != none {
		errno := s.closed
		s.mu.Unlock()
		// Whoever ends the namespace may meet a socket that is being closed.
		if s.ns != nil {
			s.ns.forget(s)
		}
		return errno
	}
	s.closed = why
	if s.bucket != nil || s.tupled {
		s.ports().unbind(s)
	}
	a := s.attempt
	s.attempt = nil
	var kids []*Socket
	var clients []*attempt
	served, proto, port := s.accepts != nil, TCP, s.local.Port()
	if s.kind == Datagram {
		served, proto = s.userPort, UDP
	}
	if s.accepts != nil {
		kids, clients = s.stopListening()
	}
	s.closeDatagrams()
	s.mu.Unlock()
	if s.ns != nil {
		s.ns.forget(s)
		if served {
			s.ns.changed(proto, port)
		}
	}
	if a != nil {
		a.abandon()
	}
	turnAway(kids, clients)
	if c := s.conn.Load(); c != nil {
		c.close(s.side, why != syscall.EBADF || s.linger.Load() == 0)
	}
	s.wake()
	return none
}
