package wasip1

import (
	"context"
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
	b.first, b.rest = nil, nil
	_ = o.reserve(-b.held)
	b.held, b.size = 0, 0
	if b.path != "" {
		b.leaveDisk(o)
	}
	o.version.Add(1)
}

func (b *body) leaveDisk(o *Overlay) {
	if b.fd >= 0 {
		hostClose(b.fd)
	}
	_ = unix.Unlink(b.path)
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

func (b *body) block(i int64) []byte {
	if i == 0 {
		return b.first
	}
	return b.rest[i]
}

func (b *body) setBlock(i int64, block []byte) {
	if i == 0 {
		b.first = block
		return
	}
	if b.rest == nil {
		b.rest = map[int64][]byte{}
	}
	b.rest[i] = block
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

// writeMemory writes as much as there is room for in memory.
func (b *body) writeMemory(o *Overlay, p []byte, off int64) (n int) {
	for n < len(p) {
		at := off + int64(n)
		if o.config.Dir != "" && at+int64(len(p)-n) > maxMemoryFile {
			break
		}
		i, in := at/blockSize, int(at%blockSize)
		part := p[n:min(len(p), n+blockSize-in)]
		block := b.block(i)
		if need := in + len(part); need > cap(block) {
			// Twice the room, so that a file that is written by the byte is not
			// copied each time.
			room := min(blockSize, max(need, 2*cap(block), 64))
			if !o.reserve(int64(room - cap(block))) {
				break
			}
			b.held += int64(room - cap(block))
			grown := make([]byte, len(block), room)
			copy(grown, block)
			block = grown
		}
		if need := in + len(part); need > len(block) {
			old := len(block)
			block = block[:need]
			clear(block[old:])
		}
		copy(block[in:], part)
		b.setBlock(i, block)
		n += len(part)
		b.size = max(b.size, at+int64(len(part)))
	}
	return n
}

// createFile makes the file on disk.
func (o *Overlay) createFile() (fd int, path string, errno Errno) {
	path = o.newPath()
	errno = retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
		return
	})
	return fd, path, errno
}

// spill moves content from memory to disk. On an error it stays where it was.
func (b *body) spill(o *Overlay) Errno {
	fd, path, errno := o.createFile()
	if errno != 0 {
		return errno
	}
	fail := func(errno Errno) Errno {
		hostClose(fd)
		_ = unix.Unlink(path)
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
	b.first, b.rest = nil, nil
	_ = o.reserve(-b.held)
	b.held, b.path, b.fd = 0, path, fd
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
			_ = unix.Unlink(path)
		}
	}()
	if errno := copyRange(ctx, fd, from.fd, keep); errno != 0 {
		return errno
	}
	done = true
	b.leaveLower()
	b.size, b.path, b.fd = keep, path, fd
	if b.users == 0 {
		hostClose(fd)
		b.fd = -1
	}
	b.changed(o)
	return 0
}

func (b *body) copyToMemory(o *Overlay, fd int, keep int64) bool {
	if !o.reserve(keep) {
		return false
	}
	for at := int64(0); at < keep; at += blockSize {
		block := make([]byte, min(blockSize, keep-at))
		if n, err := hostPread(fd, block, at); err != nil || n < len(block) {
			b.first, b.rest = nil, nil
			_ = o.reserve(-keep)
			return false
		}
		b.setBlock(at/blockSize, block)
	}
	b.held += keep
	return true
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

// cut drops what lies beyond size in memory.
func (b *body) cut(o *Overlay, size int64) {
	last := size / blockSize
	drop := func(i int64) {
		block := b.block(i)
		keep := 0
		if i == last {
			keep = min(len(block), int(size%blockSize))
		}
		if keep > 0 {
			b.setBlock(i, block[:keep])
			return
		}
		_ = o.reserve(-int64(cap(block)))
		b.held -= int64(cap(block))
		if i == 0 {
			b.first = nil
		} else {
			delete(b.rest, i)
		}
	}
	if last == 0 {
		drop(0)
	}
	for i := range b.rest {
		if i >= last {
			drop(i)
		}
	}
}

// allocate is posix_fallocate(3).
func (b *body) allocate(ctx context.Context, o *Overlay, off, length int64) Errno {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errno := b.takeOver(ctx, o, b.size); errno != 0 {
		return errno
	}
	defer b.changed(o)
	end := off + length
	if b.path == "" {
		if (o.config.Dir == "" || end <= maxMemoryFile) && b.allocateMemory(ctx, o, off, end) {
			b.size = max(b.size, end)
			return 0
		}
		if o.config.Dir == "" {
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

func (b *body) allocateMemory(ctx context.Context, o *Overlay, off, end int64) bool {
	for at := off; at < end; at = (at/blockSize + 1) * blockSize {
		i := at / blockSize
		block := b.block(i)
		room := int(min(blockSize, end-i*blockSize))
		if room <= cap(block) {
			continue
		}
		if ctx.Err() != nil {
			panic(killed)
		}
		if !o.reserve(int64(room - cap(block))) {
			return false
		}
		b.held += int64(room - cap(block))
		grown := make([]byte, len(block), room)
		copy(grown, block)
		b.setBlock(i, grown)
	}
	return true
}
