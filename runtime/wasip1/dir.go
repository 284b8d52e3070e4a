package wasip1

import (
	"context"
	"slices"

	"golang.org/x/sys/unix"
)

// openDir is an open directory: of a mount, or one that only the mount table
// makes.
type openDir struct {
	noFile
	ns    *namespace
	at    base
	list  dirReader
	payer *Process // of it and its path; nil: nobody
}

// newOpenDir takes over what at has open. A path is charged by its length: each
// directory may be opened from another one, so that it has no bound.
func (p *Process) newOpenDir(at base) (file, Errno) {
	d := &openDir{ns: p.ns, at: at}
	if p.fds.payer != nil {
		if !p.hold(openDirBytes + pathBytes(at.path)) {
			d.close()
			return nil, ErrnoNOMEM
		}
		d.payer = p
	}
	return d, 0
}

func (d *openDir) filetype() uint8 { return filetypeDirectory }

func (d *openDir) stat() (filestat, Errno) {
	if d.at.fd == fdVirtual {
		return d.ns.statVirtual(d.at.node), 0
	}
	if d.at.ov != nil {
		st := d.at.ov.stat(d.at.dir)
		st.dev = d.at.mnt.dev
		return st, 0
	}
	st, errno := hostStat(d.at.fd)
	st.dev = d.at.mnt.guestDev(st.dev)
	return st, errno
}

func (d *openDir) read(context.Context, [][]byte, bool) (int, Errno)    { return 0, ErrnoISDIR }
func (d *openDir) pread(context.Context, [][]byte, int64) (int, Errno)  { return 0, ErrnoISDIR }
func (d *openDir) pwrite(context.Context, [][]byte, int64) (int, Errno) { return 0, ErrnoBADF }
func (d *openDir) seek(int64, uint8) (int64, Errno)                     { return 0, ErrnoBADF }
func (d *openDir) allocate(context.Context, int64, int64) Errno         { return ErrnoBADF }
func (d *openDir) setSize(context.Context, int64) Errno                 { return ErrnoBADF }

func (d *openDir) sync() Errno {
	if d.at.fd < 0 {
		return 0
	}
	return retry(func() error { return unix.Fsync(d.at.fd) })
}

func (d *openDir) setTimes(t timesUpdate) Errno {
	if d.at.fd == fdVirtual || d.at.mnt.readOnly {
		return ErrnoROFS
	}
	if d.at.ov != nil {
		return d.at.ov.setTimes(d.at.dir, t)
	}
	return hostSetTimes(d.at.fd, t)
}

func (d *openDir) close() Errno {
	if d.at.fd >= 0 {
		hostClose(d.at.fd)
	}
	if d.payer != nil {
		d.payer.drop(openDirBytes + pathBytes(d.at.path))
	}
	return 0
}

// statVirtual is what a directory without a host directory looks like.
func (ns *namespace) statVirtual(n *node) filestat {
	t := ns.created.UnixNano()
	return filestat{ino: n.ino, filetype: filetypeDirectory, nlink: 2, atim: t, mtim: t, ctime: t}
}

// dirent is an entry of a directory.
type dirent struct {
	name     string
	ino      uint64
	filetype uint8
}

// Bounds of the entries that an open directory remembers. A directory within
// them is read once and its cookies then hold whatever happens to it; a larger
// one is read again when a guest seeks back beyond them.
const (
	maxWindow      = 4096
	maxWindowBytes = 256 << 10
	// maxListed is how many directories of a process remember entries: a guest
	// cannot make the host keep more by opening more.
	maxListed = 32
)

// dirReader numbers the entries of a directory: the cookie of an entry is its
// number, which "." begins as 0.
type dirReader struct {
	window  []dirent
	first   uint64 // number of window[0]
	bytes   int    // in names of the window
	raw     []byte // buffer for hostReadDir
	pending []byte // the part of raw not yet decoded
	missing []*node
	host    bool // the host has more entries, maybe
	overlay bool // the overlay has, after last
	last    string
	steps   int // since the directory was opened
}

// entry returns entry number i; ok is false at the end.
func (d *openDir) entry(ctx context.Context, i uint64) (e dirent, ok bool, errno Errno) {
	r := &d.list
	if i < r.first || r.window == nil {
		if errno := d.rewind(); errno != 0 {
			return dirent{}, false, errno
		}
	}
	for i-r.first >= uint64(len(r.window)) {
		e, ok, errno := d.next(ctx)
		if errno != 0 || !ok {
			return dirent{}, false, errno
		}
		r.window = append(r.window, e)
		r.bytes += len(e.name)
		if len(r.window) > maxWindow || r.bytes > maxWindowBytes {
			half := len(r.window) / 2
			for _, old := range r.window[:half] {
				r.bytes -= len(old.name)
			}
			r.window = slices.Delete(r.window, 0, half)
			r.first += uint64(half)
		}
	}
	return r.window[i-r.first], true, 0
}

// listed notes that the guest is listing d, and makes the directory that it has
// not listed for the longest time forget its entries if there are too many.
func (p *Process) listed(d *openDir) {
	if i := slices.Index(p.listing, d); i >= 0 {
		p.listing = slices.Delete(p.listing, i, i+1)
	} else if len(p.listing) >= maxListed {
		p.listing[0].list = dirReader{}
		p.listing = slices.Delete(p.listing, 0, 1)
	}
	p.listing = append(p.listing, d)
}

// direntBytes is what an entry takes beside its name.
const direntBytes = 40

// chargeListings charges for the entries that directories remember. A guest
// without memory for them keeps those of the last directory, or none.
func (p *Process) chargeListings() Errno {
	for {
		bytes := int64(0)
		for _, d := range p.listing {
			bytes += int64(cap(d.list.window))*direntBytes + int64(d.list.bytes) + int64(cap(d.list.raw))
		}
		if p.memory == nil || bytes == p.listingBytes {
			return 0
		}
		if p.memory.Charge(bytes - p.listingBytes) {
			p.listingBytes = bytes
			return 0
		}
		oldest := p.listing[0]
		oldest.list = dirReader{}
		if p.listing = slices.Delete(p.listing, 0, 1); len(p.listing) == 0 {
			p.memory.Release(p.listingBytes)
			p.listingBytes = 0
			return ErrnoNOMEM
		}
	}
}

// rewind begins a new listing.
func (d *openDir) rewind() Errno {
	st, errno := d.stat()
	if errno != 0 {
		return errno
	}
	r := &d.list
	r.first, r.bytes, r.pending = 0, 3, nil
	clear(r.window)
	// The number of ".." is not the guest's business at the edge of a mount, and
	// nobody looks at it elsewhere.
	r.window = append(r.window[:0],
		dirent{name: ".", ino: st.ino, filetype: filetypeDirectory},
		dirent{name: "..", ino: st.ino, filetype: filetypeDirectory})
	r.missing = r.missing[:0]
	if d.at.node != nil {
		for _, n := range d.at.node.children {
			r.missing = append(r.missing, n)
		}
		slices.SortFunc(r.missing, func(a, b *node) int {
			if a.name < b.name {
				return -1
			}
			return 1
		})
	}
	r.overlay, r.last = d.at.ov != nil, ""
	if r.host = d.at.fd >= 0; r.host {
		return hostRewindDir(d.at.fd)
	}
	return 0
}

// next reads on: first what the host has, then the mount points that it lacks.
func (d *openDir) next(ctx context.Context) (e dirent, ok bool, errno Errno) {
	r := &d.list
	const entriesAtOnce = 1024
	if r.steps++; r.steps%entriesAtOnce == 0 {
		breathe(ctx)
	}
	for r.host {
		if len(r.pending) == 0 {
			if ctx.Err() != nil {
				panic(killed)
			}
			if r.raw == nil {
				r.raw = make([]byte, 8<<10)
			}
			n, errno := hostReadDir(d.at.fd, r.raw)
			if errno == ErrnoNOENT { // removed while open: empty
				n, errno = 0, 0
			}
			if errno != 0 {
				return dirent{}, false, errno
			}
			if n == 0 {
				r.host = false
				break
			}
			r.pending = r.raw[:n]
		}
		if e, r.pending, ok = nextDirent(r.pending); !ok {
			return dirent{}, false, ErrnoIO
		}
		if e.name == "." || e.name == ".." || e.ino == 0 {
			continue
		}
		return d.mounted(e), true, 0
	}
	if r.overlay {
		name, n, ok := d.at.ov.next(d.at.dir, r.last)
		if ok {
			r.last = name
			return d.mounted(dirent{name: name, ino: n.ino, filetype: n.filetype}), true, 0
		}
		r.overlay = false
	}
	if len(r.missing) == 0 {
		return dirent{}, false, 0
	}
	n := r.missing[0]
	r.missing = slices.Delete(r.missing, 0, 1)
	return d.ns.dirent(n), true, 0
}

// mounted is an entry, or what is mounted on it.
func (d *openDir) mounted(e dirent) dirent {
	child := d.at.node.child(e.name)
	if child == nil {
		return e
	}
	r := &d.list
	r.missing = slices.DeleteFunc(r.missing, func(n *node) bool { return n == child })
	return d.ns.dirent(child)
}

// dirent is how a node of the mount table appears in its directory.
func (ns *namespace) dirent(n *node) dirent {
	e := dirent{name: n.name, ino: n.ino, filetype: filetypeDirectory}
	if n.mnt == nil {
		return e
	}
	p := n.mountedPlace(false)
	if st, errno := ns.stat(&p); errno == 0 {
		e.ino, e.filetype = st.ino, st.filetype
	}
	return e
}
