package wasip1

import (
	"net/netip"
)

// Network is what the sockets of a guest are made of: the network of its pod.
// It is safe for concurrent use.
type Network interface {
	// Socket opens a socket. Errors are a syscall.Errno, ENOBUFS where the
	// container has no memory left for one.
	Socket(family SocketFamily, kind SocketKind) (Socket, error)
	// HasIPv6 says whether the pod has an IPv6 address besides ::1.
	HasIPv6() bool
}

// SocketFamily is an address family, by WasmEdge's numbers.
type SocketFamily uint8

// The address families.
const (
	FamilyIPv4 SocketFamily = 1
	FamilyIPv6 SocketFamily = 2
)

// SocketKind is a socket's type, by WasmEdge's numbers.
type SocketKind uint8

// The types of sockets.
const (
	KindDatagram SocketKind = 1
	KindStream   SocketKind = 2
)

// SocketOption is a socket option.
type SocketOption uint8

// The options that a network knows. Those that only concern how long a guest
// waits are kept here.
const (
	OptionReuseAddr SocketOption = iota
	OptionReusePort
	OptionBroadcast
	OptionKeepAlive
	OptionSendBuffer    // bytes
	OptionReceiveBuffer // bytes
	OptionLinger        // seconds; -1 is off
	OptionAcceptConn    // 1 for a listener; cannot be set
	OptionNoDelay
	OptionV6Only
)

// Socket is a socket that never blocks. Errors are a syscall.Errno: EAGAIN and
// EINPROGRESS for what has to be waited for. Its methods are called from one
// goroutine at a time; a Waker comes from any. IPv4 peers of an IPv6 socket are
// given and returned as IPv4-mapped addresses.
type Socket interface {
	Bind(netip.AddrPort) error
	Listen(backlog int) error
	// Connect returns EINPROGRESS if the connection is not there yet: the
	// socket becomes writable when it is, or when Err says why not. The zero
	// AddrPort takes the peer of a datagram socket away.
	Connect(netip.AddrPort) error
	Accept() (Socket, error)
	// Recv and RecvFrom fill the buffers in order, as readv(2). 0 bytes of a
	// stream are its end. The buffers are not used after the call.
	Recv(bufs [][]byte, peek bool) (int, error)
	RecvFrom(bufs [][]byte, peek bool) (n int, from netip.AddrPort, truncated bool, err error)
	// Send and SendTo may take a part of a stream's bytes, but all of a datagram.
	Send(bufs [][]byte) (int, error)
	SendTo(bufs [][]byte, to netip.AddrPort) (int, error)
	Shutdown(read, write bool) error
	Close() error
	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort // zero if not connected
	// Err returns and clears the pending error, SO_ERROR.
	Err() error
	Option(SocketOption) (int, error)
	SetOption(SocketOption, int) error
	// Ready says what would not block now: a read (or accept), a write (or a
	// connect that is under way); how many bytes can be read; and whether the
	// other end has gone.
	Ready() (readable, writable bool, nbytes int, hangup bool)
	// Watch has w woken whenever Ready may give more than before, until Unwatch.
	Watch(w Waker)
	Unwatch(w Waker)
}

// Waker is woken. Wake never blocks and takes no locks.
type Waker interface{ Wake() }
