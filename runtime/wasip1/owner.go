package wasip1

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
)

// owner is who a file belongs to, or who a guest is, as guests see it (SEC-04).
type owner struct{ uid, gid uint32 }

// keepID leaves an id of a chown as it is.
const keepID = 1<<32 - 1

// ownerAttribute keeps the owner, "uid:gid", of a file whose real owner wasmpod
// may not change.
const ownerAttribute = "user.wasmpod.owner"

func (o owner) String() string {
	return strconv.FormatUint(uint64(o.uid), 10) + ":" + strconv.FormatUint(uint64(o.gid), 10)
}

func parseOwner(s string) (owner, bool) {
	u, g, ok := strings.Cut(s, ":")
	uid, uerr := strconv.ParseUint(u, 10, 32)
	gid, gerr := strconv.ParseUint(g, 10, 32)
	return owner{uint32(uid), uint32(gid)}, ok && uerr == nil && gerr == nil
}

// me is who this process is for the host: for guests that is root.
var me = owner{uint32(os.Geteuid()), uint32(os.Getegid())}

// realOwner is that of the host, as guests see it.
func realOwner(st *filestat) owner {
	o := owner{st.uid, st.gid}
	if o.uid == me.uid {
		o.uid = 0
	}
	if o.gid == me.gid {
		o.gid = 0
	}
	return o
}

// ownerOf is the owner of an open or pinned file of the host.
func ownerOf(fd int, st *filestat) owner {
	if o, ok := hostOwner(fd); ok {
		return o
	}
	return realOwner(st)
}

// changeOwner is fchown(2), which wasmpod may carry out only in part.
func (p *Process) changeOwner(f pinned, uid, gid uint32) Errno {
	_, was, errno := f.stat()
	if errno != 0 {
		return errno
	}
	want := was
	if uid != keepID {
		want.uid = uid
	}
	if gid != keepID {
		want.gid = gid
	}
	if p.owner.uid != 0 {
		mine := want.gid == p.owner.gid || slices.Contains(p.groups, want.gid)
		if want.uid != was.uid || want.gid != was.gid && !(p.owner.uid == was.uid && mine) {
			return ErrnoPERM
		}
	}
	if want == was {
		return 0
	}
	return f.setOwner(want)
}

// changeMode is fchmod(2).
func (p *Process) changeMode(f pinned, mode uint32) Errno {
	const permissions, setUser, setGroup = 0o7777, 0o4000, 0o2000
	st, who, errno := f.stat()
	if errno != 0 {
		return errno
	}
	if p.owner.uid != 0 && p.owner.uid != who.uid {
		return ErrnoPERM
	}
	mode &= permissions &^ setUser
	if st.filetype != filetypeDirectory {
		mode &^= setGroup
	}
	return f.chmod(mode)
}

// statfs is what a guest learns about a file system.
type statfs struct {
	kind, bsize, blocks, bfree, bavail, files, ffree, namelen uint64
	readOnly                                                  bool
}

// pin is an open file as one whose attributes can be changed, and whether it lies
// in a read-only mount. It stays open; ok is false for what lies in no mount.
func pin(f file) (p pinned, readOnly, ok bool) {
	switch f := f.(type) {
	case *hostFile:
		return pinned{fd: f.fd}, f.mnt.readOnly, true
	case *overlayFile:
		return pinned{fd: fdOverlay, ov: f.o, n: f.n}, f.mnt.readOnly, true
	case *openDir:
		if f.at.fd != fdVirtual {
			return pinned{fd: f.at.fd, ov: f.at.ov, n: f.at.dir}, f.at.mnt.readOnly, true
		}
	}
	return pinned{fd: fdVirtual}, true, false
}

// pinned calls op with what a path names, to ask about it or to change its
// attributes. It returns false for what lies in no mount.
func (p *Process) pinned(ctx context.Context, b base, path string, f follow, op func(f pinned, at *place) Errno) (ok bool, errno Errno) {
	at, errno := p.walker(ctx).resolve(b, path, f)
	if errno != 0 {
		return true, errno
	}
	defer at.release()
	if _, errno := p.ns.stat(&at); errno != 0 {
		return true, errno
	}
	if at.isDevice() || at.virtual() {
		return false, 0
	}
	held, errno := at.pin(at.component())
	if errno != 0 {
		return true, errno
	}
	defer held.close()
	return true, op(held, &at)
}
