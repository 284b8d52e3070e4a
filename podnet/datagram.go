package podnet

import (
	"net/netip"
	"syscall"
	"time"
)

// The most that fits into a UDP packet.
const (
	maxDatagram4 = 65535 - 20 - 8
	maxDatagram6 = 65535 - 8
)

const (
	// flowTime is how long a flow to the outside lives that is not used.
	flowTime = 30 * time.Second
	// routeTime is how long the answer of Route for a destination within the node is
	// believed: endpoints of a Service come and go.
	routeTime = time.Second
	// stayTime is for how long a flow to a Service may pause and go on with the same
	// endpoint, as with conntrack's timeout of a stream.
	stayTime = 2 * time.Minute
)

// maxFlows bounds the destinations outside the pod that one socket remembers.
const maxFlows = 256

// datagrams is what a datagram socket has besides a socket; its mu guards it.
type datagrams struct {
	head, tail *chunk
	used       int // bytes charged for what is queued

	// last is where the last datagram went, so that the next to the same address
	// needs no lookup.
	last  lastSent
	flows map[netip.AddrPort]*flow
	// names are the addresses that this socket knows others by, where Route
	// translates: what comes from the key is shown as from the value.
	names map[netip.AddrPort]netip.AddrPort
}

type lastSent struct {
	to    netip.AddrPort
	path  path
	until time.Time // when path is another, where it leaves the pod
	sock  *Socket   // nil: nobody is there
	ports uint64    // path.ns.udp.changes when it was found
}

// fresh reports whether path still holds, for a socket of ns.
func (l *lastSent) fresh(ns *Namespace) bool {
	if l.path.ns == ns && l.until.IsZero() {
		return true
	}
	return (l.path.ns == nil || !l.path.ns.closed.Load()) && time.Now().Before(l.until)
}

// flow is where datagrams to an address outside the pod go.
type flow struct {
	path    path
	errno   syscall.Errno
	until   time.Time
	outside *outsideFlow
}

func (s *Socket) connectDatagram(user netip.AddrPort) syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != none {
		return s.closed
	}
	if s.outsider {
		return syscall.EISCONN
	}
	if !user.IsValid() {
		if s.peer.IsValid() {
			s.disconnectDatagram()
		}
		return none
	}
	if errno := s.checkFamily(user.Addr()); errno != none && (s.family != IPv6 || errno != syscall.EINVAL) {
		return errno
	}
	if errno := s.autobind(); errno != none {
		return errno
	}
	to, errno := s.destination(user)
	if errno != none {
		return errno
	}
	p, errno := s.pathTo(to)
	if errno != none {
		return errno
	}
	if s.closed != none { // while Route was asked
		return s.closed
	}
	local := s.local
	if !s.userAddr {
		local = netip.AddrPortFrom(p.src, local.Port())
	}
	if errno := s.ns.udp.connect(s, local, to, false); errno != none {
		return errno
	}
	s.ns.udp.translate(s, p.to)
	return none
}

// disconnectDatagram takes the peer away, and what connect and not bind gave.
func (s *Socket) disconnectDatagram() {
	local := s.local
	if !s.userAddr {
		local = netip.AddrPortFrom(s.wildcard(), local.Port())
	}
	if !s.userPort {
		s.ns.udp.unbind(s)
		local = netip.AddrPortFrom(local.Addr(), 0)
	}
	s.ns.udp.disconnect(s, local)
}

func (s *Socket) autobind() syscall.Errno {
	if s.bucket != nil || s.outsider {
		return none
	}
	return s.ns.udp.bind(s, netip.AddrPortFrom(s.local.Addr(), 0), syscall.EAGAIN)
}

// destination checks an address that the user gave.
func (s *Socket) destination(user netip.AddrPort) (netip.AddrPort, syscall.Errno) {
	to := unmap(user)
	switch addr := to.Addr(); {
	case user.Addr().Is4In6() && s.family == IPv4:
		return to, syscall.EAFNOSUPPORT
	case s.family == IPv6 && addr.Is4() && s.has(optV6Only):
		return to, syscall.ENETUNREACH
	case isBroadcast(addr) && !s.has(optBroadcast):
		return to, syscall.EACCES
	case isGroup(addr):
		return to, syscall.ENETUNREACH
	case addr == any4:
		to = netip.AddrPortFrom(s.here4(s.local.Addr()), to.Port())
	case addr == any6 && s.local.Addr().Is4():
		to = netip.AddrPortFrom(loopback4, to.Port())
	case addr == any6:
		to = netip.AddrPortFrom(loopback6, to.Port())
	}
	// An address that connect has chosen counts where it is mapped, as bind's.
	if local := s.local.Addr(); local.Is4() && !to.Addr().Is4() {
		return to, syscall.EAFNOSUPPORT
	} else if s.userAddr && local.Is6() && to.Addr().Is4() {
		return to, syscall.ENETUNREACH
	}
	return to, none
}

// here4 is what 0.0.0.0 means as a destination: the sender's own address, if it
// has one.
func (s *Socket) here4(local netip.Addr) netip.Addr {
	if local.Is4() && !local.IsUnspecified() {
		return local
	}
	return loopback4
}

// pathTo finds the way to an address. s.mu is held, and let go of while Route
// is asked.
func (s *Socket) pathTo(to netip.AddrPort) (path, syscall.Errno) {
	if s.ns.through == nil && s.ns.isLocal(to.Addr()) || s.ns.udp.foreigner(to) != nil {
		return path{ns: s.ns, to: to, src: s.ns.sourceFor(to.Addr())}, none
	}
	now := time.Now()
	var was netip.AddrPort
	if f := s.dgram.flows[to]; f != nil {
		gone := f.path.ns != nil && f.path.ns.closed.Load()
		if now.Before(f.until) && !gone {
			return s.follow(f)
		}
		if f.path.ns != nil && !gone && f.path.to != to && now.Sub(f.until) < stayTime {
			was = f.path.to
		}
	}
	s.mu.Unlock()
	p, errno := s.ns.routeAgain(UDP, to, was)
	s.mu.Lock()
	if s.closed != none {
		return path{}, s.closed
	}
	if errno == syscall.ECONNREFUSED {
		// The refusal comes back as a message: see refuseDatagram.
		p, errno = path{to: to, src: s.ns.ipOf(to.Addr()), drop: true, refused: true}, none
	}
	f := &flow{path: p, errno: errno, until: now.Add(routeTime)}
	if p.outside {
		f.until = now.Add(flowTime)
	}
	if errno := s.remember(to, f, now); errno != none {
		return path{}, errno
	}
	if to == s.peer {
		s.ns.udp.translate(s, p.to)
	}
	return s.follow(f)
}

// follow returns the path of a flow, or why there is none: a loopback address
// sends nothing out of the pod.
func (s *Socket) follow(f *flow) (path, syscall.Errno) {
	if f.errno != none {
		return path{}, f.errno
	}
	if local := s.local.Addr(); s.userAddr && local.IsLoopback() && f.path.ns != s.ns && !(f.path.outside && f.path.to.Addr().IsLoopback()) && s.ns.network.Lookup(local) != s.ns {
		return path{}, syscall.EINVAL
	}
	return f.path, none
}

// remember keeps a flow, and forgets those that have expired, or any, if there
// are too many. ENOBUFS: the account does not pay for one more.
func (s *Socket) remember(to netip.AddrPort, f *flow, now time.Time) syscall.Errno {
	d := s.dgram
	if old := d.flows[to]; old != nil {
		if old.outside != nil && f.path.outside && old.path.to == f.path.to {
			f.outside, old.outside = old.outside, nil
		}
		s.dropFlow(to, old)
	}
	if len(d.flows) >= maxFlows {
		for k, f := range d.flows {
			if now.After(f.until) || len(d.flows) >= maxFlows {
				s.dropFlow(k, f)
			}
		}
	}
	if s.acct != nil && !s.acct.Charge(flowCharge) {
		if f.outside != nil {
			f.outside.stop()
		}
		return syscall.ENOBUFS
	}
	if d.flows == nil {
		d.flows = make(map[netip.AddrPort]*flow)
		d.names = make(map[netip.AddrPort]netip.AddrPort)
	}
	d.flows[to] = f
	if f.path.to.IsValid() && f.path.to != to {
		d.names[f.path.to] = to
	}
	return none
}

func (s *Socket) dropFlow(to netip.AddrPort, f *flow) {
	if f.outside != nil {
		f.outside.stop()
	}
	delete(s.dgram.flows, to)
	if s.dgram.names[f.path.to] == to {
		delete(s.dgram.names, f.path.to)
	}
	if s.acct != nil {
		s.acct.Release(flowCharge)
	}
}

// closeDatagrams is called with s.mu held.
func (s *Socket) closeDatagrams() {
	d := s.dgram
	if d == nil {
		return
	}
	for to, f := range d.flows {
		s.dropFlow(to, f)
	}
	for c := d.head; c != nil; {
		next := c.next
		c.free()
		c = next
	}
	d.head, d.tail, d.used = nil, nil, 0
	d.last.sock = nil
	if s.outsider {
		s.ns.udp.removeForeigner(s)
	}
}

// sendDatagram sends to user, or if that is invalid to the peer.
func (s *Socket) sendDatagram(bufs [][]byte, user netip.AddrPort) (int, error) {
	n := vecLen(bufs)
	s.mu.Lock()
	target, src, errno := s.prepareDatagram(n, user)
	last := s.dgram.last
	var out *outsideFlow
	if errno == none && last.path.outside {
		if f := s.dgram.flows[last.to]; f != nil {
			if f.outside == nil {
				f.outside = s.startOutside(last.to, last.path)
			}
			out = f.outside
		}
	}
	connected := s.peer == last.to
	s.mu.Unlock()
	switch {
	case errno != none:
		return 0, errno
	case last.path.outside:
		errno = s.sendOutside(out, bufs, n)
	case target != nil:
		errno = target.deliver(s, src, bufs, n)
	case connected && (!last.path.drop || last.path.refused):
		s.refuseDatagram()
	}
	if errno != none {
		return 0, errno
	}
	return n, nil
}

// prepareDatagram checks what can be checked, in the kernel's order, and finds
// the receiver. s.mu is held.
func (s *Socket) prepareDatagram(n int, user netip.AddrPort) (target *Socket, src netip.AddrPort, errno syscall.Errno) {
	if s.closed != none {
		return nil, src, s.closed
	}
	if errno := s.autobind(); errno != none {
		return nil, src, errno
	}
	if n > 65535 {
		return nil, src, syscall.EMSGSIZE
	}
	to := s.peer
	if user.IsValid() {
		if s.family == IPv4 && !user.Addr().Is4() {
			return nil, src, syscall.EAFNOSUPPORT
		}
		if user.Addr().Is4In6() && s.has(optV6Only) {
			return nil, src, syscall.ENETUNREACH
		}
		if user.Port() == 0 {
			return nil, src, syscall.EINVAL
		}
		if to, errno = s.destination(user); errno != none {
			return nil, src, errno
		}
	} else if !to.IsValid() {
		return nil, src, syscall.EDESTADDRREQ
	}
	last := &s.dgram.last
	if last.to != to || !last.fresh(s.ns) {
		p, errno := s.pathTo(to)
		if errno != none {
			return nil, src, errno
		}
		last.to, last.path, last.sock, last.until = to, p, nil, time.Time{}
		if f := s.dgram.flows[to]; f != nil {
			last.until = f.until
		}
	}
	if n > maxDatagram6 || n > maxDatagram4 && to.Addr().Is4() {
		return nil, src, syscall.EMSGSIZE
	}
	if s.err != none {
		return nil, src, s.takeErr()
	}
	if s.shut&ShutWrite != 0 {
		return nil, src, syscall.EPIPE
	}
	src = s.local
	if src.Addr().IsUnspecified() {
		src = netip.AddrPortFrom(last.path.src, src.Port())
	}
	if last.path.ns == nil {
		return nil, src, none
	}
	ports := &last.path.ns.udp
	if now := ports.changes.Load(); last.sock == nil || last.ports != now {
		last.ports = now
		if last.sock = ports.foreigner(to); last.sock == nil {
			last.sock = ports.receiver(last.path.to, src)
		}
	}
	return last.sock, src, none
}

// deliver queues a datagram for s, or drops it if there is no room.
func (s *Socket) deliver(sender *Socket, from netip.AddrPort, bufs [][]byte, n int) syscall.Errno {
	var payer Account
	if sender != nil {
		payer = sender.acct
	}
	charged := payer != nil
	if payer == nil {
		payer = s.acct
	}
	c := newChunk(n, payer)
	source := sender.pod()
	if c == nil {
		if charged {
			return syscall.ENOBUFS
		}
		s.dropped(source)
		return none
	}
	v := vec{bufs: bufs}
	v.skipEmpty()
	c.w = v.copyTo(c.buf)
	size := int(chargeFor(c.class))
	s.mu.Lock()
	d := s.dgram
	if s.closed != none || d.used > int(s.rcvbuf.Load()) {
		s.mu.Unlock()
		c.free()
		s.dropped(source)
		return none
	}
	c.from = from
	if name, ok := d.names[from]; ok {
		c.from = name
	}
	first := d.head == nil
	if first {
		d.head = c
	} else {
		d.tail.next = c
	}
	d.tail = c
	d.used += size
	s.mu.Unlock()
	count(source, s.pod(), n)
	if first {
		s.wake()
	}
	return none
}

func (s *Socket) dropped(source *Namespace) {
	if source == s.ns {
		s.ns.loop.rxDropped.Add(1)
	} else {
		s.ns.pod.rxDropped.Add(1)
	}
}

// refuseDatagram is what a message that a port is closed does to a socket.
func (s *Socket) refuseDatagram() {
	s.mu.Lock()
	s.err = syscall.ECONNREFUSED
	s.mu.Unlock()
	s.wake()
}

func (s *Socket) recvDatagram(bufs [][]byte, flags Flags) (n int, from netip.AddrPort, truncated bool, err error) {
	s.mu.Lock()
	d := s.dgram
	c := d.head
	switch {
	case s.closed != none:
		err = s.closed
	case s.err != none:
		err = s.takeErr()
	case c != nil:
	case s.shut&ShutRead != 0:
		// 0 bytes from nobody.
	default:
		err = syscall.EAGAIN
	}
	if err != nil || c == nil {
		s.mu.Unlock()
		return 0, netip.AddrPort{}, false, err
	}
	if flags&Peek == 0 {
		if d.head = c.next; d.head == nil {
			d.tail = nil
		}
		d.used -= int(chargeFor(c.class))
		s.mu.Unlock()
	}
	v := vec{bufs: bufs}
	v.skipEmpty()
	n = v.copyFrom(c.buf[:c.w])
	truncated = n < c.w
	if flags&Trunc != 0 {
		n = c.w
	}
	from = s.userForm(c.from)
	if flags&Peek == 0 {
		c.free()
	} else {
		s.mu.Unlock()
	}
	return n, from, truncated, nil
}

func (s *Socket) readyDatagram() (readable, writable bool, nbytes int, hangup bool) {
	if c := s.dgram.head; c != nil {
		nbytes = c.w
		readable = true
	}
	return readable || s.err != none || s.shut&ShutRead != 0, true, nbytes, s.shut == ShutBoth
}
