package podnet

import (
	"context"
	"net"
	"net/netip"
	"syscall"
)

// Family is the address family of a socket.
type Family uint8

// The families. An IPv6 socket also speaks IPv4, with mapped addresses, unless
// V6Only is set.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Kind is the type of a socket.
type Kind uint8

const (
	Stream   Kind = 1 // TCP
	Datagram Kind = 2 // UDP
)

// Proto is a transport protocol.
type Proto uint8

const (
	TCP Proto = iota
	UDP
)

func (p Proto) String() string {
	if p == TCP {
		return "tcp"
	}
	return "udp"
}

// Flags of Recv and RecvFrom.
type Flags uint8

const (
	Peek  Flags = 1 << iota // MSG_PEEK: leave what was read in the buffer
	Trunc                   // MSG_TRUNC: return the length of the datagram even where it did not fit
)

// How says which half of a connection to shut down.
type How uint8

const (
	ShutRead  How = 1
	ShutWrite How = 2
	ShutBoth  How = 3
)

// Waker is told that Ready's answer may have changed. Wake must not block; it is
// called without locks held, from whatever goroutine made the change, and may
// be called once more after Unwatch has returned.
type Waker interface{ Wake() }

// Action is what becomes of a connection or flow that leaves a pod.
type Action uint8

const (
	// Forward goes on to the destination: to the pod whose address it is, else
	// to Outside.
	Forward Action = iota
	// Refuse answers as a host without a listener does: ECONNREFUSED.
	Refuse
	// Drop answers nothing: a connect ends with ETIMEDOUT, datagrams vanish.
	Drop
	// Unreachable answers EHOSTUNREACH.
	Unreachable
	// Prohibit answers EACCES, as a firewall's reject does.
	Prohibit
	// ToOutside goes to Outside even if the destination is an address of the
	// network or loopback.
	ToOutside
)

// Verdict is the answer of Config.Route.
type Verdict struct {
	Action Action
	// To, if valid, replaces the destination (DNAT). The pod goes on seeing the
	// address it asked for.
	To netip.AddrPort
}

// Outside reaches destinations that are no pod.
type Outside interface {
	// DialContext is called in a goroutine of its own. network is tcp or udp, the
	// address an IP and port. An error that wraps a syscall.Errno reaches the
	// guest as that one, a timeout as ETIMEDOUT, others as ENETUNREACH.
	DialContext(ctx context.Context, from *Namespace, network, address string) (net.Conn, error)
}

// ErrClosed is what operations of a Namespace that was closed return. It is
// net.ErrClosed.
var ErrClosed = net.ErrClosed

// none is the absence of an error.
const none syscall.Errno = 0

func toError(e syscall.Errno) error {
	if e == none {
		return nil
	}
	return e
}

var (
	loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	loopback6 = netip.IPv6Loopback()
	any4      = netip.IPv4Unspecified()
	any6      = netip.IPv6Unspecified()
)
