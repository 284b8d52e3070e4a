//go:build wasip1

package unix

import (
	"syscall"
	_ "unsafe" // for go:linkname
)

//go:linkname wasmpodFstatat syscall.wasmpodFstatat
func wasmpodFstatat(dirfd int, path string, st *syscall.Stat_t, follow bool) error

//go:linkname wasmpodMkdirat syscall.wasmpodMkdirat
func wasmpodMkdirat(dirfd int, path string, mode uint32) error

//go:linkname wasmpodFchmodat syscall.wasmpodFchmodat
func wasmpodFchmodat(dirfd int, path string, mode uint32, follow bool) error

//go:linkname wasmpodFchownat syscall.wasmpodFchownat
func wasmpodFchownat(dirfd int, path string, uid, gid int, follow bool) error

func Fstatat(dirfd int, path string, stat *syscall.Stat_t, flags int) error {
	return wasmpodFstatat(dirfd, path, stat, flags&AT_SYMLINK_NOFOLLOW == 0)
}

func Mkdirat(dirfd int, path string, mode uint32) error {
	if path == "" {
		return syscall.EINVAL
	}
	return wasmpodMkdirat(dirfd, path, mode)
}

func Fchmodat(dirfd int, path string, mode uint32, flags int) error {
	return wasmpodFchmodat(dirfd, path, mode, flags&AT_SYMLINK_NOFOLLOW == 0)
}

func Fchownat(dirfd int, path string, uid, gid int, flags int) error {
	return wasmpodFchownat(dirfd, path, uid, gid, flags&AT_SYMLINK_NOFOLLOW == 0)
}

func Fcntl(fd int, cmd int, arg int) (int, error) {
	switch cmd {
	case syscall.F_GETFL:
		flags, err := fd_fdstat_get_flags(fd)
		return int(flags), err
	case syscall.F_DUPFD_CLOEXEC:
		return syscall.Dup(fd)
	}
	return 0, syscall.ENOSYS
}
