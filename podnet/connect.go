package podnet

import (
	"container/list"
	"context"
	"net/netip"
	"syscall"
	"time"
)

// connectTimeout is how long a connect waits for a place in the backlog or for
// an answer: Linux with six retries of a SYN.
const connectTimeout = 127 * time.Second

// attempt is a connect that waits for something else than its own goroutine.
type attempt struct {
	client   *Socket
	from, to netip.AddrPort
	listener *Socket       // whose backlog is full; nil if it waits for something else
	place    *list.Element // in listener.accepts.waiting; guarded by listener.mu
	timer    *time.Timer
	cancel   context.CancelFunc // of a dial to the outside
}

// leave takes the attempt out of the backlog's queue. It returns false if it
// was admitted, or refused, before.
func (a *attempt) leave() bool {
	a.listener.mu.Lock()
	defer a.listener.mu.Unlock()
	if a.place == nil {
		return false
	}
	a.listener.accepts.waiting.Remove(a.place)
	a.place = nil
	return true
}

// abandon is called without locks when the client has gone.
func (a *attempt) abandon() {
	if a.timer != nil {
		a.timer.Stop()
	}
	if a.cancel != nil {
		a.cancel()
	}
	if a.listener != nil {
		a.leave()
	}
}

func (a *attempt) timeout() {
	if a.listener == nil || a.leave() {
		a.client.fail(a, syscall.ETIMEDOUT)
	}
}

// Connect connects to an address. For a stream that returns EINPROGRESS, as on
// Linux without waiting even where the answer is known at once: then the socket
// is writable and Err tells how it went. EALREADY: it has not ended yet. A
// datagram socket is connected at once, and the zero AddrPort (AF_UNSPEC)
// disconnects it.
func (s *Socket) Connect(addr netip.AddrPort) error {
	if s.kind == Datagram {
		return toError(s.connectDatagram(addr))
	}
	return toError(s.connectStream(addr))
}

func (s *Socket) connectStream(user netip.AddrPort) syscall.Errno {
	s.mu.Lock()
	if errno, done := s.beginConnect(user); done {
		s.mu.Unlock()
		return errno
	}
	s.state = connecting
	bound, local := s.bucket != nil || s.outsider || s.userAddr, s.local
	s.mu.Unlock()

	// The hooks of route are called without locks; until they have answered,
	// others see a connect under way.
	to := unmap(user)
	if to.Addr() == any4 {
		to = netip.AddrPortFrom(s.here4(local.Addr()), to.Port())
	} else if to.Addr() == any6 && bound && local.Addr().Is4() {
		to = netip.AddrPortFrom(loopback4, to.Port())
	}
	p, errno := s.routeStream(to)
	refused := errno == syscall.ECONNREFUSED
	if refused {
		p, errno = path{src: s.ns.ipOf(to.Addr())}, none
	}
	if p.ns == s.ns && (to.Addr() == any4 || to.Addr() == any6) {
		to = p.to
	}

	s.mu.Lock()
	if s.closed != none {
		s.mu.Unlock()
		return s.closed
	}
	if errno == none {
		errno = s.fixLocal(p, to, bound, local)
	}
	if errno != none {
		s.state = idle
		s.mu.Unlock()
		return errno
	}
	from := s.local
	s.mu.Unlock()
	switch {
	case refused:
		s.fail(nil, syscall.ECONNREFUSED)
	case p.drop:
		s.await(&attempt{client: s})
	case p.outside:
		s.dialOutside(p)
	default:
		s.join(p, from)
	}
	return syscall.EINPROGRESS
}

// routeStream finds the way to an address. Clients at the edge reach the pod
// and nothing else.
func (s *Socket) routeStream(to netip.AddrPort) (path, syscall.Errno) {
	if s.outsider && !s.ns.isLocal(to.Addr()) {
		return path{}, syscall.EHOSTUNREACH
	}
	return s.ns.route(TCP, to)
}

// beginConnect does what connect does before it sends anything; done if that
// was all.
func (s *Socket) beginConnect(user netip.AddrPort) (errno syscall.Errno, done bool) {
	if s.closed != none {
		return s.closed, true
	}
	switch s.state {
	case connecting:
		return syscall.EALREADY, true
	case listening:
		return syscall.EISCONN, true
	case connected:
		if !s.fresh {
			return syscall.EISCONN, true
		}
		s.fresh = false
		c := s.conn.Load()
		if !c.isDead(s.side) {
			return none, true
		}
		errno := c.takeErr(s.side)
		if errno == none {
			errno = syscall.ECONNABORTED
		}
		c.close(s.side, true)
		s.conn.Store(nil)
		s.state, s.shut = idle, 0
		s.leaveTuple()
		s.rewild()
		return errno, true
	case broken:
		return syscall.EINVAL, true
	case failed:
		errno := s.takeErr()
		if errno == none {
			errno = syscall.ECONNABORTED
		}
		s.state, s.shut = idle, 0
		s.rewild()
		return errno, true
	}
	if !user.IsValid() {
		return syscall.EAFNOSUPPORT, true
	}
	if errno := s.checkFamily(user.Addr()); errno != none {
		return errno, true
	}
	if user.Addr().Is4In6() && s.has(optV6Only) {
		return syscall.ENETUNREACH, true
	}
	return none, false
}

// fixLocal gives a connecting socket both of its addresses.
func (s *Socket) fixLocal(p path, to netip.AddrPort, bound bool, local netip.AddrPort) syscall.Errno {
	addr := local.Addr()
	switch {
	case s.outsider:
		s.peer = to
		return none
	case bound && addr.Is4() && !to.Addr().Is4():
		return syscall.EAFNOSUPPORT
	case bound && !addr.Is4() && to.Addr().Is4() && !addr.IsUnspecified():
		return syscall.ENETUNREACH
	case !bound || addr.IsUnspecified():
		addr = p.src
	case p.ns != s.ns && addr.IsLoopback() && !(p.outside && p.to.Addr().IsLoopback()) && s.ns.network.Lookup(addr) != s.ns:
		return syscall.EINVAL // a loopback address does not leave the pod
	}
	if s.bucket == nil {
		if errno := s.ns.tcp.bind(s, netip.AddrPortFrom(addr, 0), syscall.EADDRNOTAVAIL); errno != none {
			return errno
		}
		s.userPort = false
		local = s.local
	}
	return s.ns.tcp.connect(s, netip.AddrPortFrom(addr, local.Port()), to, true)
}

// join connects to whoever listens at the end of p.
func (s *Socket) join(p path, from netip.AddrPort) {
	var l *Socket
	for l == nil {
		if l = p.ns.tcp.listener(p.to); l == nil {
			s.fail(nil, syscall.ECONNREFUSED)
			return
		}
		l.mu.Lock()
		if l.state != listening || l.closed != none { // since
			l.mu.Unlock()
			l = nil
		}
	}
	q := l.accepts
	errno := syscall.ENFILE
	if !q.full() {
		errno = l.spawn(s, from, p.to)
	}
	switch errno {
	case none:
	case syscall.ENOBUFS: // a limit of the client's own
		l.mu.Unlock()
		s.fail(nil, errno)
		return
	default:
		a := &attempt{client: s, from: from, to: p.to, listener: l}
		a.place = q.waiting.PushBack(a)
		l.mu.Unlock()
		s.await(a)
		return
	}
	first := q.len() == 1
	l.mu.Unlock()
	s.established()
	if first {
		l.wake()
	}
}

// pair connects two sockets.
func pair(client, server *Socket) {
	c := new(conn)
	c.ends[0].sock, c.ends[1].sock = client, server
	client.side, server.side = 0, 1
	server.conn.Store(c)
	client.conn.Store(c)
}

// established is called once a connecting socket has its conn.
func (s *Socket) established() {
	s.mu.Lock()
	if s.closed != none {
		s.mu.Unlock()
		s.conn.Load().close(s.side, true)
		return
	}
	if s.state == connecting {
		s.state, s.fresh = connected, true
	}
	if s.attempt != nil {
		if s.attempt.timer != nil {
			s.attempt.timer.Stop()
		}
		s.attempt = nil
	}
	s.mu.Unlock()
	s.wake()
}

// await leaves a connecting socket waiting for a.
func (s *Socket) await(a *attempt) {
	s.mu.Lock()
	if s.conn.Load() != nil { // admitted meanwhile
		s.mu.Unlock()
		return
	}
	if s.closed != none {
		s.mu.Unlock()
		a.abandon()
		return
	}
	if s.state == connecting { // not refused meanwhile
		s.attempt = a
		a.timer = time.AfterFunc(connectTimeout, a.timeout)
	}
	s.mu.Unlock()
}

// fail ends a connect. a, if not nil, must be what it is waiting for.
func (s *Socket) fail(a *attempt, errno syscall.Errno) {
	s.mu.Lock()
	if s.state != connecting || s.closed != none || a != nil && s.attempt != nil && s.attempt != a {
		s.mu.Unlock()
		return
	}
	if s.attempt != nil && s.attempt.timer != nil {
		s.attempt.timer.Stop()
	}
	s.state, s.err, s.shut, s.attempt = failed, errno, ShutBoth, nil
	if !s.outsider {
		s.leaveTuple()
	}
	s.mu.Unlock()
	s.wake()
}

// leaveTuple undoes fixLocal; a port that the user chose stays.
func (s *Socket) leaveTuple() {
	local := s.local
	if !s.userPort {
		s.ns.tcp.unbind(s)
	}
	s.ns.tcp.disconnect(s, local)
}

// rewild makes a socket's address the wildcard again if connect chose it.
func (s *Socket) rewild() {
	if !s.userAddr {
		s.ports().disconnect(s, netip.AddrPortFrom(s.wildcard(), s.local.Port()))
	}
}

// Shutdown ends one or both halves. As on Linux it ends them also where it
// returns ENOTCONN, and shutting down the reading half of a listener makes it an
// ordinary bound socket again.
func (s *Socket) Shutdown(how How) error {
	if how == 0 || how > ShutBoth {
		return syscall.EINVAL
	}
	if c := s.conn.Load(); c != nil {
		s.mu.Lock()
		if s.fresh {
			s.fresh = false
			if c.isDead(s.side) {
				s.state = broken
			}
		}
		s.mu.Unlock()
		return toError(c.shutdown(s.side, how))
	}
	s.mu.Lock()
	if s.closed != none {
		s.mu.Unlock()
		return s.closed
	}
	var errno syscall.Errno
	var kids []*Socket
	var clients []*attempt
	var a *attempt
	stopped := uint16(0)
	switch {
	case s.kind == Datagram:
		if !s.peer.IsValid() {
			errno = syscall.ENOTCONN
		}
		s.shut |= how
	case s.state == listening:
		if how&ShutRead != 0 {
			stopped = s.local.Port()
			kids, clients = s.unlisten()
		}
	case s.state == connecting && s.attempt != nil:
		a, s.attempt = s.attempt, nil
		s.state = idle
		s.leaveTuple()
		s.rewild()
	default:
		s.shut |= how
		errno = syscall.ENOTCONN
		if s.state == failed {
			s.state = broken
		}
	}
	s.mu.Unlock()
	if a != nil {
		a.abandon()
	}
	turnAway(kids, clients)
	if stopped != 0 {
		s.ns.changed(TCP, stopped)
	}
	s.wake()
	return toError(errno)
}

// recvUnconnected is Recv of a stream without connection.
func (s *Socket) recvUnconnected() syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed != none:
		return s.closed
	case s.state == listening:
		return syscall.ENOTCONN
	case s.err != none:
		return s.takeErr()
	case s.shut&ShutRead != 0:
		return none
	case s.state == connecting:
		return syscall.EAGAIN
	}
	return syscall.ENOTCONN
}

// sendUnconnected is Send of a stream without connection.
func (s *Socket) sendUnconnected() syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed != none:
		return s.closed
	case s.err != none:
		return s.takeErr()
	case s.state == connecting:
		return syscall.EAGAIN
	}
	return syscall.EPIPE
}
