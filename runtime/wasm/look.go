package wasm

import (
	"os"
	"sync"
	"syscall"
)

// look lets Go's scheduler look at the network: it does so when a processor has
// nothing else to do, and otherwise only every 10 ms. A goroutine that sleeps for
// a moment gives it the time, but for too much of it: with nothing else to do a
// processor waits for the network for a millisecond at least, as that is what
// Go's poller counts in. Who waits for a pipe that it has written to itself is
// woken by that same look.
type look struct {
	mu   sync.Mutex
	conn syscall.RawConn // the pipe's reading end
	w    *os.File
	sent bool
	buf  [1]byte
	step func(uintptr) bool
}

// network is the one look of the process. It is nil where there are no
// descriptors left for it.
var network = sync.OnceValue(func() *look {
	r, w, err := os.Pipe()
	if err != nil {
		return nil
	}
	l := &look{w: w}
	l.step = l.next
	if l.conn, err = r.SyscallConn(); err != nil {
		_, _ = r.Close(), w.Close()
		return nil
	}
	return l
})

// now returns when the scheduler has looked. It is false if that cannot be had.
func (l *look) now() bool {
	if l == nil || !l.mu.TryLock() {
		return false // another goroutine is at it
	}
	defer l.mu.Unlock()
	l.sent = false
	return l.conn.Read(l.step) == nil
}

// next writes, and reads when it is called again: there is something to read.
func (l *look) next(fd uintptr) (done bool) {
	if !l.sent {
		l.sent = true
		_, err := l.w.Write(l.buf[:])
		return err != nil
	}
	_, err := syscall.Read(int(fd), l.buf[:])
	return err != syscall.EAGAIN && err != syscall.EINTR
}
