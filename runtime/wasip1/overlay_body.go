package wasip1

import (
	"context"
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// body is the content of a file of an overlay: that of the Lower until it is
// changed, then in memory, and on disk once it is large.
type body struct {
	mu    sync.RWMutex
	size  int64
	users int           // open files; guarded by the overlay's lock
	lower *LowerContent // acquired once for each user; nil: not the Lower's any more

	// In memory, in blocks of which the last bytes, or all, may be missing for
	// zeros. The first is apart, because most files have no other.
	first []byte
	rest  map[int64][]byte
	held  int64 // reserved for them
	slots int   // blocks that are paid for beside their bytes: what rest had at most

	path    string // on disk; empty: in memory
	fd      int    // of path while there are users, else -1
	blocks  int64  // bytes on disk at the last look
	written bool   // since then
}

const blockSize = 4096

// extent is the size of the content and the blocks of 512 bytes that it takes.
func (b *body) extent() (size, blocks uint64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	size = uint64(b.size)
	switch {
	case b.path != "" && b.fd >= 0:
		if st, errno := hostStat(b.fd); errno == 0 {
			return size, st.blocks
		}
		return size, uint64(b.blocks+511) / 512
	case b.path != "":
		return size, uint64(b.blocks+511) / 512
	case b.lower != nil:
		return size, (size + 511) / 512
	}
	return size, uint64(b.held+511) / 512
}

// open adds a user. The overlay's lock is held, as for close, empty and discard.
func (b *body) open() Errno {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.lower != nil:
		if errno := b.lower.acquire(); errno != 0 {
			return errno
		}
	case b.path != "" && b.users == 0:
		errno := retry(func() (err error) {
			b.fd, err = unix.Open(b.path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
			return
		})
		if errno != 0 {
			b.fd = -1
			return errno
		}
	}
	b.users++
	return 0
}

func (b *body) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.users--
	switch {
	case b.lower != nil:
		b.lower.release()
	case b.fd >= 0 && b.users == 0:
		hostClose(b.fd)
		b.fd = -1
	}
}

// leaveLower is called when the content is not the Lower's any more.
func (b *body) leaveLower() {
	for range b.users {
		b.lower.release()
	}
	b.lower = nil
}

// empty makes it a file of no bytes.
func (b *body) empty(o *Overlay) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(o)
}

func (b *body) drop(o *Overlay) {
	if b.lower != nil {
		b.leaveLower()
	}
	b.leaveMemory(o)
	b.size = 0
	if b.path != "" {
		b.leaveDisk(o)
	}
	o.version.Add(1)
}

func (b *body) leaveDisk(o *Overlay) {
	if b.fd >= 0 {
		hostClose(b.fd)
	}
	o.removeFile(b.path)
	b.path, b.fd = "", -1
	o.diskMu.Lock()
	o.onDisk -= b.blocks
	b.blocks, b.written = 0, false
	delete(o.written, b)
	o.diskMu.Unlock()
}

// discard frees what nobody can reach any more.
func (b *body) discard(o *Overlay) { b.empty(o) }

// measure looks how much a file takes on disk.
func (b *body) measure(o *Overlay) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.written = false
	if b.path == "" {
		return
	}
	var st unix.Stat_t
	err := unix.Lstat(b.path, &st)
	if err != nil {
		return
	}
	o.diskMu.Lock()
	o.onDisk += st.Blocks*512 - b.blocks
	b.blocks = st.Blocks * 512
	o.diskMu.Unlock()
}

// changed notes that the file on disk has to be looked at.
func (b *body) changed(o *Overlay) {
	o.version.Add(1)
	if b.written || b.path == "" {
		return
	}
	b.written = true
	o.diskMu.Lock()
	o.written[b] = struct{}{}
	o.diskMu.Unlock()
}

// readAt reads as pread(2) does.
func (b *body) readAt(p []byte, off int64) (int, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if off >= b.size {
		return 0, nil
	}
	p = p[:min(int64(len(p)), b.size-off)]
	switch {
	case b.lower != nil:
		return hostPread(b.lower.fd, p, off)
	case b.path != "":
		return hostPread(b.fd, p, off)
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		part := p[n:min(len(p), n+int(blockSize-at%blockSize))]
		block := b.block(at / blockSize)
		copied := 0
		if in := at % blockSize; in < int64(len(block)) {
			copied = copy(part, block[in:])
		}
		clear(part[copied:])
		n += len(part)
	}
	return n, nil
}

func hostPread(fd int, p []byte, off int64) (n int, err error) {
	for {
		if n, err = unix.Pread(fd, p, off); err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

func hostPwrite(fd int, p []byte, off int64) (n int, err error) {
	for {
		if n, err = unix.Pwrite(fd, p, off); err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// writeAt writes as pwrite(2) does, or at the end, and returns where.
func (b *body) writeAt(ctx context.Context, o *Overlay, p []byte, off int64, atEnd bool) (n int, at int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errno := b.takeOver(ctx, o, b.size); errno != 0 {
		return 0, off, errno
	}
	if atEnd {
		off = b.size
	}
	if off > math.MaxInt64-int64(len(p)) {
		return 0, off, ErrnoFBIG
	}
	defer b.changed(o)
	if b.path == "" {
		n = b.writeMemory(o, p, off)
		if n == len(p) || o.config.Dir == "" {
			if n < len(p) && n == 0 {
				return 0, off, ErrnoNOSPC
			}
			return n, off, nil
		}
		if errno := b.spill(o); errno != 0 {
			if n > 0 {
				errno = 0
			}
			return n, off, toError(errno)
		}
	}
	m, err := hostPwrite(b.fd, p[n:], off+int64(n))
	n += m
	if n > 0 {
		b.size = max(b.size, off+int64(n))
		err = nil
	}
	return n, off, err
}

func toError(e Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// createFile makes the file on disk, and pays for its path.
func (o *Overlay) createFile() (fd int, path string, errno Errno) {
	path = o.newPath()
	if errno := o.pay(pathBytes(path)); errno != 0 {
		return -1, "", errno
	}
	errno = retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		return
	})
	if errno != 0 {
		_ = o.pay(-pathBytes(path))
	}
	return fd, path, errno
}

func (o *Overlay) removeFile(path string) {
	_ = unix.Unlink(path)
	_ = o.pay(-pathBytes(path))
}

// spill moves content from memory to disk. On an error it stays where it was.
func (b *body) spill(o *Overlay) Errno {
	fd, path, errno := o.createFile()
	if errno != 0 {
		return errno
	}
	fail := func(errno Errno) Errno {
		hostClose(fd)
		o.removeFile(path)
		return errno
	}
	if errno := retry(func() error { return unix.Ftruncate(fd, b.size) }); errno != 0 {
		return fail(errno)
	}
	put := func(i int64, block []byte) Errno {
		block = block[:max(0, min(int64(len(block)), b.size-i*blockSize))]
		for at := i * blockSize; len(block) > 0; {
			n, err := hostPwrite(fd, block, at)
			if err != nil {
				return toErrno(err)
			}
			block, at = block[n:], at+int64(n)
		}
		return 0
	}
	if errno := put(0, b.first); errno != 0 {
		return fail(errno)
	}
	for i, block := range b.rest {
		if errno := put(i, block); errno != 0 {
			return fail(errno)
		}
	}
	b.leaveMemory(o)
	b.path, b.fd = path, fd
	if b.users == 0 {
		hostClose(fd)
		b.fd = -1
	}
	b.changed(o)
	return 0
}

// takeOver makes the content this overlay's own, up to keep bytes of it. On an
// error, a full disk say, it is still the Lower's.
func (b *body) takeOver(ctx context.Context, o *Overlay, keep int64) (errno Errno) {
	if b.lower == nil {
		return 0
	}
	keep = min(keep, b.size)
	if errno := b.lower.acquire(); errno != 0 {
		return errno
	}
	from := b.lower
	defer from.release()
	if keep <= maxMemoryFile || o.config.Dir == "" {
		if b.copyToMemory(o, from.fd, keep) {
			b.leaveLower()
			b.size = keep
			return 0
		}
		if o.config.Dir == "" {
			return ErrnoNOSPC
		}
	}
	fd, path, errno := o.createFile()
	if errno != 0 {
		return errno
	}
	done := false
	defer func() { // also when the guest is killed meanwhile
		if !done {
			hostClose(fd)
			o.removeFile(path)
		}
	}()
	if errno := copyRange(ctx, fd, from.fd, keep); errno != 0 {
		return errno
	}
	done = true
	b.onDisk(o, fd, path, keep)
	return 0
}

// bring is takeOver for content that is not copied in no time. Nobody waits for it:
// neither those who want the file, as what is copied never changes, nor other
// guests, which have the place meanwhile.
func (b *body) bring(ctx context.Context, o *Overlay, keep int64) Errno {
	b.mu.RLock()
	from, size := b.lower, b.size
	if from == nil || o.config.Dir == "" || keep == size || min(keep, size) <= maxMemoryFile {
		b.mu.RUnlock()
		return 0
	}
	errno := from.acquire()
	b.mu.RUnlock()
	if errno != 0 {
		return errno
	}
	defer from.release()
	keep = min(keep, size)
	fd, path, errno := o.createFile()
	if errno != 0 {
		return errno
	}
	taken := false
	defer func() { // also when the guest is killed meanwhile
		if !taken {
			hostClose(fd)
			o.removeFile(path)
		}
	}()
	leave(ctx)
	errno = copyRange(ctx, fd, from.fd, keep)
	enter(ctx)
	if errno != 0 {
		return errno
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.lower != nil { // else somebody else was faster
		taken = true
		b.onDisk(o, fd, path, keep)
	}
	return 0
}

// onDisk is called when the content has been copied from the Lower to a file.
func (b *body) onDisk(o *Overlay, fd int, path string, size int64) {
	b.leaveLower()
	b.size, b.path, b.fd = size, path, fd
	if b.users == 0 {
		hostClose(fd)
		b.fd = -1
	}
	b.changed(o)
}

// copyChunk is how much is copied between two looks whether the guest is to end.
const copyChunk = 8 << 20

func copyRange(ctx context.Context, to, from int, size int64) Errno {
	var buf []byte
	for at := int64(0); at < size; {
		if ctx.Err() != nil {
			panic(killed)
		}
		in, out := at, at
		n, err := hostCopyRange(from, &in, to, &out, int(min(size-at, copyChunk)))
		if err != nil || n == 0 { // not between these file systems, or not on this one
			if buf == nil {
				buf = make([]byte, 256<<10)
			}
			n, err = hostPread(from, buf[:min(int64(len(buf)), size-at)], at)
			if err == nil && n == 0 {
				return ErrnoIO // it is shorter than it was
			}
			for done := 0; err == nil && done < n; {
				var m int
				m, err = hostPwrite(to, buf[done:n], at+int64(done))
				done += m
			}
			if err != nil {
				return toErrno(err)
			}
		}
		at += int64(n)
	}
	return 0
}

// setSize is ftruncate(2).
func (b *body) setSize(ctx context.Context, o *Overlay, size int64) Errno {
	b.mu.Lock()
	defer b.mu.Unlock()
	if size == b.size && b.lower != nil {
		return 0
	}
	if errno := b.takeOver(ctx, o, size); errno != 0 {
		return errno
	}
	defer b.changed(o)
	if b.path == "" && o.config.Dir != "" && size > maxMemoryFile {
		if errno := b.spill(o); errno != 0 {
			return errno
		}
	}
	if b.path != "" {
		errno := retry(func() error { return unix.Ftruncate(b.fd, size) })
		if errno == 0 {
			b.size = size
		}
		return errno
	}
	if size < b.size {
		b.cut(o, size)
	}
	b.size = size
	return 0
}

// allocate is posix_fallocate(3).
func (b *body) allocate(ctx context.Context, o *Overlay, off, length int64) Errno {
	for o.config.Dir == "" && length > largestPiece {
		// Much memory is found in pieces, between which others have a turn.
		if errno := b.allocatePiece(ctx, o, off, largestPiece, false); errno != 0 {
			return errno
		}
		off, length = off+largestPiece, length-largestPiece
		breathe(ctx)
	}
	return b.allocatePiece(ctx, o, off, length, true)
}

func (b *body) allocatePiece(ctx context.Context, o *Overlay, off, length int64, last bool) Errno {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errno := b.takeOver(ctx, o, b.size); errno != 0 {
		return errno
	}
	defer b.changed(o)
	end := off + length
	if b.path == "" {
		if (o.config.Dir == "" || end <= maxMemoryFile) && b.allocateMemory(o, off, end) {
			if last {
				b.size = max(b.size, end)
			}
			return 0
		}
		if o.config.Dir == "" {
			b.cut(o, b.size) // what was found beyond the end
			return ErrnoNOSPC
		}
		if errno := b.spill(o); errno != 0 {
			return errno
		}
	}
	errno := hostAllocate(b.fd, off, length)
	if errno == 0 {
		b.size = max(b.size, end)
	}
	return errno
}
