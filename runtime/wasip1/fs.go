package wasip1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// FS is the mount table of one container, a plain value.
type FS struct {
	// Mounts are laid over one another in this order: a later one shadows
	// whatever earlier ones show at or below its path. Without a mount of a
	// directory at "/" the root is an empty read-only directory in which only the
	// mount points appear.
	Mounts []Mount
}

// Mount shows a host directory, a single host file or a device at a guest path.
type Mount struct {
	// GuestPath is absolute. Links in it are followed inside the container, as
	// mount(2) would, when the table is opened. Missing directories on the way
	// are created where the mount below is writable, otherwise they only appear
	// to be there.
	GuestPath string
	// Host is a directory or file of the host; links in it are followed.
	Host string
	// Beneath, if not empty, is the part of the directory Host that is mounted
	// instead of the whole. Links in it are followed within Host only, because a
	// guest that can write to Host may have made them.
	Beneath string
	// ReadOnly answers EROFS to everything that would change the mount.
	ReadOnly bool
	// Overlay is shown in the place of Host.
	Overlay *Overlay
	// Device makes this a device node; Host and ReadOnly are ignored then.
	Device Device
}

// Devices are the device nodes that every container should have.
func Devices() []Mount {
	return []Mount{
		{GuestPath: "/dev/null", Device: DeviceNull},
		{GuestPath: "/dev/zero", Device: DeviceZero},
		{GuestPath: "/dev/full", Device: DeviceFull},
		{GuestPath: "/dev/random", Device: DeviceRandom},
		{GuestPath: "/dev/urandom", Device: DeviceURandom},
		{GuestPath: "/dev/stdin", Device: DeviceStdin},
		{GuestPath: "/dev/stdout", Device: DeviceStdout},
		{GuestPath: "/dev/stderr", Device: DeviceStderr},
	}
}

// mount is an open Mount. For a single file, fd is the directory that holds it
// and base its name there.
type mount struct {
	dev      uint64 // what filestat shows, distinct per mount
	hostDev  uint64
	readOnly bool
	dirRef   // open until the namespace closes; virtual for a device
	base     string
	device   Device
}

func (m *mount) isDir() bool { return m.device == 0 && m.base == "" }

// guestDev maps the device number of a host file in the mount: a guest must be
// able to tell mounts apart even if they are on one host file system, and the
// file systems of one mount if there are several.
func (m *mount) guestDev(host uint64) uint64 {
	if host == m.hostDev || m.ov != nil {
		return m.dev
	}
	return m.dev<<48 ^ host
}

// node is a directory of the mount table: a mount point or a directory on the
// way to one.
type node struct {
	name     string
	children map[string]*node
	mnt      *mount // nil if only on the way to a mount point
	ino      uint64 // for a node without host directory
}

// child is nil-safe: most directories are no part of the mount table.
func (n *node) child(name string) *node {
	if n == nil {
		return nil
	}
	return n.children[name]
}

// namespace is an open FS: what the paths of one Process mean.
type namespace struct {
	root    *node
	mounts  []*mount
	created time.Time
	inos    uint64
}

// openFS opens every mount. On error nothing stays open.
func openFS(fs FS) (*namespace, error) {
	ns := &namespace{created: time.Now()}
	ns.root = ns.newNode("/")
	for _, m := range fs.Mounts {
		if err := ns.add(m); err != nil {
			ns.close()
			return nil, fmt.Errorf("mount %s: %w", m.GuestPath, err)
		}
	}
	return ns, nil
}

func (ns *namespace) close() {
	for _, m := range ns.mounts {
		if m.fd >= 0 {
			hostClose(m.fd)
		}
	}
}

func (ns *namespace) newNode(name string) *node {
	ns.inos++
	return &node{name: name, ino: 1<<62 + ns.inos}
}

func (ns *namespace) add(m Mount) error {
	if !path.IsAbs(m.GuestPath) || strings.ContainsRune(m.GuestPath, 0) {
		return fmt.Errorf("guest path %q is not absolute", m.GuestPath)
	}
	open := &mount{dev: uint64(len(ns.mounts)) + 1, readOnly: m.ReadOnly, device: m.Device, dirRef: virtualDir}
	switch {
	case m.Device != 0:
		open.readOnly = false
	case m.Overlay != nil:
		if err := open.openOverlay(m.Overlay, m.Beneath); err != nil {
			return err
		}
	default:
		if err := open.openHost(m.Host, m.Beneath); err != nil {
			return err
		}
	}
	ns.mounts = append(ns.mounts, open) // from here on close closes it
	guest := path.Clean(m.GuestPath)
	if guest == "/" {
		if !open.isDir() {
			return errors.New("only a directory can be the root")
		}
		ns.root.mnt, ns.root.children = open, nil
		return nil
	}
	n, err := ns.mountPoint(guest, open)
	if err != nil {
		return err
	}
	n.mnt, n.children = open, nil
	return nil
}

func (m *mount) openHost(host, beneath string) (err error) {
	if beneath == "" {
		err = m.openWhole(host)
	} else {
		err = m.openBeneath(host, beneath)
	}
	if err != nil {
		return err
	}
	st, errno := hostStat(m.fd)
	if errno != 0 {
		hostClose(m.fd)
		return errno
	}
	m.hostDev = st.dev
	return nil
}

// openOverlay finds the part of an overlay that is mounted.
func (m *mount) openOverlay(o *Overlay, beneath string) error {
	m.dirRef = dirRef{fdOverlay, o, o.root}
	if beneath == "" {
		return nil
	}
	p, errno := o.resolve(beneath, followAlways)
	if errno == 0 {
		var st filestat
		if st, errno = p.statAt(p.component()); errno == 0 {
			if st.filetype != filetypeDirectory {
				m.dirRef, m.base = p.dirRef, p.name
				return nil
			}
			m.dirRef, errno = p.openDir(p.component())
		}
	}
	if errno != 0 {
		return &os.PathError{Op: "open", Path: beneath, Err: errno}
	}
	return nil
}

// openWhole asks the host no more than it must: every container has this done
// for its root, and for a few files.
func (m *mount) openWhole(host string) (err error) {
	if m.fd, err = openHostDir(host); err != unix.ENOTDIR {
		return pathError("open", host, err)
	}
	info, err := os.Lstat(host)
	if err != nil {
		return err
	}
	if info.Mode()&os.ModeSymlink != 0 { // a mount keeps a file's own name
		if host, err = filepath.EvalSymlinks(host); err != nil {
			return err
		}
	}
	dir, base := filepath.Split(host)
	if dir == "" {
		dir = "."
	}
	m.base = base
	m.fd, err = openHostDir(dir)
	return pathError("open", dir, err)
}

// openHostDir opens a directory by a path that is the host's own. Only a
// directory: opening a FIFO would wait for its other end.
func openHostDir(name string) (fd int, err error) {
	for {
		fd, err = unix.Open(name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// openBeneath trusts nothing below host: another container may write there, and
// while this runs. Whatever it swaps in, what is opened lies below host.
func (m *mount) openBeneath(host, name string) error {
	root, err := os.OpenRoot(host)
	if err != nil {
		return err
	}
	defer root.Close()
	info, err := root.Stat(name)
	if err != nil {
		return err
	}
	dir := name
	if !info.IsDir() {
		// A mount keeps a file's own name, not that of a link to it: what is
		// mounted is opened without following links.
		if name, err = lastName(root, name); err != nil {
			return err
		}
		dir, m.base = path.Split(name)
		if dir == "" {
			dir = "."
		}
	}
	// As in openHostDir, only a directory.
	f, err := root.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	m.fd, err = unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return pathError("dup", name, err)
}

// lastName follows the links in the last component of name. The result may
// have links and ".." before that, which must not be cleaned as text.
func lastName(root *os.Root, name string) (string, error) {
	for range maxLinks {
		info, err := root.Lstat(name)
		if err != nil || info.Mode()&os.ModeSymlink == 0 {
			return name, err
		}
		target, err := root.Readlink(name)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			return "", &os.PathError{Op: "follow", Path: name, Err: ErrnoNOTCAPABLE}
		}
		dir, _ := path.Split(name)
		name = dir + target
	}
	return "", &os.PathError{Op: "follow", Path: name, Err: ErrnoLOOP}
}

// mountPoint finds or makes the node of a guest path, which it resolves as a
// path of the namespace as it is now.
func (ns *namespace) mountPoint(guest string, m *mount) (*node, error) {
	for range maxLinks {
		n, link, err := ns.tryMountPoint(guest, m)
		if link == "" || err != nil {
			return n, err
		}
		guest = link
	}
	return nil, ErrnoLOOP
}

// tryMountPoint returns the path with its first link replaced, if it has one. A
// node that is there already was prepared when it was made.
func (ns *namespace) tryMountPoint(guest string, m *mount) (_ *node, link string, _ error) {
	names := strings.Split(guest[1:], "/")
	n := ns.root
	for i, name := range names {
		last := i == len(names)-1
		next := n.child(name)
		// Devices need no file to be mounted on; they take the place of what the
		// image has there, links included.
		if next == nil && !(last && m.device != 0) {
			at := "/" + path.Join(names[:i]...)
			target, err := ns.prepare(at, name, m.isDir() || !last)
			if err != nil {
				return nil, "", err
			}
			if target != "" {
				if !path.IsAbs(target) {
					target = path.Join(at, target)
				}
				return nil, path.Join("/", target, path.Join(names[i+1:]...)), nil
			}
		}
		if next == nil {
			next = ns.newNode(name)
			if n.children == nil {
				n.children = make(map[string]*node)
			}
			n.children[name] = next
		}
		n = next
	}
	return n, "", nil
}

// prepare makes name in directory at exist below the mount table, as container
// runtimes do for mount points; where it cannot, a node alone has to do. It
// returns the target if name is a link.
func (ns *namespace) prepare(at, name string, dir bool) (link string, _ error) {
	w := walk{ns: ns, ctx: context.Background()}
	p, errno := w.resolve(ns.base(), path.Join(at[1:], name), followNever)
	if errno != 0 {
		return "", nil
	}
	defer p.release()
	if p.name == "" || p.virtual() || p.isDevice() {
		return "", nil
	}
	st, errno := p.statAt(p.name)
	switch {
	case errno == 0 && st.filetype == filetypeSymlink:
		target, errno := p.readlink(p.name)
		if errno != 0 {
			return "", errno
		}
		return target, nil
	case errno == ErrnoNOENT && !p.mnt.readOnly:
		if dir {
			p.mkdir(p.name, owner{})
		} else if f, _, errno := p.open(context.Background(), p.name, openFlags{write: true, create: true, excl: true}, owner{}, p.mnt); errno == 0 {
			f.close()
		}
	}
	return "", nil
}
