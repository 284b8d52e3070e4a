package wasip1

import "context"

// This file has the module "wasmpod": see docs/abi.md.

var extensions = []function{
	{"hostname_get", "iii", hostnameGet},
	{"ids_get", "i", idsGet},
	{"groups_get", "iii", groupsGet},
	{"fd_stat_get", "ii", fdStatGet},
	{"path_stat_get", "iiiii", pathStatGet},
	{"fd_chmod", "ii", fdChmod},
	{"path_chmod", "iiiii", pathChmod},
	{"fd_chown", "iii", fdChown},
	{"path_chown", "iiiiii", pathChown},
	{"fd_statfs_get", "ii", fdStatfsGet},
	{"path_statfs_get", "iiiii", pathStatfsGet},
	{"fd_dup", "ii", fdDup},
	{"signal_open", "Ii", signalOpen},
	{"signal_mask", "iI", signalMask},
	{"poll_open", "i", pollOpen},
	{"poll_control", "iiiI", pollControl},
	{"poll_wait", "iiiIi", pollWait},
}

// hostname_get(buf, buf_len, size *u32)
func hostnameGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	buf, errno := m.bytes(uint32(a[0]), uint32(a[1]))
	if errno != 0 {
		return errno
	}
	size, errno := m.bytes(uint32(a[2]), 4)
	if errno != 0 {
		return errno
	}
	put32(size, uint32(len(p.hostname)))
	if len(buf) < len(p.hostname) {
		return ErrnoNAMETOOLONG
	}
	copy(buf, p.hostname)
	return 0
}

// ids_get(ids): | uid u32 | gid u32 | euid u32 | egid u32 |
func idsGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	b, errno := m.bytes(uint32(a[0]), 16)
	if errno != 0 {
		return errno
	}
	put32(b, p.owner.uid)
	put32(b[4:], p.owner.gid)
	put32(b[8:], p.owner.uid)
	put32(b[12:], p.owner.gid)
	return 0
}

// groups_get(groups *u32, room, n *u32)
func groupsGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	list, errno := m.array(uint32(a[0]), uint32(a[1]), 4)
	if errno != 0 {
		return errno
	}
	n, errno := m.bytes(uint32(a[2]), 4)
	if errno != 0 {
		return errno
	}
	put32(n, uint32(len(p.groups)))
	switch {
	case len(list) == 0:
		return 0
	case len(list) < 4*len(p.groups):
		return ErrnoINVAL
	}
	for i, g := range p.groups {
		put32(list[4*i:], g)
	}
	return 0
}

// modeOf is the mode of what the host does not have.
func modeOf(filetype uint8) uint32 {
	switch filetype {
	case filetypeCharacterDevice:
		return 0o020666
	case filetypeDirectory:
		return 0o040555
	case filetypeSocketDgram, filetypeSocketStream:
		return 0o140777
	}
	return 0o010600 // a pipe
}

// putStat writes a stat:
//
//	| dev u64 | ino u64 | mode u32 | uid u32 | gid u32 | blksize u32 | nlink u64 |
//	| rdev u64 | size u64 | blocks u64 | atim u64 | mtim u64 | ctim u64 |
func putStat(b []byte, st *filestat, o owner) {
	put64(b, st.dev)
	put64(b[8:], st.ino)
	put32(b[16:], st.mode)
	if st.mode == 0 {
		put32(b[16:], modeOf(st.filetype))
	}
	put32(b[20:], o.uid)
	put32(b[24:], o.gid)
	put32(b[28:], max(st.blksize, 512))
	put64(b[32:], st.nlink)
	put64(b[40:], st.rdev)
	put64(b[48:], st.size)
	put64(b[56:], st.blocks)
	put64(b[64:], uint64(st.atim))
	put64(b[72:], uint64(st.mtim))
	put64(b[80:], uint64(st.ctime))
}

const statSize = 88

// fd_stat_get(fd, stat)
func fdStatGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	b, errno := m.bytes(uint32(a[1]), statSize)
	if errno != 0 {
		return errno
	}
	st, errno := d.file.stat()
	if errno != 0 {
		return errno
	}
	o := p.owner
	if f, _, ok := pin(d.file); ok {
		_, o, _ = f.stat()
	}
	putStat(b, &st, o)
	return 0
}

// path_stat_get(fd, flags, path, path_len, stat)
func pathStatGet(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, f, errno := p.pathArguments(m, a, rightPathFilestatGet)
	if errno != 0 {
		return errno
	}
	b, errno := m.bytes(uint32(a[4]), statSize)
	if errno != 0 {
		return errno
	}
	ok, errno := p.pinned(ctx, dir, path, f, func(f pinned, at *place) Errno {
		st, o, errno := f.stat()
		if errno == 0 {
			st.dev = at.mnt.guestDev(st.dev)
			putStat(b, &st, o)
		}
		return errno
	})
	if !ok {
		var st filestat
		if st, errno = p.statPath(ctx, dir, path, f); errno == 0 {
			putStat(b, &st, owner{})
		}
	}
	return errno
}

// pathArguments decodes (fd, flags, path, path_len, …).
func (p *Process) pathArguments(m memory, a []uint64, right uint64) (base, string, follow, Errno) {
	dir, path, errno := p.dirAndPath(m, a[0], a[2], a[3], right)
	if errno != 0 {
		return base{}, "", 0, errno
	}
	f, errno := lookup(a[1])
	return dir, path, f, errno
}

// fd_chmod(fd, mode)
func fdChmod(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	return p.changeFD(a[0], func(f pinned) Errno { return p.changeMode(f, uint32(a[1])) })
}

// path_chmod(fd, flags, path, path_len, mode)
func pathChmod(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.changePath(ctx, m, a, func(f pinned) Errno {
		if st, _, errno := f.stat(); errno != 0 || st.filetype == filetypeSymlink {
			return orElse(errno, ErrnoNOTSUP)
		}
		return p.changeMode(f, uint32(a[4]))
	})
}

// fd_chown(fd, uid, gid)
func fdChown(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	return p.changeFD(a[0], func(f pinned) Errno { return p.changeOwner(f, uint32(a[1]), uint32(a[2])) })
}

// path_chown(fd, flags, path, path_len, uid, gid)
func pathChown(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.changePath(ctx, m, a, func(f pinned) Errno { return p.changeOwner(f, uint32(a[4]), uint32(a[5])) })
}

func (p *Process) changeFD(fd uint64, change func(f pinned) Errno) Errno {
	d, errno := p.fds.get(uint32(fd))
	if errno != 0 {
		return errno
	}
	f, readOnly, ok := pin(d.file)
	switch {
	case !ok && d.file.filetype() == filetypeDirectory, ok && readOnly:
		return ErrnoROFS
	case !ok:
		return ErrnoPERM
	}
	return change(f)
}

func (p *Process) changePath(ctx context.Context, m memory, a []uint64, change func(f pinned) Errno) Errno {
	dir, path, f, errno := p.pathArguments(m, a, rightPathFilestatSetTimes)
	if errno != 0 {
		return errno
	}
	ok, errno := p.pinned(ctx, dir, path, f, func(f pinned, at *place) Errno {
		if at.readOnly() {
			return ErrnoROFS
		}
		return change(f)
	})
	if !ok {
		return ErrnoPERM // a device, or a directory of the mount table
	}
	return errno
}

const statfsSize = 72

// putStatfs writes a statfs:
//
//	| type u64 | bsize u64 | blocks u64 | bfree u64 | bavail u64 | files u64 | ffree u64 | namelen u64 | flags u64 |
func putStatfs(b []byte, st *statfs) {
	for i, v := range [...]uint64{st.kind, st.bsize, st.blocks, st.bfree, st.bavail, st.files, st.ffree, st.namelen, 0} {
		put64(b[8*i:], v)
	}
	if st.readOnly {
		put64(b[64:], 1)
	}
}

// noStatfs is what files that are not the host's lie in.
func noStatfs() statfs {
	const tmpfs, page, longest = 0x01021994, 4096, 255
	return statfs{kind: tmpfs, bsize: page, namelen: longest, readOnly: true}
}

// fd_statfs_get(fd, statfs)
func fdStatfsGet(_ context.Context, p *Process, m memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	b, errno := m.bytes(uint32(a[1]), statfsSize)
	if errno != 0 {
		return errno
	}
	st := noStatfs()
	if f, readOnly, ok := pin(d.file); ok {
		if st, errno = f.statfs(); errno != 0 {
			return errno
		}
		st.readOnly = st.readOnly || readOnly
	}
	putStatfs(b, &st)
	return 0
}

// path_statfs_get(fd, flags, path, path_len, statfs)
func pathStatfsGet(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, f, errno := p.pathArguments(m, a, rightPathFilestatGet)
	if errno != 0 {
		return errno
	}
	b, errno := m.bytes(uint32(a[4]), statfsSize)
	if errno != 0 {
		return errno
	}
	st := noStatfs()
	_, errno = p.pinned(ctx, dir, path, f, func(f pinned, at *place) (errno Errno) {
		st, errno = f.statfs()
		st.readOnly = st.readOnly || at.readOnly()
		return errno
	})
	if errno == 0 {
		putStatfs(b, &st)
	}
	return errno
}

// fd_dup(fd, new *u32)
func fdDup(_ context.Context, p *Process, m memory, a []uint64) Errno {
	res, errno := m.bytes(uint32(a[1]), 4)
	if errno != 0 {
		return errno
	}
	fd, errno := p.fds.dup(uint32(a[0]))
	if errno == 0 {
		put32(res, fd)
	}
	return errno
}

// maxSignalFiles bounds what a signal has to look through.
const maxSignalFiles = 64

// signal_open(mask, new *u32)
func signalOpen(_ context.Context, p *Process, m memory, a []uint64) Errno {
	res, errno := m.bytes(uint32(a[1]), 4)
	if errno != 0 {
		return errno
	}
	if errno := p.fds.room(false); errno != 0 {
		return errno
	}
	if len(p.signals.open) >= maxSignalFiles { // only this goroutine changes it
		return ErrnoMFILE
	}
	const reading = rightsStream &^ rightFdWrite
	fd, errno := p.fds.insert(descriptor{file: p.openSignals(a[0]), rights: reading})
	if errno == 0 {
		put32(res, fd)
	}
	return errno
}

// signal_mask(fd, mask)
func signalMask(_ context.Context, p *Process, _ memory, a []uint64) Errno {
	d, errno := p.fds.get(uint32(a[0]))
	if errno != 0 {
		return errno
	}
	f, ok := d.file.(*signalFile)
	if !ok {
		return ErrnoINVAL
	}
	f.setMask(a[1])
	return 0
}
