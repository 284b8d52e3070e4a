package wasip1

import (
	"context"
	"math"
	"net/netip"
)

// This file has the socket calls of preview 1 and of WasmEdge: see docs/abi.md.
// Where the two versions of WasmEdge have different types under one name, the
// first has the suffix .v1 here, which [ImportName] gives it.

// needSocket returns a socket with a right.
func (p *Process) needSocket(fd, right uint64) (*socket, *descriptor, Errno) {
	d, errno := p.fds.get(uint32(fd))
	if errno != 0 {
		return nil, nil, errno
	}
	s, ok := d.file.(*socket)
	switch {
	case !ok:
		return nil, nil, ErrnoNOTSOCK
	case d.rights&right != right:
		return nil, nil, ErrnoNOTCAPABLE
	}
	return s, d, 0
}

func (d *descriptor) nonblock() bool { return d.flags&fdflagNonblock != 0 }

// sock_accept(fd, flags, new *u32)
func sockAccept(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.accept(ctx, m, a[0], a[1], a[2])
}

// sock_accept(fd, new *u32) of version 1
func sockAcceptV1(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.accept(ctx, m, a[0], 0, a[1])
}

func (p *Process) accept(ctx context.Context, m memory, fd, flags, result uint64) Errno {
	s, d, errno := p.needSocket(fd, rightSockAccept)
	if errno != 0 {
		return errno
	}
	if uint32(flags)&^uint32(fdflagNonblock) != 0 {
		return ErrnoINVAL
	}
	res, errno := m.bytes(uint32(result), 4)
	if errno != 0 {
		return errno
	}
	if errno := p.fds.room(false); errno != 0 {
		return errno // the connection waits for better times
	}
	c, errno := s.accept(ctx, d.nonblock())
	if errno != 0 {
		return errno
	}
	return p.install(c, uint16(flags), res)
}

// install gives a new socket its descriptor.
func (p *Process) install(s *socket, flags uint16, res []byte) Errno {
	fd, errno := p.fds.insert(descriptor{file: s, rights: rightsSocket, flags: flags})
	if errno != 0 {
		s.close()
		return errno
	}
	put32(res, fd)
	return 0
}

// Flags of a receiving call, and of its result.
const (
	receivePeek = 1 << iota
	receiveWaitAll

	receivedTruncated = 1
)

// sock_recv(fd, ri_data, ri_data_len, ri_flags, ro_datalen *u32, ro_flags *u16)
func sockRecv(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	s, d, errno := p.needSocket(a[0], rightFdRead)
	if errno != 0 {
		return errno
	}
	roflags, errno := m.bytes(uint32(a[5]), 2)
	if errno != 0 {
		return errno
	}
	res, bufs, errno := p.transfer(m, a[1], a[2], a[4])
	if errno != 0 {
		return errno
	}
	flags := uint32(a[3])
	var n int
	truncated := false
	switch {
	case flags&^(receivePeek|receiveWaitAll) != 0:
		return ErrnoINVAL
	case s.kind == KindDatagram:
		n, _, truncated, errno = s.receiveFrom(ctx, bufs, flags&receivePeek != 0, d.nonblock())
	case flags == receiveWaitAll:
		n, errno = s.receiveAll(ctx, bufs, d.nonblock())
	default:
		n, errno = s.receive(ctx, bufs, flags&receivePeek != 0, d.nonblock(), p)
	}
	if errno != 0 {
		return errno
	}
	p.work(ctx, n)
	put32(res, uint32(n))
	put16(roflags, truncation(truncated))
	return 0
}

func truncation(cut bool) uint16 {
	if cut {
		return receivedTruncated
	}
	return 0
}

// sock_send(fd, si_data, si_data_len, si_flags, so_datalen *u32)
func sockSend(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.sendTo(ctx, m, a[0], a[1], a[2], a[3], a[4], netip.AddrPort{})
}

// sock_send_to(fd, si_data, si_data_len, addr, port, si_flags, so_datalen *u32)
func sockSendTo(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	s, _, errno := p.needSocket(a[0], rightFdWrite)
	if errno != 0 {
		return errno
	}
	to, errno := s.destination(m, a[3], a[4])
	if errno != 0 {
		return errno
	}
	return p.sendTo(ctx, m, a[0], a[1], a[2], a[5], a[6], to)
}

func (p *Process) sendTo(ctx context.Context, m memory, fd, iovs, count, flags, result uint64, to netip.AddrPort) Errno {
	s, d, errno := p.needSocket(fd, rightFdWrite)
	if errno != 0 {
		return errno
	}
	res, bufs, errno := p.transfer(m, iovs, count, result)
	if errno != 0 {
		return errno
	}
	if uint32(flags) != 0 {
		return ErrnoINVAL
	}
	n, errno := s.send(ctx, bufs, to, d.nonblock(), p)
	p.work(ctx, n)
	return putCount(res, n, errno)
}

// sock_shutdown(fd, how)
func sockShutdown(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	const read, write = 1, 2
	s, _, errno := p.needSocket(a[0], rightSockShutdown)
	if errno != 0 {
		return errno
	}
	how := uint32(a[1])
	if how == 0 || how > read|write {
		return ErrnoINVAL
	}
	s.stale()
	return toErrno(s.s.Shutdown(how&read != 0, how&write != 0))
}

// sock_open(family, type, new *u32)
func sockOpen(_ context.Context, p *Process, m memory, a []uint64) Errno {
	const lastFamily, lastKind = 3, uint32(KindStream)
	family, kind := uint32(a[0]), uint32(a[1])
	switch {
	case family == 0 || family > lastFamily || kind == 0 || kind > lastKind:
		return ErrnoINVAL
	case family == lastFamily: // Unix
		return ErrnoAFNOSUPPORT
	}
	res, errno := m.bytes(uint32(a[2]), 4)
	if errno != 0 {
		return errno
	}
	if errno := p.fds.room(false); errno != 0 {
		return errno
	}
	s, errno := p.newSocket(SocketFamily(family), SocketKind(kind))
	if errno != 0 {
		return errno
	}
	return p.install(s, 0, res)
}

// sock_bind(fd, addr, port)
func sockBind(_ context.Context, p *Process, m memory, a []uint64) Errno {
	s, _, errno := p.needSocket(a[0], 0)
	if errno != 0 {
		return errno
	}
	at, errno := s.destination(m, a[1], a[2])
	if errno != 0 {
		return errno
	}
	s.stale()
	return toErrno(s.s.Bind(at))
}

// sock_listen(fd, backlog)
func sockListen(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	s, _, errno := p.needSocket(a[0], 0)
	if errno != 0 {
		return errno
	}
	s.stale()
	return toErrno(s.s.Listen(int(int32(a[1]))))
}

// sock_connect(fd, addr, port)
func sockConnect(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	s, d, errno := p.needSocket(a[0], 0)
	if errno != 0 {
		return errno
	}
	b, errno := addressOf(m, a[1])
	if errno != 0 {
		return errno
	}
	if s.kind == KindDatagram && len(b) == storageSize && uint16(le32(b)) == 0 {
		s.stale()
		return toErrno(s.s.Connect(netip.AddrPort{}))
	}
	to, errno := s.parse(b, a[2])
	if errno != 0 {
		return errno
	}
	return s.connect(ctx, to, d.nonblock())
}

// sock_recv_from(fd, ri_data, ri_data_len, addr, ri_flags, port *u32, ro_datalen *u32, ro_flags *u16)
func sockRecvFrom(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	port, errno := m.bytes(uint32(a[5]), 4)
	if errno != 0 {
		return errno
	}
	return p.recvFrom(ctx, m, a, a[6], a[7], port)
}

// sock_recv_from(fd, ri_data, ri_data_len, addr, ri_flags, ro_datalen *u32, ro_flags *u16) of version 1
func sockRecvFromV1(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.recvFrom(ctx, m, a, a[5], a[6], nil)
}

func (p *Process) recvFrom(ctx context.Context, m memory, a []uint64, datalen, oflags uint64, port []byte) Errno {
	s, d, errno := p.needSocket(a[0], rightFdRead)
	if errno != 0 {
		return errno
	}
	addr, errno := addressOf(m, a[3])
	if errno != 0 {
		return errno
	}
	roflags, errno := m.bytes(uint32(oflags), 2)
	if errno != 0 {
		return errno
	}
	res, bufs, errno := p.transfer(m, a[1], a[2], datalen)
	if errno != 0 {
		return errno
	}
	if uint32(a[4])&^(receivePeek|receiveWaitAll) != 0 {
		return ErrnoINVAL
	}
	n, from, truncated, errno := s.receiveFrom(ctx, bufs, a[4]&receivePeek != 0, d.nonblock())
	if errno != 0 {
		return errno
	}
	if from.IsValid() { // not for streams
		s.putAddress(addr, from.Addr())
		if port != nil {
			put32(port, uint32(from.Port()))
		}
	}
	put32(res, uint32(n))
	put16(roflags, truncation(truncated))
	return 0
}

// sock_getlocaladdr(fd, addr, port *u32)
func sockGetLocalAddr(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return p.getAddr(m, a[0], a[1], nil, a[2], Socket.LocalAddr)
}

// sock_getpeeraddr(fd, addr, port *u32)
func sockGetPeerAddr(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return p.getAddr(m, a[0], a[1], nil, a[2], Socket.RemoteAddr)
}

// sock_getlocaladdr(fd, addr, type *u32, port *u32) of version 1
func sockGetLocalAddrV1(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return p.getAddrV1(m, a, Socket.LocalAddr)
}

// sock_getpeeraddr(fd, addr, type *u32, port *u32) of version 1
func sockGetPeerAddrV1(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return p.getAddrV1(m, a, Socket.RemoteAddr)
}

func (p *Process) getAddrV1(m memory, a []uint64, get func(Socket) netip.AddrPort) Errno {
	kind, errno := m.bytes(uint32(a[2]), 4)
	if errno != 0 {
		return errno
	}
	return p.getAddr(m, a[0], a[1], kind, a[3], get)
}

func (p *Process) getAddr(m memory, fd, addr uint64, kind []byte, port uint64, get func(Socket) netip.AddrPort) Errno {
	s, _, errno := p.needSocket(fd, 0)
	if errno != 0 {
		return errno
	}
	b, errno := addressOf(m, addr)
	if errno != 0 {
		return errno
	}
	portOut, errno := m.bytes(uint32(port), 4)
	if errno != 0 {
		return errno
	}
	at := get(s.s)
	if !at.IsValid() {
		return ErrnoNOTCONN
	}
	if errno := s.putAddress(b, at.Addr()); errno != 0 {
		return errno
	}
	put32(portOut, uint32(at.Port()))
	if kind != nil {
		put32(kind, 4)
		if s.family == FamilyIPv6 {
			put32(kind, 6)
		}
	}
	return 0
}

// storageSize is that of an address with its family before it.
const storageSize = 128

// addressOf decodes an address: | buf u32 | len u32 |
func addressOf(m memory, ptr uint64) ([]byte, Errno) {
	b, errno := m.bytes(uint32(ptr), 8)
	if errno != 0 {
		return nil, errno
	}
	n := le32(b[4:])
	if n != 4 && n != 16 && n != storageSize {
		return nil, ErrnoINVAL
	}
	return m.bytes(le32(b), n)
}

// destination decodes an address and a port.
func (s *socket) destination(m memory, addr, port uint64) (netip.AddrPort, Errno) {
	b, errno := addressOf(m, addr)
	if errno != 0 {
		return netip.AddrPort{}, errno
	}
	return s.parse(b, port)
}

// parse makes what the guest has written an address of the socket's family.
func (s *socket) parse(b []byte, port uint64) (netip.AddrPort, Errno) {
	if uint32(port) > math.MaxUint16 {
		return netip.AddrPort{}, ErrnoINVAL
	}
	if len(b) == storageSize {
		switch SocketFamily(le32(b) & 0xffff) {
		case FamilyIPv4:
			b = b[2:6]
		case FamilyIPv6:
			b = b[2:18]
		default:
			return netip.AddrPort{}, ErrnoAFNOSUPPORT
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	switch {
	case s.family == FamilyIPv4 && !addr.Is4():
		return netip.AddrPort{}, ErrnoAFNOSUPPORT
	case s.family == FamilyIPv6 && addr.Is4():
		addr = netip.AddrFrom16(addr.As16())
	}
	return netip.AddrPortFrom(addr, uint16(port)), 0
}

// putAddress writes an address into what the guest has provided.
func (s *socket) putAddress(b []byte, addr netip.Addr) Errno {
	if len(b) == storageSize {
		put16(b, uint16(s.family))
		b = b[2:]
	}
	if s.family == FamilyIPv4 {
		ip := addr.Unmap().As4()
		copy(b, ip[:])
		return 0
	}
	if len(b) < 16 {
		return ErrnoINVAL
	}
	ip := addr.As16()
	copy(b, ip[:])
	return 0
}
