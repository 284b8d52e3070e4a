//go:build unix

package volume

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ownerAttribute is where guests' calls keep, and look for, the owner "uid:gid" of a
// file whose real one this process may not change. Root is who this process is.
const ownerAttribute = "user.wasmpod.owner"

func noteGroup(root *os.Root, name string, group int64) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.Fsetxattr(int(f.Fd()), ownerAttribute, fmt.Appendf(nil, "0:%d", group), 0)
}

// chownAt is chown for a name in an open directory.
func chownAt(fd int, name string, group int64) error {
	err := unix.Fchownat(fd, name, -1, int(group), unix.AT_SYMLINK_NOFOLLOW)
	if err == unix.EPERM || err == unix.EOPNOTSUPP || err == unix.EINVAL {
		if f, err := openAny(fd, name); err == nil {
			_ = unix.Fsetxattr(f, ownerAttribute, fmt.Appendf(nil, "0:%d", group), 0)
			unix.Close(f)
		}
		return nil
	}
	return err
}

// chmodAt changes the mode of a name in an open directory, and of nothing that a link
// of that name leads to.
func chmodAt(fd int, name string, mode uint32) error {
	err := unix.Fchmodat(fd, name, mode, unix.AT_SYMLINK_NOFOLLOW)
	if err != unix.EOPNOTSUPP {
		return err
	}
	f, err := openAny(fd, name) // Linux before 6.6
	if err != nil {
		return err
	}
	defer unix.Close(f)
	return unix.Fchmod(f, mode)
}

func openAny(fd int, name string) (int, error) {
	return unix.Openat(fd, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}
