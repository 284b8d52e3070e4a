package wasip1

import "context"

// lookupFollow is lookupflags' only bit.
const lookupFollow = 1

func lookup(flags uint64) (follow, Errno) {
	switch uint32(flags) {
	case 0:
		return followSlash, 0
	case lookupFollow:
		return followAlways, 0
	}
	return 0, ErrnoINVAL
}

// dirAndPath decodes the two arguments that all path functions have.
func (p *Process) dirAndPath(m memory, fd, ptr, n uint64, right uint64) (base, string, Errno) {
	d, errno := p.fds.get(uint32(fd))
	if errno != 0 {
		return base{}, "", errno
	}
	dir, ok := d.file.(*openDir)
	if !ok {
		return base{}, "", ErrnoNOTDIR
	}
	if d.rights&right != right {
		return base{}, "", ErrnoNOTCAPABLE
	}
	path, errno := m.path(uint32(ptr), uint32(n))
	return dir.at, path, errno
}

// path_open(fd, dirflags, path, path_len, oflags, rights_base, rights_inheriting, fdflags, opened *u32)
func pathOpen(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, errno := p.dirAndPath(m, a[0], a[2], a[3], rightPathOpen)
	if errno != 0 {
		return errno
	}
	f, errno := lookup(a[1])
	if errno != 0 {
		return errno
	}
	const lastOflag, lastFdflag = oflagTrunc, fdflagSync
	if uint32(a[4]) >= uint32(lastOflag)<<1 || uint32(a[7]) >= uint32(lastFdflag)<<1 {
		return ErrnoINVAL
	}
	res, errno := m.bytes(uint32(a[8]), 4)
	if errno != 0 {
		return errno
	}
	if errno := p.fds.room(true); errno != 0 {
		return errno // before a file is created
	}
	parent, _ := p.fds.get(uint32(a[0]))
	inherit := parent.inheriting
	rights := a[5] & inherit
	args := openArgs{
		follow:  f == followAlways,
		oflags:  uint16(a[4]),
		fdflags: uint16(a[7]),
		read:    rights&(rightFdRead|rightFdReaddir) != 0,
		write:   rights&rightFdWrite != 0,
	}
	if a[5]&rightFdWrite != 0 && !args.write ||
		args.oflags&oflagCreat != 0 && parent.rights&rightPathCreateFile == 0 ||
		args.oflags&oflagTrunc != 0 && parent.rights&rightPathFilestatSetSize == 0 {
		return ErrnoNOTCAPABLE
	}
	file, errno := p.openPath(ctx, dir, path, args)
	if errno != 0 {
		return errno
	}
	d := descriptor{file: file, flags: args.fdflags, inheriting: a[6] & inherit}
	switch file.filetype() {
	case filetypeDirectory:
		// What guests ask for varies: many name only the rights of a file, before
		// they know what they open. A directory gets what its parent allows.
		d.rights, d.inheriting = rightsDir&inherit, inherit
	default:
		d.rights = rights & rightsFile
	}
	switch file.(type) {
	case *input, *output:
		// A character device without the right to seek is a terminal to wasi-libc,
		// and only these may be one.
		d.rights &= rightsStream
	}
	fd, errno := p.fds.insert(d)
	if errno != 0 {
		file.close()
		return errno
	}
	put32(res, fd)
	return 0
}

// path_create_directory(fd, path, path_len)
func pathCreateDirectory(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, errno := p.dirAndPath(m, a[0], a[1], a[2], rightPathCreateDirectory)
	if errno != 0 {
		return errno
	}
	return p.makeDirectory(ctx, dir, path)
}

// path_remove_directory(fd, path, path_len)
func pathRemoveDirectory(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, errno := p.dirAndPath(m, a[0], a[1], a[2], rightPathRemoveDirectory)
	if errno != 0 {
		return errno
	}
	return p.removeDirectory(ctx, dir, path)
}

// path_unlink_file(fd, path, path_len)
func pathUnlinkFile(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, errno := p.dirAndPath(m, a[0], a[1], a[2], rightPathUnlinkFile)
	if errno != 0 {
		return errno
	}
	return p.unlinkFile(ctx, dir, path)
}

// path_filestat_get(fd, flags, path, path_len, filestat)
func pathFilestatGet(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	return p.pathFilestat(ctx, m, a, putFilestat)
}

func (p *Process) pathFilestat(ctx context.Context, m memory, a []uint64, put func(memory, uint64, filestat) Errno) Errno {
	dir, path, errno := p.dirAndPath(m, a[0], a[2], a[3], rightPathFilestatGet)
	if errno != 0 {
		return errno
	}
	f, errno := lookup(a[1])
	if errno != 0 {
		return errno
	}
	st, errno := p.statPath(ctx, dir, path, f)
	if errno != 0 {
		return errno
	}
	return put(m, a[4], st)
}

// path_filestat_set_times(fd, flags, path, path_len, atim, mtim, fst_flags)
func pathFilestatSetTimes(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, errno := p.dirAndPath(m, a[0], a[2], a[3], rightPathFilestatSetTimes)
	if errno != 0 {
		return errno
	}
	f, errno := lookup(a[1])
	if errno != 0 {
		return errno
	}
	t, errno := timesOf(a[4], a[5], a[6])
	if errno != 0 {
		return errno
	}
	return p.setTimesPath(ctx, dir, path, f, t)
}

// path_link(old_fd, old_flags, old_path, old_path_len, new_fd, new_path, new_path_len)
func pathLink(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	from, old, errno := p.dirAndPath(m, a[0], a[2], a[3], rightPathLinkSource)
	if errno != 0 {
		return errno
	}
	to, path, errno := p.dirAndPath(m, a[4], a[5], a[6], rightPathLinkTarget)
	if errno != 0 {
		return errno
	}
	f, errno := lookup(a[1])
	if errno != 0 {
		return errno
	}
	return p.link(ctx, from, old, f, to, path)
}

// path_rename(fd, old_path, old_path_len, new_fd, new_path, new_path_len)
func pathRename(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	from, old, errno := p.dirAndPath(m, a[0], a[1], a[2], rightPathRenameSource)
	if errno != 0 {
		return errno
	}
	to, path, errno := p.dirAndPath(m, a[3], a[4], a[5], rightPathRenameTarget)
	if errno != 0 {
		return errno
	}
	return p.rename(ctx, from, old, to, path)
}

// path_symlink(old_path, old_path_len, fd, new_path, new_path_len)
func pathSymlink(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, errno := p.dirAndPath(m, a[2], a[3], a[4], rightPathSymlink)
	if errno != 0 {
		return errno
	}
	target, errno := m.path(uint32(a[0]), uint32(a[1]))
	if errno != 0 {
		return errno
	}
	return p.symlink(ctx, target, dir, path)
}

// path_readlink(fd, path, path_len, buf, buf_len, bufused *u32) cuts off what
// does not fit, as readlink(2) does.
func pathReadlink(ctx context.Context, p *Process, m memory, a []uint64) Errno {
	dir, path, errno := p.dirAndPath(m, a[0], a[1], a[2], rightPathReadlink)
	if errno != 0 {
		return errno
	}
	buf, errno := m.bytes(uint32(a[3]), uint32(a[4]))
	if errno != 0 {
		return errno
	}
	used, errno := m.bytes(uint32(a[5]), 4)
	if errno != 0 {
		return errno
	}
	target, errno := p.readlink(ctx, dir, path)
	if errno == 0 {
		put32(used, uint32(copy(buf, target)))
	}
	return errno
}
