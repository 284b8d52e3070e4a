package wasip1

import (
	"context"
	"math"
	"time"
)

// need returns the descriptor if it has the rights; as POSIX does for a
// descriptor of the wrong access mode, it is EBADF otherwise. Directories say
// themselves what they are not capable of.
func (p *Process) need(fd, right uint64) (*descriptor, Errno) {
	d, errno := p.fds.get(uint32(fd))
	if errno != 0 {
		return nil, errno
	}
	if d.rights&right != right && d.file.filetype() != filetypeDirectory {
		return nil, ErrnoBADF
	}
	return d, 0
}

// fd_read(fd, iovs, iovs_len, nread *u32)
func fdRead(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.need(a[0], rightFdRead)
	if errno != 0 {
		return errno
	}
	res, bufs, errno := p.transfer(m, a[1], a[2], a[3])
	if errno != 0 {
		return errno
	}
	n, errno := d.file.read(ctx, bufs, d.flags&fdflagNonblock != 0)
	p.work(ctx, n)
	if errno == ErrnoAGAIN {
		d.blocked(pollRead)
	}
	return putCount(res, n, errno)
}

// fd_write(fd, iovs, iovs_len, nwritten *u32)
func fdWrite(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.need(a[0], rightFdWrite)
	if errno != 0 {
		return errno
	}
	res, bufs, errno := p.transfer(m, a[1], a[2], a[3])
	if errno != 0 {
		return errno
	}
	n, errno := d.file.write(ctx, bufs, d.flags&fdflagNonblock != 0)
	p.work(ctx, n)
	if errno == ErrnoAGAIN {
		d.blocked(pollWrite)
	}
	return putCount(res, n, errno)
}

// fd_pread(fd, iovs, iovs_len, offset, nread *u32)
func fdPread(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.need(a[0], rightFdRead)
	if errno != 0 {
		return errno
	}
	res, bufs, errno := p.transfer(m, a[1], a[2], a[4])
	if errno != 0 {
		return errno
	}
	if a[3] > math.MaxInt64 {
		return ErrnoINVAL
	}
	n, errno := d.file.pread(ctx, bufs, int64(a[3]))
	p.work(ctx, n)
	return putCount(res, n, errno)
}

// fd_pwrite(fd, iovs, iovs_len, offset, nwritten *u32)
func fdPwrite(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.need(a[0], rightFdWrite)
	if errno != 0 {
		return errno
	}
	res, bufs, errno := p.transfer(m, a[1], a[2], a[4])
	if errno != 0 {
		return errno
	}
	if a[3] > math.MaxInt64 {
		return ErrnoINVAL
	}
	n, errno := d.file.pwrite(ctx, bufs, int64(a[3]))
	p.work(ctx, n)
	return putCount(res, n, errno)
}

// transfer decodes the buffers and checks the result pointer before anything
// is moved.
func (p *Process) transfer(m memory, iovs, count, result uint64) (res []byte, bufs [][]byte, errno Errno) {
	if res, errno = m.bytes(uint32(result), 4); errno != 0 {
		return nil, nil, errno
	}
	bufs, errno = p.iovecsOf(m, uint32(iovs), uint32(count))
	return res, bufs, errno
}

// putCount reports what was moved; an error after a part of it waits for the
// next call.
func putCount(res []byte, n int, errno Errno) Errno {
	if errno != 0 && n == 0 {
		return errno
	}
	put32(res, uint32(n))
	return 0
}

// fd_close(fd)
func fdClose(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	return p.fds.close(uint32(a[0]))
}

// fd_renumber(fd, to)
func fdRenumber(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	return p.fds.renumber(uint32(a[0]), uint32(a[1]))
}

// fd_sync(fd) and fd_datasync(fd)
func fdSync(ctx context.Context, p *Process, _ memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	leave(ctx) // a disk may take long
	defer enter(ctx)
	return d.file.sync()
}

// fd_seek(fd, offset, whence, newoffset *u64)
func fdSeek(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return p.seek(m, a[0], int64(a[1]), uint32(a[2]), a[3])
}

// fd_tell(fd, offset *u64)
func fdTell(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return p.seek(m, a[0], 0, 1, a[1])
}

func (p *Process) seek(m memory, fd uint64, offset int64, whence uint32, result uint64) Errno {
	d, errno := p.fds.get(uint32(fd))
	if errno != 0 {
		return errno
	}
	res, errno := m.bytes(uint32(result), 8)
	if errno != 0 {
		return errno
	}
	if whence > 2 {
		return ErrnoINVAL
	}
	pos, errno := d.file.seek(offset, uint8(whence))
	if errno == 0 {
		put64(res, uint64(pos))
	}
	return errno
}

// fd_advise(fd, offset, len, advice) checks its arguments; the host's page
// cache needs no advice from guests.
func fdAdvise(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	const lastAdvice = 5 // noreuse
	if uint32(a[3]) > lastAdvice || a[1] > math.MaxInt64 || a[2] > math.MaxInt64-a[1] {
		return ErrnoINVAL
	}
	if d.file.filetype() == filetypeDirectory {
		return ErrnoBADF
	}
	_, errno = d.file.seek(0, 1) // ESPIPE for streams
	return errno
}

// fd_allocate(fd, offset, len)
func fdAllocate(ctx context.Context, p *Process, _ memory, a []uint64) Errno {
	d, errno := p.need(a[0], rightFdWrite)
	switch {
	case errno != 0:
		return errno
	case a[2] == 0 || a[1] > math.MaxInt64 || a[2] > math.MaxInt64:
		return ErrnoINVAL
	case a[2] > math.MaxInt64-a[1]:
		return ErrnoFBIG
	}
	return d.file.allocate(ctx, int64(a[1]), int64(a[2]))
}

// fd_fdstat_get(fd, stat):
//
//	| filetype u8 | 0 | flags u16 | 0 u32 | rights_base u64 | rights_inheriting u64 |
func fdFdstatGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	b, errno := m.bytes(uint32(a[1]), 24)
	if errno != 0 {
		return errno
	}
	clear(b)
	b[0] = d.file.filetype()
	put16(b[2:], d.flags)
	put64(b[8:], d.rights)
	put64(b[16:], d.inheriting)
	return 0
}

// fd_fdstat_set_flags(fd, flags) changes APPEND and NONBLOCK.
func fdFdstatSetFlags(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	const all = fdflagAppend | fdflagDsync | fdflagNonblock | fdflagRsync | fdflagSync
	const fixed = fdflagDsync | fdflagRsync | fdflagSync
	flags := uint16(a[1])
	switch {
	case uint32(a[1])&^uint32(all) != 0:
		return ErrnoINVAL
	case flags&fixed&^d.flags != 0: // fcntl(2) ignores them; say so instead
		return ErrnoNOTSUP
	}
	flags |= d.flags & fixed
	if errno := d.file.setFlags(flags); errno != 0 {
		return errno
	}
	d.flags = flags
	return 0
}

// fd_fdstat_set_rights(fd, base, inheriting) can take rights away only.
func fdFdstatSetRights(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	if a[1]&^d.rights != 0 || a[2]&^d.inheriting != 0 {
		return ErrnoNOTCAPABLE
	}
	d.rights, d.inheriting = a[1], a[2]
	return 0
}

// fd_filestat_get(fd, filestat)
func fdFilestatGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	return p.fdFilestat(m, a, putFilestat)
}

func (p *Process) fdFilestat(m memory, a []uint64, put func(memory, uint64, filestat) Errno) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	st, errno := d.file.stat()
	if errno != 0 {
		return errno
	}
	return put(m, a[1], st)
}

// putFilestat writes a filestat of preview 1:
//
//	| dev u64 | ino u64 | filetype u8 +7 | nlink u64 | size u64 | atim u64 | mtim u64 | ctim u64 |
func putFilestat(m memory, ptr uint64, st filestat) Errno {
	b, errno := m.bytes(uint32(ptr), 64)
	if errno != 0 {
		return errno
	}
	put64(b, st.dev)
	put64(b[8:], st.ino)
	put64(b[16:], uint64(st.filetype))
	put64(b[24:], st.nlink)
	put64(b[32:], st.size)
	put64(b[40:], uint64(st.atim))
	put64(b[48:], uint64(st.mtim))
	put64(b[56:], uint64(st.ctime))
	return 0
}

// fd_filestat_set_size(fd, size)
func fdFilestatSetSize(ctx context.Context, p *Process, _ memory, a []uint64) Errno {
	d, errno := p.need(a[0], rightFdWrite)
	switch {
	case errno != 0:
		return errno
	case a[1] > math.MaxInt64:
		return ErrnoFBIG
	}
	return d.file.setSize(ctx, int64(a[1]))
}

// fd_filestat_set_times(fd, atim, mtim, fst_flags)
func fdFilestatSetTimes(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	t, errno := timesOf(a[1], a[2], a[3])
	if errno != 0 {
		return errno
	}
	return d.file.setTimes(t)
}

// timesOf decodes times with their flags; "now" is the guest's clock.
func timesOf(atim, mtim, flags uint64) (t timesUpdate, errno Errno) {
	const (
		setAtim, setAtimNow, setMtim, setMtimNow = 1, 2, 4, 8
		atimBoth, mtimBoth                       = setAtim | setAtimNow, setMtim | setMtimNow
	)
	f := uint32(flags)
	if f > atimBoth|mtimBoth || f&atimBoth == atimBoth || f&mtimBoth == mtimBoth ||
		f&setAtim != 0 && atim > math.MaxInt64 || f&setMtim != 0 && mtim > math.MaxInt64 {
		return t, ErrnoINVAL
	}
	now := time.Now().UnixNano()
	switch {
	case f&setAtim != 0:
		at := int64(atim)
		t.atim = &at
	case f&setAtimNow != 0:
		t.atim = &now
	}
	switch {
	case f&setMtim != 0:
		mt := int64(mtim)
		t.mtim = &mt
	case f&setMtimNow != 0:
		t.mtim = &now
	}
	return t, 0
}

// fd_prestat_get(fd, prestat): | tag u8 = directory | 0 | name_len u32 |
func fdPrestatGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	tag := uint32(0)
	switch {
	case d.preopen != "":
	case uint32(a[0]) >= p.listeners.from && uint32(a[0]) < p.listeners.to:
		// Not EBADF, which ends the guest's search for preopens.
		tag = 1
	default:
		return ErrnoBADF
	}
	b, errno := m.bytes(uint32(a[1]), 8)
	if errno != 0 {
		return errno
	}
	put32(b, tag)
	put32(b[4:], uint32(len(d.preopen)))
	return 0
}

// fd_prestat_dir_name(fd, path, path_len): without a NUL
func fdPrestatDirName(_ context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	if d.preopen == "" {
		return ErrnoBADF
	}
	if uint32(a[2]) < uint32(len(d.preopen)) {
		return ErrnoNAMETOOLONG
	}
	b, errno := m.bytes(uint32(a[1]), uint32(len(d.preopen)))
	if errno == 0 {
		copy(b, d.preopen)
	}
	return errno
}

// fd_readdir(fd, buf, buf_len, cookie, bufused *u32) fills buf with entries, of
// which the last may be cut off. Less than a full buffer is the end:
//
//	| d_next u64 | d_ino u64 | d_namlen u32 | d_type u8 +3 | name |
func fdReaddir(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	const header = 24
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	buf, errno := m.bytes(uint32(a[1]), uint32(a[2]))
	if errno != 0 {
		return errno
	}
	used, errno := m.bytes(uint32(a[4]), 4)
	if errno != 0 {
		return errno
	}
	dir, ok := d.file.(*openDir)
	if !ok {
		return ErrnoNOTDIR
	}
	if d.rights&rightFdReaddir == 0 {
		return ErrnoNOTCAPABLE
	}
	p.listed(dir)
	n := 0
	if a[3] == 0 {
		if errno := dir.rewind(); errno != 0 {
			return errno
		}
	}
	for cookie := a[3]; n < len(buf); cookie++ {
		e, ok, errno := dir.entry(ctx, cookie)
		if errno != 0 {
			return errno
		}
		if !ok {
			break
		}
		var h [header]byte
		put64(h[:], cookie+1)
		put64(h[8:], e.ino)
		put32(h[16:], uint32(len(e.name)))
		h[20] = e.filetype
		n += copy(buf[n:], h[:])
		n += copy(buf[n:], e.name)
	}
	p.work(ctx, pathBytesWorth+4*n)
	if errno := p.chargeListings(); errno != 0 {
		return errno
	}
	put32(used, uint32(n))
	return 0
}
