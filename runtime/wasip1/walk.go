package wasip1

import (
	"context"
	"path"
	"strings"
	"unicode/utf8"
)

const (
	maxPath  = 4096 // bytes of a path, PATH_MAX
	maxLinks = 40   // links followed in one walk, as Linux does
	// maxSteps bounds the host calls that one path can cause; a path has at most
	// maxPath/2 components, and only links and ".." can ask for more.
	maxSteps = 8 * maxPath
	// maxHeld is how many directories a walk keeps open to come back to by "..".
	maxHeld = 16
)

// Special values of a directory's file descriptor.
const (
	fdVirtual = -1 // exists in the mount table only
	fdEvicted = -2 // was closed during the walk, can be opened again
)

// base is the directory in which a walk starts.
type base struct {
	dirRef
	node *node  // its place in the mount table, if it has one
	mnt  *mount // nil if fd is fdVirtual
	path string // guest path; "/" is the root
}

// place is where a path ends: one component of an open directory. The
// name "" is the directory itself.
type place struct {
	dirRef
	owned bool
	name  string
	mnt   *mount // the mount of fd, or what is mounted at the place; nil for a virtual directory
	node  *node  // the place's own node in the mount table, if it has one
	slash bool   // the path ended in a slash: only a directory will do
}

func (p *place) release() {
	if p.owned {
		hostClose(p.fd)
		p.owned = false
	}
}

// component is the place's name for host calls.
func (p *place) component() string {
	if p.name == "" {
		return "."
	}
	return p.name
}

// virtual: the place is in no mount, it may not even exist.
func (p *place) virtual() bool { return p.fd == fdVirtual && !p.isDevice() }

func (p *place) isDevice() bool { return p.mnt != nil && p.mnt.device != 0 }

// readOnly: nothing at the place may be changed.
func (p *place) readOnly() bool { return p.mnt == nil || p.mnt.readOnly }

// frame is a directory on the way.
type frame struct {
	dirRef
	owned bool
	name  string
	node  *node
	mnt   *mount
}

// follow says what to do about a link in the last component of a path.
type follow uint8

const (
	followNever follow = iota // the entry itself is meant: to remove, rename or create it
	followSlash               // only if a slash follows it
	followAlways

	// toCreate goes with one of the others: a file is to be opened or else
	// created, which a slash after the last component makes EISDIR at once.
	toCreate follow = 1 << 4
)

// walk resolves paths. It is reused from call to call to save allocations.
type walk struct {
	ns     *namespace
	ctx    context.Context
	start  base
	frames []frame
	held   int      // frames that own an open directory
	names  []string // of the frames at the end of the walk
	tail   string   // the last component, after names
	steps  int
	links  int
}

// checkPath is what every path must pass before anything looks at it.
func checkPath(p string) Errno {
	switch {
	case p == "":
		return ErrnoNOENT
	case len(p) > maxPath:
		return ErrnoNAMETOOLONG
	case strings.IndexByte(p, 0) >= 0:
		return ErrnoINVAL
	case !utf8.ValidString(p):
		return ErrnoILSEQ
	}
	return ErrnoSuccess
}

// resolve walks the path guest from b. It follows every link but one in the last
// component, and that too as f says. The last component need not exist. The
// caller releases the place.
//
// The path itself must not leave b: an absolute one, or one whose ".." would go
// above b, is ENOTCAPABLE. Links are the container's own and are resolved in
// the container: absolute from its root, at which ".." stays.
func (w *walk) resolve(b base, guest string, f follow) (p place, errno Errno) {
	if errno := checkPath(guest); errno != 0 {
		return place{}, errno
	}
	if guest[0] == '/' {
		return place{}, ErrnoNOTCAPABLE
	}
	w.steps, w.links = 0, 0
	w.restart(b)
	w.tail = ""
	defer w.finish()

	rest := guest
	// literal is how many bytes at the end of rest are the guest's own words and
	// not what a link said.
	literal := len(guest)
	for {
		rest = strings.TrimLeft(rest, "/")
		isLiteral := len(rest) <= literal
		name, after, more := strings.Cut(rest, "/")
		after = strings.TrimLeft(after, "/")
		last := after == ""
		if errno := w.step(); errno != 0 {
			return place{}, errno
		}
		if name != ".." { // of several in a row only the last needs its directory
			if errno := w.reopen(); errno != 0 {
				return place{}, errno
			}
		}
		if last && more && f&toCreate != 0 && name != "." && name != ".." {
			return place{}, ErrnoISDIR
		}
		top := &w.frames[len(w.frames)-1]
		target := "" // of a link to follow
		switch child := top.node.child(name); {
		case name == "" || name == ".":
			if last {
				return w.here()
			}
			rest = after
			continue
		case name == "..":
			if len(w.frames) > 1 {
				w.closeFrames(len(w.frames) - 1)
			} else if isLiteral {
				return place{}, ErrnoNOTCAPABLE
			} else if up := w.start.path; up != "/" {
				// A link in an open directory points above it, into what is still
				// the container's own namespace: go there from the root.
				w.restart(w.ns.base())
				rest = up[1:] + "/" + rest
				continue
			}
			if last {
				return w.here()
			}
			rest = after
			continue
		case child != nil && child.mnt != nil:
			if last {
				w.tail = name
				return child.mountedPlace(more), 0
			}
			if !child.mnt.isDir() {
				return place{}, ErrnoNOTDIR
			}
			w.push(frame{dirRef: child.mnt.dirRef, name: name, node: child, mnt: child.mnt})
			rest = after
			continue
		case top.fd == fdVirtual:
			switch {
			case child != nil && last:
				w.tail = name
				return place{dirRef: virtualDir, node: child, slash: more}, 0
			case child != nil:
				w.push(frame{dirRef: virtualDir, name: name, node: child})
			case last:
				return place{dirRef: virtualDir, name: name, slash: more}, 0
			default:
				return place{}, ErrnoNOENT
			}
			rest = after
			continue
		case last && child != nil:
			// A node of the mount table is a directory whatever the host has.
			w.tail = name
			if st, errno := top.statAt(name); errno != 0 || st.filetype != filetypeDirectory {
				return place{dirRef: virtualDir, node: child, slash: more}, 0
			}
			return w.place(name, child, more), 0
		case last:
			if mode := f &^ toCreate; mode == followNever || mode == followSlash && !more {
				return w.place(name, nil, more), 0
			}
			var errno Errno
			if target, errno = top.readlink(name); errno != 0 {
				return w.place(name, nil, more), 0 // not a link, or nothing there
			}
		default:
			dir, errno := top.openDir(name)
			switch {
			case errno == 0:
				w.push(frame{dirRef: dir, owned: dir.fd >= 0, name: name, node: child, mnt: top.mnt})
			case child != nil:
				w.push(frame{dirRef: virtualDir, name: name, node: child})
			case errno == ErrnoNOTDIR || errno == ErrnoLOOP:
				var notLink Errno
				if target, notLink = top.readlink(name); notLink != 0 {
					return place{}, ErrnoNOTDIR
				}
			default:
				return place{}, errno
			}
			if target == "" {
				rest = after
				continue
			}
		}
		// name is a link to target.
		if w.links++; w.links > maxLinks {
			return place{}, ErrnoLOOP
		}
		if target == "" {
			return place{}, ErrnoNOENT
		}
		if target[0] == '/' {
			w.restart(w.ns.base())
		}
		literal = min(literal, len(after))
		if more {
			target += "/" + after
		}
		rest = target
	}
}

// finish notes the way for guestPath and closes what is still open of it.
func (w *walk) finish() {
	const usual = 64 // long ways are not kept room for: nobody pays for it
	if cap(w.names) > usual {
		w.names = nil
	}
	w.names = w.names[:0]
	for _, f := range w.frames[min(1, len(w.frames)):] {
		w.names = append(w.names, f.name)
	}
	w.closeFrames(0)
	if cap(w.frames) > usual {
		w.frames = nil
	}
}

// step bounds how long one path can keep the host busy.
func (w *walk) step() Errno {
	if w.steps++; w.steps > maxSteps {
		return ErrnoLOOP
	}
	if w.steps%256 == 0 {
		breathe(w.ctx)
	}
	return 0
}

func (w *walk) restart(b base) {
	w.closeFrames(0)
	w.start = b
	w.frames = append(w.frames, frame{dirRef: b.dirRef, node: b.node, mnt: b.mnt})
}

// closeFrames closes and drops the frames from i on.
func (w *walk) closeFrames(i int) {
	for j := i; j < len(w.frames); j++ {
		if w.frames[j].owned {
			hostClose(w.frames[j].fd)
			w.held--
		}
	}
	clear(w.frames[i:])
	w.frames = w.frames[:i]
}

func (w *walk) push(f frame) {
	w.frames = append(w.frames, f)
	if f.owned {
		w.held++
		w.evict(len(w.frames) - 1)
	}
}

// evict closes the oldest open directory but keep when there are too many.
func (w *walk) evict(keep int) {
	for i := 0; w.held > maxHeld && i < keep; i++ {
		if f := &w.frames[i]; f.owned {
			hostClose(f.fd)
			f.fd, f.owned = fdEvicted, false
			w.held--
		}
	}
}

// reopen opens the directory that the walk has come back to by ".." if it was
// evicted, from the nearest one above that was not.
func (w *walk) reopen() Errno {
	top := len(w.frames) - 1
	if w.frames[top].fd != fdEvicted {
		return 0
	}
	from := top
	for w.frames[from].fd == fdEvicted {
		from--
	}
	fd, owned := w.frames[from].fd, false
	for i := from + 1; i <= top; i++ {
		next, errno := hostOpenDir(fd, w.frames[i].name)
		if owned {
			hostClose(fd)
		}
		if errno == 0 {
			errno = w.step()
			if errno != 0 {
				hostClose(next)
			}
		}
		if errno != 0 {
			return errno
		}
		fd, owned = next, true
	}
	w.frames[top].fd, w.frames[top].owned = fd, true
	w.held++
	return 0
}

// here is the directory that the walk has reached.
func (w *walk) here() (place, Errno) {
	if errno := w.reopen(); errno != 0 {
		return place{}, errno
	}
	return w.place("", w.frames[len(w.frames)-1].node, true), 0
}

// place hands the directory that the walk has reached over to a place.
func (w *walk) place(name string, n *node, slash bool) place {
	w.tail = name
	top := &w.frames[len(w.frames)-1]
	p := place{dirRef: top.dirRef, owned: top.owned, name: name, mnt: top.mnt, node: n, slash: slash}
	if top.owned {
		top.owned = false
		w.held--
	}
	return p
}

// mountedPlace is the place of what is mounted at n.
func (n *node) mountedPlace(slash bool) place {
	return place{dirRef: n.mnt.dirRef, name: n.mnt.base, mnt: n.mnt, node: n, slash: slash}
}

// base is the container's root directory.
func (ns *namespace) base() base {
	b := base{dirRef: virtualDir, node: ns.root, mnt: ns.root.mnt, path: "/"}
	if b.mnt != nil {
		b.dirRef = b.mnt.dirRef
	}
	return b
}

// guestPath is where the last walk ended: what an open directory remembers, for
// links that point above it.
func (w *walk) guestPath() string {
	return path.Join(append(append([]string{w.start.path}, w.names...), w.tail)...)
}
