package wasip1

import (
	"context"
	"math"
	"time"
)

// overlayFile is an open file of an overlay.
type overlayFile struct {
	noFile
	o   *Overlay
	n   *inode
	mnt *mount
	at  int64 // the position
	end bool  // writes go to the end
}

func (f *overlayFile) filetype() uint8 { return filetypeRegular }

func (f *overlayFile) stat() (filestat, Errno) {
	st := f.o.stat(f.n)
	st.dev = f.mnt.dev
	return st, 0
}

// readAt reads what the file is now.
func (f *overlayFile) readAt(p []byte, off int64) (int, error) {
	if f.n.frozen {
		f.o.mu.RLock()
		defer f.o.mu.RUnlock() // so long nobody copies it, and then closes the descriptor
		if f.n = f.o.current(f.n); f.n.frozen {
			return hostPread(f.n.content.fd, p, off)
		}
	}
	return f.n.body.readAt(p, off)
}

func (f *overlayFile) pread(ctx context.Context, bufs [][]byte, off int64) (n int, errno Errno) {
	n, err := inPieces(ctx, bufs, func(b []byte) (int, error) {
		m, err := f.readAt(b, off)
		off += int64(max(m, 0))
		return m, err
	})
	if err != nil && n == 0 {
		return 0, toErrno(err)
	}
	return n, 0
}

func (f *overlayFile) read(ctx context.Context, bufs [][]byte, _ bool) (int, Errno) {
	n, errno := f.pread(ctx, bufs, f.at)
	f.at += int64(n)
	return n, errno
}

// change makes the file one that may be changed, calls op with its content, and
// notes when.
func (f *overlayFile) change(op func(b *body) Errno) Errno {
	if f.n.frozen {
		f.o.mu.Lock()
		n, errno := f.o.own(f.n)
		f.o.mu.Unlock()
		if errno != 0 {
			return errno
		}
		f.n = n
	}
	if errno := op(f.n.body); errno != 0 {
		return errno
	}
	now := time.Now().UnixNano()
	f.o.mu.Lock()
	f.n.touch(now)
	f.o.mu.Unlock()
	return 0
}

func (f *overlayFile) writeAt(ctx context.Context, bufs [][]byte, off int64, atEnd bool) (n int, end int64, errno Errno) {
	if f.mnt.readOnly {
		return 0, off, ErrnoROFS
	}
	switch size := int64(total(bufs)); {
	case size == 0:
		return 0, off, 0
	case off > math.MaxInt64-size:
		return 0, off, ErrnoFBIG
	}
	errno = f.change(func(b *body) Errno {
		if errno := b.bring(ctx, f.o, math.MaxInt64); errno != 0 {
			return errno
		}
		var err error
		n, err = inPieces(ctx, bufs, func(p []byte) (int, error) {
			m, at, err := b.writeAt(ctx, f.o, p, off, atEnd)
			off = at + int64(m)
			return m, err
		})
		if err != nil && n == 0 {
			return toErrno(err)
		}
		return 0
	})
	return n, off, errno
}

func (f *overlayFile) pwrite(ctx context.Context, bufs [][]byte, off int64) (int, Errno) {
	// pwrite(2) of a file that is opened to append appends, on Linux.
	n, _, errno := f.writeAt(ctx, bufs, off, f.end)
	return n, errno
}

func (f *overlayFile) write(ctx context.Context, bufs [][]byte, _ bool) (int, Errno) {
	n, end, errno := f.writeAt(ctx, bufs, f.at, f.end)
	if n > 0 {
		f.at = end
	}
	return n, errno
}

func (f *overlayFile) seek(offset int64, whence uint8) (int64, Errno) {
	switch whence {
	case 1:
		offset += f.at
	case 2:
		offset += int64(f.o.stat(f.n).size)
	}
	if offset < 0 {
		return 0, ErrnoINVAL
	}
	f.at = offset
	return offset, 0
}

// sync has nothing to do: nobody looks at a private root after a crash.
func (f *overlayFile) sync() Errno { return 0 }

func (f *overlayFile) allocate(ctx context.Context, offset, length int64) Errno {
	if f.mnt.readOnly {
		return ErrnoROFS
	}
	return f.change(func(b *body) Errno {
		if errno := b.bring(ctx, f.o, math.MaxInt64); errno != 0 {
			return errno
		}
		return b.allocate(ctx, f.o, offset, length)
	})
}

func (f *overlayFile) setSize(ctx context.Context, size int64) Errno {
	if f.mnt.readOnly {
		return ErrnoROFS
	}
	return f.change(func(b *body) Errno {
		if errno := b.bring(ctx, f.o, size); errno != 0 {
			return errno
		}
		return b.setSize(ctx, f.o, size)
	})
}

func (f *overlayFile) setTimes(t timesUpdate) Errno {
	if f.mnt.readOnly {
		return ErrnoROFS
	}
	return f.o.setTimes(f.n, t)
}

func (f *overlayFile) setFlags(flags uint16) Errno {
	f.end = flags&fdflagAppend != 0
	return 0
}

func (f *overlayFile) poll(write bool) (ready bool, nbytes uint64, hangup bool) {
	if write {
		return true, 1, false
	}
	if size := int64(f.o.stat(f.n).size); size > f.at {
		nbytes = uint64(size - f.at)
	}
	return true, nbytes, false
}

func (f *overlayFile) close() Errno {
	f.o.letGo(f.n)
	return 0
}
