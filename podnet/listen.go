package podnet

import (
	"container/list"
	"net/netip"
	"syscall"
)

// maxBacklog is Linux's net.core.somaxconn.
const maxBacklog = 4096

// acceptQueue is what a listener has besides a socket; the listener's mu guards
// it.
type acceptQueue struct {
	backlog int
	ready   []*Socket // from head on
	head    int
	waiting list.List // of *attempt, for which there was no room
}

func (q *acceptQueue) len() int { return len(q.ready) - q.head }

// full is Linux's sk_acceptq_is_full, which takes one more than it was told.
func (q *acceptQueue) full() bool { return q.len() > q.backlog }

func (q *acceptQueue) push(s *Socket) {
	if q.head > 16 && q.head*2 > len(q.ready) {
		n := copy(q.ready, q.ready[q.head:])
		clear(q.ready[n:])
		q.ready, q.head = q.ready[:n], 0
	}
	q.ready = append(q.ready, s)
}

func (q *acceptQueue) pop() *Socket {
	s := q.ready[q.head]
	q.ready[q.head] = nil
	if q.head++; q.head == len(q.ready) {
		q.ready, q.head = q.ready[:0], 0
	}
	return s
}

// Listen makes a stream take connections, and changes the backlog of one that
// does. backlog is bounded by 4096, and one more than it may wait.
func (s *Socket) Listen(backlog int) error {
	if s.kind != Stream {
		return syscall.EOPNOTSUPP
	}
	port, errno := s.startListening(backlog)
	if port == 0 {
		return toError(errno)
	}
	if errno = s.ns.changed(TCP, port); errno != none {
		s.mu.Lock()
		var kids []*Socket
		var clients []*attempt
		if s.state == listening {
			kids, clients = s.unlisten()
		}
		s.mu.Unlock()
		turnAway(kids, clients)
	}
	return toError(errno)
}

// unlisten makes a listener, whose mu is held, an ordinary bound socket again.
func (s *Socket) unlisten() (kids []*Socket, clients []*attempt) {
	kids, clients = s.stopListening()
	s.ns.tcp.unlisten(s)
	if !s.userPort {
		s.ns.tcp.unbind(s)
	}
	s.state, s.accepts, s.shut = idle, nil, 0
	return kids, clients
}

// startListening returns the port if s has not been listening before.
func (s *Socket) startListening(backlog int) (uint16, syscall.Errno) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed != none {
		return 0, s.closed
	}
	if s.state != idle && s.state != listening {
		return 0, syscall.EINVAL
	}
	if backlog < 0 || backlog > maxBacklog {
		backlog = maxBacklog
	}
	if s.state == listening {
		s.accepts.backlog = backlog
		return 0, none
	}
	if s.bucket == nil {
		addr := s.wildcard()
		if s.userAddr {
			addr = s.local.Addr()
		}
		if errno := s.ns.tcp.bind(s, netip.AddrPortFrom(addr, 0), syscall.EADDRINUSE); errno != none {
			return 0, errno
		}
	}
	if errno := s.ns.tcp.listen(s); errno != none {
		return 0, errno
	}
	s.state = listening
	s.accepts = &acceptQueue{backlog: backlog}
	return s.local.Port(), none
}

// Accept takes a connection: EAGAIN if there is none. The new socket is paid
// for by the account of the listener; ENOBUFS if that refuses.
func (s *Socket) Accept() (*Socket, error) {
	if s.kind != Stream {
		return nil, syscall.EOPNOTSUPP
	}
	s.mu.Lock()
	if s.closed != none {
		s.mu.Unlock()
		return nil, s.closed
	}
	if s.state != listening {
		s.mu.Unlock()
		return nil, syscall.EINVAL
	}
	q := s.accepts
	if q.len() == 0 {
		s.mu.Unlock()
		return nil, syscall.EAGAIN
	}
	if errno := s.ns.transfer(q.ready[q.head], s.acct); errno != none {
		s.mu.Unlock()
		return nil, errno
	}
	kid := q.pop()
	// There is room for one of those who wait, now or since a limit was met.
	var a *attempt
	errno := syscall.ENFILE
	if first := q.waiting.Front(); first != nil && !q.full() {
		a = first.Value.(*attempt)
		if errno = s.spawn(a.client, a.from, a.to); errno != syscall.ENFILE {
			q.waiting.Remove(first)
			a.place = nil
		}
	}
	s.mu.Unlock()
	switch errno {
	case none:
		a.client.established()
	case syscall.ENOBUFS:
		a.client.fail(a, errno)
	}
	return kid, nil
}

// stopListening takes what is in the queue of a listener, whose mu is held.
func (s *Socket) stopListening() (kids []*Socket, clients []*attempt) {
	q := s.accepts
	kids = q.ready[q.head:]
	q.ready, q.head = nil, 0
	for e := q.waiting.Front(); e != nil; e = e.Next() {
		a := e.Value.(*attempt)
		a.place = nil
		clients = append(clients, a)
	}
	q.waiting.Init()
	return kids, clients
}

// turnAway ends what stopListening took; without locks.
func turnAway(kids []*Socket, clients []*attempt) {
	for _, k := range kids {
		k.linger.Store(0)
		k.end(syscall.EBADF)
	}
	for _, a := range clients {
		a.client.fail(a, syscall.ECONNREFUSED)
	}
}

// backlogNow is for diagnostics.
func (s *Socket) backlogNow() (pending, backlog int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accepts == nil {
		return 0, 0
	}
	return s.accepts.len(), s.accepts.backlog
}

// spawn makes a connection between s and a new socket in the queue of l, whose
// mu is held. Until that is accepted s pays for it. The error is ENFILE if the
// namespace of l has no room for one, ENOBUFS if the account of s has not.
func (l *Socket) spawn(s *Socket, from, to netip.AddrPort) syscall.Errno {
	kid := newSocket(l.ns, l.family, Stream, l.acct)
	kid.opts.Store(l.opts.Load())
	kid.rcvbuf.Store(l.rcvbuf.Load())
	kid.sndbuf.Store(l.sndbuf.Load())
	kid.linger.Store(l.linger.Load())
	kid.state, kid.local, kid.peer = connected, to, from
	payer := s.acct
	if payer == nil {
		payer = l.acct
	}
	if errno := l.ns.add(kid, payer); errno != none {
		return errno
	}
	l.ns.tcp.adopt(kid)
	pair(s, kid)
	l.accepts.push(kid)
	return none
}
