package wasip1

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// hostFile is an open file of a mount that is not a directory: a regular file,
// or a FIFO or device that the host put there.
type hostFile struct {
	fd   int
	f    *os.File // of fd, for files that may have to be waited for; nil for regular ones
	mnt  *mount
	kind uint8

	watching [2]chan struct{} // closed when a watch for reading, or writing, has ended
}

// newHostFile takes over an open descriptor. What may have to be waited for is
// left to Go's poller.
func newHostFile(fd int, kind uint8, mnt *mount) *hostFile {
	h := &hostFile{fd: fd, kind: kind, mnt: mnt}
	if kind != filetypeRegular {
		h.f = os.NewFile(uintptr(fd), "")
	}
	return h
}

func (h *hostFile) filetype() uint8 { return h.kind }

func (h *hostFile) stat() (filestat, Errno) {
	st, errno := hostStat(h.fd)
	st.dev = h.mnt.guestDev(st.dev)
	return st, errno
}

// patient reports whether a read or write of the file may take forever: those
// of FIFOs and devices do. The host descriptor never blocks by itself; waiting
// is left to Go's poller, which a deadline can interrupt.
func (h *hostFile) patient(nonblock bool) bool { return h.f != nil && !nonblock }

// transfer moves bufs with op until one of them is not moved in full.
func (h *hostFile) transfer(ctx context.Context, bufs [][]byte, op func([]byte) (int, error), nonblock bool) (n int, errno Errno) {
	var err error
	if h.patient(nonblock) {
		h.f.SetDeadline(time.Time{})
		give := func() { h.f.SetDeadline(time.Unix(1, 0)) }
		stop := context.AfterFunc(ctx, give)
		defer stop()
		if signal := interrupted(ctx); signal != nil {
			over := make(chan struct{})
			defer close(over)
			go func() {
				select {
				case <-signal:
					give()
				case <-over:
				}
			}()
		}
		leave(ctx)
		defer enter(ctx)
		for _, b := range bufs {
			if len(b) == 0 {
				continue
			}
			var m int
			m, err = op(b)
			if n += max(m, 0); err != nil || m < len(b) {
				break
			}
		}
	} else {
		n, err = inPieces(ctx, bufs, op)
	}
	switch {
	case err == nil, err == io.EOF, n > 0:
		return n, 0
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		panic(killed)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return 0, ErrnoINTR
	}
	return 0, toErrno(err)
}

func (h *hostFile) read(ctx context.Context, bufs [][]byte, nonblock bool) (int, Errno) {
	if h.patient(nonblock) {
		return h.transfer(ctx, bufs, h.f.Read, nonblock)
	}
	return h.transfer(ctx, bufs, h.readNow, nonblock)
}

func (h *hostFile) write(ctx context.Context, bufs [][]byte, nonblock bool) (int, Errno) {
	if h.patient(nonblock) {
		return h.transfer(ctx, bufs, h.f.Write, nonblock)
	}
	return h.transfer(ctx, bufs, h.writeNow, nonblock)
}

// readNow and writeNow call the host once: enough for regular files, and the
// answer to non-blocking calls for the others.
func (h *hostFile) readNow(b []byte) (n int, err error) {
	for {
		if n, err = unix.Read(h.fd, b); err != unix.EINTR {
			return n, err
		}
	}
}

func (h *hostFile) writeNow(b []byte) (n int, err error) {
	for {
		if n, err = unix.Write(h.fd, b); err != unix.EINTR {
			return n, err
		}
	}
}

func (h *hostFile) pread(ctx context.Context, bufs [][]byte, offset int64) (n int, errno Errno) {
	return h.at(ctx, bufs, offset, unix.Pread)
}

func (h *hostFile) pwrite(ctx context.Context, bufs [][]byte, offset int64) (n int, errno Errno) {
	return h.at(ctx, bufs, offset, unix.Pwrite)
}

func (h *hostFile) at(ctx context.Context, bufs [][]byte, offset int64, op func(int, []byte, int64) (int, error)) (n int, errno Errno) {
	if offset < 0 {
		return 0, ErrnoINVAL
	}
	n, err := inPieces(ctx, bufs, func(b []byte) (m int, err error) {
		for {
			if m, err = op(h.fd, b, offset); err != unix.EINTR {
				offset += int64(max(m, 0))
				return m, err
			}
		}
	})
	if err != nil && n == 0 {
		return 0, toErrno(err)
	}
	return n, 0
}

func (h *hostFile) seek(offset int64, whence uint8) (int64, Errno) {
	pos, err := unix.Seek(h.fd, offset, int(whence))
	return pos, toErrno(err)
}

func (h *hostFile) sync() Errno { return retry(func() error { return unix.Fsync(h.fd) }) }

// The disk may have to look for what is to be given to a file, or taken from it.
func (h *hostFile) allocate(ctx context.Context, offset, length int64) Errno {
	leave(ctx)
	defer enter(ctx)
	return hostAllocate(h.fd, offset, length)
}

func (h *hostFile) setSize(ctx context.Context, size int64) Errno {
	leave(ctx)
	defer enter(ctx)
	return retry(func() error { return unix.Ftruncate(h.fd, size) })
}

func (h *hostFile) setTimes(t timesUpdate) Errno {
	if h.mnt.readOnly {
		return ErrnoROFS
	}
	return hostSetTimes(h.fd, t)
}

// setFlags changes O_APPEND. O_NONBLOCK is the table's, the host descriptor
// always has it; the rest cannot be changed after open, on Linux neither.
func (h *hostFile) setFlags(flags uint16) Errno {
	return hostSetAppend(h.fd, flags&fdflagAppend != 0)
}

// poll counts the bytes to the end of a regular file, and asks the host about
// others.
func (h *hostFile) poll(write bool) (ready bool, nbytes uint64, hangup bool) {
	switch {
	case h.f != nil:
		return hostPoll(h.fd, write)
	case write:
		return true, 1, false
	}
	st, errno := hostStat(h.fd)
	pos, seek := h.seek(0, 1)
	if errno == 0 && seek == 0 && int64(st.size) > pos {
		nbytes = st.size - uint64(pos)
	}
	return true, nbytes, false
}

// watch waits in a goroutine, one for each direction however often a guest
// asks. It ends by itself or in unwatch.
func (h *hostFile) watch(w *waker, write bool) {
	i := 0
	if write {
		i = 1
	}
	if h.f == nil || h.watching[i] != nil {
		return
	}
	h.f.SetDeadline(time.Time{})
	raw, err := h.f.SyscallConn()
	if err != nil {
		return
	}
	wait := raw.Read
	if write {
		wait = raw.Write
	}
	ended := make(chan struct{})
	h.watching[i] = ended
	go func() {
		defer close(ended)
		_ = wait(func(uintptr) bool { // an error is unwatch's deadline
			ready, _, _ := hostPoll(h.fd, write)
			return ready
		})
		w.Wake()
	}()
}

func (h *hostFile) unwatch(*waker) {
	for i, ended := range h.watching {
		if ended != nil {
			h.f.SetDeadline(time.Unix(1, 0))
			<-ended
			h.watching[i] = nil
		}
	}
}

func (h *hostFile) close() Errno {
	if h.f != nil {
		return toErrno(h.f.Close())
	}
	hostClose(h.fd)
	return 0
}
