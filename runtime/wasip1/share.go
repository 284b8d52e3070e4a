package wasip1

import (
	"context"
	"io"
	"os"
	"path"
	"strings"
)

// File is a regular file of a container, open for the host's own use. It is for
// one goroutine.
type File struct {
	f  file
	id FileID
	at int64
}

// FileID tells files apart: whatever changes one makes its ID another one.
type FileID struct {
	Dev, Ino     uint64
	Size         int64
	MTime, CTime int64 // nanoseconds since 1970
	Version      uint64
}

// OpenFile opens a regular file of the container for the host's own use, read
// only. The path is resolved as one of the guest's: relative to the root, with
// links followed within the container. Errors are *os.PathError around an Errno,
// ErrnoACCES for what is no regular file. It may be called from any goroutine
// until Close; the file may outlive that only if the overlay that it lies in does.
func (p *Process) OpenFile(guest string) (*File, error) {
	f, errno := p.ns.openFile(guest)
	if errno != 0 {
		return nil, &os.PathError{Op: "open", Path: guest, Err: errno}
	}
	return f, nil
}

func (ns *namespace) openFile(guest string) (*File, Errno) {
	at, errno := ns.lookUp(guest, followAlways)
	if errno != 0 {
		return nil, errno
	}
	defer at.release()
	if at.virtual() || at.isDevice() || at.slash {
		return nil, ErrnoACCES
	}
	var version uint64
	if at.ov != nil {
		version = at.ov.version.Load() // before the file is looked at
	}
	f, dir, errno := at.open(context.Background(), at.component(), openFlags{read: true}, owner{}, at.mnt)
	if errno != 0 {
		return nil, errno
	}
	if f == nil {
		if dir.fd >= 0 {
			hostClose(dir.fd)
		}
		return nil, ErrnoACCES
	}
	st, errno := f.stat()
	if errno != 0 || st.filetype != filetypeRegular {
		f.close()
		return nil, ErrnoACCES
	}
	return &File{f: f, id: FileID{st.dev, st.ino, int64(st.size), st.mtim, st.ctime, version}}, 0
}

// lookUp resolves a path with a walk of its own, as that of a process is its
// guest's.
func (ns *namespace) lookUp(guest string, f follow) (place, Errno) {
	w := walk{ns: ns, ctx: context.Background()}
	if guest = strings.TrimLeft(guest, "/"); guest == "" {
		guest = "."
	}
	return w.resolve(ns.base(), guest, f)
}

// ID is what the file was when it was opened.
func (f *File) ID() FileID { return f.id }

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(b []byte, off int64) (int, error) {
	n, errno := f.f.pread(context.Background(), [][]byte{b}, off)
	switch {
	case errno != 0:
		return n, errno
	case n < len(b):
		return n, io.EOF
	}
	return n, nil
}

// Read implements io.Reader.
func (f *File) Read(b []byte) (int, error) {
	n, err := f.ReadAt(b, f.at)
	f.at += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// Close implements io.Closer.
func (f *File) Close() error {
	f.f.close()
	return nil
}

// namespace shows an overlay alone, for the host.
func (o *Overlay) namespace() *namespace {
	m := &mount{dev: 1, dirRef: dirRef{fdOverlay, o, o.root}}
	return &namespace{root: &node{name: "/", mnt: m}, mounts: []*mount{m}}
}

func (o *Overlay) resolve(name string, f follow) (place, Errno) {
	return o.namespace().lookUp(name, f)
}

// MkdirAll makes a directory and those above it that are missing, for the host: with
// the mode whatever an umask says. Links are followed within the overlay. Errors
// are *os.PathError around an Errno.
func (o *Overlay) MkdirAll(name string, mode uint32) error {
	name = strings.Trim(path.Clean("/"+name), "/")
	parts := strings.Split(name, "/")
	for i := range parts {
		dir := strings.Join(parts[:i+1], "/")
		if dir == "" {
			continue
		}
		p, errno := o.resolve(dir, followAlways)
		if errno == 0 {
			var n *inode
			switch n, errno = o.find(p.dir, p.component()); {
			case errno == ErrnoNOENT && p.name != "":
				if errno = o.mkdir(p.dir, p.name, owner{}); errno == 0 && mode != newDirMode {
					errno = o.chmod(p.dir, p.name, mode)
				}
			case errno == 0 && n.dir == nil:
				errno = ErrnoNOTDIR
			}
		}
		if errno != 0 {
			return &os.PathError{Op: "mkdir", Path: dir, Err: errno}
		}
	}
	return nil
}

func (o *Overlay) chmod(d *inode, name string, mode uint32) Errno {
	n, errno := o.find(d, name)
	if errno == 0 && o.stat(n).mode&0o7777 != mode {
		errno = pinned{fd: fdOverlay, ov: o, n: n}.chmod(mode)
	}
	return errno
}

// Chmod changes the mode of a directory, for the host. What is none is left alone.
func (o *Overlay) Chmod(name string, mode uint32) error {
	p, errno := o.resolve(name, followNever)
	if errno == 0 {
		if n, e := o.find(p.dir, p.component()); e == 0 && n.dir != nil {
			errno = o.chmod(p.dir, p.component(), mode)
		}
	}
	if errno != 0 {
		return &os.PathError{Op: "chmod", Path: name, Err: errno}
	}
	return nil
}

// Stat describes what a path names, for the host, following links: its mode as
// POSIX has it. Errors are *os.PathError around an Errno.
func (o *Overlay) Stat(name string) (mode uint32, err error) {
	p, errno := o.resolve(name, followAlways)
	if errno == 0 {
		var st filestat
		if st, errno = p.statAt(p.component()); errno == 0 {
			return st.mode, nil
		}
	}
	return 0, &os.PathError{Op: "stat", Path: name, Err: errno}
}

// RootMode is the mode of the root, and SetRoot changes it and the group: what
// fsGroup does to a volume (VOL-02).
func (o *Overlay) RootMode() uint32 { return o.stat(o.root).mode & 0o7777 }

// SetRoot changes group and mode of the root.
func (o *Overlay) SetRoot(gid, mode uint32) {
	_ = o.change(o.root, func(n *inode) Errno {
		n.owner.gid, n.mode = gid, mode
		return 0
	})
}
