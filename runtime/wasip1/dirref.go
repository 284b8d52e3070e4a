package wasip1

import "context"

// fdOverlay is the descriptor of a directory that is an overlay's.
const fdOverlay = -3

// dirRef is a directory from which a walk can go on: one of the host, one of an
// overlay, or one that only the mount table makes.
type dirRef struct {
	fd  int      // of the host; fdVirtual, fdEvicted or fdOverlay
	ov  *Overlay // for fdOverlay
	dir *inode   // of ov
}

func hostDir(fd int) dirRef { return dirRef{fd: fd} }

var virtualDir = dirRef{fd: fdVirtual}

func (d dirRef) statAt(name string) (filestat, Errno) {
	if d.ov != nil {
		return d.ov.statAt(d.dir, name)
	}
	return hostStatAt(d.fd, name)
}

func (d dirRef) openDir(name string) (dirRef, Errno) {
	if d.ov != nil {
		n, errno := d.ov.openDir(d.dir, name)
		return dirRef{fdOverlay, d.ov, n}, errno
	}
	fd, errno := hostOpenDir(d.fd, name)
	return hostDir(fd), errno
}

func (d dirRef) readlink(name string) (string, Errno) {
	if d.ov != nil {
		return d.ov.readlink(d.dir, name)
	}
	return hostReadlink(d.fd, name)
}

func (d dirRef) mkdir(name string, who owner) Errno {
	if d.ov != nil {
		return d.ov.mkdir(d.dir, name, who)
	}
	errno := hostMkdir(d.fd, name)
	if errno == 0 && who != (owner{}) {
		if fd, errno := hostPin(d.fd, name); errno == 0 {
			hostSetOwner(fd, d.heir(who))
			hostClose(fd)
		}
	}
	return errno
}

// heir is who owns what is made in a directory of the host: with the setgid bit, as
// fsGroup sets it (SEC-05), the group is the directory's.
func (d dirRef) heir(who owner) owner {
	if st, errno := hostStat(d.fd); errno == 0 && st.mode&setGroupID != 0 {
		who.gid = ownerOf(d.fd, &st).gid
	}
	return who
}

func (d dirRef) unlink(name string) Errno {
	if d.ov != nil {
		return d.ov.unlink(d.dir, name)
	}
	return hostUnlink(d.fd, name)
}

func (d dirRef) rmdir(name string) Errno {
	if d.ov != nil {
		return d.ov.rmdir(d.dir, name)
	}
	return hostRmdir(d.fd, name)
}

func (d dirRef) symlink(target, name string, who owner) Errno {
	if d.ov != nil {
		return d.ov.symlink(target, d.dir, name, who)
	}
	return hostSymlink(target, d.fd, name)
}

// rename and link are between directories of one mount.
func (d dirRef) rename(name string, to dirRef, newName string) Errno {
	if d.ov != nil {
		return d.ov.rename(d.dir, name, to.dir, newName)
	}
	return hostRename(d.fd, name, to.fd, newName)
}

func (d dirRef) link(name string, to dirRef, newName string) Errno {
	if d.ov != nil {
		return d.ov.link(d.dir, name, to.dir, newName)
	}
	return hostLink(d.fd, name, to.fd, newName)
}

func (d dirRef) setTimesAt(name string, t timesUpdate) Errno {
	if d.ov == nil {
		return hostSetTimesAt(d.fd, name, t)
	}
	n, errno := d.ov.find(d.dir, name)
	if errno != 0 {
		return errno
	}
	return d.ov.setTimes(n, t)
}

// open opens a file, which is then new if made, or a directory, which is then in
// the place of the file.
func (d dirRef) open(ctx context.Context, name string, f openFlags, who owner, m *mount) (file, dirRef, Errno) {
	if d.ov != nil {
		n, errno := d.ov.open(ctx, d.dir, name, f, who)
		switch {
		case errno != 0:
			return nil, virtualDir, errno
		case n.dir != nil:
			return nil, dirRef{fdOverlay, d.ov, n}, 0
		}
		return &overlayFile{o: d.ov, n: n, mnt: m, end: f.append}, virtualDir, 0
	}
	// Whether a file is new matters only where its owner has to be noted.
	made := f.create && who != (owner{})
	if made {
		_, missing := hostStatAt(d.fd, name)
		made = missing == ErrnoNOENT
	}
	fd, errno := hostOpen(d.fd, name, f)
	if errno != 0 {
		return nil, virtualDir, errno
	}
	if made {
		hostSetOwner(fd, d.heir(who))
	}
	st, errno := hostStat(fd)
	if errno != 0 {
		hostClose(fd)
		return nil, virtualDir, errno
	}
	if st.filetype == filetypeDirectory {
		return nil, hostDir(fd), 0
	}
	return newHostFile(fd, st.filetype, m), virtualDir, 0
}

// pin holds a file, a link too, to ask about it or to change its attributes. The
// caller closes it.
func (d dirRef) pin(name string) (pinned, Errno) {
	if d.ov != nil {
		n, errno := d.ov.find(d.dir, name)
		return pinned{fd: fdOverlay, ov: d.ov, n: n}, errno
	}
	fd, errno := hostPin(d.fd, name)
	return pinned{fd: fd}, errno
}

// pinned is a file whose attributes can be asked for and changed.
type pinned struct {
	fd int
	ov *Overlay
	n  *inode
}

func (p pinned) close() {
	if p.ov == nil {
		hostClose(p.fd)
	}
}

// stat has the number of the host's file system as device, or 0.
func (p pinned) stat() (filestat, owner, Errno) {
	if p.ov != nil {
		st := p.ov.stat(p.n)
		return st, owner{st.uid, st.gid}, 0
	}
	st, errno := hostStat(p.fd)
	if errno != 0 {
		return st, owner{}, errno
	}
	return st, ownerOf(p.fd, &st), 0
}

func (p pinned) setOwner(o owner) Errno {
	if p.ov != nil {
		return p.ov.change(p.n, func(n *inode) Errno {
			n.owner = o
			return 0
		})
	}
	return hostSetOwner(p.fd, o)
}

func (p pinned) chmod(mode uint32) Errno {
	if p.ov != nil {
		return p.ov.change(p.n, func(n *inode) Errno {
			n.mode = mode
			return 0
		})
	}
	return hostChmod(p.fd, mode)
}

func (p pinned) statfs() (statfs, Errno) {
	if p.ov != nil {
		return p.ov.statfs()
	}
	return hostStatfs(p.fd)
}

// statfs is that of the disk, or what there is of memory.
func (o *Overlay) statfs() (statfs, Errno) {
	st := noStatfs()
	st.readOnly = false
	if o.config.Dir != "" {
		d, errno := hostOpenPath(o.config.Dir)
		if errno != 0 {
			return st, errno
		}
		defer hostClose(d)
		return hostStatfs(d)
	}
	if limit := o.config.MemoryBytes; limit > 0 {
		free := max(0, limit-o.inMemory.Load())
		st.blocks, st.bfree = uint64(limit)/st.bsize, uint64(free)/st.bsize
		st.bavail = st.bfree
	}
	o.mu.RLock()
	st.files, st.ffree = maxInodes, uint64(max(0, maxInodes-o.inodes))
	o.mu.RUnlock()
	return st, 0
}

func hostOpenPath(dir string) (int, Errno) {
	fd, err := openHostDir(dir)
	return fd, toErrno(err)
}
