package wasip1

import (
	"bytes"
	"encoding/binary"
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
