package podnet

import "syscall"

// Option is a socket option.
type Option uint8

// The options. Values are 0 or 1 where nothing else is said.
const (
	ReuseAddr Option = iota
	ReusePort
	Type      // read-only: a Kind
	Error     // read-only: the pending error, which it clears
	KeepAlive // kept, without effect: nothing here goes away silently
	Broadcast
	RecvBuffer // bytes; reads back double, as on Linux
	SendBuffer // bytes; reads back double
	Linger     // seconds; -1: off. 0 makes Close reset the connection
	AcceptConn // read-only: 1 for a listener
	NoDelay    // kept, without effect: nothing is ever delayed
	V6Only
	Domain // read-only: a Family
)

const (
	optReuseAddr uint32 = 1 << iota
	optReusePort
	optKeepAlive
	optBroadcast
	optNoDelay
	optV6Only
)

var optFlags = [...]uint32{
	ReuseAddr: optReuseAddr, ReusePort: optReusePort, KeepAlive: optKeepAlive,
	Broadcast: optBroadcast, NoDelay: optNoDelay, V6Only: optV6Only, Domain: 0,
}

// The sizes of Linux: net.core.rmem_default and rmem_max, SOCK_MIN_RCVBUF and
// SOCK_MIN_SNDBUF. A buffer of a stream takes the halves of the sender's and of
// the receiver's size.
const (
	defaultBuffer = 212992
	maxBuffer     = 212992
	minRecvBuffer = 2304
	minSendBuffer = 4608
)

func (s *Socket) has(flag uint32) bool { return s.opts.Load()&flag != 0 }

// Option returns the value of a socket option; ENOPROTOOPT for one that this
// kind of socket does not have.
func (s *Socket) Option(o Option) (int, error) {
	if errno := s.checkOption(o); errno != none {
		return 0, errno
	}
	switch o {
	case Type:
		return int(s.kind), nil
	case Domain:
		return int(s.family), nil
	case Error:
		err, _ := s.Err().(syscall.Errno)
		return int(err), nil
	case RecvBuffer:
		return int(s.rcvbuf.Load()), nil
	case SendBuffer:
		return int(s.sndbuf.Load()), nil
	case Linger:
		return int(s.linger.Load()), nil
	case AcceptConn:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.state == listening {
			return 1, nil
		}
		return 0, nil
	}
	if s.has(optFlags[o]) {
		return 1, nil
	}
	return 0, nil
}

// SetOption sets a socket option.
func (s *Socket) SetOption(o Option, value int) error {
	if errno := s.checkOption(o); errno != none {
		return errno
	}
	switch o {
	case Type, Domain, Error, AcceptConn:
		return syscall.ENOPROTOOPT
	case RecvBuffer:
		s.rcvbuf.Store(bufferSize(value, minRecvBuffer))
	case SendBuffer:
		s.sndbuf.Store(bufferSize(value, minSendBuffer))
	case Linger:
		s.linger.Store(int32(max(-1, min(value, 1<<30))))
	case V6Only:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.bucket != nil {
			return syscall.EINVAL
		}
		s.setFlag(optV6Only, value != 0)
	default:
		s.setFlag(optFlags[o], value != 0)
	}
	return nil
}

// bufferSize is what the kernel makes of a size: double, for its own overhead.
func bufferSize(value, minimum int) int32 {
	if value < 0 {
		value = maxBuffer // an unsigned comparison there
	}
	return int32(max(2*min(value, maxBuffer), minimum))
}

func (s *Socket) setFlag(flag uint32, on bool) {
	if on {
		s.opts.Or(flag)
	} else {
		s.opts.And(^flag)
	}
}

func (s *Socket) checkOption(o Option) syscall.Errno {
	if int(o) >= len(optFlags) {
		return syscall.ENOPROTOOPT
	}
	if o == V6Only && s.family != IPv6 {
		return syscall.ENOPROTOOPT
	}
	if o == NoDelay && s.kind != Stream {
		return syscall.EOPNOTSUPP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
