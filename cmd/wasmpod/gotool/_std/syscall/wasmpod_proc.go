//go:build wasip1

package syscall

import (
	"structs"
	"unsafe"
)

// Who and where a process in a pod is, and signals: the host module "wasmpod"
// (docs/abi.md of wasmpod).

type hostIDs struct {
	_                    structs.HostLayout
	uid, gid, euid, egid uint32
}

//go:wasmimport wasmpod hostname_get
//go:noescape
func hostname_get(buf *byte, bufLen size, n *size) Errno

//go:wasmimport wasmpod ids_get
//go:noescape
func ids_get(ids *hostIDs) Errno

//go:wasmimport wasmpod groups_get
//go:noescape
func groups_get(groups *uint32, room size, n *size) Errno

//go:wasmimport wasmpod signal_open
//go:noescape
func signal_open(mask uint64, newfd *int32) Errno

//go:wasmimport wasmpod signal_mask
//go:noescape
func signal_mask(fd int32, mask uint64) Errno

//go:wasmimport wasi_snapshot_preview1 proc_raise
//go:noescape
func proc_raise(sig uint32) Errno

func Sysctl(key string) (string, error) {
	if key != "kern.hostname" {
		return "", ENOSYS
	}
	buf := make([]byte, 64)
	for {
		var n size
		errno := hostname_get(&buf[0], size(len(buf)), &n)
		switch {
		case errno == 0:
			return string(buf[:n]), nil
		case errno != ENAMETOOLONG || int(n) <= len(buf):
			return "", errno
		}
		buf = make([]byte, n)
	}
}

func ids() hostIDs {
	var ids hostIDs
	ids_get(&ids)
	return ids
}

func Getuid() int  { return int(ids().uid) }
func Getgid() int  { return int(ids().gid) }
func Geteuid() int { return int(ids().euid) }
func Getegid() int { return int(ids().egid) }

func Getgroups() ([]int, error) {
	var n size
	var none uint32
	if errno := groups_get(&none, 0, &n); errno != 0 && errno != EINVAL {
		return nil, errno
	}
	if n == 0 {
		return nil, nil
	}
	raw := make([]uint32, n)
	if errno := groups_get(&raw[0], n, &n); errno != 0 {
		return nil, errno
	}
	groups := make([]int, len(raw))
	for i, g := range raw {
		groups[i] = int(g)
	}
	return groups, nil
}

// Getpid is that of a container's first process: each has one.
func Getpid() int  { return 1 }
func Getppid() int { return 0 }

// Kill sends a signal to the process itself; there is no other.
func Kill(pid int, signum Signal) error {
	if pid != Getpid() && pid != 0 && pid != -1 {
		return ESRCH
	}
	if signum == 0 {
		return nil
	}
	return errnoErr(proc_raise(uint32(signum)))
}

// Signal descriptors have Linux's numbers; those of this package are WASI's,
// which lack 16.

func linuxSignal(s Signal) uint {
	if s >= 16 {
		return uint(s) + 1
	}
	return uint(s)
}

func hostMask(mask uint64) (m uint64) {
	for s := Signal(1); s <= SIGSYS; s++ {
		if mask&(1<<s) != 0 {
			m |= 1 << (linuxSignal(s) - 1)
		}
	}
	return m
}

// wasmpodSignalOpen opens a descriptor for the signals of a mask, in which bit n
// is signal n. It is accessed from os/signal.
//
//go:linkname wasmpodSignalOpen
func wasmpodSignalOpen(mask uint64) (int, error) {
	var fd int32
	if errno := signal_open(hostMask(mask), &fd); errno != 0 {
		return -1, errno
	}
	return int(fd), SetNonblock(int(fd), true)
}

// wasmpodSignalMask replaces a descriptor's mask. It is accessed from os/signal.
//
//go:linkname wasmpodSignalMask
func wasmpodSignalMask(fd int, mask uint64) error {
	return errnoErr(signal_mask(int32(fd), hostMask(mask)))
}

// wasmpodSignal makes a signal of what is read from a descriptor. It is accessed
// from os/signal.
//
//go:linkname wasmpodSignal
func wasmpodSignal(b [4]byte) Signal {
	n := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
	switch {
	case n < 16:
		return Signal(n)
	case n > 16 && n <= uint32(SIGSYS)+1:
		return Signal(n - 1)
	}
	return 0
}

// umask is of the process alone: the host has none.
var umask uint32 = 0o22

func Umask(mask int) int {
	old := umask
	umask = uint32(mask) & 0o777
	return int(old)
}

var _ unsafe.Pointer
