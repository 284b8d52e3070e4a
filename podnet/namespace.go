package podnet

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// Namespace is the network of one pod: 127.0.0.0/8, ::1 and the pod's IPs, with
// the ports that its containers share. It is safe for concurrent use.
type Namespace struct {
	network *Network
	ips     []netip.Addr
	ctx     context.Context // ends with the namespace
	cancel  context.CancelFunc

	tcp, udp ports

	through func(Proto, netip.AddrPort) bool // see ReachThrough

	mu     sync.Mutex // guards the list of sockets
	closed atomic.Bool
	all    *Socket // a list through nextSock and prevSock
	socks  int

	loop, pod traffic
}

func newNamespace(n *Network) *Namespace {
	ns := &Namespace{network: n}
	ns.ctx, ns.cancel = context.WithCancel(context.Background())
	return ns
}

// IP is the pod IP. It stays the same until Close (SBX-02, NET-06).
func (ns *Namespace) IP() netip.Addr { return ns.ips[0] }

// IPs are the pod IPs, the first being IP.
func (ns *Namespace) IPs() []netip.Addr { return slices.Clone(ns.ips) }

// ReachThrough has what goes to a loopback address, and nobody in the namespace
// takes, go to Config.Outside where f says so: loopback is then that of the
// host, as far as others have not taken it here. Call it before the namespace is
// used.
func (ns *Namespace) ReachThrough(f func(Proto, netip.AddrPort) bool) { ns.through = f }

// Close ends every socket, so that every wait returns, and gives the pod IP
// back. Connections to other pods are reset. Further calls do nothing.
func (ns *Namespace) Close() error {
	if ns.closed.Swap(true) {
		return nil
	}
	ns.cancel()
	for {
		ns.mu.Lock()
		s := ns.all
		ns.mu.Unlock()
		if s == nil {
			break
		}
		s.end(syscall.ENETDOWN)
	}
	ns.network.remove(ns)
	return nil
}

// add takes a socket into the list, at the cost of payer, which may be nil.
func (ns *Namespace) add(s *Socket, payer Account) syscall.Errno {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if ns.closed.Load() {
		return syscall.ENETDOWN
	}
	if ns.socks >= ns.network.cfg.MaxSockets {
		return syscall.ENFILE
	}
	if payer != nil && !payer.Charge(socketCharge) {
		return syscall.ENOBUFS
	}
	s.payer = payer
	ns.socks++
	s.nextSock = ns.all
	if ns.all != nil {
		ns.all.prevSock = s
	}
	ns.all = s
	return none
}

func (ns *Namespace) forget(s *Socket) {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if s.prevSock == nil && ns.all != s {
		return
	}
	if s.prevSock != nil {
		s.prevSock.nextSock = s.nextSock
	} else {
		ns.all = s.nextSock
	}
	if s.nextSock != nil {
		s.nextSock.prevSock = s.prevSock
	}
	s.nextSock, s.prevSock = nil, nil
	ns.socks--
	s.setPayer(nil)
}

// transfer makes another account pay for a socket.
func (ns *Namespace) transfer(s *Socket, payer Account) syscall.Errno {
	ns.mu.Lock()
	defer ns.mu.Unlock()
	if s.payer == payer || s.prevSock == nil && ns.all != s {
		return none
	}
	if payer != nil && !payer.Charge(socketCharge) {
		return syscall.ENOBUFS
	}
	s.setPayer(payer)
	return none
}

// setPayer releases what the socket has cost so far. ns.mu is held.
func (s *Socket) setPayer(payer Account) {
	if s.payer != nil {
		s.payer.Release(socketCharge)
	}
	s.payer = payer
}

// isLocal reports whether addr is the pod's own.
func (ns *Namespace) isLocal(addr netip.Addr) bool {
	if slices.Contains(ns.ips, addr) {
		return true
	}
	if addr == loopback6 {
		return true
	}
	return addr.Is4() && addr.IsLoopback() && !isBroadcast(addr) && !ns.network.isPodOrReserved(addr)
}

// sourceFor is the address that a packet to a local address comes from.
func (ns *Namespace) sourceFor(to netip.Addr) netip.Addr {
	if slices.Contains(ns.ips, to) {
		return to
	}
	if to.Is4() {
		return loopback4
	}
	return loopback6
}

// ipOf is the pod's IP of the family of to; unspecified if it has none.
func (ns *Namespace) ipOf(to netip.Addr) netip.Addr {
	for _, ip := range ns.ips {
		if ip.Is4() == to.Is4() {
			return ip
		}
	}
	if to.Is4() {
		return any4
	}
	return any6
}

// Traffic counts what sockets sent and received: bytes of payload, and packets,
// which are datagrams or writes to a stream.
type Traffic struct {
	RxBytes, RxPackets, TxBytes, TxPackets uint64
	// RxDropped are datagrams for which a socket had no room.
	RxDropped uint64
}

// Stats are the counters of a namespace.
type Stats struct {
	Loopback Traffic // within the pod
	Pod      Traffic // to and from other pods and the outside
	Sockets  int
}

type traffic struct {
	rxBytes, rxPackets, txBytes, txPackets, rxDropped atomic.Uint64
}

func (t *traffic) load() Traffic {
	return Traffic{t.rxBytes.Load(), t.rxPackets.Load(), t.txBytes.Load(), t.txPackets.Load(), t.rxDropped.Load()}
}

// pod is whose traffic a socket's is; nil for the outside.
func (s *Socket) pod() *Namespace {
	if s == nil || s.outsider {
		return nil
	}
	return s.ns
}

// count records n bytes from one namespace to another.
func count(from, to *Namespace, n int) {
	if from == to && from != nil {
		from.loop.txBytes.Add(uint64(n))
		from.loop.txPackets.Add(1)
		return
	}
	if from != nil {
		from.pod.txBytes.Add(uint64(n))
		from.pod.txPackets.Add(1)
	}
	if to != nil {
		to.pod.rxBytes.Add(uint64(n))
		to.pod.rxPackets.Add(1)
	}
}

// Stats returns the counters. It takes no lock of the data path.
func (ns *Namespace) Stats() Stats {
	s := Stats{Loopback: ns.loop.load(), Pod: ns.pod.load()}
	// What was sent on loopback was received on loopback.
	s.Loopback.RxBytes, s.Loopback.RxPackets = s.Loopback.TxBytes, s.Loopback.TxPackets
	ns.mu.Lock()
	s.Sockets = ns.socks
	ns.mu.Unlock()
	return s
}

// Listening describes a socket that takes connections or datagrams.
type Listening struct {
	Proto Proto
	Addr  netip.AddrPort // an unspecified IPv6 address also takes IPv4, unless V6Only
	// V6Only is meaningful for IPv6.
	V6Only bool
	// Pending and Backlog are of a listening stream: connections to be accepted,
	// and how many there may be.
	Pending, Backlog int
}

// Takes says whether a socket takes what comes for an address of the pod: one
// that listens, or for UDP one that is bound and not connected.
func (ns *Namespace) Takes(proto Proto, addr netip.AddrPort) bool {
	if proto == UDP {
		return ns.udp.takes(addr, func(s *Socket) bool { return !s.peer.IsValid() })
	}
	return ns.tcp.takes(addr, func(s *Socket) bool { return s.listening })
}

// Listening lists listening stream sockets and bound, unconnected datagram
// sockets, sorted by protocol, port and address.
func (ns *Namespace) Listening() []Listening {
	var list []Listening
	ns.tcp.each(func(s *Socket) {
		if s.listening {
			l := Listening{Proto: TCP, Addr: s.userForm(s.local), V6Only: s.has(optV6Only)}
			list = append(list, l)
		}
	}, func(s *Socket, i int) {
		list[i].Pending, list[i].Backlog = s.backlogNow()
	})
	ns.udp.each(func(s *Socket) {
		if !s.peer.IsValid() {
			list = append(list, Listening{Proto: UDP, Addr: s.userForm(s.local), V6Only: s.has(optV6Only)})
		}
	}, nil)
	slices.SortStableFunc(list, func(a, b Listening) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Addr.Port(), b.Addr.Port()), a.Addr.Addr().Compare(b.Addr.Addr()))
	})
	return list
}
