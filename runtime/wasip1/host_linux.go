package wasip1

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// searchFlags open a directory that may be searched but not read, too.
const searchFlags = unix.O_PATH

// futimens is not in x/sys for Linux: utimensat without a path.
func futimens(fd int, ts *[2]unix.Timespec) error {
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(ts)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func hostAllocate(fd int, offset, length int64) Errno {
	return retry(func() error { return unix.Fallocate(fd, 0, offset, length) })
}

// nextDirent cuts one entry off what hostReadDir read: struct linux_dirent64.
func nextDirent(buf []byte) (e dirent, rest []byte, ok bool) {
	const nameAt = 19
	if len(buf) < nameAt {
		return dirent{}, nil, false
	}
	n := int(binary.NativeEndian.Uint16(buf[16:]))
	if n < nameAt || n > len(buf) {
		return dirent{}, nil, false
	}
	name, _, _ := bytes.Cut(buf[nameAt:n], []byte{0})
	return dirent{
		ino:      binary.NativeEndian.Uint64(buf),
		filetype: fromDirentType(buf[18]),
		name:     string(name),
	}, buf[n:], true
}

// hostPin opens what name is, a link too, only to ask about it or to change its
// attributes.
func hostPin(dir int, name string) (fd int, errno Errno) {
	if errno := component(name); errno != 0 {
		return -1, errno
	}
	for {
		fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, toErrno(err)
		}
	}
}

// procPath names an open file, for calls that take no pinned descriptor. The
// kernel goes straight to the file, whatever has become of its name.
func procPath(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// hostOwner reads the owner that hostSetOwner has noted.
func hostOwner(fd int) (owner, bool) {
	var buf [32]byte
	n, err := unix.Getxattr(procPath(fd), ownerAttribute, buf[:])
	if err != nil {
		return owner{}, false
	}
	return parseOwner(string(buf[:n]))
}

// hostSetOwner changes the owner of an open or pinned file if this process may,
// and otherwise notes it. EPERM: neither works, as for links.
func hostSetOwner(fd int, o owner) Errno {
	if me.uid == 0 && unix.Fchownat(fd, "", int(o.uid), int(o.gid), unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW) == nil {
		_ = unix.Removexattr(procPath(fd), ownerAttribute) // what was noted before, if anything
		return 0
	}
	if unix.Setxattr(procPath(fd), ownerAttribute, []byte(o.String()), 0) != nil {
		return ErrnoPERM
	}
	return 0
}

// hostChmod changes the mode of an open or pinned file.
func hostChmod(fd int, mode uint32) Errno {
	return retry(func() error { return unix.Chmod(procPath(fd), mode) })
}

func hostStatfs(fd int) (statfs, Errno) {
	var st unix.Statfs_t
	errno := retry(func() error { return unix.Fstatfs(fd, &st) })
	return statfs{
		kind: uint64(st.Type), bsize: uint64(st.Bsize), blocks: st.Blocks, bfree: st.Bfree, bavail: st.Bavail,
		files: st.Files, ffree: st.Ffree, namelen: uint64(st.Namelen), readOnly: st.Flags&unix.ST_RDONLY != 0,
	}, errno
}

// hostCopyRange copies between files without the bytes passing through here,
// where their file system can; n is 0 and no error if not.
func hostCopyRange(from int, in *int64, to int, out *int64, length int) (n int, err error) {
	for {
		if n, err = unix.CopyFileRange(from, in, to, out, length, 0); err != unix.EINTR {
			break
		}
	}
	return max(n, 0), err
}
