package podnet

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// The range that Linux takes ports from for those who ask for none.
const (
	firstEphemeral = 32768
	lastEphemeral  = 60999
	numEphemeral   = lastEphemeral - firstEphemeral + 1
)

// ports is who has which port of one protocol.
type ports struct {
	mu      sync.RWMutex
	buckets map[uint16]*bucket
	// tuples are connections whose local port is not theirs alone.
	tuples map[tuple]struct{}
	// used are the ephemeral ports that have a bucket, one bit each.
	used *[(numEphemeral + 63) / 64]uint64
	next int // where to look for a free ephemeral port
	turn atomic.Uint32
	// changes counts bind, connect and close, so that a sender of datagrams knows
	// whether the receiver it found is still the one.
	changes atomic.Uint64
	// foreign are sockets of clients at the edge of the pod, by their addresses,
	// which are not the pod's: see DialFrom.
	foreign map[netip.AddrPort]*Socket
}

type tuple struct{ local, remote netip.AddrPort }

// bucket is who has one port.
type bucket struct {
	port  uint16
	socks []*Socket  // bound
	kids  []kidCount // accepted connections, which keep the port of their listener
}

type kidCount struct {
	addr            netip.Addr
	v6only          bool
	reuse, ordinary int
}

func (b *bucket) kid(addr netip.Addr, v6only, reuse bool, d int) {
	i := slices.IndexFunc(b.kids, func(k kidCount) bool { return k.addr == addr && k.v6only == v6only })
	if i < 0 {
		b.kids = append(b.kids, kidCount{addr: addr, v6only: v6only})
		i = len(b.kids) - 1
	}
	k := &b.kids[i]
	if reuse {
		k.reuse += d
	} else {
		k.ordinary += d
	}
	if k.reuse == 0 && k.ordinary == 0 {
		b.kids = slices.Delete(b.kids, i, i+1)
	}
}

func (p *ports) bucket(port uint16) *bucket {
	b := p.buckets[port]
	if b == nil {
		if p.buckets == nil {
			p.buckets = make(map[uint16]*bucket)
		}
		b = &bucket{port: port}
		p.buckets[port] = b
		p.mark(port, true)
	}
	return b
}

func (p *ports) drop(b *bucket) {
	if len(b.socks) == 0 && len(b.kids) == 0 {
		delete(p.buckets, b.port)
		p.mark(b.port, false)
	}
}

func (p *ports) mark(port uint16, used bool) {
	i := int(port) - firstEphemeral
	if i < 0 || i >= numEphemeral {
		return
	}
	if p.used == nil {
		p.used = new([(numEphemeral + 63) / 64]uint64)
		p.next = rand.IntN(numEphemeral)
	}
	if used {
		p.used[i/64] |= 1 << (i % 64)
	} else {
		p.used[i/64] &^= 1 << (i % 64)
	}
}

// free returns a port of the ephemeral range that nobody has, or 0. Ports are
// given out in turn, so that a port just freed is not at once another's.
func (p *ports) free() uint16 {
	if p.used == nil {
		p.mark(firstEphemeral, false)
	}
	for i := p.next; i < p.next+numEphemeral; {
		at := i % numEphemeral
		// The bits from at to the end of its word, or to the end of the range.
		word := ^p.used[at/64] >> (at % 64)
		if n := bits.TrailingZeros64(word); word != 0 && at+n < numEphemeral {
			p.next = (at + n + 1) % numEphemeral
			return uint16(firstEphemeral + at + n)
		}
		i += min(64-at%64, numEphemeral-at)
	}
	return 0
}

// overlap reports whether a socket bound to a and one bound to b would get the
// same packets. Addresses are not mapped.
func overlap(a netip.Addr, aOnly bool, b netip.Addr, bOnly bool) bool {
	if a.Is4() == b.Is4() {
		return a == b || a.IsUnspecified() || b.IsUnspecified()
	}
	if a.Is4() {
		a, b, aOnly = b, a, bOnly
	}
	// a is IPv6. A socket of both families keeps off the wildcard of IPv4 even when
	// it is connected by IPv6 by now.
	return !aOnly && (a.IsUnspecified() || b.IsUnspecified())
}

// conflict reports whether s may not have addr in b (Linux:
// inet_csk_bind_conflict, udp_lib_lport_inuse).
func (b *bucket) conflict(s *Socket, addr netip.Addr) bool {
	only := s.has(optV6Only)
	reuse, reusePort := s.has(optReuseAddr), s.has(optReusePort)
	for _, o := range b.socks {
		if o == s || !overlap(addr, only, o.local.Addr(), o.has(optV6Only)) {
			continue
		}
		if reuse && o.has(optReuseAddr) && !o.listening {
			continue
		}
		if reusePort && o.has(optReusePort) {
			continue
		}
		return true
	}
	for _, k := range b.kids {
		if !overlap(addr, only, k.addr, k.v6only) {
			continue
		}
		if k.ordinary > 0 || k.reuse > 0 && !reuse {
			return true
		}
	}
	return false
}

// bind gives s an address; port 0 means any that is free. errFull is the error
// when there is none. s.mu is held.
func (p *ports) bind(s *Socket, addr netip.AddrPort, errFull syscall.Errno) syscall.Errno {
	p.mu.Lock()
	defer p.mu.Unlock()
	if addr.Port() == 0 {
		port := p.free()
		if port == 0 {
			return errFull
		}
		addr = netip.AddrPortFrom(addr.Addr(), port)
	} else if b := p.buckets[addr.Port()]; b != nil && b.conflict(s, addr.Addr()) {
		return syscall.EADDRINUSE
	}
	b := p.bucket(addr.Port())
	s.index = len(b.socks)
	b.socks = append(b.socks, s)
	s.bucket = b
	s.local = addr
	p.changes.Add(1)
	return none
}

// unbind gives the port of s back. s.local stays as it is: getsockname goes on
// telling it.
func (p *ports) unbind(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := s.bucket
	if b == nil {
		return
	}
	s.bucket, s.listening = nil, false
	if s.tupled {
		delete(p.tuples, tuple{s.local, s.peer})
		s.tupled = false
	}
	if s.kid {
		b.kid(s.local.Addr(), s.has(optV6Only), s.kidReuse, -1)
	} else {
		last := len(b.socks) - 1
		b.socks[s.index] = b.socks[last]
		b.socks[s.index].index = s.index
		b.socks[last] = nil
		b.socks = b.socks[:last]
	}
	p.drop(b)
	p.changes.Add(1)
}

// adopt makes an accepted connection a holder of its listener's port.
func (p *ports) adopt(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.kid, s.kidReuse = true, s.has(optReuseAddr)
	s.bucket = p.bucket(s.local.Port())
	s.bucket.kid(s.local.Addr(), s.has(optV6Only), s.kidReuse, 1)
}

// listen marks s as listening, if nobody else has its address: since it was
// bound, a connect that failed may have widened it, or another begun to listen.
func (p *ports) listen(s *Socket) syscall.Errno {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.bucket.conflict(s, s.local.Addr()) {
		return syscall.EADDRINUSE
	}
	s.listening = true
	p.changes.Add(1)
	return none
}

func (p *ports) unlisten(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.listening = false
}

// connect fixes both addresses of s. For a stream the pair must be its alone.
// s.mu is held.
func (p *ports) connect(s *Socket, local, remote netip.AddrPort, unique bool) syscall.Errno {
	p.mu.Lock()
	defer p.mu.Unlock()
	if unique && (s.userPort || s.has(optReuseAddr)) {
		t := tuple{local, remote}
		if _, taken := p.tuples[t]; taken {
			return syscall.EADDRNOTAVAIL
		}
		if p.tuples == nil {
			p.tuples = make(map[tuple]struct{})
		}
		p.tuples[t] = struct{}{}
		s.tupled = true
	}
	s.local, s.peer, s.via = local, remote, netip.AddrPort{}
	p.changes.Add(1)
	return none
}

// disconnect undoes connect: the local address is local again.
func (p *ports) disconnect(s *Socket, local netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.tupled {
		delete(p.tuples, tuple{s.local, s.peer})
		s.tupled = false
	}
	s.local, s.peer, s.via = local, netip.AddrPort{}, netip.AddrPort{}
	p.changes.Add(1)
}

// translate tells where datagrams to the peer of s go, and those from it come
// from. s.mu is held.
func (p *ports) translate(s *Socket, via netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.via != via {
		s.via = via
		p.changes.Add(1)
	}
}

// listener finds who takes a connection to addr: the most specific, and among
// sockets that share an address each in turn.
func (p *ports) listener(addr netip.AddrPort) *Socket {
	p.mu.RLock()
	defer p.mu.RUnlock()
	b := p.buckets[addr.Port()]
	if b == nil {
		return nil
	}
	best, bestScore, equal := (*Socket)(nil), 0, 0
	for _, s := range b.socks {
		if !s.listening {
			continue
		}
		switch score := s.score(addr.Addr()); {
		case score > bestScore:
			best, bestScore, equal = s, score, 1
		case score == bestScore && score > 0:
			equal++
		}
	}
	if equal < 2 {
		return best
	}
	for n := int(p.turn.Add(1)) % equal; ; {
		for _, s := range b.socks {
			if s.listening && s.score(addr.Addr()) == bestScore {
				if n == 0 {
					return s
				}
				n--
			}
		}
	}
}

// score says how well a socket's address fits a destination; 0 is not at all.
func (s *Socket) score(to netip.Addr) int {
	local := s.local.Addr()
	switch {
	case local == to:
		return 3
	case !local.IsUnspecified():
		return 0
	case local.Is4() == to.Is4():
		return 2
	case to.Is4() && !s.has(optV6Only):
		return 1
	}
	return 0
}

// receiver finds who takes a datagram from one address to another. Of several
// that fit equally well the one bound last gets it, as on Linux, unless they
// share the port by SO_REUSEPORT: then a sender always gets the same.
func (p *ports) receiver(to, from netip.AddrPort) *Socket {
	p.mu.RLock()
	defer p.mu.RUnlock()
	b := p.buckets[to.Port()]
	if b == nil {
		return nil
	}
	best, bestScore, equal := (*Socket)(nil), 0, 0
	for _, s := range b.socks {
		switch score := s.scoreFrom(to, from); {
		case score > bestScore:
			best, bestScore, equal = s, score, 1
		case score == bestScore && score > 0:
			best = s
			equal++
		}
	}
	if equal < 2 || !best.has(optReusePort) {
		return best
	}
	for n := hash(from) % equal; ; {
		for _, s := range b.socks {
			if s.scoreFrom(to, from) == bestScore {
				if n == 0 {
					return s
				}
				n--
			}
		}
	}
}

func (s *Socket) scoreFrom(to, from netip.AddrPort) int {
	score := s.score(to.Addr())
	if score == 0 || !s.peer.IsValid() {
		return score
	}
	if s.peer != from && s.via != from {
		return 0
	}
	return score + 4
}

func hash(a netip.AddrPort) int {
	h := uint32(2166136261)
	b := a.Addr().As16()
	for _, x := range b {
		h = (h ^ uint32(x)) * 16777619
	}
	h = (h ^ uint32(a.Port())) * 16777619
	return int(h >> 1)
}

// takes says whether a socket for which f holds fits a destination.
func (p *ports) takes(addr netip.AddrPort, f func(*Socket) bool) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	b := p.buckets[addr.Port()]
	return b != nil && slices.ContainsFunc(b.socks, func(s *Socket) bool { return f(s) && s.score(addr.Addr()) > 0 })
}

// each calls f for every bound socket with the ports locked, and then, without,
// g for those that f was called for and for which the caller keeps an entry.
func (p *ports) each(f func(*Socket), g func(*Socket, int)) {
	p.mu.RLock()
	var socks []*Socket
	for _, b := range p.buckets {
		for _, s := range b.socks {
			f(s)
			if s.listening {
				socks = append(socks, s)
			}
		}
	}
	p.mu.RUnlock()
	if g != nil {
		for i, s := range socks {
			g(s, i)
		}
	}
}

// foreigner is the socket of a client at the edge, if addr is one's.
func (p *ports) foreigner(addr netip.AddrPort) *Socket {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.foreign[addr]
}

func (p *ports) addForeigner(s *Socket) syscall.Errno {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.foreign[s.local] != nil {
		return syscall.EADDRINUSE
	}
	if p.foreign == nil {
		p.foreign = make(map[netip.AddrPort]*Socket)
	}
	p.foreign[s.local] = s
	p.changes.Add(1)
	return none
}

func (p *ports) removeForeigner(s *Socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.foreign[s.local] == s {
		delete(p.foreign, s.local)
		p.changes.Add(1)
	}
}
