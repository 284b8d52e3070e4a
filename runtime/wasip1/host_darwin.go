package wasip1

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// searchFlags: without O_PATH a directory must be readable to be searched.
const searchFlags = unix.O_RDONLY

func futimens(fd int, ts *[2]unix.Timespec) error {
	return unix.Futimes(fd, []unix.Timeval{
		unix.NsecToTimeval(ts[0].Nano()),
		unix.NsecToTimeval(ts[1].Nano()),
	})
}

// hostAllocate only makes the file long enough; macOS has no way to reserve
// space that works on all of its file systems.
func hostAllocate(fd int, offset, length int64) Errno {
	st, errno := hostStat(fd)
	if errno != 0 || int64(st.size) >= offset+length {
		return errno
	}
	return retry(func() error { return unix.Ftruncate(fd, offset+length) })
}

// nextDirent cuts one entry off what hostReadDir read: struct dirent.
func nextDirent(buf []byte) (e dirent, rest []byte, ok bool) {
	const nameAt = 21
	if len(buf) < nameAt {
		return dirent{}, nil, false
	}
	n := int(binary.NativeEndian.Uint16(buf[16:]))
	nameLen := int(binary.NativeEndian.Uint16(buf[18:]))
	if n < nameAt || n > len(buf) || nameAt+nameLen > n {
		return dirent{}, nil, false
	}
	return dirent{
		ino:      binary.NativeEndian.Uint64(buf),
		filetype: fromDirentType(buf[20]),
		name:     string(buf[nameAt : nameAt+nameLen]),
	}, buf[n:], true
}

// hostPin opens what name is, a link too, only to ask about it or to change its
// attributes.
func hostPin(dir int, name string) (fd int, errno Errno) {
	if errno := component(name); errno != 0 {
		return -1, errno
	}
	for {
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_SYMLINK|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, toErrno(err)
		}
	}
}

// hostOwner: only real owners are known here.
func hostOwner(int) (owner, bool) { return owner{}, false }

func hostSetOwner(fd int, o owner) Errno {
	return retry(func() error { return unix.Fchown(fd, int(o.uid), int(o.gid)) })
}

func hostChmod(fd int, mode uint32) Errno {
	return retry(func() error { return unix.Fchmod(fd, mode) })
}

func hostStatfs(fd int) (statfs, Errno) {
	const nameMax = 255
	var st unix.Statfs_t
	errno := retry(func() error { return unix.Fstatfs(fd, &st) })
	return statfs{
		kind: uint64(st.Type), bsize: uint64(st.Bsize), blocks: st.Blocks, bfree: st.Bfree, bavail: st.Bavail,
		files: st.Files, ffree: st.Ffree, namelen: nameMax, readOnly: st.Flags&unix.MNT_RDONLY != 0,
	}, errno
}

// hostCopyRange: macOS copies whole files only.
func hostCopyRange(int, *int64, int, *int64, int) (int, error) { return 0, nil }
