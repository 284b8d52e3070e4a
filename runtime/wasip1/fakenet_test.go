package wasip1

import (
	"net/netip"
	"sync"
	"syscall"
)

// fakeNet is the least network that the socket calls can be tested with: one
// host, streams with small buffers, datagrams without loss. The real one is
// tested together with guests in package inproc.
type fakeNet struct {
	mu        sync.Mutex
	listeners map[uint16]*fakeSocket
	datagrams map[uint16]*fakeSocket
	next      uint16
	slow      bool // connects stay under way until the listener accepts
}

const fakeBuffer = 8 << 10

type fakeSocket struct {
	net           *fakeNet
	kind          SocketKind
	local, remote netip.AddrPort
	backlog       []*fakeSocket
	listening     bool
	connecting    bool
	closed        bool
	peer          *fakeSocket
	data          []byte // received, of a stream
	ended         bool   // no more data will come
	packets       []fakePacket
	watchers      []Waker
	err           error
	options       [16]int
}

type fakePacket struct {
	from netip.AddrPort
	data []byte
}

func newFakeNet() *fakeNet {
	return &fakeNet{listeners: map[uint16]*fakeSocket{}, datagrams: map[uint16]*fakeSocket{}, next: 40000}
}

// reset forgets all sockets.
func (n *fakeNet) reset() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners, n.datagrams = map[uint16]*fakeSocket{}, map[uint16]*fakeSocket{}
}

func (n *fakeNet) HasIPv6() bool { return false }

func (n *fakeNet) Socket(f SocketFamily, k SocketKind) (Socket, error) {
	any := netip.IPv4Unspecified()
	if f == FamilyIPv6 {
		any = netip.IPv6Unspecified()
	}
	return &fakeSocket{net: n, kind: k, local: netip.AddrPortFrom(any, 0)}, nil
}

// open says whether a stream and its other end are.
func (n *fakeNet) open(s Socket) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := s.(*fakeSocket)
	return !f.closed && !f.peer.closed
}

// do runs f under the lock, and then wakes who watches the sockets it returns.
func (n *fakeNet) do(f func() ([]*fakeSocket, error)) error {
	n.mu.Lock()
	changed, err := f()
	var wake []Waker
	for _, s := range changed {
		if s != nil {
			wake = append(wake, s.watchers...)
		}
	}
	n.mu.Unlock()
	for _, w := range wake {
		w.Wake()
	}
	return err
}

func (s *fakeSocket) Bind(a netip.AddrPort) error {
	return s.net.do(func() ([]*fakeSocket, error) {
		if s.net.listeners[a.Port()] != nil || s.net.datagrams[a.Port()] != nil {
			return nil, syscall.EADDRINUSE
		}
		if s.local = a; s.kind == KindDatagram {
			s.net.datagrams[a.Port()] = s
		}
		return nil, nil
	})
}

func (s *fakeSocket) Listen(int) error {
	return s.net.do(func() ([]*fakeSocket, error) {
		s.listening = true
		s.net.listeners[s.local.Port()] = s
		return nil, nil
	})
}

func (s *fakeSocket) Connect(a netip.AddrPort) error {
	return s.net.do(func() ([]*fakeSocket, error) {
		s.net.next++
		s.local = netip.AddrPortFrom(a.Addr(), s.net.next)
		if s.remote = a; s.kind == KindDatagram {
			s.net.datagrams[s.net.next] = s
			return nil, nil
		}
		l := s.net.listeners[a.Port()]
		if l == nil {
			return nil, syscall.ECONNREFUSED
		}
		s.peer = &fakeSocket{net: s.net, kind: s.kind, local: a, remote: s.local, peer: s}
		l.backlog = append(l.backlog, s.peer)
		if s.connecting = s.net.slow; s.connecting {
			return []*fakeSocket{l}, syscall.EINPROGRESS
		}
		return []*fakeSocket{l}, nil
	})
}

func (s *fakeSocket) Accept() (c Socket, err error) {
	err = s.net.do(func() ([]*fakeSocket, error) {
		if !s.listening {
			return nil, syscall.EINVAL
		}
		if len(s.backlog) == 0 {
			return nil, syscall.EAGAIN
		}
		a := s.backlog[0]
		s.backlog = s.backlog[1:]
		a.peer.connecting = false
		c = a
		return []*fakeSocket{a.peer}, nil
	})
	return c, err
}

func (s *fakeSocket) Recv(bufs [][]byte, peek bool) (int, error) {
	n, _, _, err := s.RecvFrom(bufs, peek)
	return n, err
}

func (s *fakeSocket) RecvFrom(bufs [][]byte, peek bool) (n int, from netip.AddrPort, truncated bool, err error) {
	s.net.mu.Lock()
	data := s.data
	if s.kind == KindDatagram {
		if len(s.packets) == 0 {
			s.net.mu.Unlock()
			return 0, from, false, syscall.EAGAIN
		}
		data, from = s.packets[0].data, s.packets[0].from
	} else if len(data) == 0 && !s.ended {
		s.net.mu.Unlock()
		return 0, from, false, syscall.EAGAIN
	}
	for _, b := range bufs {
		m := copy(b, data)
		n, data = n+m, data[m:]
	}
	full := len(s.data) == fakeBuffer
	if !peek && s.kind == KindDatagram {
		truncated, s.packets = len(data) > 0, s.packets[1:]
	} else if !peek {
		s.data = s.data[:copy(s.data, data)]
	}
	var wake []Waker
	if full && s.peer != nil {
		wake = s.peer.watchers
	}
	s.net.mu.Unlock()
	for _, w := range wake {
		w.Wake()
	}
	return n, from, truncated, nil
}

func (s *fakeSocket) Send(bufs [][]byte) (int, error) { return s.SendTo(bufs, s.remote) }

func (s *fakeSocket) SendTo(bufs [][]byte, to netip.AddrPort) (n int, err error) {
	s.net.mu.Lock()
	t := s.peer
	switch {
	case s.kind == KindDatagram:
		if t = s.net.datagrams[to.Port()]; t != nil {
			var data []byte
			for _, b := range bufs {
				data = append(data, b...)
			}
			t.packets = append(t.packets, fakePacket{s.local, data})
		}
		n = total(bufs)
	case t == nil:
		err = syscall.ENOTCONN
	case t.closed:
		err = syscall.EPIPE
	case len(t.data) == fakeBuffer:
		err = syscall.EAGAIN
	default:
		if t.data == nil {
			t.data = make([]byte, 0, fakeBuffer)
		}
		for _, b := range bufs {
			b = b[:min(len(b), fakeBuffer-len(t.data))]
			t.data = append(t.data, b...)
			n += len(b)
		}
	}
	var wake []Waker
	if t != nil && err == nil {
		wake = t.watchers
	}
	s.net.mu.Unlock()
	for _, w := range wake {
		w.Wake()
	}
	return n, err
}

func (s *fakeSocket) Shutdown(_, write bool) error {
	return s.net.do(func() ([]*fakeSocket, error) {
		if s.peer == nil {
			return nil, syscall.ENOTCONN
		}
		s.peer.ended = s.peer.ended || write
		return []*fakeSocket{s.peer}, nil
	})
}

func (s *fakeSocket) Close() error {
	return s.net.do(func() ([]*fakeSocket, error) {
		s.closed = true
		if s.net.listeners[s.local.Port()] == s {
			delete(s.net.listeners, s.local.Port())
		}
		if s.net.datagrams[s.local.Port()] == s {
			delete(s.net.datagrams, s.local.Port())
		}
		if s.peer != nil {
			s.peer.ended = true
		}
		return []*fakeSocket{s.peer}, nil
	})
}

func (s *fakeSocket) LocalAddr() netip.AddrPort  { return s.local }
func (s *fakeSocket) RemoteAddr() netip.AddrPort { return s.remote }
func (s *fakeSocket) Err() error                 { return s.err }

func (s *fakeSocket) Option(o SocketOption) (int, error) { return s.options[o], nil }

func (s *fakeSocket) SetOption(o SocketOption, v int) error {
	s.options[o] = v
	return nil
}

func (s *fakeSocket) Ready() (readable, writable bool, nbytes int, hangup bool) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	switch {
	case s.kind == KindDatagram && len(s.packets) > 0:
		return true, true, len(s.packets[0].data), false
	case s.kind == KindDatagram:
		return false, true, 0, false
	case s.listening:
		return len(s.backlog) > 0, false, 0, false
	case s.peer == nil:
		return false, true, 0, true
	}
	return len(s.data) > 0 || s.ended, !s.connecting && len(s.peer.data) < fakeBuffer, len(s.data), s.ended && s.peer.closed
}

func (s *fakeSocket) Watch(w Waker) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.watchers = append(s.watchers, w)
}

func (s *fakeSocket) Unwatch(w Waker) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.watchers = nil
}
