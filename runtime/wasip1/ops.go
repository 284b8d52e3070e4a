package wasip1

import "context"

// This file has the operations on paths. Each resolves its paths, settles what
// the mount table decides (read-only, mount points, virtual directories), and
// leaves the rest to one host call.

// Open flags of path_open.
const (
	oflagCreat uint16 = 1 << iota
	oflagDirectory
	oflagExcl
	oflagTrunc
)

// stat describes a place that exists.
func (ns *namespace) stat(p *place) (filestat, Errno) {
	switch {
	case p.isDevice():
		t := ns.created.UnixNano()
		st := filestat{dev: p.mnt.dev, ino: p.node.ino, filetype: filetypeCharacterDevice, nlink: 1, atim: t, mtim: t, ctime: t}
		return st, p.notDir()
	case p.virtual() && p.node != nil:
		return ns.statVirtual(p.node), 0
	case p.virtual():
		return filestat{}, ErrnoNOENT
	}
	st, errno := p.statAt(p.component())
	if errno != 0 {
		return filestat{}, errno
	}
	st.dev = p.mnt.guestDev(st.dev)
	if st.filetype != filetypeDirectory {
		return st, p.notDir()
	}
	return st, 0
}

// notDir is the answer if the path of something that is no directory ended in
// a slash.
func (p *place) notDir() Errno {
	if p.slash {
		return ErrnoNOTDIR
	}
	return 0
}

// create checks a place in which something is to be made: it must not exist
// and be writable. Existence is looked at first, as Linux does.
func (ns *namespace) create(p *place) Errno {
	switch {
	case p.node != nil || p.name == "":
		return ErrnoEXIST
	case p.virtual():
		return ErrnoROFS
	case p.readOnly():
		if _, errno := p.statAt(p.name); errno != ErrnoNOENT {
			return orElse(errno, ErrnoEXIST)
		}
		return ErrnoROFS
	}
	return 0
}

// change checks a place whose directory entry is to be removed or moved.
func (ns *namespace) change(p *place) Errno {
	switch {
	case p.node != nil:
		return ErrnoBUSY
	case p.virtual():
		return ErrnoNOENT
	case p.readOnly():
		_, errno := p.statAt(p.component())
		return orElse(errno, ErrnoROFS)
	}
	return 0
}

// orElse is first, or second if first is success.
func orElse(first, second Errno) Errno {
	if first != 0 {
		return first
	}
	return second
}

// openArgs are the arguments of path_open but for the path.
type openArgs struct {
	follow      bool
	oflags      uint16
	fdflags     uint16
	read, write bool
}

func (p *Process) openPath(ctx context.Context, b base, path string, a openArgs) (file, Errno) {
	if a.oflags&(oflagCreat|oflagDirectory) == oflagCreat|oflagDirectory {
		return nil, ErrnoINVAL
	}
	f := followSlash
	if a.follow && a.oflags&(oflagCreat|oflagExcl) != oflagCreat|oflagExcl {
		f = followAlways // O_CREAT|O_EXCL never follows
	}
	creat := a.oflags&oflagCreat != 0
	if creat {
		f |= toCreate
	}
	w := p.walker(ctx)
	at, errno := w.resolve(b, path, f)
	if errno != 0 {
		return nil, errno
	}
	defer at.release()
	wantDir := a.oflags&oflagDirectory != 0 || at.slash
	switch {
	case creat && a.oflags&oflagExcl != 0 && (at.node != nil || at.name == ""):
		return nil, ErrnoEXIST
	case creat && at.name == "" && !at.isDevice():
		return nil, ErrnoISDIR
	case at.isDevice():
		if wantDir {
			return nil, ErrnoNOTDIR
		}
		return p.openDevice(at.mnt, at.node), 0
	case at.virtual():
		switch {
		case at.node == nil && creat:
			return nil, ErrnoROFS
		case at.node == nil:
			return nil, ErrnoNOENT
		case a.write || creat || a.oflags&oflagTrunc != 0:
			return nil, ErrnoISDIR
		}
		return p.newOpenDir(base{dirRef: virtualDir, node: at.node, path: w.guestPath()})
	}
	opened, dir, errno := openAt(ctx, &at, a, wantDir, p.owner)
	if errno == 0 && opened == nil {
		return p.newOpenDir(base{dirRef: dir, node: at.node, mnt: at.mnt, path: w.guestPath()})
	}
	return opened, errno
}

// openAt opens a place of a mount: a file, or else a directory.
func openAt(ctx context.Context, at *place, a openArgs, wantDir bool, who owner) (file, dirRef, Errno) {
	flags := openFlags{
		read:      a.read,
		write:     a.write,
		create:    a.oflags&oflagCreat != 0,
		excl:      a.oflags&oflagExcl != 0,
		trunc:     a.oflags&oflagTrunc != 0,
		append:    a.fdflags&fdflagAppend != 0,
		directory: wantDir,
		sync:      a.fdflags&(fdflagSync|fdflagRsync) != 0,
		dsync:     a.fdflags&fdflagDsync != 0,
	}
	if !at.readOnly() || !flags.write && !flags.create && !flags.trunc {
		return at.open(ctx, at.component(), flags, who, at.mnt)
	}
	st, errno := at.statAt(at.component())
	switch {
	case errno != 0:
	case flags.create && flags.excl:
		errno = ErrnoEXIST
	case st.filetype == filetypeDirectory:
		errno = ErrnoISDIR
	case flags.write || flags.trunc:
		errno = ErrnoROFS
	}
	if errno == ErrnoNOENT && flags.create {
		errno = ErrnoROFS
	}
	if errno != 0 {
		return nil, virtualDir, errno
	}
	flags.create = false
	return at.open(ctx, at.component(), flags, who, at.mnt)
}

func (p *Process) makeDirectory(ctx context.Context, b base, path string) Errno {
	at, errno := p.walker(ctx).resolve(b, path, followNever)
	if errno != 0 {
		return errno
	}
	defer at.release()
	if errno := p.ns.create(&at); errno != 0 {
		return errno
	}
	return at.mkdir(at.name, p.owner)
}

func (p *Process) removeDirectory(ctx context.Context, b base, path string) Errno {
	at, errno := p.walker(ctx).resolve(b, path, followNever)
	if errno != 0 {
		return errno
	}
	defer at.release()
	if at.name == "" && at.node == nil {
		return ErrnoINVAL
	}
	if errno := p.ns.change(&at); errno != 0 {
		return errno
	}
	return at.rmdir(at.name)
}

func (p *Process) unlinkFile(ctx context.Context, b base, path string) Errno {
	at, errno := p.walker(ctx).resolve(b, path, followNever)
	if errno != 0 {
		return errno
	}
	defer at.release()
	if at.name == "" && at.node == nil {
		return ErrnoISDIR
	}
	if at.slash && at.node == nil {
		st, errno := p.ns.stat(&at)
		if errno == 0 && st.filetype == filetypeDirectory {
			errno = ErrnoISDIR
		}
		return errno
	}
	if errno := p.ns.change(&at); errno != 0 {
		return errno
	}
	errno = at.unlink(at.name)
	if errno == ErrnoPERM { // POSIX lets hosts say so for a directory
		if st, e := at.statAt(at.name); e == 0 && st.filetype == filetypeDirectory {
			return ErrnoISDIR
		}
	}
	return errno
}

func (p *Process) rename(ctx context.Context, from base, fromPath string, to base, toPath string) Errno {
	w := p.walker(ctx)
	old, errno := w.resolve(from, fromPath, followNever)
	if errno != 0 {
		return errno
	}
	defer old.release()
	dst, errno := w.resolve(to, toPath, followNever)
	if errno != 0 {
		return errno
	}
	defer dst.release()
	if old.name == "" || dst.name == "" {
		return ErrnoBUSY
	}
	if errno := p.ns.change(&old); errno != 0 {
		return errno
	}
	switch {
	case dst.node != nil:
		return ErrnoBUSY
	case old.mnt != dst.mnt && dst.mnt != nil:
		return ErrnoXDEV
	case dst.readOnly():
		return ErrnoROFS
	}
	if old.slash || dst.slash {
		if st, errno := old.statAt(old.name); errno != 0 {
			return errno
		} else if st.filetype != filetypeDirectory {
			return ErrnoNOTDIR
		}
	}
	return old.rename(old.name, dst.dirRef, dst.name)
}

func (p *Process) link(ctx context.Context, from base, fromPath string, f follow, to base, toPath string) Errno {
	w := p.walker(ctx)
	old, errno := w.resolve(from, fromPath, f)
	if errno != 0 {
		return errno
	}
	defer old.release()
	st, errno := p.ns.stat(&old)
	if errno != 0 {
		return errno
	}
	dst, errno := w.resolve(to, toPath, followNever)
	if errno != 0 {
		return errno
	}
	defer dst.release()
	if errno := p.ns.create(&dst); errno != 0 {
		return errno
	}
	if _, errno := dst.statAt(dst.name); errno != ErrnoNOENT {
		return orElse(errno, ErrnoEXIST)
	}
	switch {
	case dst.slash:
		return ErrnoNOENT
	case old.mnt != dst.mnt:
		return ErrnoXDEV
	case st.filetype == filetypeDirectory:
		return ErrnoPERM
	}
	return old.link(old.name, dst.dirRef, dst.name)
}

func (p *Process) symlink(ctx context.Context, target string, b base, path string) Errno {
	if errno := checkPath(target); errno != 0 {
		return errno
	}
	at, errno := p.walker(ctx).resolve(b, path, followNever)
	if errno != 0 {
		return errno
	}
	defer at.release()
	if errno := p.ns.create(&at); errno != 0 {
		return errno
	}
	if at.slash {
		return noEntryWithSlash(&at)
	}
	return at.symlink(target, at.name, p.owner)
}

// noEntryWithSlash refuses to make something that is no directory at "name/".
func noEntryWithSlash(at *place) Errno {
	if _, errno := at.statAt(at.name); errno != 0 {
		return errno
	}
	return ErrnoEXIST
}

func (p *Process) readlink(ctx context.Context, b base, path string) (string, Errno) {
	at, errno := p.walker(ctx).resolve(b, path, followSlash)
	if errno != 0 {
		return "", errno
	}
	defer at.release()
	switch {
	case at.virtual() && at.node == nil:
		return "", ErrnoNOENT
	case at.node != nil || at.name == "":
		return "", ErrnoINVAL
	case at.slash:
		_, errno := p.ns.stat(&at)
		return "", orElse(errno, ErrnoINVAL)
	}
	return at.readlink(at.name)
}

func (p *Process) statPath(ctx context.Context, b base, path string, f follow) (filestat, Errno) {
	at, errno := p.walker(ctx).resolve(b, path, f)
	if errno != 0 {
		return filestat{}, errno
	}
	defer at.release()
	return p.ns.stat(&at)
}

func (p *Process) setTimesPath(ctx context.Context, b base, path string, f follow, t timesUpdate) Errno {
	at, errno := p.walker(ctx).resolve(b, path, f)
	if errno != 0 {
		return errno
	}
	defer at.release()
	if _, errno := p.ns.stat(&at); errno != 0 {
		return errno
	}
	switch {
	case at.isDevice():
		return 0
	case at.readOnly():
		return ErrnoROFS
	}
	return at.setTimesAt(at.component(), t)
}
