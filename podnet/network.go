package podnet

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
)

// DefaultPrefix is where pod IPs come from when nothing else is configured: a
// part of the loopback range, so that an address of it can be reached on the
// host without root and never leaves it.
var DefaultPrefix = netip.MustParsePrefix("127.128.0.0/10")

// ErrExhausted is returned when every pod IP is in use.
var ErrExhausted = errors.New("no free pod IP")

// DefaultMaxSockets is how many sockets one namespace may have, connections
// that were not accepted yet included.
const DefaultMaxSockets = 1 << 16

// Config of a Network. The zero value is the default.
type Config struct {
	// Prefix is where pod IPs come from; default DefaultPrefix.
	Prefix netip.Prefix
	// Prefix6, if valid, gives every pod a second address, of IPv6 (NET-06).
	Prefix6 netip.Prefix
	// Reserved are prefixes that pods never have as their own although they lie in
	// 127.0.0.0/8, such as the Services': connections to them go through Route.
	Reserved []netip.Prefix
	// MaxSockets bounds the sockets of one namespace; default DefaultMaxSockets.
	MaxSockets int
	// Route, if not nil, is asked once per connect and per new flow of datagrams
	// that leave a pod; to is the destination as the pod named it. It may be called
	// from many goroutines.
	Route func(from *Namespace, proto Proto, to netip.AddrPort) Verdict
	// Stay, if not nil, reports whether a flow of datagrams that is in use may go on
	// to where Route has translated its destination to before: Route would perhaps
	// choose another one.
	Stay func(from *Namespace, proto Proto, to, was netip.AddrPort) bool
	// Outside, if not nil, reaches what is no pod. Without: ENETUNREACH.
	Outside Outside
	// Changed, if not nil, is called when a socket has begun or ended to take
	// connections or datagrams at a port that it asked for: what Namespace.Takes
	// says of the port may be different. It is called without locks held, by whoever
	// made the change, and not any more while a namespace closes. A socket that has
	// begun fails with the error, which wraps a syscall.Errno, and takes nothing.
	Changed func(ns *Namespace, proto Proto, port uint16) error
}

// Network connects the pods of a node, in memory, and hands out their IPs. An
// address that was released is handed out again only after all others, so that
// a late packet or a stale client of a removed pod does not reach its
// successor. It is safe for concurrent use.
type Network struct {
	cfg Config

	mu     sync.RWMutex
	ranges []*addrRange // IPv4 first, as far as there is one
	pods   map[netip.Addr]*Namespace
}

// addrRange hands out addresses of a prefix in turn.
type addrRange struct {
	prefix netip.Prefix
	next   netip.Addr
}

// NewNetwork returns a Network without pods. The first address of a prefix (the
// network) and, for IPv4, the last (the broadcast) are never handed out.
func NewNetwork(cfg Config) (*Network, error) {
	if !cfg.Prefix.IsValid() {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.MaxSockets <= 0 {
		cfg.MaxSockets = DefaultMaxSockets
	}
	if cfg.Prefix6.IsValid() && (!cfg.Prefix6.Addr().Is6() || !cfg.Prefix.Addr().Is4()) {
		return nil, fmt.Errorf("pod IP ranges %s and %s: want one of IPv4 and one of IPv6", cfg.Prefix, cfg.Prefix6)
	}
	cfg.Reserved = slices.Clone(cfg.Reserved)
	n := &Network{cfg: cfg, pods: make(map[netip.Addr]*Namespace)}
	for _, prefix := range []netip.Prefix{cfg.Prefix, cfg.Prefix6} {
		if !prefix.IsValid() {
			continue
		}
		prefix = prefix.Masked()
		if prefix.Addr().BitLen()-prefix.Bits() < 2 {
			return nil, fmt.Errorf("pod IP range %s: need room for at least two addresses", prefix)
		}
		n.ranges = append(n.ranges, &addrRange{prefix: prefix, next: prefix.Addr().Next()})
	}
	return n, nil
}

// NewNamespace allocates a pod IP. The error is ErrExhausted when there is none.
func (n *Network) NewNamespace() (*Namespace, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ns := newNamespace(n)
	for _, r := range n.ranges {
		ip, err := r.allocate(n.pods)
		if err != nil {
			n.removeLocked(ns)
			return nil, err
		}
		n.pods[ip] = ns
		ns.ips = append(ns.ips, ip)
	}
	return ns, nil
}

// NewNamespaceAt is NewNamespace with addresses that somebody else has chosen,
// the first being the pod IP. The error says if another namespace has one.
func (n *Network) NewNamespaceAt(ips ...netip.Addr) (*Namespace, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ns := newNamespace(n)
	for _, ip := range ips {
		ip = ip.Unmap()
		if !ip.IsValid() || ip.IsUnspecified() || isGroup(ip) || n.pods[ip] != nil {
			n.removeLocked(ns)
			return nil, fmt.Errorf("pod IP %s: invalid, or another pod has it", ip)
		}
		n.pods[ip] = ns
		ns.ips = append(ns.ips, ip)
	}
	if len(ns.ips) == 0 {
		return nil, errors.New("a pod needs an IP")
	}
	return ns, nil
}

func (r *addrRange) allocate(used map[netip.Addr]*Namespace) (netip.Addr, error) {
	first := r.next
	for {
		ip := r.next
		r.next = r.next.Next()
		if !r.prefix.Contains(r.next) || r.isBroadcast(r.next) {
			r.next = r.prefix.Addr().Next()
		}
		if used[ip] == nil {
			return ip, nil
		}
		if r.next == first {
			return netip.Addr{}, fmt.Errorf("%w in %s", ErrExhausted, r.prefix)
		}
	}
}

// isBroadcast reports whether ip is the last address of an IPv4 range.
func (r *addrRange) isBroadcast(ip netip.Addr) bool {
	return ip.Is4() && !r.prefix.Contains(ip.Next())
}

func (n *Network) remove(ns *Namespace) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removeLocked(ns)
}

func (n *Network) removeLocked(ns *Namespace) {
	for _, ip := range ns.ips {
		if n.pods[ip] == ns {
			delete(n.pods, ip)
		}
	}
}

// Lookup returns the pod whose IP ip is, or nil.
func (n *Network) Lookup(ip netip.Addr) *Namespace {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.pods[ip.Unmap()]
}

// isPodOrReserved reports whether ip can only be a pod's or a Service's.
func (n *Network) isPodOrReserved(ip netip.Addr) bool {
	for _, r := range n.ranges {
		if r.prefix.Contains(ip) {
			return true
		}
	}
	for _, p := range n.cfg.Reserved {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}

// path is where packets from a namespace to an address go.
type path struct {
	ns      *Namespace     // whose sockets get them; nil: Outside
	to      netip.AddrPort // after translation
	src     netip.Addr     // the sender's address, where its socket is bound to none
	outside bool
	drop    bool
	refused bool // of a datagram: dropped, with a message that says so
}

// route finds the way to an address, which is not mapped.
func (ns *Namespace) route(proto Proto, to netip.AddrPort) (path, syscall.Errno) {
	return ns.routeAgain(proto, to, netip.AddrPort{})
}

// routeAgain is route for a flow whose destination was translated before, if was
// is valid.
func (ns *Namespace) routeAgain(proto Proto, to, was netip.AddrPort) (path, syscall.Errno) {
	addr := to.Addr()
	switch {
	case addr == any4:
		addr = loopback4
	case addr == any6:
		addr = loopback6
	}
	if isGroup(addr) {
		return path{}, syscall.ENETUNREACH
	}
	to = netip.AddrPortFrom(addr, to.Port())
	if ns.isLocal(addr) {
		if f := ns.through; f != nil && !ns.Takes(proto, to) && f(proto, to) {
			return path{to: to, src: ns.sourceFor(addr), outside: true}, none
		}
		return path{ns: ns, to: to, src: ns.sourceFor(addr)}, none
	}
	src := ns.ipOf(addr)
	n := ns.network
	verdict := Verdict{}
	switch {
	case was.IsValid() && n.cfg.Stay != nil && n.cfg.Stay(ns, proto, to, was):
		verdict.To = was
	case n.cfg.Route != nil:
		verdict = n.cfg.Route(ns, proto, to)
	}
	switch verdict.Action {
	case Refuse:
		return path{}, syscall.ECONNREFUSED
	case Drop:
		return path{to: to, src: src, drop: true}, none
	case Unreachable:
		return path{}, syscall.EHOSTUNREACH
	case Prohibit:
		return path{}, syscall.EACCES
	}
	if verdict.To.IsValid() {
		to = netip.AddrPortFrom(verdict.To.Addr().Unmap(), verdict.To.Port())
		src = ns.ipOf(to.Addr())
	}
	if verdict.Action != ToOutside {
		if pod := n.Lookup(to.Addr()); pod != nil {
			return path{ns: pod, to: to, src: src}, none
		}
		if n.isPodOrReserved(to.Addr()) || to.Addr().IsLoopback() {
			return path{}, syscall.EHOSTUNREACH
		}
	}
	if n.cfg.Outside == nil {
		return path{}, syscall.ENETUNREACH
	}
	return path{to: to, src: src, outside: true}, none
}

// isGroup reports whether ip names more than one host, which this network does
// not have.
func isGroup(ip netip.Addr) bool {
	return ip.IsMulticast() || isBroadcast(ip)
}

func isBroadcast(ip netip.Addr) bool {
	return ip.Is4() && (ip.As4() == [4]byte{255, 255, 255, 255} || ip.As4() == [4]byte{127, 255, 255, 255})
}

// changed tells the hook, if there is one.
func (ns *Namespace) changed(proto Proto, port uint16) syscall.Errno {
	hook := ns.network.cfg.Changed
	if hook == nil || ns.closed.Load() {
		return none
	}
	err := hook(ns, proto, port)
	if err == nil {
		return none
	}
	errno := syscall.EADDRINUSE
	errors.As(err, &errno)
	return errno
}
