package wasip1

import (
	"context"
	"time"
)

// The operations of an overlay are those of host_unix.go: each takes a directory
// and one component, does not follow a link in it, and answers as Linux does.

// newMode is what files and directories get, under the usual umask.
const (
	newFileMode = 0o644
	newDirMode  = 0o755
	setGroupID  = 0o2000
)

func (o *Overlay) statAt(d *inode, name string) (filestat, Errno) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	n, errno := o.lookUp(d, name)
	if errno != 0 {
		return filestat{}, errno
	}
	return n.filestat(), 0
}

// find returns the inode of a name; it is for use with the overlay only.
func (o *Overlay) find(d *inode, name string) (*inode, Errno) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.lookUp(d, name)
}

// openDir finds a directory. ENOTDIR may also be a link.
func (o *Overlay) openDir(d *inode, name string) (*inode, Errno) {
	n, errno := o.find(d, name)
	if errno == 0 && n.dir == nil {
		errno = ErrnoNOTDIR
	}
	return n, errno
}

func (o *Overlay) readlink(d *inode, name string) (string, Errno) {
	n, errno := o.find(d, name)
	if errno == 0 && n.filetype != filetypeSymlink {
		errno = ErrnoINVAL
	}
	if errno != 0 {
		return "", errno
	}
	return n.target, 0
}

// forNew checks that a name may be made in a directory, and returns the
// directory, ready to be changed.
func (o *Overlay) forNew(d *inode, name string) (*inode, Errno) {
	switch _, errno := o.lookUp(d, name); {
	case errno == 0:
		return nil, ErrnoEXIST
	case errno != ErrnoNOENT:
		return nil, errno
	}
	if d = o.current(d); d.nlink == 0 {
		return nil, ErrnoNOENT
	}
	return o.own(d)
}

// create makes an inode with a name.
func (o *Overlay) create(d *inode, name string, filetype uint8, mode uint32, who owner, target string) (*inode, Errno) {
	d, errno := o.forNew(d, name)
	if errno != 0 {
		return nil, errno
	}
	if d.mode&setGroupID != 0 {
		who.gid = d.owner.gid
		if filetype == filetypeDirectory {
			mode |= setGroupID
		}
	}
	n, errno := o.newInode(filetype, mode, who, target)
	if errno != 0 {
		return nil, errno
	}
	n.nlink = 1
	if n.dir != nil {
		n.nlink, n.dir.parent = 2, d
	}
	if errno := o.enter(d, name, n); errno != 0 {
		n.nlink = 0
		o.forget(n)
		return nil, errno
	}
	if n.dir != nil {
		d.nlink++
	}
	d.touch(n.mtim)
	return n, 0
}

// touch notes that the content of a directory or file has changed.
func (n *inode) touch(now int64) { n.mtim, n.ctim = now, now }

func (o *Overlay) mkdir(d *inode, name string, who owner) Errno {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, errno := o.create(d, name, filetypeDirectory, newDirMode, who, "")
	return errno
}

func (o *Overlay) symlink(target string, d *inode, name string, who owner) Errno {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, errno := o.create(d, name, filetypeSymlink, 0o777, who, target)
	return errno
}

func (o *Overlay) unlink(d *inode, name string) Errno {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, errno := o.lookUp(d, name)
	switch {
	case errno != 0:
		return errno
	case n.dir != nil:
		return ErrnoISDIR
	}
	if d, errno = o.own(d); errno != 0 {
		return errno
	}
	if n, errno = o.loseName(n); errno != 0 {
		return errno
	}
	if errno := o.enter(d, name, nil); errno != 0 {
		n.unlose()
		return errno
	}
	now := time.Now().UnixNano()
	d.touch(now)
	if !n.frozen {
		n.ctim = now
	}
	o.forget(n)
	return 0
}

// loseName counts a name of a file less. A file of the Lower whose only name
// goes, and that nobody has open, needs no copy to say so.
func (o *Overlay) loseName(n *inode) (*inode, Errno) {
	if n.frozen && n.nlink == 1 && o.opened[n] == 0 {
		return n, 0
	}
	n, errno := o.own(n)
	if errno == 0 {
		n.nlink--
	}
	return n, errno
}

func (n *inode) unlose() {
	if !n.frozen {
		n.nlink++
	}
}

func (o *Overlay) rmdir(d *inode, name string) Errno {
	o.mu.Lock()
	defer o.mu.Unlock()
	if name == "." {
		return ErrnoINVAL
	}
	n, errno := o.lookUp(d, name)
	switch {
	case errno != 0:
		return errno
	case n.dir == nil:
		return ErrnoNOTDIR
	case !o.empty(n):
		return ErrnoNOTEMPTY
	}
	if d, errno = o.own(d); errno != 0 {
		return errno
	}
	if n, errno = o.own(n); errno != 0 {
		return errno
	}
	if errno := o.enter(d, name, nil); errno != 0 {
		return errno
	}
	now := time.Now().UnixNano()
	o.dropDir(d, n)
	d.touch(now)
	n.ctim = now
	return 0
}

// dropDir is called when an empty directory has lost its name.
func (o *Overlay) dropDir(parent, n *inode) {
	parent.nlink--
	n.nlink = 0
	o.forgetNames(n.dir)
	o.forget(n)
}

// above reports whether a directory is n or lies above it.
func (o *Overlay) above(d, n *inode) bool {
	for n != nil {
		if n = o.current(n); n == d {
			return true
		}
		n = n.dir.parent
	}
	return false
}

func (o *Overlay) rename(from *inode, oldName string, to *inode, newName string) Errno {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, errno := o.lookUp(from, oldName)
	if errno != 0 {
		return errno
	}
	from, to = o.current(from), o.current(to)
	over, errno := o.lookUp(to, newName)
	switch {
	case errno == ErrnoNOENT:
		over = nil
	case errno != 0:
		return errno
	}
	switch {
	case n.dir != nil && o.above(n, to):
		return ErrnoINVAL
	case over != nil && over.dir != nil && o.above(over, from):
		return ErrnoNOTEMPTY
	case over == n:
		return 0 // two names of one file: both stay
	case to.nlink == 0:
		return ErrnoNOENT
	case over != nil && n.dir != nil && over.dir == nil:
		return ErrnoNOTDIR
	case over != nil && n.dir == nil && over.dir != nil:
		return ErrnoISDIR
	case over != nil && over.dir != nil && !o.empty(over):
		return ErrnoNOTEMPTY
	}
	if from, errno = o.own(from); errno != 0 {
		return errno
	}
	if to, errno = o.own(to); errno != 0 {
		return errno
	}
	if n, errno = o.own(n); errno != 0 {
		return errno
	}
	if over != nil {
		if over.dir != nil {
			over, errno = o.own(over)
		} else {
			over, errno = o.loseName(over)
		}
		if errno != 0 {
			return errno
		}
	}
	undo := func(errno Errno) Errno {
		if over != nil && over.dir == nil {
			over.unlose()
		}
		return errno
	}
	// The name that goes may need a whiteout; then it stays paid for, and what
	// can fail comes first.
	if errno := o.enter(to, newName, n); errno != 0 {
		return undo(errno)
	}
	if errno := o.enter(from, oldName, nil); errno != 0 {
		_ = o.enter(to, newName, over) // was paid for
		return undo(errno)
	}
	now := time.Now().UnixNano()
	if over != nil {
		if over.dir != nil {
			o.dropDir(to, over)
		} else {
			if !over.frozen {
				over.ctim = now
			}
			o.forget(over)
		}
	}
	if n.dir != nil {
		n.dir.parent = to
		from.nlink--
		to.nlink++
	}
	n.ctim = now
	from.touch(now)
	to.touch(now)
	return 0
}

func (o *Overlay) link(from *inode, oldName string, to *inode, newName string) Errno {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, errno := o.lookUp(from, oldName)
	if errno != 0 {
		return errno
	}
	if n.nlink == 0 {
		return ErrnoNOENT
	}
	if n.dir != nil {
		return ErrnoPERM
	}
	d, errno := o.forNew(to, newName)
	if errno != 0 {
		return errno
	}
	if n, errno = o.own(n); errno != 0 {
		return errno
	}
	if errno := o.enter(d, newName, n); errno != 0 {
		return errno
	}
	now := time.Now().UnixNano()
	n.nlink++
	n.ctim = now
	d.touch(now)
	return 0
}

// change changes the attributes of an inode.
func (o *Overlay) change(n *inode, change func(*inode) Errno) Errno {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, errno := o.own(n)
	if errno == 0 {
		errno = change(n)
	}
	if errno == 0 {
		n.ctim = time.Now().UnixNano()
	}
	return errno
}

func (o *Overlay) setTimes(n *inode, t timesUpdate) Errno {
	return o.change(n, func(n *inode) Errno {
		if t.atim != nil {
			n.atim = *t.atim
		}
		if t.mtim != nil {
			n.mtim = *t.mtim
		}
		return 0
	})
}

func (o *Overlay) stat(n *inode) filestat {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return o.current(n).filestat()
}

// unverified is the content of an image's file that has to be read as a whole
// before it is opened; nil for others.
func (o *Overlay) unverified(d *inode, name string) *LowerContent {
	n, errno := o.find(d, name)
	switch {
	case errno != 0:
		return nil
	case n.frozen:
		return n.content
	case n.body == nil:
		return nil
	}
	n.body.mu.RLock()
	defer n.body.mu.RUnlock()
	return n.body.lower
}

// open opens a file or directory, or creates a file.
func (o *Overlay) open(ctx context.Context, d *inode, name string, f openFlags, who owner) (*inode, Errno) {
	if !f.trunc {
		if c := o.unverified(d, name); c != nil {
			if errno := c.verify(ctx); errno != 0 {
				return nil, errno
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n, errno := o.lookUp(d, name)
	switch {
	case errno == ErrnoNOENT && f.create:
		if n, errno = o.create(d, name, filetypeRegular, newFileMode, who, ""); errno != 0 {
			return nil, errno
		}
		n.body.users++
		return n, 0
	case errno != 0:
		return nil, errno
	case f.create && f.excl:
		return nil, ErrnoEXIST
	case f.directory && n.dir == nil:
		return nil, ErrnoNOTDIR
	case n.filetype == filetypeSymlink:
		return nil, ErrnoLOOP
	case n.dir != nil && (f.write || f.create || f.trunc):
		return nil, ErrnoISDIR
	case n.dir != nil:
		return n, 0
	}
	if f.trunc {
		if n, errno = o.own(n); errno != 0 {
			return nil, errno
		}
		n.body.empty(o)
		n.touch(time.Now().UnixNano())
	}
	if n.frozen {
		if errno := n.content.acquire(); errno != 0 {
			return nil, errno
		}
		o.opened[n]++
		return n, 0
	}
	if errno := n.body.open(); errno != 0 {
		return nil, errno
	}
	return n, 0
}

// letGo is the end of an open file.
func (o *Overlay) letGo(n *inode) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n = o.current(n); n.frozen {
		if o.opened[n]--; o.opened[n] == 0 {
			delete(o.opened, n)
		}
		n.content.release()
		return
	}
	n.body.close()
	o.forget(n)
}
