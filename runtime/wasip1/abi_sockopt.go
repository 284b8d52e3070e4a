package wasip1

import (
	"context"
	"math"
	"time"
)

// Levels of socket options.
const (
	levelSocket = 0
	levelTCP    = 6
	levelIPv6   = 41
)

// Options of levelSocket, by WasmEdge's numbers.
const (
	soReuseAddr uint32 = iota
	soType
	soError
	soDontRoute
	soBroadcast
	soSendBuffer
	soReceiveBuffer
	soKeepAlive
	soOOBInline
	soLinger
	soReceiveLow
	soReceiveTimeout
	soSendTimeout
	soAcceptConn
	soBindToDevice
	soReusePort
)

// Options of the other levels.
const (
	tcpNoDelay     = 1
	tcpNoDelayAlso = 15 // so other hosts have it
	tcpKeepIdle    = 4
	tcpKeepCount   = 6
	ipv6Only       = 26
)

// ignoredOption is an option that is kept and means nothing.
type ignoredOption struct{ level, name uint32 }

// networkOption finds an option that is the network's.
func networkOption(level, name uint32) (SocketOption, bool) {
	switch level {
	case levelSocket:
		switch name {
		case soReuseAddr:
			return OptionReuseAddr, true
		case soReusePort:
			return OptionReusePort, true
		case soBroadcast:
			return OptionBroadcast, true
		case soKeepAlive:
			return OptionKeepAlive, true
		case soSendBuffer:
			return OptionSendBuffer, true
		case soReceiveBuffer:
			return OptionReceiveBuffer, true
		case soAcceptConn:
			return OptionAcceptConn, true
		}
	case levelTCP:
		if name == tcpNoDelay || name == tcpNoDelayAlso {
			return OptionNoDelay, true
		}
	case levelIPv6:
		if name == ipv6Only {
			return OptionV6Only, true
		}
	}
	return 0, false
}

func isIgnored(level, name uint32) bool {
	switch level {
	case levelSocket:
		return name == soDontRoute || name == soOOBInline
	case levelTCP:
		return name >= tcpKeepIdle && name <= tcpKeepCount
	}
	return false
}

// sock_getsockopt(fd, level, name, value, size *u32)
func sockGetSockOpt(_ context.Context, p *Process, m memory, a []uint64) Errno {
	s, _, errno := p.needSocket(a[0], 0)
	if errno != 0 {
		return errno
	}
	// Below byValue lies nothing in any guest's memory: it is the size itself.
	const byValue = 64
	var sizeOut []byte
	size := uint32(a[4])
	if size >= byValue {
		if sizeOut, errno = m.bytes(size, 4); errno != 0 {
			return errno
		}
		size = le32(sizeOut)
	}
	var value [16]byte
	n, errno := s.option(uint32(a[1]), uint32(a[2]), value[:], size)
	if errno != 0 {
		return errno
	}
	if size < uint32(n) {
		return ErrnoINVAL
	}
	out, errno := m.bytes(uint32(a[3]), uint32(n))
	if errno != 0 {
		return errno
	}
	copy(out, value[:n])
	if sizeOut != nil {
		put32(sizeOut, uint32(n))
	}
	return 0
}

// option writes the value of an option and returns its size. room is what the
// guest has, which tells a timeout's two forms apart.
func (s *socket) option(level, name uint32, value []byte, room uint32) (int, Errno) {
	put := func(v int, err error) (int, Errno) {
		put32(value, uint32(v))
		return 4, toErrno(err)
	}
	if o, ok := networkOption(level, name); ok {
		return put(s.s.Option(o))
	}
	if isIgnored(level, name) {
		return put(int(s.ignored[ignoredOption{level, name}]), nil)
	}
	if level != levelSocket {
		return 0, ErrnoNOPROTOOPT
	}
	switch name {
	case soType:
		return put(int(s.kind), nil)
	case soError:
		if room < 4 {
			return 0, ErrnoINVAL // keep the error
		}
		s.stale()
		return put(int(toErrno(s.s.Err())), nil)
	case soReceiveLow:
		return put(1, nil)
	case soLinger:
		seconds, err := s.s.Option(OptionLinger)
		if seconds >= 0 {
			put32(value, 1)
			put32(value[4:], uint32(seconds))
		}
		return 8, toErrno(err)
	case soReceiveTimeout:
		return putTimeout(value, s.receiveTimeout, room), 0
	case soSendTimeout:
		return putTimeout(value, s.sendTimeout, room), 0
	}
	return 0, ErrnoNOPROTOOPT
}

func putTimeout(value []byte, d time.Duration, room uint32) int {
	seconds, micros := uint64(d/time.Second), uint64(d%time.Second/time.Microsecond)
	if room < 16 {
		put32(value, uint32(min(seconds, math.MaxInt32)))
		put32(value[4:], uint32(micros))
		return 8
	}
	put64(value, seconds)
	put64(value[8:], micros)
	return 16
}

// sock_setsockopt(fd, level, name, value, size)
func sockSetSockOpt(_ context.Context, p *Process, m memory, a []uint64) Errno {
	s, _, errno := p.needSocket(a[0], 0)
	if errno != 0 {
		return errno
	}
	value, errno := m.bytes(uint32(a[3]), uint32(a[4]))
	if errno != 0 {
		return errno
	}
	return s.setOption(uint32(a[1]), uint32(a[2]), value)
}

func (s *socket) setOption(level, name uint32, value []byte) Errno {
	o, known := networkOption(level, name)
	if known || isIgnored(level, name) {
		if len(value) != 4 {
			return ErrnoINVAL
		}
		v := int32(le32(value))
		if known {
			s.stale()
			return toErrno(s.s.SetOption(o, int(v)))
		}
		if s.ignored == nil {
			s.ignored = make(map[ignoredOption]int32)
		}
		s.ignored[ignoredOption{level, name}] = v // there are five of them
		return 0
	}
	if level != levelSocket {
		return ErrnoNOPROTOOPT
	}
	switch name {
	case soLinger:
		if len(value) != 8 {
			return ErrnoINVAL
		}
		seconds := int(min(le32(value[4:]), math.MaxInt16))
		if le32(value) == 0 {
			seconds = -1
		}
		return toErrno(s.s.SetOption(OptionLinger, seconds))
	case soReceiveLow:
		if len(value) != 4 {
			return ErrnoINVAL
		}
		return 0
	case soReceiveTimeout, soSendTimeout:
		d, errno := timeoutOf(value)
		switch {
		case errno != 0:
			return errno
		case name == soReceiveTimeout:
			s.receiveTimeout = d
		default:
			s.sendTimeout = d
		}
		return 0
	}
	return ErrnoNOPROTOOPT
}

// timeoutOf decodes a struct timeval.
func timeoutOf(value []byte) (time.Duration, Errno) {
	var seconds, micros int64
	switch len(value) {
	case 16:
		seconds, micros = int64(le64(value)), int64(le64(value[8:]))
	case 8:
		seconds, micros = int64(int32(le32(value))), int64(int32(le32(value[4:])))
	default:
		return 0, ErrnoINVAL
	}
	if micros < 0 || micros >= 1e6 {
		return 0, ErrnoDOM
	}
	if seconds < 0 {
		return time.Nanosecond, 0 // Linux: it has expired already
	}
	if seconds > int64(math.MaxInt64/time.Second)-1 {
		return 0, 0
	}
	return time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond, 0
}
