package podnet

import (
	"sync"
	"syscall"
)

// conn is a connection: both ends, under one lock. What is copied is copied
// without it if it is much, so that reader and writer do so at the same time.
type conn struct {
	mu   sync.Mutex
	ends [2]end
}

// end is one side of a connection. The names in its methods' comments are the
// TCP states that Linux would be in.
type end struct {
	sock *Socket
	in   queue // what the peer sent and this end has not read
	err  syscall.Errno

	fin    bool // the peer has shut down its writing half
	rd, wr bool // this half is shut down
	dead   bool // CLOSED: reset, or shut down by both
	gone   bool // the socket was closed

	full    bool // a writer of this end waits for room
	starved bool // and memory was what there was none of

	// Held by who lets go of conn.mu to copy, and then also said under conn.mu: who
	// copies little needs only that one.
	reading, writing sync.Mutex
	taking, putting  bool
}

// copyUnlocked is how much is copied without the lock: below, taking it twice
// costs more than it gives.
const copyUnlocked = 8 << 10

// limit is how much may wait to be read by p that e sends.
func limit(e, p *end) int {
	return int(e.sock.sndbuf.Load()/2 + p.sock.rcvbuf.Load()/2)
}

// roomy reports whether a writer of e is worth waking: Linux wants a third of
// the buffer free, so that it does not wake for every few bytes.
func roomy(e, p *end) bool {
	max := limit(e, p)
	return !e.starved && (max-p.in.n)*3 >= max
}

func (c *conn) send(side uint8, bufs [][]byte) (int, syscall.Errno) {
	e, p := &c.ends[side], &c.ends[1-side]
	want := vecLen(bufs)
	if want <= copyUnlocked {
		c.mu.Lock()
		if !e.putting {
			return c.sendLocked(e, p, bufs, want)
		}
		c.mu.Unlock() // what is being copied goes first
	}
	e.writing.Lock()
	defer e.writing.Unlock()
	c.mu.Lock()
	return c.sendLocked(e, p, bufs, want)
}

// sendLocked is send with c.mu held, which it releases, and if it is for more than
// copyUnlocked also e.writing.
func (c *conn) sendLocked(e, p *end, bufs [][]byte, want int) (int, syscall.Errno) {
	if errno := e.sendErr(); errno != none {
		c.mu.Unlock()
		return 0, errno
	}
	if want == 0 {
		c.mu.Unlock()
		return 0, none
	}
	if p.refuses() {
		c.refuse(e, p)
		return want, none
	}
	room := min(want, limit(e, p)-p.in.n)
	if room <= 0 {
		e.full = true
		c.mu.Unlock()
		return 0, syscall.EAGAIN
	}
	payer := e.sock.acct
	if payer == nil {
		payer = p.sock.acct
	}
	v := vec{bufs: bufs}
	v.skipEmpty()
	n := 0
	var head, tail *chunk
	if room <= copyUnlocked {
		empty := p.in.n == 0
		n = p.in.fillTail(&v, room)
		if n < room {
			var k int
			if head, tail, k = chain(&v, room-n, payer); k > 0 {
				p.in.link(head, tail, k)
				n += k
			}
		}
		return c.sent(e, p, n, empty)
	}
	e.putting = true
	c.mu.Unlock()
	head, tail, n = chain(&v, room, payer)
	c.mu.Lock()
	e.putting = false
	errno := e.sendErr()
	if errno != none || p.refuses() {
		(&queue{head: head, tail: tail}).clear()
		if errno != none {
			c.mu.Unlock()
			return 0, errno
		}
		c.refuse(e, p)
		return want, none
	}
	empty := p.in.n == 0
	if n > 0 {
		p.in.link(head, tail, n)
	}
	return c.sent(e, p, n, empty)
}

// sent ends send, with c.mu held, which it releases.
func (c *conn) sent(e, p *end, n int, wasEmpty bool) (int, syscall.Errno) {
	if n == 0 {
		errno := syscall.ENOBUFS
		if p.in.n > 0 {
			e.full, e.starved = true, true
			errno = syscall.EAGAIN
		}
		c.mu.Unlock()
		return 0, errno
	}
	to := p.sock
	c.mu.Unlock()
	count(e.sock.pod(), to.pod(), n)
	if wasEmpty {
		to.wake()
	}
	return n, none
}

// sendErr is why e cannot send. A pending error comes first and is cleared.
func (e *end) sendErr() syscall.Errno {
	if e.gone {
		return e.sock.closed
	}
	if e.err != none {
		return e.takeErr()
	}
	if e.wr || e.dead {
		return syscall.EPIPE
	}
	return none
}

func (e *end) takeErr() syscall.Errno {
	errno := e.err
	e.err = none
	return errno
}

// refuses reports whether p answers data with a reset: it was closed, or is in
// FIN_WAIT and does not read either.
func (p *end) refuses() bool { return p.gone || p.wr && p.rd && !p.fin }

// refuse is what happens to data that p refuses: it was sent, and a reset comes
// back. It releases c.mu.
func (c *conn) refuse(e, p *end) {
	c.reset(e)
	if !p.gone {
		c.reset(p)
	}
	a, b := e.sock, p.sock
	c.mu.Unlock()
	a.wake()
	b.wake()
}

// reset is what a reset does to e (Linux: tcp_reset).
func (c *conn) reset(e *end) {
	if e.dead {
		return
	}
	e.err = syscall.ECONNRESET
	if e.fin {
		e.err = syscall.EPIPE // CLOSE_WAIT
	}
	e.dead, e.rd, e.wr = true, true, true
}

func (c *conn) recv(side uint8, bufs [][]byte, flags Flags) (int, syscall.Errno) {
	e, p := &c.ends[side], &c.ends[1-side]
	want := vecLen(bufs)
	c.mu.Lock()
	if e.taking || min(want, e.in.n) > copyUnlocked {
		c.mu.Unlock()
		e.reading.Lock()
		defer e.reading.Unlock()
		c.mu.Lock()
	}
	if e.gone || e.in.n == 0 {
		errno := e.recvErr()
		c.mu.Unlock()
		return 0, errno
	}
	n := min(want, e.in.n)
	v := vec{bufs: bufs}
	v.skipEmpty()
	head, tail := e.in.head, e.in.tail
	end := tail.w                // the writer goes on filling the last chunk behind it
	unlocked := n > copyUnlocked // then e.reading is held
	if unlocked {
		e.taking = true
		c.mu.Unlock()
	}
	left := n
	for h := head; left > 0; h = h.next {
		w := end
		if h != tail {
			w = h.w
		}
		left -= v.copyFrom(h.buf[h.r:min(w, h.r+left)])
		if left == 0 {
			break
		}
	}
	if unlocked {
		c.mu.Lock()
		e.taking = false
	}
	var wake *Socket
	if flags&Peek == 0 && n > 0 {
		e.in.pop(n)
		if p.starved {
			p.starved = false
		}
		if p.full && roomy(p, e) {
			p.full = false
			wake = p.sock
		}
	}
	c.mu.Unlock()
	if wake != nil {
		wake.wake()
	}
	return n, none
}

// recvErr is what reading returns when there is nothing to read.
func (e *end) recvErr() syscall.Errno {
	switch {
	case e.gone:
		return e.sock.closed
	case e.fin:
		return none
	case e.err != none:
		return e.takeErr()
	case e.rd:
		return none
	case e.dead:
		return syscall.ENOTCONN
	}
	return syscall.EAGAIN
}

// shutdown is shutdown(2).
func (c *conn) shutdown(side uint8, how How) syscall.Errno {
	e, p := &c.ends[side], &c.ends[1-side]
	c.mu.Lock()
	if e.gone {
		c.mu.Unlock()
		return e.sock.closed
	}
	if e.dead {
		c.mu.Unlock()
		return syscall.ENOTCONN
	}
	if how&ShutRead != 0 {
		e.rd = true
	}
	if how&ShutWrite != 0 && !e.wr {
		c.finish(e, p)
	}
	c.mu.Unlock()
	e.sock.wake()
	p.sock.wake()
	return none
}

// finish sends a FIN. Once both have, the connection is no more.
func (c *conn) finish(e, p *end) {
	e.wr = true
	p.fin, p.rd = true, true
	if e.fin {
		e.dead, e.rd = true, true
		p.dead, p.wr = true, true
	}
}

// close is close(2): with unread data, or if asked to, a reset.
func (c *conn) close(side uint8, reset bool) {
	e, p := &c.ends[side], &c.ends[1-side]
	e.reading.Lock()
	c.mu.Lock()
	if e.gone {
		c.mu.Unlock()
		e.reading.Unlock()
		return
	}
	e.gone = true
	switch {
	case e.dead:
	case reset || e.in.n > 0:
		c.reset(p)
		e.dead, e.rd, e.wr = true, true, true
	case !e.wr:
		c.finish(e, p)
	}
	e.in.clear()
	c.mu.Unlock()
	e.reading.Unlock()
	p.sock.wake()
}

func (c *conn) isDead(side uint8) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends[side].dead
}

func (c *conn) takeErr(side uint8) syscall.Errno {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ends[side].takeErr()
}

func (c *conn) ready(side uint8) (readable, writable bool, nbytes int, hangup bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, p := &c.ends[side], &c.ends[1-side]
	if e.gone {
		return true, true, 0, true
	}
	nbytes = e.in.n
	readable = nbytes > 0 || e.rd || e.err != none
	writable = e.wr || e.err != none || roomy(e, p)
	if !writable {
		e.full = true // whoever asked is going to wait
	}
	return readable, writable, nbytes, e.dead || e.rd && e.wr
}
