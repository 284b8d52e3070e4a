package wasip1

import (
	"context"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
)

// socket is an open socket.
type socket struct {
	noFile
	p      *Process
	s      Socket
	family SocketFamily
	kind   SocketKind
	// Timeouts of blocking calls; 0 is for ever.
	receiveTimeout, sendTimeout time.Duration
	ignored                     map[ignoredOption]int32 // options that are kept only

	// What is known of its readiness. It is looked up again only when something
	// has changed: a guest may poll thousands of idle sockets each time that it
	// sleeps.
	watched  bool        // Wake is called for each change
	changed  atomic.Bool // since the flags below were looked up
	readable bool
	writable bool

	interests atomic.Pointer[[]*interest] // of poll sets
}

// newSocket makes a socket of the network.
func (p *Process) newSocket(family SocketFamily, kind SocketKind) (*socket, Errno) {
	if p.network == nil {
		return nil, ErrnoAFNOSUPPORT
	}
	s, err := p.network.Socket(family, kind)
	if err != nil {
		return nil, toErrno(err)
	}
	return &socket{p: p, s: s, family: family, kind: kind}, 0
}

// rightsSocket are the rights of every socket.
const rightsSocket = rightsStream | rightSockShutdown | rightSockAccept

func (s *socket) filetype() uint8 {
	if s.kind == KindDatagram {
		return filetypeSocketDgram
	}
	return filetypeSocketStream
}

func (s *socket) stat() (filestat, Errno) {
	return streamStat(s.filetype(), 0, s.p.ns.created), 0
}

// Wake implements Waker: the network calls it.
func (s *socket) Wake() {
	s.changed.Store(true)
	if s.noteChange() {
		s.p.wake.Wake()
	}
}

func (s *socket) close() Errno {
	if s.watched {
		s.s.Unwatch(s)
	}
	return toErrno(s.s.Close())
}

// poll answers from what is known if nothing has changed since.
func (s *socket) poll(write bool) (ready bool, nbytes uint64, hangup bool) {
	if !s.watched {
		s.watched = true
		s.s.Watch(s)
	} else if !s.changed.Load() && (write && !s.writable || !write && !s.readable) {
		return false, 0, false
	}
	s.changed.Store(false) // before the look
	var n int
	s.readable, s.writable, n, hangup = s.s.Ready()
	if write {
		return s.writable, 1, hangup
	}
	return s.readable, uint64(max(n, 0)), hangup
}

// stale says that the guest has done something after which poll has to look.
func (s *socket) stale() { s.changed.Store(true) }

// fresh says that an operation is to be tried before what has changed so far is
// looked at: nothing of it is known, whatever poll has seen.
func (s *socket) fresh() {
	s.readable, s.writable = true, true
	if s.changed.Load() {
		s.changed.Store(false)
	}
}

// pause sleeps until the socket has changed, after an operation would have
// blocked. It is EAGAIN when the deadline has passed. It may return at once. If
// the call has had no effect yet again is its process, else nil.
func (s *socket) pause(ctx context.Context, deadline *time.Time, timeout time.Duration, again *Process) Errno {
	if !s.watched {
		s.watched = true
		s.s.Watch(s)
		s.fresh()
		return 0 // it may have changed before
	}
	if timeout == 0 {
		if p, ok := ctx.(parking); ok {
			errno := s.park(ctx, p, again)
			s.fresh()
			return errno
		}
	}
	defer s.fresh()
	w := s.p.wake
	w.arm()
	if s.changed.Load() {
		w.disarm()
		return 0
	}
	if timeout == 0 {
		return w.wait(ctx, nil)
	}
	now := time.Now()
	if deadline.IsZero() {
		*deadline = now.Add(timeout)
	}
	if !now.Before(*deadline) {
		w.disarm()
		return ErrnoAGAIN
	}
	rest := deadline.Sub(now)
	if guest, ok := ctx.(parking); ok && again != nil && rest >= longSleep {
		return again.away.parkUntil(ctx, again, guest, *deadline, rest)
	}
	timer := s.p.alarm(rest)
	defer timer.Stop()
	return w.wait(ctx, timer.C)
}

// park is pause where nothing but the socket, a signal or the guest's end can end
// it. It is what two guests that talk do all the time: each locked instruction
// here is a hundredth of it.
func (s *socket) park(ctx context.Context, guest parking, again *Process) Errno {
	w := s.p.wake
	if w.parked != guest {
		w.parked = guest
	}
	w.state.Store(wakerParked)
	if s.changed.Load() {
		// If it has fired by now the next Park returns at once, and so may it.
		w.state.CompareAndSwap(wakerParked, wakerIdle)
		return 0
	}
	if a, ok := guest.(aside); ok && again != nil {
		again.away.park(again, a)
	} else {
		guest.Park()
	}
	if w.state.Load() == wakerFired {
		return 0
	}
	w.state.Store(wakerIdle)
	return signalled(ctx)
}

func (s *socket) read(ctx context.Context, bufs [][]byte, nonblock bool) (int, Errno) {
	return s.receive(ctx, bufs, false, nonblock, s.p)
}

// receive is for what needs neither the sender's address nor to know of
// truncation. For again see pause.
func (s *socket) receive(ctx context.Context, bufs [][]byte, peek, nonblock bool, again *Process) (int, Errno) {
	deadline := s.p.away.resumed()
	for {
		n, err := s.s.Recv(bufs, peek)
		if err == nil {
			return n, 0
		}
		if err != error(syscall.EAGAIN) {
			s.stale()
			return n, toErrno(err)
		}
		if nonblock {
			s.blocked(pollRead)
			return 0, ErrnoAGAIN
		}
		if errno := s.pause(ctx, &deadline, s.receiveTimeout, again); errno != 0 {
			return 0, errno
		}
	}
}

// receiveAll waits until all buffers of a stream are full, or it has ended.
func (s *socket) receiveAll(ctx context.Context, bufs [][]byte, nonblock bool) (n int, errno Errno) {
	for len(bufs) > 0 {
		again := s.p
		if n > 0 {
			again = nil
		}
		m, errno := s.receive(ctx, bufs, false, nonblock, again)
		n += m
		if errno != 0 || m == 0 {
			if n > 0 {
				errno = 0
			}
			return n, errno
		}
		bufs = advance(bufs, m)
	}
	return n, 0
}

func (s *socket) receiveFrom(ctx context.Context, bufs [][]byte, peek, nonblock bool) (n int, from netip.AddrPort, truncated bool, errno Errno) {
	deadline := s.p.away.resumed()
	for {
		n, from, truncated, err := s.s.RecvFrom(bufs, peek)
		if err == nil {
			return n, from, truncated, 0
		}
		if err != error(syscall.EAGAIN) {
			s.stale()
			return 0, from, false, toErrno(err)
		}
		if nonblock {
			s.blocked(pollRead)
			return 0, from, false, ErrnoAGAIN
		}
		if errno := s.pause(ctx, &deadline, s.receiveTimeout, s.p); errno != 0 {
			return 0, from, false, errno
		}
	}
}

// write sends to the peer. A blocking call sends all, unless it is interrupted.
func (s *socket) write(ctx context.Context, bufs [][]byte, nonblock bool) (n int, errno Errno) {
	return s.send(ctx, bufs, netip.AddrPort{}, nonblock, s.p)
}

// send sends to an address, or to the peer if there is none. For again see pause.
func (s *socket) send(ctx context.Context, bufs [][]byte, to netip.AddrPort, nonblock bool, again *Process) (n int, errno Errno) {
	deadline := s.p.away.resumed()
	for {
		var m int
		var err error
		if to.IsValid() {
			m, err = s.s.SendTo(bufs, to)
		} else {
			m, err = s.s.Send(bufs)
		}
		n += m
		switch {
		case err == nil:
			if bufs = advance(bufs, m); m == 0 || nonblock || s.kind == KindDatagram || len(bufs) == 0 {
				return n, 0
			}
		case err != error(syscall.EAGAIN):
			s.stale()
			errno = toErrno(err)
		case nonblock:
			s.blocked(pollWrite)
			errno = ErrnoAGAIN
		default:
			if n > 0 {
				again = nil
			}
			errno = s.pause(ctx, &deadline, s.sendTimeout, again)
		}
		if errno != 0 {
			if n > 0 {
				errno = 0
			}
			return n, errno
		}
	}
}

// advance drops the first n bytes of buffers, which it changes, and all that
// are empty after them.
func advance(bufs [][]byte, n int) [][]byte {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	if len(bufs) > 0 {
		bufs[0] = bufs[0][n:]
	}
	return bufs
}

func (s *socket) connect(ctx context.Context, to netip.AddrPort, nonblock bool) Errno {
	defer s.stale()
	err := s.s.Connect(to)
	if err == error(syscall.EINPROGRESS) && nonblock {
		s.blocked(pollWrite)
	}
	if err != error(syscall.EINPROGRESS) || nonblock {
		return toErrno(err)
	}
	var deadline time.Time
	for {
		if _, writable, _, _ := s.s.Ready(); writable {
			return toErrno(s.s.Err())
		}
		switch errno := s.pause(ctx, &deadline, s.sendTimeout, nil); errno {
		case 0:
		case ErrnoAGAIN:
			return ErrnoINPROGRESS
		default:
			return errno
		}
	}
}

// accept takes a connection of a listener.
func (s *socket) accept(ctx context.Context, nonblock bool) (*socket, Errno) {
	deadline := s.p.away.resumed()
	for {
		c, err := s.s.Accept()
		if err == nil {
			return &socket{p: s.p, s: c, family: s.family, kind: s.kind}, 0
		}
		if err != error(syscall.EAGAIN) {
			s.stale()
			return nil, toErrno(err)
		}
		if nonblock {
			s.blocked(pollRead)
			return nil, ErrnoAGAIN
		}
		if errno := s.pause(ctx, &deadline, s.receiveTimeout, s.p); errno != 0 {
			return nil, errno
		}
	}
}
