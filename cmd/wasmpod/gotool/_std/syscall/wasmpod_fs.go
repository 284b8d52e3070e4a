//go:build wasip1

package syscall

import (
	"structs"
	"unsafe"
)

// Files with modes and owners: the host module "wasmpod" (docs/abi.md of
// wasmpod).

type hostStat struct {
	_                structs.HostLayout
	dev, ino         uint64
	mode, uid, gid   uint32
	blksize          uint32
	nlink, rdev      uint64
	size, blocks     uint64
	atim, mtim, ctim uint64
}

type hostStatfs struct {
	_                                 structs.HostLayout
	typ, bsize, blocks, bfree, bavail uint64
	files, ffree, namelen, flags      uint64
}

//go:wasmimport wasmpod fd_stat_get
//go:noescape
func fd_stat_get(fd int32, stat *hostStat) Errno

//go:wasmimport wasmpod path_stat_get
//go:noescape
func path_stat_get(fd int32, flags lookupflags, path *byte, pathLen size, stat *hostStat) Errno

//go:wasmimport wasmpod fd_chmod
//go:noescape
func fd_chmod(fd int32, mode uint32) Errno

//go:wasmimport wasmpod path_chmod
//go:noescape
func path_chmod(fd int32, flags lookupflags, path *byte, pathLen size, mode uint32) Errno

//go:wasmimport wasmpod fd_chown
//go:noescape
func fd_chown(fd int32, uid, gid int32) Errno

//go:wasmimport wasmpod path_chown
//go:noescape
func path_chown(fd int32, flags lookupflags, path *byte, pathLen size, uid, gid int32) Errno

//go:wasmimport wasmpod fd_statfs_get
//go:noescape
func fd_statfs_get(fd int32, statfs *hostStatfs) Errno

//go:wasmimport wasmpod path_statfs_get
//go:noescape
func path_statfs_get(fd int32, flags lookupflags, path *byte, pathLen size, statfs *hostStatfs) Errno

//go:wasmimport wasmpod fd_dup
//go:noescape
func fd_dup(fd int32, newfd *int32) Errno

// Stat_t begins as preview 1's filestat does: parts of this package have the
// host fill it.
type Stat_t struct {
	Dev      uint64
	Ino      uint64
	Filetype uint8
	Nlink    uint64
	Size     uint64
	Atime    uint64
	Mtime    uint64
	Ctime    uint64

	Mode int // type and permission bits, as on Linux

	Uid uint32
	Gid uint32

	Rdev    uint64
	Blksize int64
	Blocks  int64
}

func (st *Stat_t) set(h *hostStat) {
	*st = Stat_t{
		Dev: h.dev, Ino: h.ino, Nlink: h.nlink, Size: h.size,
		Atime: h.atim, Mtime: h.mtim, Ctime: h.ctim,
		Mode: int(h.mode), Uid: h.uid, Gid: h.gid,
		Rdev: h.rdev, Blksize: int64(h.blksize), Blocks: int64(h.blocks),
	}
	switch st.Mode & 0170000 {
	case S_IFBLK:
		st.Filetype = FILETYPE_BLOCK_DEVICE
	case S_IFCHR:
		st.Filetype = FILETYPE_CHARACTER_DEVICE
	case S_IFDIR:
		st.Filetype = FILETYPE_DIRECTORY
	case S_IFREG:
		st.Filetype = FILETYPE_REGULAR_FILE
	case S_IFLNK:
		st.Filetype = FILETYPE_SYMBOLIC_LINK
	case S_IFSOCK:
		st.Filetype = FILETYPE_SOCKET_STREAM
	}
}

func statAt(dirFd int32, flags lookupflags, path *byte, pathLen size, st *Stat_t) error {
	var h hostStat
	if errno := path_stat_get(dirFd, flags, path, pathLen, &h); errno != 0 {
		return errno
	}
	st.set(&h)
	return nil
}

func Stat(path string, st *Stat_t) error {
	if path == "" {
		return EINVAL
	}
	dirFd, pathPtr, pathLen := preparePath(path)
	return statAt(dirFd, LOOKUP_SYMLINK_FOLLOW, pathPtr, pathLen, st)
}

func Lstat(path string, st *Stat_t) error {
	if path == "" {
		return EINVAL
	}
	dirFd, pathPtr, pathLen := preparePath(path)
	return statAt(dirFd, 0, pathPtr, pathLen, st)
}

func Fstat(fd int, st *Stat_t) error {
	var h hostStat
	if errno := fd_stat_get(int32(fd), &h); errno != 0 {
		return errno
	}
	st.set(&h)
	return nil
}

// The host makes files with 0666 and directories with 0777, less its own umask.
const hostUmask = 0o22

// Open makes a file with the permission bits that are asked for. Preview 1 has
// no place for them: they are set after a file was made, and only then.
func openMode(dirFd int32, pathPtr *byte, pathLen size, openmode int, perm uint32) (int, error) {
	want := perm & 0o7777 &^ umask
	if openmode&O_CREATE == 0 || want == 0o666&^hostUmask {
		return openat(dirFd, pathPtr, pathLen, openmode, perm)
	}
	for range 2 {
		fd, err := openat(dirFd, pathPtr, pathLen, openmode|O_EXCL, perm)
		if err == nil {
			if errno := fd_chmod(int32(fd), want); errno != 0 && errno != ENOTSUP && errno != EPERM {
				Close(fd)
				return -1, errno
			}
			return fd, nil
		}
		if err != EEXIST || openmode&O_EXCL != 0 {
			return fd, err
		}
		// It is there, or is a link to nowhere. Without O_CREATE first: a file
		// that vanishes in between is made again above.
		fd, err = openat(dirFd, pathPtr, pathLen, openmode&^O_CREATE, perm)
		if err != ENOENT {
			return fd, err
		}
	}
	return openat(dirFd, pathPtr, pathLen, openmode, perm)
}

func Open(path string, openmode int, perm uint32) (int, error) {
	if path == "" {
		return -1, EINVAL
	}
	dirFd, pathPtr, pathLen := preparePath(path)
	return openMode(dirFd, pathPtr, pathLen, openmode, perm)
}

func Openat(dirFd int, path string, openmode int, perm uint32) (int, error) {
	return openMode(int32(dirFd), unsafe.StringData(path), size(len(path)), openmode, perm)
}

func mkdirat(dirFd int32, pathPtr *byte, pathLen size, perm uint32) error {
	if errno := path_create_directory(dirFd, pathPtr, pathLen); errno != 0 {
		return errno
	}
	want := perm & 0o1777 &^ umask
	if want == 0o777&^hostUmask {
		return nil
	}
	if errno := path_chmod(dirFd, 0, pathPtr, pathLen, want); errno != 0 && errno != ENOTSUP && errno != EPERM {
		return errno
	}
	return nil
}

func Mkdir(path string, perm uint32) error {
	if path == "" {
		return EINVAL
	}
	dirFd, pathPtr, pathLen := preparePath(path)
	return mkdirat(dirFd, pathPtr, pathLen, perm)
}

func Chmod(path string, mode uint32) error {
	if path == "" {
		return EINVAL
	}
	dirFd, pathPtr, pathLen := preparePath(path)
	return errnoErr(path_chmod(dirFd, LOOKUP_SYMLINK_FOLLOW, pathPtr, pathLen, mode&0o7777))
}

func Fchmod(fd int, mode uint32) error {
	return errnoErr(fd_chmod(int32(fd), mode&0o7777))
}

func Chown(path string, uid, gid int) error {
	if path == "" {
		return EINVAL
	}
	dirFd, pathPtr, pathLen := preparePath(path)
	return errnoErr(path_chown(dirFd, LOOKUP_SYMLINK_FOLLOW, pathPtr, pathLen, int32(uid), int32(gid)))
}

func Lchown(path string, uid, gid int) error {
	if path == "" {
		return EINVAL
	}
	dirFd, pathPtr, pathLen := preparePath(path)
	return errnoErr(path_chown(dirFd, 0, pathPtr, pathLen, int32(uid), int32(gid)))
}

func Fchown(fd int, uid, gid int) error {
	return errnoErr(fd_chown(int32(fd), int32(uid), int32(gid)))
}

// Statfs_t is what Statfs knows of a file system. Flags has 1 for read-only.
type Statfs_t struct {
	Type    int64
	Bsize   int64
	Blocks  uint64
	Bfree   uint64
	Bavail  uint64
	Files   uint64
	Ffree   uint64
	Namelen int64
	Flags   int64
}

func (st *Statfs_t) set(h *hostStatfs) {
	*st = Statfs_t{
		Type: int64(h.typ), Bsize: int64(h.bsize), Blocks: h.blocks, Bfree: h.bfree, Bavail: h.bavail,
		Files: h.files, Ffree: h.ffree, Namelen: int64(h.namelen), Flags: int64(h.flags),
	}
}

func Statfs(path string, st *Statfs_t) error {
	if path == "" {
		return EINVAL
	}
	dirFd, pathPtr, pathLen := preparePath(path)
	var h hostStatfs
	if errno := path_statfs_get(dirFd, LOOKUP_SYMLINK_FOLLOW, pathPtr, pathLen, &h); errno != 0 {
		return errno
	}
	st.set(&h)
	return nil
}

func Fstatfs(fd int, st *Statfs_t) error {
	var h hostStatfs
	if errno := fd_statfs_get(int32(fd), &h); errno != 0 {
		return errno
	}
	st.set(&h)
	return nil
}

func Dup(fd int) (int, error) {
	var newfd int32
	if errno := fd_dup(int32(fd), &newfd); errno != 0 {
		return -1, errno
	}
	return int(newfd), nil
}

const pipeSize = 64 << 10

// Pipe makes a pipe of a connection over the pod's localhost: preview 1 has no
// pipes.
func Pipe(p []int) error {
	if len(p) != 2 {
		return EINVAL
	}
	l, err := Socket(AF_INET, SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	defer Close(l)
	if err := Bind(l, &SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := Listen(l, 1); err != nil {
		return err
	}
	at, err := Getsockname(l)
	if err != nil {
		return err
	}
	w, err := Socket(AF_INET, SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err = Connect(w, at); err != nil {
		Close(w)
		return err
	}
	// Whoever else in the pod has connected meanwhile is not our other end.
	mine, err := Getsockname(w)
	if err != nil {
		Close(w)
		return err
	}
	for {
		r, peer, err := Accept(l)
		if err != nil {
			Close(w)
			return err
		}
		a, _ := mine.(*SockaddrInet4)
		b, _ := peer.(*SockaddrInet4)
		if a == nil || b == nil || *a != *b {
			Close(r)
			continue
		}
		Shutdown(r, SHUT_WR)
		Shutdown(w, SHUT_RD)
		// As much room as a pipe has on Linux, and EPIPE for the first write
		// after the reader has gone.
		SetsockoptInt(r, SOL_SOCKET, SO_RCVBUF, pipeSize)
		SetsockoptInt(w, SOL_SOCKET, SO_SNDBUF, pipeSize)
		SetsockoptLinger(r, SOL_SOCKET, SO_LINGER, &Linger{Onoff: 1})
		SetNonblock(r, false)
		p[0], p[1] = r, w
		return nil
	}
}

// The rest is for internal/syscall/unix.

//go:linkname wasmpodFstatat
func wasmpodFstatat(dirfd int, path string, st *Stat_t, follow bool) error {
	var flags lookupflags
	if follow {
		flags = LOOKUP_SYMLINK_FOLLOW
	}
	return statAt(int32(dirfd), flags, unsafe.StringData(path), size(len(path)), st)
}

//go:linkname wasmpodMkdirat
func wasmpodMkdirat(dirfd int, path string, mode uint32) error {
	return mkdirat(int32(dirfd), unsafe.StringData(path), size(len(path)), mode)
}

//go:linkname wasmpodFchmodat
func wasmpodFchmodat(dirfd int, path string, mode uint32, follow bool) error {
	var flags lookupflags
	if follow {
		flags = LOOKUP_SYMLINK_FOLLOW
	}
	return errnoErr(path_chmod(int32(dirfd), flags, unsafe.StringData(path), size(len(path)), mode&0o7777))
}

//go:linkname wasmpodFchownat
func wasmpodFchownat(dirfd int, path string, uid, gid int, follow bool) error {
	var flags lookupflags
	if follow {
		flags = LOOKUP_SYMLINK_FOLLOW
	}
	return errnoErr(path_chown(int32(dirfd), flags, unsafe.StringData(path), size(len(path)), int32(uid), int32(gid)))
}
