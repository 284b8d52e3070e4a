// Package podnet is the network of a pod: what its containers share as
// localhost and as the pod IP. It knows neither WebAssembly nor Kubernetes.
package podnet

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// DefaultPrefix is where pod IPs come from when nothing else is configured: a
// part of the loopback range, so that an address of it can be reached on the
// host without root and never leaves it.
var DefaultPrefix = netip.MustParsePrefix("127.128.0.0/10")

// ErrExhausted is returned when every address of a Range is in use.
var ErrExhausted = errors.New("no free pod IP")

// Range hands out pod IPs. An address that was released is handed out again
// only after all others, so that a late packet or a stale client of a removed
// pod does not reach its successor. It is safe for concurrent use.
type Range struct {
	prefix netip.Prefix

	mu   sync.Mutex
	next netip.Addr
	used map[netip.Addr]struct{}
}

// NewRange returns a Range over prefix, whose first address (the network) and,
// for IPv4, last address (the broadcast) are never handed out.
func NewRange(prefix netip.Prefix) (*Range, error) {
	prefix = prefix.Masked()
	if !prefix.IsValid() || prefix.Addr().BitLen()-prefix.Bits() < 2 {
		return nil, fmt.Errorf("pod IP range %s: need room for at least two addresses", prefix)
	}
	return &Range{prefix: prefix, next: prefix.Addr().Next(), used: make(map[netip.Addr]struct{})}, nil
}

// Namespace is the network identity of one pod sandbox.
type Namespace struct {
	ip      netip.Addr
	release func()
}

// IP is the pod IP. It stays the same until Close (SBX-02, NET-06).
func (n *Namespace) IP() netip.Addr { return n.ip }

// Close gives the pod IP back. Further calls do nothing.
func (n *Namespace) Close() error {
	n.release()
	return nil
}

// NewNamespace allocates a pod IP. The error is ErrExhausted when there is none.
func (r *Range) NewNamespace() (*Namespace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.next
	for {
		ip := r.next
		r.next = r.next.Next()
		if !r.prefix.Contains(r.next) || r.isBroadcast(r.next) {
			r.next = r.prefix.Addr().Next()
		}
		if _, taken := r.used[ip]; !taken {
			r.used[ip] = struct{}{}
			return &Namespace{ip: ip, release: sync.OnceFunc(func() { r.release(ip) })}, nil
		}
		if r.next == first {
			return nil, fmt.Errorf("%w in %s: %d in use", ErrExhausted, r.prefix, len(r.used))
		}
	}
}

func (r *Range) release(ip netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.used, ip)
}

// isBroadcast reports whether ip is the last address of an IPv4 range.
func (r *Range) isBroadcast(ip netip.Addr) bool {
	return ip.Is4() && !r.prefix.Contains(ip.Next())
}
